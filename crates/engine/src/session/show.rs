//! `SHOW …`, `SHOW CREATE x`, `DESCRIBE x`.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use datafusion::common::TableReference;
use sqlparser::ast::ObjectName;
use windrow_core::{Error, Result, sql_type};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::ShowKind;

use crate::catalog::plain_name;
use crate::session::outcome::ready;
use crate::session::{Outcome, Role, Session};

impl Session {
    pub(super) async fn show(&self, kind: ShowKind) -> Result<Outcome> {
        let sql = match kind {
            ShowKind::Streams => {
                "SELECT name, connector, event_time, bounded, error FROM windrow.streams"
            }
            ShowKind::Views => "SELECT name, materialized, status, rows, error FROM windrow.views",
            ShowKind::MaterializedViews => {
                "SELECT name, status, rows, error FROM windrow.views WHERE materialized"
            }
            ShowKind::Tables => return self.show_tables().await,
            ShowKind::Queries => "SELECT * FROM windrow.queries",
            ShowKind::Watermarks => "SELECT * FROM windrow.watermarks",
            ShowKind::Windows => "SELECT name, windows_open, windows_closed FROM windrow.queries",
            ShowKind::Functions => {
                "SELECT DISTINCT routine_name AS name, function_type AS kind \
                 FROM information_schema.routines ORDER BY name, kind"
            }
            ShowKind::Sinks => {
                return Err(Error::sql("sinks are not part of this version")
                    .with_hint("CREATE MATERIALIZED VIEW keeps results; COPY … TO writes them."));
            }
        };
        let frame = self.context.sql(sql).await.map_err(from_datafusion)?;
        let plan = frame.create_physical_plan().await.map_err(from_datafusion)?;
        Ok(Outcome::Rows(self.execute_plan(plan)))
    }

    async fn show_tables(&self) -> Result<Outcome> {
        let catalog = &self.engine.catalog;
        let mut names = catalog.names();
        names.retain(|name| self.access().has(Role::Read, name));
        let kinds: Vec<&str> =
            names.iter().map(|n| catalog.get(n).map_or("table", |o| o.kind())).collect();
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(&names));
        let kinds: ArrayRef = Arc::new(StringArray::from_iter_values(kinds));
        rows(vec![("name", names), ("kind", kinds)]).await
    }

    pub(super) async fn show_create(&self, name: &ObjectName) -> Result<Outcome> {
        let name = plain_name(name)?;
        let catalog = &self.engine.catalog;
        let text = match catalog.text(&name) {
            Some(text) => text,
            None if catalog.exists(&name) => {
                return Err(Error::sql(format!("the definition of table \"{name}\" is not kept")));
            }
            None => return Err(catalog.missing("stream or view", &name)),
        };
        let names: ArrayRef = Arc::new(StringArray::from_iter_values([name]));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values([text]));
        rows(vec![("name", names), ("definition", texts)]).await
    }

    pub(super) async fn describe(&self, name: &ObjectName) -> Result<Outcome> {
        let schema = match plain_name(name) {
            Ok(plain) => {
                if !self.engine.catalog.exists(&plain) {
                    return Err(self.engine.catalog.missing("stream, view or table", &plain));
                }
                self.columns(TableReference::bare(plain)).await?
            }
            // A system table.
            Err(_) => self.columns(TableReference::parse_str(&name.to_string())).await?,
        };
        let fields = schema.fields();
        let names = StringArray::from_iter_values(fields.iter().map(|f| f.name()));
        let types = StringArray::from_iter_values(fields.iter().map(|f| sql_type(f.data_type())));
        let yes_no = |nullable: bool| if nullable { "YES" } else { "NO" };
        let nulls = StringArray::from_iter_values(fields.iter().map(|f| yes_no(f.is_nullable())));
        rows(vec![
            ("column_name", Arc::new(names) as ArrayRef),
            ("data_type", Arc::new(types)),
            ("is_nullable", Arc::new(nulls)),
        ])
        .await
    }

    async fn columns(&self, table: TableReference) -> Result<arrow::datatypes::SchemaRef> {
        let provider = self.context.table_provider(table).await.map_err(from_datafusion)?;
        Ok(provider.schema())
    }
}

/// Rows that are there already.
pub(super) async fn rows(columns: Vec<(&str, ArrayRef)>) -> Result<Outcome> {
    let batch = RecordBatch::try_from_iter(columns)?;
    Ok(Outcome::Rows(ready(batch.schema(), vec![batch]).await))
}
