//! The table: one writer, and the state that readers see.
//!
//! The readers' state is replaced in one step after a commit, never before, so readers see whole commits only. After an
//! error, or a write that was dropped halfway, the log is reread first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use deltalake_core::kernel::Action;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use object_store::ObjectStoreExt;
use parking_lot::Mutex;
use serde_json::json;
use windrow_core::{Clock, Error, Result};

use crate::file_entry::{self, FileEntry};
use crate::file_writer::{EncodedFile, FileWriter, conform};
use crate::live::Live;
use crate::log::{Commit, DeltaLog};
use crate::snapshot::ArchiveSnapshot;
use crate::spec::{ArchiveOptions, ArchiveState, Provenance, TableSpec};
use crate::storage::Storage;
use crate::{delta_schema, failure};

/// An append-only sequence of rows on an object store.
pub struct ArchiveTable {
    pub(crate) storage: Storage,
    spec: Mutex<Arc<TableSpec>>,
    pub(crate) options: ArchiveOptions,
    pub(crate) clock: Arc<dyn Clock>,
    live: Mutex<Arc<Live>>,
    pub(crate) writer: tokio::sync::Mutex<Writer>,
    fingerprint: Option<String>,
}

/// State of the writer.
pub(crate) struct Writer {
    pub(crate) log: DeltaLog,
    /// Whether the log may be ahead of what is loaded.
    stale: bool,
    /// Files that this process removed from the log, with the time (µs since the Unix epoch). Readers may still hold
    /// them.
    pub(crate) retired: Vec<(Arc<FileEntry>, i64)>,
}

impl std::fmt::Debug for ArchiveTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveTable")
            .field("name", &self.spec().name)
            .field("storage", &self.storage)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Checks that columns can be archived.
///
/// # Errors
/// When one has a type that Delta does not have.
pub fn check_columns(schema: &Schema) -> Result<()> {
    delta_schema::columns(schema).map(drop)
}

impl ArchiveTable {
    /// Opens the table in `storage`, or creates it.
    ///
    /// # Errors
    /// When a column has a type that cannot be archived, when an existing table has other columns, or when its log is
    /// damaged or cannot be reached.
    pub async fn open(storage: Storage, spec: TableSpec, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with(storage, spec, ArchiveOptions::default(), clock).await
    }

    /// As [`open`](Self::open), with other options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(
        storage: Storage,
        spec: TableSpec,
        options: ArchiveOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        if spec.event_time.is_some_and(|i| i >= spec.schema.fields().len()) {
            return Err(Error::internal(format!("\"{}\" has no such event time", spec.name)));
        }
        let log = DeltaLog::open(&storage, &spec, options.log_retention).await?;
        let fingerprint = log.fingerprint();
        let table = Self {
            storage,
            spec: Mutex::new(Arc::new(spec)),
            options,
            clock,
            live: Mutex::new(Arc::new(Live::default())),
            writer: tokio::sync::Mutex::new(Writer { log, stale: true, retired: vec![] }),
            fingerprint,
        };
        let mut writer = table.writer.lock().await;
        table.learn(&mut writer).await?;
        drop(writer);
        Ok(table)
    }

    /// The description of the table.
    pub fn spec(&self) -> Arc<TableSpec> {
        Arc::clone(&self.spec.lock())
    }

    /// Adds columns at the end. They are recorded with the next commit. `added`: the values of all columns that were ever
    /// added, one each, in rows without them.
    ///
    /// # Errors
    /// When a column has a type that cannot be archived; then nothing has changed.
    pub fn widen(&self, schema: SchemaRef, added: Vec<ArrayRef>) -> Result<()> {
        check_columns(&schema)?;
        let mut spec = self.spec.lock();
        *spec = Arc::new(TableSpec { schema, added, ..spec.as_ref().clone() });
        Ok(())
    }

    /// The place of the table.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The fingerprint with which the table was created, which may differ from that of its spec.
    pub fn stored_fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// The extent of the committed rows.
    pub fn state(&self) -> ArchiveState {
        self.live.lock().state.clone()
    }

    /// Returns a snapshot of the committed rows, for reading.
    pub fn snapshot(&self) -> ArchiveSnapshot {
        ArchiveSnapshot { storage: self.storage.clone(), spec: self.spec(), live: self.live() }
    }

    /// The current state of the readers.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.lock())
    }

    /// Appends rows in one commit. `rows_start` is the end of the sequence. If `txn_version` is committed already,
    /// nothing is written. After an error the same call may be repeated.
    ///
    /// # Errors
    /// When the store does not accept the rows, or when they do not fit the table (a bug in Windrow).
    pub async fn append(
        &self,
        batches: &[RecordBatch],
        rows_start: u64,
        txn_version: i64,
        provenance: &Provenance,
    ) -> Result<ArchiveState> {
        let batches: Vec<_> = batches.iter().cloned().map(Ok).collect();
        self.append_from(batches.into_iter(), rows_start, txn_version, provenance).await
    }

    /// As [`append`](Self::append), with rows that are produced lazily: one file of them at a time is in memory.
    ///
    /// # Errors
    /// As [`append`](Self::append), and those of the rows.
    pub async fn append_from(
        &self,
        batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static,
        rows_start: u64,
        txn_version: i64,
        provenance: &Provenance,
    ) -> Result<ArchiveState> {
        let mut writer = self.writer.lock().await;
        self.freshen(&mut writer).await?;
        let (state, spec) = (self.state(), self.spec());
        let committed = |state: &ArchiveState| state.txn_version.is_some_and(|v| v >= txn_version);
        if committed(&state) {
            return Ok(state);
        }
        if rows_start != state.rows && rows_start != spec.gaps.after(state.rows) {
            return Err(Error::internal(format!(
                "rows for \"{}\" begin at {rows_start}, but {} are committed",
                spec.name, state.rows
            )));
        }
        let added = self.write(batches, (rows_start, txn_version), provenance).await?;
        let notes = json!({
            "engineVersion": spec.engine_version,
            "fingerprint": spec.fingerprint,
            "provenance": provenance,
        });
        let commit = Commit {
            actions: self.adds(&added, true),
            txn_version: Some(txn_version),
            operation: DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: None,
                predicate: None,
            },
            notes: Some(notes),
        };
        if let Err(e) = self.commit(&mut writer, commit, &added, &[]).await {
            // The commit may have succeeded although its response was lost.
            self.freshen_after(&mut writer).await;
            return if committed(&self.state()) { Ok(self.state()) } else { Err(e) };
        }
        Ok(self.state())
    }

    /// The actions that add files to the log.
    pub(crate) fn adds(&self, files: &[Arc<FileEntry>], data_change: bool) -> Vec<Action> {
        let spec = self.spec();
        files.iter().map(|f| Action::Add(f.add(&spec.schema, data_change))).collect()
    }

    /// Commits, then publishes the change to readers.
    pub(crate) async fn commit(
        &self,
        writer: &mut Writer,
        commit: Commit,
        added: &[Arc<FileEntry>],
        removed: &[Arc<FileEntry>],
    ) -> Result<()> {
        let old = self.live();
        let txn_version = commit.txn_version.or(old.state.txn_version);
        let mut files: Vec<Arc<FileEntry>> = old
            .files
            .iter()
            .filter(|f| !removed.iter().any(|r| r.name == f.name))
            .cloned()
            .collect();
        files.extend(added.iter().cloned());
        let spec = self.spec();
        let next = Live::new(files, txn_version, &spec)?;
        writer.stale = true;
        let mut commit = commit;
        commit.actions.extend(writer.log.widening(&spec)?);
        writer.log.commit(commit).await?;
        self.publish(writer, next);
        writer.stale = false;
        let now = self.clock.now_micros();
        writer.log.checkpoint_if_due(self.options.checkpoint_interval, now).await;
        Ok(())
    }

    /// Publishes another state to readers.
    fn publish(&self, writer: &mut Writer, next: Live) {
        let now = self.clock.now_micros();
        let mut live = self.live.lock();
        let old = std::mem::replace(&mut *live, Arc::new(next));
        let kept: HashSet<&str> = live.files.iter().map(|f| f.name.as_str()).collect();
        let gone = old.files.iter().filter(|f| !kept.contains(f.name.as_str()));
        writer.retired.extend(gone.map(|f| (Arc::clone(f), now)));
    }

    /// Rereads the log if it may be ahead of what is loaded.
    pub(crate) async fn freshen(&self, writer: &mut Writer) -> Result<()> {
        if !writer.stale {
            return Ok(());
        }
        writer.log.reload().await?;
        self.learn(writer).await
    }

    /// Calls [`freshen`](Self::freshen) after an error that is reported anyway.
    pub(crate) async fn freshen_after(&self, writer: &mut Writer) {
        if let Err(e) = self.freshen(writer).await {
            // The state stays stale, so the next call tries again.
            tracing::debug!(table = %self.spec().name, error = %e, "cannot read the log again");
        }
    }

    /// Publishes the state of the loaded log to readers.
    async fn learn(&self, writer: &mut Writer) -> Result<()> {
        let (old, spec) = (self.live(), self.spec());
        let known: HashMap<&str, &Arc<FileEntry>> =
            old.files.iter().map(|f| (f.name.as_str(), f)).collect();
        let files = writer.log.files(&spec)?.into_iter().map(|f| {
            // The same file keeps the same value, so that its holders can be counted.
            known.get(f.name.as_str()).map_or_else(|| Arc::new(f), |f| Arc::clone(f))
        });
        let files = files.collect();
        let txn_version = writer.log.txn_version().await?;
        let next = Live::new(files, txn_version, &spec)?;
        self.publish(writer, next);
        writer.stale = false;
        Ok(())
    }

    /// Encodes rows as Parquet files and stores them, one after the other.
    async fn write(
        &self,
        mut batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static,
        (start, txn_version): (u64, i64),
        provenance: &Provenance,
    ) -> Result<Vec<Arc<FileEntry>>> {
        let (spec, options) = (self.spec(), self.options.clone());
        let mut files = FileWriter::new(spec, options, start, provenance.clone());
        let mut entries = vec![];
        loop {
            let encode = tokio::task::spawn_blocking(move || {
                for batch in batches.by_ref() {
                    files.push(&conform(files.spec(), &batch?)?)?;
                    let done = files.take_done();
                    if !done.is_empty() {
                        return Ok((done, Some((files, batches))));
                    }
                }
                Result::<_>::Ok((files.finish()?, None))
            });
            let (done, rest) = encode.await.map_err(failure::task)??;
            entries.extend(self.store(done, txn_version).await?);
            match rest {
                Some(rest) => (files, batches) = rest,
                None => return Ok(entries),
            }
        }
    }

    /// Stores encoded files; readers do not see them before they are committed.
    pub(crate) async fn store(
        &self,
        files: Vec<EncodedFile>,
        txn_version: i64,
    ) -> Result<Vec<Arc<FileEntry>>> {
        let store = self.storage.root();
        let shown = |path: &object_store::path::Path| self.storage.shown_path(path);
        let mut entries = Vec::with_capacity(files.len());
        for file in files {
            let name = file_entry::new_name(file.start, file.end, txn_version, &file.bytes);
            let path = self.storage.path_of(&name);
            let bytes = file.bytes.len() as u64;
            store.put(&path, file.bytes.into()).await.map_err(|e| {
                failure::store(&format!("write the archive file \"{}\"", shown(&path)), e)
            })?;
            entries.push(Arc::new(FileEntry {
                name,
                start: file.start,
                end: file.end,
                bytes,
                modified_ms: self.clock.now_micros().div_euclid(1_000),
                stats: file.stats,
            }));
        }
        Ok(entries)
    }
}
