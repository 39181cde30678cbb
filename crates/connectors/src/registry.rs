//! The registry of connectors, and the only entry point to them.

use std::sync::Arc;

use windrow_core::{Error, Result, Source};

use crate::env::{ConnectorEnv, Declared};
use crate::options::{OptionDoc, nearest};
use crate::{file, generator, replay};

/// The names of all connectors.
pub fn known_connectors() -> &'static [&'static str] {
    &["file", "nexmark", "datagen", "replay"]
}

/// The options of a connector, except `connector` itself; empty for an unknown one.
pub fn options_of(connector: &str) -> &'static [OptionDoc] {
    match connector.to_ascii_lowercase().as_str() {
        "file" => file::OPTIONS,
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
    match connector.to_ascii_lowercase().as_str() {
        "file" => file::open(options, declared, env).await,
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
