//! Rows in order, in memory or on disk, for operators that return rows one by one.

use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use super::spill::{SpillSpace, Spilled, spill_rows};
use super::{Body, Segment};
use crate::batches;

/// A piece in memory is written in parts of this share of the bytes that may be read at a time.
const SHARE: usize = 2;

/// Returns the values by which the rows of a batch are ordered, one per row.
pub(crate) type OrderOf = for<'a> fn(&'a RecordBatch) -> Result<&'a [i64]>;

/// A run of rows in order; there is at least one row.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    order: OrderOf,
    /// The first value of the order.
    pub(crate) first: i64,
    /// The last value of the order.
    pub(crate) last: i64,
    pub(crate) rows: usize,
    pub(crate) held: Held,
}

/// The rows of a piece.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// In memory.
    Rows(Vec<RecordBatch>),
    /// On disk.
    Spilled(Spilled),
}

impl Piece {
    /// Returns a piece of rows that are in order; `None` if there are none.
    pub(crate) fn of(batch: RecordBatch, order: OrderOf) -> Result<Option<Self>> {
        let (first, last) = match order(&batch)? {
            [] => return Ok(None),
            [only] => (*only, *only),
            [first, .., last] => (*first, *last),
        };
        let rows = batch.num_rows();
        Ok(Some(Self { order, first, last, rows, held: Held::Rows(vec![batch]) }))
    }

    /// The piece in a segment.
    ///
    /// # Errors
    /// Internal when the segment holds groups.
    pub(crate) fn of_segment(segment: Segment, order: OrderOf) -> Result<Self> {
        let Segment { slice: first, counts_from: last, rows, body, .. } = segment;
        let held = match body {
            Body::Rows(rows) => Held::Rows(rows),
            Body::Spilled(spilled) => Held::Spilled(spilled),
            Body::Live(_) | Body::Frozen(_) => {
                return Err(Error::internal("a segment of rows in order holds groups"));
            }
        };
        Ok(Self { order, first, last, rows: usize::try_from(rows).unwrap_or(usize::MAX), held })
    }

    /// The piece as a segment: its two times are the first and the last value of the order.
    pub(crate) fn into_segment(self) -> Segment {
        let Self { first, last, rows, held, .. } = self;
        let body = match held {
            Held::Rows(rows) => Body::Rows(rows),
            Held::Spilled(spilled) => Body::Spilled(spilled),
        };
        Segment { slice: first, counts_from: last, rows: rows as u64, times: None, body }
    }

    /// Bytes of memory.
    pub(crate) fn size_bytes(&self) -> usize {
        match &self.held {
            Held::Rows(rows) => rows.iter().map(RecordBatch::get_array_memory_size).sum(),
            Held::Spilled(_) => 0,
        }
    }

    /// The bytes that it takes in memory once it is read.
    pub(crate) fn bytes_in_memory(&self) -> usize {
        match &self.held {
            Held::Spilled(spilled) => spilled.bytes_in_memory(),
            Held::Rows(_) => self.size_bytes(),
        }
    }

    /// Returns the rows, which may be read from disk.
    pub(crate) fn read(&self) -> Result<Vec<RecordBatch>> {
        match &self.held {
            Held::Rows(rows) => Ok(rows.clone()),
            Held::Spilled(spilled) => spilled.batches().collect(),
        }
    }

    /// Returns the rows before a value of the order, and pieces of the others.
    pub(crate) fn split(self, at: i64) -> Result<(Vec<RecordBatch>, Vec<Self>)> {
        if self.first >= at {
            return Ok((vec![], vec![self]));
        }
        let all = self.read()?;
        if self.last < at {
            return Ok((all, vec![]));
        }
        let (mut before, mut rest) = (vec![], vec![]);
        for batch in all {
            let rows = (self.order)(&batch)?.partition_point(|value| *value < at);
            if rows > 0 {
                before.push(batch.slice(0, rows));
            }
            rest.extend(Self::of(batch.slice(rows, batch.num_rows() - rows), self.order)?);
        }
        Ok((before, rest))
    }

    /// The same piece, after its rows have been written to disk.
    pub(crate) fn on_disk(self, spilled: Spilled) -> Self {
        Self { held: Held::Spilled(spilled), ..self }
    }

    /// The rows in memory, in parts that can be read one at a time and do not retain bytes of each other.
    pub(crate) fn parts(self, space: &dyn SpillSpace) -> impl Iterator<Item = Result<RecordBatch>> {
        let rows = match self.held {
            Held::Rows(rows) => rows,
            Held::Spilled(_) => vec![],
        };
        rows.into_iter().flat_map(move |batch| in_parts(space, batch))
    }
}

/// The rows that a worker has read, until they are flushed.
#[derive(Debug)]
pub(crate) struct Gathered {
    order: OrderOf,
    /// Sorts the rows of a batch.
    sort: fn(RecordBatch) -> Result<RecordBatch>,
    batches: Vec<RecordBatch>,
    spilled: Vec<Piece>,
    /// The first value of all; `i64::MAX` without rows.
    first: i64,
    rows: usize,
    bytes: usize,
}

impl Gathered {
    pub(crate) fn new(order: OrderOf, sort: fn(RecordBatch) -> Result<RecordBatch>) -> Self {
        let (batches, spilled) = (vec![], vec![]);
        Self { order, sort, batches, spilled, first: i64::MAX, rows: 0, bytes: 0 }
    }

    /// Adds rows, in any order.
    pub(crate) fn add(&mut self, batch: RecordBatch) -> Result<()> {
        let Some(first) = (self.order)(&batch)?.iter().min() else { return Ok(()) };
        self.first = self.first.min(*first);
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        Ok(())
    }

    /// Removes and returns all rows, in pieces.
    fn take_pieces(&mut self) -> Result<Vec<Piece>> {
        let mut pieces = std::mem::take(&mut self.spilled);
        for batch in batches::together(std::mem::take(&mut self.batches))? {
            pieces.extend(Piece::of((self.sort)(batch)?, self.order)?);
        }
        (self.first, self.rows, self.bytes) = (i64::MAX, 0, 0);
        Ok(pieces)
    }

    /// Removes and returns all rows, if any of them is before a watermark. Rows at or after it are included; the
    /// coordinator holds them unchanged.
    pub(crate) fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>> {
        if self.first >= to.ticks() { Ok(vec![]) } else { self.flush_all() }
    }

    /// Moves all rows out, unsorted.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(self.order, self.sort))
    }

    /// Removes and returns all rows.
    pub(crate) fn flush_all(&mut self) -> Result<Vec<Segment>> {
        Ok(self.take_pieces()?.into_iter().map(Piece::into_segment).collect())
    }

    /// Writes all rows to disk.
    pub(crate) fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        let (first, rows) = (self.first, self.rows);
        let pieces = self.take_pieces()?;
        self.spilled = spill_pieces(space, pieces)?;
        (self.first, self.rows) = (first, rows);
        Ok(())
    }

    /// The smallest watermark at which a row may be flushed.
    pub(crate) fn next_close(&self) -> Option<i64> {
        (self.first < i64::MAX).then(|| self.first.saturating_add(1))
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory.
    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes
    }
}

/// Writes the pieces in memory to disk, in pieces that can be read one at a time.
pub(crate) fn spill_pieces(space: &dyn SpillSpace, pieces: Vec<Piece>) -> Result<Vec<Piece>> {
    let (mut written, mut parts, mut batches) = (vec![], vec![], vec![]);
    for piece in pieces {
        if let Held::Spilled(_) = piece.held {
            written.push(piece);
            continue;
        }
        let order = piece.order;
        for batch in piece.parts(space) {
            let batch = batch?;
            if let Some(part) = Piece::of(batch.clone(), order)? {
                parts.push(part);
                batches.push(batch);
            }
        }
    }
    if batches.is_empty() {
        return Ok(written);
    }
    let spilled = spill_rows(space, batches)?;
    let pieces = parts.into_iter().zip(spilled);
    written.extend(pieces.map(|(part, spilled)| part.on_disk(spilled)));
    Ok(written)
}

/// Divides a batch into parts that can be read back one at a time and do not retain bytes of each other.
pub(crate) fn in_parts(
    space: &dyn SpillSpace,
    batch: RecordBatch,
) -> impl Iterator<Item = Result<RecordBatch>> + use<> {
    let parts = batch.get_array_memory_size() / (space.pass_bytes() / SHARE).max(1) + 1;
    let step = batch.num_rows().div_ceil(parts).max(1);
    (0..batch.num_rows())
        .step_by(step)
        .map(move |start| batches::compact(&batch.slice(start, step.min(batch.num_rows() - start))))
}
