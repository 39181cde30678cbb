//! The registry of sinks, and the only entry point to them.

use arrow::array::RecordBatch;
use windrow_core::{Error, Result, Sink};

use crate::encode::json_lines;
use crate::env::{ConnectorEnv, SinkSpec};
use crate::options::{OptionDoc, is_secret, nearest};
use crate::{file_sink, kafka, mqtt, nats, postgres, redis, webhook};

/// The names of all connectors that take rows.
pub fn known_sinks() -> &'static [&'static str] {
    &["file", "kafka", "mqtt", "nats", "postgres", "redis", "webhook"]
}

/// The options of a sink's connector, except `connector` itself; empty for an unknown one.
pub fn sink_options_of(connector: &str) -> &'static [OptionDoc] {
    match connector.to_ascii_lowercase().as_str() {
        "file" => file_sink::OPTIONS,
        "kafka" => kafka::sink::SINK_OPTIONS,
        "mqtt" => mqtt::SINK_OPTIONS,
        "nats" => nats::SINK_OPTIONS,
        "postgres" => postgres::OPTIONS,
        "redis" => redis::SINK_OPTIONS,
        "webhook" => webhook::OPTIONS,
        _ => &[],
    }
}

/// Returns the sink described by `WITH (connector = …, …)`. `options` are all other options, except those that belong to the
/// engine. Nothing is sent or written yet.
///
/// # Errors
/// For an unknown connector or option (the hint lists the known ones), for an invalid value, for columns that the destination
/// cannot take, and for a destination that the user may not write to.
pub fn open_sink(
    connector: &str,
    options: &[(String, String)],
    spec: &SinkSpec,
    env: &ConnectorEnv,
) -> Result<Box<dyn Sink>> {
    match connector.to_ascii_lowercase().as_str() {
        "file" => file_sink::open(options, spec, env),
        "kafka" => kafka::sink::open_sink(options, spec, env),
        "mqtt" => mqtt::open_sink(options, spec, env),
        "nats" => nats::open_sink(options, spec, env),
        "postgres" => postgres::open(options, spec, env),
        "redis" => redis::open_sink(options, spec, env),
        "webhook" => webhook::open(options, spec, env),
        other => {
            let error = Error::config(format!("unknown connector \"{connector}\" of a sink"));
            let error = match nearest(other, known_sinks()) {
                Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
                None => error,
            };
            Err(error.with_hint(format!("Known connectors: {}.", known_sinks().join(", "))))
        }
    }
}

/// Returns the first row as a JSON object; `None`: there is none, or JSON does not have the type of a column.
pub fn row_json(rows: &RecordBatch) -> Option<String> {
    let line = json_lines(&rows.slice(0, rows.num_rows().min(1))).ok()?.into_iter().next()?;
    Some(String::from_utf8_lossy(&line).into_owned())
}

/// Returns the value of an option as everybody may see it; `None`: nothing in it is a secret.
///
/// ```
/// use windrow_connectors::shown_value;
/// assert_eq!(shown_value("roll_size", "1 MB"), None);
/// assert_eq!(shown_value("secret", "hunter2").as_deref(), Some("***"));
/// let url = "https://hooks.example.com/services/T0/B0/xyz";
/// assert_eq!(shown_value("url", url).as_deref(), Some("https://hooks.example.com/***"));
/// ```
pub fn shown_value(key: &str, value: &str) -> Option<String> {
    let key = key.to_ascii_lowercase();
    if key == "url" {
        return Some(webhook::shown_url(value));
    }
    let words = [
        "secret",
        "token",
        "password",
        "auth",
        "cookie",
        "signature",
        "api-key",
        "apikey",
        "api_key",
        "access_key",
    ];
    let is_hidden = is_secret(&key) || words.iter().any(|word| key.contains(word));
    is_hidden.then(|| "***".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the documentation that is made from the options.
    fn documented(options: &[OptionDoc]) -> String {
        let mut table =
            "| option | values | default | what it does |\n|---|---|---|---|\n".to_owned();
        for OptionDoc { name, values, default, doc } in options {
            let cell = |text: &str| text.replace('|', "\\|");
            let (values, default, doc) = (cell(values), cell(default), cell(doc));
            table.push_str(&format!("| `{name}` | {values} | {default} | {doc} |\n"));
        }
        table
    }

    #[test]
    fn the_documentation_has_all_options() {
        let text = include_str!("../../../docs/sinks.md");
        for connector in known_sinks() {
            let table = documented(sink_options_of(connector));
            assert!(
                text.contains(&table),
                "docs/sinks.md needs this table of \"{connector}\":\n{table}"
            );
        }
    }
}
