//! The progress of sinks, on disk.
//!
//! ```text
//! sinks/<dir>.json  {"owner":"91….7","first":0,"committed":1200,"writing":1264,"paused":false,"crc32":"…"}
//! ```
//! Invariants: `committed` is never ahead of the destination; the rows up to `writing` are committed together, also after a crash,
//! so that a destination that gets them twice gets the same rows; a file of another object is refused.

use serde::{Deserialize, Serialize};
use windrow_core::{Error, Result};
use windrow_storage::files::{corrupt, io_error};

use super::definitions::{Definition, Part};
use super::store::{Store, missing};

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
}
