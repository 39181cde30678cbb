//! Bad rows of connectors that a bounded statement reads: it does not see them, and its client learns how many.
//!
//! The scans of a statement find the counts by its settings; each scan has one of its own, because a stream that is
//! read twice has its bad rows once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Bad rows per scan of one statement, by stream.
#[derive(Debug, Default)]
pub struct UnseenBad(Mutex<BTreeMap<String, Vec<Arc<AtomicU64>>>>);

impl UnseenBad {
    /// The count of one scan of a stream.
    pub(crate) fn scan(&self, stream: &str) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        self.0.lock().entry(stream.to_owned()).or_default().push(Arc::clone(&count));
        count
    }

    /// How many there are now.
    pub fn total(&self) -> u64 {
        let scans = self.0.lock();
        let most = |counts: &Vec<Arc<AtomicU64>>| {
            counts.iter().map(|count| count.load(Ordering::Relaxed)).max().unwrap_or(0)
        };
        scans.values().map(most).sum()
    }
}
