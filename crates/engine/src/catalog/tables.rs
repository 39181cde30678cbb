//! The schema `public`: the tables that the planner scans, by name. Unlike DataFusion's own schema it replaces a table
//! atomically, so a name is never unknown in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::exec_err;
use datafusion::error::Result;
use parking_lot::Mutex;

/// Tables by name.
#[derive(Debug, Default)]
pub(crate) struct Tables(Mutex<BTreeMap<String, Arc<dyn TableProvider>>>);

impl Tables {
    /// Returns the table of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.0.lock().get(name).cloned()
    }

    /// Replaces the table of this name.
    pub(crate) fn switch(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.0.lock().insert(name.to_owned(), table);
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.0.lock().keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.0.lock().get(name).cloned())
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        let mut tables = self.0.lock();
        if tables.contains_key(&name) {
            return exec_err!("The table {name} already exists");
        }
        Ok(tables.insert(name, table))
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.0.lock().remove(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }
}
