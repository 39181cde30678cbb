//! The limit of memory (`--memory-limit`): what has how much, and what goes to disk when it is short.
//!
//! ```text
//! limit ─┬─ 6/8 a pool of DataFusion ─► state of windows, one share per operator │ sorts, joins, groupings
//!        ├─ 1/8 windows that are read back from disk, piece by piece
//!        └─ 1/8 tails: rows of streams and views that no archive has yet
//! ```
//! Each window operator of a query (its workers' stores, its merger) is one spillable consumer of
//! the pool, which gives all of them, and DataFusion's own operators, even shares. An operator
//! that is over its share writes its largest parts to disk and goes on. An operator with little
//! state takes no share. What of the tails is beyond their part lies on disk (`tail`).
//!
//! Invariants: state is measured after it has grown, so the limit is passed by one micro-batch per
//! worker at most. Being short of memory never changes an answer: what cannot be divided is an
//! error. Without a limit nothing is measured.

mod file;
mod pool;
mod sorted;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use parking_lot::Mutex;
use windrow_core::{Error, ErrorKind, Result};
use windrow_operators::{SpillFile, SpillSpace, WorkerPart};
use windrow_sql::diagnostics::from_datafusion;
use windrow_storage::files::io_error;

use crate::memory::pool::{Share, SharedPool};

pub(crate) use self::file::TailFile;
pub use self::sorted::sorted;

/// Windows that are read back have one of so many parts of the limit, and tails one.
const PARTS: usize = 8;
/// A log may keep this part of the bytes for tails in any case, and this much at most, so that
/// it does not write row by row where others take all of them.
const OWN_TAIL_PART: usize = 8;
const OWN_TAIL_BYTES: usize = 1 << 20;
/// An operator takes a share from this part of the limit on.
const SMALL_PART: usize = 64;
/// When three quarters of the pool are taken, an operator that holds more than this part of it
/// goes to disk: the rest is for consumers that cannot spill, such as the hash table of a join.
const LARGE_PART: usize = 16;
/// A table that grows is there twice for a moment, and the allocator keeps some of what it is given back: state
/// counts for so much more than it holds, one part of this many.
const GROWTH_PART: usize = 2;
/// A window is not read back in smaller pieces than this, in bytes.
const PASS_BYTES_MIN: usize = 64 << 10;
/// A store is measured when it has taken in so many bytes.
const MEASURED_BYTES: usize = 256 << 10;

/// The limit of an engine.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    pool: Arc<SharedPool>,
    /// Bytes of all tails in memory.
    tails: AtomicUsize,
    /// Where files go; they have no name there, so that none is left after a crash.
    directory: PathBuf,
    /// Nothing else is put there.
    own: bool,
}

impl Memory {
    /// A limit of so many bytes. Files go to `own`, a directory for nothing else, or to that of
    /// the system. `give_back` is called when much of the limit is taken.
    pub fn new(limit: usize, own: Option<PathBuf>, give_back: Option<fn()>) -> Arc<Self> {
        let (own, directory) = (own.is_some(), own.unwrap_or_else(std::env::temp_dir));
        let pool = Arc::new(SharedPool::new(limit - limit / PARTS * 2, give_back));
        Arc::new(Self { limit, pool, tails: AtomicUsize::new(0), directory, own })
    }

    /// What DataFusion's operators run with. What a process that crashed left is deleted.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn env(&self) -> Result<Arc<RuntimeEnv>> {
        if self.own
            && let Err(error) = std::fs::remove_dir_all(&self.directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(io_error("delete", &self.directory, error));
        }
        std::fs::create_dir_all(&self.directory)
            .map_err(|e| io_error("create", &self.directory, e))?;
        let directories = DiskManagerMode::Directories(vec![self.directory.clone()]);
        RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::clone(&self.pool) as _)
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(directories))
            .build_arc()
            .map_err(from_datafusion)
    }

    /// The share of a window operator of `query`. What it writes to disk is added to `spilled`.
    pub fn operator(
        self: &Arc<Self>,
        query: &str,
        spilled: &Arc<AtomicU64>,
    ) -> Arc<OperatorMemory> {
        Arc::new(OperatorMemory {
            memory: Arc::clone(self),
            query: query.to_owned(),
            spilled: Arc::clone(spilled),
            held: Mutex::default(),
        })
    }

    fn pass_bytes(&self) -> usize {
        (self.limit / PARTS).max(PASS_BYTES_MIN)
    }

    /// Bytes that rows on their way to one reader may take.
    pub fn queue_bytes(&self) -> usize {
        (self.limit / PARTS / 4).max(PASS_BYTES_MIN)
    }

    /// A file for a tail.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn tail_file(&self) -> Result<Arc<TailFile>> {
        TailFile::create(&self.directory).map(Arc::new)
    }

    /// A tail has so many bytes more in memory.
    pub(crate) fn tail_grown(&self, bytes: usize) {
        self.tails.fetch_add(bytes, Ordering::Relaxed);
        self.pool.passed(bytes);
    }

    /// A tail has so many bytes less in memory.
    pub(crate) fn tail_shrunk(&self, bytes: usize) {
        self.tails.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether a tail that has so many bytes in memory should write some to disk.
    pub(crate) fn tail_is_over(&self, mine: usize) -> bool {
        let max = self.limit / PARTS;
        mine > (max / OWN_TAIL_PART).min(OWN_TAIL_BYTES) && self.tails.load(Ordering::Relaxed) > max
    }

    #[cfg(test)]
    fn pool_reserved(&self) -> usize {
        use datafusion::execution::memory_pool::MemoryPool;
        self.pool.reserved()
    }
}

/// An error of a bounded plan as one for people. One of the disk names the directory that the engine's sorts, joins and
/// groupings go to when memory is short: the engine itself only says what the system said.
pub fn of_plan(error: DataFusionError, env: &RuntimeEnv) -> Error {
    let raw = match error.find_root() {
        DataFusionError::IoError(io) => Some(io),
        DataFusionError::ArrowError(arrow, _) => match arrow.as_ref() {
            ArrowError::IoError(_, io) => Some(io),
            _ => None,
        },
        _ => None,
    };
    let raw = raw.filter(|io| io.get_ref().is_none_or(|inner| !inner.is::<Error>()));
    match (raw, env.disk_manager.temp_dir_paths().first()) {
        (Some(io), Some(directory)) => {
            let again = io::Error::new(io.kind(), io.to_string());
            io_error("keep in files what is over the limit of memory, in", directory, again)
        }
        _ => from_datafusion(error),
    }
}

/// What one window operator holds.
pub struct OperatorMemory {
    memory: Arc<Memory>,
    query: String,
    spilled: Arc<AtomicU64>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Bytes of each store, and of the merger.
    parts: Vec<usize>,
    share: Share,
}

impl fmt::Debug for OperatorMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorMemory").field("query", &self.query).finish_non_exhaustive()
    }
}

impl OperatorMemory {
    /// A further store or merger.
    pub fn part(self: &Arc<Self>) -> Part {
        let mut held = self.held.lock();
        held.parts.push(0);
        Part { operator: Arc::clone(self), number: held.parts.len() - 1 }
    }

    /// Tells the bytes of a part; true when the operator is over its share and this part should
    /// go to disk. One that holds much less than the others may wait for them.
    fn tell(&self, number: usize, bytes: usize) -> bool {
        let mut held = self.held.lock();
        if let Some(part) = held.parts.get_mut(number) {
            *part = bytes;
        }
        let all: usize = held.parts.iter().sum();
        let memory = &self.memory;
        let taken = all + all / GROWTH_PART;
        let over = !memory.pool.resize(&mut held.share, taken, memory.limit / SMALL_PART);
        over && bytes > 0 && bytes.saturating_mul(2 * held.parts.len()) >= all
    }
}

impl SpillSpace for OperatorMemory {
    fn create(&self) -> Result<Box<dyn SpillFile>> {
        file::create(&self.memory.directory, Arc::clone(&self.spilled))
    }

    fn pass_bytes(&self) -> usize {
        self.memory.pass_bytes()
    }

    fn refuses(&self, bytes: usize) -> Option<Error> {
        // As much as there is, but not less than a piece takes anyway.
        let limit = self.memory.limit.max(4 * PASS_BYTES_MIN);
        (bytes > limit).then(|| {
            let (query, state) = (&self.query, display(bytes));
            let limit = display(self.memory.limit);
            Error::new(
                ErrorKind::Limit,
                format!("a few groups of query \"{query}\" take {state}, the memory limit is {limit}"),
            )
            .with_detail("State goes to disk group by group, and a single group cannot be divided.")
            .with_hint(
                "Raise the limit (--memory-limit), use shorter windows, or an aggregate that keeps less.",
            )
        })
    }
}

/// A store or a merger, as its operator counts it. What it held is given back when it is dropped.
#[derive(Debug)]
pub struct Part {
    operator: Arc<OperatorMemory>,
    number: usize,
}

impl Part {
    /// Tells what the part takes now; true when it should go to disk.
    pub fn tell(&self, bytes: usize) -> bool {
        self.operator.tell(self.number, bytes)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.operator.tell(self.number, 0);
    }
}

/// A worker's part of an operator that is measured, if there is a limit.
#[derive(Debug)]
pub struct MeasuredStore {
    store: Box<dyn WorkerPart>,
    part: Option<Part>,
    /// Bytes taken in since it was measured.
    news: usize,
}

impl MeasuredStore {
    /// A worker's part of the operator, measured where memory has a limit.
    pub fn new(store: Box<dyn WorkerPart>, operator: Option<&Arc<OperatorMemory>>) -> Self {
        Self { store, part: operator.map(OperatorMemory::part), news: 0 }
    }

    /// `rows` have been taken in: when memory is short now, the store goes to disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn grown(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(part) = &self.part else { return Ok(()) };
        self.news = self.news.saturating_add(rows.get_array_memory_size());
        let measured = MEASURED_BYTES.min(part.operator.memory.limit / SMALL_PART);
        if self.news < measured {
            return Ok(());
        }
        self.news = 0;
        if part.tell(self.store.size_bytes()) {
            self.store.spill(part.operator.as_ref())?;
            // What an empty store takes is counted, and does not go away.
            part.tell(self.store.size_bytes());
        }
        Ok(())
    }

    /// Moves the whole state out, as [`WorkerPart::take`] does. What is moved out is not measured.
    pub fn take(&mut self) -> Box<dyn WorkerPart> {
        let taken = self.store.take();
        self.shrunk();
        taken
    }

    /// Slices have left.
    pub fn shrunk(&mut self) {
        if let Some(part) = &self.part {
            self.news = 0;
            part.tell(self.store.size_bytes());
        }
    }
}

impl Deref for MeasuredStore {
    type Target = dyn WorkerPart;

    fn deref(&self) -> &Self::Target {
        self.store.as_ref()
    }
}

impl DerefMut for MeasuredStore {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.store.as_mut()
    }
}

/// Bytes for people.
pub fn display(bytes: usize) -> String {
    let mut value = bytes;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 10 * 1024 {
            break;
        }
        (value, unit) = (value / 1024, larger);
    }
    format!("{value} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_disk_names_the_directory() {
        let tmp = tempfile::tempdir().unwrap();
        let memory = Memory::new(1 << 20, Some(tmp.path().join("tmp")), None);
        let env = memory.env().unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let errors = [
            DataFusionError::IoError(full()),
            DataFusionError::IoError(full()).context("sort"),
            ArrowError::IoError("full".into(), full()).into(),
        ];
        for error in errors {
            let error = of_plan(error, &env);
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let place = tmp.path().join("tmp").display().to_string();
            assert!(error.message().contains(&place), "{error}");
            assert!(error.hints().iter().any(|hint| hint.contains("Free space")), "{error}");
        }
        let other = of_plan(DataFusionError::Execution("no".into()), &env);
        assert_eq!(other.message(), "no");
    }
}
