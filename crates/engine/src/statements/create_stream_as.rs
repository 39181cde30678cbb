//! `CREATE STREAM s AS SELECT … [EMIT …]`: a stream that a continuous query feeds.
//!
//! ```text
//! query ─► view s_rows: final rows ─► pump ─► log of s
//! ```
//! As with a continuous INSERT, the rows of the query are a materialized view, which survives restarts, and a pump copies them
//! ([`super::continuous_insert`]). Stream and view are one object: one definition, dropped together.
//!
//! Invariant: the view is in the catalog while the stream is, and the stream reads it, so that nothing but the stream's own end
//! removes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use windrow_core::time::{ticks_per_second, time_unit};
use windrow_core::{Error, EventTimeColumn, Result, StreamSchema};
use windrow_sql::parse::{self, ContinuousQuery};
use windrow_sql::plan::{ContinuousPlan, distinct_columns};
use windrow_stream::Stream;
use windrow_stream::target::Target;

use super::continuous_insert::check_archive;
use super::create_stream::{NewStream, StreamColumns};
use super::declared_columns::{checks, event_time};
use super::keyed_stream::key;
use super::stream_options::{EngineOptions, engine_options, no_options};
use crate::catalog::{Catalog, Object, exists, read_by, streams_read};
use crate::durable::definitions::{Definition, Kind};
use crate::execution::context::StatementContext;
use crate::execution::creation::{self, Creation};
use crate::execution::options::timeless;
use crate::execution::outcome::Outcome;
use crate::instance::pump::Pump;
use crate::names::ident_name;
use crate::views::build::{NewView, check_resumable};
use crate::views::late_rows::late_stream;
use crate::views::shape::is_stateless;
use crate::views::storage::is_resumable;

/// A stream AS SELECT that is being created.
pub(super) struct FedStream<'a> {
    pub(super) cx: &'a StatementContext,
    pub(super) create: &'a parse::CreateStream,
    pub(super) text: &'a str,
    pub(super) name: &'a str,
}

impl FedStream<'_> {
    /// Creates the stream, and starts its query and its pump.
    ///
    /// # Errors
    /// What is wrong with the query or the options; when something cannot be stored. Then nothing is left.
    pub(super) async fn create(self, query: &ContinuousQuery) -> Result<Outcome> {
        let (cx, create, name) = (self.cx, self.create, self.name);
        let creation = Creation::new(cx, name);
        if creation.is_done(create.or_replace, create.if_not_exists, "stream")? {
            return Ok(Outcome::Done("CREATE STREAM (exists already)".into()));
        }
        let options = self.options()?;
        let plan = cx.planner().query(&query.query, &[]).await?;
        distinct_columns(&plan)?;
        let reads = streams_read(&plan)?;
        if reads.iter().any(|read| read == name) {
            return Err(Error::sql(format!("stream \"{name}\" would read itself")));
        }
        let old = cx.catalog().feed_of(name).map(|feed| feed.name.clone());
        let rows = format!("{name}_rows");
        if cx.catalog().exists(&rows) && old.as_ref() != Some(&rows) {
            return Err(exists(&rows).with_detail(
                "A stream AS SELECT keeps the rows of its query in a view of this name.",
            ));
        }
        if let Some(reader) = cx.catalog().readers(&rows).iter().find(|reader| *reader != name) {
            return Err(read_by(&rows, reader));
        }
        if cx.restoring.is_none() {
            cx.catalog().check_reads(&reads)?;
        }
        let bounded = plan.clone();
        let plan = cx.planner().continuous(plan, &query.tail).await?;
        plan.check_append_only("a stream")?;
        check_resumable(cx, &plan)?;
        let late_to = late_stream(cx, &query.tail, &reads)?;
        if cx.instance.store.is_some() && !is_resumable(cx, &reads, late_to.is_some()) {
            return Err(not_resumable(name));
        }
        let columns = self.columns(&plan, &reads)?;
        if let (Some((_, place)), None) = (options.retention, columns.schema.event_time()) {
            return Err(timeless(name).with_place(place));
        }
        if create.or_replace {
            creation.replace().await?;
        }
        let view = NewView {
            name: rows.clone(),
            text: self.text.to_owned(),
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
        let definition = creation.record(Kind::Stream, self.text)?;
        let started = self.start((view, plan), (columns, options), definition).await;
        if started.is_err() {
            cx.instance.release(name).await;
            self.remove_rows(&rows).await?;
        }
        creation.or_forget(started)
    }

    fn options(&self) -> Result<EngineOptions> {
        let options = engine_options(&self.create.options)?;
        if let (Some(connector), name) = (&options.connector, self.name) {
            return Err(Error::sql(format!("stream \"{name}\" has a query and a connector \"{connector}\""))
                .with_hint("A query feeds the stream: leave the connector out. CREATE SINK writes rows to a connector."));
        }
        if let Some(column) = self.create.columns.first() {
            let column = ident_name(&column.name);
            return Err(Error::sql(format!(
                "column \"{column}\" is declared, and the columns are those of the query"
            ))
            .with_hint(format!("Write them in the query: SELECT CAST(… AS type) AS {column}.")));
        }
        if let Some(key) = key(self.create, &options, self.name)? {
            let name = self.name;
            return Err(Error::sql(format!("stream \"{name}\" has a query and a primary key"))
                .with_place(key.place)
                .with_hint("Updating results are the rows of a materialized view: CREATE MATERIALIZED VIEW … EMIT CHANGES."));
        }
        no_options(&options, self.name)?;
        Ok(options)
    }

    /// Returns the columns of the query, with its event time or the declared one.
    fn columns(&self, plan: &ContinuousPlan, reads: &[String]) -> Result<StreamColumns> {
        let (cx, create) = (self.cx, self.create);
        let schema = Arc::clone(&plan.schema);
        let time = match &create.watermark {
            Some(clause) => Some(event_time(&cx.state(), &schema, clause)?),
            None => plan.event_times.first().map(|time| {
                let unit = time_unit(schema.field(time.column).data_type());
                let per_second = unit.map_or(1, ticks_per_second);
                // Rows of windows come in order of their event time, others as they come in.
                let disorder = match is_stateless(&plan.root) {
                    true => disorder(cx.catalog(), reads, per_second),
                    false => 0,
                };
                let delay_ticks = time.lag_ticks.saturating_add(disorder);
                EventTimeColumn { index: time.column, delay_ticks }
            }),
        };
        let checks = checks(&cx.state(), self.name, &schema, &create.checks, vec![])?;
        let schema = StreamSchema::try_new(schema, time).map_err(|e| match &create.watermark {
            Some(clause) => e.with_place(clause.place),
            None => e,
        })?;
        Ok(StreamColumns { schema, source: None, columns: None, key: None, checks, reads: vec![] })
    }

    /// Creates stream and view, and starts the pump between them.
    async fn start(
        &self,
        (view, plan): (NewView, ContinuousPlan),
        (columns, options): (StreamColumns, EngineOptions),
        definition: Option<Definition>,
    ) -> Result<Outcome> {
        let (cx, name, rows) = (self.cx, self.name, view.name.clone());
        let new = NewStream { cx, name, options, definition: definition.as_ref(), added: &[] };
        let stream: Arc<Stream> = Arc::new(new.create(columns).await?);
        view.start(cx, plan, definition.clone()).await?;
        let view = cx.catalog().materialized(&rows)?;
        let push = super::insert::accepts_inserts(&stream)?;
        // Without a data directory the number only has to be the same for all rows.
        let id = definition.map_or(0, |definition| definition.id);
        if view.spiller.is_some() {
            check_archive(cx, &view, &push, id).await?;
        }
        let relation = Arc::new(stream.relation(None));
        let about = (self.text, vec![rows.clone()]);
        let said = match stream.schema.event_time() {
            Some(_) => "CREATE STREAM",
            None => "CREATE STREAM (no watermark: no windows with EMIT over it)",
        };
        let target = Target::all(&push);
        cx.catalog().add(name, Object::Stream(stream), relation, about)?;
        cx.instance.start_pump(
            &view,
            Pump::new(
                (&view.name, &view.query),
                (&view.log, view.spiller.as_ref()),
                (&push, target),
                id,
            ),
        );
        Ok(Outcome::Done(said.into()))
    }

    /// Removes the view of a stream that could not be created.
    async fn remove_rows(&self, rows: &str) -> Result<()> {
        let Some(Object::Materialized(view)) = self.cx.catalog().get(rows) else { return Ok(()) };
        view.stop_checkpoints().await;
        creation::remove(self.cx, rows).await
    }
}

/// Returns how far rows of streams may be out of order by their watermarks, in ticks of which there are `per_second`.
fn disorder(catalog: &Catalog, reads: &[String], per_second: i64) -> i64 {
    let of = |name: &String| match catalog.get(name) {
        Some(Object::Stream(stream)) => {
            let schema = &stream.schema;
            let Some(time) = schema.event_time() else { return 0 };
            let unit = time_unit(schema.schema().field(time.index).data_type());
            let theirs = i128::from(unit.map_or(1, ticks_per_second));
            let ours = i128::from(time.delay_ticks) * i128::from(per_second);
            i64::try_from((ours + theirs - 1).div_euclid(theirs)).unwrap_or(i64::MAX)
        }
        Some(Object::Materialized(view)) if view.is_stateless => {
            disorder(catalog, &view.reads, per_second)
        }
        _ => 0,
    };
    reads.iter().map(of).max().unwrap_or(0)
}

/// The error of a query that would insert its rows again after a restart.
fn not_resumable(name: &str) -> Error {
    Error::sql(format!("the query of stream \"{name}\" could not continue after a restart"))
        .with_detail("It reads streams that are in memory only, or sends late rows to one.")
        .with_hint("Read durable streams, or create the stream with its columns and use INSERT INTO … SELECT … EMIT, which ends with the process.")
}
