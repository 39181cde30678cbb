//! Runs one bounded DataFusion plan again and again, each time on other rows.
//!
//! The physical plan is made once and shared by all workers; what differs between them is the
//! task context, which holds the rows of the leaves. The plan's state is reset before every run:
//! a plan that is run twice without it gives wrong rows or panics.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::stream::BoxStream;
use windrow_core::Result;
use windrow_sql::leaf::{LeafId, LeafInputs};
use windrow_sql::plan::{run, stream};
use windrow_window::WindowRows;

/// A plan with its own leaf inputs.
#[derive(Debug)]
pub(crate) struct PlanRunner {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    inputs: Arc<LeafInputs>,
}

impl PlanRunner {
    /// A runner of `plan`, with `state`'s functions, memory pool and settings.
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, state: &SessionState) -> Self {
        let inputs = Arc::new(LeafInputs::default());
        let config = state.config().clone().with_extension(Arc::clone(&inputs));
        let mut state = state.clone();
        *state.config_mut() = config;
        Self { plan, context: state.task_ctx(), inputs }
    }

    /// The columns of its rows.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// The output for these rows of one leaf; all other leaves are empty.
    pub(crate) async fn run_one(
        &self,
        leaf: LeafId,
        rows: RecordBatch,
    ) -> Result<Vec<RecordBatch>> {
        self.run(vec![(leaf, vec![rows])]).await
    }

    /// The output for the rows of windows that are made as they are asked for, likewise. The
    /// runner is not used for anything else before its end.
    pub(crate) fn stream(
        &self,
        inputs: Vec<(LeafId, Vec<WindowRows>)>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        for (leaf, rows) in inputs {
            self.inputs.set_windows(leaf, rows);
        }
        stream(&self.plan, &self.context)
    }

    /// Forgets what the leaves were given.
    pub(crate) fn clear(&self) {
        self.inputs.clear();
    }

    /// The output for these rows of the leaves.
    pub(crate) async fn run(
        &self,
        inputs: Vec<(LeafId, Vec<RecordBatch>)>,
    ) -> Result<Vec<RecordBatch>> {
        for (leaf, rows) in inputs {
            self.inputs.set(leaf, rows);
        }
        let out = run(&self.plan, &self.context).await;
        self.inputs.clear();
        out
    }
}
