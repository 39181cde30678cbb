//! What a connector is given when a source is opened: by the engine, and by `CREATE STREAM`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use windrow_core::{Clock, Limits};

use crate::file::Files;

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
    pub files: Files,
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
