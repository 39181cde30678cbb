//! What all queries of an engine share: limits, clock, threads, counters, and the queries and scans that there are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arrow::datatypes::DataType;
use datafusion::catalog::CatalogProviderList;
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::ScalarUDF;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use windrow_connectors::Files;
use windrow_core::{Clock, Error, Limits};

use crate::memory::Memory;
use crate::query::kept::{BadRows, LateRows};
use crate::query::progress::Progress as ScanProgress;
use crate::query::scan::{Counters, Scan};
use crate::query::shared::Shared;
use crate::session::planning::Planners;

/// Ended queries that `windrow.queries` and `windrow.ledger` remember.
const ENDED_QUERIES_MAX: usize = 256;

/// What all queries of an engine share.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) limits: Limits,
    /// What remote users may touch.
    pub(crate) files: Files,
    /// Functions of the embedder.
    pub(super) functions: Vec<Arc<ScalarUDF>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cpu: Handle,
    pub(crate) bad_rows: Arc<BadRows>,
    pub(crate) late_rows: Arc<LateRows>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) queries: Mutex<BTreeMap<u64, Arc<Shared>>>,
    pub(crate) scans: Mutex<Vec<ScanNote>>,
    pub(super) next_query: AtomicU64,
    pub(super) next_statement: AtomicU64,
    /// Whether the views of the data directory stand where they stood before.
    pub(super) restored: AtomicBool,
    pub(super) catalogs: Arc<dyn CatalogProviderList>,
    pub(super) env: Arc<RuntimeEnv>,
    /// The limit of memory, if there is one.
    pub(crate) memory: Option<Arc<Memory>>,
    pub(super) micro_batches: SessionState,
    /// Who makes plans.
    pub(crate) planners: Planners,
    /// Bytes that one statement may take, where nobody says how many.
    pub(crate) query_bytes_max: usize,
}

/// What `windrow.watermarks` needs to know of a scan.
#[derive(Debug, Clone)]
pub(crate) struct ScanNote {
    pub(crate) stream: String,
    pub(crate) queries: Vec<Arc<Shared>>,
    pub(crate) progress: Weak<Mutex<ScanProgress>>,
    pub(crate) time_type: Option<DataType>,
}

impl Parts {
    /// The settings and functions for plans that run per micro-batch.
    pub(crate) fn micro_batch_state(&self) -> SessionState {
        self.micro_batches.clone()
    }

    /// Whether all objects of the data directory are there again.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }

    /// A number for a statement in the log.
    pub(crate) fn next_statement(&self) -> u64 {
        self.next_statement.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a query; the oldest ended ones are forgotten.
    pub(crate) fn new_query(&self, name: Option<String>) -> Arc<Shared> {
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

    /// Fails the queries that read a stream or view that is gone. (Views that read one keep it from being dropped.)
    pub(crate) fn fail_readers(&self, name: &str, error: &Arc<Error>) {
        let notes = self.scans.lock().clone();
        let queries = notes.iter().filter(|note| note.stream == name).flat_map(|n| &n.queries);
        queries.filter(|query| !query.is_over()).for_each(|query| query.fail(Arc::clone(error)));
    }

    /// Remembers a scan for `windrow.watermarks`.
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
