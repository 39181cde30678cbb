//! The state of a join for checkpoints, and on disk when memory is short.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::compute::{filter_record_batch, not};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, Result};

use super::coordinator::IntervalJoin;
use super::piece::{self, positions, since, sorted, times};
use super::table::Taken;
use super::{IntervalJoinSpec, LEFT, RIGHT};
use crate::batches;
use crate::port::CoordinatorPart;
use crate::segments::kept::{Cut, SavedSegment, SavedState, SegmentId, SpilledSegment, corrupt};
use crate::segments::ordered::{Held, Piece, spill_pieces};

/// The segments of checkpoints.
#[derive(Debug, Default)]
pub(super) struct Saved {
    keeps: bool,
    next_id: u64,
    /// The segments that checkpoints have, per input.
    known: [Vec<Known>; 2],
    /// The pieces that no checkpoint has, per input.
    fresh: [Vec<Piece>; 2],
}

/// A segment that checkpoints have.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: SegmentId,
    /// Its last position.
    last: i64,
    rows: usize,
}

/// Segments are rewritten when they have this many times the rows that are still needed…
const GROWTH: usize = 2;
/// … and this many more.
const GROWTH_MIN: usize = 4096;

impl Saved {
    pub(super) fn keep(&mut self) {
        self.keeps = true;
    }

    pub(super) fn add(&mut self, input: usize, piece: &Piece) {
        if self.keeps {
            let [left, right] = &mut self.fresh;
            let fresh = if input == LEFT { left } else { right };
            fresh.push(piece.clone());
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.fresh.iter().flatten().map(Piece::size_bytes).sum()
    }

    /// Returns the new segments: rows in memory as one, pieces on disk one by one.
    fn take_new(&mut self, input: usize) -> Result<Vec<(SavedSegment, Known)>> {
        let [left, right] = &mut self.fresh;
        let fresh = std::mem::take(if input == LEFT { left } else { right });
        let (mut segments, mut in_memory) = (vec![], vec![]);
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for piece in fresh {
            match piece.held {
                Held::Spilled(spilled) => {
                    let spilled = Some(SpilledSegment::new(spilled));
                    let segment = self.segment(input, piece.first, (piece.rows, vec![]), spilled);
                    let known = Known { id: segment.id, last: piece.last, rows: piece.rows };
                    segments.push((segment, known));
                }
                Held::Rows(batches) => {
                    (first, last) = (first.min(piece.first), last.max(piece.last));
                    in_memory.extend(batches);
                }
            }
        }
        if !in_memory.is_empty() {
            let rows = in_memory.iter().map(RecordBatch::num_rows).sum();
            let batches = batches::together(in_memory)?;
            let segment = self.segment(input, first, (rows, batches), None);
            let known = Known { id: segment.id, last, rows };
            segments.push((segment, known));
        }
        Ok(segments)
    }

    fn segment(
        &mut self,
        input: usize,
        slice: i64,
        (rows, batches): (usize, Vec<RecordBatch>),
        spilled: Option<SpilledSegment>,
    ) -> SavedSegment {
        let id = SegmentId(self.next_id);
        self.next_id += 1;
        let rows = rows as u64;
        SavedSegment {
            id,
            input,
            slice,
            counts_from: i64::MIN,
            rows,
            times: None,
            batches,
            spilled,
        }
    }
}

impl IntervalJoin {
    /// Returns what a checkpoint needs.
    ///
    /// # Errors
    /// Internal when cuts are not retained, or when results have not been returned.
    pub(super) fn save(&mut self) -> Result<Cut> {
        if !self.saved.keeps || !self.ready.is_empty() || !self.table.is_done() {
            return Err(Error::internal("a cut of a join that cannot be remembered"));
        }
        let frontier = self.frontier.max(self.returned);
        if self.spec.looks_back() {
            self.rewrite()?;
        }
        let (mut needed, mut new) = (vec![], vec![]);
        for side in [LEFT, RIGHT] {
            let before = self.spec.replay_before(side, frontier);
            let [left, right] = &mut self.saved.fresh;
            let fresh = if side == LEFT { left } else { right };
            fresh.retain(|piece| piece.last >= before);
            let segments = self.saved.take_new(side)?;
            let [left, right] = &mut self.saved.known;
            let known = if side == LEFT { left } else { right };
            known.retain(|known| known.last >= before);
            known.extend(segments.iter().map(|(_, known)| *known));
            needed.extend(known.iter().map(|known| known.id));
            new.extend(segments.into_iter().map(|(segment, _)| segment));
        }
        needed.sort_unstable();
        Ok(Cut { frontier, next_id: self.saved.next_id, needed, new })
    }

    /// Rewrites the rows that are still needed, once they are the smaller part: in an ASOF join that looks back,
    /// segments hold rows that have been followed by others.
    fn rewrite(&mut self) -> Result<()> {
        let [_, known] = &self.saved.known;
        let [_, fresh] = &self.saved.fresh;
        let held = known.iter().map(|known| known.rows).chain(fresh.iter().map(|piece| piece.rows));
        let held: usize = held.sum();
        if held < self.open_windows() * GROWTH + GROWTH_MIN {
            return Ok(());
        }
        let mut pieces = self.buckets.pieces_of(self.spec.side(RIGHT), RIGHT)?;
        for batch in self.table.rows(RIGHT) {
            pieces.extend(piece::of(sorted(batch)?)?);
        }
        let [_, waiting] = &self.waiting.pieces;
        pieces.extend(waiting.values().cloned());
        let [_, known] = &mut self.saved.known;
        known.clear();
        let [_, fresh] = &mut self.saved.fresh;
        *fresh = pieces;
        Ok(())
    }

    /// Restores a join from a cut.
    ///
    /// # Errors
    /// Corrupt when a segment cannot belong to such a cut.
    pub(super) fn restore(spec: Arc<IntervalJoinSpec>, state: SavedState<'_>) -> Result<Self> {
        let SavedState { frontier, next_id, segments, space } = state;
        let mut join = Self::new(spec);
        // Checkpoints do not record what rows have matched, so everything but plain pairs is replayed.
        let from = if join.spec.is_plain() { frontier } else { i64::MIN };
        (join.frontier, join.entered, join.returned) = (from, from, frontier);
        (join.saved.keeps, join.saved.next_id) = (true, next_id);
        let mut ids = BTreeSet::new();
        let mut bytes = 0;
        for segment in segments {
            let segment = segment?;
            let (id, input, rows) = (segment.id, segment.input, segment.rows);
            if id.0 >= next_id || !ids.insert(id) {
                return Err(corrupt(id, "has the id of another one"));
            }
            if input > RIGHT {
                return Err(corrupt(id, "has rows of another input"));
            }
            let batches = decode(&join.spec, input, rows, segment.into_batches()?)
                .map_err(|e| corrupt(id, "is not what its query saved").with_source(e))?;
            let mut last = i64::MIN;
            let known_rows = batches.iter().map(RecordBatch::num_rows).sum();
            for batch in batches {
                let Some(piece) = piece::of(batch)? else { continue };
                (last, bytes) = (last.max(piece.last), bytes + piece.size_bytes());
                join.take_back(input, piece, frontier)?;
            }
            let [left, right] = &mut join.saved.known;
            let known = if input == LEFT { left } else { right };
            known.push(Known { id, last, rows: known_rows });
            if let Some(space) = space
                && bytes > space.pass_bytes()
            {
                join.write(space)?;
                bytes = 0;
            }
        }
        Ok(join)
    }

    /// Restores rows of a checkpoint; those before the frontier have been processed.
    fn take_back(&mut self, input: usize, piece: Piece, frontier: i64) -> Result<()> {
        if !self.spec.is_plain() {
            let before = self.spec.replay_before(input, frontier);
            for batch in piece.read()? {
                if let Some(piece) = piece::of(since(&batch, before)?)? {
                    self.waiting.push(input, piece);
                }
            }
            return Ok(());
        }
        let useful = self.spec.useless_before(input, frontier);
        let (before, rest) = piece.split(frontier)?;
        rest.into_iter().for_each(|piece| self.waiting.push(input, piece));
        let [left, right] = &mut self.past;
        let past = if input == LEFT { left } else { right };
        for batch in before {
            past.extend(piece::of(since(&batch, useful)?)?);
        }
        Ok(())
    }

    /// Writes all rows to disk.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn spill_all(&mut self) -> Result<()> {
        let Some(space) = self.space.clone() else { return Ok(()) };
        self.dissolve()?;
        self.write(space.as_ref())
    }

    /// Removes all rows from the table.
    fn dissolve(&mut self) -> Result<()> {
        // Rows before the next one have been processed, the others have not.
        let next = self.table.next_position().unwrap_or(self.entered);
        self.frontier = self.frontier.max(next);
        let frontier = self.frontier;
        for (side, taken) in self.table.take(frontier)?.into_iter().enumerate() {
            let mut processed = Taken::default();
            let mut matched = taken.matched.as_slice();
            for batch in taken.batches {
                let (own, rest) = matched.split_at_checked(batch.num_rows()).unwrap_or_default();
                matched = rest;
                if self.spec.is_plain() {
                    if let Some(piece) = piece::of(sorted(batch)?)? {
                        self.take_back(side, piece, frontier)?;
                    }
                    continue;
                }
                let before: Vec<bool> =
                    positions(&batch)?.iter().map(|at| *at < frontier).collect();
                processed.matched.extend(
                    own.iter().zip(&before).filter_map(|(own, before)| before.then_some(*own)),
                );
                let before = BooleanArray::from(before);
                let waiting = filter_record_batch(&batch, &not(&before)?)?;
                if let Some(piece) = piece::of(sorted(waiting)?)? {
                    self.waiting.push(side, piece);
                }
                processed.batches.push(filter_record_batch(&batch, &before)?);
            }
            self.buckets.add(&self.spec, side, processed)?;
        }
        self.entered = frontier;
        Ok(())
    }

    fn write(&mut self, space: &dyn crate::SpillSpace) -> Result<()> {
        for pieces in self.past.iter_mut().chain(&mut self.saved.fresh) {
            *pieces = spill_pieces(space, std::mem::take(pieces))?;
        }
        self.buckets.spill(space)?;
        for side in [LEFT, RIGHT] {
            let [left, right] = &mut self.waiting.pieces;
            let pieces = std::mem::take(if side == LEFT { left } else { right });
            for piece in spill_pieces(space, pieces.into_values().collect())? {
                self.waiting.push(side, piece);
            }
        }
        Ok(())
    }
}

/// Returns the rows of a segment, in order; restored segments are not trusted.
fn decode(
    spec: &IntervalJoinSpec,
    input: usize,
    rows: u64,
    batches: Vec<RecordBatch>,
) -> Result<Vec<RecordBatch>> {
    let found: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    if found != rows {
        return Err(Error::internal(format!("{found} rows instead of {rows}")));
    }
    let schema = &spec.side(input).state_schema;
    let again = batches.into_iter().map(|batch| {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
        let both = positions(&batch)?.iter().zip(times(&batch)?);
        let nulls = batch.columns().first().map_or(0, Array::null_count);
        if nulls > 0 || both.into_iter().any(|(position, time)| position < time) {
            return Err(Error::internal("rows at impossible times"));
        }
        sorted(batch)
    });
    again.collect()
}
