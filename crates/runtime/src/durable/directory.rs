//! The data directory: whose it is, which format it has, and who has it open.
//!
//! ```text
//! DATA/LOCK     locked while open; holds the pid
//!      FORMAT   {"format":1,"created_by":"windrow 0.1.0"}
//! ```
//! Invariants: one process at a time; nothing is created in a directory that is not ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use windrow_core::{Error, Result};

use super::files::{Files, Lock, corrupt, io_error};

/// The format that this version reads and writes.
const FORMAT: u64 = 1;
/// What may stand in a directory that is still new.
const HARMLESS: [&str; 4] = ["LOCK", "FORMAT.tmp", "files", "lost+found"];

/// An open data directory; others are locked out until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    files: Arc<dyn Files>,
    path: PathBuf,
    /// Holds the lock.
    _lock: Box<dyn Lock>,
}

impl DataDirectory {
    /// Opens the data directory at `path`, or makes one of a new or empty directory.
    ///
    /// # Errors
    /// `Unavailable` when another process has it open, or the file system fails; `Config` when the
    /// directory is of something else; `Data` when its format is not known; `Corrupt` when `FORMAT`
    /// is damaged.
    pub(crate) fn open(files: Arc<dyn Files>, path: &Path) -> Result<Self> {
        files.create_dir(path).map_err(|e| io_error("create", path, e))?;
        refuse_foreign(&*files, path)?;
        let lock = files.lock(path)?;
        let format = path.join("FORMAT");
        match files.read(&format) {
            Ok(bytes) => check_format(&format, &bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let created_by = format!("windrow {}", env!("CARGO_PKG_VERSION"));
                let text = json!({ "format": FORMAT, "created_by": created_by }).to_string();
                files
                    .replace(&format, format!("{text}\n").as_bytes())
                    .map_err(|e| io_error("write", &format, e))?;
            }
            Err(e) => return Err(io_error("read", &format, e)),
        }
        Ok(Self { files, path: path.to_path_buf(), _lock: lock })
    }

    /// How to reach what is in it.
    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// An error when the directory has files, but no `FORMAT`.
fn refuse_foreign(files: &dyn Files, path: &Path) -> Result<()> {
    let names = files.list(path).map_err(|e| io_error("list", path, e))?;
    let ours = names.iter().any(|n| n == "FORMAT");
    if ours || names.iter().all(|n| HARMLESS.contains(&n.as_str())) {
        return Ok(());
    }
    let message = format!("\"{}\" is not empty and not a Windrow data directory", path.display());
    Err(Error::config(message).with_hint("Name a new or an empty directory."))
}

fn check_format(path: &Path, bytes: &[u8]) -> Result<()> {
    let value: Value = serde_json::from_slice(bytes)
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
    use windrow_core::ErrorKind;

    use super::*;
    use crate::durable::files::StdFiles;

    fn open(path: &Path) -> Result<DataDirectory> {
        DataDirectory::open(Arc::new(StdFiles), path)
    }

    #[test]
    fn a_directory_is_made_locked_and_opened_again() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/b");
        let opened = open(&path).unwrap();
        assert_eq!(opened.path(), path);
        let busy = open(&path).unwrap_err();
        assert_eq!(busy.kind(), ErrorKind::Unavailable);
        assert!(busy.message().ends_with("is in use by this process"), "{busy}");
        std::fs::write(path.join("LOCK"), "1\n").unwrap();
        let busy = open(&path).unwrap_err();
        assert!(busy.message().ends_with("is in use by another process (pid 1)"), "{busy}");
        drop(opened);
        drop(open(&path).unwrap());
        let format = std::fs::read_to_string(path.join("FORMAT")).unwrap();
        let format: Value = serde_json::from_str(&format).unwrap();
        assert_eq!(format, json!({ "format": 1, "created_by": "windrow 0.1.0" }));
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_alone() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("thesis.txt"), "x").unwrap();
        let error = open(tmp.path()).unwrap_err();
        assert!(error.message().ends_with("is not empty and not a Windrow data directory"));
        assert_eq!(StdFiles.list(tmp.path()).unwrap(), ["thesis.txt"]);
    }

    #[test]
    fn unknown_and_damaged_formats_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let format = tmp.path().join("FORMAT");
        std::fs::write(&format, r#"{"format":7}"#).unwrap();
        let error = open(tmp.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.message().contains("has format 7"), "{error}");
        assert!(error.message().contains("knows format 1"), "{error}");
        for damaged in ["", "{", "{}", r#"{"format":"x"}"#] {
            std::fs::write(&format, damaged).unwrap();
            assert_eq!(open(tmp.path()).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(std::fs::read_to_string(&format).unwrap(), damaged);
        }
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
