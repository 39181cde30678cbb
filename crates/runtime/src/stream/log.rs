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
//! Retention lets go of rows at the front; `first` is the first that is there. Rows that were lost with the end
//! of a write-ahead log leave a gap in the archive, or between it and the tail, never in the tail.
//!
//! Which rows of the tail the archive may take is said by [`Completion`].
//!
//! Invariants: offsets are row numbers and tile, but for gaps; a row once appended never moves or changes;
//! the boundary `start` moves only together with the archive's snapshot, under one lock, so each
//! row is read once; the watermark never moves back; after `end` nothing is appended.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_archive::ArchiveSnapshot;
use windrow_core::{Behind, Error, ErrorKind, Limits, OffsetRange, Result, Watermark};

use crate::memory;
use crate::query::shared::again;

/// Small appended batches are joined into one once together they hold so many rows, these with others
/// at the next step, and so on: a view of many small windows is a few dozen batches, and each row is
/// copied once per step at most.
const JOIN_ROWS: [usize; 3] = [16, 256, 8_192];

/// Rows of one batch that is read from the archive.
const READ_ROWS: usize = 8_192;

/// When rows are complete: the archive takes no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    /// At once: those of a push stream.
    Rows,
    /// When the watermark has passed them: finished windows.
    Watermark,
    /// When a checkpoint says what they were made of: views without windows.
    Checkpoint {
        /// Worked out again they come in the same order, so a row that is not archived yet has the
        /// same offset after a crash. Otherwise who follows the log is given only what is archived.
        in_order: bool,
    },
}

/// What a log had been given at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    /// One past the last offset.
    pub(crate) rows: u64,
    pub(crate) watermark: Watermark,
}

/// An append-only table with offsets: a memory tail, and what of it is archived.
#[derive(Debug)]
pub(crate) struct StreamLog {
    schema: SchemaRef,
    completion: Completion,
    /// Of a log that is never archived: whose it is, and how many bytes it may hold.
    limit: Option<(String, usize)>,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    /// First offset that is there: retention has dropped the rows before it.
    first: u64,
    /// The rows from `first` to `start`.
    archive: Option<ArchiveSnapshot>,
    /// First offset of the tail.
    start: u64,
    /// Batches of the tail by their first offset, ascending.
    batches: Vec<(u64, RecordBatch)>,
    rows: u64,
    /// Bytes that these rows were appended with; counted where there is a limit.
    bytes: usize,
    watermark: Watermark,
    /// Rows of a view that came behind the watermark of what they were made of: its own does not speak of
    /// them. By offset.
    behind: BTreeMap<u64, Watermark>,
    /// What the newest checkpoint has been made of, of a log that is complete by checkpoints.
    checkpoint: Given,
    /// The watermark that the archived rows are complete up to, of such a log.
    archived_watermark: Watermark,
    /// Nobody archives the tail any more: who waits for room would wait for ever.
    let_go: bool,
    /// The rows that were there when the watermark was told last.
    rows_at_watermark: u64,
    ended: bool,
    /// Nothing is to come for now: all that its writer reads is idle.
    rests: bool,
    failed: Option<Arc<Error>>,
}

/// What a log holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogState {
    /// The first offset that is there.
    pub(crate) first: u64,
    /// One past the last offset.
    pub(crate) rows: u64,
    /// The promise that the writer gave with its last append.
    pub(crate) watermark: Watermark,
    /// Whether the writer is done.
    pub(crate) ended: bool,
    /// Whether nothing is to come for now, because all that the writer reads is idle.
    pub(crate) rests: bool,
}

/// All rows of one moment: those of the archive, then those of the tail.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) archive: Option<ArchiveSnapshot>,
    pub(crate) tail: Vec<RecordBatch>,
    pub(crate) tail_rows: u64,
}

impl Contents {
    /// All rows, those of the archive read into memory.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub(crate) async fn batches(&self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        if let Some(archive) = &self.archive {
            let all: Vec<usize> = (0..archive.schema().fields().len()).collect();
            let rows = archive.read(archive.state().first_row, &all, READ_ROWS).await?;
            batches = rows.try_collect().await?;
        }
        batches.extend(self.tail.iter().cloned());
        Ok(batches)
    }
}

/// Rows of the tail that may go to the archive.
#[derive(Debug)]
pub(crate) struct Unarchived {
    /// Offset of the first.
    pub(crate) first: u64,
    pub(crate) batches: Vec<RecordBatch>,
    /// One past the last offset.
    pub(crate) end: u64,
    /// The watermark that they are complete up to.
    pub(crate) watermark: Watermark,
}

impl StreamLog {
    /// An empty log in memory alone.
    #[cfg(test)]
    pub(crate) fn new(schema: SchemaRef) -> Arc<Self> {
        Self::with(schema, None, (Watermark::NONE, Completion::Rows), None)
    }

    /// An empty log in memory alone, of the stream or view `name`.
    pub(crate) fn in_memory(schema: SchemaRef, name: &str, limits: &Limits) -> Arc<Self> {
        let limit = limits.stream_bytes_max.map(|bytes| (name.to_owned(), bytes));
        Self::with(schema, None, (Watermark::NONE, Completion::Rows), limit)
    }

    /// A log that goes on behind what is archived; `watermark` is the promise that was given with
    /// the archived rows, [`Watermark::END`] when its writer was done.
    pub(crate) fn restored(
        schema: SchemaRef,
        archive: ArchiveSnapshot,
        told: (Watermark, Completion),
    ) -> Arc<Self> {
        Self::with(schema, Some(archive), told, None)
    }

    fn with(
        schema: SchemaRef,
        archive: Option<ArchiveSnapshot>,
        (watermark, completion): (Watermark, Completion),
        limit: Option<(String, usize)>,
    ) -> Arc<Self> {
        let start = archive.as_ref().map_or(0, ArchiveSnapshot::next_row);
        let inner = Inner {
            first: archive.as_ref().map_or(0, |a| a.state().first_row),
            archive,
            start,
            batches: vec![],
            rows: start,
            bytes: 0,
            watermark,
            behind: BTreeMap::new(),
            rows_at_watermark: start,
            checkpoint: Given { rows: start, watermark },
            archived_watermark: watermark,
            let_go: false,
            ended: watermark == Watermark::END,
            rests: false,
            failed: None,
        };
        let (inner, changed) = (Mutex::new(inner), watch::Sender::new(()));
        Arc::new(Self { schema, completion, limit, inner, changed })
    }

    /// When its rows are complete.
    pub(crate) fn completion(&self) -> Completion {
        self.completion
    }

    /// The columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends rows; returns their first offset.
    ///
    /// # Errors
    /// When the log has ended, or small batches cannot be joined; Limit when it may not hold so
    /// much; what it has failed with, or that it was dropped.
    pub(crate) fn append(&self, batch: RecordBatch) -> Result<u64> {
        self.append_behind(batch, &[])
    }

    /// Appends rows some of which came behind the watermark.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub(crate) fn append_behind(&self, batch: RecordBatch, behind: &[Behind]) -> Result<u64> {
        let first = {
            let mut inner = self.inner.lock();
            if let Some(error) = &inner.failed {
                return Err(again(error));
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
            inner.batches.push((first, batch));
            join_small_tail(&self.schema, &mut inner.batches)?;
            first
        };
        self.changed.send_replace(());
        Ok(first)
    }

    /// Rows from offset `first` on came behind the watermark.
    pub(crate) fn note_behind(&self, first: u64, behind: &[Behind]) {
        self.inner.lock().note_behind(first, behind);
    }

    /// Which rows of these offsets came behind the watermark, counted from the first.
    pub(crate) fn behind(&self, offsets: OffsetRange) -> Vec<Behind> {
        let inner = self.inner.lock();
        let there = inner.behind.range(offsets.start()..offsets.end());
        let row = |offset: u64| usize::try_from(offset - offsets.start()).ok();
        there.filter_map(|(o, w)| Some(Behind { row: row(*o)?, watermark: *w })).collect()
    }

    /// Promises that no appended row will have an event time below `watermark`.
    pub(crate) fn advance(&self, watermark: Watermark) {
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
    pub(crate) fn rest(&self, rests: bool) {
        let before = std::mem::replace(&mut self.inner.lock().rests, rests);
        if before != rests {
            self.changed.send_replace(());
        }
    }

    /// Ends the log: readers that reach the end are done.
    pub(crate) fn end(&self) {
        {
            let mut inner = self.inner.lock();
            inner.ended = true;
            inner.watermark = Watermark::END;
            inner.rows_at_watermark = inner.rows;
        }
        self.changed.send_replace(());
    }

    /// The writer has failed, for good: readers get its error, those that follow the log when they reach its end.
    pub(crate) fn fail(&self, error: Arc<Error>) {
        self.inner.lock().failed.get_or_insert(error);
        self.changed.send_replace(());
    }

    /// What it holds now.
    pub(crate) fn state(&self) -> LogState {
        let inner = self.inner.lock();
        LogState {
            first: inner.first,
            rows: inner.rows,
            watermark: inner.watermark,
            ended: inner.ended,
            rests: inner.rests,
        }
    }

    /// What may be told to who follows it: what stays as it is, also if the process is killed now.
    pub(crate) fn settled(&self) -> LogState {
        let state = self.state();
        if self.completion != (Completion::Checkpoint { in_order: false }) {
            return state;
        }
        let inner = self.inner.lock();
        let all = inner.ended && inner.start == inner.rows;
        let watermark = if all { Watermark::END } else { inner.archived_watermark };
        let rests = inner.rests && inner.start == inner.rows;
        LogState { first: inner.first, rows: inner.start, watermark, ended: all, rests }
    }

    /// The archived rows are complete up to this watermark: the same promise as before a restart.
    pub(crate) fn reached(&self, watermark: Watermark) {
        let mut inner = self.inner.lock();
        inner.watermark = inner.watermark.advance(watermark);
        inner.archived_watermark = inner.archived_watermark.advance(watermark);
        inner.checkpoint.watermark = inner.checkpoint.watermark.advance(watermark);
    }

    /// What it has been given, of a log that is complete by checkpoints.
    pub(crate) fn given(&self) -> Given {
        let inner = self.inner.lock();
        Given { rows: inner.rows, watermark: inner.watermark }
    }

    /// There is a checkpoint of what these rows were made of: the archive may take them.
    pub(crate) fn checkpointed(&self, given: Given) {
        {
            let mut inner = self.inner.lock();
            inner.checkpoint = given;
            inner.settle();
        }
        self.changed.send_replace(());
    }

    /// What is archived, and the batches of the tail from the one on that holds `offset`, by their
    /// first offset (cheap copies of references).
    pub(crate) fn since(&self, offset: u64) -> (Option<ArchiveSnapshot>, Vec<(u64, RecordBatch)>) {
        let inner = self.inner.lock();
        let end = |(first, rows): &(u64, RecordBatch)| *first + rows.num_rows() as u64;
        let known = inner.batches.partition_point(|batch| end(batch) <= offset);
        (inner.archive.clone(), inner.batches.iter().skip(known).cloned().collect())
    }

    /// Lets go of the rows of the tail before `end`, of a log without archive. Returns how many
    /// those were.
    pub(crate) fn let_go_before(&self, end: u64) -> u64 {
        let mut inner = self.inner.lock();
        let end = end.min(inner.rows);
        let gone = end.saturating_sub(inner.first);
        if gone > 0 && inner.archive.is_none() {
            inner.cut(end);
            inner.begin_at(end);
            if self.limit.is_some() {
                inner.bytes = inner.batches.iter().map(|(_, batch)| bytes_of(batch)).sum();
            }
            gone
        } else {
            0
        }
    }

    /// All rows of now (cheap copies of references).
    pub(crate) fn contents(&self) -> Contents {
        let inner = self.inner.lock();
        Contents {
            archive: inner.archive.clone().filter(|_| inner.start > 0),
            tail: inner.batches.iter().map(|(_, b)| b.clone()).collect(),
            tail_rows: inner.rows - inner.start,
        }
    }

    /// An archived row before which all rows have an event time below `event_time`, in ticks of
    /// the archive's event-time column; the first row when nothing is known.
    pub(crate) fn row_from(&self, event_time: i64) -> u64 {
        let inner = self.inner.lock();
        inner.archive.as_ref().map_or(inner.first, |a| a.row_from(event_time).max(inner.first))
    }

    /// How many rows are there.
    pub(crate) fn held_rows(&self) -> u64 {
        let inner = self.inner.lock();
        let lost = inner.archive.as_ref().map_or(0, |a| a.gaps().within(inner.first, inner.rows));
        inner.rows - inner.first - lost
    }

    /// Whether some of its rows are lost.
    pub(crate) fn has_gaps(&self) -> bool {
        self.inner.lock().archive.as_ref().is_some_and(|a| !a.gaps().is_empty())
    }

    /// The first offset from `offset` on whose row is not lost.
    pub(super) fn behind_gap(&self, offset: u64) -> u64 {
        self.inner.lock().archive.as_ref().map_or(offset, |a| a.gaps().after(offset))
    }

    /// A receiver that wakes at every change.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Rows and bytes of the tail.
    pub(crate) fn tail_size(&self) -> (u64, usize) {
        let inner = self.inner.lock();
        let bytes = inner.batches.iter().map(|(_, b)| bytes_of(b)).sum();
        (inner.rows - inner.start, bytes)
    }

    /// The complete rows that the archive does not have. `None` when it is up to date, the
    /// watermark included.
    pub(crate) fn unarchived(&self) -> Option<Unarchived> {
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
                let Given { rows, watermark } = inner.checkpoint;
                (rows, watermark, rows > inner.start)
            }
        };
        if !news {
            return None;
        }
        let mut batches = Vec::new();
        for (first, batch) in &inner.batches {
            let room = end.saturating_sub(*first);
            match usize::try_from(room).unwrap_or(usize::MAX).min(batch.num_rows()) {
                0 => break,
                rows => batches.push(batch.slice(0, rows)),
            }
        }
        Some(Unarchived { first: inner.start, batches, end, watermark })
    }

    /// The archive has grown: the tail lets go of what it holds now.
    pub(crate) fn archived(&self, archive: ArchiveSnapshot) {
        let mut inner = self.inner.lock();
        inner.cut(archive.next_row());
        inner.begin_at(archive.state().first_row);
        inner.settle();
        inner.archive = Some(archive);
        drop(inner);
        self.changed.send_replace(());
    }

    /// Waits until the tail has at most `rows_max` rows; who writes faster than the archive takes
    /// in is slowed down.
    pub(crate) async fn wait_for_room(&self, rows_max: u64) {
        let mut changed = self.watch();
        while self.is_longer_than(rows_max) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn is_longer_than(&self, rows_max: u64) -> bool {
        let inner = self.inner.lock();
        !inner.let_go && inner.rows - inner.start > rows_max
    }

    /// The tail is archived no more (its object is dropped, or the engine closes).
    pub(crate) fn let_go(&self) {
        self.inner.lock().let_go = true;
        self.changed.send_replace(());
    }

    /// Up to `rows_max` rows from `offset` on, from one stored batch.
    pub(super) fn read(&self, offset: u64, rows_max: usize) -> Found {
        let inner = self.inner.lock();
        if offset < inner.first {
            return Found::Dropped { first: inner.first };
        }
        if offset < inner.start {
            return inner.archive.clone().map_or(Found::Nothing, Found::Archived);
        }
        let found = || {
            let at = inner.batches.partition_point(|(first, _)| *first <= offset).checked_sub(1)?;
            let (first, batch) = inner.batches.get(at)?;
            let skip = usize::try_from(offset - first).ok()?;
            let rows = batch.num_rows().checked_sub(skip).filter(|rows| *rows > 0)?;
            Some(batch.slice(skip, rows.min(rows_max)))
        };
        found().map_or(Found::Nothing, Found::Rows)
    }

    /// What its writer has failed with.
    pub(crate) fn failed(&self) -> Option<Error> {
        self.inner.lock().failed.as_ref().map(again)
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

    /// Rows before `first` are not there any more.
    fn begin_at(&mut self, first: u64) {
        if first > self.first {
            self.behind = self.behind.split_off(&first);
            self.first = first;
        }
    }

    /// The tail begins at `start` from now on.
    fn cut(&mut self, start: u64) {
        let kept = std::mem::take(&mut self.batches).into_iter().filter_map(|(first, batch)| {
            let gone = usize::try_from(start.saturating_sub(first)).unwrap_or(usize::MAX);
            let left = batch.num_rows().checked_sub(gone).filter(|left| *left > 0)?;
            Some((first.max(start), batch.slice(gone, left)))
        });
        self.batches = kept.collect();
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

/// As [`shown_bytes`]; what cannot be told by what it shows counts as what it holds. (Columns of a
/// decoded message hold parts of one buffer, and each would count it wholly.)
pub(crate) fn bytes_of(batch: &RecordBatch) -> usize {
    shown_bytes(batch).unwrap_or_else(|_unknown| batch.get_array_memory_size())
}

/// Bytes of the rows that are shown, not of the buffers that they are part of.
fn shown_bytes(batch: &RecordBatch) -> Result<usize> {
    let sizes = batch.columns().iter().map(|c| c.to_data().get_slice_memory_size());
    Ok(sizes.sum::<Result<usize, _>>()?)
}

fn too_long(name: &str, max: usize) -> Error {
    let max = memory::display(max);
    let message = format!("\"{name}\" is in memory alone and may hold {max} of rows");
    Error::new(ErrorKind::Limit, message).with_hint(
        "Raise the limit (--stream-limit), or keep everything in a data directory (windrow DIR).",
    )
}

/// Joins the small batches at the end, at each step those that are smaller than it.
fn join_small_tail(schema: &SchemaRef, batches: &mut Vec<(u64, RecordBatch)>) -> Result<()> {
    for step in JOIN_ROWS {
        let (mut rows, mut tail) = (0, batches.len());
        while let Some((_, batch)) = tail.checked_sub(1).and_then(|at| batches.get(at))
            && batch.num_rows() < step
        {
            rows += batch.num_rows();
            tail -= 1;
        }
        let small = batches.get(tail..).unwrap_or_default();
        let Some((first, _)) = small.first().filter(|_| small.len() > 1 && rows >= step) else {
            continue;
        };
        let joined = (*first, concat_batches(schema, small.iter().map(|(_, batch)| batch))?);
        batches.truncate(tail);
        batches.push(joined);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn many_small_batches_are_read_as_a_few() {
        let batch = |rows: std::ops::Range<i64>| {
            let n: ArrayRef = Arc::new(Int64Array::from_iter_values(rows));
            RecordBatch::try_from_iter([("n", n)]).unwrap()
        };
        let log = StreamLog::new(batch(0..0).schema());
        let (mut end, mut most) = (0, 0);
        for round in 0..12_000 {
            // Now and then a larger one, so that sizes are mixed.
            let rows = if round % 1_000 == 999 { 700 } else { 1 + i64::from(round % 7 == 0) };
            assert_eq!(log.append(batch(end..end + rows)).unwrap(), end as u64);
            end += rows;
            let batches = log.since(0).1;
            most = most.max(batches.iter().filter(|(_, b)| b.num_rows() < 8_192).count());
        }
        assert!(most < 200, "{most} small batches");
        let mut next = 0;
        for (first, batch) in log.since(0).1 {
            assert_eq!(first, next as u64);
            for n in batch.column(0).as_primitive::<Int64Type>().values() {
                assert_eq!(*n, next);
                next += 1;
            }
        }
        assert_eq!(next, end);
    }
}
