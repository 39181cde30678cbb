//! Turns intervals and a time zone into windows: of a constant length, or following the calendar.
//!
//! Months and years always follow the calendar. Days do in any time zone but UTC, where a day may have 23 or 25 hours.
//! Everything shorter has a constant length.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use windrow_core::{
    Calendar, CalendarUnit, Error, Result, StepUnit, WindowKind, WindowSpec, Zone, time,
};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const NANOS_PER_DAY: i128 = 86_400 * NANOS_PER_SECOND;
const SECONDS_PER_DAY: i128 = 86_400;
/// The days that every month has.
const DAYS_OF_EVERY_MONTH: i128 = 28;

/// A length of time, in the parts of an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Length {
    months: i64,
    days: i64,
    nanos: i128,
}

/// The time zone of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clocks {
    pub(super) zone: Zone,
    /// Whether it is an argument of the window function.
    pub(super) named: bool,
}

/// The lengths of an aligned window; each may be a slide or step, a size or an offset.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lengths {
    Tumble { size: Length },
    Hop { slide: Length, size: Length },
    Cumulate { step: Length, size: Length },
}

impl Length {
    /// The length of an interval, or of a text that is one; `None` for anything else.
    pub(super) fn of(value: &ScalarValue) -> Option<Self> {
        let nanos = |nanos: i128| Self { nanos, ..Self::default() };
        Some(match value {
            ScalarValue::Utf8(Some(_)) | ScalarValue::Utf8View(Some(_)) => {
                let interval = DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano);
                return Self::of(&value.cast_to(&interval).ok()?);
            }
            ScalarValue::IntervalMonthDayNano(Some(v)) => {
                Self { months: v.months.into(), days: v.days.into(), nanos: v.nanoseconds.into() }
            }
            ScalarValue::IntervalDayTime(Some(v)) => {
                let nanos = i128::from(v.milliseconds) * 1_000_000;
                Self { months: 0, days: v.days.into(), nanos }
            }
            ScalarValue::IntervalYearMonth(Some(months)) => {
                Self { months: (*months).into(), ..Self::default() }
            }
            ScalarValue::DurationSecond(Some(v)) => nanos(i128::from(*v) * NANOS_PER_SECOND),
            ScalarValue::DurationMillisecond(Some(v)) => nanos(i128::from(*v) * 1_000_000),
            ScalarValue::DurationMicrosecond(Some(v)) => nanos(i128::from(*v) * 1_000),
            ScalarValue::DurationNanosecond(Some(v)) => nanos(i128::from(*v)),
            _ => return None,
        })
    }

    /// The negated length.
    pub(super) fn negative(self) -> Self {
        Self { months: -self.months, days: -self.days, nanos: -self.nanos }
    }

    /// In ticks; a day has 24 hours.
    ///
    /// # Errors
    /// When it has months, or is not a whole number of ticks.
    pub(super) fn ticks(self, unit: TimeUnit) -> Result<i64> {
        if self.months != 0 {
            return Err(Error::sql("months and years have no fixed length")
                .with_hint("Use weeks, days or shorter units."));
        }
        time::nanos_to_ticks(i128::from(self.days) * NANOS_PER_DAY + self.nanos, unit)
    }

    /// Checks that it is a whole number of ticks, however long its days and months are.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn check(self, unit: TimeUnit) -> Result<()> {
        time::nanos_to_ticks(self.nanos, unit).map(|_| ())
    }

    fn is_constant(self) -> bool {
        self.months == 0 && self.days == 0
    }
}

impl Lengths {
    /// The windows of these lengths, which follow the calendar where the lengths do.
    ///
    /// # Errors
    /// When there are no such windows.
    pub(super) fn windows(
        self,
        offset: Length,
        clocks: Clocks,
        unit: TimeUnit,
    ) -> Result<WindowSpec> {
        let (short, size) = match self {
            Self::Tumble { size } => (size, size),
            Self::Hop { slide, size } => (slide, size),
            Self::Cumulate { step, size } => (step, size),
        };
        let months = short.months != 0 || size.months != 0;
        let days = short.days != 0 || size.days != 0;
        if months || clocks.zone != Zone::UTC && (days || clocks.named) {
            return self.by_calendar(offset, clocks.zone, unit);
        }
        let kind = match self {
            Self::Tumble { size } => WindowKind::Tumble { size: size.ticks(unit)? },
            Self::Hop { slide, size } => {
                WindowKind::Hop { slide: slide.ticks(unit)?, size: size.ticks(unit)? }
            }
            Self::Cumulate { step, size } => {
                WindowKind::Cumulate { step: step.ticks(unit)?, size: size.ticks(unit)? }
            }
        };
        let offset = offset.ticks(unit).map_err(|e| match offset.months {
            0 => e,
            _ => Error::sql("the offset has months, but the window has none"),
        })?;
        WindowSpec::try_new(kind, offset)
    }

    fn by_calendar(self, offset: Length, zone: Zone, unit: TimeUnit) -> Result<WindowSpec> {
        let (kind, counted_in, step_unit) = match self {
            Self::Tumble { size } => {
                let (size, counted_in) = units("size", size)?;
                (WindowKind::Tumble { size }, counted_in, StepUnit::Tick)
            }
            Self::Hop { slide, size } => {
                let (slide, size) = match (units("slide", slide), units("size", size)) {
                    (Ok(slide), Ok(size)) if slide.1 == size.1 => (slide, size),
                    _ => return Err(not_aligned()),
                };
                (WindowKind::Hop { slide: slide.0, size: size.0 }, size.1, StepUnit::Tick)
            }
            Self::Cumulate { step, size } => {
                let (size, counted_in) = units("size", size)?;
                let (step, step_unit) = if step.is_constant() {
                    (step.ticks(unit)?, StepUnit::Tick)
                } else {
                    match units("step", step)? {
                        (step, CalendarUnit::Day) => (step, StepUnit::Day),
                        (step, CalendarUnit::Month) => (step, StepUnit::Month),
                    }
                };
                (WindowKind::Cumulate { step, size }, counted_in, step_unit)
            }
        };
        let (offset, shift_seconds) = shifted(offset, counted_in)?;
        let ticks_per_second = time::ticks_per_second(unit);
        let calendar =
            Calendar { unit: counted_in, step_unit, zone, ticks_per_second, shift_seconds };
        WindowSpec::of_calendar(kind, offset, calendar)
    }
}

/// A length as a number of whole days or months.
fn units(name: &str, length: Length) -> Result<(i64, CalendarUnit)> {
    match length {
        Length { months, days: 0, nanos: 0 } if months != 0 => Ok((months, CalendarUnit::Month)),
        Length { months: 0, days, nanos: 0 } if days != 0 => Ok((days, CalendarUnit::Day)),
        Length { months: 0, days: 0, .. } => Err(Error::sql(format!(
            "the {name} of the window is in hours or less, which are as long in every time zone"
        ))
        .with_hint(
            "Leave the time zone out, or write whole days or months: INTERVAL '1 day', 'Europe/Berlin'.",
        )),
        _ => Err(Error::sql(format!(
            "the {name} of the window is neither a whole number of days nor of months"
        ))
        .with_hint("Windows that follow the calendar have whole days, or whole months.")),
    }
}

fn not_aligned() -> Error {
    Error::sql("the slide and the size of HOP are not both days or both months, so its windows are not made of the same pieces")
        .with_hint("Use the same unit for both: HOP(…, INTERVAL '1 month', INTERVAL '3 months').")
        .with_hint("CUMULATE(…, INTERVAL '1 day', INTERVAL '1 month') gives the month so far, every day.")
        .with_hint("A day of 24 hours, whatever the time zone, is INTERVAL '24 hours'.")
}

/// An offset as a number of days or months, and the seconds from the start of the day or month.
fn shifted(offset: Length, unit: CalendarUnit) -> Result<(i64, i64)> {
    if offset.nanos % NANOS_PER_SECOND != 0 {
        return Err(Error::sql(
            "the offset of a window of days or months is not a whole number of seconds",
        ));
    }
    let seconds = i128::from(offset.days) * SECONDS_PER_DAY + offset.nanos / NANOS_PER_SECOND;
    let (units, seconds) = match unit {
        CalendarUnit::Day if offset.months != 0 => {
            return Err(Error::sql("the offset has months, but the window has none"));
        }
        CalendarUnit::Day => {
            (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY))
        }
        CalendarUnit::Month if (0..DAYS_OF_EVERY_MONTH * SECONDS_PER_DAY).contains(&seconds) => {
            (offset.months.into(), seconds)
        }
        CalendarUnit::Month => {
            let e = Error::sql("the offset of a window of months is not within the month");
            return Err(e.with_hint("Use months, and at most 28 days: INTERVAL '4 days 6 hours'."));
        }
    };
    let whole = |n: i128| i64::try_from(n).map_err(|_| Error::sql("the offset is too long"));
    Ok((whole(units)?, whole(seconds)?))
}
