//! The engine of Windrow: catalog, sessions, statements, access, system tables and background work, behind one
//! facade, [`Engine`]. The command line is a thin client of it, and so can any program be. What exists, what a statement does, who may do
//! it, what is kept of objects in a data directory and what goes on beside statements may be touched here. What may not:
//! streams and their logs (`windrow_stream`), how a query runs (`windrow_query`), how SQL is read and planned
//! (`windrow_sql`), formats of files (`windrow_storage`, `windrow_archive`), and wires.
//!
//! ```text
//! Engine ─ Session ─ statement ─► bounded plan ─────────────────────────────► rows
//!                            └──► continuous plan ─► scan ─► taps ─► stage ─► rows, view
//! ```
//! See [`Engine`] for an example.
//!
//! Public functions that wait return a boxed future. An opaque one would make every crate that awaits it prove again that
//! all it holds (plans, syntax trees) can be sent between threads, which takes the compiler minutes.
#![forbid(unsafe_code)]

mod access;
mod catalog;
mod durable;
mod engine;
mod execution;
mod ingest;
mod instance;
mod names;
mod session;
mod statements;
mod system_tables;
mod views;

pub use access::admission::{Admission, QueryLimits};
pub use access::{Access, Grant, Role};
pub use engine::health::{Health, Lag, LogHealth, QueryHealth};
pub use engine::{Engine, EngineConfig, Progress};
pub use execution::context::{SessionOptions, Values};
pub use execution::outcome::{Done, Outcome, Position, ResultStream, UnusedRows};
pub use ingest::{BatchId, Incoming, Ingest};
pub use instance::Recovery;
pub use instance::failures::Failures;
pub use session::{ObjectInfo, ObjectKind, Prepared, Session};
pub use windrow_connectors::Files;
pub use windrow_query::latency::LatencySnapshot;
pub use windrow_query::status::QueryStatus;
pub use windrow_stream::push::Pushed;
