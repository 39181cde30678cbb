//! The options of a stream that are the engine's own, whatever the connector.

use std::time::Duration;

use datafusion::common::ScalarValue;
use windrow_connectors::{known_connectors, options_of};
use windrow_core::{Error, Place, Result};
use windrow_sql::parse::OptionItem;
use windrow_storage::wal::Durability;
use windrow_stream::WhenIdle;

use crate::session::create_replay::REPLAY;

/// The options that belong to the engine, whatever the connector.
const STREAM_OPTIONS: &[&str] =
    &["connector", "durability", "idle_timeout", "max_future_skew", "retention", "when_idle"];

/// What the engine itself reads of a stream's options.
#[derive(Debug, Default)]
pub(super) struct EngineOptions {
    pub(super) connector: Option<String>,
    pub(super) idle_timeout: Option<Duration>,
    /// Its watermark follows the clock while it is idle.
    pub(super) idle_by_clock: Option<(bool, Place)>,
    pub(super) max_future_skew_micros: Option<i64>,
    pub(super) durability: Option<String>,
    /// How much older than the newest row a row may be.
    pub(super) retention: Option<(Duration, Place)>,
    /// What is left for the connector.
    pub(super) rest: Vec<(String, String)>,
}

impl EngineOptions {
    /// An option of the connector's.
    pub(super) fn of_connector(&self, key: &str) -> Option<&str> {
        self.rest.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_replay(&self) -> bool {
        self.connector.as_ref().is_some_and(|c| c.eq_ignore_ascii_case(REPLAY))
    }
}

/// Takes the engine's own options out of `WITH (…)`.
pub(super) fn engine_options(options: &[OptionItem]) -> Result<EngineOptions> {
    let mut found = EngineOptions::default();
    for OptionItem { key, value, place } in options {
        match key.as_str() {
            "connector" => found.connector = Some(value.clone()),
            "idle_timeout" => found.idle_timeout = Some(duration(key, value, *place)?),
            "when_idle" => found.idle_by_clock = Some((by_clock(value, *place)?, *place)),
            "max_future_skew" => {
                let skew = duration(key, value, *place)?;
                found.max_future_skew_micros = i64::try_from(skew.as_micros()).ok();
            }
            "retention" => found.retention = Some((retention(key, value, *place)?, *place)),
            "durability" => {
                found.durability = Some(value.to_lowercase());
                durability(&found).map_err(|e| e.with_place(*place))?;
            }
            _ => found.rest.push((key.clone(), value.clone())),
        }
    }
    Ok(found)
}

/// The value of `when_idle`.
fn by_clock(value: &str, place: Place) -> Result<bool> {
    match value.to_lowercase().as_str() {
        "wait" => Ok(false),
        "clock" => Ok(true),
        _ => Err(Error::config(format!("when_idle = '{value}' is not known"))
            .with_place(place)
            .with_hint(
                "Known: 'wait' (the watermark of an idle partition stays, and holds no query), 'clock' (it \
                 follows the clock).",
            )),
    }
}

/// When partitions of a stream are idle. `timed`: the stream has a watermark.
pub(super) fn when_idle(
    name: &str,
    options: &EngineOptions,
    timed: bool,
) -> Result<Option<WhenIdle>> {
    let by_clock = options.idle_by_clock.filter(|(by_clock, _)| *by_clock);
    if options.idle_timeout.is_some() && by_clock.is_none() && !timed {
        return Err(Error::sql(format!(
            "stream \"{name}\" has idle_timeout and no watermark that silent partitions could hold"
        ))
        .with_hint(
            "Declare one: WATERMARK FOR ts AS ts - INTERVAL '5 seconds'; or leave it out.",
        ));
    }
    if let Some((_, place)) = by_clock
        && !timed
    {
        return Err(Error::sql(format!(
            "stream \"{name}\" has no watermark that could follow the clock"
        ))
        .with_place(place)
        .with_hint("Declare one: WATERMARK FOR ts AS ts - INTERVAL '5 seconds'."));
    }
    match (options.idle_timeout, options.idle_by_clock) {
        (Some(timeout), _) => Ok(Some(WhenIdle {
            after_micros: i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX),
            by_clock: by_clock.is_some(),
        })),
        (None, Some((_, place))) => {
            Err(Error::config(format!("stream \"{name}\" has when_idle and no idle_timeout"))
                .with_place(place)
                .with_hint("Say when it is idle: idle_timeout = '10 seconds'."))
        }
        (None, None) => Ok(None),
    }
}

/// How durable a push stream's rows are; `None`: in memory only.
pub(super) fn durability(options: &EngineOptions) -> Result<Option<Durability>> {
    match options.durability.as_deref() {
        None | Some("fsync") => Ok(Some(Durability::Fsync)),
        Some("os") => Ok(Some(Durability::Os)),
        Some("memory") => Ok(None),
        Some(other) => Err(Error::config(format!("durability = '{other}' is not known")).with_hint(
            "Known: 'fsync' (survives a power failure), 'os' (survives a crash of Windrow), 'memory'.",
        )),
    }
}

/// A replay has its history elsewhere.
pub(super) fn no_retention(options: &EngineOptions) -> Result<()> {
    match options.retention {
        None => Ok(()),
        Some((_, place)) => Err(Error::config("a replay keeps no rows of its own")
            .with_place(place)
            .with_hint("Give what it replays a retention.")),
    }
}

/// Options of push streams, at a stream with a connector.
pub(super) fn no_push_options(options: &EngineOptions) -> Result<()> {
    match &options.durability {
        None => Ok(()),
        Some(durability) => Err(Error::config(format!(
            "durability = '{durability}' is for streams without a connector"
        ))),
    }
}

/// Refuses what no connector takes.
pub(super) fn no_options(options: &EngineOptions, name: &str) -> Result<()> {
    let Some((key, _)) = options.rest.first() else { return Ok(()) };
    let message = format!("unknown option \"{key}\" of stream \"{name}\", which has no connector");
    let takes =
        |connector: &&&str| options_of(connector).iter().any(|option| option.name == key.as_str());
    let of: Vec<String> =
        known_connectors().iter().filter(takes).map(|c| format!("connector = '{c}'")).collect();
    let hint = match of.as_slice() {
        [] => format!("Known options: {}.", STREAM_OPTIONS.join(", ")),
        of => format!("Add {}, which takes it.", of.join(" or ")),
    };
    Err(Error::config(message).with_hint(hint))
}

/// The value of `retention`.
pub(super) fn retention(key: &str, value: &str, place: Place) -> Result<Duration> {
    let keep = duration(key, value, place).map_err(|_| not_a_retention(value).with_place(place))?;
    if keep.is_zero() { Err(not_a_retention(value).with_place(place)) } else { Ok(keep) }
}

/// The error of a retention without event time.
pub(super) fn timeless(name: &str) -> Error {
    Error::sql(format!("\"{name}\" has no event time that retention could go by"))
        .with_hint("Give the stream a WATERMARK; select window_end or an event time in a view.")
}

fn not_a_retention(value: &str) -> Error {
    Error::config(format!("option \"retention\" is not a length of time: '{value}'"))
        .with_hint("Write retention = '7 days'. Months and years have no fixed length.")
}

fn duration(key: &str, value: &str, place: Place) -> Result<Duration> {
    let interval = ScalarValue::try_from_string(
        value.to_owned(),
        &arrow::datatypes::DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano),
    );
    let nanos = interval.ok().and_then(|i| interval_nanos(&i)).and_then(|n| u64::try_from(n).ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| {
        Error::config(format!("option \"{key}\" is not an interval: '{value}'"))
            .with_place(place)
            .with_hint(format!("Write {key} = '5 seconds'."))
    })
}

/// An interval in nanoseconds; days have 24 hours, months have no length.
pub(super) fn interval_nanos(value: &ScalarValue) -> Option<i128> {
    const DAY: i128 = 24 * 3_600 * 1_000_000_000;
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i))
            if i.months == 0 && i128::from(i.nanoseconds) + i128::from(i.days) * DAY >= 0 =>
        {
            Some(i128::from(i.days) * DAY + i128::from(i.nanoseconds))
        }
        ScalarValue::IntervalDayTime(Some(i)) => {
            Some(i128::from(i.days) * DAY + i128::from(i.milliseconds) * 1_000_000)
        }
        _ => None,
    }
}
