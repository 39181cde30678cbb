//! `windrow.tables`: the reference tables, and what is known of those that are refreshed; `windrow.table_versions`: the
//! versions that queries join, and from which event time each counts.

use arrow::record_batch::RecordBatch;
use windrow_core::Result;
use windrow_query::refreshed::RefreshedTable;

use super::{count, maybe_count, maybe_text, table, text, times};
use crate::catalog::Catalog;
use crate::instance::Parts;

/// Returns the rows of `windrow.tables`.
pub(super) fn tables(_: &Parts, catalog: &Catalog) -> Result<RecordBatch> {
    let refreshed = catalog.refreshed_tables();
    let mut all: Vec<_> = catalog.table_names().into_iter().map(|name| (name, None)).collect();
    for (name, found) in &mut all {
        let named = |table: &&std::sync::Arc<RefreshedTable>| table.name() == name.as_str();
        *found = refreshed.iter().find(named).map(|table| (table.every(), table.state()));
    }
    let state = || all.iter().map(|(_, found)| found.as_ref().map(|(_, state)| state));
    let version = || state().map(|state| state?.version.as_ref());
    table(vec![
        ("name", text(all.iter().map(|(name, _)| name)), false),
        (
            "refresh_seconds",
            maybe_count(all.iter().map(|(_, found)| Some(found.as_ref()?.0.as_secs()))),
            true,
        ),
        ("versions", maybe_count(state().map(|state| Some(state?.versions))), true),
        ("loaded_at", times(version().map(|version| Some(version?.loaded_micros))), true),
        ("rows", maybe_count(version().map(|version| Some(version?.rows()))), true),
        ("checked_at", times(state().map(|state| state?.checked_micros)), true),
        (
            "last_error",
            maybe_text(state().map(|state| Some(state?.last_error.as_ref()?.to_string()))),
            true,
        ),
    ])
}

/// Returns the rows of `windrow.table_versions`.
pub(super) fn table_versions(parts: &Parts, _: &Catalog) -> Result<RecordBatch> {
    let mut all = vec![];
    for query in parts.queries.lock().values() {
        let Some(versions) = query.versions.get() else { continue };
        for of in versions.shown().iter() {
            let table = of.table.name();
            let each = (1..).zip(of.versions.clone());
            all.extend(
                each.map(|(number, counted)| {
                    (query.name.clone(), table.to_owned(), number, counted)
                }),
            );
        }
    }
    let counts_from = |micros: i64| Some(micros).filter(|micros| *micros > i64::MIN / 2);
    table(vec![
        ("query", text(all.iter().map(|row| &row.0)), false),
        ("table_name", text(all.iter().map(|row| &row.1)), false),
        ("version", count(all.iter().map(|row| row.2)), false),
        ("counts_from", times(all.iter().map(|row| counts_from(row.3.from_micros))), true),
        ("loaded_at", times(all.iter().map(|row| Some(row.3.version.loaded_micros))), true),
        ("rows", count(all.iter().map(|row| row.3.version.rows())), false),
    ])
}
