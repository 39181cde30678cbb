//! The memory limit (`--memory-limit`): how it is divided, and what spills to disk when memory is short.
//!
//! ```text
//! limit ─┬─ 6/8 a pool of DataFusion ─► state of windows, one share per operator │ sorts, joins, groupings
//!        ├─ 1/8 windows that are read back from disk, piece by piece
//!        └─ 1/8 tails: rows of streams and views that no archive has yet
//! ```
//! Each stateful operator of a query (the parts of its workers, its coordinator's part) is one spillable consumer of
//! the pool, which gives all of them, and DataFusion's own operators, even shares. An operator that is over its share
//! spills its largest parts and continues. An operator with little state takes no share. Tails that exceed their part
//! are spilled (`tail`).
//!
//! Invariants: state is measured after it has grown, so the limit is exceeded by one micro-batch per worker at most.
//! Memory pressure never changes an answer: state that cannot be divided is an error. Without a limit nothing is
//! measured.

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

/// The divisor of the limit that gives the part for windows that are read back, and the part for tails.
const PARTS: usize = 8;
/// A log may hold the part for tails divided by this, but at most [`OWN_TAIL_BYTES`], in any case, so that it does not
/// spill row by row when other logs use up the part.
const OWN_TAIL_PART: usize = 8;
const OWN_TAIL_BYTES: usize = 1 << 20;
/// An operator takes a share once it holds more than the limit divided by this.
const SMALL_PART: usize = 64;
/// When three quarters of the pool are taken, an operator that holds more than the pool divided by this spills: the
/// rest is for consumers that cannot spill, such as the hash table of a join.
const LARGE_PART: usize = 16;
/// State is counted with a surcharge of its size divided by this: a hash table that grows exists twice for a moment,
/// and the allocator retains some freed memory.
const GROWTH_PART: usize = 2;
/// The minimum size, in bytes, of the pieces in which windows are read back.
const PASS_BYTES_MIN: usize = 64 << 10;
/// A store is measured after each input of this many bytes, more often where the limit is small.
const MEASURED_BYTES: usize = 256 << 10;

/// The memory limit of an engine.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    pool: Arc<SharedPool>,
    /// The bytes of all tails in memory.
    tails: AtomicUsize,
    /// The directory for spill files, which have no name there, so that none is left after a crash.
    directory: PathBuf,
    /// Whether the directory is for nothing else.
    own: bool,
}

impl Memory {
    /// Returns a limit of `limit` bytes. Files are created in `own`, a directory for nothing else, or in the system's
    /// directory for temporary files. `give_back` is called whenever much of the pool was taken: it returns the
    /// allocator's unused memory to the system.
    pub fn new(limit: usize, own: Option<PathBuf>, give_back: Option<fn()>) -> Arc<Self> {
        let (own, directory) = (own.is_some(), own.unwrap_or_else(std::env::temp_dir));
        let pool = Arc::new(SharedPool::new(limit - limit / PARTS * 2, give_back));
        Arc::new(Self { limit, pool, tails: AtomicUsize::new(0), directory, own })
    }

    /// Returns the environment of DataFusion's operators, with this pool and directory. Files left by a crashed process
    /// are deleted.
    ///
    /// # Errors
    /// When the directory cannot be emptied or created.
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

    /// Returns the share of a stateful operator of `query`. The bytes that it spills are added to `spilled`.
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

    /// The maximum bytes of rows queued for one reader.
    pub fn queue_bytes(&self) -> usize {
        (self.limit / PARTS / 4).max(PASS_BYTES_MIN)
    }

    /// Creates a file for a tail.
    ///
    /// # Errors
    /// When it cannot be created.
    pub(crate) fn tail_file(&self) -> Result<Arc<TailFile>> {
        TailFile::create(&self.directory).map(Arc::new)
    }

    /// Records that a tail has `bytes` more in memory.
    pub(crate) fn tail_grown(&self, bytes: usize) {
        self.tails.fetch_add(bytes, Ordering::Relaxed);
        self.pool.passed(bytes);
    }

    /// Records that a tail has `bytes` less in memory.
    pub(crate) fn tail_shrunk(&self, bytes: usize) {
        self.tails.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether a tail with `mine` bytes in memory should spill some of them.
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

/// Converts an error of a bounded plan. An I/O error of spilled sorts, joins and groupings names the directory for
/// spill files, because DataFusion only passes on the error of the system.
pub fn plan_error(error: DataFusionError, env: &RuntimeEnv) -> Error {
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
            io_error("spill to", directory, again)
        }
        _ => from_datafusion(error),
    }
}

/// The memory of one stateful operator.
pub struct OperatorMemory {
    memory: Arc<Memory>,
    query: String,
    spilled: Arc<AtomicU64>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The bytes of each part.
    parts: Vec<usize>,
    share: Share,
}

impl fmt::Debug for OperatorMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorMemory").field("query", &self.query).finish_non_exhaustive()
    }
}

impl OperatorMemory {
    /// Registers a further part.
    pub fn part(self: &Arc<Self>) -> Part {
        let mut held = self.held.lock();
        held.parts.push(0);
        Part { operator: Arc::clone(self), number: held.parts.len() - 1 }
    }

    /// Records the bytes of a part; returns whether the operator is over its share and this part should spill. A part
    /// that holds less than half of the average need not.
    fn report(&self, number: usize, bytes: usize) -> bool {
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
        // The whole limit, but not less than pieces take in any case.
        let limit = self.memory.limit.max(4 * PASS_BYTES_MIN);
        (bytes > limit).then(|| {
            let (query, state) = (&self.query, display(bytes));
            let limit = display(self.memory.limit);
            Error::new(
                ErrorKind::Limit,
                format!("a few groups of query \"{query}\" take {state}, the memory limit is {limit}"),
            )
            .with_detail("State spills group by group, and a single group cannot be divided.")
            .with_hint(
                "Raise the limit (--memory-limit), use shorter windows, or an aggregate that keeps less.",
            )
        })
    }
}

/// A measured part of an operator: that of a worker or of the coordinator. Its bytes are released when it is dropped.
#[derive(Debug)]
pub struct Part {
    operator: Arc<OperatorMemory>,
    number: usize,
}

impl Part {
    /// Records the bytes that the part holds now; returns whether it should spill.
    pub fn report(&self, bytes: usize) -> bool {
        self.operator.report(self.number, bytes)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.operator.report(self.number, 0);
    }
}

/// A worker's part of an operator, which is measured if there is a limit.
#[derive(Debug)]
pub struct MeasuredStore {
    store: Box<dyn WorkerPart>,
    part: Option<Part>,
    /// Bytes of input since it was measured last.
    news: usize,
}

impl MeasuredStore {
    /// Wraps a worker's part; `operator`: the operator's memory, if there is a limit.
    pub fn new(store: Box<dyn WorkerPart>, operator: Option<&Arc<OperatorMemory>>) -> Self {
        Self { store, part: operator.map(OperatorMemory::part), news: 0 }
    }

    /// Records that `rows` were added; the part spills if memory is short now.
    ///
    /// # Errors
    /// When spilling fails.
    pub fn grown(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(part) = &self.part else { return Ok(()) };
        self.news = self.news.saturating_add(rows.get_array_memory_size());
        let measured = MEASURED_BYTES.min(part.operator.memory.limit / SMALL_PART);
        if self.news < measured {
            return Ok(());
        }
        self.news = 0;
        if part.report(self.store.size_bytes()) {
            self.store.spill(part.operator.as_ref())?;
            // The bytes of an empty store still count.
            part.report(self.store.size_bytes());
        }
        Ok(())
    }

    /// Moves the whole state out, as [`WorkerPart::take`] does; it is not measured any more.
    pub fn take(&mut self) -> Box<dyn WorkerPart> {
        let taken = self.store.take();
        self.shrunk();
        taken
    }

    /// Measures the part again, after slices have left it.
    pub fn shrunk(&mut self) {
        if let Some(part) = &self.part {
            self.news = 0;
            part.report(self.store.size_bytes());
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

/// Formats a number of bytes for messages, such as `64 MiB`.
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
            let error = plan_error(error, &env);
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let place = tmp.path().join("tmp").display().to_string();
            assert!(error.message().contains(&place), "{error}");
            assert!(error.hints().iter().any(|hint| hint.contains("Free space")), "{error}");
        }
        let other = plan_error(DataFusionError::Execution("no".into()), &env);
        assert_eq!(other.message(), "no");
    }
}
