//! Reference tables with `refresh`: their files are checked when the interval has passed, and read if they have changed.
//!
//! Invariants: files that change while they are read are no version, since their rows may come from both states; a failure
//! leaves the current version, and the load is tried again after the interval.

use std::sync::{Arc, Weak};
use std::time::Duration;

use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::TableScanBuilder;
use datafusion::object_store::path::Path;
use datafusion::object_store::{self, ObjectMeta, ObjectStore, ObjectStoreExt};
use futures::TryStreamExt;
use windrow_core::{Clock, Error, ErrorKind, Result};
use windrow_query::reference::rows_of_table;
use windrow_query::refreshed::{RefreshedTable, TableVersion};
use windrow_sql::diagnostics::from_datafusion;
use windrow_stream::caught::caught;

use crate::catalog::Catalog;

/// The shortest interval: files are checked over the network.
pub(crate) const SHORTEST: Duration = Duration::from_secs(1);

/// Loads a table again and again, until it is dropped or replaced.
pub(crate) async fn run(
    table: Weak<RefreshedTable>,
    every: Duration,
    state: SessionState,
    (catalog, clock): (Weak<Catalog>, Arc<dyn Clock>),
) {
    loop {
        clock.sleep(every).await;
        let (Some(table), Some(catalog)) = (table.upgrade(), catalog.upgrade()) else { return };
        let is_there = catalog.refreshed_tables().iter().any(|there| Arc::ptr_eq(there, &table));
        drop(catalog);
        if !is_there {
            return;
        }
        refresh(&table, &state, clock.as_ref()).await;
    }
}

/// Loads a table if its files have changed. A failure is noted in the table.
pub(crate) async fn refresh(table: &RefreshedTable, state: &SessionState, clock: &dyn Clock) {
    let load = load(table, state, clock);
    if let Err(error) = caught(|| format!("refresh of \"{}\"", table.name()), load).await {
        tracing::warn!(table = table.name(), %error, "a reference table cannot be loaded");
        table.failed(clock.now_micros(), error);
    }
}

/// Loads a table if its files have changed.
///
/// # Errors
/// When they cannot be read, or change meanwhile.
pub(crate) async fn load(
    table: &RefreshedTable,
    state: &SessionState,
    clock: &dyn Clock,
) -> Result<()> {
    let before = fingerprint(table, state).await?;
    let known = table.state();
    let now = clock.now_micros();
    if known.version.is_some() && known.fingerprint == before {
        table.unchanged(now);
        return Ok(());
    }
    let source = provider_as_source(Arc::clone(table.files()));
    let scan = TableScanBuilder::new(table.name(), source).build().map_err(from_datafusion)?;
    // A list of files that was made before they changed.
    if let Some(lists) = state.runtime_env().cache_manager.get_list_files_cache() {
        lists.clear();
    }
    let (batches, memory) = rows_of_table(state, &scan, 0).await?;
    if fingerprint(table, state).await? != before {
        let message =
            format!("the files of table \"{}\" changed while they were read", table.name());
        return Err(Error::new(ErrorKind::Unavailable, message).with_hint(
            "Write a new file and rename it to the old name, so the table never reads half of it.",
        ));
    }
    table.loaded(TableVersion::try_new(now, batches, Some(memory))?, before);
    Ok(())
}

/// Returns a text that differs when the files of a table do: their names, sizes, times, and the entity tags and versions of
/// object stores. `None`: the table has no files.
async fn fingerprint(table: &RefreshedTable, state: &SessionState) -> Result<Option<String>> {
    let Some(files) = table.files().downcast_ref::<ListingTable>() else { return Ok(None) };
    let mut all = vec![];
    for path in files.table_paths() {
        let store: ObjectStoreUrl = path.object_store();
        let store = state.runtime_env().object_store(&store).map_err(from_datafusion)?;
        let found = found(store.as_ref(), path.prefix()).await;
        let found = found.map_err(|error| {
            let message = format!("the files of table \"{}\" cannot be read", table.name());
            Error::new(ErrorKind::Unavailable, format!("{message}: {error}")).with_source(error)
        })?;
        // A table of a directory may be empty, but not one of a file that is gone.
        if found.is_empty() && !path.is_collection() {
            let message = format!("the file of table \"{}\" does not exist", table.name());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        all.extend(found.iter().filter(|meta| path.contains(&meta.location, false)).map(|meta| {
            let ObjectMeta { location, last_modified, size, e_tag, version } = meta;
            format!("{location} {last_modified} {size} {e_tag:?} {version:?}")
        }));
    }
    all.sort_unstable();
    Ok(Some(all.join("\n")))
}

/// Returns the object at a path, or those below it.
async fn found(store: &dyn ObjectStore, path: &Path) -> object_store::Result<Vec<ObjectMeta>> {
    match store.head(path).await {
        Ok(meta) => Ok(vec![meta]),
        Err(object_store::Error::NotFound { .. }) => store.list(Some(path)).try_collect().await,
        Err(error) => Err(error),
    }
}
