//! Files that a statement reads as tables: `FROM 'x.csv'`. Their names in the default schema are the text in the
//! quotes, and only that statement finds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::error::Result;

use crate::catalog::overlaid::Overlay;
use crate::names::SCHEMA;

/// The tables of one statement that are files, by the text in the quotes.
pub(crate) type FileTables = BTreeMap<String, Arc<dyn TableProvider>>;

/// The overlay that adds the files of one statement to the tables of the default schema.
#[derive(Debug)]
pub(crate) struct WithFiles(pub(crate) Arc<FileTables>);

impl Overlay for WithFiles {
    fn over(
        self: Arc<Self>,
        name: &str,
        schema: Arc<dyn SchemaProvider>,
    ) -> Arc<dyn SchemaProvider> {
        match name {
            SCHEMA => Arc::new(SchemaWithFiles { inner: schema, files: Arc::clone(&self.0) }),
            _ => schema,
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

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.files.get(name) {
            Some(file) => Ok(Some(Arc::clone(file))),
            None => self.inner.table(name).await,
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.inner.table_exist(name)
    }
}
