//! Which streams and views a plan reads.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use windrow_core::Result;
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::StreamRelation;

/// Returns the names of the streams and views that a plan reads, in order and once each.
///
/// # Errors
/// When the plan cannot be walked (a bug).
pub(crate) fn streams_read(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut names = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(stream) = provider.downcast_ref::<StreamRelation>()
        {
            names.push(stream.name().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}
