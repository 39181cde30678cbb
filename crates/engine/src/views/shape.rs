//! Properties of the plan of a view.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Result, Windows};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::{ContinuousPlan, Flow, Leaf, StreamRelation, WindowAssign};

use crate::views::options::ViewOptions;

/// Returns a fingerprint that views with the same rows share. `None`: unknown, because the view reads reference tables, which
/// may have changed, or is more than a query.
///
/// # Errors
/// When the plan cannot be walked (a bug).
pub(crate) fn fingerprint(
    options: &ViewOptions,
    plan: &ContinuousPlan,
    bounded: &LogicalPlan,
    has_late_to: bool,
) -> Result<Option<String>> {
    if has_late_to || options.starts_late() || options.retention.is_some() {
        return Ok(None);
    }
    let mut tables = false;
    bounded
        .apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let provider = source_as_provider(&scan.source)?;
                tables |= provider.downcast_ref::<StreamRelation>().is_none();
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(from_datafusion)?;
    let on_error = if options.skips_rows { "on_error: skip_row" } else { "" };
    Ok((!tables).then(|| plan_text(plan) + on_error))
}

/// Returns the sum of the sizes of all windows of a plan, in ticks; the greatest number for sessions, which have no maximum
/// size.
///
/// # Errors
/// When the plan cannot be walked (a bug).
pub(super) fn reach(plan: &LogicalPlan) -> Result<i64> {
    let mut ticks = 0_i64;
    plan.apply_with_subqueries(|node| {
        if let Some(assign) = WindowAssign::of(node) {
            let length = match assign.windows() {
                Windows::Aligned(window) => window.size(),
                Windows::Session(_) => i64::MAX,
            };
            ticks = ticks.saturating_add(length);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    Ok(ticks)
}

/// Whether a query is stateless: rows of streams pass one by one, without a window anywhere.
pub(crate) fn is_stateless(root: &Flow) -> bool {
    match root {
        Flow::Stage(_) => false,
        Flow::Rows(flow) => flow.leaves.iter().all(Leaf::is_stream),
    }
}

/// Returns the plan as text: equal texts give equal rows.
pub(super) fn plan_text(plan: &ContinuousPlan) -> String {
    format!("{plan}lateness: {} ns", plan.lateness_nanos)
}
