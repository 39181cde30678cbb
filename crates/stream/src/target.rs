//! Assignment of rows from queries and clients to the columns of a stream. A value is converted without loss, or
//! refused.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, Layout, Result, sql_type};
use windrow_sql::diagnostics::{arrow_says, did_you_mean};
use windrow_sql::parse::Insert;
use windrow_sql::plan::{TIME_ZONE, is_text, loss};

use crate::generated::Columns;
use crate::push::PushStream;
use crate::texts::Texts;

/// The mapping of the columns of a query to those of a stream.
#[derive(Debug)]
pub struct Target {
    stream: String,
    columns: Layout,
    texts: Texts,
    /// Per column of the stream: the index of the query's column, or `None`.
    from: Vec<Option<usize>>,
    /// The time zone of texts without one.
    zone: Arc<str>,
}

impl Target {
    /// Maps the columns that an INSERT names (all, if it names none) to the `given` columns of its query, in order.
    ///
    /// # Errors
    /// When the numbers of columns differ, or a column does not exist or is named twice.
    pub fn new(push: &PushStream, insert: &Insert, name: &str, given: usize) -> Result<Self> {
        let form = push.form();
        let schema = form.physical().schema();
        let columns = schema.fields().len();
        let mut from = vec![None; columns];
        let wanted = if insert.columns.is_empty() { columns } else { insert.columns.len() };
        // Without names, columns that were added later may be missing: earlier INSERTs still work.
        let may_lack = insert.columns.is_empty() && given >= form.physical().original();
        if wanted != given && !(may_lack && given < wanted) {
            return Err(Error::sql(format!(
                "INSERT INTO \"{name}\" expects {wanted} columns, the query has {given}"
            )));
        }
        if insert.columns.is_empty() {
            from = (0..columns).map(|at| Some(at).filter(|at| *at < given)).collect();
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
                return Err(Error::sql(format!("column \"{column}\" is named twice")));
            }
        }
        let (columns, texts) = (form.physical().clone(), form.texts.clone());
        Ok(Self { stream: name.to_owned(), columns, texts, from, zone: TIME_ZONE.into() })
    }

    /// Maps the columns of a query to those of a stream that has the same ones, in order.
    pub fn all(push: &PushStream) -> Self {
        let form = push.form();
        let (columns, texts) = (form.physical().clone(), form.texts.clone());
        let from = (0..columns.schema().fields().len()).map(Some).collect();
        Self { stream: push.name.clone(), columns, texts, from, zone: TIME_ZONE.into() }
    }

    /// Maps columns by their exact names. Other columns of the stream become NULL, or have the value with which they were
    /// added.
    ///
    /// # Errors
    /// When a column does not exist in the stream, is given twice, or cannot be converted, or one that is NOT NULL is
    /// missing.
    pub fn by_name(push: &PushStream, given: &Schema) -> Result<Self> {
        let (name, form) = (&push.name, push.form());
        let schema = form.physical().schema();
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
                let (is, was) = (sql_type(is), sql_type(was));
                return Err(Error::data(format!(
                    "column \"{column}\" of stream \"{name}\" is {is}, and {was} was given"
                )));
            }
        }
        for (at, (field, from)) in schema.fields().iter().zip(&from).enumerate() {
            let is_missing = from.is_none() && form.physical().fill(at).is_none();
            if is_missing && !field.is_nullable() {
                return Err(Error::data(format!(
                    "column \"{}\" of stream \"{name}\" is NOT NULL, and was not given",
                    field.name()
                )));
            }
        }
        let (columns, texts) = (form.physical().clone(), form.texts.clone());
        Ok(Self { stream: name.clone(), columns, texts, from, zone: TIME_ZONE.into() })
    }

    /// The columns of the rows that it makes.
    pub fn schema(&self) -> &SchemaRef {
        self.columns.schema()
    }

    /// Converts a value for a column of a stream, without loss: an array with one value. `columns`: those of the stream.
    ///
    /// # Errors
    /// When it cannot be converted, or is too long.
    pub fn value(
        stream: &str,
        columns: &Columns,
        column: usize,
        value: &ArrayRef,
    ) -> Result<ArrayRef> {
        let physical = Layout::new(Arc::clone(&columns.physical), vec![]);
        let (stream, texts) = (stream.to_owned(), columns.texts.clone());
        let target =
            Self { stream, columns: physical, texts, from: vec![], zone: TIME_ZONE.into() };
        let field = columns.physical.fields().get(column);
        let field = field.ok_or_else(|| Error::internal("there is no such column"))?;
        target.check_times(field, Some(value.data_type()))?;
        target.assigned(column, field, value)
    }

    /// Sets the time zone of texts that name none; the default is UTC.
    pub fn in_zone(self, zone: Arc<str>) -> Self {
        Self { zone, ..self }
    }

    /// Converts a column of the query to the type of the stream's, without loss.
    fn assigned(&self, index: usize, field: &Field, given: &ArrayRef) -> Result<ArrayRef> {
        let refused = |why: &str| {
            let (column, stream, is) = (field.name(), &self.stream, sql_type(field.data_type()));
            Error::data(format!("column \"{column}\" of stream \"{stream}\" is {is}: {why}"))
        };
        if let Some(why) = loss(given, field.data_type())? {
            return Err(refused(&why).with_hint("Round it, or CAST it to cut it off."));
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let become_type = |given: &ArrayRef, of: &DataType| {
            cast_with_options(given, of, &strict)
                .map_err(|e| refused(&arrow_says(&e)).with_source(e))
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
        if let Some((why, hint)) = self.texts.refused(index, &column)? {
            let (column, stream) = (field.name(), &self.stream);
            let message = format!("column \"{column}\" of stream \"{stream}\": {why}");
            return Err(Error::data(message).with_hint(hint));
        }
        Ok(column)
    }

    /// Refuses numbers for a TIMESTAMP without precision: their unit is unknown, and its own, nanoseconds, is hardly
    /// ever meant.
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
        .with_hint("Convert it with its unit: to_timestamp_seconds(n), to_timestamp_millis(n), to_timestamp_micros(n) or to_timestamp_nanos(n)."))
    }

    /// Converts rows of the query to rows of the stream.
    ///
    /// # Errors
    /// When a value cannot be converted, is too long, or is NULL in a column that is NOT NULL.
    pub fn fit(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let mut columns = Vec::with_capacity(self.from.len());
        for (index, (field, from)) in
            self.columns.schema().fields().iter().zip(&self.from).enumerate()
        {
            let given = from.and_then(|at| rows.columns().get(at)).map(|given| given.data_type());
            self.check_times(field, given)?;
            let column = match from {
                Some(at) => self.assigned(index, field, rows.column(*at))?,
                None => self.columns.missing(index, count)?,
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
        Ok(RecordBatch::try_new_with_options(Arc::clone(self.columns.schema()), columns, &options)?)
    }
}

/// Returns the error for a column that cannot be written.
fn no_place(push: &PushStream, column: &str) -> Error {
    let name = &push.name;
    if push.log.schema().column_with_name(column).is_some() {
        return Error::data(format!("column \"{column}\" of stream \"{name}\" is generated"))
            .with_hint("Omit it; the stream computes it.");
    }
    let known = push.physical();
    let known = known.fields().iter().map(|f| f.name().as_str());
    Error::data(format!("stream \"{name}\" has no column \"{column}\""))
        .with_hint(did_you_mean(column, known, "columns"))
}
