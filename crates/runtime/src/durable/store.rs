//! What an engine keeps in its data directory, and how it finds it again.
//!
//! ```text
//! DIR/catalog.json          definitions of all objects, in the order of their making
//! DIR/streams/<dir>/log/    write-ahead log of a push stream
//! DIR/streams/<dir>/        its history, archived (a Delta table)
//! DIR/views/<dir>/          finished windows of a materialized view (a Delta table)
//! DIR/tables/<dir>.arrow    rows of a reference table
//! ```
//! Invariants: a definition is durable before anything is written for its object, and gone before
//! the object's directory is; a directory that no definition names is swept away at the next
//! opening. So an object never finds the rows of another one that had its name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use windrow_archive::{ArchiveTable, Storage, TableSpec};
use windrow_core::{Clock, Error, ErrorKind, Result, Watermark};

use crate::durable::definitions::{Definition, Definitions, Kind};
use crate::durable::directory::{DataDirectory, write_atomically};
use crate::durable::files::{Files, StdFiles, io_error};
use crate::durable::wal::{Durability, Recovered, Wal, WalOptions};
use crate::stream::log::StreamLog;
use crate::stream::spill::Spiller;

const STREAMS: &str = "streams";
const VIEWS: &str = "views";
const TABLES: &str = "tables";

/// The data directory of an engine.
#[derive(Debug)]
pub(crate) struct Store {
    directory: DataDirectory,
    definitions: Definitions,
    clock: Arc<dyn Clock>,
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
        let directory = DataDirectory::open(path)?;
        let definitions = Definitions::open(&directory)?;
        if definitions.list().is_empty() {
            check_empty(path)?;
        }
        let store = Self { directory, definitions, clock };
        store.sweep()?;
        Ok(store)
    }

    /// All definitions, in the order of their making.
    pub(crate) fn definitions(&self) -> Vec<Definition> {
        self.definitions.list()
    }

    /// Makes a definition durable; it takes the place of the one of this name, if there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn record(&self, name: &str, kind: Kind, sql: &str) -> Result<Definition> {
        self.definitions.replace(&[name], name, kind, sql)
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
        for path in [self.stream_dir(definition), self.view_dir(definition)] {
            remove_dir(&path);
        }
        let rows = self.table_file(definition);
        if let Err(error) = std::fs::remove_file(&rows)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %rows.display(), %error, "not deleted, will be at the next start");
        }
    }

    fn stream_dir(&self, definition: &Definition) -> PathBuf {
        self.directory.path().join(STREAMS).join(&definition.dir)
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
        StdFiles.create_dir(&folder).map_err(|e| io_error("create", &folder, e))?;
        write_atomically(&self.table_file(definition), bytes)
    }

    /// Where the rows of a reference table are.
    pub(crate) fn table_file(&self, definition: &Definition) -> PathBuf {
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
        let archive = self.archive(&dir, definition, schema, event_time).await?;
        let snapshot = archive.snapshot();
        let from = snapshot.state().rows;
        let log = StreamLog::restored(Arc::clone(schema), snapshot, Watermark::NONE);
        let sink = Arc::clone(&log);
        let applied = Box::new(move |_first: u64, rows| {
            if let Err(error) = sink.append(rows) {
                tracing::error!(%error, "durable rows did not reach their stream");
            }
        });
        let options = WalOptions { durability, ..WalOptions::default() };
        let (wal, recovered) = Wal::open(&dir.join("log"), schema, from, options, applied)?;
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

    /// The view's log as it was left: its archived windows.
    ///
    /// # Errors
    /// When it is damaged, or its columns are not these.
    pub(crate) async fn open_view(
        &self,
        definition: &Definition,
        schema: &SchemaRef,
        event_time: Option<usize>,
    ) -> Result<(Kept, Watermark)> {
        let dir = self.view_dir(definition);
        let archive = self.archive(&dir, definition, schema, event_time).await?;
        let snapshot = archive.snapshot();
        let watermark = snapshot.state().txn_version.map_or(Watermark::NONE, Watermark::at);
        let log = StreamLog::restored(Arc::clone(schema), snapshot, watermark);
        Ok((Kept { log, archive }, watermark))
    }

    async fn archive(
        &self,
        dir: &Path,
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
        let table = ArchiveTable::open(Storage::local(dir)?, spec, Arc::clone(&self.clock)).await?;
        Ok(Arc::new(table))
    }

    /// Removes the directories that no definition names: what a crash left of dropped objects.
    fn sweep(&self) -> Result<()> {
        let known = self.definitions();
        for (folder, suffix) in [(STREAMS, ""), (VIEWS, ""), (TABLES, ".arrow")] {
            let folder = self.directory.path().join(folder);
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(&folder, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|e| unreadable(&folder, e))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let dir = name.strip_suffix(suffix).unwrap_or(&name);
                if !known.iter().any(|d| d.dir == dir) {
                    remove_dir(&entry.path());
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
fn check_empty(path: &Path) -> Result<()> {
    let catalog = path.join("catalog.json");
    if catalog.exists() || [STREAMS, VIEWS, TABLES].iter().all(|f| !path.join(f).exists()) {
        return Ok(());
    }
    let message = format!("\"{}\" is missing", catalog.display());
    Err(Error::new(ErrorKind::Corrupt, message)
        .with_hint("Restore the file from a backup; nothing has been overwritten."))
}

fn remove_dir(path: &Path) {
    let removed = match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "not deleted, will be at the next start");
    }
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot read \"{}\": {error}", path.display()))
        .with_source(error)
}
