//! The range of times in a relation, as far as it follows from conditions with constants: `ts >= TIMESTAMP '…'`.
//!
//! Invariant: no row is outside of the range; NULL is possible.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};

use super::assign::WindowAssign;

/// The first and the last value of a column; `None`: unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: Option<i64>,
    pub(crate) last: Option<i64>,
}

impl Range {
    fn from(first: Option<i64>) -> Self {
        Self { first, last: None }
    }

    fn until(last: Option<i64>) -> Self {
        Self { first: None, last }
    }

    fn and(self, other: Self) -> Self {
        Self {
            first: self.first.into_iter().chain(other.first).max(),
            last: self.last.into_iter().chain(other.last).min(),
        }
    }
}

/// The range of a column of timestamps.
#[recursive::recursive]
pub(crate) fn of_column(plan: &LogicalPlan, column: &Column) -> Range {
    let below = |input: &LogicalPlan, index: Option<usize>| match index {
        Some(i) if i < input.schema().fields().len() => {
            of_column(input, &Column::from(input.schema().qualified_field(i)))
        }
        _ => Range::default(),
    };
    let index = plan.schema().maybe_index_of_column(column);
    match plan {
        LogicalPlan::TableScan(scan) => of_conditions(scan.filters.iter(), plan, column),
        LogicalPlan::Filter(filter) => {
            let conditions = split_conjunction(&filter.predicate).into_iter();
            of_conditions(conditions, plan, column).and(below(&filter.input, index))
        }
        LogicalPlan::Projection(projection) => {
            let mut expr = index.and_then(|i| projection.expr.get(i));
            while let Some(Expr::Alias(alias)) = expr {
                expr = Some(&alias.expr);
            }
            match expr {
                Some(Expr::Column(column)) => of_column(&projection.input, column),
                _ => Range::default(),
            }
        }
        LogicalPlan::SubqueryAlias(alias) => below(&alias.input, index),
        LogicalPlan::Join(join) => {
            // A value is that of a row of its side, or NULL.
            let side =
                [&join.left, &join.right].into_iter().find(|s| s.schema().has_column(column));
            side.map_or_else(Range::default, |side| of_column(side, column))
        }
        LogicalPlan::Extension(_) => match WindowAssign::of(plan) {
            Some(assign) => below(assign.input(), index.and_then(|i| assign.kept().nth(i))),
            None => Range::default(),
        },
        _ => Range::default(),
    }
}

fn of_conditions<'a>(
    conditions: impl Iterator<Item = &'a Expr>,
    plan: &LogicalPlan,
    column: &Column,
) -> Range {
    let Some(index) = plan.schema().maybe_index_of_column(column) else { return Range::default() };
    let DataType::Timestamp(unit, _) = plan.schema().field(index).data_type() else {
        return Range::default();
    };
    let is_it = |expr: &Expr| {
        let Expr::Column(other) = expr else { return false };
        plan.schema().maybe_index_of_column(other) == Some(index)
    };
    conditions
        .map(|condition| of_condition(condition, is_it, *unit))
        .fold(Range::default(), Range::and)
}

fn of_condition(condition: &Expr, is_it: impl Fn(&Expr) -> bool, unit: TimeUnit) -> Range {
    match condition {
        Expr::Between(between) if !between.negated && is_it(&between.expr) => {
            Range::from(ticks(&between.low, unit)).and(Range::until(ticks(&between.high, unit)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value) = match (is_it(left), is_it(right)) {
                (true, _) => (Some(*op), ticks(right, unit)),
                (_, true) => (op.swap(), ticks(left, unit)),
                _ => return Range::default(),
            };
            match op {
                Some(Operator::Eq) => Range::from(value).and(Range::until(value)),
                Some(Operator::GtEq) => Range::from(value),
                Some(Operator::Gt) => Range::from(value.and_then(|value| value.checked_add(1))),
                Some(Operator::LtEq) => Range::until(value),
                Some(Operator::Lt) => Range::until(value.and_then(|value| value.checked_sub(1))),
                _ => Range::default(),
            }
        }
        _ => Range::default(),
    }
}

/// A constant in ticks of the column, if it has that type.
fn ticks(expr: &Expr, unit: TimeUnit) -> Option<i64> {
    match (expr, unit) {
        (Expr::Literal(ScalarValue::TimestampSecond(value, _), _), TimeUnit::Second)
        | (Expr::Literal(ScalarValue::TimestampMillisecond(value, _), _), TimeUnit::Millisecond)
        | (Expr::Literal(ScalarValue::TimestampMicrosecond(value, _), _), TimeUnit::Microsecond)
        | (Expr::Literal(ScalarValue::TimestampNanosecond(value, _), _), TimeUnit::Nanosecond) => {
            *value
        }
        _ => None,
    }
}
