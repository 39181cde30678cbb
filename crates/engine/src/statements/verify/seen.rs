//! A view at the moment of its verification, and what its recomputation cannot reproduce.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use windrow_core::{Result, Watermark};
use windrow_stream::answer::{CurrentRows, LiveAnswer};
use windrow_stream::log::Contents;

use crate::catalog::{Catalog, Materialized};
use crate::execution::context::StatementContext;

/// How often a view without windows is read until no row is between the view and its count of consumed rows.
const LOOKS_MAX: usize = 100;

/// A view at one moment.
#[derive(Debug)]
pub(super) struct Seen {
    /// Its watermark.
    pub(super) watermark: Watermark,
    /// Its rows.
    pub(super) rows: SeenRows,
    /// Per stream and view with a log: the offset up to which the view has consumed it.
    pub(super) consumed: BTreeMap<String, u64>,
    /// Whether the view had consumed everything.
    pub(super) settled: bool,
}

/// The rows of a view at one moment.
#[derive(Debug)]
pub(super) enum SeenRows {
    /// All of its log.
    Log(Contents),
    /// The current rows of an updating result.
    Current(CurrentRows),
}

impl SeenRows {
    /// Returns them, in memory.
    ///
    /// # Errors
    /// When an archive cannot be read.
    pub(super) async fn batches(&self) -> Result<Vec<RecordBatch>> {
        match self {
            Self::Log(contents) => contents.batches().await,
            Self::Current(rows) => Ok(rows.batches.clone()),
        }
    }
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
/// When a stream that it reads was dropped; when the current rows take more memory than there is.
pub(super) async fn look(cx: &StatementContext, view: &Materialized) -> Result<Seen> {
    let catalog = cx.catalog();
    if let Some(answer) = &view.answer {
        return look_at_current(cx, view, answer).await;
    }
    let mut passes = view.query.watch_passes();
    let mut looks = 0;
    loop {
        let over = view.query.is_over();
        let before = consumed(catalog, view)?;
        let watermark = view.query.state.lock().watermark;
        let rows = SeenRows::Log(view.log.contents());
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

/// Returns a view with an updating result at a moment at which all rows that it has consumed are in its current rows: two passes of
/// its coordinator after it consumed the last of them. While rows keep arriving there may be none; the last look then counts.
async fn look_at_current(
    cx: &StatementContext,
    view: &Materialized,
    answer: &LiveAnswer,
) -> Result<Seen> {
    let mut passes = view.query.watch_passes();
    let mut looks = 0;
    loop {
        let before = consumed(cx.catalog(), view)?;
        let watermark = view.query.state.lock().watermark;
        for _ in 0..2 {
            if view.query.is_over() {
                break;
            }
            view.query.ask_emission();
            // Whichever way it ends, the view is looked at.
            tokio::select! {
                changed = passes.changed() => drop(changed),
                ended = view.query.ended() => drop(ended),
            }
        }
        let rows = answer.rows(&cx.instance.parts.env.memory_pool)?;
        let over = view.query.is_over();
        let consumed = consumed(cx.catalog(), view)?;
        let settled = before == consumed;
        looks += 1;
        if settled || over || looks == LOOKS_MAX {
            return Ok(Seen { watermark, rows: SeenRows::Current(rows), consumed, settled });
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
