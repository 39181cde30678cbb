//! The engine over Arrow Flight SQL: a server that ADBC, JDBC and plain Flight clients talk to, and
//! the client that the `windrow` command uses.
//! Messages, their order and metadata, and how errors become statuses may be touched here. What may not be: nothing is
//! decided here about users, statements or rows, and what another wire would need too (who may come in, sessions, limits, cancelling,
//! metrics) is in [`windrow_server`]. This crate alone knows gRPC.
#![forbid(unsafe_code)]

mod auth;
pub mod client;
mod connection;
mod ingest;
mod metadata;
mod route;
mod rows;
mod server;
mod service;
mod session;
mod statement;
pub mod status;
mod unwound;
mod wire;

pub use server::Server;
