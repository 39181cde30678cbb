//! External data as [`Source`](windrow_core::Source)s: files and object stores ([`mod@file`]), topics of Kafka, topics of MQTT, streams of NATS and Redis, and
//! generated events ([`generator`]); and destinations as [`Sink`](windrow_core::Sink)s: files ([`file_sink`]) and HTTP
//! requests ([`webhook`]), and tables of PostgreSQL, with what they write in `encode`. A [`replay`] is the engine's own source; only its options
//! are here. Formats, locations and options may be changed here. What does not belong here: plans and DataFusion,
//! watermarks, and what happens to a row once it is returned.
//!
//! [`open_source`] and [`open_sink`] are the only entry points: they take the options of `CREATE STREAM … WITH (…)` and
//! `CREATE SINK … WITH (…)`. The options of a connector are listed once, in [`options`], for errors, help and tab
//! completion.
#![forbid(unsafe_code)]

mod broker;
mod causes;
mod encode;
mod env;
pub mod file;
pub mod file_sink;
mod formats;
pub mod generator;
mod kafka;
mod mqtt;
mod nats;
pub mod options;
mod postgres;
mod redis;
mod registry;
pub mod replay;
mod schema_registry;
mod sinks;
mod template;
mod tls;
mod web;
pub mod webhook;

pub use env::{ConnectorEnv, Declared, SinkChanges, SinkSpec};
pub use file::Files;
pub use formats::body::{RecordFormat, Records, decode_records};
pub use formats::json::debezium::deletes_column;
pub use options::{OptionDoc, StreamOptions, is_secret};
pub use registry::{known_connectors, open_source, options_of};
pub use sinks::{known_sinks, open_sink, row_json, shown_value, sink_options_of};
