//! Turns joins that the parser has marked into [`AsofJoin`] nodes.
//!
//! A marker is a call in ON ([`crate::functions`]): `a JOIN b ON "$asof"(a.ts >= b.ts) AND a.k = b.k`, or
//! `"$as_of"(a.ts)` for `FOR SYSTEM_TIME AS OF a.ts`. It is removed as soon as the statement has been planned, before
//! anything else reads the plan.
//!
//! Invariant: no condition is dropped; one that is neither a bound of the times nor a pair of equal keys is refused.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError, JoinType, Result};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, Join, LogicalPlan, Operator};
use windrow_core::{Error, time};

use super::asof::{AsofJoin, Bounds};
use super::interval::{self, Bound, Time};
use super::known::Known;
use super::lineage;
use super::shape::refused;
use crate::diagnostics::place_of;
use crate::functions::{AS_OF, ASOF};

/// Replaces marked joins by nodes.
///
/// # Errors
/// When a condition is not allowed in an ASOF join.
pub(crate) fn decide(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut marked = false;
    plan.apply_with_subqueries(|node| {
        marked |= node.expressions().iter().any(is_marked);
        Ok(if marked { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if !marked {
        return Ok(plan);
    }
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if join.filter.as_ref().is_some_and(is_marked) => {
            Ok(Transformed::yes(of_join(&join)?.into_plan()))
        }
        node => match node.expressions().iter().find(|expr| is_marked(expr)) {
            Some(condition) => Err(misplaced(condition)),
            None => Ok(Transformed::no(node)),
        },
    })
    .data()
}

/// The arguments of a marker, if the expression is one.
fn marker(expr: &Expr) -> Option<(&str, &[Expr])> {
    match expr {
        Expr::ScalarFunction(call) => {
            let name = [ASOF, AS_OF].into_iter().find(|name| *name == call.func.name())?;
            Some((name, &call.args))
        }
        _ => None,
    }
}

fn misplaced(condition: &Expr) -> DataFusionError {
    let error = Error::sql("the condition of an ASOF join must be at the top level of ON");
    let error = error.with_hint(
        "Write it in ON, beside other conditions with AND: a ASOF JOIN b ON a.k = b.k AND a.ts >= b.ts.",
    );
    refused(placed(error, condition))
}

fn is_marked(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(marker(expr).is_some())).unwrap_or(false)
}

/// The conditions of a marked join.
#[derive(Default)]
struct Conditions {
    on: Vec<(Expr, Expr)>,
    bounds: Vec<Bound>,
    /// The time as of which versions are read.
    as_of: Option<Expr>,
}

fn of_join(join: &Join) -> Result<AsofJoin> {
    let is_outer = match join.join_type {
        JoinType::Inner => false,
        JoinType::Left => true,
        other => {
            let error = Error::sql(format!("{other} ASOF JOIN is not supported"));
            let hint = "Use ASOF JOIN or ASOF LEFT JOIN, with the sides the other way round.";
            return Err(of_conditions(join, error.with_hint(hint)));
        }
    };
    let mut found = Conditions::default();
    for condition in join.filter.iter().flat_map(split_conjunction) {
        match marker(condition) {
            Some((AS_OF, [time])) => found.as_of = Some(time.clone()),
            Some((_, args)) => {
                for condition in args.iter().flat_map(split_conjunction) {
                    read(join, condition, &mut found)?;
                }
            }
            None if is_marked(condition) => return Err(misplaced(condition)),
            None => read(join, condition, &mut found)?,
        }
    }
    found.on.extend(join.on.iter().cloned());
    let times = match found.as_of.take() {
        Some(time) => as_of(join, time, &found.bounds)?,
        None => closest(&found.bounds),
    };
    let (times, bounds) = times.map_err(|error| of_conditions(join, error))?;
    let sides = [join.left.as_ref().clone(), join.right.as_ref().clone()];
    AsofJoin::try_new(sides, found.on, times, bounds, is_outer)
}

/// Adds a condition: a bound of the times or equal keys.
fn read(join: &Join, condition: &Expr, found: &mut Conditions) -> Result<()> {
    let bounds = match condition {
        // Times may be equal keys.
        Expr::BinaryExpr(BinaryExpr { op: Operator::Eq, .. }) => vec![],
        other => {
            let (left, right) = (timestamps(&join.left), timestamps(&join.right));
            interval::bounds_of(other, (&join.left, &left), (&join.right, &right))
        }
    };
    if !bounds.is_empty() {
        found.bounds.extend(bounds);
        return Ok(());
    }
    if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition {
        let of = |expr: &Expr, plan: &LogicalPlan| {
            let columns = expr.column_refs();
            !columns.is_empty() && columns.iter().all(|column| plan.schema().has_column(column))
        };
        let pair = if of(left, &join.left) && of(right, &join.right) {
            Some((left, right))
        } else if of(right, &join.left) && of(left, &join.right) {
            Some((right, left))
        } else {
            None
        };
        if let Some((left, right)) = pair {
            found.on.push(of_one_type(join, left, right)?);
            return Ok(());
        }
    }
    let e = Error::sql(format!("an ASOF join cannot have the condition {condition}"));
    let hint = "Its conditions are equal keys (a.k = b.k) and the order of two timestamps of the same precision (a.ts >= b.ts, \
                and a.ts <= b.ts + INTERVAL '1 minute'), with AND. Conditions of one side go into a subquery.";
    Err(refused(placed(e.with_hint(hint), condition)))
}

/// An error about all conditions of a join.
fn of_conditions(join: &Join, error: Error) -> DataFusionError {
    refused(match &join.filter {
        Some(conditions) => placed(error, conditions),
        None => error,
    })
}

fn placed(error: Error, condition: &Expr) -> Error {
    // column_refs has no order.
    let columns = condition.column_refs().into_iter();
    let places = columns.filter_map(|column| place_of(column.spans().first()?));
    match places.min_by_key(|place| (place.line, place.column)) {
        Some(place) => error.with_place(place),
        None => error,
    }
}

/// Both keys, cast to a type in which they can be compared.
fn of_one_type(join: &Join, left: &Expr, right: &Expr) -> Result<(Expr, Expr)> {
    let (of_left, of_right) =
        (left.get_type(join.left.schema())?, right.get_type(join.right.schema())?);
    if of_left == of_right {
        return Ok((left.clone(), right.clone()));
    }
    let Some(common) = comparison_coercion(&of_left, &of_right) else {
        return Err(refused(placed(
            Error::sql(format!("{left} ({of_left}) cannot be compared with {right} ({of_right})"))
                .with_hint("Cast one of them to the type of the other."),
            left,
        )));
    };
    Ok((
        left.clone().cast_to(&common, join.left.schema())?,
        right.clone().cast_to(&common, join.right.schema())?,
    ))
}

/// All columns that are timestamps, as if they were event times: the bounded form can compare any.
fn timestamps(plan: &LogicalPlan) -> Vec<Known> {
    let fields = plan.schema().fields().iter();
    let known = fields.map(|field| {
        let is_time = time::time_unit(field.data_type()).is_some();
        Known { to_end: None, lag: is_time.then_some(0) }
    });
    known.collect()
}

/// The times that an ASOF join compares, and its bounds.
type Times = Result<([Column; 2], Bounds), Error>;

/// The times of an ASOF join, and its bounds.
fn closest(bounds: &[Bound]) -> Times {
    let Some(first) = bounds.first() else {
        return Err(
            Error::sql("an ASOF join needs the order of two timestamps").with_hint(
                "Add it: … AND a.ts >= b.ts for the latest row of b before, a.ts <= b.ts for the next one.",
            ),
        );
    };
    let same =
        |of: &Bound| of.left.column == first.left.column && of.right.column == first.right.column;
    if let Some(other) = bounds.iter().find(|bound| !same(bound)) {
        return Err(Error::sql(format!(
            "an ASOF join compares \"{}\" with \"{}\", and also \"{}\" with \"{}\"",
            first.left.column, first.right.column, other.left.column, other.right.column
        ))
        .with_hint("It has one time on each side."));
    }
    let found = Bounds {
        lower: bounds.iter().filter_map(|bound| bound.lower).max(),
        upper: bounds.iter().filter_map(|bound| bound.upper).min(),
    };
    if !found.look_back() && found.upper.is_none_or(|upper| upper > 0) && found.around().is_none() {
        return Err(
            Error::sql(format!(
                "an ASOF join looks for an earlier or for a later row, but \"{}\" may be on both sides of \"{}\"",
                first.right.column, first.left.column
            ))
            .with_hint(
                "Compare the times themselves: a.ts >= b.ts or a.ts <= b.ts; or give a tolerance in both directions for the nearest row: \
                 a.ts BETWEEN b.ts - INTERVAL '5 seconds' AND b.ts + INTERVAL '5 seconds'.",
            ),
        );
    }
    Ok(([first.left.column.clone(), first.right.column.clone()], found))
}

/// The times of a join with the versions of a stream as of a time.
fn as_of(join: &Join, time: Expr, bounds: &[Bound]) -> Result<Times> {
    let Expr::Column(left) = time else {
        let e = Error::sql(format!("FOR SYSTEM_TIME AS OF takes a column, not {time}"));
        return Ok(Err(e.with_hint("Write FOR SYSTEM_TIME AS OF a.ts.")));
    };
    let known = lineage::columns(&join.right)?;
    let times = known.iter().enumerate().filter(|(_, known)| known.lag.is_some());
    let columns: Vec<Column> =
        times.map(|(i, _)| Column::from(join.right.schema().qualified_field(i))).collect();
    let [right] = columns.as_slice() else {
        return Ok(Err(
            Error::sql(match columns.len() {
                0 => "FOR SYSTEM_TIME AS OF needs a stream, whose rows are versions by their event time".to_owned(),
                _ => "FOR SYSTEM_TIME AS OF of a relation with several event times is ambiguous".to_owned(),
            })
            .with_hint("Use ASOF JOIN … AND a.ts >= b.ts with the time that is meant; a table that does not change needs only JOIN."),
        ));
    };
    if !bounds.is_empty() {
        return Ok(Err(
            Error::sql("FOR SYSTEM_TIME AS OF says which version counts: ON can have no further order of times")
                .with_hint("Use ASOF JOIN for a tolerance."),
        ));
    }
    let type_of = |plan: &LogicalPlan, column: &Column| {
        let index = plan.schema().maybe_index_of_column(column)?;
        interval::unit_of(plan, &Time { column: column.clone(), index, lag_ticks: 0 })
    };
    if type_of(&join.left, &left).is_none()
        || type_of(&join.left, &left) != type_of(&join.right, right)
    {
        return Ok(Err(Error::sql(format!(
            "\"{left}\" and \"{right}\" are not timestamps of the same precision"
        ))
        .with_hint("Cast the time columns to the same timestamp type.")));
    }
    Ok(Ok(([left, right.clone()], Bounds { lower: Some(0), upper: None })))
}
