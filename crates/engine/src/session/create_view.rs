//! `CREATE [MATERIALIZED] VIEW`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use datafusion::catalog::view::ViewTable;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, EventTimeColumn, Place, Result, StreamSchema, Watermark, Windows};
use windrow_query::output::Output;
use windrow_query::shared::Status;
use windrow_query::start::{QuerySetup, Ready, ready};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::CreateView;
use windrow_sql::plan::{
    ContinuousPlan, Flow, Leaf, StreamRelation, WindowAssign, distinct_columns,
};
use windrow_stream::log::Room;
use windrow_stream::log::StreamLog;
use windrow_stream::push::PushStream;
use windrow_stream::spill::Spiller;
use windrow_stream::{Feed, Stream};

use crate::catalog::{Materialized, Object, plain_name, read_by};
use crate::durable::definitions::{Definition, Kind};
use crate::session::kept_view::{KeptView, ViewParts, plan_text};
use crate::session::query::streams_read;
use crate::session::stream_options::timeless;
use crate::session::view_options::ViewOptions;
use crate::session::{Outcome, Session};

/// A materialized view before it is made.
pub(super) struct NewView {
    pub(super) name: String,
    pub(super) reads: Vec<String>,
    late_to: Option<Arc<PushStream>>,
    pub(super) text: String,
    /// Its query, as the bounded form has it.
    bounded: LogicalPlan,
    /// Where it begins to read logs, if not at their beginning.
    from: BTreeMap<String, u64>,
    /// It begins behind what its streams hold when it is made.
    starts_late: bool,
    retention: Option<(Duration, Place)>,
    /// Rows whose expressions fail are bad rows.
    skips_rows: bool,
    /// A view with an equal one has the same rows, whatever its text; `None`: nobody knows.
    same_as: Option<String>,
    /// The stream that its rows are copied to, which may not be dropped before it.
    feeds: Option<String>,
}

impl NewView {
    /// What a continuous INSERT into the stream `feeds` keeps.
    pub(super) fn of_insert(
        name: &str,
        feeds: &str,
        text: &str,
        (reads, bounded): (Vec<String>, LogicalPlan),
    ) -> Self {
        Self {
            name: name.to_owned(),
            reads,
            late_to: None,
            text: text.to_owned(),
            bounded,
            from: BTreeMap::new(),
            starts_late: false,
            retention: None,
            skips_rows: false,
            same_as: None,
            feeds: Some(feeds.to_owned()),
        }
    }
}

/// A materialized view before it runs.
pub(super) struct Made {
    pub(super) view: Arc<Materialized>,
    /// What the planner scans.
    pub(super) relation: Arc<StreamRelation>,
    pub(super) query: Ready,
    /// Its windows that end here or before are in the archive already.
    archived: Watermark,
}

impl Session {
    pub(super) async fn create_view(&self, create: CreateView, text: &str) -> Result<Outcome> {
        let name = plain_name(&create.name)?;
        let kind = if create.materialized { "materialized view" } else { "view" };
        let said = format!("CREATE {}", kind.to_uppercase());
        if self.taken(&name, create.or_replace, create.if_not_exists, kind)? {
            return Ok(Outcome::Done(format!("{said} (exists already)").into()));
        }
        let plan = self.plan(&create.query.query, &create.columns).await?;
        distinct_columns(&plan)?;
        let reads = streams_read(&plan)?;
        if reads.contains(&name) {
            return Err(Error::sql(format!("{kind} \"{name}\" would read itself")));
        }
        if !create.materialized {
            self.create_name(&create, (&name, text), plan, reads).await?;
            return Ok(Outcome::Done(said.into()));
        }
        if self.restoring.is_none() {
            self.engine.catalog.check_reads(&reads)?;
        }
        let options = ViewOptions::read(&create.options)?;
        let plan = options.begin(plan)?;
        let from = self.start_offsets(&options, &reads).await?;
        let bounded = plan.clone();
        let plan = self.continuous(plan, &create.query.tail).await?;
        if let (Some((_, place)), true) = (options.retention, plan.event_times.is_empty()) {
            return Err(timeless(&name).with_place(place));
        }
        let old = match self.engine.catalog.get(&name) {
            Some(Object::Materialized(old)) => Some(old),
            _ => None,
        };
        if let (Some(_), Some(reader)) = (&old, self.engine.catalog.readers(&name).first()) {
            return Err(read_by(&name, reader));
        }
        if let (Some(_), Some(late)) = (&old, &create.query.tail.late_data_to) {
            self.refuse_doubled(&plain_name(late)?)?;
        }
        let late_to = self.late_to(&create.query.tail, &reads)?;
        let same_as = same_as(&options, &plan, &bounded, late_to.is_some())?;
        if let Some(old) = old.as_ref().filter(|old| {
            let lives = matches!(old.query.status(), Status::Running | Status::Finished);
            lives && same_as.is_some() && old.same_as == same_as
        }) {
            // Its state is that of the new text as well.
            if let Some(store) = &self.engine.store {
                store.retext(&name, text)?;
            }
            self.engine.catalog.retext(&old.name, text);
            return Ok(Outcome::Done(
                format!("{said} (the same plan: it goes on as it is)").into(),
            ));
        }
        let view = NewView {
            same_as,
            feeds: None,
            name: name.clone(),
            reads,
            late_to,
            text: text.to_owned(),
            bounded,
            from,
            starts_late: options.starts_late(),
            retention: options.retention,
            skips_rows: options.skips_rows,
        };
        if let Some(old) = old {
            self.rebuild(view, plan, old).await?;
            return Ok(Outcome::Done(said.into()));
        }
        let definition = self.record(&name, Kind::MaterializedView, text)?;
        let started = self.start_view(view, plan, definition).await;
        self.or_forget(&name, started)?;
        Ok(Outcome::Done(said.into()))
    }

    /// A view that names a query.
    async fn create_name(
        &self,
        create: &CreateView,
        (name, text): (&str, &str),
        plan: LogicalPlan,
        reads: Vec<String>,
    ) -> Result<()> {
        if !create.query.tail.is_empty() {
            return Err(Error::sql(format!("view \"{name}\" only names a query, it has no EMIT"))
                .with_hint("Use CREATE MATERIALIZED VIEW, or give EMIT where the view is read."));
        }
        if create.or_replace {
            self.replace(name).await?;
        }
        let table = Arc::new(ViewTable::new(plan, Some(text.to_owned())));
        self.record(name, Kind::View, text)?;
        self.engine.catalog.add(name, Object::View, table, (text, reads))?;
        Ok(())
    }

    pub(super) async fn start_view(
        &self,
        view: NewView,
        plan: ContinuousPlan,
        definition: Option<Definition>,
    ) -> Result<()> {
        let (name, text, feeds) = (view.name.clone(), view.text.clone(), view.feeds.clone());
        let failure = self.fails_at_once(&name, &view.reads)?;
        let id = definition.as_ref().map(|definition| definition.id);
        let made = self.make_view(&name, view, plan, definition.clone()).await;
        let made = made.and_then(|made| self.made(definition.as_ref()).map(|()| made));
        let Made { view, relation, query, archived } = match made {
            Ok(made) => made,
            Err(error) => {
                // What was begun for it must not run on.
                self.engine.release(&name).await;
                return Err(error);
            }
        };
        let (shared, mut reads) = (Arc::clone(&view.query), view.reads.clone());
        reads.extend(feeds);
        let spiller = view.spiller.clone();
        let has_checkpoints = view.checkpoints.is_some();
        let object = Object::Materialized(Arc::clone(&view));
        self.engine.catalog.add(&name, object, relation, (&text, reads))?;
        if archived == Watermark::END {
            // All its windows are in the archive, and no more will come.
            shared.state.lock().watermark = archived;
            shared.finish(Status::Finished);
        } else if let Some(error) = failure {
            shared.fail_as_before(error);
            self.engine.notice(view.check().map_or_else(|error| error.to_string(), |()| name));
        } else {
            self.engine.watch_failure(&view, id);
            self.engine.start_later(query);
            if has_checkpoints {
                self.engine.keep_checkpoints(shared, spiller);
            }
        }
        Ok(())
    }

    /// A view as its readers see it.
    fn view_stream(
        &self,
        (name, key): (&str, &str),
        log: (&Arc<StreamLog>, Option<&Arc<Spiller>>),
        schema: StreamSchema,
        retention: Option<(Duration, Place)>,
    ) -> Result<Arc<Stream>> {
        let parts = &self.engine.parts;
        let retention = retention.map(|(keep, place)| {
            self.retention((name, key), log, &schema, keep).map_err(|e| e.with_place(place))
        });
        Ok(Arc::new(Stream {
            name: name.to_owned(),
            retention: retention.transpose()?,
            schema,
            feed: Feed::View(Arc::clone(log.0)),
            history: None,
            when_idle: None,
            max_future_skew_micros: None,
            connector: "view".to_owned(),
            replayable: true,
            bad_rows: Arc::clone(&parts.bad_rows),
            clock: Arc::clone(&parts.clock),
        }))
    }

    /// Makes a view with its log and its query. Nobody sees it yet and nothing runs but what
    /// archives and retains its log, which the engine knows by `key`.
    pub(super) async fn make_view(
        &self,
        key: &str,
        view: NewView,
        plan: ContinuousPlan,
        definition: Option<Definition>,
    ) -> Result<Made> {
        let NewView {
            name,
            reads,
            late_to,
            bounded,
            from,
            starts_late,
            retention,
            skips_rows,
            same_as,
            ..
        } = view;
        let parts = &self.engine.parts;
        let catalog = &self.engine.catalog;
        let event_times = plan.event_times.clone();
        let event_time =
            event_times.first().map(|e| EventTimeColumn { index: e.column, delay_ticks: 0 });
        let view_parts = ViewParts {
            name: &name,
            key,
            reads: &reads,
            plan: &plan,
            has_late_to: late_to.is_some(),
            starts_late,
            reach_ticks: reach(&bounded)?.max(plan.reach_ticks()),
        };
        let kept = self.kept_view(&view_parts, definition).await?;
        let reach_ticks = view_parts.reach_ticks;
        let from = kept.began(from);
        let checkpointer = self.checkpointer(&kept);
        let KeptView { log, archived, spiller, checkpoints, resume, archived_rows } = kept;
        let shared = parts.new_query(Some(name.clone()));
        shared.fills(&log);
        if let Some(spiller) = &spiller {
            spiller.is_of(&shared);
        }
        shared.ledger.add_rows_out(usize::try_from(log.state().rows).unwrap_or(usize::MAX));
        let schema = StreamSchema::try_new(Arc::clone(&plan.schema), event_time)?;
        let stream = self.view_stream((&name, key), (&log, spiller.as_ref()), schema, retention)?;
        let output = Output::View {
            log: Arc::clone(&log),
            room: spiller.as_ref().map(|_| Room::of(&parts.limits)),
            archived_rows: Arc::new(AtomicU64::new(archived_rows)),
        };
        let wanted = QuerySetup {
            archived,
            from: from.clone(),
            checkpointer,
            resume,
            skips_rows,
            ..QuerySetup::new(Arc::clone(&shared), output, late_to)
        };
        let row_by_row = is_row_by_row(&plan.root);
        // Should it fail, no query is left that never runs.
        let ready = ready(catalog.as_ref(), &self.state(), plan, wanted).await;
        let mut query = ready.inspect_err(|_| shared.cancel())?;
        if let (Some(checkpoints), None) = (&checkpoints, &self.restoring) {
            let first = self.first_checkpoint((checkpoints, spiller.as_ref()), &mut query).await;
            first.inspect_err(|_| shared.cancel())?;
        }
        let view = Materialized {
            name: name.clone(),
            log,
            stream: Arc::clone(&stream),
            query: Arc::clone(&shared),
            spiller,
            checkpoints,
            bounded: reads.iter().all(|r| catalog.is_bounded(r)),
            reads: reads.clone(),
            event_time: event_times.first().copied(),
            row_by_row,
            same_as,
            from,
            reach_ticks,
            plan: bounded,
        };
        let relation = Arc::new(stream.relation(Some(event_times)));
        Ok(Made { view: Arc::new(view), relation, query, archived })
    }
}

/// What two views have in common that have the same rows. Not known of views that read reference
/// tables (those may have changed), and of those that are more than a query.
fn same_as(
    options: &ViewOptions,
    plan: &ContinuousPlan,
    bounded: &LogicalPlan,
    has_late_to: bool,
) -> Result<Option<String>> {
    if has_late_to || options.starts_late() || options.retention.is_some() {
        return Ok(None);
    }
    let mut tables = false;
    bounded
        .apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let provider = source_as_provider(&scan.source)?;
                tables |= provider.downcast_ref::<StreamRelation>().is_none();
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(from_datafusion)?;
    let on_error = if options.skips_rows { "on_error: skip_row" } else { "" };
    Ok((!tables).then(|| plan_text(plan) + on_error))
}

/// The lengths of all windows of a plan together, in ticks. A session may be as long as time.
fn reach(plan: &LogicalPlan) -> Result<i64> {
    let mut ticks = 0_i64;
    plan.apply_with_subqueries(|node| {
        if let Some(assign) = WindowAssign::of(node) {
            let length = match assign.windows() {
                Windows::Aligned(window) => window.size(),
                Windows::Session(_) => i64::MAX,
            };
            ticks = ticks.saturating_add(length);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    Ok(ticks)
}

/// Whether rows of streams pass one by one, without a window anywhere.
fn is_row_by_row(root: &Flow) -> bool {
    match root {
        Flow::Stage(_) => false,
        Flow::Rows(flow) => flow.leaves.iter().all(Leaf::is_stream),
    }
}
