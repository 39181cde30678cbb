//! `connector = 'kafka'`: topics of Kafka and of what speaks its protocol, by librdkafka.
//!
//! - A partition of a topic is a partition of one split; its offsets are Kafka's own.
//! - Windrow keeps its own positions and commits none, so reading is repeatable as far as the brokers keep messages.
//!   What they have removed before it was read is an error.
//! - Brokers that are away fail nothing that goes on: it waits. Only what ends (a bounded query) says so at once.

mod carried;
mod client;
mod config;
mod options;
mod reader;
pub(crate) mod sink;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use windrow_core::{
    Error, ErrorKind, Partition, PartitionId, Reader, Result, ScanRequest, Source, SourceHealth,
    Split,
};

use self::client::{Clients, PATIENCE, TopicPartition};
use self::config::confine;
use self::options::KafkaOptions;
pub(crate) use self::options::OPTIONS;
use self::reader::{Begin, KafkaReader, Reading, missing};
use crate::broker::start::Start;
use crate::{ConnectorEnv, Declared};

/// The place of a partition that begins with its oldest message.
const EARLIEST: &str = "earliest";
/// How often topics and partitions are looked for by default.
const POLL: Duration = Duration::from_secs(5);

/// Opens the topics that the options describe.
///
/// # Errors
/// See [`open_source`](crate::open_source). Brokers that are away are none: a notice says so.
pub(crate) async fn open(
    options: &[(String, String)],
    declared: &Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    let mut options = KafkaOptions::read(options)?;
    confine(&mut options.config, (&options.servers, &options.topics.names()), env)?;
    let topic = options.topics.only();
    let opened = options.values.open(declared, ("kafka", carried::NAMES), topic, env).await?;
    let (values, mut notices) = opened;
    let clients = Clients::new(options.config.clone(), options.committed_only);
    let reading = Arc::new(Reading {
        values: Arc::new(values),
        clients,
        clock: Arc::clone(&env.clock),
        io: env.io.clone(),
    });
    let topics = Arc::new(Partitions { options, reading, known: Mutex::default() });
    let asked = Arc::clone(&topics);
    let found = blocking(&env.io, move || asked.find()).await;
    if let Err(error) = found {
        notices.push(format!("{}; what reads the stream waits for it", error.message()));
    }
    Ok(Arc::new(KafkaSource { topics, notices }))
}

/// Calls what blocks on a thread for it.
async fn blocking<T: Send + 'static>(
    io: &tokio::runtime::Handle,
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let called = io.spawn_blocking(call).await;
    called.map_err(|error| Error::internal(format!("a call of the Kafka client ended: {error}")))?
}

/// Returns the first offset of a partition from its place; `None`: the oldest.
fn start_of(place: &str) -> Option<u64> {
    place.parse().ok()
}

#[derive(Debug)]
struct KafkaSource {
    topics: Arc<Partitions>,
    notices: Vec<String>,
}

/// The partitions of a stream.
#[derive(Debug)]
struct Partitions {
    options: KafkaOptions,
    reading: Arc<Reading>,
    known: Mutex<Known>,
}

/// The partitions that were found before.
#[derive(Debug, Default)]
struct Known {
    partitions: BTreeMap<TopicPartition, KnownPartition>,
    /// Whether others begin with their oldest message, because they have appeared since the stream is read.
    is_begun: bool,
}

#[derive(Debug, Clone, Copy)]
struct KnownPartition {
    id: PartitionId,
    /// The first offset that belongs to the stream; `None`: the oldest.
    start: Option<u64>,
}

impl Known {
    fn add(&mut self, partition: TopicPartition, start: Option<u64>, only: bool) -> Result<()> {
        let next =
            if only { u32::try_from(partition.1) } else { u32::try_from(self.partitions.len()) };
        let id = PartitionId(
            next.map_err(|_| Error::new(ErrorKind::Limit, "there are too many partitions"))?,
        );
        self.partitions.entry(partition).or_insert(KnownPartition { id, start });
        Ok(())
    }

    fn listed(&self) -> Vec<Partition> {
        let mut listed: Vec<Partition> = self
            .partitions
            .iter()
            .map(|(partition, known)| {
                let name = format!("{}-{}", partition.0, partition.1);
                let place = known.start.map_or(EARLIEST.to_owned(), |start| start.to_string());
                let mut split = Split::new(known.id, 0, &name);
                split.place = Some(place.into());
                split.detail = Arc::new(partition.clone());
                Partition { id: known.id, name, splits: vec![split] }
            })
            .collect();
        listed.sort_by_key(|partition| partition.id);
        listed
    }
}

impl Partitions {
    /// Returns the partitions that the brokers have now, in order. Blocks.
    ///
    /// # Errors
    /// When brokers do not respond, or have not got the topic.
    fn find(&self) -> Result<Vec<TopicPartition>> {
        let topics = &self.options.topics;
        let clients = &self.reading.clients;
        let metadata = clients.ask(|client| client.fetch_metadata(topics.only(), PATIENCE))?;
        let mut found = vec![];
        for topic in metadata.topics().iter().filter(|topic| topics.contains(topic.name())) {
            found.extend(topic.partitions().iter().map(|p| (topic.name().to_owned(), p.id())));
        }
        found.sort();
        if found.is_empty() {
            let what = format!("brokers \"{}\" have no topic \"{topics}\"", self.options.servers);
            clients.health.note(&what);
            return Err(Error::new(ErrorKind::NotFound, what)
                .with_hint("Create the topic, or check its name and the rights to it."));
        }
        Ok(found)
    }

    /// Returns where partitions begin that the stream begins with. Blocks.
    fn starts(&self, new: &[TopicPartition]) -> Result<Vec<Option<u64>>> {
        let clients = &self.reading.clients;
        let end = |partition: &TopicPartition| clients.extent(partition).map(|(_, end)| end);
        match &self.options.start {
            Start::Earliest => Ok(vec![None; new.len()]),
            Start::Latest => new.iter().map(|partition| end(partition).map(Some)).collect(),
            Start::At(offsets) => {
                Ok(new.iter().map(|(_, number)| offsets.get(number).copied()).collect())
            }
            Start::Time(micros) => {
                // A message of the same millisecond may be of that time or later.
                let millis = micros.div_euclid(1_000);
                let mut list = TopicPartitionList::new();
                for (topic, number) in new {
                    let added = list.add_partition_offset(topic, *number, Offset::Offset(millis));
                    added.map_err(|error| clients.failed(&error))?;
                }
                let times = clients.ask(|client| client.offsets_for_times(list, PATIENCE))?;
                let of = |partition: &TopicPartition| {
                    let found = times.find_partition(&partition.0, partition.1);
                    match found.map(|found| found.offset()) {
                        Some(Offset::Offset(offset)) => {
                            Ok(Some(u64::try_from(offset).unwrap_or(0)))
                        }
                        // No message is of that time or later.
                        _ => end(partition).map(Some),
                    }
                };
                new.iter().map(of).collect()
            }
        }
    }

    /// Looks for partitions, and returns all that are known. Blocks.
    fn survey(&self) -> Result<Vec<Partition>> {
        let mut new = self.find()?;
        let is_begun = {
            let known = self.known.lock();
            new.retain(|partition| !known.partitions.contains_key(partition));
            known.is_begun
        };
        let starts = if is_begun { vec![None; new.len()] } else { self.starts(&new)? };
        let mut known = self.known.lock();
        known.is_begun = true;
        let only = self.options.topics.only().is_some();
        for (partition, start) in new.into_iter().zip(starts) {
            known.add(partition, start, only)?;
        }
        Ok(known.listed())
    }

    /// Begins to read a partition. Blocks.
    fn begin(&self, partition: &TopicPartition, scan: &ScanRequest) -> Result<Begin> {
        let name = format!("{}-{}", partition.0, partition.1);
        let known = || self.known.lock().partitions.get(partition).and_then(|known| known.start);
        let start = match scan.place.as_deref() {
            Some(place) => start_of(place),
            None => known(),
        };
        let clients = &self.reading.clients;
        // Nothing has been read of a partition whose position is 0: its place says where it begins.
        let resumed = scan.from.filter(|from| *from > 0);
        let mut from = resumed.max(start);
        let mut until = None;
        if scan.until_now {
            let (low, high) = clients.extent(partition)?;
            if let Some(error) = resumed.and_then(|from| missing(&name, from, (low, high))) {
                return Err(error);
            }
            if let (Start::At(_), Some(from)) = (&self.options.start, from)
                && !(low..=high).contains(&from)
            {
                return Err(Error::data(format!(
                    "partition \"{name}\" has offsets {low} to {high}, and option \"start\" is {from} there"
                ))
                .with_hint("Begin at an offset that it has, or with start = 'earliest'."));
            }
            // What the brokers have removed is not part of the stream any more.
            from = Some(from.unwrap_or(low).max(low));
            until = Some(high);
            if from >= until {
                return Ok(Begin { partition: partition.clone(), queue: None, from, until });
            }
        }
        let offset = match from.map(i64::try_from) {
            None => Offset::Beginning,
            Some(Ok(offset)) => Offset::Offset(offset),
            Some(Err(_)) => return Err(Error::internal("an offset is too large for Kafka")),
        };
        let member = clients.for_reading(partition)?;
        let wake = Arc::default();
        let queue = member.read(partition, offset, &wake)?;
        Ok(Begin { partition: partition.clone(), queue: Some((member, queue, wake)), from, until })
    }
}

#[async_trait]
impl Source for KafkaSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.topics.reading.values.columns.schema)
    }

    fn is_bounded(&self) -> bool {
        false
    }

    fn notices(&self) -> Vec<String> {
        self.notices.clone()
    }

    /// Brokers that are away are no error: what is known is returned, and the rest is found later.
    async fn discover(&self) -> Result<Vec<Partition>> {
        let topics = Arc::clone(&self.topics);
        match blocking(&self.topics.reading.io, move || topics.survey()).await {
            Err(error) if error.kind() == ErrorKind::Internal => Err(error),
            // It is in `windrow.streams`.
            Err(_) => Ok(self.topics.known.lock().listed()),
            found => found,
        }
    }

    async fn discover_now(&self) -> Result<Vec<Partition>> {
        let topics = Arc::clone(&self.topics);
        blocking(&self.topics.reading.io, move || topics.survey()).await
    }

    fn rediscover_after(&self) -> Option<Duration> {
        Some(self.topics.options.poll.unwrap_or(POLL))
    }

    fn recall(&self, partition: &str, place: &str) -> Result<()> {
        let wrong = || Error::internal(format!("\"{partition}\" is no partition of a topic"));
        let (topic, number) = partition.rsplit_once('-').ok_or_else(wrong)?;
        let number = number.parse().map_err(|_| wrong())?;
        let start = start_of(place);
        if start.is_none() && place != EARLIEST {
            return Err(wrong());
        }
        let mut known = self.topics.known.lock();
        known.is_begun = true;
        let only = self.topics.options.topics.only().is_some();
        known.add((topic.to_owned(), number), start, only)
    }

    fn health(&self) -> Option<SourceHealth> {
        Some(self.topics.reading.clients.health.shown())
    }

    async fn open(&self, split: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>> {
        let partition = split.detail.downcast_ref::<TopicPartition>();
        let partition =
            partition.ok_or_else(|| Error::internal("a split is not of Kafka"))?.clone();
        let (topics, request) = (Arc::clone(&self.topics), scan.clone());
        let io = &self.topics.reading.io;
        let begin = blocking(io, move || topics.begin(&partition, &request)).await?;
        let place = split.place.clone();
        let place = scan.place.clone().or(place);
        Ok(Box::new(KafkaReader::new(Arc::clone(&self.topics.reading), begin, scan, place)?))
    }
}
