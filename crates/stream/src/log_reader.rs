//! Reading a log from any retained offset: first its archive, then its tail; then, when following, waiting for more.
//!
//! Invariant: a watermark is passed on only with or after all rows that it covers.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::watch;
use windrow_archive::ArchiveSnapshot;
use windrow_core::{
    Error, OffsetRange, Partition, PartitionId, Reader, Result, ScanRequest, Source, SourceBatch,
    Split, Watermark,
};

use crate::followers::{Follower, ReadBy};
use crate::log::{LogState, ReadAt, StreamLog};

/// The name of the single partition of a log.
pub(crate) const LOG_PARTITION: &str = "log";

/// A log as a source.
#[derive(Debug)]
pub struct LogSource {
    log: Arc<StreamLog>,
    /// The offset at which reading begins; `None`: at the first retained row.
    from: Option<u64>,
    /// The first offset for a new reader when this source was created.
    first: u64,
    /// The offset before which reading ends; `None`: when the log ends.
    until: Option<u64>,
    /// Whether the log's own watermark is passed on, instead of one derived from event times.
    explicit_watermark: bool,
    /// Whether rows that retention drops before they are read are skipped; otherwise that is an error.
    skips: bool,
    /// The kind of reader, which determines how long writers of the log wait for it.
    read_by: ReadBy,
}

impl LogSource {
    /// Follows a log from offset `from` on (`None`: from its first row) until it ends. `explicit_watermark`: the log's
    /// own watermark is passed on (that of a view), instead of one derived from event times.
    pub fn follow(log: Arc<StreamLog>, from: Option<u64>, explicit_watermark: bool) -> Self {
        let first = log.state().first;
        Self {
            log,
            from,
            first,
            until: None,
            explicit_watermark,
            skips: false,
            read_by: ReadBy::Client,
        }
    }

    /// Reads the rows that the log has now, from offset `from` on (`None`: from its first row), and ends.
    pub fn snapshot(log: Arc<StreamLog>, from: Option<u64>, explicit_watermark: bool) -> Self {
        let LogState { first, rows, .. } = log.state();
        let (until, skips) = (Some(rows), from.is_none());
        Self { log, from, first, until, explicit_watermark, skips, read_by: ReadBy::Client }
    }

    /// Reads the rows of the log from offset `from` on (`None`: from its first row) and before `until`, and ends.
    pub fn part(log: Arc<StreamLog>, from: Option<u64>, until: u64) -> Self {
        let first = log.state().first;
        let (until, read_by) = (Some(until), ReadBy::Client);
        Self { log, from, first, until, explicit_watermark: false, skips: true, read_by }
    }

    /// Sets the kind of reader, which determines how long writers of the log wait for it.
    pub(crate) fn at(self, read_by: ReadBy) -> Self {
        Self { read_by, ..self }
    }
}

#[async_trait]
impl Source for LogSource {
    fn schema(&self) -> SchemaRef {
        self.log.schema()
    }

    fn is_bounded(&self) -> bool {
        self.until.is_some()
    }

    async fn discover(&self) -> Result<Vec<Partition>> {
        let id = PartitionId(0);
        let from = self.from.unwrap_or(self.first);
        let history = self.until.unwrap_or_else(|| self.log.state().rows).saturating_sub(from);
        let split = Split { rows: Some(history), ..Split::new(id, 0, LOG_PARTITION) };
        Ok(vec![Partition { id, name: LOG_PARTITION.into(), splits: vec![split] }])
    }

    async fn open(&self, _: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>> {
        Ok(Box::new(self.reader(scan)))
    }
}

impl LogSource {
    /// Returns a reader of the log, which has only one split.
    pub(crate) fn reader(&self, scan: &ScanRequest) -> LogReader {
        let from = scan.from.or(self.from);
        let position = from.unwrap_or(self.first);
        let follower =
            self.until.is_none().then(|| self.log.followers().join(position, self.read_by));
        LogReader {
            changed: self.log.watch(),
            follower,
            log: Arc::clone(&self.log),
            position,
            begun: from.is_some(),
            skips: self.skips && scan.from.is_none(),
            until: self.until,
            explicit_watermark: self.explicit_watermark,
            passed: Watermark::NONE,
            passed_idle: false,
            projection: scan.projection.clone(),
            batch_rows_max: scan.batch_rows_max,
            archived: None,
        }
    }
}

/// A reader of a log: first of its archive, then of its tail.
pub(crate) struct LogReader {
    log: Arc<StreamLog>,
    changed: watch::Receiver<()>,
    /// Its registration with the writers of the log; `None`: it does not follow the log.
    follower: Option<Follower>,
    position: u64,
    /// Whether rows must be read from exactly this position; otherwise reading begins with the first retained row at or
    /// after it.
    begun: bool,
    /// As in [`LogSource`].
    skips: bool,
    until: Option<u64>,
    explicit_watermark: bool,
    /// The watermark that was last passed on.
    passed: Watermark,
    /// Whether the idleness that was last passed on is "idle".
    passed_idle: bool,
    projection: Vec<usize>,
    batch_rows_max: usize,
    /// A stream of archived rows that begins at the position.
    archived: Option<BoxStream<'static, Result<RecordBatch>>>,
}

/// The next step of a reader.
enum Step {
    Batch(SourceBatch),
    Archive(ArchiveSnapshot),
    Wait,
}

impl LogReader {
    /// Determines what is at the position.
    fn look(&mut self) -> Result<Step> {
        // The state is read before the rows: a watermark must never overtake its rows.
        let state = self.state();
        if !self.begun {
            self.position = self.position.max(state.oldest);
            self.begun = true;
        }
        let behind = self.log.behind_gap(self.position).min(state.rows);
        if behind > self.position {
            // Lost rows yield an empty batch that covers their offsets.
            let columns = self.log.schema().project(&self.projection)?;
            let mut batch =
                SourceBatch::consecutive(RecordBatch::new_empty(Arc::new(columns)), self.position)?;
            batch.offsets = OffsetRange::try_new(self.position, behind)?;
            self.position = behind;
            return Ok(Step::Batch(batch));
        }
        let left = self.left(state.rows);
        let found = match left.min(self.batch_rows_max) {
            0 => ReadAt::Nothing,
            rows_max => self.log.read(self.position, rows_max)?,
        };
        let rows = match found {
            ReadAt::Archived(archive) => return Ok(Step::Archive(archive)),
            ReadAt::Rows(rows) => Some(rows.project(&self.projection)?),
            ReadAt::Nothing => None,
            ReadAt::Dropped { first } if self.skips => {
                self.position = first;
                return self.look();
            }
            ReadAt::Dropped { first } => return Err(dropped(self.position, first)),
        };
        let caught_up =
            self.position + rows.as_ref().map_or(0, |b| b.num_rows() as u64) >= state.rows;
        let tells = self.explicit_watermark && self.until.is_none();
        let watermark =
            (tells && caught_up && state.watermark > self.passed).then_some(state.watermark);
        let idle = tells && caught_up && state.rests;
        if rows.is_none() && watermark.is_none() && idle == self.passed_idle {
            self.stands();
            return Ok(Step::Wait);
        }
        let rows = match rows {
            Some(rows) => rows,
            None => RecordBatch::new_empty(Arc::new(self.log.schema().project(&self.projection)?)),
        };
        self.pass(rows, (watermark, idle)).map(Step::Batch)
    }

    /// The part of the log for this reader. A follower resumes by offsets after a crash, and so gets settled rows only.
    fn state(&self) -> LogState {
        if self.until.is_some() { self.log.state() } else { self.log.settled() }
    }

    /// The number of rows that remain to be read when the log has `rows`.
    fn left(&self, rows: u64) -> usize {
        let until = self.until.unwrap_or(u64::MAX).min(rows);
        usize::try_from(until.saturating_sub(self.position)).unwrap_or(usize::MAX)
    }

    /// Returns the rows at the position as a batch, with the watermark and idleness after them.
    fn pass(
        &mut self,
        rows: RecordBatch,
        (watermark, idle): (Option<Watermark>, bool),
    ) -> Result<SourceBatch> {
        let mut batch = SourceBatch::consecutive(rows, self.position)?;
        batch.behind = self.log.behind(batch.offsets);
        self.position = batch.offsets.end();
        self.stands();
        self.passed = watermark.unwrap_or(self.passed);
        self.passed_idle = idle;
        batch.watermark = watermark;
        batch.idle = self.explicit_watermark.then_some(idle);
        Ok(batch)
    }

    /// Reports the position to the writers of the log.
    fn stands(&self) {
        if let Some(follower) = &self.follower {
            follower.stands(self.position, self.log.settled().rows);
        }
    }

    /// Reads the next batch of the archive; `None` at its end.
    async fn next_archived(&mut self) -> Result<Option<SourceBatch>> {
        let Some(archived) = &mut self.archived else { return Ok(None) };
        let Some(rows) = archived.next().await.transpose()? else {
            self.archived = None;
            return Ok(None);
        };
        let left = self.left(u64::MAX);
        // A file has no gap in it, so no batch has.
        self.position = self.log.behind_gap(self.position);
        let rows = rows.slice(0, rows.num_rows().min(left));
        if left <= rows.num_rows() {
            self.archived = None;
        }
        self.pass(rows, (None, false)).map(Some)
    }

    fn is_done(&self) -> bool {
        let state = self.state();
        match self.until {
            Some(until) => self.position >= until,
            None => state.ended && self.position >= state.rows,
        }
    }
}

/// Returns the error for rows that retention has dropped; `first` is the first retained offset.
pub fn dropped(offset: u64, first: u64) -> Error {
    Error::data(format!("row {offset} is no longer there: retention has dropped it"))
        .with_detail(format!("The first retained row has the offset {first}."))
        .with_hint("Read from the beginning, or give the stream or view a longer retention.")
}

#[async_trait]
impl Reader for LogReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        loop {
            if let Some(batch) = self.next_archived().await? {
                return Ok(Some(batch));
            }
            self.changed.mark_unchanged();
            match self.look()? {
                Step::Batch(batch) => return Ok(Some(batch)),
                Step::Archive(archive) => {
                    let rows =
                        archive.read(self.position, &self.projection, self.batch_rows_max).await?;
                    self.archived = Some(rows);
                    continue;
                }
                Step::Wait => {}
            }
            // First: the rows of a view that has failed are not a complete result.
            if let Some(error) = self.log.failed() {
                return Err(error);
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
