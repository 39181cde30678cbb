//! Access to files: the few operations on which durable storage is built.
//!
//! ```text
//! Wal, Definitions, … ─► Files ─┬─► StdFiles         the machine's file system
//!                               ├─► ObjectFiles      an object store
//!                               └─► faults (tests)   full disks, failing syncs, crashes
//! ```
//! Invariants: `create` never opens an existing file; a write goes to the end of the file; bytes are durable once
//! `sync` has returned, names once `sync_dir` has; `replace` leaves the old content or the new one, never a mixture.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use windrow_core::{Error, ErrorKind, Result};

/// A file system. All calls block: they must not run on the reactor's threads. Errors are those of the file system.
pub trait Files: Debug + Send + Sync {
    /// Creates a directory and its parents.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Lists the names of files and directories in a directory, in no order; empty when it does not exist.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Creates a new file; fails when it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// Opens an existing file, to write at its end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// Replaces a whole file, or creates it: after a crash it has its old or its new content. Durable on return. After
    /// an error it is unchanged, unless only the last sync failed.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Deletes a file, or a directory with everything in it; it need not exist.
    fn remove_all(&self, path: &Path) -> io::Result<()>;
    /// Makes created and removed names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Locks a directory for this process, until the lock is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when another process has it.
    fn lock(&self, dir: &Path) -> Result<Box<dyn Lock>>;
    /// Whether the bytes written between two syncs appear atomically, and not before the sync. Then no file is ever
    /// torn, and a `truncate` that succeeds after a failed sync ensures that the truncated bytes do not appear later.
    fn writes_whole(&self) -> bool {
        false
    }
}

/// A lock on a directory, held until dropped.
pub trait Lock: Debug + Send + Sync {}

impl Lock for File {}

/// An open file that grows at its end.
pub trait LogFile: Send {
    /// Writes all bytes at the end; after an error any part of them may have been written. They survive the end of the
    /// process, unless files [are written whole](Files::writes_whole).
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes the bytes and the length durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Truncates the file to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Debug, Clone, Copy)]
pub struct StdFiles;

impl Files for StdFiles {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(dir)?;
        // Sync every directory that may be new: syncing an old one costs little.
        for above in dir.ancestors().skip(1).take_while(|p| !p.as_os_str().is_empty()) {
            // Other users' directories may not be readable; then they are neither Windrow's nor new.
            if self.sync_dir(above).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        match fs::read_dir(dir) {
            Ok(all) => all.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(vec![]),
            Err(e) => Err(e),
        }
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

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".tmp");
        let tmp = path.with_file_name(name);
        let write = || -> io::Result<()> {
            let mut file = File::create(&tmp)?;
            Write::write_all(&mut file, bytes)?;
            file.sync_all()
        };
        if let Err(e) = write() {
            // Any remainder is overwritten by the next attempt.
            drop(fs::remove_file(&tmp));
            return Err(e);
        }
        fs::rename(&tmp, path)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        let removed = match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(e) => Err(e),
        };
        removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        // Only Unix opens directories as files; elsewhere the file system makes names durable itself.
        if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn Lock>> {
        let path = dir.join("LOCK");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| io_error("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(e)) => return Err(io_error("lock", &path, e)),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Some systems do not let others read a locked file; then the pid is not reported.
                let who = match file.read_to_string(&mut pid) {
                    Ok(_) if pid.trim() == std::process::id().to_string() => "this process".into(),
                    Ok(_) if !pid.trim().is_empty() => {
                        format!("another process (pid {})", pid.trim())
                    }
                    _ => "another process".to_owned(),
                };
                return Err(in_use(dir, &who));
            }
        }
        let write_pid = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            Write::write_all(file, format!("{}\n", std::process::id()).as_bytes())
        };
        write_pid(&mut file).map_err(|e| io_error("write", &path, e))?;
        Ok(Box::new(file))
    }
}

/// Returns the error for a data directory that `who` uses.
pub fn in_use(dir: &Path, who: &str) -> Error {
    let message = format!("data directory \"{}\" is in use by {who}", dir.display());
    Error::new(ErrorKind::Unavailable, message)
        .with_hint("Stop that process, or name another directory.")
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

/// Returns the error for a failed file operation, of the kind [`ErrorKind::Unavailable`] (or [`ErrorKind::Corrupt`],
/// when a part of a file is missing): `cannot <what> "<path>": no space left on device (os error 28)`.
pub fn io_error(what: &str, path: &Path, cause: io::Error) -> Error {
    let said = cause.to_string();
    let mut chars = said.chars();
    let said = chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect());
    let message = format!("cannot {what} \"{}\": {said}", path.display());
    let full = cause.kind() == io::ErrorKind::StorageFull;
    let kind = match cause.kind() {
        io::ErrorKind::InvalidData => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    let error = Error::new(kind, message).with_source(cause);
    if full { error.with_hint("Free space on the disk, then try again.") } else { error }
}

/// Returns the error for a damaged file, of the kind [`ErrorKind::Corrupt`].
pub fn corrupt(path: &Path, at: usize, why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("\"{}\" is damaged at byte {at}: {why}", path.display()))
        .with_hint("Nothing was changed. Restore the file from a copy, or move it away.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("f");
        fs::write(tmp.path().join("f.tmp"), "left by a crash, and longer").unwrap();
        StdFiles.replace(&path, b"one").unwrap();
        StdFiles.replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(StdFiles.list(tmp.path()).unwrap(), ["f"]);
        assert!(StdFiles.replace(&tmp.path().join("no/f"), b"x").is_err());
    }
}
