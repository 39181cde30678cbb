//! A source over a log that a broker keeps: partitions that are read from an offset on, again and again.
//!
//! - Windrow keeps its own positions and acknowledges nothing, so reading is repeatable as far as the broker keeps messages.
//!   What it has removed before it was read is an error.
//! - A broker that is away fails nothing that goes on: it is waited for. Only what ends (a bounded query) says so at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use windrow_core::{
    Clock, Error, ErrorKind, Partition, PartitionId, Reader, Result, ScanRequest, Source,
    SourceHealth, Split,
};

use super::columns::Carries;
use super::health::Health;
use super::reader::LogReader;
use super::values::Values;

/// A log that a broker keeps.
#[async_trait]
pub(crate) trait Log: std::fmt::Debug + Send + Sync + Sized + 'static {
    /// A message, with what it carries.
    type Message: Carries + Send;
    /// The reading of a partition.
    type Feed: Feed<Self::Message>;

    /// What the position of a message is called.
    fn unit(&self) -> &'static str;

    /// How often partitions that have appeared are looked for; `None`: they are fixed.
    fn rediscover_after(&self) -> Option<Duration>;

    /// Whether messages are gone once they are [acknowledged](Log::acknowledge) or sent, as in [`Source::forgets`]. Such a
    /// log always has the same partitions.
    fn forgets(&self) -> bool {
        false
    }

    /// Informs a log that forgets that the messages of a partition below `offset` are stored.
    fn acknowledge(&self, partition: &str, offset: u64) {
        let _ = (partition, offset);
    }

    /// Checks that the log can be read, when a stream of it is created.
    ///
    /// # Errors
    /// When the broker does not answer or refuses the login ([`ErrorKind::Denied`]), or has no such log.
    async fn check(&self) -> Result<()> {
        self.partitions().await.map(drop)
    }

    /// Returns the names of the partitions that exist now.
    ///
    /// # Errors
    /// When the broker does not answer, or has no such log.
    async fn partitions(&self) -> Result<Vec<Arc<str>>>;

    /// Returns the place of a partition at which the stream begins, in the connector's own format. `is_new`: the partition has
    /// appeared since the stream is read, so that it begins with its oldest message.
    ///
    /// # Errors
    /// When the broker does not answer.
    async fn start(&self, partition: &str, is_new: bool) -> Result<String>;

    /// Begins to read a partition.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the broker does not answer; [`ErrorKind::Data`] when it does not have the messages any
    /// more that follow.
    async fn follow(&self, partition: &str, at: &At) -> Result<Self::Feed>;
}

/// Where the reading of a partition begins, or is continued.
#[derive(Debug, Clone)]
pub(crate) struct At {
    /// The place that was stored with the position, or with which the partition begins.
    pub(crate) place: Arc<str>,
    /// The next offset, if something was read before.
    pub(crate) from: Option<u64>,
    /// Whether the reading ends with what is there now.
    pub(crate) until_now: bool,
}

/// The reading of a partition. It is used by one task, so that its futures are not dropped while it goes on.
#[async_trait]
pub(crate) trait Feed<M>: Send + 'static {
    /// Waits for messages, some seconds at most, and returns those that are there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the broker does not answer: the partition is [followed](Log::follow) again, from the
    /// last offset that was returned. Any other error ends the reading.
    async fn next(&mut self, rows_max: usize) -> Result<Fetched<M>>;
}

/// About how many bytes the messages have that a feed returns together.
pub(crate) const PIECE_BYTES: usize = 4 << 20;

/// How many messages a feed requests at once, where a broker counts messages and not bytes: enough for one piece, estimated
/// from the sizes of the last messages. So the memory for waiting messages does not grow with their size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portion(usize);

impl Default for Portion {
    fn default() -> Self {
        Self(16)
    }
}

impl Portion {
    /// The number of messages to request; `most`: the upper limit.
    pub(crate) fn messages(self, most: usize) -> usize {
        self.0.clamp(1, most.max(1))
    }

    /// Notes the size of a value. The number of messages shrinks at once, and grows step by step.
    pub(crate) fn saw(&mut self, bytes: usize) {
        let fit = PIECE_BYTES / bytes.max(1);
        self.0 = fit.min(self.0 + 1).max(1);
    }
}

/// A message of a feed.
#[derive(Debug)]
pub(crate) struct Entry<M> {
    pub(crate) offset: u64,
    pub(crate) message: M,
    /// `None`: it has no value.
    pub(crate) value: Option<Bytes>,
}

/// What a feed has returned.
#[derive(Debug)]
pub(crate) struct Fetched<M> {
    /// In order of their offsets.
    pub(crate) entries: Vec<Entry<M>>,
    /// The offset up to which everything is in entries that were returned, where it is beyond the last entry.
    pub(crate) reached: Option<u64>,
    /// The place of the position behind the entries; `None`: as before.
    pub(crate) place: Option<Arc<str>>,
    /// How many messages more the broker has, where it says so.
    pub(crate) lag: Option<u64>,
    /// Whether all messages were returned that were there when the reading began.
    pub(crate) is_caught_up: bool,
    /// Whether there will never be more.
    pub(crate) is_over: bool,
}

/// What the readers of a stream share.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) values: Arc<Values>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) io: tokio::runtime::Handle,
    pub(crate) health: Arc<Health>,
}

/// The source.
#[derive(Debug)]
struct LogSource<L> {
    log: Arc<L>,
    reading: Arc<Reading>,
    notices: Vec<String>,
    known: Mutex<Known>,
}

/// The partitions that were found before.
#[derive(Debug, Default)]
struct Known {
    partitions: Vec<KnownPartition>,
    numbers: BTreeMap<Arc<str>, usize>,
    /// Whether others begin with their oldest message, because they have appeared since the stream is read.
    is_begun: bool,
}

#[derive(Debug)]
struct KnownPartition {
    name: Arc<str>,
    /// The place with which it begins.
    place: Arc<str>,
}

impl Known {
    fn add(&mut self, name: Arc<str>, place: Arc<str>) {
        if !self.numbers.contains_key(&name) {
            self.numbers.insert(Arc::clone(&name), self.partitions.len());
            self.partitions.push(KnownPartition { name, place });
        }
    }

    fn listed(&self) -> Result<Vec<Partition>> {
        let listed = self.partitions.iter().enumerate().map(|(number, known)| {
            let id = u32::try_from(number)
                .map_err(|_| Error::new(ErrorKind::Limit, "there are too many partitions"))?;
            let id = PartitionId(id);
            let mut split = Split::new(id, 0, &known.name);
            split.place = Some(Arc::clone(&known.place));
            split.detail = Arc::new(Arc::clone(&known.name));
            Ok(Partition { id, name: known.name.to_string(), splits: vec![split] })
        });
        listed.collect()
    }
}

/// Whether an error may go away without a change of the stream.
pub(super) fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotFound | ErrorKind::Denied)
}

/// Returns a source over a log. A broker that is away is no error: a notice says so. `restored`: the stream exists already, and
/// a login that is refused is waited for.
///
/// # Errors
/// When the broker answers that the log cannot be read.
pub(crate) async fn source<L: Log>(
    log: L,
    reading: Reading,
    mut notices: Vec<String>,
    restored: bool,
) -> Result<Arc<dyn Source>> {
    let log = Arc::new(log);
    let asked = Arc::clone(&log);
    if let Err(error) = on(&reading.io, async move { asked.check().await }).await {
        let is_refused = error.kind() == ErrorKind::Denied && !restored;
        if is_refused || !may_pass(&error) {
            return Err(error);
        }
        notices.push(format!("{}; what reads the stream waits for it", error.message()));
    }
    let reading = Arc::new(reading);
    Ok(Arc::new(LogSource { log, reading, notices, known: Mutex::default() }))
}

/// Does something on the runtime of connections, from wherever it is asked for.
pub(super) async fn on<T: Send + 'static>(
    io: &tokio::runtime::Handle,
    what: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let done = io.spawn(what).await;
    done.map_err(|end| Error::internal("a call of a broker's client has ended").with_source(end))?
}

impl<L: Log> LogSource<L> {
    /// Looks for partitions, and returns all that are known.
    async fn survey(&self) -> Result<Vec<Partition>> {
        let log = Arc::clone(&self.log);
        let found = on(&self.reading.io, async move { log.partitions().await }).await?;
        let (new, is_begun) = {
            let known = self.known.lock();
            let is_new = |name: &Arc<str>| !known.numbers.contains_key(name);
            (found.into_iter().filter(is_new).collect::<Vec<_>>(), known.is_begun)
        };
        let (log, asked) = (Arc::clone(&self.log), new.clone());
        let starts = async move {
            let mut places = vec![];
            for partition in &asked {
                places.push(log.start(partition, is_begun).await?);
            }
            Ok(places)
        };
        let places = on(&self.reading.io, starts).await?;
        let mut known = self.known.lock();
        known.is_begun = true;
        for (name, place) in new.into_iter().zip(places) {
            known.add(name, place.into());
        }
        known.listed()
    }
}

#[async_trait]
impl<L: Log> Source for LogSource<L> {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.reading.values.columns.schema)
    }

    fn is_bounded(&self) -> bool {
        false
    }

    fn notices(&self) -> Vec<String> {
        self.notices.clone()
    }

    /// A broker that is away is no error: what is known is returned, and the rest is found later.
    async fn discover(&self) -> Result<Vec<Partition>> {
        match self.survey().await {
            Err(error) if may_pass(&error) => {
                self.reading.health.note(error.message());
                self.known.lock().listed()
            }
            found => found,
        }
    }

    async fn discover_now(&self) -> Result<Vec<Partition>> {
        self.survey().await
    }

    fn rediscover_after(&self) -> Option<Duration> {
        self.log.rediscover_after()
    }

    fn recall(&self, partition: &str, place: &str) -> Result<()> {
        let mut known = self.known.lock();
        known.is_begun = true;
        known.add(partition.into(), place.into());
        Ok(())
    }

    fn is_replayable(&self) -> bool {
        !self.log.forgets()
    }

    fn forgets(&self) -> bool {
        self.log.forgets()
    }

    fn acknowledge(&self, split: &Split, offset: u64) {
        if let Some(name) = split.detail.downcast_ref::<Arc<str>>() {
            self.log.acknowledge(name, offset);
        }
    }

    fn health(&self) -> Option<SourceHealth> {
        Some(self.reading.health.shown())
    }

    async fn open(&self, split: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>> {
        let name = split.detail.downcast_ref::<Arc<str>>();
        let name = name.ok_or_else(|| Error::internal("a split is of another connector"))?;
        let place = scan.place.clone().or_else(|| split.place.clone());
        let place = place.ok_or_else(|| Error::internal("a partition has no place"))?;
        // Nothing has been read of a partition whose position is 0: its place says where it begins.
        let from = scan.from.filter(|from| *from > 0);
        let at = At { place, from, until_now: scan.until_now };
        let parts = (Arc::clone(&self.log), Arc::clone(&self.reading));
        Ok(Box::new(LogReader::open(parts, Arc::clone(name), at, scan).await?))
    }
}
