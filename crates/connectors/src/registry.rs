//! The registry of connectors, and the only entry point to them.

use std::sync::Arc;

use windrow_core::{Error, Result, Source};

use crate::env::{ConnectorEnv, Declared};
use crate::options::{OptionDoc, nearest};
use crate::{file, generator, kafka, mqtt, nats, redis, replay, web};

/// The names of all connectors.
pub fn known_connectors() -> &'static [&'static str] {
    &["file", "kafka", "mqtt", "nats", "redis", "sse", "websocket", "nexmark", "datagen", "replay"]
}

/// Connectors whose rows are messages, which carry more than their values.
const WITH_METADATA: &[&str] = &["kafka", "mqtt", "nats", "redis", "sse", "websocket"];

/// The options of a connector, except `connector` itself; empty for an unknown one.
pub fn options_of(connector: &str) -> &'static [OptionDoc] {
    match connector.to_ascii_lowercase().as_str() {
        "file" => file::OPTIONS,
        "kafka" => kafka::OPTIONS,
        "mqtt" => mqtt::OPTIONS,
        "nats" => nats::OPTIONS,
        "redis" => redis::OPTIONS,
        "sse" => web::SSE_OPTIONS,
        "websocket" => web::WEBSOCKET_OPTIONS,
        "nexmark" => generator::NEXMARK_OPTIONS,
        "datagen" => generator::DATAGEN_OPTIONS,
        "replay" => replay::OPTIONS,
        _ => &[],
    }
}

/// Opens the source described by `WITH (connector = …, …)`. `options` are all other options, except those that belong
/// to the engine and not to the connector.
///
/// # Errors
/// For an unknown connector or option (the hint lists the known ones), for an invalid value, when the location cannot
/// be read, and when columns can neither be inferred nor be found as declared.
pub async fn open_source(
    connector: &str,
    options: &[(String, String)],
    declared: Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    let connector = connector.to_ascii_lowercase();
    if let Some((column, name)) = declared.metadata.first()
        && !WITH_METADATA.contains(&connector.as_str())
        && known_connectors().contains(&connector.as_str())
    {
        return Err(Error::config(format!(
            "column \"{column}\" is metadata '{name}', and connector \"{connector}\" has none"
        ))
        .with_hint(
            "Rows that are messages have metadata: those of the connectors kafka, mqtt, nats, redis, sse and websocket.",
        ));
    }
    match connector.as_str() {
        "file" => file::open(options, declared, env).await,
        "kafka" => kafka::open(options, &declared, env).await,
        "mqtt" => mqtt::open(options, &declared, env).await,
        "nats" => nats::open(options, &declared, env).await,
        "redis" => redis::open(options, &declared, env).await,
        "sse" => web::open_events(options, &declared, env).await,
        "websocket" => web::open_socket(options, &declared, env).await,
        "nexmark" => generator::nexmark(options, &declared, env),
        "datagen" => generator::datagen(options, &declared, env),
        "replay" => Err(Error::internal("the source of a replay is created by the engine")),
        other => {
            let error = Error::config(format!("unknown connector \"{connector}\""));
            let error = match nearest(other, known_connectors()) {
                Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
                None => error,
            };
            Err(error.with_hint(format!("Known connectors: {}.", known_connectors().join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/connectors.md");

    /// The options of a connector as a table of Markdown.
    fn table(connector: &str) -> String {
        let mut table = String::from("| option | values | default | |\n|---|---|---|---|\n");
        for OptionDoc { name, values, default, doc } in options_of(connector) {
            let default = match *default {
                "" => String::new(),
                words if words.contains(' ') || words.contains('\'') => words.to_owned(),
                word => format!("`{word}`"),
            };
            let cell = |text: &str| text.replace('|', "\\|");
            let row = [format!("`{name}`"), cell(values), cell(&default), cell(doc)];
            table.push_str(&format!("| {} |\n", row.join(" | ")));
        }
        table
    }

    /// The tables in the documentation are those of the code. `WINDROW_WRITE_DOCS=1` writes them.
    #[test]
    fn the_documentation_has_all_options() {
        let mut docs = std::fs::read_to_string(DOCS).unwrap();
        let before = docs.clone();
        for connector in known_connectors() {
            let begin = format!("<!-- options of {connector} -->\n");
            let start = docs.find(&begin).expect("each connector has a place") + begin.len();
            let end = start + docs[start..].find("<!-- end -->").expect("the place has an end");
            docs.replace_range(start..end, &table(connector));
        }
        if std::env::var_os("WINDROW_WRITE_DOCS").is_some() {
            std::fs::write(DOCS, docs).unwrap();
        } else {
            assert!(docs == before, "docs/connectors.md is old: WINDROW_WRITE_DOCS=1 writes it");
        }
    }
}
