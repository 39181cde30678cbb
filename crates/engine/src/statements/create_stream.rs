//! `CREATE STREAM`.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::catalog::TableProvider;
use sqlparser::ast::ColumnDef;
use windrow_connectors::{ConnectorEnv, Declared, open_source};
use windrow_core::{Error, EventTimeColumn, Layout, Result, Source, StreamSchema};
use windrow_sql::parse::{self, OptionItem};
use windrow_sql::plan::{KeyedTable, sql_type_of};
use windrow_storage::wal::Durability;
use windrow_stream::altered::Altered;
use windrow_stream::bad::OnBad;
use windrow_stream::checks::{Checked, Checks};
use windrow_stream::generated::{Columns, Generated};
use windrow_stream::history::History;
use windrow_stream::intake::Intake;
use windrow_stream::log::StreamLog;
use windrow_stream::places::Places;
use windrow_stream::push::PushStream;
use windrow_stream::receiver::Receiver;
use windrow_stream::retention::Retention;
use windrow_stream::stream::keyed::with_sequence;
use windrow_stream::texts::{Limited, Texts};
use windrow_stream::{Feed, MAX_FUTURE_SKEW_MICROS, Stream};

use super::add_column::{added_values, with_older};
use super::create_stream_as::FedStream;
use super::declared_columns::{checks, declared_columns, event_time, has_unsaid_times};
use super::keyed_stream::{key, options_of_connector, with_key};
use super::replay::replay;
use super::stream_options::{
    EngineOptions, durability, engine_options, intake_of_connector, no_options, no_push_options,
    no_retention, when_idle,
};
use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Object};
use crate::durable::definitions::{Definition, Kind};
use crate::execution::context::StatementContext;
use crate::execution::creation::{Creation, start_retention};
use crate::execution::options::timeless;
use crate::execution::outcome::Outcome;
use crate::names::{ident_name, plain_name};

/// `CREATE [OR REPLACE] STREAM …`.
#[derive(Debug)]
pub(crate) struct CreateStream {
    pub(super) create: parse::CreateStream,
    pub(super) text: String,
}

/// The columns of a stream that is to be created, and its source.
pub(super) struct StreamColumns {
    pub(super) schema: StreamSchema,
    /// `None`: rows come by INSERT.
    pub(super) source: Option<Arc<dyn Source>>,
    pub(super) columns: Option<Columns>,
    /// The columns that identify a row, where its rows replace each other.
    pub(super) key: Option<Vec<usize>>,
    /// The checks that its rows must satisfy.
    pub(super) checks: Checks,
    /// The stream or view that it replays.
    pub(super) reads: Vec<String>,
}

impl Statement for CreateStream {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("CREATE STREAM", None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.create.name)
    }

    fn is_definition(&self) -> bool {
        true
    }

    fn starts_queued_views(&self) -> bool {
        false
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let (whole, added) = self.with_additions(cx)?;
            let create = &whole.create;
            let name = plain_name(&create.name)?;
            if let Some(query) = &create.query {
                return FedStream { cx, create, text: &self.text, name: &name }.create(query).await;
            }
            let creation = Creation::new(cx, &name);
            if creation.is_done(create.or_replace, create.if_not_exists, "stream")? {
                return Ok(Outcome::Done("CREATE STREAM (exists already)".into()));
            }
            let options = engine_options(&create.options)?;
            let columns = whole.columns(cx, &name, &options).await?;
            if let (Some((_, place)), None) = (options.retention, columns.schema.event_time()) {
                return Err(timeless(&name).with_place(place));
            }
            if create.or_replace {
                creation.replace().await?;
            }
            let reads = columns.reads.clone();
            let notices =
                columns.source.as_ref().map(|source| source.notices()).unwrap_or_default();
            let definition = creation.record(Kind::Stream, &self.text)?;
            let definition_of = definition.as_ref();
            let new =
                NewStream { cx, name: &name, options, definition: definition_of, added: &added };
            let stream = new.create(columns).await;
            let complete = || creation.complete(definition.as_ref());
            let stream = stream.and_then(|stream| complete().map(|()| stream));
            let stream = Arc::new(creation.or_forget(stream)?);
            let stream = with_older(&whole, cx, stream, added.len()).await?;
            let relation: Arc<dyn TableProvider> = match &stream.key {
                Some(key) => {
                    Arc::new(KeyedTable::try_new(&cx.state(), stream.relation(None), key)?)
                }
                None => Arc::new(stream.relation(None)),
            };
            let mut message = match stream.schema.event_time() {
                _ if stream.key.is_some() => "CREATE STREAM".to_owned(),
                Some(_) => "CREATE STREAM".to_owned(),
                None => "CREATE STREAM (no watermark: no windows with EMIT over it)".to_owned(),
            };
            if create.columns.is_empty() {
                message.push_str("\ncolumns: ");
                message.push_str(&listed(&relation.schema()));
            }
            for notice in notices {
                message.push_str("\nnotice: ");
                message.push_str(&notice);
            }
            cx.catalog().add(&name, Object::Stream(stream), relation, (&self.text, reads))?;
            Ok(Outcome::Done(message.into()))
        })
    }
}

impl CreateStream {
    /// Returns the columns of the stream, and its source if it has a connector.
    pub(super) async fn columns(
        &self,
        cx: &StatementContext,
        name: &str,
        options: &EngineOptions,
    ) -> Result<StreamColumns> {
        let create = &self.create;
        if options.connector.is_none() || options.is_replay() {
            no_metadata(create)?;
        }
        let key = key(create, options, name)?;
        if options.is_replay() {
            no_push_options(options)?;
            no_retention(options)?;
            if let Some(check) = create.checks.first() {
                return Err(Error::sql(format!(
                    "stream \"{name}\" replays rows that were checked"
                ))
                .with_place(check.place)
                .with_hint("Remove the check, or create a view with WHERE."));
            }
            let (source, schema, of) = replay(cx, create, &options.rest)?;
            if of == name {
                return Err(Error::sql(format!("stream \"{name}\" would replay itself")));
            }
            let source: Arc<dyn Source> = Arc::new(source);
            let (source, columns, reads) = (Some(source), None, vec![of]);
            let checks = Checks::default();
            return Ok(StreamColumns { schema, source, columns, key: None, checks, reads });
        }
        let columns = match create.columns.as_slice() {
            [] => None,
            columns => {
                Some(declared_columns(&cx.state(), columns, &cx.instance.parts.clock).await?)
            }
        };
        let (columns, key) = match (columns, key) {
            (Some(columns), Some(key)) => {
                let key = (key, options.connector.is_some());
                let (columns, key) = with_key(&cx.state(), columns, key)?;
                (Some(columns), Some(key))
            }
            (columns, _) => (columns, None),
        };
        let intake = columns.as_ref().and_then(Columns::intake);
        let (mut source, schema) = match &options.connector {
            Some(connector) => {
                let source = self.open(cx, connector, options, columns.as_ref()).await?;
                let schema = source.schema();
                if !source.forgets() {
                    if intake.is_some() {
                        return Err(intake_of_connector(name));
                    }
                    no_push_options(options)?;
                }
                (Some(source), schema)
            }
            None => {
                no_options(options, name)?;
                let columns = columns.as_ref().ok_or_else(|| {
                    Error::sql(format!("stream \"{name}\" has neither columns nor a connector"))
                        .with_hint("Declare its columns, or say where its rows come from: WITH (connector = 'file', path = '…').")
                })?;
                (None, Arc::clone(&columns.schema))
            }
        };
        let checks = checks(&cx.state(), name, &schema, &create.checks, vec![])?;
        if !checks.is_empty() {
            source = source.map(|source| match source.forgets() {
                // They are checked when they are stored.
                true => source,
                false => checked(source, &checks, options),
            });
        }
        let event_time = match &create.watermark {
            Some(clause) => Some(event_time(&cx.state(), &schema, clause)?),
            // Processing time never goes back, so no row is late by it.
            None => intake.map(|index| EventTimeColumn { index, delay_ticks: 0 }),
        };
        let schema =
            StreamSchema::try_new(schema, event_time).map_err(|e| match &create.watermark {
                Some(clause) => e.with_place(clause.place),
                None => e,
            })?;
        Ok(StreamColumns { schema, source, columns, key, checks, reads: vec![] })
    }

    /// Opens the source of a connector.
    async fn open(
        &self,
        cx: &StatementContext,
        connector: &str,
        options: &EngineOptions,
        columns: Option<&Columns>,
    ) -> Result<Arc<dyn Source>> {
        let create = &self.create;
        let env = connector_env(cx);
        let watermark = create.watermark.as_ref().map(|w| ident_name(&w.column));
        let physical = columns.map(|c| Arc::clone(&c.physical));
        let delivered =
            |name: &String| physical.as_ref().is_none_or(|p| p.column_with_name(name).is_some());
        let is_unsaid = |column: &&ColumnDef| has_unsaid_times(&column.data_type);
        let unsaid = create.columns.iter().filter(is_unsaid);
        let declared = Declared {
            schema: physical.clone(),
            event_time: watermark.filter(delivered),
            unsaid: unsaid.map(|column| ident_name(&column.name)).collect(),
            metadata: metadata(&create.columns).collect(),
            restored: cx.restoring.is_some(),
        };
        let placed = |e: Error| at_option(e, &create.options);
        let opened = open_source(connector, &options_of_connector(options), declared, &env).await;
        let mut source = opened.map_err(placed)?;
        let Some(columns) = columns else { return Ok(source) };
        if !columns.texts.is_empty() {
            let on_bad = OnBad::of(options.of_connector("on_bad_row"));
            let texts = columns.texts.clone();
            source = Arc::new(Altered::new(source, Limited { texts, on_bad }));
        }
        if columns.any_generated() {
            source = Arc::new(Altered::new(source, Generated(Arc::new(columns.clone()))));
        }
        Ok(source)
    }
}

/// Returns a source whose rows are checked.
fn checked(source: Arc<dyn Source>, checks: &Checks, options: &EngineOptions) -> Arc<dyn Source> {
    let on_bad = OnBad::of(options.of_connector("on_bad_row"));
    Arc::new(Altered::new(source, Checked { checks: checks.clone(), on_bad }))
}

/// A stream that is being created.
pub(super) struct NewStream<'a> {
    pub(super) cx: &'a StatementContext,
    pub(super) name: &'a str,
    pub(super) options: EngineOptions,
    pub(super) definition: Option<&'a Definition>,
    /// The columns that were added since its creation: the last of its columns.
    pub(super) added: &'a [ColumnDef],
}

impl NewStream<'_> {
    /// Creates the stream with its log and its history, and starts its retention.
    pub(super) async fn create(self, columns: StreamColumns) -> Result<Stream> {
        let parts = &self.cx.instance.parts;
        let StreamColumns { schema, source, columns, key, checks, .. } = columns;
        let when_idle = when_idle(self.name, &self.options, schema.event_time().is_some())?;
        let mut received = None;
        let (feed, history, replayable) = match source {
            Some(source) if source.forgets() => {
                let push = self.pushed((&schema, key.is_some()), None, &checks).await?;
                let replayable = push.wal.is_some();
                received = Some((Arc::clone(&push), source));
                (Feed::Push(push), None, replayable)
            }
            Some(source) => {
                let history = match self.options.retention {
                    Some(_) => Some(self.history(&schema, &source).await?),
                    None => None,
                };
                let replayable = source.is_replayable();
                (Feed::Source(source), history, replayable)
            }
            None => {
                let push = self.pushed((&schema, key.is_some()), columns, &checks).await?;
                let replayable = push.wal.is_some();
                (Feed::Push(push), None, replayable)
            }
        };
        let schema = match &key {
            Some(_) => StreamSchema::try_new(with_sequence(schema.schema()), None)?,
            None => schema,
        };
        let mut stream = Stream {
            name: self.name.to_owned(),
            schema,
            key,
            feed,
            history,
            receiver: None,
            replayable,
            when_idle,
            max_future_skew_micros: self.options.max_future_skew_micros,
            checks,
            retention: None,
            connector: self.options.connector.clone().unwrap_or_else(|| "push".to_owned()),
            bad_rows: Arc::clone(&parts.bad_rows),
            clock: Arc::clone(&parts.clock),
            older: vec![],
        };
        stream.retention = self.retention(&stream)?;
        if let Some((push, source)) = received.filter(|_| !self.cx.instance.is_plan_only()) {
            let by = (Arc::clone(&parts.clock), parts.limits.batch_rows_max);
            stream.receiver = Some(Receiver::begin(push, source, by, &parts.cpu));
        }
        Ok(stream)
    }

    /// Creates the log of rows that are stored as they come in.
    async fn pushed(
        &self,
        (schema, changes): (&StreamSchema, bool),
        columns: Option<Columns>,
        checks: &Checks,
    ) -> Result<Arc<PushStream>> {
        let skew = self.options.max_future_skew_micros.or(Some(MAX_FUTURE_SKEW_MICROS));
        let durability = durability(&self.options)?;
        let push = self.push_stream((schema, changes), columns, skew, durability).await?;
        push.check_by(checks.clone());
        Ok(push)
    }

    /// Starts the retention of the log of the stream, if it has one.
    fn retention(&self, stream: &Stream) -> Result<Option<Arc<Retention>>> {
        let Some(push) = stream.kept() else { return Ok(None) };
        let (log, keep) = ((&push.log, push.spiller.as_ref()), self.options.retention);
        let started = start_retention(
            self.cx,
            (self.name, self.name),
            log,
            &stream.schema,
            keep.map(|k| k.0),
        );
        let retention = started.map_err(|e| match keep {
            Some((_, place)) => e.with_place(place),
            None => e,
        })?;
        let truncated = self.definition.and_then(|definition| definition.truncated);
        if let Some(truncated) = truncated.filter(|_| retention.is_archived()) {
            retention.was_truncated(truncated);
        }
        Ok(Some(retention))
    }

    /// Starts to store the rows of a connector.
    async fn history(
        &self,
        schema: &StreamSchema,
        source: &Arc<dyn Source>,
    ) -> Result<Arc<History>> {
        let default = (!source.is_bounded()).then_some(MAX_FUTURE_SKEW_MICROS);
        let skew = self.options.max_future_skew_micros.or(default);
        // The source has the rows too: those that a power failure takes are read again.
        let push = self.push_stream((schema, false), None, skew, Some(Durability::Os)).await?;
        let parts = &self.cx.instance.parts;
        let places = match (&self.cx.instance.store, self.definition) {
            (Some(store), Some(definition)) => store.open_places(definition)?,
            _ => Places::default(),
        };
        let by = (Arc::clone(&parts.clock), &parts.limits);
        let source = (Arc::clone(source), source.is_replayable());
        Ok(History::begin(push, source, places, by, &parts.cpu))
    }

    /// Creates a push stream, in memory or in the data directory. `changes`: its rows replace each other.
    async fn push_stream(
        &self,
        (schema, changes): (&StreamSchema, bool),
        columns: Option<Columns>,
        max_future_skew_micros: Option<i64>,
        durability: Option<Durability>,
    ) -> Result<Arc<PushStream>> {
        let texts = match &columns {
            Some(columns) => columns.texts.clone(),
            None => Texts::of_query(schema.schema()),
        };
        let added = match &columns {
            Some(columns) => added_values(self.cx, self.name, columns, self.added)?,
            None => vec![],
        };
        let generated = columns.filter(Columns::any_generated).map(Arc::new);
        let parts = &self.cx.instance.parts;
        let time = schema.event_time().map(|e| e.index);
        let intake = Intake { time, valid: i64::MIN..=i64::MAX, max_future_skew_micros };
        let (log, durable) = match (&self.cx.instance.store, self.definition, durability) {
            (Some(store), Some(definition), Some(durability)) => {
                let layout = Layout::new(Arc::clone(schema.schema()), added.clone());
                let (log, wal) = store.open_stream(definition, &layout, time, durability).await?;
                let spiller = log.spiller(Arc::clone(&wal));
                self.cx.instance.start_archiving(self.name, Arc::clone(&spiller));
                (log.log, Some((wal, spiller)))
            }
            _ => {
                let (schema, memory) = (Arc::clone(schema.schema()), parts.memory.as_ref());
                (StreamLog::in_memory(schema, self.name, &parts.limits, memory), None)
            }
        };
        let (bad_rows, clock) = (Arc::clone(&parts.bad_rows), Arc::clone(&parts.clock));
        let push = PushStream::new(self.name.to_owned(), log, intake, bad_rows, clock, generated)
            .with(texts, added);
        let push = if changes { push.with_changes() } else { push };
        Ok(Arc::new(match durable {
            Some((wal, spiller)) => push.with_wal(wal, spiller, &parts.limits),
            None => push,
        }))
    }
}

/// The columns that are metadata, with its names.
fn metadata(columns: &[ColumnDef]) -> impl Iterator<Item = (String, String)> + '_ {
    columns.iter().filter_map(|c| Some((ident_name(&c.name), parse::metadata(c)?)))
}

/// Checks that rows that come without messages are not declared to have their metadata.
///
/// # Errors
/// When they are.
pub(super) fn no_metadata(create: &parse::CreateStream) -> Result<()> {
    let Some((column, name)) = metadata(&create.columns).next() else { return Ok(()) };
    Err(Error::sql(format!("column \"{column}\" is metadata '{name}', and the stream has no messages"))
        .with_hint("Metadata is of connectors: WITH (connector = 'kafka', …). Leave it out, or declare a plain column."))
}

/// Returns the environment of connectors: the parts of the engine that they use.
pub(super) fn connector_env(cx: &StatementContext) -> ConnectorEnv {
    let parts = &cx.instance.parts;
    ConnectorEnv {
        limits: parts.limits.clone(),
        clock: Arc::clone(&parts.clock),
        io: parts.cpu.clone(),
        files: cx.files(),
    }
}

/// Returns columns with their types, for messages.
fn listed(schema: &Schema) -> String {
    let columns = schema.fields().iter();
    let columns = columns.map(|f| format!("{} {}", f.name(), sql_type_of(f)));
    columns.collect::<Vec<_>>().join(", ")
}

/// Opens files as a table of a bounded query; `options` are those of a stream over them.
///
/// # Errors
/// When they cannot be read, or may not be.
pub(super) async fn file_table(
    cx: &StatementContext,
    path: &str,
    options: &[OptionItem],
) -> Result<Arc<dyn TableProvider>> {
    cx.access.need_somewhere(Role::Admin, "reading a file")?;
    let others = options.iter().map(|option| (option.key.clone(), option.value.clone()));
    let options = EngineOptions {
        connector: Some("file".to_owned()),
        rest: std::iter::once(("path".to_owned(), path.to_owned())).chain(others).collect(),
        ..EngineOptions::default()
    };
    let env = connector_env(cx);
    let source = open_source("file", &options.rest, Declared::default(), &env).await;
    let source = source.map_err(without_options)?;
    let schema = StreamSchema::try_new(source.schema(), None)?;
    let columns = StreamColumns {
        schema,
        source: Some(source),
        columns: None,
        key: None,
        checks: Checks::default(),
        reads: vec![],
    };
    let new = NewStream { cx, name: path, options, definition: None, added: &[] };
    let stream = Arc::new(new.create(columns).await?);
    Ok(Arc::new(stream.relation(None)))
}

/// Replaces a hint to add an option: a file without a definition has none.
fn without_options(error: Error) -> Error {
    if !error.hints().iter().any(|hint| hint.starts_with("Add format = ")) {
        return error;
    }
    Error::new(error.kind(), error.message().to_owned()).with_hint(
        "Name it .csv, .json, .ndjson, .parquet or .avro, use COPY … FROM 'file' (FORMAT csv), or create a stream: CREATE STREAM s \
         WITH (connector = 'file', path = '…', format = 'csv').",
    )
}

/// Adds the place of an option to an error that names it and has no place yet.
pub(super) fn at_option(error: Error, options: &[OptionItem]) -> Error {
    if error.place().is_some() {
        return error;
    }
    let named = options.iter().find(|o| error.message().contains(&format!("\"{}\"", o.key)));
    match named {
        Some(option) => error.with_place(option.place),
        None => error,
    }
}
