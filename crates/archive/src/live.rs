//! The state of a table that readers see: the live files, which tile the sequence of its rows.

use std::sync::Arc;

use windrow_core::{Error, ErrorKind, Result};

use crate::file_entry::FileEntry;
use crate::spec::{ArchiveState, TableSpec};

/// The state that readers see.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The live files, in the order of their rows.
    pub(crate) files: Vec<Arc<FileEntry>>,
    /// The extent of the table.
    pub(crate) state: ArchiveState,
}

impl Live {
    /// Sorts files.
    ///
    /// # Errors
    /// When they do not tile the sequence.
    pub(crate) fn new(
        mut files: Vec<Arc<FileEntry>>,
        txn_version: Option<i64>,
        spec: &TableSpec,
    ) -> Result<Self> {
        files.sort_by_key(|f| f.start);
        for (a, b) in files.iter().zip(files.iter().skip(1)) {
            if a.end != b.start && spec.gaps.after(a.end) != b.start {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("the archive file \"{}\" of \"{}\" does not fit", b.name, spec.name),
                )
                .with_detail(format!("The file before it ends at row {}.", a.end)));
            }
        }
        Ok(Self::of(files, txn_version))
    }

    /// Wraps files that are sorted and tile.
    pub(crate) fn of(files: Vec<Arc<FileEntry>>, txn_version: Option<i64>) -> Self {
        let state = ArchiveState {
            first_row: files.first().map_or(0, |f| f.start),
            rows: files.last().map_or(0, |f| f.end),
            txn_version,
            files: files.len(),
            bytes: files.iter().map(|f| f.bytes).sum(),
        };
        Self { files, state }
    }
}
