//! Rows in order of their times, in memory or on disk; and the part of one worker, which arranges them.

use std::sync::Arc;

use arrow::array::{Array, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, Result, Watermark};

use super::OverSpec;
use crate::batches;
use crate::port::WorkerPart;
use crate::segments::spill::{SpillSpace, Spilled, spill_rows};
use crate::segments::{Body, Segment};
use crate::spec::ticks;

/// A piece in memory is written in parts of this share of the bytes that may be read at a time.
const SHARE: usize = 2;

/// A run of rows; there is at least one.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// The first time.
    pub(super) first: i64,
    /// The last time.
    pub(super) last: i64,
    pub(super) rows: usize,
    pub(super) held: Held,
}

/// Where the rows are.
#[derive(Debug, Clone)]
pub(super) enum Held {
    /// In memory.
    Rows(Vec<RecordBatch>),
    /// On disk.
    Spilled(Spilled),
}

/// Returns the event times of a batch.
pub(super) fn times(batch: &RecordBatch) -> Result<&[i64]> {
    let first = batch.columns().first();
    let first = first.ok_or_else(|| Error::internal("the times of rows of OVER are lost"))?;
    if first.null_count() > 0 {
        return Err(Error::internal("rows of OVER have no time"));
    }
    ticks(first)
}

/// Returns the rows under the columns of the state, which may be NULL.
pub(super) fn as_state(spec: &OverSpec, batch: &RecordBatch) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::clone(&spec.state_schema);
    Ok(RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options)?)
}

/// Returns the rows in order of their times; those of one time stay as they are.
pub(super) fn sorted(batch: RecordBatch) -> Result<RecordBatch> {
    let times = times(&batch)?;
    if times.is_sorted() {
        return Ok(batch);
    }
    let mut order: Vec<(i64, u32)> = times.iter().copied().zip(0..).collect();
    order.sort_by_key(|(time, _)| *time);
    let order = UInt32Array::from_iter_values(order.into_iter().map(|(_, row)| row));
    Ok(take_record_batch(&batch, &order)?)
}

/// Puts batches together and in order; `None` when there are no rows.
pub(super) fn merged(spec: &OverSpec, batches: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    let batch = match batches {
        [] => return Ok(None),
        [one] => one.clone(),
        several => concat_batches(&spec.state_schema, several)?,
    };
    if batch.num_rows() == 0 { Ok(None) } else { sorted(batch).map(Some) }
}

impl Piece {
    /// A piece of sorted rows; `None` when there are none.
    pub(super) fn of(batch: RecordBatch) -> Result<Option<Self>> {
        let (first, last) = match times(&batch)? {
            [] => return Ok(None),
            [only] => (*only, *only),
            [first, .., last] => (*first, *last),
        };
        let rows = batch.num_rows();
        Ok(Some(Self { first, last, rows, held: Held::Rows(vec![batch]) }))
    }

    /// The piece that a segment holds.
    pub(super) fn of_segment(segment: Segment) -> Result<Self> {
        let Segment { slice: first, counts_from: last, rows, body } = segment;
        let held = match body {
            Body::Rows(rows) => Held::Rows(rows),
            Body::Spilled(spilled) => Held::Spilled(spilled),
            Body::Live(_) | Body::Frozen(_) => {
                return Err(Error::internal("a segment of OVER holds groups"));
            }
        };
        Ok(Self { first, last, rows: usize::try_from(rows).unwrap_or(usize::MAX), held })
    }

    /// The piece as a segment: its two times are those of the first and the last row.
    fn into_segment(self) -> Segment {
        let Self { first, last, rows, held } = self;
        let body = match held {
            Held::Rows(rows) => Body::Rows(rows),
            Held::Spilled(spilled) => Body::Spilled(spilled),
        };
        Segment { slice: first, counts_from: last, rows: rows as u64, body }
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        match &self.held {
            Held::Rows(rows) => rows.iter().map(RecordBatch::get_array_memory_size).sum(),
            Held::Spilled(_) => 0,
        }
    }

    /// Bytes that it takes in memory once it is read.
    pub(super) fn bytes_in_memory(&self) -> usize {
        match &self.held {
            Held::Spilled(spilled) => spilled.bytes_in_memory(),
            Held::Rows(_) => self.size_bytes(),
        }
    }

    /// The time of the row before which there are about so many bytes, where the rows are in memory and take more.
    pub(super) fn time_after(&self, bytes: usize) -> Result<Option<i64>> {
        let Held::Rows(batches) = &self.held else { return Ok(None) };
        let Some(batch) = batches.first().filter(|batch| batch.get_array_memory_size() > bytes)
        else {
            return Ok(None);
        };
        let share = bytes as f64 / batch.get_array_memory_size() as f64;
        let row = (batch.num_rows() as f64 * share) as usize;
        Ok(times(batch)?.get(row).copied())
    }

    /// Returns the rows; what is on disk is read.
    pub(super) fn read(&self) -> Result<Vec<RecordBatch>> {
        match &self.held {
            Held::Rows(rows) => Ok(rows.clone()),
            Held::Spilled(spilled) => spilled.batches().collect(),
        }
    }

    /// Returns the rows before a time, and pieces of the others.
    pub(super) fn split(self, at: i64) -> Result<(Vec<RecordBatch>, Vec<Self>)> {
        if self.first >= at {
            return Ok((vec![], vec![self]));
        }
        let all = self.read()?;
        if self.last < at {
            return Ok((all, vec![]));
        }
        let (mut before, mut rest) = (vec![], vec![]);
        for batch in all {
            let rows = times(&batch)?.partition_point(|time| *time < at);
            if rows > 0 {
                before.push(batch.slice(0, rows));
            }
            rest.extend(Self::of(batch.slice(rows, batch.num_rows() - rows))?);
        }
        Ok((before, rest))
    }
}

/// Writes the pieces in memory to disk, in pieces that can be read one at a time.
pub(super) fn spill_pieces(space: &dyn SpillSpace, pieces: Vec<Piece>) -> Result<Vec<Piece>> {
    let (mut written, mut batches) = (vec![], vec![]);
    for piece in pieces {
        let Held::Rows(rows) = piece.held else {
            written.push(piece);
            continue;
        };
        for batch in rows {
            batches.extend(in_parts(space, &batch)?);
        }
    }
    if batches.is_empty() {
        return Ok(written);
    }
    let kept = batches.iter().map(|batch| Piece::of(batch.clone())).collect::<Result<Vec<_>>>()?;
    let spilled = spill_rows(space, batches)?;
    let pieces = kept.into_iter().flatten().zip(spilled);
    written.extend(pieces.map(|(piece, spilled)| Piece { held: Held::Spilled(spilled), ..piece }));
    Ok(written)
}

/// Cuts a batch so that a part can be read back at a time.
pub(super) fn in_parts(space: &dyn SpillSpace, batch: &RecordBatch) -> Result<Vec<RecordBatch>> {
    let parts = batch.get_array_memory_size() / (space.pass_bytes() / SHARE).max(1) + 1;
    let step = batch.num_rows().div_ceil(parts).max(1);
    let starts = (0..batch.num_rows()).step_by(step);
    let part = |start| batches::compact(&batch.slice(start, step.min(batch.num_rows() - start)));
    starts.map(part).collect()
}

/// The rows that one worker has.
#[derive(Debug)]
pub(super) struct OverWorker {
    spec: Arc<OverSpec>,
    batches: Vec<RecordBatch>,
    spilled: Vec<Piece>,
    /// The first time of all; `i64::MAX` when there is none.
    first: i64,
    rows: usize,
    bytes: usize,
}

impl OverWorker {
    pub(super) fn new(spec: Arc<OverSpec>) -> Self {
        Self { spec, batches: vec![], spilled: vec![], first: i64::MAX, rows: 0, bytes: 0 }
    }

    /// Returns everything that it has.
    fn take_pieces(&mut self) -> Result<Vec<Piece>> {
        let mut pieces = std::mem::take(&mut self.spilled);
        for batch in batches::together(std::mem::take(&mut self.batches))? {
            pieces.extend(Piece::of(sorted(batch)?)?);
        }
        (self.first, self.rows, self.bytes) = (i64::MAX, 0, 0);
        Ok(pieces)
    }
}

impl WorkerPart for OverWorker {
    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = batches::without_foreign_bytes(as_state(&self.spec, batch)?)?;
        let Some(first) = times(&batch)?.iter().min() else { return Ok(()) };
        self.first = self.first.min(*first);
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        Ok(())
    }

    fn update_partly_late(&mut self, _batch: &RecordBatch, _from: &[i64]) -> Result<()> {
        Err(Error::internal("a row of OVER is late or not"))
    }

    /// Rows at or after `to` leave as well: the coordinator keeps them as they are.
    fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>> {
        if self.first >= to.ticks() { Ok(vec![]) } else { self.flush_all() }
    }

    fn flush_all(&mut self) -> Result<Vec<Segment>> {
        let segments = self.take_pieces()?.into_iter().map(Piece::into_segment);
        Ok(segments.collect())
    }

    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        let (first, rows) = (self.first, self.rows);
        let pieces = self.take_pieces()?;
        self.spilled = spill_pieces(space, pieces)?;
        (self.first, self.rows) = (first, rows);
        Ok(())
    }

    fn next_close(&self) -> Option<i64> {
        (self.first < i64::MAX).then(|| self.first.saturating_add(1))
    }

    fn open_windows(&self) -> usize {
        self.rows
    }

    fn size_bytes(&self) -> usize {
        self.bytes
    }
}
