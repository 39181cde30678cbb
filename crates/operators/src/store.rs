//! The open slices of one worker.
//!
//! Invariants: a row is in exactly one slice. Rows that are partly late are held apart from those on time, by the end
//! of the first window in which they count. A slice is removed when the first window in which it counts may close;
//! later rows begin a new slice.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{take, take_record_batch};
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use crate::batches;
use crate::partition::{Partition, Piece, partition};
use crate::segments::Body;
use crate::segments::spill::{SpillSpace, spill};
use crate::spec::{Columns, ticks};
use crate::survey::{Times, cover};
use crate::table::GroupTable;
use crate::{OperatorSpec, Segment, SessionOperatorSpec, Slicing};

/// The tag of rows that are on time: they count from the first window.
const ON_TIME: i64 = i64::MIN;
/// The number of rows that are counted at a time.
const STEP_ROWS: usize = 8192;
/// A step is too short when its pieces are shorter than this on average.
const PIECE_ROWS_MIN: usize = 512;
/// Number of open slices up to which a new one is sized for as many groups as the last one had.
const USUAL_SLICES_MAX: usize = 8;

/// The open slices of one worker.
#[derive(Debug)]
pub struct SliceStore {
    columns: Arc<Columns>,
    slicing: Slicing,
    leaving: Leaving,
    /// By start, then by the end of the first window in which the rows count.
    open: BTreeMap<(i64, i64), OpenSlice>,
    /// The smallest watermark at which a slice is removed; `i64::MAX` when none is open.
    leaves_at: i64,
    /// The number of groups of the slice that was removed last: the next one will have about as many.
    groups_expected: usize,
    /// Scratch: group numbers of the current rows.
    groups: Vec<usize>,
}

/// When a slice is removed.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// When the first window in which it counts may close; `live`: as a live table.
    FirstWindow { live: bool },
    /// When the watermark has reached its start; with the rows that have arrived by then.
    Begun,
}

#[derive(Debug)]
struct OpenSlice {
    body: Body,
    rows: u64,
    /// The first and the last event time of its rows.
    times: Times,
    /// The parts that were spilled when memory was short.
    spilled: Vec<Segment>,
}

impl SliceStore {
    /// Returns an empty store.
    pub fn new(spec: &OperatorSpec) -> Self {
        // A tumbling slice is merged at most with those of other workers: it stays live.
        let live = spec.window().is_disjoint();
        Self::of(spec.columns(), spec.slicing(), Leaving::FirstWindow { live })
    }

    /// Returns an empty store of session pieces, which are the groups of one slice.
    pub(crate) fn of_sessions(spec: &SessionOperatorSpec) -> Self {
        Self::of(spec.columns(), spec.slicing(), Leaving::Begun)
    }

    fn of(columns: &Arc<Columns>, slicing: &Slicing, leaving: Leaving) -> Self {
        Self {
            columns: Arc::clone(columns),
            slicing: *slicing,
            leaving,
            open: BTreeMap::new(),
            leaves_at: i64::MAX,
            groups_expected: 0,
            groups: vec![],
        }
    }

    /// Counts rows that are on time, in all windows that contain them. The time column has no NULL.
    ///
    /// # Errors
    /// When an aggregate fails (overflow, memory); Internal when the batch does not match the specification.
    pub fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        if self.columns.layout().packed.is_some() {
            // Its arrays are stored: in one piece, and without the bytes of other rows.
            return self.update_step(&batches::without_foreign_bytes(batch.clone())?).map(|_| ());
        }
        // Steps that fit into the cache, and often into one slice; the whole batch at once if its times are so mixed
        // that a step would consist of many small pieces, or if rows are only stored.
        let mut step = if self.columns.holds_rows() { rows } else { STEP_ROWS };
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

    /// Counts rows; returns the number of pieces into which they were divided.
    fn update_step(&mut self, batch: &RecordBatch) -> Result<usize> {
        let column = self.times(batch)?;
        let times = ticks(&column)?;
        match partition(&self.slicing, times)? {
            Partition::One(piece) => {
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

    /// Counts rows that are partly late: row `i` only in windows that end at `from[i]` or later
    /// (see [`classify`](crate::lateness::classify)).
    ///
    /// # Errors
    /// As [`update`](Self::update); Internal when a row counts nowhere.
    pub fn update_partly_late(&mut self, batch: &RecordBatch, from: &[i64]) -> Result<()> {
        if batch.num_rows() != from.len() {
            return Err(Error::internal("partly late rows and their tags differ in number"));
        }
        let times = self.times(batch)?;
        let times = ticks(&times)?;
        let slicing = self.slicing;
        let mut rows: Vec<(i64, i64, u32)> = times
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
        for (i, (slice, from, row)) in rows.iter().enumerate() {
            let Some(&time) = times.get(*row as usize) else { continue };
            match (pieces.last_mut(), tags.last()) {
                (Some(piece), Some(tag)) if piece.slice == *slice && tag == from => {
                    piece.extend(time);
                }
                _ => {
                    pieces.push(Piece::of_row(*slice, i, time));
                    tags.push(*from);
                }
            }
        }
        let order = UInt32Array::from(rows.iter().map(|r| r.2).collect::<Vec<_>>());
        let batch = self.gather(batch, &order)?;
        self.count(&batch, &pieces, &tags)
    }

    /// Removes and returns the slices of windows that `watermark` closes, in order of their start. (With ALLOW
    /// LATENESS, `watermark` is behind by that.)
    ///
    /// # Errors
    /// When an aggregate cannot return its state.
    pub fn flush(&mut self, watermark: Watermark) -> Result<Vec<Segment>> {
        if !watermark.closes(self.leaves_at) || self.open.is_empty() {
            return Ok(vec![]);
        }
        let leaves = self.leaves();
        let leaving = self.open.keys().filter(|key| watermark.closes(leaves(key)));
        let leaving: Vec<(i64, i64)> = leaving.copied().collect();
        let mut segments = Vec::with_capacity(leaving.len());
        for key in leaving {
            if let Some(open) = self.open.remove(&key) {
                self.leave(key, open, &mut segments)?;
            }
        }
        self.leaves_at = self.open.keys().map(&leaves).min().unwrap_or(i64::MAX);
        Ok(segments)
    }

    /// Moves all open slices into a store of their own. Later rows begin new slices.
    pub fn take(&mut self) -> Self {
        let mut emptied = Self::of(&self.columns, &self.slicing, self.leaving);
        let on_time = self.open.iter().filter(|((_, from), _)| *from == ON_TIME);
        emptied.groups_expected =
            on_time.map(|(_, open)| open.body.len()).max().unwrap_or(self.groups_expected);
        std::mem::replace(self, emptied)
    }

    /// Removes and returns all open slices, in order of their start, whatever the watermark: for a checkpoint. Later
    /// rows begin new slices.
    ///
    /// # Errors
    /// When an aggregate cannot return its state.
    pub fn flush_all(&mut self) -> Result<Vec<Segment>> {
        self.leaves_at = i64::MAX;
        let mut segments = Vec::with_capacity(self.open.len());
        for (key, open) in std::mem::take(&mut self.open) {
            self.leave(key, open, &mut segments)?;
        }
        Ok(segments)
    }

    /// Writes the open slices to disk. They stay open, and are removed together with the spilled parts.
    ///
    /// # Errors
    /// When it cannot be written; when an aggregate cannot return its state.
    pub fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        let leaves_at = self.leaves_at;
        let segments = self.flush_all()?;
        for segment in spill(&self.columns, space, segments)? {
            match self.open.entry((segment.slice, segment.counts_from)) {
                Entry::Occupied(open) => open.into_mut().spilled.push(segment),
                Entry::Vacant(place) => {
                    let body = empty(&self.columns, 0)?;
                    place.insert(OpenSlice { body, rows: 0, times: None, spilled: vec![segment] });
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
        let stays_live = matches!(self.leaving, Leaving::FirstWindow { live: true });
        let body = match open.body {
            Body::Rows(rows) => Body::Rows(batches::together(rows)?),
            live if stays_live => live,
            shared => shared.freeze()?,
        };
        let (rows, times) = (open.rows, open.times);
        segments.push(Segment { slice, counts_from: from, rows, times, body });
        Ok(())
    }

    /// The start of the first open slice.
    pub fn first_open(&self) -> Option<i64> {
        self.open.keys().next().map(|(slice, _)| *slice)
    }

    /// The smallest watermark at which a slice is removed; `None` when none is open.
    pub fn next_flush(&self) -> Option<i64> {
        Some(self.leaves_at).filter(|_| !self.open.is_empty())
    }

    /// The number of open slices.
    pub fn open_slices(&self) -> usize {
        self.open.len()
    }

    /// Bytes of memory; visits each open slice.
    pub fn size_bytes(&self) -> usize {
        self.open.values().map(|open| open.body.size_bytes()).sum()
    }

    /// The number of rows in the open slices.
    pub fn rows(&self) -> u64 {
        let spilled = |open: &OpenSlice| open.spilled.iter().map(|s| s.rows).sum::<u64>();
        self.open.values().map(|open| open.rows + spilled(open)).sum()
    }

    /// Returns the watermark at which a slice is removed.
    fn leaves(&self) -> impl Fn(&(i64, i64)) -> i64 + use<> {
        let (slicing, leaving) = (self.slicing, self.leaving);
        move |&(slice, from)| match leaving {
            Leaving::FirstWindow { .. } => slicing.first_end(slice).max(from),
            Leaving::Begun => slice,
        }
    }

    /// The number of groups in the open slices; visits each.
    pub(crate) fn groups(&self) -> usize {
        self.open.values().map(|open| open.body.len()).sum()
    }

    fn times(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        if batch.num_columns() != self.columns.input_schema().fields().len() {
            return Err(Error::internal("a prepared batch has other columns than its operator"));
        }
        let times = batch.column(self.columns.time());
        if times.null_count() > 0 {
            return Err(Error::internal("a NULL event time reached the slices"));
        }
        Ok(Arc::clone(times))
    }

    /// Reorders the rows; columns that no aggregate reads are left unchanged.
    fn gather(&self, batch: &RecordBatch, order: &UInt32Array) -> Result<RecordBatch> {
        if self.columns.holds_rows() {
            return Ok(take_record_batch(batch, order)?);
        }
        let mut columns = batch.columns().to_vec();
        for index in &self.columns.layout().columns {
            if let Some(column) = columns.get_mut(*index) {
                *column = take(column, order, None)?;
            }
        }
        Ok(RecordBatch::try_new(batch.schema(), columns)?)
    }

    /// Counts pieces of a batch, each in its slice; `tags` is empty for rows that are on time. `times` returns the
    /// first and the last time of a piece.
    fn count(&mut self, batch: &RecordBatch, pieces: &[Piece], tags: &[i64]) -> Result<()> {
        let spec = Arc::clone(&self.columns);
        let layout = &spec.layout().columns;
        let packed: Vec<ArrayRef> = layout.iter().map(|c| Arc::clone(batch.column(*c))).collect();
        for (i, piece) in pieces.iter().enumerate() {
            let from = tags.get(i).copied().unwrap_or(ON_TIME);
            let whole = piece.len == batch.num_rows();
            let (open, groups) = self.slice(piece.slice, from)?;
            open.rows += piece.len as u64;
            open.times = cover(open.times, Some(piece.times));
            match &mut open.body {
                Body::Rows(kept) => {
                    let rows = batch.slice(piece.start, piece.len);
                    kept.push(batches::without_foreign_bytes(rows)?);
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
        let (open_slices, leaves_at) = (self.open.len(), self.leaves());
        let leaves_at = |key: (i64, i64)| leaves_at(&key);
        let open = match self.open.entry((slice, from)) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                // If many slices are open at once, most hold few rows.
                let usual = from == ON_TIME && open_slices < USUAL_SLICES_MAX;
                let expected = if usual { self.groups_expected } else { 0 };
                let body = empty(&self.columns, expected)?;
                self.leaves_at = self.leaves_at.min(leaves_at((slice, from)));
                place.insert(OpenSlice { body, rows: 0, times: None, spilled: vec![] })
            }
        };
        Ok((open, &mut self.groups))
    }
}

/// Returns the body of an open, empty slice, sized for `expected` groups.
fn empty(columns: &Columns, expected: usize) -> Result<Body> {
    if columns.holds_rows() {
        return Ok(Body::Rows(vec![]));
    }
    Ok(Body::Live(Box::new(GroupTable::new(columns, expected)?)))
}
