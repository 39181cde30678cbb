//! Where the readers of a stream's history stand, on disk: a file that is rotated while nothing runs is known
//! again.
//!
//! ```text
//! DIR/streams/<dir>/log/places.json    {"app.log":[4711,"…"]}     by partition: offset, and the reader's own words
//! ```
//! Invariant: what a place says has been read is durable in the log, so a place is at most as far as
//! the log is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use windrow_core::{Error, Result};

use windrow_storage::files::{Files, corrupt, io_error};

/// By partition: an offset, and what its reader said of where that is.
type Known = BTreeMap<String, (u64, Arc<str>)>;

/// Where the readers of one stream stand.
#[derive(Debug, Default)]
pub struct Places {
    known: Mutex<Known>,
    /// What is on disk, and where; `None`: the stream is in memory.
    kept: Option<(Arc<dyn Files>, PathBuf, Mutex<Known>)>,
}

impl Places {
    /// Those of the log in directory `log`. Blocks.
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

    /// Where the reader of a partition stands.
    pub fn of(&self, partition: &str) -> Option<(u64, Arc<str>)> {
        self.known.lock().get(partition).cloned()
    }

    /// All of them: partition and place.
    pub fn all(&self) -> Vec<(String, Arc<str>)> {
        self.known
            .lock()
            .iter()
            .map(|(name, (_, place))| (name.clone(), Arc::clone(place)))
            .collect()
    }

    /// A reader stands at an offset.
    pub(crate) fn note(&self, partition: &str, at: u64, place: &Arc<str>) {
        self.known.lock().insert(partition.to_owned(), (at, Arc::clone(place)));
    }

    /// What is to be written: `None` when that is on disk already, or nothing is kept.
    pub(crate) fn unwritten(&self) -> Option<Unwritten> {
        let (_, _, written) = self.kept.as_ref()?;
        let known = self.known.lock().clone();
        let is_new = known != *written.lock();
        is_new.then_some(Unwritten(known))
    }

    /// Writes it, once what has been read is durable in the log. Blocks.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, Unwritten(known): Unwritten) -> Result<()> {
        let Some((files, path, written)) = &self.kept else { return Ok(()) };
        let json = serde_json::to_vec(&known)
            .map_err(|e| Error::internal("a place cannot be written down").with_source(e))?;
        files.replace(path, &json).map_err(|e| io_error("write", path, e))?;
        *written.lock() = known;
        Ok(())
    }
}

/// Places that are not on disk yet.
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
