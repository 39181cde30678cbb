//! File formats and compression, as the file name or the options specify them.

/// The format of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Format {
    /// One JSON object per line.
    Json,
    /// Comma-separated values.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// An object container file of Avro.
    Avro,
}

/// The compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Packing {
    /// None.
    Plain,
    /// gzip, one member or many.
    Gzip,
    /// Zstandard, one frame or many.
    Zstd,
}

/// The values of the option `format`.
pub(super) const FORMATS: &[(&str, Format)] = &[
    ("json", Format::Json),
    ("ndjson", Format::Json),
    ("jsonl", Format::Json),
    ("csv", Format::Csv),
    ("tsv", Format::Csv),
    ("parquet", Format::Parquet),
    ("avro", Format::Avro),
];

/// The values of the option `compression`.
pub(super) const PACKINGS: &[(&str, Packing)] = &[
    ("none", Packing::Plain),
    ("gzip", Packing::Gzip),
    ("gz", Packing::Gzip),
    ("zstd", Packing::Zstd),
    ("zst", Packing::Zstd),
];

impl Format {
    /// Whether rows are records of text.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Json | Self::Csv)
    }

    /// Its name in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Csv => "CSV",
            Self::Parquet => "Parquet",
            Self::Avro => "Avro",
        }
    }
}

/// Returns the compression of a file of this name.
pub(super) fn packing_of_name(name: &str) -> Packing {
    match suffix(name).as_deref() {
        Some("gz" | "gzip") => Packing::Gzip,
        Some("zst" | "zstd") => Packing::Zstd,
        _ => Packing::Plain,
    }
}

/// Returns the format that a file name indicates, ignoring `.gz` and `.zst`.
pub(super) fn format_of_name(name: &str) -> Option<Format> {
    match inner_suffix(name).as_deref() {
        Some("json" | "ndjson" | "jsonl") => Some(Format::Json),
        Some("csv" | "tsv") => Some(Format::Csv),
        Some("parquet" | "pq") => Some(Format::Parquet),
        Some("avro") => Some(Format::Avro),
        _ => None,
    }
}

/// Whether the name indicates that fields are separated by tabs.
pub(super) fn is_tab_separated(name: &str) -> bool {
    inner_suffix(name).as_deref() == Some("tsv")
}

fn inner_suffix(name: &str) -> Option<String> {
    let inner = match packing_of_name(name) {
        Packing::Plain => name,
        Packing::Gzip | Packing::Zstd => name.rsplit_once('.')?.0,
    };
    suffix(inner)
}

fn suffix(name: &str) -> Option<String> {
    let base = name.rsplit('/').next()?;
    Some(base.rsplit_once('.')?.1.to_ascii_lowercase())
}
