//! The intervals into which rows are grouped: aligned windows, determined by event time alone, and sessions, determined
//! by the rows of a key.

use std::ops::RangeInclusive;

use crate::{Calendar, Error, Result};

/// The shape of a window. All lengths are ticks of the event-time column, or days or months of a [`Calendar`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WindowKind {
    /// Fixed, gapless, not overlapping: `[k·size, (k+1)·size)`.
    Tumble {
        /// Length.
        size: i64,
    },
    /// Fixed, one starting every `slide`: `[k·slide, k·slide + size)`. `size` need not be a multiple of `slide`.
    Hop {
        /// From one start to the next.
        slide: i64,
        /// Length.
        size: i64,
    },
    /// Growing: `[k·size, k·size + j·step)` for `j = 1 …`, the last of which ends at `(k+1)·size` (`size` is a multiple
    /// of `step`). By the calendar, `size` need not be one: the last step is as long as what is left.
    Cumulate {
        /// By how much each window is longer than the one before.
        step: i64,
        /// Length of the longest window.
        size: i64,
    },
}

/// A valid window: lengths are positive, `slide ≤ size`, `step` divides `size`. Windows align to the Unix epoch plus
/// `offset`; times before 1970 round down. With a [`Calendar`], sizes, slides and offsets are its days or months.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowSpec {
    kind: WindowKind,
    offset: i64,
    calendar: Option<Calendar>,
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
    /// Of fixed length (or, in CUMULATE, one of several), aligned to the Unix epoch or to a calendar.
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
        Self::checked(kind, offset, None)
    }

    /// As [`try_new`](Self::try_new), for windows whose lengths are days or months of a calendar.
    ///
    /// # Errors
    /// As [`try_new`](Self::try_new), but a step need not divide the size.
    pub fn of_calendar(kind: WindowKind, offset: i64, calendar: Calendar) -> Result<Self> {
        Self::checked(kind, offset, Some(calendar))
    }

    fn checked(kind: WindowKind, offset: i64, calendar: Option<Calendar>) -> Result<Self> {
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
                let (step_length, size_length) = match calendar {
                    Some(calendar) => calendar.lengths(step, size),
                    None => (step, size),
                };
                if step_length > size_length {
                    return Err(Error::sql("the step of CUMULATE is longer than its size")
                        .with_hint("CUMULATE takes (step, size): did you swap them?"));
                }
                if calendar.is_none() && size % step != 0 {
                    return Err(Error::sql("the size of CUMULATE is not a multiple of its step"));
                }
                size
            }
        };
        let spec = Self { kind, offset: offset.rem_euclid(period), calendar };
        if calendar.is_some_and(|c| spec.size() > c.seconds(Calendar::SECONDS_MAX / 8)) {
            return Err(Error::sql("the window's size is longer than the calendar"));
        }
        Ok(spec)
    }

    /// The calendar by which its lengths are counted; `None`: in ticks.
    pub fn calendar(&self) -> Option<Calendar> {
        self.calendar
    }

    /// The shape.
    pub fn kind(&self) -> WindowKind {
        self.kind
    }

    /// The offset from the epoch in ticks (or units of the calendar), `0 ≤ offset < size or slide`.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Length of the longest window in ticks; of calendar windows, no window is longer.
    pub fn size(&self) -> i64 {
        let (WindowKind::Tumble { size }
        | WindowKind::Hop { size, .. }
        | WindowKind::Cumulate { size, .. }) = self.kind;
        match self.calendar {
            None => size,
            Some(calendar) => calendar.seconds(size.saturating_mul(calendar.unit.seconds_max())),
        }
    }

    /// Whether each time is in one window only.
    pub fn is_disjoint(&self) -> bool {
        let same_unit = self.calendar.is_none_or(|calendar| calendar.steps_in_units());
        match self.kind {
            WindowKind::Tumble { .. } => true,
            WindowKind::Hop { slide, size } => slide == size,
            WindowKind::Cumulate { step, size } => step == size && same_unit,
        }
    }

    /// Whether the start of a window determines its end (not in CUMULATE).
    pub fn start_determines_end(&self) -> bool {
        !matches!(self.kind, WindowKind::Cumulate { .. })
    }

    /// The event times for which all bounds fit in 64 bits. A row outside is a bad row: its windows do not exist.
    pub fn valid_times(&self) -> RangeInclusive<i64> {
        let representable = times_within(self.size().saturating_mul(2));
        let Some(calendar) = self.calendar else { return representable };
        let known = calendar.seconds(Calendar::SECONDS_MAX);
        let margin = self.size().saturating_mul(2);
        let known = known.saturating_sub(margin).max(0);
        (*representable.start()).max(-known)..=(*representable.end()).min(known)
    }
}
