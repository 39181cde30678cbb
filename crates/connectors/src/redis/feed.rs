//! Reading a stream of Redis behind an id.
//!
//! Invariant: after entries were read, the entry before them is still there; otherwise some between may be gone, and the reading
//! ends with an error.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};
use windrow_core::{Error, Result};

use super::log::{RedisMessage, extent, id_of, missing, odd_id, offset_of, text};
use super::options::RedisOptions;
use crate::broker::log::{Entry, Feed, Fetched, Portion};

/// How long the server waits for entries, in milliseconds.
const WAIT_MILLIS: u64 = 2_000;

/// The reading.
pub(crate) struct RedisFeed {
    options: Arc<RedisOptions>,
    connection: MultiplexedConnection,
    stream: Arc<str>,
    /// The offset of the next entry, at least.
    from: u64,
    /// Whether an entry before it was read.
    is_begun: bool,
    /// The offset before which a bounded reading ends.
    until: Option<u64>,
    portion: Portion,
}

impl RedisFeed {
    pub(super) fn new(
        (options, connection): (Arc<RedisOptions>, MultiplexedConnection),
        stream: Arc<str>,
        (from, is_begun): (u64, bool),
        until: Option<u64>,
    ) -> Self {
        Self { options, connection, stream, from, is_begun, until, portion: Portion::default() }
    }

    /// Returns the entries of an answer.
    fn entries(&self, answer: Value) -> Result<Vec<Entry<RedisMessage>>> {
        let Value::Array(streams) = answer else { return Ok(vec![]) };
        let mut entries = vec![];
        for stream in streams {
            let Some([_, Value::Array(of_stream)]) = parts(stream) else { return Err(odd()) };
            for entry in of_stream {
                let Some([id, Value::Array(fields)]) = parts(entry) else { return Err(odd()) };
                let id = text(&id).ok_or_else(odd)?;
                let offset = offset_of(&id).ok_or_else(|| odd_id(&self.stream, &id))?;
                let fields: Vec<_> = fields
                    .chunks_exact(2)
                    .filter_map(|pair| match pair {
                        [Value::BulkString(name), Value::BulkString(value)] => {
                            Some((name.clone(), value.clone()))
                        }
                        _ => None,
                    })
                    .collect();
                let wanted = self.options.field.as_bytes();
                let value = fields.iter().find(|(name, _)| name == wanted);
                let value = value.map(|(_, value)| Bytes::copy_from_slice(value));
                let message = RedisMessage { stream: Arc::clone(&self.stream), offset, fields };
                entries.push(Entry { offset, message, value });
            }
        }
        Ok(entries)
    }
}

/// Takes an array of two apart.
fn parts(value: Value) -> Option<[Value; 2]> {
    let Value::Array(values) = value else { return None };
    values.try_into().ok()
}

fn odd() -> Error {
    Error::internal("the server has answered XREAD with something other than a stream")
}

#[async_trait]
impl Feed<RedisMessage> for RedisFeed {
    async fn next(&mut self, rows_max: usize) -> Result<Fetched<RedisMessage>> {
        let count = self.portion.messages(rows_max);
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(count);
        if self.until.is_none() {
            read.arg("BLOCK").arg(WAIT_MILLIS);
        }
        read.arg("STREAMS").arg(&*self.stream).arg(id_of(self.from - 1));
        let answer: Value = read
            .query_async(&mut self.connection)
            .await
            .map_err(|error| self.options.server.away(&error))?;
        let mut entries = self.entries(answer)?;
        if self.is_begun && !entries.is_empty() {
            let extent = extent(&mut self.connection, &self.options, &self.stream).await?;
            if let Some(error) = missing(&self.stream, self.from, extent) {
                return Err(error);
            }
        }
        let is_full = entries.len() >= count;
        for entry in &entries {
            let fields = entry.message.fields.iter();
            self.portion.saw(fields.map(|(name, value)| name.len() + value.len()).sum());
        }
        if let Some(last) = entries.last() {
            (self.from, self.is_begun) = (last.offset + 1, true);
        }
        let is_caught_up = self.until.is_some_and(|until| !is_full || self.from >= until);
        if let Some(until) = self.until {
            entries.retain(|entry| entry.offset < until);
        }
        Ok(Fetched { entries, reached: None, place: None, lag: None, is_caught_up, is_over: false })
    }
}
