//! The options of `connector = 'nats'`.

use windrow_core::Result;

use super::connection::ServerOptions;
use crate::broker::avro;
use crate::broker::shape::{self, Shape};
use crate::broker::sink::{self, SinkOptions};
use crate::broker::start::Start;
use crate::broker::values::{self, ValueOptions};
use crate::formats::protobuf::options as protobuf;
use crate::formats::settings;
use crate::options::{OptionDoc, StreamOptions, bad_value, option};
use crate::schema_registry;

const SERVERS: OptionDoc = option(
    "servers",
    "host:port, …",
    "",
    "Servers from which the others are found; tls://host:port for TLS.",
);
const USER: OptionDoc = option("user", "a name", "", "The user of the login.");
const PASSWORD: OptionDoc = option("password", "a text", "", "The password of the login.");
const TOKEN: OptionDoc = option("token", "a text", "", "The token of the login.");
const CREDENTIALS: OptionDoc =
    option("credentials", "a file", "", "A file of credentials (.creds) with a JWT and its key.");
const TLS_CA: OptionDoc = option(
    "tls_ca",
    "a file",
    "the system's",
    "The certificates by which the server is verified. It turns TLS on.",
);

/// The options of a stream.
pub(crate) const OPTIONS: &[OptionDoc] = &[
    SERVERS,
    option("stream", "a name", "", "The stream of JetStream that is read."),
    option(
        "subject",
        "subjects with commas",
        "all",
        "The subjects whose messages are rows; * is any token and > any that follow: 'orders.*.eu'.",
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
        "'earliest' | 'latest' | TIMESTAMP '…' | a sequence",
        "earliest",
        "Where reading begins: with the oldest message, with those after the stream is first read, with the first of this time \
         or later, or at a sequence of the stream.",
    ),
    settings::ON_BAD_ROW,
    settings::EPOCH,
    settings::DELIMITER,
    settings::QUOTE,
    settings::ESCAPE,
    settings::NULL,
    USER,
    PASSWORD,
    TOKEN,
    CREDENTIALS,
    TLS_CA,
];

/// The options of a sink.
pub(crate) const SINK_OPTIONS: &[OptionDoc] = &[
    SERVERS,
    option(
        "subject",
        "a subject with ${column}",
        "",
        "The subject of a message, which a stream of JetStream has to take: 'orders.${country}'.",
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
    TOKEN,
    CREDENTIALS,
    TLS_CA,
];

/// The parsed options of a stream.
#[derive(Debug, Clone)]
pub(super) struct NatsOptions {
    pub(super) server: ServerOptions,
    pub(super) stream: String,
    /// None: all.
    pub(super) subjects: Vec<String>,
    pub(super) values: ValueOptions,
    pub(super) start: Start<u64>,
}

impl NatsOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, and for an invalid value.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("nats", entries, OPTIONS)?;
        let stream = options.required("stream")?;
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
        if stream.is_empty() || stream.contains(is_bad) {
            return Err(bad_value("stream", stream, "the name of a stream"));
        }
        let servers = options.required("servers")?;
        let start = options.get("start").unwrap_or("earliest");
        let sequence = |text: &str| text.parse::<u64>().ok().filter(|sequence| *sequence > 0);
        Ok(Self {
            server: ServerOptions::read(servers, &options)?,
            stream: stream.to_owned(),
            subjects: subjects(&options)?,
            values: ValueOptions::read(&options)?,
            start: Start::parse(start, sequence, "a sequence such as '100'")?,
        })
    }
}

/// Whether a text is a subject; `pattern`: wildcards are allowed.
pub(super) fn is_subject(text: &str, pattern: bool) -> bool {
    let tokens: Vec<&str> = text.split('.').collect();
    let is_token = |(at, token): (usize, &&str)| match *token {
        "" => false,
        "*" => pattern,
        ">" => pattern && at + 1 == tokens.len(),
        token => !token.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c)),
    };
    tokens.iter().enumerate().all(is_token)
}

fn subjects(options: &StreamOptions<'_>) -> Result<Vec<String>> {
    let Some(text) = options.get("subject") else { return Ok(vec![]) };
    let subjects: Vec<String> = text.split(',').map(|subject| subject.trim().to_owned()).collect();
    match subjects.iter().all(|subject| is_subject(subject, true)) {
        true => Ok(subjects),
        false => Err(bad_value("subject", text, "subjects such as 'orders.*', with commas")),
    }
}

/// The parsed options of a sink.
#[derive(Debug, Clone)]
pub(super) struct NatsSinkOptions {
    pub(super) server: ServerOptions,
    pub(super) subject: String,
    pub(super) shape: Shape,
    pub(super) sink: SinkOptions,
}

impl NatsSinkOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, and for an invalid value.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("nats", entries, SINK_OPTIONS)?;
        let subject = options.required_by_sink("subject")?;
        if !subject.contains("${") && !is_subject(subject, false) {
            return Err(bad_value("subject", subject, "a subject such as 'orders.eu'"));
        }
        Ok(Self {
            server: ServerOptions::read(options.required_by_sink("servers")?, &options)?,
            subject: subject.to_owned(),
            shape: Shape::read(&options)?,
            sink: SinkOptions::read(&options)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<NatsOptions> {
        let all = [("servers", "127.0.0.1:4222"), ("stream", "ORDERS")];
        let all = all.iter().filter(|(k, _)| more.iter().all(|(m, _)| m != k)).chain(more);
        let all: Vec<_> = all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        NatsOptions::read(&all)
    }

    #[test]
    fn options_are_read() {
        let options = read(&[("subject", "a.*, b.>"), ("start", "12")]).unwrap();
        assert_eq!((options.subjects.len(), options.start), (2, Start::At(12)));
        for wrong in [
            ("stream", "a.b"),
            ("stream", ""),
            ("subject", "a..b"),
            ("subject", ">.a"),
            ("subject", "a b"),
            ("start", "0"),
            ("start", "soon"),
            ("servers", ""),
            ("servers", "nats://user:hunter2@host"),
            ("servers", "http://host"),
            ("user", "alone"),
            ("tombstones", "skip"),
        ] {
            let error = read(&[wrong]).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn subjects_of_sinks_have_no_wildcards() {
        for (subject, fits) in [("a.b", true), ("a.${x}", true), ("a.*", false), ("", false)] {
            let all = [("servers", "h"), ("subject", subject)];
            let all: Vec<_> = all.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            assert_eq!(NatsSinkOptions::read(&all).is_ok(), fits, "{subject}");
        }
    }
}
