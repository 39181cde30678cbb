//! Builds a materialized view from its plan, and starts it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::logical_expr::LogicalPlan;
use futures::future::BoxFuture;
use windrow_core::{Error, EventTimeColumn, Place, Result, StreamSchema, Watermark};
use windrow_query::output::Output;
use windrow_query::shared::Status;
use windrow_query::start::{QuerySetup, Ready, ready};
use windrow_query::versions::Recorder;
use windrow_sql::plan::{ContinuousPlan, RowChanges};
use windrow_storage::checkpoint::Checkpoints;
use windrow_stream::answer::{AnswerTable, LiveAnswer};
use windrow_stream::checks::Checks;
use windrow_stream::log::{Room, StreamLog};
use windrow_stream::push::PushStream;
use windrow_stream::spill::Spiller;
use windrow_stream::{Feed, Stream};

use crate::catalog::{Materialized, Object};
use crate::durable::definitions::Definition;
use crate::durable::table_versions::VersionFiles;
use crate::execution::context::StatementContext;
use crate::execution::creation::{Creation, start_retention};
use crate::views::shape::{is_stateless, reach};
use crate::views::storage::{StorageSpec, ViewStorage, write_first_checkpoint};
use crate::views::tables::keep_tables;

/// A materialized view that is to be created.
#[derive(Debug)]
pub(crate) struct NewView {
    /// Its name.
    pub(crate) name: String,
    /// The statement that creates it.
    pub(crate) text: String,
    /// The streams and views that it reads.
    pub(crate) reads: Vec<String>,
    /// The bounded form of its query.
    pub(crate) bounded: LogicalPlan,
    /// The stream that takes its late rows.
    pub(crate) late_to: Option<Arc<PushStream>>,
    /// The offsets at which it begins to read logs, by name; others from their beginning.
    pub(crate) from: BTreeMap<String, u64>,
    /// Whether it begins after the last row that its streams have when it is created.
    pub(crate) starts_late: bool,
    /// Maximum age of its rows, and the place of the option in the statement.
    pub(crate) retention: Option<(Duration, Place)>,
    /// Whether rows whose expressions fail become bad rows.
    pub(crate) skips_rows: bool,
    /// Two views with equal fingerprints have the same rows; `None`: unknown.
    pub(crate) fingerprint: Option<String>,
    /// The stream that its rows are copied to, which cannot be dropped before it.
    pub(crate) feeds: Option<String>,
}

/// Refuses a query that cannot resume from a checkpoint if views are durable.
///
/// # Errors
/// When there is a data directory and the query cannot resume.
pub(crate) fn check_resumable(cx: &StatementContext, plan: &ContinuousPlan) -> Result<()> {
    if plan.is_resumable() || cx.instance.store.is_none() {
        return Ok(());
    }
    if plan.has_early_results() {
        return Err(Error::sql("early results of windows cannot be kept in a data directory").with_hint(
            "Use EMIT FINAL for the view, or run it without a data directory. SELECT … EMIT CHANGES shows early results here too.",
        ));
    }
    Err(Error::sql("the state of this query cannot be kept in a data directory").with_hint(
        "Use one aggregate, DISTINCT or windows in the view, or run it without a data directory. SELECT … EMIT CHANGES \
         works here too.",
    ))
}

/// A materialized view before its query runs.
#[derive(Debug)]
pub(super) struct BuiltView {
    /// The view.
    pub(super) view: Arc<Materialized>,
    /// The table that the planner scans.
    pub(super) relation: Arc<dyn TableProvider>,
    /// Its query.
    pub(super) query: Ready,
    /// The end up to which windows are in the archive.
    archived: Watermark,
}

impl NewView {
    /// Returns the view of the query of a continuous INSERT into the stream `feeds`.
    pub(crate) fn of_insert(
        name: &str,
        feeds: &str,
        text: &str,
        (reads, bounded): (Vec<String>, LogicalPlan),
    ) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            reads,
            bounded,
            late_to: None,
            from: BTreeMap::new(),
            starts_late: false,
            retention: None,
            skips_rows: false,
            fingerprint: None,
            feeds: Some(feeds.to_owned()),
        }
    }

    /// Builds the view, adds it to the catalog and starts its query, unless it has ended or failed before.
    ///
    /// # Errors
    /// When it cannot be built, or its name is taken.
    pub(crate) fn start<'a>(
        self,
        cx: &'a StatementContext,
        plan: ContinuousPlan,
        definition: Option<Definition>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (name, text, feeds) = (self.name.clone(), self.text.clone(), self.feeds.clone());
            let failure = previous_failure(cx, &name, &self.reads)?;
            let id = definition.as_ref().map(|definition| definition.id);
            let built = self.build(cx, &name, plan, definition.clone()).await;
            let complete = || Creation::new(cx, &name).complete(definition.as_ref());
            let built = built.and_then(|built| complete().map(|()| built));
            let BuiltView { view, relation, query, archived } = match built {
                Ok(built) => built,
                Err(error) => {
                    // Its archiving may have started.
                    cx.instance.release(&name).await;
                    return Err(error);
                }
            };
            let (shared, mut reads) = (Arc::clone(&view.query), view.reads.clone());
            reads.extend(feeds);
            let object = Object::Materialized(Arc::clone(&view));
            cx.catalog().add(&name, object, relation, (&text, reads))?;
            if archived == Watermark::END {
                // All its windows are in the archive, and no more will come.
                shared.state.lock().watermark = archived;
                shared.finish(Status::Finished);
            } else if let Some(error) = failure {
                shared.fail_as_before(error);
                cx.instance.notice(view.check().map_or_else(|error| error.to_string(), |()| name));
            } else {
                cx.instance.watch_failure(&view, id);
                cx.instance.enqueue(query);
                if view.checkpoints.is_some() {
                    cx.instance.start_checkpoints(shared, view.spiller.clone());
                }
            }
            Ok(())
        })
    }

    /// Builds the view with its storage and its query. It is not in the catalog yet, and nothing runs but the archiving and
    /// the retention of its log, which `key` identifies in the instance.
    ///
    /// # Errors
    /// When its storage cannot be opened, or its query not be planned.
    pub(super) fn build<'a>(
        self,
        cx: &'a StatementContext,
        key: &'a str,
        plan: ContinuousPlan,
        definition: Option<Definition>,
    ) -> BoxFuture<'a, Result<BuiltView>> {
        Box::pin(async move {
            let event_times = plan.event_times.clone();
            let spec = StorageSpec {
                name: &self.name,
                key,
                reads: &self.reads,
                plan: &plan,
                has_late_to: self.late_to.is_some(),
                starts_late: self.starts_late,
                reach_ticks: reach(&self.bounded)?.max(plan.reach_ticks()),
            };
            let storage = ViewStorage::open(cx, &spec, definition.clone()).await?;
            let reach_ticks = spec.reach_ticks;
            let kept = definition.filter(|_| storage.spiller.is_some());
            let recorder = recorder(cx, kept.as_ref())?;
            let (plan, bounded) = match kept {
                Some(definition) => {
                    keep_tables(cx, &definition, (plan, self.bounded.clone())).await?
                }
                None => (plan, self.bounded.clone()),
            };
            let shared = cx.instance.parts.new_query(Some(self.name.clone()));
            shared.fills(&storage.log);
            if let Some(spiller) = &storage.spiller {
                spiller.is_of(&shared);
            }
            let rows = storage.log.state().rows;
            shared.ledger.add_rows_out(usize::try_from(rows).unwrap_or(usize::MAX));
            let answer = answer(cx, &self.name, &plan)?;
            let stream = self.stream(cx, key, (&storage.log, storage.spiller.as_ref()), &plan)?;
            let is_stateless = is_stateless(&plan.root);
            let from = storage.began(self.from);
            let setup = QuerySetup {
                archived: storage.archived,
                from: from.clone(),
                checkpointer: storage.checkpointer(cx),
                skips_rows: self.skips_rows,
                recorder,
                ..QuerySetup::new(Arc::clone(&shared), output(cx, &storage, &answer), self.late_to)
            };
            let ViewStorage { log, archived, spiller, checkpoints, resume, .. } = storage;
            let setup = QuerySetup { resume, ..setup };
            let begin = begin(cx, plan, setup, (checkpoints.as_ref(), spiller.as_ref()));
            // A query that never runs must not be listed as running.
            let query = begin.await.inspect_err(|_| shared.cancel())?;
            let view = Materialized {
                name: self.name,
                log: Arc::clone(&log),
                answer: answer.clone(),
                stream: Arc::clone(&stream),
                query: shared,
                pump: OnceLock::new(),
                spiller,
                checkpoints,
                bounded: self.reads.iter().all(|name| cx.catalog().is_bounded(name)),
                reads: self.reads,
                event_time: event_times.first().copied(),
                is_stateless,
                fingerprint: self.fingerprint,
                from,
                reach_ticks,
                plan: bounded,
            };
            let relation: Arc<dyn TableProvider> = match answer {
                Some(answer) => Arc::new(AnswerTable::new(answer, log)),
                None => Arc::new(stream.relation(Some(event_times))),
            };
            Ok(BuiltView { view: Arc::new(view), relation, query, archived })
        })
    }

    /// Returns the output of the view as a stream, for its readers.
    fn stream(
        &self,
        cx: &StatementContext,
        key: &str,
        log: (&Arc<StreamLog>, Option<&Arc<Spiller>>),
        plan: &ContinuousPlan,
    ) -> Result<Arc<Stream>> {
        let parts = &cx.instance.parts;
        let event_time = plan.event_times.first();
        let event_time = event_time.map(|e| EventTimeColumn { index: e.column, delay_ticks: 0 });
        let schema = StreamSchema::try_new(Arc::clone(&plan.schema), event_time)?;
        let retention = self.retention.map(|(keep, place)| {
            start_retention(cx, (&self.name, key), log, &schema, Some(keep))
                .map_err(|e| e.with_place(place))
        });
        Ok(Arc::new(Stream {
            name: self.name.clone(),
            retention: retention.transpose()?,
            schema,
            key: None,
            feed: Feed::View(Arc::clone(log.0)),
            history: None,
            receiver: None,
            when_idle: None,
            max_future_skew_micros: None,
            checks: Checks::default(),
            connector: "view".to_owned(),
            replayable: true,
            bad_rows: Arc::clone(&parts.bad_rows),
            clock: Arc::clone(&parts.clock),
            older: vec![],
        }))
    }
}

/// Returns the empty set of current rows of a view with an updating result.
fn answer(
    cx: &StatementContext,
    view: &str,
    plan: &ContinuousPlan,
) -> Result<Option<Arc<LiveAnswer>>> {
    let key = match plan.changes() {
        RowChanges::AppendOnly => return Ok(None),
        RowChanges::Upsert { key } => Some(&key[..]),
        RowChanges::Retracting => None,
    };
    let memory = MemoryConsumer::new(format!("rows of view \"{view}\""))
        .register(&cx.instance.parts.env.memory_pool);
    Ok(Some(Arc::new(LiveAnswer::new(&plan.schema, key, memory)?)))
}

/// Returns where a durable view records the versions of refreshed tables.
///
/// # Errors
/// When its records are damaged.
fn recorder(
    cx: &StatementContext,
    definition: Option<&Definition>,
) -> Result<Option<Arc<dyn Recorder>>> {
    let (Some(store), Some(definition)) = (&cx.instance.store, definition) else { return Ok(None) };
    let files = VersionFiles::open(store, definition, &cx.instance.parts.clock)?;
    Ok(Some(Arc::new(files)))
}

/// Returns the destination of the rows of a view.
fn output(
    cx: &StatementContext,
    storage: &ViewStorage,
    answer: &Option<Arc<LiveAnswer>>,
) -> Output {
    Output::View {
        log: Arc::clone(&storage.log),
        room: storage.spiller.as_ref().map(|_| Room::of(&cx.instance.parts.limits)),
        archived_rows: Arc::new(AtomicU64::new(storage.archived_rows)),
        answer: answer.clone(),
    }
}

/// Creates the query of a view, and its first checkpoint if the view is new and has checkpoints.
fn begin<'a>(
    cx: &'a StatementContext,
    plan: ContinuousPlan,
    setup: QuerySetup,
    (checkpoints, spiller): (Option<&'a Arc<Checkpoints>>, Option<&'a Arc<Spiller>>),
) -> BoxFuture<'a, Result<Ready>> {
    Box::pin(async move {
        let mut query = ready(cx.catalog().as_ref(), &cx.state(), plan, setup).await?;
        if let (Some(checkpoints), None) = (checkpoints, &cx.restoring) {
            write_first_checkpoint(cx, (checkpoints, spiller), &mut query).await?;
        }
        Ok(query)
    })
}

/// Returns the error with which a view that is being restored fails at once, because it has failed before on the same rows or
/// something that it reads has failed; `None`: it runs.
///
/// # Errors
/// When the data directory cannot record that a failed view is retried.
fn previous_failure(cx: &StatementContext, view: &str, reads: &[String]) -> Result<Option<Error>> {
    let (Some(definition), Some(store)) = (&cx.restoring, &cx.instance.store) else {
        return Ok(None);
    };
    let failure = store.failure(definition.id);
    if let Some(failure) = failure.as_ref().filter(|failure| failure.again) {
        return Ok(Some(failure.error()));
    }
    if let Err(error) = cx.catalog().check_reads(reads) {
        return Ok(Some(error));
    }
    if let Some(failure) = failure {
        let why = failure.error();
        cx.instance.notice(format!("view \"{view}\" had failed ({why}), it is retried"));
        store.note_failure(definition.id, None)?;
    }
    Ok(None)
}
