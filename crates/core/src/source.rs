//! How rows enter: the port between Windrow and the outside.
//!
//! A [`Source`] has partitions, a partition has splits, a split is read by one [`Reader`]. Splits
//! of one partition follow one another: what stands in split 1 comes after what stands in
//! split 0. They may be *decoded* at the same time; who needs the order (the watermark) keeps it.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use crate::{OffsetRange, PartitionId, Result, RowOffsets, Watermark};

/// Where rows come from.
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

    /// What whoever makes a stream of it should know: a declared column that is nowhere, times in 1970.
    fn notices(&self) -> Vec<String> {
        vec![]
    }

    /// The partitions that exist now. A source that is not bounded may be asked again, and may
    /// then return more; the order is the order of reading.
    ///
    /// # Errors
    /// When the place cannot be listed.
    async fn discover(&self) -> Result<Vec<Partition>>;

    /// How long to wait before asking [`discover`](Source::discover) again; `None` when the
    /// partitions are fixed.
    fn rediscover_after(&self) -> Option<std::time::Duration> {
        None
    }

    /// Reminds the source of where a partition was read to before a restart
    /// ([`SourceBatch::place`]), before it is asked for the first time.
    ///
    /// # Errors
    /// When that cannot be understood.
    fn recall(&self, partition: &str, place: &str) -> Result<()> {
        let _ = (partition, place);
        Ok(())
    }

    /// Why reading a partition anew does not give again what was read of it up to `offset`, where `place` says
    /// what that was ([`SourceBatch::place`]); `None`: it does.
    ///
    /// # Errors
    /// When the place cannot be understood.
    fn lost(&self, partition: &str, offset: u64, place: &str) -> Result<Option<String>> {
        let _ = (partition, offset, place);
        Ok(None)
    }

    /// Starts to read a split.
    ///
    /// # Errors
    /// When it cannot be opened.
    async fn open(&self, split: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>>;
}

/// A part of a source in which rows are ordered (a file, a generator, a log).
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its number; stable.
    pub id: PartitionId,
    /// What people call it: a path, a name.
    pub name: String,
    /// Its pieces, in order.
    pub splits: Vec<Split>,
}

/// A piece of a partition that is read by one reader.
#[derive(Debug, Clone)]
pub struct Split {
    /// Its partition.
    pub partition: PartitionId,
    /// Its number within the partition, from 0.
    pub number: usize,
    /// Rows in it, where known before reading; of one that grows, those of now. For progress, as
    /// `bytes` are.
    pub rows: Option<u64>,
    /// Bytes in it as stored, where known (for progress).
    pub bytes: Option<u64>,
    /// Smallest and largest event time in ticks, where known *exactly* before reading
    /// (from Parquet statistics). `None`: not known.
    pub event_times: Option<(i64, i64)>,
    /// What it is read from, as far as that can be told: a file and its size. Another text after a
    /// restart means that what was read before cannot be gone on from.
    pub identity: Arc<str>,
    /// Where a reader stands that begins it, where a restart must know that before the first batch has
    /// come ([`SourceBatch::place`]).
    pub place: Option<Arc<str>>,
    /// What the source needs to find it again.
    pub detail: Arc<dyn Any + Send + Sync>,
}

impl Split {
    /// Piece `number` of a partition, of which nothing else is known.
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

/// What a reader is asked for.
#[derive(Debug, Clone)]
pub struct ScanRequest {
    /// The columns wanted, as indexes into [`Source::schema`], ascending. May be empty: then
    /// batches have rows and no columns.
    pub projection: Vec<usize>,
    /// Conditions that wanted rows satisfy, all of them. A reader may use them to leave rows out
    /// ([`SourceBatch::skipped`] counts those); it need not.
    pub predicates: Vec<Predicate>,
    /// The event-time column (index into [`Source::schema`]), when the watermark must stay exact
    /// per row. Rows may then be left out only in whole splits whose event times are known;
    /// without it, any row that fails a predicate may be left out.
    pub event_time: Option<usize>,
    /// Rows before this offset are not wanted: they were read before a restart. A reader may
    /// begin there, or anywhere before it.
    pub from: Option<u64>,
    /// What the source said of where that is ([`SourceBatch::place`]).
    pub place: Option<Arc<str>>,
    /// Offsets before this one have been given out, by whatever reader. Where rows at them are gone,
    /// new rows are not numbered so again.
    pub past: u64,
    /// Read what is there now and end, even if the source is endless.
    pub until_now: bool,
    /// Rows in a batch at most.
    pub batch_rows_max: usize,
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

/// A comparison that readers understand.
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

/// Reads one split, batch by batch.
#[async_trait]
pub trait Reader: Send {
    /// The next batch; `None` at the end of the split. A reader of an endless source waits here
    /// until it has a row. Cancellation-safe: a dropped call loses nothing.
    ///
    /// # Errors
    /// When the split cannot be read further. Rows that cannot be decoded are not errors unless
    /// the stream says `on_bad_row = 'fail'`; they come in [`SourceBatch::bad`].
    async fn next(&mut self) -> Result<Option<SourceBatch>>;
}

/// A decoded micro-batch of one partition.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// The decoded rows, with the columns of [`ScanRequest::projection`] in that order.
    pub rows: RecordBatch,
    /// The piece of the partition that this batch stands for, bad and skipped rows included.
    pub offsets: OffsetRange,
    /// Where each of `rows` stands.
    pub row_offsets: Arc<dyn RowOffsets>,
    /// Rows that could not be decoded.
    pub bad: Vec<BadRow>,
    /// Rows left out because of predicates.
    pub skipped: u64,
    /// An explicit promise after this batch, from sources that know better than the event times
    /// of their rows (a view's output).
    pub watermark: Option<Watermark>,
    /// Whether whoever fills the source has nothing to say for now (a view whose inputs are all idle);
    /// `None`: that is not known here.
    pub idle: Option<bool>,
    /// The rows that break such a promise, ascending by row.
    pub behind: Vec<Behind>,
    /// Where the reader stands after this batch, in words of its own, where the offset alone does
    /// not tell. It is kept with the offset and comes back as [`ScanRequest::place`].
    pub place: Option<Arc<str>>,
}

/// A row of a view that came behind the watermark of what it was made of. It is late for windows
/// that end at this watermark or before; any other row of a view is in time for all its windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Which row of its batch.
    pub row: usize,
    /// The watermark just before the row that it was made of; greater than its event time.
    pub watermark: Watermark,
}

impl SourceBatch {
    /// A batch of consecutive good rows that start at `first`.
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

/// A row that could not be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Where it stands in its partition.
    pub offset: u64,
    /// Why, for people: names the column and what was expected.
    pub reason: String,
    /// The row as it came, cut to a readable length; invalid UTF-8 replaced.
    pub raw: String,
}
