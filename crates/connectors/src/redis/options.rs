//! The options of `connector = 'redis'`.

use windrow_core::Result;

use super::connection::ServerOptions;
use super::log::offset_of;
use crate::broker::avro;
use crate::broker::shape::{self, Shape};
use crate::broker::sink::{self, SinkOptions};
use crate::broker::start::Start;
use crate::broker::values::{self, ValueOptions};
use crate::formats::protobuf::options as protobuf;
use crate::formats::settings;
use crate::options::{OptionDoc, StreamOptions, bad_value, option};
use crate::schema_registry;

const SERVER: OptionDoc = option("server", "host:port", "", "The server.");
const FIELD: OptionDoc =
    option("field", "a name", "value", "The field of an entry that has the value of a message.");
const USER: OptionDoc = option("user", "a name", "", "The user of the login.");
const PASSWORD: OptionDoc = option("password", "a text", "", "The password of the login.");
const DATABASE: OptionDoc = option("database", "a number", "0", "The database of the server.");

/// The options of a stream.
pub(crate) const OPTIONS: &[OptionDoc] = &[
    SERVER,
    option("stream", "a name, or names with commas", "", "The streams (keys) that are read."),
    FIELD,
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
        "'earliest' | 'latest' | TIMESTAMP '…' | an id",
        "earliest",
        "Where reading begins: with the oldest entry, with those after the stream is first read, with the first whose id is of \
         this time or later, or at an id: '1767225600000-0'.",
    ),
    settings::ON_BAD_ROW,
    settings::EPOCH,
    settings::DELIMITER,
    settings::QUOTE,
    settings::ESCAPE,
    settings::NULL,
    USER,
    PASSWORD,
    DATABASE,
];

/// The options of a sink.
pub(crate) const SINK_OPTIONS: &[OptionDoc] = &[
    SERVER,
    option(
        "stream",
        "a name with ${column}",
        "",
        "The stream (key) that an entry is added to: 'orders:${country}'.",
    ),
    FIELD,
    option(
        "max_length",
        "a number",
        "",
        "About how many entries a stream keeps; the oldest are removed when others are added.",
    ),
    shape::FORMAT,
    shape::HEADERS,
    shape::DELIMITER,
    shape::NULL,
    sink::BATCH_ROWS,
    sink::BATCH_INTERVAL,
    sink::TIMEOUT,
    USER,
    PASSWORD,
    DATABASE,
];

/// The parsed options of streams.
#[derive(Debug, Clone)]
pub(super) struct RedisOptions {
    pub(super) server: ServerOptions,
    pub(super) streams: Vec<String>,
    pub(super) field: String,
    pub(super) values: ValueOptions,
    /// An offset.
    pub(super) start: Start<u64>,
}

impl RedisOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, and for an invalid value.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("redis", entries, OPTIONS)?;
        let given = options.required("stream")?;
        let mut streams: Vec<String> =
            given.split(',').map(|name| name.trim().to_owned()).collect();
        streams.sort();
        streams.dedup();
        if streams.iter().any(String::is_empty) {
            return Err(bad_value("stream", given, "the name of a stream"));
        }
        let start = options.get("start").unwrap_or("earliest");
        let id = |text: &str| offset_of(text).filter(|offset| *offset > 0);
        Ok(Self {
            server: ServerOptions::read(options.required("server")?, &options)?,
            streams,
            field: field(&options)?,
            values: ValueOptions::read(&options)?.with_bad_tombstones(),
            start: Start::parse(start, id, "an id such as '1767225600000-0'")?,
        })
    }
}

fn field(options: &StreamOptions<'_>) -> Result<String> {
    match options.get("field").unwrap_or("value") {
        "" => Err(bad_value("field", "", "the name of a field")),
        name => Ok(name.to_owned()),
    }
}

/// The parsed options of a sink.
#[derive(Debug, Clone)]
pub(super) struct RedisSinkOptions {
    pub(super) server: ServerOptions,
    pub(super) stream: String,
    pub(super) field: String,
    pub(super) max_length: Option<u64>,
    pub(super) shape: Shape,
    pub(super) sink: SinkOptions,
}

impl RedisSinkOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, and for an invalid value.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("redis", entries, SINK_OPTIONS)?;
        let stream = options.required_by_sink("stream")?;
        if stream.is_empty() {
            return Err(bad_value("stream", stream, "the name of a stream"));
        }
        let max_length = options.number::<u64>("max_length")?;
        if max_length == Some(0) {
            return Err(bad_value("max_length", "0", "a number of entries"));
        }
        Ok(Self {
            server: ServerOptions::read(options.required_by_sink("server")?, &options)?,
            stream: stream.to_owned(),
            field: field(&options)?,
            max_length,
            shape: Shape::read(&options)?,
            sink: SinkOptions::read(&options)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<RedisOptions> {
        let all = [("server", "127.0.0.1:6379"), ("stream", "s")];
        let all = all.iter().filter(|(k, _)| more.iter().all(|(m, _)| m != k)).chain(more);
        let all: Vec<_> = all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        RedisOptions::read(&all)
    }

    #[test]
    fn options_are_read() {
        let options = read(&[("stream", "b, a"), ("start", "1-2")]).unwrap();
        assert_eq!((options.streams.len(), options.start), (2, Start::At((1 << 21) + 2)));
        let time = read(&[("start", "1970-01-01")]).unwrap().start;
        assert_eq!(time, Start::Time(0));
        for wrong in [
            ("stream", "a,,b"),
            ("start", "12"),
            ("start", "1-9999999999"),
            ("server", "redis://h:1"),
            ("server", "h"),
            ("server", "h:x"),
            ("password", ""),
            ("database", "-1"),
            ("user", "alone"),
            ("field", ""),
        ] {
            assert!(read(&[wrong]).is_err(), "{wrong:?}");
        }
    }
}
