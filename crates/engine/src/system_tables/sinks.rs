//! `windrow.sinks`: the progress and state of sinks; `windrow.rejected_rows`: the rows that their destinations have refused.

use arrow::record_batch::RecordBatch;
use windrow_core::Result;

use super::{count, listed, maybe_count, maybe_text, table, text, times};
use crate::catalog::{Catalog, Object};
use crate::durable::definitions::Kind;
use crate::instance::Parts;

/// Returns the rows of the table.
pub(super) fn sinks(_: &Parts, catalog: &Catalog) -> Result<RecordBatch> {
    let all = listed(catalog, &[Kind::Sink], |object| match object {
        Object::Sink(sink) => Some(sink),
        Object::Stream(_)
        | Object::View
        | Object::Materialized(_)
        | Object::Function(_)
        | Object::Model(_) => None,
    });
    // Each state is read once, so that its columns fit together.
    let all: Vec<_> = all
        .into_iter()
        .map(|(listed, _)| {
            let state = listed.object.as_ref().map(|sink| sink.state());
            (listed, state)
        })
        .collect();
    let sinks = || all.iter().map(|(listed, _)| listed.object.as_ref());
    let states = || all.iter().map(|(_, state)| state.as_ref());
    let errors = all.iter().map(|(listed, state)| {
        listed.error.clone().or_else(|| state.as_ref().and_then(|s| s.last_error.clone()))
    });
    table(vec![
        ("name", text(all.iter().map(|(listed, _)| &listed.name)), false),
        ("view", maybe_text(sinks().map(|s| s.map(|s| s.view.as_str()))), true),
        ("connector", maybe_text(sinks().map(|s| s.map(|s| s.connector.as_str()))), true),
        ("state", text(sinks().map(|s| s.map_or("broken", |s| s.status()))), false),
        ("committed", maybe_count(states().map(|s| s.map(|s| s.committed))), true),
        ("lag_rows", maybe_count(sinks().map(|s| s.map(|s| s.lag()))), true),
        (
            "rows",
            maybe_count(states().map(|s| {
                s.map(|s| s.committed.saturating_sub(s.first).saturating_sub(s.rejected))
            })),
            true,
        ),
        ("rejected", maybe_count(states().map(|s| s.map(|s| s.rejected))), true),
        ("retries", count(states().map(|s| s.map_or(0, |s| s.retries))), false),
        ("last_error", maybe_text(errors), true),
        ("guarantee", maybe_text(sinks().map(|s| s.map(|s| s.guarantee.as_str()))), true),
        ("definition", text(all.iter().map(|(listed, _)| &listed.text)), false),
    ])
}

/// Returns the rows of `windrow.rejected_rows`.
pub(super) fn rejected_rows(_: &Parts, catalog: &Catalog) -> Result<RecordBatch> {
    let mut all = vec![];
    for (name, object, _) in catalog.definitions() {
        let Object::Sink(sink) = object else { continue };
        all.extend(sink.rejected().rows.into_iter().map(|row| (name.clone(), row)));
    }
    table(vec![
        ("sink", text(all.iter().map(|(sink, _)| sink)), false),
        ("sequence", count(all.iter().map(|(_, row)| row.row + 1)), false),
        ("reason", text(all.iter().map(|(_, row)| &row.reason)), false),
        ("rejected_at", times(all.iter().map(|(_, row)| Some(row.at))), false),
        ("row", maybe_text(all.iter().map(|(_, row)| row.values.as_deref())), true),
    ])
}
