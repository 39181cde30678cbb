//! Views that cannot be verified, and why: their bounded form means another thing, gives other values each time, or reads
//! what has changed since.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use windrow_core::{Error, Result};
use windrow_query::reference::{digest, rows_of_table};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::WindowAssign;
use windrow_stream::Feed;

use crate::catalog::Materialized;
use crate::session::Session;

impl Session {
    /// Refuses what cannot be compared.
    ///
    /// # Errors
    /// When it cannot; when a reference table cannot be read.
    pub(super) async fn refuse_incomparable(&self, view: &Materialized) -> Result<()> {
        refuse_limit(view)?;
        refuse_changing(view)?;
        self.refuse_lost(view)?;
        self.refuse_changed(view).await
    }

    /// Files that are rotated away are not there to be read again; what is kept of their rows is.
    fn refuse_lost(&self, view: &Materialized) -> Result<()> {
        for tap in view.query.taps() {
            let stream = self.engine.catalog.stream_to_read(&tap.stream)?;
            let Feed::Source(source) = &stream.feed else { continue };
            if stream.history.is_some() {
                continue;
            }
            for (partition, read, place) in tap.positions.lock().places() {
                if let Some(why) = source.lost(partition, read.consumed, place)? {
                    return Err(Error::sql(format!("view \"{}\" cannot be verified: {why}", view.name))
                        .with_hint(format!(
                            "With retention = '…' stream \"{}\" keeps its rows, and its views can be verified.",
                            stream.name
                        )));
                }
            }
        }
        Ok(())
    }

    /// The view has read its reference tables once; over others the recomputation means something else.
    async fn refuse_changed(&self, view: &Materialized) -> Result<()> {
        let tables = view.query.tables.lock().clone();
        let state = self.state();
        for (scan, was) in tables {
            let table = scan.table_name.table().to_owned();
            let (rows, _held) = rows_of_table(&state, &scan, 0).await?;
            if digest(&rows)? != was {
                return Err(Error::sql(format!(
                    "view \"{}\" cannot be verified: table \"{table}\" has changed since the view has read it",
                    view.name
                ))
                .with_hint("CREATE OR REPLACE the view, so that all its rows are of the table as it is now."));
            }
        }
        Ok(())
    }
}

/// LIMIT over windows means another thing in the bounded form.
fn refuse_limit(view: &Materialized) -> Result<()> {
    let mut found = false;
    view.plan
        .apply_with_subqueries(|node| {
            if matches!(node, LogicalPlan::Limit(_)) {
                found |= node.exists(|below| Ok(WindowAssign::of(below).is_some()))?;
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(from_datafusion)?;
    if !found {
        return Ok(());
    }
    Err(Error::sql(format!("view \"{}\" cannot be verified: it has a LIMIT", view.name)).with_hint(
        "LIMIT applies per window in a view and over the whole in a bounded query; \
         row_number() OVER (PARTITION BY window_start, window_end …) means the same in both.",
    ))
}

/// What gives another value each time cannot be recomputed.
fn refuse_changing(view: &Materialized) -> Result<()> {
    let mut found: Option<String> = None;
    let walked = view.plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    found = Some(call.func.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(from_datafusion)?;
    match found {
        None => Ok(()),
        Some(function) => Err(Error::sql(format!(
            "view \"{}\" cannot be verified: {function}() gives another value whenever it is worked out",
            view.name
        ))
        .with_hint("Let the value come with the rows, in a column of the stream.")),
    }
}

/// Rows that the view skipped and nobody remembers: over them its query fails.
pub(super) fn unknown_skipped(view: &Materialized, rows: u64) -> Error {
    Error::sql(format!(
        "view \"{}\" cannot be verified: of the rows that it skipped {rows} are not kept, more than \
         kept_rows_max came",
        view.name
    ))
    .with_hint("Compare it with a query that leaves such rows out by a condition.")
}
