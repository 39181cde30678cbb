//! The options of a sink with `connector = 'kafka'`: Windrow's own, and those of librdkafka, which are passed through.
//!
//! Invariant: no option can weaken the delivery guarantee of the sink.

use std::time::Duration;

use arrow::datatypes::{DataType, Schema};
use rdkafka::ClientConfig;
use windrow_core::{Error, Result, sql_type};

use super::super::config::{check, passed, set_properties};
use crate::encode::CsvStyle;
use crate::options::{OptionDoc, StreamOptions, bad_value, option};

/// The options of a sink.
pub(crate) const SINK_OPTIONS: &[OptionDoc] = &[
    option("bootstrap.servers", "host:port, …", "", "Brokers from which the others are found."),
    option("topic", "a name", "", "The topic that messages are sent to."),
    option(
        "format",
        "'json' | 'csv' | 'raw' | 'bytes'",
        "json",
        "What the value of a message is: the row as a JSON object, a record of CSV without header, the text or the bytes of \
         the only column.",
    ),
    option(
        "key",
        "columns",
        "",
        "The key of a message: the value of the column as text (NULL: no key), or a JSON object of several columns. They \
         are part of the value also, except with format = 'raw' and 'bytes'.",
    ),
    option(
        "headers",
        "columns",
        "",
        "Columns that are sent as headers of their names, as text, and are no part of the value.",
    ),
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
    option("delimiter", "one character", ",", "The separator of fields in CSV."),
    option(
        "null",
        "a word",
        "",
        "What NULL is in CSV; by default the empty field, like an empty text.",
    ),
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

/// The format of the value of a message.
#[derive(Debug, Clone)]
pub(super) enum Form {
    Json,
    Csv(CsvStyle),
    /// The text of the only column.
    Text,
    /// Its bytes.
    Bytes,
}

/// The parsed options of one sink.
#[derive(Clone)]
pub(super) struct KafkaSinkOptions {
    pub(super) servers: String,
    pub(super) topic: String,
    pub(super) form: Form,
    pub(super) key: Vec<String>,
    pub(super) headers: Vec<String>,
    pub(super) tombstones: bool,
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
        let forms = [("json", 0), ("csv", 1), ("raw", 2), ("text", 2), ("bytes", 3)];
        let form = options.choice("format", &forms)?.unwrap_or(0);
        let csv =
            ["delimiter", "null"].iter().find(|name| form != 1 && options.get(name).is_some());
        if let Some(option) = csv {
            return Err(Error::config(format!("option \"{option}\" is for format = 'csv'")));
        }
        let form = match form {
            0 => Form::Json,
            1 => Form::Csv(CsvStyle {
                delimiter: options.ascii("delimiter")?.unwrap_or(b','),
                header: false,
                null: options.get("null").unwrap_or_default().into(),
            }),
            2 => Form::Text,
            _ => Form::Bytes,
        };
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
            form,
            key: options.columns("key")?,
            headers: options.columns("headers")?,
            tombstones: options.flag("tombstones", false)?,
            transactional: options.flag("transactional", true)?,
            batch_rows,
            batch_interval: options
                .duration("batch_interval")?
                .unwrap_or(Duration::from_millis(100)),
            timeout,
            config,
        })
    }

    /// Returns the indexes of the columns of the value.
    ///
    /// # Errors
    /// When an option names a missing column, no column is left for the value, or the format does not support those that are.
    pub(super) fn value_columns(&self, schema: &Schema) -> Result<Vec<usize>> {
        for (option, names) in [("key", &self.key), ("headers", &self.headers)] {
            for name in names {
                if schema.field_with_name(name).is_err() {
                    let known: Vec<&str> =
                        schema.fields().iter().map(|f| f.name().as_str()).collect();
                    return Err(Error::config(format!(
                        "option \"{option}\": there is no column \"{name}\""
                    ))
                    .with_hint(format!("Columns: {}.", known.join(", "))));
                }
            }
        }
        let alone = matches!(self.form, Form::Text | Form::Bytes);
        let is_left =
            |name: &String| !(self.headers.contains(name) || alone && self.key.contains(name));
        let left: Vec<usize> = schema
            .fields()
            .iter()
            .enumerate()
            .filter_map(|(at, field)| is_left(field.name()).then_some(at))
            .collect();
        if left.is_empty() {
            return Err(Error::config("no column is left for the value of messages"));
        }
        if !alone {
            return Ok(left);
        }
        let fits = |data_type: &DataType| match self.form {
            Form::Bytes => matches!(
                data_type,
                DataType::Binary
                    | DataType::LargeBinary
                    | DataType::BinaryView
                    | DataType::FixedSizeBinary(_)
            ),
            _ => matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        };
        let (form, wanted) = match self.form {
            Form::Bytes => ("bytes", "BYTEA"),
            _ => ("raw", "VARCHAR"),
        };
        let types: Vec<String> = left
            .iter()
            .filter_map(|at| schema.fields().get(*at))
            .map(|field| format!("{} {}", field.name(), sql_type(field.data_type())))
            .collect();
        let only = left.first().and_then(|at| schema.fields().get(*at));
        match only.filter(|field| left.len() == 1 && fits(field.data_type())) {
            Some(_) => Ok(left),
            None => Err(Error::config(format!(
                "format = '{form}' needs one {wanted} column besides key and headers, and there are {}",
                types.join(", ")
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

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
        let of = |more: &[(&str, &str)]| read(more).unwrap().value_columns(&schema);
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
