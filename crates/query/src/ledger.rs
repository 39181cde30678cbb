//! The account of every row that a query has read, so that none vanishes silently.
//!
//! `rows_in = aggregated + filtered + late + bad`, per query.

use std::sync::atomic::{AtomicU64, Ordering};

pub use windrow_storage::checkpoint::Entry;

/// The counters of one query. Every input row is in exactly one of the four others.
#[derive(Debug, Default)]
pub struct Ledger {
    rows_in: AtomicU64,
    aggregated: AtomicU64,
    filtered: AtomicU64,
    late: AtomicU64,
    bad: AtomicU64,
    rows_out: AtomicU64,
    /// Of the aggregated rows, those that count only in some of their windows.
    partly_late: AtomicU64,
    /// Of the bad rows, those for which an expression of the query failed.
    skipped: AtomicU64,
}

/// Counts rows whose plan may drop or multiply them: of `rows_in` input rows, those passed that an output row was
/// computed from. `from`: per batch of output rows, the number of the input row of each.
pub fn passed(entry: &mut Entry, rows_in: u64, from: &[Vec<u64>]) {
    let mut from: Vec<u64> = from.iter().flatten().copied().collect();
    from.sort_unstable();
    from.dedup();
    let passed = from.len() as u64;
    entry.aggregated += passed;
    entry.filtered += rows_in.saturating_sub(passed);
}

impl Ledger {
    /// Counts the rows of a micro-batch.
    pub(crate) fn add(&self, entry: Entry) {
        debug_assert!(entry.is_balanced(), "{entry:?}");
        self.rows_in.fetch_add(entry.rows_in, Ordering::Relaxed);
        self.aggregated.fetch_add(entry.aggregated, Ordering::Relaxed);
        self.filtered.fetch_add(entry.filtered, Ordering::Relaxed);
        self.late.fetch_add(entry.late, Ordering::Relaxed);
        self.bad.fetch_add(entry.bad, Ordering::Relaxed);
    }

    /// Counts rows that the query has returned.
    pub fn add_rows_out(&self, rows: usize) {
        self.rows_out.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_partly_late(&self, rows: u64) {
        self.partly_late.fetch_add(rows, Ordering::Relaxed);
    }

    /// The number of aggregated rows that were too late for some of their windows.
    pub fn partly_late(&self) -> u64 {
        self.partly_late.load(Ordering::Relaxed)
    }

    pub(crate) fn add_skipped(&self, rows: u64) {
        self.skipped.fetch_add(rows, Ordering::Relaxed);
    }

    /// The number of bad rows that are bad for this query only.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Continues from the counts before a restart.
    pub fn restore(&self, rows: Entry, partly_late: u64, skipped: u64) {
        self.add(rows);
        self.add_partly_late(partly_late);
        self.add_skipped(skipped);
    }

    /// The counts of all rows so far.
    pub fn total(&self) -> Entry {
        Entry {
            rows_in: self.rows_in.load(Ordering::Relaxed),
            aggregated: self.aggregated.load(Ordering::Relaxed),
            filtered: self.filtered.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            bad: self.bad.load(Ordering::Relaxed),
        }
    }

    /// The number of rows that the query has returned.
    pub fn rows_out(&self) -> u64 {
        self.rows_out.load(Ordering::Relaxed)
    }
}
