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
//! opening. So an object never finds the rows of another one that had its name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use windrow_archive::{ArchiveOptions, ArchiveTable, TableSpec};
use windrow_core::{Clock, Error, ErrorKind, Result, Watermark};

use crate::durable::checkpoint::{Checkpoints, Stamp};
use crate::durable::definitions::{Definition, Definitions, Kind};
use crate::durable::directory::DataDirectory;
use crate::durable::failures::{Failure, Failures};
use crate::durable::files::{Files, io_error};
use crate::durable::place::Place;
use crate::durable::wal::{Durability, Recovered, Wal, WalOptions};
use crate::memory::Memory;
use crate::stream::log::{Completion, StreamLog};
use crate::stream::spill::Spiller;

const STREAMS: &str = "streams";
const VIEWS: &str = "views";
const TABLES: &str = "tables";
const CHECKPOINTS: &str = "checkpoints";
const CATALOG: &str = "catalog.json";
/// With a limit of memory files of the archive are short, but not shorter than this.
const FILE_BYTES_MIN: u64 = 1 << 20;
/// What an archive has from its beginning.
const DELTA_LOG: &str = "_delta_log";

/// The data directory of an engine.
#[derive(Debug)]
pub(crate) struct Store {
    place: Place,
    directory: DataDirectory,
    definitions: Definitions,
    failures: Failures,
    clock: Arc<dyn Clock>,
    /// The limit of memory, if there is one.
    memory: Option<Arc<Memory>>,
}

/// A log that is kept on disk.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) log: Arc<StreamLog>,
    pub(crate) archive: Arc<ArchiveTable>,
}

impl Store {
    /// Opens a data directory, or makes one.
    ///
    /// # Errors
    /// When another process has it, when it is not ours, of another format, or damaged.
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_at(Place::named(path, &clock)?, clock)
    }

    /// [`open`](Self::open) at any place.
    pub(crate) fn open_at(place: Place, clock: Arc<dyn Clock>) -> Result<Self> {
        let directory = DataDirectory::open(Arc::clone(&place.files), &place.path)?;
        let definitions = Definitions::open(&directory)?;
        if definitions.list().is_empty() {
            check_empty(&**directory.files(), &place.path)?;
        }
        let failures = Failures::open(directory.files(), directory.path())?;
        let store = Self { place, directory, definitions, failures, clock, memory: None };
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
        self.definitions.replace_at(&[name], name, kind, sql, base)
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
        self.definitions.commit(definition)
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
        self.directory.path().join(STREAMS).join(&definition.dir)
    }

    fn checkpoints_dir(&self, definition: &Definition) -> PathBuf {
        self.directory.path().join(CHECKPOINTS).join(&definition.dir)
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
        Checkpoints::open(Arc::clone(self.files()), self.checkpoints_dir(definition), stamp)
    }

    fn view_dir(&self, definition: &Definition) -> PathBuf {
        self.directory.path().join(VIEWS).join(&definition.dir)
    }

    /// Writes the rows of a reference table anew.
    ///
    /// # Errors
    /// When they cannot be written; the old ones are there then.
    pub(crate) fn write_table(&self, definition: &Definition, bytes: &[u8]) -> Result<()> {
        let folder = self.directory.path().join(TABLES);
        let path = self.table_file(definition);
        self.files().create_dir(&folder).map_err(|e| io_error("create", &folder, e))?;
        self.files().replace(&path, bytes).map_err(|e| io_error("write", &path, e))
    }

    /// The bytes that were written last for a reference table, and their file; `None` when there
    /// are none.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn read_table(&self, definition: &Definition) -> Result<Option<(PathBuf, Vec<u8>)>> {
        let path = self.table_file(definition);
        match self.files().read(&path) {
            Ok(bytes) => Ok(Some((path, bytes))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Where the rows of a reference table are.
    fn table_file(&self, definition: &Definition) -> PathBuf {
        self.directory.path().join(TABLES).join(format!("{}.arrow", definition.dir))
    }

    /// The push stream's log as it was left: archived rows, then those of the write-ahead log.
    ///
    /// # Errors
    /// When it is damaged, or its columns are not these.
    pub(crate) async fn open_stream(
        &self,
        definition: &Definition,
        schema: &SchemaRef,
        event_time: Option<usize>,
        durability: Durability,
    ) -> Result<(Kept, Arc<Wal>)> {
        let dir = self.stream_dir(definition);
        self.log_is_there(&dir, schema)?;
        let archive = self.archive(STREAMS, definition, schema, event_time).await?;
        let snapshot = archive.snapshot();
        let from = snapshot.state().rows;
        let told = (Watermark::NONE, Completion::Rows);
        let log = StreamLog::restored(Arc::clone(schema), snapshot, told, self.memory.as_ref());
        let sink = Arc::clone(&log);
        let applied = Box::new(move |_first: u64, rows| {
            if let Err(error) = sink.append(rows) {
                tracing::error!(%error, "durable rows did not reach their stream");
            }
        });
        let options = WalOptions { durability, ..WalOptions::default() };
        let (wal, recovered) = Wal::open(
            Arc::clone(self.files()),
            &dir.join("log"),
            schema,
            from,
            (options, applied),
        )?;
        let Recovered { first, batches, cut, .. } = recovered;
        if let Some(cut) = cut {
            tracing::warn!(
                stream = definition.name,
                ?cut,
                "a row that was never acknowledged was cut off"
            );
        }
        for (_, rows) in batches {
            log.append(rows)?;
        }
        if first != from || wal.end() != log.state().rows {
            return Err(Error::internal("a log does not go on where its archive ends"));
        }
        Ok((Kept { log, archive }, Arc::new(wal)))
    }

    /// Makes the log of a stream that has nothing yet. The log comes before the archive, so where
    /// there is an archive and no log, the log was lost.
    fn log_is_there(&self, dir: &Path, schema: &SchemaRef) -> Result<()> {
        let (files, log) = (&**self.files(), dir.join("log"));
        let names = files.list(dir).map_err(|e| io_error("list", dir, e))?;
        if !names.iter().any(|name| name == DELTA_LOG) {
            return Wal::begin(files, &log, schema);
        }
        if Wal::is_there(files, &log)? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, format!("the log \"{}\" is missing", log.display()))
            .with_hint("Restore its files from a backup; nothing has been overwritten."))
    }

    /// The view's log as it was left: its archived rows. The watermark is the one up to which its
    /// windows are archived, and [`Watermark::END`] when all its rows are.
    ///
    /// # Errors
    /// When it is damaged, or its columns are not these.
    pub(crate) async fn open_view(
        &self,
        definition: &Definition,
        schema: &SchemaRef,
        event_time: Option<usize>,
        completion: Completion,
    ) -> Result<(Kept, Watermark)> {
        let archive = self.archive(VIEWS, definition, schema, event_time).await?;
        let snapshot = archive.snapshot();
        let archived = snapshot.state().txn_version.map_or(Watermark::NONE, Watermark::at);
        let watermark = match completion {
            // The version is a number of rows until there are no more to come.
            Completion::Checkpoint { .. } if archived != Watermark::END => Watermark::NONE,
            _ => archived,
        };
        let (told, memory) = ((watermark, completion), self.memory.as_ref());
        let log = StreamLog::restored(Arc::clone(schema), snapshot, told, memory);
        Ok((Kept { log, archive }, watermark))
    }

    async fn archive(
        &self,
        folder: &str,
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
        };
        let storage = self.place.archive(folder, &definition.dir)?;
        // People look for single keys in finished windows; history is read by time.
        let mut options =
            ArchiveOptions { bloom_filters: folder == VIEWS, ..ArchiveOptions::default() };
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
        for (folder, suffix) in [(STREAMS, ""), (VIEWS, ""), (CHECKPOINTS, ""), (TABLES, ".arrow")]
        {
            let folder = self.directory.path().join(folder);
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

impl Kept {
    /// Starts to move rows of the log to the archive.
    pub(crate) fn spiller(&self, wal: Option<Arc<Wal>>) -> Arc<Spiller> {
        Spiller::new(Arc::clone(&self.log), Arc::clone(&self.archive), wal)
    }
}

/// A catalog without objects beside rows of objects is no empty catalog: it is lost.
fn check_empty(files: &dyn Files, path: &Path) -> Result<()> {
    let names = files.list(path).map_err(|e| io_error("list", path, e))?;
    let there = |name: &str| names.iter().any(|n| n == name);
    if there(CATALOG) || ![STREAMS, VIEWS, TABLES].into_iter().any(there) {
        return Ok(());
    }
    let message = format!("\"{}\" is missing", path.join(CATALOG).display());
    Err(Error::new(ErrorKind::Corrupt, message)
        .with_hint("Restore the file from a backup; nothing has been overwritten."))
}
