//! Windows of one slice: the segments of all workers for that slice are merged.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use windrow_core::Result;

use super::{Part, Windows};
use crate::OperatorSpec;
use crate::segments::{Body, Segment};

/// Open windows by the start of their slice.
#[derive(Debug, Default)]
pub(crate) struct Tumbling {
    open: BTreeMap<i64, Body>,
    /// Scratch.
    groups: Vec<usize>,
}

impl Windows for Tumbling {
    fn add(&mut self, spec: &OperatorSpec, segment: Segment) -> Result<()> {
        match self.open.entry(segment.slice) {
            Entry::Vacant(place) => {
                place.insert(segment.body);
            }
            Entry::Occupied(mut place) => {
                let mine = std::mem::replace(place.get_mut(), Body::Rows(vec![]));
                *place.get_mut() =
                    Body::merge(spec.columns(), mine, segment.body, &mut self.groups)?;
            }
        }
        Ok(())
    }

    fn next_end(&self, spec: &OperatorSpec, _frontier: i64) -> Option<i64> {
        self.open.keys().next().map(|slice| spec.slicing().first_end(*slice))
    }

    fn close(&mut self, spec: &OperatorSpec, _end: i64) -> Result<Vec<Part>> {
        let Some((_, body)) = self.open.pop_first() else {
            return Ok(vec![]);
        };
        Ok(vec![body.live(spec.columns(), &mut self.groups)?.evaluate()?])
    }

    fn last_slice(&self) -> Option<i64> {
        self.open.keys().next_back().copied()
    }

    fn size_bytes(&self) -> usize {
        self.open.values().map(Body::size_bytes).sum()
    }

    fn slice_bytes(&self, (slice, _): (i64, i64)) -> Option<usize> {
        Some(self.open.get(&slice).map_or(0, Body::size_bytes))
    }
}
