//! Determines which rows are late: exactly per row, independently of the batches.
//!
//! Rows of one partition arrive in order. The watermark just before row `i` is the greatest of the watermark before the
//! batch and every earlier row's time minus the declared delay. Row `i` counts in those of its windows whose end plus
//! the allowed lateness is after that watermark: in all of them (on time), in some (partly late: only overlapping
//! windows have such rows) or in none (late).

use arrow::buffer::BooleanBuffer;
use windrow_core::{Watermark, WindowSpec};

use crate::slicing::Slicing;

/// The rows of a batch that are not on time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NotOnTime {
    /// Rows that count nowhere, ascending.
    pub late: Vec<usize>,
    /// Rows that count only in windows that end at the given time or later, ascending by row.
    pub partly: Vec<(usize, i64)>,
}

impl NotOnTime {
    /// Whether all rows are on time.
    pub fn is_empty(&self) -> bool {
        self.late.is_empty() && self.partly.is_empty()
    }
}

/// The tolerated disorder of the rows of one partition, in ticks of the event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// The declared delay: the watermark is this far behind the greatest time.
    pub delay: i64,
    /// ALLOW LATENESS: windows close this many ticks later.
    pub allowed_lateness: i64,
}

/// Returns the rows of a batch that are not on time. `before` is the watermark of the batch's own partition just before
/// it (or a later one up to which windows have already been closed). A batch in which no row is before the watermark at
/// its end costs one comparison per row.
pub fn classify(
    slicing: &Slicing,
    times: &[i64],
    before: Watermark,
    tolerance: Tolerance,
) -> NotOnTime {
    rows_behind(times, before, tolerance, |time, closed| {
        if slicing.last_end(time) <= closed {
            Behindness::Late
        } else if slicing.first_end(time) <= closed {
            Behindness::Partly { from: slicing.end_after(time, closed) }
        } else {
            Behindness::OnTime
        }
    })
}

/// The lateness of a row that is before the watermark just before it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Behindness {
    /// It counts in all results.
    OnTime,
    /// It counts in the results that end at `from` (ticks) or later.
    Partly { from: i64 },
    /// It counts in none.
    Late,
}

/// Returns the rows that are not on time, by the result of `judge` for the time of a row and the watermark (less the
/// allowed lateness) just before it. It is called only for rows before that watermark: others are on time in every
/// operator.
pub(crate) fn rows_behind(
    times: &[i64],
    before: Watermark,
    tolerance: Tolerance,
    judge: impl Fn(i64, i64) -> Behindness,
) -> NotOnTime {
    let mut found = NotOnTime::default();
    if before == Watermark::END {
        found.late = (0..times.len()).collect();
        return found;
    }
    let behind = tolerance.delay.saturating_add(tolerance.allowed_lateness);
    let mut closed = before.delayed(tolerance.allowed_lateness).ticks();
    for (row, &time) in times.iter().enumerate() {
        if time < closed {
            match judge(time, closed) {
                Behindness::OnTime => {}
                Behindness::Partly { from } => found.partly.push((row, from)),
                Behindness::Late => found.late.push(row),
            }
        }
        closed = closed.max(time.saturating_sub(behind));
    }
    found
}

/// Returns the rows that count in no window, as a mask (`true` is late); `None` when there are none.
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

#[cfg(test)]
mod tests {
    use windrow_core::WindowKind;

    use super::*;

    fn hop() -> Slicing {
        Slicing::new(WindowSpec::try_new(WindowKind::Hop { slide: 10, size: 30 }, 0).unwrap())
    }

    const PUNCTUAL: Tolerance = Tolerance { delay: 0, allowed_lateness: 0 };

    #[test]
    fn a_row_counts_where_a_window_is_open() {
        // Windows of 19 end at 20, 30, 40; those of 3 at 10, 20, 30.
        let found = classify(&hop(), &[35, 19, 3, 36], Watermark::NONE, PUNCTUAL);
        assert_eq!(found, NotOnTime { late: vec![2], partly: vec![(1, 40)] });
    }

    #[test]
    fn a_watermark_at_the_end_of_a_window_closes_it() {
        let window = WindowSpec::try_new(WindowKind::Tumble { size: 10 }, 0).unwrap();
        let late = |before| late_rows(&window, &[9, 10, 9], Watermark::at(before), 0, 0);
        assert_eq!(late(9).unwrap().iter().collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(late(10).unwrap().iter().collect::<Vec<_>>(), [true, false, true]);
        assert!(late_rows(&window, &[9, 10, 9], Watermark::at(9), 1, 0).is_none());
        assert!(late_rows(&window, &[9, 10, 9], Watermark::at(10), 0, 1).is_none());
    }

    #[test]
    fn cuts_of_batches_do_not_matter() {
        let times = [5, 40, 12, 33, 90, 61, 88, 20, 100, 71];
        let whole = classify(&hop(), &times, Watermark::NONE, PUNCTUAL);
        for cut in 0..=times.len() {
            let mut found = classify(&hop(), &times[..cut], Watermark::NONE, PUNCTUAL);
            let before = times[..cut].iter().max().map_or(Watermark::NONE, |t| Watermark::at(*t));
            let rest = classify(&hop(), &times[cut..], before, PUNCTUAL);
            found.late.extend(rest.late.iter().map(|row| row + cut));
            found.partly.extend(rest.partly.iter().map(|(row, from)| (row + cut, *from)));
            assert_eq!(found, whole, "cut at {cut}");
        }
    }

    #[test]
    fn after_the_end_everything_is_late() {
        let found = classify(&hop(), &[i64::MAX, 0], Watermark::END, PUNCTUAL);
        assert_eq!(found.late, [0, 1]);
    }
}
