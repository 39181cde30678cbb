//! The engine of Windrow: catalog, sessions, statements, access control, system tables and background work, behind one facade,
//! [`Engine`]. The command line is a thin client of it, and any program can be another one. What belongs here: which objects
//! exist, what statements do and who may execute them, where the parts of an object are in the data directory, and background
//! work. What does not: streams and their logs (`windrow_stream`), how a query runs (`windrow_query`), how SQL is parsed and
//! planned (`windrow_sql`), formats of files (`windrow_storage`, `windrow_archive`), and wires.
//!
//! ```text
//! Engine ─ Session ─ statement ─► bounded plan ─────────────────────────────► rows
//!                            └──► continuous plan ─► scan ─► taps ─► stage ─► rows, view
//! ```
//! See [`Engine`] for an example.
//!
//! Functions that wait return a boxed future where other crates or many statements await them. With an opaque future, every caller
//! has to prove again that everything in it (plans, syntax trees) can be sent between threads, which takes the compiler minutes.
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
pub use engine::health::{Health, Lag, LogHealth, OperatorHealth, QueryHealth};
pub use engine::{Engine, EngineConfig, Progress};
pub use execution::context::{SessionOptions, Values};
pub use execution::outcome::{Done, Outcome, Position, ResultStream, UnusedRows};
pub use ingest::{BatchId, Incoming, Ingest};
pub use instance::Recovery;
pub use instance::failures::Failures;
pub use instance::unused_memory::thread_rests;
pub use session::{ObjectInfo, ObjectKind, Prepared, Session};
pub use windrow_connectors::Files;
pub use windrow_connectors::RecordFormat;
pub use windrow_query::latency::LatencySnapshot;
pub use windrow_query::status::QueryStatus;
pub use windrow_stream::push::Pushed;
pub use windrow_stream::reads::ReadProgress;
