//! Rows that a statement keeps in memory until it is done: those of a new table, those that are inserted.
//!
//! They count in the memory of the statement like what its operators hold, batch by batch as they are made.
//! Invariant: what would be more than the limit is an error before it is there.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;

use crate::session::passing::{Gate, Look, PassingExec};

/// Counts rows that are kept by what takes them. They count as long as this exists.
#[derive(Debug)]
pub(super) struct Held {
    /// How many times they are there while they are taken.
    times: usize,
    held: Arc<Mutex<Vec<MemoryReservation>>>,
}

/// The same rows, which are there `times` times while they are taken. They count as long as what is given exists.
pub(super) fn held(input: Arc<dyn ExecutionPlan>, times: usize) -> Arc<PassingExec<Held>> {
    Arc::new(PassingExec::new(input, Held { times, held: Arc::default() }))
}

impl Gate for Held {
    fn name(&self) -> &'static str {
        "HeldExec"
    }

    fn begin(&self, context: &TaskContext) -> Look {
        let one = MemoryConsumer::new("rows in memory").register(context.memory_pool());
        let at = {
            let mut held = self.held.lock();
            held.push(one);
            held.len() - 1
        };
        let (held, times) = (Arc::clone(&self.held), self.times);
        Box::new(move |batch| match held.lock().get_mut(at) {
            Some(one) => one.try_grow(bytes(batch).saturating_mul(times)),
            None => Err(DataFusionError::Internal("a reservation is gone".into())),
        })
    }
}

/// What a batch takes: its buffers, and what each array takes beside them.
fn bytes(batch: &RecordBatch) -> usize {
    const ARRAY_BYTES: usize = 256;
    get_record_batch_memory_size(batch).saturating_add(batch.num_columns() * ARRAY_BYTES)
}
