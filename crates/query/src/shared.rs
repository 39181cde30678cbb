//! The state that all tasks of one continuous query share: its counters, its back-pressure, its status.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use datafusion::logical_expr::TableScan;
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, Semaphore, watch};
use windrow_core::{Clock, Error, ErrorKind, Result, Watermark};
use windrow_storage::checkpoint::Counts;
use windrow_stream::log::StreamLog;
use windrow_stream::memory::{Memory, OperatorMemory};
use windrow_stream::repeated::{repeated, with_message};
use windrow_stream::spill::Fails;

use crate::latency::Latency;
use crate::ledger::Ledger;
use crate::survey::{Asked, OperatorSize, OperatorSurvey};
use crate::tap_state::TapState;
use crate::versions::Versions;

/// The shared state of one query.
#[derive(Debug)]
pub struct Shared {
    /// Its id, as in `windrow.queries`.
    pub id: u64,
    /// Its name: that of the view, or a generated one.
    pub name: String,
    /// The account of its rows.
    pub ledger: Ledger,
    /// The durations of its micro-batches.
    pub latency: Latency,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
    /// Its progress.
    pub state: Mutex<QueryState>,
    /// Wakes the coordinator: a micro-batch has reached the state.
    wake: Notify,
    /// The number of micro-batches that the coordinator has not seen yet.
    pending: AtomicUsize,
    /// Bounds `pending`: a slow coordinator (or client) slows the sources.
    permits: Semaphore,
    stop: watch::Sender<bool>,
    status: watch::Sender<Status>,
    /// The number of passes of the coordinator.
    passes: watch::Sender<u64>,
    /// Requests for what it keeps.
    pub(crate) asked: Asked,
    /// The memory limit, if there is one.
    pub(crate) memory: Option<Arc<Memory>>,
    /// Bytes of state spilled to disk so far.
    pub spilled_bytes: Arc<AtomicU64>,
    /// The positions of its leaves in their streams.
    taps: Mutex<Vec<Arc<TapState>>>,
    /// Workers hold it shared while they are inside a micro-batch; a cut of the state holds it exclusively.
    pub(crate) gate: RwLock<()>,
    /// The number of checkpoints requested.
    checkpoints_wanted: AtomicU64,
    checkpoints_done: watch::Sender<Checkpointed>,
    /// The log of a view, whose readers are informed of its failure.
    log: OnceLock<Weak<StreamLog>>,
    /// Whether it has failed on its rows, so that it would fail again if it were restarted.
    fails_again: AtomicBool,
    /// Whether it failed before the engine was opened.
    failed_before: AtomicBool,
    /// See [`ask_emission`](Self::ask_emission).
    emission_asked: AtomicBool,
    /// The reference tables that it has read, with the digests of their rows.
    pub tables: Mutex<Vec<(TableScan, u64)>>,
    /// The versions of the refreshed reference tables that it reads, if it reads some.
    pub versions: OnceLock<Versions>,
}

/// The outcome of requested checkpoints.
#[derive(Debug, Clone, Default)]
struct Checkpointed {
    /// The number of requests that are done.
    done: u64,
    /// The error of the last one, if it failed.
    error: Option<Arc<Error>>,
}

/// The progress of a query, for `windrow.queries`.
#[derive(Debug, Clone)]
pub struct QueryState {
    /// The watermark: returned rows are complete up to it.
    pub watermark: Watermark,
    /// Windows closed so far.
    pub windows_closed: u64,
    /// Windows that have rows and are not closed, as far as the coordinator knows.
    pub windows_open: usize,
    /// Micro-batches done.
    pub batches: u64,
    /// Bytes of state in memory.
    pub state_bytes: usize,
    /// What each of its operators keeps.
    pub operators: Vec<OperatorSize>,
}

impl Default for QueryState {
    fn default() -> Self {
        Self {
            watermark: Watermark::NONE,
            windows_closed: 0,
            windows_open: 0,
            batches: 0,
            state_bytes: 0,
            operators: vec![],
        }
    }
}

/// The status of a query.
#[derive(Debug, Clone)]
pub enum Status {
    /// It processes rows, or waits for some.
    Running,
    /// All inputs have ended and all windows have been returned.
    Finished,
    /// It failed with this error.
    Failed(Arc<Error>),
    /// It was stopped.
    Cancelled,
}

impl Status {
    /// Its name in `windrow.queries`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Shared {
    /// Returns a query that has not begun; at most `batches_max` micro-batches wait for its coordinator.
    pub fn new(
        id: u64,
        name: String,
        batches_max: usize,
        memory: Option<Arc<Memory>>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            name,
            ledger: Ledger::default(),
            latency: Latency::default(),
            clock,
            state: Mutex::default(),
            wake: Notify::new(),
            pending: AtomicUsize::new(0),
            permits: Semaphore::new(batches_max),
            stop: watch::Sender::new(false),
            status: watch::Sender::new(Status::Running),
            passes: watch::Sender::new(0),
            asked: Asked::default(),
            memory,
            spilled_bytes: Arc::default(),
            gate: RwLock::new(()),
            checkpoints_wanted: AtomicU64::new(0),
            checkpoints_done: watch::Sender::new(Checkpointed::default()),
            log: OnceLock::new(),
            fails_again: AtomicBool::new(false),
            failed_before: AtomicBool::new(false),
            taps: Mutex::default(),
            emission_asked: AtomicBool::new(false),
            tables: Mutex::default(),
            versions: OnceLock::new(),
        })
    }

    /// Sets the log of the view whose query this is.
    pub fn fills(&self, log: &Arc<StreamLog>) {
        self.log.get_or_init(|| Arc::downgrade(log));
    }

    /// Returns the share of memory of one of its stateful operators; `None` without a limit.
    pub(crate) fn operator_memory(&self) -> Option<Arc<OperatorMemory>> {
        self.memory.as_ref().map(|memory| memory.operator(&self.name, &self.spilled_bytes))
    }

    /// Waits until the coordinator has room for more micro-batches: `batches`, all at once, and at most as many as there are
    /// inputs.
    pub(crate) async fn wait_for_room(&self, batches: usize) -> Result<()> {
        let batches = u32::try_from(batches).unwrap_or(u32::MAX);
        let permit = self.permits.acquire_many(batches).await;
        let permit = permit.map_err(|closed| cancelled().with_source(closed))?;
        permit.forget();
        Ok(())
    }

    /// Records that a micro-batch has reached the state, and wakes the coordinator.
    pub(crate) fn batch_done(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// Wakes the coordinator without a micro-batch.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Completes when the coordinator is woken.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Waits until the coordinator is woken; returns the number of micro-batches since the last call.
    pub(crate) async fn wait_for_batches(&self) -> usize {
        self.woken().await;
        self.pending.swap(0, Ordering::AcqRel)
    }

    /// Whether no micro-batch is on its way to the coordinator. (One that is will wake it.)
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0 && self.gate.try_write().is_ok()
    }

    /// Admits `batches` further micro-batches, after the coordinator has processed as many.
    pub(crate) fn give_room(&self, batches: usize) {
        self.permits.add_permits(batches);
    }

    /// Wakes the coordinator, and makes an updating result emit the changes of all rows processed so far, even if its last
    /// emission was a moment ago.
    pub fn ask_emission(&self) {
        self.emission_asked.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether an emission has been asked for since the last call.
    pub(crate) fn take_asked_emission(&self) -> bool {
        self.emission_asked.swap(false, Ordering::AcqRel)
    }

    /// Records that the coordinator has completed a pass.
    pub(crate) fn passed(&self) {
        self.passes.send_modify(|n| *n += 1);
    }

    /// Returns a receiver that is notified after each pass of the coordinator.
    pub fn watch_passes(&self) -> watch::Receiver<u64> {
        self.passes.subscribe()
    }

    /// Adds a leaf whose scan is known.
    pub(crate) fn add_tap(&self, tap: Arc<TapState>) {
        let mut taps = self.taps.lock();
        if !taps.is_empty() {
            // A micro-batch of all of them must have room at once.
            self.permits.add_permits(1);
        }
        taps.push(tap);
    }

    /// The positions of its leaves in their streams.
    pub fn taps(&self) -> Vec<Arc<TapState>> {
        self.taps.lock().clone()
    }

    /// The position of a leaf that reads this stream.
    pub fn tap_of(&self, stream: &str) -> Option<Arc<TapState>> {
        self.taps.lock().iter().find(|tap| tap.stream == stream).map(Arc::clone)
    }

    /// Whether the query scans a stream.
    pub fn reads(&self, stream: &str) -> bool {
        self.tap_of(stream).is_some()
    }

    /// How far the query has read the log of a stream or view: one past the last offset.
    pub fn consumed(&self, stream: &str) -> u64 {
        self.tap_of(stream).map_or(0, |tap| tap.consumed())
    }

    /// Continues from the counts before a restart.
    pub fn restore(&self, counts: &Counts) {
        self.ledger.restore(counts.rows, counts.partly_late, counts.skipped);
        let mut state = self.state.lock();
        state.windows_closed = counts.windows_closed;
        state.batches = counts.batches;
    }

    /// Requests a checkpoint; returns the number of the request.
    pub(crate) fn ask_checkpoint(&self) -> u64 {
        let ticket = self.checkpoints_wanted.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake();
        ticket
    }

    /// Requests a checkpoint and waits until it is durable, or the query has ended.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn checkpoint(&self) -> Result<()> {
        let ticket = self.ask_checkpoint();
        let mut done = self.checkpoints_done.subscribe();
        let mut status = self.status.subscribe();
        let over = status.wait_for(|s| !matches!(s, Status::Running));
        tokio::select! {
            done = done.wait_for(|c| c.done >= ticket) => match done {
                Ok(done) => done.error.as_ref().map_or(Ok(()), |error| Err(repeated(error))),
                // The sender lives in self.
                Err(_) => Ok(()),
            },
            _ = over => Ok(()),
        }
    }

    /// The number of the newest request for a checkpoint that is not done.
    pub(crate) fn checkpoint_wanted(&self) -> Option<u64> {
        let wanted = self.checkpoints_wanted.load(Ordering::Acquire);
        (wanted > self.checkpoints_done.borrow().done).then_some(wanted)
    }

    /// Records that all requests up to number `ticket` are done.
    pub(crate) fn checkpoint_done(&self, ticket: u64, error: Option<Arc<Error>>) {
        self.checkpoints_done.send_replace(Checkpointed { done: ticket, error });
    }

    /// What the query keeps now, `entries_max` entries at most; nothing when it has not begun, or is over before it answers.
    pub async fn survey(&self, entries_max: usize) -> Vec<OperatorSurvey> {
        let mut status = self.status.subscribe();
        let Some(answer) = self.asked.ask(entries_max) else { return vec![] };
        let over = status.wait_for(|s| !matches!(s, Status::Running));
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or_default(),
            _ = over => vec![],
        }
    }

    /// Whether the query has ended, for whatever reason.
    pub fn is_over(&self) -> bool {
        !matches!(*self.status.borrow(), Status::Running)
    }

    /// Stops the query at the next await.
    pub fn cancel(&self) {
        self.finish(Status::Cancelled);
        self.stop.send_replace(true);
        self.permits.close();
    }

    /// Completes when the query is stopped.
    pub async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives in self.
        drop(stop.wait_for(|stop| *stop).await);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Sets the final status, once.
    pub fn finish(&self, status: Status) {
        self.status.send_if_modified(|now| {
            let first = matches!(now, Status::Running);
            if first {
                *now = status;
            }
            first
        });
    }

    /// Fails the query and stops its tasks. The log of a view fails before the status changes, so that no reader
    /// mistakes the rows so far for the complete result.
    pub fn fail(&self, error: Arc<Error>) {
        if let Some(log) = self.log.get().and_then(Weak::upgrade).filter(|_| !self.is_over()) {
            log.fail(Arc::new(has_failed(&self.name, &error)));
        }
        self.finish(Status::Failed(error));
        self.stop.send_replace(true);
        self.permits.close();
    }

    /// Fails the query; with an error of kind `Data` it would fail again on the same rows.
    pub(crate) fn fail_by_rows(&self, error: Arc<Error>) {
        if error.kind() == ErrorKind::Data && !self.is_over() {
            self.fails_again.store(true, Ordering::Release);
        }
        self.fail(error);
    }

    /// Fails the query with its error from before a restart.
    pub fn fail_as_before(&self, error: Error) {
        self.failed_before.store(true, Ordering::Release);
        self.fail(Arc::new(error));
    }

    /// Whether it failed before the engine was opened.
    pub fn failed_before(&self) -> bool {
        self.failed_before.load(Ordering::Acquire)
    }

    /// Whether it has failed, and would fail again if it were restarted.
    pub fn fails_again(&self) -> bool {
        self.fails_again.load(Ordering::Acquire)
    }

    /// The message of its error, if it has failed.
    pub fn failure(&self) -> Option<String> {
        match &*self.status.borrow() {
            Status::Failed(error) => Some(error.message().to_owned()),
            Status::Running | Status::Finished | Status::Cancelled => None,
        }
    }

    /// Its status.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits for the end of the query.
    ///
    /// # Errors
    /// The error of the query; `Cancelled` when it was stopped.
    pub async fn ended(&self) -> Result<()> {
        let mut status = self.status.subscribe();
        let ended = status
            .wait_for(|s| !matches!(s, Status::Running))
            .await
            .map_err(|gone| Error::internal("query status is gone").with_source(gone))?;
        match &*ended {
            Status::Running | Status::Finished => Ok(()),
            Status::Failed(error) => Err(repeated(error)),
            Status::Cancelled => Err(cancelled()),
        }
    }
}

impl Fails for Shared {
    fn fail(&self, error: Arc<Error>) {
        Self::fail(self, error);
    }
}

/// Returns the error for a query that was stopped.
pub fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the query was cancelled")
}

/// Returns the error for the readers of a failed view.
fn has_failed(view: &str, error: &Error) -> Error {
    let message = format!("view \"{view}\" has failed: {}", error.message());
    let mut told = Error::new(error.kind(), message);
    if let Some(detail) = error.detail() {
        told = told.with_detail(detail);
    }
    // A view over a failed one has its hints already.
    let known = error.hints().iter().any(|hint| hint.contains("OR REPLACE"));
    told = error.hints().iter().cloned().fold(told, Error::with_hint);
    if known {
        return told;
    }
    told.with_hint(match error.kind() {
        ErrorKind::Data => format!(
            "Drop it, or CREATE OR REPLACE it with another expression or WITH (on_error = 'skip_row'), \
             which makes such rows bad rows. SHOW VIEWS has the state of \"{view}\"."
        ),
        _ => format!("CREATE OR REPLACE it, or restart windrow. SHOW VIEWS has the state of \"{view}\"."),
    })
}

/// Adds the name of the query to the error of a limit.
pub(crate) fn of_query(error: Error, query: &str) -> Error {
    if error.kind() != ErrorKind::Limit || error.message().contains(query) {
        return error;
    }
    let message = format!("query \"{query}\": {}", error.message());
    with_message(&Arc::new(error), message)
}
