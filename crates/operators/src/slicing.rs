//! The division of time into slices that do not overlap, and the windows that are composed of them.
//!
//! Invariant: two times in one slice are in the same windows. Arithmetic saturates, so that no time panics; for the
//! times of [`WindowSpec::valid_times`] it is exact.

use windrow_core::{WindowKind, WindowSpec};

use crate::calendar::CalendarSlicing;

/// The slices of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slicing(Cut);

/// How time is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Even(EvenSlicing),
    Calendar(CalendarSlicing),
}

/// Slices of one width, `gcd(size, slide)`, aligned to the window's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EvenSlicing {
    kind: WindowKind,
    offset: i64,
    width: i64,
}

impl Slicing {
    /// Returns the slices of `window`.
    pub fn new(window: WindowSpec) -> Self {
        let (kind, offset) = (window.kind(), window.offset());
        let width = match kind {
            WindowKind::Tumble { size } => size,
            WindowKind::Hop { slide, size } => gcd(size, slide),
            WindowKind::Cumulate { step, .. } => step,
        };
        Self(match window.calendar() {
            None => Cut::Even(EvenSlicing { kind, offset, width }),
            Some(calendar) => Cut::Calendar(CalendarSlicing::new(kind, offset, width, calendar)),
        })
    }

    /// The length of a slice in ticks; `None` if lengths vary.
    pub fn width(&self) -> Option<i64> {
        match &self.0 {
            Cut::Even(even) => Some(even.width),
            Cut::Calendar(_) => None,
        }
    }

    /// Returns the start of the slice that contains `time`.
    pub fn slice(&self, time: i64) -> i64 {
        match &self.0 {
            Cut::Even(even) => even.floor(time, even.width),
            Cut::Calendar(calendar) => calendar.slice(time).0,
        }
    }

    /// Returns the first and the last tick of the slice that contains `time`.
    pub fn bounds(&self, time: i64) -> (i64, i64) {
        match &self.0 {
            Cut::Even(even) => {
                let start = even.floor(time, even.width);
                (start, start.saturating_add(even.width - 1))
            }
            Cut::Calendar(calendar) => {
                let (start, end) = calendar.slice(time);
                (start, end.saturating_sub(1))
            }
        }
    }

    /// Returns the end of the first window that contains `time`.
    pub fn first_end(&self, time: i64) -> i64 {
        self.end_after(time, time)
    }

    /// Returns the end of the last window that contains `time`.
    pub fn last_end(&self, time: i64) -> i64 {
        match &self.0 {
            Cut::Even(even) => even.last_end(time),
            Cut::Calendar(calendar) => calendar.last_end(time),
        }
    }

    /// Returns the end of the first window that ends after `closed` and could contain `time`; beyond
    /// [`last_end`](Self::last_end) when all windows of `time` ended by then.
    pub fn end_after(&self, time: i64, closed: i64) -> i64 {
        match &self.0 {
            Cut::Even(even) => even.end_after(time, closed),
            Cut::Calendar(calendar) => calendar.end_after(time, closed),
        }
    }

    /// Returns the start of the window that ends at `end`.
    pub fn start_of(&self, end: i64) -> i64 {
        match &self.0 {
            Cut::Even(even) => even.start_of(end),
            Cut::Calendar(calendar) => calendar.start_of(end),
        }
    }

    /// Returns the number of windows that end after `end` and up to `last`.
    pub fn windows_between(&self, end: i64, last: i64) -> u64 {
        match &self.0 {
            Cut::Even(even) => last.abs_diff(end) / even.advance().unsigned_abs(),
            Cut::Calendar(calendar) => calendar.windows_between(end, last),
        }
    }
}

impl EvenSlicing {
    fn last_end(&self, time: i64) -> i64 {
        match self.kind {
            WindowKind::Tumble { size } | WindowKind::Cumulate { size, .. } => {
                self.floor(time, size).saturating_add(size)
            }
            WindowKind::Hop { slide, size } => self.floor(time, slide).saturating_add(size),
        }
    }

    fn end_after(&self, time: i64, closed: i64) -> i64 {
        let after = time.max(closed);
        match self.kind {
            WindowKind::Tumble { size } => self.floor(after, size).saturating_add(size),
            WindowKind::Hop { slide, size } => self
                .floor(after.saturating_sub(size), slide)
                .saturating_add(slide)
                .saturating_add(size),
            WindowKind::Cumulate { step, .. } => self.floor(after, step).saturating_add(step),
        }
    }

    fn start_of(&self, end: i64) -> i64 {
        match self.kind {
            WindowKind::Tumble { size } | WindowKind::Hop { size, .. } => end.saturating_sub(size),
            WindowKind::Cumulate { size, .. } => self.floor(end.saturating_sub(1), size),
        }
    }

    /// Ticks from the end of one window to the end of the next.
    fn advance(&self) -> i64 {
        match self.kind {
            WindowKind::Tumble { size } => size,
            WindowKind::Hop { slide, .. } => slide,
            WindowKind::Cumulate { step, .. } => step,
        }
    }

    /// Returns the last multiple of `width` (plus the offset) not after `time`.
    fn floor(&self, time: i64, width: i64) -> i64 {
        let shifted = time.saturating_sub(self.offset);
        shifted.saturating_sub(shifted.rem_euclid(width)).saturating_add(self.offset)
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
