//! The options of a sink with `connector = 'file'`.

use std::time::Duration;

use windrow_core::size::parse_bytes;
use windrow_core::{Error, Result};

use crate::encode::{AvroPacking, CsvStyle, Encoding, Packing, ParquetPacking};
use crate::options::{OptionDoc, StreamOptions, bad_value};

/// The options.
pub const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "path",
        values: "a directory or URL",
        default: "",
        doc: "Where files are written: a directory, which is created, file://, or s3://bucket/prefix.",
    },
    OptionDoc {
        name: "format",
        values: "'parquet' | 'csv' | 'ndjson' | 'avro'",
        default: "",
        doc: "How rows are written; NDJSON is one object per line, Avro an object container file.",
    },
    OptionDoc {
        name: "compression",
        values: "'zstd' | 'snappy' | 'deflate' | 'gzip' | 'none'",
        default: "zstd for Parquet, deflate for Avro, none for text",
        doc: "How files are compressed: snappy is for Parquet and Avro, deflate for Avro, gzip for text.",
    },
    OptionDoc {
        name: "roll_size",
        values: "a size",
        default: "32 MB",
        doc: "A file ends when it has this size, at most 256 MB; it is held in memory until then.",
    },
    OptionDoc {
        name: "roll_interval",
        values: "a length of time",
        default: "1 minute",
        doc: "How long a row waits at most until its file is written.",
    },
    OptionDoc {
        name: "partition_by",
        values: "columns",
        default: "",
        doc: "Writes a directory for each value of these columns, column=value, and leaves them out of the files.",
    },
    OptionDoc {
        name: "delimiter",
        values: "one character",
        default: ",",
        doc: "The separator of fields in CSV.",
    },
    OptionDoc {
        name: "header",
        values: "true | false",
        default: "true",
        doc: "Whether the first record of CSV names the columns.",
    },
    OptionDoc {
        name: "null",
        values: "a word",
        default: "",
        doc: "What NULL is in CSV; by default the empty field, like an empty text.",
    },
    OptionDoc {
        name: "endpoint",
        values: "a URL",
        default: "",
        doc: "The address of an S3-compatible store.",
    },
    OptionDoc {
        name: "region",
        values: "a name",
        default: "",
        doc: "The region of the S3 bucket.",
    },
    OptionDoc {
        name: "access_key_id",
        values: "a key",
        default: "",
        doc: "For S3; the environment's AWS_ACCESS_KEY_ID otherwise.",
    },
    OptionDoc {
        name: "secret_access_key",
        values: "a key",
        default: "",
        doc: "For S3; AWS_SECRET_ACCESS_KEY otherwise.",
    },
    OptionDoc {
        name: "session_token",
        values: "a token",
        default: "",
        doc: "For S3; AWS_SESSION_TOKEN otherwise.",
    },
    OptionDoc {
        name: "allow_http",
        values: "true | false",
        default: "false",
        doc: "Whether the store may be accessed without TLS.",
    },
    OptionDoc {
        name: "aws_*",
        values: "a value",
        default: "",
        doc: "Any other option of the S3 client.",
    },
];

/// Options that are passed to the object store unchanged.
const STORE_OPTIONS: &[&str] =
    &["endpoint", "region", "access_key_id", "secret_access_key", "session_token", "allow_http"];

/// The largest file, which is in memory until it is complete.
const ROLL_SIZE_MAX: usize = 256_000_000;
const ROLL_SIZE: usize = 32_000_000;
const ROLL_INTERVAL: Duration = Duration::from_secs(60);

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
    Parquet,
    Avro,
}

const FORMATS: &[(&str, Format)] = &[
    ("parquet", Format::Parquet),
    ("avro", Format::Avro),
    ("csv", Format::Csv),
    ("ndjson", Format::Json),
    ("json", Format::Json),
];

/// The parsed options of one sink.
#[derive(Debug, Clone)]
pub(super) struct FileSinkOptions {
    pub(super) path: String,
    pub(super) encoding: Encoding,
    pub(super) roll_size: usize,
    pub(super) roll_interval: Duration,
    pub(super) partition_by: Vec<String>,
    pub(super) store: Vec<(String, String)>,
}

impl FileSinkOptions {
    /// Parses the options in `WITH (…)`.
    ///
    /// # Errors
    /// For an unknown option, an invalid value, and options that do not fit together.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self> {
        let options = StreamOptions::try_new("file", entries, OPTIONS)?;
        let path = options.required_by_sink("path")?.to_owned();
        options.required_by_sink("format")?;
        let format = options.choice("format", FORMATS)?.unwrap_or(Format::Parquet);
        let for_store = |key: &str| key.starts_with("aws_") || STORE_OPTIONS.contains(&key);
        let store = options.iter().filter(|(key, _)| for_store(key));
        let partition_by = match options.get("partition_by") {
            Some(names) => names.split(',').map(|name| name.trim().to_owned()).collect(),
            None => vec![],
        };
        if partition_by.iter().any(String::is_empty) {
            return Err(Error::config("option \"partition_by\" must be names of columns")
                .with_hint("Write partition_by = 'day, country'."));
        }
        let roll_size = match options.get("roll_size") {
            None => ROLL_SIZE,
            Some(text) => parse_bytes(text)
                .ok()
                .and_then(|bytes| usize::try_from(bytes).ok())
                .filter(|size| (1..=ROLL_SIZE_MAX).contains(size))
                .ok_or_else(|| bad_value("roll_size", text, "a size up to '256 MB'"))?,
        };
        let roll_interval = options.duration("roll_interval")?.unwrap_or(ROLL_INTERVAL);
        if roll_interval.is_zero() {
            return Err(bad_value("roll_interval", "0", "longer than 0"));
        }
        Ok(Self {
            path,
            encoding: encoding(&options, format)?,
            roll_size,
            roll_interval,
            partition_by,
            store: store.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        })
    }
}

fn encoding(options: &StreamOptions<'_>, format: Format) -> Result<Encoding> {
    if format != Format::Csv
        && let Some(option) =
            ["delimiter", "header", "null"].iter().find(|o| options.get(o).is_some())
    {
        return Err(Error::config(format!("option \"{option}\" is for format = 'csv'")));
    }
    Ok(match format {
        Format::Parquet => {
            let packing = options.choice("compression", ParquetPacking::WORDS)?;
            Encoding::Parquet(packing.unwrap_or(ParquetPacking::Zstd))
        }
        Format::Avro => {
            let packing = options.choice("compression", AvroPacking::WORDS)?;
            Encoding::Avro(packing.unwrap_or(AvroPacking::Deflate))
        }
        Format::Json => Encoding::Json(packing(options)?),
        Format::Csv => {
            let style = CsvStyle {
                delimiter: options.ascii("delimiter")?.unwrap_or(b','),
                header: options.flag("header", true)?,
                null: options.get("null").unwrap_or_default().into(),
            };
            Encoding::Csv(style, packing(options)?)
        }
    })
}

fn packing(options: &StreamOptions<'_>) -> Result<Packing> {
    Ok(options.choice("compression", Packing::WORDS)?.unwrap_or(Packing::Plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<FileSinkOptions> {
        let all = [("path", "out"), ("format", "csv")].iter().chain(more);
        let all: Vec<_> = all.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        FileSinkOptions::read(&all)
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("4096", 4_096), ("1 KiB", 1_024), ("3mb", 3_000_000)] {
            assert_eq!(read(&[("roll_size", text)]).unwrap().roll_size, bytes);
        }
        for text in ["", "0", "-1", "1 TB", "1 GB", "99999999999999999999", "x"] {
            assert!(read(&[("roll_size", text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        assert!(read(&[("compression", "snappy")]).is_err());
        assert!(read(&[("roll_interval", "0 s")]).is_err());
        assert!(read(&[("partition_by", "a,,b")]).is_err());
        assert!(read(&[("roll", "1")]).is_err());
        let entries = [("path", "out"), ("format", "parquet"), ("header", "true")];
        let entries = entries.map(|(k, v)| (k.to_owned(), v.to_owned()));
        let error = FileSinkOptions::read(&entries).unwrap_err();
        assert_eq!(error.message(), "option \"header\" is for format = 'csv'");
        let error = FileSinkOptions::read(&entries[..1]).unwrap_err();
        assert_eq!(error.message(), "a sink with connector \"file\" needs the option \"format\"");
    }
}
