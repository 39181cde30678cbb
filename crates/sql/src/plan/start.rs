//! The start of a query: `start = TIMESTAMP '…'` as a condition on the rows of each stream.
//!
//! It is part of the plan, so that the bounded form, the continuous form and EXPLAIN agree on it.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use windrow_core::Error;
use windrow_core::time::with_seconds;

use super::shape::refused;
use super::stream_of;
use crate::diagnostics::from_datafusion;

/// Restricts the streams and views of a plan to rows whose event time is `start` (a timestamp as text) or later.
/// Reference tables are read unchanged.
///
/// # Errors
/// When `start` is not a timestamp, or a stream has no event time.
pub fn from_event_time(plan: LogicalPlan, start: &str) -> Result<LogicalPlan, Error> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let Some(relation) = stream_of(scan) else { return Ok(Transformed::no(node)) };
        let Some(time) = relation.event_times().first() else {
            return Err(refused(
                Error::sql(format!(
                    "stream \"{}\" has no event time that could be before the start",
                    relation.name()
                ))
                .with_hint("Give it a WATERMARK, or leave the start out."),
            ));
        };
        let (qualifier, field) = node.schema().qualified_field(time.column);
        let column = Expr::Column(Column::from((qualifier, field)));
        let start = literal(start, field.data_type()).map_err(refused)?;
        let rows = LogicalPlanBuilder::from(node).filter(column.gt_eq(start))?.build()?;
        Ok(Transformed::yes(rows))
    })
    .data()
    .map_err(from_datafusion)
}

fn literal(text: &str, time_type: &DataType) -> Result<Expr, Error> {
    let whole = with_seconds(text).unwrap_or_else(|| text.to_owned());
    let value = ScalarValue::try_from_string(whole, time_type).map_err(|e| {
        Error::config(format!("option \"start\" is not a timestamp: '{text}'"))
            .with_source(e)
            .with_hint(
                "Write start = TIMESTAMP '2026-01-01 00:00:00', start = 'earliest' or start = 'latest'.",
            )
    })?;
    Ok(Expr::Literal(value, None))
}
