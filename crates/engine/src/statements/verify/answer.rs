//! The answer of `VERIFY VIEW`: what was compared, and the rows that differ.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::writer::{LineDelimited, WriterBuilder};
use windrow_core::{Result, Watermark};
use windrow_stream::intake::{display_micros, ticks};

use super::compare::{At, differences};
use super::range::Range;
use super::seen::{Notes, Seen};
use crate::catalog::Materialized;
use crate::execution::outcome::{Outcome, existing_rows};

/// Maximum number of differing rows that are shown.
const SHOWN_MAX: usize = 20;

/// The result of the comparison.
#[derive(Debug)]
pub(super) struct Compared {
    /// The different event times of both sides.
    times: BTreeSet<i64>,
    /// Number of rows of the view.
    rows: usize,
    /// Rows that only the view has, and that only the recomputation has: event time in µs since the Unix epoch, and the row as
    /// JSON.
    only: [Vec<(Option<i64>, String)>; 2],
}

/// Compares the rows of a view with recomputed ones; both have the schema of the view.
///
/// # Errors
/// When a column has a type whose values cannot be compared.
pub(super) fn compare(
    schema: &SchemaRef,
    held: &[RecordBatch],
    again: &[RecordBatch],
    range: Range,
) -> Result<Compared> {
    let mut times = BTreeSet::new();
    if let Some(column) = range.column {
        for batch in held.iter().chain(again) {
            times.extend(ticks(batch.column(column))?);
        }
    }
    let [left, right] = differences(schema, held, again)?;
    let described = |batches: &[RecordBatch], rows: Vec<At>| -> Result<Vec<_>> {
        let mut described = rows
            .into_iter()
            .filter_map(|(batch, row)| Some((batches.get(batch)?, row)))
            .map(|(batch, row)| {
                let time = range.column.map(|c| batch.column(c));
                let time = match time {
                    Some(column) => ticks(column)?
                        .get(row)
                        .and_then(|ticks| display_micros(*ticks, column.data_type())),
                    None => None,
                };
                Ok((time, json(batch, row)?))
            })
            .collect::<Result<Vec<_>>>()?;
        described.sort_unstable();
        Ok(described)
    };
    let only = [described(held, left)?, described(again, right)?];
    let rows = held.iter().map(RecordBatch::num_rows).sum();
    Ok(Compared { times, rows, only })
}

/// Returns a row as JSON, NULLs included.
fn json(batch: &RecordBatch, row: usize) -> Result<String> {
    let mut line = Vec::new();
    let builder = WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, LineDelimited>(&mut line);
    writer.write(&batch.slice(row, 1))?;
    writer.finish()?;
    drop(writer);
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// A row of the answer: status, side, event time in µs since the Unix epoch, the row as JSON.
type Line = (String, Option<&'static str>, Option<i64>, Option<String>);

/// Returns the answer: a summary, why the two sides may differ, and the first rows that do.
///
/// # Errors
/// Never in practice.
pub(super) async fn answer(
    view: &Materialized,
    range: Range,
    seen: &Seen,
    notes: &Notes,
    compared: Compared,
) -> Result<Outcome> {
    let mut lines: Vec<Line> =
        vec![(summary(view, range, seen, notes, &compared), None, None, None)];
    lines.extend(notes.gone.iter().map(|note| (format!("note: {note}"), None, None, None)));
    let [held, again] = compared.only;
    if !held.is_empty() || !again.is_empty() {
        lines.extend(notes.reasons.iter().map(|note| (format!("note: {note}"), None, None, None)));
    }
    let mut differing: Vec<_> = [("view", held), ("recomputed", again)]
        .into_iter()
        .enumerate()
        .flat_map(|(order, (side, rows))| {
            rows.into_iter().map(move |(time, row)| (time, order, side, row))
        })
        .collect();
    differing.sort_unstable();
    let more = differing.len().saturating_sub(SHOWN_MAX);
    let shown = differing.into_iter().take(SHOWN_MAX);
    lines.extend(
        shown.map(|(time, _, side, row)| ("differs".to_owned(), Some(side), time, Some(row))),
    );
    if more > 0 {
        lines.push((format!("note: {more} more rows differ"), None, None, None));
    }
    let status: ArrayRef = Arc::new(StringArray::from_iter_values(lines.iter().map(|l| &l.0)));
    let side: ArrayRef = Arc::new(StringArray::from_iter(lines.iter().map(|l| l.1)));
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter(lines.iter().map(|l| l.2)));
    let row: ArrayRef = Arc::new(StringArray::from_iter(lines.iter().map(|l| l.3.as_deref())));
    let batch = RecordBatch::try_new(columns(), vec![status, side, time, row])?;
    Ok(Outcome::Rows(existing_rows(columns(), vec![batch]).await))
}

/// Returns the columns of the answer.
pub(super) fn columns() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("status", DataType::Utf8, false),
        Field::new("side", DataType::Utf8, true),
        Field::new("event_time", time, true),
        Field::new("row", DataType::Utf8, true),
    ]))
}

/// Returns what was compared, with which result, in one line.
fn summary(
    view: &Materialized,
    range: Range,
    seen: &Seen,
    notes: &Notes,
    compared: &Compared,
) -> String {
    let mut parts = vec![];
    if range.column.is_some() && !view.is_stateless {
        parts.push(format!("{} windows", compared.times.len()));
    }
    parts.push(format!("{} rows", compared.rows));
    if notes.left_out > 0 {
        parts.push(format!("{} late rows left out", notes.left_out));
    }
    if notes.skipped > 0 {
        parts.push(format!("{} skipped rows left out", notes.skipped));
    }
    if seen.watermark == Watermark::NONE && range.column.is_some() {
        parts.push("no watermark yet".to_owned());
    }
    let said = parts.join(", ");
    match &compared.only {
        [held, again] if held.is_empty() && again.is_empty() => format!("equal: {said}"),
        [held, again] => format!(
            "differs: {said}; {} rows only in the view, {} only in the recomputation",
            held.len(),
            again.len()
        ),
    }
}
