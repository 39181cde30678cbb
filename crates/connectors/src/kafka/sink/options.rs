//! The options of a sink with `connector = 'kafka'`: Windrow's own, and those of librdkafka, which are passed through.
//!
//! Invariant: no option can weaken the delivery guarantee of the sink.

use std::time::Duration;

use rdkafka::ClientConfig;
use windrow_core::{Error, Result};

use super::super::config::{check, passed, set_properties};
use crate::broker::shape::{self, Shape};
use crate::options::{OptionDoc, StreamOptions, bad_value, option};

/// The options of a sink.
pub(crate) const SINK_OPTIONS: &[OptionDoc] = &[
    option("bootstrap.servers", "host:port, …", "", "Brokers from which the others are found."),
    option("topic", "a name", "", "The topic that messages are sent to."),
    shape::FORMAT,
    shape::KEY,
    shape::HEADERS,
    option(
        "tombstones",
        "true | false",
        "false",
        "Sends a message without value where all columns but those of the key are NULL, by which compacted topics remove the key; of an updating result, for each `delete`.",
    ),
    option(
        "transactional",
        "true | false",
        "true",
        "Whether messages are sent in transactions, which also commit the sequence. Otherwise they have it in a header.",
    ),
    shape::DELIMITER,
    shape::NULL,
    option("batch_rows", "a number", "10000", "The messages of a transaction at most."),
    option(
        "batch_interval",
        "a length of time",
        "100 ms",
        "How long a row waits for others of its transaction.",
    ),
    option(
        "timeout",
        "a length of time",
        "60 seconds",
        "How long a transaction may take until it is tried again.",
    ),
    passed("security.protocol", "'plaintext', 'ssl', 'sasl_plaintext' or 'sasl_ssl'."),
    passed(
        "sasl.*",
        "The login: sasl.mechanism, sasl.username, sasl.password, …. Secrets are masked.",
    ),
    passed(
        "ssl.*",
        "Certificates and keys: ssl.ca.location, ssl.key.password, …. Secrets are masked.",
    ),
    passed(
        "partitioner",
        "How the partition of a message is chosen by its key: 'murmur2_random' as Java's.",
    ),
    passed("compression.*", "How messages are compressed: compression.type = 'zstd'."),
    passed("linger.ms", "How long messages wait for others of their request."),
    passed("batch.*", "Limits of a request."),
    passed("queue.buffering.*", "How much is held ahead of what is sent."),
    passed("message.max.bytes", "The largest message."),
    passed("sticky.*", "How long messages without key go to one partition."),
    passed("client.*", "The name of the client: client.id, client.rack."),
    passed("max.*", "Limits of requests that are under way."),
    passed("socket.*", "Connections: timeouts, keep-alive, buffers."),
    passed("reconnect.*", "The pauses between attempts to connect."),
    passed("retry.*", "The pauses between attempts of a request."),
    passed("connections.*", "When idle connections are closed."),
    passed("broker.*", "How the addresses of brokers are used."),
    passed("metadata.*", "How long what is known of topics is used."),
    passed("topic.*", "How what is known of topics is refreshed."),
    passed("log.*", "What the client logs."),
    passed("debug", "Parts of the client that are logged in detail."),
];

/// Options of Windrow, which the client does not know.
const OWN: &[&str] = &[
    "topic",
    "format",
    "key",
    "headers",
    "tombstones",
    "transactional",
    "delimiter",
    "null",
    "batch_rows",
    "batch_interval",
    "timeout",
];

/// Options of librdkafka that would break Windrow's guarantees, with what to do instead.
const REFUSED: &[(&str, &str)] = &[
    ("enable.idempotence", "It is always on."),
    ("acks", "All replicas acknowledge: 'all'."),
    ("request.required.acks", "All replicas acknowledge: 'all'."),
    ("transactional.id", "It is windrow- with the identity of the sink."),
    ("group.id", "It is windrow- with the identity of the sink."),
    ("transaction.timeout.ms", "Use the option timeout."),
    ("message.timeout.ms", "Use the option timeout."),
    ("delivery.timeout.ms", "Use the option timeout."),
];

/// The largest `batch_rows`: what fits into the client's queue.
const BATCH_ROWS_MAX: usize = 100_000;
/// The largest `timeout` that brokers grant transactions.
const TIMEOUT_MAX: Duration = Duration::from_secs(900);

/// The parsed options of one sink.
#[derive(Clone)]
pub(super) struct KafkaSinkOptions {
    pub(super) servers: String,
    pub(super) topic: String,
    pub(super) shape: Shape,
    pub(super) transactional: bool,
    pub(super) batch_rows: usize,
    pub(super) batch_interval: Duration,
    pub(super) timeout: Duration,
    /// The configuration of the clients.
    pub(super) config: ClientConfig,
}

/// Hides the configuration, which contains secrets.
impl std::fmt::Debug for KafkaSinkOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSinkOptions").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaSinkOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown or refused option, an invalid value, and options that do not fit together.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        for (key, _) in entries {
            let refused = REFUSED.iter().find(|(name, _)| key.eq_ignore_ascii_case(name));
            if let Some((_, instead)) = refused {
                return Err(Error::config(format!("option \"{key}\" cannot be set for a sink"))
                    .with_hint(*instead));
            }
        }
        let options = StreamOptions::try_new("kafka", entries, SINK_OPTIONS)?;
        let topic = options.required_by_sink("topic")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if topic.is_empty() || topic.len() > 249 || !topic.chars().all(plain) {
            return Err(bad_value("topic", topic, "the name of one topic"));
        }
        let shape = Shape::read(&options)?;
        let batch_rows = options.number::<usize>("batch_rows")?.unwrap_or(10_000);
        if !(1..=BATCH_ROWS_MAX).contains(&batch_rows) {
            let given = options.get("batch_rows").unwrap_or_default();
            return Err(bad_value("batch_rows", given, "a number up to 100000"));
        }
        let timeout = options.duration("timeout")?.unwrap_or(Duration::from_secs(60));
        if timeout < Duration::from_secs(1) || timeout > TIMEOUT_MAX {
            let given = options.get("timeout").unwrap_or_default();
            return Err(bad_value(
                "timeout",
                given,
                "a length of time from '1 second' to '15 minutes'",
            ));
        }
        let mut config = ClientConfig::new();
        set_properties(&mut config, &options, OWN)?;
        check(&config)?;
        Ok(Self {
            servers: options.required_by_sink("bootstrap.servers")?.to_owned(),
            topic: topic.to_owned(),
            shape,
            transactional: options.flag("transactional", true)?,
            batch_rows,
            batch_interval: options
                .duration("batch_interval")?
                .unwrap_or(Duration::from_millis(100)),
            timeout,
            config,
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<KafkaSinkOptions> {
        let all = [("bootstrap.servers", "127.0.0.1:1"), ("topic", "t")];
        let all: Vec<_> = all
            .iter()
            .filter(|(k, _)| more.iter().all(|(m, _)| m != k))
            .chain(more)
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        KafkaSinkOptions::read(&all)
    }

    #[test]
    fn options_that_break_promises_are_refused() {
        for wrong in [
            ("acks", "1"),
            ("enable.idempotence", "false"),
            ("transactional.id", "x"),
            ("message.timeout.ms", "1"),
            ("topic", "a,b"),
            ("topic", "^a"),
            ("format", "avro5"),
            ("delimiter", ";"),
            ("batch_rows", "0"),
            ("timeout", "1 ms"),
            ("key", "a,a"),
            ("plugin.library.paths", "/tmp/x.so"),
        ] {
            assert!(read(&[wrong]).is_err(), "{wrong:?} is taken");
        }
        let good =
            read(&[("compression.type", "zstd"), ("partitioner", "murmur2_random")]).unwrap();
        assert_eq!(good.config.get("compression.type"), Some("zstd"));
        assert!(good.transactional);
    }

    #[test]
    fn the_value_has_what_is_left() {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Utf8, true),
        ]);
        let of = |more: &[(&str, &str)]| read(more).unwrap().shape.value_columns(&schema);
        assert_eq!(of(&[("key", "a"), ("headers", "c")]).unwrap(), [0, 1]);
        assert_eq!(of(&[("key", "a"), ("headers", "c"), ("format", "raw")]).unwrap(), [1]);
        for wrong in [
            vec![("key", "x")],
            vec![("headers", "a,b,c")],
            vec![("format", "raw")],
            vec![("format", "bytes"), ("key", "a"), ("headers", "c")],
        ] {
            assert!(of(&wrong).is_err(), "{wrong:?}");
        }
    }
}
