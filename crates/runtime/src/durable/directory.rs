//! The data directory: whose it is, which format it has, and who has it open.
//!
//! ```text
//! DATA/LOCK     locked while open; holds the pid
//!      FORMAT   {"format":1,"created_by":"windrow 0.1.0"}
//! ```
//! Invariants: one process at a time; nothing is created in a directory that is not ours; a file
//! written by [`write_atomically`] has, after a crash, either its old or its new content.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use windrow_core::{Error, ErrorKind, Result};

use super::files::{Files, StdFiles, corrupt, io_error};

/// The format that this version reads and writes.
const FORMAT: u64 = 1;
/// What may stand in a directory that is still new.
const HARMLESS: [&str; 3] = ["LOCK", "FORMAT.tmp", "lost+found"];

/// An open data directory; others are locked out until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl DataDirectory {
    /// Opens the data directory at `path`, or makes one of a new or empty directory.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when another process has it open, or the file system fails;
    /// [`ErrorKind::Config`] when the directory is of something else; [`ErrorKind::Data`] when its
    /// format is not known; [`ErrorKind::Corrupt`] when `FORMAT` is damaged.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        StdFiles.create_dir(path).map_err(|e| io_error("create", path, e))?;
        refuse_foreign(path)?;
        let lock = lock(path)?;
        let format = path.join("FORMAT");
        if format.exists() {
            check_format(&format)?;
        } else {
            let created_by = format!("windrow {}", env!("CARGO_PKG_VERSION"));
            let text = json!({ "format": FORMAT, "created_by": created_by }).to_string();
            write_atomically(&format, format!("{text}\n").as_bytes())?;
        }
        Ok(Self { path: path.to_path_buf(), _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// An error when the directory has files, but no `FORMAT`.
fn refuse_foreign(path: &Path) -> Result<()> {
    let names = StdFiles.list(path).map_err(|e| io_error("list", path, e))?;
    let ours = names.iter().any(|n| n == "FORMAT");
    if ours || names.iter().all(|n| HARMLESS.contains(&n.as_str())) {
        return Ok(());
    }
    let message = format!("\"{}\" is not empty and not a Windrow data directory", path.display());
    Err(Error::config(message).with_hint("Name a new or an empty directory."))
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("LOCK");
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
            // Some systems do not let others read a locked file; then the pid is not told.
            let who = match file.read_to_string(&mut pid) {
                Ok(_) if pid.trim() == std::process::id().to_string() => "this process".into(),
                Ok(_) if !pid.trim().is_empty() => format!("another process (pid {})", pid.trim()),
                _ => "another process".to_owned(),
            };
            let message = format!("data directory \"{}\" is in use by {who}", directory.display());
            return Err(Error::new(ErrorKind::Unavailable, message)
                .with_hint("Stop that process, or name another directory."));
        }
    }
    let write_pid = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    write_pid(&mut file).map_err(|e| io_error("write", &path, e))?;
    Ok(file)
}

fn check_format(path: &Path) -> Result<()> {
    let bytes = StdFiles.read(path).map_err(|e| io_error("read", path, e))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| corrupt(path, 0, &format!("it is not JSON ({e})")))?;
    match value.get("format").and_then(Value::as_u64) {
        Some(FORMAT) => Ok(()),
        Some(other) => Err(unknown_format(path, other, FORMAT)),
        None => Err(corrupt(path, 0, "it has no number \"format\"")),
    }
}

/// The error for a file whose format is not `known`.
pub(crate) fn unknown_format(path: &Path, found: u64, known: u64) -> Error {
    Error::data(format!(
        "\"{}\" has format {found}, and this version of windrow knows format {known}",
        path.display()
    ))
    .with_hint("Use the version of windrow that wrote it, or a newer one.")
}

/// Replaces a file, or creates it: after a crash it is whole, old or new. Durable on return.
///
/// # Errors
/// [`ErrorKind::Unavailable`] when the file system fails; then the file is as it was, unless only
/// the last sync failed.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let tmp = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = File::create(&tmp)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    if let Err(e) = write() {
        // What is left of it is overwritten by the next attempt.
        drop(std::fs::remove_file(&tmp));
        return Err(io_error("write", path, e));
    }
    std::fs::rename(&tmp, path).map_err(|e| io_error("replace", path, e))?;
    match path.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => StdFiles.sync_dir(parent),
        None => StdFiles.sync_dir(Path::new(".")),
    }
    .map_err(|e| io_error("sync", path, e))
}

/// The name of an object as the name of a folder: everything but `[a-z0-9_-]` is percent-encoded,
/// so that no two names are one on a file system that ignores case. The empty name is `~`.
pub(crate) fn encode_name(name: &str) -> String {
    if name.is_empty() {
        return "~".into();
    }
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("~{byte:02x}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_locked_and_opened_again() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/b");
        let open = DataDirectory::open(&path).unwrap();
        assert_eq!(open.path(), path);
        let busy = DataDirectory::open(&path).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Unavailable);
        assert!(busy.message().ends_with("is in use by this process"), "{busy}");
        std::fs::write(path.join("LOCK"), "1\n").unwrap();
        let busy = DataDirectory::open(&path).unwrap_err();
        assert!(busy.message().ends_with("is in use by another process (pid 1)"), "{busy}");
        drop(open);
        drop(DataDirectory::open(&path).unwrap());
        let format = std::fs::read_to_string(path.join("FORMAT")).unwrap();
        let format: Value = serde_json::from_str(&format).unwrap();
        assert_eq!(format, json!({ "format": 1, "created_by": "windrow 0.1.0" }));
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_alone() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("thesis.txt"), "x").unwrap();
        let error = DataDirectory::open(tmp.path()).unwrap_err();
        assert!(error.message().ends_with("is not empty and not a Windrow data directory"));
        assert_eq!(StdFiles.list(tmp.path()).unwrap(), ["thesis.txt"]);
    }

    #[test]
    fn unknown_and_damaged_formats_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let format = tmp.path().join("FORMAT");
        std::fs::write(&format, r#"{"format":7}"#).unwrap();
        let error = DataDirectory::open(tmp.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains("has format 7"), "{error}");
        assert!(error.message().contains("knows format 1"), "{error}");
        for damaged in ["", "{", "{}", r#"{"format":"x"}"#] {
            std::fs::write(&format, damaged).unwrap();
            assert_eq!(DataDirectory::open(tmp.path()).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(std::fs::read_to_string(&format).unwrap(), damaged);
        }
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("f");
        std::fs::write(tmp.path().join("f.tmp"), "left by a crash, and longer").unwrap();
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(StdFiles.list(tmp.path()).unwrap(), ["f"]);
        assert!(write_atomically(&tmp.path().join("no/f"), b"x").is_err());
    }

    #[test]
    fn names_are_encoded_one_to_one() {
        for (name, encoded) in [
            ("orders_2-b", "orders_2-b"),
            ("Orders", "~4frders"),
            ("a.b/c", "a~2eb~2fc"),
            ("..", "~2e~2e"),
            ("a%2e", "a~252e"),
            ("é", "~c3~a9"),
            ("", "~"),
        ] {
            assert_eq!(encode_name(name), encoded);
        }
    }
}
