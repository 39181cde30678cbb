//! Runs one bounded DataFusion plan repeatedly, each time on other rows.
//!
//! The physical plan is created once and shared by all workers; each has its own task context, which holds the rows of
//! the leaves. The plan's state is reset before every run: a plan that is run twice without that returns wrong rows or
//! panics.

use std::sync::Arc;
use std::task::Context;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;
use futures::stream::BoxStream;
use windrow_core::{Budget, Result};
use windrow_operators::WindowRows;
use windrow_sql::leaf::{LeafId, LeafInputs};
use windrow_sql::plan::{run, stream};

/// The maximum bytes that one run of a plan may hold at once, as an extension of the session's configuration.
#[derive(Debug, Clone, Copy)]
pub struct RunBytes(pub usize);

/// A plan with its own leaf inputs.
#[derive(Debug)]
pub(crate) struct PlanRunner {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    inputs: Arc<LeafInputs>,
    budget: Arc<Budget>,
}

impl PlanRunner {
    /// Returns a runner of `plan`, with the functions, memory pool and settings of `state`.
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, state: &SessionState) -> Self {
        let inputs = Arc::new(LeafInputs::default());
        let config = state.config().clone().with_extension(Arc::clone(&inputs));
        let bytes = config.get_extension::<RunBytes>().map_or(usize::MAX, |bytes| bytes.0);
        let mut state = state.clone();
        *state.config_mut() = config;
        Self { plan, context: state.task_ctx(), inputs, budget: Budget::new(bytes) }
    }

    /// The schema of its output.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// Runs the plan over these rows of one leaf; all other leaves are empty.
    pub(crate) async fn run_one(
        &self,
        leaf: LeafId,
        rows: RecordBatch,
    ) -> Result<Vec<RecordBatch>> {
        self.run(vec![(leaf, vec![rows])]).await
    }

    /// Runs the plan over the rows of windows, which are read lazily. The runner must not be used for anything else
    /// before the stream ends.
    pub(crate) fn stream(
        &self,
        inputs: Vec<(LeafId, Vec<WindowRows>)>,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        for (leaf, rows) in inputs {
            self.inputs.set_windows(leaf, rows);
        }
        let mut rows = stream(&self.plan, &self.context)?;
        let budget = Arc::clone(&self.budget);
        let within = move |context: &mut Context<'_>| budget.run(|| rows.poll_next_unpin(context));
        Ok(futures::stream::poll_fn(within).boxed())
    }

    /// Sets the rows of leaves for the next run.
    pub(crate) fn beside(&self, inputs: Vec<(LeafId, Vec<RecordBatch>)>) {
        for (leaf, rows) in inputs {
            self.inputs.set(leaf, rows);
        }
    }

    /// Releases the rows of the leaves.
    pub(crate) fn clear(&self) {
        self.inputs.clear();
    }

    /// Runs the plan over these rows of the leaves.
    pub(crate) async fn run(
        &self,
        inputs: Vec<(LeafId, Vec<RecordBatch>)>,
    ) -> Result<Vec<RecordBatch>> {
        self.beside(inputs);
        let (plan, context) = (Arc::clone(&self.plan), Arc::clone(&self.context));
        let work = async move { run(&plan, &context).await };
        let out = self.budget.within(Box::pin(work)).await;
        self.inputs.clear();
        out
    }
}
