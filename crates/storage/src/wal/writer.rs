//! The writer thread of a log.
//!
//! ```text
//! append ─┐                      ┌ one record ─ one write ─ one sync ┐
//! append ─┼─► queue (bounded) ─► group                                ├─► applied ─► answers
//! append ─┘                      └───────────────────────────────────┘
//! ```
//! Invariants: rows are applied in the order of their offsets, after they are durable, and acknowledged after they are
//! applied; at most one record is written but not synced (with [`Durability::Fsync`]); after a failed sync nothing is
//! ever written again, because the contents of the disk are then unknown. (Where files [are written
//! whole](Files::writes_whole) they can be settled, and the log then continues.)

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::record_batch::RecordBatch;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use windrow_core::size::bytes_of;
use windrow_core::{Error, ErrorKind, Result};

use super::producers::{Stamp, Verdict};
use super::recovery::segment_path;
use super::segment::Beginning;
use super::{Durability, Segment, Shared, WalOptions, segment};
use crate::files::{Files, LogFile, io_error};

/// A group is complete once it has this many bytes.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// Receives rows with their first offset once they are durable.
pub type Applied = Box<dyn FnMut(u64, RecordBatch) + Send>;

/// The outcome of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// They begin at this offset.
    At(u64),
    /// They were in the log already: the same batch of the same producer.
    Repeated,
}

/// Rows queued for writing.
pub(super) struct Request {
    pub(super) batch: RecordBatch,
    /// Its producer and number; the batch is skipped when it is in the log already.
    pub(super) stamp: Option<Stamp>,
    pub(super) answer: oneshot::Sender<Result<Appended>>,
    /// Its share of the queue's bytes.
    pub(super) share: OwnedSemaphorePermit,
}

/// The open end of a log.
pub(super) struct Writer {
    pub(super) files: Arc<dyn Files>,
    pub(super) dir: PathBuf,
    /// The owner of the log.
    pub(super) owner: Option<String>,
    pub(super) options: WalOptions,
    pub(super) shared: Arc<Shared>,
    pub(super) applied: Applied,
    pub(super) active: Active,
    /// The reason why nothing is written any more.
    pub(super) poisoned: Option<String>,
    /// Whether refused rows may still appear; that is settled before anything else.
    pub(super) unsettled: bool,
}

/// The segment that grows.
pub(super) struct Active {
    pub(super) file: Box<dyn LogFile>,
    pub(super) path: PathBuf,
    /// Its bytes up to the end of the last good record.
    pub(super) len: u64,
    /// The number of its records; its contents when it was opened count as one.
    pub(super) records: u64,
}

/// The reason why a segment could not be created.
pub(super) struct NotCreated {
    pub(super) error: Error,
    /// Whether a sync failed, or a part of the file may still exist.
    unsynced: bool,
}

/// Creates the segment that begins at `first`; it and its name are durable, unless it is created `lazily`: then they
/// become so with its first record.
pub(super) fn create_segment(
    files: &dyn Files,
    dir: &Path,
    beginning: Beginning<'_>,
    first: u64,
    lazily: bool,
) -> Result<Active, NotCreated> {
    let path = segment_path(dir, first);
    let failed = |error: Error, unsynced| NotCreated { error, unsynced };
    let header = segment::encode_header(beginning).map_err(|e| failed(e, false))?;
    let mut file = files.create(&path).map_err(|e| failed(io_error("create", &path, e), false))?;
    let done = match file.write_all(&header) {
        Err(e) => Err(failed(io_error("write", &path, e), false)),
        Ok(()) if lazily => Ok(()),
        Ok(()) => file
            .sync()
            .and_then(|()| files.sync_dir(dir))
            .map_err(|e| failed(io_error("sync", &path, e), true)),
    };
    if let Err(mut failure) = done {
        // It must not reappear: the segment before may continue with smaller records.
        let removed = files.remove(&path).and_then(|()| files.sync_dir(dir));
        failure.unsynced |= removed.is_err();
        return Err(failure);
    }
    Ok(Active { file, path, len: header.len() as u64, records: 0 })
}

impl Writer {
    /// Writes requests until all senders are gone and the queue is empty.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(request) = queue.blocking_recv() {
            let mut bytes = bytes_of(&request.batch);
            let mut group = vec![request];
            while bytes < GROUP_BYTES_MAX
                && let Ok(request) = queue.try_recv()
            {
                bytes += bytes_of(&request.batch);
                group.push(request);
            }
            self.commit(group);
        }
    }

    /// Writes, applies and acknowledges one group.
    fn commit(&mut self, group: Vec<Request>) {
        let first = self.shared.end.load(Ordering::Acquire);
        let (group, stamps) = self.judge(group);
        let new = group.iter().filter(|(_, verdict)| *verdict == Verdict::New).map(|(r, _)| r);
        if let Err(error) = self.write(first, &new.collect::<Vec<_>>(), &stamps) {
            for (request, _) in group {
                // Fails only when the caller has stopped waiting.
                drop(request.answer.send(Err(same(&error))));
            }
            return;
        }
        {
            let mut producers = self.shared.producers.lock();
            stamps.iter().for_each(|stamp| producers.take(stamp));
        }
        let mut end = first;
        let mut answers = Vec::with_capacity(group.len());
        for (Request { batch, answer, share, .. }, verdict) in group {
            if verdict == Verdict::Repeated {
                answers.push((answer, Appended::Repeated));
                continue;
            }
            let rows = batch.num_rows() as u64;
            if rows > 0 {
                (self.applied)(end, batch);
            }
            answers.push((answer, Appended::At(end)));
            end += rows;
            self.shared.end.store(end, Ordering::Release);
            drop(share);
        }
        for (answer, appended) in answers {
            // Fails only when the caller has stopped waiting; the rows are written.
            drop(answer.send(Ok(appended)));
        }
    }

    /// Separates the new requests of a group from repeated ones, and returns the stamps of the new ones. Requests that
    /// may not be written are answered.
    fn judge(&self, group: Vec<Request>) -> (Vec<(Request, Verdict)>, Vec<Stamp>) {
        let mut producers = self.shared.producers.lock();
        let mut stamps = Vec::new();
        let mut judged = Vec::with_capacity(group.len());
        for mut request in group {
            let verdict = match request.stamp.take() {
                None => Ok(Verdict::New),
                Some(stamp) => producers.judge(&stamp, &stamps).inspect(|verdict| {
                    if *verdict == Verdict::New {
                        stamps.push(stamp);
                    }
                }),
            };
            match verdict {
                Ok(verdict) => judged.push((request, verdict)),
                // Fails only when the caller has stopped waiting.
                Err(error) => drop(request.answer.send(Err(error))),
            }
        }
        (judged, stamps)
    }

    /// Makes the rows of a group durable.
    fn write(&mut self, first: u64, group: &[&Request], stamps: &[Stamp]) -> Result<()> {
        if let Some(why) = &self.poisoned {
            return Err(poisoned(why));
        }
        if stamps.is_empty() && group.iter().all(|r| r.batch.num_rows() == 0) {
            return Ok(());
        }
        let layout = self.shared.layout();
        // Columns may have been added since they were queued.
        let batches: Vec<_> =
            group.iter().map(|r| layout.widened(&r.batch)).collect::<Result<_>>()?;
        let record = segment::encode_record(layout.schema(), first, batches.iter(), stamps)?;
        self.settle()?;
        let len = self.active.len + record.len() as u64;
        let full = len > self.options.segment_bytes_max
            || self.active.records >= self.options.segment_records_max;
        if self.active.records > 0 && full {
            self.next_segment(first)?;
        }
        let active = &mut self.active;
        if let Err(e) = active.file.write_all(&record) {
            let error = io_error("write", &active.path, e);
            if let Err(e) = active.file.truncate(active.len) {
                let second = io_error("cut", &active.path, e);
                return Err(self.poison(&format!("{error}; then {second}")));
            }
            return Err(error);
        }
        let whole = self.files.writes_whole();
        if (self.options.durability == Durability::Fsync || whole)
            && let Err(e) = active.file.sync()
        {
            let error = io_error("sync", &active.path, e);
            if whole {
                self.unsettled = true;
                return Err(error);
            }
            // Refused rows should not reappear; whether this succeeds is unknown, too.
            drop(active.file.truncate(active.len));
            return Err(self.poison(&error.to_string()));
        }
        active.len += record.len() as u64;
        active.records += 1;
        Ok(())
    }

    /// Ensures that refused rows do not appear later, if there are any.
    fn settle(&mut self) -> Result<()> {
        if !self.unsettled {
            return Ok(());
        }
        let active = &mut self.active;
        match active.file.truncate(active.len) {
            Ok(()) => {
                self.unsettled = false;
                Ok(())
            }
            // They have appeared, or another process writes: only rereading the log can tell.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let why = io_error("cut", &active.path, e).to_string();
                Err(self.poison(&why))
            }
            Err(e) => Err(io_error("write", &active.path, e)),
        }
    }

    /// Continues in a new segment.
    fn next_segment(&mut self, first: u64) -> Result<()> {
        // Only the last segment may be torn, whatever durability was requested.
        if self.options.durability == Durability::Os
            && let Err(e) = self.active.file.sync()
        {
            let why = io_error("sync", &self.active.path, e).to_string();
            return Err(self.poison(&why));
        }
        let lazily = self.files.writes_whole();
        let producers = self.shared.producers.lock().clone();
        let owner = self.owner.as_deref();
        let layout = self.shared.layout();
        let begin = Beginning { schema: layout.schema(), producers: &producers, owner };
        match create_segment(&*self.files, &self.dir, begin, first, lazily) {
            Ok(active) => {
                let path = active.path.clone();
                self.active = active;
                self.shared.segments.lock().push(Segment { first, path });
                Ok(())
            }
            Err(NotCreated { error, unsynced: true }) => Err(self.poison(error.message())),
            Err(NotCreated { error, .. }) => Err(error),
        }
    }

    fn poison(&mut self, why: &str) -> Error {
        self.poisoned = Some(why.into());
        poisoned(why)
    }
}

fn poisoned(why: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the log accepts no more rows: {why}"))
        .with_detail("What the disk holds after such an error is unknown until it is read again.")
        .with_hint("Repair the disk, then restart windrow.")
}

/// Returns the same error for another caller.
fn same(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message());
    if let Some(detail) = error.detail() {
        copy = copy.with_detail(detail);
    }
    error.hints().iter().fold(copy, Error::with_hint)
}
