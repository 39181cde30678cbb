//! Limits on the resources that clients may use. Limits on queries belong to the engine ([`QueryLimits`]).

use std::time::Duration;

use windrow_engine::QueryLimits;

/// Limits on the resources that clients may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes of one message from a client; a longer one is refused before it is read.
    pub message_bytes_max: usize,
    /// Concurrent connections; for a further one the oldest without a login is closed, and otherwise it waits until one
    /// closes.
    pub connections_max: usize,
    /// Concurrent connections of one address; a further one replaces one without a login, or is closed. `None`: half of
    /// all.
    pub peer_connections_max: Option<usize>,
    /// Concurrent calls on one connection, where a wire allows several; more wait.
    pub calls_max: u32,
    /// Bytes of the headers of one call, where a wire has headers.
    pub header_bytes_max: u32,
    /// How long a handshake may take, and how long a new connection may stay without a call.
    pub handshake_time_max: Duration,
    /// How often a silent connection is probed.
    pub keepalive: Duration,
    /// How long queries may continue when the server stops.
    pub grace: Duration,
    /// Limits on queries.
    pub queries: QueryLimits,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 20,
            connections_max: 1_000,
            peer_connections_max: None,
            calls_max: 250,
            header_bytes_max: 64 << 10,
            handshake_time_max: Duration::from_secs(30),
            keepalive: Duration::from_secs(20),
            grace: Duration::from_secs(10),
            queries: QueryLimits::default(),
        }
    }
}
