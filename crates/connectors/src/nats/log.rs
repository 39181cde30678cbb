//! A stream of JetStream as a log: where it begins and ends, and what its messages carry.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::TimeUnit;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Info, RetentionPolicy, Stream};
use async_nats::{HeaderMap, Subject};
use async_trait::async_trait;
use windrow_core::{Error, ErrorKind, Result};

use super::connection::Connection;
use super::feed::{NatsFeed, Span};
use super::options::NatsOptions;
use crate::broker::columns::{Carried, Carries, Metadata, Names, headers_json};
use crate::broker::log::{At, Log};
use crate::broker::start::Start;
use crate::causes::with_causes;

/// The place of a stream that begins with its oldest message.
const EARLIEST: &str = "earliest";
/// How long the server remembers a consumer that is not used.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30);

/// What a message carries.
pub(super) const NAMES: Names = &[
    ("subject", Metadata::Topic),
    ("sequence", Metadata::Offset),
    ("timestamp", Metadata::Timestamp),
    ("headers", Metadata::Headers),
];

/// What a message of a stream carries.
#[derive(Debug)]
pub(crate) struct NatsMessage {
    pub(super) subject: Subject,
    pub(super) sequence: u64,
    /// When the server stored it, in nanoseconds since 1970.
    pub(super) nanos: i64,
    pub(super) headers: Option<HeaderMap>,
}

impl Carries for NatsMessage {
    fn carried(&self, what: Metadata) -> Carried<'_> {
        match what {
            Metadata::Topic => Carried::Text(Cow::Borrowed(self.subject.as_str())),
            Metadata::Offset => {
                i64::try_from(self.sequence).map_or(Carried::Nothing, Carried::Number)
            }
            Metadata::Timestamp => Carried::Time(self.nanos, TimeUnit::Nanosecond),
            Metadata::Headers => self.headers.as_ref().map_or(Carried::Nothing, |headers| {
                // The client has them in no order.
                let mut all: Vec<(&str, Vec<&str>)> = headers
                    .iter()
                    .map(|(name, values)| {
                        let name: &str = name.as_ref();
                        (name, values.iter().map(async_nats::HeaderValue::as_str).collect())
                    })
                    .collect();
                all.sort();
                let all = all.iter().flat_map(|(name, values)| {
                    values.iter().map(|value| (*name, Some(value.as_bytes())))
                });
                Carried::Text(Cow::Owned(headers_json(all)))
            }),
            Metadata::Key | Metadata::Partition | Metadata::Id => Carried::Nothing,
        }
    }
}

/// A stream.
#[derive(Debug)]
pub(crate) struct NatsLog {
    connection: Arc<Connection>,
    options: NatsOptions,
}

impl NatsLog {
    pub(super) fn new(connection: Connection, options: NatsOptions) -> Self {
        Self { connection: Arc::new(connection), options }
    }

    /// Asks for the stream.
    ///
    /// # Errors
    /// When the server does not answer, does not have it, or does not keep its messages for those who come later.
    async fn stream(&self) -> Result<(Context, Stream)> {
        let jetstream = self.connection.jetstream().await?;
        let name = &self.options.stream;
        let stream = jetstream.get_stream(name).await.map_err(|error| self.no_stream(&error))?;
        let retention = match stream.cached_info().config.retention {
            RetentionPolicy::Limits => return Ok((jetstream, stream)),
            RetentionPolicy::WorkQueue => "workqueue",
            RetentionPolicy::Interest => "interest",
        };
        Err(Error::config(format!(
            "stream \"{name}\" has the retention \"{retention}\", by which messages are gone once they are read"
        ))
        .with_hint("Make a stream with the retention \"limits\" that sources or mirrors it, and read that."))
    }

    fn no_stream(&self, error: &GetStreamError) -> Error {
        let (name, servers) = (&self.options.stream, self.connection.server.shown());
        match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.code() == 404 => Error::new(
                ErrorKind::NotFound,
                format!("server \"{servers}\" has no stream \"{name}\""),
            )
            .with_hint("Create the stream, or check its name."),
            GetStreamErrorKind::JetStream(error) => self.connection.server.away(&error.to_string()),
            _ => self.connection.server.away(&with_causes(error)),
        }
    }

    /// Makes a consumer that begins as the policy says.
    async fn consumer(
        &self,
        stream: &Stream,
        deliver_policy: DeliverPolicy,
    ) -> Result<async_nats::jetstream::consumer::Consumer<pull::Config>> {
        let mut config = pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGOTTEN_AFTER,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        match self.options.subjects.as_slice() {
            [] => {}
            [only] => config.filter_subject.clone_from(only),
            several => config.filter_subjects = several.to_vec(),
        }
        let made = stream.create_consumer(config).await;
        made.map_err(|error| self.connection.server.away(&with_causes(&error)))
    }
}

/// Returns the first sequence of a stream and the next one that it will have.
pub(super) fn extent(info: &Info) -> (u64, u64) {
    (info.state.first_sequence.max(1), info.state.last_sequence + 1)
}

/// Returns the error of a stream that does not have sequence `from`, if it is one.
pub(super) fn missing(name: &str, from: u64, info: &Info) -> Option<Error> {
    let (low, next) = extent(info);
    if from > next {
        return Some(Error::data(format!(
            "stream \"{name}\" ends before sequence {next}, and was read up to {from} before: it was created again"
        ))
        .with_hint("Drop what reads it and create it again."));
    }
    // Where only the last messages of each subject are kept, those that others have replaced are no loss.
    if from < low && info.config.max_messages_per_subject <= 0 {
        return Some(Error::data(format!(
            "stream \"{name}\" has lost the sequences {from} to {}: its first is {low} now",
            low - 1
        ))
        .with_hint(
            "Messages were removed before they were read: keep them longer (max_age, max_msgs, max_bytes of the stream), \
             drop what reads them and create it again.",
        ));
    }
    None
}

#[async_trait]
impl Log for NatsLog {
    type Message = NatsMessage;
    type Feed = NatsFeed;

    fn unit(&self) -> &'static str {
        "sequence"
    }

    fn rediscover_after(&self) -> Option<Duration> {
        // It is looked for until it is there.
        Some(Duration::from_secs(5))
    }

    async fn partitions(&self) -> Result<Vec<Arc<str>>> {
        self.stream().await?;
        Ok(vec![self.options.stream.as_str().into()])
    }

    async fn start(&self, _: &str, is_new: bool) -> Result<String> {
        Ok(match &self.options.start {
            _ if is_new => EARLIEST.to_owned(),
            Start::Earliest => EARLIEST.to_owned(),
            Start::At(sequence) => sequence.to_string(),
            Start::Latest => {
                let (_, stream) = self.stream().await?;
                extent(stream.cached_info()).1.to_string()
            }
            Start::Time(micros) => {
                let (_, stream) = self.stream().await?;
                // A time of the client's type comes from one that it has.
                let some = stream.cached_info().created;
                let nanos = i128::from(*micros) * 1_000 - some.unix_timestamp_nanos();
                let far = || Error::config("option \"start\" is out of range");
                let apart = u64::try_from(nanos.unsigned_abs()).map_err(|_| far())?;
                let apart = Duration::from_nanos(apart);
                let start_time = if nanos < 0 { some - apart } else { some + apart };
                let policy = DeliverPolicy::ByStartTime { start_time };
                let consumer = self.consumer(&stream, policy).await?;
                // The server finds the message, and says which one is before it.
                (consumer.cached_info().delivered.stream_sequence + 1).to_string()
            }
        })
    }

    async fn follow(&self, partition: &str, at: &At) -> Result<NatsFeed> {
        let losses = self.connection.losses();
        let (_, stream) = self.stream().await?;
        let info = stream.cached_info();
        if let Some(error) = at.from.and_then(|from| missing(partition, from, info)) {
            return Err(error);
        }
        let (low, next) = extent(info);
        let start = at.place.parse::<u64>().ok();
        let from = at.from.max(start).unwrap_or(low).max(1);
        if let (true, None, Start::At(sequence)) = (at.until_now, at.from, &self.options.start)
            && !(low..=next).contains(sequence)
        {
            return Err(Error::data(format!(
                "stream \"{partition}\" has the sequences {low} to {next}, and option \"start\" is {sequence}"
            ))
            .with_hint("Begin at a sequence that it has, or with start = 'earliest'."));
        }
        let span = Span { from: at.from, until: at.until_now.then_some(next) };
        let policy = DeliverPolicy::ByStartSequence { start_sequence: from };
        let consumer = self.consumer(&stream, policy).await?;
        Ok(NatsFeed::new(Arc::clone(&self.connection), (stream, consumer), span, losses))
    }
}
