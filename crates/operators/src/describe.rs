//! Descriptions of operators, for EXPLAIN.

use std::fmt;

use arrow::datatypes::{SchemaRef, TimeUnit};
use windrow_core::{CalendarUnit, SessionSpec, StepUnit, WindowKind, WindowSpec, Windows, time};

use crate::slicing::Slicing;
use crate::spec::Mode;

/// Returns a description of the windows, with lengths in ticks of `unit`.
pub fn describe_windows(windows: Windows, unit: TimeUnit) -> String {
    match windows {
        Windows::Aligned(window) => aligned(window, unit),
        Windows::Session(session) => describe_session(session, unit),
    }
}

fn describe_session(session: SessionSpec, unit: TimeUnit) -> String {
    format!("SESSION gap {}", Length { ticks: session.gap(), unit })
}

/// The length of a window, as text.
fn length(spec: WindowSpec, ticks: i64, unit: TimeUnit) -> String {
    match spec.calendar() {
        None => Length { ticks, unit }.to_string(),
        Some(calendar) => of_units(ticks, calendar.unit),
    }
}

/// The step of a cumulating window, as text.
fn step(spec: WindowSpec, ticks: i64, unit: TimeUnit) -> String {
    match spec.calendar().map(|calendar| calendar.step_unit) {
        None | Some(StepUnit::Tick) => Length { ticks, unit }.to_string(),
        Some(StepUnit::Day) => of_units(ticks, CalendarUnit::Day),
        Some(StepUnit::Month) => of_units(ticks, CalendarUnit::Month),
    }
}

fn aligned(spec: WindowSpec, unit: TimeUnit) -> String {
    let length = |ticks| length(spec, ticks, unit);
    let step = |ticks| step(spec, ticks, unit);
    let mut text = match spec.kind() {
        WindowKind::Tumble { size } => format!("TUMBLE size {}", length(size)),
        WindowKind::Hop { slide, size } => {
            format!("HOP slide {} size {}", length(slide), length(size))
        }
        WindowKind::Cumulate { step: by, size } => {
            format!("CUMULATE step {} size {}", step(by), length(size))
        }
    };
    if spec.offset() != 0 {
        text.push_str(&format!(" offset {}", length(spec.offset())));
    }
    if let Some(calendar) = spec.calendar() {
        if calendar.shift_seconds != 0 {
            text.push_str(&format!(" shift {} s", calendar.shift_seconds));
        }
        text.push_str(&format!(" in {}", calendar.zone));
    }
    text
}

/// The unit of state of windows: the period for which one value per key is kept, and for how long.
pub(crate) fn describe_kept(spec: WindowSpec, slicing: &Slicing, unit: TimeUnit) -> String {
    let length = |ticks| length(spec, ticks, unit);
    match (spec.kind(), slicing.width()) {
        (WindowKind::Tumble { size }, _) => length(size),
        (WindowKind::Hop { size, .. }, Some(ticks)) => {
            format!("{}, for {}", Length { ticks, unit }, length(size))
        }
        (WindowKind::Hop { slide, size }, None) => {
            format!("at most {}, for {}", length(slide), length(size))
        }
        (WindowKind::Cumulate { step: by, size }, _) => {
            format!("{}, for {}", step(spec, by, unit), length(size))
        }
    }
}

fn of_units(number: i64, unit: CalendarUnit) -> String {
    let name = match unit {
        CalendarUnit::Day => "day",
        CalendarUnit::Month => "month",
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {name}{plural}")
}

/// A length of time: in seconds if it is a whole number of them.
pub(crate) struct Length {
    pub(crate) ticks: i64,
    pub(crate) unit: TimeUnit,
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = time::ticks_per_second(self.unit);
        if self.ticks % per_second == 0 {
            return write!(f, "{} s", self.ticks / per_second);
        }
        let unit = match self.unit {
            TimeUnit::Second => "s",
            TimeUnit::Millisecond => "ms",
            TimeUnit::Microsecond => "µs",
            TimeUnit::Nanosecond => "ns",
        };
        write!(f, "{} {unit}", self.ticks)
    }
}

/// Writes what is computed from the rows of a window, and what is kept for it per `part` of time.
pub(crate) fn describe_mode(
    f: &mut fmt::Formatter<'_>,
    input: &SchemaRef,
    mode: &Mode,
    part: &str,
) -> fmt::Result {
    let Mode::Aggregate { keys, .. } = mode else {
        return write!(f, ", keeps rows of {part}");
    };
    describe_aggregate(f, input, mode)?;
    let key = if keys.is_empty() { "" } else { " key and" };
    write!(f, ", keeps a value per{key} {part}")
}

/// Writes keys and aggregates.
pub(crate) fn describe_aggregate(
    f: &mut fmt::Formatter<'_>,
    input: &SchemaRef,
    mode: &Mode,
) -> fmt::Result {
    let Mode::Aggregate { keys, grouping_sets, aggregates } = mode else { return Ok(()) };
    write!(f, ", keys [{}]", names(input, keys))?;
    if let Some(sets) = grouping_sets {
        write!(f, " in {} grouping sets", sets.masks().len())?;
    }
    write!(f, ", aggregates [")?;
    for (i, call) in aggregates.iter().enumerate() {
        let comma = if i > 0 { ", " } else { "" };
        let distinct = if call.function.is_distinct() { "distinct " } else { "" };
        let arguments = names(input, &call.arguments);
        write!(f, "{comma}{}({distinct}{arguments})", call.function.fun().name())?;
        if let Some(filter) = call.filter {
            write!(f, " filter {}", name(input, filter))?;
        }
    }
    write!(f, "]")
}

/// The names of columns, separated by commas.
pub(crate) fn names(schema: &SchemaRef, columns: &[usize]) -> String {
    columns.iter().map(|column| name(schema, *column)).collect::<Vec<_>>().join(", ")
}

fn name(schema: &SchemaRef, column: usize) -> &str {
    schema.fields().get(column).map_or("?", |field| field.name().as_str())
}
