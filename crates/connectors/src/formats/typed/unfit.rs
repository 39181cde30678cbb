//! Rows with values that do not fit the declared types: bad rows, as in text formats.
//!
//! They are searched for only in batches that cannot be converted as a whole.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, nullif};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::LineDelimitedWriter;
use arrow::util::display::array_value_to_string;
use windrow_core::{Result, sql_type};

use super::columns::Place;
use crate::formats::decode::OnBadRow;

/// A batch as it was read, without the rows that do not fit.
#[derive(Debug)]
pub(crate) struct Fitting {
    pub rows: RecordBatch,
    /// Marks the rows that fit.
    pub kept: BooleanArray,
    /// The others, ascending, each with the reason.
    pub unfit: Vec<(usize, String)>,
}

/// Separates the rows that cannot be converted; with `on_bad_row = 'null'` the values that cannot be become NULL.
///
/// # Errors
/// When rows cannot be removed from the batch.
pub(crate) fn fitting(
    batch: &RecordBatch,
    columns: &[(usize, Place, &Field)],
    on_bad: OnBadRow,
) -> Result<Fitting> {
    let mut unfit: Vec<Option<String>> = vec![None; batch.num_rows()];
    let mut values = batch.columns().to_vec();
    for (at, place, field) in columns {
        let Some(column) = values.get_mut(*at) else { continue };
        let rows = misfits(column, *place, field.data_type());
        if on_bad == OnBadRow::Null && field.is_nullable() {
            let gone: BooleanArray =
                (0..column.len()).map(|row| Some(rows.binary_search(&row).is_ok())).collect();
            *column = nullif(column, &gone)?;
            continue;
        }
        for row in rows {
            let value = array_value_to_string(column, row)?;
            let of = sql_type(field.data_type());
            note(&mut unfit, row, || format!("column \"{}\": '{value}' is not {of}", field.name()));
        }
        if !field.is_nullable() {
            for row in (0..column.len()).filter(|row| column.is_null(*row)) {
                note(&mut unfit, row, || {
                    format!("column \"{}\" is NULL, and is declared NOT NULL", field.name())
                });
            }
        }
    }
    let kept: BooleanArray = unfit.iter().map(|why| Some(why.is_none())).collect();
    // Values that are NULL now may be in columns that had none.
    let has = batch.schema();
    let nullable = has.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let nullable = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let rows = filter_record_batch(&RecordBatch::try_new(nullable, values)?, &kept)?;
    let unfit = unfit.into_iter().enumerate().filter_map(|(row, why)| Some((row, why?))).collect();
    Ok(Fitting { rows, kept, unfit })
}

/// Records the first reason for a row.
fn note(unfit: &mut [Option<String>], row: usize, why: impl FnOnce() -> String) {
    if let Some(slot) = unfit.get_mut(row)
        && slot.is_none()
    {
        *slot = Some(why());
    }
}

/// Returns the rows whose values cannot be converted to `to`, ascending.
pub(crate) fn misfits(column: &ArrayRef, place: Place, to: &DataType) -> Vec<usize> {
    let mut found = vec![];
    // Halves still to be tried, the first one last.
    let mut pieces = vec![(0, column.len())];
    while let Some((from, rows)) = pieces.pop() {
        if rows == 0 || place.convert(&column.slice(from, rows), to).is_ok() {
            continue;
        }
        if rows == 1 {
            found.push(from);
            continue;
        }
        let half = rows / 2;
        pieces.push((from + half, rows - half));
        pieces.push((from, half));
    }
    found
}

/// Formats a row as it was read as a line of JSON.
pub(crate) fn shown(batch: &RecordBatch, row: usize) -> Result<String> {
    let mut line = vec![];
    let mut writer = LineDelimitedWriter::new(&mut line);
    writer.write(&batch.slice(row, 1))?;
    writer.finish()?;
    drop(writer);
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
