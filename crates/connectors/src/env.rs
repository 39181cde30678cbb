//! The environment of a connector when a source or sink is opened: what the engine provides, and what `CREATE STREAM` or
//! `CREATE SINK` declares.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use windrow_core::{Clock, Limits};

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
}
