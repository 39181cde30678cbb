//! `connector = 'redis'`: streams of Redis and Valkey, by redis-rs.
//!
//! - A stream (a key) is one partition. An offset is the id of an entry as a number: milliseconds times 2²¹ plus the sequence.
//! - Reading acknowledges nothing and uses no group: it begins behind an id.

mod connection;
mod feed;
mod log;
mod options;
mod sink;

use std::sync::Arc;

use windrow_core::{Result, Source};

use self::log::{NAMES, RedisLog};
use self::options::RedisOptions;
pub(crate) use self::options::{OPTIONS, SINK_OPTIONS};
pub(crate) use self::sink::open_sink;
use crate::broker::health::Health;
use crate::broker::log::{Reading, source};
use crate::{ConnectorEnv, Declared};

/// Opens the streams that the options describe.
///
/// # Errors
/// See [`open_source`](crate::open_source). A server that is away is none: a notice says so.
pub(crate) async fn open(
    options: &[(String, String)],
    declared: &Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    let options = RedisOptions::read(options)?;
    options.server.confined(&options.streams, env)?;
    let only = options.streams.first().filter(|_| options.streams.len() == 1);
    let topic = only.map(String::as_str);
    let (values, notices) = options.values.open(declared, ("redis", NAMES), topic, env).await?;
    let reading = Reading {
        values: Arc::new(values),
        clock: Arc::clone(&env.clock),
        io: env.io.clone(),
        health: Arc::new(Health::default()),
    };
    source(RedisLog::new(options), reading, notices, declared.restored).await
}
