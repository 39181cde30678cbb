//! Turns an ASOF join into an operator with two inputs.

use std::sync::Arc;

use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};
use windrow_core::Error;
use windrow_operators::{IntervalJoinSpec, JoinKind};

use super::asof::AsofJoin;
use super::interval::{Time, unit_of};
use super::interval_join::{Sides, at_leaf, returned};
use super::lineage::{self, of_column};
use super::shape::refused;
use super::split::{Operators, Splitter};

impl Splitter<'_> {
    /// Adds an ASOF join to a stage; returns its rows with the join's column names.
    pub(super) fn asof_join(
        &mut self,
        join: &AsofJoin,
        operators: &mut Operators,
    ) -> Result<LogicalPlan> {
        let [left_time, right_time] = &join.times;
        let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        let left = event_time(&join.left, left_time)?;
        let right = event_time(&join.right, right_time)?;
        let units = (unit_of(&join.left, &left), unit_of(&join.right, &right));
        let (Some(unit), true) = (units.0, units.0 == units.1) else {
            return Err(refused(
                Error::sql("an ASOF join of time columns of different units")
                    .with_hint("Cast the time columns to the same timestamp type."),
            ));
        };
        let left = self.join_input(&join.left, left, left_keys, unit)?;
        let right = self.join_input(&join.right, right, right_keys, unit)?;
        let sides = Sides::of(left, right);
        let kind = if join.is_outer { JoinKind::Left } else { JoinKind::Inner };
        let bounds = (join.bounds.lower.unwrap_or(i64::MIN), join.bounds.upper.unwrap_or(i64::MAX));
        let spec = IntervalJoinSpec::try_new(sides.inputs, bounds, false);
        let spec = spec.and_then(|spec| spec.with_kind(kind).closest()).map_err(refused)?;
        let columns = returned(kind, &sides.columns);
        let rows = self.join_node(Arc::new(spec), sides.flows, operators)?;
        let columns = at_leaf(&rows, columns, join.columns())?;
        rows.project(columns)?.build()
    }
}

fn event_time(plan: &LogicalPlan, column: &Column) -> Result<Time> {
    let known = of_column(&lineage::columns(plan)?, plan, column);
    match (plan.schema().maybe_index_of_column(column), known.lag) {
        (Some(index), Some(lag_ticks)) => Ok(Time { column: column.clone(), index, lag_ticks }),
        _ => Err(refused(Error::internal("the time of an ASOF join is no event time"))),
    }
}
