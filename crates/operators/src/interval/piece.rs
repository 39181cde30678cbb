//! Rows of one input, in order of their positions.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{cast, concat_batches, filter, filter_record_batch, take, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, Result};

use super::Side;
use crate::batches;
use crate::segments::ascending::ascending;
use crate::segments::ordered::Piece;
use crate::spec::ticks;

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

/// Converts prepared rows to a batch of state in order of their positions, without rows with a NULL in their key unless
/// those are kept. `from`: the end from which each row counts, if rows are partly late.
pub(super) fn arrange(
    side: &Side,
    keeps_nulls: bool,
    batch: &RecordBatch,
    from: Option<&[i64]>,
) -> Result<RecordBatch> {
    let own = times(batch)?;
    let mut columns = batch.columns().to_vec();
    columns.push(match from {
        None => as_positions(columns.first())?,
        Some(from) => {
            // A pair ends one tick after its event time.
            let later = own.iter().zip(from).map(|(own, from)| (*own).max(from.saturating_sub(1)));
            Arc::new(Int64Array::from_iter_values(later))
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::clone(&side.state_schema);
    let mut rows = RecordBatch::try_new_with_options(schema, columns, &options)?;
    if !keeps_nulls && let Some(nulls) = null_keys(side, batch) {
        rows = filter_record_batch(&rows, &BooleanArray::new(nulls.into_inner(), None))?;
    }
    sorted(batches::without_foreign_bytes(rows)?)
}

/// The times as positions, without copying them.
fn as_positions(times: Option<&ArrayRef>) -> Result<ArrayRef> {
    let times = times.ok_or_else(|| Error::internal("the times of a join's rows are lost"))?;
    Ok(cast(times, &DataType::Int64)?)
}

/// Which rows have no NULL in their key; `None` if no row has one.
pub(super) fn null_keys(side: &Side, batch: &RecordBatch) -> Option<NullBuffer> {
    let keys = side.input.keys.iter().filter_map(|key| batch.columns().get(*key));
    let nulls = keys.fold(None, |all: Option<NullBuffer>, key| {
        NullBuffer::union(all.as_ref(), key.logical_nulls().as_ref())
    });
    nulls.filter(|nulls| nulls.null_count() > 0)
}

/// Returns the rows in order of their positions; those that are partly late precede others of the same position.
pub(super) fn sorted(batch: RecordBatch) -> Result<RecordBatch> {
    let (positions, times) = (positions(&batch)?, times(&batch)?);
    let same = positions == times;
    let Some(order) = in_order(positions, times, same) else { return Ok(batch) };
    let order = UInt32Array::from(order);
    if !same {
        return Ok(take_record_batch(&batch, &order)?);
    }
    let Some((_, columns)) = batch.columns().split_last() else { return Ok(batch) };
    let columns = columns.iter().map(|column| take(column, &order, None));
    let mut columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    columns.push(as_positions(columns.first())?);
    batches::with_columns(&batch, columns, order.len())
}

/// The indexes of rows in order of their positions, then of their times; `None` when they are in order. `same`: the
/// positions are the times.
pub(super) fn in_order(positions: &[i64], times: &[i64], same: bool) -> Option<Vec<u32>> {
    if same {
        return ascending(times);
    }
    let key = |row: usize| (positions.get(row), times.get(row));
    if (1..times.len()).all(|row| key(row - 1) <= key(row)) {
        return None;
    }
    let mut order: Vec<u32> = (0..times.len()).filter_map(|r| u32::try_from(r).ok()).collect();
    order.sort_by_key(|row| key(*row as usize));
    Some(order)
}

/// Merges batches in order; `None` without rows.
pub(super) fn merged(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    let batch = match batches {
        [] => return Ok(None),
        [one] => one.clone(),
        several => concat_batches(schema, several)?,
    };
    if batch.num_rows() == 0 { Ok(None) } else { sorted(batch).map(Some) }
}

/// Returns the rows whose own times are at or after `time`.
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

/// A piece of rows in order of their positions; `None` without rows.
pub(super) fn of(batch: RecordBatch) -> Result<Option<Piece>> {
    Piece::of(batch, positions)
}
