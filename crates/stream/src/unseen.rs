//! The number of bad rows that a bounded statement has skipped in connectors; its client is informed of it.
//!
//! Scans find the counters in the settings of their statement. Each scan has its own, because the bad rows of a stream
//! that is read twice count once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The number of bad rows per scan of one statement, by stream.
#[derive(Debug, Default)]
pub struct UnseenBad(Mutex<BTreeMap<String, Vec<Arc<AtomicU64>>>>);

impl UnseenBad {
    /// Returns a new counter for one scan of a stream.
    pub(crate) fn scan(&self, stream: &str) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        self.0.lock().entry(stream.to_owned()).or_default().push(Arc::clone(&count));
        count
    }

    /// The number of bad rows so far, each stream counted once.
    pub fn total(&self) -> u64 {
        let scans = self.0.lock();
        let most = |counts: &Vec<Arc<AtomicU64>>| {
            counts.iter().map(|count| count.load(Ordering::Relaxed)).max().unwrap_or(0)
        };
        scans.values().map(most).sum()
    }
}
