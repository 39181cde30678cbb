//! Makes the checkpoints of one query, in the background.
//!
//! ```text
//! coordinator ─cut─► checkpointer ─► extents of logs ─► archive closed windows ─► segments ─► manifest ─► waiters
//!   (no windows)     checkpointer ─► extents of logs ─► segments ─► manifest ─► archive returned rows ─► waiters
//! ```
//! The current rows of a view with an updating result are a part of its checkpoints, like the state of an operator.
//!
//! Invariants: one checkpoint of a query at a time. Closed windows are archived before the manifest is written, so
//! every window is in the state or in the archive. The archive of a view without windows always ends where a checkpoint
//! does: rows are archived once there is a checkpoint with exactly these, and the next checkpoint is made after that.
//! So there is always a checkpoint from which the next row follows.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windrow_core::{Clock, Error, OffsetRange, Result, Watermark};
use windrow_storage::checkpoint::{
    Checkpoints, Counts, CutTime, QueryCut, SavedBad, SavedBehind, Unused,
};
use windrow_stream::caught::unwound;
use windrow_stream::kept::{BadRows, LateRows};
use windrow_stream::log::LogEnd;
use windrow_stream::repeated::repeated;
use windrow_stream::spill::Spiller;

use crate::idle::{Holds, QueryOutlook, close_up_to, hold_for_cut};
use crate::output::Output;
use crate::root::Root;
use crate::shared::Shared;
use crate::tap_state::{TapState, cut_taps};

/// Makes the checkpoints of one query.
#[derive(Debug)]
pub struct Checkpointer {
    /// The store of the checkpoints.
    pub(crate) checkpoints: Arc<Checkpoints>,
    /// Archives the rows of the query's view.
    pub(crate) spiller: Arc<Spiller>,
    /// The store of the query's late rows.
    pub(crate) late_rows: Arc<LateRows>,
    /// The store of its bad rows.
    pub(crate) bad_rows: Arc<BadRows>,
    /// The number of bad rows offered before the last cut.
    bad_rows_seen: u64,
    /// Rows of the view before this offset were examined by the last cut.
    rows_seen: u64,
    /// The clock for the times of checkpoints.
    pub(crate) clock: Arc<dyn Clock>,
    /// Whether a checkpoint is being written.
    busy: Arc<AtomicBool>,
    /// The state at the last cut, to detect that nothing has changed since.
    last: Option<Seen>,
    /// Whether the last checkpoint could not be written.
    failed: Arc<AtomicBool>,
}

/// The progress of a query at a cut: micro-batches processed, splits begun, watermark, and the end of the returned
/// rows.
type Seen = (u64, usize, Watermark, Option<LogEnd>);

impl Checkpointer {
    /// Returns a checkpointer that has made no cut yet.
    pub fn new(
        checkpoints: Arc<Checkpoints>,
        spiller: Arc<Spiller>,
        (late_rows, bad_rows): (Arc<LateRows>, Arc<BadRows>),
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            checkpoints,
            spiller,
            late_rows,
            bad_rows,
            bad_rows_seen: 0,
            rows_seen: 0,
            clock,
            busy: Arc::default(),
            last: None,
            failed: Arc::default(),
        }
    }

    /// Records that the newest checkpoint covers the first `rows` rows of the view.
    pub fn has_rows(&mut self, rows: u64) {
        self.rows_seen = rows;
    }

    /// Records the progress at the newest checkpoint: the number of micro-batches, the leaves, and the watermark.
    pub(crate) fn has(&mut self, batches: u64, taps: &[Arc<TapState>], watermark: Watermark) {
        self.last = Some((batches, begun(taps), watermark, None));
    }

    /// Makes the requested checkpoint, unless one is being written: the coordinator is then woken when that is done.
    ///
    /// # Errors
    /// When the state cannot be cut. A failed write is reported to those that requested the checkpoint, and the query
    /// continues.
    pub(crate) async fn serve(
        &mut self,
        shared: &Arc<Shared>,
        root: &mut Root,
        (taps, output): (&[Arc<TapState>], &Output),
        watermark: Watermark,
    ) -> Result<()> {
        let Some(ticket) = shared.checkpoint_wanted() else { return Ok(()) };
        if self.busy.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let batches = shared.state.lock().batches;
        let failed = self.failed.swap(false, Ordering::AcqRel);
        let seen = (batches, begun(taps), watermark, output.given());
        let nothing_new = self.last == Some(seen) && self.new_bad(shared.id, taps).0.is_empty();
        let moves = taps.iter().any(|tap| tap.is_still())
            || QueryOutlook::of_idle(taps, self.clock.now_micros())
                .is_some_and(|o| o.is_ahead(taps));
        if nothing_new && !failed && !moves {
            self.busy.store(false, Ordering::Release);
            shared.checkpoint_done(ticket, None);
            return Ok(());
        }
        let (cut, given, holds) = self.cut(shared, root, (taps, output)).await?;
        self.last = Some((seen.0, seen.1, watermark, given));
        let (shared, busy) = (Arc::clone(shared), Arc::clone(&self.busy));
        let (spiller, checkpoints) = (Arc::clone(&self.spiller), Arc::clone(&self.checkpoints));
        let (clock, failed) = (Arc::clone(&self.clock), Arc::clone(&self.failed));
        tokio::spawn(async move {
            let what = || format!("the checkpoint of query \"{}\"", shared.name);
            let work = write(&spiller, checkpoints, (cut, given), clock);
            let written = match unwound(what, work).await {
                Ok(written) => written,
                Err(panic) => {
                    // Segments of this cut may be in no checkpoint, so the query cannot make another one.
                    let panic = Arc::new(panic);
                    shared.fail(Arc::clone(&panic));
                    Err(repeated(&panic))
                }
            };
            let error = written.err().map(|error| {
                tracing::warn!(query = shared.name, %error, "cannot write a checkpoint");
                Arc::new(error)
            });
            if error.is_none() {
                close_up_to(&holds);
            }
            failed.store(error.is_some(), Ordering::Release);
            busy.store(false, Ordering::Release);
            shared.checkpoint_done(ticket, error);
            shared.wake();
        });
        Ok(())
    }

    /// Returns the bad rows of the query's streams that no cut has returned, and the number of bad rows offered so far.
    fn new_bad(&self, query_id: u64, taps: &[Arc<TapState>]) -> (Vec<SavedBad>, u64) {
        let streams: Vec<_> = taps.iter().map(|tap| tap.stream.as_str()).collect();
        self.bad_rows.after(self.bad_rows_seen, &streams, query_id)
    }

    /// Makes a cut between two micro-batches; returns it with the end of the view's log at that moment, and the holds
    /// that apply from now on. Workers are stopped only while the state is moved out, not while segments are made of it.
    async fn cut(
        &mut self,
        shared: &Shared,
        root: &mut Root,
        (taps, output): (&[Arc<TapState>], &Output),
    ) -> Result<(QueryCut, Option<LogEnd>, Holds)> {
        let taken_micros = self.clock.now_micros();
        let nobody_inside = shared.gate.write().await;
        let holds = hold_for_cut(taps, self.clock.now_micros());
        let parts = root.take_parts();
        let state = shared.state.lock().clone();
        let counts = Counts {
            rows: shared.ledger.total(),
            partly_late: shared.ledger.partly_late(),
            skipped: shared.ledger.skipped(),
            windows_closed: state.windows_closed,
            batches: state.batches,
        };
        if !counts.rows.is_balanced() {
            return Err(Error::internal(format!(
                "rows of query \"{}\" are unaccounted for: {:?}",
                shared.name, counts.rows
            )));
        }
        let late = self.late_rows.take_unsaved(shared.id);
        let mut unused: Vec<_> = late.into_iter().map(|l| Unused::Late(l.into())).collect();
        let (bad, seen) = self.new_bad(shared.id, taps);
        self.bad_rows_seen = seen;
        unused.extend(bad.into_iter().map(Unused::Bad));
        let given = output.given();
        if let Some(LogEnd { rows, .. }) = given {
            let new = OffsetRange::try_new(self.rows_seen, rows)?;
            let behind = self.spiller.log().behind(new);
            unused.extend(behind.iter().map(|b| {
                let row = new.start() + b.row as u64;
                Unused::Behind(SavedBehind { row, behind: b.watermark.ticks() })
            }));
            self.rows_seen = rows;
        }
        let rows_given = given.map(|given| given.rows);
        let taps = cut_taps(taps);
        drop(nobody_inside);
        let paused_micros = self.clock.now_micros().saturating_sub(taken_micros);
        let mut operators = root.cut(parts)?;
        operators.extend(output.cut()?);
        let at = CutTime { taken_micros, paused_micros };
        let cut = QueryCut { at, operators, taps, counts, unused, rows_given };
        Ok((cut, given, holds))
    }
}

/// The number of splits of these leaves that have been begun.
fn begun(taps: &[Arc<TapState>]) -> usize {
    taps.iter().map(|tap| tap.positions.lock().count()).sum()
}

/// Archives, writes segments and manifest, and archives again where rows need a checkpoint first.
async fn write(
    spiller: &Spiller,
    checkpoints: Arc<Checkpoints>,
    (cut, given): (QueryCut, Option<LogEnd>),
    clock: Arc<dyn Clock>,
) -> Result<()> {
    // Even when archiving fails, the segments of the cut must not be lost: operators return them only once.
    let archived = match spiller.note_extents().await {
        Ok(()) => spiller.spill().await,
        Err(error) => Err(error),
    };
    let work = tokio::task::spawn_blocking(move || match archived {
        Ok(archived) => {
            let windows = archived.windows();
            checkpoints.write(cut, windows, &|| clock.now_micros())
        }
        Err(error) => {
            checkpoints.owe(cut);
            Err(error)
        }
    });
    let written = work.await.unwrap_or_else(|end| match end.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(end) => Err(Error::internal("writing a checkpoint was cancelled").with_source(end)),
    });
    if let Some(given) = given {
        spiller.waits(written.as_ref().err());
        written?;
        spiller.log().checkpointed(given);
        spiller.spill_until_stopped().await.map(|_| ())
    } else {
        written
    }
}
