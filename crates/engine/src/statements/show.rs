//! `SHOW …`, `SHOW CREATE name`, `DESCRIBE name`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::TableReference;
use sqlparser::ast::ObjectName;
use windrow_connectors::is_secret;
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{ShowKind, masked};
use windrow_sql::plan::sql_type_of;
use windrow_stream::checks::Checks;

use super::create_stream::file_table;
use super::file_relations::file_named;
use super::show_functions::function_described;
use super::show_models::{model_described, show_models};
use super::{Answer, Statement, columns_of, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Object};
use crate::execution::context::StatementContext;
use crate::execution::outcome::{Outcome, existing_rows};
use crate::names::plain_name;

/// `SHOW …` of a kind of object.
#[derive(Debug)]
pub(crate) struct Show(pub(super) ShowKind);

/// `SHOW CREATE name`.
#[derive(Debug)]
pub(crate) struct ShowCreate(pub(super) ObjectName);

/// `DESCRIBE name`.
#[derive(Debug)]
pub(crate) struct Describe(pub(super) ObjectName);

impl Statement for Show {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("SHOW", None)
    }

    fn authorize(&self, _: &Access, _: &Catalog) -> Result<()> {
        // Objects without a grant are not listed.
        Ok(())
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { Ok(columns_of(&self.execute(cx).await?)) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let sql = match self.0 {
                ShowKind::Streams => {
                    "SELECT name, connector, event_time, bounded, error FROM windrow.streams"
                }
                ShowKind::Views => {
                    "SELECT name, materialized, status, rows, error FROM windrow.views"
                }
                ShowKind::MaterializedViews => {
                    "SELECT name, status, rows, error FROM windrow.views WHERE materialized"
                }
                ShowKind::Tables => return show_tables(cx).await,
                ShowKind::Models => return show_models(cx).await,
                ShowKind::Queries => "SELECT * FROM windrow.queries",
                ShowKind::Watermarks => "SELECT * FROM windrow.watermarks",
                ShowKind::Windows => {
                    "SELECT name, windows_open, windows_closed FROM windrow.queries"
                }
                ShowKind::Databases => {
                    "SELECT DISTINCT catalog_name AS name FROM information_schema.schemata ORDER BY name"
                }
                ShowKind::Schemas => {
                    "SELECT schema_name AS name, catalog_name AS database \
                 FROM information_schema.schemata ORDER BY database, name"
                }
                ShowKind::Sinks => {
                    "SELECT name, \"view\", connector, state, committed, lag_rows, guarantee, last_error \
                 FROM windrow.sinks"
                }
            };
            let frame = cx.session.sql(sql).await.map_err(from_datafusion)?;
            let plan = frame.create_physical_plan().await.map_err(from_datafusion)?;
            Ok(Outcome::Rows(cx.executor().stream(plan)))
        })
    }
}

async fn show_tables(cx: &StatementContext) -> Result<Outcome> {
    let catalog = cx.catalog();
    let mut names = catalog.names();
    names.retain(|name| cx.access.has(Role::Read, name));
    // The rows of sinks are where they write them, and functions and models have none.
    let has_none = |name: &String| {
        matches!(catalog.get(name), Some(Object::Sink(_) | Object::Function(_) | Object::Model(_)))
    };
    names.retain(|name| !has_none(name));
    let kind = |name: &String| catalog.get(name).map_or("table", |object| Object::kind(&object));
    let kinds: Vec<&str> = names.iter().map(kind).collect();
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(&names));
    let kinds: ArrayRef = Arc::new(StringArray::from_iter_values(kinds));
    rows(vec![("name", names), ("kind", kinds)]).await
}

impl Statement for ShowCreate {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("SHOW CREATE", None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Read, &self.0)
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { Ok(columns_of(&self.execute(cx).await?)) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let name = plain_name(&self.0)?;
            let catalog = cx.catalog();
            let text = match catalog.text(&name) {
                Some(text) => masked(&text, is_secret),
                None if catalog.exists(&name) => {
                    return Err(Error::sql(format!(
                        "the definition of table \"{name}\" is not stored"
                    )));
                }
                None => return Err(catalog.missing("stream or view", &name)),
            };
            let names: ArrayRef = Arc::new(StringArray::from_iter_values([name]));
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values([text]));
            rows(vec![("name", names), ("definition", texts)]).await
        })
    }
}

impl Statement for Describe {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("DESCRIBE", None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        match file_named(&self.0) {
            // It needs the rights of reading files.
            Some(_) => Ok(()),
            None => need(access, Role::Read, &self.0),
        }
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { Ok(columns_of(&self.execute(cx).await?)) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            if let Some(file) = file_named(&self.0) {
                let table = file_table(cx, &file.value, &[]).await?;
                return described(&table.schema(), &Checks::default()).await;
            }
            let table = match plain_name(&self.0) {
                Ok(name) if matches!(cx.catalog().get(&name), Some(Object::Function(_))) => {
                    return function_described(cx, &name).await;
                }
                Ok(name) if matches!(cx.catalog().get(&name), Some(Object::Model(_))) => {
                    return model_described(&cx.catalog().model(&name)?.newest()).await;
                }
                Ok(name) if !cx.catalog().exists(&name) => {
                    return Err(cx.catalog().missing("stream, view or table", &name));
                }
                Ok(name) => TableReference::bare(name),
                // A system table.
                Err(_) => TableReference::parse_str(&self.0.to_string()),
            };
            let checks = match cx.catalog().get(table.table()) {
                Some(Object::Stream(stream)) if table.schema().is_none() => stream.checks(),
                _ => Arc::default(),
            };
            let table = cx.session.table_provider(table).await.map_err(from_datafusion)?;
            described(&table.schema(), &checks).await
        })
    }
}

/// Returns the columns of a schema as rows, each with the checks that read it, if there are any.
async fn described(schema: &Schema, checks: &Checks) -> Result<Outcome> {
    let fields = schema.fields();
    let names = StringArray::from_iter_values(fields.iter().map(|f| f.name()));
    let types = StringArray::from_iter_values(fields.iter().map(|f| sql_type_of(f)));
    let yes_no = |nullable: bool| if nullable { "YES" } else { "NO" };
    let nulls = StringArray::from_iter_values(fields.iter().map(|f| yes_no(f.is_nullable())));
    let mut columns = vec![
        ("column_name", Arc::new(names) as ArrayRef),
        ("data_type", Arc::new(types)),
        ("is_nullable", Arc::new(nulls)),
    ];
    if !checks.is_empty() {
        let of = |column| checks.of_column(column).collect::<Vec<_>>().join("; ");
        let checks = StringArray::from_iter_values((0..fields.len()).map(of));
        columns.push(("checks", Arc::new(checks)));
    }
    rows(columns).await
}

/// Returns columns that exist already as the rows of a statement.
///
/// # Errors
/// When the columns have different lengths (a bug).
pub(super) async fn rows(columns: Vec<(&str, ArrayRef)>) -> Result<Outcome> {
    let batch = RecordBatch::try_from_iter(columns)?;
    Ok(Outcome::Rows(existing_rows(batch.schema(), vec![batch]).await))
}

/// Returns a text as rows, one per line.
///
/// # Errors
/// Never in practice.
pub(super) async fn lines(column: &str, text: &str) -> Result<Outcome> {
    let lines: ArrayRef = Arc::new(StringArray::from(text.lines().collect::<Vec<_>>()));
    rows(vec![(column, lines)]).await
}
