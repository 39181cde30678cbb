//! Reading Parquet: one split per row group.
//!
//! Only the wanted columns (and those that predicates need) are read and decoded. Footers are read once per version of
//! a file. An offset is the number of the row in the file.

mod footer;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::compute::{nullif, or_kleene};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use async_trait::async_trait;
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;
use windrow_core::offset::Consecutive;
use windrow_core::{
    BadRow, CmpOp, Error, ErrorKind, OffsetRange, Predicate, Reader, Result, RowOffsets,
    ScanRequest, SourceBatch,
};

use self::footer::damaged;
pub(super) use self::footer::{ParquetFile, read_footer};
use super::feed::read_ranges;
use crate::formats::decode::{OnBadRow, Origin, bad_row};
use crate::formats::typed::{Fitting, Place, fitting, misfits, shown};
use windrow_core::sql_type;

/// One row group of a file.
#[derive(Debug)]
pub(super) struct ParquetSplit {
    pub file: Arc<ParquetFile>,
    pub row_group: usize,
    /// Offset of its first row; the offset past its last; and the offset where the next split begins.
    pub first: u64,
    pub end: u64,
    /// For each declared column, its place in the file; `None`: missing from the file.
    pub columns: Arc<Vec<Option<Place>>>,
}

/// A reader of one row group.
pub(super) struct ParquetReader {
    task: Task,
    state: State,
}

/// What a reader has to read.
struct Task {
    split: Arc<ParquetSplit>,
    scan: ScanRequest,
    declared: SchemaRef,
    wanted: SchemaRef,
    on_bad: OnBadRow,
    io: Handle,
}

enum State {
    New,
    /// Nothing in the row group satisfies the predicates.
    Pruned,
    Open(Box<Open>),
    Done,
}

struct Open {
    batches: ParquetRecordBatchReader,
    /// For each wanted column, its index in a decoded batch and its place in the file.
    places: Vec<Option<(usize, Place)>>,
    /// The filter's masks for the rows of the group, in the order in which they were evaluated.
    passed: Option<Arc<Mutex<VecDeque<BooleanArray>>>>,
    /// Offset of the next row.
    at: u64,
}

impl ParquetReader {
    pub(super) fn new(
        split: Arc<ParquetSplit>,
        scan: &ScanRequest,
        declared: SchemaRef,
        on_bad: OnBadRow,
        io: Handle,
    ) -> Result<Self> {
        let wanted = Arc::new(declared.project(&scan.projection)?);
        let task = Task { split, scan: scan.clone(), declared, wanted, on_bad, io };
        let state = if task.is_pruned() { State::Pruned } else { State::New };
        Ok(Self { task, state })
    }
}

impl Task {
    /// The file, for errors.
    fn origin(&self) -> Origin<'_> {
        Origin { kind: "file", name: &self.split.file.name, unit: "row" }
    }

    /// Returns the place of a declared column in the file.
    fn place(&self, column: usize) -> Option<Place> {
        self.split.columns.get(column).copied().flatten()
    }

    /// Whether the statistics prove that no row satisfies the predicates. Where the watermark needs the time of each
    /// row, that is allowed only for a split whose event times are known.
    fn is_pruned(&self) -> bool {
        let ParquetSplit { file, row_group, .. } = self.split.as_ref();
        let type_of = |column: usize| self.declared.fields().get(column).map(|f| f.data_type());
        if let Some(time) = self.scan.event_time {
            let known = self
                .place(time)
                .zip(type_of(time))
                .is_some_and(|(at, to)| file.event_times(*row_group, at, to).is_some());
            if !known {
                return false;
            }
        }
        self.scan.predicates.iter().any(|predicate| {
            // Statistics do not cover NaN, which is greater than any number.
            let range = self
                .place(predicate.column)
                .zip(type_of(predicate.column))
                .filter(|(_, to)| !to.is_floating())
                .and_then(|(at, to)| file.range(*row_group, at, to));
            range.is_some_and(|(min, max)| excludes(predicate, &min, &max).unwrap_or(false))
        })
    }

    /// Fetches the column chunks that are needed, and opens the decoder.
    async fn open(&self) -> Result<Open> {
        let ParquetSplit { file, row_group, first, .. } = self.split.as_ref();
        let schema = file.metadata.parquet_schema();
        let roots = |wanted: &[usize]| -> Vec<usize> {
            wanted.iter().filter_map(|c| self.place(*c)).map(|place| place.root).collect()
        };
        let wanted = roots(&self.scan.projection);
        let filter = self.filter_columns();
        let filtered = roots(&filter);
        let mask = ProjectionMask::roots(schema, wanted.iter().copied());
        let filter_mask = ProjectionMask::roots(schema, filtered.iter().copied());
        let chunks = self.fetch(&[&mask, &filter_mask]).await?;
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(chunks, file.metadata.clone())
                .with_row_groups(vec![*row_group])
                .with_batch_size(self.scan.batch_rows_max.max(1))
                .with_projection(mask);
        let mut passed = None;
        if !filter.is_empty() {
            let seen = Arc::new(Mutex::new(VecDeque::new()));
            builder = builder.with_row_filter(self.filter(filter_mask, &filtered, &seen));
            passed = Some(seen);
        }
        let batches = builder.build().map_err(|e| damaged(&file.name, e))?;
        let order = ascending(&wanted);
        let place = |column: &usize| {
            let place = self.place(*column)?;
            Some((order.binary_search(&place.root).ok()?, place))
        };
        let places = self.scan.projection.iter().map(place).collect();
        Ok(Open { batches, places, passed, at: *first })
    }

    /// Returns the columns of the predicates, when it pays to decode them first: when rows may be skipped at all, there
    /// are other columns that are then decoded for fewer rows, and the predicate tests for equality. A range that keeps
    /// half of the rows costs more this way than it saves (measured on 10 M bids: 10 % of the whole query).
    fn filter_columns(&self) -> Vec<usize> {
        if !self.scan.predicates.iter().any(|p| p.op == CmpOp::Eq) {
            return vec![];
        }
        let columns = self.scan.predicates.iter().map(|p| p.column);
        let mut columns: Vec<usize> = columns.filter(|c| self.place(*c).is_some()).collect();
        columns.sort_unstable();
        columns.dedup();
        let others = self.scan.projection.iter().any(|c| !columns.contains(c));
        if self.scan.event_time.is_some() || !others { vec![] } else { columns }
    }

    /// Builds a filter of all predicates, over the columns `roots` of the file; its masks are appended to `seen`.
    fn filter(
        &self,
        mask: ProjectionMask,
        roots: &[usize],
        seen: &Arc<Mutex<VecDeque<BooleanArray>>>,
    ) -> RowFilter {
        let order = ascending(roots);
        let mut tests = vec![];
        for predicate in &self.scan.predicates {
            let to = self.declared.fields().get(predicate.column).map(|f| f.data_type().clone());
            // A predicate on a column missing from the file is not evaluated here; above, NULL is not true.
            if let (Some(place), Some(to)) = (self.place(predicate.column), to)
                && let Ok(at) = order.binary_search(&place.root)
            {
                tests.push((at, place, to, predicate.clone()));
            }
        }
        let seen = Arc::clone(seen);
        let test = move |batch: RecordBatch| {
            let mut all: Option<BooleanArray> = None;
            for (at, place, to, predicate) in &tests {
                let Some(column) = batch.columns().get(*at) else { continue };
                let holds = match place.convert(column, to) {
                    Ok(column) => compare(&column, predicate)?,
                    // Rows that do not fit pass the filter, so that they are reported as bad.
                    Err(_) => {
                        let rows = misfits(column, *place, to);
                        let bad: BooleanArray = (0..column.len())
                            .map(|row| Some(rows.binary_search(&row).is_ok()))
                            .collect();
                        let good = nullif(column, &bad)?;
                        let holds = compare(&place.convert(&good, to)?, predicate)?;
                        or_kleene(&holds, &bad)?
                    }
                };
                // NULL is not true.
                let holds = match holds.null_count() {
                    0 => holds,
                    _ => arrow::compute::prep_null_mask_filter(&holds),
                };
                all = Some(match all {
                    Some(all) => arrow::compute::and(&all, &holds)?,
                    None => holds,
                });
            }
            let all = all.unwrap_or_else(|| BooleanArray::from(vec![true; batch.num_rows()]));
            seen.lock().push_back(all.clone());
            Ok(all)
        };
        RowFilter::new(vec![Box::new(ArrowPredicateFn::new(mask, test))])
    }

    /// Reads the bytes of all leaves in any of the masks.
    async fn fetch(&self, masks: &[&ProjectionMask]) -> Result<Fetched> {
        let file = &self.split.file;
        let group = file.metadata.metadata().row_group(self.split.row_group);
        let ranges: Vec<Range<u64>> = group
            .columns()
            .iter()
            .enumerate()
            .filter(|(leaf, _)| masks.iter().any(|mask| mask.leaf_included(*leaf)))
            .map(|(_, column)| {
                let (start, length) = column.byte_range();
                start..start + length
            })
            .collect();
        let bytes = read_ranges(&file.name, &file.blob, ranges.clone(), &self.io).await?;
        let chunks = ranges.into_iter().map(|r| r.start).zip(bytes).collect();
        Ok(Fetched { chunks: Arc::new(chunks) })
    }

    fn next_open(&self, open: &mut Open) -> Result<Option<SourceBatch>> {
        let file = &self.split.file.name;
        let end = self.split.end;
        let Some(batch) = open.batches.next() else {
            // Only rows that the filter rejected are left at the end.
            let start = std::mem::replace(&mut open.at, end);
            return if start < end { self.empty(start, end).map(Some) } else { Ok(None) };
        };
        let batch = batch.map_err(|e| {
            Error::data(format!("file \"{file}\" cannot be decoded: {e}")).with_source(e)
        })?;
        let count = batch.num_rows();
        let start = open.at;
        let Some(passed) = &open.passed else {
            open.at += count as u64;
            let range = OffsetRange::try_new(start, open.at)?;
            return self.declared(&batch, open, (range, Arc::new(Consecutive(start)))).map(Some);
        };
        let mut seen = passed.lock();
        let mut offsets: Vec<u64> = Vec::with_capacity(count);
        while offsets.len() < count {
            let Some(mask) = seen.pop_front() else { break };
            let mut used = mask.len();
            for set in mask.values().set_indices() {
                if offsets.len() == count {
                    break;
                }
                offsets.push(open.at + set as u64);
                used = set + 1;
            }
            if offsets.len() < count {
                used = mask.len();
            } else if used < mask.len() {
                seen.push_front(mask.slice(used, mask.len() - used));
            }
            open.at += used as u64;
        }
        drop(seen);
        let range = OffsetRange::try_new(start, open.at)?;
        self.declared(&batch, open, (range, Arc::new(offsets))).map(Some)
    }

    /// Converts a decoded batch to the declared types; rows that do not fit are bad.
    fn declared(
        &self,
        batch: &RecordBatch,
        open: &Open,
        (offsets, row_offsets): (OffsetRange, Arc<dyn RowOffsets>),
    ) -> Result<SourceBatch> {
        let skipped = (offsets.end() - offsets.start()).saturating_sub(batch.num_rows() as u64);
        let mut given = SourceBatch {
            rows: RecordBatch::new_empty(Arc::clone(&self.wanted)),
            offsets,
            row_offsets,
            bad: vec![],
            skipped,
            watermark: None,
            idle: None,
            behind: vec![],
            place: None,
        };
        let refused = match self.as_declared(batch, &open.places) {
            Ok(rows) => return Ok(SourceBatch { rows, ..given }),
            Err(error) if error.kind() == ErrorKind::Data => error,
            Err(error) => return Err(error),
        };
        let places = open.places.iter().zip(self.wanted.fields());
        let columns: Vec<_> =
            places.filter_map(|(place, field)| place.map(|(at, p)| (at, p, &**field))).collect();
        let Fitting { rows, kept, unfit } = fitting(batch, &columns, self.on_bad)?;
        if unfit.is_empty() && self.on_bad != OnBadRow::Null {
            return Err(refused);
        }
        given.rows = self.as_declared(&rows, &open.places)?;
        for (row, reason) in unfit {
            let offset = given.row_offsets.offset(row);
            let bad = BadRow { offset, reason, raw: shown(batch, row)? };
            if self.on_bad == OnBadRow::Fail {
                return Err(bad_row(&bad, self.origin()));
            }
            given.bad.push(bad);
        }
        let offset = |row: usize| given.row_offsets.offset(row);
        let offsets: Vec<u64> = kept.values().set_indices().map(offset).collect();
        given.row_offsets = Arc::new(offsets);
        Ok(given)
    }

    /// Returns the wanted columns of a decoded batch, in order and with the declared types.
    fn as_declared(
        &self,
        batch: &RecordBatch,
        places: &[Option<(usize, Place)>],
    ) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(places.len());
        for (place, field) in places.iter().zip(self.wanted.fields()) {
            let Some((at, place)) = place else {
                columns.push(new_null_array(field.data_type(), batch.num_rows()));
                continue;
            };
            let column = batch.columns().get(*at).ok_or_else(|| {
                Error::internal(format!("column \"{}\" was not decoded", field.name()))
            })?;
            let file = &self.split.file.name;
            let column = place.convert(column, field.data_type()).map_err(|e| {
                Error::data(format!(
                    "column \"{}\" of file \"{file}\" has a value that is not {}: {e}",
                    field.name(),
                    sql_type(field.data_type())
                ))
                .with_source(e)
            })?;
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(Error::data(format!(
                    "column \"{}\" of file \"{file}\" has NULLs, and is declared NOT NULL",
                    field.name()
                ))
                .with_hint("Declare it without NOT NULL."));
            }
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns, &options)?)
    }

    /// Returns an empty batch that covers skipped rows.
    fn empty(&self, start: u64, end: u64) -> Result<SourceBatch> {
        let rows = if self.wanted.fields().is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(0));
            RecordBatch::try_new_with_options(Arc::clone(&self.wanted), vec![], &options)?
        } else {
            RecordBatch::new_empty(Arc::clone(&self.wanted))
        };
        let mut batch = SourceBatch::consecutive(rows, start)?;
        batch.offsets = OffsetRange::try_new(start, end)?;
        let rows = self.split.file.metadata.metadata().row_group(self.split.row_group).num_rows();
        let rows_end = self.split.first + u64::try_from(rows).unwrap_or(0);
        batch.skipped = rows_end.min(end).saturating_sub(start);
        Ok(batch)
    }
}

#[async_trait]
impl Reader for ParquetReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        if matches!(self.state, State::New) {
            self.state = State::Open(Box::new(self.task.open().await?));
        }
        match std::mem::replace(&mut self.state, State::Done) {
            State::New | State::Done => Ok(None),
            State::Pruned => {
                let ParquetSplit { first, end, .. } = *self.task.split;
                self.task.empty(first, end).map(Some)
            }
            State::Open(mut open) => {
                let batch = self.task.next_open(&mut open)?;
                if batch.is_some() {
                    self.state = State::Open(open);
                }
                Ok(batch)
            }
        }
    }
}

/// Sorts columns in the file's order, as a decoded batch has them.
fn ascending(roots: &[usize]) -> Vec<usize> {
    let mut order = roots.to_vec();
    order.sort_unstable();
    order.dedup();
    order
}

/// Evaluates a predicate; NULL where the result is unknown.
fn compare(column: &ArrayRef, predicate: &Predicate) -> Result<BooleanArray, ArrowError> {
    use arrow::array::Scalar;
    use arrow::compute::kernels::cmp;
    let literal = Scalar::new(predicate.literal.slice(0, 1));
    match predicate.op {
        CmpOp::Eq => cmp::eq(column, &literal),
        CmpOp::NotEq => cmp::neq(column, &literal),
        CmpOp::Lt => cmp::lt(column, &literal),
        CmpOp::LtEq => cmp::lt_eq(column, &literal),
        CmpOp::Gt => cmp::gt(column, &literal),
        CmpOp::GtEq => cmp::gt_eq(column, &literal),
    }
}

/// Whether no value between `min` and `max` satisfies the predicate.
fn excludes(predicate: &Predicate, min: &ArrayRef, max: &ArrayRef) -> Option<bool> {
    let holds = |bound: &ArrayRef, op: CmpOp| {
        let test = Predicate { op, ..predicate.clone() };
        let found = compare(bound, &test).ok()?;
        found.is_valid(0).then(|| found.value(0))
    };
    Some(match predicate.op {
        CmpOp::Eq => holds(min, CmpOp::Gt)? || holds(max, CmpOp::Lt)?,
        // Bounds may be truncated or widened, so a bound is used only to exclude.
        CmpOp::NotEq => false,
        CmpOp::Lt => !holds(min, CmpOp::Lt)?,
        CmpOp::LtEq => !holds(min, CmpOp::LtEq)?,
        CmpOp::Gt => !holds(max, CmpOp::Gt)?,
        CmpOp::GtEq => !holds(max, CmpOp::GtEq)?,
    })
}

/// Column chunks in memory.
#[derive(Debug, Clone)]
struct Fetched {
    /// The position of each chunk in the file, and its bytes.
    chunks: Arc<Vec<(u64, Bytes)>>,
}

impl Fetched {
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let found = self.chunks.iter().find_map(|(at, bytes)| {
            let skip = usize::try_from(start.checked_sub(*at)?).ok()?;
            (skip < bytes.len()).then(|| bytes.slice(skip..))
        });
        found.ok_or_else(|| ParquetError::General(format!("no bytes at {start} were fetched")))
    }
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.chunks.iter().map(|(at, bytes)| at + bytes.len() as u64).max().unwrap_or(0)
    }
}

impl ChunkReader for Fetched {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} were not fetched")));
        }
        Ok(bytes.slice(..length))
    }
}
