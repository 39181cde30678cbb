//! Files as tables, without a definition: `FROM 'x.csv'`. They are read as a stream over the same files reads them (formats,
//! types, bad rows), for as long as the statement runs.
//!
//! Invariants: a file is opened only where the statement may read it (`execution/files`); only users who may create streams
//! may read files; no other statement sees the table.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::sql::parser::{CopyToSource, Statement as EngineStatement};
use sqlparser::ast::{Ident, ObjectName, Query, Visit, visit_relations};
use windrow_core::{Error, Place, Result};
use windrow_sql::parse::{self, ContinuousQuery, Explained, Parsed};
use windrow_sql::plan::Parameters;

use super::create_stream::file_table;
use super::{Answer, ExplainOptions, Statement};
use crate::access::Access;
use crate::access::admission::Weight;
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::file_tables::FileTables;
use crate::execution::outcome::Outcome;

/// A statement that reads files as tables.
#[derive(Debug)]
pub(super) struct OverFiles {
    statement: Box<dyn Statement>,
    files: Vec<FileName>,
    /// Whether it is to run for as long as the files grow, which needs a stream.
    is_continuous: bool,
}

/// A file by its name, with the place in the text.
#[derive(Debug)]
struct FileName {
    path: String,
    place: Option<Place>,
}

impl OverFiles {
    /// Returns the statement that was parsed, made by `of`: with its files, if it reads any.
    pub(super) fn or_plain(
        parsed: Parsed,
        of: impl FnOnce(parse::Statement, String) -> Box<dyn Statement>,
    ) -> Box<dyn Statement> {
        let mut idents = vec![];
        let is_continuous = named(&parsed.statement, &mut idents);
        let name = |ident: Ident| FileName { place: place(&ident, &parsed), path: ident.value };
        let files: Vec<FileName> = idents.into_iter().map(name).collect();
        let statement = of(parsed.statement, parsed.text);
        match files.is_empty() {
            true => statement,
            false => Box::new(Self { statement, files, is_continuous }),
        }
    }

    /// Opens the files.
    ///
    /// # Errors
    /// When one cannot be read, or may not be; when the statement is continuous.
    async fn opened(&self, cx: &StatementContext) -> Result<StatementContext> {
        let mut tables = FileTables::new();
        for FileName { path, place } in &self.files {
            let placed = |error: Error| match (error.place(), place) {
                (None, Some(place)) => error.with_place(*place),
                _ => error,
            };
            if !tables.contains_key(path) {
                let table = file_table(cx, path, &[]).await.map_err(placed)?;
                if self.is_continuous {
                    return Err(placed(needs_stream(path, &table)));
                }
                tables.insert(path.clone(), table);
            }
        }
        Ok(StatementContext { file_tables: Some(Arc::new(tables)), ..cx.clone() })
    }
}

impl Statement for OverFiles {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        self.statement.admission()
    }

    fn authorize(&self, access: &Access, catalog: &Catalog) -> Result<()> {
        self.statement.authorize(access, catalog)
    }

    fn is_definition(&self) -> bool {
        self.statement.is_definition()
    }

    fn starts_queued_views(&self) -> bool {
        self.statement.starts_queued_views()
    }

    fn parameters<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Parameters> {
        Box::pin(async move { self.statement.parameters(&self.opened(cx).await?).await })
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { self.statement.columns(&self.opened(cx).await?).await })
    }

    fn takes_value_rows<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, bool> {
        Box::pin(async move { self.statement.takes_value_rows(&self.opened(cx).await?).await })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { self.statement.check(&self.opened(cx).await?).await })
    }

    fn explain<'a>(
        &'a self,
        cx: &'a StatementContext,
        options: ExplainOptions,
    ) -> Answer<'a, Outcome> {
        Box::pin(async move { self.statement.explain(&self.opened(cx).await?, options).await })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move { self.statement.execute(&self.opened(cx).await?).await })
    }
}

/// Returns the line and column of a file's name in the text of a statement.
fn place(file: &Ident, parsed: &Parsed) -> Option<Place> {
    let written = format!("'{}'", file.value.replace('\'', "''"));
    let (before, _) = parsed.text.split_once(&written)?;
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let column = if line == 0 { column + parsed.first_column - 1 } else { column };
    let line = line + parsed.first_line;
    let end_column = column + written.chars().count();
    Some(Place { line, column, end_line: line, end_column })
}

/// Returns the error for a continuous query over a file.
fn needs_stream(path: &str, table: &Arc<dyn TableProvider>) -> Error {
    let schema = table.schema();
    let time = schema.fields().iter().find(|f| f.data_type().is_temporal());
    let time = time.map(|field| quoted(field.name()));
    let base = path.rsplit('/').next().unwrap_or(path);
    let stem = base.split('.').next().unwrap_or(base);
    let name: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    let name = match name.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => name,
        _ => format!("s_{name}"),
    };
    let watermark =
        time.as_ref().map(|time| format!(" (WATERMARK FOR {time})")).unwrap_or_default();
    let path = path.replace('\'', "''");
    let error = Error::sql("EMIT and views need a stream, not a file").with_hint(
        format!("Create one: CREATE STREAM {name}{watermark} WITH (connector = 'file', path = '{path}'); then read FROM {name}."),
    );
    match time {
        Some(_) => error,
        None => error
            .with_hint("None of its columns is a time, so there are no windows with EMIT over it."),
    }
}

fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
    match name.starts_with(is_plain) && name.chars().all(|c| is_plain(c) || c.is_ascii_digit()) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// Returns the file that a name in single quotes denotes.
pub(super) fn file_named(name: &ObjectName) -> Option<&Ident> {
    match name.0.as_slice() {
        [part] => part.as_ident().filter(|ident| ident.quote_style == Some('\'')),
        _ => None,
    }
}

/// Adds the files that a statement reads. Returns whether it is continuous.
fn named(statement: &parse::Statement, files: &mut Vec<Ident>) -> bool {
    let continuous = |query: &ContinuousQuery, files: &mut Vec<Ident>| {
        relations(&query.query, files);
        !query.tail.is_empty()
    };
    match statement {
        parse::Statement::Query(query) => continuous(query, files),
        parse::Statement::Summarize(query) => continuous(query, files),
        parse::Statement::CopyOut(copy) => continuous(&copy.query, files),
        parse::Statement::Insert(insert) => continuous(&insert.query, files),
        parse::Statement::CreateView(view) => {
            continuous(&view.query, files);
            true
        }
        parse::Statement::CreateSink(sink) => {
            if let parse::SinkRows::Query(query) = &sink.rows {
                continuous(query, files);
            }
            true
        }
        parse::Statement::Explain(explain) => match &explain.what {
            Explained::Statement(statement) => named(statement, files),
            Explained::WhyNot(_) => false,
        },
        parse::Statement::DataFusion(statement) => {
            of_engine(statement, files);
            false
        }
        _ => false,
    }
}

fn of_engine(statement: &EngineStatement, files: &mut Vec<Ident>) {
    match statement {
        EngineStatement::Statement(statement) => relations(statement.as_ref(), files),
        EngineStatement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => relations::<Query>(query, files),
            CopyToSource::Relation(name) => files.extend(file_named(name).cloned()),
        },
        EngineStatement::Explain(explain) => of_engine(&explain.statement, files),
        EngineStatement::CreateExternalTable(_) | EngineStatement::Reset(_) => {}
    }
}

fn relations<T: Visit>(tree: &T, files: &mut Vec<Ident>) {
    let _all: ControlFlow<()> = visit_relations(tree, |name| {
        files.extend(file_named(name).cloned());
        ControlFlow::Continue(())
    });
}
