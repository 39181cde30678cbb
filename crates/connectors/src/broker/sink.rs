//! A sink that sends each row as a message, and waits until the broker has taken it.
//!
//! ```text
//! write ─► messages, in memory ─ commit ─► sent in order; what was taken is not sent again by this process
//! ```
//! Invariant: the messages that wait are those of consecutive rows, and none before the first of them is still to be sent.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::runtime::Handle;
use windrow_core::{Error, ErrorKind, Guarantee, OffsetRange, Result, Sink};

use super::outgoing::{Message, Messages};
use super::shape::Shape;
use crate::env::SinkSpec;
use crate::options::{OptionDoc, StreamOptions, bad_value, option};
use crate::template::Template;

/// `batch_rows`.
pub(crate) const BATCH_ROWS: OptionDoc = option(
    "batch_rows",
    "a number",
    "1000",
    "The most messages that are sent before the sequence is committed.",
);
/// `batch_interval`.
pub(crate) const BATCH_INTERVAL: OptionDoc = option(
    "batch_interval",
    "a length of time",
    "100 ms",
    "How long a row waits for others that are committed with it.",
);
/// `timeout`.
pub(crate) const TIMEOUT: OptionDoc = option(
    "timeout",
    "a length of time",
    "10 seconds",
    "How long the broker may take to acknowledge a message before it is sent again.",
);

/// The largest `batch_rows`.
const BATCH_ROWS_MAX: usize = 100_000;
/// The maximum size of the messages of one commit, in bytes, unless a single batch is larger.
const BYTES_MAX: usize = 32 << 20;

/// A message and where it goes.
#[derive(Debug)]
pub(crate) struct Sending {
    /// The topic, subject or stream.
    pub(crate) topic: String,
    pub(crate) message: Message,
}

/// Where messages go.
#[async_trait]
pub(crate) trait Destination: std::fmt::Debug + Send + Sync + 'static {
    /// How often a message arrives.
    fn guarantee(&self) -> Guarantee;

    /// Connects, unless it is connected.
    ///
    /// # Errors
    /// When the broker does not answer, or refuses the login.
    async fn connect(&mut self) -> Result<()>;

    /// Sends messages in order. Returns how many of them the broker has taken, without a gap, and the error with which it
    /// ended.
    ///
    /// The error is [`ErrorKind::Unavailable`] if it may help to send the next message again, [`ErrorKind::Denied`] if the broker
    /// refuses the login, and [`ErrorKind::Data`] if it refuses the message.
    async fn send(&mut self, messages: &[Sending]) -> (usize, Result<()>);

    /// Ends the connection.
    async fn close(&mut self);
}

/// The options that all of these sinks have.
#[derive(Debug, Clone)]
pub(crate) struct SinkOptions {
    batch_rows: usize,
    batch_interval: Duration,
    /// How long the acknowledgement of a message may take.
    pub(crate) timeout: Duration,
}

impl SinkOptions {
    /// Reads `batch_rows`, `batch_interval` and `timeout`.
    ///
    /// # Errors
    /// For an invalid value.
    pub(crate) fn read(options: &StreamOptions<'_>) -> Result<Self> {
        let batch_rows = options.number::<usize>("batch_rows")?.unwrap_or(1_000);
        if !(1..=BATCH_ROWS_MAX).contains(&batch_rows) {
            let given = options.get("batch_rows").unwrap_or_default();
            return Err(bad_value("batch_rows", given, "a number up to 100000"));
        }
        let timeout = options.duration("timeout")?.unwrap_or(Duration::from_secs(10));
        if timeout < Duration::from_millis(100) || timeout > Duration::from_secs(600) {
            let given = options.get("timeout").unwrap_or_default();
            let expected = "a length of time from '100 ms' to '10 minutes'";
            return Err(bad_value("timeout", given, expected));
        }
        let interval = options.duration("batch_interval")?;
        let batch_interval = interval.unwrap_or(Duration::from_millis(100));
        Ok(Self { batch_rows, batch_interval, timeout })
    }
}

/// The sink.
#[derive(Debug)]
struct MessageSink<D> {
    destination: Option<D>,
    options: SinkOptions,
    topic: Template,
    messages: Messages,
    io: Handle,
    waiting: VecDeque<Sending>,
    /// Their size, in bytes.
    bytes: usize,
    /// How many messages were taken.
    taken: u64,
    refused: Option<u64>,
}

/// Returns a sink. `topic`: the name of the option and its template.
///
/// # Errors
/// For columns that the options name and the view does not have, and for types that the format does not have.
pub(crate) fn message_sink<D: Destination>(
    destination: D,
    (shape, options): (&Shape, SinkOptions),
    topic: (&str, &str),
    spec: &SinkSpec,
    io: &Handle,
) -> Result<Box<dyn Sink>> {
    Ok(Box::new(MessageSink {
        topic: Template::parse(topic, &spec.schema, false)?,
        messages: Messages::new(&spec.schema, spec.changes.as_ref(), shape)?,
        destination: Some(destination),
        options,
        io: io.clone(),
        waiting: VecDeque::new(),
        bytes: 0,
        taken: 0,
        refused: None,
    }))
}

/// Turns an error of a refused login into one that may go away: the sink waits until the login is accepted again.
fn waits(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Denied => {
            let waiting = Error::new(ErrorKind::Unavailable, error.message().to_owned());
            error.hints().iter().fold(waiting, Error::with_hint)
        }
        _ => error,
    }
}

impl<D: Destination> MessageSink<D> {
    fn lost() -> Error {
        Error::internal("a sink's connection was lost with the task that used it")
    }

    /// Does something with the destination on the runtime of connections.
    async fn with<T, F>(&mut self, what: impl FnOnce(D) -> F + Send) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = (D, T)> + Send + 'static,
    {
        let destination = self.destination.take().ok_or_else(Self::lost)?;
        let done = self.io.spawn(what(destination)).await;
        let (destination, result) = done.map_err(|end| Self::lost().with_source(end))?;
        self.destination = Some(destination);
        Ok(result)
    }
}

#[async_trait]
impl<D: Destination> Sink for MessageSink<D> {
    fn guarantee(&self) -> Guarantee {
        self.destination.as_ref().map_or(Guarantee::AtLeastOnce, Destination::guarantee)
    }

    fn wait_max(&self) -> Duration {
        self.options.batch_interval
    }

    async fn open(&mut self, _: Option<u64>) -> Result<Option<u64>> {
        let connect = |mut destination: D| async move {
            let connected = destination.connect().await;
            (destination, connected)
        };
        self.with(connect).await?.map_err(waits)?;
        Ok(None)
    }

    fn room(&self) -> usize {
        match self.bytes >= BYTES_MAX {
            true => 0,
            false => self.options.batch_rows.saturating_sub(self.waiting.len()),
        }
    }

    async fn write(&mut self, rows: &RecordBatch, range: OffsetRange) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let topics = self.topic.fill(rows)?;
        let messages = self.messages.of(rows, range.start())?;
        self.bytes += messages.iter().map(Message::size).sum::<usize>();
        let sendings =
            topics.into_iter().zip(messages).map(|(topic, message)| Sending { topic, message });
        self.waiting.extend(sendings);
        Ok(())
    }

    async fn commit(&mut self, _: u64) -> Result<()> {
        self.refused = None;
        if self.waiting.is_empty() {
            return Ok(());
        }
        let messages = Vec::from(std::mem::take(&mut self.waiting));
        let send = |mut destination: D| async move {
            let (taken, sent) = match destination.connect().await {
                Ok(()) => destination.send(&messages).await,
                Err(error) => (0, Err(error)),
            };
            (destination, (messages, taken, sent.map_err(waits)))
        };
        let (messages, taken, sent) = self.with(send).await?;
        self.waiting = messages.into();
        self.waiting.drain(..taken.min(self.waiting.len()));
        self.taken += taken as u64;
        self.bytes = self.waiting.iter().map(|sending| sending.message.size()).sum();
        let next = self.waiting.front().map(|sending| sending.message.row);
        match sent {
            Ok(()) if next.is_none() => Ok(()),
            Ok(()) => Err(Error::internal("a sink has sent less than it was given")),
            Err(error) => {
                self.refused = next.filter(|_| error.kind() == ErrorKind::Data);
                Err(error)
            }
        }
    }

    fn delivered(&self) -> Option<u64> {
        self.waiting.front().map(|sending| sending.message.row)
    }

    fn refused(&self) -> Option<u64> {
        self.refused
    }

    fn progress(&self) -> u64 {
        self.taken
    }

    async fn rewind(&mut self) -> Result<()> {
        self.waiting.clear();
        self.bytes = 0;
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        self.waiting.clear();
        self.bytes = 0;
        let close = |mut destination: D| async move {
            destination.close().await;
            (destination, ())
        };
        self.with(close).await
    }
}
