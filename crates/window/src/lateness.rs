//! Which rows are late: exact per row, whatever the batches.
//!
//! Rows of one partition come in order. The watermark just before row `i` is the greatest of the
//! watermark before the batch and every earlier row's time minus the declared delay. Row `i` counts
//! in those of its windows whose end plus the allowed lateness is after that watermark: in all of
//! them (on time), in some (partly late: only an overlapping window has such rows) or in none (late).

use arrow::buffer::BooleanBuffer;
use windrow_core::{Watermark, WindowSpec};

use crate::slicing::Slicing;

/// The rows of a batch that are not on time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NotOnTime {
    /// Rows that count nowhere, ascending.
    pub late: Vec<usize>,
    /// Rows that count only in windows that end at the given time or after, ascending by row.
    pub partly: Vec<(usize, i64)>,
}

impl NotOnTime {
    /// Whether all rows are on time.
    pub fn is_empty(&self) -> bool {
        self.late.is_empty() && self.partly.is_empty()
    }
}

/// How rows of one partition may be out of order, in ticks of the event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// The declared delay: the watermark runs behind the greatest time by this much.
    pub delay: i64,
    /// ALLOW LATENESS: windows close this much later.
    pub allowed_lateness: i64,
}

/// The rows of a batch that are not on time. `before` is the watermark of the batch's own
/// partition just before it (or a later one by which windows have already been closed).
/// A batch in which no row is before the watermark at its end costs one comparison per row.
pub fn classify(
    slicing: &Slicing,
    times: &[i64],
    before: Watermark,
    tolerance: Tolerance,
) -> NotOnTime {
    let mut found = NotOnTime::default();
    if before == Watermark::END {
        found.late = (0..times.len()).collect();
        return found;
    }
    let behind = tolerance.delay.saturating_add(tolerance.allowed_lateness);
    let mut closed = before.delayed(tolerance.allowed_lateness).ticks();
    for (row, &time) in times.iter().enumerate() {
        // A window that holds `time` ends after it: only rows before `closed` can be late.
        if time < closed {
            if slicing.last_end(time) <= closed {
                found.late.push(row);
            } else if slicing.first_end(time) <= closed {
                found.partly.push((row, slicing.end_after(time, closed)));
            }
        }
        closed = closed.max(time.saturating_sub(behind));
    }
    found
}

/// The rows that count in no window, as a mask (`true` is late); `None` when there are none.
pub fn late_rows(
    window: &WindowSpec,
    times: &[i64],
    watermark_before: Watermark,
    delay_ticks: i64,
    allowed_lateness: i64,
) -> Option<BooleanBuffer> {
    let tolerance = Tolerance { delay: delay_ticks, allowed_lateness };
    let found = classify(&Slicing::new(*window), times, watermark_before, tolerance);
    if found.late.is_empty() {
        return None;
    }
    let mut late = found.late.iter().copied().peekable();
    Some(BooleanBuffer::collect_bool(times.len(), |row| late.next_if_eq(&row).is_some()))
}
