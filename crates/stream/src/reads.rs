//! The readings of connectors by a bounded statement: its progress, and the number of bad rows that it skips.
//!
//! The scans of a statement find this in its settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The readings of one statement.
#[derive(Debug, Default)]
pub struct BoundedReads {
    /// Bad rows per scan, by stream. Each scan has a count of its own, because a stream that is read twice has its bad
    /// rows once.
    bad: Mutex<BTreeMap<String, Vec<Arc<AtomicU64>>>>,
    rows: AtomicU64,
    bytes: AtomicU64,
    bytes_total: AtomicU64,
}

/// The progress of a bounded statement in its connectors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadProgress {
    /// Rows read.
    pub rows: u64,
    /// Stored bytes read, counted per completed split.
    pub bytes: u64,
    /// Stored bytes to read in total; 0 while that is unknown.
    pub bytes_total: u64,
}

/// One scan of a stream, for a statement.
#[derive(Debug, Clone, Default)]
pub(crate) struct BoundedScan {
    reads: Arc<BoundedReads>,
    bad: Arc<AtomicU64>,
}

impl BoundedScan {
    /// Begins a scan of `bytes` stored bytes; `reads`: those of its statement.
    pub(crate) fn new(reads: Option<Arc<BoundedReads>>, stream: &str, bytes: u64) -> Self {
        let scan = Self { reads: reads.unwrap_or_default(), bad: Arc::default() };
        let mut bad = scan.reads.bad.lock();
        bad.entry(stream.to_owned()).or_default().push(Arc::clone(&scan.bad));
        drop(bad);
        scan.reads.bytes_total.fetch_add(bytes, Ordering::Relaxed);
        scan
    }

    /// Counts rows that were read, of which `bad` are bad.
    pub(crate) fn add_rows(&self, rows: usize, bad: usize) {
        self.reads.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.bad.fetch_add(bad as u64, Ordering::Relaxed);
    }

    /// Counts the stored bytes of a split that was read to its end.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.reads.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl BoundedReads {
    /// Returns the number of bad rows so far, each stream counted once.
    pub fn bad_rows(&self) -> u64 {
        let scans = self.bad.lock();
        let most = |counts: &Vec<Arc<AtomicU64>>| {
            counts.iter().map(|count| count.load(Ordering::Relaxed)).max().unwrap_or(0)
        };
        scans.values().map(most).sum()
    }

    /// Returns how much has been read so far.
    pub fn progress(&self) -> ReadProgress {
        ReadProgress {
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_total: self.bytes_total.load(Ordering::Relaxed),
        }
    }
}
