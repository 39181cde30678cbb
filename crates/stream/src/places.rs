//! The positions of the readers of a stream's history, on disk, so that a file that was rotated while the engine was
//! down is recognised.
//!
//! ```text
//! DIR/streams/<dir>/log/places.json    {"app.log":[4711,"…"]}     by partition: offset, and the reader's description of it
//! ```
//! Invariant: the rows before a stored position are durable in the log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use windrow_core::{Error, Result};

use windrow_storage::files::{Files, corrupt, io_error};

/// By partition: an offset, and the reader's description of it.
type Known = BTreeMap<String, (u64, Arc<str>)>;

/// The positions of the readers of one stream.
#[derive(Debug, Default)]
pub struct Places {
    known: Mutex<Known>,
    /// The file's path and its contents as written; `None`: the stream is in memory only.
    kept: Option<(Arc<dyn Files>, PathBuf, Mutex<Known>)>,
}

impl Places {
    /// Reads the positions of the log in directory `log`. Blocks.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(files: Arc<dyn Files>, log: &Path) -> Result<Self> {
        let path = log.join("places.json");
        let known: Known = match files.read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| corrupt(&path, e.column(), &e.to_string()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Known::new(),
            Err(e) => return Err(io_error("read", &path, e)),
        };
        Ok(Self { known: Mutex::new(known.clone()), kept: Some((files, path, Mutex::new(known))) })
    }

    /// The position of the reader of a partition, with its description.
    pub fn of(&self, partition: &str) -> Option<(u64, Arc<str>)> {
        self.known.lock().get(partition).cloned()
    }

    /// All partitions with the descriptions of their positions.
    pub fn all(&self) -> Vec<(String, Arc<str>)> {
        self.known
            .lock()
            .iter()
            .map(|(name, (_, place))| (name.clone(), Arc::clone(place)))
            .collect()
    }

    /// Records the position of a partition's reader.
    pub(crate) fn note(&self, partition: &str, at: u64, place: &Arc<str>) {
        self.known.lock().insert(partition.to_owned(), (at, Arc::clone(place)));
    }

    /// The positions, if they differ from those on disk; `None` too when the stream is in memory only.
    pub(crate) fn unwritten(&self) -> Option<Unwritten> {
        let (_, _, written) = self.kept.as_ref()?;
        let known = self.known.lock().clone();
        let is_new = known != *written.lock();
        is_new.then_some(Unwritten(known))
    }

    /// Writes positions; the rows before them must be durable in the log. Blocks.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write(&self, Unwritten(known): Unwritten) -> Result<()> {
        let Some((files, path, written)) = &self.kept else { return Ok(()) };
        let json = serde_json::to_vec(&known)
            .map_err(|e| Error::internal("positions cannot be encoded").with_source(e))?;
        files.replace(path, &json).map_err(|e| io_error("write", path, e))?;
        *written.lock() = known;
        Ok(())
    }
}

/// Positions that are not on disk yet.
#[derive(Debug)]
pub(crate) struct Unwritten(Known);

#[cfg(test)]
mod tests {
    use windrow_storage::files::StdFiles;

    use super::*;

    #[test]
    fn places_come_back_from_disk() {
        let dir = tempfile::tempdir().unwrap();
        let files: Arc<dyn Files> = Arc::new(StdFiles);
        let open = || Places::open(Arc::clone(&files), dir.path()).unwrap();
        let places = open();
        assert!(places.of("a").is_none() && places.unwritten().is_none());
        places.note("a", 7, &"there".into());
        places.write(places.unwritten().unwrap()).unwrap();
        assert!(places.unwritten().is_none());
        places.note("a", 8, &"later".into());
        assert_eq!(open().of("a"), Some((7, "there".into())), "only what was written");
    }
}
