//! The manifest of a checkpoint: its contents, and the files of its segments.
//!
//! ```text
//! <crc32 of the second line, as 8 hexadecimal digits>
//! {"format":1,"id":12,…}
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};
use windrow_core::Result;

use crate::checkpoint::{Counts, TapCut};
use crate::directory::unknown_format;
use crate::files::corrupt;

/// The format that this version reads and writes.
pub(super) const FORMAT: u64 = 1;

/// A checkpoint of one query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u64,
    pub(super) id: u64,
    /// When it was begun, in µs since the epoch.
    pub(super) taken_micros: i64,
    pub(super) stamp: Stamp,
    /// The owner; `None`: the checkpoint predates the recording of owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    /// The watermark up to which the archive had committed the view's windows before; `None`: nothing.
    pub(super) archived: Option<i64>,
    /// Of a view without windows: the number of rows that it had returned. The archive commits them afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rows_given: Option<u64>,
    #[serde(rename = "inputs")]
    pub(super) operators: Vec<OperatorEntry>,
    pub(super) taps: Vec<TapCut>,
    pub(super) counts: Counts,
    /// Files of late and bad rows.
    pub(super) unused: Vec<FileEntry>,
    /// Files of segments.
    pub(super) files: Vec<FileEntry>,
}

/// Identifies the plan and program that can resume from a state: both must be the same. Another version may keep other
/// states for the same aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The continuous plan as text.
    pub plan: String,
    /// Versions of Windrow and of its engine.
    pub engine: String,
}

/// One stateful operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OperatorEntry {
    pub(super) watermark: i64,
    pub(super) frontier: i64,
    pub(super) next_id: u64,
    pub(super) segments: Vec<SegmentEntry>,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentEntry {
    pub(super) id: u64,
    /// The input of the operator whose rows it has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) input: usize,
    pub(super) slice: i64,
    pub(super) counts_from: i64,
    pub(super) rows: u64,
    /// The first and the last event time of its rows, where they are recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) times: Option<(i64, i64)>,
    /// Its file, and its batches in that file.
    pub(super) file: String,
    pub(super) first_batch: usize,
    pub(super) batches: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A file that a checkpoint needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}

impl Manifest {
    /// The file's name.
    pub(super) fn file_name(id: u64) -> String {
        format!("{id:012}.checkpoint")
    }

    /// Returns the number in a manifest's name.
    pub(super) fn id_of(name: &str) -> Option<u64> {
        name.strip_suffix(".checkpoint")?.parse().ok()
    }

    /// Encodes the file.
    ///
    /// # Errors
    /// Never in practice: all of it is plain data.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_string(self).map_err(|e| {
            windrow_core::Error::internal("a checkpoint cannot be encoded").with_source(e)
        })?;
        Ok(format!("{:08x}\n{text}\n", crc32fast::hash(text.as_bytes())).into_bytes())
    }

    /// Decodes a file.
    ///
    /// # Errors
    /// When it is damaged, or of another format.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let damaged = |why: &str| corrupt(path, 0, why);
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let mut lines = text.lines();
        let (Some(crc), Some(text), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(damaged("it does not have two lines"));
        };
        if crc != format!("{:08x}", crc32fast::hash(text.as_bytes())) {
            return Err(damaged("the checksum is wrong"));
        }
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|e| damaged(&format!("it is not JSON ({e})")))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(FORMAT) => {}
            Some(other) => return Err(unknown_format(path, other, FORMAT)),
            None => return Err(damaged("it has no number \"format\"")),
        }
        serde_json::from_value(value).map_err(|e| damaged(&format!("a field is wrong ({e})")))
    }
}
