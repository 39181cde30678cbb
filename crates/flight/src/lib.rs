//! The engine over Arrow Flight SQL: a server for ADBC, JDBC and plain Flight clients, and the client that the
//! `windrow` command uses. Messages, their order and metadata, and the mapping of errors to statuses may be changed
//! here. What does not belong here: decisions about users, statements or rows, and what another wire would need too
//! (authentication, sessions, limits, cancellation, metrics), which is in [`windrow_server`]. Only this crate knows
//! gRPC.
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
