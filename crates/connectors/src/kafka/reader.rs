//! Reading one partition of a topic.
//!
//! An offset is Kafka's own. Kafka leaves some out (compaction, markers of transactions): they are in the range of a
//! batch and no rows of it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::Message;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;
use windrow_core::{Clock, Error, ErrorKind, Reader, Result, ScanRequest, SourceBatch};

use super::client::{Clients, Member, Queue, TopicPartition};
use crate::broker::assembly::Assembly;
use crate::broker::values::Values;
use crate::formats::decode::Origin;

/// How long a reader sleeps at most; the client wakes it before.
const NAP: Duration = Duration::from_secs(1);
/// How long a bounded reading waits for a broker that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the partitions of a stream are read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) values: Arc<Values>,
    pub(super) clients: Clients,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) io: tokio::runtime::Handle,
}

/// The connection of a reader.
struct Connection {
    /// `None`: it is dropped.
    queue: Option<Queue>,
    member: Arc<Member>,
    partition: TopicPartition,
    wake: Arc<Notify>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            self.member.release(self.partition.clone(), queue);
        }
    }
}

/// What a reader begins with.
pub(super) struct Begin {
    pub(super) partition: TopicPartition,
    /// `None`: there is nothing to read.
    pub(super) queue: Option<(Arc<Member>, Queue, Arc<Notify>)>,
    /// The offset of the first message that is wanted, if it is known.
    pub(super) from: Option<u64>,
    /// The offset before which a bounded reading ends.
    pub(super) until: Option<u64>,
}

/// A reader of one partition.
pub(super) struct KafkaReader {
    reading: Arc<Reading>,
    name: String,
    partition: TopicPartition,
    connection: Option<Connection>,
    assembly: Assembly,
    /// Offset up to which batches were returned; unknown before the first message.
    covered: Option<u64>,
    until: Option<u64>,
    /// The first offset of the partition that is read, for a restart.
    place: Option<Arc<str>>,
    /// An error that came after messages that are returned first.
    failed: Option<Error>,
}

/// What the queue has next.
enum Next {
    Message,
    /// Nothing for now.
    Nothing,
    /// The reading is at its end.
    End,
}

impl KafkaReader {
    /// Returns a reader of the columns of a request.
    ///
    /// # Errors
    /// When a column does not exist.
    pub(super) fn new(
        reading: Arc<Reading>,
        begin: Begin,
        scan: &ScanRequest,
        place: Option<Arc<str>>,
    ) -> Result<Self> {
        let Begin { partition, queue, from, until } = begin;
        let assembly = Assembly::new(Arc::clone(&reading.values), scan)?;
        let connection = queue.map(|(member, queue, wake)| Connection {
            queue: Some(queue),
            member,
            partition: partition.clone(),
            wake,
        });
        Ok(Self {
            name: format!("{}-{}", partition.0, partition.1),
            reading,
            partition,
            connection,
            assembly,
            covered: from,
            until,
            place,
            failed: None,
        })
    }

    /// Takes messages from the queue without waiting.
    fn gather(&mut self) -> Result<Next> {
        let Some(connection) = &self.connection else { return Ok(Next::End) };
        let Some(queue) = &connection.queue else { return Ok(Next::End) };
        let mut next = Next::Nothing;
        while self.assembly.has_room() {
            let message = match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => message,
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    if self.until.is_some() {
                        next = Next::End;
                        break;
                    }
                    continue;
                }
                Some(Err(error)) => {
                    match self.until {
                        _ if is_gone(&error) || is_unreadable(&error) => {
                            self.failed = Some(lost(&self.name, &error));
                        }
                        Some(_) if !is_passing(&error) => {
                            self.failed = Some(self.reading.clients.failed(&error));
                        }
                        _ => drop(self.reading.clients.failed(&error)),
                    }
                    if self.failed.is_some() {
                        break;
                    }
                    continue;
                }
            };
            let offset = u64::try_from(message.offset()).unwrap_or(0);
            if self.until.is_some_and(|until| offset >= until) {
                next = Next::End;
                break;
            }
            // A batch of the broker may begin before what was asked for.
            if self.covered.is_some_and(|covered| offset < covered) {
                continue;
            }
            self.assembly.push(offset, &message, message.payload());
            next = Next::Message;
            if self.until.is_some_and(|until| offset + 1 >= until) {
                next = Next::End;
                break;
            }
        }
        Ok(next)
    }

    /// Returns what was gathered as a batch; `None`: nothing was.
    fn batch(&mut self) -> Result<Option<SourceBatch>> {
        let origin = Origin { kind: "partition", name: &self.name, unit: "offset" };
        let Some(mut batch) = self.assembly.batch(origin, self.covered, None)? else {
            return Ok(None);
        };
        self.covered = Some(batch.offsets.end());
        if self.place.as_deref() == Some(super::EARLIEST) {
            self.place = Some(batch.offsets.start().to_string().into());
        }
        batch.place = self.place.clone();
        Ok(Some(batch))
    }

    /// Asks the broker what it has of the partition.
    fn extent(&self) -> impl Future<Output = Option<(u64, u64)>> + use<> {
        let (reading, partition) = (Arc::clone(&self.reading), self.partition.clone());
        let io = reading.io.clone();
        async move {
            let asked = io.spawn_blocking(move || reading.clients.extent(&partition)).await;
            asked.ok()?.ok()
        }
    }

    /// Ends with the error that came after the messages that were returned.
    async fn fail(&mut self) -> Option<Error> {
        let is_gone = self.failed.as_ref()?.kind() == ErrorKind::Data;
        let from = self.covered.filter(|_| is_gone);
        let asked = match from {
            Some(_) => self.extent().await,
            None => None,
        };
        let missing = from.zip(asked).and_then(|(from, extent)| missing(&self.name, from, extent));
        let failed = self.failed.take();
        missing.or(failed)
    }
}

#[async_trait]
impl Reader for KafkaReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        let mut waited = Duration::ZERO;
        loop {
            if let Some(error) = self.fail().await {
                return Err(error);
            }
            let next = self.gather()?;
            if let Next::End = next {
                self.connection = None;
            }
            let health = Arc::clone(&self.reading.clients.health);
            let note = move |error: &str| health.note(error);
            let (clock, ends) = (&self.reading.clock, self.until.is_some());
            self.assembly.fetch_schemas(clock, ends, note).await?;
            if let Some(batch) = self.batch()? {
                return Ok(Some(batch));
            }
            let Some(connection) = &self.connection else { return Ok(None) };
            if self.failed.is_some() || matches!(next, Next::Message) {
                continue;
            }
            if self.until.is_some() && waited >= PATIENCE {
                let timeout = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                return Err(self.reading.clients.failed(&timeout));
            }
            tokio::select! {
                () = connection.wake.notified() => {}
                () = self.reading.clock.sleep(NAP) => waited += NAP,
            }
        }
    }
}

/// Whether the partition has not got the offset that was asked for.
fn is_gone(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let gone = [Code::AutoOffsetReset, Code::OffsetOutOfRange, Code::LogTruncation];
    error.rdkafka_error_code().is_some_and(|code| gone.contains(&code))
}

/// Whether an error is over when the brokers are back.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let lasting = [
        Code::UnknownTopicOrPartition,
        Code::UnknownTopic,
        Code::UnknownPartition,
        Code::TopicAuthorizationFailed,
        Code::GroupAuthorizationFailed,
        Code::ClusterAuthorizationFailed,
        Code::Authentication,
        Code::SaslAuthenticationFailed,
    ];
    error.rdkafka_error_code().is_none_or(|code| !lasting.contains(&code))
}

/// Whether the client cannot read messages. It steps over them.
fn is_unreadable(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let unreadable = [
        Code::NotImplemented,
        Code::UnsupportedCompressionType,
        Code::BadCompression,
        Code::BadMessage,
        Code::InvalidMessage,
    ];
    error.rdkafka_error_code().is_some_and(|code| unreadable.contains(&code))
}

/// Returns the error of messages that cannot be had.
fn lost(name: &str, error: &KafkaError) -> Error {
    let why = error.rdkafka_error_code().map(|code| code.to_string()).unwrap_or_default();
    if is_unreadable(error) {
        return Error::data(format!(
            "partition \"{name}\" has messages that cannot be read: {why}"
        ))
        .with_hint("Messages are compressed with gzip, snappy, lz4 or zstd.");
    }
    Error::data(format!("partition \"{name}\" does not have the next message any more: {why}"))
        .with_hint(LOST_HINT)
}

const LOST_HINT: &str = "Messages were removed before they were read: keep them longer (retention.ms of the topic), drop what reads them \
     and create it again.";

/// Returns the error of a partition that does not have offset `from`, if it is one.
pub(super) fn missing(name: &str, from: u64, (low, high): (u64, u64)) -> Option<Error> {
    let what = if from < low {
        format!(
            "partition \"{name}\" has lost offsets {from} to {}: its first is {low} now",
            low - 1
        )
    } else if from > high {
        format!(
            "partition \"{name}\" ends at offset {high}, and was read up to {from} before: its topic was created again"
        )
    } else {
        return None;
    };
    Some(Error::data(what).with_hint(LOST_HINT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_said() {
        assert!(missing("t-0", 5, (5, 5)).is_none() && missing("t-0", 5, (0, 9)).is_none());
        let error = missing("t-0", 5, (8, 9)).unwrap();
        assert_eq!(
            error.message(),
            "partition \"t-0\" has lost offsets 5 to 7: its first is 8 now"
        );
        assert!(missing("t-0", 5, (0, 4)).unwrap().message().contains("created again"));
    }
}
