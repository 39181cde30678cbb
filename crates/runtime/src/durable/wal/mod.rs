//! The write-ahead log of a push stream: rows are durable before anybody hears of them.
//!
//! ```text
//! append ─► queue ─► writer thread: write all that waits, sync once ─► stream's log ─► acknowledge
//!                    00000000000000000000.wal  00000000000000004711.wal …   named by first offset
//! ```
//! Group commit: who comes while a sync runs shares the next one (DeWitt et al. 1984).
//!
//! Invariants: offsets are row numbers and tile; rows reach the stream's log in the order of their
//! offsets, after the sync and before the acknowledgement; a record is in one segment; after a sync
//! has failed nothing is acknowledged any more (what the system still has in memory is then not
//! known).

mod record;
mod recovery;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use windrow_core::{Error, ErrorKind, Result};

use crate::durable::directory::{create_dir, failed, sync_dir};
pub(crate) use recovery::Recovered;

/// Appends that wait at most.
const QUEUE_MAX: usize = 1_024;
/// Bytes that one group commit gathers at most.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// What an acknowledged row survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Durability {
    /// A power failure.
    #[default]
    Fsync,
    /// The end of this process.
    Os,
}

/// How a log is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalOptions {
    pub(crate) durability: Durability,
    /// A segment that has so many bytes is followed by a new one.
    pub(crate) segment_bytes_max: u64,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { durability: Durability::Fsync, segment_bytes_max: 64 << 20 }
    }
}

/// Told of durable rows, with their first offset, in order.
pub(crate) type Applied = Box<dyn FnMut(u64, RecordBatch) + Send>;

/// The segments, by first offset; the last is being written.
type Segments = Arc<Mutex<BTreeMap<u64, PathBuf>>>;

/// A log that is being written.
#[derive(Debug)]
pub(crate) struct Wal {
    queue: Option<mpsc::Sender<Request>>,
    segments: Segments,
    writer: Option<JoinHandle<()>>,
}

struct Request {
    payload: Vec<u8>,
    batch: RecordBatch,
    done: oneshot::Sender<Result<u64>>,
}

impl Wal {
    /// Opens the log in `dir`, or makes it, and reads the rows from offset `from` on.
    ///
    /// # Errors
    /// `Corrupt` when acknowledged rows are damaged or missing; `Data` when the columns are
    /// others, or the format is not known; `Unavailable` when it cannot be read or written.
    pub(crate) fn open(
        dir: &Path,
        schema: &SchemaRef,
        from: u64,
        options: WalOptions,
        applied: Applied,
    ) -> Result<(Self, Recovered)> {
        create_dir(dir)?;
        let (recovered, segments) = recovery::recover(dir, schema, from)?;
        let segments: Segments = Arc::new(Mutex::new(segments));
        let mut writer = Writer {
            dir: dir.to_owned(),
            header: record::segment_header(schema)?,
            options,
            segments: Arc::clone(&segments),
            next: recovered.end,
            durable: recovered.end,
            active: None,
            poisoned: None,
            applied,
        };
        let (queue, requests) = mpsc::channel(QUEUE_MAX);
        let writer = std::thread::Builder::new()
            .name("windrow-wal".to_owned())
            .spawn(move || writer.run(requests))
            .map_err(|e| Error::internal(format!("cannot start a thread: {e}")).with_source(e))?;
        Ok((Self { queue: Some(queue), segments, writer: Some(writer) }, recovered))
    }

    /// Appends rows; returns the first offset once they are durable and in the stream's log. Who
    /// stops waiting does not stop the rows.
    ///
    /// # Errors
    /// When they cannot be written: they are not in the log then. After a sync that failed, always.
    pub(crate) async fn append(&self, batch: RecordBatch) -> Result<u64> {
        let payload = record::encode(&batch)?;
        let (done, answer) = oneshot::channel();
        let ended = || Error::internal("the writer of the log has ended");
        let queue = self.queue.as_ref().ok_or_else(ended)?;
        let request = Request { payload, batch, done };
        queue.send(request).await.map_err(|_returned| ended())?;
        answer.await.map_err(|gone| ended().with_source(gone))?
    }

    /// The same for who cannot await; the thread waits.
    pub(crate) fn append_blocking(&self, batch: RecordBatch) -> Result<u64> {
        futures::executor::block_on(self.append(batch))
    }

    /// Deletes the segments that have only rows below `offset`.
    ///
    /// # Errors
    /// When a segment cannot be deleted.
    pub(crate) fn delete_below(&self, offset: u64) -> Result<()> {
        let mut segments = self.segments.lock();
        loop {
            let mut firsts = segments.keys();
            let (Some(first), Some(second)) = (firsts.next().copied(), firsts.next()) else {
                return Ok(());
            };
            if *second > offset {
                return Ok(());
            }
            if let Some(path) = segments.get(&first) {
                std::fs::remove_file(path).map_err(|e| failed("delete", path, e))?;
            }
            segments.remove(&first);
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // The writer ends when it has written what waits.
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of a log panicked");
        }
    }
}

/// The thread that writes.
struct Writer {
    dir: PathBuf,
    header: Vec<u8>,
    options: WalOptions,
    segments: Segments,
    /// The offset of the next row.
    next: u64,
    /// All rows below are durable.
    durable: u64,
    active: Option<Active>,
    /// Why nothing is written any more.
    poisoned: Option<String>,
    applied: Applied,
}

/// The segment that is being written.
struct Active {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Writer {
    fn run(&mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut bytes = first.payload.len();
            let mut group = vec![first];
            while bytes < GROUP_BYTES_MAX
                && let Ok(request) = requests.try_recv()
            {
                bytes += request.payload.len();
                group.push(request);
            }
            let written = self.commit(&group);
            self.answer(group, written);
        }
    }

    fn answer(&mut self, group: Vec<Request>, written: Result<u64>) {
        match written {
            Ok(mut first) => {
                for Request { batch, done, .. } in group {
                    let rows = batch.num_rows() as u64;
                    (self.applied)(first, batch);
                    // Who stopped waiting need not be told.
                    drop(done.send(Ok(first)));
                    first += rows;
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for request in group {
                    drop(request.done.send(Err(crate::query::shared::again(&error))));
                }
            }
        }
    }

    /// Writes and syncs a group; returns its first offset.
    fn commit(&mut self, group: &[Request]) -> Result<u64> {
        if let Some(why) = &self.poisoned {
            return Err(Error::new(ErrorKind::Unavailable, why.clone())
                .with_detail(
                    "The log takes no rows any more, since it is not known what is on disk.",
                )
                .with_hint("Mend the disk and start again; what was acknowledged is there."));
        }
        let first = self.next;
        let mut bytes = Vec::new();
        let mut next = first;
        for request in group {
            let rows = request.batch.num_rows() as u64;
            record::write(&mut bytes, &request.payload, (next, rows), self.durable)?;
            next += rows;
        }
        self.roll()?;
        let Some(active) = &mut self.active else {
            return Err(Error::internal("a log has no segment"));
        };
        if let Err(error) = active.file.write_all(&bytes) {
            let failure = failed("write", &active.path, error);
            if let Err(error) = active.file.set_len(active.bytes) {
                self.poisoned = Some(failed("cut", &active.path, error).message().to_owned());
            }
            return Err(failure);
        }
        if self.options.durability == Durability::Fsync
            && let Err(error) = active.file.sync_data()
        {
            let failure = failed("sync", &active.path, error);
            self.poisoned = Some(failure.message().to_owned());
            return Err(failure);
        }
        active.bytes += bytes.len() as u64;
        self.next = next;
        self.durable = next;
        Ok(first)
    }

    /// Sees to it that there is a segment with room.
    fn roll(&mut self) -> Result<()> {
        let max = self.options.segment_bytes_max;
        if self.active.as_ref().is_some_and(|a| a.bytes < max) {
            return Ok(());
        }
        if self.active.is_none() && self.reopen_last()? {
            return Ok(());
        }
        let path = self.dir.join(format!("{:020}.wal", self.next));
        let create = || {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).write(true).truncate(true).open(&path)?;
            file.write_all(&self.header)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = create().map_err(|e| failed("write", &path, e))?;
        sync_dir(&self.dir)?;
        self.segments.lock().insert(self.next, path.clone());
        self.active = Some(Active { file, path, bytes: self.header.len() as u64 });
        Ok(())
    }

    /// After a start, the last segment is written on where it has room.
    fn reopen_last(&mut self) -> Result<bool> {
        let last = self.segments.lock().values().next_back().cloned();
        let Some(path) = last else { return Ok(false) };
        let opened = OpenOptions::new().append(true).open(&path);
        let file = opened.map_err(|e| failed("write", &path, e))?;
        let bytes = file.metadata().map_err(|e| failed("read", &path, e))?.len();
        if bytes >= self.options.segment_bytes_max {
            return Ok(false);
        }
        self.active = Some(Active { file, path, bytes });
        Ok(true)
    }
}
