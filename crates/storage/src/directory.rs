//! The data directory: its id, its format, and the lock of the process that has it open.
//!
//! ```text
//! DATA/LOCK     locked while open; holds the pid
//!      FORMAT   {"format":2,"id":"91…","unsaid_below":1,"has_catalog":true,"next_id":4,"created_by":"windrow 0.1.0"}
//! ```
//! The id distinguishes the directory from all others; the parts of an object record both ids (`Owner`), so that a part
//! of another directory, or of another object, is not mistaken for its own. Directories of format 1 had no id: they get
//! one when they are opened, and their objects (ids below `unsaid_below`) need not record an owner.
//!
//! Invariants: one process at a time; nothing is created in a directory that is not Windrow's.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use windrow_core::Owner;
use windrow_core::{Error, Result};

use crate::files::{Files, Lock, corrupt, io_error};

/// The format that this version writes.
const FORMAT: u64 = 2;
/// The previous format, which had no id.
const FORMAT_WITHOUT_ID: u64 = 1;
/// Names that may exist in a directory that is still new.
const HARMLESS: [&str; 4] = ["LOCK", "FORMAT.tmp", "files", "lost+found"];

/// An open data directory; others are locked out until it is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    files: Arc<dyn Files>,
    path: PathBuf,
    about: Mutex<About>,
    /// Holds the lock.
    _lock: Box<dyn Lock>,
}

/// The contents of `FORMAT`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct About {
    /// Distinguishes the directory from all others; empty: it has no id yet.
    id: String,
    /// Objects with a smaller id predate the ids of directories.
    unsaid_below: u64,
    /// Whether a catalog was ever written: if it is missing, it is lost.
    has_catalog: bool,
    /// Ids below this one have been assigned to objects: a catalog that would assign one again is outdated.
    next_id: u64,
}

impl DataDirectory {
    /// Opens the data directory at `path`, or initialises a new or empty directory.
    ///
    /// # Errors
    /// `Unavailable` when another process has it open, or the file system fails; `Config` when the directory belongs to
    /// something else; `Data` when its format is unknown; `Corrupt` when `FORMAT` is damaged.
    pub fn open(files: Arc<dyn Files>, path: &Path) -> Result<Self> {
        files.create_dir(path).map_err(|e| io_error("create", path, e))?;
        refuse_foreign(&*files, path)?;
        let lock = files.lock(path)?;
        let format = path.join("FORMAT");
        let about = match files.read(&format) {
            Ok(bytes) => read_about(&format, &bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let about = About { id: new_id(), unsaid_below: 0, has_catalog: false, next_id: 0 };
                write_about(&*files, &format, &about)?;
                about
            }
            Err(e) => return Err(io_error("read", &format, e)),
        };
        Ok(Self { files, path: path.to_path_buf(), about: Mutex::new(about), _lock: lock })
    }

    /// Its unique id; `None`: it predates ids.
    pub fn id(&self) -> Option<String> {
        Some(self.about.lock().id.clone()).filter(|id| !id.is_empty())
    }

    /// Whether a catalog must exist.
    pub fn has_catalog(&self) -> bool {
        self.about.lock().has_catalog
    }

    /// Assigns an id to a directory without one; its existing objects are those below `next_id`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn identify(&self, next_id: u64) -> Result<()> {
        self.change(|about| {
            if about.id.is_empty() {
                (about.id, about.unsaid_below) = (new_id(), next_id);
            }
        })
    }

    /// Records that a catalog exists from now on.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn has_catalog_now(&self) -> Result<()> {
        self.change(|about| about.has_catalog = true)
    }

    /// The least id that the catalog may assign next.
    pub fn next_id(&self) -> u64 {
        self.about.lock().next_id
    }

    /// Records that the catalog assigns this id next: those below are in it.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn note_next_id(&self, next_id: u64) -> Result<()> {
        self.change(|about| about.next_id = about.next_id.max(next_id))
    }

    fn change(&self, change: impl FnOnce(&mut About)) -> Result<()> {
        let mut about = self.about.lock();
        let mut new = about.clone();
        change(&mut new);
        if new != *about {
            write_about(&*self.files, &self.path.join("FORMAT"), &new)?;
            *about = new;
        }
        Ok(())
    }

    /// Returns the owner of the parts of an object.
    pub fn owner(&self, object: u64) -> Owner {
        let about = self.about.lock();
        Owner {
            id: format!("{}/{object}", about.id),
            may_be_unrecorded: object < about.unsaid_below,
            is_created: false,
        }
    }

    /// Access to the files in it.
    pub fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Fails when the directory has files, but no `FORMAT`.
fn refuse_foreign(files: &dyn Files, path: &Path) -> Result<()> {
    let names = files.list(path).map_err(|e| io_error("list", path, e))?;
    let ours = names.iter().any(|n| n == "FORMAT");
    if ours || names.iter().all(|n| HARMLESS.contains(&n.as_str())) {
        return Ok(());
    }
    let message = format!("\"{}\" is not empty and not a Windrow data directory", path.display());
    Err(Error::config(message).with_hint("Name a new or an empty directory."))
}

fn read_about(path: &Path, bytes: &[u8]) -> Result<About> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|e| corrupt(path, 0, &format!("it is not JSON ({e})")))?;
    match value.get("format").and_then(Value::as_u64) {
        Some(FORMAT) => {
            let about = || {
                Some(About {
                    id: value.get("id")?.as_str().filter(|id| !id.is_empty())?.to_owned(),
                    unsaid_below: value.get("unsaid_below")?.as_u64()?,
                    has_catalog: value.get("has_catalog")?.as_bool()?,
                    next_id: value.get("next_id")?.as_u64()?,
                })
            };
            about().ok_or_else(|| corrupt(path, 0, "a field is missing"))
        }
        Some(FORMAT_WITHOUT_ID) => {
            Ok(About { id: String::new(), unsaid_below: 0, has_catalog: false, next_id: 0 })
        }
        Some(other) => Err(unknown_format(path, other, FORMAT)),
        None => Err(corrupt(path, 0, "it has no number \"format\"")),
    }
}

fn write_about(files: &dyn Files, path: &Path, about: &About) -> Result<()> {
    let text = json!({
        "format": FORMAT,
        "id": about.id,
        "unsaid_below": about.unsaid_below,
        "has_catalog": about.has_catalog,
        "next_id": about.next_id,
        "created_by": format!("windrow {}", env!("CARGO_PKG_VERSION")),
    });
    files.replace(path, format!("{text}\n").as_bytes()).map_err(|e| io_error("write", path, e))
}

/// Returns an id that no other directory has. No result depends on it.
fn new_id() -> String {
    let half = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(), half())
}

/// Returns the error for a file whose format is not `known`.
pub fn unknown_format(path: &Path, found: u64, known: u64) -> Error {
    Error::data(format!(
        "\"{}\" has format {found}, and this version of windrow knows format {known}",
        path.display()
    ))
    .with_hint("Use the version of windrow that wrote it, or a newer one.")
}

/// Encodes the name of an object as the name of a folder: everything but `[a-z0-9_-]` is percent-encoded, so that
/// different names stay different on a file system that ignores case. The empty name is `~`.
pub fn encode_name(name: &str) -> String {
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
    use crate::files::StdFiles;

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
        let opened = open(&path).unwrap();
        let id = opened.id().unwrap();
        assert_eq!((id.len(), opened.has_catalog()), (32, false));
        opened.identify(7).unwrap();
        opened.has_catalog_now().unwrap();
        opened.note_next_id(5).unwrap();
        opened.note_next_id(3).unwrap();
        drop(opened);
        let opened = open(&path).unwrap();
        assert_eq!((opened.id(), opened.has_catalog()), (Some(id.clone()), true));
        assert_eq!(opened.next_id(), 5);
        let owner = Owner { id: format!("{id}/3"), may_be_unrecorded: false, is_created: false };
        assert_eq!(opened.owner(3), owner);
        assert_ne!(open(&tmp.path().join("b")).unwrap().id(), Some(id));
    }

    #[test]
    fn a_directory_from_before_ids_gets_one() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("FORMAT"), r#"{"format":1,"created_by":"windrow 0.1.0"}"#)
            .unwrap();
        let opened = open(tmp.path()).unwrap();
        assert_eq!((opened.id(), opened.has_catalog()), (None, false));
        opened.identify(4).unwrap();
        let id = opened.id();
        assert!(id.is_some());
        drop(opened);
        let opened = open(tmp.path()).unwrap();
        assert_eq!(opened.id(), id);
        assert!(opened.owner(3).may_be_unrecorded && !opened.owner(4).may_be_unrecorded);
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
        assert!(error.message().contains("knows format 2"), "{error}");
        for damaged in ["", "{", "{}", r#"{"format":"x"}"#, r#"{"format":2}"#] {
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
