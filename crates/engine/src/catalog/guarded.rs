//! The catalog as one user sees it: names without a grant are refused where they become a table, and are not listed.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result;
use windrow_stream::stream::table::outside;

use crate::access::{Access, Role};
use crate::names::{SCHEMA, SYSTEM_SCHEMA};

/// All catalogs, for one user.
#[derive(Debug)]
pub(crate) struct GuardedCatalogs {
    pub(crate) inner: Arc<dyn CatalogProviderList>,
    pub(crate) access: Arc<Access>,
}

impl CatalogProviderList for GuardedCatalogs {
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
        Some(Arc::new(GuardedCatalog { inner, access: Arc::clone(&self.access) }))
    }
}

#[derive(Debug)]
struct GuardedCatalog {
    inner: Arc<dyn CatalogProvider>,
    access: Arc<Access>,
}

impl CatalogProvider for GuardedCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.inner.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let inner = self.inner.schema(name)?;
        if name == SYSTEM_SCHEMA {
            // Its tables leave out the rows that the user has no grant on.
            return Some(inner);
        }
        let prefix = if name == SCHEMA { String::new() } else { format!("{name}.") };
        Some(Arc::new(GuardedSchema { inner, prefix, access: Arc::clone(&self.access) }))
    }

    fn register_schema(
        &self,
        name: &str,
        schema: Arc<dyn SchemaProvider>,
    ) -> Result<Option<Arc<dyn SchemaProvider>>> {
        self.inner.register_schema(name, schema)
    }

    fn deregister_schema(
        &self,
        name: &str,
        cascade: bool,
    ) -> Result<Option<Arc<dyn SchemaProvider>>> {
        self.inner.deregister_schema(name, cascade)
    }
}

#[derive(Debug)]
struct GuardedSchema {
    inner: Arc<dyn SchemaProvider>,
    /// Prefix of its names in the patterns of grants.
    prefix: String,
    access: Arc<Access>,
}

impl GuardedSchema {
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

#[async_trait]
impl SchemaProvider for GuardedSchema {
    fn table_names(&self) -> Vec<String> {
        let mut names = self.inner.table_names();
        names.retain(|name| self.access.has(Role::Read, &self.full(name)));
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.access.need(Role::Read, &self.full(name)).map_err(outside)?;
        self.inner.table(name).await
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        self.access.need(Role::Admin, &self.full(&name)).map_err(outside)?;
        self.inner.register_table(name, table)
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.access.need(Role::Admin, &self.full(name)).map_err(outside)?;
        self.inner.deregister_table(name)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.inner.table_exist(name)
    }
}
