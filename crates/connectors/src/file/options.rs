//! The options of `connector = 'file'`.

use std::time::Duration;

use arrow::datatypes::TimeUnit;
use windrow_core::{Error, Result};

use super::format::{FORMATS, Format, PACKINGS, Packing};
use crate::formats::csv::CsvStyle;
use crate::formats::decode::OnBadRow;
use crate::formats::settings;
use crate::options::{OptionDoc, StreamOptions, option};

/// The options of `connector = 'file'`.
pub const OPTIONS: &[OptionDoc] = &[
    option(
        "path",
        "a file, directory, glob or URL",
        "",
        "Where the files are: data/*.json, ~/events, file://, s3://bucket/prefix, https://….",
    ),
    option(
        "format",
        "'json' | 'csv' | 'parquet' | 'avro' | 'debezium-json'",
        "by the file's name",
        "How rows are written; JSON is one object per line, Avro an object container file. 'debezium-json' are changes of \
         rows, for a stream with a primary key.",
    ),
    option(
        "compression",
        "'none' | 'gzip' | 'zstd'",
        "by the file's name",
        "How files of text and of Avro are compressed as a whole.",
    ),
    settings::DELIMITER,
    option("header", "true | false", "true", "Whether the first record of CSV names the columns."),
    settings::QUOTE,
    settings::ESCAPE,
    settings::NULL,
    settings::ON_BAD_ROW,
    settings::EPOCH,
    option(
        "follow",
        "true | false",
        "false",
        "Keeps reading appended data, and new files that match; the stream never ends.",
    ),
    option(
        "poll_interval",
        "a length of time",
        "200 ms",
        "How often followed files are checked for more data.",
    ),
    option(
        "rotate_wait",
        "a length of time",
        "2 s",
        "How long to wait for more data in a renamed file before the next one is read.",
    ),
    option(
        "files",
        "'any_order' | 'in_order'",
        "any_order",
        "Whether rows are ordered from file to file, by name; then all files are one partition.",
    ),
    option(
        "infer_rows",
        "a number",
        "1000",
        "The number of rows from which the columns of text files are inferred, evenly over all files (at \
         least 100 of each).",
    ),
    option("endpoint", "a URL", "", "The address of an S3-compatible store."),
    option("region", "a name", "", "The region of the S3 bucket."),
    option("access_key_id", "a key", "", "For S3; the environment's AWS_ACCESS_KEY_ID otherwise."),
    option("secret_access_key", "a key", "", "For S3; AWS_SECRET_ACCESS_KEY otherwise."),
    option("session_token", "a token", "", "For S3; AWS_SESSION_TOKEN otherwise."),
    option("allow_http", "true | false", "false", "Whether the store may be accessed without TLS."),
    option("aws_*", "a value", "", "Any other option of the S3 client."),
];

/// Options that are passed to the object store unchanged.
const STORE_OPTIONS: &[&str] =
    &["endpoint", "region", "access_key_id", "secret_access_key", "session_token", "allow_http"];

/// The parsed options of one stream.
#[derive(Debug, Clone)]
pub(super) struct FileOptions {
    pub path: String,
    pub format: Option<Format>,
    pub packing: Option<Packing>,
    pub csv: CsvStyle,
    pub on_bad: OnBadRow,
    pub epoch: Option<TimeUnit>,
    pub follow: bool,
    pub poll: Option<Duration>,
    pub rotate_wait: Duration,
    pub in_order: bool,
    pub infer_rows: usize,
    pub store: Vec<(String, String)>,
}

impl FileOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, an invalid value, and options that exclude each other.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("file", entries, OPTIONS)?;
        let orders = [("any_order", false), ("in_order", true)];
        let for_store = |key: &str| key.starts_with("aws_") || STORE_OPTIONS.contains(&key);
        let read = Self {
            path: options.required("path")?.to_owned(),
            format: options.choice("format", FORMATS)?,
            packing: options.choice("compression", PACKINGS)?,
            csv: settings::csv_style(&options, options.flag("header", true)?)?,
            on_bad: settings::on_bad_row(&options)?,
            epoch: settings::epoch(&options)?,
            follow: options.flag("follow", false)?,
            poll: options.duration("poll_interval")?,
            rotate_wait: options.duration("rotate_wait")?.unwrap_or(Duration::from_secs(2)),
            in_order: options.choice("files", &orders)?.unwrap_or(false),
            infer_rows: options.number("infer_rows")?.unwrap_or(1000).max(1),
            store: options
                .iter()
                .filter(|(key, _)| for_store(key))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        };
        if read.follow && read.in_order {
            return Err(Error::config("options \"follow\" and \"files\" exclude each other")
                .with_hint("A followed file has no end after which the next one could start."));
        }
        Ok(read)
    }
}
