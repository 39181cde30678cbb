//! One followed file, held open: it remains the same file when it is renamed or deleted.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle as Runtime;
use windrow_core::Result;

use crate::file::location::{Blob, FileId, interrupted, unreadable};

/// A file held open, or an object.
#[derive(Debug, Clone)]
pub(in crate::file) struct Held {
    /// Its name when it was opened.
    pub(super) name: Arc<str>,
    pub(super) id: Option<FileId>,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Local(Arc<File>),
    Store { store: Arc<dyn ObjectStore>, path: StorePath, io: Runtime },
}

/// The state of a file at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) size: u64,
    /// Changes when its text does.
    pub(super) version: String,
}

impl Held {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(name: &str, blob: &Blob, io: &Runtime) -> Result<Self> {
        match blob {
            Blob::Local(path) => Self::open_local(name, path),
            Blob::Store(store, path) => {
                let (store, path, io) = (Arc::clone(store), path.clone(), io.clone());
                Ok(Self { name: name.into(), id: None, what: What::Store { store, path, io } })
            }
        }
    }

    /// Opens a file on this machine.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open_local(name: &str, path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| unreadable(name, e))?;
        let meta = file.metadata().map_err(|e| unreadable(name, e))?;
        Ok(Self { name: name.into(), id: FileId::of(&meta), what: What::Local(Arc::new(file)) })
    }

    /// Its name when it was opened.
    pub(in crate::file) fn name(&self) -> &str {
        &self.name
    }

    /// Returns its current state; `None`: the object is gone.
    ///
    /// # Errors
    /// When its store does not respond.
    pub(super) async fn look(&self) -> Result<Option<Look>> {
        match &self.what {
            What::Local(file) => {
                let meta = file.metadata().map_err(|e| unreadable(&self.name, e))?;
                let version = meta.modified().ok().map(|time| format!("{time:?}"));
                Ok(Some(Look { size: meta.len(), version: version.unwrap_or_default() }))
            }
            What::Store { store, path, io } => {
                let (store, path) = (Arc::clone(store), path.clone());
                let task = io.spawn(async move { store.head(&path).await });
                match task.await.map_err(|e| interrupted(&e))? {
                    Ok(meta) => Ok(Some(Look {
                        size: meta.size,
                        version: meta.e_tag.unwrap_or_else(|| meta.last_modified.to_rfc3339()),
                    })),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(e) => Err(unreadable(&self.name, e)),
                }
            }
        }
    }

    /// When it was last written to.
    pub(super) fn modified(&self) -> Option<std::time::SystemTime> {
        match &self.what {
            What::Local(file) => file.metadata().ok()?.modified().ok(),
            What::Store { .. } => None,
        }
    }

    /// Whether no name leads to it any more.
    pub(super) fn is_deleted(&self) -> bool {
        #[cfg(unix)]
        if let What::Local(file) = &self.what {
            use std::os::unix::fs::MetadataExt;
            return file.metadata().is_ok_and(|meta| meta.nlink() == 0);
        }
        false
    }

    /// Reads the bytes in a range; fewer where the file ends before.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(in crate::file) async fn read(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>> {
        if range.is_empty() {
            return Ok(vec![]);
        }
        match &self.what {
            What::Local(file) => {
                let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                let mut bytes = vec![0; length];
                let mut done = 0;
                while let Some(room) = bytes.get_mut(done..).filter(|room| !room.is_empty()) {
                    match read_at(file, room, range.start + done as u64) {
                        Ok(0) => break,
                        Ok(read) => done += read,
                        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(unreadable(&self.name, e)),
                    }
                }
                bytes.truncate(done);
                Ok(bytes)
            }
            What::Store { store, path, io } => {
                let (store, path) = (Arc::clone(store), path.clone());
                let task = io.spawn(async move {
                    if let Ok(bytes) = store.get_range(&path, range.clone()).await {
                        return Ok(bytes);
                    }
                    // It may have become shorter.
                    let size = store.head(&path).await?.size;
                    let range = range.start.min(size)..range.end.min(size);
                    if range.is_empty() {
                        return Ok(bytes::Bytes::new());
                    }
                    store.get_range(&path, range).await
                });
                match task.await.map_err(|e| interrupted(&e))? {
                    Ok(bytes) => Ok(bytes.to_vec()),
                    Err(object_store::Error::NotFound { .. }) => Ok(vec![]),
                    Err(e) => Err(unreadable(&self.name, e)),
                }
            }
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, to: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, to, at)
}

#[cfg(windows)]
fn read_at(file: &File, to: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, to, at)
}
