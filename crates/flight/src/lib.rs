//! The engine over Arrow Flight SQL: a server that ADBC, JDBC and plain Flight clients talk to, and
//! the client that the `windrow` command uses.
//!
//! This crate alone knows gRPC.
#![forbid(unsafe_code)]

mod server;
mod service;
pub mod status;

pub use server::{Server, ServerConfig};
