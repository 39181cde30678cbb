//! Catalogs as the planner sees them, with a schema of the engine replaced by another view of it.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};
use datafusion::error::Result;

/// A replacement of schemas.
pub(crate) trait Overlay: Debug + Send + Sync + 'static {
    /// Returns the replacement of `schema`, which may be `schema` itself.
    fn over(
        self: Arc<Self>,
        name: &str,
        schema: Arc<dyn SchemaProvider>,
    ) -> Arc<dyn SchemaProvider>;
}

/// All catalogs, with an overlay on each schema.
#[derive(Debug)]
pub(crate) struct OverlaidCatalogs<O> {
    pub(crate) inner: Arc<dyn CatalogProviderList>,
    pub(crate) overlay: Arc<O>,
}

impl<O: Overlay> CatalogProviderList for OverlaidCatalogs<O> {
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
        Some(Arc::new(OverlaidCatalog { inner, overlay: Arc::clone(&self.overlay) }))
    }
}

#[derive(Debug)]
struct OverlaidCatalog<O> {
    inner: Arc<dyn CatalogProvider>,
    overlay: Arc<O>,
}

impl<O: Overlay> CatalogProvider for OverlaidCatalog<O> {
    fn schema_names(&self) -> Vec<String> {
        self.inner.schema_names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let inner = self.inner.schema(name)?;
        Some(Arc::clone(&self.overlay).over(name, inner))
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
