//! Slices and windows of days and months in the local time of a time zone.
//!
//! Days and months are numbered from 1970, and windows have a number of them: the arithmetic on ticks for other windows
//! is done on these numbers here. Steps of CUMULATE are counted from the start of the longest window, so that they need
//! not divide it.
//!
//! Invariants: units tile time, in order, whatever the clocks do: if the clocks are set back across midnight, the day
//! begins with the first midnight. Arithmetic saturates, so that no time panics; for the times of
//! [`WindowSpec::valid_times`](windrow_core::WindowSpec::valid_times) it is exact.

use windrow_core::{Calendar, CalendarUnit, StepUnit, WindowKind};

const DAY: i64 = 86_400;
/// The greatest offset of local time from UTC, in seconds.
const AHEAD_MAX: i64 = DAY;
/// Units end before the year 200,000.
const UNIT_MAX: i64 = Calendar::SECONDS_MAX / DAY;

/// The slices of calendar windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CalendarSlicing {
    kind: WindowKind,
    offset: i64,
    /// In units; for CUMULATE the step, in its own unit.
    width: i64,
    calendar: Calendar,
}

impl CalendarSlicing {
    /// `width` is that of the slices of windows in units.
    pub(crate) fn new(kind: WindowKind, offset: i64, width: i64, calendar: Calendar) -> Self {
        Self { kind, offset, width, calendar }
    }

    /// The start and the end of the slice that contains `time`.
    pub(crate) fn slice(&self, time: i64) -> (i64, i64) {
        match self.kind {
            WindowKind::Cumulate { step, size } => self.step(time, step, size),
            _ => self.aligned(time, self.width),
        }
    }

    /// As [`Slicing::last_end`](crate::Slicing::last_end).
    pub(crate) fn last_end(&self, time: i64) -> i64 {
        match self.kind {
            WindowKind::Tumble { size } | WindowKind::Cumulate { size, .. } => {
                self.aligned(time, size).1
            }
            WindowKind::Hop { slide, size } => {
                self.start(self.floor(self.unit(time), slide).saturating_add(size))
            }
        }
    }

    /// As [`Slicing::end_after`](crate::Slicing::end_after).
    pub(crate) fn end_after(&self, time: i64, closed: i64) -> i64 {
        let after = time.max(closed);
        match self.kind {
            WindowKind::Tumble { size } => self.aligned(after, size).1,
            WindowKind::Hop { slide, size } => {
                let first = self.floor(self.unit(after).saturating_sub(size), slide);
                self.start(first.saturating_add(slide).saturating_add(size))
            }
            WindowKind::Cumulate { step, size } => self.step(after, step, size).1,
        }
    }

    /// As [`Slicing::start_of`](crate::Slicing::start_of).
    pub(crate) fn start_of(&self, end: i64) -> i64 {
        match self.kind {
            WindowKind::Tumble { size } | WindowKind::Hop { size, .. } => {
                // From the last unit that has an instant: a zone that crossed the date line has skipped a day.
                let after = self.unit(end.saturating_sub(1)).saturating_add(1);
                self.start(after.saturating_sub(size))
            }
            WindowKind::Cumulate { size, .. } => self.aligned(end.saturating_sub(1), size).0,
        }
    }

    /// The number of windows that end after `end` and up to `last`; approximate if the length of steps varies.
    pub(crate) fn windows_between(&self, end: i64, last: i64) -> u64 {
        let units = self.unit(last).abs_diff(self.unit(end));
        match self.kind {
            WindowKind::Tumble { size: every } | WindowKind::Hop { slide: every, .. } => {
                units / every.unsigned_abs()
            }
            WindowKind::Cumulate { step, .. } => match self.calendar.step_unit {
                StepUnit::Tick => last.abs_diff(end) / step.unsigned_abs(),
                _ if self.calendar.steps_in_units() => units.div_ceil(step.unsigned_abs()),
                _ => {
                    let days = self.calendar.seconds(DAY).unsigned_abs();
                    last.abs_diff(end) / days / step.unsigned_abs()
                }
            },
        }
    }

    /// The start and the end of the `width` units that contain `time`.
    fn aligned(&self, time: i64, width: i64) -> (i64, i64) {
        let first = self.floor(self.unit(time), width);
        (self.start(first), self.start(first.saturating_add(width)))
    }

    /// The start and the end of the step that contains `time`.
    fn step(&self, time: i64, step: i64, size: i64) -> (i64, i64) {
        let (start, end) = self.aligned(time, size);
        let steps = |unit: CalendarUnit| {
            let first = self.unit_of(unit, start);
            let gone = self.unit_of(unit, time).saturating_sub(first);
            let from = first.saturating_add(gone - gone.rem_euclid(step));
            (self.start_of_unit(unit, from), self.start_of_unit(unit, from.saturating_add(step)))
        };
        let (from, to) = match self.calendar.step_unit {
            StepUnit::Tick => {
                let gone = time.saturating_sub(start);
                let from = start.saturating_add(gone - gone.rem_euclid(step));
                (from, from.saturating_add(step))
            }
            StepUnit::Day => steps(CalendarUnit::Day),
            StepUnit::Month => steps(CalendarUnit::Month),
        };
        (from.max(start), to.min(end))
    }

    fn floor(&self, unit: i64, width: i64) -> i64 {
        let shifted = unit.saturating_sub(self.offset);
        shifted.saturating_sub(shifted.rem_euclid(width)).saturating_add(self.offset)
    }

    fn unit(&self, time: i64) -> i64 {
        self.unit_of(self.calendar.unit, time)
    }

    fn start(&self, unit: i64) -> i64 {
        self.start_of_unit(self.calendar.unit, unit)
    }

    /// The number of the day or month that contains `time`.
    fn unit_of(&self, unit: CalendarUnit, time: i64) -> i64 {
        let Calendar { zone, ticks_per_second, shift_seconds, .. } = self.calendar;
        let seconds = time.div_euclid(ticks_per_second);
        let seconds = seconds.clamp(-Calendar::SECONDS_MAX, Calendar::SECONDS_MAX);
        let shown = seconds + zone.ahead_of_utc(seconds) - shift_seconds;
        let day = shown.div_euclid(DAY);
        let found = match unit {
            CalendarUnit::Day => day,
            CalendarUnit::Month => month_of_day(day),
        };
        // Clocks that were set back across midnight show the previous day again, which has ended.
        if self.start_of_unit(unit, found + 1) <= time { found + 1 } else { found }
    }

    /// The first instant of a day or month.
    fn start_of_unit(&self, unit: CalendarUnit, number: i64) -> i64 {
        let day = match unit {
            CalendarUnit::Day => number,
            CalendarUnit::Month => first_day_of_month(number.clamp(-UNIT_MAX, UNIT_MAX)),
        };
        if day > UNIT_MAX {
            return i64::MAX;
        }
        if day < -UNIT_MAX {
            return i64::MIN;
        }
        let shown = day * DAY + self.calendar.shift_seconds;
        self.calendar.seconds(self.first_instant(shown))
    }

    /// The first second at which the local time is `shown` (seconds after 1970-01-01 00:00) or later.
    fn first_instant(&self, shown: i64) -> i64 {
        let ahead = |seconds| self.calendar.zone.ahead_of_utc(seconds);
        let before = shown - ahead(shown - AHEAD_MAX);
        let after = shown - ahead(shown + AHEAD_MAX);
        let (mut low, mut high) = (before.min(after), before.max(after));
        let is_shown = |instant: i64| instant + ahead(instant) >= shown;
        if is_shown(low) {
            return low;
        }
        // The clocks are changed in between.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if is_shown(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }
}

/// The month of a day, both numbered from 1970-01-01. (The calendar repeats every 400 years; here a year begins in
/// March, so that the leap day is its last.)
fn month_of_day(day: i64) -> i64 {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    (era * 400 + year - 1_970) * 12 + from_march + 2
}

/// The first day of a month, both numbered from 1970-01-01.
fn first_day_of_month(month: i64) -> i64 {
    let from_march = month + 1_970 * 12 - 2;
    let (year, of_year) = (from_march.div_euclid(12), from_march.rem_euclid(12));
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days = of_era * 365 + of_era / 4 - of_era / 100 + (153 * of_year + 2) / 5;
    era * 146_097 + days - 719_468
}

#[cfg(test)]
mod tests {
    use windrow_core::Zone;

    use super::*;

    fn slicing(
        kind: WindowKind,
        unit: CalendarUnit,
        step_unit: StepUnit,
        zone: &str,
    ) -> CalendarSlicing {
        let zone = Zone::of(zone).unwrap();
        let calendar = Calendar { unit, step_unit, zone, ticks_per_second: 1, shift_seconds: 0 };
        CalendarSlicing::new(kind, 0, 1, calendar)
    }

    fn days(zone: &str) -> CalendarSlicing {
        slicing(WindowKind::Tumble { size: 1 }, CalendarUnit::Day, StepUnit::Day, zone)
    }

    #[test]
    fn months_and_their_days() {
        for (day, month) in [(0, 0), (30, 0), (31, 1), (-1, -1), (59, 2), (19_782, 649)] {
            assert_eq!(month_of_day(day), month, "day {day}");
        }
        for month in -30_000..30_000 {
            let first = first_day_of_month(month);
            assert_eq!(month_of_day(first), month);
            assert_eq!(month_of_day(first - 1), month - 1);
        }
    }

    #[test]
    fn days_of_23_and_25_hours() {
        let hours = |of: i64| {
            let (start, end) = days("Europe/Berlin").slice(of);
            assert!((start..end).contains(&of));
            (end - start) / 3_600
        };
        assert_eq!(hours(1_711_850_000), 23); // 2024-03-31
        assert_eq!(hours(1_729_990_000), 25); // 2024-10-27
        assert_eq!(hours(1_730_100_000), 24);
    }

    #[test]
    fn midnight_that_never_comes_and_that_comes_twice() {
        // 2018-11-04 in São Paulo: 00:00 to 01:00 is skipped.
        let skipped = 1_541_300_400;
        let (start, end) = days("America/Sao_Paulo").slice(skipped);
        assert_eq!((start, end - start), (skipped, 23 * 3_600));
        // 2010-11-07 in St. John's: at 00:01 it is 23:01 again. The day has begun by then.
        let midnight = 1_289_097_000;
        let zone = days("America/St_Johns");
        assert_eq!(zone.slice(midnight).0, midnight);
        assert_eq!(zone.slice(midnight + 600).0, midnight);
        assert_eq!(zone.slice(midnight - 1).1, midnight);
    }

    #[test]
    fn slices_tile_time_in_every_zone() {
        for zone in
            ["Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Asia/Kathmandu", "+05:30"]
        {
            for unit in [CalendarUnit::Day, CalendarUnit::Month] {
                let units = slicing(WindowKind::Tumble { size: 1 }, unit, StepUnit::Day, zone);
                let mut at = 1_260_000_000;
                while at < 1_340_000_000 {
                    let (start, end) = units.slice(at);
                    assert!(start <= at && at < end, "{zone} {at}");
                    assert_eq!(units.slice(start), (start, end));
                    assert_eq!(units.slice(end - 1), (start, end));
                    assert_eq!(units.end_after(start, i64::MIN), end);
                    assert_eq!(units.start_of(end), start);
                    at = end;
                }
            }
        }
    }

    #[test]
    fn steps_are_counted_from_the_start_of_the_month() {
        let kind = WindowKind::Cumulate { step: 10, size: 1 };
        let steps = slicing(kind, CalendarUnit::Month, StepUnit::Day, "UTC");
        let day = |n: i64| n * DAY;
        // January 1970 has 31 days: the last step is one day.
        assert_eq!(steps.slice(day(29)), (day(20), day(30)));
        assert_eq!(steps.slice(day(30)), (day(30), day(31)));
        assert_eq!(steps.end_after(0, day(10)), day(20));
        assert_eq!(steps.start_of(day(31)), 0);
        assert_eq!(steps.start_of(day(41)), day(31));
        assert_eq!(steps.last_end(5), day(31));
    }

    #[test]
    fn times_beyond_the_calendar_do_not_panic() {
        for zone in ["UTC", "Europe/Berlin"] {
            for time in [i64::MIN, i64::MIN + 1, -Calendar::SECONDS_MAX, i64::MAX - 1, i64::MAX] {
                let all = days(zone);
                all.slice(time);
                all.last_end(time);
                all.start_of(time);
                all.end_after(time, i64::MAX);
            }
        }
    }
}
