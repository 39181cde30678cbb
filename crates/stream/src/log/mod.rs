//! The log of a stream table: an append-only table with offsets that many readers follow.
//!
//! It holds the rows of push streams (INSERT, Flight) and the results of views. Readers keep
//! their own position and are served from the log, so a slow reader holds no other back and needs no
//! queue.
//!
//! ```text
//! offset   0                    start    n1             rows
//!          ├─ archive (Parquet) ──┼─ batch ─┼─ … ─ batch ─┤ ◄─ append      watermark, ended
//!                                 └────── memory tail ─────┘
//! ```
//! Without a data directory there is no archive and the tail is everything.
//!
//! Retention drops rows at the front, in two steps. A new reader begins at `first`, also
//! where its file or batch has older rows. Rows before it stay from `oldest` on while a reader that
//! has begun, or a checkpoint, still needs them. Rows that were lost with the end
//! of a write-ahead log leave a gap in the archive, or between it and the tail, never in the tail.
//!
//! This file is what the writer does. `reading` is what readers are given, `archiving` how rows move to the
//! archive, and `archival` which rows may.
//!
//! Invariants: offsets are row numbers and tile, but for gaps; a row once appended never moves or changes;
//! the boundary `start` moves only together with the archive's snapshot, under one lock, so each
//! row is read once; the watermark never moves back; after `end` nothing is appended.

mod archival;
mod archiving;
mod reading;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_archive::ArchiveSnapshot;
use windrow_core::{Behind, Clock, Error, Limits, Result, Watermark};

use self::archival::{Archival, InMemory};
pub use self::archival::{Completion, Frontier};
pub use self::archiving::{Room, Unarchived};
pub use self::reading::Contents;
pub(super) use self::reading::ReadAt;
use crate::followers::Followers;
use crate::memory::Memory;
use crate::repeated::repeated;
use crate::tail::Tail;

/// What a log had been given at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// One past the last offset.
    pub rows: u64,
    /// The watermark that goes with them.
    pub watermark: Watermark,
}

/// An append-only table with offsets: a memory tail, and what of it is archived.
#[derive(Debug)]
pub struct StreamLog {
    schema: SchemaRef,
    /// What makes rows complete, where the log is archived.
    completion: Option<Completion>,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
    /// Its followers.
    followers: Arc<Followers>,
}

#[derive(Debug)]
struct Inner {
    /// First offset that is given to a new reader: retention has dropped the rows before it.
    first: u64,
    /// First offset that is given to a reader that has begun.
    oldest: u64,
    /// The rows before `start`, and some before `oldest` that share a file with others.
    archive: Option<ArchiveSnapshot>,
    /// Which rows go there.
    archival: Archival,
    /// First offset of the tail.
    start: u64,
    tail: Tail,
    rows: u64,
    watermark: Watermark,
    /// Rows of a view that came behind the watermark of what they were made of: its own does not speak of
    /// them. By offset.
    behind: BTreeMap<u64, Watermark>,
    /// The tail is archived no more: waiting for room would never end.
    is_released: bool,
    ended: bool,
    /// Nothing is to come for now: all that its writer reads is idle.
    rests: bool,
    failed: Option<Arc<Error>>,
}

/// What a log holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// The first offset that is given to a new reader.
    pub first: u64,
    /// The first offset that is given to a reader that has begun.
    pub(crate) oldest: u64,
    /// One past the last offset.
    pub rows: u64,
    /// The promise that the writer gave with its last append.
    pub watermark: Watermark,
    /// Whether the writer is done.
    pub ended: bool,
    /// Whether nothing is to come for now, because all that the writer reads is idle.
    pub(crate) rests: bool,
}

impl StreamLog {
    /// An empty log in memory alone.
    #[cfg(test)]
    pub fn new(schema: SchemaRef) -> Arc<Self> {
        Self::with(schema, (None, Archival::Never(InMemory::default())), None)
    }

    /// An empty log without archive, of the stream or view `name`.
    pub fn in_memory(
        schema: SchemaRef,
        name: &str,
        limits: &Limits,
        memory: Option<&Arc<Memory>>,
    ) -> Arc<Self> {
        let in_memory = InMemory::new(name, limits.stream_bytes_max);
        Self::with(schema, (None, Archival::Never(in_memory)), memory)
    }

    /// A log that goes on behind what is archived. Its watermark is what the archive says; [`Watermark::END`] when
    /// it has everything.
    pub fn restored(
        schema: SchemaRef,
        archive: ArchiveSnapshot,
        completion: Completion,
        memory: Option<&Arc<Memory>>,
    ) -> Arc<Self> {
        let watermark = completion.frontier(archive.state().txn_version).watermark();
        let archived = LogEnd { rows: archive.next_row(), watermark };
        Self::with(schema, (Some(archive), Archival::by(completion, archived)), memory)
    }

    fn with(
        schema: SchemaRef,
        (archive, archival): (Option<ArchiveSnapshot>, Archival),
        memory: Option<&Arc<Memory>>,
    ) -> Arc<Self> {
        let completion = archival.completion();
        let start = archive.as_ref().map_or(0, ArchiveSnapshot::next_row);
        let first = archive.as_ref().map_or(0, |a| a.state().first_row);
        let version = archive.as_ref().and_then(|a| a.state().txn_version);
        let watermark = completion
            .map_or(Watermark::NONE, |completion| completion.frontier(version).watermark());
        let inner = Inner {
            first,
            oldest: first,
            archive,
            archival,
            start,
            tail: Tail::new(Arc::clone(&schema), memory.cloned()),
            rows: start,
            watermark,
            behind: BTreeMap::new(),
            is_released: false,
            ended: watermark == Watermark::END,
            rests: false,
            failed: None,
        };
        let (inner, changed) = (Mutex::new(inner), watch::Sender::new(()));
        Arc::new(Self { schema, completion, inner, changed, followers: Arc::default() })
    }

    /// What makes rows complete, where the log is archived.
    pub fn completion(&self) -> Option<Completion> {
        self.completion
    }

    /// Whether followers get only what is archived: other rows may be others after a crash.
    pub fn is_unordered(&self) -> bool {
        self.completion.is_some_and(Completion::is_unordered)
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends rows; returns their first offset.
    ///
    /// # Errors
    /// When the log has ended, or small batches cannot be joined; Limit when it may not hold so
    /// much; what it has failed with, or that it was dropped.
    pub fn append(&self, batch: RecordBatch) -> Result<u64> {
        self.append_behind(batch, &[])
    }

    /// Appends rows some of which came behind the watermark.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_behind(&self, batch: RecordBatch, behind: &[Behind]) -> Result<u64> {
        let first = {
            let mut inner = self.inner.lock();
            if let Some(error) = &inner.failed {
                return Err(repeated(error));
            }
            if inner.ended {
                return Err(Error::internal("append to a log that has ended"));
            }
            let first = inner.rows;
            if batch.num_rows() == 0 {
                return Ok(first);
            }
            inner.archival.admit(&batch)?;
            inner.note_behind(first, behind);
            inner.rows += batch.num_rows() as u64;
            inner.tail.push(first, batch)?;
            first
        };
        self.changed.send_replace(());
        Ok(first)
    }

    /// Rows from offset `first` on came behind the watermark.
    pub fn note_behind(&self, first: u64, behind: &[Behind]) {
        self.inner.lock().note_behind(first, behind);
    }

    /// Promises that no appended row will have an event time below `watermark`.
    pub fn advance(&self, watermark: Watermark) {
        let moved = {
            let mut inner = self.inner.lock();
            let before = inner.watermark;
            inner.watermark = before.advance(watermark);
            if inner.watermark == watermark {
                inner.note_advance();
            }
            inner.watermark != before
        };
        if moved {
            self.changed.send_replace(());
        }
    }

    /// Tells whether nothing is to come for now.
    pub fn rest(&self, rests: bool) {
        let before = std::mem::replace(&mut self.inner.lock().rests, rests);
        if before != rests {
            self.changed.send_replace(());
        }
    }

    /// Ends the log: readers that reach the end are done.
    pub fn end(&self) {
        {
            let mut inner = self.inner.lock();
            inner.ended = true;
            inner.watermark = Watermark::END;
            inner.note_advance();
        }
        self.changed.send_replace(());
    }

    /// The writer has failed, for good: readers get its error, those that follow the log when they reach its end.
    pub fn fail(&self, error: Arc<Error>) {
        self.inner.lock().failed.get_or_insert(error);
        self.changed.send_replace(());
    }

    /// What the writer has failed with.
    pub fn failed(&self) -> Option<Error> {
        self.inner.lock().failed.as_ref().map(repeated)
    }

    /// What it has been given so far.
    pub fn given(&self) -> LogEnd {
        let inner = self.inner.lock();
        LogEnd { rows: inner.rows, watermark: inner.watermark }
    }

    /// Its followers.
    pub(crate) fn followers(&self) -> &Arc<Followers> {
        &self.followers
    }

    /// Waits until those that follow it closely have read enough; a writer that is faster than they are is
    /// slowed down.
    pub async fn wait_for_followers(&self, clock: &dyn Clock) {
        self.followers.wait(|| self.settled().rows, clock).await;
    }

    /// A new reader is not given the rows before `end` any more. Returns how many rows those
    /// were.
    pub(crate) fn hide_before(&self, end: u64) -> u64 {
        let mut inner = self.inner.lock();
        let end = end.min(inner.rows);
        let hidden = end.saturating_sub(inner.first);
        inner.first += hidden;
        hidden
    }

    /// Releases the rows before `end`: no reader is given them any more. Those of an archive are
    /// deleted by whole files, and what is not archived yet still goes there.
    pub fn release_before(&self, end: u64) {
        let mut inner = self.inner.lock();
        let end = end.min(inner.rows);
        if end <= inner.oldest {
            return;
        }
        if self.completion.is_none() {
            inner.cut(end, None);
        }
        inner.begin_at(end);
    }
}

impl Inner {
    fn note_behind(&mut self, first: u64, behind: &[Behind]) {
        self.behind.extend(behind.iter().map(|b| (first + b.row as u64, b.watermark)));
    }

    /// The watermark speaks of all rows that are there.
    fn note_advance(&mut self) {
        self.archival.advanced(self.rows);
    }

    /// Rows before `oldest` are not there any more.
    fn begin_at(&mut self, oldest: u64) {
        if oldest > self.oldest {
            self.behind = self.behind.split_off(&oldest);
            self.oldest = oldest;
            self.first = self.first.max(oldest);
        }
    }

    /// The tail begins at `start` from now on. Rows from `wanted` on stay in memory, if there are: a reader
    /// is about to read them.
    fn cut(&mut self, start: u64, wanted: Option<u64>) {
        self.tail.cut(wanted.map_or(start, |wanted| wanted.min(start)), start);
        self.start = start;
        self.rows = self.rows.max(start);
        if let Archival::Never(memory) = &mut self.archival {
            memory.released(self.tail.bytes());
        }
    }
}
