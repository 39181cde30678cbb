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
use crate::changing::code;

/// The changes of one emission.
#[derive(Debug)]
pub(super) struct Changes {
    columns: Vec<ArrayRef>,
    runs: Vec<Run>,
    /// The run that is returned next, and how many of its changes have been.
    next: (usize, u64),
    /// The number of the next change; an update has one.
    number: u32,
}

/// A change that comes one or more times, since a row may occur very often.
#[derive(Debug)]
struct Run {
    row: u32,
    change: Change,
    times: u64,
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
                if twice || weight(row).unsigned_abs() != 1 {
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
        let mut runs = vec![];
        let mut push = |row: u32, change: Change, times: u64| runs.push(Run { row, change, times });
        for (row, pair) in (0..count).zip(&paired) {
            if weight(row) < 0 && pair.is_none() {
                push(row, Change::Delete, weight(row).unsigned_abs());
            }
        }
        for (row, pair) in (0..count).zip(&paired) {
            if let Some(after) = pair {
                push(row, Change::UpdateBefore, 1);
                push(*after, Change::UpdateAfter, 1);
            }
        }
        for (row, replaces) in (0..count).zip(&replaces) {
            if weight(row) > 0 && !replaces {
                push(row, Change::Insert, weight(row).unsigned_abs());
            }
        }
        Ok(Self { columns: delta.columns, runs, next: (0, 0), number: 0 })
    }

    /// Whether all changes have been returned.
    pub(super) fn is_empty(&self) -> bool {
        self.next.0 >= self.runs.len()
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
        let (mut rows, mut codes): (Vec<u32>, Vec<u64>) = (vec![], vec![]);
        while let Some(run) = self.runs.get(self.next.0) {
            if rows.len() >= rows_max.max(1) && run.change != Change::UpdateAfter {
                break;
            }
            rows.push(run.row);
            codes.push(code(self.number, run.change));
            self.number = self.number.wrapping_add(u32::from(run.change != Change::UpdateBefore));
            let given = self.next.1 + 1;
            let is_more = given < run.times;
            self.next = if is_more { (self.next.0, given) } else { (self.next.0 + 1, 0) };
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let at = UInt32Array::from(rows);
        let mut columns = Vec::with_capacity(self.columns.len() + 1);
        for column in &self.columns {
            columns.push(take(column, &at, None)?);
        }
        columns.push(Arc::new(UInt64Array::from(codes)));
        Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?))
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(Array::get_array_memory_size).sum();
        columns + self.runs.capacity() * size_of::<Run>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};

    use super::*;
    use crate::changing::{CHANGE_CODE, decode};

    #[test]
    fn a_row_that_occurs_very_often_takes_no_memory_for_each_time() {
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1, 2]))];
        let delta = Delta { columns, weights: vec![i64::MAX, -3] };
        let mut changes = Changes::of(delta, None).unwrap();
        let schema = Arc::new(Schema::new(vec![
            Field::new("c0", DataType::Int64, true),
            Field::new(CHANGE_CODE, DataType::UInt64, false),
        ]));
        let batch = changes.next(&schema, 5).unwrap().unwrap();
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[2, 2, 2, 1, 1]);
        let codes = batch.column(1).as_primitive::<UInt64Type>().values();
        let codes: Vec<_> = codes.iter().map(|code| decode(*code)).collect();
        assert_eq!((codes[0], codes[4]), ((0, Change::Delete), (4, Change::Insert)));
        assert!(!changes.is_empty() && changes.size_bytes() < 10_000);
    }
}
