//! A data directory: one writer, a known format, and the one way to write a small file.
//!
//! ```text
//! DIR/LOCK      held by the process that has the directory open; its number is in it
//! DIR/FORMAT    {"format":1,"created_by":"windrow 0.1.0"}
//! ```
//! Invariants: nothing is written into a directory that is not ours, or of a format that this
//! version does not know; a file that [`write_atomically`] wrote is there wholly or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind as IoKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind, Result};

/// The layout that this version writes and reads; see `docs/formats.md`.
const FORMAT: u32 = 1;
const LOCK_FILE: &str = "LOCK";
const FORMAT_FILE: &str = "FORMAT";

/// A data directory that this process has to itself until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u32,
    created_by: String,
}

impl DataDirectory {
    /// Opens the directory, or makes it.
    ///
    /// # Errors
    /// `Unavailable` when another process has it or it cannot be written; `Data` when it is of
    /// another format; `Config` when it is not a data directory.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        create_dir(path)?;
        if !path.join(FORMAT_FILE).exists() {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        let format = path.join(FORMAT_FILE);
        match fs::read(&format) {
            Ok(bytes) => check_format(path, &bytes)?,
            Err(error) if error.kind() == IoKind::NotFound => {
                let created_by = format!("windrow {}", env!("CARGO_PKG_VERSION"));
                let bytes = serde_json::to_vec(&Format { format: FORMAT, created_by })
                    .map_err(|e| Error::internal(e.to_string()).with_source(e))?;
                write_atomically(&format, &bytes)?;
            }
            Err(error) => return Err(failed("read", &format, error)),
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// A directory with files of somebody else is not taken over.
fn refuse_foreign(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).map_err(|e| failed("read", path, e))? {
        let entry = entry.map_err(|e| failed("read", path, e))?;
        let name = entry.file_name();
        // A first start may have ended between the two files.
        if name != LOCK_FILE && !name.to_string_lossy().starts_with(FORMAT_FILE) {
            return Err(Error::config(format!(
                "\"{}\" is not empty and not a Windrow data directory",
                path.display()
            ))
            .with_hint("Name a directory that is empty or does not exist yet."));
        }
    }
    Ok(())
}

fn check_format(path: &Path, bytes: &[u8]) -> Result<()> {
    let format: Format = serde_json::from_slice(bytes).map_err(|e| {
        let file = path.join(FORMAT_FILE);
        Error::new(ErrorKind::Corrupt, format!("\"{}\" is damaged: {e}", file.display()))
            .with_source(e)
    })?;
    if format.format == FORMAT {
        return Ok(());
    }
    Err(Error::data(format!(
        "data directory \"{}\" has format {}, this version knows format {FORMAT}",
        path.display(),
        format.format
    ))
    .with_hint(format!("It was made by {}; open it with that version.", format.created_by)))
}

fn lock(path: &Path) -> Result<File> {
    let file_path = path.join(LOCK_FILE);
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file_path);
    let mut file = opened.map_err(|e| failed("write", &file_path, e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let by = match file.read_to_string(&mut owner) {
                Ok(_) if !owner.trim().is_empty() => format!(" (process {})", owner.trim()),
                _ => String::new(),
            };
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("data directory \"{}\" is in use by another process{by}", path.display()),
            )
            .with_hint("A data directory has one writer at a time; end the other one first."));
        }
        Err(TryLockError::Error(error)) => return Err(failed("lock", &file_path, error)),
    }
    let owner = std::process::id().to_string();
    file.set_len(0)
        .and_then(|()| file.write_all(owner.as_bytes()))
        .map_err(|e| failed("write", &file_path, e))?;
    Ok(file)
}

/// Makes a directory and what leads to it, durably.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        create_dir(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => sync_dir(parent),
        Err(error) if error.kind() == IoKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(failed("make", path, error)),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|e| failed("sync", path, e))
}

/// Writes a whole file: after a crash it has the old content or the new one.
///
/// # Errors
/// When it cannot be written; the old content is there then.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    create_dir(parent)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|e| failed("write", path, e))?;
    sync_dir(parent)
}

/// An object's name as the name of a folder: what some file system could mistake is written as
/// `%` and two hexadecimal digits.
pub(crate) fn encode_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

/// What the system says, with the file's name.
pub(crate) fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot {what} \"{}\": {error}", path.display()))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = DataDirectory::open(&path).unwrap();
        let second = DataDirectory::open(&path).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Unavailable);
        assert!(second.message().contains("in use"), "{second}");
        drop(first);
        DataDirectory::open(&path).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "x").unwrap();
        let error = DataDirectory::open(dir.path()).unwrap_err();
        assert!(error.message().contains("not a Windrow data directory"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_format_is_refused_politely() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDirectory::open(dir.path()).unwrap());
        fs::write(dir.path().join("FORMAT"), r#"{"format":7,"created_by":"windrow 9"}"#).unwrap();
        let error = DataDirectory::open(dir.path()).unwrap_err();
        assert!(error.message().contains("has format 7"), "{error}");
        fs::write(dir.path().join("FORMAT"), "{").unwrap();
        assert_eq!(DataDirectory::open(dir.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn names_that_are_no_file_names() {
        assert_eq!(encode_name("per_minute"), "per_minute");
        assert_eq!(encode_name("A b/ä.."), "%41%20b%2f%c3%a4%2e%2e");
    }
}
