//! Lists the objects and settings of a session, for clients.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use windrow_core::Result;
use windrow_sql::diagnostics::from_datafusion;

use super::Session;
use crate::catalog::{Object, Rowless};
use crate::names::{CATALOG, SCHEMA};

/// An object that can be read.
#[derive(Debug, Clone)]
pub struct ObjectInfo {
    /// Its catalog.
    pub catalog: String,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: ObjectKind,
    /// Its columns.
    pub columns: SchemaRef,
}

/// The kind of an object that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A stream.
    Stream,
    /// A materialized view.
    MaterializedView,
    /// A view that only names a query.
    View,
    /// A reference table.
    Table,
    /// A table of the schema `windrow`.
    SystemTable,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::MaterializedView, Self::Stream, Self::SystemTable, Self::Table, Self::View];

    /// Returns its name as JDBC and ADBC clients show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "STREAM",
            Self::MaterializedView => "MATERIALIZED VIEW",
            Self::View => "VIEW",
            Self::Table => "TABLE",
            Self::SystemTable => "SYSTEM TABLE",
        }
    }
}

impl Session {
    /// Returns all objects that the user may read, in order of catalog, schema and name.
    ///
    /// # Errors
    /// When the columns of a table cannot be determined.
    pub fn objects<'a>(&'a self) -> BoxFuture<'a, Result<Vec<ObjectInfo>>> {
        Box::pin(async move {
            let mut objects = Vec::new();
            let Some(catalog) = self.context.catalog(CATALOG) else { return Ok(objects) };
            let mut schemas = catalog.schema_names();
            schemas.sort_unstable();
            for schema in schemas {
                let Some(provider) = catalog.schema(&schema) else { continue };
                let mut names = provider.table_names();
                names.sort_unstable();
                for name in names {
                    // It may have been dropped meanwhile.
                    let table = provider.table(&name).await.map_err(from_datafusion)?;
                    let Some(table) = table else { continue };
                    if table.downcast_ref::<Rowless>().is_some() {
                        // Its rows are elsewhere, or it has none.
                        continue;
                    }
                    objects.push(ObjectInfo {
                        catalog: CATALOG.to_owned(),
                        kind: self.kind(&schema, &name),
                        schema: schema.clone(),
                        name,
                        columns: Arc::clone(&table.schema()),
                    });
                }
            }
            Ok(objects)
        })
    }

    /// Returns the names of the catalogs, each with the names of its schemas.
    pub fn schemas(&self) -> Vec<(String, Vec<String>)> {
        let schemas = self.context.catalog(CATALOG).map(|c| c.schema_names()).unwrap_or_default();
        let mut schemas: Vec<String> = schemas;
        schemas.sort_unstable();
        vec![(CATALOG.to_owned(), schemas)]
    }

    /// Returns the settings that `SET` changes, with their values, and where names are looked up (`catalog` and `schema`).
    pub fn settings(&self) -> Vec<(String, String)> {
        let places = [("catalog", CATALOG), ("schema", SCHEMA)];
        let mut all: Vec<(String, String)> =
            places.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let state = self.context.state_ref();
        let entries = state.read().config_options().entries();
        all.extend(entries.into_iter().map(|e| (e.key, e.value.unwrap_or_default())));
        all
    }

    fn kind(&self, schema: &str, name: &str) -> ObjectKind {
        if schema != SCHEMA {
            return ObjectKind::SystemTable;
        }
        match self.catalog().get(name) {
            Some(Object::Stream(_)) => ObjectKind::Stream,
            Some(Object::Materialized(_)) => ObjectKind::MaterializedView,
            Some(Object::View) => ObjectKind::View,
            Some(Object::Sink(_) | Object::Function(_) | Object::Model(_)) | None => {
                ObjectKind::Table
            }
        }
    }
}
