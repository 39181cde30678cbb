//! Sinks with `connector = 'redis'`: rows as entries of streams, each at least once, with the same key again.

use async_trait::async_trait;
use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, RedisResult, cmd};
use windrow_core::{Error, Guarantee, Result, Sink};

use super::options::RedisSinkOptions;
use crate::broker::sink::{Destination, Sending, message_sink};
use crate::env::{ConnectorEnv, SinkSpec};

/// Entries whose answers are waited for together.
const FLIGHT: usize = 256;
/// The field of the key of an entry.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Returns a sink of the options of `CREATE SINK … WITH (connector = 'redis', …)`. Nothing is sent yet.
///
/// # Errors
/// For invalid options, column types that the format does not have, and servers that the user may not write to.
pub(crate) fn open_sink(
    options: &[(String, String)],
    spec: &SinkSpec,
    env: &ConnectorEnv,
) -> Result<Box<dyn Sink>> {
    let options = RedisSinkOptions::read(options)?;
    let place = if options.stream.contains("${") { "" } else { &options.stream };
    options.server.confined(&[place.to_owned()], env)?;
    let clash = options
        .shape
        .headers
        .iter()
        .find(|name| name.eq_ignore_ascii_case(IDEMPOTENCY_KEY) || **name == options.field);
    if let Some(name) = clash {
        return Err(Error::config(format!(
            "option \"headers\": an entry has a field \"{name}\" already"
        )));
    }
    let key = format!("{}:{}", spec.name, spec.id);
    let (shape, sink, stream) =
        (options.shape.clone(), options.sink.clone(), options.stream.clone());
    let destination = RedisDestination { key, options, connection: None };
    message_sink(destination, (&shape, sink), ("stream", &stream), spec, &env.io)
}

struct RedisDestination {
    /// With which keys begin.
    key: String,
    options: RedisSinkOptions,
    connection: Option<MultiplexedConnection>,
}

impl std::fmt::Debug for RedisDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisDestination").field("options", &self.options).finish_non_exhaustive()
    }
}

impl RedisDestination {
    /// Returns the command that adds an entry.
    fn command(&self, sending: &Sending) -> Cmd {
        let mut add = cmd("XADD");
        add.arg(&sending.topic);
        if let Some(length) = self.options.max_length {
            add.arg("MAXLEN").arg("~").arg(length);
        }
        let value = sending.message.value.as_deref().unwrap_or_default();
        add.arg("*").arg(&self.options.field).arg(value);
        for (name, value) in &sending.message.headers {
            if let Some(value) = value {
                add.arg(&**name).arg(&**value);
            }
        }
        let key = format!("{}:{}", self.key, sending.message.row + 1);
        add.arg(IDEMPOTENCY_KEY).arg(key);
        add
    }

    fn failed(&self, error: &RedisError, stream: &str) -> Error {
        match error.code() {
            Some("WRONGTYPE") => Error::data(format!("key \"{stream}\" is not a stream")),
            _ => self.options.server.away(error),
        }
    }
}

#[async_trait]
impl Destination for RedisDestination {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn connect(&mut self) -> Result<()> {
        if self.connection.is_none() {
            let timeout = self.options.sink.timeout;
            self.connection = Some(self.options.server.connect(timeout).await?);
        }
        Ok(())
    }

    async fn send(&mut self, messages: &[Sending]) -> (usize, Result<()>) {
        if let Err(error) = self.connect().await {
            return (0, Err(error));
        }
        let Some(connection) = self.connection.clone() else { return (0, Ok(())) };
        let mut taken = 0;
        for some in messages.chunks(FLIGHT) {
            let commands = some.iter().map(|sending| {
                // All of them go over one connection, in this order.
                let (command, mut connection) = (self.command(sending), connection.clone());
                async move { command.query_async::<String>(&mut connection).await }
            });
            let answers: Vec<RedisResult<String>> = join_all(commands).await;
            for (answer, sending) in answers.iter().zip(some) {
                let Err(error) = answer else {
                    taken += 1;
                    continue;
                };
                if error.code() != Some("WRONGTYPE") {
                    self.connection = None;
                }
                return (taken, Err(self.failed(error, &sending.topic)));
            }
        }
        (taken, Ok(()))
    }

    async fn close(&mut self) {
        self.connection = None;
    }
}
