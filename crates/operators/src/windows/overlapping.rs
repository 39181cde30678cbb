//! Windows of many slices (HOP, CUMULATE): slices that wait for their first window, and those that have entered the
//! [two stacks](super::stacks).
//!
//! Rows that are partly late are held apart (`extras`) and are merged into the windows in which they count.

use std::collections::BTreeMap;

use windrow_core::{Error, Result};

use super::stacks::Stacks;
use super::{Part, Windows, next_end};
use crate::OperatorSpec;
use crate::segments::{Body, Segment};
use crate::table::Frozen;

/// The state of overlapping windows.
#[derive(Debug, Default)]
pub(crate) struct Overlapping {
    /// On time, and in no closed window yet.
    pending: BTreeMap<i64, Vec<Frozen>>,
    /// Partly late, by slice and first window end.
    extras: BTreeMap<(i64, i64), Vec<Frozen>>,
    stacks: Option<Stacks>,
}

impl Windows for Overlapping {
    fn add(&mut self, _spec: &OperatorSpec, segment: Segment) -> Result<()> {
        let Body::Frozen(frozen) = segment.body.freeze()? else {
            return Err(Error::internal("a slice of an aggregate holds rows"));
        };
        if segment.counts_from == i64::MIN {
            self.pending.entry(segment.slice).or_default().push(frozen);
        } else {
            self.extras.entry((segment.slice, segment.counts_from)).or_default().push(frozen);
        }
        Ok(())
    }

    fn next_end(&self, spec: &OperatorSpec, frontier: i64) -> Option<i64> {
        let slicing = spec.slicing();
        let stacked = self.stacks.as_ref().and_then(|s| s.oldest(slicing, frontier));
        let oldest = stacked.or_else(|| self.pending.keys().next().copied());
        let next = oldest.map(|slice| slicing.end_after(slice, frontier));
        let extra = next_end(spec, frontier, self.extras.keys());
        next.into_iter().chain(extra).min()
    }

    fn close(&mut self, spec: &OperatorSpec, end: i64) -> Result<Vec<Part>> {
        let slicing = spec.slicing();
        let start = slicing.start_of(end);
        let stacks = match &mut self.stacks {
            Some(stacks) => stacks,
            none => none.insert(Stacks::new(spec)?),
        };
        stacks.drop_before(spec, start)?;
        let later = self.pending.split_off(&end);
        stacks.push(spec, std::mem::replace(&mut self.pending, later))?;
        let extras: Vec<&Frozen> = self
            .extras
            .range((start, i64::MIN)..(end, i64::MIN))
            .filter(|((_, from), _)| *from <= end)
            .flat_map(|(_, segments)| segments)
            .collect();
        let parts = stacks.window(spec, &extras)?;
        while let Some(first) = self.extras.first_entry() {
            if slicing.last_end(first.key().0) > end {
                break;
            }
            first.remove();
        }
        if stacks.done(slicing, end) {
            self.stacks = None;
        }
        Ok(parts)
    }

    fn last_slice(&self) -> Option<i64> {
        let pending = self.pending.keys().next_back().copied();
        let extra = self.extras.keys().next_back().map(|(slice, _)| *slice);
        let stacked = self.stacks.as_ref().and_then(Stacks::newest);
        pending.into_iter().chain(extra).chain(stacked).max()
    }

    fn size_bytes(&self) -> usize {
        let waiting = self.pending.values().chain(self.extras.values()).flatten();
        waiting.map(Frozen::size_bytes).sum::<usize>()
            + self.stacks.as_ref().map_or(0, Stacks::size_bytes)
    }

    /// Slices in the stacks are merged with others.
    fn slice_bytes(&self, _key: (i64, i64)) -> Option<usize> {
        None
    }
}
