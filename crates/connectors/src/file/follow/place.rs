//! Where a reader stands in the files of a chain: what is kept with its offset.

use serde::{Deserialize, Serialize};
use windrow_core::{Error, Result};

use super::handle::Held;
use super::trail::{SavedTrail, Trail};
use crate::file::location::FileId;

/// The files that a reader has read or still watches, in the order of reading.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) files: Vec<FilePlace>,
}

/// How far one file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePlace {
    /// What it was called last.
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) id: Option<FileId>,
    /// Bytes of it that were given out.
    pub(super) at: u64,
    /// Bytes of it that were seen.
    pub(super) seen: u64,
    pub(super) trail: SavedTrail,
}

impl FilePlace {
    /// The start of a file.
    pub(super) fn start(name: String, handle: &Held) -> Self {
        Self { name, id: handle.id, at: 0, seen: 0, trail: Trail::default().saved(0, 0) }
    }

    /// Whether it is of the file `handle`, which is called `name` now: by inode, where there is one.
    pub(super) fn is_of(&self, handle: &Held, name: &str) -> bool {
        match self.id {
            Some(id) => handle.id == Some(id),
            None => name == self.name,
        }
    }
}

impl Place {
    /// Reads what [`text`](Self::text) wrote.
    ///
    /// # Errors
    /// When it is not that.
    pub(super) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| {
            Error::data(format!("where a file was read to cannot be understood: {e}"))
                .with_source(e)
        })
    }

    /// It as one line.
    ///
    /// # Errors
    /// Never in practice: it is plain data.
    pub(super) fn text(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::internal("a place cannot be written down").with_source(e))
    }
}
