//! Compression of text while it is written.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;
use windrow_core::{Error, Result};

/// The compression of a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// None.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Packing {
    /// The values of the option `compression`.
    pub(crate) const WORDS: &[(&str, Self)] =
        &[("none", Self::Plain), ("gzip", Self::Gzip), ("zstd", Self::Zstd)];

    /// What it adds to the name of a file.
    pub(super) fn ending(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// Bytes that are compressed as they come.
pub(super) enum Packed {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} bytes)", self.size())
    }
}

impl Packed {
    /// Returns no bytes yet.
    ///
    /// # Errors
    /// When the compressor cannot be created.
    pub(super) fn new(packing: Packing) -> Result<Self> {
        Ok(match packing {
            Packing::Plain => Self::Plain(Vec::new()),
            Packing::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Packing::Zstd => {
                let level = zstd::DEFAULT_COMPRESSION_LEVEL;
                Self::Zstd(zstd::Encoder::new(Vec::new(), level).map_err(failed)?)
            }
        })
    }

    /// The bytes so far, without those that the compressor holds back.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.len(),
            Self::Gzip(encoder) => encoder.get_ref().len(),
            Self::Zstd(encoder) => encoder.get_ref().len(),
        }
    }

    /// Returns all bytes.
    ///
    /// # Errors
    /// When the compressor fails.
    pub(super) fn finish(self) -> Result<Bytes> {
        Ok(Bytes::from(match self {
            Self::Plain(bytes) => bytes,
            Self::Gzip(encoder) => encoder.finish().map_err(failed)?,
            Self::Zstd(encoder) => encoder.finish().map_err(failed)?,
        }))
    }
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(all) => all.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // A flush in the middle would cost compression, and nobody reads the bytes yet.
        Ok(())
    }
}

fn failed(error: io::Error) -> Error {
    Error::internal("rows cannot be compressed").with_source(error)
}
