//! The rows of both inputs that can still match, in memory, by key, the latest first.
//!
//! Rows are processed in order of their positions. Each one searches for partners among the rows of the other input
//! that have been processed, and is then linked in front of the earlier rows of its key. So a search visits the
//! partners, and stops at the first row whose position is before all of them. It skips rows that are too late for it
//! only if partners must be older than a positive bound.
//!
//! Results other than plain pairs are decided in [`super::outcome`] and [`super::closest`].
//!
//! Rows are not moved when they are added, in any order; only their entries are sorted. Rows that are no longer needed
//! are dropped as soon as that is known ([`super::rows`]), except where the needed ones are not the last ones: the
//! versions of an ASOF join that looks back are copied to a new table from time to time.
//!
//! Invariants: the entries of a side are in order of their positions; those before `done` have been processed. For
//! those before `expired` it is decided whether they have matched; if not, they have been returned where the join
//! returns them.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::Result;

use super::piece::null_keys;
use super::rows::{NONE, Rows, put_in_order};
use super::{IntervalJoinSpec, LEFT, RIGHT, Side};
use crate::batches;
use crate::table::Interner;

/// Versions that are no longer needed are kept until there are this many, and at least as many as needed rows.
const USELESS_MIN: usize = 4096;
/// Keys without rows are kept until there are this many, and not fewer than rows.
const UNUSED_KEYS_MIN: usize = 64;
/// Rows whose keys are numbered again at a time, at least…
const NUMBERED_MIN: usize = 1024;
/// … and as many times the rows that have been added since.
const NUMBERED_FACTOR: usize = 2;

/// Rows of both inputs.
pub(super) struct Table {
    pub(super) spec: Arc<IntervalJoinSpec>,
    /// `None` while there are no rows.
    keys: Option<Interner>,
    /// The keys as they are numbered again, without those that have no rows.
    renumbered: Option<Interner>,
    pub(super) sides: [Rows; 2],
    /// The number of keys to expect.
    expected: usize,
    /// The number of rows that have been added since rows were last dropped.
    added: usize,
    /// Scratch: the numbers of keys, and of the same under the other numbering.
    numbers: [Vec<usize>; 2],
}

/// Pairs, by the places of their rows among the entries, and the greater time of each.
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
            renumbered: None,
            sides: Default::default(),
            expected: 0,
            added: 0,
            numbers: Default::default(),
        }
    }

    pub(super) fn side(&mut self, side: usize) -> &mut Rows {
        let [left, right] = &mut self.sides;
        if side == LEFT { left } else { right }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.sides.iter().map(Rows::len).sum()
    }

    /// The rows of an input, including those no longer needed.
    pub(super) fn rows(&self, side: usize) -> Vec<RecordBatch> {
        let [left, right] = &self.sides;
        let rows = if side == LEFT { left } else { right };
        rows.batches.iter().cloned().collect()
    }

    /// Whether all rows have been processed.
    pub(super) fn is_done(&self) -> bool {
        self.sides.iter().all(|side| side.done == side.len())
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.keys_bytes() + self.sides.iter().map(Rows::size_bytes).sum::<usize>()
    }

    /// Bytes of memory of the keys of both inputs.
    pub(super) fn keys_bytes(&self) -> usize {
        self.keys.iter().chain(&self.renumbered).map(Interner::size_bytes).sum()
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
        let mut fresh = vec![];
        let before = self.side(side).batches.rows();
        for batch in batches {
            if batch.num_rows() > 0 {
                self.intern(spec.side(side), &batch)?;
                let numbers = std::mem::take(&mut self.numbers);
                let both = numbers.each_ref().map(Vec::as_slice);
                self.side(side).append(batch, both, &mut fresh)?;
                self.numbers = numbers;
            }
        }
        let keys = [&self.keys, &self.renumbered];
        let keys = keys.map(|keys| keys.as_ref().map_or(0, Interner::len));
        self.added += fresh.len();
        put_in_order(&mut fresh);
        let rows = self.side(side);
        if spec.tracks(side) {
            let marks = fresh.iter().map(|entry| {
                let at = rows.place_in_all(entry).saturating_sub(before);
                matched.get(at).copied().unwrap_or(false)
            });
            let marks: Vec<bool> = marks.collect();
            rows.matched.extend(marks);
        }
        rows.add(fresh, keys);
        Ok(())
    }

    /// Sets `numbers` to the numbers of the rows' keys.
    fn intern(&mut self, side: &Side, batch: &RecordBatch) -> Result<()> {
        let keys = side.input.keys.iter();
        let keys: Vec<ArrayRef> =
            keys.filter_map(|key| batch.columns().get(*key).cloned()).collect();
        if self.keys.is_none() {
            self.keys = Some(Interner::of(&self.spec.key_schema, self.expected)?);
        }
        // Where rows with a NULL in their key are not kept, there are none.
        let nulls = if self.spec.null_equals { None } else { null_keys(side, batch) };
        let interners = [&mut self.keys, &mut self.renumbered];
        for (interner, numbers) in interners.into_iter().zip(&mut self.numbers) {
            numbers.clear();
            let Some(interner) = interner else { continue };
            interner.intern(&keys, batch.num_rows(), numbers)?;
            for (number, valid) in numbers.iter_mut().zip(nulls.iter().flatten()) {
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
        while rows.done < rows.len() {
            rows.link();
        }
        Ok(())
    }

    /// The position of the next row to be processed.
    pub(super) fn next_position(&self) -> Option<i64> {
        let next = self.sides.iter().filter_map(Rows::next);
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
            let side = match (left.next(), right.next()) {
                (None, None) => break,
                (Some(_), None) => LEFT,
                (None, Some(_)) => RIGHT,
                (Some(l), Some(r)) if (l.position, l.time) <= (r.position, r.time) => LEFT,
                (Some(_), Some(_)) => RIGHT,
            };
            let (own, other) = if side == LEFT { (left, right) } else { (right, left) };
            let Some(entry) = own.next().copied() else { break };
            if pairs.times.len() >= rows_max && entry.position > last {
                break;
            }
            last = entry.position;
            // A row that is partly late does not search; it is only found.
            if entry.time == entry.position {
                other.find(&entry, self.spec.partners(side, entry.time), |partner| {
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

    /// Drops rows that are of no use any more. All rows have been processed.
    pub(super) fn prune(&mut self, frontier: i64) -> Result<()> {
        if self.len() == 0 {
            return Ok(());
        }
        if self.spec.looks_back() {
            return self.prune_versions(frontier);
        }
        let spec = Arc::clone(&self.spec);
        for (side, rows) in self.sides.iter_mut().enumerate() {
            rows.drop_before(spec.useless_before(side, frontier));
        }
        if self.len() == 0 {
            *self = Self::new(&spec);
            return Ok(());
        }
        self.number_keys()
    }

    /// Drops the keys that have no rows, once they are many: numbers the keys of some rows again, and uses these numbers once all
    /// rows have one.
    fn number_keys(&mut self) -> Result<()> {
        let added = std::mem::take(&mut self.added);
        let (rows, keys) = (self.len(), self.keys.as_ref().map_or(0, Interner::len));
        if self.renumbered.is_none() {
            if keys < rows * 2 + UNUSED_KEYS_MIN {
                return Ok(());
            }
            self.renumbered = Some(Interner::of(&self.spec.key_schema, rows)?);
            self.sides.iter_mut().for_each(Rows::begin_numbering);
        }
        let Some(renumbered) = &mut self.renumbered else { return Ok(()) };
        let mut left = NUMBERED_MIN.max(added * NUMBERED_FACTOR);
        let [numbers, _] = &mut self.numbers;
        for (side, rows) in self.sides.iter_mut().enumerate() {
            let places = rows.behind(left);
            if !places.is_empty() {
                let input = &self.spec.side(side).input;
                let mut keys = vec![];
                rows.gather(&input.schema, input.keys.iter().copied(), &places, &mut keys)?;
                renumbered.intern(&keys, places.len(), numbers)?;
                rows.number_again(numbers, renumbered.len());
                left -= places.len();
            }
        }
        if left > 0 {
            self.sides.iter_mut().for_each(Rows::end_numbering);
            self.keys = self.renumbered.take();
        }
        Ok(())
    }

    /// Drops the rows of the left input that have looked back, and versions that are of no use any more, once they are
    /// the larger part, or all: those that others have followed.
    fn prune_versions(&mut self, frontier: i64) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        self.side(LEFT).drop_before(spec.useless_before(LEFT, frontier));
        let versions = self.side(RIGHT);
        let past = versions.count_before(spec.useless_before(RIGHT, frontier));
        let (useless, len) = (past.max(versions.followed), versions.len());
        let few = useless < USELESS_MIN || useless * 2 < len;
        if few && (useless < len || self.len() > len) {
            return self.number_keys();
        }
        for (side, taken) in self.take(frontier)?.into_iter().enumerate() {
            self.add_processed(side, taken.batches, &taken.matched)?;
        }
        // What is followed by a row that no row may match yet is not counted again.
        self.side(RIGHT).followed = 0;
        Ok(())
    }

    /// Removes and returns all rows that are still needed; the table is empty afterwards.
    pub(super) fn take(&mut self, frontier: i64) -> Result<[Taken; 2]> {
        let mut taken = [Taken::default(), Taken::default()];
        for (side, into) in [LEFT, RIGHT].into_iter().zip(&mut taken) {
            let before = self.spec.useless_before(side, frontier);
            let rows = std::mem::take(self.side(side));
            let useful: Vec<bool> = match side == RIGHT && self.spec.looks_back() {
                true => rows.latest(frontier.saturating_sub(self.spec.lower), before)?,
                false => rows.entries().map(|entry| entry.time >= before).collect(),
            };
            let mut kept = vec![false; rows.batches.rows()];
            let mut matched = vec![false; if rows.matched.is_empty() { 0 } else { kept.len() }];
            for (number, (entry, useful)) in rows.entries().zip(&useful).enumerate() {
                let at = rows.place_in_all(entry);
                if let Some(slot) = kept.get_mut(at) {
                    *slot = *useful;
                }
                if let Some(slot) = matched.get_mut(at) {
                    *slot = rows.matched.get(number).copied().unwrap_or(false);
                }
            }
            let mut start = 0;
            for batch in rows.batches.iter() {
                let end = start + batch.num_rows();
                let kept = kept.get(start..end).unwrap_or_default();
                start = end;
                if kept.contains(&true) {
                    // The strings of dropped rows must not be retained.
                    let rows = filter_record_batch(batch, &BooleanArray::from(kept.to_vec()))?;
                    into.batches.push(batches::without_foreign_bytes(rows)?);
                }
            }
            let mut kept = kept.into_iter();
            matched.retain(|_| kept.next().unwrap_or(false));
            into.matched = matched;
        }
        let rows = taken.iter().flat_map(|taken| &taken.batches).map(RecordBatch::num_rows);
        self.expected = rows.sum::<usize>().min(self.keys.as_ref().map_or(0, Interner::len));
        (self.keys, self.renumbered) = (None, None);
        Ok(taken)
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
