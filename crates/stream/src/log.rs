//! The log of a stream table: an append-only table with offsets that many readers follow.
//!
//! It holds the rows of push streams (INSERT, later Flight) and the finished windows of views.
//! Readers keep their own position and are served from the log, so a slow reader holds nobody
//! back and needs no queue.
//!
//! ```text
//! offset   0                    start    n1             rows
//!          ├─ archive (Parquet) ──┼─ batch ─┼─ … ─ batch ─┤ ◄─ append      watermark, ended
//!                                 └────── memory tail ─────┘
//! ```
//! Without a data directory there is no archive and the tail is everything.
//!
//! Retention drops rows at the front, in two steps. A new reader begins at `first`, also
//! where its file or batch has older rows. Rows before it stay from `held` on while a reader that
//! has begun, or a checkpoint, still needs them. Rows that were lost with the end
//! of a write-ahead log leave a gap in the archive, or between it and the tail, never in the tail.
//!
//! Which rows of the tail the archive may take is said by [`Completion`].
//!
//! Invariants: offsets are row numbers and tile, but for gaps; a row once appended never moves or changes;
//! the boundary `start` moves only together with the archive's snapshot, under one lock, so each
//! row is read once; the watermark never moves back; after `end` nothing is appended.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_archive::ArchiveSnapshot;
use windrow_core::size::shown_bytes;
use windrow_core::{Behind, Clock, Error, ErrorKind, Limits, OffsetRange, Result, Watermark};

use crate::followers::Followers;
use crate::memory::{self, Memory};
use crate::repeated::repeated;
use crate::tail::{Piece, Tail};

/// A writer waits when the archive is so many tails behind.
const TAILS_MAX: u64 = 4;
/// The same by bytes; with a limit of memory most of them lie on disk.
const TAIL_BYTES_MAX: usize = 2;

/// Rows of one batch that is read from the archive.
const READ_ROWS: usize = 8_192;

/// When rows are complete: the archive takes no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// At once: those of a push stream.
    Rows,
    /// When the watermark has passed them: finished windows.
    Watermark,
    /// When a checkpoint says what they were made of: views without windows.
    Checkpoint {
        /// Worked out again they come in the same order, so a row that is not archived yet has the
        /// same offset after a crash. Otherwise followers of the log get only what is archived.
        in_order: bool,
    },
}

/// How long a tail may be while its writer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub(crate) bytes: usize,
}

impl Room {
    /// So many tails as the archive takes in at a time.
    pub fn of(limits: &Limits) -> Self {
        Self {
            rows: limits.tail_rows_max.saturating_mul(TAILS_MAX),
            bytes: limits.tail_bytes_max.saturating_mul(TAIL_BYTES_MAX),
        }
    }
}

/// What the rows of a log are held to.
#[derive(Debug, Default)]
struct LogLimits {
    /// See [`StreamLog`]'s.
    limit: Option<(String, usize)>,
    memory: Option<Arc<Memory>>,
}

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
    completion: Completion,
    /// Of a log that is never archived: whose it is, and how many bytes it may hold.
    limit: Option<(String, usize)>,
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
    held: u64,
    /// The rows before `start`, and some before `held` that share a file with others.
    archive: Option<ArchiveSnapshot>,
    /// First offset of the tail.
    start: u64,
    tail: Tail,
    rows: u64,
    /// Bytes that these rows were appended with; counted where there is a limit.
    bytes: usize,
    watermark: Watermark,
    /// Rows of a view that came behind the watermark of what they were made of: its own does not speak of
    /// them. By offset.
    behind: BTreeMap<u64, Watermark>,
    /// What the newest checkpoint has been made of, of a log that is complete by checkpoints.
    checkpoint: LogEnd,
    /// The watermark that the archived rows are complete up to, of such a log.
    archived_watermark: Watermark,
    /// Nobody archives the tail any more: waiting for room would never end.
    release: bool,
    /// The rows that were there when the watermark was told last.
    rows_at_watermark: u64,
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
    pub(crate) held: u64,
    /// One past the last offset.
    pub rows: u64,
    /// The promise that the writer gave with its last append.
    pub watermark: Watermark,
    /// Whether the writer is done.
    pub ended: bool,
    /// Whether nothing is to come for now, because all that the writer reads is idle.
    pub(crate) rests: bool,
}

/// All rows of one moment: those of the archive, then those of the tail.
#[derive(Debug)]
pub struct Contents {
    /// The first row; the archive may have more before it.
    pub(crate) first: u64,
    /// The rows of the archive, if there is one.
    pub(crate) archive: Option<ArchiveSnapshot>,
    pub(crate) tail: Vec<Piece>,
    pub(crate) tail_rows: u64,
}

impl Contents {
    /// All rows, those of the archive read into memory.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub async fn batches(&self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        if let Some(archive) = &self.archive {
            let all: Vec<usize> = (0..archive.schema().fields().len()).collect();
            let first = archive.state().first_row.max(self.first);
            let rows = archive.read(first, &all, READ_ROWS).await?;
            batches = rows.try_collect().await?;
        }
        for piece in &self.tail {
            batches.push(piece.load()?);
        }
        Ok(batches)
    }

    /// The batches of the tail, if it is all in memory.
    pub fn tail_in_memory(&self) -> Option<Vec<RecordBatch>> {
        self.tail.iter().map(|piece| piece.batch().cloned()).collect()
    }

    /// The offset of the first row of the tail.
    pub(crate) fn tail_first(&self) -> Option<u64> {
        self.tail.first().map(|piece| piece.first)
    }
}

/// Rows of the tail that may go to the archive.
#[derive(Debug)]
pub struct Unarchived {
    /// Offset of the first.
    pub first: u64,
    /// The rows.
    pub rows: Vec<Piece>,
    /// One past the last offset.
    pub end: u64,
    /// The watermark that they are complete up to.
    pub(crate) watermark: Watermark,
}

impl StreamLog {
    /// An empty log in memory alone.
    #[cfg(test)]
    pub fn new(schema: SchemaRef) -> Arc<Self> {
        Self::with(schema, None, (Watermark::NONE, Completion::Rows), LogLimits::default())
    }

    /// An empty log without archive, of the stream or view `name`.
    pub fn in_memory(
        schema: SchemaRef,
        name: &str,
        limits: &Limits,
        memory: Option<&Arc<Memory>>,
    ) -> Arc<Self> {
        let limit = limits.stream_bytes_max.map(|bytes| (name.to_owned(), bytes));
        let kept = LogLimits { limit, memory: memory.cloned() };
        Self::with(schema, None, (Watermark::NONE, Completion::Rows), kept)
    }

    /// A log that goes on behind what is archived; `watermark` is the promise that was given with
    /// the archived rows, [`Watermark::END`] when its writer was done.
    pub fn restored(
        schema: SchemaRef,
        archive: ArchiveSnapshot,
        told: (Watermark, Completion),
        memory: Option<&Arc<Memory>>,
    ) -> Arc<Self> {
        let kept = LogLimits { limit: None, memory: memory.cloned() };
        Self::with(schema, Some(archive), told, kept)
    }

    fn with(
        schema: SchemaRef,
        archive: Option<ArchiveSnapshot>,
        (watermark, completion): (Watermark, Completion),
        kept: LogLimits,
    ) -> Arc<Self> {
        let start = archive.as_ref().map_or(0, ArchiveSnapshot::next_row);
        let first = archive.as_ref().map_or(0, |a| a.state().first_row);
        let inner = Inner {
            first,
            held: first,
            archive,
            start,
            tail: Tail::new(Arc::clone(&schema), kept.memory),
            rows: start,
            bytes: 0,
            watermark,
            behind: BTreeMap::new(),
            rows_at_watermark: start,
            checkpoint: LogEnd { rows: start, watermark },
            archived_watermark: watermark,
            release: false,
            ended: watermark == Watermark::END,
            rests: false,
            failed: None,
        };
        let (inner, changed) = (Mutex::new(inner), watch::Sender::new(()));
        let followers = Arc::default();
        Arc::new(Self { schema, completion, limit: kept.limit, inner, changed, followers })
    }

    /// When its rows are complete.
    pub fn completion(&self) -> Completion {
        self.completion
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
            if let Some((name, max)) = &self.limit {
                let bytes = inner.bytes.saturating_add(shown_bytes(&batch)?);
                if bytes > *max {
                    return Err(too_long(name, *max));
                }
                inner.bytes = bytes;
            }
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

    /// Which rows of these offsets came behind the watermark, counted from the first.
    pub fn behind(&self, offsets: OffsetRange) -> Vec<Behind> {
        let inner = self.inner.lock();
        let there = inner.behind.range(offsets.start()..offsets.end());
        let row = |offset: u64| usize::try_from(offset - offsets.start()).ok();
        there.filter_map(|(o, w)| Some(Behind { row: row(*o)?, watermark: *w })).collect()
    }

    /// Promises that no appended row will have an event time below `watermark`.
    pub fn advance(&self, watermark: Watermark) {
        let moved = {
            let mut inner = self.inner.lock();
            let before = inner.watermark;
            inner.watermark = before.advance(watermark);
            if inner.watermark == watermark {
                inner.rows_at_watermark = inner.rows;
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
            inner.rows_at_watermark = inner.rows;
        }
        self.changed.send_replace(());
    }

    /// The writer has failed, for good: readers get its error, those that follow the log when they reach its end.
    pub fn fail(&self, error: Arc<Error>) {
        self.inner.lock().failed.get_or_insert(error);
        self.changed.send_replace(());
    }

    /// What it holds now.
    pub fn state(&self) -> LogState {
        let inner = self.inner.lock();
        LogState {
            first: inner.first,
            held: inner.held,
            rows: inner.rows,
            watermark: inner.watermark,
            ended: inner.ended,
            rests: inner.rests,
        }
    }

    /// What followers may see: what stays as it is, also if the process is killed now.
    pub fn settled(&self) -> LogState {
        let state = self.state();
        if self.completion != (Completion::Checkpoint { in_order: false }) {
            return state;
        }
        let inner = self.inner.lock();
        let all = inner.ended && inner.start == inner.rows;
        let watermark = if all { Watermark::END } else { inner.archived_watermark };
        let rests = inner.rests && inner.start == inner.rows;
        let (first, held, rows) = (inner.first, inner.held, inner.start);
        LogState { first, held, rows, watermark, ended: all, rests }
    }

    /// The archived rows are complete up to this watermark: the same promise as before a restart.
    pub fn reached(&self, watermark: Watermark) {
        let mut inner = self.inner.lock();
        inner.watermark = inner.watermark.advance(watermark);
        inner.archived_watermark = inner.archived_watermark.advance(watermark);
        inner.checkpoint.watermark = inner.checkpoint.watermark.advance(watermark);
    }

    /// What it has been given, of a log that is complete by checkpoints.
    pub fn given(&self) -> LogEnd {
        let inner = self.inner.lock();
        LogEnd { rows: inner.rows, watermark: inner.watermark }
    }

    /// There is a checkpoint of what these rows were made of: the archive may take them.
    pub fn checkpointed(&self, given: LogEnd) {
        {
            let mut inner = self.inner.lock();
            inner.checkpoint = given;
            inner.settle();
        }
        self.changed.send_replace(());
    }

    /// What is archived, and the pieces of the tail from the one on that holds `offset` (cheap
    /// copies of references).
    pub fn since(&self, offset: u64) -> (Option<ArchiveSnapshot>, Vec<Piece>) {
        let inner = self.inner.lock();
        let pieces = inner.tail.pieces();
        let known = pieces.partition_point(|piece| piece.end() <= offset.max(inner.start));
        let pieces = pieces.iter().skip(known);
        let pieces = pieces.filter_map(|piece| piece.part(inner.start, u64::MAX));
        (inner.archive.clone(), pieces.collect())
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

    /// Releases the rows before `end`: nobody is given them any more. Those of an archive are
    /// deleted by whole files, and what is not archived yet still goes there.
    pub fn release_before(&self, end: u64) {
        let mut inner = self.inner.lock();
        let end = end.min(inner.rows);
        if end <= inner.held {
            return;
        }
        if inner.archive.is_none() {
            inner.cut(end, None);
            if self.limit.is_some() {
                inner.bytes = inner.tail.bytes();
            }
        }
        inner.begin_at(end);
    }

    /// All rows of now (cheap copies of references).
    pub fn contents(&self) -> Contents {
        let inner = self.inner.lock();
        let first = inner.first;
        let from = first.max(inner.start);
        let tail = inner.tail.pieces().iter().filter_map(|piece| piece.part(from, u64::MAX));
        Contents {
            first,
            archive: inner.archive.clone().filter(|_| inner.start > first),
            tail: tail.collect(),
            tail_rows: inner.rows - inner.start.max(first),
        }
    }

    /// An archived row before which all rows have an event time below `event_time`, in ticks of
    /// the archive's event-time column; the first row when nothing is known.
    pub(crate) fn row_from(&self, event_time: i64) -> u64 {
        let inner = self.inner.lock();
        inner.archive.as_ref().map_or(inner.first, |a| a.row_from(event_time).max(inner.first))
    }

    /// How many rows are there.
    pub fn held_rows(&self) -> u64 {
        let inner = self.inner.lock();
        let lost = inner.archive.as_ref().map_or(0, |a| a.gaps().within(inner.first, inner.rows));
        inner.rows - inner.first - lost
    }

    /// Whether some of its rows are lost.
    pub fn has_gaps(&self) -> bool {
        self.inner.lock().archive.as_ref().is_some_and(|a| !a.gaps().is_empty())
    }

    /// The first offset from `offset` on whose row is not lost.
    pub(super) fn behind_gap(&self, offset: u64) -> u64 {
        self.inner.lock().archive.as_ref().map_or(offset, |a| a.gaps().after(offset))
    }

    /// A receiver that wakes at every change.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Rows and bytes of the tail.
    pub(crate) fn tail_size(&self) -> (u64, usize) {
        let inner = self.inner.lock();
        (inner.rows - inner.start, inner.tail.bytes())
    }

    /// The complete rows that the archive does not have. `None` when it is up to date, the
    /// watermark included.
    pub fn unarchived(&self) -> Option<Unarchived> {
        let inner = self.inner.lock();
        let known = inner.archive.as_ref().and_then(|a| a.state().txn_version);
        let is_older = |watermark: Watermark| known.unwrap_or(i64::MIN) < watermark.ticks();
        let (end, watermark, news) = match self.completion {
            Completion::Rows => (inner.rows, inner.watermark, inner.rows > inner.start),
            Completion::Watermark => {
                (inner.rows_at_watermark, inner.watermark, is_older(inner.watermark))
            }
            Completion::Checkpoint { .. } if inner.ended => {
                (inner.rows, Watermark::END, is_older(Watermark::END))
            }
            Completion::Checkpoint { .. } => {
                let LogEnd { rows, watermark } = inner.checkpoint;
                (rows, watermark, rows > inner.start)
            }
        };
        if !news {
            return None;
        }
        let pieces = inner.tail.pieces().iter();
        let pieces = pieces.skip_while(|piece| piece.end() <= inner.start);
        let rows = pieces.map_while(|piece| piece.part(inner.start, end)).collect();
        Some(Unarchived { first: inner.start, rows, end, watermark })
    }

    /// The archive has grown: the tail releases what it holds now.
    pub fn archived(&self, archive: ArchiveSnapshot) {
        let wanted = self.followers.first_wanted();
        let mut inner = self.inner.lock();
        inner.cut(archive.next_row(), wanted);
        inner.begin_at(archive.state().first_row);
        inner.settle();
        inner.archive = Some(archive);
        drop(inner);
        self.changed.send_replace(());
    }

    /// Waits until the tail has at most so many rows and bytes; a writer that is faster than the archive
    /// takes in is slowed down.
    pub async fn wait_for_room(&self, room: Room) {
        let mut changed = self.watch();
        while self.is_longer_than(room) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Its followers.
    pub(crate) fn followers(&self) -> &Arc<Followers> {
        &self.followers
    }

    /// Waits until those who follow it closely have read enough; a writer that is faster than they are is
    /// slowed down.
    pub async fn wait_for_followers(&self, clock: &dyn Clock) {
        self.followers.wait(|| self.settled().rows, clock).await;
    }

    /// Whether somebody waits for the archive to take rows in.
    pub(crate) fn is_longer_than(&self, room: Room) -> bool {
        let inner = self.inner.lock();
        let long = inner.rows - inner.start > room.rows || inner.tail.bytes() > room.bytes;
        !inner.release && long
    }

    /// The tail is archived no more (its object is dropped, or the engine closes).
    pub(crate) fn release(&self) {
        self.inner.lock().release = true;
        self.changed.send_replace(());
    }

    /// Up to `rows_max` rows from `offset` on, from one stored batch.
    ///
    /// # Errors
    /// When they are on disk and cannot be read.
    pub(super) fn read(&self, offset: u64, rows_max: usize) -> Result<Found> {
        let inner = self.inner.lock();
        if offset < inner.held {
            return Ok(Found::Dropped { first: inner.held });
        }
        let until = offset.saturating_add(rows_max as u64);
        let piece = inner.tail.at(offset).and_then(|piece| piece.part(offset, until));
        if offset < inner.start && piece.is_none() {
            return Ok(inner.archive.clone().map_or(Found::Nothing, Found::Archived));
        }
        // Disk is read when others can go on.
        drop(inner);
        piece.map_or(Ok(Found::Nothing), |piece| piece.load().map(Found::Rows))
    }

    /// What its writer has failed with.
    pub fn failed(&self) -> Option<Error> {
        self.inner.lock().failed.as_ref().map(repeated)
    }
}

impl Inner {
    fn note_behind(&mut self, first: u64, behind: &[Behind]) {
        self.behind.extend(behind.iter().map(|b| (first + b.row as u64, b.watermark)));
    }

    /// The archive has all rows of a checkpoint: what it promises of them holds for those.
    fn settle(&mut self) {
        if self.start >= self.checkpoint.rows {
            self.archived_watermark = self.archived_watermark.advance(self.checkpoint.watermark);
        }
    }

    /// Rows before `held` are not there any more.
    fn begin_at(&mut self, held: u64) {
        if held > self.held {
            self.behind = self.behind.split_off(&held);
            self.held = held;
            self.first = self.first.max(held);
        }
    }

    /// The tail begins at `start` from now on. Rows from `wanted` on stay in memory, if there are: somebody
    /// is about to read them.
    fn cut(&mut self, start: u64, wanted: Option<u64>) {
        self.tail.cut(wanted.map_or(start, |wanted| wanted.min(start)), start);
        self.start = start;
        self.rows = self.rows.max(start);
    }
}

/// What stands at an offset.
pub(super) enum Found {
    Rows(RecordBatch),
    /// It is in the archive.
    Archived(ArchiveSnapshot),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    Dropped {
        first: u64,
    },
}

fn too_long(name: &str, max: usize) -> Error {
    let max = memory::display(max);
    let message = format!("\"{name}\" is in memory alone and may hold {max} of rows");
    Error::new(ErrorKind::Limit, message).with_hint(
        "Raise the limit (--stream-limit), or keep everything in a data directory (windrow DIR).",
    )
}
