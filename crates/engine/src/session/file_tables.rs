//! Files as tables, without a definition: `FROM 'x.csv'`. They are read as a stream over the same files would read
//! them (formats, types, bad rows), for as long as the statement runs.
//!
//! Invariants: a file is opened only where the statement may read it ([`places`](super::places)); only who may make
//! streams may read files; no other statement sees the table.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::Schema;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result as EngineResult;
use datafusion::sql::parser::{CopyToSource, Statement as EngineStatement};
use sqlparser::ast::{Ident, ObjectName, Query, Visit, visit_relations};
use windrow_connectors::{Declared, open_source, sql_name};
use windrow_core::{Error, Place, Result, StreamSchema};
use windrow_sql::parse::{ContinuousQuery, Explained, OptionItem, Parsed, Statement};

use crate::engine::SCHEMA;
use crate::session::create::StreamColumns;
use crate::session::stream_options::EngineOptions;
use crate::session::{Role, Session};

/// The tables of one statement that are files, by what stands in the quotes.
pub(super) type FileTables = BTreeMap<String, Arc<dyn TableProvider>>;

impl Session {
    /// The same session, which knows the files that a statement reads.
    ///
    /// # Errors
    /// When a file cannot be read, or may not be; when the statement would go on for ever over it.
    pub(super) async fn with_files(&self, parsed: &Parsed) -> Result<Self> {
        let mut files = vec![];
        let for_ever = named(&parsed.statement, &mut files);
        let Some(first) = files.first() else { return Ok(self.clone()) };
        if for_ever {
            let stream =
                self.file(&first.value, &[]).await.map_err(|e| placed(e, first, parsed))?;
            return Err(placed(needs_stream(&first.value, &stream), first, parsed));
        }
        let mut tables = FileTables::new();
        for ident in files {
            if !tables.contains_key(&ident.value) {
                let table =
                    self.file(&ident.value, &[]).await.map_err(|e| placed(e, &ident, parsed))?;
                tables.insert(ident.value.clone(), table);
            }
        }
        Ok(self.knowing(tables))
    }

    /// The same session, which knows these files.
    pub(super) fn knowing(&self, tables: FileTables) -> Self {
        Self { file_tables: Some(Arc::new(tables)), ..self.clone() }
    }

    /// The columns of files that nothing is declared of, and what reads them.
    async fn file_columns(&self, options: &EngineOptions) -> Result<StreamColumns> {
        let source =
            open_source("file", &options.rest, Declared::default(), &self.connector_env()).await?;
        let schema = StreamSchema::try_new(source.schema(), None)?;
        Ok(StreamColumns { schema, source: Some(source), columns: None, reads: vec![] })
    }

    /// Files as a table; `options` are those of a stream over them.
    ///
    /// # Errors
    /// When they cannot be read, or may not be.
    pub(super) async fn file(
        &self,
        path: &str,
        options: &[OptionItem],
    ) -> Result<Arc<dyn TableProvider>> {
        self.access().need_somewhere(Role::Admin, "reading a file")?;
        let path = ("path".to_owned(), path.to_owned());
        let given = options.iter().map(|option| (option.key.clone(), option.value.clone()));
        let options = EngineOptions {
            connector: Some("file".to_owned()),
            rest: std::iter::once(path.clone()).chain(given).collect(),
            ..EngineOptions::default()
        };
        let columns: StreamColumns = self.file_columns(&options).await.map_err(without_ddl)?;
        let stream = Arc::new(self.new_stream(&path.1, columns, options, None).await?);
        Ok(Arc::new(stream.relation(None)))
    }
}

/// The same error with a hint that fits: there is no WITH to write a format in.
fn without_ddl(error: Error) -> Error {
    if !error.hints().iter().any(|hint| hint.starts_with("Add format = ")) {
        return error;
    }
    Error::new(error.kind(), error.message().to_owned()).with_hint(
        "Name it .csv, .json, .ndjson or .parquet; say COPY … FROM 'file' (FORMAT csv); or make a stream: CREATE STREAM \
         s WITH (connector = 'file', path = '…', format = 'csv').",
    )
}

/// The same error, where the file stands in the text of a statement.
fn placed(error: Error, file: &Ident, parsed: &Parsed) -> Error {
    let written = format!("'{}'", file.value.replace('\'', "''"));
    let Some((before, _)) = parsed.text.split_once(&written) else { return error };
    if error.place().is_some() {
        return error;
    }
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let column = if line == 0 { column + parsed.first_column - 1 } else { column };
    let line = line + parsed.first_line;
    let end_column = column + written.chars().count();
    error.with_place(Place { line, column, end_line: line, end_column })
}

/// The error for a query that would follow a file.
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
    let error = Error::sql("EMIT and views need a stream, which a file by its name is not").with_hint(
        format!("Make one: CREATE STREAM {name}{watermark} WITH (connector = 'file', path = '{path}'); then read FROM {name}."),
    );
    match time {
        Some(_) => error,
        None => error
            .with_hint("None of its columns is a time, so there are no windows with EMIT over it."),
    }
}

/// Columns with their types, for people.
pub(super) fn listed(schema: &Schema) -> String {
    let columns = schema.fields().iter();
    let columns = columns.map(|f| format!("{} {}", f.name(), sql_name(f.data_type())));
    columns.collect::<Vec<_>>().join(", ")
}

fn quoted(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
    match name.starts_with(is_plain) && name.chars().all(|c| is_plain(c) || c.is_ascii_digit()) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// The file that a name in single quotes stands for.
pub(super) fn file_named(name: &ObjectName) -> Option<&Ident> {
    match name.0.as_slice() {
        [part] => part.as_ident().filter(|ident| ident.quote_style == Some('\'')),
        _ => None,
    }
}

/// Adds the files that a statement reads. Returns whether it would follow them.
fn named(statement: &Statement, files: &mut Vec<Ident>) -> bool {
    let continuous = |query: &ContinuousQuery, files: &mut Vec<Ident>| {
        relations(&query.query, files);
        !query.tail.is_empty()
    };
    match statement {
        Statement::Query(query) => continuous(query, files),
        Statement::Summarize(query) => continuous(query, files),
        Statement::CopyOut(copy) => continuous(&copy.query, files),
        Statement::Insert(insert) => continuous(&insert.query, files),
        Statement::CreateView(view) => {
            continuous(&view.query, files);
            true
        }
        Statement::Explain(explain) => match &explain.what {
            Explained::Statement(statement) => named(statement, files),
            Explained::WhyNot(_) => false,
        },
        Statement::DataFusion(statement) => {
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

/// All catalogs, with the files of one statement among the tables of the schema where names are looked up.
#[derive(Debug)]
pub(super) struct WithFiles {
    pub(super) inner: Arc<dyn CatalogProviderList>,
    pub(super) files: Arc<FileTables>,
}

impl CatalogProviderList for WithFiles {
    fn register_catalog(
        &self,
        name: String,
        catalog: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        self.inner.register_catalog(name, catalog)
    }

    fn catalog_names(&self) -> Vec<String> {
        self.inner.catalog_names()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let inner = self.inner.catalog(name)?;
        Some(Arc::new(CatalogWithFiles { inner, files: Arc::clone(&self.files) }))
    }
}

#[derive(Debug)]
struct CatalogWithFiles {
    inner: Arc<dyn CatalogProvider>,
    files: Arc<FileTables>,
}

impl CatalogProvider for CatalogWithFiles {
    fn schema_names(&self) -> Vec<String> {
        self.inner.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let inner = self.inner.schema(name)?;
        match name {
            SCHEMA => Some(Arc::new(SchemaWithFiles { inner, files: Arc::clone(&self.files) })),
            _ => Some(inner),
        }
    }
}

#[derive(Debug)]
struct SchemaWithFiles {
    inner: Arc<dyn SchemaProvider>,
    files: Arc<FileTables>,
}

#[async_trait]
impl SchemaProvider for SchemaWithFiles {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, name: &str) -> EngineResult<Option<Arc<dyn TableProvider>>> {
        match self.files.get(name) {
            Some(file) => Ok(Some(Arc::clone(file))),
            None => self.inner.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.inner.table_exist(name)
    }
}
