//! Views that cannot be verified: their bounded form has another meaning, computes other values each time, or reads
//! data that has changed since.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use windrow_core::{Error, Result};
use windrow_query::reference::{digest, rows_of_table};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::WindowAssign;

use crate::catalog::{Catalog, Materialized};
use crate::execution::context::StatementContext;

/// Checks that a view can be compared with its recomputation.
///
/// # Errors
/// When it cannot be; when a reference table cannot be read.
pub(super) async fn check_comparable(cx: &StatementContext, view: &Materialized) -> Result<()> {
    refuse_limit(view)?;
    refuse_volatile(view)?;
    refuse_lost(cx.catalog(), view)?;
    refuse_changed(&cx.state(), view).await
}

/// Files that have been rotated away cannot be read again; their history can.
fn refuse_lost(catalog: &Catalog, view: &Materialized) -> Result<()> {
    for tap in view.query.taps() {
        let stream = catalog.stream_to_read(&tap.stream)?;
        let Some(source) = stream.external().filter(|_| stream.history.is_none()) else { continue };
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

/// A view reads its reference tables once; with other rows the recomputation means something else.
async fn refuse_changed(state: &SessionState, view: &Materialized) -> Result<()> {
    let tables = view.query.tables.lock().clone();
    for (scan, was) in tables {
        let table = scan.table_name.table().to_owned();
        let (rows, _held) = rows_of_table(state, &scan, 0).await?;
        if digest(&rows)? != was {
            return Err(Error::sql(format!(
                "view \"{}\" cannot be verified: table \"{table}\" has changed since the view read it",
                view.name
            ))
            .with_hint("CREATE OR REPLACE the view, so that all its rows use the current table."));
        }
    }
    Ok(())
}

/// LIMIT over windows means something else in the bounded form.
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

/// A function that has another value each time cannot be recomputed.
fn refuse_volatile(view: &Materialized) -> Result<()> {
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
            "view \"{}\" cannot be verified: {function}() returns another value each time it is computed",
            view.name
        ))
        .with_hint("Let the value come with the rows, in a column of the stream.")),
    }
}

/// Returns the error of rows that the view has skipped and that are not known any more: on them its bounded form fails.
pub(super) fn unknown_skipped(view: &Materialized, rows: u64) -> Error {
    Error::sql(format!(
        "view \"{}\" cannot be verified: {rows} of the rows that it skipped are not stored, more than \
         kept_rows_max came",
        view.name
    ))
    .with_hint("Compare it with a query that leaves such rows out by a condition.")
}
