//! The rows of both inputs that can still match, in memory: found by key, the latest first.
//!
//! Rows are processed in order of their positions. Each one looks for partners among the rows of the other input that
//! have been processed, and is then linked in front of the earlier rows of its key; so a search visits the partners, and
//! stops at the first row whose position is before all of them. It passes over rows that are too late for it only
//! where partners must be older than a positive bound.
//!
//! What a join returns beyond plain pairs is decided in [`super::outcome`] and [`super::closest`].
//!
//! Invariants: the entries of a side are in order of their positions; those before `done` have been processed. Of those
//! before `expired` it is known whether they have matched, and they have been returned if they have not and are wanted.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch, interleave, take};
use arrow::datatypes::Schema;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, ErrorKind, Result};

use super::piece::{merged, null_keys, positions, times};
use super::{IntervalJoinSpec, LEFT, RIGHT};
use crate::batches;
use crate::survey::Times;
use crate::table::Interner;

/// The end of a chain; the key of a row that matches nothing; no row.
pub(super) const NONE: u32 = u32::MAX;
/// Useless rows are kept until there are this many, and not fewer than useful ones.
const USELESS_MIN: usize = 4096;

/// Rows of both inputs.
pub(super) struct Table {
    pub(super) spec: Arc<IntervalJoinSpec>,
    /// None are held while there are no rows.
    keys: Option<Interner>,
    pub(super) sides: [Rows; 2],
    /// Scratch.
    numbers: Vec<usize>,
}

/// The rows of one input.
#[derive(Default)]
pub(super) struct Rows {
    /// The rows; each batch is less than half as long as the one before, or nearly.
    batches: Vec<RecordBatch>,
    /// The number of the first row of each batch.
    starts: Vec<usize>,
    /// One per row.
    pub(super) entries: Vec<Entry>,
    /// The newest linked row of each key.
    pub(super) heads: Vec<u32>,
    /// The number of rows that have been processed.
    pub(super) done: usize,
    /// Which rows have matched; empty where that need not be known.
    pub(super) matched: Vec<bool>,
    /// The number of rows of which all has been returned that there is without a partner.
    pub(super) expired: usize,
    /// The number of rows that are linked behind others of their key.
    followed: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) time: i64,
    pub(super) position: i64,
    pub(super) key: u32,
    /// The next older row of the key.
    pub(super) next: u32,
}

/// Pairs, by the numbers of their rows, and the greater time of each.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    pub(super) rows: [Vec<u32>; 2],
    pub(super) times: Vec<i64>,
}

/// Rows of one input that are taken out of a table, in order.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) batches: Vec<RecordBatch>,
    /// Which of them have matched; empty where that need not be known.
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
        Self { spec: Arc::clone(spec), keys: None, sides: Default::default(), numbers: vec![] }
    }

    pub(super) fn side(&mut self, side: usize) -> &mut Rows {
        let [left, right] = &mut self.sides;
        if side == LEFT { left } else { right }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.sides.iter().map(|side| side.entries.len()).sum()
    }

    /// The rows of an input, those of no use among them.
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

    /// Adds sorted rows of `side`, at or after those that it has.
    pub(super) fn add(&mut self, side: usize, batch: RecordBatch) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let keys = spec.side(side).input.keys.iter();
        let keys: Vec<ArrayRef> =
            keys.filter_map(|key| batch.columns().get(*key).cloned()).collect();
        let mut interner = match self.keys.take() {
            Some(interner) => interner,
            None => Interner::of(&spec.key_schema, 0)?,
        };
        let mut numbers = std::mem::take(&mut self.numbers);
        interner.intern(&keys, batch.num_rows(), &mut numbers)?;
        let groups = interner.len();
        self.keys = Some(interner);
        let rows = self.side(side);
        if rows.entries.len() + batch.num_rows() >= NONE as usize {
            return Err(Error::new(ErrorKind::Limit, "a join holds more than 4 billion rows"));
        }
        let nulls = match !spec.null_equals && spec.keeps_nulls(side) {
            true => null_keys(spec.side(side), &batch),
            false => None,
        };
        if let Some(nulls) = nulls {
            for (number, valid) in numbers.iter_mut().zip(&nulls) {
                if !valid {
                    *number = NONE as usize;
                }
            }
        }
        if spec.tracks(side) {
            rows.matched.resize(rows.entries.len() + batch.num_rows(), false);
        }
        rows.heads.resize(groups.max(rows.heads.len()), NONE);
        let whens = times(&batch)?.iter().zip(positions(&batch)?);
        rows.entries.extend(whens.zip(&numbers).map(|((time, position), key)| Entry {
            time: *time,
            position: *position,
            key: *key as u32,
            next: NONE,
        }));
        rows.append(batch)?;
        self.numbers = numbers;
        Ok(())
    }

    /// Adds sorted rows of `side` as processed: they do not look for partners. `matched`: which of them have, where that must be
    /// known.
    pub(super) fn add_processed(
        &mut self,
        side: usize,
        batch: RecordBatch,
        matched: &[bool],
    ) -> Result<()> {
        self.add(side, batch)?;
        let rows = self.side(side);
        let before = rows.matched.len().saturating_sub(matched.len());
        for (slot, matched) in rows.matched.iter_mut().skip(before).zip(matched) {
            *slot = *matched;
        }
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

    /// Processes rows until there are at least `rows_max` results, and then those at the same time; `None` when there are
    /// no more. All rows before `until` are here.
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
            // A row that is partly late is only found by others.
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

    /// Drops rows that are of no use any more, once they are the larger part, or all. All rows have been processed.
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
            if let Some(rows) = merged(&self.spec.side(side).state_schema, &taken.batches)? {
                self.add_processed(side, rows, &taken.matched)?;
            }
        }
        if self.spec.looks_back() {
            // What is followed by a row that no row may match yet is not counted again.
            self.side(RIGHT).followed = 0;
        }
        Ok(())
    }

    /// Takes all rows out that are still of use; the table is empty afterwards.
    pub(super) fn take(&mut self, frontier: i64) -> Result<[Taken; 2]> {
        let mut taken = [Taken::default(), Taken::default()];
        for (side, into) in [LEFT, RIGHT].into_iter().zip(&mut taken) {
            let before = self.spec.useless_before(side, frontier);
            let mut rows = std::mem::take(self.side(side));
            let useful: Vec<bool> = match side == RIGHT && self.spec.looks_back() {
                true => rows.latest(frontier.saturating_sub(self.spec.lower), before)?,
                false => rows.entries.iter().map(|entry| entry.time >= before).collect(),
            };
            for (batch, start) in rows.batches.into_iter().zip(rows.starts) {
                let useful = useful.get(start..start + batch.num_rows()).unwrap_or_default();
                let useful = BooleanArray::from(useful.to_vec());
                // Strings of rows that are dropped must not stay.
                let rows = filter_record_batch(&batch, &useful)?;
                into.batches.push(batches::without_foreign_bytes(rows)?);
            }
            let mut kept = useful.into_iter();
            rows.matched.retain(|_| kept.next().unwrap_or(false));
            into.matched = rows.matched;
        }
        self.keys = None;
        Ok(taken)
    }
}

impl Rows {
    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        let batches: usize = self.batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let entries = self.entries.capacity() * size_of::<Entry>();
        batches + entries + self.heads.capacity() * 4 + self.matched.capacity()
    }

    /// The first and the last event time.
    pub(super) fn times(&self) -> Times {
        let times = self.entries.iter().map(|entry| entry.time);
        times.clone().min().zip(times.max())
    }

    /// Appends a batch; small ones are put together.
    fn append(&mut self, mut batch: RecordBatch) -> Result<()> {
        while let Some(before) = self.batches.pop_if(|b| b.num_rows() <= batch.num_rows() * 2) {
            self.starts.pop();
            batch = concat_batches(&batch.schema(), [&before, &batch])?;
        }
        self.starts.push(self.entries.len() - batch.num_rows());
        self.batches.push(batch);
        Ok(())
    }

    /// Makes the next row one that others find.
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

    /// Adds some columns of some rows; NULL where there is no row.
    pub(super) fn gather(
        &self,
        schema: &Schema,
        wanted: impl Iterator<Item = usize>,
        numbers: &[u32],
        columns: &mut Vec<ArrayRef>,
    ) -> Result<()> {
        let missing = numbers.contains(&NONE);
        if let [one] = self.batches.as_slice() {
            let rows: UInt32Array = match missing {
                true => numbers.iter().map(|number| (*number != NONE).then_some(*number)).collect(),
                false => numbers.to_vec().into(),
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

    /// The batch of a row, and its place there.
    pub(super) fn place(&self, number: u32) -> (usize, usize) {
        let number = number as usize;
        let batch = self.starts.partition_point(|start| *start <= number).saturating_sub(1);
        (batch, number - self.starts.get(batch).copied().unwrap_or(0))
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
