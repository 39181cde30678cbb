//! The progress of a running query, for users who watch it.

use crate::shared::Shared;

/// The progress of a continuous query, and the account of its input rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueryStatus {
    /// The watermark of its inputs, in µs since 1970; `None` while nothing is known, and at the end.
    pub watermark_micros: Option<i64>,
    /// Windows that have rows and are not closed.
    pub windows_open: usize,
    /// The number of input rows, including those before a restart.
    pub rows_in: u64,
    /// Of these, rows that were late: in `windrow.late_rows`.
    pub late: u64,
    /// Of these, rows that could not be used: in `windrow.bad_rows`.
    pub bad: u64,
}

impl QueryStatus {
    /// Returns the current progress of a query.
    pub fn of(query: &Shared) -> Self {
        let windows_open = query.state.lock().windows_open;
        let taps = query.taps();
        let watermarks = taps.iter().filter_map(|tap| tap.watermark_micros());
        let total = query.ledger.total();
        Self {
            watermark_micros: watermarks.min(),
            windows_open,
            rows_in: total.rows_in,
            late: total.late,
            bad: total.bad,
        }
    }
}
