//! The bounded form of ASOF joins: both sides in one order, and for each row of the left side the last row of the right
//! side before it.
//!
//! ```text
//! left  ─► keys, tick, side, (left row), NULL  ─┐        per key, ordered by tick, side, values:
//! right ─► keys, tick, side, NULL, (right row) ─┴► union ─► last right row so far ─► rows of the left side
//! ```
//! The window function sorts: the underlying engine plans sorts of a union incorrectly if one side is constant.
//!
//! The ticks of the right side are shifted by the bound, so that a row counts from its tick on. For later rows the order
//! is reversed; for both directions the ticks are not shifted, and the nearer of the two neighbours of each row is taken.
//! This is written independently of the operator, which is tested against it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Column, Result, ScalarValue, internal_err};
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, PartitionEvaluator, Signature,
    Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowUDF, WindowUDFImpl, cast,
    lit, when,
};

use super::asof::AsofJoin;

/// Columns of the union, and those added to it.
const TICK: &str = "__tick";
const IS_LEFT: &str = "__is_left";
const LEFT_ROW: &str = "__left";
const RIGHT_ROW: &str = "__right";
const FOUND: &str = "__found";

/// The join as ordinary nodes, with the same columns.
pub(crate) fn lower(join: &AsofJoin, left: LogicalPlan, right: LogicalPlan) -> Result<LogicalPlan> {
    let (left_columns, right_columns) = (left.schema().columns(), right.schema().columns());
    let schema = Arc::clone(join.columns());
    let [left_time, right_time] = join.times.clone().map(Expr::Column);
    let look = match join.bounds.around() {
        Some((lower, upper)) => Look::Around { lower, upper },
        None if join.bounds.look_back() => Look::Back,
        None => Look::Forward,
    };
    // `left - right` is at least this (backward) or at most this (forward).
    let nearest = match look {
        Look::Back => join.bounds.lower,
        Look::Forward => join.bounds.upper,
        Look::Around { .. } => None,
    };
    let left_rows = Side {
        keys: join.on.iter().map(|(key, _)| key.clone()).collect(),
        tick: cast(left_time, DataType::Int64),
        is_left: true,
    };
    let right_rows = Side {
        keys: join.on.iter().map(|(_, key)| key.clone()).collect(),
        tick: cast(right_time, DataType::Int64) + lit(nearest.unwrap_or(0)),
        is_left: false,
    };
    let left_row = row(&left_columns, None);
    let right_row = row(&right_columns, Some(&right_rows.tick));
    let no_left = lit(ScalarValue::try_new_null(&left_row.get_type(left.schema())?)?);
    let no_right = lit(ScalarValue::try_new_null(&right_row.get_type(right.schema())?)?);
    let tick = right_rows.tick.clone();
    let mut right = LogicalPlanBuilder::from(right).filter(tick.is_not_null())?;
    for key in &right_rows.keys {
        right = right.filter(key.clone().is_not_null())?;
    }
    let right = right_rows.project(right, no_left, right_row)?;
    let left = left_rows.project(LogicalPlanBuilder::from(left), left_row, no_right)?;
    let both = LogicalPlanBuilder::from(left).union(right)?;
    let found = closest_row(join, look);
    let rows = both.window([found])?.filter(column(IS_LEFT))?;
    let found = column(FOUND);
    // The row found is the nearest one; its tick says whether it is within the bounds.
    let distance = column(TICK) - get_field(found.clone(), TICK);
    let moved = nearest.unwrap_or(0);
    // The tick of the row found has been shifted.
    let near = match (look, join.bounds.lower, join.bounds.upper) {
        (Look::Back, _, Some(far)) => distance.lt_eq(lit(far.saturating_sub(moved))),
        (Look::Forward, Some(far), _) => distance.gt_eq(lit(far.saturating_sub(moved))),
        _ => found.clone().is_not_null(),
    };
    let rows = if join.is_outer { rows } else { rows.filter(near.clone())? };
    let mut exprs = vec![];
    let fields = (0..left_columns.len()).map(|i| get_field(column(LEFT_ROW), name(i)));
    exprs.extend(fields);
    for i in 0..right_columns.len() {
        let value = get_field(found.clone(), name(i));
        exprs.push(match join.is_outer {
            true => when(near.clone(), value).end()?,
            false => value,
        });
    }
    let columns = exprs.into_iter().zip(schema.iter());
    let columns =
        columns.map(|(expr, (of, field))| expr.alias_qualified(of.cloned(), field.name()));
    rows.project(columns.collect::<Vec<_>>())?.build()
}

/// One side of the union.
struct Side {
    keys: Vec<Expr>,
    tick: Expr,
    is_left: bool,
}

impl Side {
    fn project(
        self,
        rows: LogicalPlanBuilder,
        left_row: Expr,
        right_row: Expr,
    ) -> Result<LogicalPlan> {
        let keys = self.keys.into_iter().enumerate().map(|(i, key)| key.alias(key_name(i)));
        let others = [
            self.tick.alias(TICK),
            lit(self.is_left).alias(IS_LEFT),
            left_row.alias(LEFT_ROW),
            right_row.alias(RIGHT_ROW),
        ];
        rows.project(keys.chain(others).collect::<Vec<_>>())?.build()
    }
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

fn key_name(index: usize) -> String {
    format!("__k{index}")
}

fn name(index: usize) -> String {
    format!("c{index}")
}

/// A row as a single value, with its tick.
fn row(columns: &[Column], tick: Option<&Expr>) -> Expr {
    let tick = tick.into_iter().flat_map(|tick| [lit(TICK), tick.clone()]);
    let parts = columns.iter().enumerate();
    let parts = parts.flat_map(|(i, column)| [lit(name(i)), Expr::Column(column.clone())]);
    named_struct(tick.chain(parts).collect())
}

/// The direction in which the row of the right side is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Look {
    Back,
    Forward,
    /// In both directions, within the bounds of `left - right`.
    Around {
        lower: i64,
        upper: i64,
    },
}

/// The closest row of the right side, among the rows of a key.
fn closest_row(join: &AsofJoin, look: Look) -> Expr {
    let signature = Signature::any(3, Volatility::Immutable);
    let call = WindowFunction {
        fun: Arc::new(WindowUDF::new_from_impl(ClosestRow { look, signature })).into(),
        params: WindowFunctionParams {
            args: vec![column(TICK), column(IS_LEFT), column(RIGHT_ROW)],
            partition_by: (0..join.on.len()).map(|i| column(&key_name(i))).collect(),
            order_by: vec![],
            window_frame: WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                WindowFrameBound::Following(ScalarValue::UInt64(None)),
            ),
            filter: None,
            null_treatment: None,
            distinct: false,
        },
    };
    Expr::WindowFunction(Box::new(call)).alias(FOUND)
}

/// The closest value that is not NULL, for each row.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ClosestRow {
    look: Look,
    signature: Signature,
}

impl WindowUDFImpl for ClosestRow {
    fn name(&self) -> &'static str {
        "closest_row"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Closest { look: self.look }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        match args.input_fields() {
            [_, _, row] => Ok(Arc::new(Field::new(args.name(), row.data_type().clone(), true))),
            _ => internal_err!("the closest row is a function of ticks, sides and rows"),
        }
    }
}

#[derive(Debug)]
struct Closest {
    look: Look,
}

impl PartitionEvaluator for Closest {
    fn evaluate_all(&mut self, values: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
        let [ticks, sides, rows] = values else {
            return internal_err!("the closest row is a function of ticks, sides and rows");
        };
        let ascending = SortOptions { descending: false, nulls_first: true };
        // NULL, which has nothing before or after it, comes first.
        let by_tick = SortOptions { descending: self.look == Look::Forward, nulls_first: true };
        let mut order = vec![SortColumn { values: Arc::clone(ticks), options: Some(by_tick) }];
        let others =
            std::iter::once(sides).chain(rows.as_struct_opt().map_or(&[][..], |r| r.columns()));
        order.extend(
            others
                .map(|values| SortColumn { values: Arc::clone(values), options: Some(ascending) }),
        );
        let order = lexsort_to_indices(&order, None)?;
        let mut places: Vec<Option<u32>> = vec![None; rows.len()];
        let mut last = None;
        for row in order.values() {
            if rows.is_valid(*row as usize) {
                last = Some(*row);
            }
            if let Some(place) = places.get_mut(*row as usize) {
                *place = last;
            }
        }
        if let Look::Around { lower, upper } = self.look {
            nearer(&mut places, (ticks, rows), order.values(), (lower, upper))?;
        }
        Ok(take(rows, &UInt32Array::from(places), None)?)
    }
}

/// Replaces the previous row of the right side by the next one where that is nearer; by NULL where neither is within
/// the bounds.
fn nearer(
    places: &mut [Option<u32>],
    (ticks, rows): (&ArrayRef, &ArrayRef),
    order: &[u32],
    (lower, upper): (i64, i64),
) -> Result<()> {
    let Some(ticks) = ticks.as_primitive_opt::<Int64Type>() else {
        return internal_err!("the ticks of an ASOF join are no integers");
    };
    let mut next: Option<u32> = None;
    // Of the rows of one tick, the one with the greatest values comes last.
    for row in order.iter().rev() {
        let own = ticks.value(*row as usize);
        if rows.is_valid(*row as usize) {
            if next.is_none_or(|next| ticks.value(next as usize) != own) {
                next = Some(*row);
            }
            continue;
        }
        let Some(place) = places.get_mut(*row as usize) else { continue };
        let distance = |row: &u32| own.abs_diff(ticks.value(*row as usize));
        let has_time = ticks.is_valid(*row as usize);
        let before = place.filter(|row| has_time && distance(row) <= upper.unsigned_abs());
        let after = next.filter(|row| has_time && distance(row) <= lower.unsigned_abs());
        *place = match (before, after) {
            (Some(before), Some(after)) if distance(&after) < distance(&before) => Some(after),
            (Some(before), _) => Some(before),
            (None, after) => after,
        };
    }
    Ok(())
}
