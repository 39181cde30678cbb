//! The options of a stream that the engine itself reads, whatever the connector.

use std::time::Duration;

use windrow_connectors::{known_connectors, options_of};
use windrow_core::{Error, Place, Result};
use windrow_sql::parse::OptionItem;
use windrow_storage::wal::Durability;
use windrow_stream::WhenIdle;

use super::replay::REPLAY;
use crate::execution::options::{duration, retention};

/// The options of the engine.
const STREAM_OPTIONS: &[&str] = &[
    "changes",
    "connector",
    "durability",
    "idle_timeout",
    "max_future_skew",
    "retention",
    "when_idle",
];

/// Options by which ksqlDB reads a topic.
const KSQL_OPTIONS: &[&str] = &[
    "kafka_topic",
    "value_format",
    "key_format",
    "value_delimiter",
    "key",
    "partitions",
    "replicas",
    "timestamp",
    "timestamp_format",
    "wrap_single_value",
    "window_type",
    "window_size",
];

/// The options of a stream.
#[derive(Debug, Default)]
pub(super) struct EngineOptions {
    pub(super) connector: Option<String>,
    pub(super) idle_timeout: Option<Duration>,
    /// Whether the watermark of idle partitions follows the clock (`when_idle`).
    pub(super) idle_by_clock: Option<(bool, Place)>,
    pub(super) max_future_skew_micros: Option<i64>,
    pub(super) durability: Option<String>,
    /// Which changes its rows are (`changes`).
    pub(super) changes: Option<(String, Place)>,
    /// Maximum age of a row, relative to the newest row.
    pub(super) retention: Option<(Duration, Place)>,
    /// The options of the connector.
    pub(super) rest: Vec<(String, String)>,
}

impl EngineOptions {
    /// Returns the value of an option of the connector.
    pub(super) fn of_connector(&self, key: &str) -> Option<&str> {
        self.rest.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_replay(&self) -> bool {
        self.connector.as_ref().is_some_and(|c| c.eq_ignore_ascii_case(REPLAY))
    }
}

/// Parses the options of the engine in `WITH (…)`.
///
/// # Errors
/// When a value is malformed.
pub(super) fn engine_options(options: &[OptionItem]) -> Result<EngineOptions> {
    let mut found = EngineOptions::default();
    for OptionItem { key, value, place } in options {
        match key.as_str() {
            "changes" => found.changes = Some((value.to_lowercase(), *place)),
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

/// Parses `when_idle`.
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

/// Returns when partitions of a stream are idle. `timed`: whether the stream has a watermark.
///
/// # Errors
/// When options are missing or do not fit together.
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

/// Returns the durability of a push stream; `None`: in memory only.
///
/// # Errors
/// When the value is unknown.
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

/// Checks that a replay has no retention: it stores no rows.
///
/// # Errors
/// When it has one.
pub(super) fn no_retention(options: &EngineOptions) -> Result<()> {
    match options.retention {
        None => Ok(()),
        Some((_, place)) => Err(Error::config("a replay stores no rows of its own")
            .with_place(place)
            .with_hint("Set retention on the stream or view that it replays.")),
    }
}

/// Checks that a stream with a connector has no options of push streams.
///
/// # Errors
/// When it has one.
pub(super) fn no_push_options(options: &EngineOptions) -> Result<()> {
    match &options.durability {
        None => Ok(()),
        Some(durability) => Err(Error::config(format!(
            "durability = '{durability}' is for streams without a connector"
        ))),
    }
}

/// Checks that a push stream has no options of connectors.
///
/// # Errors
/// When it has one.
pub(super) fn no_options(options: &EngineOptions, name: &str) -> Result<()> {
    let Some((key, _)) = options.rest.first() else { return Ok(()) };
    if KSQL_OPTIONS.contains(&key.to_lowercase().as_str()) {
        return Err(Error::config(format!(
            "option \"{key}\" of stream \"{name}\" is ksqlDB's, and the stream has no connector"
        ))
        .with_hint(
            "Write WITH (connector = 'kafka', bootstrap.servers = 'host:port', topic = 't', format = 'json').",
        ));
    }
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

/// Returns the error for a processing time of rows that are read again.
pub(super) fn intake_of_connector(name: &str) -> Error {
    Error::sql(format!("stream \"{name}\" has PROCTIME() and a connector"))
        .with_detail(
            "The rows of a connector are not stored: whenever they are read, their processing time would be another.",
        )
        .with_hint("Use a time in the data, or INSERT INTO a stream without connector that has PROCTIME().")
}
