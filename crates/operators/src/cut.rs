//! Retains every segment until the last of its windows has closed: what a checkpoint needs, and what can be spilled
//! when memory is short.
//!
//! ```text
//! add ─► waiting, by slice ──first window closes──► the windows ──last window closes──► forgotten
//!          ├── cut: segments without an id are assigned one and returned, once
//!          └── spill: memory ─► disk; the windows forget what they have and can be merged from there
//! ```
//!
//! Segments wait here, not in the windows, so that those of one slice can be merged while they are few: a slice that
//! gets a segment at each of hundreds of cuts retains a number of them that grows with the logarithm of its size, and
//! holds each key about twice at most.
//!
//! Invariants: an id is assigned once and stands for the same content for ever. The needed segments alone reproduce all
//! open windows, as if their rows arrived again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, ErrorKind, Result, WindowKind};

use crate::merger::{Windows, new_windows};
use crate::port::SavedState;
use crate::saved::{self, StateTypes};
use crate::segment::Body;
use crate::spec::Columns;
use crate::spill::{SpillSpace, Spilled, pick, spill};
use crate::{DividedRows, Mode, OperatorSpec, Segment, rows};

/// A window whose new segments take less than this part of a pass, and that takes less than this many passes, is
/// computed at once: its rows then exist several times over, as groups, as columns, as rows in order.
const WHOLE_PART: usize = 2;
/// Rows of an in-memory batch that are written at a time.
const PIECE_ROWS: usize = 64 << 10;

/// The id of a segment of one merger; never reused by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// A segment in the form in which it is written to disk.
#[derive(Debug, Clone)]
pub struct SavedSegment {
    /// Its id.
    pub id: SegmentId,
    /// Start of its slice in ticks.
    pub slice: i64,
    /// See [`Segment::counts_from`].
    pub counts_from: i64,
    /// Input rows counted in it.
    pub rows: u64,
    /// In an aggregate: the keys `k0…`, then the states `s0_0…` (aggregate, column). Otherwise the rows, by
    /// [`OperatorSpec::input_schema`].
    pub batches: Vec<RecordBatch>,
    /// The part of it on disk, instead of in `batches`.
    pub spilled: Option<SpilledSegment>,
}

/// The groups or rows of a segment on disk.
#[derive(Debug, Clone)]
pub struct SpilledSegment(Spilled);

impl SavedSegment {
    /// Returns its batches in pieces that can be written one by one; those on disk are read lazily.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn pieces(&self) -> impl Iterator<Item = Result<RecordBatch>> + '_ {
        let spilled = self.spilled.iter().flat_map(|spilled| spilled.0.batches());
        self.batches.iter().flat_map(in_pieces).chain(spilled)
    }

    /// Loads all of it into memory.
    pub(crate) fn into_batches(self) -> Result<Vec<RecordBatch>> {
        let Self { mut batches, spilled, .. } = self;
        for batch in spilled.iter().flat_map(|spilled| spilled.0.batches()) {
            batches.push(batch?);
        }
        Ok(batches)
    }

    /// The number of pieces.
    pub fn pieces_len(&self) -> usize {
        let of = |batch: &RecordBatch| batch.num_rows().div_ceil(PIECE_ROWS).max(1);
        let in_memory: usize = self.batches.iter().map(of).sum();
        in_memory + self.spilled.as_ref().map_or(0, |spilled| spilled.0.batches_len())
    }
}

/// Splits a large batch into pieces that share no bytes.
fn in_pieces(batch: &RecordBatch) -> impl Iterator<Item = Result<RecordBatch>> + '_ {
    let rows = batch.num_rows();
    (0..rows.max(1)).step_by(PIECE_ROWS).map(move |start| {
        if rows <= PIECE_ROWS {
            return Ok(batch.clone());
        }
        let end = rows.min(start + PIECE_ROWS);
        let places = (start..end).filter_map(|row| u32::try_from(row).ok());
        pick(batch, &UInt32Array::from_iter_values(places))
    })
}

/// The state of a merger between two of its calls.
#[derive(Debug, Clone)]
pub struct Cut {
    /// All windows that end at it or before are closed.
    pub frontier: i64,
    /// The first unassigned id.
    pub next_id: u64,
    /// All segments of open windows, ascending.
    pub needed: Vec<SegmentId>,
    /// Those among them that no earlier cut has returned. A caller that cannot write them must retain them for the next
    /// time: they are not returned again.
    pub new: Vec<SavedSegment>,
}

/// By start of the slice, then by the end of the first window that the rows count in.
pub(crate) type BySlice = BTreeMap<(i64, i64), Vec<Kept>>;

/// A store of the segments of open windows.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    /// Whether cuts are made: ids are assigned, and saved segments need not be held twice.
    cuts: bool,
    /// Set under a memory limit: all segments are retained until their last window closes, in memory or here.
    space: Option<Arc<dyn SpillSpace>>,
    next_id: u64,
    /// Not in a closed window yet.
    waiting: BySlice,
    /// In a closed window and in an open one.
    entered: BySlice,
    /// Whether the entered segments are not in the [`Windows`] but all on disk: windows are merged from there until
    /// none of them is needed.
    divided: bool,
    /// The last slice that arrived before retention began.
    missed: Option<i64>,
    /// Scratch.
    groups: Vec<usize>,
}

/// A segment.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) id: Option<SegmentId>,
    pub(crate) rows: u64,
    /// `None` when a checkpoint has it, and the operator in another form.
    pub(crate) body: Option<Body>,
}

impl Keeper {
    /// Returns an empty store; `missed`: the last slice that it does not know.
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
        let mut keeper = Self { next_id, cuts: true, ..Self::default() };
        let types = StateTypes::of(spec.columns())?;
        let mut known = BTreeSet::new();
        for segment in segments {
            let segment = segment?;
            let SavedSegment { id, slice, counts_from, rows, .. } = segment;
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
            restored.add((slice, counts_from), Kept { id: Some(id), rows, body: Some(body) })?;
        }
        keeper.waiting = restored.segments();
        Ok(keeper)
    }

    pub(crate) fn add(&mut self, segment: Segment) -> Result<()> {
        let Segment { slice, counts_from, rows, body } = segment;
        // Without a space, windows are computed in memory.
        let body = if self.space.is_some() { body } else { body.in_memory()? };
        let kept = Kept { id: None, rows, body: Some(body) };
        self.waiting.entry((slice, counts_from)).or_default().push(kept);
        Ok(())
    }

    /// Returns the end of the first window after `frontier` with rows that the windows do not have.
    pub(crate) fn next_end(&self, spec: &OperatorSpec, frontier: i64) -> Option<i64> {
        let waiting = rows::next_end(spec, frontier, self.waiting.keys());
        let entered = self.divided.then(|| rows::next_end(spec, frontier, self.entered.keys()));
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
        let spilled = |kept: &Kept| matches!(kept.body, Some(Body::Spilled(_)));
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
            for Kept { id, rows, body } in self.waiting.remove(&key).unwrap_or_default() {
                let Some(mut body) = body else { continue };
                if !over {
                    let mut kept = Kept { id, rows, body: None };
                    if self.space.is_some() || id.is_none() {
                        let (mine, copy) = body.freeze()?.share()?;
                        (body, kept.body) = (mine, Some(copy));
                    }
                    self.entered.entry(key).or_default().push(kept);
                }
                windows.add(spec, Segment { slice: key.0, counts_from: key.1, rows, body })?;
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

    /// Writes everything in memory to disk; `windows` forget what they have.
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

    /// Drops segments of closed windows only.
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
            // The windows have it, and now the checkpoint too.
            self.entered.values_mut().flatten().for_each(|kept| kept.body = None);
        }
        let cut = saving.cut(frontier);
        self.next_id = cut.next_id;
        Ok(cut)
    }

    /// Bytes of memory, except those shared with the windows.
    pub(crate) fn size_bytes(&self, spec: &OperatorSpec) -> usize {
        let size = |kept: &Kept| kept.body.as_ref().map_or(0, Body::size_bytes);
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

/// A cut in progress.
pub(crate) struct Saving {
    next_id: u64,
    needed: Vec<SegmentId>,
    new: Vec<SavedSegment>,
}

impl Saving {
    pub(crate) fn new(next_id: u64) -> Self {
        Self { next_id, needed: vec![], new: vec![] }
    }

    /// Adds a needed segment: one without an id is assigned one and returned.
    pub(crate) fn save(&mut self, key: (i64, i64), kept: &mut Kept) -> Result<()> {
        let id = match (kept.id, &kept.body) {
            (Some(id), _) => id,
            (None, Some(body)) => {
                let id = SegmentId(self.next_id);
                let (spilled, batches) = match body {
                    Body::Spilled(spilled) => (Some(SpilledSegment(spilled.clone())), vec![]),
                    body => (None, saved::encode(body)?),
                };
                let ((slice, counts_from), rows) = (key, kept.rows);
                self.new.push(SavedSegment { id, slice, counts_from, rows, batches, spilled });
                self.next_id += 1;
                *kept.id.insert(id)
            }
            (None, None) => return Err(Error::internal("a segment is kept nowhere")),
        };
        self.needed.push(id);
        Ok(())
    }

    pub(crate) fn cut(mut self, frontier: i64) -> Cut {
        self.needed.sort_unstable();
        Cut { frontier, next_id: self.next_id, needed: self.needed, new: self.new }
    }
}

/// Whether the new segments of a window, with what it has already, take so much memory that its rows are better
/// computed in pieces.
fn is_large<'a>(
    space: &dyn SpillSpace,
    segments: impl Iterator<Item = &'a Kept>,
    windows: usize,
) -> bool {
    let bytes = segments.filter_map(|kept| kept.body.as_ref()).map(Body::size_bytes);
    let (news, pass) = (bytes.sum::<usize>(), space.pass_bytes());
    news > pass / WHOLE_PART || windows + news > pass * WHOLE_PART
}

/// Segments restored from a checkpoint, one by one.
pub(crate) struct Restored<'a> {
    columns: &'a Columns,
    space: Option<&'a dyn SpillSpace>,
    all: BySlice,
    /// Bytes of those in memory.
    bytes: usize,
}

impl<'a> Restored<'a> {
    pub(crate) fn new(columns: &'a Columns, space: Option<&'a dyn SpillSpace>) -> Self {
        Self { columns, space, all: BySlice::new(), bytes: 0 }
    }

    /// Adds one; when there are many in memory, they are written to disk.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn add(&mut self, key: (i64, i64), kept: Kept) -> Result<()> {
        self.bytes += kept.body.as_ref().map_or(0, Body::size_bytes);
        self.all.entry(key).or_default().push(kept);
        if let Some(space) = self.space
            && self.bytes > space.pass_bytes()
        {
            spill_all(self.columns, space, &mut self.all)?;
            self.bytes = 0;
        }
        Ok(())
    }

    /// Returns them, larger ones first, as they were: merging depends on the order.
    pub(crate) fn segments(mut self) -> BySlice {
        for segments in self.all.values_mut() {
            segments.sort_by_key(|s| (Reverse(s.body.as_ref().map_or(0, Body::len)), s.id));
        }
        self.all
    }
}

/// Writes everything in memory to one file.
pub(crate) fn spill_all(spec: &Columns, space: &dyn SpillSpace, kept: &mut BySlice) -> Result<()> {
    let (mut segments, mut places) = (vec![], vec![]);
    for (key, kept) in kept.iter_mut() {
        for Kept { rows, body, .. } in kept {
            if let Some(taken) = body.take_if(|body| !matches!(body, Body::Spilled(_))) {
                let (slice, counts_from) = *key;
                segments.push(Segment { slice, counts_from, rows: *rows, body: taken });
                places.push(body);
            }
        }
    }
    for (segment, place) in spill(spec, space, segments)?.into_iter().zip(places) {
        *place = Some(segment.body);
    }
    Ok(())
}

/// Freezes the segments of a slice, and merges neighbours until each is less than half of the one before: their number
/// is then logarithmic, and no row is merged more often than that. Segments on disk are large and stay unchanged.
pub(crate) fn merge_small(
    spec: &Columns,
    segments: &mut Vec<Kept>,
    groups: &mut Vec<usize>,
) -> Result<()> {
    let mut done: Vec<Kept> = Vec::with_capacity(segments.len());
    for Kept { mut id, mut rows, body } in segments.drain(..) {
        let Some(body) = body else { continue };
        let mut body = body.freeze()?;
        if !matches!(body, Body::Spilled(_)) {
            while let Some(before) = done.pop_if(|before| before.is_small_beside(&body)) {
                let Some(larger) = before.body else { continue };
                body = Body::merge(spec, larger, body, groups)?.freeze()?;
                (id, rows) = (None, rows + before.rows);
            }
        }
        done.push(Kept { id, rows, body: Some(body) });
    }
    *segments = done;
    Ok(())
}

impl Kept {
    fn is_small_beside(&self, next: &Body) -> bool {
        match &self.body {
            None | Some(Body::Spilled(_)) => false,
            Some(body) => next.len() * 2 >= body.len(),
        }
    }
}

pub(crate) fn corrupt(id: SegmentId, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("segment {} of a checkpoint {what}", id.0))
}
