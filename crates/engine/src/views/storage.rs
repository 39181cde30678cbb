//! The storage of a materialized view, in the data directory or in memory, and the state from which its query resumes.
//!
//! ```text
//! archive (windows up to F) ──┐
//! newest complete checkpoint ─┼─► query resumes; windows up to F are not emitted again
//! logs of its streams ────────┘
//! ```
//! A view without windows has a number of rows instead of F, and resumes from the checkpoint at exactly that number. Where its
//! rows always have the same order, it may resume from an older checkpoint or from none: the rows that the archive has beyond
//! it are not emitted again. The archive of a view with an updating result has its changes, and the checkpoints its current
//! rows, which are restored even if the view has ended.
//!
//! Invariants: a view that has checkpoints has the first one before its statement is acknowledged, so the offsets at which it
//! began to read are durable; without a checkpoint a query is only run again where its streams still hold everything that its
//! open windows need.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use windrow_core::{Behind, Error, ErrorKind, Result, Watermark};
use windrow_query::checkpointer::Checkpointer;
use windrow_query::start::Ready;
use windrow_sql::plan::{ContinuousPlan, Flow, Leaf, LeafSource, RowChanges};
use windrow_storage::checkpoint::{
    Checkpoints, Newest, Resume, SavedBehind, Stamp, TapCut, Unused,
};
use windrow_storage::wal::Wal;
use windrow_stream::log::{Completion, StreamLog};
use windrow_stream::spill::Spiller;

use crate::catalog::Object;
use crate::durable::definitions::Definition;
use crate::execution::context::StatementContext;
use crate::views::shape::plan_text;

/// The storage of a view, and the state from which its query resumes.
pub(super) struct ViewStorage {
    /// Its rows.
    pub(super) log: Arc<StreamLog>,
    /// The end up to which windows are in the archive.
    pub(super) archived: Watermark,
    /// Moves rows to the archive; `None`: in memory only.
    pub(super) spiller: Option<Arc<Spiller>>,
    /// The checkpoints, if its query can resume.
    pub(super) checkpoints: Option<Arc<Checkpoints>>,
    /// The state from which its query resumes; `None`: it begins.
    pub(super) resume: Option<Resume>,
    /// The number of rows that its query will produce again although they are in the archive.
    pub(super) archived_rows: u64,
}

/// The properties of a view that determine its storage.
#[derive(Debug)]
pub(super) struct StorageSpec<'a> {
    /// The name of the view.
    pub(super) name: &'a str,
    /// The name of its archiving and retention in the instance.
    pub(super) key: &'a str,
    /// The streams and views that it reads.
    pub(super) reads: &'a [String],
    /// Its query.
    pub(super) plan: &'a ContinuousPlan,
    /// Whether it sends late rows to a stream.
    pub(super) has_late_to: bool,
    /// Whether it begins after the last row of its streams.
    pub(super) starts_late: bool,
    /// The sum of the sizes of all its windows, in ticks.
    pub(super) reach_ticks: i64,
}

impl ViewStorage {
    /// Returns storage in memory.
    fn in_memory(log: Arc<StreamLog>) -> Self {
        Self {
            log,
            archived: Watermark::NONE,
            spiller: None,
            checkpoints: None,
            resume: None,
            archived_rows: 0,
        }
    }

    /// Returns the offsets at which its query began to read logs: those of the checkpoint, or `new` for a new view.
    pub(super) fn began(&self, new: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let Some(resume) = &self.resume else { return new };
        let began = |tap: &TapCut| Some((tap.stream.clone(), tap.began?));
        resume.taps.iter().filter_map(began).collect()
    }

    /// Opens the storage of a view. It is in memory without a data directory, and where the rows cannot be stored durably.
    ///
    /// # Errors
    /// When it is damaged, or its query can neither resume nor run again.
    pub(super) fn open<'a>(
        cx: &'a StatementContext,
        view: &'a StorageSpec<'_>,
        definition: Option<Definition>,
    ) -> BoxFuture<'a, Result<Self>> {
        Box::pin(async move {
            let StorageSpec { name, key, reads, plan, .. } = *view;
            let is_storable = is_storable(cx, plan, reads, view.has_late_to);
            let resumes = is_resumable(cx, reads, view.has_late_to);
            if cx.instance.store.is_some() && view.starts_late && !resumes {
                return Err(Error::config(format!(
                    "start = 'latest' does not fit \"{name}\": where it begins would not be known \
                 after a restart"
                ))
                .with_hint(
                    "It fits views over durable streams and views, without LATE DATA TO; or use \
                 start = TIMESTAMP '…'.",
                ));
            }
            let (Some(store), Some(definition)) =
                (&cx.instance.store, definition.filter(|_| is_storable))
            else {
                let limits = &cx.instance.parts.limits;
                let memory = cx.instance.parts.memory.as_ref();
                let log = StreamLog::in_memory(Arc::clone(&plan.schema), name, limits, memory);
                return Ok(Self::in_memory(log));
            };
            let time = plan.event_times.first().map(|e| e.column);
            let completion = completion(cx, plan)?;
            let durable = store.open_view(&definition, &plan.schema, time, completion).await?;
            let archived = durable.log.frontier().watermark();
            let spiller = durable.view_spiller(logs_of(cx, reads));
            cx.instance.start_archiving(key, Arc::clone(&spiller));
            let mut storage =
                Self { archived, spiller: Some(spiller), ..Self::in_memory(durable.log) };
            if !resumes {
                return Ok(storage);
            }
            let checkpoints = Arc::new(store.open_checkpoints(&definition, stamp(plan))?);
            storage.checkpoints = Some(Arc::clone(&checkpoints));
            if cx.restoring.is_some() {
                storage.resume(cx, view, (checkpoints, completion)).await?;
            }
            Ok(storage)
        })
    }

    /// Finds the state from which the query of a restored view resumes.
    async fn resume(
        &mut self,
        cx: &StatementContext,
        view: &StorageSpec<'_>,
        (checkpoints, completion): (Arc<Checkpoints>, Completion),
    ) -> Result<()> {
        let archived = self.archived;
        let by_rows = completion.is_by_checkpoint();
        let has_ended = archived == Watermark::END;
        let is_updating = *view.plan.changes() != RowChanges::AppendOnly;
        if has_ended && !by_rows {
            return Ok(());
        }
        let newest = newest(cx, checkpoints, (archived, &self.log)).await?;
        if by_rows {
            self.archived_rows = resume_log(&self.log, newest.resume.as_ref());
        }
        if has_ended && is_updating && newest.resume.is_none() {
            let why = "its current rows are in them alone";
            return Err(unusable(view.name, why));
        }
        if has_ended {
            self.resume = newest.resume.filter(|_| is_updating);
            return Ok(());
        }
        let store = cx.instance.store.as_ref();
        let failure = cx.restoring.as_ref().zip(store).and_then(|(of, store)| store.failure(of.id));
        let stays_failed = failure.is_some_and(|failure| failure.again);
        if !stays_failed && cx.catalog().check_reads(view.reads).is_ok() {
            cx.instance.note_resumed(view.name, &newest);
        }
        if newest.resume.is_none() {
            check_rerun(cx, view, (archived, &self.log))?;
        }
        self.resume = newest.resume;
        Ok(())
    }

    /// Returns the checkpointer of its query; `None`: it has no checkpoints.
    pub(super) fn checkpointer(&self, cx: &StatementContext) -> Option<Checkpointer> {
        let parts = &cx.instance.parts;
        self.checkpoints.as_ref().zip(self.spiller.as_ref()).map(|(checkpoints, spiller)| {
            let mut checkpointer = Checkpointer::new(
                Arc::clone(checkpoints),
                Arc::clone(spiller),
                (Arc::clone(&parts.late_rows), Arc::clone(&parts.bad_rows)),
                Arc::clone(&parts.clock),
            );
            let resume = self.resume.as_ref();
            checkpointer.has_rows(resume.and_then(|resume| resume.rows_given).unwrap_or(0));
            checkpointer
        })
    }
}

/// Whether the rows of a query can be stored durably.
fn is_storable(
    cx: &StatementContext,
    plan: &ContinuousPlan,
    reads: &[String],
    has_late_to: bool,
) -> bool {
    match plan.root {
        // Without their history, windows behind the frontier would drop rows that arrive again.
        Flow::Stage(_) if !plan.comes_at_once() => are_replayable(cx, reads),
        // Without windows there is no frontier: only a checkpoint tells what the archive has.
        Flow::Stage(_) | Flow::Rows(_) => is_resumable(cx, reads, has_late_to),
    }
}

fn are_replayable(cx: &StatementContext, reads: &[String]) -> bool {
    reads.iter().all(|name| cx.catalog().is_replayable(name))
}

/// Whether a query over `reads` can resume from a checkpoint. `has_late_to`: whether it sends late rows to a stream.
pub(crate) fn is_resumable(cx: &StatementContext, reads: &[String], has_late_to: bool) -> bool {
    // A stream of late rows is only in memory: it is filled again by reading everything again. A view that is recomputed may
    // have its rows in another order.
    let is_stable = |name: &String| match cx.catalog().get(name) {
        Some(Object::Materialized(read)) => read.spiller.is_some(),
        Some(
            Object::Stream(_)
            | Object::View
            | Object::Sink(_)
            | Object::Function(_)
            | Object::Model(_),
        )
        | None => true,
    };
    are_replayable(cx, reads) && !has_late_to && reads.iter().all(is_stable)
}

/// Returns when the rows of a view are complete.
fn completion(cx: &StatementContext, plan: &ContinuousPlan) -> Result<Completion> {
    if plan.comes_at_once() {
        return Ok(Completion::Checkpoint { in_order: false });
    }
    let Flow::Rows(flow) = &plan.root else { return Ok(Completion::Watermark) };
    // Splits of a connector are read in parallel, and so are two inputs.
    let reads_a_log = match flow.leaves.as_slice() {
        [Leaf { from: LeafSource::Stream { relation, .. }, .. }] => {
            let stream = cx.catalog().stream_to_read(relation.name());
            stream.is_ok_and(|stream| stream.log().is_some())
        }
        _ => false,
    };
    Ok(Completion::Checkpoint { in_order: reads_a_log && flow.is_repeatable()? })
}

/// Returns the write-ahead logs that the rows of streams and views come from.
fn logs_of(cx: &StatementContext, reads: &[String]) -> Vec<Arc<Wal>> {
    let mut logs: Vec<Arc<Wal>> = vec![];
    for name in reads {
        let of = match cx.catalog().get(name) {
            Some(Object::Materialized(view)) => match &view.spiller {
                Some(spiller) => spiller.sources().to_vec(),
                None => logs_of(cx, &view.reads),
            },
            Some(Object::Stream(stream)) => {
                stream.push().and_then(|push| push.wal.clone()).into_iter().collect()
            }
            Some(Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_))
            | None => vec![],
        };
        for log in of {
            if !logs.iter().any(|known| Arc::ptr_eq(known, &log)) {
                logs.push(log);
            }
        }
    }
    logs
}

/// Returns the newest checkpoint that is consistent with the archive and the logs of the streams.
async fn newest(
    cx: &StatementContext,
    checkpoints: Arc<Checkpoints>,
    (archived, log): (Watermark, &StreamLog),
) -> Result<Newest> {
    let catalog = Arc::clone(cx.catalog());
    let (rows, completion) = (log.state().rows, log.completion());
    let look = move || {
        // The archive stores the rows of a checkpoint before the next one is written.
        let ahead = Cell::new(0_u32);
        let newest = checkpoints.newest(&|was_archived, resume| {
            match completion {
                None | Some(Completion::Append) => {}
                Some(Completion::Watermark) => {
                    if was_archived.is_some_and(|w| w > archived) {
                        return Err("the archive has lost windows that it had".to_owned());
                    }
                }
                Some(Completion::Checkpoint { in_order }) => {
                    let given = resume.rows_given.unwrap_or(0);
                    ahead.set(ahead.get() + u32::from(given > rows));
                    if given > rows || (given < rows && !in_order) {
                        return Err(format!("it covers {given} rows, and the archive has {rows}"));
                    }
                }
            }
            for tap in &resume.taps {
                if let Some(Object::Stream(stream)) = catalog.get(&tap.stream)
                    && let Some(push) = stream.push()
                    && push.log.state().rows < tap.positions.of_log()
                {
                    let stream = &tap.stream;
                    return Err(format!("stream \"{stream}\" has lost rows that are in it"));
                }
            }
            Ok(())
        })?;
        if ahead.get() > 1 && completion.is_some_and(Completion::is_unordered) {
            // Followers may have got the lost rows, which would come again in another order.
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("its archive has lost rows: it has {rows}, and its checkpoints cover more"),
            )
            .with_hint("Restore it from a backup; nothing has been overwritten."));
        }
        Ok(newest)
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|e| Error::internal("reading checkpoints stopped").with_source(e))?
}

/// Returns the error of a view that cannot run again without a checkpoint.
fn unusable(view: &str, why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("no checkpoint can be used, and {why}"))
        .with_hint(format!("DROP MATERIALIZED VIEW {view} and create it again."))
}

/// Checks that a query without a checkpoint can run again: the streams hold what its windows after `archived` need, or all
/// rows where it has no windows.
fn check_rerun(
    cx: &StatementContext,
    view: &StorageSpec<'_>,
    (archived, log): (Watermark, &StreamLog),
) -> Result<()> {
    let refused = |why: String| unusable(view.name, &why);
    if view.starts_late {
        return Err(refused("where it began to read is known from them alone".to_owned()));
    }
    if log.is_unordered() && log.state().rows > 0 {
        let why = "its rows may come in another order than they are archived in";
        return Err(refused(why.to_owned()));
    }
    let needed = archived.delayed(view.reach_ticks);
    for name in view.reads {
        let stream = cx.catalog().stream_to_read(name)?;
        if let Some(push) = stream.push()
            && push.log.has_gaps()
        {
            return Err(refused(format!("\"{name}\" has lost rows that are in it")));
        }
        // A query reads a connector itself, not its history.
        let Some(retention) = stream.retention.as_ref().filter(|_| stream.history.is_none()) else {
            continue;
        };
        if retention.release_before()?.is_some_and(|dropped| dropped > needed.ticks()) {
            return Err(refused(format!("\"{name}\" has dropped rows that its windows need")));
        }
    }
    Ok(())
}

/// Writes the first checkpoint of a new view: where it begins.
///
/// # Errors
/// When it cannot be written.
pub(super) async fn write_first_checkpoint(
    cx: &StatementContext,
    (checkpoints, spiller): (&Arc<Checkpoints>, Option<&Arc<Spiller>>),
    query: &mut Ready,
) -> Result<()> {
    if let Some(spiller) = spiller {
        // It begins at offsets of these logs.
        spiller.note_extents().await?;
    }
    query.find_places().await?;
    let cut = query.first_cut()?;
    let (checkpoints, clock) = (Arc::clone(checkpoints), Arc::clone(&cx.instance.parts.clock));
    let write = move || checkpoints.write(cut, None, &|| clock.now_micros());
    let written = tokio::task::spawn_blocking(write).await;
    written.map_err(|e| Error::internal("writing a checkpoint stopped").with_source(e))?
}

/// Restores the watermark of the log of a view without windows, and its rows behind the watermark. Returns how many archived
/// rows the query will produce again.
fn resume_log(log: &StreamLog, resume: Option<&Resume>) -> u64 {
    let Some(resume) = resume else { return log.state().rows };
    let reached = resume.taps.iter().map(|tap| Watermark::at(tap.hold)).min();
    // The end is recorded in the archive.
    if let Some(watermark) = reached.filter(|w| resume.operators.is_empty() && *w != Watermark::END)
    {
        log.resume_at(watermark);
    }
    for row in &resume.unused {
        if let Unused::Behind(SavedBehind { row, behind }) = row {
            log.note_behind(*row, &[Behind { row: 0, watermark: Watermark::at(*behind) }]);
        }
    }
    log.state().rows.saturating_sub(resume.rows_given.unwrap_or(0))
}

/// The version of the states of Windrow's own aggregates: 2 added the number of overflows to that of `sum`, 3 the
/// number of rows to sessions.
const STATES: u32 = 3;

/// Identifies the plan that a state belongs to: equal plans can resume from it, whatever their text.
fn stamp(plan: &ContinuousPlan) -> Stamp {
    if let Flow::Rows(flow) = &plan.root
        && flow.leaves.iter().all(Leaf::is_stream)
    {
        // A stateless query resumes with any plan of the same statement: now() gives another plan each time.
        return Stamp { plan: "rows".to_owned(), engine: String::new() };
    }
    let engine = format!(
        "windrow {}, datafusion {}, states {STATES}",
        env!("CARGO_PKG_VERSION"),
        datafusion::DATAFUSION_VERSION
    );
    Stamp { plan: plan_text(plan), engine }
}
