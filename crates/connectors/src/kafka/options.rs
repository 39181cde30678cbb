//! The options of `connector = 'kafka'`: Windrow's own, and those of librdkafka, which pass through by their own names.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use regex::Regex;
use windrow_core::{Error, Result};

use super::config::{check, passed, set_properties};
use crate::broker::avro;
use crate::broker::start::Start;
use crate::broker::values::{self, ValueOptions};
use crate::formats::protobuf::options as protobuf;
use crate::formats::settings;
use crate::options::{OptionDoc, StreamOptions, bad_value, option};
use crate::schema_registry;

/// The options of `connector = 'kafka'`.
pub(crate) const OPTIONS: &[OptionDoc] = &[
    option("bootstrap.servers", "host:port, …", "", "Brokers from which the others are found."),
    option(
        "topic",
        "a name, names with commas, or '^regex'",
        "",
        "The topics that are read; with a pattern, also those that appear later.",
    ),
    values::FORMAT,
    schema_registry::URL,
    schema_registry::LOGIN,
    schema_registry::SUBJECT,
    avro::SCHEMA,
    avro::FRAMING,
    protobuf::SCHEMA,
    protobuf::MESSAGE,
    protobuf::FRAMING,
    option(
        "start",
        "'earliest' | 'latest' | TIMESTAMP '…' | '0:100,1:5'",
        "earliest",
        "Where reading begins: with the oldest message, with those after the stream is first read, with the first of \
         this time or later, or at offsets by partition (those that are not named begin with the oldest).",
    ),
    option(
        "tombstones",
        "'skip' | 'null' | 'bad'",
        "skip",
        "What a message without value is: no row (counted as filtered), a row whose columns of the value are NULL, or \
         a bad row.",
    ),
    settings::ON_BAD_ROW,
    settings::EPOCH,
    settings::DELIMITER,
    settings::QUOTE,
    settings::ESCAPE,
    settings::NULL,
    option(
        "group.id",
        "a name",
        "windrow",
        "The group in whose name is read, where brokers grant rights by it. Positions are Windrow's own and are not \
         committed to the group.",
    ),
    option(
        "isolation.level",
        "'read_committed' | 'read_uncommitted'",
        "read_committed",
        "Whether messages of transactions that are open or aborted are rows.",
    ),
    option(
        "poll_interval",
        "a length of time",
        "5 s",
        "How often topics and partitions that have appeared are looked for.",
    ),
    passed("security.protocol", "'plaintext', 'ssl', 'sasl_plaintext' or 'sasl_ssl'."),
    passed(
        "sasl.*",
        "The login: sasl.mechanism, sasl.username, sasl.password, ….  Secrets are masked.",
    ),
    passed(
        "ssl.*",
        "Certificates and keys: ssl.ca.location, ssl.key.password, …. Secrets are masked.",
    ),
    passed("client.*", "The name of the client: client.id, client.rack."),
    passed("fetch.*", "Sizes and times of a request for messages."),
    passed("queued.*", "How much is fetched ahead of what is read."),
    passed("max.*", "Limits of a request."),
    passed("message.*", "Limits of a message."),
    passed("receive.*", "Limits of a response."),
    passed("socket.*", "Connections: timeouts, keep-alive, buffers."),
    passed("reconnect.*", "The pauses between attempts to connect."),
    passed("retry.*", "The pauses between attempts of a request."),
    passed("connections.*", "When idle connections are closed."),
    passed("broker.*", "How the addresses of brokers are used."),
    passed("metadata.*", "How long what is known of topics is used."),
    passed("topic.*", "How what is known of topics is refreshed."),
    passed("api.*", "Versions of the protocol."),
    passed("check.crcs", "Whether checksums of messages are compared."),
    passed("client.dns.lookup", "How names are resolved."),
    passed("enable.*", "Switches of the client, but for those of positions."),
    passed("log.*", "What the client logs."),
    passed("debug", "Parts of the client that are logged in detail."),
];

/// Options of librdkafka that would break what Windrow promises, with what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("enable.auto.commit", "Windrow keeps its own positions, with its results."),
    ("enable.auto.offset.store", "Windrow keeps its own positions, with its results."),
    (
        "auto.offset.reset",
        "Use start = 'earliest' or 'latest'; messages that are gone are an error.",
    ),
    ("enable.partition.eof", "Bounded queries need it."),
    ("enable.idempotence", "It is for producers."),
    ("enable.gapless.guarantee", "It is for producers."),
    ("enable.metrics.push", "Windrow has metrics of its own."),
    ("message.timeout.ms", "It is for producers."),
    ("message.send.max.retries", "It is for producers."),
    ("queue.buffering.max.messages", "It is for producers."),
];

/// Offsets by partition.
pub(super) type Offsets = BTreeMap<i32, u64>;

/// The topics of a stream.
#[derive(Debug, Clone)]
pub(super) enum Topics {
    Named(Vec<String>),
    Like(Regex),
}

impl Topics {
    /// Their names; an empty one for a pattern.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Named(names) => names.clone(),
            Self::Like(_) => vec![String::new()],
        }
    }

    fn read(text: &str) -> Result<Self> {
        if text.starts_with('^') {
            let pattern = Regex::new(text);
            return Ok(Self::Like(pattern.map_err(|e| {
                Error::config(format!("option \"topic\" is not a regular expression: {e}"))
            })?));
        }
        let mut names: Vec<String> =
            text.split(',').map(|name| name.trim().to_owned()).filter(|n| !n.is_empty()).collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(bad_value("topic", text, "the name of a topic"));
        }
        Ok(Self::Named(names))
    }

    /// The only topic, when there can be no other.
    pub(super) fn only(&self) -> Option<&str> {
        match self {
            Self::Named(names) if names.len() == 1 => names.first().map(String::as_str),
            _ => None,
        }
    }

    /// Whether a topic is one of these.
    pub(super) fn contains(&self, topic: &str) -> bool {
        match self {
            Self::Named(names) => names.iter().any(|name| name == topic),
            Self::Like(pattern) => !topic.starts_with("__") && pattern.is_match(topic),
        }
    }
}

impl std::fmt::Display for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(names) => f.write_str(&names.join(", ")),
            Self::Like(pattern) => f.write_str(pattern.as_str()),
        }
    }
}

/// The parsed options of one stream.
#[derive(Clone)]
pub(super) struct KafkaOptions {
    pub topics: Topics,
    pub servers: String,
    pub values: ValueOptions,
    pub start: Start<Offsets>,
    pub committed_only: bool,
    pub poll: Option<std::time::Duration>,
    /// What the client is created with.
    pub config: ClientConfig,
}

/// The configuration has secrets.
impl std::fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaOptions").field("topics", &self.topics).finish_non_exhaustive()
    }
}

/// Options of Windrow, which the client does not know.
const OWN: &[&str] = &[
    "topic",
    "format",
    "start",
    "tombstones",
    "on_bad_row",
    "epoch",
    "delimiter",
    "quote",
    "escape",
    "null",
    "poll_interval",
    "schema.registry.url",
    "schema.registry.basic.auth.user.info",
    "schema.registry.subject",
    "avro.schema",
    "avro.framing",
    "protobuf.schema",
    "protobuf.message",
    "protobuf.framing",
];

impl KafkaOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown or refused option, and for an invalid value.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        for (key, _) in entries {
            let refused = REFUSED.iter().find(|(name, _)| key.eq_ignore_ascii_case(name));
            if let Some((_, instead)) = refused {
                return Err(Error::config(format!("option \"{key}\" cannot be set for a stream"))
                    .with_hint(*instead));
            }
        }
        let options = StreamOptions::try_new("kafka", entries, OPTIONS)?;
        let levels = [("read_committed", true), ("read_uncommitted", false)];
        Ok(Self {
            topics: Topics::read(options.required("topic")?)?,
            servers: options.required("bootstrap.servers")?.to_owned(),
            values: ValueOptions::read(&options)?,
            start: start(options.get("start").unwrap_or("earliest"))?,
            committed_only: options.choice("isolation.level", &levels)?.unwrap_or(true),
            poll: options.duration("poll_interval")?,
            config: config(&options)?,
        })
    }
}

/// Parses `start`.
fn start(text: &str) -> Result<Start<Offsets>> {
    let pair = |pair: &str| {
        let (partition, offset) = pair.split_once(':')?;
        let partition = partition.trim().parse::<i32>().ok()?;
        Some((partition, offset.trim().parse::<u64>().ok()?)).filter(|_| partition >= 0)
    };
    let offsets = |text: &str| text.split(',').map(pair).collect();
    Start::parse(text, offsets, "offsets such as '0:100,1:5'")
}

/// The configuration of the client.
fn config(options: &StreamOptions<'_>) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    // A group that is only a name: nothing subscribes or commits.
    config.set("group.id", "windrow").set("client.id", "windrow");
    config.set("isolation.level", "read_committed");
    // Of each partition, so that many of them do not fill the memory.
    config.set("queued.max.messages.kbytes", "16384");
    // Once that much is there, fetching pauses: by default for a second, in which a fast reader has nothing to do.
    config.set("fetch.queue.backoff.ms", "5");
    set_properties(&mut config, options, OWN)?;
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("auto.offset.reset", "error").set("enable.partition.eof", "true");
    config.set("statistics.interval.ms", "1000");
    check(&config)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<KafkaOptions> {
        let pairs = [("bootstrap.servers", "b:9092"), ("topic", "t")];
        let pairs = pairs.iter().filter(|(k, _)| more.iter().all(|(other, _)| k != other));
        let pairs: Vec<_> =
            pairs.chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        KafkaOptions::read(&pairs)
    }

    #[test]
    fn starts_are_read() {
        let offsets = Start::At(BTreeMap::from([(0, 100), (1, 5)]));
        for (text, expected) in [
            ("Earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("0:100, 1:5", offsets),
            ("1970-01-01 00:00:01", Start::Time(1_000_000)),
            ("1970-01-01T01:00:00.5+01:00", Start::Time(500_000)),
        ] {
            assert_eq!(read(&[("start", text)]).unwrap().start, expected, "{text}");
        }
        for text in ["soon", "0:", "-1:5", "0:-5", ""] {
            assert!(read(&[("start", text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn topics_are_read() {
        let topics = |text: &str| read(&[("topic", text)]).map(|o| o.topics);
        assert_eq!(topics("b, a,b").unwrap().to_string(), "a, b");
        let like = topics("^orders-.*").unwrap();
        assert!(like.contains("orders-1") && !like.contains("my-orders-1"));
        assert!(topics("^(").is_err() && topics(" , ").is_err());
    }

    #[test]
    fn what_would_break_positions_is_refused() {
        for (key, value) in [
            ("enable.auto.commit", "true"),
            ("auto.offset.reset", "latest"),
            ("plugin.library.paths", "x"),
            ("linger.ms", "5"),
            ("fetch.no.such", "5"),
            ("security.protocol", "carrier pigeon"),
        ] {
            let error = read(&[(key, value)]).unwrap_err();
            assert!(error.message().contains(key), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_in_errors() {
        let error = read(&[
            ("sasl.password", ""),
            ("sasl.mechanism", "PLAIN"),
            ("ssl.key.pem", "hush-hush"),
        ]);
        if let Err(error) = error {
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
    }
}
