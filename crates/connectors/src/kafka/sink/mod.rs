//! Sinks with `connector = 'kafka'`: rows as messages, exactly once by transactions, or at least once with an idempotency key.
//!
//! ```text
//! write ─► messages, in memory ─ commit ─► one transaction: messages, and the sequence as the offset of the sink's group
//! ```
//! `producer` has the client.
//!
//! Invariant: after an error it is unknown whether a transaction was committed; so a new producer first fences the old one, and
//! then reads the sequence.

mod options;
mod producer;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio::runtime::Handle;
use windrow_core::{Error, ErrorKind, Guarantee, OffsetRange, Result, Sink};

use self::options::KafkaSinkOptions;
pub(crate) use self::options::SINK_OPTIONS;
use self::producer::{Batch, SinkProducer};
use super::config::confine;
use crate::broker::outgoing::{Message, Messages};
use crate::env::{ConnectorEnv, SinkSpec};

/// The maximum size of the messages of one commit, in bytes, unless a single batch is larger.
const BYTES_MAX: usize = 32 << 20;

/// A sink that sends messages.
#[derive(Debug)]
struct KafkaSink {
    name: String,
    /// Its id, unique among all sinks; empty if the sink is only checked.
    origin: String,
    /// Name and id, the prefix of idempotency keys.
    key: String,
    options: Arc<KafkaSinkOptions>,
    messages: Messages,
    io: Handle,
    producer: Option<SinkProducer>,
    batch: Option<Batch>,
    /// Its size, in bytes.
    bytes: usize,
    refused: Option<u64>,
}

/// Returns a sink of the options of `CREATE SINK … WITH (connector = 'kafka', …)`. Nothing is sent yet.
///
/// # Errors
/// For invalid options, column types that the format does not have, and brokers that the user may not write to.
pub(crate) fn open_sink(
    options: &[(String, String)],
    spec: &SinkSpec,
    env: &ConnectorEnv,
) -> Result<Box<dyn Sink>> {
    let mut options = KafkaSinkOptions::read(options)?;
    let place = (options.servers.as_str(), std::slice::from_ref(&options.topic));
    confine(&mut options.config, place, env)?;
    Ok(Box::new(KafkaSink {
        name: spec.name.clone(),
        origin: spec.origin.clone(),
        key: format!("{}:{}", spec.name, spec.id),
        messages: Messages::new(&spec.schema, spec.changes.as_ref(), &options.shape)?,
        options: Arc::new(options),
        io: env.io.clone(),
        producer: None,
        batch: None,
        bytes: 0,
        refused: None,
    }))
}

impl KafkaSink {
    /// Returns a producer, and the sequence that is committed.
    async fn connect(&self) -> Result<(SinkProducer, Option<u64>)> {
        let (options, key) = (Arc::clone(&self.options), self.key.clone());
        let origin = Some(self.origin.clone()).filter(|origin| !origin.is_empty());
        self.blocking(move || {
            let producer = SinkProducer::start(&options, origin.as_deref(), &key)?;
            let has = producer.sequence()?;
            Ok((producer, has))
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let done = self.io.spawn_blocking(what).await;
        done.map_err(|end| {
            Error::internal("a call of the Kafka client has stopped").with_source(end)
        })?
    }

    /// Drops the producer on a thread that may block.
    fn leave(&mut self) {
        if let Some(producer) = self.producer.take() {
            drop(self.io.spawn_blocking(move || drop(producer)));
        }
    }

    /// The error when another process writes for this sink, or its group was reset.
    fn elsewhere(&self, has: u64, known: u64) -> Error {
        let (name, origin) = (&self.name, &self.origin);
        Error::new(
            ErrorKind::Corrupt,
            format!("group \"windrow-{origin}\" has {has} rows of sink \"{name}\", and {known} were committed"),
        )
        .with_detail("A copy of the data directory writes to the topic also, or one of the two was restored from a backup.")
        .with_hint(format!("CREATE OR REPLACE SINK {name} goes on after row {known}, if that is what the topic needs."))
    }

    /// Sends a batch, unless the brokers have it already.
    async fn send(&mut self, batch: Arc<Batch>) -> Result<()> {
        if self.producer.is_none() {
            let (producer, has) = self.connect().await?;
            self.producer = Some(producer);
            match has {
                // The response to a commit was lost.
                Some(has) if has == batch.to => return Ok(()),
                Some(has) if has > batch.from => return Err(self.elsewhere(has, batch.from)),
                // Less: brokers delete the offsets of inactive groups, and some ignore an offset without messages.
                _ => {}
            }
        }
        let Some(producer) = self.producer.take() else { return Ok(()) };
        let sent = self.blocking(move || Ok((producer.send(&batch), producer))).await?;
        match sent {
            (Ok(()), producer) => self.producer = Some(producer),
            (Err(failure), producer) => {
                self.producer = Some(producer);
                if !failure.is_usable {
                    self.leave();
                }
                self.refused = failure.row.filter(|_| failure.error.kind() == ErrorKind::Data);
                return Err(failure.error);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn guarantee(&self) -> Guarantee {
        match self.options.transactional {
            true => Guarantee::ExactlyOnce,
            false => Guarantee::AtLeastOnce,
        }
    }

    fn wait_max(&self) -> Duration {
        self.options.batch_interval
    }

    async fn open(&mut self, _: Option<u64>) -> Result<Option<u64>> {
        self.leave();
        let (producer, has) = self.connect().await?;
        self.producer = Some(producer);
        Ok(has)
    }

    fn room(&self) -> usize {
        let taken = self.batch.as_ref().map_or(0, |batch| batch.to - batch.from);
        let taken = usize::try_from(taken).unwrap_or(usize::MAX);
        match self.bytes >= BYTES_MAX {
            true => 0,
            false => self.options.batch_rows.saturating_sub(taken),
        }
    }

    async fn write(&mut self, rows: &RecordBatch, range: OffsetRange) -> Result<()> {
        let messages = match rows.num_rows() {
            0 => vec![],
            _ => self.messages.of(rows, range.start())?,
        };
        self.bytes += messages.iter().map(Message::size).sum::<usize>();
        let batch =
            self.batch.get_or_insert_with(|| Batch { from: range.start(), ..Batch::default() });
        batch.to = range.end();
        batch.messages.extend(messages);
        Ok(())
    }

    async fn commit(&mut self, _: u64) -> Result<()> {
        self.refused = None;
        let Some(batch) = self.batch.take() else { return Ok(()) };
        let batch = Arc::new(batch);
        let sent = self.send(Arc::clone(&batch)).await;
        if sent.is_err() {
            self.batch = Some(Arc::unwrap_or_clone(batch));
            return sent;
        }
        self.bytes = 0;
        Ok(())
    }

    fn refused(&self) -> Option<u64> {
        self.refused
    }

    async fn rewind(&mut self) -> Result<()> {
        (self.batch, self.bytes) = (None, 0);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        (self.batch, self.bytes) = (None, 0);
        self.leave();
        Ok(())
    }
}
