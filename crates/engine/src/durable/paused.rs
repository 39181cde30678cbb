//! The streams that are paused, on disk: they stay paused after a restart.
//!
//! ```text
//! paused.json  [3,17]     the ids of their definitions
//! ```
//! Invariant: a statement is acknowledged after the file is written. Ids without a definition have no effect.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use windrow_core::{Error, Result};
use windrow_storage::files::{Files, corrupt, io_error};

/// The paused streams of a data directory.
#[derive(Debug)]
pub(super) struct Paused {
    files: Arc<dyn Files>,
    path: PathBuf,
    ids: Mutex<BTreeSet<u64>>,
}

impl Paused {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read: a paused stream must not be read.
    pub(super) fn open(files: &Arc<dyn Files>, directory: &Path) -> Result<Self> {
        let path = directory.join("paused.json");
        let ids = match files.read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|e| corrupt(&path, 0, &e.to_string()))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
            Err(e) => return Err(io_error("read", &path, e)),
        };
        Ok(Self { files: Arc::clone(files), path, ids: Mutex::new(ids) })
    }

    /// Whether the stream with this id is paused.
    pub(super) fn has(&self, id: u64) -> bool {
        self.ids.lock().contains(&id)
    }

    /// Records whether the stream `id` is paused, and removes ids that are not in `known`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn set(&self, id: u64, paused: bool, known: &[u64]) -> Result<()> {
        let mut ids = self.ids.lock();
        let mut new = ids.clone();
        new.retain(|id| known.contains(id));
        if paused {
            new.insert(id)
        } else {
            new.remove(&id)
        };
        if new == *ids {
            return Ok(());
        }
        let json = serde_json::to_vec(&new)
            .map_err(|e| Error::internal("ids cannot be encoded").with_source(e))?;
        self.files.replace(&self.path, &json).map_err(|e| io_error("write", &self.path, e))?;
        *ids = new;
        Ok(())
    }
}
