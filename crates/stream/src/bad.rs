//! Rows that were decoded and are refused by the stream (checks, lengths): how they become bad rows.
//!
//! Invariant: a row is refused once, with its first reason, and the offsets of the other rows do not change.

use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use windrow_core::{BadRow, Error, Result, SourceBatch};

use crate::intake::render_row;

/// The treatment of bad rows: the option `on_bad_row`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBad {
    /// They become bad rows.
    DeadLetter,
    /// The value becomes NULL.
    Null,
    /// Reading fails.
    Fail,
}

impl OnBad {
    /// Parses the option's value, which the connector has validated.
    pub fn of(option: Option<&str>) -> Self {
        match option {
            Some("fail") => Self::Fail,
            Some("null") => Self::Null,
            _ => Self::DeadLetter,
        }
    }
}

/// Removes rows from a batch, each with a reason; if a row has several reasons, the first one counts.
///
/// # Errors
/// The first reason, if bad rows are errors; when a row cannot be rendered.
pub(crate) fn taken_out(
    mut batch: SourceBatch,
    mut reasons: Vec<(usize, String)>,
    on_bad: OnBad,
) -> Result<SourceBatch> {
    if reasons.is_empty() {
        return Ok(batch);
    }
    reasons.sort_by_key(|(row, _)| *row);
    reasons.dedup_by_key(|(row, _)| *row);
    if let (OnBad::Fail, Some((row, reason))) = (on_bad, reasons.first()) {
        let offset = batch.row_offsets.offset(*row);
        return Err(Error::data(format!("{reason} (offset {offset})")));
    }
    let rows = batch.rows.clone();
    let mut keep = vec![true; rows.num_rows()];
    for (row, reason) in reasons {
        if let Some(keep) = keep.get_mut(row) {
            *keep = false;
        }
        let offset = batch.row_offsets.offset(row);
        batch.bad.push(BadRow { offset, reason, raw: render_row(&rows, row)? });
    }
    batch.bad.sort_by_key(|bad| bad.offset);
    let kept = keep.iter().enumerate().filter(|(_, keep)| **keep);
    let offsets: Vec<u64> = kept.map(|(row, _)| batch.row_offsets.offset(row)).collect();
    batch.rows = filter_record_batch(&rows, &BooleanArray::from(keep))?;
    batch.row_offsets = Arc::new(offsets);
    Ok(batch)
}
