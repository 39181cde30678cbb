//! The calendar of a time zone, in whose days and months windows can be measured.
//!
//! A day begins when the clocks of the zone show midnight (or the first instant after it, where they skip it), and so does
//! a month: days have 23 or 25 hours where daylight saving time begins or ends, months have 28 to 31 days.

use std::cmp::Ordering;
use std::fmt;

use chrono::{DateTime, FixedOffset, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

use crate::{Error, Result};

/// A time zone: one of the IANA database, or a fixed distance from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Zone {
    /// By its name in the database.
    Named(Tz),
    /// An offset, in seconds east of UTC.
    Fixed(i32),
}

/// The unit of the lengths of calendar windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CalendarUnit {
    /// Days, numbered from 1970-01-01 on.
    Day,
    /// Months, numbered from January 1970 on.
    Month,
}

/// The unit of the step of a cumulating calendar window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepUnit {
    /// Ticks of the event-time column, from the start of the window on.
    Tick,
    /// Days, from the start of the window on.
    Day,
    /// Months, from the start of the window on.
    Month,
}

/// How windows follow the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Calendar {
    /// The unit of sizes, slides and offsets.
    pub unit: CalendarUnit,
    /// The unit of steps.
    pub step_unit: StepUnit,
    /// The time zone whose clocks days and months follow.
    pub zone: Zone,
    /// Ticks of the event-time column in one second.
    pub ticks_per_second: i64,
    /// When days and months begin, by those clocks: seconds after midnight.
    pub shift_seconds: i64,
}

impl Calendar {
    /// Times further than this many seconds from 1970 (200,000 years) are in no calendar window.
    pub const SECONDS_MAX: i64 = 200_000 * 366 * 86_400;

    /// Converts seconds to ticks, saturating.
    pub fn seconds(&self, seconds: i64) -> i64 {
        seconds.saturating_mul(self.ticks_per_second)
    }

    /// Whether steps and sizes are counted in the same unit.
    pub fn steps_in_units(&self) -> bool {
        matches!(
            (self.step_unit, self.unit),
            (StepUnit::Day, CalendarUnit::Day) | (StepUnit::Month, CalendarUnit::Month)
        )
    }

    /// Returns an upper bound of a step and a lower bound of a size, in a common unit.
    pub(crate) fn lengths(&self, step: i64, size: i64) -> (i64, i64) {
        if self.steps_in_units() {
            return (step, size);
        }
        let days = match self.unit {
            CalendarUnit::Day => size,
            CalendarUnit::Month => size.saturating_mul(28),
        };
        let step = match self.step_unit {
            StepUnit::Tick => step,
            StepUnit::Day => self.seconds(step.saturating_mul(86_400)),
            StepUnit::Month => self.seconds(step.saturating_mul(31 * 86_400)),
        };
        (step, self.seconds(days.saturating_mul(86_400)))
    }
}

impl CalendarUnit {
    /// An upper bound of the length of one unit, in seconds. A day may exceed 24 hours by a change of daylight saving
    /// time, or by another whole day where a zone has crossed the date line.
    pub fn seconds_max(self) -> i64 {
        match self {
            Self::Day => 2 * 86_400,
            Self::Month => 33 * 86_400,
        }
    }
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self::Fixed(0);

    /// Returns the zone of a name such as `Europe/Berlin` (whatever its case), or of an offset such as `+05:30`.
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn of(text: &str) -> Result<Self> {
        let text = text.trim();
        let offset = || text.parse::<FixedOffset>().ok().map(|o| Self::Fixed(o.local_minus_utc()));
        let named = || {
            let known = |zone: &&Tz| zone.name().eq_ignore_ascii_case(text);
            text.parse().ok().or_else(|| chrono_tz::TZ_VARIANTS.iter().find(known).copied())
        };
        match offset() {
            Some(fixed) => Ok(fixed),
            None => match named() {
                Some(Tz::UTC | Tz::Etc__UTC) => Ok(Self::UTC),
                Some(zone) => Ok(Self::Named(zone)),
                None => Err(Error::sql(format!("there is no time zone \"{text}\"")).with_hint(
                    "Write a name of the IANA database such as 'Europe/Berlin', or an offset such as '+05:30'.",
                )),
            },
        }
    }

    /// Returns how many seconds its clocks are ahead of UTC, `seconds` after 1970-01-01 00:00 UTC. Beyond the years that
    /// a calendar knows: 0.
    pub fn ahead_of_utc(self, seconds: i64) -> i64 {
        match self {
            Self::Fixed(ahead) => ahead.into(),
            Self::Named(zone) => DateTime::from_timestamp(seconds, 0).map_or(0, |at| {
                zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc().into()
            }),
        }
    }

    /// Returns the first instant at which its clocks show `local`; `None` where they never do.
    pub fn first_instant(self, local: &NaiveDateTime) -> Option<i64> {
        match self {
            Self::Fixed(ahead) => Some(local.and_utc().timestamp() - i64::from(ahead)),
            Self::Named(zone) => {
                zone.from_local_datetime(local).earliest().map(|instant| instant.timestamp())
            }
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(zone) => f.write_str(zone.name()),
            Self::Fixed(0) => f.write_str("UTC"),
            Self::Fixed(ahead) => {
                let sign = if *ahead < 0 { '-' } else { '+' };
                let minutes = ahead.unsigned_abs() / 60;
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

impl Ord for Zone {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Named(a), Self::Named(b)) => a.name().cmp(b.name()),
            (Self::Fixed(a), Self::Fixed(b)) => a.cmp(b),
            (Self::Named(_), Self::Fixed(_)) => Ordering::Less,
            (Self::Fixed(_), Self::Named(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Zone {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_names_or_offsets() {
        assert_eq!(Zone::of("UTC").unwrap(), Zone::UTC);
        assert_eq!(Zone::of("+05:30").unwrap(), Zone::Fixed(5 * 3600 + 1800));
        assert_eq!(Zone::of("-08:00").unwrap().to_string(), "-08:00");
        assert_eq!(Zone::of("europe/berlin").unwrap().to_string(), "Europe/Berlin");
        let e = Zone::of("Europe/Berln").unwrap_err();
        assert_eq!(e.message(), "there is no time zone \"Europe/Berln\"");
    }

    #[test]
    fn clocks_are_ahead_by_the_season() {
        let berlin = Zone::of("Europe/Berlin").unwrap();
        // 2024-03-31 01:00 UTC: clocks go from 02:00 to 03:00.
        let change = 1_711_846_800;
        assert_eq!(berlin.ahead_of_utc(change - 1), 3600);
        assert_eq!(berlin.ahead_of_utc(change), 7200);
        assert_eq!(berlin.ahead_of_utc(i64::MAX), 0);
    }
}
