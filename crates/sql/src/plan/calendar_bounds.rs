//! The bounds of calendar windows, for plans in which windows are plain expressions: see [`super::bounds`].
//!
//! Written independently of the window operator, with chrono's calendar: for the month of a date, and for the instant
//! of a date in a time zone. Times beyond that calendar have saturated bounds; the plan filters out their rows.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};
use windrow_core::{Calendar, CalendarUnit, StepUnit, WindowKind, WindowSpec};

/// The longest gap in local time of any zone, in seconds.
const SKIPPED_MAX: i64 = 2 * 86_400;

/// The days or months by which windows are counted; caches the latest result.
#[derive(Debug)]
pub(super) struct Grid {
    kind: WindowKind,
    offset: i64,
    calendar: Calendar,
    /// The start and end of the latest period, and its size.
    last: Option<(i64, i64, i64)>,
    /// The start of the latest cumulating windows, and all their ends.
    steps: Option<(i64, Vec<i64>)>,
}

impl Grid {
    /// The grid of `spec`, if its windows follow the calendar.
    pub(super) fn of(spec: WindowSpec) -> Option<Self> {
        let calendar = spec.calendar()?;
        Some(Self { kind: spec.kind(), offset: spec.offset(), calendar, last: None, steps: None })
    }

    /// The start and end of the longest of the windows that contain `time` and begin last: for TUMBLE its only window,
    /// and for others the one that begins at `time`, if one does.
    pub(super) fn last_window(&mut self, time: i64) -> (i64, i64) {
        match self.kind {
            WindowKind::Tumble { size } | WindowKind::Cumulate { size, .. } => {
                self.period(time, size)
            }
            WindowKind::Hop { slide, size } => {
                let unit = self.calendar.unit;
                let since = (self.number(unit, time) - self.offset).rem_euclid(slide);
                let first = self.number(unit, time) - since;
                (self.instant(unit, first), self.instant(unit, first + size))
            }
        }
    }

    /// The start of the window that ends at `end`.
    pub(super) fn start_of_end(&mut self, end: i64) -> i64 {
        match self.kind {
            WindowKind::Cumulate { size, .. } => self.period(end.saturating_sub(1), size).0,
            WindowKind::Tumble { size } | WindowKind::Hop { size, .. } => {
                let last = self.number(self.calendar.unit, end.saturating_sub(1));
                self.instant(self.calendar.unit, last + 1 - size)
            }
        }
    }

    /// The start of the slice of `time`.
    pub(super) fn slice(&mut self, time: i64) -> i64 {
        match self.kind {
            WindowKind::Tumble { size } => self.period(time, size).0,
            WindowKind::Hop { slide, size } => {
                let width = (1..=slide).rev().find(|w| slide % w == 0 && size % w == 0);
                self.period(time, width.unwrap_or(1)).0
            }
            WindowKind::Cumulate { step, size } => {
                let (start, end) = self.period(time, size);
                let ends = self.steps(start, end, step);
                let gone = ends.partition_point(|end| *end <= time);
                gone.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or(start)
            }
        }
    }

    /// Appends the ends of all windows of `time`, ascending.
    pub(super) fn push_ends(&mut self, time: i64, ends: &mut Vec<i64>) {
        match self.kind {
            WindowKind::Tumble { size } => ends.push(self.period(time, size).1),
            WindowKind::Hop { slide, size } => {
                let unit = self.calendar.unit;
                let number = self.number(unit, time);
                let starts = (number - size + 1)..=number;
                let starts = starts.filter(|n| (n - self.offset).rem_euclid(slide) == 0);
                // Of windows that differ only by a day that the zone has skipped, the first one counts.
                let mut all: Vec<i64> = starts.map(|n| self.instant(unit, n + size)).collect();
                all.dedup();
                ends.append(&mut all);
            }
            WindowKind::Cumulate { step, size } => {
                let (start, end) = self.period(time, size);
                let all = self.steps(start, end, step);
                let gone = all.partition_point(|end| *end <= time);
                ends.extend(all.iter().skip(gone));
            }
        }
    }

    /// The ends of the windows that begin at `start`, the last of which ends at `end`.
    fn steps(&mut self, start: i64, end: i64, step: i64) -> &[i64] {
        if self.steps.as_ref().is_none_or(|(known, _)| *known != start) {
            let unit = match self.calendar.step_unit {
                StepUnit::Tick => None,
                StepUnit::Day => Some(CalendarUnit::Day),
                StepUnit::Month => Some(CalendarUnit::Month),
            };
            let first = unit.map_or(0, |unit| self.number(unit, start));
            let at = |n: i64| match unit {
                None => start.saturating_add(step.saturating_mul(n)),
                Some(unit) => self.instant(unit, first.saturating_add(step.saturating_mul(n))),
            };
            let ends: Vec<i64> = (1..).map(at).take_while(|at| *at < end).chain([end]).collect();
            self.steps = Some((start, ends));
        }
        self.steps.as_ref().map_or(&[], |(_, ends)| ends)
    }

    /// The start and end of the `size` units that contain `time`.
    fn period(&mut self, time: i64, size: i64) -> (i64, i64) {
        if let Some((from, to, of)) = self.last
            && of == size
            && from <= time
            && time < to
        {
            return (from, to);
        }
        let unit = self.calendar.unit;
        let first = self.offset + (self.number(unit, time) - self.offset).div_euclid(size) * size;
        let (from, to) = (self.instant(unit, first), self.instant(unit, first + size));
        self.last = Some((from, to, size));
        (from, to)
    }

    /// The number of the last day or month that has begun at `time`.
    fn number(&self, unit: CalendarUnit, time: i64) -> i64 {
        let seconds = time.div_euclid(self.calendar.ticks_per_second);
        let ahead = self.calendar.zone.ahead_of_utc(seconds) - self.calendar.shift_seconds;
        let shown = DateTime::from_timestamp(seconds.saturating_add(ahead), 0);
        let Some(date) = shown.map(|shown| shown.naive_utc().date()) else {
            return if time < 0 { -Calendar::SECONDS_MAX } else { Calendar::SECONDS_MAX };
        };
        let number = match unit {
            CalendarUnit::Day => (date - NaiveDate::default()).num_days(),
            CalendarUnit::Month => (i64::from(date.year()) - 1970) * 12 + i64::from(date.month0()),
        };
        // When clocks are set back, they may show an earlier date again.
        (number..=number + 1).rev().find(|n| self.instant(unit, *n) <= time).unwrap_or(number)
    }

    /// The first instant of a day or month.
    fn instant(&self, unit: CalendarUnit, number: i64) -> i64 {
        let beyond = if number < 0 { i64::MIN } else { i64::MAX };
        let epoch = NaiveDate::default();
        let count = number.unsigned_abs();
        let date = match unit {
            CalendarUnit::Day if number < 0 => epoch.checked_sub_days(Days::new(count)),
            CalendarUnit::Day => epoch.checked_add_days(Days::new(count)),
            CalendarUnit::Month => u32::try_from(count).ok().and_then(|count| match number {
                ..0 => epoch.checked_sub_months(Months::new(count)),
                _ => epoch.checked_add_months(Months::new(count)),
            }),
        };
        let shown = date.map(|date| NaiveDateTime::new(date, NaiveTime::MIN));
        let shown = shown
            .and_then(|at| at.checked_add_signed(TimeDelta::seconds(self.calendar.shift_seconds)));
        let Some(shown) = shown else { return beyond };
        // A period that begins within a gap of local time begins at the end of the gap.
        let instant = (0..=SKIPPED_MAX).find_map(|skipped| {
            let shown = shown.checked_add_signed(TimeDelta::seconds(skipped))?;
            self.calendar.zone.first_instant(&shown)
        });
        instant.map_or(beyond, |seconds| self.calendar.seconds(seconds))
    }
}
