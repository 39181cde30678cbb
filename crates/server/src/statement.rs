//! Execution of statements for clients of all wires: for each row of values, and to completion.

use arrow::array::AsArray;
use arrow::compute::sum;
use arrow::datatypes::UInt64Type;
use futures::TryStreamExt;
use windrow_core::Result;
use windrow_engine::{Done, Outcome, Prepared, Session, UnusedRows, Values};

/// Executes a statement for each row of values; returns the last result, with the rows of all.
///
/// # Errors
/// Those of the first execution that fails; the executions before it have taken effect.
pub async fn each(session: &Session, prepared: &Prepared, values: &[Values]) -> Result<Done> {
    if values.len() > 1
        && let Some(outcome) = session.insert_rows(prepared, values).await?
    {
        return finish(outcome).await;
    }
    let mut last = Done::from("OK");
    let mut changed: Option<u64> = None;
    for values in values {
        last = finish(session.execute_with(prepared, values).await?).await?;
        changed = match (changed, last.rows) {
            (Some(before), Some(more)) => Some(before + more),
            (before, more) => before.or(more),
        };
    }
    Ok(Done { rows: changed, ..last })
}

/// Waits for the end of a statement that changes something. The engine returns the number of changed rows as a row.
///
/// # Errors
/// Those of the statement.
pub async fn finish(outcome: Outcome) -> Result<Done> {
    let mut rows = match outcome {
        Outcome::Done(done) => return Ok(done),
        Outcome::Rows(rows) => rows,
    };
    let mut changed = None;
    while let Some(batch) = rows.try_next().await? {
        let count = batch.column_by_name("count").and_then(|c| c.as_primitive_opt::<UInt64Type>());
        let count = count.and_then(sum);
        changed = changed.map_or(count, |before: u64| Some(before + count.unwrap_or_default()));
    }
    let said = changed.map_or_else(|| "OK".to_owned(), |n| format!("OK {n}"));
    let said = said + &rows.unused_rows().map(UnusedRows::aside).unwrap_or_default();
    Ok(Done { said, rows: changed })
}
