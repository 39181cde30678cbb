//! The client of librdkafka: its events, the thread that serves it, and what is asked of brokers.
//!
//! A [`Member`] is one client and reads any number of partitions, each through a queue of its own. What may block is
//! called on threads that may be blocked; the queues of partitions are polled without waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;
use windrow_core::{Error, ErrorKind, Result, SourceHealth};

/// A topic and the number of one of its partitions.
pub(super) type TopicPartition = (String, i32);
pub(super) type Client = BaseConsumer<Context>;
pub(super) type Queue = PartitionQueue<Context>;

/// How long brokers are waited for when they are asked something.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client is polled at a time.
const POLL: Duration = Duration::from_millis(100);

/// What is known of the connections of a stream.
#[derive(Debug, Default)]
pub(super) struct Health {
    members: Mutex<BTreeMap<u64, MemberHealth>>,
    last_error: Mutex<Option<String>>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct MemberHealth {
    /// `None`: not known yet.
    connected: Option<bool>,
    lags: BTreeMap<TopicPartition, u64>,
}

impl Health {
    /// Records an error for users to see.
    pub(super) fn note(&self, error: &str) {
        tracing::debug!("kafka: {error}");
        *self.last_error.lock() = Some(error.to_owned());
    }

    /// The last error.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// The state as users see it.
    pub(super) fn shown(&self) -> SourceHealth {
        let members = self.members.lock();
        let mut lags: BTreeMap<&TopicPartition, u64> = BTreeMap::new();
        for (partition, lag) in members.values().flat_map(|member| &member.lags) {
            let most = lags.entry(partition).or_default();
            *most = (*most).max(*lag);
        }
        SourceHealth {
            connected: members.values().filter_map(|member| member.connected).min(),
            lag_rows: (!lags.is_empty()).then(|| lags.values().sum()),
            last_error: self.last_error.lock().clone(),
        }
    }
}

/// What a client reports.
#[derive(Debug)]
pub(super) struct Context {
    health: Arc<Health>,
    number: u64,
    committed_only: bool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::trace!("librdkafka {facility}: {message}"),
            _ => tracing::debug!("librdkafka {facility}: {message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let connected = statistics.brokers.values().any(|broker| broker.state == "UP");
        let partitions = statistics.topics.iter().flat_map(|(topic, of)| {
            of.partitions.values().map(move |partition| (topic.clone(), partition))
        });
        let lags = partitions.filter_map(|(topic, partition)| {
            let has_stable = self.committed_only && partition.ls_offset >= 0;
            let end = if has_stable { partition.ls_offset } else { partition.hi_offset };
            let lag =
                end.checked_sub(partition.app_offset).filter(|_| partition.app_offset >= 0)?;
            let is_read = partition.desired && partition.partition >= 0;
            is_read.then(|| ((topic, partition.partition), u64::try_from(lag).unwrap_or(0)))
        });
        let state = MemberHealth { connected: Some(connected), lags: lags.collect() };
        // Those of a client that was closed meanwhile are not kept.
        if let Some(known) = self.health.members.lock().get_mut(&self.number) {
            *known = state;
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        // That all are down says less than why one is.
        let says_less = code == Some(RDKafkaErrorCode::AllBrokersDown)
            && self.health.last_error.lock().is_some();
        if says_less || code == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        self.health.note(&shown(&error, reason));
    }
}

impl ConsumerContext for Context {}

/// An error in words for users.
fn shown(error: &KafkaError, reason: &str) -> String {
    match error.rdkafka_error_code() {
        _ if !reason.is_empty() => reason.to_owned(),
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

/// A client and the thread that serves it.
pub(super) struct Member {
    /// `None`: it is being closed.
    client: Option<Arc<Client>>,
    /// Partitions that were ever read with it: none is read twice.
    used: Mutex<BTreeSet<TopicPartition>>,
    left: Arc<Left>,
}

/// What the thread of a client is left to do.
#[derive(Default)]
struct Left {
    /// Partitions that are read no more.
    queues: Mutex<Vec<(TopicPartition, Queue)>>,
    last: Mutex<Option<Arc<Client>>>,
    is_over: AtomicBool,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("used", &self.used).finish_non_exhaustive()
    }
}

impl Member {
    fn start(
        config: &ClientConfig,
        health: &Arc<Health>,
        committed_only: bool,
    ) -> Result<Arc<Self>> {
        let number = health.next.fetch_add(1, Ordering::Relaxed);
        let context = Context { health: Arc::clone(health), number, committed_only };
        let client: Client = config.create_with_context(context).map_err(|error| {
            Error::new(ErrorKind::Config, format!("the Kafka client does not start: {error}"))
        })?;
        let client = Arc::new(client);
        let left = Arc::new(Left::default());
        let (served, of_thread) = (Arc::clone(&client), Arc::clone(&left));
        health.members.lock().insert(number, MemberHealth::default());
        let thread = std::thread::Builder::new().name("windrow-kafka".to_owned());
        let started = thread.spawn(move || serve(&served, &of_thread));
        started.map_err(|error| {
            health.members.lock().remove(&number);
            Error::new(ErrorKind::Limit, format!("no thread can be started: {error}"))
        })?;
        Ok(Arc::new(Self { client: Some(client), used: Mutex::default(), left }))
    }

    /// The client.
    ///
    /// # Errors
    /// When it is being closed (a bug).
    pub(super) fn client(&self) -> Result<&Arc<Client>> {
        self.client.as_ref().ok_or_else(|| Error::internal("the Kafka client is closed"))
    }

    /// Begins to read a partition; `wake` is notified whenever there is something after there was nothing.
    ///
    /// # Errors
    /// When the client refuses it.
    pub(super) fn read(
        &self,
        partition: &TopicPartition,
        from: Offset,
        wake: &Arc<Notify>,
    ) -> Result<Queue> {
        let client = self.client()?;
        let (topic, number) = partition;
        // Before it is assigned, so that no message goes to the queue of the client.
        let mut queue = client.split_partition_queue(topic, *number).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no partition {number} of topic \"{topic}\""),
            )
        })?;
        let wake = Arc::clone(wake);
        queue.set_nonempty_callback(move || wake.notify_one());
        let refused = |error: KafkaError| {
            Error::new(
                ErrorKind::Unavailable,
                format!("partition \"{topic}-{number}\" cannot be read: {error}"),
            )
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, *number, from).map_err(refused)?;
        client.incremental_assign(&list).map_err(refused)?;
        Ok(queue)
    }

    /// Ends to read a partition.
    pub(super) fn release(&self, partition: TopicPartition, queue: Queue) {
        self.left.queues.lock().push((partition, queue));
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Closing may block: it is left to the thread.
        *self.left.last.lock() = self.client.take();
        self.left.is_over.store(true, Ordering::Release);
    }
}

/// Serves a client until it is left.
fn serve(client: &Client, left: &Left) {
    let health = Arc::clone(&client.context().health);
    let number = client.context().number;
    loop {
        match client.poll(POLL) {
            // Errors have been reported to the context.
            None | Some(Err(_)) => {}
            // Partitions have queues of their own.
            Some(Ok(message)) => health.note(&format!("a message came twice: {message:?}")),
        }
        let is_over = left.is_over.load(Ordering::Acquire);
        let released = std::mem::take(&mut *left.queues.lock());
        for ((topic, number), queue) in released {
            let mut list = TopicPartitionList::new();
            list.add_partition(&topic, number);
            if let Err(error) = client.incremental_unassign(&list) {
                health.note(&shown(&error, ""));
            }
            drop(queue);
        }
        if is_over {
            health.members.lock().remove(&number);
            drop(left.last.lock().take());
            return;
        }
    }
}

/// The clients of a stream.
pub(super) struct Clients {
    config: ClientConfig,
    committed_only: bool,
    pub(super) health: Arc<Health>,
    /// The one that reads what is opened next.
    reading: Mutex<Weak<Member>>,
    /// The one that asks brokers.
    asking: Mutex<Option<Arc<Member>>>,
}

/// The configuration has secrets.
impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").field("health", &self.health).finish_non_exhaustive()
    }
}

impl Clients {
    pub(super) fn new(config: ClientConfig, committed_only: bool) -> Self {
        Self {
            config,
            committed_only,
            health: Arc::default(),
            reading: Mutex::default(),
            asking: Mutex::default(),
        }
    }

    fn start(&self) -> Result<Arc<Member>> {
        Member::start(&self.config, &self.health, self.committed_only)
    }

    /// Returns a client that has not read this partition.
    ///
    /// # Errors
    /// When none can be started.
    pub(super) fn for_reading(&self, partition: &TopicPartition) -> Result<Arc<Member>> {
        let mut reading = self.reading.lock();
        if let Some(member) = reading.upgrade()
            && member.used.lock().insert(partition.clone())
        {
            return Ok(member);
        }
        let member = self.start()?;
        member.used.lock().insert(partition.clone());
        *reading = Arc::downgrade(&member);
        Ok(member)
    }

    /// Asks brokers something. Blocks.
    ///
    /// # Errors
    /// When they do not respond.
    pub(super) fn ask<T>(&self, what: impl FnOnce(&Client) -> Result<T, KafkaError>) -> Result<T> {
        let member = {
            let mut asking = self.asking.lock();
            match &*asking {
                Some(member) => Arc::clone(member),
                None => Arc::clone(asking.insert(self.start()?)),
            }
        };
        what(member.client()?).map_err(|error| self.failed(&error))
    }

    /// Returns the error of brokers that do not respond, and records it.
    pub(super) fn failed(&self, error: &KafkaError) -> Error {
        let code = error.rdkafka_error_code();
        let timed_out = matches!(
            code,
            Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::BrokerTransportFailure)
        );
        // The reason of a time-out is what the client could not do meanwhile.
        let why = match self.health.last_error().filter(|_| timed_out) {
            Some(why) => why,
            None => {
                let why = shown(error, "");
                self.health.note(&why);
                why
            }
        };
        let servers = self.config.get("bootstrap.servers").unwrap_or_default();
        Error::new(ErrorKind::Unavailable, format!("brokers \"{servers}\" do not answer: {why}"))
            .with_hint(
                "Check bootstrap.servers, and security.protocol and sasl.* if they need a login.",
            )
    }

    /// Returns the first offset that a partition has and the next one that it will have. Blocks.
    ///
    /// # Errors
    /// When the broker does not respond.
    pub(super) fn extent(&self, (topic, number): &TopicPartition) -> Result<(u64, u64)> {
        let (low, high) = self.ask(|client| client.fetch_watermarks(topic, *number, PATIENCE))?;
        let offset = |offset: i64| u64::try_from(offset).unwrap_or(0);
        Ok((offset(low), offset(high)))
    }
}
