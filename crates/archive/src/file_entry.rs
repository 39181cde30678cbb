//! A live file: its name, which encodes its rows, and its log entry.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::Schema;
use deltalake_core::kernel::{Add, Remove};
use windrow_core::{Error, ErrorKind, Result};

use crate::file_stats::FileStats;

/// One Parquet file of a table.
#[derive(Debug)]
pub(crate) struct FileEntry {
    /// Its name in the table's directory.
    pub(crate) name: String,
    /// Its first row in the sequence.
    pub(crate) start: u64,
    /// One past its last row.
    pub(crate) end: u64,
    /// Its size in bytes.
    pub(crate) bytes: u64,
    /// When it was written, in ms since the Unix epoch.
    pub(crate) modified_ms: i64,
    /// Statistics of its columns.
    pub(crate) stats: FileStats,
}

/// Prefix and suffix of the names of Windrow's files.
const PREFIX: &str = "part-";
const SUFFIX: &str = ".parquet";

/// Returns a name that was never used. A crash may leave a file whose rows are written again, so the rows alone do not
/// identify it.
///
/// It carries the CRC-32 of the file's bytes, so that damage is detected before a row is read.
pub(crate) fn new_name(start: u64, end: u64, txn_version: i64, bytes: &[u8]) -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let mut random = RandomState::new().build_hasher();
    random.write_u64(MADE.fetch_add(1, Ordering::Relaxed));
    let random = random.finish();
    let sum = crc32fast::hash(bytes);
    format!("{PREFIX}{start:020}-{end:020}-{txn_version}-{random:016x}-{sum:08x}{SUFFIX}")
}

/// Returns the checksum in a file name, or `None` if the name is not one of Windrow's.
pub(crate) fn checksum_of(name: &str) -> Option<u32> {
    rows_of(name)?;
    let (_, sum) = name.strip_suffix(SUFFIX)?.rsplit_once('-')?;
    u32::from_str_radix(sum, 16).ok().filter(|_| sum.len() == 8)
}

/// Returns the rows in a file name, or `None` if the name is not one of Windrow's.
pub(crate) fn rows_of(name: &str) -> Option<(u64, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.splitn(3, '-');
    let start = parts.next()?.parse().ok()?;
    let end = parts.next()?.parse().ok()?;
    parts.next().filter(|_| start < end).map(|_| (start, end))
}

impl FileEntry {
    /// Reads an entry of the log.
    ///
    /// # Errors
    /// When the name is not one of Windrow's.
    pub(crate) fn from_log(
        name: &str,
        bytes: i64,
        modified_ms: i64,
        stats: Option<&str>,
        schema: &Schema,
    ) -> Result<Self> {
        let (start, end) = rows_of(name).ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                format!("the archive file \"{name}\" was not written by Windrow"),
            )
            .with_hint("Only Windrow may append to the tables of its archive.")
        })?;
        Ok(Self {
            name: name.to_owned(),
            start,
            end,
            bytes: u64::try_from(bytes).unwrap_or(0),
            modified_ms,
            stats: FileStats::from_json(stats.unwrap_or_default(), end - start, schema),
        })
    }

    /// The action that adds it to the log.
    pub(crate) fn add(&self, schema: &Schema, data_change: bool) -> Add {
        Add {
            path: self.name.clone(),
            size: i64::try_from(self.bytes).unwrap_or(i64::MAX),
            modification_time: self.modified_ms,
            data_change,
            stats: Some(self.stats.to_json(schema)),
            ..Add::default()
        }
    }

    /// The action that removes it from the log.
    pub(crate) fn remove(&self, now_ms: i64, data_change: bool) -> Remove {
        Remove {
            path: self.name.clone(),
            data_change,
            deletion_timestamp: Some(now_ms),
            extended_file_metadata: Some(true),
            partition_values: Some(std::collections::HashMap::new()),
            size: Some(i64::try_from(self.bytes).unwrap_or(i64::MAX)),
            ..Remove::default()
        }
    }
}
