//! The options of `connector = 'mqtt'`.

use windrow_core::{Error, Result};

use super::connection::ServerOptions;
use super::topics::{is_filter, is_topic};
use crate::broker::avro;
use crate::broker::shape::{self, Shape};
use crate::broker::sink::{self, SinkOptions};
use crate::broker::values::{self, ValueOptions};
use crate::formats::protobuf::options as protobuf;
use crate::formats::settings;
use crate::options::{OptionDoc, StreamOptions, bad_value, option};
use crate::schema_registry;

const SERVER: OptionDoc =
    option("server", "host:port", "", "The broker; mqtts://host:port for TLS.");
const USER: OptionDoc = option("user", "a name", "", "The user of the login.");
const PASSWORD: OptionDoc =
    option("password", "a text", "", "The password of the login. It is masked.");
const TLS_CA: OptionDoc = option(
    "tls_ca",
    "a file",
    "the system's",
    "The certificates by which the broker is verified. It turns TLS on.",
);

/// The options of a stream.
pub(crate) const OPTIONS: &[OptionDoc] = &[
    SERVER,
    option(
        "topic",
        "topics with commas",
        "",
        "The topics whose messages are rows; + is any level, # any that follow, and $share/group/topic divides the messages \
         among the clients of a group: 'plant/+/temperature'.",
    ),
    option(
        "client_id",
        "a name",
        "",
        "The name of the session, in which the broker keeps messages while Windrow is away. No other client of the broker may \
         have it.",
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
    settings::ON_BAD_ROW_OF_FORGOTTEN,
    settings::EPOCH,
    settings::DELIMITER,
    settings::QUOTE,
    settings::ESCAPE,
    settings::NULL,
    USER,
    PASSWORD,
    TLS_CA,
];

/// The options of a sink.
pub(crate) const SINK_OPTIONS: &[OptionDoc] = &[
    SERVER,
    option(
        "topic",
        "a topic with ${column}",
        "",
        "The topic of a message: 'plant/${machine}/alarm'.",
    ),
    option(
        "retain",
        "true | false",
        "false",
        "Whether the broker keeps the last message of a topic for those who subscribe later.",
    ),
    option("client_id", "a name", "a new one", "The name of the client at the broker."),
    shape::FORMAT,
    shape::DELIMITER,
    shape::NULL,
    sink::BATCH_ROWS,
    sink::BATCH_INTERVAL,
    sink::TIMEOUT,
    USER,
    PASSWORD,
    TLS_CA,
];

/// The parsed options of a stream.
#[derive(Debug, Clone)]
pub(super) struct MqttOptions {
    pub(super) server: ServerOptions,
    /// Filters.
    pub(super) topics: Vec<String>,
    pub(super) client_id: String,
    pub(super) values: ValueOptions,
}

impl MqttOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, and for an invalid value.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("mqtt", entries, OPTIONS)?;
        let given = options.required("topic")?;
        let mut topics: Vec<String> = given.split(',').map(|name| name.trim().to_owned()).collect();
        topics.sort();
        topics.dedup();
        if let Some(wrong) = topics.iter().find(|topic| !is_filter(topic)) {
            let expected =
                "topics in which + and # are whole levels, and # is the last one: 'a/+/b, c/#'";
            return Err(bad_value("topic", wrong, expected));
        }
        settings::no_failing_row(&options)?;
        Ok(Self {
            server: ServerOptions::read(options.required("server")?, &options)?,
            topics,
            client_id: client_id(options.required("client_id")?)?,
            values: ValueOptions::read(&options)?.with_bad_tombstones(),
        })
    }
}

fn client_id(given: &str) -> Result<String> {
    let is_odd = given.is_empty() || given.len() > 256 || given.contains(char::is_control);
    match is_odd {
        true => Err(bad_value("client_id", given, "a name of up to 256 bytes")),
        false => Ok(given.to_owned()),
    }
}

/// The parsed options of a sink.
#[derive(Debug, Clone)]
pub(super) struct MqttSinkOptions {
    pub(super) server: ServerOptions,
    pub(super) topic: String,
    pub(super) retain: bool,
    pub(super) client_id: Option<String>,
    pub(super) shape: Shape,
    pub(super) sink: SinkOptions,
}

impl MqttSinkOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, and for an invalid value.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("mqtt", entries, SINK_OPTIONS)?;
        let topic = options.required_by_sink("topic")?;
        if !topic.contains("${") && !is_topic(topic) {
            return Err(Error::config(format!("option \"topic\": \"{topic}\" is not a topic"))
                .with_hint("A topic has neither + nor #: 'plant/${machine}/alarm'."));
        }
        Ok(Self {
            server: ServerOptions::read(options.required_by_sink("server")?, &options)?,
            topic: topic.to_owned(),
            retain: options.flag("retain", false)?,
            client_id: options.get("client_id").map(client_id).transpose()?,
            shape: Shape::read(&options)?,
            sink: SinkOptions::read(&options)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<MqttOptions> {
        let all = [("server", "127.0.0.1:1883"), ("topic", "t"), ("client_id", "c")];
        let all = all.iter().filter(|(k, _)| more.iter().all(|(m, _)| m != k)).chain(more);
        let all: Vec<_> = all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        MqttOptions::read(&all)
    }

    #[test]
    fn options_are_read() {
        let options = read(&[("topic", "b/#, a/+/c")]).unwrap();
        assert_eq!(options.topics, ["a/+/c", "b/#"]);
        for (server, shown) in [
            ("h", "h:1883"),
            ("mqtt://h:7", "h:7"),
            ("mqtts://h", "h:8883"),
            ("ssl://h/", "h:8883"),
            ("[::1]:5", "[::1]:5"),
            ("[::1]", "[::1]:1883"),
        ] {
            assert_eq!(read(&[("server", server)]).unwrap().server.shown(), shown);
        }
        for wrong in [
            ("topic", "a,,b"),
            ("topic", "a/#/b"),
            ("server", "http://h:1"),
            ("server", "h:x"),
            ("server", "::1"),
            ("server", "u:p@h:1"),
            ("password", "alone"),
            ("client_id", ""),
            ("on_bad_row", "fail"),
            ("start", "earliest"),
        ] {
            let error = read(&[wrong]).unwrap_err();
            assert!(!error.message().contains("u:p"), "{error}");
        }
    }
}
