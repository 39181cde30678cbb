//! The environment of a connector when a source or sink is opened: what the engine provides, and what `CREATE STREAM` or
//! `CREATE SINK` declares.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use windrow_core::{Clock, Error, Limits, Result};

use crate::file::Files;

/// What the engine provides to a connector.
#[derive(Debug, Clone)]
pub struct ConnectorEnv {
    /// The limits of the engine.
    pub limits: Limits,
    /// The clock, which also sleeps.
    pub clock: Arc<dyn Clock>,
    /// The runtime for disk and network I/O. Readers may be called from anywhere.
    pub io: tokio::runtime::Handle,
    /// Which files may be read.
    pub files: Files,
}

/// What `CREATE STREAM` declares about the columns that the source itself delivers (generated columns are not among
/// them).
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// The columns; `None` when they are to be inferred.
    pub schema: Option<SchemaRef>,
    /// The column of the watermark, when the source delivers it. Sources that know its smallest and largest value
    /// before reading report them in [`Split::event_times`](windrow_core::Split).
    pub event_time: Option<String>,
    /// Columns of type TIMESTAMP without a precision: the unit of a bare number in them is undefined.
    pub unsaid: Vec<String>,
    /// Columns that are declared `METADATA FROM 'name'`, with the name.
    pub metadata: Vec<(String, String)>,
    /// Whether the stream exists already, and is opened again. An external system that refuses it is then waited for.
    pub restored: bool,
}

/// The sink that is to be opened.
#[derive(Debug, Clone)]
pub struct SinkSpec {
    /// Its name.
    pub name: String,
    /// Distinguishes it from others that have its name at another time.
    pub id: String,
    /// Distinguishes it from all sinks of all data directories.
    pub origin: String,
    /// The columns of its rows.
    pub schema: SchemaRef,
    /// `Some` if its rows are the changes of an updating result; the first column is then the kind of the change.
    pub changes: Option<SinkChanges>,
}

/// The changes of an updating result, as a sink takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkChanges {
    /// The columns of the key by which rows replace each other; `None`: rows are removed by value.
    pub key: Option<Vec<String>>,
}

impl SinkChanges {
    /// Checks that changes can be applied at the destination by the option `key`; `otherwise`: what else can be done.
    ///
    /// # Errors
    /// When it is not the key of the changes.
    pub(crate) fn check_key(&self, key: &[String], otherwise: &str) -> Result<()> {
        let (why, hint) = match &self.key {
            Some(of) if of.iter().all(|name| key.contains(name)) && key.len() == of.len() => {
                return Ok(());
            }
            Some(of) if !of.is_empty() => (
                "these columns are not the key of the updating result",
                format!("Write key = '{}'", of.join(",")),
            ),
            _ => (
                "the updating result has no key columns",
                "Select all GROUP BY columns in the view".to_owned(),
            ),
        };
        let error = Error::config(format!("option \"key\": {why}"));
        Err(error.with_hint(format!("{hint}, or {otherwise}.")))
    }
}
