//! The definitions of the objects, on disk.
//!
//! ```text
//! catalog.json  {"format":1,"next_id":3,"crc32":"…","objects":[{"id":1,"name":"s",…},…]}
//! change ─► new text ─► Files::replace ─► memory
//! ```
//! Invariants: objects stand in order of creation, so that each finds what it needs; an id is
//! never given twice; memory changes only after the file did; a file that does not match its
//! checksum is an error and is never overwritten.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use windrow_core::{Error, ErrorKind, Result};

use super::directory::{DataDirectory, encode_name, unknown_format};
use super::files::{Files, corrupt, io_error};

/// The format that this version reads and writes.
const FORMAT: u64 = 1;
/// Longer folder names are cut and made unique by the id; file systems allow 255 bytes.
const DIR_BYTES_MAX: usize = 200;
/// Where objects have their folders.
const FOLDERS: [&str; 2] = ["streams", "views"];

/// What kind of object a definition makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A stream.
    Stream,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A table.
    Table,
    /// A continuous INSERT.
    Insert,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Stream, Self::View, Self::MaterializedView, Self::Table, Self::Insert];

    /// The word in the file.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::View => "view",
            Self::MaterializedView => "materialized_view",
            Self::Table => "table",
            Self::Insert => "insert",
        }
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    /// Never given twice in a data directory.
    pub(crate) id: u64,
    /// Its name, as the catalog has it.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: Kind,
    /// The statement that creates it.
    pub(crate) sql: String,
    /// The name of its folder.
    pub(crate) dir: String,
    /// What relative paths in it are relative to, when a remote user made it; `None`: somebody who
    /// may touch all files.
    pub(crate) base: Option<String>,
}

/// The definitions of a data directory.
#[derive(Debug)]
pub(crate) struct Definitions {
    files: Arc<dyn Files>,
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    next_id: u64,
    objects: Vec<Definition>,
}

impl Definitions {
    /// Reads the definitions; there are none in a new directory.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the file is damaged, [`ErrorKind::Data`] when its format is not
    /// known, [`ErrorKind::Unavailable`] when it cannot be read.
    pub(crate) fn open(directory: &DataDirectory) -> Result<Self> {
        let definitions = Self {
            files: Arc::clone(directory.files()),
            directory: directory.path().to_path_buf(),
            state: Mutex::new(State { next_id: 1, objects: vec![] }),
        };
        let path = definitions.path();
        match definitions.files.read(&path) {
            Ok(bytes) => *definitions.state.lock() = definitions.parse(&bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(io_error("read", &path, e)),
        }
        Ok(definitions)
    }

    /// All objects, in order of creation.
    pub(crate) fn list(&self) -> Vec<Definition> {
        self.state.lock().objects.clone()
    }

    /// Removes the objects `old` (those that there are) and adds one, in one step.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the name is taken; when the file cannot be written. Then nothing
    /// is removed.
    #[cfg(test)]
    pub(crate) fn replace(
        &self,
        old: &[&str],
        name: &str,
        kind: Kind,
        sql: &str,
    ) -> Result<Definition> {
        self.replace_at(old, name, kind, sql, None)
    }

    /// The same of a statement whose relative paths are relative to `base`.
    ///
    /// # Errors
    /// When the catalog cannot be written.
    pub(crate) fn replace_at(
        &self,
        old: &[&str],
        name: &str,
        kind: Kind,
        sql: &str,
        base: Option<&str>,
    ) -> Result<Definition> {
        let mut state = self.state.lock();
        let id = state.next_id;
        // Removed objects still count: their folder may not be empty yet.
        let dir = self.choose_dir(&state, name, id)?;
        let mut new = State { next_id: id + 1, objects: state.objects.clone() };
        new.objects.retain(|o| !old.contains(&o.name.as_str()));
        if new.objects.iter().any(|o| o.name == name) {
            return Err(Error::new(ErrorKind::Exists, format!("\"{name}\" exists already")));
        }
        let base = base.map(str::to_owned);
        let added = Definition { id, name: name.into(), kind, sql: sql.into(), dir, base };
        new.objects.push(added.clone());
        self.write(&new)?;
        *state = new;
        Ok(added)
    }

    /// A new definition that is in no file yet, with an id and a folder of its own.
    pub(crate) fn reserve(&self, name: &str, kind: Kind, sql: &str) -> Definition {
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        let dir = numbered(encode_name(name), id);
        Definition { id, name: name.into(), kind, sql: sql.into(), dir, base: None }
    }

    /// Puts a reserved definition in the place of the one of its name, in one step. Gives the
    /// old one.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub(crate) fn commit(&self, reserved: &Definition) -> Result<Option<Definition>> {
        let mut state = self.state.lock();
        let mut new = state.clone();
        let at = new.objects.iter().position(|o| o.name == reserved.name);
        let old = at.map(|at| new.objects.remove(at));
        new.objects.push(reserved.clone());
        self.write(&new)?;
        *state = new;
        Ok(old)
    }

    /// Gives an object another text.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub(crate) fn retext(&self, name: &str, sql: &str) -> Result<()> {
        let mut state = self.state.lock();
        let mut new = state.clone();
        if let Some(object) = new.objects.iter_mut().find(|o| o.name == name) {
            sql.clone_into(&mut object.sql);
        }
        self.write(&new)?;
        *state = new;
        Ok(())
    }

    /// Removes objects (those that there are), in one step; their folders are the caller's.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing is removed.
    pub(crate) fn remove(&self, names: &[&str]) -> Result<()> {
        let mut state = self.state.lock();
        let mut new = state.clone();
        new.objects.retain(|o| !names.contains(&o.name.as_str()));
        if new != *state {
            self.write(&new)?;
            *state = new;
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.directory.join("catalog.json")
    }

    fn choose_dir(&self, state: &State, name: &str, id: u64) -> Result<String> {
        let dir = encode_name(name);
        let long = dir.len() > DIR_BYTES_MAX;
        let mut taken = state.objects.iter().any(|o| o.dir == dir);
        for folder in FOLDERS {
            let folder = self.directory.join(folder);
            let names = self.files.list(&folder).map_err(|e| io_error("list", &folder, e))?;
            taken |= names.contains(&dir);
        }
        Ok(if long || taken { numbered(dir, id) } else { dir })
    }

    fn write(&self, state: &State) -> Result<()> {
        let objects: Vec<_> = state
            .objects
            .iter()
            .map(|o| {
                let mut object = json!({ "id": o.id, "name": o.name, "kind": o.kind.as_str(),
                                         "sql": o.sql, "dir": o.dir });
                if let (Some(base), Some(object)) = (&o.base, object.as_object_mut()) {
                    object.insert("base".to_owned(), json!(base));
                }
                object
            })
            .collect();
        let catalog = json!({
            "format": FORMAT, "next_id": state.next_id, "crc32": state.checksum(),
            "objects": objects,
        });
        let path = self.path();
        self.files
            .replace(&path, format!("{catalog:#}\n").as_bytes())
            .map_err(|e| io_error("write", &path, e))
    }

    fn parse(&self, bytes: &[u8]) -> Result<State> {
        let path = self.path();
        let damaged = |why: &str| corrupt(&path, 0, why);
        let value: Value =
            serde_json::from_slice(bytes).map_err(|e| damaged(&format!("it is not JSON ({e})")))?;
        match value.get("format").and_then(Value::as_u64) {
            Some(FORMAT) => {}
            Some(other) => return Err(unknown_format(&path, other, FORMAT)),
            None => return Err(damaged("it has no number \"format\"")),
        }
        let state = State::from_json(&value).ok_or_else(|| damaged("a field is missing"))?;
        if value.get("crc32").and_then(Value::as_str) != Some(state.checksum().as_str()) {
            return Err(damaged("the checksum is wrong"));
        }
        Ok(state)
    }
}

/// The name of a folder that no other object has.
fn numbered(mut dir: String, id: u64) -> String {
    // Encoded names are ASCII.
    dir.truncate(DIR_BYTES_MAX);
    format!("{dir}.{id}")
}

impl State {
    /// The state in a parsed file, if all its fields are there.
    fn from_json(value: &Value) -> Option<Self> {
        let objects = value.get("objects")?.as_array()?;
        let object = |o: &Value| {
            let text = |key: &str| Some(o.get(key)?.as_str()?.to_owned());
            let kind = text("kind")?;
            Some(Definition {
                id: o.get("id")?.as_u64()?,
                name: text("name")?,
                kind: Kind::ALL.into_iter().find(|k| k.as_str() == kind)?,
                sql: text("sql")?,
                dir: text("dir")?,
                base: match o.get("base") {
                    Some(base) => Some(base.as_str()?.to_owned()),
                    None => None,
                },
            })
        };
        Some(Self {
            next_id: value.get("next_id")?.as_u64()?,
            objects: objects.iter().map(object).collect::<Option<_>>()?,
        })
    }

    /// Over what is meant, not over the text: it does not depend on how JSON is laid out.
    fn checksum(&self) -> String {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.next_id.to_le_bytes());
        for object in &self.objects {
            hasher.update(&object.id.to_le_bytes());
            let texts = [&object.name, object.kind.as_str(), &object.sql, &object.dir];
            for text in texts.into_iter().chain(object.base.as_deref()) {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        format!("{:08x}", hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::files::StdFiles;

    #[test]
    fn definitions_come_back_in_order() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(Arc::new(StdFiles), tmp.path()).unwrap();
        let definitions = Definitions::open(&directory).unwrap();
        assert!(definitions.list().is_empty());
        let s = definitions.replace(&[], "s", Kind::Stream, "CREATE STREAM s \"é\"\n").unwrap();
        assert_eq!((s.id, s.dir.as_str()), (1, "s"));
        definitions.replace(&[], "V", Kind::MaterializedView, "CREATE …").unwrap();
        let error = definitions.replace(&[], "s", Kind::View, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        let before = definitions.list();
        drop(definitions);
        let definitions = Definitions::open(&directory).unwrap();
        assert_eq!(definitions.list(), before);
        let based = definitions.replace_at(&[], "b", Kind::Table, "…", Some("/files")).unwrap();
        let reopened = Definitions::open(&directory).unwrap().list().pop();
        assert_eq!(reopened, Some(based));
        definitions.remove(&["b"]).unwrap();
        // The folder of the old one may still be there.
        let s = definitions.replace(&["s"], "s", Kind::Table, "CREATE TABLE s").unwrap();
        assert_eq!((s.id, s.dir.as_str()), (4, "s.4"));
        definitions.remove(&["V", "nobody"]).unwrap();
        assert_eq!(Definitions::open(&directory).unwrap().list(), [s]);
        // An id is not given again, even if the newest object is gone.
        definitions.remove(&["s"]).unwrap();
        let definitions = Definitions::open(&directory).unwrap();
        std::fs::create_dir_all(tmp.path().join("views/w")).unwrap();
        let w = definitions.replace(&[], "w", Kind::View, "").unwrap();
        assert_eq!((w.id, w.dir.as_str()), (5, "w.5"));
        let long = definitions.replace(&[], &"É".repeat(100), Kind::View, "").unwrap();
        assert!(long.dir.len() < 255 && long.dir.ends_with(".6"), "{}", long.dir);
    }

    #[test]
    fn a_reserved_definition_is_there_when_it_is_committed() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(Arc::new(StdFiles), tmp.path()).unwrap();
        let definitions = Definitions::open(&directory).unwrap();
        let old = definitions.replace(&[], "v", Kind::MaterializedView, "old").unwrap();
        let new = definitions.reserve("v", Kind::MaterializedView, "new");
        let s = definitions.replace(&[], "s", Kind::Stream, "s").unwrap();
        assert_eq!((old.id, new.id, s.id, new.dir.as_str()), (1, 2, 3, "v.2"));
        assert_eq!(Definitions::open(&directory).unwrap().list(), [old.clone(), s.clone()]);
        assert_eq!(definitions.commit(&new).unwrap(), Some(old));
        assert_eq!(Definitions::open(&directory).unwrap().list(), [s, new]);
    }

    #[test]
    fn a_flipped_byte_never_changes_what_is_meant() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(Arc::new(StdFiles), tmp.path()).unwrap();
        let definitions = Definitions::open(&directory).unwrap();
        definitions.replace(&[], "s", Kind::Stream, "CREATE STREAM s").unwrap();
        definitions.replace(&[], "v", Kind::View, "CREATE VIEW v").unwrap();
        let (path, good) = (definitions.path(), definitions.list());
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            match Definitions::open(&directory) {
                // White space.
                Ok(read) => assert_eq!(read.list(), good),
                Err(e) if e.kind() == ErrorKind::Data => {
                    assert!(e.message().contains("knows format 1"), "{e}");
                }
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Corrupt);
                    assert!(e.message().contains("catalog.json"), "{e}");
                }
            }
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
        }
        for len in 0..bytes.len() - 2 {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert_eq!(Definitions::open(&directory).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_change_that_cannot_be_written_did_not_happen() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(Arc::new(StdFiles), tmp.path()).unwrap();
        let definitions = Definitions::open(&directory).unwrap();
        definitions.replace(&[], "s", Kind::Stream, "").unwrap();
        std::fs::create_dir(tmp.path().join("catalog.json.tmp")).unwrap();
        assert!(definitions.replace(&[], "t", Kind::Stream, "").is_err());
        assert!(definitions.remove(&["s"]).is_err());
        std::fs::remove_dir(tmp.path().join("catalog.json.tmp")).unwrap();
        assert_eq!(definitions.list().len(), 1);
        assert_eq!(definitions.replace(&[], "t", Kind::Stream, "").unwrap().id, 2);
    }
}
