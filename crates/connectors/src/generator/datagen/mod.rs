//! `connector = 'datagen'`: generated values for declared columns.
//!
//! A value depends on the seed, the name of its column and the number of its row, so a column keeps its values when
//! others are added beside it. The options of a column are `fields.<name>.…`; the names of Flink's datagen are accepted
//! as well.

mod columns;

use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use windrow_core::time::{ticks_per_second, time_unit};
use windrow_core::{Error, Result, Source};

use self::columns::Column;
use super::settings::Settings;
use super::source::{Generator, MakeRows, Pace, below, mix};
use crate::env::{ConnectorEnv, Declared};
use crate::options::{OptionDoc, StreamOptions, bad_value, nearest};

/// 2024-01-01 00:00:00 UTC.
const START_NANOS: i64 = 1_704_067_200_000_000_000;

/// Default distance between the event times of two rows.
const INTERVAL_NANOS: i64 = 1_000_000;

/// The options of `connector = 'datagen'`.
pub const DATAGEN_OPTIONS: &[OptionDoc] = &[
    doc("rows", "number", "", "The number of rows; without it the stream never ends."),
    doc("number-of-rows", "number", "", "Flink's name for rows."),
    doc("rate", "number", "", "Rows per second of wall clock; without it as fast as possible."),
    doc("rows-per-second", "number", "", "Flink's name for rate."),
    doc("seed", "number", "0", "The seed of the values: the same seed gives the same values."),
    doc(
        "start",
        "timestamp | ms since 1970 | now",
        "2024-01-01 00:00:00",
        "The event time of the first row; with 'now' the rows do not repeat.",
    ),
    doc(
        "interval",
        "interval",
        "1 second / rate, or else 1 ms",
        "The interval between the event times of two rows.",
    ),
    doc(
        "disorder",
        "interval",
        "0 ms",
        "The maximum interval by which an event time is moved back.",
    ),
    doc(
        "fields.*.kind",
        "random | sequence | event_time",
        "event_time for timestamps, else random",
        "How the values of the column are generated.",
    ),
    doc("fields.*.min", "value", "0", "Smallest random value."),
    doc("fields.*.max", "value", "1000000 (numbers with a fraction: 1)", "Largest random value."),
    doc("fields.*.cardinality", "number", "", "The maximum number of different values."),
    doc("fields.*.values", "a,b,c", "", "The values to choose from."),
    doc("fields.*.length", "number", "8", "Letters of a random text."),
    doc("fields.*.null_share", "0 to 1", "0", "The share of rows in which the column is NULL."),
    doc("fields.*.null-rate", "0 to 1", "0", "Flink's name for null_share."),
    doc("fields.*.start", "number", "0", "First value of a sequence."),
    doc("fields.*.end", "number", "", "Last value of a sequence; the stream ends with it."),
];

const fn doc(
    name: &'static str,
    values: &'static str,
    default: &'static str,
    doc: &'static str,
) -> OptionDoc {
    OptionDoc { name, values, default, doc }
}

/// Opens a stream of generated rows with the declared columns.
///
/// # Errors
/// Without declared columns; for an option that cannot be parsed, that belongs to no column, or that does not apply to
/// the column's type.
pub fn datagen(
    options: &[(String, String)],
    declared: &Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    let options = StreamOptions::try_new("datagen", options, DATAGEN_OPTIONS)?;
    let settings = Settings::new(&options);
    let schema = declared.schema.clone().ok_or_else(|| {
        Error::config("a stream with connector \"datagen\" needs declared columns")
            .with_hint("List them: CREATE STREAM s (id BIGINT, ts TIMESTAMP, …) WITH (…).")
    })?;
    check_field_names(&options, &schema)?;
    let rate = settings.number(&["rate", "rows-per-second"], 1, u64::MAX)?;
    let by_rate = rate.map(|r| i64::try_from((1_000_000_000 / r).max(1)).unwrap_or(i64::MAX));
    let jitter_nanos = settings.nanos("disorder")?.unwrap_or(0).unsigned_abs();
    let times = EventTimes {
        start_nanos: settings.instant("start", env.clock.as_ref())?.unwrap_or(START_NANOS),
        interval_nanos: settings.nanos("interval")?.or(by_rate).unwrap_or(INTERVAL_NANOS),
        jitter_nanos,
        seed: settings.number(&["seed"], 0, u64::MAX)?.unwrap_or(0),
    };
    let columns = schema
        .fields()
        .iter()
        .map(|field| Column::try_new(field, &settings, &times))
        .collect::<Result<Vec<_>>>()?;
    let ends = columns.iter().filter_map(Column::rows_max);
    let rows = settings.number(&["rows", "number-of-rows"], 0, u64::MAX)?;
    let rows = rows.into_iter().chain(ends).min();
    let known_times = declared.event_time.as_ref().and_then(|name| {
        let (index, field) = schema.column_with_name(name)?;
        let exact = jitter_nanos == 0 && columns.get(index)?.is_plain_event_time();
        exact.then(|| time_unit(field.data_type())).flatten()
    });
    Ok(Arc::new(Generator {
        name: "datagen".to_owned(),
        columns: (0..columns.len()).collect(),
        schema,
        rows,
        pace: rate.map(|rate| Pace::new(rate, &env.clock)),
        is_replayable: !settings.is_now("start"),
        maker: Arc::new(Rows { columns, times, known_times }),
    }))
}

/// Checks that every `fields.<name>.…` refers to a declared column.
fn check_field_names(options: &StreamOptions<'_>, schema: &arrow::datatypes::Schema) -> Result<()> {
    for (key, _) in options.iter() {
        let Some((name, _)) = key.strip_prefix("fields.").and_then(|k| k.rsplit_once('.')) else {
            continue;
        };
        if schema.fields().iter().any(|field| field.name().to_lowercase() == name) {
            continue;
        }
        let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let error = Error::config(format!("option \"{key}\" names no column of the stream"));
        let error = match nearest(name, &known) {
            Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
            None => error,
        };
        return Err(error.with_hint(format!("Declared columns: {}.", known.join(", "))));
    }
    Ok(())
}

/// The event times of the rows.
#[derive(Debug, Clone, Copy)]
struct EventTimes {
    start_nanos: i64,
    interval_nanos: i64,
    /// The most, in ns, by which a row's time is moved back.
    jitter_nanos: u64,
    seed: u64,
}

impl EventTimes {
    /// Returns the event time of row `row` in ticks of `unit`, rounded down.
    fn ticks(&self, row: u64, unit: TimeUnit) -> Result<i64> {
        const SALT_JITTER: u64 = 1;
        let mut nanos =
            i128::from(self.start_nanos) + i128::from(row) * i128::from(self.interval_nanos);
        if self.jitter_nanos > 0 {
            let bits = mix(self.seed, SALT_JITTER, row);
            nanos -= i128::from(below(bits, self.jitter_nanos.saturating_add(1)));
        }
        let per_tick = 1_000_000_000 / i128::from(ticks_per_second(unit));
        i64::try_from(nanos.div_euclid(per_tick)).map_err(|_| {
            Error::data(format!("the event time of row {row} does not fit in 64 bits"))
                .with_hint("Give a shorter interval, or declare a coarser timestamp.")
        })
    }
}

/// A generator of the rows of one stream.
#[derive(Debug)]
struct Rows {
    columns: Vec<Column>,
    times: EventTimes,
    /// The unit of the event-time column, if its times ascend with the rows.
    known_times: Option<TimeUnit>,
}

impl MakeRows for Rows {
    fn columns(
        &self,
        first: u64,
        count: usize,
        columns: &[usize],
    ) -> Result<Vec<arrow::array::ArrayRef>> {
        columns
            .iter()
            .map(|&i| {
                let column = self
                    .columns
                    .get(i)
                    .ok_or_else(|| Error::internal(format!("datagen has no column {i}")))?;
                column.make(first, count, &self.times)
            })
            .collect()
    }

    fn event_times(&self, first: u64, count: u64) -> Option<(i64, i64)> {
        let unit = self.known_times?;
        let last = first.checked_add(count.checked_sub(1)?)?;
        Some((self.times.ticks(first, unit).ok()?, self.times.ticks(last, unit).ok()?))
    }
}

#[cfg(test)]
mod tests;
