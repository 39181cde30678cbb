//! Rows of one input in order of their positions, in memory or on disk.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat_batches, filter, filter_record_batch, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, Result};

use super::Side;
use crate::batches;
use crate::segments::spill::{SpillSpace, Spilled, spill_rows};
use crate::segments::{Body, Segment};
use crate::spec::ticks;

/// A piece in memory is written in parts of this share of the bytes that may be read at a time.
const SHARE: usize = 2;

/// A run of rows; there is at least one.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// The first position.
    pub(super) first: i64,
    /// The last position.
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

/// Returns the positions of a batch of state.
pub(super) fn positions(batch: &RecordBatch) -> Result<&[i64]> {
    let last = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>());
    Ok(last.ok_or_else(|| Error::internal("the positions of a join's rows are lost"))?.values())
}

/// Returns the event times of a batch of state or input.
pub(super) fn times(batch: &RecordBatch) -> Result<&[i64]> {
    let first = batch.columns().first();
    ticks(first.ok_or_else(|| Error::internal("the times of a join's rows are lost"))?)
}

/// Converts prepared rows to a batch of state, in order of the positions; without rows that have a NULL in their key, unless
/// those are kept. `from`: the end from which each row counts, where rows are partly late.
pub(super) fn arrange(
    side: &Side,
    keeps_nulls: bool,
    batch: &RecordBatch,
    from: Option<&[i64]>,
) -> Result<RecordBatch> {
    let own = times(batch)?;
    let positions: Int64Array = match from {
        None => own.to_vec().into(),
        Some(from) => {
            // A pair ends one tick after its event time.
            let later = own.iter().zip(from).map(|(own, from)| (*own).max(from.saturating_sub(1)));
            later.collect::<Vec<_>>().into()
        }
    };
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(positions));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::clone(&side.state_schema);
    let mut rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
    if !keeps_nulls && let Some(nulls) = null_keys(side, batch) {
        rows = filter_record_batch(&rows, &BooleanArray::new(nulls.into_inner(), None))?;
    }
    sorted(batches::without_foreign_bytes(rows)?)
}

/// Which rows have no NULL in their key; `None` when that is so of all.
pub(super) fn null_keys(side: &Side, batch: &RecordBatch) -> Option<NullBuffer> {
    let keys = side.input.keys.iter().filter_map(|key| batch.columns().get(*key));
    let nulls = keys.fold(None, |all: Option<NullBuffer>, key| {
        NullBuffer::union(all.as_ref(), key.logical_nulls().as_ref())
    });
    nulls.filter(|nulls| nulls.null_count() > 0)
}

/// Returns the rows in order of their positions; those that are partly late before others of the same position.
pub(super) fn sorted(batch: RecordBatch) -> Result<RecordBatch> {
    let (positions, times) = (positions(&batch)?, times(&batch)?);
    let key = |row: usize| (positions.get(row), times.get(row));
    if (1..batch.num_rows()).all(|row| key(row - 1) <= key(row)) {
        return Ok(batch);
    }
    let mut order: Vec<u32> = (0..batch.num_rows()).filter_map(|r| u32::try_from(r).ok()).collect();
    order.sort_by_key(|row| key(*row as usize));
    Ok(take_record_batch(&batch, &UInt32Array::from(order))?)
}

/// Puts batches together and in order; `None` when there are no rows.
pub(super) fn merged(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    let batch = match batches {
        [] => return Ok(None),
        [one] => one.clone(),
        several => concat_batches(schema, several)?,
    };
    if batch.num_rows() == 0 { Ok(None) } else { sorted(batch).map(Some) }
}

/// Returns the rows at or after a time, by their own times.
pub(super) fn since(batch: &RecordBatch, time: i64) -> Result<RecordBatch> {
    let times = times(batch)?;
    if times.iter().all(|own| *own >= time) {
        return Ok(batch.clone());
    }
    let useful: BooleanArray = times.iter().map(|own| Some(*own >= time)).collect();
    let columns = batch.columns().iter().map(|column| filter(column, &useful));
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    let rows = columns.first().map_or(0, Array::len);
    batches::without_foreign_bytes(batches::with_columns(batch, columns, rows)?)
}

impl Piece {
    /// A piece of sorted rows; `None` when there are none.
    pub(super) fn of(batch: RecordBatch) -> Result<Option<Self>> {
        let (first, last) = match positions(&batch)? {
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
                return Err(Error::internal("a segment of a join holds groups"));
            }
        };
        Ok(Self { first, last, rows: usize::try_from(rows).unwrap_or(usize::MAX), held })
    }

    /// The piece as a segment: its two times are those of the first and the last row.
    pub(super) fn into_segment(self) -> Segment {
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

    /// Returns the rows; what is on disk is read.
    pub(super) fn read(&self) -> Result<Vec<RecordBatch>> {
        match &self.held {
            Held::Rows(rows) => Ok(rows.clone()),
            Held::Spilled(spilled) => spilled.batches().collect(),
        }
    }

    /// Returns the rows before a position, and a piece of the others.
    pub(super) fn split(self, at: i64) -> Result<(Vec<RecordBatch>, Vec<Self>)> {
        let all = self.read()?;
        if self.last < at {
            return Ok((all, vec![]));
        }
        let (mut before, mut rest) = (vec![], vec![]);
        for batch in all {
            let rows = positions(&batch)?.partition_point(|position| *position < at);
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
        if let Held::Spilled(_) = piece.held {
            written.push(piece);
            continue;
        }
        for batch in parts(space, piece) {
            batches.push(batch?);
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

/// The rows of a piece that is in memory, in parts that can be read one at a time and hold no bytes of others.
pub(super) fn parts(
    space: &dyn SpillSpace,
    piece: Piece,
) -> impl Iterator<Item = Result<RecordBatch>> {
    let pass_bytes = space.pass_bytes();
    let rows = match piece.held {
        Held::Rows(rows) => rows,
        Held::Spilled(_) => vec![],
    };
    rows.into_iter().flat_map(move |batch| {
        let parts = batch.get_array_memory_size() / (pass_bytes / SHARE).max(1) + 1;
        let step = batch.num_rows().div_ceil(parts).max(1);
        (0..batch.num_rows()).step_by(step).map(move |start| {
            batches::compact(&batch.slice(start, step.min(batch.num_rows() - start)))
        })
    })
}
