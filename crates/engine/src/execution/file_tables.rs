//! Files that a statement reads as tables: `FROM 'x.csv'`. They are found in the default schema by what stands in the quotes,
//! and by that statement only.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::error::Result;

use crate::names::SCHEMA;

/// The tables of one statement that are files, by what stands in the quotes.
pub(crate) type FileTables = BTreeMap<String, Arc<dyn TableProvider>>;

/// All catalogs, with the files of one statement among the tables of the default schema.
#[derive(Debug)]
pub(crate) struct WithFiles {
    pub(crate) inner: Arc<dyn CatalogProviderList>,
    pub(crate) files: Arc<FileTables>,
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
