//! The rows that an operator keeps: a multiset of rows by key, as bytes in order.
//!
//! Invariant: between two emissions no row has a weight below one.

use std::collections::BTreeMap;
use std::collections::btree_map::{Entry, Range};
use std::ops::Bound;

use windrow_core::{Error, Result};

use super::delta::added;

/// Estimate of the bytes that a map needs for an entry, beside the row itself.
const ENTRY_BYTES: usize = 48;

/// Rows by key. Each is the bytes of its key and then its own, so that the rows of a key are neighbours.
#[derive(Debug, Default)]
pub(super) struct Kept {
    rows: BTreeMap<Box<[u8]>, Held>,
    bytes: usize,
}

/// A row that is kept.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// How often it occurs.
    pub(super) weight: i64,
    /// The number of rows that it matches, where that is counted.
    pub(super) matches: i64,
}

impl Kept {
    /// The rows of a key, in order, with their whole bytes.
    pub(super) fn of(&self, key: &[u8]) -> impl DoubleEndedIterator<Item = (&[u8], Held)> {
        self.after(key, None).map(|(row, held)| (row.as_ref(), *held))
    }

    /// The rows of a key that come after one with these whole bytes, or all of them.
    pub(super) fn after<'a>(
        &'a self,
        key: &[u8],
        row: Option<&[u8]>,
    ) -> Range<'a, Box<[u8]>, Held> {
        let from = row.map_or(Bound::Included(key), Bound::Excluded);
        match end(key) {
            Some(end) => self.rows.range::<[u8], _>((from, Bound::Excluded(end.as_slice()))),
            None => self.rows.range::<[u8], _>((from, Bound::Unbounded)),
        }
    }

    /// Adds to the weight of a row; returns its weight before and after.
    ///
    /// # Errors
    /// Limit when it occurs more often than can be counted.
    pub(super) fn add(&mut self, row: &[u8], weight: i64) -> Result<(i64, i64)> {
        match self.rows.entry(row.into()) {
            Entry::Occupied(mut entry) => {
                let before = entry.get().weight;
                let after = added(before, weight)?;
                entry.get_mut().weight = after;
                if after == 0 {
                    entry.remove();
                    self.bytes -= ENTRY_BYTES + row.len();
                }
                Ok((before, after))
            }
            Entry::Vacant(entry) => {
                if weight != 0 {
                    entry.insert(Held { weight, matches: 0 });
                    self.bytes += ENTRY_BYTES + row.len();
                }
                Ok((0, weight))
            }
        }
    }

    /// A row.
    pub(super) fn get_mut(&mut self, row: &[u8]) -> Option<&mut Held> {
        self.rows.get_mut(row)
    }

    /// The number of different rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes
    }
}

/// The least bytes after all that begin with `prefix`; `None` when there are none.
fn end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// Checks the weight of a row after an emission.
///
/// # Errors
/// Internal when it is negative.
pub(super) fn check_weight(weight: i64) -> Result<()> {
    match weight < 0 {
        true => Err(Error::internal("a row is removed that does not exist")),
        false => Ok(()),
    }
}
