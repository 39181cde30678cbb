//! Event time and the watermark.
//!
//! Event times are `i64` in the unit of their column ("ticks"): a column of microseconds is compared, cut into windows
//! and closed in microseconds, so that no precision is lost and no value is multiplied by a thousand.

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};

use crate::sql_type;
use crate::{Error, Result};

/// Adds the seconds to the text of a timestamp that lacks them: `2026-03-04 05:06` becomes `2026-03-04 05:06:00`, as in
/// PostgreSQL and DuckDB. `None`: it has seconds, or is no such text. (Arrow's casts require seconds.)
pub fn with_seconds(text: &str) -> Option<String> {
    let text = text.trim();
    let (date, rest) = text.split_at_checked("2026-03-04 05:06".len())?;
    let bytes = date.as_bytes();
    let is_minute = bytes.get(4) == Some(&b'-')
        && matches!(bytes.get(10), Some(b' ' | b'T'))
        && bytes.get(13) == Some(&b':')
        && bytes.get(14..).is_some_and(|minute| minute.iter().all(u8::is_ascii_digit));
    let ends = rest.is_empty() || rest.starts_with(['Z', '+', '-', ' ']);
    (is_minute && ends).then(|| format!("{date}:00{rest}"))
}

/// A promise that no more rows with an event time below it will come. It never moves back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[must_use]
pub struct Watermark(i64);

impl Watermark {
    /// Nothing is promised yet.
    pub const NONE: Self = Self(i64::MIN);
    /// No more rows at all: the input has ended.
    pub const END: Self = Self(i64::MAX);

    /// Returns the watermark at `ticks`.
    pub fn at(ticks: i64) -> Self {
        Self(ticks)
    }

    /// The watermark in ticks of the event-time column; `i64::MIN` before any promise, `i64::MAX` at the end.
    pub fn ticks(self) -> i64 {
        self.0
    }

    /// Returns the later of the two: a watermark never moves back.
    pub fn advance(self, to: Self) -> Self {
        self.max(to)
    }

    /// Returns this watermark `ticks` earlier; [`NONE`](Self::NONE) and [`END`](Self::END) are unchanged.
    pub fn delayed(self, ticks: i64) -> Self {
        match self {
            Self::NONE | Self::END => self,
            Self(w) => Self(w.saturating_sub(ticks).max(i64::MIN + 1)),
        }
    }

    /// Whether a window that ends at `end` (exclusive) is closed.
    pub fn closes(self, end: i64) -> bool {
        self.0 >= end
    }
}

/// The event-time column of a stream, and how far rows may be out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventTimeColumn {
    /// Index of the column in the stream's schema; always a timestamp.
    pub index: usize,
    /// The declared delay in ticks: `WATERMARK FOR ts AS ts - delay`.
    pub delay_ticks: i64,
}

/// The columns of a stream, with a validated event-time column where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSchema {
    schema: SchemaRef,
    event_time: Option<EventTimeColumn>,
}

impl StreamSchema {
    /// Checks that the event-time column exists and is a timestamp.
    ///
    /// # Errors
    /// When it does not exist or is not a timestamp.
    pub fn try_new(schema: SchemaRef, event_time: Option<EventTimeColumn>) -> Result<Self> {
        if let Some(column) = event_time {
            let field = schema.fields().get(column.index).ok_or_else(|| {
                Error::internal(format!("event-time column {} does not exist", column.index))
            })?;
            if time_unit(field.data_type()).is_none() {
                return Err(Error::sql(format!(
                    "event-time column \"{}\" is {}, not a timestamp",
                    field.name(),
                    sql_type(field.data_type())
                ))
                .with_hint("Declare it as TIMESTAMP, or add a generated column that casts it."));
            }
        }
        Ok(Self { schema, event_time })
    }

    /// All columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The event-time column, if the stream has a watermark.
    pub fn event_time(&self) -> Option<EventTimeColumn> {
        self.event_time
    }
}

/// The unit of a timestamp type; `None` for every other type.
pub fn time_unit(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Timestamp(unit, _) => Some(*unit),
        _ => None,
    }
}

/// How many ticks of `unit` make one second.
pub fn ticks_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Converts a duration in nanoseconds to ticks of `unit`.
///
/// # Errors
/// When it is not a whole number of ticks: the bounds of windows could not be represented.
pub fn nanos_to_ticks(nanos: i128, unit: TimeUnit) -> Result<i64> {
    let per_tick = 1_000_000_000 / i128::from(ticks_per_second(unit));
    if nanos % per_tick != 0 {
        return Err(Error::sql(format!(
            "an interval of {nanos} ns is not a whole number of the time column's unit ({unit:?})"
        ))
        .with_hint("Use a coarser interval, or cast the time column to a finer timestamp."));
    }
    i64::try_from(nanos / per_tick)
        .map_err(|_| Error::sql("the interval is too long for the time column's unit"))
}

/// Converts ticks of `unit` to µs since the epoch, rounded down and saturating (for comparison with the wall clock and
/// for display).
pub fn ticks_to_micros(ticks: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => ticks.saturating_mul(1_000_000),
        TimeUnit::Millisecond => ticks.saturating_mul(1_000),
        TimeUnit::Microsecond => ticks,
        TimeUnit::Nanosecond => ticks.div_euclid(1_000),
    }
}
