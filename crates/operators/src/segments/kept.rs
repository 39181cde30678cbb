//! Segments that an operator retains: which of them a checkpoint gets, once each, and which are written to disk.
//!
//! Invariants: an id is used once and always names the same content. Restored segments are not trusted.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use arrow::array::UInt32Array;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, ErrorKind, Result};

use super::saved;
use super::spill::{SpillSpace, Spilled, pick, spill};
use super::{Body, Segment};
use crate::spec::Columns;
use crate::survey::{Times, cover};

/// The number of rows of a batch in memory that are written at a time.
const PIECE_ROWS: usize = 64 << 10;

/// The id of a segment of one operator, which never uses it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// A segment as it is written to disk.
#[derive(Debug, Clone)]
pub struct SavedSegment {
    /// Its id.
    pub id: SegmentId,
    /// The input of the operator that its rows come from.
    pub input: usize,
    /// The start of its slice in ticks.
    pub slice: i64,
    /// See [`Segment::counts_from`].
    pub counts_from: i64,
    /// The number of input rows counted in it.
    pub rows: u64,
    /// The first and the last event time of its rows, if they are recorded.
    pub times: Option<(i64, i64)>,
    /// Of an aggregate: the keys `k0…`, then the states `s0_0…` (aggregate, column).
    /// Otherwise the rows, by [`OperatorSpec::input_schema`](crate::OperatorSpec::input_schema).
    pub batches: Vec<RecordBatch>,
    /// The part of it that is on disk and not in `batches`.
    pub spilled: Option<SpilledSegment>,
}

/// The groups or rows of a segment on disk.
#[derive(Debug, Clone)]
pub struct SpilledSegment(Spilled);

impl SpilledSegment {
    pub(crate) fn new(spilled: Spilled) -> Self {
        Self(spilled)
    }
}

impl SavedSegment {
    /// Its batches in pieces that can be written one by one; pieces on disk are read lazily.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn pieces(&self) -> impl Iterator<Item = Result<RecordBatch>> + '_ {
        let spilled = self.spilled.iter().flat_map(|spilled| spilled.0.batches());
        self.batches.iter().flat_map(in_pieces).chain(spilled)
    }

    /// All of it, in memory.
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

/// A large batch in pieces that do not retain bytes of each other.
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

/// The state of an operator between two of its calls.
#[derive(Debug, Clone)]
pub struct Cut {
    /// Everything that ends at it or before has been returned.
    pub frontier: i64,
    /// The first id that has not been used.
    pub next_id: u64,
    /// All segments that unfinished results depend on, ascending.
    pub needed: Vec<SegmentId>,
    /// Those among them that no earlier cut has returned. If they cannot be written, the caller must keep them for the
    /// next cut: they are not returned again.
    pub new: Vec<SavedSegment>,
}

/// The state from which an operator is restored.
pub struct SavedState<'a> {
    /// See [`Cut::frontier`].
    pub frontier: i64,
    /// See [`Cut::next_id`].
    pub next_id: u64,
    /// Exactly those that the cut needed, in any order. They are read one by one.
    pub segments: &'a mut dyn Iterator<Item = Result<SavedSegment>>,
    /// Where segments are written if memory is too short; `None`: they stay in memory.
    pub space: Option<&'a dyn SpillSpace>,
}

impl Debug for SavedState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedState").field("frontier", &self.frontier).finish_non_exhaustive()
    }
}

/// Segments by start of the slice, then by the end of the first window in which the rows count.
pub(crate) type BySlice = BTreeMap<(i64, i64), Vec<KeptSegment>>;

/// A segment.
#[derive(Debug)]
pub(crate) struct KeptSegment {
    pub(crate) id: Option<SegmentId>,
    pub(crate) rows: u64,
    pub(crate) times: Times,
    /// `None` when a checkpoint has it, and the operator holds it in another form.
    pub(crate) body: Option<Body>,
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

    /// Marks a segment as needed: one without an id gets one and is returned as new.
    pub(crate) fn save(&mut self, key: (i64, i64), kept: &mut KeptSegment) -> Result<()> {
        let id = match (kept.id, &kept.body) {
            (Some(id), _) => id,
            (None, Some(body)) => {
                let id = SegmentId(self.next_id);
                let (spilled, batches) = match body {
                    Body::Spilled(spilled) => (Some(SpilledSegment(spilled.clone())), vec![]),
                    body => (None, saved::encode(body)?),
                };
                let ((slice, counts_from), rows) = (key, kept.rows);
                self.new.push(SavedSegment {
                    id,
                    input: 0,
                    slice,
                    counts_from,
                    rows,
                    times: kept.times,
                    batches,
                    spilled,
                });
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

/// Segments restored from a checkpoint, one by one.
pub(crate) struct Restored<'a> {
    columns: &'a Columns,
    space: Option<&'a dyn SpillSpace>,
    all: BySlice,
    /// The bytes of those in memory.
    bytes: usize,
}

impl<'a> Restored<'a> {
    pub(crate) fn new(columns: &'a Columns, space: Option<&'a dyn SpillSpace>) -> Self {
        Self { columns, space, all: BySlice::new(), bytes: 0 }
    }

    /// Adds a segment; when there are too many in memory, they are written to disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn add(&mut self, key: (i64, i64), kept: KeptSegment) -> Result<()> {
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

    /// Returns the segments, larger ones first, as they were: merging depends on the order.
    pub(crate) fn segments(mut self) -> BySlice {
        for segments in self.all.values_mut() {
            segments.sort_by_key(|s| (Reverse(s.body.as_ref().map_or(0, Body::len)), s.id));
        }
        self.all
    }
}

/// Writes all segments in memory to one file.
pub(crate) fn spill_all(spec: &Columns, space: &dyn SpillSpace, kept: &mut BySlice) -> Result<()> {
    let (mut segments, mut places) = (vec![], vec![]);
    for (key, kept) in kept.iter_mut() {
        for KeptSegment { rows, times, body, .. } in kept {
            if let Some(taken) = body.take_if(|body| !matches!(body, Body::Spilled(_))) {
                let (slice, counts_from) = *key;
                segments.push(Segment {
                    slice,
                    counts_from,
                    rows: *rows,
                    times: *times,
                    body: taken,
                });
                places.push(body);
            }
        }
    }
    for (segment, place) in spill(spec, space, segments)?.into_iter().zip(places) {
        *place = Some(segment.body);
    }
    Ok(())
}

/// Freezes the segments of a slice, and merges neighbours until each is less than half of the one before, so that their
/// number, and how often a row is merged, are logarithmic. Segments on disk are large and are not merged.
pub(crate) fn merge_small(
    spec: &Columns,
    segments: &mut Vec<KeptSegment>,
    groups: &mut Vec<usize>,
) -> Result<()> {
    let mut done: Vec<KeptSegment> = Vec::with_capacity(segments.len());
    for KeptSegment { mut id, mut rows, mut times, body } in segments.drain(..) {
        let Some(body) = body else { continue };
        let mut body = body.freeze()?;
        if !matches!(body, Body::Spilled(_)) {
            while let Some(before) = done.pop_if(|before| before.is_small_beside(&body)) {
                let Some(larger) = before.body else { continue };
                body = Body::merge(spec, larger, body, groups)?.freeze()?;
                (id, rows, times) = (None, rows + before.rows, cover(times, before.times));
            }
        }
        done.push(KeptSegment { id, rows, times, body: Some(body) });
    }
    *segments = done;
    Ok(())
}

impl KeptSegment {
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
