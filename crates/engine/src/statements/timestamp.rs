//! Constant timestamps in statements, and times as text.

use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{ColumnarValue, Expr as PlanExpr, LogicalPlanBuilder, cast};
use sqlparser::ast::{Expr, ExprWithAlias};
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::from_datafusion;

/// Evaluates a constant timestamp in µs since the Unix epoch: a literal, or an expression without columns
/// (`now() + INTERVAL '6 seconds'`). `clause` names it in errors.
///
/// # Errors
/// When the expression is no constant timestamp.
pub(super) fn constant_micros(state: &SessionState, constant: Expr, clause: &str) -> Result<i64> {
    let expr = ExprWithAlias { expr: constant, alias: None };
    let empty = DFSchema::empty();
    let expr = state.create_logical_expr_from_sql_expr(expr, &empty).map_err(from_datafusion)?;
    let wanted = DataType::Timestamp(TimeUnit::Microsecond, None);
    let expr: PlanExpr = cast(expr, wanted).alias("time");
    let value = LogicalPlanBuilder::empty(true)
        .project([expr])
        .and_then(LogicalPlanBuilder::build)
        // The optimiser replaces now() by the time.
        .and_then(|plan| state.optimize(&plan))
        .and_then(|plan| {
            let Some(expr) = plan.expressions().into_iter().next() else { return Ok(None) };
            let none = RecordBatch::new_empty(Arc::clone(empty.inner()));
            state.create_physical_expr(expr.unalias(), &empty)?.evaluate(&none).map(Some)
        })
        .map_err(from_datafusion)?;
    match value {
        Some(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(Some(v), _))) => Ok(v),
        _ => {
            let word = clause.rsplit(' ').next().unwrap_or_default();
            Err(Error::sql(format!("{clause} takes a constant timestamp")).with_hint(format!(
                "Write {word} TIMESTAMP '2026-01-01 00:00:00', or now() + INTERVAL '1 minute'."
            )))
        }
    }
}

/// Returns a time in µs since the Unix epoch as text.
pub(super) fn display_time(micros: i64) -> String {
    let array = TimestampMicrosecondArray::from(vec![micros]);
    array_value_to_string(&array, 0).unwrap_or_else(|_| micros.to_string())
}
