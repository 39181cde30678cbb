//! `LIMIT n` of a continuous query without windows: the query ends after its first rows. Over windows, LIMIT applies per
//! window, and the planner plans it. The rows of a view of windows are rows, unless ORDER BY, an aggregate or OVER takes
//! those of a window together.
//!
//! After ORDER BY it is part of the query: the first rows of the whole result, which is updated.
//!
//! The limit is removed from the plan, which the planner would refuse, and enforced where rows leave the query.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{FetchType, LogicalPlan, SkipType};
use windrow_core::Result;
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::{StreamRelation, WindowAssign};

use crate::catalog::streams_read;

/// The rows of a query that are returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FirstRows {
    /// Number of rows that are skipped first (`OFFSET`).
    skip: usize,
    /// Number of rows that are returned after them.
    left: usize,
}

impl FirstRows {
    /// Whether all of them have been returned.
    pub(crate) fn is_done(self) -> bool {
        self.left == 0
    }

    /// Returns those of the next rows that are to be returned.
    pub(crate) fn take(&mut self, batch: &RecordBatch) -> RecordBatch {
        let skipped = self.skip.min(batch.num_rows());
        self.skip -= skipped;
        let taken = self.left.min(batch.num_rows() - skipped);
        self.left -= taken;
        batch.slice(skipped, taken)
    }
}

/// Separates a LIMIT of rows without windows from the plan below it.
///
/// # Errors
/// Never in practice: the plan is only read.
pub(crate) fn without_limit(plan: LogicalPlan) -> Result<(LogicalPlan, Option<FirstRows>)> {
    let LogicalPlan::Limit(limit) = &plan else { return Ok((plan, None)) };
    let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(Some(left)))) =
        (limit.get_skip_type(), limit.get_fetch_type())
    else {
        return Ok((plan, None));
    };
    if is_ordered(&limit.input) || has_windows(&plan)? || streams_read(&plan)?.is_empty() {
        return Ok((plan, None));
    }
    Ok((Arc::unwrap_or_clone(Arc::clone(&limit.input)), Some(FirstRows { skip, left })))
}

/// Whether the rows have an order, so that the first ones are those of the whole result.
fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(_) => true,
        LogicalPlan::Projection(projection) => is_ordered(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_ordered(&alias.input),
        _ => false,
    }
}

fn has_windows(plan: &LogicalPlan) -> Result<bool> {
    let (mut assigned, mut of_view, mut together) = (false, false, false);
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => {
                let provider = source_as_provider(&scan.source)?;
                let relation = provider.downcast_ref::<StreamRelation>();
                of_view |= relation.is_some_and(StreamRelation::has_windows);
            }
            LogicalPlan::Sort(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Distinct(_) => together = true,
            _ => assigned |= WindowAssign::of(node).is_some(),
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    Ok(assigned || of_view && together)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn rows_are_counted_over_batches() {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..4));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let mut first = FirstRows { skip: 5, left: 4 };
        let taken: Vec<usize> = (0..3).map(|_| first.take(&batch).num_rows()).collect();
        assert_eq!(taken, [0, 3, 1]);
        assert!(first.is_done());
    }
}
