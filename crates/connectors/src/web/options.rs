//! The options of `connector = 'websocket'` and `connector = 'sse'`.
//!
//! Invariant: neither a header nor the path of a URL reaches an error or a log.

use std::path::PathBuf;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;
use windrow_core::{Error, Result};

use crate::ConnectorEnv;
use crate::broker::avro;
use crate::broker::confine::confine_servers;
use crate::broker::values::{self, ValueOptions};
use crate::formats::protobuf::options as protobuf;
use crate::formats::settings;
use crate::options::{OptionDoc, StreamOptions, bad_value, option};
use crate::schema_registry;
use crate::webhook::shown_url;

const HEADER: OptionDoc = option(
    "header.*",
    "a text",
    "",
    "A header of the request: 'header.Authorization' = 'Bearer …'. Those with credentials are masked.",
);
const TLS_CA: OptionDoc =
    option("tls_ca", "a file", "the system's", "The certificates by which the server is verified.");

/// The options of a WebSocket.
pub(crate) const WEBSOCKET_OPTIONS: &[OptionDoc] = &[
    option("url", "a ws or wss URL", "", "The server. It is shown without its path in errors."),
    HEADER,
    option("subscribe", "a text", "", "A message that is sent first on each new connection."),
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
    TLS_CA,
];

/// The options of server-sent events, which are text.
pub(crate) const SSE_OPTIONS: &[OptionDoc] = &[
    option(
        "url",
        "an http or https URL",
        "",
        "The server. It is shown without its path in errors.",
    ),
    HEADER,
    option(
        "event",
        "names with commas",
        "all",
        "The events that are rows; an event without a name is called message.",
    ),
    option(
        "format",
        "'json' | 'csv' | 'raw'",
        "json",
        "How the data of events is written, each one row: a JSON object, a record of CSV without header, text in one VARCHAR \
         column.",
    ),
    settings::ON_BAD_ROW_OF_FORGOTTEN,
    settings::EPOCH,
    settings::DELIMITER,
    settings::QUOTE,
    settings::ESCAPE,
    settings::NULL,
    TLS_CA,
];

/// The parsed options.
#[derive(Clone)]
pub(super) struct WebOptions {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) subscribe: Option<String>,
    /// The names of events; none: all.
    pub(super) events: Vec<String>,
    pub(super) values: ValueOptions,
    pub(super) tls_ca: Option<PathBuf>,
}

/// Hides headers and paths.
impl std::fmt::Debug for WebOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebOptions").field("url", &shown(&self.url)).finish_non_exhaustive()
    }
}

/// Returns a URL without its path.
pub(super) fn shown(url: &Url) -> String {
    shown_url(url.as_str())
}

impl WebOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, and for an invalid value.
    pub(super) fn read(
        connector: &str,
        entries: &[(String, String)],
        known: &[OptionDoc],
    ) -> Result<Self> {
        let options = StreamOptions::try_new(connector, entries, known)?;
        let schemes = if connector == "sse" { ["http", "https"] } else { ["ws", "wss"] };
        let [plain, secure] = schemes;
        // The text may have a secret.
        let wrong = |why: &str| {
            Error::config(format!("option \"url\" {why}")).with_hint(format!(
                "Write url = '{secure}://host/path'; credentials belong in a header."
            ))
        };
        let url = Url::parse(options.required("url")?).map_err(|_| wrong("is not a URL"))?;
        if !schemes.contains(&url.scheme()) || !url.has_host() {
            return Err(wrong(&format!("begins with neither {plain}:// nor {secure}://")));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("contains a login"));
        }
        let mut headers = HeaderMap::new();
        for (key, value) in options.iter() {
            let Some(name) = key.strip_prefix("header.") else { continue };
            let name: HeaderName =
                name.parse().map_err(|_| bad_value(key, name, "the name of a header"))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                Error::config(format!("option \"{key}\" is not the value of a header"))
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let tls_ca = options.get("tls_ca").map(PathBuf::from);
        if tls_ca.is_some() && url.scheme() != secure {
            return Err(Error::config(format!("option \"tls_ca\" is for {secure}:// URLs")));
        }
        let format = options.get("format").map(str::to_ascii_lowercase);
        if connector == "sse"
            && let Some(format) =
                format.filter(|f| !["json", "csv", "raw", "text"].contains(&f.as_str()))
        {
            return Err(bad_value("format", &format, "'json', 'csv' or 'raw': events are text"));
        }
        settings::no_failing_row(&options)?;
        Ok(Self {
            url,
            headers,
            subscribe: options.get("subscribe").map(str::to_owned),
            events: options.columns("event")?,
            values: ValueOptions::read(&options)?.with_bad_tombstones(),
            tls_ca,
        })
    }

    /// Checks that the user may use the server and read the file, whose name is resolved.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`](windrow_core::ErrorKind::Denied) when a remote user may not.
    pub(super) fn confined(mut self, env: &ConnectorEnv) -> Result<Self> {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        let path = self.url.path().trim_start_matches('/').to_owned();
        confine_servers(self.url.scheme(), &[format!("{host}:{port}")], &[path], env)?;
        if let Some(file) = &self.tls_ca {
            self.tls_ca = Some(env.files.to_read(&file.to_string_lossy())?.into());
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(connector: &str, given: &[(&str, &str)]) -> Result<WebOptions> {
        let all: Vec<_> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let known = if connector == "sse" { SSE_OPTIONS } else { WEBSOCKET_OPTIONS };
        WebOptions::read(connector, &all, known)
    }

    #[test]
    fn options_are_read() {
        let socket =
            read("websocket", &[("url", "wss://h/x"), ("header.A-B", "secret-1")]).unwrap();
        assert_eq!(socket.headers.get("a-b").unwrap(), "secret-1");
        assert!(!format!("{socket:?}").contains("secret-1"));
        for (connector, url) in [
            ("websocket", "http://h/s3"),
            ("sse", "ws://h/s3"),
            ("sse", "http://u:s3@h/"),
            ("sse", "s3"),
        ] {
            let error = read(connector, &[("url", url)]).unwrap_err();
            assert!(!error.message().contains("s3"), "{error}");
        }
        for (connector, key, value) in [
            ("sse", "format", "avro"),
            ("sse", "subscribe", "x"),
            ("sse", "on_bad_row", "fail"),
            ("sse", "header.a b", "x"),
            ("sse", "header.a", "x\ny"),
            ("sse", "tls_ca", "f"),
        ] {
            assert!(read(connector, &[("url", "http://h/"), (key, value)]).is_err(), "{key}");
        }
    }
}
