//! What a checkpoint needs: every segment until the last of its windows has closed.
//!
//! ```text
//! add ─► waiting, by slice ──first window closes──► the windows ──last window closes──► forgotten
//!          └── cut: what has no id gets one and is given out, once
//! ```
//!
//! Segments wait here, not in the windows, so that those of one slice can be merged while they
//! are few: a slice that gets a segment at each of hundreds of cuts keeps a number of them that
//! grows with the logarithm of its size, and holds each key about twice at most.
//!
//! Invariants: an id is given once and stands for the same content for ever. The needed segments
//! alone make all windows that are open, as if their rows came anew.

use std::collections::{BTreeMap, BTreeSet};

use arrow::record_batch::RecordBatch;
use windrow_core::{Error, ErrorKind, Result};

use crate::merger::Windows;
use crate::saved::{self, StateTypes};
use crate::segment::Body;
use crate::{OperatorSpec, Segment, rows};

/// Names a segment of one merger; never given twice by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// A segment as it is written to disk.
#[derive(Debug, Clone)]
pub struct SavedSegment {
    /// Its name.
    pub id: SegmentId,
    /// Start of its slice in ticks.
    pub slice: i64,
    /// See [`Segment::counts_from`].
    pub counts_from: i64,
    /// Input rows that are counted in it.
    pub rows: u64,
    /// Of an aggregate one batch: the keys `k0…`, then the states `s0_0…` (aggregate, column).
    /// Otherwise the rows, by [`OperatorSpec::input_schema`].
    pub batches: Vec<RecordBatch>,
}

/// The state of a merger between two of its calls.
#[derive(Debug, Clone)]
pub struct Cut {
    /// All windows that end at it or before are closed.
    pub frontier: i64,
    /// The first id that is not given yet.
    pub next_id: u64,
    /// All segments that windows which are still open are made of, ascending.
    pub needed: Vec<SegmentId>,
    /// Those among them that no earlier cut has given. Who cannot write them has to keep them for
    /// the next time: they do not come again.
    pub new: Vec<SavedSegment>,
}

/// By start of the slice, then by the end of the first window that the rows count in.
type BySlice<T> = BTreeMap<(i64, i64), Vec<T>>;

/// Remembers what cuts need.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    next_id: u64,
    waiting: BySlice<Waiting>,
    /// In a window that has closed, and in one that has not.
    entered: BySlice<Entered>,
    /// The last slice that came before anything was remembered.
    missed: Option<i64>,
    /// Scratch.
    groups: Vec<usize>,
}

/// A segment that is in no closed window yet.
#[derive(Debug)]
struct Waiting {
    id: Option<SegmentId>,
    rows: u64,
    body: Body,
}

#[derive(Debug)]
enum Entered {
    Saved(SegmentId),
    Unsaved { rows: u64, body: Body },
}

impl Keeper {
    /// `missed`: the last slice of which it knows nothing.
    pub(crate) fn new(missed: Option<i64>) -> Self {
        Self { missed, ..Self::default() }
    }

    /// As it was at a cut.
    pub(crate) fn restore(
        spec: &OperatorSpec,
        frontier: i64,
        next_id: u64,
        segments: Vec<SavedSegment>,
    ) -> Result<Self> {
        let mut keeper = Self { next_id, ..Self::default() };
        let types = StateTypes::of(spec)?;
        let mut known = BTreeSet::new();
        for segment in segments {
            let SavedSegment { id, slice, counts_from, rows, batches } = segment;
            let slicing = spec.slicing();
            let last = slicing.last_end(slice);
            if slicing.slice(slice) != slice || counts_from > last || last <= frontier {
                return Err(corrupt(id, "belongs to no open window of its query"));
            }
            if id.0 >= next_id || !known.insert(id) {
                return Err(corrupt(id, "has the id of another one"));
            }
            let body = saved::decode(spec, &types, rows, batches)
                .map_err(|e| corrupt(id, "is not what its query saved").with_source(e))?;
            let waiting = Waiting { id: Some(id), rows, body };
            keeper.waiting.entry((slice, counts_from)).or_default().push(waiting);
        }
        // Larger ones first, as they were: merging minds the order.
        for segments in keeper.waiting.values_mut() {
            segments.sort_by_key(|s| (std::cmp::Reverse(s.body.len()), s.id));
        }
        Ok(keeper)
    }

    pub(crate) fn add(&mut self, segment: Segment) {
        let Segment { slice, counts_from, rows, body } = segment;
        let waiting = Waiting { id: None, rows, body };
        self.waiting.entry((slice, counts_from)).or_default().push(waiting);
    }

    /// End of the first window after `frontier` that has rows which wait here.
    pub(crate) fn next_end(&self, spec: &OperatorSpec, frontier: i64) -> Option<i64> {
        rows::next_end(spec, frontier, self.waiting.keys())
    }

    /// Start of the last slice that waits.
    pub(crate) fn last_slice(&self) -> Option<i64> {
        self.waiting.keys().next_back().map(|(slice, _)| *slice)
    }

    /// Hands over what belongs to the window that ends at `end`, which is the next.
    pub(crate) fn enter(
        &mut self,
        spec: &OperatorSpec,
        end: i64,
        windows: &mut dyn Windows,
    ) -> Result<()> {
        let slicing = spec.slicing();
        let keys = self.waiting.range(..(end, i64::MIN)).map(|(key, _)| *key);
        let keys: Vec<_> = keys.filter(|key| slicing.first_end(key.0).max(key.1) <= end).collect();
        for key in keys {
            let over = slicing.last_end(key.0) <= end;
            for Waiting { id, rows, body } in self.waiting.remove(&key).unwrap_or_default() {
                let body = match id {
                    _ if over => body,
                    Some(id) => {
                        self.entered.entry(key).or_default().push(Entered::Saved(id));
                        body
                    }
                    None => {
                        let (body, copy) = body.freeze()?.share()?;
                        let unsaved = Entered::Unsaved { rows, body: copy };
                        self.entered.entry(key).or_default().push(unsaved);
                        body
                    }
                };
                windows.add(spec, Segment { slice: key.0, counts_from: key.1, rows, body })?;
            }
        }
        Ok(())
    }

    /// Forgets what only closed windows are made of.
    pub(crate) fn forget(&mut self, spec: &OperatorSpec, frontier: i64) {
        while let Some(first) = self.entered.first_entry() {
            if spec.slicing().last_end(first.key().0) > frontier {
                break;
            }
            first.remove();
        }
    }

    pub(crate) fn cut(&mut self, spec: &OperatorSpec, frontier: i64) -> Result<Cut> {
        if self.missed.is_some_and(|slice| spec.slicing().last_end(slice) > frontier) {
            return Err(Error::internal("a cut of windows that nobody was told to remember"));
        }
        let (mut needed, mut new) = (vec![], vec![]);
        let mut next_id = self.next_id;
        let mut save = |key: &(i64, i64), rows: u64, body: &Body| -> Result<SegmentId> {
            let id = SegmentId(next_id);
            next_id += 1;
            let batches = saved::encode(body)?;
            new.push(SavedSegment { id, slice: key.0, counts_from: key.1, rows, batches });
            Ok(id)
        };
        for (key, segments) in &mut self.waiting {
            merge_small(spec, segments, &mut self.groups)?;
            for Waiting { id, rows, body } in segments {
                needed.push(match id {
                    Some(id) => *id,
                    none => *none.insert(save(key, *rows, body)?),
                });
            }
        }
        for (key, segments) in &mut self.entered {
            for segment in segments {
                let id = match segment {
                    Entered::Saved(id) => *id,
                    Entered::Unsaved { rows, body } => save(key, *rows, body)?,
                };
                *segment = Entered::Saved(id);
                needed.push(id);
            }
        }
        self.next_id = next_id;
        needed.sort_unstable();
        Ok(Cut { frontier, next_id, needed, new })
    }

    pub(crate) fn size_bytes(&self) -> usize {
        let waiting = self.waiting.values().flatten().map(|s| s.body.size_bytes());
        let entered = self.entered.values().flatten().map(|segment| match segment {
            Entered::Saved(_) => 0,
            Entered::Unsaved { body, .. } => body.size_bytes(),
        });
        waiting.chain(entered).sum()
    }
}

/// Freezes the segments of a slice, and merges neighbours until each is less than half of the one
/// before: their number is then a logarithm, and no row is merged more often than that.
fn merge_small(
    spec: &OperatorSpec,
    segments: &mut Vec<Waiting>,
    groups: &mut Vec<usize>,
) -> Result<()> {
    let mut kept: Vec<Waiting> = Vec::with_capacity(segments.len());
    for segment in segments.drain(..) {
        let mut last = Waiting { body: segment.body.freeze()?, ..segment };
        while let Some(before) = kept.pop_if(|before| last.body.len() * 2 >= before.body.len()) {
            let body = Body::merge(spec, before.body, last.body, groups)?.freeze()?;
            last = Waiting { id: None, rows: before.rows + last.rows, body };
        }
        kept.push(last);
    }
    *segments = kept;
    Ok(())
}

fn corrupt(id: SegmentId, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("segment {} of a checkpoint {what}", id.0))
}
