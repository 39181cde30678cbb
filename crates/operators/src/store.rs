//! The open slices of one worker.
//!
//! Invariants: a row is in exactly one slice. Rows that are partly late lie apart from those that
//! are on time, by the end of the first window they count in. A slice leaves when the first window
//! that it counts in may close, and its store forgets it; later rows for it start afresh.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use crate::partition::{Partition, Piece, partition};
use crate::rows;
use crate::segment::Body;
use crate::spec::ticks;
use crate::spill::{SpillSpace, spill};
use crate::table::GroupTable;
use crate::{Mode, OperatorSpec, Segment};

/// Counts from the first window on: the tag of rows that are on time.
const ON_TIME: i64 = i64::MIN;
/// Rows that are counted at a time.
const STEP_ROWS: usize = 8192;
/// A step is too short when its pieces are shorter than this on average.
const PIECE_ROWS_MIN: usize = 512;
/// Up to so many open slices a fresh one is given room for as many groups as the last had.
const USUAL_SLICES_MAX: usize = 8;

/// The open slices of one worker.
#[derive(Debug)]
pub struct SliceStore {
    spec: Arc<OperatorSpec>,
    /// By start, then by the end of the first window that the rows count in.
    open: BTreeMap<(i64, i64), OpenSlice>,
    /// The smallest watermark at which something leaves; `i64::MAX` when nothing is open.
    leaves_at: i64,
    /// Groups of the slice that left last: the next will have about as many.
    groups_expected: usize,
    /// Scratch: group numbers of the rows at hand.
    groups: Vec<usize>,
}

#[derive(Debug)]
struct OpenSlice {
    body: Body,
    rows: u64,
    /// What it had when memory was short.
    spilled: Vec<Segment>,
}

impl SliceStore {
    /// An empty store.
    pub fn new(spec: Arc<OperatorSpec>) -> Self {
        Self {
            spec,
            open: BTreeMap::new(),
            leaves_at: i64::MAX,
            groups_expected: 0,
            groups: vec![],
        }
    }

    /// Counts rows that are on time: in all windows that hold them. The time column has no NULL.
    ///
    /// # Errors
    /// When an aggregate fails (overflow, memory); Internal when the batch is not as specified.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        // Steps that stay in the cache, and often in one slice; all at once where time is so
        // mixed that a step would fall into many small pieces, and where rows are only kept.
        let mut step = match self.spec.mode() {
            Mode::Aggregate { .. } => STEP_ROWS,
            Mode::Rows => rows,
        };
        let mut start = 0;
        while start < rows {
            let len = step.min(rows - start);
            let pieces = if len == rows {
                self.update_step(batch)?
            } else {
                self.update_step(&batch.slice(start, len))?
            };
            start += len;
            if pieces.saturating_mul(PIECE_ROWS_MIN) > len {
                step = rows;
            }
        }
        Ok(())
    }

    /// Counts rows; returns into how many pieces they fell.
    fn update_step(&mut self, batch: &RecordBatch) -> Result<usize> {
        let spec = Arc::clone(&self.spec);
        let times = self.times(batch)?;
        match partition(spec.slicing(), ticks(&times)?)? {
            Partition::One(slice) => {
                let piece = Piece { slice, start: 0, len: batch.num_rows() };
                self.count(batch, &[piece], &[])?;
                Ok(1)
            }
            Partition::Runs(pieces) => {
                self.count(batch, &pieces, &[])?;
                Ok(pieces.len())
            }
            Partition::Gather(order, pieces) => {
                let batch = self.gather(batch, &order)?;
                self.count(&batch, &pieces, &[])?;
                Ok(pieces.len())
            }
        }
    }

    /// Counts rows that are partly late: row `i` only in windows that end at `from[i]` or after
    /// (see [`classify`](crate::lateness::classify)).
    ///
    /// # Errors
    /// As [`update`](Self::update); Internal when a row counts nowhere.
    pub fn update_partly_late(&mut self, batch: &RecordBatch, from: &[i64]) -> Result<()> {
        if batch.num_rows() != from.len() {
            return Err(Error::internal("partly late rows and their tags differ in number"));
        }
        let spec = Arc::clone(&self.spec);
        let times = self.times(batch)?;
        let slicing = spec.slicing();
        let mut rows: Vec<(i64, i64, u32)> = ticks(&times)?
            .iter()
            .zip(from)
            .zip(0_u32..)
            .map(|((&time, &from), row)| (slicing.slice(time), from, row))
            .collect();
        if rows.iter().any(|(slice, from, _)| *from > slicing.last_end(*slice)) {
            return Err(Error::internal("a row that is late everywhere reached the slices"));
        }
        rows.sort_unstable();
        let (mut pieces, mut tags): (Vec<Piece>, Vec<i64>) = (vec![], vec![]);
        for (i, (slice, from, _)) in rows.iter().enumerate() {
            match (pieces.last_mut(), tags.last()) {
                (Some(piece), Some(tag)) if piece.slice == *slice && tag == from => piece.len += 1,
                _ => {
                    pieces.push(Piece { slice: *slice, start: i, len: 1 });
                    tags.push(*from);
                }
            }
        }
        let order = UInt32Array::from(rows.iter().map(|r| r.2).collect::<Vec<_>>());
        let batch = self.gather(batch, &order)?;
        self.count(&batch, &pieces, &tags)
    }

    /// The slices that belong to a window which `watermark` closes, in order of their start.
    /// (With ALLOW LATENESS, `watermark` runs behind by that much.)
    ///
    /// # Errors
    /// When an aggregate cannot give its state.
    pub fn flush(&mut self, watermark: Watermark) -> Result<Vec<Segment>> {
        if !watermark.closes(self.leaves_at) || self.open.is_empty() {
            return Ok(vec![]);
        }
        let slicing = *self.spec.slicing();
        let leaves = |&(slice, from): &(i64, i64)| slicing.first_end(slice).max(from);
        let leaving = self.open.keys().filter(|key| watermark.closes(leaves(key)));
        let leaving: Vec<(i64, i64)> = leaving.copied().collect();
        let mut segments = Vec::with_capacity(leaving.len());
        for key in leaving {
            if let Some(open) = self.open.remove(&key) {
                self.leave(key, open, &mut segments)?;
            }
        }
        self.leaves_at = self.open.keys().map(leaves).min().unwrap_or(i64::MAX);
        Ok(segments)
    }

    /// All open slices, in order of their start, whatever the watermark: for a checkpoint. Later
    /// rows for them start afresh.
    ///
    /// # Errors
    /// When an aggregate cannot give its state.
    pub fn flush_all(&mut self) -> Result<Vec<Segment>> {
        self.leaves_at = i64::MAX;
        let mut segments = Vec::with_capacity(self.open.len());
        for (key, open) in std::mem::take(&mut self.open) {
            self.leave(key, open, &mut segments)?;
        }
        Ok(segments)
    }

    /// Writes the open slices to disk; what they have there leaves with them. They stay open.
    ///
    /// # Errors
    /// When it cannot be written; when an aggregate cannot give its state.
    pub fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        let leaves_at = self.leaves_at;
        let segments = self.flush_all()?;
        for segment in spill(&self.spec, space, segments)? {
            let spec = Arc::clone(&self.spec);
            match self.open.entry((segment.slice, segment.counts_from)) {
                Entry::Occupied(open) => open.into_mut().spilled.push(segment),
                Entry::Vacant(place) => {
                    let body = match spec.mode() {
                        Mode::Rows => Body::Rows(vec![]),
                        Mode::Aggregate { .. } => Body::Live(Box::new(GroupTable::new(&spec, 0)?)),
                    };
                    place.insert(OpenSlice { body, rows: 0, spilled: vec![segment] });
                }
            }
        }
        self.leaves_at = leaves_at;
        Ok(())
    }

    fn leave(
        &mut self,
        (slice, from): (i64, i64),
        open: OpenSlice,
        segments: &mut Vec<Segment>,
    ) -> Result<()> {
        segments.extend(open.spilled);
        if open.rows == 0 {
            return Ok(());
        }
        if let (Body::Live(table), ON_TIME) = (&open.body, from) {
            self.groups_expected = table.len();
        }
        // A tumbling slice is merged with those of other workers at most: it stays live.
        let stays_live = self.spec.slicing().advance() == self.spec.window().size();
        let body = match open.body {
            Body::Rows(rows) => Body::Rows(rows::together(rows)?),
            live if stays_live => live,
            shared => shared.freeze()?,
        };
        segments.push(Segment { slice, counts_from: from, rows: open.rows, body });
        Ok(())
    }

    /// Start of the first open slice.
    pub fn first_open(&self) -> Option<i64> {
        self.open.keys().next().map(|(slice, _)| *slice)
    }

    /// The smallest watermark at which something leaves; `None` when nothing is open.
    pub fn next_flush(&self) -> Option<i64> {
        Some(self.leaves_at).filter(|_| !self.open.is_empty())
    }

    /// Slices that are open.
    pub fn open_slices(&self) -> usize {
        self.open.len()
    }

    /// Bytes of memory; looks at each open slice.
    pub fn size_bytes(&self) -> usize {
        self.open.values().map(|open| open.body.size_bytes()).sum()
    }

    /// Rows in the open slices.
    pub fn rows(&self) -> u64 {
        let spilled = |open: &OpenSlice| open.spilled.iter().map(|s| s.rows).sum::<u64>();
        self.open.values().map(|open| open.rows + spilled(open)).sum()
    }

    fn times(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        if batch.num_columns() != self.spec.input_schema().fields().len() {
            return Err(Error::internal("a prepared batch has other columns than its operator"));
        }
        let times = batch.column(self.spec.time());
        if times.null_count() > 0 {
            return Err(Error::internal("a NULL event time reached the slices"));
        }
        Ok(Arc::clone(times))
    }

    /// The rows in another order; columns that no aggregate reads are left as they are.
    fn gather(&self, batch: &RecordBatch, order: &UInt32Array) -> Result<RecordBatch> {
        if matches!(self.spec.mode(), Mode::Rows) {
            return Ok(take_record_batch(batch, order)?);
        }
        let mut columns = batch.columns().to_vec();
        for index in &self.spec.layout().columns {
            if let Some(column) = columns.get_mut(*index) {
                *column = take(column, order, None)?;
            }
        }
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }

    /// Counts pieces of a batch, each in its slice; `tags` is empty for rows that are on time.
    fn count(&mut self, batch: &RecordBatch, pieces: &[Piece], tags: &[i64]) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        let layout = &spec.layout().columns;
        let packed: Vec<ArrayRef> = layout.iter().map(|c| Arc::clone(batch.column(*c))).collect();
        for (i, piece) in pieces.iter().enumerate() {
            let from = tags.get(i).copied().unwrap_or(ON_TIME);
            let whole = piece.len == batch.num_rows();
            let (open, groups) = self.slice(piece.slice, from)?;
            open.rows += piece.len as u64;
            match &mut open.body {
                Body::Rows(kept) => {
                    let rows = batch.slice(piece.start, piece.len);
                    kept.push(rows::without_foreign_bytes(rows)?);
                }
                Body::Live(table) if whole => {
                    table.update(&spec, &packed, piece.len, groups)?;
                }
                Body::Live(table) => {
                    let part: Vec<ArrayRef> =
                        packed.iter().map(|c| c.slice(piece.start, piece.len)).collect();
                    table.update(&spec, &part, piece.len, groups)?;
                }
                Body::Frozen(_) | Body::Spilled(_) => {
                    return Err(Error::internal("an open slice is frozen"));
                }
            }
        }
        Ok(())
    }

    fn slice(&mut self, slice: i64, from: i64) -> Result<(&mut OpenSlice, &mut Vec<usize>)> {
        let open_slices = self.open.len();
        let open = match self.open.entry((slice, from)) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let body = match self.spec.mode() {
                    Mode::Rows => Body::Rows(vec![]),
                    Mode::Aggregate { .. } => {
                        // Where many slices are open at once most hold few rows.
                        let usual = from == ON_TIME && open_slices < USUAL_SLICES_MAX;
                        let expected = if usual { self.groups_expected } else { 0 };
                        Body::Live(Box::new(GroupTable::new(&self.spec, expected)?))
                    }
                };
                let leaves = self.spec.slicing().first_end(slice).max(from);
                self.leaves_at = self.leaves_at.min(leaves);
                place.insert(OpenSlice { body, rows: 0, spilled: vec![] })
            }
        };
        Ok((open, &mut self.groups))
    }
}
