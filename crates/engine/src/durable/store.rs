//! What an engine keeps in its data directory, and how it finds it again.
//!
//! ```text
//! DIR/catalog.json          definitions of all objects, in the order of their making
//! DIR/streams/<dir>/log/    write-ahead log of a push stream
//! DIR/streams/<dir>/        its history, archived (a Delta table)
//! DIR/views/<dir>/          finished windows of a materialized view (a Delta table)
//! DIR/tables/<dir>.arrow    rows of a reference table
//! DIR/checkpoints/<dir>/    the state of a materialized view's query
//! ```
//! Invariants: a definition is durable before anything is written for its object, and gone before
//! the object's directory is; a directory that no definition names is swept away at the next
//! opening. So an object never finds the rows of another one that had its name. What has been made for an
//! object is in its definition ([`made`](Store::made)) and must be there from then on; each part says whose it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use windrow_archive::{ArchiveOptions, ArchiveTable, Provenance, Storage, TableSpec};
use windrow_core::{Clock, Error, ErrorKind, Owner, Result};
use windrow_storage::checkpoint::{Checkpoints, Stamp};
use windrow_storage::directory::DataDirectory;
use windrow_storage::files::{Files, io_error};
use windrow_storage::place::Place;
use windrow_storage::wal::{Durability, Known, Recovered, Wal, WalOptions, extent};
use windrow_stream::log::{Completion, StreamLog};
use windrow_stream::memory::Memory;
use windrow_stream::places::Places;
use windrow_stream::spill::Spiller;

use crate::durable::definitions::{Definition, Definitions, Kind, LostRows, Part};
use crate::durable::failures::{Failure, Failures};

/// With a limit of memory files of the archive are short, but not shorter than this.
const FILE_BYTES_MIN: u64 = 1 << 20;
/// What an archive has from its beginning.
const DELTA_LOG: &str = "_delta_log";

/// The data directory of an engine.
#[derive(Debug)]
pub(crate) struct Store {
    /// Where archives are, if not on this machine.
    objects: Option<Storage>,
    directory: DataDirectory,
    definitions: Definitions,
    failures: Failures,
    clock: Arc<dyn Clock>,
    /// What has been opened of the objects, by their ids.
    opened: Mutex<BTreeMap<u64, BTreeSet<Part>>>,
    /// Which views had read how much of which stream when the directory was opened.
    had_read: OnceLock<Vec<HadRead>>,
    /// Streams that have lost rows go on without them.
    accepts_lost_rows: bool,
    /// The limit of memory, if there is one.
    memory: Option<Arc<Memory>>,
}

/// How far a view had read a stream.
#[derive(Debug)]
struct HadRead {
    view: Definition,
    stream: String,
    rows: u64,
}

/// A log that is kept on disk.
#[derive(Debug)]
pub(crate) struct DurableLog {
    pub(crate) log: Arc<StreamLog>,
    pub(crate) archive: Arc<ArchiveTable>,
}

impl Store {
    /// Opens a data directory, or makes one.
    ///
    /// # Errors
    /// When another process has it, when it is not ours, of another format, or damaged.
    pub(crate) fn open(
        path: &Path,
        clock: Arc<dyn Clock>,
        accepts_lost_rows: bool,
    ) -> Result<Self> {
        Self::open_at(Place::named(path, &clock)?, clock, accepts_lost_rows)
    }

    /// [`open`](Self::open) at any place.
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
        let store = Self {
            objects,
            directory,
            definitions,
            failures,
            clock,
            opened: Mutex::default(),
            had_read: OnceLock::new(),
            accepts_lost_rows,
            memory: None,
        };
        store.sweep()?;
        Ok(store)
    }

    /// The same with logs that are held to a limit.
    pub(crate) fn with_memory(self, memory: Option<Arc<Memory>>) -> Self {
        Self { memory, ..self }
    }

    /// How to reach the files of the directory.
    pub(crate) fn files(&self) -> &Arc<dyn Files> {
        self.directory.files()
    }

    /// All definitions, in the order of their making.
    pub(crate) fn definitions(&self) -> Vec<Definition> {
        self.definitions.list()
    }

    /// Makes a definition durable; it takes the place of the one of this name, if there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    #[cfg(test)]
    pub(crate) fn record(&self, name: &str, kind: Kind, sql: &str) -> Result<Definition> {
        self.record_at(name, kind, sql, None)
    }

    /// The same of a statement whose relative paths are relative to `base`.
    ///
    /// # Errors
    /// When the catalog cannot be written.
    pub(crate) fn record_at(
        &self,
        name: &str,
        kind: Kind,
        sql: &str,
        base: Option<&str>,
    ) -> Result<Definition> {
        let definition = self.definitions.replace_at(&[name], name, kind, sql, base)?;
        self.note_next_id();
        Ok(definition)
    }

    /// Ids that are in the catalog are noted beside it, so that an older catalog is seen. Before they are, it is not.
    fn note_next_id(&self) {
        // Of reserved ids that no catalog has yet the next opening knows nothing.
        let listed = self.definitions.list().iter().map(|definition| definition.id + 1).max();
        if let Some(next_id) = listed
            && let Err(error) = self.directory.note_next_id(next_id)
        {
            tracing::warn!(%error, "that an object was made is not noted beside the catalog");
        }
    }

    /// A definition that is not in the catalog yet: what is kept for it is swept away at the next
    /// opening, unless it is [committed](Self::commit).
    pub(crate) fn reserve(&self, name: &str, kind: Kind, sql: &str) -> Definition {
        self.definitions.reserve(name, kind, sql)
    }

    /// Makes a reserved definition durable, in the place of the one of its name, which is given
    /// back. Its files are the caller's.
    ///
    /// # Errors
    /// When it cannot be written; the old one is there then.
    pub(crate) fn commit(&self, definition: &Definition) -> Result<Option<Definition>> {
        let parts = self.opened_parts(definition.id);
        let old = self.definitions.commit(&Definition { parts, ..definition.clone() })?;
        self.note_next_id();
        Ok(old)
    }

    /// An object has been made, with all that is kept of it: what of that is not there at the next opening
    /// is lost.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn made(&self, definition: &Definition) -> Result<()> {
        self.definitions.made(definition.id, &self.opened_parts(definition.id))
    }

    fn opened_parts(&self, id: u64) -> Vec<Part> {
        self.opened.lock().get(&id).into_iter().flatten().copied().collect()
    }

    /// Whose a part is; it has been made before if the definition says so.
    fn owner(&self, definition: &Definition, part: Part) -> Owner {
        let is_made = definition.parts.contains(&part);
        Owner { is_made, ..self.directory.owner(definition.id) }
    }

    /// Whether an object was made when TIMESTAMPTZ had no zone: by a version that knew format 1 only.
    pub(crate) fn is_from_before_zones(&self, definition: &Definition) -> bool {
        self.directory.owner(definition.id).may_be_unsaid
    }

    fn note_opened(&self, definition: &Definition, part: Part) {
        self.opened.lock().entry(definition.id).or_default().insert(part);
    }

    /// The folder of a kind of part.
    fn folder(&self, part: Part) -> PathBuf {
        self.directory.path().join(part.as_str())
    }

    /// Gives an object another text; what is kept for it stays.
    ///
    /// # Errors
    /// When it cannot be written; the old one is there then.
    pub(crate) fn retext(&self, name: &str, sql: &str) -> Result<()> {
        self.definitions.retext(name, sql)
    }

    /// Why the view with this id had failed, if it had.
    pub(crate) fn failure(&self, id: u64) -> Option<Failure> {
        self.failures.of(id)
    }

    /// Remembers that a view has failed, or forgets it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn note_failure(&self, id: u64, failure: Option<Failure>) -> Result<()> {
        let ids: Vec<u64> = self.definitions.list().iter().map(|d| d.id).collect();
        self.failures.note(id, failure, &ids)
    }

    /// Forgets a definition, then what was kept for it.
    ///
    /// # Errors
    /// When the definition cannot be removed. What is left of the files is swept away later.
    pub(crate) fn forget(&self, name: &str) -> Result<()> {
        let known = self.definitions.list().into_iter().find(|d| d.name == name);
        let Some(definition) = known else { return Ok(()) };
        self.definitions.remove(&[name])?;
        self.delete_files(&definition);
        Ok(())
    }

    /// Deletes what was kept for an object that has no definition any more.
    pub(crate) fn delete_files(&self, definition: &Definition) {
        let (stream, view) = (self.stream_dir(definition), self.view_dir(definition));
        let checkpoints = self.checkpoints_dir(definition);
        for path in [checkpoints, stream, view, self.table_file(definition)] {
            self.remove(&path);
        }
    }

    fn remove(&self, path: &Path) {
        if let Err(error) = self.files().remove_all(path) {
            tracing::warn!(path = %path.display(), %error, "not deleted, will be at the next start");
        }
    }

    fn stream_dir(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Stream).join(&definition.dir)
    }

    fn checkpoints_dir(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Checkpoints).join(&definition.dir)
    }

    /// The checkpoints of a view's query.
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

    /// Where readers of a stream's source stood whose rows are kept.
    ///
    /// # Errors
    /// See [`Places::open`].
    pub(crate) fn open_places(&self, definition: &Definition) -> Result<Places> {
        Places::open(Arc::clone(self.files()), &self.stream_dir(definition).join("log"))
    }

    fn view_dir(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::View).join(&definition.dir)
    }

    /// Writes the rows of a reference table anew.
    ///
    /// # Errors
    /// When they cannot be written; the old ones are there then.
    pub(crate) fn write_table(&self, definition: &Definition, bytes: &[u8]) -> Result<()> {
        let folder = self.folder(Part::Table);
        let path = self.table_file(definition);
        self.files().create_dir(&folder).map_err(|e| io_error("create", &folder, e))?;
        self.files().replace(&path, bytes).map_err(|e| io_error("write", &path, e))?;
        self.note_opened(definition, Part::Table);
        Ok(())
    }

    /// Whose the rows of a reference table are.
    pub(crate) fn table_owner(&self, definition: &Definition) -> Owner {
        self.owner(definition, Part::Table)
    }

    /// The bytes that were written last for a reference table, and their file; `None` when there
    /// never were any.
    ///
    /// # Errors
    /// When they cannot be read, or are missing.
    pub(crate) fn read_table(&self, definition: &Definition) -> Result<Option<(PathBuf, Vec<u8>)>> {
        let path = self.table_file(definition);
        match self.files().read(&path) {
            Ok(bytes) => {
                self.note_opened(definition, Part::Table);
                Ok(Some((path, bytes)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if definition.parts.contains(&Part::Table) {
                    return Err(missing("the file", &path));
                }
                Ok(None)
            }
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Where the rows of a reference table are.
    fn table_file(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Table).join(format!("{}.arrow", definition.dir))
    }

    /// The push stream's log as it was left: archived rows, then those of the write-ahead log.
    ///
    /// # Errors
    /// When it is damaged, has lost rows or is another stream's, or its columns are not these.
    pub(crate) async fn open_stream(
        &self,
        definition: &Definition,
        schema: &SchemaRef,
        event_time: Option<usize>,
        durability: Durability,
    ) -> Result<(DurableLog, Arc<Wal>)> {
        let mut definition = definition.clone();
        let dir = self.stream_dir(&definition).join("log");
        let mut known = Known {
            owner: Some(self.owner(&definition, Part::Stream)),
            gaps: definition.gaps(),
            ..Known::default()
        };
        if self.log_is_there(&definition, schema)? {
            self.known_of(&definition, &dir, &mut known)?;
        }
        let mut archive = self.archive(Part::Stream, &definition, schema, event_time).await?;
        let mut accepted = false;
        if self.accepts_lost_rows {
            let from = archive.state().rows;
            let end = Wal::end_of(&**self.files(), &dir, schema, (from, &known))?;
            if let Some(lost) = self.accept(&definition, end, &known)? {
                accepted = true;
                definition.lost.push(lost);
                known.gaps = definition.gaps();
                archive = self.archive(Part::Stream, &definition, schema, event_time).await?;
            }
        }
        let (snapshot, memory) = (archive.snapshot(), self.memory.as_ref());
        let log = StreamLog::restored(Arc::clone(schema), snapshot, Completion::Append, memory);
        let from = log.state().rows;
        let sink = Arc::clone(&log);
        let applied = Box::new(move |_first: u64, rows| {
            if let Err(error) = sink.append(rows) {
                tracing::error!(%error, "durable rows did not reach their stream");
            }
        });
        let options = WalOptions { durability, ..WalOptions::default() };
        let (wal, recovered) = Wal::open(
            Arc::clone(self.files()),
            &dir,
            schema,
            (archive.state().rows, &known),
            (options, applied),
        )?;
        let Recovered { first, end, batches, cut } = recovered;
        if let Some(cut) = cut {
            let stream = &definition.name;
            if accepted {
                tracing::warn!(stream, ?cut, "what is left of the rows that are lost was cut off");
            } else {
                tracing::warn!(
                    stream,
                    ?cut,
                    "a write that did not come to its end was cut off; nothing knows of rows in it"
                );
            }
        }
        for (first, rows) in batches {
            step_over(first, &log, &archive).await?;
            log.append(rows)?;
        }
        step_over(end, &log, &archive).await?;
        if first != from || wal.end() != log.state().rows {
            return Err(Error::internal("a log does not go on where its archive ends"));
        }
        self.note_opened(&definition, Part::Stream);
        Ok((DurableLog { log, archive }, Arc::new(wal)))
    }

    /// Makes the log of a stream that has nothing yet, and says whether there was one. The log comes
    /// before the archive, so where there is an archive and no log, the log was lost.
    fn log_is_there(&self, definition: &Definition, schema: &SchemaRef) -> Result<bool> {
        let dir = self.stream_dir(definition);
        let (files, log) = (&**self.files(), dir.join("log"));
        let names = files.list(&dir).map_err(|e| io_error("list", &dir, e))?;
        let owner = self.owner(definition, Part::Stream);
        if names.is_empty() && owner.is_made {
            return Err(missing("the directory", &dir));
        }
        let is_made = owner.is_made || names.iter().any(|name| name == DELTA_LOG);
        let is_there = Wal::is_there(files, &log)?;
        if is_made && !is_there && !self.accepts_lost_rows {
            return Err(missing("the log", &log));
        }
        if !is_made {
            Wal::begin(files, &log, schema, &owner.id)?;
        }
        Ok(is_made || is_there)
    }

    /// What is known of a stream's log from elsewhere: from the note beside it, and from the checkpoints of views.
    fn known_of(&self, definition: &Definition, log: &Path, known: &mut Known) -> Result<()> {
        extent::read(&**self.files(), log, known)?;
        for HadRead { view, rows, .. } in self.had_read(definition)? {
            known.end = known.end.max(*rows);
            known.from.push(format!("View \"{}\" has read it up to row {rows}.", view.name));
        }
        Ok(())
    }

    /// Which views had read how much of a stream.
    fn had_read(&self, of: &Definition) -> Result<impl Iterator<Item = &HadRead>> {
        if self.had_read.get().is_none() {
            let mut all = vec![];
            for view in self.definitions.list() {
                if !matches!(view.kind, Kind::MaterializedView | Kind::Insert) {
                    continue;
                }
                let owner = self.owner(&view, Part::Checkpoints);
                let dir = self.checkpoints_dir(&view);
                for (stream, rows) in Checkpoints::positions(&**self.files(), &dir, &owner)? {
                    all.push(HadRead { view: view.clone(), stream, rows });
                }
            }
            // Another thread may have found the same.
            drop(self.had_read.set(all));
        }
        let all = self.had_read.get().map(Vec::as_slice).unwrap_or_default();
        // A stream that is newer than the view is not the one that it has read.
        let (name, id) = (of.name.clone(), of.id);
        Ok(all.iter().filter(move |had| had.stream == name && had.view.id > id))
    }

    /// Records that the rows of a stream from `end` up to what is known are lost, if there are some.
    fn accept(&self, definition: &Definition, end: u64, known: &Known) -> Result<Option<LostRows>> {
        if end >= known.end {
            return Ok(None);
        }
        let had = self.had_read(definition)?.filter(|had| had.rows > end);
        let had: Vec<_> = had.map(|had| (had.view.name.clone(), had.rows)).collect();
        let lost = LostRows { start: end, end: known.end, at_micros: self.clock.now_micros(), had };
        self.definitions.lost(definition.id, &lost)?;
        tracing::warn!(
            stream = definition.name,
            from = lost.start,
            to = lost.end,
            "rows are lost, and that is accepted: windrow.lost_rows has them from now on"
        );
        Ok(Some(lost))
    }

    /// The view's log as it was left: its archived rows.
    ///
    /// # Errors
    /// When it is damaged, or its columns are not these.
    pub(crate) async fn open_view(
        &self,
        definition: &Definition,
        schema: &SchemaRef,
        event_time: Option<usize>,
        completion: Completion,
    ) -> Result<DurableLog> {
        let archive = self.archive(Part::View, definition, schema, event_time).await?;
        let snapshot = archive.snapshot();
        let memory = self.memory.as_ref();
        let log = StreamLog::restored(Arc::clone(schema), snapshot, completion, memory);
        self.note_opened(definition, Part::View);
        Ok(DurableLog { log, archive })
    }

    async fn archive(
        &self,
        part: Part,
        definition: &Definition,
        schema: &SchemaRef,
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
        };
        let dir = self.folder(part).join(&definition.dir);
        if definition.parts.contains(&part)
            && self.files().list(&dir).map_err(|e| io_error("list", &dir, e))?.is_empty()
        {
            // Opening it would make it anew.
            return Err(missing("the directory", &dir));
        }
        let storage = match &self.objects {
            Some(root) => root.child(part.as_str())?.child(&definition.dir)?,
            None => Storage::local(&dir)?,
        };
        // People look for single keys in finished windows; history is read by time.
        let mut options =
            ArchiveOptions { bloom_filters: part == Part::View, ..ArchiveOptions::default() };
        if let Some(memory) = &self.memory {
            // A file lies in memory until it is whole.
            let bytes = memory.queue_bytes() as u64;
            options.target_file_bytes =
                options.target_file_bytes.min((bytes * 2).max(FILE_BYTES_MIN));
            options.row_group_bytes = options.row_group_bytes.min(bytes);
        }
        let clock = Arc::clone(&self.clock);
        let table = ArchiveTable::open_with(storage, spec, options, clock).await?;
        Ok(Arc::new(table))
    }

    /// Removes the directories that no definition names: what a crash left of dropped objects.
    fn sweep(&self) -> Result<()> {
        let known = self.definitions();
        for part in Part::ALL {
            let suffix = if part == Part::Table { ".arrow" } else { "" };
            let folder = self.folder(part);
            let names = self.files().list(&folder).map_err(|e| io_error("list", &folder, e))?;
            for name in names {
                let dir = name.strip_suffix(suffix).unwrap_or(&name);
                if !known.iter().any(|d| d.dir == dir) {
                    self.remove(&folder.join(&name));
                }
            }
        }
        Ok(())
    }
}

impl DurableLog {
    /// Moves rows of a stream's log to the archive.
    pub(crate) fn spiller(&self, wal: Arc<Wal>) -> Arc<Spiller> {
        Spiller::of_stream(Arc::clone(&self.log), Arc::clone(&self.archive), wal)
    }

    /// Moves rows of a view to the archive; `sources`: the logs that they are made of.
    pub(crate) fn view_spiller(&self, sources: Vec<Arc<Wal>>) -> Arc<Spiller> {
        Spiller::of_view(Arc::clone(&self.log), Arc::clone(&self.archive), sources)
    }
}

/// Goes on at the row `next` of a log: when rows before it are lost, what the log has before those goes to its archive,
/// so that the tail in memory has no gap in it.
async fn step_over(next: u64, log: &StreamLog, archive: &ArchiveTable) -> Result<()> {
    let end = log.state().rows;
    if end == next {
        return Ok(());
    }
    if let Some(rows) = log.unarchived() {
        let version = rows.frontier.version();
        let batches = rows.rows.into_iter().map(|piece| piece.load());
        archive.append_from(batches, rows.first, version, &Provenance::default()).await?;
    }
    log.archived(archive.snapshot());
    Ok(())
}

/// The error of what was made and is not there.
fn missing(what: &str, path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{what} \"{}\" is missing", path.display()))
        .with_hint("Restore it from a backup; nothing has been overwritten.")
}
