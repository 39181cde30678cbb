//! The engine over Arrow Flight SQL: a server that ADBC, JDBC and plain Flight clients talk to, and
//! the client that the `windrow` command uses.
//!
//! This crate alone knows gRPC.
#![forbid(unsafe_code)]

pub mod auth;
pub mod client;
mod connection;
mod ingest;
mod limits;
mod metrics;
mod server;
mod service;
pub mod status;
mod tls;

pub use limits::ServerLimits;
pub use metrics::{MetricsServer, Monitor};
pub use server::{Server, ServerConfig};
pub use tls::TlsConfig;
