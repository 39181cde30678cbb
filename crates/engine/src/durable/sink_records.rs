//! The progress of sinks, on disk.
//!
//! ```text
//! sinks/<dir>.json           {"owner":"91….7","first":0,"committed":1200,"writing":1264,"paused":false,"crc32":"…"}
//! sinks/<dir>.rejected.json  {"owner":"91….7","rejected":{"count":2,"rows":[{"row":17,"reason":"…","at":…,"values":"{…}"}, …]},"crc32":"…"}
//! ```
//! A refused row is stored before the sequence moves past it. After a crash in between, the last refused row is not below
//! `committed`, and is not sent again.
//!
//! Invariants: `committed` is never ahead of the destination; the rows up to `writing` are committed together, also after a crash,
//! so that a destination that gets them twice gets the same rows; a file of another object is refused.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use windrow_core::{Error, Result};
use windrow_storage::files::{corrupt, io_error};

use super::definitions::{Definition, Part};
use super::store::{Store, missing};

/// The maximum number of refused rows that are kept; the oldest are dropped first.
const KEPT_ROWS: usize = 1_000;
/// Their maximum total size, in bytes.
const KEPT_BYTES: usize = 1 << 20;
/// The maximum size of the values of a row, in bytes; longer ones are truncated.
const VALUES_BYTES: usize = 64 << 10;

/// A row that the destination has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RejectedRow {
    /// The number of rows of the view before it.
    pub(crate) row: u64,
    /// The error of the destination.
    pub(crate) reason: String,
    /// When, in µs since 1970.
    pub(crate) at: i64,
    /// The row as JSON; `None` if a column has a type that cannot be written as JSON.
    pub(crate) values: Option<String>,
}

/// The rows that the destination of a sink has refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejected {
    /// The number of all of them, dropped ones included.
    pub(crate) count: u64,
    /// The last ones.
    pub(crate) rows: VecDeque<RejectedRow>,
}

impl Rejected {
    /// Adds a row.
    pub(crate) fn add(&mut self, mut row: RejectedRow) {
        for text in row.values.iter_mut().chain([&mut row.reason]) {
            if text.len() > VALUES_BYTES {
                text.truncate(text.floor_char_boundary(VALUES_BYTES));
                text.push('…');
            }
        }
        self.count += 1;
        self.rows.push_back(row);
        let size =
            |row: &RejectedRow| row.reason.len() + row.values.as_ref().map_or(0, String::len);
        let mut bytes: usize = self.rows.iter().map(size).sum();
        while self.rows.len() > KEPT_ROWS || (bytes > KEPT_BYTES && self.rows.len() > 1) {
            bytes -= self.rows.pop_front().map_or(0, |row| size(&row));
        }
    }

    /// Returns the last row if the sequence `committed` has not moved past it.
    pub(crate) fn open(&self, committed: u64) -> Option<u64> {
        self.rows.back().map(|last| last.row).filter(|row| *row >= committed)
    }

    /// How many of them are below `committed`.
    pub(crate) fn below(&self, committed: u64) -> u64 {
        self.count - u64::from(self.open(committed).is_some())
    }

    fn checksum(&self, owner: &str) -> String {
        format!("{:08x}", crc32fast::hash(format!("{owner} {self:?}").as_bytes()))
    }
}

#[derive(Serialize, Deserialize)]
struct StoredRejected {
    owner: String,
    rejected: Rejected,
    crc32: String,
}

/// How far a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct SinkRecord {
    /// The row at which it began.
    pub(crate) first: u64,
    /// The sequence that is committed.
    pub(crate) committed: u64,
    /// The end of the rows that are being committed.
    pub(crate) writing: Option<u64>,
    /// Whether it is paused.
    pub(crate) paused: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    owner: String,
    #[serde(flatten)]
    record: SinkRecord,
    crc32: String,
}

impl SinkRecord {
    fn checksum(&self, owner: &str) -> String {
        format!("{:08x}", crc32fast::hash(format!("{owner} {self:?}").as_bytes()))
    }
}

impl Store {
    /// Stores the progress of a sink.
    ///
    /// # Errors
    /// When it cannot be written; then the old one remains.
    pub(crate) fn write_sink(&self, definition: &Definition, record: SinkRecord) -> Result<()> {
        let (folder, path) = (self.folder(Part::Sink), self.sink_file(definition));
        let owner = self.owner(definition, Part::Sink).id;
        let crc32 = record.checksum(&owner);
        let bytes = serde_json::to_vec(&Stored { owner, record, crc32 }).map_err(|e| {
            Error::internal("the progress of a sink cannot be encoded").with_source(e)
        })?;
        self.files().create_dir(&folder).map_err(|e| io_error("create", &folder, e))?;
        self.files().replace(&path, &bytes).map_err(|e| io_error("write", &path, e))?;
        self.note_opened(definition, Part::Sink);
        Ok(())
    }

    /// Returns the progress of a sink; `None`: it has none yet.
    ///
    /// # Errors
    /// When it is damaged, missing, or that of another object.
    pub(crate) fn read_sink(&self, definition: &Definition) -> Result<Option<SinkRecord>> {
        let path = self.sink_file(definition);
        let bytes = match self.files().read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if definition.parts.contains(&Part::Sink) {
                    return Err(missing("the file", &path));
                }
                return Ok(None);
            }
            Err(e) => return Err(io_error("read", &path, e)),
        };
        let stored: Stored = serde_json::from_slice(&bytes)
            .map_err(|e| corrupt(&path, 0, &format!("it is not the progress of a sink ({e})")))?;
        if stored.record.checksum(&stored.owner) != stored.crc32 {
            return Err(corrupt(&path, 0, "the checksum is wrong"));
        }
        if stored.owner != self.owner(definition, Part::Sink).id {
            if !definition.parts.contains(&Part::Sink) {
                // Of a sink that was replaced: this one has none yet.
                return Ok(None);
            }
            return Err(corrupt(&path, 0, "it belongs to another sink"));
        }
        self.note_opened(definition, Part::Sink);
        Ok(Some(stored.record))
    }

    /// Stores the rows that the destination of a sink has refused.
    ///
    /// # Errors
    /// When they cannot be written; then the old ones remain.
    pub(crate) fn write_rejected(
        &self,
        definition: &Definition,
        rejected: &Rejected,
    ) -> Result<()> {
        let path = self.rejected_file(definition);
        let owner = self.owner(definition, Part::Sink).id;
        let crc32 = rejected.checksum(&owner);
        let stored = StoredRejected { owner, rejected: rejected.clone(), crc32 };
        let bytes = serde_json::to_vec(&stored)
            .map_err(|e| Error::internal("refused rows cannot be encoded").with_source(e))?;
        self.files().replace(&path, &bytes).map_err(|e| io_error("write", &path, e))
    }

    /// Returns the rows that the destination of a sink has refused.
    ///
    /// # Errors
    /// When the file is damaged.
    pub(crate) fn read_rejected(&self, definition: &Definition) -> Result<Rejected> {
        let path = self.rejected_file(definition);
        let bytes = match self.files().read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Rejected::default()),
            Err(e) => return Err(io_error("read", &path, e)),
        };
        let stored: StoredRejected = serde_json::from_slice(&bytes)
            .map_err(|e| corrupt(&path, 0, &format!("these are not refused rows ({e})")))?;
        if stored.rejected.checksum(&stored.owner) != stored.crc32 {
            return Err(corrupt(&path, 0, "the checksum is wrong"));
        }
        // The file may belong to a sink that was replaced.
        let is_own = stored.owner == self.owner(definition, Part::Sink).id;
        Ok(if is_own { stored.rejected } else { Rejected::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(row: u64, values: String) -> RejectedRow {
        RejectedRow { row, reason: "no".to_owned(), at: 0, values: Some(values) }
    }

    #[test]
    fn refused_rows_are_bounded_and_counted() {
        let mut rejected = Rejected::default();
        assert_eq!((rejected.open(0), rejected.below(0)), (None, 0));
        for n in 0..1_500 {
            rejected.add(row(n, String::new()));
        }
        assert_eq!((rejected.count, rejected.rows.len()), (1_500, KEPT_ROWS));
        assert_eq!((rejected.open(1_499), rejected.below(1_499)), (Some(1_499), 1_499));
        assert_eq!((rejected.open(1_500), rejected.below(1_500)), (None, 1_500));
        for n in 1_500..1_600 {
            rejected.add(row(n, "ü".repeat(VALUES_BYTES)));
        }
        let bytes: usize =
            rejected.rows.iter().filter_map(|r| Some(r.values.as_ref()?.len())).sum();
        assert!(bytes <= KEPT_BYTES && rejected.rows.len() > 10, "{bytes}");
        assert_eq!(rejected.rows.back().map(|row| row.row), Some(1_599));
    }
}
