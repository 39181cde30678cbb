//! Corrects changes after filters and projections.
//!
//! If a filter removes one half of an update, the other half becomes an insert or a delete. If a projection makes both
//! halves equal, the update is dropped.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, FieldRef, Schema, UInt64Type};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Change, Error, Result, change};

use super::emission::{decode, mark};
use super::equal::same_rows;
use super::mark::Mark;

/// Replaces the change codes in the last column of rows with the change column in first position; without it if `shown` is
/// false, which is for results that only ever get inserts. `None`: nothing has changed.
///
/// # Errors
/// Internal when there is no such column.
pub fn normalised(rows: &[RecordBatch], shown: bool) -> Result<Option<RecordBatch>> {
    corrected(rows, shown, None)
}

/// As [`normalised`], for early results of windows: followed by the column `is_final`, and by `revision` if `revisions`
/// is true.
///
/// # Errors
/// As [`normalised`].
pub fn normalised_windows(rows: &[RecordBatch], revisions: bool) -> Result<Option<RecordBatch>> {
    corrected(rows, true, Some(revisions))
}

/// The changes; `marked`: with the columns of early results, of which the revision may be one.
fn corrected(
    rows: &[RecordBatch],
    shown: bool,
    marked: Option<bool>,
) -> Result<Option<RecordBatch>> {
    let Some(first) = rows.first() else { return Ok(None) };
    let rows = match rows {
        [one] => one.clone(),
        several => concat_batches(&first.schema(), several)?,
    };
    let (Some((codes, columns)), schema) = (rows.columns().split_last(), rows.schema()) else {
        return Err(Error::internal("changes without columns"));
    };
    let codes = codes.as_primitive_opt::<UInt64Type>();
    let codes = codes.ok_or_else(|| Error::internal("changes without codes"))?.values();
    let left = Left::of(codes, columns)?;
    if left.rows.is_empty() {
        return Ok(None);
    }
    let fields = schema.fields().iter().take(columns.len()).cloned();
    let rows = left.rows.len();
    let mut out: Vec<ArrayRef> = Vec::with_capacity(columns.len() + 1);
    let mut fields: Vec<FieldRef> = match shown {
        true => {
            out.push(left.words()?);
            [Arc::new(change::field())].into_iter().chain(fields).collect()
        }
        false => fields.collect(),
    };
    let marks = marked.map(|revisions| {
        fields.extend(Mark::fields(revisions).map(Arc::new));
        Mark::columns(&left.marks(codes), revisions)
    });
    if rows == codes.len() {
        out.extend(columns.iter().cloned());
    } else {
        let chosen = UInt32Array::from(left.rows.clone());
        for column in columns {
            out.push(take(column, &chosen, None)?);
        }
    }
    out.extend(marks.into_iter().flatten());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let schema = Arc::new(Schema::new(fields));
    Ok(Some(RecordBatch::try_new_with_options(schema, out, &options)?))
}

/// The remaining rows, and their changes.
struct Left {
    rows: Vec<u32>,
    changes: Vec<u32>,
}

impl Left {
    fn of(codes: &[u64], columns: &[ArrayRef]) -> Result<Self> {
        let last = u32::try_from(codes.len()).map_err(|_| Error::internal("too many changes"))?;
        let before = |row: u32| codes.get(row as usize).map(|code| decode(*code));
        let is_pair = |row: u32| match (before(row), codes.get(row as usize + 1)) {
            (Some((group, Change::UpdateBefore)), Some(next)) => {
                decode(*next) == (group, Change::UpdateAfter)
            }
            _ => false,
        };
        let pairs: Vec<u32> = (0..last).filter(|row| is_pair(*row)).collect();
        let old = UInt32Array::from(pairs.clone());
        let new: UInt32Array = pairs.iter().map(|row| row + 1).collect();
        let pick = |at: &UInt32Array| columns.iter().map(|c| take(c, at, None)).collect();
        let (old, new): (Result<Vec<_>, _>, Result<Vec<_>, _>) = (pick(&old), pick(&new));
        let same = same_rows(&old?, &new?, pairs.len())?;
        let mark_of = |row: u32| codes.get(row as usize).map(|code| mark(*code));
        let mut left = Self { rows: vec![], changes: vec![] };
        let mut pairs = pairs.into_iter().zip(&same).peekable();
        let mut row = 0;
        while row < last {
            if let Some((_, same)) = pairs.next_if(|(at, _)| *at == row) {
                if !same || mark_of(row) != mark_of(row + 1) {
                    left.push(row, Change::UpdateBefore);
                    left.push(row + 1, Change::UpdateAfter);
                }
                row += 2;
                continue;
            }
            let change = before(row).map_or(Change::Insert, |(_, change)| change);
            left.push(row, if change.adds() { Change::Insert } else { Change::Delete });
            row += 1;
        }
        Ok(left)
    }

    fn push(&mut self, row: u32, change: Change) {
        self.rows.push(row);
        self.changes.push(change as u32);
    }

    /// The marks of the rows.
    fn marks(&self, codes: &[u64]) -> Vec<Mark> {
        let of = |row: &u32| codes.get(*row as usize).map_or(0, |code| mark(*code));
        self.rows.iter().map(|row| Mark::of_number(of(row))).collect()
    }

    /// The change column.
    fn words(&self) -> Result<ArrayRef> {
        let words = StringViewArray::from_iter_values(Change::ALL.map(Change::name));
        debug_assert_eq!(change::field().data_type(), &DataType::Utf8View);
        Ok(take(&words, &UInt32Array::from(self.changes.clone()), None)?)
    }
}
