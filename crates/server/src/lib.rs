//! What every wire protocol needs and none defines: authentication, sessions of remote users, connections and their
//! limits, TLS files, statements and their cancellation, metrics and health. Whatever applies to clients of all wires
//! belongs here. What does not: this crate knows no message of any wire (no tonic, no Flight). A wire translates its
//! errors, which are [`windrow_core::Error`]s, and its names for sessions and statements; what a user may do and
//! consume is decided below, in `windrow_engine`.
//!
//! ```text
//! a wire (gRPC, …) ─► Connections ─► Authenticator ─► Sessions ─► Running, statement ─► windrow_engine::Session
//!                          Listening: the bound port with all of them ◄─ Monitor ◄─ MetricsServer
//! ```
#![forbid(unsafe_code)]

pub mod auth;
pub mod connection;
mod limits;
mod listening;
mod metrics;
pub mod running;
pub mod session;
pub mod statement;
mod tls;

pub use limits::ServerLimits;
pub use listening::{Listening, ServerConfig, out_of_time};
pub use metrics::{MetricsServer, Monitor};
pub use tls::{Pem, TlsConfig};
