//! Rows in order of their times, and the part of one worker, which sorts them.

use std::sync::Arc;

use arrow::array::{Array, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, Result, Watermark};

use super::OrderedSpec;
use crate::batches;
use crate::port::WorkerPart;
use crate::segments::Segment;
use crate::segments::ascending::ascending;
use crate::segments::ordered::{Gathered, Held, Piece};
use crate::segments::spill::SpillSpace;
use crate::spec::ticks;

/// Returns the event times of a batch.
pub(crate) fn times(batch: &RecordBatch) -> Result<&[i64]> {
    let first = batch.columns().first();
    let first = first.ok_or_else(|| Error::internal("the times of rows are lost"))?;
    if first.null_count() > 0 {
        return Err(Error::internal("rows have no time"));
    }
    ticks(first)
}

/// Returns the rows with the columns of the state, which may be NULL.
fn as_state(spec: &impl OrderedSpec, batch: &RecordBatch) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let schema = Arc::clone(spec.state_schema());
    Ok(RecordBatch::try_new_with_options(schema, batch.columns().to_vec(), &options)?)
}

/// Returns the rows in order of their times; rows of one time keep their order.
pub(super) fn sorted(batch: RecordBatch) -> Result<RecordBatch> {
    match ascending(times(&batch)?) {
        Some(order) => Ok(take_record_batch(&batch, &UInt32Array::from(order))?),
        None => Ok(batch),
    }
}

/// Merges batches in order; `None` without rows.
pub(super) fn merged(
    spec: &impl OrderedSpec,
    batches: &[RecordBatch],
) -> Result<Option<RecordBatch>> {
    let batch = match batches {
        [] => return Ok(None),
        [one] => one.clone(),
        several => concat_batches(spec.state_schema(), several)?,
    };
    if batch.num_rows() == 0 { Ok(None) } else { sorted(batch).map(Some) }
}

/// A piece of rows in order of their times; `None` without rows.
pub(super) fn of(batch: RecordBatch) -> Result<Option<Piece>> {
    Piece::of(batch, times)
}

/// Returns the time before which the rows take about `bytes`; `None` if they take less, or are on disk.
pub(super) fn time_after(piece: &Piece, bytes: usize) -> Result<Option<i64>> {
    let Held::Rows(batches) = &piece.held else { return Ok(None) };
    let Some(batch) = batches.first().filter(|batch| batch.get_array_memory_size() > bytes) else {
        return Ok(None);
    };
    let share = bytes as f64 / batch.get_array_memory_size() as f64;
    let row = (batch.num_rows() as f64 * share) as usize;
    Ok(times(batch)?.get(row).copied())
}

/// The part of one worker.
#[derive(Debug)]
pub(crate) struct OrderedWorker<S> {
    spec: Arc<S>,
    gathered: Gathered,
}

impl<S> OrderedWorker<S> {
    pub(crate) fn new(spec: Arc<S>) -> Self {
        Self { spec, gathered: Gathered::new(times, sorted) }
    }
}

impl<S: OrderedSpec> WorkerPart for OrderedWorker<S> {
    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        self.gathered.add(batches::without_foreign_bytes(as_state(self.spec.as_ref(), batch)?)?)
    }

    fn update_partly_late(&mut self, _batch: &RecordBatch, _from: &[i64]) -> Result<()> {
        Err(Error::internal("a row that is processed in order is late or not"))
    }

    fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>> {
        self.gathered.flush(to)
    }

    fn take(&mut self) -> Box<dyn WorkerPart> {
        Box::new(Self { spec: Arc::clone(&self.spec), gathered: self.gathered.take() })
    }

    fn flush_all(&mut self) -> Result<Vec<Segment>> {
        self.gathered.flush_all()
    }

    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        self.gathered.spill(space)
    }

    fn next_close(&self) -> Option<i64> {
        self.gathered.next_close()
    }

    fn open_windows(&self) -> usize {
        self.gathered.rows()
    }

    fn size_bytes(&self) -> usize {
        self.gathered.size_bytes()
    }
}
