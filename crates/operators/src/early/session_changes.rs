//! The changes of sessions that are emitted together.
//!
//! Invariants: the two halves of an update are adjacent; the rows of the sessions that a session continues are deleted
//! directly before it is inserted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array, UInt64Array};
use arrow::compute::{interleave, take};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Change, Error, Result, Watermark};

use super::joined::Joined;
use super::sessions::Session;
use crate::bounds::timestamps;
use crate::changing::emission::{code, with_mark};
use crate::changing::states::States;
use crate::changing::{Mark, same_rows};
use crate::extents;
use crate::spec::Columns;
use crate::table::{Accumulators, Frozen, arrays_bytes};

/// Rows that may be emitted: the columns of keys, then of values.
#[derive(Debug, Default)]
struct Rows(Vec<ArrayRef>);

/// A row of the changelog.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// The rows that it is in, and its place there.
    at: (usize, usize),
    bounds: (i64, i64),
    group: u32,
    change: Change,
    mark: Mark,
}

/// The changes.
#[derive(Debug)]
pub(super) struct SessionChanges {
    columns: Arc<Columns>,
    gap: i64,
    to: Watermark,
    /// After the changes, before them, and closing.
    rows: [Rows; 3],
    changes: Vec<Row>,
    groups: u32,
    closed: u64,
    /// The states of the joined sessions: aggregates, extent, key.
    states: Vec<Vec<ArrayRef>>,
    /// Joined sessions that close now, and their slots: they are final at once.
    closing: Vec<(usize, u32)>,
    joined_closing: Vec<usize>,
    finished: Option<RecordBatch>,
}

impl SessionChanges {
    pub(super) fn new(columns: &Arc<Columns>, gap: i64, to: Watermark) -> Self {
        Self {
            columns: Arc::clone(columns),
            gap,
            to,
            rows: Default::default(),
            changes: vec![],
            groups: 0,
            closed: 0,
            states: vec![],
            closing: vec![],
            joined_closing: vec![],
            finished: None,
        }
    }

    /// Merges pieces into the sessions that they are in, of which those that continue others come first.
    ///
    /// # Errors
    /// When an aggregate fails.
    pub(super) fn merge(
        &mut self,
        joined: &[Joined],
        pieces: &Frozen,
        (states, slots): (&States, &[Session]),
    ) -> Result<()> {
        let (mut olds, mut of_old, mut of_piece) = (vec![], vec![], vec![0; pieces.groups]);
        for (number, session) in joined.iter().enumerate() {
            olds.extend(&session.olds);
            of_old.extend(session.olds.iter().map(|_| number));
            for piece in &session.pieces {
                of_piece.get_mut(*piece as usize).into_iter().for_each(|of| *of = number);
            }
        }
        let mut merged = Accumulators::new(&self.columns)?;
        let continued = of_old.last().map_or(0, |last| last + 1);
        if !olds.is_empty() {
            let old = states.get_all(&olds)?;
            merged.merge(&old, &of_old, continued)?;
            let keys = old.last().cloned().unwrap_or_default();
            self.rows[1] = self.values(&old, keys, olds.len())?;
        }
        merged.merge(&pieces.states, &of_piece, joined.len())?;
        self.states = merged.take_states()?;
        let firsts = joined.iter().filter_map(|session| session.pieces.first().copied());
        let firsts = UInt32Array::from_iter_values(firsts);
        let keys = pieces.keys.iter().map(|key| take(key, &firsts, None));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        self.rows[0] = self.values(&self.states, keys.clone(), joined.len())?;
        self.states.push(keys);
        self.compare(joined, slots)
    }

    /// The keys and values of groups with these states.
    fn values(&self, states: &[Vec<ArrayRef>], keys: Vec<ArrayRef>, rows: usize) -> Result<Rows> {
        let mut accumulators = Accumulators::new(&self.columns)?;
        let groups: Vec<usize> = (0..rows).collect();
        accumulators.merge(states, &groups, rows)?;
        let mut columns = keys;
        columns.extend(accumulators.take_values()?);
        Ok(Rows(columns))
    }

    /// Adds the changes of the joined sessions.
    fn compare(&mut self, joined: &[Joined], slots: &[Session]) -> Result<()> {
        let same = self.same(joined)?;
        let mut old_place = 0;
        for (at, session) in joined.iter().enumerate() {
            let bounds = (session.first, session.last);
            let is_final = self.to.closes(session.last.saturating_add(self.gap));
            let mark = if is_final { Mark::FINAL } else { Mark::EARLY };
            if is_final {
                self.joined_closing.push(at);
            }
            let olds = session.olds.iter().map(|slot| slots.get(*slot as usize));
            let olds: Option<Vec<&Session>> = olds.collect();
            let olds = olds.ok_or_else(|| Error::internal("a session without a slot"))?;
            let first_old = old_place;
            old_place += olds.len();
            let after = |group, change| Row { at: (0, at), bounds, group, change, mark };
            match olds.as_slice() {
                [old] if (old.first, old.last) == bounds => {
                    let is_same = same.get(at).copied().unwrap_or(false);
                    if !is_same || is_final {
                        let group = self.next_group();
                        let change = Change::UpdateBefore;
                        let before =
                            Row { at: (1, first_old), bounds, group, change, mark: Mark::EARLY };
                        self.changes.push(before);
                        self.changes.push(after(group, Change::UpdateAfter));
                    }
                }
                olds => {
                    for (place, old) in (first_old..).zip(olds) {
                        let (group, change) = (self.next_group(), Change::Delete);
                        let bounds = (old.first, old.last);
                        let row = Row { at: (1, place), bounds, group, change, mark: Mark::EARLY };
                        self.changes.push(row);
                    }
                    let group = self.next_group();
                    self.changes.push(after(group, Change::Insert));
                }
            }
        }
        Ok(())
    }

    /// For each joined session that continues exactly one: whether it has the same keys and values.
    fn same(&self, joined: &[Joined]) -> Result<Vec<bool>> {
        let (mut after, mut before, mut old_place) = (vec![], vec![], 0_u32);
        for (session, at) in joined.iter().zip(0_u32..) {
            if session.olds.len() == 1 {
                after.push(at);
                before.push(old_place);
            }
            old_place += u32::try_from(session.olds.len()).unwrap_or(0);
        }
        let pick = |rows: &Rows, at: &[u32]| {
            let at = UInt32Array::from(at.to_vec());
            rows.0.iter().map(|column| take(column, &at, None)).collect::<Result<Vec<_>, _>>()
        };
        let mut same = vec![false; joined.len()];
        if after.is_empty() {
            return Ok(same);
        }
        let [now, old, _] = &self.rows;
        let equal = same_rows(&pick(now, &after)?, &pick(old, &before)?, after.len())?;
        for (at, equal) in after.iter().zip(&equal) {
            same.get_mut(*at as usize).into_iter().for_each(|same| *same = equal);
        }
        Ok(same)
    }

    fn next_group(&mut self) -> u32 {
        self.groups = self.groups.wrapping_add(1);
        self.groups - 1
    }

    /// The number of rows of each joined session.
    pub(super) fn rows_of_sessions(&self) -> Result<&[i64]> {
        let extent = self.states.len().checked_sub(2).and_then(|at| self.states.get(at));
        extents::rows_of_state(extent.map_or(&[], Vec::as_slice))
    }

    /// The states of the joined sessions.
    pub(super) fn states(&self) -> Vec<Vec<ArrayRef>> {
        self.states.clone()
    }

    /// Records the slots of the joined sessions.
    pub(super) fn set_slots(&mut self, slots: &[u32]) {
        let closing = self.joined_closing.iter();
        self.closing = closing.filter_map(|at| Some((*at, *slots.get(*at)?))).collect();
    }

    /// Adds the final rows of sessions that close, unless their last change is final already.
    ///
    /// # Errors
    /// When an aggregate fails.
    pub(super) fn close(
        &mut self,
        closing: &[u32],
        (states, slots): (&States, &[Session]),
    ) -> Result<()> {
        self.closed = closing.len() as u64;
        let mut known: Vec<u32> = self.closing.iter().map(|(_, slot)| *slot).collect();
        known.sort_unstable();
        let is_new = |slot: &&u32| known.binary_search(slot).is_err();
        let rest: Vec<u32> = closing.iter().filter(is_new).copied().collect();
        if rest.is_empty() {
            return Ok(());
        }
        let states = states.get_all(&rest)?;
        let keys = states.last().cloned().unwrap_or_default();
        self.rows[2] = self.values(&states, keys, rest.len())?;
        for (place, slot) in rest.iter().enumerate() {
            let session = slots.get(*slot as usize);
            let session = session.ok_or_else(|| Error::internal("a session without a slot"))?;
            let (at, bounds, group) =
                ((2, place), (session.first, session.last), self.next_group());
            let row = |change, mark| Row { at, bounds, group, change, mark };
            self.changes.push(row(Change::UpdateBefore, Mark::EARLY));
            self.changes.push(row(Change::UpdateAfter, Mark::FINAL));
        }
        Ok(())
    }

    /// Builds the rows, whose groups are numbered from `first`; returns the number of groups.
    ///
    /// # Errors
    /// When the columns cannot be built.
    pub(super) fn finish(&mut self, first: u32, schema: &SchemaRef) -> Result<u32> {
        if self.changes.is_empty() {
            return Ok(0);
        }
        let present: Vec<usize> =
            (0..3).filter(|at| self.changes.iter().any(|c| c.at.0 == *at)).collect();
        let at: Vec<(usize, usize)> = self
            .changes
            .iter()
            .map(|row| (present.iter().position(|p| *p == row.at.0).unwrap_or(0), row.at.1))
            .collect();
        let columns = present.iter().filter_map(|p| self.rows.get(*p)).map(|r| r.0.len()).max();
        let mut all: Vec<ArrayRef> = vec![];
        for column in 0..columns.unwrap_or(0) {
            let arrays = present.iter().map(|p| Some(self.rows.get(*p)?.0.get(column)?.as_ref()));
            let arrays: Option<Vec<&dyn Array>> = arrays.collect();
            let arrays = arrays.ok_or_else(|| Error::internal("sessions of other columns"))?;
            all.push(interleave(&arrays, &at)?);
        }
        let bounds = |of: &dyn Fn(&Row) -> i64| {
            let times: Vec<i64> = self.changes.iter().map(of).collect();
            timestamps(self.columns.time_type(), times.into())
        };
        let end = |row: &Row| row.bounds.1.saturating_add(self.gap);
        all.push(bounds(&|row| row.bounds.0));
        all.push(bounds(&end));
        all.push(bounds(&|row| end(row).saturating_sub(1)));
        let codes = self.changes.iter().map(|row| {
            with_mark(code(first.wrapping_add(row.group), row.change), row.mark.number())
        });
        all.push(Arc::new(UInt64Array::from_iter_values(codes)));
        self.finished = Some(RecordBatch::try_new(Arc::clone(schema), all)?);
        Ok(self.groups)
    }

    /// Whether there are no changes.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The number of sessions that have closed.
    pub(super) fn closed(&self) -> u64 {
        self.closed
    }

    /// The rows.
    pub(super) fn into_rows(self) -> Option<RecordBatch> {
        self.finished
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        let rows: usize = self.rows.iter().map(|rows| arrays_bytes(&rows.0)).sum();
        rows + self.finished.as_ref().map_or(0, RecordBatch::get_array_memory_size)
    }
}
