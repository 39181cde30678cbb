//! Everything that all queries of an engine share: limits, clock, threads, counters, and the lists of queries and
//! scans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use windrow_core::{Clock, Error, Limits};
use windrow_stream::kept::{BadRows, LateRows};
use windrow_stream::memory::Memory;

use crate::progress::Progress;
use crate::scan::{Counters, Scan};
use crate::shared::Shared;

/// Ended queries that `windrow.queries` and `windrow.ledger` remember.
const ENDED_QUERIES_MAX: usize = 256;

/// Everything that all queries of an engine share.
#[derive(Debug)]
pub struct QueryParts {
    /// The limits of the engine.
    pub limits: Limits,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The threads on which queries run.
    pub cpu: Handle,
    /// For `windrow.bad_rows`.
    pub bad_rows: Arc<BadRows>,
    /// For `windrow.late_rows`.
    pub late_rows: Arc<LateRows>,
    /// The progress of all scans.
    pub counters: Arc<Counters>,
    /// Running queries, and some that have ended, by id.
    pub queries: Mutex<BTreeMap<u64, Arc<Shared>>>,
    /// The scans.
    pub scans: Mutex<Vec<ScanNote>>,
    next_query: AtomicU64,
    /// The names of the streams that are paused: no continuous query takes rows from them.
    pub paused: watch::Sender<BTreeSet<String>>,
    /// The memory limit, if there is one.
    pub memory: Option<Arc<Memory>>,
    micro_batches: SessionState,
}

/// A scan in `windrow.watermarks`.
#[derive(Debug, Clone)]
pub struct ScanNote {
    /// The stream that is read.
    pub stream: String,
    /// The queries that it serves.
    pub queries: Vec<Arc<Shared>>,
    /// Its progress.
    pub progress: Weak<Mutex<Progress>>,
    /// The type of its event times, if there are any.
    pub time_type: Option<DataType>,
}

impl QueryParts {
    /// Returns the parts of an engine without queries. `micro_batches`: the settings and functions for plans that run
    /// per micro-batch.
    pub fn new(
        limits: Limits,
        (clock, cpu): (Arc<dyn Clock>, Handle),
        memory: Option<Arc<Memory>>,
        micro_batches: SessionState,
    ) -> Self {
        Self {
            bad_rows: Arc::new(BadRows::new(limits.kept_rows_max)),
            late_rows: Arc::new(LateRows::new(limits.kept_rows_max)),
            clock,
            cpu,
            counters: Arc::default(),
            paused: watch::Sender::default(),
            queries: Mutex::default(),
            scans: Mutex::default(),
            next_query: AtomicU64::new(1),
            memory,
            micro_batches,
            limits,
        }
    }

    /// The settings and functions for plans that run per micro-batch.
    pub(crate) fn micro_batch_state(&self) -> SessionState {
        self.micro_batches.clone()
    }

    /// Registers a query; the oldest ended ones are removed.
    pub fn new_query(&self, name: Option<String>) -> Arc<Shared> {
        let id = self.next_query.fetch_add(1, Ordering::Relaxed);
        let name = name.unwrap_or_else(|| format!("query_{id}"));
        let memory = self.memory.clone();
        let shared =
            Shared::new(id, name, self.limits.queue_batches_max, memory, Arc::clone(&self.clock));
        let mut queries = self.queries.lock();
        let ended: Vec<u64> =
            queries.iter().filter(|(_, q)| q.is_over()).map(|(id, _)| *id).collect();
        let surplus = ended.len().saturating_sub(ENDED_QUERIES_MAX);
        for id in ended.into_iter().take(surplus) {
            queries.remove(&id);
        }
        queries.insert(id, Arc::clone(&shared));
        shared
    }

    /// Fails the queries that read a dropped stream or view. (One that a view reads cannot be dropped.)
    pub fn fail_readers(&self, name: &str, error: &Arc<Error>) {
        let notes = self.scans.lock().clone();
        let queries = notes.iter().filter(|note| note.stream == name).flat_map(|n| &n.queries);
        queries.filter(|query| !query.is_over()).for_each(|query| query.fail(Arc::clone(error)));
    }

    /// Adds a scan to `windrow.watermarks`.
    pub(crate) fn note_scan(&self, scan: &Scan) {
        let mut scans = self.scans.lock();
        scans.retain(|s| s.progress.strong_count() > 0);
        scans.push(ScanNote {
            stream: scan.stream.clone(),
            queries: scan.taps.iter().map(|t| Arc::clone(&t.shared)).collect(),
            progress: Arc::downgrade(&scan.progress),
            time_type: scan.time_type.clone(),
        });
    }
}
