//! The log of a stream table: an append-only table with offsets that many readers follow.
//!
//! It holds the rows of push streams (INSERT, Flight) and the results of views. Readers keep their own position and are
//! served from the log, so a slow reader delays no other and needs no queue.
//!
//! ```text
//! offset   0                    start    n1             rows
//!          ├─ archive (Parquet) ──┼─ batch ─┼─ … ─ batch ─┤ ◄─ append      watermark, ended
//!                                 └────── memory tail ─────┘
//! ```
//! Without a data directory there is no archive, and the tail has all rows.
//!
//! Retention drops rows at the front, in two steps. A new reader begins at `first`, even in the middle of a file or
//! batch. The rows from `oldest` to `first` remain while a reader that began earlier, or a checkpoint, still needs
//! them. Rows that were lost with the end of a write-ahead log leave a gap in the archive, or between it and the tail,
//! never in the tail.
//!
//! This file has the operations of the writer, `reading` those of readers; `archiving` moves rows to the archive, and
//! `archival` determines which.
//!
//! Invariants: offsets are row numbers and tile, except for gaps; an appended row never moves or changes, but columns may be added to all rows; the boundary
//! `start` moves only together with the archive's snapshot, under one lock, so each row is read once; the watermark
//! never moves back; nothing is appended after `end`.

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
use windrow_core::{Behind, Clock, Error, Layout, Limits, Result, Watermark};

use self::archival::{Archival, InMemory};
pub use self::archival::{Completion, Frontier};
pub use self::archiving::{Room, Unarchived};
pub use self::reading::Contents;
pub(super) use self::reading::ReadAt;
use crate::followers::Followers;
use crate::memory::Memory;
use crate::repeated::repeated;
use crate::tail::Tail;

/// The end of a log at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// One past the last offset.
    pub rows: u64,
    /// The watermark after these rows.
    pub watermark: Watermark,
}

/// An append-only table with offsets: an archive, and a tail of rows that are not archived yet.
#[derive(Debug)]
pub struct StreamLog {
    /// The condition under which rows are complete; `None`: the log is not archived.
    completion: Option<Completion>,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
    /// Its followers.
    followers: Arc<Followers>,
}

#[derive(Debug)]
struct Inner {
    /// The first offset for a new reader: retention has dropped the rows before it.
    first: u64,
    /// The first offset for a reader that began earlier.
    oldest: u64,
    /// The archived rows before `start`; it may have rows before `oldest` that share a file with others.
    archive: Option<ArchiveSnapshot>,
    /// Which rows are archived.
    archival: Archival,
    /// The first offset that is not archived.
    start: u64,
    tail: Tail,
    rows: u64,
    watermark: Watermark,
    /// Rows of a view that arrived behind the watermark of their input, with that watermark, by offset. The watermark
    /// of the view does not cover them.
    behind: BTreeMap<u64, Watermark>,
    /// Whether archiving has ended: waiting for room would never end.
    is_released: bool,
    ended: bool,
    /// Whether the writer is idle, because all its inputs are.
    rests: bool,
    failed: Option<Arc<Error>>,
}

/// The extent of a log at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// The first offset for a new reader.
    pub first: u64,
    /// The first offset for a reader that began earlier.
    pub(crate) oldest: u64,
    /// One past the last offset.
    pub rows: u64,
    /// The watermark: no later row has an event time below it.
    pub watermark: Watermark,
    /// Whether the log has ended.
    pub ended: bool,
    /// Whether the writer is idle, because all its inputs are.
    pub(crate) rests: bool,
}

impl StreamLog {
    /// Returns an empty log in memory, without a name or a limit.
    #[cfg(test)]
    pub fn new(schema: SchemaRef) -> Arc<Self> {
        Self::with(schema, (None, Archival::Never(InMemory::default())), None)
    }

    /// Returns an empty log without an archive, of the stream or view `name`.
    pub fn in_memory(
        schema: SchemaRef,
        name: &str,
        limits: &Limits,
        memory: Option<&Arc<Memory>>,
    ) -> Arc<Self> {
        let in_memory = InMemory::new(name, limits.stream_bytes_max);
        Self::with(schema, (None, Archival::Never(in_memory)), memory)
    }

    /// Returns a log that continues after the archived rows. Its watermark is that of the archive; [`Watermark::END`]
    /// when the archive is complete.
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
            tail: Tail::new(schema, memory.cloned()),
            rows: start,
            watermark,
            behind: BTreeMap::new(),
            is_released: false,
            ended: watermark == Watermark::END,
            rests: false,
            failed: None,
        };
        let (inner, changed) = (Mutex::new(inner), watch::Sender::new(()));
        Arc::new(Self { completion, inner, changed, followers: Arc::default() })
    }

    /// The condition under which rows are complete; `None`: the log is not archived.
    pub fn completion(&self) -> Option<Completion> {
        self.completion
    }

    /// Whether followers get archived rows only, because the others may have other offsets after a crash.
    pub fn is_unordered(&self) -> bool {
        self.completion.is_some_and(Completion::is_unordered)
    }

    /// The columns. Those of a stream can become more; then the others keep their places.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(self.inner.lock().tail.schema())
    }

    /// Adds columns at the end. All rows get them, also those that are being written without them.
    ///
    /// # Errors
    /// When the columns before them are others (a bug).
    pub(crate) fn widen(&self, layout: &Layout) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.tail.widen(layout.clone())?;
        if let Some(archive) = &mut inner.archive {
            archive.widen(Arc::clone(layout.schema()), layout.added().to_vec());
        }
        Ok(())
    }

    /// Appends rows; returns their first offset.
    ///
    /// # Errors
    /// When the log has ended, or rows cannot be spilled; Limit when it would exceed its maximum size; the error with
    /// which it [has failed](Self::fail), or that it was dropped.
    pub fn append(&self, batch: RecordBatch) -> Result<u64> {
        self.append_behind(batch, &[])
    }

    /// Appends rows, those in `behind` with event times below the watermark.
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

    /// Records rows that arrived behind the watermark; their numbers count from offset `first`.
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

    /// Sets whether the writer is idle.
    pub fn rest(&self, rests: bool) {
        let before = std::mem::replace(&mut self.inner.lock().rests, rests);
        if before != rests {
            self.changed.send_replace(());
        }
    }

    /// Ends the log: its watermark is [`Watermark::END`], and readers end when they reach its end.
    pub fn end(&self) {
        {
            let mut inner = self.inner.lock();
            inner.ended = true;
            inner.watermark = Watermark::END;
            inner.note_advance();
        }
        self.changed.send_replace(());
    }

    /// Records that the writer has failed permanently: readers get this error, followers when they reach the end.
    pub fn fail(&self, error: Arc<Error>) {
        self.inner.lock().failed.get_or_insert(error);
        self.changed.send_replace(());
    }

    /// The error with which the writer has failed, if it has.
    pub fn failed(&self) -> Option<Error> {
        self.inner.lock().failed.as_ref().map(repeated)
    }

    /// The current end of the log.
    pub fn given(&self) -> LogEnd {
        let inner = self.inner.lock();
        LogEnd { rows: inner.rows, watermark: inner.watermark }
    }

    /// Its followers.
    pub(crate) fn followers(&self) -> &Arc<Followers> {
        &self.followers
    }

    /// Waits until the near followers have caught up: their back-pressure on writers (see
    /// [`followers`](crate::followers)).
    pub async fn wait_for_followers(&self, clock: &dyn Clock) {
        self.followers.wait(|| self.settled().rows, clock).await;
    }

    /// Hides the rows before `end` from new readers. Returns how many these were.
    pub(crate) fn hide_before(&self, end: u64) -> u64 {
        let mut inner = self.inner.lock();
        let end = end.min(inner.rows);
        let hidden = end.saturating_sub(inner.first);
        inner.first += hidden;
        hidden
    }

    /// Notifies all who watch the log.
    pub(crate) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Releases the rows before `end`: no reader gets them any more. An archive deletes them as whole files, and rows
    /// that are not archived yet still are.
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

    /// Records that the watermark covers all rows appended so far.
    fn note_advance(&mut self) {
        self.archival.advanced(self.rows);
    }

    /// Drops the rows before `oldest`.
    fn begin_at(&mut self, oldest: u64) {
        if oldest > self.oldest {
            self.behind = self.behind.split_off(&oldest);
            self.oldest = oldest;
            self.first = self.first.max(oldest);
        }
    }

    /// Makes `start` the first offset that is not archived. Rows from `wanted` on remain in memory, because a reader is
    /// about to read them.
    fn cut(&mut self, start: u64, wanted: Option<u64>) {
        self.tail.cut(wanted.map_or(start, |wanted| wanted.min(start)), start);
        self.start = start;
        self.rows = self.rows.max(start);
        if let Archival::Never(memory) = &mut self.archival {
            memory.released(self.tail.bytes());
        }
    }
}
