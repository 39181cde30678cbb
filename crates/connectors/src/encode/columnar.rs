//! Parquet.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use windrow_core::{Error, Result};

use super::Encoder;

/// The compression of the pages of a Parquet file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParquetPacking {
    /// None.
    Plain,
    /// Snappy.
    Snappy,
    /// Zstandard.
    Zstd,
}

impl ParquetPacking {
    /// The values of the option `compression`.
    pub(crate) const WORDS: &[(&str, Self)] =
        &[("zstd", Self::Zstd), ("snappy", Self::Snappy), ("none", Self::Plain)];

    fn compression(self) -> Compression {
        match self {
            Self::Plain => Compression::UNCOMPRESSED,
            Self::Snappy => Compression::SNAPPY,
            Self::Zstd => Compression::ZSTD(ZstdLevel::default()),
        }
    }
}

/// An encoder of a Parquet file.
pub(super) struct ParquetEncoder(ArrowWriter<Vec<u8>>);

impl std::fmt::Debug for ParquetEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ParquetEncoder({} bytes)", self.size())
    }
}

impl ParquetEncoder {
    /// Begins a file.
    ///
    /// # Errors
    /// When Parquet does not have the type of a column.
    pub(super) fn new(schema: &SchemaRef, packing: ParquetPacking) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(packing.compression()).build();
        ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(properties))
            .map(Self)
            .map_err(failed)
    }
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.0.write(rows).map_err(failed)
    }

    fn size(&self) -> usize {
        self.0.bytes_written() + self.0.in_progress_size()
    }

    fn finish(self: Box<Self>) -> Result<Bytes> {
        self.0.into_inner().map(Bytes::from).map_err(failed)
    }
}

fn failed(error: ParquetError) -> Error {
    Error::data(format!("rows cannot be written as Parquet: {error}")).with_source(error)
}
