//! The metrics of a server in the OpenMetrics text format. docs/operations.md lists them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use windrow_engine::{Health, LogHealth, OperatorHealth, QueryHealth};

use super::Monitor;

/// Renders all metrics as text.
///
/// # Errors
/// When they cannot be formatted (a bug in Windrow).
pub(super) fn render(monitor: Monitor) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("windrow");
    registry.register_collector(Box::new(Numbers(monitor)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Numbers(Monitor);

type Of<T> = fn(&T) -> u64;

/// Name, help, whether it is a counter, value.
const QUERIES: &[(&str, &str, bool, Of<QueryHealth>)] = &[
    ("query_rows_in", "Rows that a query has read", true, |q| q.rows_in),
    ("query_rows_out", "Rows that a query has returned", true, |q| q.rows_out),
    ("query_rows_late", "Rows whose windows had all closed", true, |q| q.rows_late),
    ("query_rows_bad", "Rows that could not be used", true, |q| q.rows_bad),
    ("query_windows_closed", "Windows closed", true, |q| q.windows_closed),
    ("query_spilled_bytes", "Bytes of window state spilled to disk", true, |q| q.spilled_bytes),
    ("query_windows_open", "Windows that have rows and are not closed", false, |q| q.windows_open),
    ("query_state_bytes", "Bytes of window state", false, |q| q.state_bytes),
    ("query_running", "Whether a query runs", false, |q| u64::from(q.running)),
    ("query_failed", "Whether a query ended with an error", false, |q| u64::from(q.failed)),
];

/// Name, help, value.
const OPERATORS: &[(&str, &str, Of<OperatorHealth>)] = &[
    ("operator_state_bytes", "Bytes of memory that an operator of a query keeps", |o| o.bytes),
    ("operator_state_rows", "Rows that an operator keeps, alone or aggregated", |o| o.rows),
    ("operator_open", "Open windows or sessions of an operator; rows where it keeps rows", |o| {
        o.open
    }),
];

const LOGS: &[(&str, &str, bool, Of<LogHealth>)] = &[
    ("stream_rows", "Rows added to a stream or view", true, |l| l.rows),
    ("archive_failing", "Whether rows cannot be archived", false, |l| {
        u64::from(l.archive_error.is_some())
    }),
];

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Monitor { engine, door, admission, connections } = &self.0;
        let health = engine.health();
        let queries: Vec<(&str, &QueryHealth)> =
            health.queries.iter().map(|q| (q.name.as_str(), q)).collect();
        for (name, help, grows, of) in QUERIES {
            let values = queries.iter().map(|(query, q)| ([("query", *query)], of(q)));
            numbers(&mut encoder, (name, help, *grows), values)?;
        }
        for (name, help, of) in OPERATORS {
            let values = queries.iter().flat_map(|(query, q)| {
                q.operators
                    .iter()
                    .map(move |o| ([("query", *query), ("operator", &*o.operator)], of(o)))
            });
            numbers(&mut encoder, (name, help, false), values)?;
        }
        latencies(&mut encoder, &health)?;
        for (name, help, grows, of) in LOGS {
            let values = health.logs.iter().map(|l| ([("name", l.name.as_str())], of(l)));
            numbers(&mut encoder, (name, help, *grows), values)?;
        }
        kept(&mut encoder, &health, engine.clock().now_micros())?;
        let lags = health.lags.iter().map(|lag| {
            let labels = [("query", lag.query.as_str()), ("stream", lag.stream.as_str())];
            (labels, seconds(lag.micros))
        });
        let help = "How far the watermark of a stream is behind the clock";
        gauges(&mut encoder, ("watermark_lag_seconds", help), lags)?;
        for (name, help, grows, value) in [
            ("connections", "Open connections", false, connections.open() as u64),
            ("queries_running", "Bounded statements running", false, admission.running() as u64),
            ("queries_queued", "Statements queued", false, admission.waiting() as u64),
            ("streams_open", "Continuous results being read", false, admission.streams() as u64),
            ("logins_failed", "Logins and tokens that were refused", true, door.failed()),
        ] {
            let none: [(&str, &str); 0] = [];
            numbers(&mut encoder, (name, help, grows), [(none, value)].into_iter())?;
        }
        Ok(())
    }
}

fn kept(encoder: &mut DescriptorEncoder<'_>, health: &Health, now: i64) -> fmt::Result {
    let logs = || health.logs.iter();
    let named = |l: &LogHealth, value: Option<u64>| Some(([("name", l.name.clone())], value?));
    let files = logs().filter_map(|l| named(l, l.files.map(|f| f.0)));
    numbers(encoder, ("archive_files", "Files of an archive", false), files)?;
    let bytes = logs().filter_map(|l| named(l, l.files.map(|f| f.1)));
    numbers(encoder, ("archive_bytes", "Bytes of an archive's files", false), bytes)?;
    let bytes = logs().filter_map(|l| named(l, l.checkpoint.map(|c| c.1)));
    numbers(encoder, ("checkpoint_bytes", "Bytes of the newest checkpoint", false), bytes)?;
    let ages = logs().filter_map(|l| {
        Some(([("name", l.name.clone())], seconds(now.saturating_sub(l.checkpoint?.0))))
    });
    gauges(encoder, ("checkpoint_age_seconds", "Age of the newest checkpoint"), ages)
}

fn latencies(encoder: &mut DescriptorEncoder<'_>, health: &Health) -> fmt::Result {
    let help = "How long micro-batches take";
    let mut family =
        encoder.encode_descriptor("batch_latency_seconds", help, None, MetricType::Histogram)?;
    for query in &health.queries {
        let (labels, latency) = ([("query", query.name.as_str())], &query.latency);
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            latency.sum_seconds,
            latency.count(),
            &latency.buckets,
            None,
        )?;
    }
    Ok(())
}

fn numbers<L: prometheus_client::encoding::EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, grows): (&str, &str, bool),
    values: impl Iterator<Item = (L, u64)>,
) -> fmt::Result {
    let kind = if grows { MetricType::Counter } else { MetricType::Gauge };
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in values {
        let mut metric = family.encode_family(&labels)?;
        if grows {
            metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        } else {
            metric.encode_gauge(&value)?;
        }
    }
    Ok(())
}

fn gauges<L: prometheus_client::encoding::EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: impl Iterator<Item = (L, f64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "µs of centuries are exact in a double")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}
