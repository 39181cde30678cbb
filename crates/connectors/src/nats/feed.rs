//! Reading a stream of JetStream by a consumer that acknowledges nothing.
//!
//! Invariant: messages are returned in order of their sequences and without a gap that the stream does not have; what would be one
//! is an error, after which a new consumer begins behind the last message.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::stream::Stream;
use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use windrow_core::{Error, Result};

use super::connection::Connection;
use super::log::{NatsMessage, extent, missing};
use crate::broker::log::{Entry, Feed, Fetched};
use crate::causes::with_causes;

/// How long the server waits for messages before it says that there are none.
const WAIT: Duration = Duration::from_secs(2);
/// Messages that are requested at a time.
const PULL: usize = 512;

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The sequence before which everything was read; `None`: it begins wherever the stream does.
    pub(super) from: Option<u64>,
    /// The sequence before which a bounded reading ends.
    pub(super) until: Option<u64>,
}

/// The reading.
pub(crate) struct NatsFeed {
    connection: Arc<Connection>,
    stream: Stream,
    consumer: Consumer<pull::Config>,
    span: Span,
    losses: watch::Receiver<u64>,
    /// The messages that were requested.
    batch: Option<pull::Batch>,
    /// The number of messages that the consumer has sent.
    delivered: u64,
    /// How many messages the server has for it.
    pending: u64,
}

impl NatsFeed {
    pub(super) fn new(
        connection: Arc<Connection>,
        (stream, consumer): (Stream, Consumer<pull::Config>),
        span: Span,
        losses: watch::Receiver<u64>,
    ) -> Self {
        let pending = consumer.cached_info().num_pending;
        Self { connection, stream, consumer, span, losses, batch: None, delivered: 0, pending }
    }

    fn away(&self, why: &str) -> Error {
        self.connection.server.away(why)
    }

    /// Adds a message.
    fn add(
        &mut self,
        message: async_nats::jetstream::Message,
        entries: &mut Vec<Entry<NatsMessage>>,
    ) -> Result<()> {
        let info = message.info().map_err(|error| self.away(&error.to_string()))?;
        let (sequence, number) = (info.stream_sequence, info.consumer_sequence);
        let nanos = i64::try_from(info.published.unix_timestamp_nanos());
        self.pending = info.pending;
        if number != self.delivered + 1 {
            return Err(self.away("messages were lost on the way"));
        }
        self.delivered = number;
        let message = message.message;
        entries.push(Entry {
            offset: sequence,
            value: Some(message.payload),
            message: NatsMessage {
                subject: message.subject,
                sequence,
                nanos: nanos.unwrap_or(i64::MAX),
                headers: message.headers,
            },
        });
        Ok(())
    }

    /// Checks that a gap before messages is not one of messages that were removed before they were read.
    async fn check_gaps(&self, entries: &[Entry<NatsMessage>]) -> Result<()> {
        let mut expected = self.span.from;
        let mut gap = None;
        for entry in entries {
            if expected.is_some_and(|expected| entry.offset > expected) {
                gap = gap.or(expected);
            }
            expected = Some(entry.offset + 1);
        }
        let Some(from) = gap else { return Ok(()) };
        let info = self.stream.get_info().await;
        let info = info.map_err(|error| self.away(&with_causes(&error)))?;
        missing(&info.config.name, from, &info).map_or(Ok(()), Err)
    }

    /// Returns messages that were received, whose end is known.
    async fn fetched(&mut self, entries: Vec<Entry<NatsMessage>>) -> Result<Fetched<NatsMessage>> {
        self.check_gaps(&entries).await?;
        self.span.from = entries.last().map(|entry| entry.offset + 1).max(self.span.from);
        let is_behind = self.span.until.is_some_and(|until| self.span.from >= Some(until));
        Ok(self.piece(entries, None, is_behind || self.pending == 0))
    }

    fn piece(
        &self,
        mut entries: Vec<Entry<NatsMessage>>,
        reached: Option<u64>,
        is_caught_up: bool,
    ) -> Fetched<NatsMessage> {
        let is_caught_up = is_caught_up && self.span.until.is_some();
        if let Some(until) = self.span.until {
            entries.retain(|entry| entry.offset < until);
        }
        Fetched {
            entries,
            reached: if is_caught_up { self.span.until } else { reached },
            place: None,
            lag: Some(self.pending),
            is_caught_up,
            is_over: false,
        }
    }

    /// There was nothing for a while: asks how far the consumer is, and whether it is still there.
    async fn look(&mut self) -> Result<Fetched<NatsMessage>> {
        // Before the consumer is asked: all that it has then passed is no row, or was sent.
        let info = self.stream.get_info().await;
        let info = info.map_err(|error| self.away(&with_causes(&error)))?;
        let consumer = self.consumer.get_info().await;
        let consumer = consumer.map_err(|error| self.away(&with_causes(&error)))?;
        if consumer.delivered.consumer_sequence != self.delivered {
            return Err(self.away("messages were lost on the way"));
        }
        self.pending = consumer.num_pending;
        if self.pending > 0 {
            return Ok(self.piece(vec![], None, false));
        }
        let (_, next) = extent(&info);
        self.span.from = self.span.from.max(Some(next));
        Ok(self.piece(vec![], Some(next), true))
    }
}

#[async_trait]
impl Feed<NatsMessage> for NatsFeed {
    async fn next(&mut self, rows_max: usize) -> Result<Fetched<NatsMessage>> {
        if self.span.until.is_some() && self.pending == 0 {
            return Ok(self.piece(vec![], None, true));
        }
        let mut batch = match self.batch.take() {
            Some(batch) => batch,
            None => {
                let requested = self.consumer.batch().max_messages(PULL).expires(WAIT).messages();
                requested.await.map_err(|error| self.away(&with_causes(&error)))?
            }
        };
        let first = tokio::select! {
            _ = self.losses.changed() => return Err(self.away("the connection was lost")),
            first = batch.next() => first,
        };
        let mut entries = vec![];
        match first {
            None => return self.look().await,
            Some(Err(error)) => return Err(self.away(&error.to_string())),
            Some(Ok(message)) => self.add(message, &mut entries)?,
        }
        let mut is_open = true;
        while is_open && entries.len() < rows_max {
            match batch.next().now_or_never() {
                None => break,
                Some(Some(Ok(message))) => self.add(message, &mut entries)?,
                // The next request shows whether an error lasts.
                Some(Some(Err(_)) | None) => is_open = false,
            }
        }
        if is_open {
            self.batch = Some(batch);
        }
        self.fetched(entries).await
    }
}
