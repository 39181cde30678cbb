//! The position of a reader in the files of a chain: what is stored with its offset.

use serde::{Deserialize, Serialize};
use windrow_core::{Error, Result};

use super::handle::Held;
use super::trail::{SavedTrail, Trail};
use crate::file::location::FileId;

/// The files that a reader has read or still watches, in reading order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) files: Vec<FilePlace>,
}

/// How far one file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePlace {
    /// Its last known name.
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) id: Option<FileId>,
    /// Bytes of it that were returned in batches.
    pub(super) at: u64,
    /// Bytes of it that were seen.
    pub(super) seen: u64,
    pub(super) trail: SavedTrail,
}

impl FilePlace {
    /// Returns the start of a file.
    pub(super) fn start(name: String, handle: &Held) -> Self {
        Self { name, id: handle.id, at: 0, seen: 0, trail: Trail::default().saved(0, 0) }
    }

    /// Whether it belongs to the file `handle`, which is called `name` now: by inode, where there is one.
    pub(super) fn is_of(&self, handle: &Held, name: &str) -> bool {
        match self.id {
            Some(id) => handle.id == Some(id),
            None => name == self.name,
        }
    }
}

impl Place {
    /// Parses the output of [`text`](Self::text).
    ///
    /// # Errors
    /// When the text is not of that form.
    pub(super) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|e| {
            Error::data(format!("the position in a followed file cannot be parsed: {e}"))
                .with_source(e)
        })
    }

    /// Formats it as one line.
    ///
    /// # Errors
    /// Never in practice: it is plain data.
    pub(super) fn text(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::internal("a position cannot be encoded").with_source(e))
    }
}
