//! A view at the moment of its verification, and what its recomputation cannot reproduce.

use std::collections::BTreeMap;

use windrow_core::{Result, Watermark};
use windrow_stream::log::Contents;

use crate::catalog::{Catalog, Materialized};

/// How often a stateless view is read until no row is between the view and its count of consumed rows.
const LOOKS_MAX: usize = 100;

/// A view at one moment.
#[derive(Debug)]
pub(super) struct Seen {
    /// Its watermark.
    pub(super) watermark: Watermark,
    /// Its rows.
    pub(super) rows: Contents,
    /// Per stream and view with a log: the offset up to which the view has consumed it.
    pub(super) consumed: BTreeMap<String, u64>,
    /// Whether the view had consumed everything.
    pub(super) settled: bool,
}

/// What the recomputation cannot reproduce.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Number of late rows that are excluded from the recomputation.
    pub(super) left_out: u64,
    /// Number of rows that an expression of the view failed on, which are excluded too.
    pub(super) skipped: u64,
    /// Why the two sides may differ although both are right.
    pub(super) reasons: Vec<String>,
    /// What cannot be compared, and why.
    pub(super) gone: Option<String>,
}

/// Returns the view at this moment. Rows of a stateless view are in the view a moment before they count as consumed; it is read
/// again until none is in between.
///
/// # Errors
/// When a stream that it reads was dropped.
pub(super) async fn look(catalog: &Catalog, view: &Materialized) -> Result<Seen> {
    let mut passes = view.query.watch_passes();
    let mut looks = 0;
    loop {
        let over = view.query.is_over();
        let before = consumed(catalog, view)?;
        let watermark = view.query.state.lock().watermark;
        let rows = view.log.contents();
        let consumed = consumed(catalog, view)?;
        let settled = before == consumed && is_caught_up(catalog, view, &consumed)?;
        looks += 1;
        if settled || over || !view.is_stateless || looks == LOOKS_MAX {
            return Ok(Seen { watermark, rows, consumed, settled });
        }
        // Whichever way it ends, the view is read once more.
        tokio::select! {
            changed = passes.changed() => drop(changed),
            ended = view.query.ended() => drop(ended),
        }
    }
}

/// Returns the offsets up to which the view has consumed the streams and views that have a log.
fn consumed(catalog: &Catalog, view: &Materialized) -> Result<BTreeMap<String, u64>> {
    let mut consumed = BTreeMap::new();
    for name in &view.reads {
        if catalog.stream_to_read(name)?.log().is_some() {
            consumed.insert(name.clone(), view.consumed(name));
        }
    }
    Ok(consumed)
}

/// Whether the view has consumed all rows of the logs that it reads.
fn is_caught_up(
    catalog: &Catalog,
    view: &Materialized,
    consumed: &BTreeMap<String, u64>,
) -> Result<bool> {
    for name in &view.reads {
        if let Some(log) = catalog.stream_to_read(name)?.log()
            && consumed.get(name) != Some(&log.state().rows)
        {
            return Ok(false);
        }
    }
    Ok(true)
}
