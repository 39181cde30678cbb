//! The options of `connector = 'file'`.

use std::time::Duration;

use arrow::datatypes::TimeUnit;
use windrow_core::{Error, Result};

use super::csv::CsvStyle;
use super::decode::OnBadRow;
use super::format::{FORMATS, Format, PACKINGS, Packing};
use crate::options::{OptionDoc, StreamOptions};

const fn option(
    name: &'static str,
    values: &'static str,
    default: &'static str,
    doc: &'static str,
) -> OptionDoc {
    OptionDoc { name, values, default, doc }
}

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
        "'json' | 'csv' | 'parquet'",
        "by the file's name",
        "How rows are written; JSON is one object per line.",
    ),
    option(
        "compression",
        "'none' | 'gzip' | 'zstd'",
        "by the file's name",
        "How text files are compressed.",
    ),
    option("delimiter", "one character", ",", "The separator of fields in CSV."),
    option("header", "true | false", "true", "Whether the first record of CSV names the columns."),
    option("quote", "one character", "\"", "Opens and closes a field of CSV."),
    option("escape", "one character", "", "The escape character in quoted fields of CSV."),
    option("null", "a word", "", "The text that means NULL in CSV, besides the empty field."),
    option(
        "on_bad_row",
        "'dead_letter' | 'fail' | 'null'",
        "dead_letter",
        "What happens to a row that cannot be decoded: it is set aside in windrow.bad_rows, the \
         query fails, or its bad fields become NULL.",
    ),
    option(
        "epoch",
        "'s' | 'ms' | 'us' | 'ns'",
        "",
        "The unit of numbers in TIMESTAMP columns, counted from 1970. Without it they have the unit of a declared \
         precision (TIMESTAMP(3): milliseconds), and are bad rows where there is none.",
    ),
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

/// The values of the option `epoch`.
const EPOCHS: &[(&str, TimeUnit)] = &[
    ("s", TimeUnit::Second),
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
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
        let bad_rows = [
            ("dead_letter", OnBadRow::DeadLetter),
            ("fail", OnBadRow::Fail),
            ("null", OnBadRow::Null),
        ];
        let orders = [("any_order", false), ("in_order", true)];
        let is_tsv = options.get("format").is_some_and(|f| f.trim().eq_ignore_ascii_case("tsv"));
        let for_store = |key: &str| key.starts_with("aws_") || STORE_OPTIONS.contains(&key);
        let read = Self {
            path: options.required("path")?.to_owned(),
            format: options.choice("format", FORMATS)?,
            packing: options.choice("compression", PACKINGS)?,
            csv: CsvStyle {
                delimiter: options.ascii("delimiter")?.or(is_tsv.then_some(b'\t')),
                header: options.flag("header", true)?,
                quote: options.ascii("quote")?.unwrap_or(b'"'),
                escape: options.ascii("escape")?,
                null: options.get("null").map(str::to_owned),
            },
            on_bad: options.choice("on_bad_row", &bad_rows)?.unwrap_or(OnBadRow::DeadLetter),
            epoch: options.choice("epoch", EPOCHS)?,
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
