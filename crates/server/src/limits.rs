//! How much of a server its clients may take. Limits on queries are the engine's ([`QueryLimits`]).

use std::time::Duration;

use windrow_engine::QueryLimits;

/// How much of a server its clients may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Bytes of one message from a client; a longer one is refused before it is read.
    pub message_bytes_max: usize,
    /// Connections at the same time; for a further one the oldest of those goes that nobody has logged in
    /// on, and otherwise it waits until one leaves.
    pub connections_max: usize,
    /// Connections of one address; a further one takes the place of one that nobody has logged in on, or is
    /// closed. `None`: half of all.
    pub peer_connections_max: Option<usize>,
    /// Calls at the same time on one connection, where a wire allows several; more wait.
    pub calls_max: u32,
    /// Bytes of the headers of one call, where a wire has headers.
    pub header_bytes_max: u32,
    /// How long a handshake, and a new connection without a call, may take.
    pub handshake_time_max: Duration,
    /// How often a silent connection is asked whether it is alive.
    pub keepalive: Duration,
    /// How long queries may still run when the server stops.
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
