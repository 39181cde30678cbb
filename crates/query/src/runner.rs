//! Runs one bounded DataFusion plan again and again, each time on other rows.
//!
//! The physical plan is made once and shared by all workers; what differs between them is the
//! task context, which holds the rows of the leaves. The plan's state is reset before every run:
//! a plan that is run twice without it gives wrong rows or panics.

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

/// What one run of a plan may hold at once, among the settings of the session that it is planned with.
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
    /// A runner of `plan`, with `state`'s functions, memory pool and settings.
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, state: &SessionState) -> Self {
        let inputs = Arc::new(LeafInputs::default());
        let config = state.config().clone().with_extension(Arc::clone(&inputs));
        let bytes = config.get_extension::<RunBytes>().map_or(usize::MAX, |bytes| bytes.0);
        let mut state = state.clone();
        *state.config_mut() = config;
        Self { plan, context: state.task_ctx(), inputs, budget: Budget::new(bytes) }
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
        let mut rows = stream(&self.plan, &self.context)?;
        let budget = Arc::clone(&self.budget);
        let within = move |context: &mut Context<'_>| budget.run(|| rows.poll_next_unpin(context));
        Ok(futures::stream::poll_fn(within).boxed())
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
        let (plan, context) = (Arc::clone(&self.plan), Arc::clone(&self.context));
        let work = async move { run(&plan, &context).await };
        let out = self.budget.within(Box::pin(work)).await;
        self.inputs.clear();
        out
    }
}
