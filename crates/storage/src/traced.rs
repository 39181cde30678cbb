//! Files whose changes are logged before they are made, at the level `trace` and with the target `storage`:
//! `WINDROW_LOG=warn,storage=trace` shows what reaches the disk or the bucket, in order.
//!
//! It shows where a data directory spends its time, and tests use it to end the program in the middle of a step instead
//! of after some time. Reads are not logged.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windrow_core::Result;

use crate::files::{Files, Lock, LogFile};

/// A wrapper of `inner` that logs each change.
#[derive(Debug)]
pub(super) struct Traced {
    inner: Arc<dyn Files>,
}

impl Traced {
    pub(super) fn new(inner: Arc<dyn Files>) -> Self {
        Self { inner }
    }

    fn file(path: &Path, inner: Box<dyn LogFile>) -> Box<dyn LogFile> {
        Box::new(TracedFile { path: path.to_owned(), inner })
    }
}

/// Logs that `path` is about to be changed.
fn step(change: &str, path: &Path) {
    tracing::trace!(target: "storage", "{change} {}", path.display());
}

impl Files for Traced {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        step("create directory", dir);
        self.inner.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.inner.read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        step("create", path);
        Ok(Self::file(path, self.inner.create(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Self::file(path, self.inner.append(path)?))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        step("replace", path);
        self.inner.replace(path, bytes)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        step("remove", path);
        self.inner.remove(path)
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        step("remove all of", path);
        self.inner.remove_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        step("sync directory", dir);
        self.inner.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn Lock>> {
        step("lock", dir);
        self.inner.lock(dir)
    }

    fn writes_whole(&self) -> bool {
        self.inner.writes_whole()
    }
}

struct TracedFile {
    path: PathBuf,
    inner: Box<dyn LogFile>,
}

impl LogFile for TracedFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        step("write", &self.path);
        self.inner.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        step("sync", &self.path);
        self.inner.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        step("truncate", &self.path);
        self.inner.truncate(len)
    }
}
