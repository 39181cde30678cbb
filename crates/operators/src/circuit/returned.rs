//! The changes of one emission of a circuit, returned in batches.
//!
//! Invariants: rows that disappear come first; a row that replaces one with the same key directly follows it, as an update; a
//! batch never ends between the two.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Change, Error, Result};

use super::delta::{Codec, Delta, pick};
use crate::changing::{code, decode};

/// The changes of one emission.
#[derive(Debug)]
pub(super) struct Changes {
    columns: Vec<ArrayRef>,
    /// The row of each change, and its code.
    rows: Vec<(u32, u64)>,
    /// The number of changes returned already.
    returned: usize,
}

impl Changes {
    /// The changes of a consolidated delta. `key`: the columns that identify a row, and their codec.
    ///
    /// # Errors
    /// Internal when two rows of the result have the same key.
    pub(super) fn of(delta: Delta, key: Option<(&[usize], &Codec)>) -> Result<Self> {
        let count = u32::try_from(delta.rows()).map_err(|_| Error::internal("too many changes"))?;
        let mut paired: Vec<Option<u32>> = vec![None; delta.rows()];
        let weight = |row: u32| delta.weights.get(row as usize).copied().unwrap_or(0);
        if let Some((key, codec)) = key {
            let keys = codec.encode(&pick(&delta.columns, key)?, delta.rows())?;
            let mut gone: HashMap<&[u8], u32> = HashMap::new();
            let mut come: HashMap<&[u8], u32> = HashMap::new();
            for row in 0..count {
                let side = if weight(row) < 0 { &mut gone } else { &mut come };
                let twice = side.insert(keys.row(row as usize), row).is_some();
                if twice || weight(row).abs() != 1 {
                    return Err(Error::internal("two rows of a result have the same key"));
                }
            }
            for row in 0..count {
                let pair = gone.get(keys.row(row as usize)).filter(|_| weight(row) > 0);
                if let (Some(gone), Some(slot)) =
                    (pair, pair.and_then(|gone| paired.get_mut(*gone as usize)))
                {
                    debug_assert_ne!(*gone, row);
                    *slot = Some(row);
                }
            }
        }
        let mut replaces = vec![false; delta.rows()];
        for row in paired.iter().flatten() {
            if let Some(slot) = replaces.get_mut(*row as usize) {
                *slot = true;
            }
        }
        let mut rows = vec![];
        let mut number = 0_u32;
        let mut push = |row: u32, change: Change, ends: bool| {
            rows.push((row, code(number, change)));
            number = number.wrapping_add(u32::from(ends));
        };
        for (row, pair) in (0..count).zip(&paired) {
            if weight(row) < 0 && pair.is_none() {
                (weight(row)..0).for_each(|_| push(row, Change::Delete, true));
            }
        }
        for (row, pair) in (0..count).zip(&paired) {
            if let Some(after) = pair {
                push(row, Change::UpdateBefore, false);
                push(*after, Change::UpdateAfter, true);
            }
        }
        for (row, replaces) in (0..count).zip(&replaces) {
            if weight(row) > 0 && !replaces {
                (0..weight(row)).for_each(|_| push(row, Change::Insert, true));
            }
        }
        Ok(Self { columns: delta.columns, rows, returned: 0 })
    }

    /// The number of changes that have not been returned.
    pub(super) fn left(&self) -> usize {
        self.rows.len() - self.returned
    }

    /// Returns the next changes, at most `rows_max` and one more, so that an update is not divided.
    ///
    /// # Errors
    /// When the columns cannot be built.
    pub(super) fn next(
        &mut self,
        schema: &SchemaRef,
        rows_max: usize,
    ) -> Result<Option<RecordBatch>> {
        let start = self.returned;
        let mut end = (start + rows_max.max(1)).min(self.rows.len());
        let last = end.checked_sub(1).and_then(|last| self.rows.get(last));
        if last.is_some_and(|(_, code)| decode(*code).1 == Change::UpdateBefore) {
            end += 1;
        }
        let changes = self.rows.get(start..end).unwrap_or_default();
        if changes.is_empty() {
            return Ok(None);
        }
        let at: UInt32Array = changes.iter().map(|(row, _)| Some(*row)).collect();
        let mut columns = Vec::with_capacity(self.columns.len() + 1);
        for column in &self.columns {
            columns.push(take(column, &at, None)?);
        }
        columns
            .push(Arc::new(changes.iter().map(|(_, code)| Some(*code)).collect::<UInt64Array>()));
        self.returned = end;
        Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?))
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Array::get_array_memory_size).sum();
        columns + self.rows.capacity() * size_of::<(u32, u64)>()
    }
}
