//! Configures DataFusion, the clock and the catalogs of an engine.

use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
};
use datafusion::prelude::SessionConfig;
use futures::FutureExt;
use windrow_core::{Clock, Error, Limits, Result, SystemClock};
use windrow_query::runner::RunBytes;
use windrow_sql::diagnostics::from_datafusion;

use super::Parts;
use super::machine::statement_bytes;
use crate::catalog::tables::Tables;
use crate::names::{CATALOG, SCHEMA};

/// Returns the clock of the machine.
pub(crate) fn machine_clock() -> Arc<dyn Clock> {
    #[expect(clippy::disallowed_methods, reason = "the one timer behind the clock")]
    let sleeper = |duration| tokio::time::sleep(duration).boxed();
    Arc::new(SystemClock::new(sleeper))
}

/// Returns the maximum memory, in bytes, of one statement or one run of a continuous query.
pub(crate) fn query_bytes_max(limits: &Limits) -> usize {
    limits.query_bytes_max.unwrap_or_else(statement_bytes)
}

/// Returns the settings that every session begins with.
pub(crate) fn df_config(limits: &Limits) -> SessionConfig {
    let mut config = SessionConfig::new();
    if let Some(memory) = limits.memory_bytes_max {
        // The memory that a sort reserves for its last merge must leave it some for sorting.
        let execution = &mut config.options_mut().execution;
        let (reserved, in_place) = (memory / 32, memory / 64);
        execution.sort_spill_reservation_bytes =
            execution.sort_spill_reservation_bytes.min(reserved);
        execution.sort_in_place_threshold_bytes =
            execution.sort_in_place_threshold_bytes.min(in_place);
    }
    config
        .with_extension(Arc::new(RunBytes(query_bytes_max(limits))))
        // Errors of the planner then carry their place in the text.
        .set_bool("datafusion.sql_parser.collect_spans", true)
        .with_target_partitions(limits.threads.max(1))
        .with_information_schema(true)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
}

/// Creates the catalog and the schema `public`.
///
/// # Errors
/// Never in practice: both are new.
pub(crate) fn catalogs() -> Result<(Arc<dyn CatalogProviderList>, Arc<Tables>)> {
    let list = MemoryCatalogProviderList::new();
    let catalog = MemoryCatalogProvider::new();
    let schema = Arc::new(Tables::default());
    catalog.register_schema(SCHEMA, Arc::clone(&schema) as _).map_err(from_datafusion)?;
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    Ok((Arc::new(list), schema))
}

/// Registers another schema in the catalog.
///
/// # Errors
/// When it is registered already (a bug).
pub(crate) fn register_schema(
    parts: &Parts,
    name: &str,
    schema: Arc<dyn datafusion::catalog::SchemaProvider>,
) -> Result<()> {
    let catalog = parts
        .catalogs
        .catalog(CATALOG)
        .ok_or_else(|| Error::internal("the catalog is not registered"))?;
    catalog.register_schema(name, schema).map(|_| ()).map_err(from_datafusion)
}
