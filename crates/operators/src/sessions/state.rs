//! The state of sessions for checkpoints, and on disk when memory is short: pieces of slices in any form.

use std::collections::BTreeSet;

use windrow_core::{Error, Result};

use super::SessionMerger;
use crate::extents;
use crate::segments::Body;
use crate::segments::kept::SavedState;
use crate::segments::kept::{Cut, KeptSegment, Restored, Saving, corrupt, merge_small, spill_all};
use crate::segments::saved::{self, StateTypes};
use crate::spec::SessionOperatorSpec;
use crate::table::Frozen;

impl SessionMerger {
    /// Restores a merger from a cut.
    ///
    /// # Errors
    /// Corrupt when a segment cannot belong to such a cut.
    pub(crate) fn restore(spec: &SessionOperatorSpec, state: SavedState<'_>) -> Result<Self> {
        let SavedState { frontier, next_id, segments, space } = state;
        let mut merger =
            Self { frontier, drained: frontier, next_id, cuts: true, ..Self::new(spec) };
        let types = StateTypes::of(&merger.columns)?;
        let columns = merger.columns.clone();
        let mut restored = Restored::new(&columns, space);
        let mut known = BTreeSet::new();
        for segment in segments {
            let segment = segment?;
            let (id, slice, rows, times) = (segment.id, segment.slice, segment.rows, segment.times);
            if id.0 >= next_id || !known.insert(id) {
                return Err(corrupt(id, "has the id of another one"));
            }
            if segment.input != 0 {
                return Err(corrupt(id, "has rows of another input"));
            }
            let body = saved::decode(&merger.columns, &types, rows, segment.into_batches()?)
                .map_err(|e| corrupt(id, "is not what its query saved").with_source(e))?;
            let is_piece = match &body {
                Body::Frozen(frozen) => merger.is_piece(slice, frozen)?,
                _ => false,
            };
            if !is_piece {
                return Err(corrupt(id, "has rows of another slice"));
            }
            restored.add(
                (slice, i64::MIN),
                KeptSegment { id: Some(id), rows, times, body: Some(body) },
            )?;
        }
        merger.waiting = restored.segments();
        Ok(merger)
    }

    /// Whether the last rows of all groups are in the slice.
    fn is_piece(&self, slice: i64, frozen: &Frozen) -> Result<bool> {
        let (first, last) = extents::of_state(frozen.extents())?;
        let within = slice..=self.last_tick(slice);
        let mut times = first.iter().zip(last);
        Ok(self.slicing.slice(slice) == slice
            && times.all(|(first, last)| first <= last && within.contains(last)))
    }

    /// Returns what a checkpoint needs.
    ///
    /// # Errors
    /// Internal when cuts are not retained, or when ended sessions have not been returned.
    pub(super) fn save(&mut self) -> Result<Cut> {
        if !self.cuts || !self.closed.is_empty() {
            return Err(Error::internal("a cut of sessions that cannot be remembered"));
        }
        for pieces in self.waiting.values_mut() {
            merge_small(&self.columns, pieces, &mut self.groups)?;
        }
        self.merge_entered()?;
        let mut saving = Saving::new(self.next_id);
        if let Some((slice, frozen, rows)) = self.chain.before() {
            let body = self.before_id.is_none().then(|| Body::Frozen(frozen.clone()));
            let mut before = KeptSegment { id: self.before_id, rows, times: None, body };
            saving.save((slice, i64::MIN), &mut before)?;
            self.before_id = before.id;
        }
        for kept in &mut self.entered {
            let slice = self.chain.slice().ok_or_else(|| Error::internal("pieces of no slice"))?;
            saving.save((slice, i64::MIN), kept)?;
            // The chain has it, and now the checkpoint has it too.
            kept.body = None;
        }
        for (key, pieces) in &mut self.waiting {
            pieces.iter_mut().try_for_each(|kept| saving.save(*key, kept))?;
        }
        let cut = saving.cut(self.frontier);
        self.next_id = cut.next_id;
        Ok(cut)
    }

    /// Merges pieces that are in no checkpoint.
    pub(super) fn merge_entered(&mut self) -> Result<()> {
        let all = std::mem::take(&mut self.entered);
        let (saved, mut fresh): (Vec<_>, Vec<_>) = all.into_iter().partition(|k| k.id.is_some());
        merge_small(&self.columns, &mut fresh, &mut self.groups)?;
        self.entered = saved;
        self.entered.extend(fresh);
        Ok(())
    }

    /// Converts the sessions of the chain to waiting pieces, except those that have ended.
    pub(super) fn dissolve(&mut self) -> Result<()> {
        for (slice, frozen, rows) in self.chain.take()? {
            let kept =
                KeptSegment { id: None, rows, times: None, body: Some(Body::Frozen(frozen)) };
            self.waiting.entry((slice, i64::MIN)).or_default().insert(0, kept);
        }
        self.entered.clear();
        self.before_id = None;
        Ok(())
    }

    /// Writes all pieces to disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn spill_pieces(&mut self) -> Result<()> {
        let Some(space) = self.space.clone() else { return Ok(()) };
        self.short = true;
        self.dissolve()?;
        spill_all(&self.columns, space.as_ref(), &mut self.waiting)
    }
}
