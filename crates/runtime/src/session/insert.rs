//! `INSERT INTO`: into a stream without connector, or into a reference table.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use futures::TryStreamExt;
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::did_you_mean;
use windrow_sql::parse::Insert;
use windrow_sql::plan::{TIME_ZONE, is_text, loss, plan_values};

use crate::catalog::{Object, plain_name};
use crate::query::output::Output;
use crate::query::start::Wanted;
use crate::session::held::held;
use crate::session::kept_insert::NewInsert;
use crate::session::query::streams_read;
use crate::session::{Done, Outcome, Session, UnusedRows};
use crate::stream::lengths::Lengths;
use crate::stream::push::PushStream;
use crate::stream::{Feed, Stream};

/// An INSERT of up to so many rows is one record of the log.
const WHOLE_ROWS_MAX: usize = 1 << 20;

impl Session {
    pub(super) async fn insert(&self, insert: Insert, text: &str) -> Result<Outcome> {
        let name = plain_name(&insert.target)?;
        let stream = match self.engine.catalog.get(&name) {
            Some(Object::Stream(stream)) => stream,
            Some(other) => {
                return Err(Error::sql(format!(
                    "\"{name}\" is a {}, rows cannot be inserted",
                    other.kind()
                )));
            }
            None if !self.engine.catalog.exists(&name) => {
                return Err(self.engine.catalog.missing("stream", &name));
            }
            None => return self.standard(insert.into_datafusion(), text).await,
        };
        let push = &fed_by_inserts(&stream)?;
        let plan = match &self.value_rows {
            Some(rows) => {
                let (state, rows) = (self.state(), rows.clone());
                let query = (*insert.query.query).clone();
                let plan = self.planning(async move { plan_values(&state, query, rows).await });
                plan.await?
                    .ok_or_else(|| Error::internal("an INSERT of VALUES has another plan"))?
            }
            None => self.plan(&insert.query.query, &[]).await?,
        };
        let target = Target::new(push, &insert, &name, plan.schema().fields().len())?;
        let target = target.in_zone(self.time_zone());
        if insert.query.tail.is_empty() {
            return self.insert_bounded(plan, &target, push).await;
        }
        let reads = streams_read(&plan)?;
        let bounded = plan.clone();
        let plan = self.continuous(plan, &insert.query.tail).await?;
        let has_late_to = insert.query.tail.late_data_to.is_some();
        if self.insert_is_kept(push, (&reads, has_late_to)) {
            let insert = NewInsert { push, target, text, reads, bounded };
            return self.keep_insert(insert, plan).await;
        }
        let late_to = self.late_to(&insert.query.tail, &reads)?;
        let shared = self.engine.parts.new_query(Some(format!("insert into {name}")));
        let id = shared.id;
        let output = Output::Stream { stream: Arc::clone(push), target: Arc::new(target) };
        let wanted = Wanted::new(shared, output, late_to);
        self.start_now(plan, wanted).await?;
        // After a restart nobody knows which rows it has inserted already.
        let ends = if self.engine.store.is_some() {
            "; it ends with this process, unlike one over durable streams"
        } else {
            ""
        };
        Ok(Outcome::Done(format!("INSERT (continuous, query {id}{ends})").into()))
    }

    async fn insert_bounded(
        &self,
        plan: datafusion::logical_expr::LogicalPlan,
        target: &Target,
        push: &Arc<PushStream>,
    ) -> Result<Outcome> {
        let plan = self.physical_in_order(plan).await?;
        // All rows are made before one is inserted: a statement that fails inserts nothing. They are
        // there twice when they become one batch.
        let plan = held(plan, 2);
        let counted = Arc::clone(&plan);
        let mut rows = self.execute_plan(plan).not_seeing(&self.unseen);
        let mut batches = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            batches.push(target.fit(&batch)?);
        }
        let (mut inserted, mut bad, mut in_1970) = (0, 0, true);
        for batch in &whole(batches)? {
            let pushed = push.append(batch).await?;
            inserted += pushed.rows;
            bad += pushed.bad;
            in_1970 &= pushed.in_1970;
        }
        drop(counted);
        let mut said = match bad {
            0 => format!("INSERT 0 {inserted}"),
            bad => format!("INSERT 0 {inserted} ({bad} bad, see windrow.bad_rows)"),
        };
        said += &rows.unused_rows().map(UnusedRows::aside).unwrap_or_default();
        if in_1970 && inserted > 0 {
            said.push_str(
                "\nnotice: all event times lie in 1970; a number counts the unit of the column",
            );
        }
        Ok(Outcome::Done(Done { said, rows: Some(inserted) }))
    }
}

/// What takes the rows for a stream.
///
/// # Errors
/// When it is fed by a connector.
pub(crate) fn fed_by_inserts(stream: &Stream) -> Result<Arc<PushStream>> {
    match &stream.feed {
        Feed::Push(push) => Ok(Arc::clone(push)),
        Feed::Source(_) | Feed::View(_) => Err(Error::sql(format!(
            "stream \"{}\" is fed by its connector \"{}\", rows cannot be inserted",
            stream.name, stream.connector
        ))),
    }
}

/// The rows of one statement as one batch, so that they are durable together or not at all; very
/// many rows stay as they are.
fn whole(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    match batches.first() {
        Some(first) if batches.len() > 1 && rows <= WHOLE_ROWS_MAX => {
            Ok(vec![concat_batches(&first.schema(), &batches)?])
        }
        _ => Ok(batches),
    }
}

/// Which column of the stream takes which column of the query.
#[derive(Debug)]
pub(crate) struct Target {
    stream: String,
    schema: SchemaRef,
    lengths: Lengths,
    /// Per column of the stream: the column of the query, or none.
    from: Vec<Option<usize>>,
    /// The time zone of texts that name none.
    zone: Arc<str>,
}

impl Target {
    pub(super) fn new(
        push: &PushStream,
        insert: &Insert,
        name: &str,
        given: usize,
    ) -> Result<Self> {
        let schema = push.physical();
        let columns = schema.fields().len();
        let mut from = vec![None; columns];
        let wanted = if insert.columns.is_empty() { columns } else { insert.columns.len() };
        if wanted != given {
            return Err(Error::sql(format!(
                "INSERT INTO \"{name}\" expects {wanted} columns, the query has {given}"
            )));
        }
        if insert.columns.is_empty() {
            from = (0..columns).map(Some).collect();
        }
        for (at, ident) in insert.columns.iter().enumerate() {
            let column = match ident.quote_style {
                Some(_) => ident.value.clone(),
                None => ident.value.to_lowercase(),
            };
            let slot = schema
                .column_with_name(&column)
                .and_then(|(index, _)| from.get_mut(index))
                .ok_or_else(|| {
                    Error::sql(format!("stream \"{name}\" has no column \"{column}\""))
                })?;
            if slot.replace(at).is_some() {
                return Err(Error::sql(format!("column \"{column}\" stands twice")));
            }
        }
        let (schema, lengths) = (Arc::clone(schema), push.lengths.clone());
        Ok(Self { stream: name.to_owned(), schema, lengths, from, zone: TIME_ZONE.into() })
    }

    /// Columns from outside, by their names as they are. What the stream has more is NULL.
    ///
    /// # Errors
    /// When one has no place in the stream, or cannot become what it is there.
    pub(crate) fn by_name(push: &PushStream, given: &Schema) -> Result<Self> {
        let (name, schema) = (&push.name, push.physical());
        let mut from = vec![None; schema.fields().len()];
        for (at, field) in given.fields().iter().enumerate() {
            let column = field.name();
            let found = schema.column_with_name(column);
            let Some((slot, wanted)) =
                found.and_then(|(index, wanted)| Some((from.get_mut(index)?, wanted)))
            else {
                return Err(no_place(push, column));
            };
            if slot.replace(at).is_some() {
                return Err(Error::data(format!("column \"{column}\" is given twice")));
            }
            let (is, was) = (wanted.data_type(), field.data_type());
            if !can_cast_types(was, is) {
                return Err(Error::data(format!(
                    "column \"{column}\" of stream \"{name}\" is {is}, and {was} was given"
                )));
            }
        }
        for (field, from) in schema.fields().iter().zip(&from) {
            if from.is_none() && !field.is_nullable() {
                return Err(Error::data(format!(
                    "column \"{}\" of stream \"{name}\" is NOT NULL, and was not given",
                    field.name()
                )));
            }
        }
        let (schema, lengths) = (Arc::clone(schema), push.lengths.clone());
        Ok(Self { stream: name.clone(), schema, lengths, from, zone: TIME_ZONE.into() })
    }

    /// The same for texts that are times in another zone than UTC, where they name none.
    pub(crate) fn in_zone(self, zone: Arc<str>) -> Self {
        Self { zone, ..self }
    }

    /// A column of the query as one of the stream: each value whole, or none.
    fn assigned(&self, index: usize, field: &Field, given: &ArrayRef) -> Result<ArrayRef> {
        let refused = |why: &str| {
            let (column, stream, is) = (field.name(), &self.stream, field.data_type());
            Error::data(format!("column \"{column}\" of stream \"{stream}\" is {is}: {why}"))
        };
        if let Some(why) = loss(given, field.data_type())? {
            return Err(refused(&why).with_hint("Round it, or CAST it to cut it off."));
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let become_type = |given: &ArrayRef, of: &DataType| {
            cast_with_options(given, of, &strict)
                .map_err(|e| refused(&e.to_string()).with_source(e))
        };
        let column = match field.data_type() {
            DataType::Timestamp(unit, Some(zone))
                if is_text(given.data_type()) && *zone != self.zone =>
            {
                let read = DataType::Timestamp(*unit, Some(Arc::clone(&self.zone)));
                become_type(&become_type(given, &read)?, field.data_type())?
            }
            of => become_type(given, of)?,
        };
        if let Some(why) = self.lengths.refused(index, &column)? {
            let (column, stream) = (field.name(), &self.stream);
            let message = format!("column \"{column}\" of stream \"{stream}\": {why}");
            return Err(Error::data(message).with_hint("Cut it with left(…, n) or a CAST."));
        }
        Ok(column)
    }

    /// A number is no time where nothing says its unit: TIMESTAMP without precision counts nanoseconds, which
    /// nobody means.
    fn check_times(&self, field: &Field, given: Option<&DataType>) -> Result<()> {
        let is_bare = matches!(field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _));
        if !is_bare || !given.is_some_and(DataType::is_numeric) {
            return Ok(());
        }
        Err(Error::data(format!(
            "column \"{}\" of stream \"{}\" is TIMESTAMP, and a number was given: its unit is not known",
            field.name(),
            self.stream
        ))
        .with_hint("Say the unit: to_timestamp_seconds(n), to_timestamp_millis(n), to_timestamp_micros(n) or to_timestamp_nanos(n)."))
    }

    /// Rows of the query as rows of the stream.
    pub(crate) fn fit(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let mut columns = Vec::with_capacity(self.from.len());
        for (index, (field, from)) in self.schema.fields().iter().zip(&self.from).enumerate() {
            let given = from.and_then(|at| rows.columns().get(at)).map(|given| given.data_type());
            self.check_times(field, given)?;
            let column = match from {
                Some(at) => self.assigned(index, field, rows.column(*at))?,
                None => new_null_array(field.data_type(), count),
            };
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(Error::data(format!(
                    "column \"{}\" of stream \"{}\" is NOT NULL",
                    field.name(),
                    self.stream
                )));
            }
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

/// The error for a column that cannot be written.
fn no_place(push: &PushStream, column: &str) -> Error {
    let name = &push.name;
    if push.log.schema().column_with_name(column).is_some() {
        return Error::data(format!("column \"{column}\" of stream \"{name}\" is generated"))
            .with_hint("Leave it out; the stream works it out.");
    }
    let known = push.physical().fields().iter().map(|f| f.name().as_str());
    Error::data(format!("stream \"{name}\" has no column \"{column}\""))
        .with_hint(did_you_mean(column, known, "columns"))
}
