//! The data directory: where the parts of each object are, and how they are opened.
//!
//! ```text
//! DIR/catalog.json          definitions of all objects, in order of creation
//! DIR/streams/<dir>/log/    write-ahead log of a push stream
//! DIR/streams/<dir>/        its history, archived (a Delta table)
//! DIR/views/<dir>/          final rows of a materialized view, archived (a Delta table)
//! DIR/tables/<dir>.arrow    rows of a reference table
//! DIR/checkpoints/<dir>/    the state of a materialized view's query
//! DIR/sinks/<dir>.json      the progress of a sink
//! DIR/reference/<dir>/      the reference tables of a view, as of its creation
//! DIR/versions/<dir>/       the versions of refreshed tables that a view uses
//! DIR/models/<dir>/<n>.onnx   version n of a model
//! DIR/sinks/<dir>.rejected.json   the rows that its destination has refused
//! ```
//! Invariants: a definition is durable before anything is written for its object, and removed before the directory of the object
//! is; a directory without a definition is deleted at the next start. So an object never finds the rows of another one that had
//! its name. The parts that were created for an object are in its definition ([`mark_created`](Store::mark_created)) and must exist from then
//! on; each part identifies its object.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use windrow_archive::{ArchiveOptions, ArchiveTable, Storage, TableSpec};
use windrow_core::{Clock, Error, ErrorKind, Owner, Result};
use windrow_storage::checkpoint::{Checkpoints, Stamp};
use windrow_storage::directory::{DataDirectory, encode_name};
use windrow_storage::files::{Files, io_error};
use windrow_storage::place::Place;
use windrow_storage::wal::Wal;
use windrow_stream::log::{Completion, StreamLog};
use windrow_stream::memory::Memory;
use windrow_stream::places::Places;
use windrow_stream::retention::Truncated;
use windrow_stream::spill::Spiller;

use crate::durable::definitions::{Definition, Definitions, Kind, Part};
use crate::durable::failures::{Failure, Failures};
use crate::durable::paused::Paused;
use crate::durable::streams::HadRead;

/// Minimum size of archived files where a memory limit makes them smaller.
const FILE_BYTES_MIN: u64 = 1 << 20;
/// The ending of the names of the files with the progress of sinks.
const SINK_ENDING: &str = ".json";
/// The ending of the names of the files with the rows that destinations have refused.
const REJECTED_ENDING: &str = ".rejected.json";
/// The log of a Delta table, which every archive has.
pub(super) const DELTA_LOG: &str = "_delta_log";

/// The data directory of an engine.
#[derive(Debug)]
pub(crate) struct Store {
    /// Where archives are, if not on this machine.
    objects: Option<Storage>,
    directory: DataDirectory,
    pub(super) definitions: Definitions,
    failures: Failures,
    paused: Paused,
    pub(super) clock: Arc<dyn Clock>,
    /// The parts of objects that have been opened, by the id of the object.
    opened: Mutex<BTreeMap<u64, BTreeSet<Part>>>,
    /// How far views had read streams when the directory was opened.
    pub(super) had_read: OnceLock<Vec<HadRead>>,
    /// Whether streams that have lost rows continue without them.
    pub(super) accepts_lost_rows: bool,
    /// The memory limit, if there is one.
    pub(super) memory: Option<Arc<Memory>>,
}

/// A log with its archive.
#[derive(Debug)]
pub(crate) struct DurableLog {
    /// The log.
    pub(crate) log: Arc<StreamLog>,
    /// Its archive.
    pub(crate) archive: Arc<ArchiveTable>,
}

impl Store {
    /// Opens a data directory, or creates one.
    ///
    /// # Errors
    /// When another process has it open, when it is not a data directory of Windrow, has an unknown format, or is
    /// damaged.
    pub(crate) fn open(
        path: &Path,
        clock: Arc<dyn Clock>,
        accepts_lost_rows: bool,
    ) -> Result<Self> {
        Self::open_at(Place::named(path, &clock)?, clock, accepts_lost_rows)
    }

    /// As [`open`](Self::open), at a place that is open already.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_at(
        place: Place,
        clock: Arc<dyn Clock>,
        accepts_lost_rows: bool,
    ) -> Result<Self> {
        let Place { path, files, objects } = place;
        let objects = objects.map(|(url, store)| Storage::object_store(url, store)).transpose()?;
        let directory = DataDirectory::open(files, &path)?;
        let definitions = Definitions::open(&directory)?;
        let failures = Failures::open(directory.files(), directory.path())?;
        let paused = Paused::open(directory.files(), directory.path())?;
        let store = Self {
            objects,
            directory,
            definitions,
            failures,
            paused,
            clock,
            opened: Mutex::default(),
            had_read: OnceLock::new(),
            accepts_lost_rows,
            memory: None,
        };
        store.sweep()?;
        Ok(store)
    }

    /// Applies a memory limit to logs.
    pub(crate) fn with_memory(self, memory: Option<Arc<Memory>>) -> Self {
        Self { memory, ..self }
    }

    /// Returns the access to files.
    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        self.directory.files()
    }

    /// Returns all definitions, in order of creation.
    pub(crate) fn definitions(&self) -> Vec<Definition> {
        self.definitions.list()
    }

    /// Stores a definition; it replaces the one of this name, if there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    #[cfg(test)]
    pub(crate) fn record(&self, name: &str, kind: Kind, sql: &str) -> Result<Definition> {
        self.record_using((name, kind, sql), None, BTreeMap::new())
    }

    /// Stores a definition whose relative paths are relative to `base`, and that uses these versions of models; it replaces the one
    /// of this name, if there is one.
    ///
    /// # Errors
    /// When the catalog cannot be written.
    pub(crate) fn record_using(
        &self,
        (name, kind, sql): (&str, Kind, &str),
        base: Option<&str>,
        models: BTreeMap<String, u64>,
    ) -> Result<Definition> {
        let definition =
            self.definitions.replace_using(&[name], (name, kind, sql), base, models)?;
        self.note_next_id();
        Ok(definition)
    }

    /// Records the ids of the catalog beside it, so that an older catalog is detected. A crash before that goes undetected.
    fn note_next_id(&self) {
        // Reserved ids that are not in the catalog yet are unknown at the next start.
        let listed = self.definitions.list().iter().map(|definition| definition.id + 1).max();
        if let Some(next_id) = listed
            && let Err(error) = self.directory.note_next_id(next_id)
        {
            tracing::warn!(%error, "cannot record the next id beside the catalog");
        }
    }

    /// Returns a definition that is not in the catalog yet: what is stored for it is deleted at the next start, unless it is
    /// [committed](Self::commit).
    pub(crate) fn reserve(&self, name: &str, kind: Kind, sql: &str) -> Definition {
        self.definitions.reserve(name, kind, sql)
    }

    /// Stores a reserved definition and returns the one of its name that it replaces, whose files the caller deletes.
    ///
    /// # Errors
    /// When it cannot be written; then the old one remains.
    pub(crate) fn commit(&self, definition: &Definition) -> Result<Option<Definition>> {
        let parts = self.opened_parts(definition.id);
        let old = self.definitions.commit(&Definition { parts, ..definition.clone() })?;
        self.note_next_id();
        Ok(old)
    }

    /// Marks everything that is stored for an object as created: what is missing at the next start has been lost.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn mark_created(&self, definition: &Definition) -> Result<()> {
        self.definitions.mark_created(definition.id, &self.opened_parts(definition.id))
    }

    fn opened_parts(&self, id: u64) -> Vec<Part> {
        self.opened.lock().get(&id).into_iter().flatten().copied().collect()
    }

    /// Returns the owner of a part of an object: its identity, and whether it has been created before.
    pub(super) fn owner(&self, definition: &Definition, part: Part) -> Owner {
        let is_created = definition.parts.contains(&part);
        Owner { is_created, ..self.directory.owner(definition.id) }
    }

    /// Returns the id of a sink, unique among all data directories.
    pub(crate) fn origin(&self, definition: &Definition) -> String {
        self.owner(definition, Part::Sink).id
    }

    /// Whether an object was created by a version that only knew format 1, where TIMESTAMPTZ had no zone.
    pub(crate) fn is_from_before_zones(&self, definition: &Definition) -> bool {
        self.directory.owner(definition.id).may_be_unrecorded
    }

    pub(super) fn note_opened(&self, definition: &Definition, part: Part) {
        self.opened.lock().entry(definition.id).or_default().insert(part);
    }

    /// Returns the folder of a kind of part.
    pub(super) fn folder(&self, part: Part) -> PathBuf {
        self.directory.path().join(part.as_str())
    }

    /// Replaces the statement of an object; what is stored for it remains.
    ///
    /// # Errors
    /// When it cannot be written; then the old one remains.
    pub(crate) fn retext(&self, name: &str, sql: &str) -> Result<()> {
        self.definitions.retext(name, sql)
    }

    /// Records that the rows of a stream are truncated.
    ///
    /// # Errors
    /// When it cannot be written; then they are not.
    pub(crate) fn truncate(&self, name: &str, rows: Truncated) -> Result<()> {
        self.definitions.truncate(name, rows)
    }

    /// Returns the stored failure of the view with this id.
    pub(crate) fn failure(&self, id: u64) -> Option<Failure> {
        self.failures.of(id)
    }

    /// Stores the failure of a view, or removes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn note_failure(&self, id: u64, failure: Option<Failure>) -> Result<()> {
        let ids: Vec<u64> = self.definitions.list().iter().map(|d| d.id).collect();
        self.failures.note(id, failure, &ids)
    }

    /// Removes a definition, then what is stored for it.
    ///
    /// # Errors
    /// When the definition cannot be removed. Files that cannot be deleted are deleted at the next start.
    pub(crate) fn forget(&self, name: &str) -> Result<()> {
        let known = self.definitions.list().into_iter().find(|d| d.name == name);
        let Some(definition) = known else { return Ok(()) };
        self.definitions.remove(&[name])?;
        self.delete_files(&definition);
        Ok(())
    }

    /// Whether the stream of a definition is paused.
    pub(crate) fn is_paused(&self, definition: &Definition) -> bool {
        self.paused.has(definition.id)
    }

    /// Records whether a stream is paused.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn pause(&self, stream: &str, paused: bool) -> Result<()> {
        let all = self.definitions();
        let ids: Vec<u64> = all.iter().map(|definition| definition.id).collect();
        match all.iter().find(|definition| definition.name == stream) {
            Some(definition) => self.paused.set(definition.id, paused, &ids),
            None => Ok(()),
        }
    }

    /// Deletes what is stored for an object without a definition.
    pub(crate) fn delete_files(&self, definition: &Definition) {
        let (stream, view) = (self.stream_dir(definition), self.view_dir(definition));
        let (checkpoints, reference) =
            (self.checkpoints_dir(definition), self.reference_dir(definition));
        let (sink, rejected) = (self.sink_file(definition), self.rejected_file(definition));
        let (table, models) = (self.table_file(definition), self.models_dir(definition));
        let versions = self.versions_dir(definition);
        for path in [checkpoints, reference, versions, stream, view, table, models, sink, rejected]
        {
            self.remove(&path);
        }
    }

    fn remove(&self, path: &Path) {
        if let Err(error) = self.files().remove_all(path) {
            tracing::warn!(path = %path.display(), %error, "cannot delete, the next start tries again");
        }
    }

    pub(super) fn stream_dir(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Stream).join(&definition.dir)
    }

    pub(super) fn checkpoints_dir(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Checkpoints).join(&definition.dir)
    }

    /// Opens the checkpoints of the query of a view.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(crate) fn open_checkpoints(
        &self,
        definition: &Definition,
        stamp: Stamp,
    ) -> Result<Checkpoints> {
        let owner = self.owner(definition, Part::Checkpoints);
        let (files, dir) = (Arc::clone(self.files()), self.checkpoints_dir(definition));
        let checkpoints = Checkpoints::open(files, dir, stamp, owner)?;
        self.note_opened(definition, Part::Checkpoints);
        Ok(checkpoints)
    }

    /// Opens the positions of the readers of a connector whose rows are stored.
    ///
    /// # Errors
    /// See [`Places::open`].
    pub(crate) fn open_places(&self, definition: &Definition) -> Result<Places> {
        Places::open(Arc::clone(self.files()), &self.stream_dir(definition).join("log"))
    }

    fn view_dir(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::View).join(&definition.dir)
    }

    /// Replaces the stored rows of a reference table.
    ///
    /// # Errors
    /// When they cannot be written; then the old ones remain.
    pub(crate) fn write_table(&self, definition: &Definition, bytes: &[u8]) -> Result<()> {
        self.write_rows(&self.folder(Part::Table), &self.table_file(definition), bytes)?;
        self.note_opened(definition, Part::Table);
        Ok(())
    }

    /// Returns the owner of the rows of a reference table.
    pub(crate) fn table_owner(&self, definition: &Definition) -> Owner {
        self.owner(definition, Part::Table)
    }

    /// Returns the stored rows of a reference table and their file; `None`: there never were any.
    ///
    /// # Errors
    /// When they cannot be read, or are missing.
    pub(crate) fn read_table(&self, definition: &Definition) -> Result<Option<(PathBuf, Vec<u8>)>> {
        self.read_rows(definition, Part::Table, self.table_file(definition))
    }

    /// Stores the rows of a table that a view reads.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write_reference(
        &self,
        definition: &Definition,
        table: &str,
        bytes: &[u8],
    ) -> Result<()> {
        let (folder, file) =
            (self.reference_dir(definition), self.reference_file(definition, table));
        self.write_rows(&folder, &file, bytes)?;
        self.note_opened(definition, Part::Reference);
        Ok(())
    }

    /// Returns the owner of the tables of a view.
    pub(crate) fn reference_owner(&self, definition: &Definition) -> Owner {
        self.owner(definition, Part::Reference)
    }

    /// Returns the stored rows of a table that a view reads, and their file; `None`: none of its tables has been stored.
    ///
    /// # Errors
    /// When they cannot be read, or are missing.
    pub(crate) fn read_reference(
        &self,
        definition: &Definition,
        table: &str,
    ) -> Result<Option<(PathBuf, Vec<u8>)>> {
        self.read_rows(definition, Part::Reference, self.reference_file(definition, table))
    }

    pub(super) fn write_rows(&self, folder: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
        self.files().create_dir(folder).map_err(|e| io_error("create", folder, e))?;
        self.files().replace(path, bytes).map_err(|e| io_error("write", path, e))
    }

    pub(super) fn read_rows(
        &self,
        definition: &Definition,
        part: Part,
        path: PathBuf,
    ) -> Result<Option<(PathBuf, Vec<u8>)>> {
        match self.files().read(&path) {
            Ok(bytes) => {
                self.note_opened(definition, part);
                Ok(Some((path, bytes)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if definition.parts.contains(&part) {
                    return Err(missing("the file", &path));
                }
                Ok(None)
            }
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Returns the folder of the versions of refreshed tables that a view uses.
    pub(super) fn versions_dir(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Versions).join(&definition.dir)
    }

    /// Returns the owner of these versions.
    pub(super) fn versions_owner(&self, definition: &Definition) -> Owner {
        self.owner(definition, Part::Versions)
    }

    fn reference_dir(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Reference).join(&definition.dir)
    }

    fn reference_file(&self, definition: &Definition, table: &str) -> PathBuf {
        self.reference_dir(definition).join(format!("{}.arrow", encode_name(table)))
    }

    /// Returns the file of the rows of a reference table.
    fn table_file(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Table).join(format!("{}.arrow", definition.dir))
    }

    /// Returns the file of the progress of a sink.
    pub(super) fn sink_file(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Sink).join(format!("{}{SINK_ENDING}", definition.dir))
    }

    /// Returns the file of the rows that the destination of a sink has refused.
    pub(super) fn rejected_file(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Sink).join(format!("{}{REJECTED_ENDING}", definition.dir))
    }

    /// Opens the log of a view with its archived rows.
    ///
    /// # Errors
    /// When it is damaged, or its columns differ.
    pub(crate) async fn open_view(
        &self,
        definition: &Definition,
        schema: &SchemaRef,
        event_time: Option<usize>,
        completion: Completion,
    ) -> Result<DurableLog> {
        let archive = self.archive(Part::View, definition, (schema, vec![]), event_time).await?;
        let snapshot = archive.snapshot();
        let memory = self.memory.as_ref();
        let log = StreamLog::restored(Arc::clone(schema), snapshot, completion, memory);
        self.note_opened(definition, Part::View);
        Ok(DurableLog { log, archive })
    }

    /// Opens the archive of an object.
    pub(super) async fn archive(
        &self,
        part: Part,
        definition: &Definition,
        (schema, added): (&SchemaRef, Vec<ArrayRef>),
        event_time: Option<usize>,
    ) -> Result<Arc<ArchiveTable>> {
        let spec = TableSpec {
            name: definition.name.clone(),
            schema: Arc::clone(schema),
            event_time,
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            fingerprint: definition.sql.clone(),
            owner: Some(self.owner(definition, part)),
            gaps: definition.gaps(),
            added,
        };
        let dir = self.folder(part).join(&definition.dir);
        if definition.parts.contains(&part)
            && self.files().list(&dir).map_err(|e| io_error("list", &dir, e))?.is_empty()
        {
            // Opening it would create an empty one.
            return Err(missing("the directory", &dir));
        }
        let storage = match &self.objects {
            Some(root) => root.child(part.as_str())?.child(&definition.dir)?,
            None => Storage::local(&dir)?,
        };
        // Final windows are looked up by key; history is read by time.
        let mut options =
            ArchiveOptions { bloom_filters: part == Part::View, ..ArchiveOptions::default() };
        if let Some(memory) = &self.memory {
            // A file is in memory until it is complete.
            let bytes = memory.queue_bytes() as u64;
            options.target_file_bytes =
                options.target_file_bytes.min((bytes * 2).max(FILE_BYTES_MIN));
            options.row_group_bytes = options.row_group_bytes.min(bytes);
        }
        let clock = Arc::clone(&self.clock);
        let table = ArchiveTable::open_with(storage, spec, options, clock).await?;
        Ok(Arc::new(table))
    }

    /// Deletes the directories without a definition, which a crash has left of dropped objects.
    fn sweep(&self) -> Result<()> {
        let known = self.definitions();
        for part in Part::ALL {
            let suffix = match part {
                Part::Table => ".arrow",
                Part::Sink => SINK_ENDING,
                Part::Stream
                | Part::View
                | Part::Checkpoints
                | Part::Reference
                | Part::Model
                | Part::Versions => "",
            };
            let folder = self.folder(part);
            let names = self.files().list(&folder).map_err(|e| io_error("list", &folder, e))?;
            for name in names {
                let dir = match part {
                    Part::Sink => name.strip_suffix(REJECTED_ENDING),
                    _ => None,
                };
                let dir = dir.or(name.strip_suffix(suffix)).unwrap_or(&name);
                if !known.iter().any(|d| d.dir == dir) {
                    self.remove(&folder.join(&name));
                }
            }
        }
        Ok(())
    }
}

impl DurableLog {
    /// Returns the spiller of a stream, which moves its rows to the archive.
    pub(crate) fn spiller(&self, wal: Arc<Wal>) -> Arc<Spiller> {
        Spiller::of_stream(Arc::clone(&self.log), Arc::clone(&self.archive), wal)
    }

    /// Returns the spiller of a view, which moves its rows to the archive; `sources`: the logs from which they are
    /// computed.
    pub(crate) fn view_spiller(&self, sources: Vec<Arc<Wal>>) -> Arc<Spiller> {
        Spiller::of_view(Arc::clone(&self.log), Arc::clone(&self.archive), sources)
    }
}

/// Returns the error of a part that was created and does not exist.
pub(crate) fn missing(what: &str, path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{what} \"{}\" is missing", path.display()))
        .with_hint("Restore it from a backup; nothing has been overwritten.")
}
