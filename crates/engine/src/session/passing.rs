//! An operator that rows pass as they are, while something is done about them: counted, measured.
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

/// What is done about the batches of one partition, before each goes on.
pub(super) type Look = Box<dyn FnMut(&RecordBatch) -> Result<()> + Send>;

/// What is done about rows.
pub(super) trait Gate: fmt::Debug + Send + Sync + 'static {
    /// What the operator is called.
    fn name(&self) -> &'static str;

    /// Begins a partition.
    fn begin(&self, context: &TaskContext) -> Look;
}

/// The rows of its input.
#[derive(Debug)]
pub(super) struct PassingExec<G> {
    input: Arc<dyn ExecutionPlan>,
    gate: Arc<G>,
}

impl<G: Gate> PassingExec<G> {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, gate: G) -> Self {
        Self { input, gate: Arc::new(gate) }
    }
}

impl<G: Gate> DisplayAs for PassingExec<G> {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.gate.name())
    }
}

impl<G: Gate> ExecutionPlan for PassingExec<G> {
    fn name(&self) -> &'static str {
        self.gate.name()
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
                Ok(Arc::new(Self { input, gate: Arc::clone(&self.gate) }))
            }
            _ => {
                let message = format!("{} has one input", self.gate.name());
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
        let mut look = self.gate.begin(&context);
        let rows = self.input.execute(partition, context)?;
        let schema = rows.schema();
        let passed = rows.map(move |batch| {
            let batch = batch?;
            look(&batch)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, passed)))
    }
}
