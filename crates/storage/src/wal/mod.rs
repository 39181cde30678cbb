//! A log of Arrow batches on disk, in segments, by offset (row number).
//!
//! ```text
//! dir/00000000000000000000.wal   header, records [0, 80)
//!     00000000000000000080.wal   header, records [80, 160)
//!     00000000000000000160.wal   header, records [160, …) ◄─ writer thread ◄─ queue ◄─ append
//! EXTENT                         where the log ended when that was last noted
//! ```
//! Invariants: offsets tile over records and segments; a record is never split over segments and never rewritten; an
//! append is acknowledged after its rows are as durable as requested and have been applied; damage is an error that
//! names the file, only a torn tail is truncated (and reported); a log that ends before its known end is an error,
//! until the loss is accepted: then it resumes behind that end, so that no offset is assigned twice.
//!
//! `extent.rs` records where the log ends; `producers.rs` recognises repeated batches, `segment.rs` defines the bytes,
//! `recovery.rs` reads a log back, `writer.rs` writes it.

pub mod extent;
pub mod producers;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use windrow_core::Owner;
use windrow_core::offset::Gaps;
use windrow_core::size::bytes_of;
use windrow_core::{Error, ErrorKind, Layout, Result};

use crate::files::{Files, io_error};
use producers::{Producers, Stamp};
use segment::Beginning;
use writer::{Active, Request, Writer, create_segment};
pub use writer::{Appended, Applied};

/// Requests queued for the writer at most.
const QUEUE_MAX: usize = 1_024;
/// Memory of the rows queued for the writer, in KiB (one larger batch may pass alone).
const QUEUE_KIB_MAX: u32 = 64 << 10;

/// When rows count as durable. (Rows in memory only have no log.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// They survive a power failure: synced to the disk.
    Fsync,
    /// They survive the end of the process: written to the operating system.
    Os,
}

/// Options of a log.
#[derive(Debug, Clone, Copy)]
pub struct WalOptions {
    /// When rows count as durable.
    pub durability: Durability,
    /// A segment with this many bytes is followed by a new one; a larger record has a segment of its own.
    pub segment_bytes_max: u64,
    /// A segment with this many records is followed by a new one.
    pub segment_records_max: u64,
}

/// Records of a segment where each one is an object of its own: few can be deleted at a time.
const OBJECTS_MAX: u64 = 1_000;
/// With more segments than this, a log of such records should be archived.
const SEGMENTS_MANY: usize = 4;

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            segment_bytes_max: 64 << 20,
            segment_records_max: u64::MAX,
        }
    }
}

/// What is known of a log from other sources.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The owner of the log.
    pub owner: Option<Owner>,
    /// Rows below this offset have been in it.
    pub end: u64,
    /// The part of that covered by the note beside it.
    pub noted: u64,
    /// The sources of this knowledge, in sentences.
    pub from: Vec<String>,
    /// Rows that were lost, and whose loss was accepted.
    pub gaps: Gaps,
    /// The progress of the producers when the extent was noted.
    pub producers: Option<Producers>,
    /// The values of the last columns, one each, in rows that were written before these columns were added.
    pub added: Vec<ArrayRef>,
}

/// The contents of a log when it was opened.
#[derive(Debug)]
pub struct Recovered {
    /// The offset of the first row returned: the requested `from`, or behind what was lost there.
    pub first: u64,
    /// One past the last offset; the next append begins here.
    pub end: u64,
    /// The rows between, by first offset.
    pub batches: Vec<(u64, RecordBatch)>,
    /// The remains of an interrupted write.
    pub cut: Option<CutTail>,
}

/// The end of an interrupted write, which was truncated. No row of it was ever read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// The segment.
    pub file: PathBuf,
    /// Its length after that; 0 when it was removed.
    pub at: u64,
    /// Number of bytes removed.
    pub bytes: u64,
    /// What was wrong with them.
    pub why: &'static str,
}

/// A file of the log.
#[derive(Debug, Clone)]
struct Segment {
    /// The offset of its first row.
    first: u64,
    path: PathBuf,
}

/// State shared by the writer and its log.
#[derive(Debug)]
struct Shared {
    /// All segments, ascending; the last one grows.
    segments: Mutex<Vec<Segment>>,
    /// One past the last applied offset.
    end: AtomicU64,
    /// The progress of the producers, as far as durable.
    producers: Mutex<Producers>,
    /// The columns.
    layout: Mutex<Layout>,
}

impl Shared {
    fn layout(&self) -> Layout {
        self.layout.lock().clone()
    }
}

/// An open log. Dropping it writes what is queued, and then ends.
pub struct Wal {
    files: Arc<dyn Files>,
    dir: PathBuf,
    durability: Durability,
    owner: Option<String>,
    /// The end of the log when it was last noted.
    noted: Mutex<u64>,
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    /// `None` only during drop.
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("dir", &self.dir).field("shared", &self.shared).finish()
    }
}

impl Wal {
    /// Opens the log in `dir`, or creates it. Rows below `from` are not returned (they are archived). `applied` is
    /// called by the writer's thread, in the order of offsets, with rows that are durable; not with those returned
    /// here.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is damaged, does not reach back to `from`, belongs to another owner, or has lost
    /// rows that are `known` to have been in it; [`ErrorKind::Data`] when it has other columns or an unknown format;
    /// [`ErrorKind::Unavailable`] when the file system fails.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        schema: &SchemaRef,
        (from, known): (u64, &Known),
        (options, applied): (WalOptions, Applied),
    ) -> Result<(Self, Recovered)> {
        files.create_dir(dir).map_err(|e| io_error("create", dir, e))?;
        let found = recovery::recover(&*files, dir, schema, from, known)?;
        if found.recovered.end < known.end {
            return Err(extent::lost_rows(dir, found.recovered.end, known));
        }
        found.cut(&*files)?;
        let recovery::Found { mut segments, active_len, producers, recovered } = found;
        let owner = known.owner.as_ref().map(|owner| owner.id.clone());
        let mut options = options;
        if files.writes_whole() {
            options.segment_records_max = options.segment_records_max.min(OBJECTS_MAX);
        }
        let mut active = None;
        if let (Some(last), Some(len)) = (segments.last(), active_len) {
            active = Some(reopen(&*files, dir, last, len, recovered.end)?);
        }
        // A new one where another writer would begin it, so that only one of the two can.
        let active = match active.filter(|a| a.records == 0 || !files.writes_whole()) {
            Some(active) => active,
            None => {
                let first = recovered.end;
                let (producers, owner) = (&producers, owner.as_deref());
                let begin = Beginning { schema, producers, owner };
                let active =
                    create_segment(&*files, dir, begin, first, false).map_err(|not| not.error)?;
                segments.push(Segment { first, path: active.path.clone() });
                active
            }
        };
        let shared = Arc::new(Shared {
            segments: Mutex::new(segments),
            end: AtomicU64::new(recovered.end),
            producers: Mutex::new(producers),
            layout: Mutex::new(Layout::new(Arc::clone(schema), known.added.clone())),
        });
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let writer = Writer {
            files: Arc::clone(&files),
            dir: dir.to_path_buf(),
            owner: owner.clone(),
            options,
            shared: Arc::clone(&shared),
            applied,
            active,
            poisoned: None,
            unsettled: false,
        };
        let thread = std::thread::Builder::new()
            .name("windrow-wal".into())
            .spawn(move || writer.run(requests))
            .map_err(|e| io_error("start the writer of", dir, e))?;
        let wal = Self {
            files,
            dir: dir.to_path_buf(),
            durability: options.durability,
            owner,
            noted: Mutex::new(known.noted),
            shared,
            room: Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize)),
            queue: Some(queue),
            thread: Some(thread),
        };
        Ok((wal, recovered))
    }

    /// Creates the log in `dir` if there is none; rows can be written once it is [open](Self::open).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the file system fails.
    pub fn begin(files: &dyn Files, dir: &Path, schema: &SchemaRef, owner: &str) -> Result<()> {
        files.create_dir(dir).map_err(|e| io_error("create", dir, e))?;
        if recovery::list(files, dir)?.is_empty() {
            let (producers, owner) = (&Producers::default(), Some(owner));
            let begin = Beginning { schema, producers, owner };
            create_segment(files, dir, begin, 0, false).map_err(|not| not.error)?;
        }
        Ok(())
    }

    /// Returns where the log in `dir` would end if it were opened; changes nothing.
    ///
    /// # Errors
    /// As [`open`](Self::open), except for lost rows.
    pub fn end_of(
        files: &dyn Files,
        dir: &Path,
        schema: &SchemaRef,
        (from, known): (u64, &Known),
    ) -> Result<u64> {
        Ok(recovery::recover(files, dir, schema, from, known)?.recovered.end)
    }

    /// Whether any part of a log exists in `dir`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the file system fails.
    pub fn is_there(files: &dyn Files, dir: &Path) -> Result<bool> {
        Ok(!recovery::list(files, dir)?.is_empty())
    }

    /// Appends rows; returns their first offset once they are durable and applied. Dropping the future does not remove
    /// queued rows: they are still written.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when they could not be written; [`ErrorKind::Limit`] when they exceed 4 GiB;
    /// [`ErrorKind::Internal`] when the writer has panicked; any kind when they do not have the columns of the log.
    pub async fn append(&self, batch: RecordBatch) -> Result<u64> {
        match self.offer(batch, None).await?.answer().await? {
            Appended::At(offset) => Ok(offset),
            Appended::Repeated => Err(Error::internal("rows without a producer are repeated")),
        }
    }

    /// Queues rows behind those queued before, and waits for room in the queue. Rows with a stamp that are in the log
    /// already are skipped.
    ///
    /// # Errors
    /// As [`append`](Self::append); the outcome of the rows is returned by [`Offered::answer`].
    pub async fn offer(&self, batch: RecordBatch, stamp: Option<Stamp>) -> Result<Offered> {
        let batch = self.shared.layout().widened(&batch)?;
        let kib = u32::try_from(bytes_of(&batch) / 1_024).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.room)
            .acquire_many_owned(kib.clamp(1, QUEUE_KIB_MAX))
            .await
            .map_err(|_| stopped(&self.dir))?;
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(|| stopped(&self.dir))?;
        let request = Request { batch, stamp, answer, share };
        queue.send(request).await.map_err(|_| stopped(&self.dir))?;
        Ok(Offered { answered, dir: self.dir.clone() })
    }

    /// Adds columns at the end. `added`: the values of all columns that were ever added, one each, in rows without them.
    pub fn widen(&self, schema: SchemaRef, added: Vec<ArrayRef>) {
        *self.shared.layout.lock() = Layout::new(schema, added);
    }

    /// The progress of the producers, as far as durable.
    pub fn producers(&self) -> &Mutex<Producers> {
        &self.shared.producers
    }

    /// Whether a batch of a producer is in the log already, durably.
    pub fn has(&self, stamp: &Stamp) -> bool {
        self.shared.producers.lock().has(stamp)
    }

    /// As [`append`](Self::append), but blocks the thread: not for the reactor's threads.
    ///
    /// # Errors
    /// As `append`.
    pub fn append_blocking(&self, batch: RecordBatch) -> Result<u64> {
        // Unconstrained: inside of a task, an exhausted budget would never be refilled here.
        futures::executor::block_on(tokio::task::unconstrained(self.append(batch)))
    }

    /// Deletes the segments whose offsets are all below `offset`; returns how many. The growing one always stays.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when a file cannot be deleted; those before it are.
    pub fn delete_below(&self, offset: u64) -> Result<usize> {
        let mut segments = self.shared.segments.lock();
        let mut deleted = 0;
        while let (Some(oldest), Some(next)) = (segments.first(), segments.get(1))
            && next.first <= offset
        {
            self.files.remove(&oldest.path).map_err(|e| io_error("delete", &oldest.path, e))?;
            segments.remove(0);
            deleted += 1;
        }
        if deleted > 0 {
            self.files.sync_dir(&self.dir).map_err(|e| io_error("sync", &self.dir, e))?;
        }
        Ok(deleted)
    }

    /// Whether the number of its objects makes archiving due; `false` on a file system.
    pub fn is_scattered(&self) -> bool {
        self.files.writes_whole() && self.shared.segments.lock().len() > SEGMENTS_MANY
    }

    /// One past the last offset that is durable and applied.
    pub fn end(&self) -> u64 {
        self.shared.end.load(Ordering::Acquire)
    }
}

/// Queued rows.
#[derive(Debug)]
pub struct Offered {
    answered: oneshot::Receiver<Result<Appended>>,
    dir: PathBuf,
}

impl Offered {
    /// Returns their outcome, once they are durable and applied.
    ///
    /// # Errors
    /// As [`Wal::append`]; when a number of the producer's sequence is missing.
    pub async fn answer(self) -> Result<Appended> {
        self.answered.await.map_err(|_| stopped(&self.dir))?
    }
}

/// Returns the error for a stopped writer. The writer ends with the log that owns it, after all answers; one that ends
/// earlier has panicked.
fn stopped(dir: &Path) -> Error {
    let message = format!("the writer of the log \"{}\" has stopped at a panic", dir.display());
    Error::new(ErrorKind::Internal, message)
        .with_detail("What was acknowledged is durable. The panic and its place are in the program's log.")
        .with_hint("This is a bug in Windrow; please report it with that place. Restart windrow to continue.")
}

impl Drop for Wal {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            // The last owner may be what `applied` holds; a thread cannot wait for itself.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the log \"{}\" panicked", self.dir.display());
        }
    }
}

/// Reopens the last segment, to append to it. What was read from it may not have been synced before the process ended;
/// it is synced now, before anything relies on it.
fn reopen(files: &dyn Files, dir: &Path, segment: &Segment, len: u64, end: u64) -> Result<Active> {
    let path = segment.path.clone();
    let mut file = files.append(&path).map_err(|e| io_error("open", &path, e))?;
    file.sync().and_then(|()| files.sync_dir(dir)).map_err(|e| io_error("sync", &path, e))?;
    Ok(Active { file, path, len, records: u64::from(end > segment.first) })
}
