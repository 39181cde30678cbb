//! An operator that passes its input through unchanged and inspects each batch.
//!
//! Invariant: rows, their order and their partitions are those of the input.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

/// Inspects the batches of one partition; an error fails the plan.
pub(crate) type InspectBatch = Box<dyn FnMut(&RecordBatch) -> Result<()> + Send>;

/// Inspects the rows of a plan.
pub(crate) trait Inspect: fmt::Debug + Send + Sync + 'static {
    /// Returns the name of the operator.
    fn name(&self) -> &'static str;

    /// Begins a partition.
    fn begin(&self, context: &TaskContext) -> InspectBatch;
}

/// Passes its input through.
#[derive(Debug)]
pub(crate) struct PassThroughExec<I> {
    input: Arc<dyn ExecutionPlan>,
    inspect: Arc<I>,
}

impl<I: Inspect> PassThroughExec<I> {
    /// Inspects the rows of `input`.
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, inspect: I) -> Self {
        Self { input, inspect: Arc::new(inspect) }
    }
}

impl<I: Inspect> DisplayAs for PassThroughExec<I> {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.inspect.name())
    }
}

impl<I: Inspect> ExecutionPlan for PassThroughExec<I> {
    fn name(&self) -> &'static str {
        self.inspect.name()
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
            Some(input) if children.is_empty() => {
                Ok(Arc::new(Self { input, inspect: Arc::clone(&self.inspect) }))
            }
            _ => {
                let message = format!("{} has one input", self.inspect.name());
                Err(DataFusionError::Internal(message))
            }
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
        let mut inspect = self.inspect.begin(&context);
        let rows = self.input.execute(partition, context)?;
        let schema = rows.schema();
        let passed = rows.map(move |batch| {
            let batch = batch?;
            inspect(&batch)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, passed)))
    }
}
