//! Rows that a statement keeps in memory until it is done: those of a new table, those that are inserted.
//!
//! They count in the memory of the statement like what its operators hold, batch by batch as they are made.
//! Invariant: what would be more than the limit is an error before it is there.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;
use parking_lot::Mutex;

/// The rows of its input, which whoever takes them keeps. They count as long as this exists.
#[derive(Debug)]
pub(super) struct HeldExec {
    input: Arc<dyn ExecutionPlan>,
    /// How many times they are there while they are taken.
    times: usize,
    held: Arc<Mutex<Vec<MemoryReservation>>>,
}

impl HeldExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, times: usize) -> Self {
        Self { input, times, held: Arc::default() }
    }
}

impl DisplayAs for HeldExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeldExec")
    }
}

impl ExecutionPlan for HeldExec {
    fn name(&self) -> &'static str {
        "HeldExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) if children.is_empty() => Ok(Arc::new(Self::new(input, self.times))),
            _ => Err(DataFusionError::Internal("rows are held of one input".into())),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mode = ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(mode))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, Arc::clone(&context))?;
        let schema = rows.schema();
        let one = MemoryConsumer::new("rows in memory").register(context.memory_pool());
        let at = {
            let mut held = self.held.lock();
            held.push(one);
            held.len() - 1
        };
        let (held, times) = (Arc::clone(&self.held), self.times);
        let counted = rows.map(move |batch| {
            let batch = batch?;
            let bytes = bytes(&batch).saturating_mul(times);
            match held.lock().get_mut(at) {
                Some(one) => one.try_grow(bytes)?,
                None => return Err(DataFusionError::Internal("a reservation is gone".into())),
            }
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, counted)))
    }
}

/// What a batch takes: its buffers, and what each array takes beside them.
fn bytes(batch: &RecordBatch) -> usize {
    const ARRAY_BYTES: usize = 256;
    get_record_batch_memory_size(batch).saturating_add(batch.num_columns() * ARRAY_BYTES)
}
