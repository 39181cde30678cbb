//! The state for checkpoints, and on disk when memory is short.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use windrow_core::{Error, Result};

use super::coordinator::InOrder;
use super::piece::{self, merged, sorted, times};
use super::{OrderedSpec, OrderedTable};
use crate::segments::kept::{Cut, SavedSegment, SavedState, SegmentId, SpilledSegment, corrupt};
use crate::segments::ordered::{Held, Piece, in_parts, spill_pieces};
use crate::segments::spill::{SpillSpace, Spilled, pick, spill_rows};
use crate::{batches, failure};

/// The input of segments of rows.
const ROWS: usize = 0;
/// The input of segments with the state of keys.
const STATES: usize = 1;
/// A checkpoint is rewritten when it has this many rows more than needed, and more than twice as many.
const USELESS_MIN: usize = 64;
/// The state on disk is divided into this many parts at most.
const PARTS_MAX: usize = 256;
/// The initial number of parts into which state restored from a checkpoint is divided.
const PARTS_RESTORED: usize = 32;
/// A part takes this share of the bytes that may be read at a time.
const PART_SHARE: usize = 4;
/// Differs from the seed of every hash table, whose slots would otherwise be filled unevenly.
const SEED: u64 = 0x7769_6e64_726f_7721;

/// The segments of checkpoints.
#[derive(Debug, Default)]
pub(super) struct Saved {
    keeps: bool,
    next_id: u64,
    /// The segments of rows that checkpoints have.
    rows: Vec<Known>,
    /// The pieces that no checkpoint has.
    fresh: Vec<Piece>,
    /// The segments of states that checkpoints have, in their order.
    states: Vec<Known>,
    /// Whether the state on disk has changed since the last checkpoint.
    changed: bool,
    /// Whether checkpoints have keys that no longer exist: the states of all keys are then written.
    pub(super) stale: bool,
}

/// A segment that a checkpoint has.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: SegmentId,
    last: i64,
    rows: usize,
}

impl Saved {
    pub(super) fn keep(&mut self) {
        self.keeps = true;
    }

    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    pub(super) fn add(&mut self, piece: &Piece) {
        if self.keeps {
            self.fresh.push(piece.clone());
        }
    }

    /// Records that rows have been processed.
    pub(super) fn processed(&mut self) {
        self.changed = true;
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.fresh.iter().map(Piece::size_bytes).sum()
    }

    fn next_id(&mut self) -> SegmentId {
        self.next_id += 1;
        SegmentId(self.next_id - 1)
    }

    /// Returns rows as segments: those in memory as one, those on disk piece by piece.
    fn rows_of(&mut self, pieces: Vec<Piece>) -> Result<Vec<SavedSegment>> {
        let (mut segments, mut in_memory) = (vec![], vec![]);
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        let mut known = vec![];
        for piece in pieces {
            match piece.held {
                Held::Spilled(spilled) => {
                    let (id, rows) = (self.next_id(), piece.rows);
                    known.push(Known { id, last: piece.last, rows });
                    let spilled = Some(SpilledSegment::new(spilled));
                    segments.push(segment(id, ROWS, piece.first, (rows, vec![]), spilled));
                }
                Held::Rows(batches) => {
                    (first, last) = (first.min(piece.first), last.max(piece.last));
                    in_memory.extend(batches);
                }
            }
        }
        if !in_memory.is_empty() {
            let rows = in_memory.iter().map(RecordBatch::num_rows).sum();
            let (id, batches) = (self.next_id(), batches::together(in_memory)?);
            known.push(Known { id, last, rows });
            segments.push(segment(id, ROWS, first, (rows, batches), None));
        }
        self.rows.extend(known);
        Ok(segments)
    }

    /// Returns states as a segment.
    fn states_of(&mut self, batches: Vec<RecordBatch>, spilled: Option<Spilled>) -> SavedSegment {
        let id = self.next_id();
        let in_memory = batches.iter().map(RecordBatch::num_rows).sum();
        let rows = spilled.as_ref().map_or(in_memory, Spilled::len);
        self.states.push(Known { id, last: i64::MAX, rows });
        segment(id, STATES, i64::MIN, (rows, batches), spilled.map(SpilledSegment::new))
    }
}

fn segment(
    id: SegmentId,
    input: usize,
    slice: i64,
    (rows, batches): (usize, Vec<RecordBatch>),
    spilled: Option<SpilledSegment>,
) -> SavedSegment {
    let rows = rows as u64;
    SavedSegment { id, input, slice, counts_from: i64::MIN, rows, times: None, batches, spilled }
}

/// The state of some keys, on disk.
#[derive(Debug, Default)]
pub(super) struct Part {
    rows: Vec<Spilled>,
    /// In their order.
    states: Vec<(SegmentId, Spilled)>,
    /// The bytes that it took in memory as a table, with accumulators and the slots of keys.
    as_table: usize,
}

impl Part {
    /// Writes the state in a table.
    pub(super) fn write<S: OrderedSpec>(
        space: &dyn SpillSpace,
        table: &mut S::Table,
    ) -> Result<Self> {
        let mut part = Self { as_table: table.size_bytes(), ..Self::default() };
        let (rows, states) = (table.rows()?, table.states(true)?);
        part.add(space, rows, states.map(|states| (SegmentId(0), states)))?;
        Ok(part)
    }

    fn add(
        &mut self,
        space: &dyn SpillSpace,
        rows: Option<RecordBatch>,
        states: Option<(SegmentId, RecordBatch)>,
    ) -> Result<()> {
        if let Some(rows) = rows.filter(|rows| rows.num_rows() > 0) {
            self.rows.extend(spill_rows(space, in_parts(space, rows).collect::<Result<_>>()?)?);
        }
        if let Some((id, states)) = states.filter(|(_, states)| states.num_rows() > 0) {
            let spilled = spill_rows(space, in_parts(space, states).collect::<Result<_>>()?)?;
            self.states.extend(spilled.into_iter().map(|spilled| (id, spilled)));
        }
        Ok(())
    }

    /// Reads the rows and the states.
    pub(super) fn read(&self) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
        let rows = self.rows.iter().flat_map(Spilled::batches).collect::<Result<_>>()?;
        let states = self.states.iter().flat_map(|(_, states)| states.batches());
        Ok((rows, states.collect::<Result<_>>()?))
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows.iter().map(Spilled::len).sum()
    }

    /// The bytes that it takes in memory.
    pub(super) fn bytes_in_memory(&self) -> usize {
        let states = self.states.iter().map(|(_, states)| states);
        let held: usize = self.rows.iter().chain(states).map(Spilled::bytes_in_memory).sum();
        held.max(self.as_table)
    }
}

/// Divides rows by the hash of their keys; `None` for a part without rows.
pub(super) fn of_part(
    spec: &impl OrderedSpec,
    rows: &RecordBatch,
    parts: usize,
) -> Result<Vec<Option<RecordBatch>>> {
    let keys = spec.key_columns().iter().filter_map(|key| rows.columns().get(*key).cloned());
    divided(&keys.collect::<Vec<_>>(), rows, parts)
}

fn divided(
    keys: &[ArrayRef],
    rows: &RecordBatch,
    parts: usize,
) -> Result<Vec<Option<RecordBatch>>> {
    let mut hashes = vec![0; rows.num_rows()];
    if !keys.is_empty() {
        let state = QualityRandomState::with_seed(SEED);
        create_hashes(keys, &state, &mut hashes).map_err(failure::engine)?;
    }
    let mut places: Vec<Vec<u32>> = vec![vec![]; parts];
    for (hash, row) in hashes.into_iter().zip(0_u32..) {
        let part = (hash >> 48) as usize % parts.max(1);
        if let Some(places) = places.get_mut(part) {
            places.push(row);
        }
    }
    let own = places.into_iter().map(|places| {
        let some = (!places.is_empty()).then(|| pick(rows, &UInt32Array::from(places)));
        some.transpose()
    });
    own.collect()
}

impl<S: OrderedSpec> InOrder<S> {
    /// Returns what a checkpoint needs.
    ///
    /// # Errors
    /// Internal when cuts are not retained, or when rows have not been returned.
    pub(super) fn save(&mut self) -> Result<Cut> {
        if !self.saved.keeps || !self.ready.is_empty() {
            return Err(Error::internal("a cut of rows in order that cannot be remembered"));
        }
        let mut useless = self.spec.useless_before(self.frontier);
        if let Some(table) = self.table.as_ref().filter(|_| !self.is_short()) {
            let waiting = self.waiting.first().unwrap_or(i64::MAX);
            useless = useless.max(table.needed_from().min(waiting));
        }
        if self.frontier == i64::MAX {
            self.saved.rows.clear();
            self.saved.fresh.clear();
            self.saved.states.clear();
        }
        self.saved.rows.retain(|known| known.last >= useless);
        self.saved.fresh.retain(|piece| piece.last >= useless);
        let fresh = std::mem::take(&mut self.saved.fresh);
        let known: usize = self.saved.rows.iter().map(|known| known.rows).sum();
        let all = known + fresh.iter().map(|piece| piece.rows).sum::<usize>();
        let needed = self.table.as_ref().map_or(0, OrderedTable::len) + self.waiting.rows();
        let mut new = if !self.is_short() && all > needed * 2 + USELESS_MIN {
            self.saved.rows.clear();
            let mut pieces: Vec<Piece> = self.waiting.pieces.values().cloned().collect();
            let rows = self.table.as_mut().map(OrderedTable::rows).transpose()?.flatten();
            pieces.extend(rows.map(piece::of).transpose()?.flatten());
            self.saved.rows_of(pieces)?
        } else {
            self.saved.rows_of(fresh)?
        };
        new.extend(self.save_states()?);
        self.saved.changed = false;
        let known = self.saved.rows.iter().chain(&self.saved.states);
        let mut needed: Vec<SegmentId> = known.map(|known| known.id).collect();
        needed.sort_unstable();
        Ok(Cut { frontier: self.frontier, next_id: self.saved.next_id, needed, new })
    }

    fn save_states(&mut self) -> Result<Vec<SavedSegment>> {
        if self.is_short() {
            if !self.saved.changed {
                return Ok(vec![]);
            }
            self.saved.states.clear();
            let states = self.parts.iter().flat_map(|part| &part.states);
            let states: Vec<Spilled> = states.map(|(_, states)| states.clone()).collect();
            let states = states.into_iter();
            return Ok(states.map(|states| self.saved.states_of(vec![], Some(states))).collect());
        }
        let known: usize = self.saved.states.iter().map(|known| known.rows).sum();
        let keys = self.table.as_ref().map_or(0, OrderedTable::keys_len);
        let whole = self.saved.stale || known > keys * 2 + USELESS_MIN;
        if whole {
            self.saved.states.clear();
            self.saved.stale = false;
        }
        let states = self.table.as_mut().map(|table| table.states(whole)).transpose()?.flatten();
        let Some(states) = states else { return Ok(vec![]) };
        Ok(vec![self.saved.states_of(vec![states], None)])
    }

    /// Restores from a cut.
    ///
    /// # Errors
    /// Corrupt when a segment cannot belong to such a cut.
    pub(crate) fn restore(spec: Arc<S>, state: SavedState<'_>) -> Result<Self> {
        let SavedState { frontier, next_id, segments, space } = state;
        let mut restored = Self::new(spec);
        restored.frontier = frontier;
        (restored.saved.keeps, restored.saved.next_id) = (true, next_id);
        let mut ids = BTreeSet::new();
        let mut back = Back::default();
        for segment in segments {
            let segment = segment?;
            let (id, input, rows) = (segment.id, segment.input, segment.rows);
            if id.0 >= next_id || !ids.insert(id) {
                return Err(corrupt(id, "has the id of another one"));
            }
            let batches = segment.into_batches()?;
            let found: usize = batches.iter().map(RecordBatch::num_rows).sum();
            if found as u64 != rows {
                return Err(corrupt(id, "has another number of rows"));
            }
            match input {
                ROWS => {
                    let last = restored.take_back(&mut back, batches);
                    let wrong = |e| corrupt(id, "is not what its query saved").with_source(e);
                    restored.saved.rows.push(Known { id, last: last.map_err(wrong)?, rows: found });
                }
                STATES => {
                    back.bytes += bytes(&batches);
                    back.states.extend(batches.into_iter().map(|batch| (id, batch)));
                    restored.saved.states.push(Known { id, last: i64::MAX, rows: found });
                }
                _ => return Err(corrupt(id, "has rows of another input")),
            }
            if let Some(space) = space
                && back.bytes > space.pass_bytes()
            {
                restored.write_back(space, &mut back)?;
            }
        }
        restored.saved.states.sort_by_key(|known| known.id);
        restored.settle(space, back)?;
        Ok(restored)
    }

    /// Restores rows of a checkpoint; returns the last time.
    fn take_back(&mut self, back: &mut Back, batches: Vec<RecordBatch>) -> Result<i64> {
        let mut last = i64::MIN;
        for batch in batches {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let schema = Arc::clone(self.spec.state_schema());
            let columns = batch.columns().to_vec();
            let batch = sorted(RecordBatch::try_new_with_options(schema, columns, &options)?)?;
            last = last.max(times(&batch)?.last().copied().unwrap_or(last));
            back.bytes += batch.get_array_memory_size();
            let Some(piece) = piece::of(batch)? else { continue };
            let (before, rest) = piece.split(self.frontier)?;
            back.rows.extend(before);
            rest.into_iter().for_each(|piece| self.waiting.push(piece));
        }
        Ok(last)
    }

    /// Writes restored state to disk, in parts.
    fn write_back(&mut self, space: &dyn SpillSpace, back: &mut Back) -> Result<()> {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS_RESTORED, Part::default);
        }
        let rows = merged(self.spec.as_ref(), &std::mem::take(&mut back.rows))?;
        self.write_parts(space, rows.as_ref(), &std::mem::take(&mut back.states))?;
        self.spill_waiting(space)?;
        back.bytes = 0;
        Ok(())
    }

    /// Completes restoring.
    fn settle(&mut self, space: Option<&dyn SpillSpace>, mut back: Back) -> Result<()> {
        if let Some(space) = space
            && self.is_short()
        {
            self.write_back(space, &mut back)?;
            self.parts.iter_mut().for_each(|part| part.states.sort_by_key(|(id, _)| *id));
            return Ok(());
        }
        back.states.sort_by_key(|(id, _)| *id);
        let states: Vec<RecordBatch> = back.states.into_iter().map(|(_, states)| states).collect();
        let mut table = self.fresh_table()?;
        table.load(merged(self.spec.as_ref(), &back.rows)?, &states, self.frontier).map_err(
            |e| {
                Error::new(
                    windrow_core::ErrorKind::Corrupt,
                    "a checkpoint is not what its query saved",
                )
                .with_source(e)
            },
        )?;
        self.table = (!table.is_empty()).then_some(table);
        Ok(())
    }

    /// Adds rows and states to the parts of their keys.
    fn write_parts(
        &mut self,
        space: &dyn SpillSpace,
        rows: Option<&RecordBatch>,
        states: &[(SegmentId, RecordBatch)],
    ) -> Result<()> {
        let parts = self.parts.len();
        if let Some(rows) = rows {
            let own = of_part(self.spec.as_ref(), rows, parts)?;
            for (part, own) in self.parts.iter_mut().zip(own) {
                part.add(space, own, None)?;
            }
        }
        for (id, states) in states {
            let keys = states.columns().get(..self.spec.key_columns().len());
            let keys = keys.ok_or_else(|| Error::internal("a state without keys"))?;
            let own = divided(keys, states, parts)?;
            for (part, own) in self.parts.iter_mut().zip(own) {
                part.add(space, None, own.map(|own| (*id, own)))?;
            }
        }
        Ok(())
    }

    /// Writes everything to disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn spill_all(&mut self) -> Result<()> {
        let Some(space) = self.space.clone() else { return Ok(()) };
        if let Some(mut table) = self.table.take() {
            let share = (space.pass_bytes() / PART_SHARE).max(1);
            let bytes = table.size_bytes();
            let parts = (bytes / share + 1).next_power_of_two().min(PARTS_MAX);
            self.parts.resize_with(parts, || Part { as_table: bytes / parts, ..Part::default() });
            let (rows, states) = (table.rows()?, table.states(true)?);
            drop(table);
            let states: Vec<_> = states.map(|states| (SegmentId(0), states)).into_iter().collect();
            self.write_parts(space.as_ref(), rows.as_ref(), &states)?;
            self.saved.changed = true;
        }
        self.spill_waiting(space.as_ref())
    }

    /// Divides the state on disk further, if parts have become large.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(super) fn divide_further(&mut self, space: &dyn SpillSpace) -> Result<()> {
        let share = (space.pass_bytes() / PART_SHARE).max(1);
        let largest = self.parts.iter().map(Part::bytes_in_memory).max().unwrap_or(0);
        if largest <= share * 2
            || self.parts.len() >= PARTS_MAX
            || self.spec.key_columns().is_empty()
        {
            return Ok(());
        }
        let parts = std::mem::take(&mut self.parts);
        let as_table: Vec<usize> = parts.iter().map(|part| part.as_table / 2).collect();
        self.parts.resize_with(parts.len() * 2, Part::default);
        // The keys of a part are in the two whose numbers equal its own modulo the old number of parts.
        for (part, as_table) in self.parts.iter_mut().zip(as_table.iter().cycle()) {
            part.as_table = *as_table;
        }
        for part in parts {
            let (rows, states) = part.read()?;
            let states = states.into_iter().map(|states| (SegmentId(0), states));
            let rows = merged(self.spec.as_ref(), &rows)?;
            self.write_parts(space, rows.as_ref(), &states.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn spill_waiting(&mut self, space: &dyn SpillSpace) -> Result<()> {
        self.saved.fresh = spill_pieces(space, std::mem::take(&mut self.saved.fresh))?;
        let pieces = std::mem::take(&mut self.waiting.pieces);
        for piece in spill_pieces(space, pieces.into_values().collect())? {
            self.waiting.push(piece);
        }
        Ok(())
    }
}

/// State restored from a checkpoint.
#[derive(Debug, Default)]
struct Back {
    rows: Vec<RecordBatch>,
    states: Vec<(SegmentId, RecordBatch)>,
    bytes: usize,
}

fn bytes(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::get_array_memory_size).sum()
}
