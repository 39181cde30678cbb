//! The memory log: an append-only table with offsets that many readers follow.
//!
//! It holds the rows of push streams (INSERT, later Flight) and the finished windows of views.
//! Readers keep their own position and are served from the log, so a slow reader holds nobody
//! back and needs no queue.
//!
//! ```text
//! offset   0        n1       n2            n
//!          ├─ batch ─┼─ batch ─┼─ … ─ batch ─┤ ◄─ append      watermark, ended
//! ```
//! Invariants: offsets are row numbers and tile; a row once appended never moves or changes;
//! the watermark never moves back; after `end` nothing is appended.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_core::{
    Error, Partition, PartitionId, Reader, Result, ScanRequest, Source, SourceBatch, Split,
    Watermark,
};

/// Small appended batches are joined until one holds this many rows, so that a view of many
/// small windows is read at the speed of a few large batches.
const JOIN_ROWS: usize = 8_192;

/// An append-only, in-memory table with offsets.
#[derive(Debug)]
pub(crate) struct MemoryLog {
    schema: SchemaRef,
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Inner {
    /// Batches by their first offset, ascending.
    batches: Vec<(u64, RecordBatch)>,
    rows: u64,
    watermark: Watermark,
    ended: bool,
}

/// What a log holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogState {
    /// One past the last offset.
    pub(crate) rows: u64,
    /// The promise that the writer gave with its last append.
    pub(crate) watermark: Watermark,
    /// Whether the writer is done.
    pub(crate) ended: bool,
}

impl MemoryLog {
    /// An empty log.
    pub(crate) fn new(schema: SchemaRef) -> Arc<Self> {
        let inner = Inner { batches: vec![], rows: 0, watermark: Watermark::NONE, ended: false };
        Arc::new(Self { schema, inner: Mutex::new(inner), changed: watch::Sender::new(()) })
    }

    /// The columns.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Appends rows; returns their first offset.
    ///
    /// # Errors
    /// When the log has ended, or small batches cannot be joined.
    pub(crate) fn append(&self, batch: RecordBatch) -> Result<u64> {
        let first = {
            let mut inner = self.inner.lock();
            if inner.ended {
                return Err(Error::internal("append to a log that has ended"));
            }
            let first = inner.rows;
            if batch.num_rows() == 0 {
                return Ok(first);
            }
            inner.rows += batch.num_rows() as u64;
            inner.batches.push((first, batch));
            join_small_tail(&self.schema, &mut inner.batches)?;
            first
        };
        self.changed.send_replace(());
        Ok(first)
    }

    /// Promises that no appended row will have an event time below `watermark`.
    pub(crate) fn advance(&self, watermark: Watermark) {
        let moved = {
            let mut inner = self.inner.lock();
            let before = inner.watermark;
            inner.watermark = before.advance(watermark);
            inner.watermark != before
        };
        if moved {
            self.changed.send_replace(());
        }
    }

    /// Ends the log: readers that reach the end are done.
    pub(crate) fn end(&self) {
        {
            let mut inner = self.inner.lock();
            inner.ended = true;
            inner.watermark = Watermark::END;
        }
        self.changed.send_replace(());
    }

    /// What it holds now.
    pub(crate) fn state(&self) -> LogState {
        let inner = self.inner.lock();
        LogState { rows: inner.rows, watermark: inner.watermark, ended: inner.ended }
    }

    /// All batches of now (a cheap copy of references).
    pub(crate) fn snapshot(&self) -> Vec<RecordBatch> {
        self.inner.lock().batches.iter().map(|(_, b)| b.clone()).collect()
    }

    /// A receiver that wakes at every change.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Up to `rows_max` rows from `offset` on, from one stored batch; `None` when there are none
    /// yet.
    pub(crate) fn read(&self, offset: u64, rows_max: usize) -> Option<RecordBatch> {
        let inner = self.inner.lock();
        let at = inner.batches.partition_point(|(first, _)| *first <= offset).checked_sub(1)?;
        let (first, batch) = inner.batches.get(at)?;
        let skip = usize::try_from(offset - first).ok()?;
        let rows = batch.num_rows().checked_sub(skip).filter(|rows| *rows > 0)?;
        Some(batch.slice(skip, rows.min(rows_max)))
    }
}

/// Joins the small batches at the end once together they are no longer small. Each row is copied
/// at most once.
fn join_small_tail(schema: &SchemaRef, batches: &mut Vec<(u64, RecordBatch)>) -> Result<()> {
    let small = batches.iter().rev().take_while(|(_, b)| b.num_rows() < JOIN_ROWS).count();
    let tail = batches.len() - small;
    let rows: usize = batches.iter().skip(tail).map(|(_, b)| b.num_rows()).sum();
    if small < 2 || rows < JOIN_ROWS {
        return Ok(());
    }
    let (Some(first), parts) =
        (batches.get(tail).map(|(f, _)| *f), batches.iter().skip(tail).map(|(_, b)| b))
    else {
        return Ok(());
    };
    let joined = concat_batches(schema, parts)?;
    batches.truncate(tail);
    batches.push((first, joined));
    Ok(())
}

/// A log as a source.
#[derive(Debug)]
pub(crate) struct LogSource {
    log: Arc<MemoryLog>,
    /// Where reading begins.
    from: u64,
    /// Where reading ends, whatever comes later; `None`: when the log ends.
    until: Option<u64>,
    /// Whether the log's writer knows the watermark better than the event times do.
    explicit_watermark: bool,
}

impl LogSource {
    /// Follows a log from `from` on until it ends. `explicit_watermark`: the writer gives the
    /// watermark (a view does), it is not derived from event times.
    pub(crate) fn follow(log: Arc<MemoryLog>, from: u64, explicit_watermark: bool) -> Self {
        Self { log, from, until: None, explicit_watermark }
    }

    /// What the log holds now, and then ends.
    pub(crate) fn snapshot(log: Arc<MemoryLog>, explicit_watermark: bool) -> Self {
        let until = Some(log.state().rows);
        Self { log, from: 0, until, explicit_watermark }
    }
}

#[async_trait]
impl Source for LogSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.log.schema)
    }

    fn is_bounded(&self) -> bool {
        self.until.is_some()
    }

    async fn discover(&self) -> Result<Vec<Partition>> {
        let id = PartitionId(0);
        let split = Split {
            partition: id,
            number: 0,
            rows: self.until,
            bytes: None,
            event_times: None,
            detail: Arc::new(()),
        };
        Ok(vec![Partition { id, name: "log".into(), splits: vec![split] }])
    }

    async fn open(&self, _: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>> {
        Ok(Box::new(LogReader {
            changed: self.log.watch(),
            log: Arc::clone(&self.log),
            position: self.from,
            until: self.until,
            explicit_watermark: self.explicit_watermark,
            told: Watermark::NONE,
            projection: scan.projection.clone(),
            batch_rows_max: scan.batch_rows_max,
        }))
    }
}

struct LogReader {
    log: Arc<MemoryLog>,
    changed: watch::Receiver<()>,
    position: u64,
    until: Option<u64>,
    explicit_watermark: bool,
    /// The watermark that was last passed on.
    told: Watermark,
    projection: Vec<usize>,
    batch_rows_max: usize,
}

impl LogReader {
    /// The batch at the position, `None` when nothing is there (yet).
    fn take(&mut self) -> Result<Option<SourceBatch>> {
        // The state is read before the rows: a watermark must never overtake its rows.
        let state = self.log.state();
        let until = self.until.unwrap_or(u64::MAX).min(state.rows);
        let left = usize::try_from(until.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let rows = match left.min(self.batch_rows_max) {
            0 => None,
            rows_max => self.log.read(self.position, rows_max),
        };
        let caught_up =
            self.position + rows.as_ref().map_or(0, |b| b.num_rows() as u64) >= state.rows;
        let watermark = (self.explicit_watermark
            && caught_up
            && state.watermark > self.told
            && self.until.is_none())
        .then_some(state.watermark);
        if rows.is_none() && watermark.is_none() {
            return Ok(None);
        }
        let rows = match rows {
            Some(rows) => rows.project(&self.projection)?,
            None => RecordBatch::new_empty(Arc::new(self.log.schema.project(&self.projection)?)),
        };
        let mut batch = SourceBatch::consecutive(rows, self.position)?;
        self.position = batch.offsets.end();
        self.told = watermark.unwrap_or(self.told);
        batch.watermark = watermark;
        Ok(Some(batch))
    }

    fn is_done(&self) -> bool {
        let state = self.log.state();
        match self.until {
            Some(until) => self.position >= until,
            None => state.ended && self.position >= state.rows,
        }
    }
}

#[async_trait]
impl Reader for LogReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        loop {
            self.changed.mark_unchanged();
            if let Some(batch) = self.take()? {
                return Ok(Some(batch));
            }
            if self.is_done() {
                return Ok(None);
            }
            // The sender lives as long as the log, which this reader holds.
            if self.changed.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}
