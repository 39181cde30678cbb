//! The definitions of the objects, on disk.
//!
//! ```text
//! catalog.json  {"format":2,"directory":"91…","next_id":3,"crc32":"…","objects":[{"id":1,"name":"s",…},…]}
//! change ─► new text ─► Files::replace ─► memory
//! ```
//! A definition includes the parts of the object that have been created, so that a missing part is not mistaken for an
//! empty one, and the rows that have been lost.
//!
//! Invariants: objects are in order of creation, so that each finds what it reads; an id is never used twice; memory changes only
//! after the file has; a file that does not match its checksum, or belongs to another directory, is an error and is never
//! overwritten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use windrow_core::offset::Gaps;
use windrow_core::{Error, ErrorKind, OffsetRange, Result};
use windrow_storage::directory::{DataDirectory, encode_name, unknown_format};
use windrow_storage::files::{Files, corrupt, io_error};
use windrow_stream::retention::Truncated;

/// The format that this version writes.
const FORMAT: u64 = 2;
/// The previous format, without the id of the directory and the parts of objects.
const FORMAT_WITHOUT_ID: u64 = 1;
/// Longer folder names are truncated and made unique by the id; file systems allow 255 bytes.
const DIR_BYTES_MAX: usize = 200;
/// The folders that contain folders of objects.
const FOLDERS: [&str; 2] = ["streams", "views"];
/// The value by which a definition records that its columns are named by their text.
const NAMED_BY_TEXT: &str = "text";
/// The name of the file.
const CATALOG: &str = "catalog.json";

/// The kind of object that a definition creates.
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
    /// A sink.
    Sink,
    /// A function.
    Function,
    /// A model.
    Model,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Stream,
        Self::View,
        Self::MaterializedView,
        Self::Table,
        Self::Insert,
        Self::Sink,
        Self::Function,
        Self::Model,
    ];

    /// Returns its name in the file.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::View => "view",
            Self::MaterializedView => "materialized_view",
            Self::Table => "table",
            Self::Insert => "insert",
            Self::Sink => "sink",
            Self::Function => "function",
            Self::Model => "model",
        }
    }
}

/// A part of an object in the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The log and the archive of a stream.
    Stream,
    /// The archived rows of a view.
    View,
    /// The checkpoints of its query.
    Checkpoints,
    /// The rows of a reference table.
    Table,
    /// The progress of a sink.
    Sink,
    /// The reference tables of a view, as of its creation.
    Reference,
    /// The versions of a model.
    Model,
    /// The versions of refreshed tables that a view uses.
    Versions,
}

impl Part {
    /// All kinds.
    pub(crate) const ALL: [Self; 8] = [
        Self::Stream,
        Self::View,
        Self::Checkpoints,
        Self::Table,
        Self::Sink,
        Self::Reference,
        Self::Model,
        Self::Versions,
    ];

    /// Returns its name in the file, which is also the folder that it is in.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "streams",
            Self::View => "views",
            Self::Checkpoints => "checkpoints",
            Self::Table => "tables",
            Self::Sink => "sinks",
            Self::Reference => "reference",
            Self::Model => "models",
            Self::Versions => "versions",
        }
    }
}

/// Rows that a stream has lost, and whose loss was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LostRows {
    /// The offset of the first.
    pub(crate) start: u64,
    /// The offset after the last.
    pub(crate) end: u64,
    /// When the loss was accepted, in µs since the Unix epoch.
    pub(crate) at_micros: i64,
    /// The views that had consumed some of them, and the offsets up to which.
    pub(crate) had: Vec<(String, u64)>,
}

/// The definition of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    /// Its id, which is never used twice in a data directory.
    pub(crate) id: u64,
    /// Its name.
    pub(crate) name: String,
    /// Its kind.
    pub(crate) kind: Kind,
    /// The statement that creates it.
    pub(crate) sql: String,
    /// The name of its folder.
    pub(crate) dir: String,
    /// The directory that relative paths in it are relative to, if a remote user created it; `None`: its creator may use all
    /// files.
    pub(crate) base: Option<String>,
    /// The parts that have been created, in order.
    pub(crate) parts: Vec<Part>,
    /// The rows that have been lost, in order.
    pub(crate) lost: Vec<LostRows>,
    /// The rows of a stream that were truncated last, if any were.
    pub(crate) truncated: Option<Truncated>,
    /// Whether columns without an alias are called by the text of their expression. In definitions of earlier versions they
    /// have the planner's names.
    pub(crate) named_by_text: bool,
    /// The newest version of a model; 0 of other objects.
    pub(crate) version: u64,
    /// The versions of the models that it uses, and how often columns had been added to the streams that it reads, by name.
    pub(crate) models: BTreeMap<String, u64>,
}

impl Definition {
    /// Creates a definition without parts.
    fn new(id: u64, name: &str, kind: Kind, sql: &str) -> Self {
        Self {
            id,
            name: name.into(),
            kind,
            sql: sql.into(),
            dir: String::new(),
            base: None,
            parts: vec![],
            lost: vec![],
            truncated: None,
            named_by_text: true,
            version: 0,
            models: BTreeMap::new(),
        }
    }

    /// Returns the offsets that have been lost.
    pub(crate) fn gaps(&self) -> Gaps {
        Gaps::new(self.lost.iter().filter_map(|l| OffsetRange::try_new(l.start, l.end).ok()))
    }
}

/// The definitions of a data directory.
#[derive(Debug)]
pub(crate) struct Definitions {
    files: Arc<dyn Files>,
    directory: PathBuf,
    /// The id of the directory.
    id: String,
    state: Mutex<State>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    next_id: u64,
    objects: Vec<Definition>,
}

impl Definitions {
    /// Reads the definitions; a new directory has none.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the file is damaged, missing, or belongs to another directory; [`ErrorKind::Data`] when its
    /// format is unknown, [`ErrorKind::Unavailable`] when it cannot be read.
    pub(crate) fn open(directory: &DataDirectory) -> Result<Self> {
        let files = Arc::clone(directory.files());
        let path = directory.path().join(CATALOG);
        let found = match files.read(&path) {
            Ok(bytes) => Some(parse(&path, &bytes)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(io_error("read", &path, e)),
        };
        let (state, whose) = match found {
            Some(found) => found,
            None => {
                check_empty(&*files, directory)?;
                (State { next_id: 1, objects: vec![] }, None)
            }
        };
        let other = || {
            Error::new(
                ErrorKind::Corrupt,
                format!("\"{}\" is the catalog of another data directory", path.display()),
            )
            .with_hint("Restore the one that was there; nothing has been overwritten.")
        };
        match (&whose, directory.id()) {
            (Some(whose), Some(id)) if *whose == id => {}
            (Some(_), _) => return Err(other()),
            (None, Some(_)) if directory.has_catalog() => return Err(other()),
            (None, _) => directory.identify(state.next_id)?,
        }
        if state.next_id < directory.next_id() {
            let message = format!("\"{}\" is older than the data directory", path.display());
            return Err(Error::new(ErrorKind::Corrupt, message)
                .with_detail("Objects have been created since, and their rows would be deleted.")
                .with_hint("Restore the newest one; nothing has been overwritten."));
        }
        let id = directory.id().unwrap_or_default();
        let definitions =
            Self { files, directory: directory.path().to_path_buf(), id, state: Mutex::new(state) };
        if whose.is_none() {
            definitions.write(&definitions.state.lock())?;
        }
        directory.has_catalog_now()?;
        Ok(definitions)
    }

    /// Returns the id of the next object.
    #[cfg(test)]
    pub(crate) fn next_id(&self) -> u64 {
        self.state.lock().next_id
    }

    /// Returns all objects, in order of creation.
    pub(crate) fn list(&self) -> Vec<Definition> {
        self.state.lock().objects.clone()
    }

    /// Removes the objects `old`, as far as they exist, and adds one, atomically.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the name is taken; when the file cannot be written. Then nothing has changed.
    #[cfg(test)]
    pub(crate) fn replace(
        &self,
        old: &[&str],
        name: &str,
        kind: Kind,
        sql: &str,
    ) -> Result<Definition> {
        self.replace_using(old, (name, kind, sql), None, BTreeMap::new())
    }

    /// Removes the objects `old`, as far as they exist, and adds one whose relative paths are relative to `base`, and that uses
    /// these versions of models, atomically.
    ///
    /// # Errors
    /// [`ErrorKind::Exists`] when the name is taken; when the file cannot be written. Then nothing has changed.
    pub(crate) fn replace_using(
        &self,
        old: &[&str],
        (name, kind, sql): (&str, Kind, &str),
        base: Option<&str>,
        models: BTreeMap<String, u64>,
    ) -> Result<Definition> {
        let mut state = self.state.lock();
        let id = state.next_id;
        // Removed objects count too: their folders may not be empty yet.
        let dir = self.choose_dir(&state, name, id)?;
        let mut new = State { next_id: id + 1, objects: state.objects.clone() };
        new.objects.retain(|o| !old.contains(&o.name.as_str()));
        if new.objects.iter().any(|o| o.name == name) {
            return Err(Error::new(ErrorKind::Exists, format!("\"{name}\" exists already")));
        }
        let base = base.map(str::to_owned);
        let added = Definition { dir, base, models, ..Definition::new(id, name, kind, sql) };
        new.objects.push(added.clone());
        self.write(&new)?;
        *state = new;
        Ok(added)
    }

    /// Returns a new definition that is not in the file yet, with an id and a folder of its own.
    pub(crate) fn reserve(&self, name: &str, kind: Kind, sql: &str) -> Definition {
        let mut state = self.state.lock();
        let id = state.next_id;
        state.next_id += 1;
        let dir = numbered(encode_name(name), id);
        Definition { dir, ..Definition::new(id, name, kind, sql) }
    }

    /// Stores a reserved definition, which replaces the one of its name, atomically. Returns the old one.
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

    /// Replaces the statement of an object.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub(crate) fn retext(&self, name: &str, sql: &str) -> Result<()> {
        self.change(
            |o| o.name == name,
            |object| {
                sql.clone_into(&mut object.sql);
                object.named_by_text = true;
            },
        )
    }

    /// Turns a definition into one of a version that left the names of columns to the planner.
    #[cfg(test)]
    pub(crate) fn name_as_before(&self, name: &str) -> Result<()> {
        self.change(|o| o.name == name, |object| object.named_by_text = false)
    }

    /// Records a new version of a model, and the statement that created it.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub(crate) fn note_version(&self, name: &str, version: u64, sql: &str) -> Result<()> {
        self.change(
            |o| o.name == name,
            |object| {
                object.version = version;
                sql.clone_into(&mut object.sql);
            },
        )
    }

    /// Records the parts of an object that have been created.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub(crate) fn mark_created(&self, id: u64, parts: &[Part]) -> Result<()> {
        self.change(|o| o.id == id, |object| object.parts = parts.to_vec())
    }

    /// Records rows that an object has lost.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub(crate) fn record_lost(&self, id: u64, rows: &LostRows) -> Result<()> {
        self.change(|o| o.id == id, |object| object.lost.push(rows.clone()))
    }

    /// Records that the rows of a stream are truncated.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub(crate) fn truncate(&self, name: &str, rows: Truncated) -> Result<()> {
        self.change(|o| o.name == name, |object| object.truncated = Some(rows))
    }

    fn change(
        &self,
        which: impl Fn(&Definition) -> bool,
        change: impl FnOnce(&mut Definition),
    ) -> Result<()> {
        let mut state = self.state.lock();
        let mut new = state.clone();
        if let Some(object) = new.objects.iter_mut().find(|o| which(o)) {
            change(object);
        }
        if new != *state {
            self.write(&new)?;
            *state = new;
        }
        Ok(())
    }

    /// Removes objects, as far as they exist, atomically; the caller deletes their folders.
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
        self.directory.join(CATALOG)
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
        let objects: Vec<_> = state.objects.iter().map(Definition::to_json).collect();
        let catalog = json!({
            "format": FORMAT, "directory": self.id, "next_id": state.next_id,
            "crc32": state.checksum(Some(&self.id)), "objects": objects,
        });
        let path = self.path();
        self.files
            .replace(&path, format!("{catalog:#}\n").as_bytes())
            .map_err(|e| io_error("write", &path, e))
    }
}

/// Parses the file. Returns the state and the id of the directory; `None`: the format has no id.
fn parse(path: &Path, bytes: &[u8]) -> Result<(State, Option<String>)> {
    let damaged = |why: &str| corrupt(path, 0, why);
    let value: Value =
        serde_json::from_slice(bytes).map_err(|e| damaged(&format!("it is not JSON ({e})")))?;
    let missing = || damaged("a field is missing");
    let whose = match value.get("format").and_then(Value::as_u64) {
        Some(FORMAT) => {
            let id = value.get("directory").and_then(Value::as_str).ok_or_else(missing)?;
            Some(id.to_owned())
        }
        Some(FORMAT_WITHOUT_ID) => None,
        Some(other) => return Err(unknown_format(path, other, FORMAT)),
        None => return Err(damaged("it has no number \"format\"")),
    };
    let state = State::from_json(&value).ok_or_else(missing)?;
    let checksum = state.checksum(whose.as_deref());
    if value.get("crc32").and_then(Value::as_str) != Some(checksum.as_str()) {
        return Err(damaged("the checksum is wrong"));
    }
    Ok((state, whose))
}

/// Checks that a directory without a catalog is new: otherwise rows of objects would be deleted.
fn check_empty(files: &dyn Files, directory: &DataDirectory) -> Result<()> {
    let path = directory.path();
    let names = files.list(path).map_err(|e| io_error("list", path, e))?;
    let kept = Part::ALL.into_iter().any(|part| names.iter().any(|n| n == part.as_str()));
    if !kept && !directory.has_catalog() {
        return Ok(());
    }
    let message = format!("\"{}\" is missing", path.join(CATALOG).display());
    Err(Error::new(ErrorKind::Corrupt, message)
        .with_hint("Restore the file from a backup; nothing has been overwritten."))
}

/// Returns a folder name that no other object has.
fn numbered(mut dir: String, id: u64) -> String {
    // Encoded names are ASCII.
    dir.truncate(DIR_BYTES_MAX);
    format!("{dir}.{id}")
}

impl State {
    /// Returns the state in a parsed file; `None`: a field is missing.
    fn from_json(value: &Value) -> Option<Self> {
        let objects = value.get("objects")?.as_array()?;
        Some(Self {
            next_id: value.get("next_id")?.as_u64()?,
            objects: objects.iter().map(Definition::from_json).collect::<Option<_>>()?,
        })
    }

    /// Returns the checksum of the contents, which does not depend on the layout of the JSON. `whose`: the id of the directory, in
    /// formats that have one.
    fn checksum(&self, whose: Option<&str>) -> String {
        let mut hasher = crc32fast::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        if let Some(whose) = whose {
            add(whose);
            for object in &self.objects {
                object.parts.iter().for_each(|part| add(part.as_str()));
                object.lost.iter().for_each(|lost| add(&format!("{lost:?}")));
                if let Some(truncated) = &object.truncated {
                    add(&format!("{truncated:?}"));
                }
            }
        }
        hasher.update(&self.next_id.to_le_bytes());
        for object in &self.objects {
            hasher.update(&object.id.to_le_bytes());
            let texts = [&object.name, object.kind.as_str(), &object.sql, &object.dir];
            let names = object.named_by_text.then_some(NAMED_BY_TEXT);
            if object.version > 0 {
                hasher.update(&object.version.to_le_bytes());
            }
            for (model, version) in &object.models {
                hasher.update(model.as_bytes());
                hasher.update(&version.to_le_bytes());
            }
            for text in texts.into_iter().chain(object.base.as_deref()).chain(names) {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        format!("{:08x}", hasher.finalize())
    }
}

impl Definition {
    fn to_json(&self) -> Value {
        let mut object = json!({ "id": self.id, "name": self.name, "kind": self.kind.as_str(),
                                 "sql": self.sql, "dir": self.dir });
        if let Some(object) = object.as_object_mut() {
            if let Some(base) = &self.base {
                object.insert("base".to_owned(), json!(base));
            }
            if self.named_by_text {
                object.insert("names".to_owned(), json!(NAMED_BY_TEXT));
            }
            if self.version > 0 {
                object.insert("version".to_owned(), json!(self.version));
            }
            if !self.models.is_empty() {
                object.insert("models".to_owned(), json!(self.models));
            }
            if !self.parts.is_empty() {
                let parts: Vec<&str> = self.parts.iter().map(|part| part.as_str()).collect();
                object.insert("parts".to_owned(), json!(parts));
            }
            if !self.lost.is_empty() {
                object.insert("lost".to_owned(), json!(self.lost));
            }
            if let Some(Truncated { end, before_ticks }) = self.truncated {
                let truncated = json!({ "end": end, "before_ticks": before_ticks });
                object.insert("truncated".to_owned(), truncated);
            }
        }
        object
    }

    /// Returns the definition in a parsed file; `None`: a field is missing.
    fn from_json(object: &Value) -> Option<Self> {
        let text = |key: &str| Some(object.get(key)?.as_str()?.to_owned());
        let kind = text("kind")?;
        let part = |value: &Value| {
            let name = value.as_str()?;
            Part::ALL.into_iter().find(|part| part.as_str() == name)
        };
        Some(Self {
            id: object.get("id")?.as_u64()?,
            name: text("name")?,
            kind: Kind::ALL.into_iter().find(|k| k.as_str() == kind)?,
            sql: text("sql")?,
            dir: text("dir")?,
            base: match object.get("base") {
                Some(base) => Some(base.as_str()?.to_owned()),
                None => None,
            },
            named_by_text: match object.get("names") {
                Some(names) => names.as_str()? == NAMED_BY_TEXT,
                None => false,
            },
            version: match object.get("version") {
                Some(version) => version.as_u64()?,
                None => 0,
            },
            models: match object.get("models") {
                Some(models) => serde_json::from_value(models.clone()).ok()?,
                None => BTreeMap::new(),
            },
            parts: match object.get("parts") {
                Some(parts) => parts.as_array()?.iter().map(part).collect::<Option<_>>()?,
                None => vec![],
            },
            lost: match object.get("lost") {
                Some(lost) => serde_json::from_value(lost.clone()).ok()?,
                None => vec![],
            },
            truncated: match object.get("truncated") {
                Some(rows) => Some(Truncated {
                    end: rows.get("end")?.as_u64()?,
                    before_ticks: rows.get("before_ticks").and_then(Value::as_i64),
                }),
                None => None,
            },
        })
    }
}

#[cfg(test)]
mod tests;
