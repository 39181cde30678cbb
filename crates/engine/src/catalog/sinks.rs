//! Sinks: what is known of one while it runs, and how it is told what to do.
//!
//! ```text
//! statements, retention, system tables ─ SinkObject ─ instance/sink_pump
//!    PAUSE, RESUME, DROP, WAIT FOR ──── control ───►
//!    windrow.sinks, WAIT FOR ◄────────── state ─────
//! ```

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_core::{Error, ErrorKind, Guarantee, Result};
use windrow_query::shared::Shared;
use windrow_stream::answer::ReadsChanges;
use windrow_stream::log::{Completion, StreamLog};
use windrow_stream::repeated::repeated;
use windrow_stream::spill::Spiller;

use super::Materialized;
use crate::durable::sink_records::{Rejected, SinkRecord};

/// The rows of a view, as far as they cannot change any more.
#[derive(Debug, Clone)]
pub(crate) struct FinalRows {
    pub(crate) log: Arc<StreamLog>,
    query: Arc<Shared>,
    /// Archives them, in a data directory: only then a row keeps its number whatever happens.
    spiller: Option<Arc<Spiller>>,
}

impl FinalRows {
    /// Returns the rows of a view.
    pub(crate) fn of(view: &Materialized) -> Self {
        Self {
            log: Arc::clone(&view.log),
            query: Arc::clone(&view.query),
            spiller: view.spiller.clone(),
        }
    }

    /// Whether they are archived.
    pub(crate) fn are_archived(&self) -> bool {
        self.spiller.is_some()
    }

    /// Returns the number of final rows.
    pub(crate) fn count(&self) -> u64 {
        match &self.spiller {
            None => self.log.settled().rows,
            Some(_) => self.log.since(u64::MAX).0.map_or(0, |archive| archive.next_row()),
        }
    }

    /// Makes the rows final that can be, and returns their number.
    ///
    /// # Errors
    /// When they cannot be archived.
    pub(crate) async fn finish(&self) -> Result<u64> {
        let Some(spiller) = &self.spiller else { return Ok(self.count()) };
        if self.count() < self.log.state().rows {
            let by_checkpoint = self.log.completion().is_some_and(Completion::is_by_checkpoint);
            if by_checkpoint && !self.log.state().ended {
                self.query.checkpoint().await?;
            }
            spiller.spill_until_stopped().await?;
        }
        Ok(self.count())
    }
}

/// What a sink does.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// It takes rows as they come.
    Running,
    /// Its destination fails, since this time in µs; it tries again.
    Retrying(i64),
    /// It has stopped at an error until a person resumes it.
    Stopped(Arc<Error>),
    /// Its view has ended, and all rows are committed.
    Finished,
    /// It is dropped.
    Gone,
}

/// The state of a sink.
#[derive(Debug, Clone)]
pub(crate) struct SinkState {
    pub(crate) phase: Phase,
    /// The row at which it began.
    pub(crate) first: u64,
    /// The sequence that is committed.
    pub(crate) committed: u64,
    /// Attempts that failed since the process began.
    pub(crate) retries: u64,
    /// The last error, even if it is over.
    pub(crate) last_error: Option<String>,
    /// Whether it is stored that it is paused.
    pub(crate) is_paused: bool,
    /// How many of the rows below `committed` the destination has refused.
    pub(crate) rejected: u64,
}

/// What a sink is told to do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Control {
    pub(crate) paused: bool,
    /// It ends once the commit is done that is under way.
    pub(crate) ends: bool,
    /// It ends at once.
    pub(crate) dropped: bool,
    /// Rows below this one are to be committed without waiting for others.
    pub(crate) flush_to: u64,
    /// How often it was resumed.
    pub(crate) resumed: u64,
}

/// A sink.
#[derive(Debug)]
pub(crate) struct SinkObject {
    pub(crate) name: String,
    /// The view that it reads.
    pub(crate) view: String,
    /// Whether the view exists for the sink alone.
    pub(crate) owns_view: bool,
    pub(crate) connector: String,
    pub(crate) guarantee: Guarantee,
    pub(crate) rows: FinalRows,
    /// The rows that the destination has refused.
    rejected: Mutex<Rejected>,
    state: Mutex<SinkState>,
    changed: watch::Sender<()>,
    control: watch::Sender<Control>,
}

impl ReadsChanges for SinkObject {
    fn has_read(&self) -> u64 {
        self.state.lock().committed
    }
}

impl SinkObject {
    /// Returns a sink that runs.
    pub(crate) fn new(
        (name, connector): (&str, &str),
        (view, owns_view): (&Materialized, bool),
        guarantee: Guarantee,
        (record, rejected): (SinkRecord, Rejected),
    ) -> Arc<Self> {
        let SinkRecord { first, committed, paused, .. } = record;
        let state = SinkState {
            phase: Phase::Running,
            first,
            committed,
            retries: 0,
            last_error: None,
            is_paused: paused,
            rejected: rejected.below(committed),
        };
        Arc::new(Self {
            name: name.to_owned(),
            view: view.name.clone(),
            owns_view,
            connector: connector.to_owned(),
            guarantee,
            rows: FinalRows::of(view),
            rejected: Mutex::new(rejected),
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            control: watch::Sender::new(Control { paused, ..Control::default() }),
        })
    }

    /// Returns its state.
    pub(crate) fn state(&self) -> SinkState {
        self.state.lock().clone()
    }

    /// Returns the rows that the destination has refused.
    pub(crate) fn rejected(&self) -> Rejected {
        self.rejected.lock().clone()
    }

    /// Replaces the rows that the destination has refused.
    pub(crate) fn set_rejected(&self, rejected: Rejected) {
        *self.rejected.lock() = rejected;
    }

    /// Returns the last refused row if the sequence `committed` has not moved past it.
    pub(crate) fn open_rejection(&self, committed: u64) -> Option<u64> {
        self.rejected.lock().open(committed)
    }

    /// How many of the rows below `committed` the destination has refused.
    pub(crate) fn rejected_below(&self, committed: u64) -> u64 {
        self.rejected.lock().below(committed)
    }

    /// Changes its state.
    pub(crate) fn set(&self, change: impl FnOnce(&mut SinkState)) {
        change(&mut self.state.lock());
        self.changed.send_replace(());
    }

    /// Returns what it is told to do.
    pub(crate) fn control(&self) -> watch::Receiver<Control> {
        self.control.subscribe()
    }

    /// Tells it what to do.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Control)) {
        self.control.send_modify(change);
    }

    /// The name of its state.
    pub(crate) fn status(&self) -> &'static str {
        let paused = self.control.borrow().paused;
        match self.state.lock().phase {
            Phase::Stopped(_) => "stopped",
            Phase::Finished | Phase::Gone => "finished",
            Phase::Running | Phase::Retrying(_) if paused => "paused",
            Phase::Retrying(_) => "retrying",
            Phase::Running => "running",
        }
    }

    /// The rows of the view that are not committed.
    pub(crate) fn lag(&self) -> u64 {
        self.rows.log.state().rows.saturating_sub(self.state.lock().committed)
    }

    /// Pauses or resumes it, and waits until that is stored: no row is sent after it is paused.
    ///
    /// # Errors
    /// When it has stopped, and is to be paused.
    pub(crate) async fn pause(&self, paused: bool) -> Result<()> {
        let mut changed = self.changed.subscribe();
        if paused && let Phase::Stopped(error) = self.state().phase {
            return Err(repeated(&error));
        }
        self.tell(|control| {
            control.paused = paused;
            control.resumed += u64::from(!paused);
        });
        self.set(|state| {
            if matches!(state.phase, Phase::Stopped(_)) {
                state.phase = Phase::Running;
            }
        });
        loop {
            let state = self.state();
            let is_over = matches!(state.phase, Phase::Gone | Phase::Finished | Phase::Stopped(_));
            // Whoever pauses a sink whose last request is under way waits for its end.
            // The sender lives in self.
            if state.is_paused == paused || is_over || changed.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Waits until it has ended.
    pub(crate) async fn gone(&self) {
        let mut changed = self.changed.subscribe();
        while !matches!(self.state().phase, Phase::Gone | Phase::Finished) {
            // The sender lives in self.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until all rows below `to` are committed. `fails` says whether a destination that has failed since a time, in µs, is
    /// waited for no longer.
    ///
    /// # Errors
    /// When it is paused, has stopped or fails for too long, or is dropped.
    pub(crate) async fn committed(&self, to: u64, fails: impl Fn(i64) -> bool) -> Result<()> {
        let (mut changed, mut control) = (self.changed.subscribe(), self.control());
        self.tell(|control| control.flush_to = control.flush_to.max(to));
        loop {
            let (state, paused) = (self.state(), control.borrow_and_update().paused);
            if state.committed >= to {
                return Ok(());
            }
            let name = &self.name;
            match state.phase {
                Phase::Stopped(error) => return Err(repeated(&error)),
                Phase::Gone => {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!("sink \"{name}\" was dropped"),
                    ));
                }
                Phase::Retrying(since) if fails(since) => {
                    let why = state.last_error.unwrap_or_default();
                    let message = format!("sink \"{name}\" waits for its destination: {why}");
                    return Err(Error::new(ErrorKind::Unavailable, message)
                        .with_hint("It continues by itself once the destination does."));
                }
                _ if paused => {
                    return Err(Error::sql(format!("sink \"{name}\" is paused"))
                        .with_hint(format!("RESUME SINK {name} continues it.")));
                }
                Phase::Running | Phase::Retrying(_) | Phase::Finished => {}
            }
            tokio::select! {
                moved = changed.changed() => if moved.is_err() { return Ok(()) },
                told = control.changed() => if told.is_err() { return Ok(()) },
            }
        }
    }
}
