//! `connector = 'nexmark'`: the persons, auctions and bids of the Nexmark benchmark.
//!
//! The three tables are cut from one sequence of events: of 50 consecutive ones the first is a
//! person, the next three are auctions, 46 are bids. Event `n` happens at
//! `base_time + n / event_rate`, in integers, so that times stay exact for any `n`.

mod draws;
mod tables;

use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::Schema;
use windrow_core::{Error, Result, Source};

use self::tables::{Events, Table};
use super::settings::Settings;
use super::source::{Generator, Pace, mix};
use crate::env::{ConnectorEnv, Declared};
use crate::options::{OptionDoc, StreamOptions};

/// 2015-07-15 00:00:00 UTC, the customary first instant of Nexmark.
const BASE_TIME_MS: i64 = 1_436_918_400_000;

/// Events per second of event time where neither `event_rate` nor `rate` is given.
const EVENT_RATE: u64 = 10_000;

/// The maximum number of events per second of event time: one per nanosecond.
const EVENT_RATE_MAX: u64 = 1_000_000_000;

/// The options of `connector = 'nexmark'`.
pub const NEXMARK_OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "table",
        values: "bid | auction | person",
        default: "bid",
        doc: "The kind of events in this stream.",
    },
    OptionDoc {
        name: "events",
        values: "number",
        default: "",
        doc: "The number of events, counted over all three kinds; without it the stream never ends.",
    },
    OptionDoc {
        name: "rate",
        values: "number",
        default: "",
        doc: "Events per second of wall clock, over all three kinds; without it as fast as possible.",
    },
    OptionDoc {
        name: "event_rate",
        values: "number",
        default: "rate, or else 10000",
        doc: "Events per second of event time, over all three kinds.",
    },
    OptionDoc {
        name: "base_time",
        values: "timestamp | ms since 1970 | now",
        default: "2015-07-15 00:00:00",
        doc: "The time of the first event; with 'now' the events do not repeat.",
    },
    OptionDoc {
        name: "seed",
        values: "number",
        default: "0",
        doc: "The seed of the events: the same seed gives the same events.",
    },
    OptionDoc {
        name: "out_of_order",
        values: "interval",
        default: "0 ms",
        doc: "The maximum interval by which an event's date_time is moved back.",
    },
    OptionDoc {
        name: "out_of_order_share",
        values: "0 to 1",
        default: "1",
        doc: "The share of events that out_of_order moves.",
    },
];

/// Opens a Nexmark table. Without declared columns the stream has all columns of its table; otherwise the declared
/// ones, matched by name (case and underscores do not matter) and cast to the declared type.
///
/// # Errors
/// For an option that cannot be parsed, and for a declared column that the table does not have or whose type cannot
/// hold it.
pub fn nexmark(
    options: &[(String, String)],
    declared: &Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    let options = StreamOptions::try_new("nexmark", options, NEXMARK_OPTIONS)?;
    let settings = Settings::new(&options);
    let tables = [Table::Bid, Table::Auction, Table::Person].map(|table| (table.name(), table));
    let table = options.choice("table", &tables)?.unwrap_or(Table::Bid);
    let events = settings.number(&["events"], 0, u64::MAX)?;
    let rate = settings.number(&["rate"], 1, u64::MAX)?;
    let event_rate = settings.number(&["event_rate"], 1, EVENT_RATE_MAX)?;
    let base_time = settings.instant("base_time", env.clock.as_ref())?;
    let jitter_nanos = settings.nanos("out_of_order")?.unwrap_or(0);
    let seed = settings.number(&["seed"], 0, u64::MAX)?.unwrap_or(0);

    let native = table.schema();
    let schema = declared.schema.clone().unwrap_or_else(|| Arc::clone(&native));
    let columns = match_columns(table, &native, &schema)?;
    let time_index = declared.event_time.as_ref().and_then(|name| schema.index_of(name).ok());
    let maker = Events {
        table,
        base_ms: base_time.map_or(BASE_TIME_MS, |nanos| nanos.div_euclid(1_000_000)),
        event_rate: event_rate.or(rate).unwrap_or(EVENT_RATE).min(EVENT_RATE_MAX),
        // Seed 0 leaves the original's draws unchanged.
        seed: if seed == 0 { 0 } else { mix(seed, 0, 0) },
        jitter_ms: u64::try_from(jitter_nanos / 1_000_000).unwrap_or(0),
        jitter_share: settings.share(&["out_of_order_share"])?.unwrap_or(1.0),
        event_time: time_index.and_then(|i| {
            let unit = windrow_core::time::time_unit(schema.field(i).data_type())?;
            Some((columns.get(i).copied()?, unit))
        }),
        channels: std::sync::OnceLock::new(),
    };
    Ok(Arc::new(Generator {
        name: format!("nexmark {}", table.name()),
        schema,
        columns,
        rows: events.map(|n| table.rows_before(n)),
        pace: rate.map(|rate| Pace::new(rate, &env.clock)),
        is_replayable: !settings.is_now("base_time"),
        maker: Arc::new(maker),
    }))
}

/// Returns, for each column of `schema`, the index of the table's column of that name.
fn match_columns(table: Table, native: &Schema, schema: &Schema) -> Result<Vec<usize>> {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    schema
        .fields()
        .iter()
        .map(|field| {
            let wanted = plain(field.name());
            let found = native.fields().iter().position(|f| plain(f.name()) == wanted);
            let index = found.ok_or_else(|| {
                let known: Vec<_> = native.fields().iter().map(|f| f.name().as_str()).collect();
                Error::config(format!(
                    "nexmark table \"{}\" has no column \"{}\"",
                    table.name(),
                    field.name()
                ))
                .with_hint(format!("Its columns are {}.", known.join(", ")))
            })?;
            let made = native.field(index).data_type();
            if !can_cast_types(made, field.data_type()) {
                return Err(Error::config(format!(
                    "column \"{}\" is {made} in nexmark and cannot become {}",
                    field.name(),
                    field.data_type()
                ))
                .with_hint("Omit the columns: the stream then has those of its table."));
            }
            Ok(index)
        })
        .collect()
}

#[cfg(test)]
mod tests;
