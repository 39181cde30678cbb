//! The catalog as one user sees it: names without a grant are refused where they become a table, and are not listed.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::Result;
use windrow_stream::stream::table::outside;

use super::overlaid::Overlay;
use crate::access::{Access, Role};
use crate::names::{SCHEMA, SYSTEM_SCHEMA};

/// The overlay of one user.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) access: Arc<Access>,
}

impl Overlay for Guard {
    fn over(
        self: Arc<Self>,
        name: &str,
        schema: Arc<dyn SchemaProvider>,
    ) -> Arc<dyn SchemaProvider> {
        if name == SYSTEM_SCHEMA {
            // Its tables leave out the rows that the user has no grant on.
            return schema;
        }
        let prefix = if name == SCHEMA { String::new() } else { format!("{name}.") };
        Arc::new(GuardedSchema { inner: schema, prefix, access: Arc::clone(&self.access) })
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
