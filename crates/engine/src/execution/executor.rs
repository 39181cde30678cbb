//! Executes the bounded plans of a statement.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, collect_partitioned, execute_stream};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use windrow_core::{ErrorKind, Result};
use windrow_query::queue::{RowReceiver, RowSender, queue};
use windrow_stream::memory::plan_error;

use crate::execution::context::StatementContext;
use crate::execution::expansion::{BatchFit, check_expansion};
use crate::execution::memory::task_context;
use crate::execution::outcome::{Outcome, ResultStream, Stop};
use crate::execution::running::Running;
use crate::execution::task::AbortOnDrop;
use crate::instance::planners::EndOnDrop;

/// Executes the plans of one statement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Executor<'a> {
    cx: &'a StatementContext,
}

impl<'a> Executor<'a> {
    /// Creates the executor of a statement.
    pub(super) fn new(cx: &'a StatementContext) -> Self {
        Self { cx }
    }

    /// Returns a queue of rows for a reader, of up to `batches` batches.
    pub(crate) fn queue(self, batches: usize) -> (RowSender, RowReceiver) {
        let memory = self.cx.instance.parts.memory.as_ref();
        queue(batches, memory.map(|memory| memory.queue_bytes()))
    }

    /// Executes the bounded form of a plan over the current rows.
    ///
    /// # Errors
    /// When it cannot be planned, or a view that it reads has failed.
    pub(crate) fn bounded(self, plan: LogicalPlan) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            self.cx.skipped.add_reads(&plan, self.cx.catalog())?;
            let physical = self.cx.planner().physical(self.cx.state(), plan.clone()).await?;
            let rows = self.spawn(physical, Some(plan));
            Ok(Outcome::Rows(rows.skipping(&self.cx.skipped)))
        })
    }

    /// Executes a physical plan in the background.
    pub(crate) fn stream(self, plan: Arc<dyn ExecutionPlan>) -> ResultStream {
        self.spawn(plan, None)
    }

    /// Executes a physical plan to its end.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) fn collect(
        self,
        plan: Arc<dyn ExecutionPlan>,
    ) -> BoxFuture<'a, Result<Vec<RecordBatch>>> {
        Box::pin(async move { self.stream(plan).try_collect().await })
    }

    /// Executes all partitions of a physical plan to their end, at the same time.
    ///
    /// # Errors
    /// When one fails.
    pub(crate) fn collect_partitions(
        self,
        plan: Arc<dyn ExecutionPlan>,
    ) -> BoxFuture<'a, Result<Vec<Vec<RecordBatch>>>> {
        Box::pin(async move {
            let (plan, _) = guarded(plan, self.cx.running.is_some())?;
            let context = task_context(self.cx, &self.cx.session.state());
            let budget = &self.cx.budget;
            let unless_done = EndOnDrop::new(budget);
            let work = async move {
                let env = context.runtime_env();
                collect_partitioned(plan, context).await.map_err(|e| plan_error(e, &env))
            };
            let work = self.cx.instance.parts.cpu.spawn(budget.within(Box::pin(work)));
            let rows = AbortOnDrop(work).await?;
            unless_done.done();
            Ok(rows)
        })
    }

    /// Executes a physical plan in the background. `logical`: the plan to replan where smaller batches are needed.
    fn spawn(self, plan: Arc<dyn ExecutionPlan>, logical: Option<LogicalPlan>) -> ResultStream {
        let schema = plan.schema();
        let running = self.cx.running.clone();
        let (sender, receiver) = self.queue(self.cx.limits().queue_batches_max);
        // The work is a task of its own: it may be long before it yields, and the deadline is watched meanwhile.
        let (budget, cpu) = (&self.cx.budget, &self.cx.instance.parts.cpu);
        let unless_done = EndOnDrop::new(budget);
        let (rows, cx) = (sender.clone(), self.cx.clone());
        let work = async move { produce(&cx, plan, logical, rows).await };
        let work = AbortOnDrop(cpu.spawn(budget.within(Box::pin(work))));
        let task = cpu.spawn(async move {
            let over = running.as_ref().map(Running::over);
            let over = over.unwrap_or_else(|| futures::future::pending().boxed());
            let failed = tokio::select! {
                done = work => {
                    unless_done.done();
                    done.err()
                }
                error = over => {
                    drop(unless_done);
                    Some(error)
                }
            };
            if let Some(error) = failed {
                // A reader that is gone needs no error.
                drop(sender.send(Err(error)).await);
            }
        });
        ResultStream::new(schema, None, receiver, Stop::Task(task))
    }
}

/// Executes a plan until it ends or the reader is gone. Rows that are too wide for large batches are retried in smaller ones,
/// with a new physical plan of `logical`.
async fn produce(
    cx: &StatementContext,
    mut plan: Arc<dyn ExecutionPlan>,
    logical: Option<LogicalPlan>,
    sender: RowSender,
) -> Result<()> {
    let mut context = task_context(cx, &cx.session.state());
    let mut sent = false;
    loop {
        let (guarded, fit) = guarded(plan, cx.running.is_some())?;
        let batch_rows = context.session_config().batch_size();
        let done = produce_once(guarded, context, &sender, &mut sent).await;
        let smaller = fit.smaller(batch_rows).filter(|_| !sent).zip(logical.clone());
        match (done, smaller) {
            (Err(error), Some((rows, logical))) if error.kind() == ErrorKind::Limit => {
                tracing::info!(rows, %error, "a statement is retried with smaller batches");
                let mut state = cx.state();
                *state.config_mut() = state.config().clone().with_batch_size(rows);
                context = task_context(cx, &state);
                plan = cx.planner().physical(state, logical).await?;
            }
            (done, _) => return done,
        }
    }
}

/// Executes a plan until it ends or the reader is gone. `sent` is set when the reader gets rows.
async fn produce_once(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    sender: &RowSender,
    sent: &mut bool,
) -> Result<()> {
    let env = context.runtime_env();
    let mut rows = execute_stream(plan, context).map_err(|e| plan_error(e, &env))?;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|e| plan_error(e, &env))?;
        *sent = true;
        if sender.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Makes a plan interruptible, and checks the memory of operators that expand rows.
fn guarded(
    plan: Arc<dyn ExecutionPlan>,
    strict: bool,
) -> Result<(Arc<dyn ExecutionPlan>, Arc<BatchFit>)> {
    check_expansion(interruptible(plan), strict)
}

/// Makes operators yield that can produce rows for hours out of one batch, so that the plan can be stopped.
fn interruptible(plan: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
    let wrapped = Arc::clone(&plan).transform_up(|node| {
        Ok(if node.name().contains("Join") || node.name().contains("Unnest") {
            Transformed::yes(Arc::new(CooperativeExec::new(node)) as _)
        } else {
            Transformed::no(node)
        })
    });
    // Without it the plan gives the same rows.
    wrapped.map_or(plan, |wrapped| wrapped.data)
}
