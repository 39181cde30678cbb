//! Two neighbouring slices: the sessions with their last row in the previous slice, and the pieces of the current one.
//!
//! A key has at most one session whose last row is in the previous slice, and one piece per worker in the current
//! slice, all of the same session. Keys are numbered once per slice, those of the previous slice first and in their
//! order: the piece that continues a session is found without hashing, and the states of the current slice are dense
//! otherwise.
//!
//! Invariant: all pieces of the current slice with rows up to the last drained tick have been absorbed, so that it is
//! known whether a session ends there.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use windrow_core::{Error, Result};

use crate::extents;
use crate::spec::Columns;
use crate::table::{Accumulators, Frozen, Interner};

/// Marks an id without a position.
const NONE: u32 = u32::MAX;

/// The previous slice and the current one.
pub(super) struct Chain {
    columns: Arc<Columns>,
    gap: i64,
    before: Option<Before>,
    now: Option<Now>,
    /// Scratch.
    ids: Vec<usize>,
    positions: Vec<usize>,
}

/// Sessions with their last row in a complete slice.
struct Before {
    slice: i64,
    frozen: Frozen,
    /// The number of input rows of all sessions.
    all_rows: u64,
    /// The number of input rows of the sessions that have neither ended nor been continued.
    rows: u64,
    /// The groups in order of their last time.
    order: Vec<u32>,
    /// The number of groups that have ended or been continued.
    at: usize,
}

/// The pieces of a slice that may still grow.
struct Now {
    ids: Interner,
    /// By id; [`NONE`] for keys of the previous slice without a piece.
    position: Vec<u32>,
    /// By position.
    id_at: Vec<u32>,
    accumulators: Accumulators,
    /// The number of input rows, including those of sessions that it continues.
    rows: u64,
}

/// Ended sessions, in order of their end.
pub(super) struct Sessions {
    /// Keys, then the values of the aggregates.
    pub(super) columns: Vec<ArrayRef>,
    pub(super) starts: Vec<i64>,
    pub(super) ends: Vec<i64>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("sessions", &self.len()).finish_non_exhaustive()
    }
}

impl Chain {
    pub(super) fn new(columns: &Arc<Columns>, gap: i64) -> Self {
        let columns = Arc::clone(columns);
        Self { columns, gap, before: None, now: None, ids: vec![], positions: vec![] }
    }

    /// Whether there is a previous slice.
    pub(super) fn has_begun(&self) -> bool {
        self.before.is_some()
    }

    /// The start of the previous slice.
    pub(super) fn before_slice(&self) -> Option<i64> {
        self.before.as_ref().map(|before| before.slice)
    }

    /// The start of the current slice, whose pieces can be absorbed.
    pub(super) fn slice(&self) -> Option<i64> {
        self.before.as_ref().map(|before| before.slice.saturating_add(self.gap))
    }

    /// Starts with the pieces of a complete slice.
    pub(super) fn begin(&mut self, slice: i64, pieces: Vec<Frozen>) -> Result<()> {
        if pieces.iter().all(|piece| piece.groups == 0) {
            (self.before, self.now) = (None, None);
            return Ok(());
        }
        let frozen = match <[Frozen; 1]>::try_from(pieces) {
            // A single piece has distinct keys.
            Ok([one]) => one,
            Err(pieces) => {
                let mut now = Now::new(&self.columns, None)?;
                for piece in &pieces {
                    now.absorb(piece, &mut self.ids, &mut self.positions)?;
                }
                now.freeze()?
            }
        };
        self.now = None;
        self.before = Before::new(slice, frozen)?;
        Ok(())
    }

    /// Absorbs a piece of the current slice with `rows` input rows.
    pub(super) fn absorb(&mut self, piece: &Frozen, rows: u64) -> Result<()> {
        let now = match &mut self.now {
            Some(now) => now,
            none => none.insert(Now::new(&self.columns, self.before.as_ref())?),
        };
        now.rows += rows;
        now.absorb(piece, &mut self.ids, &mut self.positions)
    }

    /// Returns the end of the first session of the previous slice, if it is not continued.
    pub(super) fn earliest_end(&self) -> Option<i64> {
        let before = self.before.as_ref()?;
        let last = before.order.get(before.at).and_then(|row| before.last(*row));
        // Sessions of the current slice end after it.
        let now = self.now.as_ref().map(|_| before.slice.saturating_add(self.gap));
        last.or(now).map(|last| last.saturating_add(self.gap))
    }

    /// Returns the sessions that end after `after`, and at `to` or before; those that have ended by `after` are
    /// dropped. Continued sessions are in the current slice afterwards.
    pub(super) fn drain(&mut self, to: i64, after: i64) -> Result<Option<Sessions>> {
        let Some(before) = &mut self.before else { return Ok(None) };
        let (_, last) = extents::of_state(before.frozen.extents())?;
        let (mut ended, mut on): (Vec<u32>, Vec<u32>) = (vec![], vec![]);
        self.positions.clear();
        let from = before.at;
        let extents = self.now.as_ref().map(|now| now.accumulators.extents()).transpose()?;
        while let Some(&row) = before.order.get(before.at) {
            let end = last.get(row as usize).ok_or_else(lost)?.saturating_add(self.gap);
            if end > to {
                break;
            }
            before.at += 1;
            let position = self.now.as_ref().and_then(|now| now.position.get(row as usize));
            let piece = position.and_then(|at| Some((*at, extents?.first(*at as usize)?)));
            match piece {
                Some((position, first)) if first <= end => {
                    on.push(row);
                    self.positions.push(position as usize);
                }
                _ if end > after => ended.push(row),
                _ => {}
            }
        }
        let gone = before.order.get(from..before.at).unwrap_or_default();
        before.rows = before.rows.saturating_sub(rows_of(&before.frozen, gone)?);
        if let (Some(now), false) = (&mut self.now, on.is_empty()) {
            now.rows += rows_of(&before.frozen, &on)?;
            let states = before.frozen.take_states(&UInt32Array::from(on))?;
            now.accumulators.merge(&states, &self.positions, now.id_at.len())?;
        }
        if ended.is_empty() {
            return Ok(None);
        }
        let ended = before.frozen.take(&UInt32Array::from(ended))?;
        evaluate(&self.columns, ended, self.gap).map(Some)
    }

    /// Makes the current slice the previous one: it is complete, and all sessions of the previous one have ended or
    /// been continued.
    pub(super) fn step(&mut self) -> Result<()> {
        let Some(before) = self.before.take() else { return Ok(()) };
        if before.at < before.order.len() {
            return Err(Error::internal("sessions of a slice are left behind"));
        }
        if let Some(now) = self.now.take() {
            let slice = before.slice.saturating_add(self.gap);
            self.before = Before::new(slice, now.freeze()?)?;
        }
        Ok(())
    }

    /// Returns the previous slice as a piece: its start, its groups, and the number of its input rows.
    pub(super) fn before(&self) -> Option<(i64, &Frozen, u64)> {
        self.before.as_ref().map(|before| (before.slice, &before.frozen, before.all_rows))
    }

    /// Removes and returns all open sessions, as pieces of their slices.
    pub(super) fn take(&mut self) -> Result<Vec<(i64, Frozen, u64)>> {
        let (before, now) = (self.before.take(), self.now.take());
        let Some(before) = before else { return Ok(vec![]) };
        let mut pieces = vec![];
        let left = before.order.get(before.at..).unwrap_or_default().to_vec();
        if !left.is_empty() {
            let left = before.frozen.take(&UInt32Array::from(left))?;
            pieces.push((before.slice, left, before.rows));
        }
        if let Some(now) = now {
            let rows = now.rows;
            pieces.push((before.slice.saturating_add(self.gap), now.freeze()?, rows));
        }
        Ok(pieces)
    }

    /// Returns the keys and extents of the open sessions, slice by slice; a session may be in both. Renumbers the
    /// groups of the current slice.
    pub(super) fn outline(&mut self) -> Result<Vec<Frozen>> {
        let mut pieces = vec![];
        if let Some(before) = &self.before {
            let left = before.order.get(before.at..).unwrap_or_default().to_vec();
            pieces.push(before.frozen.outline().take(&UInt32Array::from(left))?);
        }
        if let Some(now) = self.now.take() {
            let rows = now.rows;
            let frozen = now.freeze()?;
            self.absorb(&frozen, rows)?;
            pieces.push(frozen.outline());
        }
        Ok(pieces)
    }

    /// The number of rows in open sessions; after a restart, also of those that had ended in the slice of the checkpoint.
    pub(super) fn rows(&self) -> u64 {
        let before = self.before.as_ref().map_or(0, |before| before.rows);
        before + self.now.as_ref().map_or(0, |now| now.rows)
    }

    /// The number of open sessions; some may be counted twice.
    pub(super) fn len(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |before| before.order.len() - before.at);
        before + self.now.as_ref().map_or(0, |now| now.id_at.len())
    }

    pub(super) fn size_bytes(&self) -> usize {
        let number = size_of::<u32>();
        let before = self
            .before
            .as_ref()
            .map_or(0, |before| before.frozen.size_bytes() + before.order.capacity() * number);
        let now = self.now.as_ref().map_or(0, |now| {
            now.ids.size_bytes()
                + now.accumulators.size_bytes()
                + (now.position.capacity() + now.id_at.capacity()) * number
        });
        before + now
    }
}

impl Before {
    /// Returns `None` when there are no sessions.
    fn new(slice: i64, frozen: Frozen) -> Result<Option<Self>> {
        if frozen.groups == 0 {
            return Ok(None);
        }
        let (_, last) = extents::of_state(frozen.extents())?;
        let rows = extents::rows_of_state(frozen.extents())?;
        let rows = rows.iter().map(|rows| rows.unsigned_abs()).sum();
        let mut order: Vec<(i64, u32)> = last.iter().copied().zip(0_u32..).collect();
        order.sort_unstable();
        let order = order.into_iter().map(|(_, row)| row).collect();
        Ok(Some(Self { slice, frozen, all_rows: rows, rows, order, at: 0 }))
    }

    /// Returns the last time of a session.
    fn last(&self, row: u32) -> Option<i64> {
        let (_, last) = extents::of_state(self.frozen.extents()).ok()?;
        last.get(row as usize).copied()
    }
}

impl Now {
    /// Assigns the first ids to the keys of the previous slice, in their order.
    fn new(columns: &Columns, before: Option<&Before>) -> Result<Self> {
        let groups = before.map_or(0, |before| before.frozen.groups);
        let mut ids = Interner::new(columns, groups)?;
        if let Some(before) = before {
            let mut numbers = vec![];
            ids.intern(&before.frozen.keys, groups, &mut numbers)?;
            if ids.len() != groups {
                return Err(Error::internal("a key has two sessions in one slice"));
            }
        }
        Ok(Self {
            ids,
            position: vec![NONE; groups],
            id_at: vec![],
            accumulators: Accumulators::new(columns)?,
            rows: 0,
        })
    }

    fn absorb(
        &mut self,
        piece: &Frozen,
        ids: &mut Vec<usize>,
        positions: &mut Vec<usize>,
    ) -> Result<()> {
        self.ids.intern(&piece.keys, piece.groups, ids)?;
        self.position.resize(self.ids.len().max(self.position.len()), NONE);
        positions.clear();
        for &id in ids.iter() {
            let position = self.position.get_mut(id).ok_or_else(lost)?;
            if *position == NONE {
                *position = number(self.id_at.len())?;
                self.id_at.push(number(id)?);
            }
            positions.push(*position as usize);
        }
        self.accumulators.merge(&piece.states, positions, self.id_at.len())
    }

    /// Converts to groups, by position.
    fn freeze(mut self) -> Result<Frozen> {
        let groups = self.id_at.len();
        let mut keys = self.ids.take_keys()?;
        let is_order = self.id_at.iter().copied().eq(0..number(self.position.len())?);
        if !is_order {
            let ids = UInt32Array::from(self.id_at);
            keys = keys.iter().map(|key| take(key, &ids, None)).collect::<Result<_, _>>()?;
        }
        Ok(Frozen { keys, states: self.accumulators.take_states()?, groups })
    }
}

/// Computes the results of ended sessions.
fn evaluate(columns: &Columns, ended: Frozen, gap: i64) -> Result<Sessions> {
    let mut accumulators = Accumulators::new(columns)?;
    let groups: Vec<usize> = (0..ended.groups).collect();
    accumulators.merge(&ended.states, &groups, ended.groups)?;
    let (first, last) = extents::of_state(ended.extents())?;
    let (starts, ends) = (first.to_vec(), last.iter().map(|at| at.saturating_add(gap)).collect());
    let mut columns = ended.keys;
    columns.extend(accumulators.take_values()?);
    Ok(Sessions { columns, starts, ends })
}

/// The number of input rows of some sessions.
fn rows_of(frozen: &Frozen, sessions: &[u32]) -> Result<u64> {
    let rows = extents::rows_of_state(frozen.extents())?;
    let rows = sessions.iter().filter_map(|session| rows.get(*session as usize));
    Ok(rows.map(|rows| rows.unsigned_abs()).sum())
}

fn number(of: usize) -> Result<u32> {
    u32::try_from(of)
        .ok()
        .filter(|number| *number != NONE)
        .ok_or_else(|| Error::internal("more sessions in a slice than can be numbered"))
}

fn lost() -> Error {
    Error::internal("a session of the slice before is lost")
}
