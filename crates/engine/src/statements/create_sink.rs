//! `CREATE SINK`: the rows of a view go to a destination.
//!
//! ```text
//! CREATE SINK k FROM v          ────────────────► sink ─► pump ─► destination
//! CREATE SINK k AS SELECT …  ─► view k_rows ────►
//! ```
//! Invariants: a sink that is acknowledged has reached its destination once; a definition is durable before the first row is
//! sent; in a data directory a sink only reads rows that keep their numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use windrow_connectors::{ConnectorEnv, SinkChanges, SinkSpec, open_sink};
use windrow_core::{Error, Result, Sink};
use windrow_sql::parse::{self, ContinuousQuery, OptionItem, SinkRows};
use windrow_sql::plan::distinct_columns;

use super::create_stream::{at_option, connector_env};
use super::{Answer, Statement, authorize_late_rows, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::sinks::{Phase, SinkObject};
use crate::catalog::{Catalog, Materialized, Object, Rowless, exists, masked, streams_read};
use crate::durable::definitions::{Definition, Kind};
use crate::durable::sink_records::{Rejected, SinkRecord};
use crate::execution::context::StatementContext;
use crate::execution::creation::{self, Creation};
use crate::execution::outcome::Outcome;
use crate::instance::sink_pump::SinkPump;
use crate::names::plain_name;
use crate::views::build::{NewView, check_resumable};
use crate::views::late_rows::late_stream;

/// The options of the engine.
const SINK_OPTIONS: &[&str] = &["connector", "on_error", "start"];

/// `CREATE [OR REPLACE] SINK …`.
#[derive(Debug)]
pub(crate) struct CreateSink {
    pub(super) create: parse::CreateSink,
    pub(super) text: String,
}

/// The options of a sink.
#[derive(Debug)]
struct SinkOptions {
    connector: String,
    /// Whether it begins after the last row that its view has.
    starts_late: bool,
    /// Whether refused rows are set aside; otherwise they stop the sink.
    rejects: bool,
    /// The options of the connector.
    rest: Vec<(String, String)>,
}

impl Statement for CreateSink {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("CREATE SINK", None)
    }

    fn authorize(&self, access: &Access, catalog: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.create.name)?;
        match &self.create.rows {
            SinkRows::View(view) => need(access, Role::Read, view),
            SinkRows::Query(query) => authorize_late_rows(access, catalog, query),
        }
    }

    fn is_definition(&self) -> bool {
        true
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let create = &self.create;
            let name = plain_name(&create.name)?;
            let creation = Creation::new(cx, &name);
            if creation.is_done(create.or_replace, create.if_not_exists, "sink")? {
                return Ok(Outcome::Done("CREATE SINK (exists already)".into()));
            }
            let options = SinkOptions::read(&create.options)?;
            match &create.rows {
                SinkRows::View(view) => {
                    let view = source(cx.catalog(), &plain_name(view)?)?;
                    let new = NewSink { cx, create, name: &name, options, text: &self.text };
                    new.check(&view)?;
                    let old = new.replaced(&view).await?;
                    creation.replace().await?;
                    let definition = creation.record(Kind::Sink, &self.text)?;
                    let started = new.start(&view, (definition.as_ref(), old), false).await;
                    creation.or_forget(started)?;
                }
                SinkRows::Query(query) => {
                    let new = NewSink { cx, create, name: &name, options, text: &self.text };
                    new.of_query(query).await?;
                }
            }
            Ok(Outcome::Done("CREATE SINK".into()))
        })
    }
}

impl SinkOptions {
    /// Parses the options.
    ///
    /// # Errors
    /// When a value is malformed, or there is no connector.
    fn read(options: &[OptionItem]) -> Result<Self> {
        let (mut connector, mut starts_late, mut rejects, mut rest) = (None, false, false, vec![]);
        for OptionItem { key, value, place } in options {
            let wrong = |hint: &str| {
                Error::config(format!("{key} = '{value}' is not known"))
                    .with_place(*place)
                    .with_hint(hint)
            };
            match key.as_str() {
                "connector" => connector = Some(value.clone()),
                "start" => {
                    starts_late = match value.trim().to_ascii_lowercase().as_str() {
                        "earliest" => false,
                        "latest" => true,
                        _ => return Err(wrong("A sink begins with 'earliest' or 'latest'.")),
                    }
                }
                "on_error" => {
                    rejects = match value.trim().to_ascii_lowercase().as_str() {
                        "stop" => false,
                        "reject" => true,
                        _ => {
                            return Err(wrong(
                                "A row that the destination refuses stops the sink ('stop'), or goes to windrow.rejected_rows \
                                 ('reject').",
                            ));
                        }
                    }
                }
                _ => rest.push((key.clone(), value.clone())),
            }
        }
        let connector = connector.ok_or_else(|| {
            Error::config("a sink needs a connector").with_hint(format!(
                "Say where its rows go: WITH (connector = 'file', path = '…', format = 'parquet'). Connectors: {}.",
                windrow_connectors::known_sinks().join(", ")
            ))
        })?;
        Ok(Self { connector, starts_late, rejects, rest })
    }
}

/// Returns the view that a sink reads.
fn source(catalog: &Catalog, name: &str) -> Result<Arc<Materialized>> {
    match catalog.get(name) {
        Some(Object::Materialized(view)) => Ok(view),
        Some(other @ (Object::Stream(_) | Object::View)) => {
            let kind = other.kind();
            Err(Error::sql(format!("\"{name}\" is a {kind}, and a sink reads a materialized view"))
                .with_hint(format!(
                    "Give the sink a query: CREATE SINK … AS SELECT * FROM {name} WITH (…)."
                )))
        }
        Some(Object::Sink(_) | Object::Function(_) | Object::Model(_)) | None => {
            catalog.materialized(name)
        }
    }
}

/// A sink that is being created.
struct NewSink<'a> {
    cx: &'a StatementContext,
    create: &'a parse::CreateSink,
    name: &'a str,
    options: SinkOptions,
    text: &'a str,
}

impl NewSink<'_> {
    /// Checks the options, and that the rows of the view keep their numbers.
    fn check(&self, view: &Materialized) -> Result<()> {
        view.check_not_early("a sink")?;
        self.open(("", ""), view)?;
        if self.cx.restoring.is_none() {
            view.check()?;
            view.check_retains()?;
        }
        if self.cx.instance.store.is_some() && view.spiller.is_none() {
            let (sink, view) = (self.name, &view.name);
            return Err(Error::sql(format!(
                "sink \"{sink}\" needs a view that is kept in the data directory, and \"{view}\" is not"
            ))
            .with_detail("After a restart its rows may have other numbers, and some would come twice or never.")
            .with_hint("Views are kept that read durable streams and views, and files."));
        }
        Ok(())
    }

    /// Returns the sink of the connector.
    fn open(&self, (id, origin): (&str, &str), view: &Materialized) -> Result<Box<dyn Sink>> {
        let env: ConnectorEnv = connector_env(self.cx);
        let spec = SinkSpec {
            name: self.name.to_owned(),
            id: id.to_owned(),
            origin: origin.to_owned(),
            schema: view.log.schema(),
            changes: view.answer.as_ref().map(|answer| SinkChanges { key: answer.key() }),
        };
        let opened = open_sink(&self.options.connector, &self.options.rest, &spec, &env);
        opened.map_err(|error| {
            let engine = SINK_OPTIONS.join(", ");
            let unknown = error.message().starts_with("unknown option");
            let error = match unknown {
                true => error.with_hint(format!("Options of every sink: {engine}.")),
                false => error,
            };
            at_option(error, &self.create.options)
        })
    }

    /// Ends the sink that is replaced. Returns its progress if it read the same view: the new one continues there.
    async fn replaced(&self, view: &Materialized) -> Result<Option<(SinkRecord, Rejected)>> {
        let Some(Object::Sink(old)) = self.cx.catalog().get(self.name) else { return Ok(None) };
        if let Some(reader) = self.cx.catalog().readers(self.name).first() {
            return Err(crate::catalog::read_by(self.name, reader));
        }
        let same = old.view == view.name && !old.owns_view;
        if !same && !self.cx.instance.is_plan_only() {
            // If the new one cannot be created, the old one stays.
            let opened = self.open(("", ""), view)?.open(None).await;
            opened.map_err(|e| at_option(e, &self.create.options))?;
        }
        old.tell(|control| control.ends = true);
        old.gone().await;
        let state = old.state();
        let (first, committed) = (state.first, state.committed);
        let record = SinkRecord { first, committed, writing: None, paused: false };
        Ok(same.then(|| (record, old.rejected())))
    }

    /// Creates a sink over a query: the view for its results, and the sink.
    async fn of_query(self, query: &ContinuousQuery) -> Result<()> {
        let (cx, name) = (self.cx, self.name);
        let rows = format!("{name}_rows");
        let is_replaced = |object: Option<Object>| match object {
            Some(Object::Sink(old)) => old.owns_view && old.view == rows,
            _ => false,
        };
        if cx.catalog().exists(&rows) && !is_replaced(cx.catalog().get(name)) {
            return Err(exists(&rows)
                .with_detail("A sink over a query keeps its results in a view of this name."));
        }
        let plan = cx.planner().query(&query.query, &[]).await?;
        distinct_columns(&plan)?;
        let reads = streams_read(&plan)?;
        if cx.restoring.is_none() {
            cx.catalog().check_reads(&reads)?;
        }
        let bounded = plan.clone();
        let plan = cx.planner().continuous(plan, &query.tail).await?;
        if plan.has_early_results() {
            plan.check_append_only("a sink")?;
        }
        check_resumable(cx, &plan)?;
        let late_to = late_stream(cx, &query.tail, &reads)?;
        let creation = Creation::new(cx, name);
        if let Some(reader) = cx.catalog().readers(&rows).iter().find(|reader| *reader != name) {
            return Err(crate::catalog::read_by(&rows, reader));
        }
        creation.replace().await?;
        let view = NewView {
            name: rows.clone(),
            text: masked(self.text).into_owned(),
            reads,
            bounded,
            late_to,
            from: BTreeMap::new(),
            starts_late: false,
            retention: None,
            skips_rows: false,
            fingerprint: None,
            feeds: None,
        };
        let definition = creation.record(Kind::Sink, self.text)?;
        let started = async {
            view.start(cx, plan, definition.clone()).await?;
            let view = cx.catalog().materialized(&rows)?;
            let started = async {
                self.check(&view)?;
                self.start(&view, (definition.as_ref(), None), true).await
            };
            match started.await {
                Ok(()) => Ok(()),
                Err(error) => {
                    view.stop_checkpoints().await;
                    creation::remove(cx, &rows).await?;
                    Err(error)
                }
            }
        };
        creation.or_forget(started.await)
    }

    /// Reaches the destination, adds the sink to the catalog and starts it.
    async fn start(
        &self,
        view: &Arc<Materialized>,
        (definition, old): (Option<&Definition>, Option<(SinkRecord, Rejected)>),
        owns_view: bool,
    ) -> Result<()> {
        let (cx, name) = (self.cx, self.name);
        let clock = &cx.instance.parts.clock;
        let id = definition.map_or_else(|| clock.now_micros().to_string(), |d| d.id.to_string());
        let place = cx.instance.store.clone().zip(definition.cloned());
        let origin = match &place {
            Some((store, definition)) => store.origin(definition),
            // Nothing is stored: each run is a new sink.
            None => format!("{}.{id}", std::process::id()),
        };
        let mut sink = self.open((&id, &origin), view)?;
        let stored = match (&cx.restoring, &place) {
            (Some(_), Some((store, definition))) => {
                let record = store.read_sink(definition)?;
                match record {
                    Some(record) => Some((record, store.read_rejected(definition)?)),
                    None => None,
                }
            }
            _ => None,
        };
        let is_new = stored.is_none();
        let known = old.as_ref().map(|(old, _)| old.committed);
        let (mut record, rejected) = match stored.or(old) {
            Some(known) => known,
            None => (self.begin(view)?, Rejected::default()),
        };
        let is_open = cx.restoring.is_none() && !cx.instance.is_plan_only();
        if is_open {
            let has = sink.open(known).await.map_err(|e| at_option(e, &self.create.options))?;
            record.committed = record.committed.max(has.unwrap_or(0));
        }
        if is_new && let Some((store, definition)) = &place {
            store.write_sink(definition, record)?;
            if rejected.count > 0 {
                store.write_rejected(definition, &rejected)?;
            }
        }
        Creation::new(cx, name).complete(definition)?;
        let object = SinkObject::new(
            (name, &self.options.connector),
            (view, owns_view),
            sink.guarantee(),
            (record, rejected),
        );
        if let Some(answer) = &view.answer {
            answer.keep_for(&object);
        }
        let table = Rowless::of_sink(name, &view.name, view.log.schema());
        let table = Arc::new(table);
        let about = (masked(self.text), vec![view.name.clone()]);
        cx.catalog().add(name, Object::Sink(Arc::clone(&object)), table, (&about.0, about.1))?;
        if cx.instance.is_plan_only() {
            object.set(|state| state.phase = Phase::Finished);
        } else {
            let place = place.map(|(store, definition)| (Arc::downgrade(&store), definition));
            let pump = SinkPump::new(&object, (sink, is_open), place, record, clock);
            cx.instance.start_sink(pump.rejecting(self.options.rejects));
        }
        Ok(())
    }

    /// Returns where a new sink begins.
    ///
    /// # Errors
    /// When it would lack the first changes of an updating result, because the view no longer has them.
    fn begin(&self, view: &Materialized) -> Result<SinkRecord> {
        // The numbers of changes that are not settled may become those of others.
        let state = match &view.answer {
            Some(_) => view.log.settled(),
            None => view.log.state(),
        };
        let first = if self.options.starts_late { state.rows } else { state.first };
        if view.answer.is_some() && first > 0 && !self.options.starts_late {
            let (sink, view) = (self.name, &view.name);
            return Err(Error::data(format!(
                "view \"{view}\" no longer has its first {first} changes, without which sink \"{sink}\" would lack rows"
            ))
            .with_hint(
                "Create the view again, and the sink at once; or let it begin with the next change: start = 'latest'.",
            ));
        }
        Ok(SinkRecord { first, committed: first, writing: None, paused: false })
    }
}
