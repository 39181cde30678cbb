//! A producer of librdkafka, and the transactions of a sink. All calls block, so they are made on threads that may block.
//!
//! ```text
//! init (fences an earlier producer) ─► begin ─► messages ─► offset of the sink's group ─► commit
//! ```
//! The offset of the group `windrow-<origin>` in partition 0 of the topic is the sequence: the number of rows of the view that the topic has.
//!
//! Invariant: messages and sequence are committed together, or neither is.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::RDKafkaErrorCode;
use windrow_core::{Error, ErrorKind, Result};

use super::super::config::wrong;
use super::options::KafkaSinkOptions;
use crate::broker::outgoing::Message;

/// The timeout of an abort, after which the producer is discarded.
const ABORT: Duration = Duration::from_secs(10);
/// Attempts to find a topic, which brokers may create on the first request.
const ATTEMPTS: usize = 5;
/// The header of a message's idempotency key, without transactions.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The callbacks of a client.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The first message that was not delivered, by its place.
    failed: Mutex<Option<(usize, RDKafkaErrorCode)>>,
    last_error: Mutex<Option<String>>,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::trace!("librdkafka {facility}: {message}"),
            _ => tracing::debug!("librdkafka {facility}: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // That all brokers are down says less than why one of them is.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.last_error.lock() = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let mut failed = self.failed.lock();
            // That messages were purged says less than the error that caused it.
            let is_purged = |code| {
                matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
            };
            if failed.is_none_or(|(_, before)| is_purged(before)) {
                *failed = Some((place, code));
            }
        }
    }
}

/// Messages that are sent together, and the sequence after them.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) messages: Vec<Message>,
}

/// Why messages were not sent.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// The row that was refused, if it is known.
    pub(super) row: Option<u64>,
    /// Whether the producer can go on.
    pub(super) is_usable: bool,
}

/// The group of a sink, where there are transactions.
struct Group {
    consumer: BaseConsumer,
    metadata: ConsumerGroupMetadata,
}

/// See the module.
pub(super) struct SinkProducer {
    producer: BaseProducer<Reports>,
    group: Option<Group>,
    /// The prefix of idempotency keys.
    key: String,
    options: Arc<KafkaSinkOptions>,
}

impl std::fmt::Debug for SinkProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkProducer").field("key", &self.key).finish_non_exhaustive()
    }
}

impl SinkProducer {
    /// Starts a producer and finds the topic; with transactions, an earlier producer is fenced. `origin`: the unique id of
    /// the sink; `None`: only the topic is looked up. Blocks.
    ///
    /// # Errors
    /// When brokers do not respond, or there is no topic.
    pub(super) fn start(
        options: &Arc<KafkaSinkOptions>,
        origin: Option<&str>,
        key: &str,
    ) -> Result<Self> {
        let mut config = options.config.clone();
        let time = options.timeout.as_millis().to_string();
        config.set("enable.idempotence", "true").set("acks", "all");
        let identity = origin.filter(|_| options.transactional).map(|id| format!("windrow-{id}"));
        match &identity {
            Some(identity) => {
                config.set("transactional.id", identity).set("transaction.timeout.ms", &time)
            }
            None => config.set("message.timeout.ms", &time),
        };
        let producer: BaseProducer<Reports> =
            config.create_with_context(Reports::default()).map_err(|error| wrong(&error))?;
        let mut started =
            Self { producer, group: None, key: key.to_owned(), options: Arc::clone(options) };
        started.find_topic()?;
        if let Some(identity) = identity {
            let begun = started.producer.init_transactions(options.timeout);
            begun.map_err(|error| started.judged(&error))?;
            let mut config = options.config.clone();
            config.set("group.id", &identity).set("isolation.level", "read_committed");
            config.set("enable.auto.commit", "false");
            let consumer: BaseConsumer = config.create().map_err(|error| wrong(&error))?;
            let metadata = consumer
                .group_metadata()
                .ok_or_else(|| Error::internal("a group of Kafka has no metadata"))?;
            started.group = Some(Group { consumer, metadata });
        }
        Ok(started)
    }

    fn find_topic(&self) -> Result<()> {
        let topic = &self.options.topic;
        for attempt in 1..=ATTEMPTS {
            let found = self.producer.client().fetch_metadata(Some(topic), self.options.timeout);
            let found = found.map_err(|error| self.judged(&error))?;
            let error = found.topics().first().and_then(MetadataTopic::error);
            match error.map(RDKafkaErrorCode::from) {
                None => return Ok(()),
                Some(code) if attempt == ATTEMPTS => {
                    let servers = &self.options.servers;
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        format!("topic \"{topic}\" of \"{servers}\" cannot be written to: {code}"),
                    )
                    .with_hint("Create it, and grant Write and Describe on it."));
                }
                // The request may have created it.
                Some(_) => self.producer.poll(Duration::from_millis(100)),
            }
        }
        Ok(())
    }

    /// Returns the committed sequence; `None` if it is unknown. Blocks.
    ///
    /// # Errors
    /// When brokers do not respond.
    pub(super) fn sequence(&self) -> Result<Option<u64>> {
        let Some(group) = &self.group else { return Ok(None) };
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.options.topic, 0);
        let committed = group.consumer.committed_offsets(list, self.options.timeout);
        let committed = committed.map_err(|error| self.judged(&error))?;
        let elements = committed.elements();
        let element = elements.first();
        if let Some(error) = element.and_then(|element| element.error().err()) {
            return Err(self.judged(&error));
        }
        Ok(match element.map(TopicPartitionListElem::offset) {
            Some(Offset::Offset(sequence)) => u64::try_from(sequence).ok(),
            _ => None,
        })
    }

    /// Sends messages; with transactions, together with the sequence after them. Blocks.
    ///
    /// # Errors
    /// When they are not known to be delivered.
    pub(super) fn send(&self, batch: &Batch) -> Result<(), Failure> {
        *self.producer.context().failed.lock() = None;
        let Some(group) = &self.group else {
            return self.produce(batch).map_err(|(error, row)| {
                // Messages in flight could be delivered after their repetition.
                Failure { error, row, is_usable: false }
            });
        };
        let broken =
            |error: KafkaError| Failure { error: self.judged(&error), row: None, is_usable: false };
        self.producer.begin_transaction().map_err(broken)?;
        let sent = self.produce(batch).and_then(|()| {
            let offset = i64::try_from(batch.to)
                .map_err(|_| (Error::internal("a sequence is too large"), None))?;
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&self.options.topic, 0, Offset::Offset(offset))
                .and_then(|()| {
                    self.producer.send_offsets_to_transaction(
                        &list,
                        &group.metadata,
                        self.options.timeout,
                    )
                })
                .map_err(|error| (self.judged(&error), None))
        });
        if let Err((error, row)) = sent {
            let is_usable = self.producer.abort_transaction(ABORT).is_ok();
            return Err(Failure { error, row, is_usable });
        }
        match self.producer.commit_transaction(self.options.timeout) {
            Ok(()) => Ok(()),
            Err(error) => {
                let must_abort =
                    matches!(&error, KafkaError::Transaction(e) if e.txn_requires_abort());
                // Otherwise it is unknown whether it is committed: the next producer finds out.
                let is_usable = must_abort && self.producer.abort_transaction(ABORT).is_ok();
                Err(Failure { error: self.judged(&error), row: None, is_usable })
            }
        }
    }

    /// Sends messages and waits until they are delivered.
    fn produce(&self, batch: &Batch) -> Result<(), (Error, Option<u64>)> {
        for (place, message) in batch.messages.iter().enumerate() {
            let mut record = self.record(place, message);
            loop {
                match self.producer.send(record) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        self.producer.poll(Duration::from_millis(100));
                        if self.producer.context().failed.lock().is_some() {
                            return Err(self.undelivered(batch));
                        }
                        record = back;
                    }
                    Err((error, _)) => {
                        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                        return Err((self.of_message(code), Some(message.row)));
                    }
                }
            }
            if place % 256 == 0 {
                self.producer.poll(Duration::ZERO);
            }
        }
        self.producer.flush(self.options.timeout).map_err(|error| (self.judged(&error), None))?;
        match *self.producer.context().failed.lock() {
            None => Ok(()),
            Some((_, code)) => Err((self.of_message(code), None)),
        }
    }

    fn undelivered(&self, batch: &Batch) -> (Error, Option<u64>) {
        let failed = *self.producer.context().failed.lock();
        let code = failed.map_or(RDKafkaErrorCode::Unknown, |(_, code)| code);
        let alone = batch.messages.first().filter(|_| batch.messages.len() == 1);
        (self.of_message(code), alone.map(|message| message.row))
    }

    fn record<'a>(
        &'a self,
        place: usize,
        message: &'a Message,
    ) -> BaseRecord<'a, [u8], [u8], usize> {
        let mut record = BaseRecord::with_opaque_to(&self.options.topic, place);
        if let Some(key) = &message.key {
            record = record.key(key.as_ref());
        }
        if let Some(value) = &message.value {
            record = record.payload(value.as_ref());
        }
        if !message.headers.is_empty() || self.group.is_none() {
            let mut headers = OwnedHeaders::new();
            for (name, value) in &message.headers {
                headers = headers.insert(Header { key: name, value: value.as_deref() });
            }
            if self.group.is_none() {
                let key = format!("{}:{}", self.key, message.row + 1);
                headers = headers.insert(Header { key: IDEMPOTENCY_KEY, value: Some(&key) });
            }
            record = record.headers(headers);
        }
        record
    }

    /// Classifies the error of a message that was not delivered.
    fn of_message(&self, code: RDKafkaErrorCode) -> Error {
        let topic = &self.options.topic;
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp => {
                Error::data(format!("topic \"{topic}\" refuses a message: {code}"))
            }
            _ => self.away(&code.to_string()),
        }
    }

    /// Classifies an error: unavailable brokers, or an error that needs the user.
    fn judged(&self, error: &KafkaError) -> Error {
        let code = error.rdkafka_error_code();
        match (code, error) {
            (Some(RDKafkaErrorCode::UnsupportedFeature), _) => {
                let servers = &self.options.servers;
                Error::config(format!("brokers \"{servers}\" have no transactions: {error}"))
                    .with_hint("transactional = 'false' sends messages at least once, with their number in a header.")
            }
            (Some(code), _) => self.away(&code.to_string()),
            (None, KafkaError::Transaction(inner)) => self.away(&inner.string()),
            (None, _) => self.away(&error.to_string()),
        }
    }

    fn away(&self, why: &str) -> Error {
        let servers = &self.options.servers;
        let last = self.producer.context().last_error.lock().clone();
        let last =
            last.filter(|last| last != why).map(|last| format!(" ({last})")).unwrap_or_default();
        Error::new(ErrorKind::Unavailable, format!("brokers \"{servers}\" do not accept messages: {why}{last}"))
            .with_hint(
                "Check bootstrap.servers, security.protocol and sasl.*, and grants on the topic, and on the transactional id and the group \
                 that begin with windrow-.",
            )
    }
}
