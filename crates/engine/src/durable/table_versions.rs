//! The versions of refreshed tables that a durable view uses, on disk.
//!
//! ```text
//! versions/<dir>/index.json   {"owner":"91….7","reached":…,"versions":[{"table":"rates","from":…,"loaded":…,"file":2}, …],"crc32":"…"}
//! versions/<dir>/<n>.arrow    the rows of version n
//! ```
//! `reached` is an event time up to which the view may have joined rows. It is recorded ahead of them, so that it need not be
//! written for each micro-batch: after a restart a new version counts from there, and no row is joined with another version
//! than the first time.
//!
//! Invariants: a version's rows are on disk before the index names them, and the index before the version is used; the first
//! version of each table is that of the creation of the view.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use windrow_core::{Clock, Error, ErrorKind, Result};
use windrow_query::refreshed::{RefreshedTable, TableVersion};
use windrow_query::versions::{Counted, Recorder};
use windrow_storage::files::{corrupt, io_error};

use super::definitions::{Definition, Part};
use super::store::{Store, missing};
use super::table_rows::{read_batches, to_bytes};

/// How far `reached` is recorded ahead at first, in µs of event time.
const AHEAD_MICROS: i64 = 10_000_000;
/// When it is recorded again before this time has passed, it is recorded further ahead.
const OFTEN: Duration = Duration::from_secs(1);

/// The index file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    reached: Option<i64>,
    versions: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    table: String,
    /// The event time from which it counts, in µs; the smallest number: from the beginning.
    from: i64,
    /// When it was loaded, in µs since 1970.
    loaded: i64,
    /// The number of its file.
    file: usize,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    owner: String,
    #[serde(flatten)]
    index: Index,
    crc32: String,
}

impl Index {
    fn checksum(&self, owner: &str) -> String {
        format!("{:08x}", crc32fast::hash(format!("{owner} {self:?}").as_bytes()))
    }
}

/// Records the versions of one view.
#[derive(Debug, Clone)]
pub(crate) struct VersionFiles {
    /// A query that ends later does not hold the data directory.
    store: Weak<Store>,
    definition: Definition,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    index: Index,
    /// How far ahead `reached` is recorded, in µs of event time, and when that was done last.
    ahead: i64,
    recorded_micros: i64,
}

impl VersionFiles {
    /// Opens the files of a view; those of a new view are created when its first version is recorded.
    ///
    /// # Errors
    /// When the index is damaged.
    pub(crate) fn open(
        store: &Arc<Store>,
        definition: &Definition,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let path = store.versions_dir(definition).join("index.json");
        let index = match store.read_rows(definition, Part::Versions, path.clone())? {
            None => Index::default(),
            Some((_, bytes)) => {
                let owner = store.versions_owner(definition).id;
                let stored: Stored = serde_json::from_slice(&bytes)
                    .map_err(|e| corrupt(&path, 0, &e.to_string()))?;
                if stored.owner != owner || stored.crc32 != stored.index.checksum(&owner) {
                    return Err(corrupt(&path, 0, "its checksum is wrong"));
                }
                stored.index
            }
        };
        let state = State { index, ahead: AHEAD_MICROS, recorded_micros: i64::MIN };
        Ok(Self {
            store: Arc::downgrade(store),
            definition: definition.clone(),
            clock: Arc::clone(clock),
            state: Arc::new(Mutex::new(state)),
        })
    }

    fn store(&self) -> Result<Arc<Store>> {
        let closed = || Error::new(ErrorKind::Cancelled, "the data directory is closed");
        self.store.upgrade().ok_or_else(closed)
    }

    fn path(&self, store: &Store, file: usize) -> PathBuf {
        store.versions_dir(&self.definition).join(format!("{file}.arrow"))
    }

    /// Replaces the index.
    fn write(&self, index: Index) -> Result<()> {
        let store = self.store()?;
        let folder = store.versions_dir(&self.definition);
        let path = folder.join("index.json");
        let owner = store.versions_owner(&self.definition).id;
        let crc32 = index.checksum(&owner);
        let bytes = serde_json::to_vec(&Stored { owner, index: index.clone(), crc32 });
        let bytes = bytes.map_err(|e| io_error("write", &path, e.into()))?;
        store.write_rows(&folder, &path, &bytes)?;
        store.note_opened(&self.definition, Part::Versions);
        self.state.lock().index = index;
        Ok(())
    }

    fn read(&self, entry: &Entry) -> Result<Counted> {
        let store = self.store()?;
        let path = self.path(&store, entry.file);
        let read = store.read_rows(&self.definition, Part::Versions, path.clone())?;
        let (path, bytes) = read.ok_or_else(|| missing("the file", &path))?;
        let (_, rows) = read_batches(&path, &bytes, &store.versions_owner(&self.definition))?;
        let version = TableVersion::try_new(entry.loaded, rows, None)?;
        Ok(Counted { from_micros: entry.from, version: Arc::new(version) })
    }

    fn add(
        &self,
        table: &str,
        schema: &SchemaRef,
        (rows, next): (&[RecordBatch], &Counted),
    ) -> Result<()> {
        let store = self.store()?;
        let mut index = self.state.lock().index.clone();
        let file = index.versions.len() + 1;
        let bytes = to_bytes(schema, rows, &store.versions_owner(&self.definition))?;
        store.write_rows(
            &store.versions_dir(&self.definition),
            &self.path(&store, file),
            &bytes,
        )?;
        index.versions.push(Entry {
            table: table.to_owned(),
            from: next.from_micros,
            loaded: next.version.loaded_micros,
            file,
        });
        self.write(index)
    }
}

impl Recorder for VersionFiles {
    fn recorded<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<Vec<Counted>>> {
        let files = self.clone();
        let table = table.to_owned();
        Box::pin(blocking(move || {
            let entries = files.state.lock().index.versions.clone();
            // A view that has begun without versions of the table has joined rows with another one.
            if !files.definition.parts.is_empty() && !entries.iter().any(|e| e.table == table) {
                return Err(changed_rule(
                    &files.definition.name,
                    &table,
                    "is refreshed now, and was not",
                ));
            }
            entries.iter().filter(|entry| entry.table == table).map(|e| files.read(e)).collect()
        }))
    }

    fn record<'a>(
        &'a self,
        table: &'a RefreshedTable,
        next: &'a Counted,
    ) -> BoxFuture<'a, Result<()>> {
        let (files, next) = (self.clone(), next.clone());
        let (name, schema) = (table.name().to_owned(), table.files().schema());
        Box::pin(blocking(move || files.add(&name, &schema, (&next.version.batches, &next))))
    }

    fn reached(&self) -> Option<i64> {
        self.state.lock().index.reached
    }

    fn reach(&self, micros: i64) -> BoxFuture<'_, Result<()>> {
        let now = self.clock.now_micros();
        let mut state = self.state.lock();
        if state.index.reached.is_some_and(|reached| micros <= reached) {
            return Box::pin(std::future::ready(Ok(())));
        }
        // A replay of old rows moves through event time quickly.
        let often = i64::try_from(OFTEN.as_micros()).unwrap_or(i64::MAX);
        state.ahead = match now.saturating_sub(state.recorded_micros) < often {
            true => state.ahead.saturating_mul(2),
            false => AHEAD_MICROS,
        };
        state.recorded_micros = now;
        let mut index = state.index.clone();
        index.reached = Some(micros.saturating_add(state.ahead));
        drop(state);
        let files = self.clone();
        Box::pin(blocking(move || files.write(index)))
    }
}

/// The error for a table that has become a refreshed one, or was one (`what`), after a view over it has begun.
pub(crate) fn changed_rule(view: &str, table: &str, what: &str) -> Error {
    Error::sql(format!("table \"{table}\" {what} when view \"{view}\" began")).with_hint(format!(
        "Create the table as it was, or DROP MATERIALIZED VIEW {view} and create it again."
    ))
}

/// Runs blocking work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal("access to the versions of a table stopped").with_source(e))?
}
