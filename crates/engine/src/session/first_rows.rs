//! `LIMIT n` of a continuous query without windows: the first rows that pass, and then it ends. (Over windows, LIMIT
//! holds per window and is the planner's.)
//!
//! The limit is taken off the plan, which the planner would refuse with it, and held where rows leave the query.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{FetchType, LogicalPlan, SkipType};
use windrow_core::Result;
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::ContinuousQuery;
use windrow_sql::plan::{ContinuousPlan, WindowAssign};

use crate::session::Session;
use crate::session::query::streams_read;

/// Which rows of a query are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstRows {
    /// Rows that are left out before.
    skip: usize,
    /// Rows that are given out after them.
    left: usize,
}

impl FirstRows {
    /// Whether all of them have been given out.
    pub(super) fn is_done(self) -> bool {
        self.left == 0
    }

    /// Those of the next rows that are given out.
    pub(super) fn take(&mut self, batch: &RecordBatch) -> RecordBatch {
        let skipped = self.skip.min(batch.num_rows());
        self.skip -= skipped;
        let taken = self.left.min(batch.num_rows() - skipped);
        self.left -= taken;
        batch.slice(skipped, taken)
    }
}

impl Session {
    /// The continuous form of a query whose rows go to a client, and which of its rows do.
    ///
    /// # Errors
    /// When the query cannot run continuously.
    pub(super) async fn continuous_query(
        &self,
        plan: LogicalPlan,
        query: &ContinuousQuery,
    ) -> Result<(ContinuousPlan, Option<FirstRows>)> {
        let (plan, first) = apart(plan)?;
        Ok((self.continuous(plan, &query.tail).await?, first))
    }
}

/// The plan without a LIMIT of rows that have no windows.
pub(super) fn apart(plan: LogicalPlan) -> Result<(LogicalPlan, Option<FirstRows>)> {
    let LogicalPlan::Limit(limit) = &plan else { return Ok((plan, None)) };
    let (Ok(SkipType::Literal(skip)), Ok(FetchType::Literal(Some(left)))) =
        (limit.get_skip_type(), limit.get_fetch_type())
    else {
        return Ok((plan, None));
    };
    if has_windows(&plan)? || streams_read(&plan)?.is_empty() {
        return Ok((plan, None));
    }
    Ok((Arc::unwrap_or_clone(Arc::clone(&limit.input)), Some(FirstRows { skip, left })))
}

fn has_windows(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= WindowAssign::of(node).is_some();
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })
    .map_err(from_datafusion)?;
    Ok(found)
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
