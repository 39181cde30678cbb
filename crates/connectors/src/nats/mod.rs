//! `connector = 'nats'`: streams of JetStream, by async-nats.
//!
//! - A stream is one partition; its offsets are the sequence numbers of the stream.
//! - Reading acknowledges nothing: a consumer is made for a position, forgotten by the server after a while, and made again
//!   when the connection was lost.
//! - A sink gives each message an id, by which the stream drops what comes twice within its window of de-duplication.

mod connection;
mod feed;
mod log;
mod options;
mod sink;

use std::sync::Arc;

use windrow_core::{Result, Source};

use self::connection::Connection;
use self::log::{NAMES, NatsLog};
use self::options::NatsOptions;
pub(crate) use self::options::{OPTIONS, SINK_OPTIONS};
pub(crate) use self::sink::open_sink;
use crate::broker::health::Health;
use crate::broker::log::{Reading, source};
use crate::{ConnectorEnv, Declared};

/// Opens the stream that the options describe.
///
/// # Errors
/// See [`open_source`](crate::open_source). A server that is away is none: a notice says so.
pub(crate) async fn open(
    options: &[(String, String)],
    declared: &Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    let options = NatsOptions::read(options)?;
    let server = options.server.confined(&options.stream, env)?;
    let opened = options.values.open(declared, ("nats", NAMES), Some(&options.stream), env).await?;
    let (values, notices) = opened;
    let health = Arc::new(Health::default());
    let connection = Connection::new(server, Arc::clone(&health));
    let log = NatsLog::new(connection, options);
    let reading = Reading {
        values: Arc::new(values),
        clock: Arc::clone(&env.clock),
        io: env.io.clone(),
        health,
    };
    source(log, reading, notices, declared.restored).await
}
