//! What a server sends, as a log that forgets.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::TimeUnit;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use windrow_core::{Clock, Result};

use crate::broker::columns::{Carried, Carries, Metadata};
use crate::broker::log::{At, Entry, Feed, Fetched, Log, PIECE_BYTES};

/// The only partition.
const PARTITION: &str = "messages";

/// Where messages come from.
#[async_trait]
pub(super) trait Origin: std::fmt::Debug + Send + Sync + 'static {
    /// Makes a connection.
    ///
    /// # Errors
    /// When the server does not answer, or refuses it.
    async fn connect(&self) -> Result<Box<dyn Incoming>>;
}

/// A connection. What it has received and not returned waits in its socket.
#[async_trait]
pub(super) trait Incoming: Send {
    /// Waits for the next message. Dropping the future loses nothing.
    ///
    /// # Errors
    /// With which the connection ended.
    async fn next(&mut self) -> Result<Received>;
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) value: Bytes,
    pub(super) event: Option<String>,
    pub(super) id: Option<String>,
}

/// What a message carries.
#[derive(Debug)]
pub(crate) struct WebMessage {
    event: Option<String>,
    id: Option<String>,
    /// When it arrived here, in µs since 1970.
    micros: i64,
}

impl Carries for WebMessage {
    fn carried(&self, what: Metadata) -> Carried<'_> {
        let text = |text: &'_ Option<String>| match text {
            Some(text) => Carried::Text(Cow::Owned(text.clone())),
            None => Carried::Nothing,
        };
        match what {
            Metadata::Topic => text(&self.event),
            Metadata::Id => text(&self.id),
            Metadata::Timestamp => Carried::Time(self.micros, TimeUnit::Microsecond),
            Metadata::Key | Metadata::Headers | Metadata::Partition | Metadata::Offset => {
                Carried::Nothing
            }
        }
    }
}

/// The log.
#[derive(Debug)]
pub(crate) struct WebLog<O> {
    origin: O,
    clock: Arc<dyn Clock>,
}

impl<O> WebLog<O> {
    pub(super) fn new(origin: O, clock: Arc<dyn Clock>) -> Self {
        Self { origin, clock }
    }
}

#[async_trait]
impl<O: Origin> Log for WebLog<O> {
    type Message = WebMessage;
    type Feed = WebFeed;

    fn unit(&self) -> &'static str {
        "message"
    }

    fn rediscover_after(&self) -> Option<Duration> {
        None
    }

    fn forgets(&self) -> bool {
        true
    }

    async fn check(&self) -> Result<()> {
        self.origin.connect().await.map(drop)
    }

    async fn partitions(&self) -> Result<Vec<Arc<str>>> {
        Ok(vec![PARTITION.into()])
    }

    async fn start(&self, _: &str, _: bool) -> Result<String> {
        Ok(String::new())
    }

    async fn follow(&self, _: &str, at: &At) -> Result<WebFeed> {
        let incoming = self.origin.connect().await?;
        let (clock, next) = (Arc::clone(&self.clock), at.from.unwrap_or(0));
        Ok(WebFeed { incoming, clock, next, failed: None, is_begun: false })
    }
}

/// The reading of a connection.
pub(crate) struct WebFeed {
    incoming: Box<dyn Incoming>,
    clock: Arc<dyn Clock>,
    /// The offset of the next message.
    next: u64,
    /// With which the connection ended, after messages that were returned.
    failed: Option<windrow_core::Error>,
    /// Whether the connection was reported.
    is_begun: bool,
}

impl WebFeed {
    fn entry(&mut self, Received { value, event, id }: Received) -> Entry<WebMessage> {
        let offset = self.next;
        self.next += 1;
        let message = WebMessage { event, id, micros: self.clock.now_micros() };
        Entry { offset, message, value: Some(value) }
    }
}

#[async_trait]
impl Feed<WebMessage> for WebFeed {
    async fn next(&mut self, rows_max: usize) -> Result<Fetched<WebMessage>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut entries = vec![];
        if self.is_begun {
            let first = self.incoming.next().await?;
            let mut bytes = first.value.len();
            entries.push(self.entry(first));
            while entries.len() < rows_max && bytes < PIECE_BYTES {
                match self.incoming.next().now_or_never() {
                    None => break,
                    Some(Ok(more)) => {
                        bytes += more.value.len();
                        entries.push(self.entry(more));
                    }
                    Some(Err(error)) => {
                        self.failed = Some(error);
                        break;
                    }
                }
            }
        }
        self.is_begun = true;
        Ok(Fetched {
            entries,
            reached: None,
            place: None,
            lag: None,
            is_caught_up: false,
            is_over: false,
        })
    }
}
