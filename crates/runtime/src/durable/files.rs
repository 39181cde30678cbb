//! Access to files: the few operations that durable things are made of.
//!
//! ```text
//! Wal ─► Files ─┬─► StdFiles         the machine's file system
//!               └─► faults (tests)   full disks, failing syncs, crashes
//! ```
//! Invariants: `create` never opens what exists; a write goes to the end of the file; bytes are
//! durable once `sync` has returned, names once `sync_dir` has.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use windrow_core::{Error, ErrorKind};

/// A file system.
pub(crate) trait Files: Debug + Send + Sync {
    /// Makes a directory and those above it.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// A whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// A new file; an error when it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// An existing file, to write at its end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes names that were created or removed durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file that grows at its end.
pub(crate) trait LogFile: Send {
    /// Writes all bytes at the end; after an error any part of them may be there.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the bytes and the length durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StdFiles;

impl Files for StdFiles {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(dir)?;
        // Every directory that may be new: syncing one that is old costs little.
        for above in dir.ancestors().skip(1).take_while(|p| !p.as_os_str().is_empty()) {
            // Directories of others may not be readable; then they are not ours and not new.
            if self.sync_dir(above).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(OpenOptions::new().append(true).create_new(true).open(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Only unix opens directories as files; elsewhere the file system cares for names itself.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }
}

impl LogFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// An error of the file system, of the kind [`ErrorKind::Unavailable`]: `cannot <what> "<path>":
/// no space left on device (os error 28)`.
pub(crate) fn io_error(what: &str, path: &Path, cause: io::Error) -> Error {
    let said = cause.to_string();
    let mut chars = said.chars();
    let said = chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect());
    let message = format!("cannot {what} \"{}\": {said}", path.display());
    let full = cause.kind() == io::ErrorKind::StorageFull;
    let error = Error::new(ErrorKind::Unavailable, message).with_source(cause);
    if full { error.with_hint("Free space on the disk, then try again.") } else { error }
}

/// A damaged file, of the kind [`ErrorKind::Corrupt`].
pub(crate) fn corrupt(path: &Path, at: usize, why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("\"{}\" is damaged at byte {at}: {why}", path.display()))
        .with_hint("Nothing was changed. Restore the file from a copy, or move it away.")
}
