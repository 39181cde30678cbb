//! How rows enter Windrow: the port to external systems.
//!
//! A [`Source`] has partitions, a partition has splits, a split is read by one [`Reader`]. The splits of a partition
//! are ordered: the rows of split 1 come after those of split 0. They may be *decoded* at the same time; whatever needs
//! the order (the watermark) restores it.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use crate::{OffsetRange, PartitionId, Result, RowOffsets, Watermark};

/// An origin of rows.
///
/// # Contract
/// - A partition once returned by [`discover`](Source::discover) keeps its id and its splits.
/// - Reading a split twice gives the same rows at the same offsets.
/// - The offset ranges of a split's batches tile, and those of a partition's splits do.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// All columns, before projection.
    fn schema(&self) -> SchemaRef;

    /// Whether it ends by itself.
    fn is_bounded(&self) -> bool;

    /// Whether the contract holds beyond this process: a source that is opened with the same options after a restart gives
    /// the same rows at the same offsets.
    fn is_replayable(&self) -> bool {
        true
    }

    /// Notices for the user who creates a stream of it, such as a declared column that is missing everywhere.
    fn notices(&self) -> Vec<String> {
        vec![]
    }

    /// Returns the partitions that exist now, in the order of reading. It may be called again on an unbounded source,
    /// and may then return more.
    ///
    /// # Errors
    /// When the location cannot be listed.
    async fn discover(&self) -> Result<Vec<Partition>>;

    /// Returns the partitions that exist now, for a reading that ends: what is missing would be missing in the answer, so
    /// a source that [`discover`](Source::discover) lets wait for an external system does not wait here.
    ///
    /// # Errors
    /// When the location cannot be listed, or an external system does not respond.
    async fn discover_now(&self) -> Result<Vec<Partition>> {
        self.discover().await
    }

    /// How long to wait before calling [`discover`](Source::discover) again; `None` when the partitions are fixed.
    fn rediscover_after(&self) -> Option<std::time::Duration> {
        None
    }

    /// Informs the source of how far a partition was read before a restart ([`SourceBatch::place`]). Called before the
    /// first [`discover`](Source::discover).
    ///
    /// # Errors
    /// When the place cannot be parsed.
    fn recall(&self, partition: &str, place: &str) -> Result<()> {
        let _ = (partition, place);
        Ok(())
    }

    /// Returns why reading a partition again does not reproduce what was read of it up to `offset`, where `place`
    /// describes that position ([`SourceBatch::place`]). `None`: it does.
    ///
    /// # Errors
    /// When the place cannot be parsed.
    fn lost(&self, partition: &str, offset: u64, place: &str) -> Result<Option<String>> {
        let _ = (partition, offset, place);
        Ok(None)
    }

    /// Whether it returns its rows only once. They are stored on arrival in a log, which queries read. The source itself has
    /// one reader for each partition, from offset 0 on; [`acknowledge`](Source::acknowledge) informs it of what is stored.
    fn forgets(&self) -> bool {
        false
    }

    /// Informs a source that [forgets](Source::forgets) that the rows of a split below `offset` are stored.
    fn acknowledge(&self, split: &Split, offset: u64) {
        let _ = (split, offset);
    }

    /// Returns the state of the connection to an external system; `None`: there is none to lose.
    fn health(&self) -> Option<SourceHealth> {
        None
    }

    /// Opens a reader of a split.
    ///
    /// # Errors
    /// When the split cannot be opened.
    async fn open(&self, split: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>>;
}

/// The state of the connection to an external system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceHealth {
    /// Whether it responds; `None`: nothing is being read.
    pub connected: Option<bool>,
    /// Rows that it has and that were not read yet, where it says so.
    pub lag_rows: Option<u64>,
    /// The last error, which need not have lasted.
    pub last_error: Option<String>,
}

/// A part of a source in which rows are ordered (a file, a generator, a log).
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its number, which never changes.
    pub id: PartitionId,
    /// Its name as shown to users, such as a path.
    pub name: String,
    /// Its splits, in order.
    pub splits: Vec<Split>,
}

/// A piece of a partition that is read by one reader.
#[derive(Debug, Clone)]
pub struct Split {
    /// Its partition.
    pub partition: PartitionId,
    /// Its number within the partition, from 0.
    pub number: usize,
    /// Rows in it, where known before reading; for a split that grows, the current number. For progress, like `bytes`.
    pub rows: Option<u64>,
    /// Stored bytes in it, where known (for progress).
    pub bytes: Option<u64>,
    /// Smallest and largest event time in ticks, where known *exactly* before reading (from Parquet statistics).
    /// `None`: unknown.
    pub event_times: Option<(i64, i64)>,
    /// Identifies what it is read from, as far as possible: a file and its size. A different identity after a restart
    /// means that reading cannot be resumed from where it stopped.
    pub identity: Arc<str>,
    /// The initial place of its reader, where a restart needs it before the first batch has arrived
    /// ([`SourceBatch::place`]).
    pub place: Option<Arc<str>>,
    /// Whatever the source needs to find it again.
    pub detail: Arc<dyn Any + Send + Sync>,
}

impl Split {
    /// Returns split `number` of a partition, with nothing else known.
    pub fn new(partition: PartitionId, number: usize, identity: &str) -> Self {
        Self {
            partition,
            number,
            rows: None,
            bytes: None,
            event_times: None,
            identity: identity.into(),
            place: None,
            detail: Arc::new(()),
        }
    }
}

/// A request to a reader.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// The wanted columns, as indexes into [`Source::schema`], ascending. May be empty: batches then have rows and no
    /// columns.
    pub projection: Vec<usize>,
    /// Conditions that all wanted rows satisfy. A reader may use them to skip rows (counted in
    /// [`SourceBatch::skipped`]); it need not.
    pub predicates: Vec<Predicate>,
    /// The event-time column (index into [`Source::schema`]), when the watermark must stay exact per row. Then only
    /// whole splits whose event times are known may be skipped; without it, any row that fails a predicate may be.
    pub event_time: Option<usize>,
    /// Rows before this offset are not wanted: they were read before a restart. A reader may start there or anywhere
    /// before it.
    pub from: Option<u64>,
    /// The source's own description of the position `from` ([`SourceBatch::place`]).
    pub place: Option<Arc<str>>,
    /// Offsets before this one have been assigned, by any reader. If the rows at them are gone, new rows do not reuse
    /// them.
    pub past: u64,
    /// Whether to read what is available now and end, even if the source is endless.
    pub until_now: bool,
    /// Rows in a batch at most.
    pub batch_rows_max: usize,
}

impl ScanRequest {
    /// Requests all rows that are there now, of these columns.
    pub fn of_now(projection: Vec<usize>, batch_rows_max: usize) -> Self {
        Self {
            projection,
            predicates: vec![],
            event_time: None,
            from: None,
            place: None,
            past: 0,
            until_now: true,
            batch_rows_max,
        }
    }
}

/// `column op literal`.
#[derive(Debug, Clone)]
pub struct Predicate {
    /// Index into [`Source::schema`].
    pub column: usize,
    /// The comparison.
    pub op: CmpOp,
    /// One value, of the column's type, not NULL.
    pub literal: ArrayRef,
}

/// A comparison that readers support.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CmpOp {
    /// `=`
    Eq,
    /// `<>`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
}

/// A reader of one split, batch by batch.
#[async_trait]
pub trait Reader: Send {
    /// Returns the next batch; `None` at the end of the split. A reader of an endless source waits here until it has a
    /// row. Cancellation-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// When the split cannot be read further. Rows that cannot be decoded are not errors unless the stream says
    /// `on_bad_row = 'fail'`; they are returned in [`SourceBatch::bad`].
    async fn next(&mut self) -> Result<Option<SourceBatch>>;
}

/// A decoded micro-batch of one partition.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// The decoded rows, with the columns of [`ScanRequest::projection`] in that order.
    pub rows: RecordBatch,
    /// The range of the partition that this batch covers, bad and skipped rows included.
    pub offsets: OffsetRange,
    /// The position of each of `rows`.
    pub row_offsets: Arc<dyn RowOffsets>,
    /// Rows that could not be decoded.
    pub bad: Vec<BadRow>,
    /// Number of rows skipped because of predicates.
    pub skipped: u64,
    /// An explicit watermark after this batch, from sources that know more than the event times of their rows (a view's
    /// output).
    pub watermark: Option<Watermark>,
    /// Whether the source is idle because all of its own inputs are (a view); `None`: unknown here.
    pub idle: Option<bool>,
    /// The rows that break an explicit watermark, ascending by row.
    pub behind: Vec<Behind>,
    /// The reader's position after this batch, as text in a format of its own, where the offset alone does not
    /// determine it. It is stored with the offset and returned as [`ScanRequest::place`].
    pub place: Option<Arc<str>>,
}

/// A row of a view that arrived behind the watermark of the input that it was computed from. It is late for windows
/// that end at this watermark or before; any other row of a view is in time for all its windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Its row number in the batch.
    pub row: usize,
    /// The watermark just before the row that it was computed from; greater than its event time.
    pub watermark: Watermark,
}

impl SourceBatch {
    /// Returns a batch of consecutive good rows that start at `first`.
    ///
    /// # Errors
    /// When its offsets are not a valid range.
    pub fn consecutive(rows: RecordBatch, first: u64) -> Result<Self> {
        let offsets = OffsetRange::try_new(first, first + rows.num_rows() as u64)?;
        let row_offsets = Arc::new(crate::offset::Consecutive(first));
        Ok(Self {
            rows,
            offsets,
            row_offsets,
            bad: vec![],
            skipped: 0,
            watermark: None,
            idle: None,
            behind: vec![],
            place: None,
        })
    }
}

/// A row that could not be used, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Its position in its partition.
    pub offset: u64,
    /// The reason, as shown to users: it names the column and what was expected.
    pub reason: String,
    /// The original row, truncated to a readable length; invalid UTF-8 is replaced.
    pub raw: String,
}
