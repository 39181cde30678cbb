//! `ALTER STREAM … ADD COLUMN`.
//!
//! Columns are added at the end and never move, so whatever reads the others is not affected. An object reads a stream with
//! the columns that it had when the object was created, also after a restart: `SELECT *` in the definition of a view stays what
//! it was. Rows that were stored before have the value of DEFAULT in the new column, or NULL.
//!
//! At each start CREATE STREAM creates the stream with all its columns, since what is stored has them, and the statement that
//! added one has nothing left to do.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use sqlparser::ast::{ColumnDef, ColumnOption, ExprWithAlias};
use windrow_core::{Error, Place, Result, StreamSchema};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{self, AddedColumn, Alteration, parse_kept};
use windrow_sql::plan::{depends_on_arguments, physical_expression};
use windrow_stream::generated::Columns;
use windrow_stream::push::PushStream;
use windrow_stream::target::Target;
use windrow_stream::{Feed, Stream};

use super::alter_stream::AlterStream;
use super::create_stream::{CreateStream, no_metadata};
use super::declared_columns::declared_columns;
use super::replay::REPLAY;
use super::stream_options::engine_options;
use crate::execution::context::StatementContext;
use crate::names::ident_name;

impl CreateStream {
    /// Returns the statement with the columns that were added to the stream that it restores, and these columns.
    pub(super) fn with_additions(&self, cx: &StatementContext) -> Result<(Self, Vec<ColumnDef>)> {
        let (mut create, text) = (self.create.clone(), self.text.clone());
        let added = match &cx.restoring {
            Some(definition) => additions(&definition.sql)?,
            None => vec![],
        };
        create.columns.extend(added.iter().cloned());
        Ok((Self { create, text }, added))
    }
}

/// Returns the columns that the statements of a definition add.
fn additions(definition: &str) -> Result<Vec<ColumnDef>> {
    let added = |statement| match statement {
        parse::Statement::AlterStream(alter) => match alter.what {
            Alteration::AddColumn(added) => Some(added.column),
            _ => None,
        },
        _ => None,
    };
    Ok(parse_kept(definition)?.into_iter().filter_map(|parsed| added(parsed.statement)).collect())
}

/// Returns a restored stream with its versions before the last `count` columns were added.
pub(super) async fn with_older(
    create: &CreateStream,
    cx: &StatementContext,
    stream: Arc<Stream>,
    count: usize,
) -> Result<Arc<Stream>> {
    if count == 0 {
        return Ok(stream);
    }
    let all = stream.schema.schema().fields().len();
    let mut older: Option<Arc<Stream>> = None;
    for width in all.saturating_sub(count)..=all {
        let fields: Vec<_> = stream.schema.schema().fields().iter().take(width).cloned().collect();
        let schema =
            StreamSchema::try_new(Arc::new(Schema::new(fields)), stream.schema.event_time())?;
        // A connector decodes what is declared, so that the same rows are bad as before.
        let source = match &stream.feed {
            Feed::Source(_) if width < all => {
                let (mut narrow, text) = (create.create.clone(), create.text.clone());
                narrow.columns.truncate(narrow.columns.len().saturating_sub(all - width));
                let options = engine_options(&narrow.options)?;
                let narrow = CreateStream { create: narrow, text };
                narrow.columns(cx, &stream.name, &options).await?.source
            }
            Feed::Source(source) => Some(Arc::clone(source)),
            Feed::Push(_) | Feed::View(_) => None,
        };
        older = Some(Arc::new(match &older {
            Some(before) => before.widened(schema, source),
            None => Stream { older: vec![], ..stream.widened(schema, source) },
        }));
    }
    Ok(older.unwrap_or(stream))
}

/// Returns the values of added columns, the last ones of a stream, in rows that lack them: an array with one value each.
///
/// # Errors
/// When a default cannot be computed, or does not fit its column.
pub(super) fn added_values(
    cx: &StatementContext,
    stream: &str,
    columns: &Columns,
    added: &[ColumnDef],
) -> Result<Vec<ArrayRef>> {
    let first = columns.physical.fields().len().saturating_sub(added.len());
    let value = |(at, column): (usize, &ColumnDef)| {
        let field = columns.physical.field(first + at);
        let default = column.options.iter().find_map(|option| match &option.option {
            ColumnOption::Default(expr) => Some(expr.clone()),
            _ => None,
        });
        let value = match default {
            None => new_null_array(field.data_type(), 1),
            Some(expr) => {
                let state = cx.state();
                let none = DFSchema::empty();
                let expr = ExprWithAlias { expr, alias: None };
                let expr = state.create_logical_expr_from_sql_expr(expr, &none);
                let expr = expr.map_err(from_datafusion)?;
                depends_on_arguments(&expr, "a default")?;
                let options = RecordBatchOptions::new().with_row_count(Some(1));
                let empty = Arc::new(Schema::empty());
                let one = RecordBatch::try_new_with_options(empty, vec![], &options)?;
                let value = physical_expression(&state, expr, &none)?.evaluate(&one);
                let value = value.and_then(|value| value.into_array(1)).map_err(from_datafusion)?;
                Target::value(stream, columns, first + at, &value)?
            }
        };
        if !field.is_nullable() && value.null_count() > 0 {
            let column = field.name();
            return Err(Error::sql(format!("column \"{column}\" is NOT NULL and has no default"))
                .with_hint(
                    "Add DEFAULT with the value that the rows before have, or remove NOT NULL.",
                ));
        }
        Ok(value)
    };
    added.iter().enumerate().map(value).collect()
}

impl AlterStream {
    /// `ADD COLUMN`. Returns whether there was none of this name.
    pub(super) async fn add_column(
        &self,
        cx: &StatementContext,
        stream: &Arc<Stream>,
        clause: &AddedColumn,
    ) -> Result<bool> {
        if cx.restoring.is_some() {
            // It was created with the column.
            self.record(cx, stream)?;
            return Ok(true);
        }
        let (name, column) = (&stream.name, ident_name(&clause.column.name));
        // Delta does not distinguish names that differ only in case.
        let is_it = |taken: &&str| taken.eq_ignore_ascii_case(&column);
        let fields = stream.schema.schema().fields();
        if let Some(taken) = fields.iter().map(|field| field.name().as_str()).find(is_it) {
            if clause.if_not_exists {
                return Ok(false);
            }
            return Err(Error::sql(format!("stream \"{name}\" has a column \"{taken}\" already"))
                .with_place(clause.place)
                .with_hint("Give the new one another name, or write ADD COLUMN IF NOT EXISTS."));
        }
        if stream.receiver.is_some() {
            let message =
                format!("stream \"{name}\" has rows that its connector does not hold any more");
            return Err(Error::sql(message).with_place(clause.place).with_hint(format!(
                "Create another stream with the column, or CREATE OR REPLACE STREAM {name}, which drops its rows."
            )));
        }
        let text = cx.catalog().text(name).unwrap_or_default();
        let (create, mut added) = created(stream, &text, clause.place)?;
        added.push(clause.column.clone());
        let placed = |e: Error| if e.place().is_none() { e.with_place(clause.place) } else { e };
        let new = match &stream.feed {
            Feed::Push(push) => {
                let columns = pushed(cx, push, &create, clause).await.map_err(placed)?;
                let values = added_values(cx, name, &columns, &added).map_err(placed)?;
                push.accepts(&columns.schema).map_err(placed)?;
                let time = stream.schema.event_time();
                let schema = StreamSchema::try_new(Arc::clone(&columns.schema), time)?;
                self.record(cx, stream)?;
                push.widen(columns, values)?;
                stream.widened(schema, None)
            }
            Feed::Source(_) | Feed::View(_) => {
                let (create, options) = of_connector(stream, create, clause)?;
                let columns = create.columns(cx, name, &options).await.map_err(placed)?;
                self.record(cx, stream)?;
                stream.widened(columns.schema, columns.source)
            }
        };
        cx.catalog().widen(stream, Arc::new(new))?;
        Ok(true)
    }
}

/// Returns the statement that created a stream, with the columns that were added since, and these columns.
fn created(
    stream: &Stream,
    definition: &str,
    place: Place,
) -> Result<(parse::CreateStream, Vec<ColumnDef>)> {
    let create = parse_kept(definition)?.into_iter().find_map(|parsed| match parsed.statement {
        parse::Statement::CreateStream(create) => Some(create),
        _ => None,
    });
    let name = &stream.name;
    let refused = |why: String, hint: &str| Err(Error::sql(why).with_place(place).with_hint(hint));
    match create {
        None => refused(
            format!("stream \"{name}\" was made by LATE DATA TO"),
            "Create it with CREATE STREAM before the query that writes to it.",
        ),
        Some(create) if create.query.is_some() => refused(
            format!("the columns of stream \"{name}\" are those of its query"),
            "CREATE OR REPLACE STREAM … AS creates it again with another query.",
        ),
        Some(create) if stream.connector == REPLAY => refused(
            format!("stream \"{name}\" has the columns of what it replays"),
            &format!(
                "CREATE OR REPLACE STREAM {} replays it with its present columns.",
                create.name
            ),
        ),
        Some(create) if create.columns.is_empty() => refused(
            format!("the columns of stream \"{name}\" were taken from its data"),
            "CREATE OR REPLACE STREAM takes them from the data again, or declares them.",
        ),
        Some(mut create) => {
            let added = additions(definition)?;
            create.columns.extend(added.iter().cloned());
            Ok((create, added))
        }
    }
}

/// Returns the columns of a stream without connector with one more.
async fn pushed(
    cx: &StatementContext,
    push: &PushStream,
    create: &parse::CreateStream,
    clause: &AddedColumn,
) -> Result<Columns> {
    let is_generated =
        |o: &sqlparser::ast::ColumnOptionDef| matches!(o.option, ColumnOption::Generated { .. });
    if clause.column.options.iter().any(is_generated) {
        let column = ident_name(&clause.column.name);
        return Err(Error::sql(format!("the added column \"{column}\" is generated")).with_hint(
            "Stored rows have no value for it: compute it in a view, or add a plain column.",
        ));
    }
    let mut create = create.clone();
    create.columns.push(clause.column.clone());
    no_metadata(&create)?;
    let clock = &cx.instance.parts.clock;
    let mut columns = declared_columns(&cx.state(), &create.columns, clock).await?;
    if let Some(before) = push.generated() {
        // Processing time goes on where it is.
        columns.columns.splice(..before.columns.len(), before.columns.iter().cloned());
    }
    Ok(columns)
}

/// Returns the statement that creates a stream with a connector with one more column, and its options.
fn of_connector(
    stream: &Stream,
    mut create: parse::CreateStream,
    clause: &AddedColumn,
) -> Result<(CreateStream, super::stream_options::EngineOptions)> {
    let name = &stream.name;
    if stream.history.is_some() {
        return Err(Error::sql(format!(
            "stream \"{name}\" stores the rows of its connector, which do not have the new column"
        ))
        .with_place(clause.place)
        .with_hint("CREATE OR REPLACE STREAM … WITH (retention = '…') reads them again."));
    }
    let has_default =
        |o: &sqlparser::ast::ColumnOptionDef| matches!(o.option, ColumnOption::Default(_));
    if clause.column.options.iter().any(has_default) {
        let column = ident_name(&clause.column.name);
        return Err(Error::sql(format!(
            "column \"{column}\" has a default, and the rows of stream \"{name}\" come from a connector"
        ))
        .with_place(clause.place)
        .with_hint(format!("It is NULL in records without it: write coalesce({column}, …) in queries.")));
    }
    create.columns.push(clause.column.clone());
    let options = engine_options(&create.options)?;
    Ok((CreateStream { create, text: String::new() }, options))
}
