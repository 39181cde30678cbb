//! `windrow.memory`: what the process has of the machine's memory, and which parts of it are known.

use arrow::record_batch::RecordBatch;
use windrow_core::{Result, budget};

use super::{count, maybe_text, table, text};
use crate::catalog::{Catalog, Object};
use crate::instance::Parts;
use crate::instance::machine::resident_bytes;

/// A part of the memory, the query, stream or view that it belongs to, and its bytes.
type Row = (&'static str, Option<String>, u64);

/// Returns the process first, then statements, queries in order of their ids, streams and views in order of their names.
pub(super) fn memory(parts: &Parts, catalog: &Catalog) -> Result<RecordBatch> {
    let process = [("resident", resident_bytes()), ("held", budget::held_bytes())];
    let mut rows: Vec<Row> =
        process.into_iter().filter_map(|(part, bytes)| Some((part, None, bytes?))).collect();
    let statements = rows.len();
    rows.push(("statements", None, parts.env.memory_pool.reserved() as u64));
    let queries: Vec<_> = parts.queries.lock().values().cloned().collect();
    let states = queries
        .iter()
        .map(|query| ("state", Some(query.name.clone()), query.state.lock().state_bytes as u64));
    rows.extend(states.filter(|(_, _, bytes)| *bytes > 0));
    for (name, object, _) in catalog.definitions() {
        let log = match &object {
            Object::Stream(stream) => stream.push().map(|push| &push.log),
            Object::Materialized(view) => Some(&view.log),
            Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_) => None,
        };
        let answer = match &object {
            Object::Materialized(view) => view.answer.as_ref().map_or(0, |a| a.size_bytes()),
            _ => 0,
        };
        // Its reservation is in the pool of the statements.
        if let Some(row) = rows.get_mut(statements) {
            row.2 = row.2.saturating_sub(answer as u64);
        }
        rows.extend(log.map(|log| ("rows", Some(name), (log.memory_bytes() + answer) as u64)));
    }
    table(vec![
        ("part", text(rows.iter().map(|row| row.0)), false),
        ("name", maybe_text(rows.iter().map(|row| row.1.as_ref())), true),
        ("bytes", count(rows.iter().map(|row| row.2)), false),
    ])
}
