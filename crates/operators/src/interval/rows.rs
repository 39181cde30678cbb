//! The rows of one input of a join that can still match, in memory: batches as they came, and an entry for each row.
//!
//! Rows leave at the front, each at the cost of one: nothing is copied and nothing is found again. So a batch that makes many
//! rows useless takes no longer than those that brought them. What stays are keys without rows; once they are the larger part, the
//! keys of the rows are numbered again, some rows at a time ([`Rows::number_again`]), while the numbers in use stay valid.
//!
//! Invariants: entries are in order of their positions; those before `done` have been processed. Outside of this module, a row
//! is known by its place among the entries, which is valid until rows are dropped. Numbers of rows, which only heads hold, are never
//! used again.

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, interleave, take, take_record_batch};
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, ErrorKind, Result};

use super::piece::{in_order, positions, times};
use crate::survey::Times;

/// No row; the key of a row that matches nothing.
pub(super) const NONE: u32 = u32::MAX;
/// Neighbouring batches are put together up to this many rows…
const TOGETHER_ROWS: usize = 16 << 10;
/// … or up to this share of all.
const TOGETHER_SHARE: usize = 64;
/// Rows whose batch is looked up at once, as a power of two.
const BLOCK_BITS: u32 = 12;
/// Blocks before their numbers start again.
const BLOCKS: u32 = 1 << (u32::BITS - BLOCK_BITS);
/// Bytes of other rows that a column of times may hold.
const PINNED_BYTES: usize = 1024;
/// Memory is given back when less than this share of it is used…
const USED_SHARE: usize = 4;
/// … and it is for more rows than this.
const ROOM_MIN: usize = 4096;

/// The rows of one input.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) batches: Batches,
    /// One per row.
    entries: VecDeque<Entry>,
    /// The number of rows that have been dropped: the number of the first entry.
    dropped: u64,
    /// The newest linked row of each key, under each of the two numberings of keys: its number plus one, or 0. It may have been
    /// dropped.
    heads: [Vec<u64>; 2],
    /// The numbering in use.
    numbering: usize,
    /// The entries without a number of the other numbering; `None` when there is no other one.
    behind: Option<Range<usize>>,
    /// The number of rows that have been processed.
    pub(super) done: usize,
    /// Which rows have matched; empty where that need not be known.
    pub(super) matched: VecDeque<bool>,
    /// The number of rows of which all has been returned that there is without a partner.
    pub(super) expired: usize,
    /// The number of rows that are linked behind others of their key.
    pub(super) followed: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) time: i64,
    pub(super) position: i64,
    /// The number of the key, under each numbering.
    keys: [u32; 2],
    /// How many entries before it the next older row of the key is; 0 when there is none.
    back: u32,
    /// The place of the row in the batches.
    row: u32,
}

/// Batches of rows. A row is known by a number that starts again after 2³²; fewer rows are held at a time.
#[derive(Debug, Default)]
pub(super) struct Batches {
    list: VecDeque<Batch>,
    /// The number of batches that have been dropped.
    dropped: usize,
    /// The batch of the first row of each block, counted from the first that there ever was.
    blocks: VecDeque<usize>,
    /// The number of the next row.
    next: u32,
    /// Bytes of all.
    bytes: usize,
}

#[derive(Debug)]
struct Batch {
    rows: RecordBatch,
    /// The number of its first row.
    start: u32,
    /// The greatest position.
    last: i64,
}

impl Entry {
    /// The place of the next older row of the key of the one at `at`, which this is.
    pub(super) fn before(&self, at: u32) -> u32 {
        if self.back == 0 { NONE } else { at.checked_sub(self.back).unwrap_or(NONE) }
    }
}

impl Rows {
    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        let entries = self.entries.capacity() * size_of::<Entry>();
        let heads: usize = self.heads.iter().map(|heads| heads.capacity() * size_of::<u64>()).sum();
        self.batches.size_bytes() + entries + heads + self.matched.capacity()
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// All rows, in order.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The row at a place.
    pub(super) fn entry(&self, at: u32) -> Option<&Entry> {
        self.entries.get(at as usize)
    }

    /// The row at a place, which may be far behind the last.
    pub(super) fn entry_at(&self, at: usize) -> Option<&Entry> {
        self.entries.get(at)
    }

    /// The next row to be processed.
    pub(super) fn next(&self) -> Option<&Entry> {
        self.entries.get(self.done)
    }

    /// The first and the last event time.
    pub(super) fn times(&self) -> Times {
        let times = self.entries.iter().map(|entry| entry.time);
        times.clone().min().zip(times.max())
    }

    /// The number of rows before a position.
    pub(super) fn count_before(&self, position: i64) -> usize {
        self.entries.partition_point(|entry| entry.position < position)
    }

    /// Appends a batch and makes entries of its rows, given the numbers of their keys, and those under the other numbering if there is
    /// one.
    pub(super) fn append(
        &mut self,
        batch: RecordBatch,
        [numbers, others]: [&[usize]; 2],
        entries: &mut Vec<Entry>,
    ) -> Result<()> {
        let batch = of_its_own(batch)?;
        let whens = times(&batch)?.iter().zip(positions(&batch)?);
        let mut row = self.batches.next;
        let mut others = others.iter();
        entries.reserve(batch.num_rows());
        for ((time, position), number) in whens.zip(numbers) {
            let other = others.next().map_or(NONE, |number| *number as u32);
            let mut keys = [*number as u32, other];
            keys.rotate_left(self.numbering);
            entries.push(Entry { time: *time, position: *position, keys, back: 0, row });
            row = row.wrapping_add(1);
        }
        self.batches.append(batch)
    }

    /// Adds the entries of rows that have been appended. `counts`: of keys, under the numbering in use and the other one.
    pub(super) fn add(&mut self, entries: Vec<Entry>, mut counts: [usize; 2]) {
        counts.rotate_left(self.numbering);
        for (heads, count) in self.heads.iter_mut().zip(counts) {
            heads.resize(count.max(heads.len()), 0);
        }
        self.entries.extend(entries);
    }

    /// The newest linked row with the key of a row of either input.
    pub(super) fn head(&self, entry: &Entry) -> u32 {
        let (heads, key) = match self.numbering {
            0 => (&self.heads[0], entry.keys[0]),
            _ => (&self.heads[1], entry.keys[1]),
        };
        self.place_of(heads.get(key as usize).copied().unwrap_or(0))
    }

    /// The newest linked rows of all keys.
    pub(super) fn heads(&self) -> impl Iterator<Item = u32> {
        let heads = self.heads.get(self.numbering).into_iter().flatten();
        heads.map(|head| self.place_of(*head))
    }

    /// The place of the row that a head has.
    fn place_of(&self, head: u64) -> u32 {
        head.checked_sub(self.dropped + 1).map_or(NONE, |place| place as u32)
    }

    /// Makes the next row one that others find.
    pub(super) fn link(&mut self) {
        let number = self.dropped + self.done as u64;
        if let Some(entry) = self.entries.get_mut(self.done) {
            let numbered = self.behind.as_ref().is_some_and(|behind| !behind.contains(&self.done));
            for (numbering, (heads, key)) in self.heads.iter_mut().zip(entry.keys).enumerate() {
                let own = numbering == self.numbering;
                if !own && !numbered {
                    continue;
                }
                let Some(head) = heads.get_mut(key as usize) else { continue };
                let before = std::mem::replace(head, number + 1);
                if own && before > self.dropped {
                    entry.back = (number + 1 - before) as u32;
                    self.followed += 1;
                }
            }
        }
        self.done += 1;
    }

    /// Calls `found` for each linked row with the key of `entry` and a time within the bounds.
    pub(super) fn find(
        &self,
        entry: &Entry,
        (first, last): (i64, i64),
        mut found: impl FnMut(u32),
    ) {
        let mut at = self.head(entry);
        while let Some(row) = self.entries.get(at as usize) {
            if row.position < first {
                break;
            }
            if row.time >= first && row.time <= last {
                found(at);
            }
            at = row.before(at);
        }
    }

    /// Drops rows before a position. They have been processed.
    pub(super) fn drop_before(&mut self, position: i64) {
        let count = self.count_before(position);
        if count == 0 {
            return;
        }
        self.entries.drain(..count);
        self.matched.drain(..count.min(self.matched.len()));
        self.dropped += count as u64;
        self.done = self.done.saturating_sub(count);
        self.expired = self.expired.saturating_sub(count);
        if let Some(behind) = &mut self.behind {
            *behind = behind.start.saturating_sub(count)..behind.end.saturating_sub(count);
        }
        self.batches.drop_before(position);
        let len = self.entries.len();
        if self.entries.capacity() / USED_SHARE > len.max(ROOM_MIN) {
            self.entries.shrink_to(len * 2);
            self.matched.shrink_to(self.matched.len() * 2);
        }
    }

    /// Begins to number the keys of all rows again.
    pub(super) fn begin_numbering(&mut self) {
        self.behind = Some(0..self.entries.len());
    }

    /// The next rows that have no number under the other numbering, `rows_max` at most.
    pub(super) fn behind(&self, rows_max: usize) -> Vec<u32> {
        let behind = self.behind.clone().unwrap_or_default();
        behind.take(rows_max).filter_map(|at| u32::try_from(at).ok()).collect()
    }

    /// Numbers the keys of the first rows that have no number under the other numbering, which has `keys` of them so far.
    pub(super) fn number_again(&mut self, numbers: &[usize], keys: usize) {
        let Some(behind) = &mut self.behind else { return };
        let own = self.numbering;
        let Some(heads) = self.heads.get_mut(1 - own) else { return };
        heads.resize(keys.max(heads.len()), 0);
        let first = behind.start;
        behind.start += numbers.len();
        for ((at, entry), number) in
            self.entries.range_mut(first..first + numbers.len()).enumerate().zip(numbers)
        {
            // A row that matches nothing has no number.
            if entry.keys[own] == NONE {
                entry.keys[1 - own] = NONE;
                continue;
            }
            entry.keys[1 - own] = *number as u32;
            if first + at < self.done
                && let Some(head) = heads.get_mut(*number)
            {
                // A later row may have been linked already.
                *head = (*head).max(self.dropped + (first + at) as u64 + 1);
            }
        }
    }

    /// Uses the other numbering from now on: all rows have their numbers.
    pub(super) fn end_numbering(&mut self) {
        self.behind = None;
        if let Some(heads) = self.heads.get_mut(self.numbering) {
            *heads = vec![];
        }
        self.numbering = 1 - self.numbering;
    }

    /// Returns some columns of some rows; NULL where there is no row.
    pub(super) fn gather(
        &self,
        schema: &Schema,
        wanted: impl Iterator<Item = usize>,
        places: &[u32],
        columns: &mut Vec<ArrayRef>,
    ) -> Result<()> {
        let missing = places.contains(&NONE);
        if let Some(one) = self.batches.only() {
            let row = |at: &u32| self.entry(*at).map(|entry| entry.row.wrapping_sub(one.start));
            let rows: UInt32Array = match missing {
                true => places.iter().map(row).collect(),
                false => places.iter().filter_map(row).collect::<Vec<_>>().into(),
            };
            for column in wanted.filter_map(|at| one.rows.columns().get(at)) {
                columns.push(take(column, &rows, None)?);
            }
            return Ok(());
        }
        let none = (self.batches.list.len(), 0);
        let place = |at: &u32| if *at == NONE { none } else { self.place(*at) };
        let places: Vec<(usize, usize)> = places.iter().map(place).collect();
        for at in wanted {
            let field = schema.fields().get(at);
            let field = field.ok_or_else(|| Error::internal("a column of a join is missing"))?;
            let nothing = new_null_array(field.data_type(), 1);
            let parts = self.batches.iter().filter_map(|rows| rows.columns().get(at));
            let mut parts: Vec<&dyn Array> = parts.map(AsRef::as_ref).collect();
            if missing || parts.is_empty() {
                parts.push(nothing.as_ref());
            }
            columns.push(interleave(&parts, &places)?);
        }
        Ok(())
    }

    /// The batch of a row, and its place there.
    pub(super) fn place(&self, at: u32) -> (usize, usize) {
        self.batches.place(self.entry(at).map_or(0, |entry| entry.row))
    }

    /// The place of a row among the rows of all batches.
    pub(super) fn place_in_all(&self, entry: &Entry) -> usize {
        entry.row.wrapping_sub(self.batches.start()) as usize
    }
}

impl Batches {
    fn size_bytes(&self) -> usize {
        let list = self.list.capacity() * size_of::<Batch>();
        self.bytes + list + self.blocks.capacity() * size_of::<usize>()
    }

    /// All batches.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &RecordBatch> {
        self.list.iter().map(|batch| &batch.rows)
    }

    /// A batch, by its place.
    pub(super) fn get(&self, at: usize) -> Option<&RecordBatch> {
        self.list.get(at).map(|batch| &batch.rows)
    }

    fn only(&self) -> Option<&Batch> {
        self.list.front().filter(|_| self.list.len() == 1)
    }

    /// The number of the first row.
    fn start(&self) -> u32 {
        self.list.front().map_or(self.next, |batch| batch.start)
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.next.wrapping_sub(self.start()) as usize
    }

    /// Appends a batch. Small ones are put together.
    fn append(&mut self, mut rows: RecordBatch) -> Result<()> {
        let total = self.rows() + rows.num_rows();
        if total >= NONE as usize - (2 << BLOCK_BITS) {
            return Err(Error::new(ErrorKind::Limit, "a join holds more than 4 billion rows"));
        }
        let mut last = positions(&rows)?.iter().copied().max().unwrap_or(i64::MIN);
        let mut start = self.next;
        let end = start.wrapping_add(rows.num_rows() as u32);
        let few = TOGETHER_ROWS.max(total / TOGETHER_SHARE);
        let fits = |before: usize, rows: usize| before <= rows * 2 && before + rows <= few;
        while let Some(before) = self.list.pop_back_if(|b| fits(b.rows.num_rows(), rows.num_rows()))
        {
            start = before.start;
            last = last.max(before.last);
            self.bytes = self.bytes.saturating_sub(before.rows.get_array_memory_size());
            rows = concat_batches(&rows.schema(), [&before.rows, &rows])?;
        }
        let first = self.start_with(start);
        let blocks = |row: u32| (row.wrapping_sub(first) as usize).div_ceil(1 << BLOCK_BITS);
        let number = self.dropped + self.list.len();
        self.blocks.truncate(blocks(start));
        self.blocks.resize(blocks(end), number);
        self.bytes += rows.get_array_memory_size();
        self.next = end;
        self.list.push_back(Batch { rows, start, last });
        Ok(())
    }

    /// The number of the first row of the first block, where a batch that starts at `start` may be the first.
    fn start_with(&self, start: u32) -> u32 {
        let first = self.list.front().map_or(start, |batch| batch.start);
        first >> BLOCK_BITS << BLOCK_BITS
    }

    /// Drops batches of which all rows are before a position.
    fn drop_before(&mut self, position: i64) {
        let before = self.start() >> BLOCK_BITS;
        while let Some(batch) = self.list.pop_front_if(|batch| batch.last < position) {
            self.bytes = self.bytes.saturating_sub(batch.rows.get_array_memory_size());
            self.dropped += 1;
        }
        let blocks = (self.start() >> BLOCK_BITS).wrapping_sub(before) % BLOCKS;
        self.blocks.drain(..(blocks as usize).min(self.blocks.len()));
        if self.list.is_empty() {
            self.blocks.clear();
        }
    }

    /// The batch of a row, and its place there.
    fn place(&self, row: u32) -> (usize, usize) {
        let block = row.wrapping_sub(self.start_with(self.next)) >> BLOCK_BITS;
        // The first block may begin with a batch that has been dropped.
        let batch = self.blocks.get(block as usize).copied().unwrap_or(0);
        let mut batch = batch.saturating_sub(self.dropped);
        let start = self.start();
        let own = row.wrapping_sub(start);
        while self.list.get(batch + 1).is_some_and(|next| next.start.wrapping_sub(start) <= own) {
            batch += 1;
        }
        let begins = self.list.get(batch).map_or(row, |batch| batch.start);
        (batch, row.wrapping_sub(begins) as usize)
    }
}

/// Copies the rows where they are a small part of a larger batch, which would otherwise stay, and count, as a whole.
fn of_its_own(batch: RecordBatch) -> Result<RecordBatch> {
    // The first column is the time.
    let held = batch.columns().first().map_or(0, Array::get_buffer_memory_size);
    let rows = batch.num_rows();
    if held <= rows * 2 * size_of::<i64>() + PINNED_BYTES {
        return Ok(batch);
    }
    let all = UInt32Array::from_iter_values((0..rows).filter_map(|row| u32::try_from(row).ok()));
    Ok(take_record_batch(&batch, &all)?)
}

/// Puts entries in order of their positions; those of rows that are partly late before others of the same position.
pub(super) fn put_in_order(entries: &mut Vec<Entry>) {
    let positions: Vec<i64> = entries.iter().map(|entry| entry.position).collect();
    let times: Vec<i64> = entries.iter().map(|entry| entry.time).collect();
    if let Some(order) = in_order(&positions, &times, positions == times) {
        *entries = order.iter().filter_map(|at| entries.get(*at as usize).copied()).collect();
    }
}
