//! `CREATE [MATERIALIZED] VIEW`.

use std::sync::Arc;

use datafusion::catalog::view::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, EventTimeColumn, Result, StreamSchema, Watermark};
use windrow_sql::parse::{CreateView, OptionItem};
use windrow_sql::plan::{ContinuousPlan, Flow, LeafSource, continuous, plan_query};

use crate::catalog::{Materialized, Object, plain_name};
use crate::durable::checkpoint::{Checkpoints, Newest, Stamp};
use crate::durable::definitions::{Definition, Kind};
use crate::query::cut::Resume;
use crate::query::keeper::Keeper;
use crate::query::output::Output;
use crate::query::shared::Status;
use crate::query::start::{Wanted, ready};
use crate::session::query::streams_read;
use crate::session::{Outcome, Session};
use crate::stream::log::StreamLog;
use crate::stream::push::PushStream;
use crate::stream::spill::Spiller;
use crate::stream::{Feed, Stream, TAILS_MAX};

const VIEW_OPTIONS: &[&str] = &["start"];

/// A materialized view before it runs.
struct NewView {
    name: String,
    reads: Vec<String>,
    late_to: Option<Arc<PushStream>>,
    text: String,
    /// Its query, as the bounded form has it.
    bounded: LogicalPlan,
}

impl Session {
    pub(super) async fn create_view(&self, create: CreateView, text: &str) -> Result<Outcome> {
        let name = plain_name(&create.name)?;
        let kind = if create.materialized { "materialized view" } else { "view" };
        let said = format!("CREATE {}", kind.to_uppercase());
        if self.taken(&name, create.or_replace, create.if_not_exists, kind)? {
            return Ok(Outcome::Done(format!("{said} (exists already)")));
        }
        let plan = plan_query(&self.state(), &create.query.query, &create.columns).await?;
        let reads = streams_read(&plan)?;
        if reads.contains(&name) {
            return Err(Error::sql(format!("{kind} \"{name}\" would read itself")));
        }
        if !create.materialized {
            if !create.query.tail.is_empty() {
                return Err(Error::sql(format!(
                    "view \"{name}\" only names a query, it has no EMIT"
                ))
                .with_hint("Use CREATE MATERIALIZED VIEW, or give EMIT where the view is read."));
            }
            if create.or_replace {
                self.replace(&name).await?;
            }
            let table = Arc::new(ViewTable::new(plan, Some(text.to_owned())));
            self.record(&name, Kind::View, text)?;
            self.engine.catalog.add(&name, Object::View, table, (text, reads))?;
            return Ok(Outcome::Done(said));
        }
        view_options(&create.options)?;
        let bounded = plan.clone();
        let plan = continuous(&self.state(), plan, &create.query.tail)?;
        let late_to = self.late_to(&create.query.tail, &reads)?;
        if create.or_replace {
            self.replace(&name).await?;
        }
        let definition = self.record(&name, Kind::MaterializedView, text)?;
        let view = NewView { name: name.clone(), reads, late_to, text: text.to_owned(), bounded };
        let started = self.start_view(view, plan, definition).await;
        self.or_forget(&name, started)?;
        Ok(Outcome::Done(said))
    }

    async fn start_view(
        &self,
        view: NewView,
        plan: ContinuousPlan,
        definition: Option<Definition>,
    ) -> Result<()> {
        let NewView { name, reads, late_to, text, bounded } = view;
        let parts = &self.engine.parts;
        let catalog = &self.engine.catalog;
        let event_times = plan.event_times.clone();
        let event_time =
            event_times.first().map(|e| EventTimeColumn { index: e.column, delay_ticks: 0 });
        let KeptView { log, archived, spiller, checkpoints, resume } =
            self.kept_view(&name, &reads, &plan, (definition, late_to.is_some())).await?;
        let shared = parts.new_query(Some(name.clone()));
        shared.ledger.add_rows_out(usize::try_from(log.state().rows).unwrap_or(usize::MAX));
        let keeper = checkpoints.as_ref().zip(spiller.as_ref()).map(|(checkpoints, spiller)| {
            Keeper::new(
                Arc::clone(checkpoints),
                Arc::clone(spiller),
                Arc::clone(&parts.late_rows),
                Arc::clone(&parts.clock),
            )
        });
        let stream = Arc::new(Stream {
            name: name.clone(),
            schema: StreamSchema::try_new(Arc::clone(&plan.schema), event_time)?,
            feed: Feed::View(Arc::clone(&log)),
            idle_timeout: None,
            max_future_skew_micros: None,
            connector: "view".to_owned(),
            replayable: true,
            bad_rows: Arc::clone(&parts.bad_rows),
            clock: Arc::clone(&parts.clock),
        });
        let output = Output::View {
            log: Arc::clone(&log),
            tail_rows_max: spiller.as_ref().map(|_| parts.limits.tail_rows_max * TAILS_MAX),
        };
        let wanted = Wanted {
            archived,
            keeper,
            resume,
            ..Wanted::new(Arc::clone(&shared), output, late_to)
        };
        let row_by_row = is_row_by_row(&plan.root);
        let query = ready(catalog, &self.state(), plan, wanted).await?;
        let view = Materialized {
            name: name.clone(),
            log,
            stream: Arc::clone(&stream),
            query: Arc::clone(&shared),
            spiller,
            checkpoints: checkpoints.clone(),
            bounded: reads.iter().all(|r| catalog.is_bounded(r)),
            reads: reads.clone(),
            plan: bounded,
            event_time: event_times.first().copied(),
            row_by_row,
        };
        let relation = Arc::new(stream.relation(Some(event_times)));
        catalog.add(&name, Object::Materialized(Arc::new(view)), relation, (&text, reads))?;
        if archived == Watermark::END {
            // All its windows are in the archive, and no more will come.
            shared.state.lock().watermark = archived;
            shared.finish(Status::Finished);
        } else {
            self.engine.start_later(query);
            if checkpoints.is_some() {
                self.engine.keep_checkpoints(shared);
            }
        }
        Ok(())
    }

    /// What is kept of a view in the data directory, and what its query goes on from.
    async fn kept_view(
        &self,
        name: &str,
        reads: &[String],
        plan: &ContinuousPlan,
        (definition, has_late_to): (Option<Definition>, bool),
    ) -> Result<KeptView> {
        let catalog = &self.engine.catalog;
        // What has no windows has no frontier to go on from: it is worked out again from history.
        // And without history the windows behind the frontier would swallow what comes anew.
        let keeps = matches!(plan.root, Flow::Windows(_))
            && reads.iter().all(|name| catalog.is_replayable(name));
        let (Some(store), Some(definition)) = (&self.engine.store, definition.filter(|_| keeps))
        else {
            let limits = &self.engine.parts.limits;
            let log = StreamLog::new(Arc::clone(&plan.schema), name, limits);
            return Ok(KeptView::in_memory(log));
        };
        let time = plan.event_times.first().map(|e| e.column);
        let (kept, archived) = store.open_view(&definition, &plan.schema, time).await?;
        let spiller = kept.spiller(None);
        self.engine.keep(name, Arc::clone(&spiller));
        let mut view =
            KeptView { archived, spiller: Some(spiller), ..KeptView::in_memory(kept.log) };
        // A stream of late rows is only in memory: it is filled again by reading all again.
        if has_late_to {
            return Ok(view);
        }
        let checkpoints = Arc::new(store.open_checkpoints(&definition, stamp(plan))?);
        view.checkpoints = Some(Arc::clone(&checkpoints));
        if self.restoring.is_some() && archived != Watermark::END {
            let newest = self.newest(checkpoints, archived).await?;
            self.engine.tell(name, &newest);
            view.resume = newest.resume;
        }
        Ok(view)
    }

    /// The newest checkpoint that goes with the archive and the logs of the streams.
    async fn newest(&self, checkpoints: Arc<Checkpoints>, archived: Watermark) -> Result<Newest> {
        let catalog = Arc::clone(&self.engine.catalog);
        let look = move || {
            checkpoints.newest(&|was_archived, resume| {
                if was_archived.is_some_and(|w| w > archived) {
                    return Err("the archive has lost windows that it had".to_owned());
                }
                for tap in &resume.taps {
                    if let Some(Object::Stream(stream)) = catalog.get(&tap.stream)
                        && let Feed::Push(push) = &stream.feed
                        && push.log.state().rows < tap.positions.of_log()
                    {
                        let stream = &tap.stream;
                        return Err(format!("stream \"{stream}\" has lost rows that are in it"));
                    }
                }
                Ok(())
            })
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked.map_err(|e| Error::internal("reading checkpoints stopped").with_source(e))?
    }
}

/// What is kept of a view, and what its query goes on from.
struct KeptView {
    log: Arc<StreamLog>,
    /// Windows up to here are in the archive.
    archived: Watermark,
    spiller: Option<Arc<Spiller>>,
    checkpoints: Option<Arc<Checkpoints>>,
    resume: Option<Resume>,
}

impl KeptView {
    fn in_memory(log: Arc<StreamLog>) -> Self {
        Self { log, archived: Watermark::NONE, spiller: None, checkpoints: None, resume: None }
    }
}

/// By what a state can be gone on from: an equal plan, whatever its text.
fn stamp(plan: &ContinuousPlan) -> Stamp {
    Stamp {
        plan: format!("{plan}lateness: {} ns", plan.lateness_nanos),
        engine: format!(
            "windrow {}, datafusion {}",
            env!("CARGO_PKG_VERSION"),
            datafusion::DATAFUSION_VERSION
        ),
    }
}

/// Whether rows of streams pass one by one, without a window anywhere.
fn is_row_by_row(root: &Flow) -> bool {
    match root {
        Flow::Windows(_) => false,
        Flow::Rows(flow) => {
            flow.leaves.iter().all(|leaf| matches!(leaf.from, LeafSource::Stream { .. }))
        }
    }
}

fn view_options(options: &[OptionItem]) -> Result<()> {
    for OptionItem { key, value, place } in options {
        if key != "start" {
            return Err(Error::config(format!("unknown option \"{key}\" of a materialized view"))
                .with_place(*place)
                .with_hint(format!("Known options: {}.", VIEW_OPTIONS.join(", "))));
        }
        if !value.eq_ignore_ascii_case("earliest") {
            return Err(Error::config(format!("start = '{value}' is not part of this version"))
                .with_place(*place)
                .with_hint("A view starts with what its streams hold: start = 'earliest'."));
        }
    }
    Ok(())
}
