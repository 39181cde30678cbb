//! Accounts for rows that a statement buffers until it is done: those of a new table, those of an INSERT.
//!
//! They count in the memory of the statement like the memory of its operators, batch by batch as they are produced.
//! Invariant: exceeding the limit is an error before the rows are buffered.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

use crate::execution::pass_through::{Inspect, InspectBatch, PassThroughExec};

/// Reserves memory for the rows of a plan, for as long as this exists.
#[derive(Debug)]
pub(crate) struct Buffered {
    copies: usize,
    reservations: Arc<Mutex<Vec<MemoryReservation>>>,
}

/// Reserves memory for the rows of a plan, of which up to `copies` exist at the same time. The reservation lasts as long as
/// the result exists.
pub(crate) fn buffered(
    input: Arc<dyn ExecutionPlan>,
    copies: usize,
) -> Arc<PassThroughExec<Buffered>> {
    Arc::new(PassThroughExec::new(input, Buffered { copies, reservations: Arc::default() }))
}

impl Inspect for Buffered {
    fn name(&self) -> &'static str {
        "BufferedExec"
    }

    fn begin(&self, context: &TaskContext) -> InspectBatch {
        let one = MemoryConsumer::new("rows in memory").register(context.memory_pool());
        let at = {
            let mut reservations = self.reservations.lock();
            reservations.push(one);
            reservations.len() - 1
        };
        let (reservations, copies) = (Arc::clone(&self.reservations), self.copies);
        Box::new(move |batch| match reservations.lock().get_mut(at) {
            Some(one) => one.try_grow(bytes(batch).saturating_mul(copies)),
            None => Err(DataFusionError::Internal("a reservation is gone".into())),
        })
    }
}

/// Returns the bytes of a batch: its buffers and a fixed overhead per array.
fn bytes(batch: &RecordBatch) -> usize {
    const ARRAY_BYTES: usize = 256;
    get_record_batch_memory_size(batch).saturating_add(batch.num_columns() * ARRAY_BYTES)
}
