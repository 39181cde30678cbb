//! The limit of memory (`--memory-limit`): who has how much, and what goes to disk when it is short.
//!
//! ```text
//! limit ─┬─ 7/8 a DataFusion pool ─► state of windows, one share per operator │ sorts, joins, groupings
//!        └─ 1/8 windows that are read back from disk, piece by piece
//! ```
//! Each window operator of a query (its workers' stores, its merger) is one spillable consumer of
//! the pool, which gives all of them, and DataFusion's own operators, even shares. An operator
//! that is over its share writes its largest parts to disk and goes on. An operator with little
//! state takes no share.
//!
//! Invariants: state is measured after it has grown, so the limit is passed by one micro-batch per
//! worker at most. Being short of memory never changes an answer: what cannot be divided is an
//! error. Without a limit nothing is measured.

mod file;

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{
    FairSpillPool, MemoryConsumer, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use parking_lot::Mutex;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_window::{SliceStore, SpillFile, SpillSpace};

use crate::durable::files::io_error;

/// The part of the limit for windows that are read back.
const PASS_PART: usize = 8;
/// An operator takes a share from this part of the limit on.
const SMALL_PART: usize = 64;
/// When three quarters of the pool are taken, an operator that holds more than this part of it
/// goes to disk: the rest is for those who cannot give way, such as the hash table of a join.
const LARGE_PART: usize = 16;
/// A window is not read back in smaller pieces than this, in bytes.
const PASS_BYTES_MIN: usize = 64 << 10;
/// A store is measured when it has taken in so many bytes.
const MEASURED_BYTES: usize = 256 << 10;

/// The limit of an engine.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    pool: Arc<dyn MemoryPool>,
    /// Where files go; they have no name there, so that none is left after a crash.
    directory: PathBuf,
    /// Nobody else puts anything there.
    own: bool,
}

impl Memory {
    /// A limit of so many bytes. Files go to `own`, a directory for nothing else, or to that of
    /// the system.
    pub(crate) fn new(limit: usize, own: Option<PathBuf>) -> Arc<Self> {
        let (own, directory) = (own.is_some(), own.unwrap_or_else(std::env::temp_dir));
        let pool = Arc::new(FairSpillPool::new(limit - limit / PASS_PART));
        Arc::new(Self { limit, pool, directory, own })
    }

    /// What DataFusion's operators run with. What a process that crashed left is deleted.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(crate) fn env(&self) -> Result<Arc<RuntimeEnv>> {
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
            .with_memory_pool(Arc::clone(&self.pool))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(directories))
            .build_arc()
            .map_err(from_datafusion)
    }

    /// The share of a window operator of `query`. What it writes to disk is added to `spilled`.
    pub(crate) fn operator(
        self: &Arc<Self>,
        query: &str,
        spilled: &Arc<AtomicU64>,
    ) -> Arc<OperatorMemory> {
        let name = format!("windows of query \"{query}\"");
        let little = MemoryConsumer::new(name.as_str()).register(&self.pool);
        Arc::new(OperatorMemory {
            memory: Arc::clone(self),
            query: query.to_owned(),
            name,
            spilled: Arc::clone(spilled),
            held: Mutex::new(Held { parts: vec![], little, share: None }),
        })
    }

    fn pool_bytes(&self) -> usize {
        self.limit - self.limit / PASS_PART
    }

    fn pass_bytes(&self) -> usize {
        (self.limit / PASS_PART).max(PASS_BYTES_MIN)
    }
}

/// An error of a bounded plan as one for people. One of the disk names the directory that the engine's sorts, joins and
/// groupings go to when memory is short: the engine itself only says what the system said.
pub(crate) fn of_plan(error: DataFusionError, env: &RuntimeEnv) -> Error {
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
            // Whoever wrapped it hid its kind.
            let full = io.to_string().contains("No space left on device");
            let kind = if full { io::ErrorKind::StorageFull } else { io.kind() };
            let again = io::Error::new(kind, io.to_string());
            io_error("keep in files what is over the limit of memory, in", directory, again)
        }
        _ => from_datafusion(error),
    }
}

/// What one window operator holds.
pub(crate) struct OperatorMemory {
    memory: Arc<Memory>,
    query: String,
    name: String,
    spilled: Arc<AtomicU64>,
    held: Mutex<Held>,
}

struct Held {
    /// Bytes of each store, and of the merger.
    parts: Vec<usize>,
    /// While that is little: it need not give way.
    little: MemoryReservation,
    share: Option<MemoryReservation>,
}

impl fmt::Debug for OperatorMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorMemory").field("query", &self.query).finish_non_exhaustive()
    }
}

impl OperatorMemory {
    /// A further store or merger.
    pub(crate) fn part(self: &Arc<Self>) -> Part {
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
        let over = !held.resize(all, self);
        over && bytes > 0 && bytes.saturating_mul(2 * held.parts.len()) >= all
    }
}

impl Held {
    /// Whether there is so much for this operator. It is counted in any case.
    fn resize(&mut self, bytes: usize, operator: &OperatorMemory) -> bool {
        let memory = &operator.memory;
        if bytes <= memory.limit / SMALL_PART {
            self.share = None;
            self.little.resize(bytes);
            return true;
        }
        self.little.free();
        let share = self.share.get_or_insert_with(|| {
            let consumer = MemoryConsumer::new(operator.name.as_str()).with_can_spill(true);
            consumer.register(&memory.pool)
        });
        let fits = share.try_resize(bytes).is_ok();
        share.resize(bytes);
        let tight = memory.pool.reserved() > memory.pool_bytes() / 4 * 3;
        fits && !(tight && bytes > memory.pool_bytes() / LARGE_PART)
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
pub(crate) struct Part {
    operator: Arc<OperatorMemory>,
    number: usize,
}

impl Part {
    /// Tells what the part takes now; true when it should go to disk.
    pub(crate) fn tell(&self, bytes: usize) -> bool {
        self.operator.tell(self.number, bytes)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.operator.tell(self.number, 0);
    }
}

/// A slice store that is measured, if there is a limit.
#[derive(Debug)]
pub(crate) struct MeasuredStore {
    store: SliceStore,
    part: Option<Part>,
    /// Bytes taken in since it was measured.
    news: usize,
}

impl MeasuredStore {
    pub(crate) fn new(store: SliceStore, operator: Option<&Arc<OperatorMemory>>) -> Self {
        Self { store, part: operator.map(OperatorMemory::part), news: 0 }
    }

    /// `rows` have been taken in: when memory is short now, the store goes to disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn grown(&mut self, rows: &RecordBatch) -> Result<()> {
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

    /// Slices have left.
    pub(crate) fn shrunk(&mut self) {
        if let Some(part) = &self.part {
            self.news = 0;
            part.tell(self.store.size_bytes());
        }
    }
}

impl Deref for MeasuredStore {
    type Target = SliceStore;

    fn deref(&self) -> &SliceStore {
        &self.store
    }
}

impl DerefMut for MeasuredStore {
    fn deref_mut(&mut self) -> &mut SliceStore {
        &mut self.store
    }
}

/// Bytes for people.
pub(crate) fn display(bytes: usize) -> String {
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
        let memory = Memory::new(1 << 20, Some(tmp.path().join("tmp")));
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
