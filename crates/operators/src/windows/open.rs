//! Retains every segment until the last of its windows has closed: for checkpoints, and to spill when memory is short.
//!
//! ```text
//! add ─► waiting, by slice ──first window closes──► the windows ──last window closes──► dropped
//!          ├── cut: segments without an id are assigned one and returned, once
//!          └── spill: memory ─► disk; the windows drop what they have and can be merged from there
//! ```
//!
//! Segments wait here, not in the windows, so that those of one slice can be merged while they are few: the number of
//! segments of a slice that gets one at each of hundreds of cuts grows with the logarithm of its size, and holds each
//! key about twice at most.
//!
//! Invariants: an id is assigned once and always names the same content. The needed segments alone reproduce all open
//! windows, as if their rows arrived again.

use std::collections::BTreeSet;
use std::sync::Arc;

use windrow_core::{Error, Result, WindowKind};

use super::{Windows, new_windows, next_end};
use crate::divided::DividedRows;
use crate::segments::kept::{
    BySlice, Cut, KeptSegment, Restored, SavedSegment, SavedState, Saving, corrupt, merge_small,
    spill_all,
};
use crate::segments::saved::{self, StateTypes};
use crate::segments::spill::SpillSpace;
use crate::segments::{Body, Segment};
use crate::spec::{Mode, OperatorSpec};

/// A window is computed at once if its new segments take less than this part of a pass, and all of it takes less than
/// this many passes: its rows then exist several times, as groups, as columns, and as rows in order.
const WHOLE_PART: usize = 2;
/// Retains the segments of open windows.
#[derive(Debug, Default)]
pub(crate) struct OpenSegments {
    /// Whether cuts are made: ids are assigned, and saved segments need not be retained twice.
    cuts: bool,
    /// Set under a memory limit: all segments are retained until their last window closes, in memory or here.
    space: Option<Arc<dyn SpillSpace>>,
    next_id: u64,
    /// Segments of which no window has closed yet.
    waiting: BySlice,
    /// Segments of which some windows have closed and others are open.
    entered: BySlice,
    /// Whether the entered segments are not in the [`Windows`] but all on disk: windows are merged from there until
    /// none of them is needed.
    divided: bool,
    /// The last slice that arrived before retention began.
    missed: Option<i64>,
    /// Scratch.
    groups: Vec<usize>,
}

impl OpenSegments {
    /// Returns an empty store; `missed` is the last slice that arrived before it.
    pub(crate) fn new(missed: Option<i64>) -> Self {
        Self { missed, ..Self::default() }
    }

    pub(crate) fn keep_cuts(&mut self) {
        self.cuts = true;
    }

    pub(crate) fn spill_to(&mut self, space: Arc<dyn SpillSpace>) {
        self.space = Some(space);
    }

    /// Restores the state of a cut.
    pub(crate) fn restore(spec: &OperatorSpec, state: SavedState<'_>) -> Result<Self> {
        let SavedState { frontier, next_id, segments, space } = state;
        let mut restored = Restored::new(spec.columns(), space);
        let mut open = Self { next_id, cuts: true, ..Self::default() };
        let types = StateTypes::of(spec.columns())?;
        let mut known = BTreeSet::new();
        for segment in segments {
            let segment = segment?;
            let SavedSegment { id, slice, counts_from, rows, times, .. } = segment;
            if segment.input != 0 {
                return Err(corrupt(id, "has rows of another input"));
            }
            let batches = segment.into_batches()?;
            let slicing = spec.slicing();
            let last = slicing.last_end(slice);
            if slicing.slice(slice) != slice || counts_from > last || last <= frontier {
                return Err(corrupt(id, "belongs to no open window of its query"));
            }
            if id.0 >= next_id || !known.insert(id) {
                return Err(corrupt(id, "has the id of another one"));
            }
            let body = saved::decode(spec.columns(), &types, rows, batches)
                .map_err(|e| corrupt(id, "is not what its query saved").with_source(e))?;
            let kept = KeptSegment { id: Some(id), rows, times, body: Some(body) };
            restored.add((slice, counts_from), kept)?;
        }
        open.waiting = restored.segments();
        Ok(open)
    }

    pub(crate) fn add(&mut self, segment: Segment) -> Result<()> {
        let Segment { slice, counts_from, rows, times, body } = segment;
        // Without spilling, windows are computed in memory.
        let body = if self.space.is_some() { body } else { body.in_memory()? };
        let kept = KeptSegment { id: None, rows, times, body: Some(body) };
        self.waiting.entry((slice, counts_from)).or_default().push(kept);
        Ok(())
    }

    /// The segments of which no window has closed.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&(i64, i64), &KeptSegment)> {
        self.waiting.iter().flat_map(|(key, kept)| kept.iter().map(move |kept| (key, kept)))
    }

    /// The bytes of memory of such segments, of one slice and end of a first window; `None` if there are none.
    pub(crate) fn slice_bytes(&self, key: (i64, i64)) -> Option<usize> {
        let bodies = self.waiting.get(&key)?.iter().filter_map(|kept| kept.body.as_ref());
        Some(bodies.map(Body::size_bytes).sum())
    }

    /// Whether segments with closed and open windows are on disk.
    pub(crate) fn is_divided(&self) -> bool {
        self.divided
    }

    /// Returns the end of the first window after `frontier` with rows that the windows do not have.
    pub(crate) fn next_end(&self, spec: &OperatorSpec, frontier: i64) -> Option<i64> {
        let waiting = next_end(spec, frontier, self.waiting.keys());
        let entered = self.divided.then(|| next_end(spec, frontier, self.entered.keys()));
        waiting.into_iter().chain(entered.flatten()).min()
    }

    /// Returns the start of the last slice that the windows do not have.
    pub(crate) fn last_slice(&self) -> Option<i64> {
        let waiting = self.waiting.keys().next_back();
        let entered = self.entered.keys().next_back().filter(|_| self.divided);
        waiting.max(entered).map(|(slice, _)| *slice)
    }

    /// Passes all segments of the window that ends at `end`, which is the next, to `windows`; or returns its rows when
    /// some of them are on disk.
    pub(crate) fn enter(
        &mut self,
        spec: &Arc<OperatorSpec>,
        end: i64,
        windows: &mut Box<dyn Windows>,
    ) -> Result<Option<DividedRows>> {
        let slicing = spec.slicing();
        let keys = self.waiting.range(..(end, i64::MIN)).map(|(key, _)| *key);
        let keys: Vec<_> = keys.filter(|key| slicing.first_end(key.0).max(key.1) <= end).collect();
        let spilled = |kept: &KeptSegment| matches!(kept.body, Some(Body::Spilled(_)));
        let news = || keys.iter().filter_map(|key| self.waiting.get(key)).flatten();
        if let Some(space) = self.space.clone()
            && (self.divided
                || news().any(spilled)
                || is_large(space.as_ref(), news(), windows.size_bytes()))
        {
            return self.divide(spec, &space, end, keys, windows).map(Some);
        }
        for key in keys {
            let over = slicing.last_end(key.0) <= end;
            let kept = self.waiting.remove(&key).unwrap_or_default();
            for KeptSegment { id, rows, times, body } in kept {
                let Some(mut body) = body else { continue };
                if !over {
                    let mut kept = KeptSegment { id, rows, times, body: None };
                    if self.space.is_some() || id.is_none() {
                        let (mine, copy) = body.freeze()?.share()?;
                        (body, kept.body) = (mine, Some(copy));
                    }
                    self.entered.entry(key).or_default().push(kept);
                }
                let (slice, counts_from) = key;
                windows.add(spec, Segment { slice, counts_from, rows, times, body })?;
            }
        }
        Ok(None)
    }

    /// Returns the rows of a window from disk; its in-memory part is written there first.
    fn divide(
        &mut self,
        spec: &Arc<OperatorSpec>,
        space: &Arc<dyn SpillSpace>,
        end: i64,
        news: Vec<(i64, i64)>,
        windows: &mut Box<dyn Windows>,
    ) -> Result<DividedRows> {
        for key in news {
            if let Some(segments) = self.waiting.remove(&key) {
                self.entered.entry(key).or_default().extend(segments);
            }
        }
        *windows = new_windows(spec);
        self.divided = true;
        spill_all(spec.columns(), space.as_ref(), &mut self.entered)?;
        let slicing = spec.slicing();
        let start = slicing.start_of(end);
        let segments = self
            .entered
            .range((start, i64::MIN)..(end, i64::MIN))
            .filter(|((_, from), _)| *from <= end)
            .flat_map(|(_, segments)| segments)
            .filter_map(|kept| match &kept.body {
                Some(Body::Spilled(spilled)) => Some(spilled.clone()),
                _ => None,
            });
        let bounds = (start, end);
        Ok(DividedRows::new(spec, Arc::clone(space), bounds, segments.collect()))
    }

    /// Writes everything in memory to disk; `windows` drop what they have.
    pub(crate) fn spill(
        &mut self,
        spec: &OperatorSpec,
        windows: &mut Box<dyn Windows>,
    ) -> Result<()> {
        let Some(space) = &self.space else { return Ok(()) };
        if !self.entered.is_empty() && !self.divided {
            *windows = new_windows(spec);
            self.divided = true;
            spill_all(spec.columns(), space.as_ref(), &mut self.entered)?;
        }
        spill_all(spec.columns(), space.as_ref(), &mut self.waiting)
    }

    /// Drops segments of which all windows have closed.
    pub(crate) fn forget(&mut self, spec: &OperatorSpec, frontier: i64) {
        while let Some(first) = self.entered.first_entry() {
            if spec.slicing().last_end(first.key().0) > frontier {
                break;
            }
            first.remove();
        }
        self.divided &= !self.entered.is_empty();
    }

    pub(crate) fn cut(&mut self, spec: &OperatorSpec, frontier: i64) -> Result<Cut> {
        let missed = self.missed.is_some_and(|slice| spec.slicing().last_end(slice) > frontier);
        if !self.cuts || missed {
            return Err(Error::internal("a cut of windows that nobody was told to remember"));
        }
        for segments in self.waiting.values_mut() {
            merge_small(spec.columns(), segments, &mut self.groups)?;
        }
        let mut saving = Saving::new(self.next_id);
        for (key, segments) in self.waiting.iter_mut().chain(&mut self.entered) {
            segments.iter_mut().try_for_each(|kept| saving.save(*key, kept))?;
        }
        if self.space.is_none() {
            // The windows have it, and now the checkpoint has it too.
            self.entered.values_mut().flatten().for_each(|kept| kept.body = None);
        }
        let cut = saving.cut(frontier);
        self.next_id = cut.next_id;
        Ok(cut)
    }

    /// Bytes of memory, except those shared with the windows.
    pub(crate) fn size_bytes(&self, spec: &OperatorSpec) -> usize {
        let size = |kept: &KeptSegment| kept.body.as_ref().map_or(0, Body::size_bytes);
        let waiting: usize = self.waiting.values().flatten().map(size).sum();
        let entered = self.entered.values().flatten();
        let entered: usize = match (spec.mode(), spec.window().kind()) {
            (Mode::Rows, _) => 0,
            (_, WindowKind::Hop { .. }) => {
                let bodies = entered.filter_map(|kept| kept.body.as_ref());
                bodies.map(Body::keys_bytes).sum()
            }
            _ => entered.map(size).sum(),
        };
        waiting + entered
    }
}

/// Whether the rows of a window should be computed in pieces, by the bytes of its new segments and of its earlier ones.
fn is_large<'a>(
    space: &dyn SpillSpace,
    segments: impl Iterator<Item = &'a KeptSegment>,
    windows: usize,
) -> bool {
    let bytes = segments.filter_map(|kept| kept.body.as_ref()).map(Body::size_bytes);
    let (news, pass) = (bytes.sum::<usize>(), space.pass_bytes());
    news > pass / WHOLE_PART || windows + news > pass * WHOLE_PART
}
