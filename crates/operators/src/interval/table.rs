//! The rows of both inputs that can still match, in memory, by key, the latest first.
//!
//! Rows are processed in order of their positions. Each one searches for partners among the rows of the other input
//! that have been processed, and is then linked in front of the earlier rows of its key. So a search visits the
//! partners, and stops at the first row whose position is before all of them. It skips rows that are too late for it
//! only if partners must be older than a positive bound.
//!
//! Results other than plain pairs are decided in [`super::outcome`] and [`super::closest`].
//!
//! Rows are not moved when they are added, in any order; only their entries are sorted.
//!
//! Invariants: the entries of a side are in order of their positions; those before `done` have been processed. For
//! those before `expired` it is decided whether they have matched; if not, they have been returned where the join
//! returns them.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch, interleave, take, take_record_batch};
use arrow::datatypes::Schema;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, ErrorKind, Result};

use super::piece::{in_order, null_keys, positions, times};
use super::{IntervalJoinSpec, LEFT, RIGHT, Side};
use crate::batches;
use crate::survey::Times;
use crate::table::Interner;

/// The end of a chain; the key of a row that matches nothing; the number of a missing row.
pub(super) const NONE: u32 = u32::MAX;
/// Rows that are no longer needed are kept until there are this many, and at least as many as needed ones.
const USELESS_MIN: usize = 4096;
/// Neighbouring batches are concatenated up to this many rows…
const TOGETHER_ROWS: usize = 16 << 10;
/// … or up to this share of all.
const TOGETHER_SHARE: usize = 64;
/// The number of rows whose batch is looked up at once, as a power of two.
const BLOCK_BITS: u32 = 12;
/// The bytes of other rows that a column of times may retain.
const PINNED_BYTES: usize = 1024;

/// Rows of both inputs.
pub(super) struct Table {
    pub(super) spec: Arc<IntervalJoinSpec>,
    /// `None` while there are no rows.
    keys: Option<Interner>,
    pub(super) sides: [Rows; 2],
    /// The number of keys to expect.
    expected: usize,
    /// Scratch.
    numbers: Vec<usize>,
}

/// The rows of one input.
#[derive(Default)]
pub(super) struct Rows {
    /// The rows as they arrived; small batches are concatenated.
    batches: Vec<RecordBatch>,
    /// The index of the first row of each batch among all rows.
    starts: Vec<usize>,
    /// The batch of the first row of each block.
    blocks: Vec<u32>,
    /// The bytes of `batches`.
    bytes: usize,
    /// One per row.
    pub(super) entries: Vec<Entry>,
    /// The newest linked row of each key.
    pub(super) heads: Vec<u32>,
    /// The number of rows that have been processed.
    pub(super) done: usize,
    /// Which rows have matched; empty if that is not recorded.
    pub(super) matched: Vec<bool>,
    /// The number of rows of which all unmatched results have been returned.
    pub(super) expired: usize,
    /// The number of rows that have been followed by others of their key.
    followed: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) time: i64,
    pub(super) position: i64,
    pub(super) key: u32,
    /// The next older row of the key.
    pub(super) next: u32,
    /// The index of the row among those of the batches.
    row: u32,
}

/// Pairs, by the numbers of their rows, and the greater time of each.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) rows: [Vec<u32>; 2],
    pub(super) times: Vec<i64>,
}

/// Rows of one input that were removed from a table, in any order.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) batches: Vec<RecordBatch>,
    /// Which of them have matched; empty if that is not recorded.
    pub(super) matched: Vec<bool>,
}

/// Finished rows in order of their event time.
#[derive(Debug)]
pub(super) struct Matched {
    pub(super) rows: RecordBatch,
    pub(super) times: Vec<i64>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("rows", &self.len()).finish_non_exhaustive()
    }
}

impl Table {
    pub(super) fn new(spec: &Arc<IntervalJoinSpec>) -> Self {
        Self {
            spec: Arc::clone(spec),
            keys: None,
            sides: Default::default(),
            expected: 0,
            numbers: vec![],
        }
    }

    pub(super) fn side(&mut self, side: usize) -> &mut Rows {
        let [left, right] = &mut self.sides;
        if side == LEFT { left } else { right }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.sides.iter().map(|side| side.entries.len()).sum()
    }

    /// The rows of an input, including those no longer needed.
    pub(super) fn rows(&self, side: usize) -> Vec<RecordBatch> {
        let [left, right] = &self.sides;
        if side == LEFT { left.batches.clone() } else { right.batches.clone() }
    }

    /// Whether all rows have been processed.
    pub(super) fn is_done(&self) -> bool {
        self.sides.iter().all(|side| side.done == side.entries.len())
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.keys_bytes() + self.sides.iter().map(Rows::size_bytes).sum::<usize>()
    }

    /// Bytes of memory of the keys of both inputs.
    pub(super) fn keys_bytes(&self) -> usize {
        self.keys.as_ref().map_or(0, Interner::size_bytes)
    }

    /// Adds rows of `side`, in any order, none of which is before its existing rows.
    pub(super) fn add(&mut self, side: usize, batches: Vec<RecordBatch>) -> Result<()> {
        self.add_marked(side, batches, &[])
    }

    /// Adds rows of `side`. `matched`: which of them have matched, batch by batch, if that is recorded.
    fn add_marked(
        &mut self,
        side: usize,
        batches: Vec<RecordBatch>,
        matched: &[bool],
    ) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let mut fresh: Vec<Entry> = vec![];
        let before = self.side(side).row_count();
        for batch in batches {
            if batch.num_rows() > 0 {
                self.intern(spec.side(side), &batch)?;
                let numbers = std::mem::take(&mut self.numbers);
                self.side(side).append(batch, &numbers, &mut fresh)?;
                self.numbers = numbers;
            }
        }
        let keys = self.keys.as_ref().map_or(0, Interner::len);
        put_in_order(&mut fresh);
        let rows = self.side(side);
        if spec.tracks(side) {
            let marks = fresh.iter().map(|entry| {
                matched.get((entry.row as usize).saturating_sub(before)).copied().unwrap_or(false)
            });
            rows.matched.extend(marks);
        }
        rows.heads.resize(keys.max(rows.heads.len()), NONE);
        rows.entries.append(&mut fresh);
        Ok(())
    }

    /// Sets `numbers` to the numbers of the rows' keys.
    fn intern(&mut self, side: &Side, batch: &RecordBatch) -> Result<()> {
        let keys = side.input.keys.iter();
        let keys: Vec<ArrayRef> =
            keys.filter_map(|key| batch.columns().get(*key).cloned()).collect();
        let interner = match &mut self.keys {
            Some(interner) => interner,
            none => none.insert(Interner::of(&self.spec.key_schema, self.expected)?),
        };
        interner.intern(&keys, batch.num_rows(), &mut self.numbers)?;
        // If rows with a NULL in their key are not kept, there are none.
        let nulls = if self.spec.null_equals { None } else { null_keys(side, batch) };
        if let Some(nulls) = nulls {
            for (number, valid) in self.numbers.iter_mut().zip(&nulls) {
                if !valid {
                    *number = NONE as usize;
                }
            }
        }
        Ok(())
    }

    /// Adds rows of `side` as processed: they do not search for partners. `matched`: which of them have matched, batch
    /// by batch, if that is recorded.
    pub(super) fn add_processed(
        &mut self,
        side: usize,
        batches: Vec<RecordBatch>,
        matched: &[bool],
    ) -> Result<()> {
        self.add_marked(side, batches, matched)?;
        let rows = self.side(side);
        while rows.done < rows.entries.len() {
            rows.link();
        }
        Ok(())
    }

    /// The position of the next row to be processed.
    pub(super) fn next_position(&self) -> Option<i64> {
        let next = self.sides.iter().filter_map(|side| side.entries.get(side.done));
        next.map(|entry| entry.position).min()
    }

    /// Processes rows until there are at least `rows_max` results, and then those at the same time; `None` when there
    /// are no more. All rows before `until` have been added.
    pub(super) fn run(&mut self, rows_max: usize, until: i64) -> Result<Option<Matched>> {
        match self.spec.is_plain() {
            true => self.run_pairs(rows_max),
            false => self.run_outcomes(rows_max, until),
        }
    }

    fn run_pairs(&mut self, rows_max: usize) -> Result<Option<Matched>> {
        let mut pairs = Pairs::default();
        let mut last = i64::MIN;
        loop {
            let [left, right] = &mut self.sides;
            let side = match (left.entries.get(left.done), right.entries.get(right.done)) {
                (None, None) => break,
                (Some(_), None) => LEFT,
                (None, Some(_)) => RIGHT,
                (Some(l), Some(r)) if (l.position, l.time) <= (r.position, r.time) => LEFT,
                (Some(_), Some(_)) => RIGHT,
            };
            let (own, other) = if side == LEFT { (left, right) } else { (right, left) };
            let Some(entry) = own.entries.get(own.done).copied() else { break };
            if pairs.times.len() >= rows_max && entry.position > last {
                break;
            }
            last = entry.position;
            // A row that is partly late does not search; it is only found.
            if entry.time == entry.position {
                other.find(entry, self.spec.partners(side, entry.time), |partner| {
                    pairs.push(side, own.done as u32, partner, entry.time);
                });
            }
            own.link();
        }
        if pairs.times.is_empty() { Ok(None) } else { self.gather(pairs).map(Some) }
    }

    /// Returns the rows of pairs.
    pub(super) fn gather(&self, pairs: Pairs) -> Result<Matched> {
        let mut columns = Vec::with_capacity(self.spec.output_schema.fields().len());
        for (side, (rows, numbers)) in self.sides.iter().zip(&pairs.rows).enumerate() {
            if self.spec.kind.has_columns(side) {
                let schema = &self.spec.side(side).input.schema;
                rows.gather(schema, 0..schema.fields().len(), numbers, &mut columns)?;
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(pairs.times.len()));
        let schema = Arc::clone(&self.spec.output_schema);
        let rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(Matched { rows, times: pairs.times })
    }

    /// Drops rows that are no longer needed, once they are the larger part, or all. All rows have been processed.
    pub(super) fn prune(&mut self, frontier: i64) -> Result<()> {
        let mut useless = 0;
        for (side, rows) in self.sides.iter().enumerate() {
            let before = self.spec.useless_before(side, frontier);
            let past = rows.entries.partition_point(|entry| entry.position < before);
            let versions = side == RIGHT && self.spec.looks_back();
            useless += if versions { past.max(rows.followed) } else { past };
        }
        let few = useless < USELESS_MIN || useless * 2 < self.len();
        if few && useless < self.len() || self.len() == 0 {
            return Ok(());
        }
        for (side, taken) in self.take(frontier)?.into_iter().enumerate() {
            self.add_processed(side, taken.batches, &taken.matched)?;
        }
        if self.spec.looks_back() {
            // Rows followed by one that no row may match yet are not counted again.
            self.side(RIGHT).followed = 0;
        }
        Ok(())
    }

    /// Removes and returns all rows that are still needed; the table is empty afterwards.
    pub(super) fn take(&mut self, frontier: i64) -> Result<[Taken; 2]> {
        let mut taken = [Taken::default(), Taken::default()];
        for (side, into) in [LEFT, RIGHT].into_iter().zip(&mut taken) {
            let before = self.spec.useless_before(side, frontier);
            let mut rows = std::mem::take(self.side(side));
            let useful: Vec<bool> = match side == RIGHT && self.spec.looks_back() {
                true => rows.latest(frontier.saturating_sub(self.spec.lower), before)?,
                false => rows.entries.iter().map(|entry| entry.time >= before).collect(),
            };
            let mut kept = vec![false; rows.row_count()];
            let mut matched = vec![false; if rows.matched.is_empty() { 0 } else { kept.len() }];
            for (number, (entry, useful)) in rows.entries.iter().zip(&useful).enumerate() {
                if let Some(slot) = kept.get_mut(entry.row as usize) {
                    *slot = *useful;
                }
                if let Some(slot) = matched.get_mut(entry.row as usize) {
                    *slot = rows.matched.get(number).copied().unwrap_or(false);
                }
            }
            for (batch, start) in std::mem::take(&mut rows.batches).into_iter().zip(&rows.starts) {
                let kept = kept.get(*start..start + batch.num_rows()).unwrap_or_default();
                if kept.contains(&true) {
                    // The strings of dropped rows must not be retained.
                    let rows = filter_record_batch(&batch, &BooleanArray::from(kept.to_vec()))?;
                    into.batches.push(batches::without_foreign_bytes(rows)?);
                }
            }
            let mut kept = kept.into_iter();
            matched.retain(|_| kept.next().unwrap_or(false));
            into.matched = matched;
        }
        let rows = taken.iter().flat_map(|taken| &taken.batches).map(RecordBatch::num_rows);
        self.expected = rows.sum::<usize>().min(self.keys.as_ref().map_or(0, Interner::len));
        self.keys = None;
        Ok(taken)
    }
}

impl Rows {
    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        let entries = self.entries.capacity() * size_of::<Entry>();
        self.bytes + entries + self.heads.capacity() * 4 + self.matched.capacity()
    }

    /// The first and the last event time.
    pub(super) fn times(&self) -> Times {
        let times = self.entries.iter().map(|entry| entry.time);
        times.clone().min().zip(times.max())
    }

    /// The number of rows in the batches.
    fn row_count(&self) -> usize {
        let last = self.starts.last().zip(self.batches.last());
        last.map_or(0, |(start, batch)| start + batch.num_rows())
    }

    /// Appends a batch and creates entries for its rows, given the numbers of their keys. Small batches are
    /// concatenated.
    fn append(
        &mut self,
        batch: RecordBatch,
        numbers: &[usize],
        entries: &mut Vec<Entry>,
    ) -> Result<()> {
        let mut batch = of_its_own(batch)?;
        let first = self.row_count();
        let total = first + batch.num_rows();
        if total >= NONE as usize {
            return Err(Error::new(ErrorKind::Limit, "a join holds more than 4 billion rows"));
        }
        let whens = times(&batch)?.iter().zip(positions(&batch)?);
        let rows = first as u32..total as u32;
        entries.extend(whens.zip(numbers).zip(rows).map(|(((time, position), key), row)| Entry {
            time: *time,
            position: *position,
            key: *key as u32,
            next: NONE,
            row,
        }));
        let few = TOGETHER_ROWS.max(total / TOGETHER_SHARE);
        let fits = |before: &RecordBatch, rows: usize| {
            before.num_rows() <= rows * 2 && before.num_rows() + rows <= few
        };
        let mut start = first;
        while let Some(before) = self.batches.pop_if(|before| fits(before, batch.num_rows())) {
            start = self.starts.pop().unwrap_or(0);
            self.bytes = self.bytes.saturating_sub(before.get_array_memory_size());
            batch = concat_batches(&batch.schema(), [&before, &batch])?;
        }
        let number = self.batches.len() as u32;
        self.blocks.truncate(start.div_ceil(1 << BLOCK_BITS));
        self.blocks.resize(total.div_ceil(1 << BLOCK_BITS), number);
        self.starts.push(start);
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        Ok(())
    }

    /// Links the next row, so that others find it.
    pub(super) fn link(&mut self) {
        if let Some(entry) = self.entries.get_mut(self.done)
            && let Some(head) = self.heads.get_mut(entry.key as usize)
        {
            entry.next = std::mem::replace(head, self.done as u32);
            self.followed += usize::from(entry.next != NONE);
        }
        self.done += 1;
    }

    /// Calls `found` for each linked row with the key of `entry` and a time within the bounds.
    pub(super) fn find(&self, entry: Entry, (first, last): (i64, i64), mut found: impl FnMut(u32)) {
        let mut at = self.heads.get(entry.key as usize).copied().unwrap_or(NONE);
        while let Some(row) = self.entries.get(at as usize) {
            if row.position < first {
                break;
            }
            if row.time >= first && row.time <= last {
                found(at);
            }
            at = row.next;
        }
    }

    /// Adds some columns of some rows; NULL for a missing row.
    pub(super) fn gather(
        &self,
        schema: &Schema,
        wanted: impl Iterator<Item = usize>,
        numbers: &[u32],
        columns: &mut Vec<ArrayRef>,
    ) -> Result<()> {
        let missing = numbers.contains(&NONE);
        if let [one] = self.batches.as_slice() {
            let row = |number: &u32| self.entries.get(*number as usize).map(|entry| entry.row);
            let rows: UInt32Array = match missing {
                true => numbers.iter().map(row).collect(),
                false => numbers.iter().filter_map(row).collect::<Vec<_>>().into(),
            };
            for column in wanted.filter_map(|at| one.columns().get(at)) {
                columns.push(take(column, &rows, None)?);
            }
            return Ok(());
        }
        let none = (self.batches.len(), 0);
        let place = |number: &u32| if *number == NONE { none } else { self.place(*number) };
        let places: Vec<(usize, usize)> = numbers.iter().map(place).collect();
        for at in wanted {
            let field = schema.fields().get(at);
            let field = field.ok_or_else(|| Error::internal("a column of a join is missing"))?;
            let nothing = new_null_array(field.data_type(), 1);
            let parts = self.batches.iter().filter_map(|b| b.columns().get(at));
            let mut parts: Vec<&dyn Array> = parts.map(AsRef::as_ref).collect();
            if missing || parts.is_empty() {
                parts.push(nothing.as_ref());
            }
            columns.push(interleave(&parts, &places)?);
        }
        Ok(())
    }

    /// The batch of a row, and its index there.
    pub(super) fn place(&self, number: u32) -> (usize, usize) {
        let row = self.entries.get(number as usize).map_or(0, |entry| entry.row as usize);
        let mut batch = self.blocks.get(row >> BLOCK_BITS).map_or(0, |batch| *batch as usize);
        while self.starts.get(batch + 1).is_some_and(|start| *start <= row) {
            batch += 1;
        }
        (batch, row - self.starts.get(batch).copied().unwrap_or(0))
    }

    /// A batch of rows, by its number.
    pub(super) fn batch(&self, number: usize) -> Option<&RecordBatch> {
        self.batches.get(number)
    }
}

impl Pairs {
    pub(super) fn push(&mut self, side: usize, own: u32, partner: u32, time: i64) {
        let [left, right] = &mut self.rows;
        let (l, r) = if side == LEFT { (own, partner) } else { (partner, own) };
        left.push(l);
        right.push(r);
        self.times.push(time);
    }
}

/// Copies the rows if they are a small part of a larger batch, which would otherwise be retained, and counted, as a
/// whole.
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

/// Sorts entries by their positions; rows that are partly late precede others of the same position.
fn put_in_order(entries: &mut Vec<Entry>) {
    let positions: Vec<i64> = entries.iter().map(|entry| entry.position).collect();
    let times: Vec<i64> = entries.iter().map(|entry| entry.time).collect();
    if let Some(order) = in_order(&positions, &times, positions == times) {
        *entries = order.iter().filter_map(|at| entries.get(*at as usize).copied()).collect();
    }
}
