//! The options of a sink with `connector = 'webhook'`.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Url;
use windrow_core::{Error, Result};

use super::{IDEMPOTENCY_KEY, SIGNATURE};
use crate::options::{OptionDoc, StreamOptions, bad_value};

/// The options.
pub const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "url",
        values: "an http or https URL",
        default: "",
        doc: "Where rows are sent, by POST. It is shown without its path, which often is a secret.",
    },
    OptionDoc {
        name: "mode",
        values: "'row' | 'batch'",
        default: "row",
        doc: "A request for each row, or for many rows as a JSON array.",
    },
    OptionDoc {
        name: "body",
        values: "a text with ${column}",
        default: "the row as a JSON object",
        doc: "The body of a request for a row; values are written as JSON, or into the JSON text that they stand in.",
    },
    OptionDoc {
        name: "content_type",
        values: "a media type",
        default: "application/json",
        doc: "The type of the body. With one that is not JSON, values are written as they are.",
    },
    OptionDoc {
        name: "header.*",
        values: "a text",
        default: "",
        doc: "A header of every request: 'header.Authorization' = 'Bearer …'.",
    },
    OptionDoc {
        name: "secret",
        values: "a text",
        default: "",
        doc: "Signs bodies by HMAC-SHA256, in the header X-Windrow-Signature: sha256=….",
    },
    OptionDoc {
        name: "batch_rows",
        values: "a number",
        default: "500",
        doc: "The rows of a request at most, in mode 'batch'.",
    },
    OptionDoc {
        name: "batch_interval",
        values: "a length of time",
        default: "1 second",
        doc: "How long a row waits for others, in mode 'batch'.",
    },
    OptionDoc {
        name: "timeout",
        values: "a length of time",
        default: "10 seconds",
        doc: "How long the answer to a request may take.",
    },
];

/// The largest `batch_rows`.
const BATCH_ROWS_MAX: usize = 100_000;

/// Headers that are ours or those of HTTP itself.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "host",
    IDEMPOTENCY_KEY,
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    SIGNATURE,
];

/// The parsed options of one sink.
pub(super) struct WebhookOptions {
    pub(super) url: Url,
    /// Rows of a request; `None`: each row has one of its own.
    pub(super) batch_rows: Option<usize>,
    pub(super) batch_interval: Duration,
    pub(super) body: Option<String>,
    pub(super) is_json: bool,
    pub(super) headers: HeaderMap,
    pub(super) secret: Option<String>,
    pub(super) timeout: Duration,
}

impl WebhookOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, an invalid value, and options that do not fit together.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("webhook", entries, OPTIONS)?;
        let url = url(options.required_by_sink("url")?)?;
        let in_batches = options.choice("mode", &[("row", false), ("batch", true)])?;
        let in_batches = in_batches.unwrap_or(false);
        let wrong = match in_batches {
            true => ["body"].as_slice(),
            false => &["batch_rows", "batch_interval"],
        };
        if let Some(option) = wrong.iter().find(|option| options.get(option).is_some()) {
            let mode = if in_batches { "row" } else { "batch" };
            return Err(Error::config(format!("option \"{option}\" is for mode = '{mode}'")));
        }
        let batch_rows = options.number::<usize>("batch_rows")?.unwrap_or(500);
        if !(1..=BATCH_ROWS_MAX).contains(&batch_rows) {
            let given = options.get("batch_rows").unwrap_or_default();
            return Err(bad_value("batch_rows", given, "a number up to 100000"));
        }
        let second = Duration::from_secs(1);
        let timeout = options.duration("timeout")?.unwrap_or(10 * second);
        if timeout.is_zero() || timeout > 600 * second {
            let given = options.get("timeout").unwrap_or_default();
            return Err(bad_value("timeout", given, "a length of time up to '10 minutes'"));
        }
        let content_type = options.get("content_type").unwrap_or("application/json");
        let mut headers = headers(&options)?;
        let value = HeaderValue::from_str(content_type)
            .map_err(|_| bad_value("content_type", content_type, "a media type"))?;
        headers.insert(CONTENT_TYPE, value);
        let media = content_type.split(';').next().unwrap_or_default().trim();
        let is_json = media == "application/json" || media.ends_with("+json");
        if in_batches && !is_json {
            return Err(bad_value("content_type", content_type, "one of JSON in mode 'batch'"));
        }
        let secret = options.get("secret").map(str::to_owned);
        if secret.as_ref().is_some_and(String::is_empty) {
            return Err(Error::config("option \"secret\" is empty"));
        }
        Ok(Self {
            url,
            batch_rows: in_batches.then_some(batch_rows),
            batch_interval: options.duration("batch_interval")?.unwrap_or(second),
            body: options.get("body").map(str::to_owned),
            is_json,
            headers,
            secret,
            timeout,
        })
    }
}

fn url(text: &str) -> Result<Url> {
    // The text may be a secret, and so is not repeated.
    let wrong = |why: &str| {
        Error::config(format!("option \"url\" cannot be used: {why}"))
            .with_hint("Write url = 'https://example.com/hook'.")
    };
    let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it begins with neither http:// nor https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it has a user or a password")
            .with_hint("Send them in a header: 'header.Authorization' = 'Basic …'."));
    }
    Ok(url)
}

fn headers(options: &StreamOptions<'_>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (key, value) in options.iter() {
        let Some(name) = key.strip_prefix("header.") else { continue };
        if RESERVED.contains(&name) {
            let error = Error::config(format!("option \"{key}\": this header is set by the sink"));
            return Err(match name {
                "content-type" => error.with_hint("Use the option content_type."),
                _ => error,
            });
        }
        let wrong =
            |what: &str| Error::config(format!("option \"{key}\" is no {what} of a header"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("name"))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong("value"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<WebhookOptions> {
        let all = [("url", "http://127.0.0.1:1/x")]
            .iter()
            .filter(|(k, _)| more.iter().all(|(m, _)| m != k));
        let all: Vec<_> =
            all.chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        WebhookOptions::read(&all)
    }

    #[test]
    fn hostile_options_are_refused() {
        for wrong in [
            ("url", "ftp://x"),
            ("url", "x"),
            ("url", "http://user:pw@x/"),
            ("url", ""),
            ("mode", "all"),
            ("header.host", "x"),
            ("header.idempotency-key", "x"),
            ("header.a b", "x"),
            ("header.x", "a\r\nb: c"),
            ("header.content-type", "x"),
            ("timeout", "0 s"),
            ("timeout", "1 day"),
            ("batch_rows", "5"),
            ("secret", ""),
            ("content_type", "a\nb"),
            ("body", ""),
        ] {
            let read = read(&[wrong]);
            if wrong.0 == "body" {
                assert!(read.is_ok());
                continue;
            }
            let error = read.err().unwrap_or_else(|| panic!("{wrong:?} is taken"));
            assert!(!error.to_string().contains("pw@"), "{error}");
        }
        for wrong in [
            ("batch_rows", "0"),
            ("batch_rows", "1000000"),
            ("body", "x"),
            ("content_type", "text/plain"),
        ] {
            assert!(read(&[("mode", "batch"), wrong]).is_err(), "{wrong:?}");
        }
        let good =
            read(&[("mode", "batch"), ("batch_rows", "7"), ("header.X-Api-Key", "k")]).unwrap();
        assert_eq!((good.batch_rows, good.headers.len()), (Some(7), 2));
    }
}
