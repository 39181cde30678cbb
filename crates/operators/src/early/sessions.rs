//! Open sessions with early results.
//!
//! A piece (rows of one key within one gap) extends a session, begins one, or joins several. The bounds of a session are
//! part of its key, so a session with new bounds is a new row: the rows of the sessions that it continues are deleted.
//!
//! Invariants: the sessions of a key are in order of time, and more than one gap apart; `by_last` has every open session;
//! a slot that is in no session is `free`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use windrow_core::{Error, Result, Watermark};

use super::joined::{Joined, joined};
use super::session_changes::SessionChanges;
use super::{no_checkpoints, too_large};
use crate::Slicing;
use crate::changing::states::States;
use crate::extents;
use crate::port::{CoordinatorPart, Finished, WindowRows};
use crate::segments::kept::Cut;
use crate::segments::spill::SpillSpace;
use crate::segments::{Body, Segment};
use crate::spec::{Columns, SessionOperatorSpec};
use crate::table::{Frozen, Interner};

/// The end of emissions: the earliest possible one, so that they never wait for the watermark.
const END: i64 = i64::MIN + 1;

/// The number of keys without sessions from which on they are dropped, if they are most of all.
const ABSENT_MIN: usize = 1024;

/// The open sessions of all keys.
#[derive(Debug)]
pub(super) struct EarlySessions {
    columns: Arc<Columns>,
    output_schema: SchemaRef,
    slicing: Slicing,
    gap: i64,
    keys: Keys,
    /// The slots of the sessions of each key.
    of_key: Vec<Vec<u32>>,
    /// The number of keys with sessions.
    present: usize,
    slots: Vec<Session>,
    free: Vec<u32>,
    /// By slot: the states of the aggregates, the extent, the key.
    states: States,
    /// The last tick and the slot of each open session.
    by_last: BTreeSet<(i64, u32)>,
    pending: Vec<Frozen>,
    returned: Option<SessionChanges>,
    flushed: Watermark,
    asked: bool,
    /// The number of groups returned so far.
    groups: u32,
    spills: bool,
}

/// The numbers of the keys.
struct Keys(Interner);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.0.len()).finish()
    }
}

/// An open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) key: u32,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) rows: i64,
}

impl EarlySessions {
    pub(super) fn new(spec: &SessionOperatorSpec, output_schema: &SchemaRef) -> Self {
        Self {
            columns: Arc::clone(spec.columns()),
            output_schema: Arc::clone(output_schema),
            slicing: *spec.slicing(),
            gap: spec.session().gap(),
            keys: Keys(Interner::Nothing { any: false }),
            of_key: vec![],
            present: 0,
            slots: vec![],
            free: vec![],
            states: States::default(),
            by_last: BTreeSet::new(),
            pending: vec![],
            returned: None,
            flushed: Watermark::NONE,
            asked: false,
            groups: 0,
            spills: false,
        }
    }

    /// Whether the slices before `to` are complete, and have not been flushed.
    fn is_passed(&self, to: Watermark) -> bool {
        to > self.flushed
            && (self.flushed == Watermark::NONE
                || to == Watermark::END
                || self.slicing.slice(to.ticks()) > self.slicing.slice(self.flushed.ticks()))
    }

    /// The end of the first session that ends.
    fn earliest_end(&self) -> Option<i64> {
        self.by_last.first().map(|(last, _)| last.saturating_add(self.gap))
    }

    /// Merges the flushed pieces, and closes the sessions that end at `to` or before.
    fn emit(&mut self, to: Watermark) -> Result<()> {
        let pieces = self.take_pieces()?;
        let mut joined = match &pieces {
            Some(pieces) => self.join(pieces)?,
            None => vec![],
        };
        // Accumulators assume that each group up to the last one is in the batch: sessions that continue come first.
        joined.sort_by_key(|session| session.olds.is_empty());
        let mut changes = SessionChanges::new(&self.columns, self.gap, to);
        if let Some(pieces) = &pieces {
            changes.merge(&joined, pieces, (&self.states, &self.slots))?;
            self.replace(&joined, &mut changes)?;
        }
        self.close(to, &mut changes)?;
        self.drop_absent_keys()?;
        let first = self.groups;
        self.groups = self.groups.wrapping_add(changes.finish(first, &self.output_schema)?);
        self.returned = Some(changes).filter(|changes| !changes.is_empty());
        Ok(())
    }

    /// All flushed pieces as one.
    fn take_pieces(&mut self) -> Result<Option<Frozen>> {
        let mut pending = std::mem::take(&mut self.pending);
        if pending.len() < 2 {
            return Ok(pending.pop().filter(|piece| piece.groups > 0));
        }
        let groups = pending.iter().map(|piece| piece.groups).sum();
        let column = |of: &dyn Fn(&Frozen) -> Option<ArrayRef>| -> Result<ArrayRef> {
            let arrays: Option<Vec<ArrayRef>> = pending.iter().map(of).collect();
            let arrays = arrays.ok_or_else(|| Error::internal("pieces of other columns"))?;
            let arrays: Vec<_> = arrays.iter().map(AsRef::as_ref).collect();
            Ok(concat(&arrays)?)
        };
        let Some(one) = pending.first() else { return Ok(None) };
        let keys = (0..one.keys.len())
            .map(|at| column(&|piece| piece.keys.get(at).cloned()))
            .collect::<Result<_>>()?;
        let mut states = Vec::with_capacity(one.states.len());
        for (call, state) in one.states.iter().enumerate() {
            let columns = (0..state.len())
                .map(|at| column(&|piece| piece.states.get(call)?.get(at).cloned()));
            states.push(columns.collect::<Result<_>>()?);
        }
        Ok(Some(Frozen { keys, states, groups }))
    }

    /// The sessions that the pieces are in.
    fn join(&mut self, pieces: &Frozen) -> Result<Vec<Joined>> {
        if let Interner::Nothing { .. } = self.keys.0 {
            self.keys.0 = Interner::new(&self.columns, 0)?;
        }
        let mut numbers = vec![];
        self.keys.0.intern(&pieces.keys, pieces.groups, &mut numbers)?;
        self.of_key.resize_with(self.keys.0.len(), Vec::new);
        let (firsts, lasts) = extents::of_state(pieces.extents())?;
        let mut by_key: BTreeMap<usize, Vec<(i64, i64, u32)>> = BTreeMap::new();
        for (((key, first), last), row) in numbers.iter().zip(firsts).zip(lasts).zip(0_u32..) {
            by_key.entry(*key).or_default().push((*first, *last, row));
        }
        let mut all = vec![];
        for (key, pieces) in by_key {
            let slots = self.of_key.get(key).map_or(&[][..], Vec::as_slice);
            let known = slots.iter().filter_map(|slot| {
                self.slots.get(*slot as usize).map(|session| (session.first, session.last, *slot))
            });
            let key = u32::try_from(key).map_err(|_| Error::internal("too many keys"))?;
            joined(key, known.collect(), pieces, self.gap, &mut all);
        }
        Ok(all)
    }

    /// Replaces the sessions that others continue.
    fn replace(&mut self, joined: &[Joined], changes: &mut SessionChanges) -> Result<()> {
        let rows = changes.rows_of_sessions()?.to_vec();
        let mut slots = Vec::with_capacity(joined.len());
        for (session, rows) in joined.iter().zip(rows) {
            for old in &session.olds {
                self.remove(*old);
            }
            let slot = match self.free.pop() {
                Some(slot) => slot,
                None => u32::try_from(self.slots.len())
                    .map_err(|_| Error::internal("more sessions than can be numbered"))?,
            };
            let new = Session { key: session.key, first: session.first, last: session.last, rows };
            match self.slots.get_mut(slot as usize) {
                Some(place) => *place = new,
                None => self.slots.push(new),
            }
            self.by_last.insert((session.last, slot));
            if let Some(of_key) = self.of_key.get_mut(session.key as usize) {
                self.present += usize::from(of_key.is_empty());
                of_key.push(slot);
                of_key.sort_by_key(|slot| self.slots.get(*slot as usize).map(|s| s.first));
            }
            slots.push(slot);
        }
        changes.set_slots(&slots);
        self.states.put(slots, changes.states(), 0)
    }

    /// Removes a session, whose slot becomes free.
    fn remove(&mut self, slot: u32) {
        let Some(session) = self.slots.get(slot as usize).copied() else { return };
        if let Some(of_key) = self.of_key.get_mut(session.key as usize) {
            of_key.retain(|known| *known != slot);
            self.present -= usize::from(of_key.is_empty());
        }
        self.by_last.remove(&(session.last, slot));
        self.free.push(slot);
    }

    /// Closes the sessions that end at `to` or before.
    fn close(&mut self, to: Watermark, changes: &mut SessionChanges) -> Result<()> {
        let ends = |last: i64| to.closes(last.saturating_add(self.gap));
        let closing = self.by_last.iter().take_while(|(last, _)| ends(*last));
        let closing: Vec<u32> = closing.map(|(_, slot)| *slot).collect();
        changes.close(&closing, (&self.states, &self.slots))?;
        closing.into_iter().for_each(|slot| self.remove(slot));
        Ok(())
    }

    /// Drops the keys without sessions, if they are many, by numbering the others again.
    fn drop_absent_keys(&mut self) -> Result<()> {
        let absent = self.of_key.len() - self.present;
        if absent < ABSENT_MIN || absent * 2 < self.of_key.len() {
            return Ok(());
        }
        let slots: Vec<u32> = self.by_last.iter().map(|(_, slot)| *slot).collect();
        let keys = self.states.get_all(&slots)?.pop().unwrap_or_default();
        let (mut fresh, mut numbers) = (Interner::new(&self.columns, 0)?, vec![]);
        fresh.intern(&keys, slots.len(), &mut numbers)?;
        let mut of_key = vec![vec![]; fresh.len()];
        for (slot, number) in slots.iter().zip(numbers) {
            let session = self.slots.get_mut(*slot as usize);
            let session = session.ok_or_else(|| Error::internal("a session without a slot"))?;
            session.key = u32::try_from(number).map_err(|_| Error::internal("too many keys"))?;
            // By last tick, so in order of time.
            of_key.get_mut(number).into_iter().for_each(|of_key: &mut Vec<u32>| of_key.push(*slot));
        }
        self.present = of_key.len();
        (self.keys.0, self.of_key) = (fresh, of_key);
        Ok(())
    }
}

impl CoordinatorPart for EarlySessions {
    fn add(&mut self, _input: usize, segment: Segment) -> Result<()> {
        let Body::Frozen(piece) = segment.body.in_memory()?.freeze()? else {
            return Err(Error::internal("a piece of a session holds no groups"));
        };
        self.pending.push(piece);
        Ok(())
    }

    fn flush_to(&mut self, reached: Watermark, idle: bool) -> Option<Watermark> {
        if std::mem::take(&mut self.asked) {
            return None;
        }
        (idle || self.is_passed(reached)).then_some(reached.max(self.flushed))
    }

    fn flushed(&mut self, to: Watermark) {
        self.flushed = self.flushed.advance(to);
        self.asked = true;
    }

    fn complete_to(&self, reached: Watermark) -> Watermark {
        // Rows that have not been flushed are in sessions that end after `reached`, but may extend known ones.
        let ends = self.earliest_end().is_some_and(|end| reached.closes(end));
        if ends || !self.pending.is_empty() { reached.min(self.flushed) } else { reached }
    }

    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>> {
        let ends = self.earliest_end().is_some_and(|end| to.closes(end));
        if self.returned.is_none() && (ends || !self.pending.is_empty()) {
            self.emit(to)?;
        }
        Ok(self.returned.as_ref().map(|_| END))
    }

    fn close(&mut self, _to: Watermark, _rows_max: usize) -> Result<Option<Finished>> {
        let Some(changes) = self.returned.take() else { return Ok(None) };
        let windows = changes.closed();
        let rows: Vec<_> = changes.into_rows().into_iter().collect();
        Ok(Some(Finished { windows, rows: WindowRows::Whole(rows.into_iter()) }))
    }

    fn next_close(&self) -> Option<i64> {
        self.earliest_end()
    }

    fn holds_back(&self) -> bool {
        !self.pending.is_empty()
    }

    fn keep_order(&mut self) -> bool {
        false
    }

    fn keep_cuts(&mut self) {}

    fn cut(&mut self) -> Result<Cut> {
        Err(no_checkpoints())
    }

    fn spill_to(&mut self, _space: Arc<dyn SpillSpace>) {
        self.spills = true;
    }

    /// Refused: the next row may be in any session.
    fn spill(&mut self) -> Result<()> {
        if self.spills { Err(too_large(self.by_last.len())) } else { Ok(()) }
    }

    fn open_windows(&self) -> usize {
        self.by_last.len()
    }

    fn rows(&self) -> u64 {
        let open = self.by_last.iter().filter_map(|(_, slot)| self.slots.get(*slot as usize));
        let open: i64 = open.map(|session| session.rows).sum();
        let pending = self.pending.iter().filter_map(|p| extents::rows_of_state(p.extents()).ok());
        let pending: i64 = pending.map(|rows| rows.iter().sum::<i64>()).sum();
        u64::try_from(open + pending).unwrap_or(0)
    }

    fn size_bytes(&self) -> usize {
        let slots = self.slots.capacity() * size_of::<Session>()
            + self.of_key.capacity() * size_of::<Vec<u32>>()
            + self.by_last.len() * 3 * size_of::<(i64, u32)>();
        let pending: usize = self.pending.iter().map(Frozen::size_bytes).sum();
        let returned = self.returned.as_ref().map_or(0, SessionChanges::size_bytes);
        self.keys.0.size_bytes() + self.states.size_bytes() + slots + pending + returned
    }
}
