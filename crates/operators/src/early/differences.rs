//! The changes of windows that are computed again as a whole: what a plan made of a window last time, compared with what it
//! makes of it now.
//!
//! Rows are compared by value, since nothing else is known about them.
//!
//! Invariant: folding the changes of a window so far produces its rows; after its final changes nothing is kept of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Change, Error, Result};

use super::with_code;
use crate::changing::Mark;
use crate::changing::emission::{code, with_mark};
use crate::table::Interner;

/// The rows of each open window at its last emission.
#[derive(Debug, Default)]
pub struct Differences {
    /// By end.
    last: BTreeMap<i64, RecordBatch>,
}

/// A row of a changelog: whether it is in the new rows, its place there or in the old ones, the change, and its mark.
type Row = (bool, usize, Change, Mark);

impl Differences {
    /// Compares the rows of the window that ends at `end` with those of the last time; returns the changes with their codes.
    /// `is_final`: the window has closed.
    ///
    /// # Errors
    /// When rows cannot be compared.
    pub fn of(
        &mut self,
        end: i64,
        rows: &[RecordBatch],
        schema: &SchemaRef,
        is_final: bool,
    ) -> Result<Option<RecordBatch>> {
        let now = concat_batches(schema, rows)?;
        let before = self.last.remove(&end);
        let before = before.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(schema)));
        let changes = changes(&before, &now, is_final)?;
        if !is_final && now.num_rows() > 0 {
            self.last.insert(end, now.clone());
        }
        if changes.is_empty() {
            return Ok(None);
        }
        let at: Vec<(usize, usize)> =
            changes.iter().map(|(is_new, row, ..)| (usize::from(*is_new), *row)).collect();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(now.num_columns() + 1);
        for (old, new) in before.columns().iter().zip(now.columns()) {
            columns.push(interleave(&[old.as_ref(), new.as_ref()], &at)?);
        }
        let mut group = 0_u32;
        let codes = changes.iter().map(|(.., change, mark)| {
            // An update is one group, any other change is another one.
            group = group.wrapping_add(u32::from(*change != Change::UpdateAfter));
            with_mark(code(group, *change), mark.number())
        });
        columns.push(Arc::new(UInt64Array::from_iter_values(codes)));
        Ok(Some(RecordBatch::try_new(with_code(schema), columns)?))
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        self.last.values().map(RecordBatch::get_array_memory_size).sum()
    }
}

/// The rows of a changelog from `before` to `now`.
fn changes(before: &RecordBatch, now: &RecordBatch, is_final: bool) -> Result<Vec<Row>> {
    let mark = if is_final { Mark::FINAL } else { Mark::EARLY };
    let (old, new) = (numbers(before, now)?, now.num_rows());
    let (old, now) = old.split_at(old.len() - new);
    // The places of the old rows with each value.
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, number) in old.iter().enumerate().rev() {
        places.entry(*number).or_default().push(place);
    }
    let (mut kept, mut inserts) = (vec![], vec![]);
    for (row, number) in now.iter().enumerate() {
        match places.get_mut(number).and_then(Vec::pop) {
            Some(place) => kept.push((place, row)),
            None => inserts.push((true, row, Change::Insert, mark)),
        }
    }
    let mut gone: Vec<usize> = places.into_values().flatten().collect();
    gone.sort_unstable();
    let mut rows: Vec<Row> =
        gone.into_iter().map(|row| (false, row, Change::Delete, Mark::EARLY)).collect();
    if is_final {
        for (place, row) in kept {
            rows.push((false, place, Change::UpdateBefore, Mark::EARLY));
            rows.push((true, row, Change::UpdateAfter, mark));
        }
    }
    rows.extend(inserts);
    Ok(rows)
}

/// Numbers rows by value: those of `before`, then those of `now`.
fn numbers(before: &RecordBatch, now: &RecordBatch) -> Result<Vec<usize>> {
    let mut interner = Interner::of(&now.schema(), 0)?;
    let (mut all, mut some) = (vec![], vec![]);
    for rows in [before, now] {
        interner.intern(rows.columns(), rows.num_rows(), &mut some)?;
        all.append(&mut some);
    }
    match all.len() == before.num_rows() + now.num_rows() {
        true => Ok(all),
        false => Err(Error::internal("rows without numbers")),
    }
}
