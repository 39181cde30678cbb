//! External data as [`Source`](windrow_core::Source)s: files and object stores ([`mod@file`]), topics of Kafka, and
//! generated events ([`generator`]). A [`replay`] is the engine's own source; only its options are here. Formats, locations and options
//! may be changed here. What does not belong here: plans and DataFusion, watermarks, and what happens to a row once it
//! is returned.
//!
//! [`open_source`] is the only entry point: it takes the options of `CREATE STREAM … WITH (…)`. The options of a
//! connector are listed once, in [`options`], for errors, help and tab completion.
#![forbid(unsafe_code)]

mod env;
pub mod file;
mod formats;
pub mod generator;
mod kafka;
pub mod options;
mod registry;
pub mod replay;

pub use env::{ConnectorEnv, Declared};
pub use file::Files;
pub use formats::body::{RecordFormat, Records, decode_records};
pub use options::{OptionDoc, StreamOptions, is_secret};
pub use registry::{known_connectors, open_source, options_of};
