//! The order of the OVER nodes of a query: those whose rows wait for further rows are moved above all others.
//!
//! DataFusion puts the node with the longest PARTITION BY and ORDER BY lowest. But rows that wait for further rows are
//! not returned in order of time, so no other OVER could run above them.
//!
//! Invariant: rows and columns do not change.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Window};

use super::over::waits_for_rows;

/// Moves OVER nodes that wait for rows above those that do not read their results.
///
/// # Errors
/// Those of the plan.
pub(crate) fn waiting_last(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(|node| {
        let LogicalPlan::Window(upper) = &node else { return Ok(Transformed::no(node)) };
        let Some(lower) = window_below(&upper.input) else { return Ok(Transformed::no(node)) };
        let below = lower.input.schema();
        let reads_it = upper
            .window_expr
            .iter()
            .any(|expr| expr.column_refs().iter().any(|column| !below.has_column(column)));
        if reads_it
            || waits_for_rows(&node)?
            || !waits_for_rows(&LogicalPlan::Window(lower.clone()))?
        {
            return Ok(Transformed::no(node));
        }
        let first = Window::try_new(upper.window_expr.clone(), Arc::clone(&lower.input))?;
        let first = Arc::new(LogicalPlan::Window(first));
        let last = LogicalPlan::Window(Window::try_new(lower.window_expr.clone(), first)?);
        let columns = node.schema().columns().into_iter().map(Expr::Column);
        let plan = LogicalPlanBuilder::from(last).project(columns.collect::<Vec<_>>())?.build()?;
        Ok(Transformed::yes(plan))
    })
    .data()
}

/// The node of window functions below nothing but a choice of columns.
fn window_below(plan: &LogicalPlan) -> Option<&Window> {
    match plan {
        LogicalPlan::Window(window) => Some(window),
        LogicalPlan::Projection(chosen)
            if chosen.expr.iter().all(|expr| matches!(expr, Expr::Column(_))) =>
        {
            window_below(&chosen.input)
        }
        _ => None,
    }
}
