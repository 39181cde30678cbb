//! `CREATE STREAM`, and what all objects have in common when they are made: names, definitions.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{DdlStatement, Expr as PlanExpr, LogicalPlan};
use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::helpers::stmt_create_table::CreateTableBuilder;
use sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, ColumnDef, ColumnOption, DataType, Expr, ExprWithAlias,
    Ident, ObjectName,
};
use windrow_connectors::{ConnectorEnv, Declared, open_source};
use windrow_core::time::{nanos_to_ticks, ticks_per_second, time_unit};
use windrow_core::{Error, EventTimeColumn, Result, Source, StreamSchema};
use windrow_sql::diagnostics::{from_datafusion, nearest};
use windrow_sql::parse::{CreateStream, OptionItem, WatermarkClause, characters_max, is_proctime};
use windrow_sql::plan::physical_expression;
use windrow_stream::generated::{Column, Columns, GeneratedSource, IntakeTime};
use windrow_stream::history::History;
use windrow_stream::intake::Intake;
use windrow_stream::lengths::{Lengths, LimitedSource, OnBad};
use windrow_stream::log::StreamLog;
use windrow_stream::places::Places;
use windrow_stream::push::PushStream;
use windrow_stream::retention::Retention;
use windrow_stream::spill::Spiller;
use windrow_stream::{Feed, MAX_FUTURE_SKEW_MICROS, Stream};

use crate::catalog::{Object, exists, plain_name, read_by};
use crate::durable::definitions::{Definition, Kind};
use crate::session::file_tables::listed;
use crate::session::stream_options::{
    EngineOptions, durability, engine_options, intake_of_connector, interval_nanos, no_options,
    no_push_options, no_retention, timeless, when_idle,
};
use crate::session::{Outcome, Session};

/// A stream before it is given a place for its rows.
pub(super) struct StreamColumns {
    pub(super) schema: StreamSchema,
    pub(super) source: Option<Arc<dyn Source>>,
    pub(super) columns: Option<Columns>,
    /// What it is a replay of.
    pub(super) reads: Vec<String>,
}

impl Session {
    pub(super) async fn create_stream(&self, create: CreateStream, text: &str) -> Result<Outcome> {
        let name = plain_name(&create.name)?;
        if self.taken(&name, create.or_replace, create.if_not_exists, "stream")? {
            return Ok(Outcome::Done("CREATE STREAM (exists already)".into()));
        }
        let options = engine_options(&create.options)?;
        let columns = self.stream_columns(&name, &create, &options).await?;
        if let (Some((_, place)), None) = (options.retention, columns.schema.event_time()) {
            return Err(timeless(&name).with_place(place));
        }
        if create.or_replace {
            self.replace(&name).await?;
        }
        let reads = columns.reads.clone();
        let notices = columns.source.as_ref().map(|source| source.notices()).unwrap_or_default();
        let definition = self.record(&name, Kind::Stream, text)?;
        let stream = self.new_stream(&name, columns, options, definition.as_ref()).await;
        let stream = stream.and_then(|stream| self.made(definition.as_ref()).map(|()| stream));
        let stream = Arc::new(self.or_forget(&name, stream)?);
        let relation = Arc::new(stream.relation(None));
        let mut said = match stream.schema.event_time() {
            Some(_) => "CREATE STREAM".to_owned(),
            None => "CREATE STREAM (no watermark: no windows with EMIT over it)".to_owned(),
        };
        if create.columns.is_empty() {
            said.push_str("\nfound: ");
            said.push_str(&listed(stream.schema.schema()));
        }
        for notice in notices {
            said.push_str("\nnotice: ");
            said.push_str(&notice);
        }
        self.engine.catalog.add(&name, Object::Stream(stream), relation, (text, reads))?;
        Ok(Outcome::Done(said.into()))
    }

    /// The columns of a stream, and its source where it has a connector.
    async fn stream_columns(
        &self,
        name: &str,
        create: &CreateStream,
        options: &EngineOptions,
    ) -> Result<StreamColumns> {
        if options.is_replay() {
            no_push_options(options)?;
            no_retention(options)?;
            let (source, schema, of) = self.replay(create, &options.rest)?;
            if of == name {
                return Err(Error::sql(format!("stream \"{name}\" would replay itself")));
            }
            let source: Arc<dyn Source> = Arc::new(source);
            return Ok(StreamColumns {
                schema,
                source: Some(source),
                columns: None,
                reads: vec![of],
            });
        }
        let columns = match create.columns.as_slice() {
            [] => None,
            columns => Some(self.declared_columns(columns).await?),
        };
        let intake = columns.as_ref().and_then(Columns::intake);
        let (feed_source, schema) = match &options.connector {
            Some(_) if intake.is_some() => return Err(intake_of_connector(name)),
            Some(connector) => {
                let source = self.open(connector, create, options, columns.as_ref()).await?;
                let schema = source.schema();
                no_push_options(options)?;
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
        let event_time = match &create.watermark {
            Some(clause) => Some(self.event_time(&schema, clause)?),
            // The processing time never goes back, so nothing is ever late by it.
            None => intake.map(|index| EventTimeColumn { index, delay_ticks: 0 }),
        };
        let schema =
            StreamSchema::try_new(schema, event_time).map_err(|e| match &create.watermark {
                Some(clause) => e.with_place(clause.place),
                None => e,
            })?;
        Ok(StreamColumns { schema, source: feed_source, columns, reads: vec![] })
    }

    /// A stream of these columns, which no name leads to yet.
    pub(super) async fn new_stream(
        &self,
        name: &str,
        columns: StreamColumns,
        options: EngineOptions,
        definition: Option<&Definition>,
    ) -> Result<Stream> {
        let parts = &self.engine.parts;
        let StreamColumns { schema, source, columns, .. } = columns;
        let when_idle = when_idle(name, &options, schema.event_time().is_some())?;
        // A generator that begins now begins at another time after a restart, and a replay may
        // have more to read.
        let begins_now = options.is_replay()
            || options.rest.iter().any(|(_, value)| value.eq_ignore_ascii_case("now"));
        let (feed, history) = match source {
            Some(source) => {
                let kept = options.retention.is_some();
                let history = if kept {
                    let source = (Arc::clone(&source), !begins_now);
                    Some(self.history(name, &schema, source, (&options, definition)).await?)
                } else {
                    None
                };
                (Feed::Source(source), history)
            }
            None => {
                let lengths = columns.as_ref().map(|c| c.lengths.clone()).unwrap_or_default();
                let columns = columns.filter(Columns::any_generated).map(Arc::new);
                let skew = options.max_future_skew_micros.or(Some(MAX_FUTURE_SKEW_MICROS));
                let given = (&options, definition);
                let columns = (columns, lengths);
                (Feed::Push(self.push_stream(name, &schema, columns, skew, given).await?), None)
            }
        };
        let log = match &feed {
            Feed::Push(push) => Some(push),
            Feed::Source(_) | Feed::View(_) => history.as_ref().map(|history| &history.push),
        };
        let retention = match (log, options.retention) {
            (Some(push), Some((keep, place))) => {
                let log = (&push.log, push.spiller.as_ref());
                Some(
                    self.retention((name, name), log, &schema, keep)
                        .map_err(|e| e.with_place(place))?,
                )
            }
            _ => None,
        };
        let replayable = match &feed {
            Feed::Push(push) => push.wal.is_some(),
            Feed::Source(_) => !begins_now,
            Feed::View(_) => true,
        };
        Ok(Stream {
            name: name.to_owned(),
            schema,
            feed,
            history,
            replayable,
            when_idle,
            max_future_skew_micros: options.max_future_skew_micros,
            retention,
            connector: options.connector.unwrap_or_else(|| "push".to_owned()),
            bad_rows: Arc::clone(&parts.bad_rows),
            clock: Arc::clone(&parts.clock),
        })
    }

    /// What is kept of a connector's rows. `steady`: its offsets are the same after a restart.
    async fn history(
        &self,
        name: &str,
        schema: &StreamSchema,
        (source, steady): (Arc<dyn Source>, bool),
        (options, definition): (&EngineOptions, Option<&Definition>),
    ) -> Result<Arc<History>> {
        let default = (!source.is_bounded()).then_some(MAX_FUTURE_SKEW_MICROS);
        let skew = options.max_future_skew_micros.or(default);
        // The source has the rows too: what a power failure takes is read again.
        let options = EngineOptions { durability: Some("os".into()), ..EngineOptions::default() };
        let columns = (None, Lengths::default());
        let push = self.push_stream(name, schema, columns, skew, (&options, definition)).await?;
        let parts = &self.engine.parts;
        let places = match (&self.engine.store, definition) {
            (Some(store), Some(definition)) => store.open_places(definition)?,
            _ => Places::default(),
        };
        let by = (Arc::clone(&parts.clock), &parts.limits);
        Ok(History::begin(push, (source, steady), places, by, &parts.cpu))
    }

    /// A push stream: in memory, or kept in the data directory.
    async fn push_stream(
        &self,
        name: &str,
        schema: &StreamSchema,
        (columns, lengths): (Option<Arc<Columns>>, Lengths),
        max_future_skew_micros: Option<i64>,
        (options, definition): (&EngineOptions, Option<&Definition>),
    ) -> Result<Arc<PushStream>> {
        let parts = &self.engine.parts;
        let time = schema.event_time().map(|e| e.index);
        let intake = Intake { time, valid: i64::MIN..=i64::MAX, max_future_skew_micros };
        let durability = durability(options)?;
        let (log, kept) = match (&self.engine.store, definition, durability) {
            (Some(store), Some(definition), Some(durability)) => {
                let (kept, wal) =
                    store.open_stream(definition, schema.schema(), time, durability).await?;
                let spiller = kept.spiller(Arc::clone(&wal));
                self.engine.keep(name, Arc::clone(&spiller));
                (kept.log, Some((wal, spiller)))
            }
            _ => {
                let (schema, memory) = (Arc::clone(schema.schema()), parts.memory.as_ref());
                (StreamLog::in_memory(schema, name, &parts.limits, memory), None)
            }
        };
        let (bad_rows, clock) = (Arc::clone(&parts.bad_rows), Arc::clone(&parts.clock));
        let push = PushStream::new(name.to_owned(), log, intake, bad_rows, clock, columns)
            .with_lengths(lengths);
        Ok(Arc::new(match kept {
            Some((wal, spiller)) => push.with_wal(wal, spiller, &parts.limits),
            None => push,
        }))
    }

    /// The task that releases the old rows of a log, which begins now; the engine knows it by `key`.
    pub(super) fn retention(
        &self,
        (name, key): (&str, &str),
        log: (&Arc<StreamLog>, Option<&Arc<Spiller>>),
        schema: &StreamSchema,
        keep: Duration,
    ) -> Result<Arc<Retention>> {
        let Some(time) = schema.event_time() else {
            return Err(timeless(name));
        };
        let unit = time_unit(schema.schema().field(time.index).data_type());
        let per_second = unit.map_or(1, ticks_per_second);
        // Rather a tick too much than one too few.
        let ticks =
            (keep.as_nanos() * u128::from(per_second.unsigned_abs())).div_ceil(1_000_000_000);
        let ticks = i64::try_from(ticks).unwrap_or(i64::MAX);
        let retention = Retention::new(name, log, time.index, ticks);
        self.engine.retain(key, &retention);
        Ok(retention)
    }

    /// Makes a definition durable, where there is a data directory. While an engine is opened the
    /// definition is there already.
    pub(super) fn record(&self, name: &str, kind: Kind, text: &str) -> Result<Option<Definition>> {
        match (&self.engine.store, &self.restoring) {
            (Some(_), Some(definition)) => Ok(Some(definition.as_ref().clone())),
            (Some(store), None) => store.record_at(name, kind, text, self.files().base()).map(Some),
            (None, _) => Ok(None),
        }
    }

    /// All that is kept of an object has been made: what of that is not there at the next opening is lost.
    pub(super) fn made(&self, definition: Option<&Definition>) -> Result<()> {
        match (&self.engine.store, definition) {
            (Some(store), Some(definition)) => store.made(definition),
            _ => Ok(()),
        }
    }

    /// Takes a definition back when its object could not be made.
    pub(super) fn or_forget<T>(&self, name: &str, made: Result<T>) -> Result<T> {
        if made.is_err()
            && self.restoring.is_none()
            && let Some(store) = &self.engine.store
        {
            store.forget(name)?;
        }
        made
    }

    /// What connectors get of the engine.
    pub(super) fn connector_env(&self) -> ConnectorEnv {
        let parts = &self.engine.parts;
        ConnectorEnv {
            limits: parts.limits.clone(),
            clock: Arc::clone(&parts.clock),
            io: parts.cpu.clone(),
            files: self.files(),
        }
    }

    async fn open(
        &self,
        connector: &str,
        create: &CreateStream,
        options: &EngineOptions,
        columns: Option<&Columns>,
    ) -> Result<Arc<dyn Source>> {
        let env = self.connector_env();
        let watermark = create.watermark.as_ref().map(|w| ident_name(&w.column));
        let physical = columns.map(|c| Arc::clone(&c.physical));
        let delivered =
            |name: &String| physical.as_ref().is_none_or(|p| p.column_with_name(name).is_some());
        let unsaid = create.columns.iter().filter(|column| has_unsaid_times(&column.data_type));
        let declared = Declared {
            schema: physical.clone(),
            event_time: watermark.filter(delivered),
            unsaid: unsaid.map(|column| ident_name(&column.name)).collect(),
        };
        let placed = |e: Error| match (e.place(), create.options.first()) {
            (None, Some(_)) => place_of_option(e, &create.options),
            _ => e,
        };
        let inner = open_source(connector, &options.rest, declared, &env).await.map_err(placed)?;
        let inner = match columns {
            Some(columns) if !columns.lengths.is_empty() => Arc::new(LimitedSource {
                inner,
                lengths: columns.lengths.clone(),
                on_bad: OnBad::of(options.of_connector("on_bad_row")),
            }),
            _ => inner,
        };
        Ok(match columns {
            Some(columns) if columns.any_generated() => {
                Arc::new(GeneratedSource { inner, columns: Arc::new(columns.clone()) })
            }
            _ => inner,
        })
    }

    /// The declared columns as Arrow columns, generated ones with their expression.
    async fn declared_columns(&self, columns: &[ColumnDef]) -> Result<Columns> {
        let state = self.state();
        let mut plain = columns.to_vec();
        for column in &mut plain {
            column
                .options
                .retain(|o| matches!(o.option, ColumnOption::NotNull | ColumnOption::Null));
        }
        let name = ObjectName::from(vec![Ident::new("windrow_columns")]);
        let table = CreateTableBuilder::new(name).columns(plain).build();
        let statement = EngineStatement::Statement(Box::new(table.into()));
        let plan = windrow_sql::plan::statement(&state, statement).await?;
        let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) = plan else {
            return Err(Error::internal("column definitions did not plan as a table"));
        };
        let schema: SchemaRef = Arc::clone(table.input.schema().inner());
        let generated = |column: &ColumnDef| {
            column.options.iter().find_map(|o| match &o.option {
                ColumnOption::Generated { generation_expr: Some(expr), .. } => Some(expr.clone()),
                _ => None,
            })
        };
        let physical: SchemaRef = Arc::new(Schema::new(
            schema
                .fields()
                .iter()
                .zip(columns)
                .filter(|(_, column)| generated(column).is_none())
                .map(|(field, _)| Arc::clone(field))
                .collect::<Vec<Arc<Field>>>(),
        ));
        let df_schema = DFSchema::try_from(Arc::clone(&physical)).map_err(from_datafusion)?;
        let with_length =
            |c: &&ColumnDef| generated(c).is_some() && characters_max(&c.data_type).is_some();
        if let Some(column) = columns.iter().find(with_length) {
            let name = ident_name(&column.name);
            return Err(Error::sql(format!("the generated column \"{name}\" has a length"))
                .with_hint("Declare it as VARCHAR, and cut the text with left(…, n)."));
        }
        let mut kinds = Vec::with_capacity(columns.len());
        let mut next = 0;
        for column in columns {
            kinds.push(match generated(column) {
                None => {
                    next += 1;
                    Column::Physical(next - 1)
                }
                Some(expr) if is_proctime(&expr) => {
                    Column::Intake(Arc::new(IntakeTime::new(Arc::clone(&self.engine.parts.clock))))
                }
                Some(expr) => {
                    let expr = ExprWithAlias { expr, alias: None };
                    let expr = state
                        .create_logical_expr_from_sql_expr(expr, &df_schema)
                        .map_err(from_datafusion)?;
                    Column::Generated(physical_expression(&state, expr, &df_schema)?)
                }
            });
        }
        let lengths = Lengths::of(columns.iter().filter(|column| generated(column).is_none()));
        Ok(Columns { schema, physical, columns: kinds, lengths })
    }

    /// `WATERMARK FOR column AS column - INTERVAL …`.
    pub(super) fn event_time(
        &self,
        schema: &SchemaRef,
        clause: &WatermarkClause,
    ) -> Result<EventTimeColumn> {
        let name = ident_name(&clause.column);
        let Some((index, field)) = schema.column_with_name(&name) else {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            let error = Error::sql(format!("WATERMARK FOR names no column: \"{name}\""))
                .with_place(clause.place);
            return Err(match nearest(&name, names.iter().copied()) {
                Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
                None => error.with_hint(format!("Known columns: {}.", names.join(", "))),
            });
        };
        let Some(unit) = time_unit(field.data_type()) else {
            return Ok(EventTimeColumn { index, delay_ticks: 0 });
        };
        let nanos = match &clause.expr {
            None => 0,
            Some(expr) => self.delay_nanos(expr, &clause.column).map_err(|e| match e.place() {
                Some(_) => e,
                None => e.with_place(clause.place),
            })?,
        };
        // A delay that is no whole number of ticks rounds up: it may be longer, never shorter.
        let tick = 1_000_000_000 / i128::from(ticks_per_second(unit));
        let whole = nanos + (tick - nanos.rem_euclid(tick)) % tick;
        Ok(EventTimeColumn { index, delay_ticks: nanos_to_ticks(whole, unit)? })
    }

    fn delay_nanos(&self, expr: &Expr, column: &Ident) -> Result<i128> {
        let wrong = || {
            Error::sql(format!(
                "the watermark of \"{column}\" is not \"{column}\" less an interval"
            ))
            .with_hint(format!("Write WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'."))
        };
        let is_column =
            |e: &Expr| matches!(e, Expr::Identifier(i) if ident_name(i) == ident_name(column));
        match expr {
            Expr::Nested(inner) => self.delay_nanos(inner, column),
            e if is_column(e) => Ok(0),
            Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => {
                let state = self.state();
                let expr = ExprWithAlias { expr: right.as_ref().clone(), alias: None };
                let expr = state
                    .create_logical_expr_from_sql_expr(expr, &DFSchema::empty())
                    .map_err(from_datafusion)?;
                match expr {
                    PlanExpr::Literal(value, _) => interval_nanos(&value).ok_or_else(wrong),
                    _ => Err(wrong()),
                }
            }
            _ => Err(wrong()),
        }
    }

    /// Whether an `IF NOT EXISTS` has nothing to do.
    pub(super) fn taken(
        &self,
        name: &str,
        replace: bool,
        if_not_exists: bool,
        kind: &str,
    ) -> Result<bool> {
        let catalog = &self.engine.catalog;
        if let Some(error) = catalog.broken(name) {
            return Err(
                error.with_hint(format!("DROP {} {name} gives it up.", kind.to_uppercase()))
            );
        }
        if !catalog.exists(name) {
            return Ok(false);
        }
        match catalog.get(name) {
            _ if if_not_exists => Ok(true),
            Some(object) if replace && object.kind() == kind => Ok(false),
            Some(object) if replace => {
                Err(Error::sql(format!("\"{name}\" is a {}, not a {kind}", object.kind())))
            }
            _ => Err(exists(name)),
        }
    }

    /// Removes what `OR REPLACE` replaces.
    pub(super) async fn replace(&self, name: &str) -> Result<()> {
        let catalog = &self.engine.catalog;
        if !catalog.exists(name) {
            return Ok(());
        }
        if let [reader, ..] = catalog.readers(name).as_slice() {
            return Err(read_by(name, reader));
        }
        self.take_away(name).await
    }

    /// The push stream for late rows.
    pub(super) fn late_stream(&self, name: &str, reads: &[String]) -> Result<Arc<PushStream>> {
        let catalog = &self.engine.catalog;
        let parts = &self.engine.parts;
        let [read] = reads else {
            return Err(Error::sql("LATE DATA TO needs a query that reads exactly one stream"));
        };
        let from = catalog.stream_to_read(read)?;
        if catalog.exists(name) {
            let to = catalog.stream(name)?;
            return match &to.feed {
                // A query that is run again after a crash would give its late rows once more.
                Feed::Push(push) if push.wal.is_some() => Err(Error::sql(format!(
                    "\"{name}\" is a durable stream, late rows of a query would be doubled in it"
                ))
                .with_hint(
                    "Name a stream that does not exist yet; it is filled again at every start.",
                )),
                Feed::Push(push) if to.schema.schema() == from.schema.schema() => {
                    Ok(Arc::clone(push))
                }
                _ => Err(Error::sql(format!(
                    "\"{name}\" cannot take the late rows of \"{read}\": its columns differ"
                ))),
            };
        }
        let push = Arc::new(PushStream::new(
            name.to_owned(),
            StreamLog::in_memory(
                Arc::clone(from.schema.schema()),
                name,
                &parts.limits,
                parts.memory.as_ref(),
            ),
            Intake { time: None, valid: i64::MIN..=i64::MAX, max_future_skew_micros: None },
            Arc::clone(&parts.bad_rows),
            Arc::clone(&parts.clock),
            None,
        ));
        let stream = Arc::new(Stream {
            name: name.to_owned(),
            schema: StreamSchema::try_new(Arc::clone(from.schema.schema()), None)?,
            feed: Feed::Push(Arc::clone(&push)),
            history: None,
            when_idle: None,
            max_future_skew_micros: None,
            connector: "push".to_owned(),
            replayable: false,
            retention: None,
            bad_rows: Arc::clone(&parts.bad_rows),
            clock: Arc::clone(&parts.clock),
        });
        let relation = Arc::new(stream.relation(None));
        let text = format!("-- late rows of \"{read}\"");
        catalog.add(name, Object::Stream(stream), relation, (&text, vec![]))?;
        Ok(push)
    }
}

/// Whether there are times of no declared precision in a type.
fn has_unsaid_times(data_type: &DataType) -> bool {
    match data_type {
        DataType::Timestamp(None, _) | DataType::TimestampNtz(None) | DataType::Datetime(None) => {
            true
        }
        DataType::Array(
            ArrayElemTypeDef::AngleBracket(item)
            | ArrayElemTypeDef::SquareBracket(item, _)
            | ArrayElemTypeDef::Parenthesis(item),
        ) => has_unsaid_times(item),
        DataType::Struct(fields, _) => fields.iter().any(|f| has_unsaid_times(&f.field_type)),
        DataType::Map(key, value) => has_unsaid_times(key) || has_unsaid_times(value),
        _ => false,
    }
}

fn ident_name(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// Puts an error that names an option at that option.
pub(super) fn place_of_option(error: Error, options: &[OptionItem]) -> Error {
    let named = options.iter().find(|o| error.message().contains(&format!("\"{}\"", o.key)));
    match named {
        Some(option) => error.with_place(option.place),
        None => error,
    }
}
