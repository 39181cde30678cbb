//! What the data directory keeps of a materialized view, and the state from which its query resumes.
//!
//! ```text
//! archive (windows up to F) ─┐
//! newest whole checkpoint ───┼─► query goes on; windows up to F are given to nobody
//! logs of its streams ───────┘
//! ```
//! A view without windows has a number of rows instead of F, and the checkpoint is the one of just these. Where the rows come
//! in one order an older one does, or none: as many rows as the archive has more are given to nobody.
//!
//! Invariants: a view that has checkpoints has one before its statement is acknowledged, so where it began to
//! read is durable; without a checkpoint a query is only run again where its streams still hold
//! all that its open windows need.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use windrow_core::{Behind, Error, ErrorKind, Result, Watermark};
use windrow_query::checkpointer::Checkpointer;
use windrow_query::start::Ready;
use windrow_sql::plan::{ContinuousPlan, Flow, Leaf, LeafSource};
use windrow_storage::checkpoint::{Checkpoints, Newest, Stamp};
use windrow_storage::checkpoint::{Resume, SavedBehind, Unused};
use windrow_storage::wal::Wal;
use windrow_stream::Feed;
use windrow_stream::log::{Completion, StreamLog};
use windrow_stream::spill::Spiller;

use crate::catalog::Object;
use crate::durable::definitions::Definition;
use crate::session::Session;

/// What is kept of a view, and the state from which its query resumes.
pub(super) struct KeptView {
    pub(super) log: Arc<StreamLog>,
    /// Windows up to here are in the archive.
    pub(super) archived: Watermark,
    pub(super) spiller: Option<Arc<Spiller>>,
    pub(super) checkpoints: Option<Arc<Checkpoints>>,
    pub(super) resume: Option<Resume>,
    /// So many rows that its query will give are in the archive.
    pub(super) archived_rows: u64,
}

/// What a view is, as far as it matters to what is kept of it.
#[derive(Debug)]
pub(super) struct ViewParts<'a> {
    pub(super) name: &'a str,
    /// What the engine knows its archive by.
    pub(super) key: &'a str,
    pub(super) reads: &'a [String],
    pub(super) plan: &'a ContinuousPlan,
    /// It gives its late rows to a stream.
    pub(super) has_late_to: bool,
    /// It does not begin at the beginning of its streams.
    pub(super) starts_late: bool,
    /// The lengths of all its windows together, in ticks.
    pub(super) reach_ticks: i64,
}

impl KeptView {
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

    /// Where its query began to read the logs of its streams, if not at their beginning.
    pub(super) fn began(&self, given: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let Some(resume) = &self.resume else { return given };
        let began =
            |tap: &windrow_storage::checkpoint::TapCut| Some((tap.stream.clone(), tap.began?));
        resume.taps.iter().filter_map(began).collect()
    }
}

impl Session {
    /// Whether the rows of a query can be kept.
    fn keeps(&self, plan: &ContinuousPlan, reads: &[String], has_late_to: bool) -> bool {
        match plan.root {
            // Without history the windows behind the frontier would swallow what comes anew.
            Flow::Windows(_) => self.are_replayable(reads),
            // What has no windows has no frontier: only checkpoints tell what the archive has.
            Flow::Rows(_) => self.resumes(reads, has_late_to),
        }
    }

    fn are_replayable(&self, reads: &[String]) -> bool {
        reads.iter().all(|name| self.engine.catalog.is_replayable(name))
    }

    /// Whether a query can go on from a checkpoint.
    pub(super) fn resumes(&self, reads: &[String], has_late_to: bool) -> bool {
        // A stream of late rows is only in memory: it is filled again by reading all again. A view
        // that is recomputed may have its rows in another order.
        let steady = |name: &String| match self.engine.catalog.get(name) {
            Some(Object::Materialized(read)) => read.spiller.is_some(),
            Some(Object::Stream(_) | Object::View) | None => true,
        };
        self.are_replayable(reads) && !has_late_to && reads.iter().all(steady)
    }

    /// When the rows of a view are complete.
    fn completion(&self, plan: &ContinuousPlan) -> Result<Completion> {
        let Flow::Rows(flow) = &plan.root else { return Ok(Completion::Watermark) };
        // Splits of a connector are read side by side, and so are two inputs.
        let reads_a_log = match flow.leaves.as_slice() {
            [Leaf { from: LeafSource::Stream { relation, .. }, .. }] => {
                let stream = self.engine.catalog.stream_to_read(relation.name());
                stream.is_ok_and(|stream| !matches!(stream.feed, Feed::Source(_)))
            }
            _ => false,
        };
        Ok(Completion::Checkpoint { in_order: reads_a_log && flow.is_repeatable()? })
    }

    /// Opens what is kept of a view; nothing in memory, and where it cannot be kept.
    ///
    /// # Errors
    /// When it is damaged, or its query can neither go on nor be run again.
    pub(super) async fn kept_view(
        &self,
        view: &ViewParts<'_>,
        definition: Option<Definition>,
    ) -> Result<KeptView> {
        let ViewParts { name, key, reads, plan, .. } = *view;
        let keeps = self.keeps(plan, reads, view.has_late_to);
        let resumes = self.resumes(reads, view.has_late_to);
        if self.engine.store.is_some() && view.starts_late && !resumes {
            return Err(Error::config(format!(
                "start = 'latest' does not fit \"{name}\": where it begins would not be known \
                 after a restart"
            ))
            .with_hint(
                "It fits views over durable streams and views, without LATE DATA TO; or use \
                 start = TIMESTAMP '…'.",
            ));
        }
        let (Some(store), Some(definition)) = (&self.engine.store, definition.filter(|_| keeps))
        else {
            let limits = &self.engine.parts.limits;
            let memory = self.engine.parts.memory.as_ref();
            let log = StreamLog::in_memory(Arc::clone(&plan.schema), name, limits, memory);
            return Ok(KeptView::in_memory(log));
        };
        let time = plan.event_times.first().map(|e| e.column);
        let completion = self.completion(plan)?;
        let kept = store.open_view(&definition, &plan.schema, time, completion).await?;
        let archived = kept.log.frontier().watermark();
        let spiller = kept.view_spiller(self.logs_of(reads));
        self.engine.keep(key, Arc::clone(&spiller));
        let mut kept =
            KeptView { archived, spiller: Some(spiller), ..KeptView::in_memory(kept.log) };
        if !resumes {
            return Ok(kept);
        }
        let checkpoints = store.open_checkpoints(&definition, stamp(plan))?;
        let checkpoints = Arc::new(checkpoints);
        kept.checkpoints = Some(Arc::clone(&checkpoints));
        let by_rows = completion.is_by_checkpoint();
        let has_ended = archived == Watermark::END;
        if self.restoring.is_none() || (has_ended && !by_rows) {
            return Ok(kept);
        }
        let newest = self.newest(checkpoints, (archived, &kept.log)).await?;
        if by_rows {
            kept.archived_rows = rows_again(&kept.log, newest.resume.as_ref());
        }
        if !has_ended {
            let stays = self.restoring.as_ref().is_some_and(|definition| {
                let failure = store.failure(definition.id);
                failure.is_some_and(|failure| failure.again)
            });
            if !stays && self.engine.catalog.check_reads(reads).is_ok() {
                self.engine.tell(name, &newest);
            }
            if newest.resume.is_none() {
                self.can_be_run_again(view, (archived, &kept.log))?;
            }
            kept.resume = newest.resume;
        }
        Ok(kept)
    }

    /// The write-ahead logs that the rows of streams and views come from.
    fn logs_of(&self, reads: &[String]) -> Vec<Arc<Wal>> {
        let mut logs: Vec<Arc<Wal>> = vec![];
        for name in reads {
            let of = match self.engine.catalog.get(name) {
                Some(Object::Materialized(view)) => match &view.spiller {
                    Some(spiller) => spiller.sources().to_vec(),
                    None => self.logs_of(&view.reads),
                },
                Some(Object::Stream(stream)) => match &stream.feed {
                    Feed::Push(push) => push.wal.iter().cloned().collect(),
                    Feed::Source(_) | Feed::View(_) => vec![],
                },
                Some(Object::View) | None => vec![],
            };
            for log in of {
                if !logs.iter().any(|known| Arc::ptr_eq(known, &log)) {
                    logs.push(log);
                }
            }
        }
        logs
    }

    /// The newest checkpoint that goes with the archive and the logs of the streams.
    async fn newest(
        &self,
        checkpoints: Arc<Checkpoints>,
        (archived, log): (Watermark, &StreamLog),
    ) -> Result<Newest> {
        let catalog = Arc::clone(&self.engine.catalog);
        let (rows, completion) = (log.state().rows, log.completion());
        let look = move || {
            // The archive takes in the rows of a checkpoint before the next one is made.
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
                            return Err(format!(
                                "it is of {given} rows, and the archive has {rows}"
                            ));
                        }
                    }
                }
                for tap in &resume.taps {
                    if let Some(Object::Stream(stream)) = catalog.get(&tap.stream)
                        && let Feed::Push(push) = &stream.feed
                        && push.log.state().rows < tap.positions.of_log()
                    {
                        let stream = &tap.stream;
                        return Err(format!("stream \"{stream}\" has lost rows that are in it"));
                    }
                }
                Ok(())
            })?;
            if ahead.get() > 1 && completion.is_some_and(Completion::is_unordered) {
                // Whoever follows it may have been given the others, which would come in another order.
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "its archive has lost rows: it has {rows}, and its checkpoints are of more"
                    ),
                )
                .with_hint("Restore it from a backup; nothing has been overwritten."));
            }
            Ok(newest)
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked.map_err(|e| Error::internal("reading checkpoints stopped").with_source(e))?
    }

    /// Without a checkpoint: whether the streams hold what the windows after `archived` need, or all
    /// rows where there are no windows.
    fn can_be_run_again(
        &self,
        view: &ViewParts<'_>,
        (archived, log): (Watermark, &StreamLog),
    ) -> Result<()> {
        let refused = |why: String| {
            let name = view.name;
            Error::new(ErrorKind::Corrupt, format!("no checkpoint can be used, and {why}"))
                .with_hint(format!("DROP MATERIALIZED VIEW {name} and create it again."))
        };
        if view.starts_late {
            return Err(refused("where it began to read is known from them alone".to_owned()));
        }
        if log.is_unordered() && log.state().rows > 0 {
            let why = "its rows may come in another order than they are archived in";
            return Err(refused(why.to_owned()));
        }
        let needed = archived.delayed(view.reach_ticks);
        for name in view.reads {
            let stream = self.engine.catalog.stream_to_read(name)?;
            if let Feed::Push(push) = &stream.feed
                && push.log.has_gaps()
            {
                return Err(refused(format!("\"{name}\" has lost rows that are in it")));
            }
            // A query reads a connector itself, not what is kept of its rows.
            let Some(retention) = stream.retention.as_ref().filter(|_| stream.history.is_none())
            else {
                continue;
            };
            if retention.release_before()?.is_some_and(|dropped| dropped > needed.ticks()) {
                return Err(refused(format!("\"{name}\" has dropped rows that its windows need")));
            }
        }
        Ok(())
    }

    /// Returns what makes the checkpoints of a query.
    pub(super) fn checkpointer(&self, kept: &KeptView) -> Option<Checkpointer> {
        let parts = &self.engine.parts;
        kept.checkpoints.as_ref().zip(kept.spiller.as_ref()).map(|(checkpoints, spiller)| {
            let mut checkpointer = Checkpointer::new(
                Arc::clone(checkpoints),
                Arc::clone(spiller),
                (Arc::clone(&parts.late_rows), Arc::clone(&parts.bad_rows)),
                Arc::clone(&parts.clock),
            );
            let resume = kept.resume.as_ref();
            checkpointer.has_rows(resume.and_then(|resume| resume.rows_given).unwrap_or(0));
            checkpointer
        })
    }

    /// The first checkpoint of a new view: where it begins.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) async fn first_checkpoint(
        &self,
        (checkpoints, spiller): (&Arc<Checkpoints>, Option<&Arc<Spiller>>),
        query: &mut Ready,
    ) -> Result<()> {
        if let Some(spiller) = spiller {
            // Where it begins is in the logs.
            spiller.note_extents().await?;
        }
        query.find_places().await?;
        let cut = query.first_cut()?;
        let (checkpoints, clock) = (Arc::clone(checkpoints), Arc::clone(&self.engine.parts.clock));
        let taken_micros = clock.now_micros();
        let write = move || checkpoints.write(cut, (taken_micros, None), &|| clock.now_micros());
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|e| Error::internal("writing a checkpoint stopped").with_source(e))?
    }
}

/// The log of a view without windows goes on: it knows again its watermark and what came behind. Returns how
/// many archived rows the query will give once more.
fn rows_again(log: &StreamLog, resume: Option<&Resume>) -> u64 {
    let Some(resume) = resume else { return log.state().rows };
    let reached = resume.taps.iter().map(|tap| Watermark::at(tap.hold)).min();
    // Whether it has ended, its archive says.
    if let Some(watermark) = reached.filter(|w| resume.inputs.is_empty() && *w != Watermark::END) {
        log.resume_at(watermark);
    }
    for row in &resume.unused {
        if let Unused::Behind(SavedBehind { row, behind }) = row {
            log.note_behind(*row, &[Behind { row: 0, watermark: Watermark::at(*behind) }]);
        }
    }
    log.state().rows.saturating_sub(resume.rows_given.unwrap_or(0))
}

/// Counts what aggregates of Windrow's own keep in their states: 2 has the turns of a sum.
const STATES: u32 = 2;

/// By what a state can be gone on from: an equal plan, whatever its text.
pub(super) fn stamp(plan: &ContinuousPlan) -> Stamp {
    if let Flow::Rows(flow) = &plan.root
        && flow.leaves.iter().all(Leaf::is_stream)
    {
        // Without state it goes on with any plan of the same statement; now() is another one each time.
        return Stamp { plan: "rows".to_owned(), engine: String::new() };
    }
    let engine = format!(
        "windrow {}, datafusion {}, states {STATES}",
        env!("CARGO_PKG_VERSION"),
        datafusion::DATAFUSION_VERSION
    );
    Stamp { plan: plan_text(plan), engine }
}

/// The plan as text: equal plans give equal rows.
pub(super) fn plan_text(plan: &ContinuousPlan) -> String {
    format!("{plan}lateness: {} ns", plan.lateness_nanos)
}
