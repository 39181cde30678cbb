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
mod metadata;
mod metrics;
mod route;
mod rows;
mod running;
mod server;
mod service;
mod session;
mod statement;
pub mod status;
mod tls;
mod unwound;
mod wire;

pub use limits::ServerLimits;
pub use metrics::{MetricsServer, Monitor};
pub use server::{Server, ServerConfig};
pub use tls::TlsConfig;
