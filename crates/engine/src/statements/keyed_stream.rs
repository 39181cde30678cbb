//! `PRIMARY KEY` and the option `changes` of `CREATE STREAM`: a stream whose rows replace each other.
//!
//! Its log has a hidden column that says whether a row deletes the row with its key, and is otherwise like that of any
//! stream. Options that would drop rows of the log by age, or that need final rows, are refused.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::lit;
use windrow_connectors::deletes_column;
use windrow_core::{Error, Place, Result, sql_type};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{CreateStream, KeyClause};
use windrow_sql::plan::{DELETED_COLUMN, SEQUENCE_COLUMN, physical_expression};
use windrow_stream::Stream;
use windrow_stream::generated::{Column, Columns};

use super::stream_options::EngineOptions;
use crate::names::ident_name;

/// The value of the option `changes`.
const UPSERT: &str = "upsert";
/// The format of records that are changes.
const DEBEZIUM: &str = "debezium-json";

/// Returns the key of a stream that is to be created, and the place of its clause; `None`: its rows are append-only.
///
/// # Errors
/// When the clause and the option do not belong together, or with other clauses.
pub(super) fn key<'a>(
    create: &'a CreateStream,
    options: &EngineOptions,
    name: &str,
) -> Result<Option<&'a KeyClause>> {
    let refused = |message: String, place: Place, hint: &str| {
        Err(Error::sql(message).with_place(place).with_hint(hint))
    };
    if let Some((value, place)) = &options.changes
        && value != UPSERT
    {
        let message = format!("changes = '{value}' is not known");
        let hint = "Known: 'upsert' (a row replaces the one with its primary key).";
        return Err(Error::config(message).with_place(*place).with_hint(hint));
    }
    let is_debezium = is_debezium(options);
    let key = match (&create.key, &options.changes) {
        (None, None) if is_debezium => {
            let message =
                format!("stream \"{name}\" reads changes of rows, but has no primary key");
            let hint =
                "Declare the columns, and what identifies a row: (id BIGINT, …, PRIMARY KEY (id)).";
            return Err(Error::sql(message).with_hint(hint));
        }
        (None, None) => return Ok(None),
        (Some(key), Some(_)) => key,
        (Some(key), None) if is_debezium => key,
        (None, Some((_, place))) => {
            let message = format!("stream \"{name}\" takes changes, but has no primary key");
            return refused(message, *place, "Declare what identifies a row: PRIMARY KEY (id).");
        }
        (Some(key), None) => {
            let message =
                format!("stream \"{name}\" has a primary key, but its rows are append-only");
            let hint = "Add WITH (changes = 'upsert'): a row then replaces the one with its key.";
            return refused(message, key.place, hint);
        }
    };
    if let Some(connector) = &options.connector {
        if !is_debezium {
            let message = format!(
                "stream \"{name}\" has a primary key, but the rows of connector \"{connector}\" are append-only"
            );
            let hint = "Leave the connector out, and INSERT, UPDATE and DELETE rows; or read changes: format = 'debezium-json'.";
            return refused(message, key.place, hint);
        }
        if create.columns.is_empty() {
            let message =
                format!("stream \"{name}\" reads changes of rows, but declares no columns");
            return refused(message, key.place, "Declare them: (id BIGINT PRIMARY KEY, …).");
        }
        if let Some(check) = create.checks.first() {
            let message =
                "changes of rows are not checked: a delete that fails would leave its row";
            let hint = "Remove the check; a view with WHERE leaves rows out.";
            return refused(message.to_owned(), check.place, hint);
        }
    }
    if let Some(mark) = &create.watermark {
        let message = format!("stream \"{name}\" has a primary key and a watermark");
        let hint = "Leave the watermark out: rows that change are never final, so no window over them can close.";
        return refused(message, mark.place, hint);
    }
    if let Some((_, place)) = options.retention {
        let message = format!(
            "stream \"{name}\" has a primary key, so its rows are not dropped by their age"
        );
        let hint = "Leave retention out; DELETE removes rows.";
        return refused(message, place, hint);
    }
    Ok(Some(key))
}

/// Whether the records of a connector are changes of rows as Debezium writes them.
pub(super) fn is_debezium(options: &EngineOptions) -> bool {
    let format = options.of_connector("format").unwrap_or_default();
    options.connector.is_some() && format.trim().eq_ignore_ascii_case(DEBEZIUM)
}

/// The options of a connector, for which changes are JSON: the column that says whether a row is deleted makes envelopes of
/// its records.
pub(super) fn options_of_connector(options: &EngineOptions) -> Vec<(String, String)> {
    let is_debezium = is_debezium(options);
    let given = options.rest.iter().map(|(key, value)| match key.as_str() {
        "format" if is_debezium => (key.clone(), "json".to_owned()),
        _ => (key.clone(), value.clone()),
    });
    given.collect()
}

/// Returns the columns of the log of a stream with a key, and the indexes of those of the key. `reads`: its changes are read
/// from a connector.
///
/// # Errors
/// When a column cannot be in a key or in such a stream.
pub(super) fn with_key(
    state: &SessionState,
    columns: Columns,
    (key, reads): (&KeyClause, bool),
) -> Result<(Columns, Vec<usize>)> {
    let refused =
        |message: String, hint: &str| Error::sql(message).with_place(key.place).with_hint(hint);
    if columns.intake().is_some() {
        let message = "a stream with a primary key has no PROCTIME()".to_owned();
        return Err(refused(message, "Insert the time as a value: now()."));
    }
    let fields = columns.schema.fields();
    for field in fields {
        if [DELETED_COLUMN, SEQUENCE_COLUMN].contains(&field.name().as_str()) {
            let message = format!("column name \"{}\" is that of a hidden column", field.name());
            return Err(refused(message, "Rename it."));
        }
        if !RowConverter::supports_fields(&[SortField::new(field.data_type().clone())]) {
            let of = sql_type(field.data_type());
            let message =
                format!("column \"{}\" is {of}, whose values have no order", field.name());
            let hint = "A stream with a primary key has no such columns. Store it as JSON.";
            return Err(refused(message, hint));
        }
    }
    let mut indexes = vec![];
    for column in &key.columns {
        let name = ident_name(column);
        let at = fields.iter().position(|field| *field.name() == name);
        match at.and_then(|at| Some((at, columns.columns.get(at)?))) {
            Some((at, Column::Physical(_))) => indexes.push(at),
            _ => {
                let message = format!("column \"{name}\" of the primary key is generated");
                let hint = "Rows are identified by columns that are inserted.";
                return Err(refused(message, hint));
            }
        }
    }
    let names: Vec<String> = key.columns.iter().map(ident_name).collect();
    let schema = required(&columns.schema, &names);
    let mut all = schema.fields().to_vec();
    let mut physical = required(&columns.physical, &names);
    let mut kinds = columns.columns;
    if reads {
        let promised = |field: &&Arc<Field>| !field.is_nullable() && !names.contains(field.name());
        if let Some(field) = physical.fields().iter().find(promised) {
            let message = format!(
                "column \"{}\" is NOT NULL, but a delete may have only the key",
                field.name()
            );
            return Err(refused(message, "Leave NOT NULL out; columns of the key have it."));
        }
        let field = Arc::new(deletes_column(DELETED_COLUMN));
        let stored = physical.fields().iter().cloned().chain([Arc::clone(&field)]);
        physical = Arc::new(Schema::new(stored.collect::<Vec<_>>()));
        all.push(field);
        kinds.push(Column::Physical(physical.fields().len() - 1));
    } else {
        all.push(Arc::new(Field::new(DELETED_COLUMN, DataType::Boolean, false)));
        let of = DFSchema::try_from(Arc::clone(&physical)).map_err(from_datafusion)?;
        kinds.push(Column::Generated(physical_expression(state, lit(false), &of)?));
    }
    let schema = Arc::new(Schema::new(all));
    Ok((Columns { schema, physical, columns: kinds, texts: columns.texts }, indexes))
}

/// The columns, of which these are not NULL.
fn required(schema: &SchemaRef, names: &[String]) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let is_key = names.contains(field.name());
        Arc::new(field.as_ref().clone().with_nullable(field.is_nullable() && !is_key))
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Refuses what streams with a primary key do not support.
///
/// # Errors
/// When `stream` is one; `what` is refused, and `hint` says what to do instead.
pub(super) fn append_only(stream: &Stream, what: &str, hint: &str) -> Result<()> {
    match stream.key {
        None => Ok(()),
        Some(_) => Err(Error::sql(format!(
            "{what} is not supported for stream \"{}\", which has a primary key",
            stream.name
        ))
        .with_hint(hint.replace("{}", &stream.name))),
    }
}
