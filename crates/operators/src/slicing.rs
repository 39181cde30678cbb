//! The division of time into slices that do not overlap, and the windows that are composed of them.
//!
//! Invariant: two times in one slice are in the same windows. Arithmetic saturates, so that no time panics; for the
//! times of [`WindowSpec::valid_times`] it is exact.

use windrow_core::{WindowKind, WindowSpec};

/// The slices of a window: width `gcd(size, slide)`, aligned to the window's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slicing {
    kind: WindowKind,
    offset: i64,
    width: i64,
}

impl Slicing {
    /// Returns the slices of `window`.
    pub fn new(window: WindowSpec) -> Self {
        let width = match window.kind() {
            WindowKind::Tumble { size } => size,
            WindowKind::Hop { slide, size } => gcd(size, slide),
            WindowKind::Cumulate { step, .. } => step,
        };
        Self { kind: window.kind(), offset: window.offset(), width }
    }

    /// Length of a slice in ticks.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Returns the start of the slice that contains `time`.
    pub fn slice(&self, time: i64) -> i64 {
        self.floor(time, self.width)
    }

    /// Returns the end of the first window that contains `time`.
    pub fn first_end(&self, time: i64) -> i64 {
        self.end_after(time, time)
    }

    /// Returns the end of the last window that contains `time`.
    pub fn last_end(&self, time: i64) -> i64 {
        match self.kind {
            WindowKind::Tumble { size } | WindowKind::Cumulate { size, .. } => {
                self.floor(time, size).saturating_add(size)
            }
            WindowKind::Hop { slide, size } => self.floor(time, slide).saturating_add(size),
        }
    }

    /// Returns the end of the first window that ends after `closed` and could contain `time`; beyond
    /// [`last_end`](Self::last_end) when all windows of `time` ended by then.
    pub fn end_after(&self, time: i64, closed: i64) -> i64 {
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

    /// Returns the start of the window that ends at `end`.
    pub fn start_of(&self, end: i64) -> i64 {
        match self.kind {
            WindowKind::Tumble { size } | WindowKind::Hop { size, .. } => end.saturating_sub(size),
            WindowKind::Cumulate { size, .. } => self.floor(end.saturating_sub(1), size),
        }
    }

    /// Ticks from the end of one window to the end of the next.
    pub fn advance(&self) -> i64 {
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
