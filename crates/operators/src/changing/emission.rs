//! The changes of one flush, returned in batches.
//!
//! Invariants: groups come in the order of the flush; a batch never ends between the two halves of an update.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, UInt64Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{interleave, take};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Change, Result};

/// The code of a change: the number of the group, then the change.
pub(crate) fn code(group: u32, change: Change) -> u64 {
    u64::from(group) << 2 | change as u64
}

/// The group and the change of a code.
pub(crate) fn decode(code: u64) -> (u64, Change) {
    let change = Change::of_number((code & 3) as u8).unwrap_or(Change::Insert);
    (code >> 2, change)
}

/// The changes of one flush.
#[derive(Debug)]
pub(super) struct Emission {
    /// The keys of the groups in the flush.
    keys: Vec<ArrayRef>,
    /// The values of all of them.
    after: Vec<ArrayRef>,
    /// The old values of the groups that existed before.
    before: Vec<ArrayRef>,
    /// The position of each group in `before`.
    places: Vec<u32>,
    /// The rows, as codes.
    codes: Vec<u64>,
    /// The number of rows returned already.
    returned: usize,
}

impl Emission {
    /// The changes of `groups` groups with these keys and values. `existed`: the numbers of the groups that existed, with
    /// their values `before`; `same`: whether these are unchanged.
    pub(super) fn new(
        keys: Vec<ArrayRef>,
        after: Vec<ArrayRef>,
        groups: u32,
        (existed, before, same): (&[u32], Vec<ArrayRef>, &BooleanBuffer),
    ) -> Self {
        let mut places = vec![0; groups as usize];
        let mut codes = Vec::with_capacity(groups as usize + existed.len());
        let mut known = existed.iter().zip(same).zip(0_u32..).peekable();
        for group in 0..groups {
            match known.next_if(|((known, _), _)| **known == group) {
                Some(((_, true), _)) => {}
                Some(((_, false), place)) => {
                    if let Some(slot) = places.get_mut(group as usize) {
                        *slot = place;
                    }
                    codes.push(code(group, Change::UpdateBefore));
                    codes.push(code(group, Change::UpdateAfter));
                }
                None => codes.push(code(group, Change::Insert)),
            }
        }
        Self { keys, after, before, places, codes, returned: 0 }
    }

    /// The number of rows that have not been returned.
    pub(super) fn rows_left(&self) -> usize {
        self.codes.len() - self.returned
    }

    /// Returns the next rows, at most `rows_max` and one more, so that an update is not divided.
    ///
    /// # Errors
    /// When the columns cannot be built.
    pub(super) fn next(
        &mut self,
        schema: &SchemaRef,
        rows_max: usize,
    ) -> Result<Option<RecordBatch>> {
        let start = self.returned;
        let mut end = (start + rows_max.max(1)).min(self.codes.len());
        let ends_within = |end: usize| {
            let last = end.checked_sub(1).and_then(|last| self.codes.get(last));
            last.is_some_and(|code| decode(*code).1 == Change::UpdateBefore)
        };
        if ends_within(end) {
            end += 1;
        }
        let codes = self.codes.get(start..end).unwrap_or_default();
        if codes.is_empty() {
            return Ok(None);
        }
        let group = |code: &u64| (code >> 2) as u32;
        let groups: UInt32Array = codes.iter().map(|code| Some(group(code))).collect();
        let mut columns = Vec::with_capacity(self.keys.len() + self.after.len() + 1);
        for key in &self.keys {
            columns.push(take(key, &groups, None)?);
        }
        let at: Vec<(usize, usize)> = codes
            .iter()
            .map(|code| match decode(*code).1 {
                Change::UpdateBefore => {
                    let place = self.places.get(group(code) as usize);
                    (1, place.copied().unwrap_or(0) as usize)
                }
                _ => (0, group(code) as usize),
            })
            .collect();
        for (column, after) in self.after.iter().enumerate() {
            columns.push(match self.before.get(column) {
                Some(before) => interleave(&[after.as_ref() as &dyn Array, before.as_ref()], &at)?,
                None => take(after, &groups, None)?,
            });
        }
        columns.push(Arc::new(UInt64Array::from(codes.to_vec())));
        self.returned = end;
        Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?))
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        let arrays = self.keys.iter().chain(&self.after).chain(&self.before);
        let arrays: usize = arrays.map(Array::get_array_memory_size).sum();
        arrays
            + self.codes.capacity() * size_of::<u64>()
            + self.places.capacity() * size_of::<u32>()
    }
}
