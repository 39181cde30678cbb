//! The groups of all rows so far, merged from all workers.
//!
//! Invariant: `states` has one state per group number, and contains all rows that were flushed and are no longer `pending`.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use windrow_core::{Error, ErrorKind, Result, Watermark};

use super::emission::Emission;
use super::equal::same_rows;
use super::states::{LAST, States};
use crate::port::{CoordinatorPart, Finished, WindowRows};
use crate::segments::kept::{Cut, SavedState, corrupt};
use crate::segments::saved::{self, StateTypes};
use crate::segments::spill::SpillSpace;
use crate::segments::{Body, Segment};
use crate::spec::Columns;
use crate::table::{Accumulators, Frozen, GroupTable, Interner};

/// The end of all rows: the earliest possible one, so that they never wait for the watermark.
const END: i64 = i64::MIN + 1;

/// The groups of all rows so far.
#[derive(Debug)]
pub(crate) struct Totals {
    columns: Arc<Columns>,
    output_schema: SchemaRef,
    groups: Groups,
    states: States,
    /// Whether checkpoints are made: the states then include the keys, as the last of them.
    keeps: bool,
    /// Flushed groups that have not been merged into the states.
    pending: Option<Body>,
    /// The number of input rows in them.
    pending_rows: u64,
    /// The changes that are being returned.
    emission: Option<Emission>,
    /// Whether there has been an emission: an aggregate without keys emits a row before the first input row.
    begun: bool,
    /// All rows before this watermark are in the changes.
    flushed: Watermark,
    /// Whether the workers have been flushed in this pass.
    asked: bool,
    spills: bool,
    /// Scratch.
    scratch: Vec<usize>,
}

/// The numbers of the groups.
struct Groups(Interner);

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Groups").field(&self.0.len()).finish()
    }
}

impl Totals {
    pub(crate) fn new(columns: &Arc<Columns>, output_schema: &SchemaRef) -> Self {
        Self {
            columns: Arc::clone(columns),
            output_schema: Arc::clone(output_schema),
            groups: Groups(Interner::Nothing { any: false }),
            states: States::default(),
            keeps: false,
            pending: None,
            pending_rows: 0,
            emission: None,
            begun: false,
            flushed: Watermark::NONE,
            asked: false,
            spills: false,
            scratch: vec![],
        }
    }

    /// Restores the groups from a cut.
    ///
    /// # Errors
    /// Corrupt when a segment cannot belong to such a cut.
    pub(super) fn restored(
        columns: &Arc<Columns>,
        output_schema: &SchemaRef,
        state: SavedState<'_>,
    ) -> Result<Self> {
        let mut totals = Self::new(columns, output_schema);
        totals.keeps = true;
        let types = StateTypes::of(columns)?;
        let mut chunks = vec![];
        for segment in state.segments {
            let segment = segment?;
            let (id, age, rows) = (segment.id, segment.slice, segment.rows);
            let body = saved::decode(columns, &types, rows, segment.into_batches()?)?;
            match (age, body, &totals.pending) {
                (LAST, body, None) => {
                    (totals.pending, totals.pending_rows) = (Some(body), rows);
                }
                (_, Body::Frozen(chunk), _) if age != LAST => chunks.push((age, id, rows, chunk)),
                _ => return Err(corrupt(id, "is of another operator")),
            }
        }
        chunks.sort_by_key(|(age, ..)| *age);
        totals.begun = !chunks.is_empty();
        if totals.begun {
            totals.groups.0 = Interner::new(columns, 0)?;
        }
        for (age, id, rows, Frozen { keys, mut states, groups }) in chunks {
            totals.groups.0.intern(&keys, groups, &mut totals.scratch)?;
            let numbers = numbers(&totals.scratch)?;
            states.push(keys);
            totals.states.restore((age, id, rows), numbers, states)?;
        }
        totals.states.restored(state.next_id)?;
        Ok(totals)
    }

    /// Merges the flushed groups into the states, and creates an emission.
    fn emit(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            self.groups.0 = Interner::new(&self.columns, 0)?;
            if self.columns.key_schema().fields().is_empty() && self.pending.is_none() {
                let nothing = GroupTable::of_no_rows(&self.columns)?;
                self.pending = Some(Body::Live(Box::new(nothing)));
            }
        }
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let Body::Frozen(flushed) = pending.freeze()? else {
            return Err(Error::internal("a flush of rows to an aggregate"));
        };
        self.emission = Some(self.merge(flushed)?).filter(|emission| emission.rows_left() > 0);
        Ok(())
    }

    fn merge(&mut self, flushed: Frozen) -> Result<Emission> {
        let Frozen { keys, states, groups } = flushed;
        let known = self.states.len();
        self.groups.0.intern(&keys, groups, &mut self.scratch)?;
        let numbers = numbers(&self.scratch)?;
        // The flushed groups that exist already: their positions and their numbers.
        let exists = |at: &usize| numbers.get(*at).is_some_and(|n| (*n as usize) < known);
        let existed: Vec<usize> = (0..groups).filter(exists).collect();
        let old: Vec<u32> = existed.iter().filter_map(|at| numbers.get(*at).copied()).collect();
        let (before, mut states) = match old.len() {
            0 => (vec![], states),
            _ => self.merge_states(&old, &existed, (&states, groups))?,
        };
        self.scratch.clear();
        self.scratch.extend(0..groups);
        let after = self.values(&states, &self.scratch)?;
        let existed: Vec<u32> =
            existed.into_iter().map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect();
        let chosen = UInt32Array::from(existed.clone());
        let now: Vec<ArrayRef> =
            after.iter().map(|column| take(column, &chosen, None)).collect::<Result<_, _>>()?;
        let same = same_rows(&before, &now, existed.len())?;
        if self.keeps {
            states.push(keys.clone());
        }
        self.states.put(numbers, states, std::mem::take(&mut self.pending_rows))?;
        let groups = u32::try_from(groups).unwrap_or(u32::MAX);
        Ok(Emission::new(keys, after, groups, (&existed, before, &same)))
    }

    /// Merges `groups` flushed states into those of the `old` groups, which are the flushed ones at `existed`. Returns the
    /// values of the old groups before, and the states of all flushed groups after it.
    fn merge_states(
        &mut self,
        old: &[u32],
        existed: &[usize],
        (flushed, groups): (&[Vec<ArrayRef>], usize),
    ) -> Result<(Vec<ArrayRef>, Vec<Vec<ArrayRef>>)> {
        let width = self.columns.calls().len();
        let old_states = self.states.get(old, width)?;
        self.scratch.clear();
        self.scratch.extend(0..old.len());
        let before = self.values(&old_states, &self.scratch)?;
        let mut merged = Accumulators::new(&self.columns)?;
        // The old groups come first: accumulators assume that each group up to the last one is in the batch.
        merged.merge(&old_states, &self.scratch, old.len())?;
        let mut places = vec![usize::MAX; groups];
        for (place, at) in existed.iter().enumerate() {
            if let Some(slot) = places.get_mut(*at) {
                *slot = place;
            }
        }
        for (place, slot) in (old.len()..).zip(places.iter_mut().filter(|p| **p == usize::MAX)) {
            *slot = place;
        }
        merged.merge(flushed, &places, groups)?;
        let states = merged.take_states()?;
        if old.len() == groups {
            return Ok((before, states));
        }
        let places: UInt32Array = places.iter().map(|at| u32::try_from(*at).ok()).collect();
        let in_order = |columns: &Vec<ArrayRef>| {
            columns.iter().map(|column| take(column, &places, None)).collect::<Result<Vec<_>, _>>()
        };
        let states = states.iter().map(in_order).collect::<Result<Vec<_>, _>>()?;
        Ok((before, states))
    }

    /// The values of groups with these states.
    fn values(&self, states: &[Vec<ArrayRef>], groups: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut accumulators = Accumulators::new(&self.columns)?;
        accumulators.merge(states, groups, groups.len())?;
        accumulators.take_values()
    }
}

/// The groups of one window with early results.
impl Totals {
    /// Merges the flushed groups; returns the changes, and the number of each group of the flush. `None`: nothing has
    /// changed.
    ///
    /// # Errors
    /// When an aggregate fails.
    pub(crate) fn changes(&mut self) -> Result<Option<(Emission, Vec<u32>)>> {
        if self.pending.is_none() {
            return Ok(None);
        }
        self.emit()?;
        let Some(emission) = self.emission.take() else { return Ok(None) };
        self.groups.0.intern(emission.keys(), emission.groups(), &mut self.scratch)?;
        let numbers = self.scratch.iter().map(|n| u32::try_from(*n).unwrap_or(u32::MAX)).collect();
        Ok(Some((emission, numbers)))
    }

    /// Updates of all groups that `known` does not mark, with the values that they have already. `None`: there are none.
    ///
    /// # Errors
    /// When an aggregate fails.
    pub(crate) fn unchanged(&mut self, known: &[bool]) -> Result<Option<Emission>> {
        let is_known = |n: &u32| known.get(*n as usize).copied().unwrap_or(false);
        let groups = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        let rest: Vec<u32> = (0..groups).filter(|n| !is_known(n)).collect();
        let Ok(count) = u32::try_from(rest.len()) else { return Ok(None) };
        if count == 0 {
            return Ok(None);
        }
        let (keys, values) = self.gather(&rest)?;
        let (all, same): (Vec<u32>, _) =
            ((0..count).collect(), BooleanBuffer::new_unset(rest.len()));
        Ok(Some(Emission::new(keys, values.clone(), count, (&all, values, &same))))
    }

    /// Merges the flushed groups; returns the keys and values of all groups, and their number.
    ///
    /// # Errors
    /// When an aggregate fails.
    pub(crate) fn all(&mut self) -> Result<(Vec<ArrayRef>, usize)> {
        self.changes()?;
        let groups: Vec<u32> = (0_u32..).take(self.states.len()).collect();
        let (mut columns, values) = self.gather(&groups)?;
        columns.extend(values);
        Ok((columns, groups.len()))
    }

    /// The keys and the values of groups.
    fn gather(&mut self, groups: &[u32]) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        let keys = self.groups.0.pick_keys(self.columns.key_schema(), groups)?;
        let states = self.states.get(groups, self.columns.calls().len())?;
        self.scratch.clear();
        self.scratch.extend(0..groups.len());
        Ok((keys, self.values(&states, &self.scratch)?))
    }
}

impl CoordinatorPart for Totals {
    fn add(&mut self, _input: usize, segment: Segment) -> Result<()> {
        self.pending_rows += segment.rows;
        let body = segment.body.in_memory()?;
        self.pending = Some(match self.pending.take() {
            Some(pending) => Body::merge(&self.columns, pending, body, &mut self.scratch)?,
            None => body,
        });
        Ok(())
    }

    fn flush_to(&mut self, reached: Watermark, idle: bool) -> Option<Watermark> {
        let asked = std::mem::take(&mut self.asked);
        let is_last = reached == Watermark::END && self.flushed != Watermark::END;
        (!asked && (idle || is_last)).then_some(reached)
    }

    fn flushed(&mut self, to: Watermark) {
        self.flushed = self.flushed.advance(to);
        self.asked = true;
    }

    fn complete_to(&self, reached: Watermark) -> Watermark {
        reached.min(self.flushed)
    }

    fn next_end(&mut self, _to: Watermark) -> Result<Option<i64>> {
        if self.emission.is_none() {
            self.emit()?;
        }
        Ok(self.emission.as_ref().map(|_| END))
    }

    fn close(&mut self, _to: Watermark, rows_max: usize) -> Result<Option<Finished>> {
        let Some(emission) = &mut self.emission else { return Ok(None) };
        let rows = emission.next(&self.output_schema, rows_max)?;
        self.emission.take_if(|emission| emission.rows_left() == 0);
        let rows: Vec<_> = rows.into_iter().collect();
        Ok(Some(Finished { windows: 0, rows: WindowRows::Whole(rows.into_iter()) }))
    }

    fn next_close(&self) -> Option<i64> {
        None
    }

    fn keep_order(&mut self) -> bool {
        false
    }

    fn keep_cuts(&mut self) {
        self.keeps = true;
    }

    fn cut(&mut self) -> Result<Cut> {
        if !self.keeps || self.emission.is_some() {
            return Err(Error::internal("a cut of an aggregate that cannot be cut now"));
        }
        let pending = self.pending.take().map(Body::freeze).transpose()?;
        let last = match &pending {
            Some(Body::Frozen(groups)) => Some((saved::frozen_batch(groups)?, self.pending_rows)),
            Some(_) => return Err(Error::internal("a flush of rows to an aggregate")),
            None => None,
        };
        self.pending = pending;
        self.states.cut(last, |states, groups| {
            let split = states.split_last();
            let (keys, states) = split.ok_or_else(|| Error::internal("groups without keys"))?;
            let (keys, states) = (keys.clone(), states.to_vec());
            saved::frozen_batch(&Frozen { keys, states, groups })
        })
    }

    fn spill_to(&mut self, _space: Arc<dyn SpillSpace>) {
        self.spills = true;
    }

    /// Refused: any group may be needed at any time.
    fn spill(&mut self) -> Result<()> {
        if !self.spills {
            return Ok(());
        }
        let groups = self.states.len();
        let message = format!(
            "an aggregate without windows keeps {groups} groups, more than its share of memory"
        );
        Err(Error::new(ErrorKind::Limit, message)
            .with_detail("It keeps all groups in memory, since the next row may change any of them.")
            .with_hint(
                "Raise the limit (--memory-limit), group by fewer values, or use windows, whose state leaves when they close.",
            ))
    }

    fn open_windows(&self) -> usize {
        self.states.len()
    }

    fn rows(&self) -> u64 {
        self.states.rows() + self.pending_rows
    }

    fn size_bytes(&self) -> usize {
        let pending = self.pending.as_ref().map_or(0, Body::size_bytes);
        let emission = self.emission.as_ref().map_or(0, Emission::size_bytes);
        self.groups.0.size_bytes() + self.states.size_bytes() + pending + emission
    }
}

/// Group numbers as they are stored.
fn numbers(groups: &[usize]) -> Result<Vec<u32>> {
    let numbers: Result<_, _> = groups.iter().map(|group| u32::try_from(*group)).collect();
    numbers.map_err(|_| Error::new(ErrorKind::Limit, "an aggregate has more than 4 billion groups"))
}
