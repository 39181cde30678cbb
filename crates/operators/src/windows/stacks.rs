//! Two stacks of slices, merged without hashing.
//!
//! A slice enters at the *back*: its keys are assigned dense ids once, and its states are merged into the running state
//! of the back. When the oldest slice must be dropped and the *front* is empty, the slices of the back become the front
//! (a *turn*): from the newest to the oldest, their states are merged into suffixes, so that dropping a slice means
//! using the next shorter suffix. A window is one suffix of the front merged with the back: a constant number of merges
//! per slide, whatever `size / slide` is.
//!
//! Ids are reassigned at each turn, in the order in which the suffixes grow; therefore
//! - the keys of every suffix are a prefix of the front's keys, and its ids are `0..len`;
//! - the number of ids is bounded by the number of live keys.
//!
//! A suffix can be as long as all its slices together. Only every `√n`-th is retained; those between two retained ones
//! are computed when they are needed, so that memory grows with `√n`, not `n`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use windrow_core::{Error, Result, WindowKind};

use super::Part;
use crate::OperatorSpec;
use crate::slicing::Slicing;
use crate::table::{Accumulators, Frozen, Interner, arrays_bytes, states_bytes};

/// Marks an id without a position.
const NONE: u32 = u32::MAX;

/// A slice inside the stacks.
#[derive(Debug)]
struct Slice {
    start: i64,
    parts: Vec<SlicePart>,
}

/// The states of one segment, by id.
#[derive(Debug)]
struct SlicePart {
    ids: Vec<u32>,
    states: Vec<Vec<ArrayRef>>,
}

/// Merged states of ids `0..len`.
#[derive(Debug, Clone, Default)]
struct Suffix {
    len: usize,
    states: Vec<Vec<ArrayRef>>,
}

/// The slices of a window, merged from both ends.
pub(crate) struct Stacks {
    ids: Interner,
    front: Front,
    back: Back,
    /// Scratch: `0, 1, 2 …`.
    identity: Vec<usize>,
    /// Scratch: ids or positions of the current rows.
    positions: Vec<usize>,
}

/// The older slices, which are dropped one by one.
#[derive(Debug, Default)]
struct Front {
    /// Oldest first; those before `next` have been dropped.
    slices: Vec<Slice>,
    next: usize,
    keys: Vec<ArrayRef>,
    /// Slices per block.
    block: usize,
    /// The suffix that begins with the first slice of each block.
    kept: Vec<Suffix>,
    /// The suffixes that begin with the slices of a single block, by the slice's index.
    near: BTreeMap<usize, Suffix>,
}

/// The younger slices, added since the last turn.
#[derive(Debug, Default)]
struct Back {
    /// Oldest first.
    slices: Vec<Slice>,
    /// Keys and states by position.
    keys: Vec<ArrayRef>,
    states: Vec<Vec<ArrayRef>>,
    /// The id at each position.
    ids: Vec<u32>,
    /// The position of each id, or [`NONE`].
    position: Vec<u32>,
}

impl fmt::Debug for Stacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stacks")
            .field("ids", &self.ids.len())
            .field("front", &(self.front.slices.len() - self.front.next))
            .field("back", &self.back.slices.len())
            .finish_non_exhaustive()
    }
}

impl Stacks {
    pub(crate) fn new(spec: &OperatorSpec) -> Result<Self> {
        Ok(Self {
            ids: Interner::new(spec.columns(), 0)?,
            front: Front::default(),
            back: Back::default(),
            identity: vec![],
            positions: vec![],
        })
    }

    /// Returns the start of the oldest slice that is in a window which ends after `frontier`.
    pub(crate) fn oldest(&self, slicing: &Slicing, frontier: i64) -> Option<i64> {
        let mut starts = self.starts();
        starts.find(|start| slicing.last_end(*start) > frontier)
    }

    /// Returns the start of the youngest slice.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.starts().last()
    }

    fn starts(&self) -> impl Iterator<Item = i64> + '_ {
        let front = self.front.slices.iter().skip(self.front.next);
        front.chain(&self.back.slices).map(|slice| slice.start)
    }

    /// Drops the slices that start before `start`.
    pub(crate) fn drop_before(&mut self, spec: &OperatorSpec, start: i64) -> Result<()> {
        self.front.drop_before(start);
        if self.front.next < self.front.slices.len()
            || self.back.slices.first().is_none_or(|slice| slice.start >= start)
        {
            return Ok(());
        }
        let gone = self.back.slices.partition_point(|slice| slice.start < start);
        self.back.slices.drain(..gone);
        if self.back.slices.is_empty() {
            self.ids = Interner::new(spec.columns(), 0)?;
            self.front = Front::default();
            self.back = Back::default();
            return Ok(());
        }
        self.turn(spec)
    }

    /// Moves the slices of the back to the front; ids are reassigned.
    fn turn(&mut self, spec: &OperatorSpec) -> Result<()> {
        let mut back = std::mem::take(&mut self.back);
        let n = back.slices.len();
        let block = n.isqrt().max(1);
        let mut renamed = vec![NONE; self.ids.len()];
        let mut order: Vec<u32> = vec![];
        let mut kept = vec![Suffix::default(); n.div_ceil(block)];
        let mut states = Accumulators::new(spec.columns())?;
        for (i, slice) in back.slices.iter_mut().enumerate().rev() {
            for part in &mut slice.parts {
                self.positions.clear();
                for id in &mut part.ids {
                    let new = renamed.get_mut(*id as usize).ok_or_else(unknown_id)?;
                    if *new == NONE {
                        *new = number(order.len())?;
                        order.push(*back.position.get(*id as usize).ok_or_else(unknown_id)?);
                    }
                    *id = *new;
                    self.positions.push(*new as usize);
                }
                states.merge(&part.states, &self.positions, order.len())?;
            }
            if i % block == 0
                && let Some(slot) = kept.get_mut(i / block)
            {
                *slot = Suffix { len: order.len(), states: states.take_states()? };
                states = Accumulators::new(spec.columns())?;
                if i > 0 {
                    merge_all(&mut states, slot, &mut self.identity)?;
                }
            }
        }
        let order = UInt32Array::from(order);
        let keys =
            back.keys.iter().map(|k| take(k, &order, None)).collect::<Result<Vec<_>, _>>()?;
        self.ids = Interner::new(spec.columns(), 2 * order.len())?;
        self.ids.intern(&keys, order.len(), &mut self.positions)?;
        if self.ids.len() != order.len() {
            return Err(Error::internal("two keys of a window have become equal"));
        }
        self.back.position = vec![NONE; order.len()];
        self.front =
            Front { slices: back.slices, next: 0, keys, block, kept, near: BTreeMap::new() };
        Ok(())
    }

    /// Adds slices, in order of their start, after all existing ones.
    pub(crate) fn push(
        &mut self,
        spec: &OperatorSpec,
        slices: BTreeMap<i64, Vec<Frozen>>,
    ) -> Result<()> {
        if slices.is_empty() {
            return Ok(());
        }
        // CUMULATE drops all slices at once, so none is needed alone.
        let needed_alone = matches!(spec.window().kind(), WindowKind::Hop { .. });
        let mut states = Accumulators::new(spec.columns())?;
        let so_far =
            Suffix { len: self.back.ids.len(), states: std::mem::take(&mut self.back.states) };
        merge_all(&mut states, &so_far, &mut self.identity)?;
        for (start, segments) in slices {
            let mut slice = Slice { start, parts: vec![] };
            for frozen in segments {
                self.ids.intern(&frozen.keys, frozen.groups, &mut self.positions)?;
                let ids = self.back.enter(&frozen, &mut self.positions, self.ids.len())?;
                states.merge(&frozen.states, &self.positions, self.back.ids.len())?;
                if needed_alone {
                    slice.parts.push(SlicePart { ids, states: frozen.states });
                }
            }
            self.back.slices.push(slice);
        }
        self.back.states = states.take_states()?;
        Ok(())
    }

    /// Returns the rows of the window composed of all slices here and of `extras`.
    pub(crate) fn window(&mut self, spec: &OperatorSpec, extras: &[&Frozen]) -> Result<Vec<Part>> {
        let front = self.front.suffix(spec, &mut self.identity)?;
        let mut states = Accumulators::new(spec.columns())?;
        merge_all(&mut states, &front, &mut self.identity)?;
        // Keys of the back that are also in the front take the front's positions; the others follow.
        let mut total = front.len;
        let mut own: Vec<u32> = vec![];
        self.positions.clear();
        for (&id, place) in self.back.ids.iter().zip(0_u32..) {
            if (id as usize) < front.len {
                self.positions.push(id as usize);
            } else {
                self.positions.push(total);
                own.push(place);
                total += 1;
            }
        }
        if !self.positions.is_empty() {
            states.merge(&self.back.states, &self.positions, total)?;
        }
        let mut keys = vec![];
        if front.len > 0 {
            keys.push((slice_all(&self.front.keys, front.len), front.len));
        }
        if own.len() == self.back.ids.len() {
            keys.push((self.back.keys.clone(), own.len()));
        } else {
            let rows = own.len();
            keys.push((take_all(&self.back.keys, own)?, rows));
        }
        self.merge_extras(extras, &mut states, &mut keys, (front.len, total))?;
        let values = states.take_values()?;
        let mut start = 0;
        for (columns, rows) in &mut keys {
            columns.extend(values.iter().map(|v| v.slice(start, *rows)));
            start += *rows;
        }
        Ok(keys)
    }

    /// Merges `extras`, which count in this window only; `self.positions` has the positions of the back's keys.
    fn merge_extras(
        &mut self,
        extras: &[&Frozen],
        states: &mut Accumulators,
        keys: &mut Vec<Part>,
        (front, mut total): (usize, usize),
    ) -> Result<()> {
        let mut further: HashMap<usize, usize> = HashMap::new();
        let mut groups = vec![];
        for extra in extras {
            self.ids.intern(&extra.keys, extra.groups, &mut groups)?;
            let mut own = vec![];
            for (id, row) in groups.iter_mut().zip(0_u32..) {
                let back = self.back.position.get(*id).filter(|p| **p != NONE);
                *id = if *id < front {
                    *id
                } else if let Some(place) = back {
                    *self.positions.get(*place as usize).ok_or_else(unknown_id)?
                } else {
                    *further.entry(*id).or_insert_with(|| {
                        own.push(row);
                        total += 1;
                        total - 1
                    })
                };
            }
            states.merge(&extra.states, &groups, total)?;
            let rows = own.len();
            keys.push((take_all(&extra.keys, own)?, rows));
        }
        Ok(())
    }

    /// Whether no slice here is in a window that ends after `end`.
    pub(crate) fn done(&self, slicing: &Slicing, end: i64) -> bool {
        self.oldest(slicing, end).is_none()
    }

    pub(crate) fn size_bytes(&self) -> usize {
        let slices = self.front.slices.iter().chain(&self.back.slices);
        let parts = slices.flat_map(|slice| &slice.parts);
        let suffixes = self.front.kept.iter().chain(self.front.near.values());
        self.ids.size_bytes()
            + parts.map(|p| p.ids.capacity() * 4 + states_bytes(&p.states)).sum::<usize>()
            + suffixes.map(|s| states_bytes(&s.states)).sum::<usize>()
            + arrays_bytes(&self.front.keys)
            + arrays_bytes(&self.back.keys)
            + states_bytes(&self.back.states)
            + (self.back.ids.capacity() + self.back.position.capacity()) * 4
    }
}

impl Front {
    fn drop_before(&mut self, start: i64) {
        while let Some(slice) = self.slices.get_mut(self.next) {
            if slice.start >= start {
                break;
            }
            slice.parts = vec![];
            self.near.remove(&self.next);
            if self.next.is_multiple_of(self.block)
                && let Some(passed) = self.kept.get_mut(self.next / self.block)
            {
                *passed = Suffix::default();
            }
            self.next += 1;
        }
    }

    /// Returns the merged states of all remaining slices.
    fn suffix(&mut self, spec: &OperatorSpec, identity: &mut Vec<usize>) -> Result<Suffix> {
        if self.next >= self.slices.len() {
            return Ok(Suffix::default());
        }
        if self.next.is_multiple_of(self.block) {
            return Ok(self.kept.get(self.next / self.block).cloned().unwrap_or_default());
        }
        if !self.near.contains_key(&self.next) {
            self.work_out_block(spec, identity)?;
        }
        Ok(self.near.get(&self.next).cloned().unwrap_or_default())
    }

    /// Computes the suffixes that begin with each slice of the block at `next`.
    fn work_out_block(&mut self, spec: &OperatorSpec, identity: &mut Vec<usize>) -> Result<()> {
        let after = self.next / self.block + 1;
        let end = (after * self.block).min(self.slices.len());
        let mut suffix = self.kept.get(after).cloned().unwrap_or_default();
        self.near.clear();
        let mut positions: Vec<usize> = vec![];
        for i in (self.next..end).rev() {
            let mut states = Accumulators::new(spec.columns())?;
            merge_all(&mut states, &suffix, identity)?;
            for part in self.slices.get(i).map_or(&[][..], |slice| &slice.parts) {
                positions.clear();
                positions.extend(part.ids.iter().map(|id| *id as usize));
                // New ids are ascending: exactly those up to the greatest have been seen.
                suffix.len = positions.iter().fold(suffix.len, |len, id| len.max(*id + 1));
                states.merge(&part.states, &positions, suffix.len)?;
            }
            suffix.states = states.take_states()?;
            self.near.insert(i, suffix.clone());
        }
        Ok(())
    }
}

impl Back {
    /// Assigns positions to keys whose ids are `groups`, and stores the positions there; returns the ids. `ids` is the
    /// total number of ids.
    fn enter(&mut self, frozen: &Frozen, groups: &mut [usize], ids: usize) -> Result<Vec<u32>> {
        self.position.resize(ids, NONE);
        let mut entered = Vec::with_capacity(groups.len());
        let mut new_rows: Vec<u32> = vec![];
        for (group, row) in groups.iter_mut().zip(0_u32..) {
            let place = self.position.get_mut(*group).ok_or_else(unknown_id)?;
            let id = number(*group)?;
            entered.push(id);
            if *place == NONE {
                *place = number(self.ids.len())?;
                self.ids.push(id);
                new_rows.push(row);
            }
            *group = *place as usize;
        }
        let new = if new_rows.len() == frozen.groups {
            frozen.keys.clone()
        } else {
            take_all(&frozen.keys, new_rows)?
        };
        if self.keys.is_empty() {
            self.keys = new;
        } else {
            for (keys, new) in self.keys.iter_mut().zip(&new) {
                if !new.is_empty() {
                    *keys = concat(&[keys.as_ref(), new.as_ref()])?;
                }
            }
        }
        Ok(entered)
    }
}

/// Merges a whole suffix into new accumulators.
fn merge_all(states: &mut Accumulators, suffix: &Suffix, identity: &mut Vec<usize>) -> Result<()> {
    if suffix.len == 0 {
        return Ok(());
    }
    if identity.len() < suffix.len {
        identity.extend(identity.len()..suffix.len.next_power_of_two());
    }
    let all = identity.get(..suffix.len).unwrap_or_default();
    states.merge(&suffix.states, all, suffix.len)
}

fn slice_all(columns: &[ArrayRef], len: usize) -> Vec<ArrayRef> {
    columns.iter().map(|c| if c.len() == len { Arc::clone(c) } else { c.slice(0, len) }).collect()
}

fn take_all(columns: &[ArrayRef], rows: Vec<u32>) -> Result<Vec<ArrayRef>> {
    let rows = UInt32Array::from(rows);
    Ok(columns.iter().map(|c| take(c, &rows, None)).collect::<Result<_, _>>()?)
}

fn number(n: usize) -> Result<u32> {
    u32::try_from(n).ok().filter(|n| *n != NONE).ok_or_else(|| {
        Error::new(windrow_core::ErrorKind::Limit, "a window has more than 4 billion groups")
    })
}

fn unknown_id() -> Error {
    Error::internal("a key of a window has no id")
}
