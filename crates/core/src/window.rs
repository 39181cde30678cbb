//! The intervals into which rows are grouped: aligned windows, determined by event time alone, and sessions, determined
//! by the rows of a key.

use std::ops::RangeInclusive;

use crate::{Error, Result};

/// The shape of a window. All lengths are ticks of the event-time column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WindowKind {
    /// Fixed, gapless, not overlapping: `[k·size, (k+1)·size)`.
    Tumble {
        /// Length in ticks.
        size: i64,
    },
    /// Fixed, one starting every `slide` ticks: `[k·slide, k·slide + size)`. `size` need not be a multiple of `slide`.
    Hop {
        /// Ticks from one start to the next.
        slide: i64,
        /// Length in ticks.
        size: i64,
    },
    /// Growing: `[k·size, k·size + j·step)` for `j = 1 …`, the last of which ends at `(k+1)·size` (`size` is a multiple
    /// of `step`).
    Cumulate {
        /// Ticks by which each window is longer than the one before.
        step: i64,
        /// Length of the longest window in ticks.
        size: i64,
    },
}

/// A valid window: lengths are positive, `slide ≤ size`, `step` divides `size`. Windows align to the Unix epoch plus
/// `offset`; times before 1970 round down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowSpec {
    kind: WindowKind,
    offset: i64,
}

/// Sessions: runs of rows of one key whose neighbours are at most `gap` ticks apart (rows exactly one gap apart
/// join). A session begins with its first row and ends one gap after its last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionSpec {
    gap: i64,
}

/// The windows of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Windows {
    /// Of fixed length (or, in CUMULATE, one of several), aligned to the Unix epoch.
    Aligned(WindowSpec),
    /// As long as rows keep coming.
    Session(SessionSpec),
}

impl SessionSpec {
    /// Checks the gap, in ticks of the event-time column.
    ///
    /// # Errors
    /// When it is not positive.
    pub fn try_new(gap: i64) -> Result<Self> {
        if gap > 0 {
            return Ok(Self { gap });
        }
        Err(Error::sql("the gap of SESSION must be positive"))
    }

    /// The largest distance between neighbours, in ticks.
    pub fn gap(&self) -> i64 {
        self.gap
    }

    /// As [`WindowSpec::valid_times`].
    pub fn valid_times(&self) -> RangeInclusive<i64> {
        times_within(self.gap.saturating_mul(2))
    }
}

impl Windows {
    /// As [`WindowSpec::valid_times`].
    pub fn valid_times(&self) -> RangeInclusive<i64> {
        match self {
            Self::Aligned(window) => window.valid_times(),
            Self::Session(session) => session.valid_times(),
        }
    }
}

/// Returns the times further than `margin` ticks from both ends of the 64-bit range.
fn times_within(margin: i64) -> RangeInclusive<i64> {
    i64::MIN.saturating_add(margin).saturating_add(1)
        ..=i64::MAX.saturating_sub(margin).saturating_sub(1)
}

impl WindowSpec {
    /// Checks the lengths. The offset is taken modulo the alignment (size, slide).
    ///
    /// # Errors
    /// When a length is not positive, a slide is longer than the size, or a step does not divide the size; the hint
    /// suggests the most likely correction.
    pub fn try_new(kind: WindowKind, offset: i64) -> Result<Self> {
        let positive = |name: &str, v: i64| {
            if v > 0 {
                Ok(())
            } else {
                Err(Error::sql(format!("the window's {name} must be positive")))
            }
        };
        let period = match kind {
            WindowKind::Tumble { size } => {
                positive("size", size)?;
                size
            }
            WindowKind::Hop { slide, size } => {
                positive("slide", slide)?;
                positive("size", size)?;
                if slide > size {
                    return Err(Error::sql("the slide of HOP is longer than its size")
                        .with_hint("HOP takes (slide, size): did you swap them?"));
                }
                slide
            }
            WindowKind::Cumulate { step, size } => {
                positive("step", step)?;
                positive("size", size)?;
                if step > size {
                    return Err(Error::sql("the step of CUMULATE is longer than its size")
                        .with_hint("CUMULATE takes (step, size): did you swap them?"));
                }
                if size % step != 0 {
                    return Err(Error::sql("the size of CUMULATE is not a multiple of its step"));
                }
                size
            }
        };
        Ok(Self { kind, offset: offset.rem_euclid(period) })
    }

    /// The shape.
    pub fn kind(&self) -> WindowKind {
        self.kind
    }

    /// The offset from the epoch in ticks, `0 ≤ offset < size or slide`.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Length of the longest window in ticks.
    pub fn size(&self) -> i64 {
        match self.kind {
            WindowKind::Tumble { size }
            | WindowKind::Hop { size, .. }
            | WindowKind::Cumulate { size, .. } => size,
        }
    }

    /// Whether the start of a window determines its end (not in CUMULATE).
    pub fn start_tells_end(&self) -> bool {
        !matches!(self.kind, WindowKind::Cumulate { .. })
    }

    /// The event times for which all bounds fit in 64 bits. A row outside is a bad row: its windows do not exist.
    pub fn valid_times(&self) -> RangeInclusive<i64> {
        times_within(self.size().saturating_mul(2))
    }
}
