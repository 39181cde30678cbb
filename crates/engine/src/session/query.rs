//! `SELECT`: bounded, or continuous with EMIT; `SUBSCRIBE`; and DataFusion's own statements.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::source_as_provider;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::{ExecutionPlan, collect_partitioned, execute_stream};
use datafusion::sql::parser::Statement as EngineStatement;
use futures::{FutureExt, StreamExt, TryStreamExt};
use sqlparser::ast::ObjectName;
use windrow_core::{Error, ErrorKind, Result, ScanRequest, Source};
use windrow_query::output::Output;
use windrow_query::promise::Promise;
use windrow_query::queue::{RowReceiver, RowSender, queue};
use windrow_query::start::{QuerySetup, launch, ready};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{ContinuousQuery, Tail};
use windrow_sql::plan::{ContinuousPlan, StreamRelation, bounded, distinct_columns};
use windrow_stream::lengths::no_lengths;
use windrow_stream::log_reader::{LogSource, dropped};
use windrow_stream::memory::of_plan;
use windrow_stream::push::PushStream;

use crate::catalog::{Object, plain_name};
use crate::session::copy;
use crate::session::outcome::{Following, Stop};
use crate::session::planning::EndOnDrop;
use crate::session::room::{Room, with_room};
use crate::session::running::Running;
use crate::session::tables::{Change, fills_memory, held_by_table};
use crate::session::{AbortOnDrop, Done, Outcome, ResultStream, Session};

/// Rows of one batch of a subscription. A reader that stands still holds some of them.
const SUBSCRIBED_ROWS_MAX: usize = 8_192;

impl Session {
    pub(super) async fn query(&self, query: ContinuousQuery) -> Result<Outcome> {
        let plan = self.plan(&query.query, &[]).await?;
        if query.tail.is_empty() {
            return self.bounded(plan).await;
        }
        let reads = streams_read(&plan)?;
        let (plan, first) = self.continuous_query(plan, &query).await?;
        if self.options.push_ends {
            self.catch_up(&reads).await?;
        }
        let late_to = self.late_to(&query.tail, &reads)?;
        let shared = self.engine.parts.new_query(None);
        let schema = Arc::clone(&plan.schema);
        let (sender, receiver) = self.queue(self.limits().queue_batches_max);
        let time = plan.event_times.first().map(|t| schema.field(t.column).data_type().clone());
        let following = Following::new(0, time);
        let output = Output::Client { rows: sender, promise: following.promise() };
        let wanted = QuerySetup {
            push_ends: self.options.push_ends,
            ..QuerySetup::new(Arc::clone(&shared), output, late_to)
        };
        self.start_now(plan, wanted).await?;
        let stop = Stop::Query(shared);
        let rows = ResultStream::new(schema, Some(following), receiver, stop);
        Ok(Outcome::Rows(rows.only(first)))
    }

    /// The way of rows to a reader.
    fn queue(&self, batches: usize) -> (RowSender, RowReceiver) {
        queue(batches, self.engine.parts.memory.as_ref().map(|memory| memory.queue_bytes()))
    }

    /// Starts a continuous query at once.
    pub(super) async fn start_now(&self, plan: ContinuousPlan, wanted: QuerySetup) -> Result<()> {
        let parts = &self.engine.parts;
        let query = ready(self.engine.catalog.as_ref(), &self.state(), plan, wanted).await?;
        launch(parts, vec![query]);
        Ok(())
    }

    /// `LATE DATA TO name`: the push stream that takes late rows; made when it does not exist,
    /// with the columns of the (one) stream that the query reads.
    pub(super) fn late_to(&self, tail: &Tail, reads: &[String]) -> Result<Option<Arc<PushStream>>> {
        let Some(name) = &tail.late_data_to else { return Ok(None) };
        self.late_stream(&plain_name(name)?, reads).map(Some)
    }

    /// Runs a plan over what is there now.
    pub(super) async fn bounded(&self, plan: LogicalPlan) -> Result<Outcome> {
        self.unseen.reads(&plan, &self.engine.catalog)?;
        let physical = self.physical(self.state(), plan.clone()).await?;
        let rows = self.execute_again(physical, Some(plan));
        Ok(Outcome::Rows(rows.not_seeing(&self.unseen)))
    }

    /// The same as a plan that gives the rows in the order of what is read, on one thread.
    pub(super) async fn physical_in_order(
        &self,
        plan: LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut state = self.state();
        state.config_mut().options_mut().execution.target_partitions = 1;
        self.unseen.reads(&plan, &self.engine.catalog)?;
        self.physical(state, plan).await
    }

    /// Executes a physical plan in the background.
    pub(super) fn execute_plan(&self, plan: Arc<dyn ExecutionPlan>) -> ResultStream {
        self.execute_again(plan, None)
    }

    /// The same; from `again` it may be made once more.
    fn execute_again(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        again: Option<LogicalPlan>,
    ) -> ResultStream {
        let schema = plan.schema();
        let running = self.running.clone();
        let (sender, receiver) = self.queue(self.limits().queue_batches_max);
        // The work is another task than who looks at the time: it may be long before it yields.
        let (budget, cpu) = (self.budget(), &self.engine.parts.cpu);
        let unless_done = EndOnDrop::new(&budget);
        let (rows, session) = (sender.clone(), self.clone());
        let work = async move { session.produce(plan, again, rows).await };
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
                // Nobody to tell when the client is gone.
                drop(sender.send(Err(error)).await);
            }
        });
        ResultStream::new(schema, None, receiver, Stop::Task(task))
    }

    /// Executes a plan; ends when the reader is gone. Rows that are too wide for batches of many are tried
    /// in smaller ones, with the physical form that `again` has then.
    async fn produce(
        &self,
        mut plan: Arc<dyn ExecutionPlan>,
        again: Option<LogicalPlan>,
        sender: RowSender,
    ) -> Result<()> {
        let mut context = self.task_context(&self.context.state());
        let mut sent = false;
        loop {
            let (guarded, room) = guarded(plan, self.running.is_some())?;
            let batch_rows = context.session_config().batch_size();
            let done = produce_once(guarded, context, &sender, &mut sent).await;
            let smaller = room.smaller(batch_rows).filter(|_| !sent).zip(again.clone());
            match (done, smaller) {
                (Err(error), Some((rows, logical))) if error.kind() == ErrorKind::Limit => {
                    tracing::info!(rows, %error, "a statement is run again in smaller batches");
                    let mut state = self.state();
                    *state.config_mut() = state.config().clone().with_batch_size(rows);
                    context = self.task_context(&state);
                    plan = self.physical(state, logical).await?;
                }
                (done, _) => return done,
            }
        }
    }

    /// Executes a physical plan to its end.
    pub(super) async fn run_plan(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
        self.execute_plan(plan).try_collect().await
    }

    /// The same, partition by partition, all at once.
    pub(super) async fn run_partitions(
        &self,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<Vec<Vec<RecordBatch>>> {
        let (plan, _) = guarded(plan, self.running.is_some())?;
        let context = self.task_context(&self.context.state());
        let budget = self.budget();
        let unless_done = EndOnDrop::new(&budget);
        let work = async move {
            let env = context.runtime_env();
            collect_partitioned(plan, context).await.map_err(|e| of_plan(e, &env))
        };
        let work = self.engine.parts.cpu.spawn(budget.within(Box::pin(work)));
        let rows = AbortOnDrop(work).await?;
        unless_done.done();
        Ok(rows)
    }

    /// Everything that is DataFusion's own: reference tables, COPY, SET, SHOW, …
    pub(super) async fn standard(&self, statement: EngineStatement, text: &str) -> Result<Outcome> {
        // What was accepted once is there again.
        if self.restoring.is_none() {
            no_lengths(&statement)?;
        }
        let said = said(&statement);
        let plan = self.standard_plan(statement).await?;
        let plan = self.bound(plan)?;
        self.check_plan(&plan)?;
        let plan = self.in_places(plan)?;
        self.check_header(&plan).await?;
        match &plan {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
                distinct_columns(&table.input)?;
                self.unseen.reads(&plan, &self.engine.catalog)?;
            }
            LogicalPlan::Copy(copy) => distinct_columns(&copy.input)?,
            _ => {}
        }
        let change = Change::of(&plan);
        if let LogicalPlan::Dml(_) | LogicalPlan::Copy(_) = &plan {
            return self.written(plan, change, text).await;
        }
        let plan = match plan {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => self.filled(table).await?,
            plan @ (LogicalPlan::Ddl(_) | LogicalPlan::Statement(_)) => bounded(plan)?,
            plan => return self.bounded(plan).await,
        };
        let frame = self.context.execute_logical_plan(plan).await.map_err(from_datafusion)?;
        let (state, plan) = frame.into_parts();
        let plan = self.physical(state, plan).await?;
        if !plan.schema().fields().is_empty() {
            return Ok(Outcome::Rows(self.execute_plan(plan)));
        }
        // Done already; running it shows what failed late.
        self.run_plan(plan).await?;
        if let Some(change) = change {
            self.keep_change(change, text).await?;
        }
        Ok(Outcome::Done((said + &self.unseen.total().aside()).into()))
    }

    /// Rows that are written: to a table, to a file.
    async fn written(
        &self,
        plan: LogicalPlan,
        change: Option<Change>,
        text: &str,
    ) -> Result<Outcome> {
        // What is written keeps the order of what is read: a stream's rows in another order
        // would be late rows when they are read back.
        let in_memory = fills_memory(&plan);
        let physical = self.physical_in_order(plan.clone()).await?;
        let physical = if in_memory { held_by_table(physical)? } else { physical };
        let rows = copy::count(&self.run_plan(physical).await?)?;
        // How many rows were changed is told when they are durable.
        if let Some(change) = change {
            self.keep_change(change, text).await?;
        }
        let said = copy::written(&plan, rows) + &self.unseen.total().aside();
        Ok(Outcome::Done(Done { said, rows: Some(rows) }))
    }

    /// Follows a view from now on, or from a sequence number on (sequence numbers count the
    /// rows of the view from 1).
    pub(super) async fn subscribe(&self, view: &ObjectName, after: Option<u64>) -> Result<Outcome> {
        let name = plain_name(view)?;
        let view = self.engine.catalog.materialized(&name)?;
        let mut held = view.log.state();
        let from = after.unwrap_or(held.rows);
        if from > held.rows && self.engine.catalog.waits_for_pushes(&name) {
            // Rows that were not archived when the process ended are recomputed.
            self.wait_consumed(&view).await?;
        }
        held = view.log.state();
        if from > held.rows && (held.ended || self.engine.catalog.waits_for_pushes(&name)) {
            return Err(not_there(&name, from, held.rows));
        }
        if from < held.first {
            return Err(dropped(from, held.first));
        }
        let source = LogSource::follow(Arc::clone(&view.log), Some(from), true);
        let request = ScanRequest {
            projection: (0..view.log.schema().fields().len()).collect(),
            predicates: vec![],
            event_time: None,
            from: None,
            place: None,
            past: 0,
            until_now: false,
            batch_rows_max: self.limits().batch_rows_max.min(SUBSCRIBED_ROWS_MAX),
        };
        // A slow reader holds the batch that it reads and the next one, no queue of them.
        let (sender, receiver) = self.queue(1);
        let time = view.event_time.map(|t| view.log.schema().field(t.column).data_type().clone());
        let following = Following::new(from, time);
        let follow = follow(source, request, following.promise(), sender.clone());
        let query = Arc::clone(&view.query);
        let task = self.engine.parts.cpu.spawn(async move {
            if let Err(error) = follow.await {
                tracing::warn!(query = query.name, %error, "subscription ended");
                // A reader that is gone needs no error.
                drop(sender.send(Err(error)).await);
            }
        });
        let schema = Arc::clone(view.log.schema());
        let stop = Stop::Task(task);
        Ok(Outcome::Rows(ResultStream::new(schema, Some(following), receiver, stop)))
    }

    /// Waits until the views that are read here, or replayed, have taken in what was pushed.
    pub(super) async fn catch_up(&self, reads: &[String]) -> Result<()> {
        for name in reads {
            if let Some(Object::Stream(_)) = self.engine.catalog.get(name) {
                Box::pin(self.catch_up(&self.engine.catalog.reads(name))).await?;
            }
            if let Some(Object::Materialized(view)) = self.engine.catalog.get(name)
                && self.engine.catalog.waits_for_pushes(name)
            {
                self.wait_consumed(&view).await?;
            }
        }
        Ok(())
    }
}

/// The same plan, which gives way, and looks whether there is room for what it makes.
fn guarded(
    plan: Arc<dyn ExecutionPlan>,
    strict: bool,
) -> Result<(Arc<dyn ExecutionPlan>, Arc<Room>)> {
    with_room(interruptible(plan), strict)
}

/// The same plan, which gives way now and then. A join can make rows for hours out of one batch; whoever
/// wants to stop it would not be heard.
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

/// The error for a request to continue after rows that a view does not have.
fn not_there(view: &str, after: u64, rows: u64) -> Error {
    Error::data(format!("view \"{view}\" has {rows} rows, and none after row {after}"))
        .with_detail(
            "If it had more before, it has lost them, or has been made anew since: what comes now may have numbers \
             that were given to other rows.",
        )
        .with_hint(format!("Read what it holds: SUBSCRIBE TO {view} AFTER 0."))
}

/// Executes a plan; ends when the reader is gone. `sent`: it has been given rows.
async fn produce_once(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    sender: &RowSender,
    sent: &mut bool,
) -> Result<()> {
    let env = context.runtime_env();
    let mut rows = execute_stream(plan, context).map_err(|e| of_plan(e, &env))?;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|e| of_plan(e, &env))?;
        *sent = true;
        if sender.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Hands on all rows of a source until it ends or the reader is gone.
async fn follow(
    source: LogSource,
    request: ScanRequest,
    promise: Arc<Promise>,
    sender: RowSender,
) -> Result<()> {
    for partition in source.discover().await? {
        for split in &partition.splits {
            let mut reader = source.open(split, &request).await?;
            while let Some(batch) = reader.next().await? {
                promise.count(batch.rows.num_rows());
                if batch.rows.num_rows() > 0 && sender.send(Ok(batch.rows)).await.is_err() {
                    return Ok(());
                }
                if let Some(watermark) = batch.watermark {
                    promise.tell(watermark);
                }
            }
        }
    }
    Ok(())
}

/// The names of the streams and views that a plan reads.
pub(crate) fn streams_read(plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut names = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(stream) = provider.downcast_ref::<StreamRelation>()
        {
            names.push(stream.name().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The command tag of a statement: its first two words.
fn said(statement: &EngineStatement) -> String {
    let text = statement.to_string();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    words.join(" ").to_uppercase()
}
