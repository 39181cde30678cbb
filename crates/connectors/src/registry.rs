//! Which connectors there are: the one list, and the one door to them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use windrow_core::{Clock, Error, Limits, Result, Source};

use crate::options::{OptionDoc, nearest};
use crate::{file, generator, replay};

/// What a connector gets from the engine.
#[derive(Debug, Clone)]
pub struct ConnectorEnv {
    /// How much of anything is allowed.
    pub limits: Limits,
    /// The clock, which also sleeps.
    pub clock: Arc<dyn Clock>,
    /// Where waiting for disks and networks happens. Readers may be called from anywhere.
    pub io: tokio::runtime::Handle,
    /// Which files may be read.
    pub files: file::Files,
}

/// What `CREATE STREAM` says about the columns that the source itself delivers (generated ones
/// are not among them).
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// The columns; `None` when they are to be inferred.
    pub schema: Option<SchemaRef>,
    /// The column of the watermark, when the source delivers it. Sources that know its smallest
    /// and largest value before reading say so in [`Split::event_times`](windrow_core::Split).
    pub event_time: Option<String>,
    /// Columns of type TIMESTAMP without a precision: nothing says what a bare number is in them.
    pub unsaid: Vec<String>,
}

/// The names of all connectors.
pub fn known_connectors() -> &'static [&'static str] {
    &["file", "nexmark", "datagen", "replay"]
}

/// The options of a connector, `connector` itself not among them; empty for an unknown one.
pub fn options_of(connector: &str) -> &'static [OptionDoc] {
    match connector.to_ascii_lowercase().as_str() {
        "file" => file::OPTIONS,
        "nexmark" => generator::NEXMARK_OPTIONS,
        "datagen" => generator::DATAGEN_OPTIONS,
        "replay" => replay::OPTIONS,
        _ => &[],
    }
}

/// Opens the source that `WITH (connector = …, …)` describes. `options` are all others; those
/// that belong to the engine and not to the connector are not among them.
///
/// # Errors
/// For an unknown connector or option (the hint lists the known ones), for a wrong value, when
/// the place cannot be read, and when columns can neither be inferred nor be found as declared.
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
        "replay" => Err(Error::internal("the engine makes a replay's source itself")),
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
