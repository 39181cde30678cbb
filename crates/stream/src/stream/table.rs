//! Streams as tables: what a bounded query reads. The same decoding and the same checks as in a
//! continuous query, but none of its windows.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use futures::{StreamExt, stream};
use windrow_core::{Partition, PartitionId, Reader, ScanRequest, Source, SourceBatch, Split};
use windrow_sql::plan::{POSITION_COLUMN, positions};

use crate::history::History;
use crate::intake::Intake;
use crate::log::StreamLog;
use crate::log_reader::{LOG_PARTITION, LogSource};
use crate::stream::Stream;
use crate::unseen::UnseenBad;

/// A log with fewer rows is read by one thread: there is nothing to gain from two.
const ORDERED_ROWS: u64 = 65_536;

/// Rows of a stream that a bounded query does not read.
#[derive(Debug, Clone, Default)]
pub struct LeftOut {
    /// Of a log: all rows before this offset.
    pub before: Option<u64>,
    /// Of a log: all rows from this offset on.
    pub from: Option<u64>,
    /// Single rows.
    pub rows: BTreeSet<(PartitionId, u64)>,
}

impl LeftOut {
    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.before.or(self.from).is_none()
    }

    /// Those of `rows` that are read; row `i` stands at `offset(i)`.
    fn apply(
        &self,
        rows: RecordBatch,
        partition: PartitionId,
        offset: impl Fn(usize) -> u64,
    ) -> windrow_core::Result<RecordBatch> {
        if self.is_empty() {
            return Ok(rows);
        }
        let held = self.before.unwrap_or(0)..self.from.unwrap_or(u64::MAX);
        let keep = BooleanArray::from_iter((0..rows.num_rows()).map(|row| {
            let at = offset(row);
            Some(held.contains(&at) && !self.rows.contains(&(partition, at)))
        }));
        Ok(filter_record_batch(&rows, &keep)?)
    }
}

/// A log as it is now: its archive, then its memory tail, each row once.
#[derive(Debug)]
pub(crate) struct LogTable {
    log: Arc<StreamLog>,
    left_out: LeftOut,
    /// What the log is filled by before it is read, where that is a connector.
    history: Option<Arc<History>>,
}

impl LogTable {
    pub(crate) fn new(log: Arc<StreamLog>, left_out: LeftOut) -> Self {
        Self { log, left_out, history: None }
    }

    /// What is kept of a connector's rows, and what it has now.
    pub(crate) fn of_history(history: &Arc<History>) -> Self {
        let history = Arc::clone(history);
        let log = Arc::clone(&history.push.log);
        Self { log, left_out: LeftOut::default(), history: Some(history) }
    }

    /// The rows in `range` (without bounds: all) that are not left out, read in the order of
    /// their offsets.
    fn scan_in_order(
        &self,
        projection: Option<&Vec<usize>>,
        batch_rows_max: usize,
        range: (Option<u64>, Option<u64>),
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = Wanted::of(projection, &self.schema());
        let schema = wanted.schema(&self.schema())?;
        let Wanted { columns: projection, positions } = wanted;
        let part = LogPart {
            log: Arc::clone(&self.log),
            left_out: self.left_out.clone(),
            schema: Arc::clone(&schema),
            projection,
            positions,
            batch_rows_max,
            range,
        };
        let plan =
            StreamingTableExec::try_new(schema, vec![Arc::new(part)], None, vec![], false, None)?;
        Ok(Arc::new(plan))
    }
}

/// A whole log, row by row.
#[derive(Debug)]
struct LogPart {
    log: Arc<StreamLog>,
    left_out: LeftOut,
    schema: SchemaRef,
    projection: Vec<usize>,
    positions: bool,
    batch_rows_max: usize,
    range: (Option<u64>, Option<u64>),
}

impl PartitionStream for LogPart {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let log = Arc::clone(&self.log);
        let source = match self.range {
            (from, Some(until)) => LogSource::part(log, from, until),
            (from, None) => LogSource::snapshot(log, from, false),
        };
        let (left_out, positions) = (self.left_out.clone(), self.positions);
        let request = ScanRequest {
            projection: self.projection.clone(),
            predicates: vec![],
            event_time: None,
            from: None,
            place: None,
            past: 0,
            until_now: true,
            batch_rows_max: self.batch_rows_max,
        };
        let rows = stream::once(async move { source.reader(&request) }).flat_map(move |reader| {
            let left_out = left_out.clone();
            stream::try_unfold(reader, move |mut reader| {
                let left_out = left_out.clone();
                async move {
                    let Some(batch) = reader.next().await.map_err(outside)? else {
                        return Ok(None);
                    };
                    let at = |row: usize| batch.row_offsets.offset(row);
                    let rows = match positions {
                        true => with_positions(&batch.rows, LOG_PARTITION, at),
                        false => Ok(batch.rows.clone()),
                    };
                    let rows = rows.and_then(|rows| left_out.apply(rows, PartitionId(0), at));
                    Ok(Some((rows.map_err(outside)?, reader)))
                }
            })
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.log.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // The archive leaves out what its statistics rule out; the tail leaves out nothing.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let positions = Wanted::of(projection, &self.schema()).positions;
        if let Some(error) = self.log.failed() {
            return Err(outside(error));
        }
        if let Some(history) = &self.history {
            if positions {
                return Err(outside(unsampled(&history.push.name)));
            }
            history.freshen().await.map_err(outside)?;
        }
        if positions || !self.left_out.is_empty() {
            return self.scan_in_order(projection, state.config().batch_size(), (None, None));
        }
        let contents = self.log.contents();
        let batch_rows = state.config().batch_size();
        let tail: Arc<dyn ExecutionPlan> = match (contents.tail_in_memory(), contents.tail_first())
        {
            (None, Some(first)) => {
                let range = (Some(first), Some(first + contents.tail_rows));
                self.scan_in_order(projection, batch_rows, range)?
            }
            (in_memory, _) => {
                // A short log is read in one piece, which keeps its rows in order.
                let count = match contents.tail_rows {
                    0..ORDERED_ROWS => 1,
                    _ => state.config().target_partitions(),
                };
                let partitions = spread(in_memory.unwrap_or_default(), count);
                MemorySourceConfig::try_new_exec(&partitions, self.schema(), projection.cloned())?
            }
        };
        let Some(archive) = contents.archive else { return Ok(tail) };
        let (archive, parted) = archive.from_row(contents.first);
        let archived = archive.scan(state, projection, filters, limit).await?;
        let mut parts = vec![archived];
        if let Some(until) = parted {
            // Of the first file some rows are old: those that stay are read by their offsets.
            parts.insert(0, self.scan_in_order(projection, batch_rows, (None, Some(until)))?);
        }
        if contents.tail_rows > 0 {
            parts.push(tail);
        }
        match parts.len() {
            1 => parts.pop().ok_or_else(|| DataFusionError::Internal("no part of a log".into())),
            _ => UnionExec::try_new(parts),
        }
    }
}

/// What is read of a relation: columns of its schema, and perhaps the hidden one behind them.
struct Wanted {
    columns: Vec<usize>,
    positions: bool,
}

impl Wanted {
    fn of(projection: Option<&Vec<usize>>, schema: &SchemaRef) -> Self {
        let all = schema.fields().len();
        let mut columns = projection.cloned().unwrap_or_else(|| (0..all).collect());
        // It is the last: the planner keeps columns in their order.
        let positions = columns.last() == Some(&all);
        if positions {
            columns.pop();
        }
        Self { columns, positions }
    }

    fn schema(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        let mut fields = schema.project(&self.columns)?.fields().to_vec();
        fields.extend(self.positions.then(|| Arc::new(position_field())));
        Ok(Arc::new(Schema::new(fields)))
    }
}

fn position_field() -> Field {
    Field::new(POSITION_COLUMN, DataType::UInt64, false)
}

/// The rows of a partition with where they stand in a last column.
pub fn with_positions(
    rows: &RecordBatch,
    partition: &str,
    offset: impl Fn(usize) -> u64,
) -> windrow_core::Result<RecordBatch> {
    let column = positions(partition, (0..rows.num_rows()).map(offset));
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(position_field()));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(column));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// In its history a row does not stand where it stands in the connector, which the continuous form
/// reads.
fn unsampled(stream: &str) -> windrow_core::Error {
    windrow_core::Error::sql(format!(
        "the kept rows of stream \"{stream}\" cannot be sampled: where they stood in their source is not kept"
    ))
    .with_hint("Sample a materialized view over it, or leave retention out.")
}

/// Spreads batches over at most `count` partitions, in runs, so that their order is kept within
/// one.
fn spread(batches: Vec<RecordBatch>, count: usize) -> Vec<Vec<RecordBatch>> {
    let per_partition = batches.len().div_ceil(count.max(1)).max(1);
    let mut partitions: Vec<Vec<RecordBatch>> = vec![];
    for batch in batches {
        match partitions.last_mut() {
            Some(last) if last.len() < per_partition => last.push(batch),
            _ => partitions.push(vec![batch]),
        }
    }
    if partitions.is_empty() {
        partitions.push(vec![]);
    }
    partitions
}

/// What a connector holds now.
#[derive(Debug)]
pub(crate) struct SourceTable {
    stream: Arc<Stream>,
    left_out: Arc<LeftOut>,
}

impl SourceTable {
    pub(crate) fn new(stream: Arc<Stream>, left_out: LeftOut) -> Self {
        Self { stream, left_out: Arc::new(left_out) }
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.stream.schema.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(source) = self.stream.external() else {
            return Err(DataFusionError::Internal("a source table over no source".into()));
        };
        let wanted = Wanted::of(projection, &self.schema());
        let projected = wanted.schema(&self.schema())?;
        let unseen = state.config().get_extension::<UnseenBad>();
        let bad = unseen.map(|unseen| unseen.scan(&self.stream.name)).unwrap_or_default();
        let reading = self.reading((source, bad), &wanted, filters, state.config().batch_size());
        let partitions = source.discover().await.map_err(outside)?;
        let named = |p: Partition| {
            let name: Arc<str> = p.name.into();
            p.splits.into_iter().map(move |split| (Arc::clone(&name), split))
        };
        let splits: Vec<(Arc<str>, Split)> = partitions.into_iter().flat_map(named).collect();
        let count = state.config().target_partitions().clamp(1, splits.len().max(1));
        let per_partition = splits.len().div_ceil(count).max(1);
        let mut streams: Vec<Arc<dyn PartitionStream>> = splits
            .chunks(per_partition)
            .map(|splits| {
                let part = Part {
                    reading: reading.clone(),
                    schema: Arc::clone(&projected),
                    splits: splits.to_vec(),
                };
                Arc::new(part) as Arc<dyn PartitionStream>
            })
            .collect();
        if streams.is_empty() {
            let part = Part { reading, schema: Arc::clone(&projected), splits: vec![] };
            streams.push(Arc::new(part));
        }
        let plan = StreamingTableExec::try_new(projected, streams, None, vec![], false, limit)?;
        Ok(Arc::new(plan))
    }
}

impl SourceTable {
    fn reading(
        &self,
        (source, bad): (&Arc<dyn Source>, Arc<AtomicU64>),
        wanted: &Wanted,
        filters: &[Expr],
        batch_rows_max: usize,
    ) -> Reading {
        // The event time is always read: rows without one are bad rows, in this form as well.
        let mut columns = wanted.columns.clone();
        columns.extend(self.stream.schema.event_time().map(|e| e.index));
        columns.sort_unstable();
        columns.dedup();
        let at = |column: usize| columns.partition_point(|c| *c < column);
        let mut intake = self.stream.intake();
        intake.time = self.stream.schema.event_time().map(|e| at(e.index));
        let shown = wanted.columns.iter().map(|c| at(*c)).collect();
        let predicates = windrow_sql::plan::predicates(filters, &self.schema());
        Reading {
            stream: Arc::clone(&self.stream),
            source: Arc::clone(source),
            request: Arc::new(ScanRequest {
                projection: columns,
                predicates,
                event_time: None,
                from: None,
                place: None,
                past: 0,
                until_now: true,
                batch_rows_max,
            }),
            intake,
            shown,
            positions: wanted.positions,
            left_out: Arc::clone(&self.left_out),
            bad,
        }
    }
}

/// How to read a source for a bounded query.
#[derive(Debug, Clone)]
struct Reading {
    stream: Arc<Stream>,
    source: Arc<dyn Source>,
    request: Arc<ScanRequest>,
    intake: Intake,
    /// The wanted columns among the scanned ones.
    shown: Vec<usize>,
    /// Whether the hidden column is wanted behind them.
    positions: bool,
    left_out: Arc<LeftOut>,
    /// Bad rows so far.
    bad: Arc<AtomicU64>,
}

/// Some splits, one after the other.
struct Part {
    reading: Reading,
    schema: SchemaRef,
    /// With the names of their partitions.
    splits: Vec<(Arc<str>, Split)>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}, {} splits", self.reading.stream.name, self.splits.len())
    }
}

impl PartitionStream for Part {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let at = Position {
            reading: self.reading.clone(),
            splits: self.splits.clone().into_iter(),
            reader: None,
        };
        let rows = stream::try_unfold(at, |mut at| async move {
            Ok(at.next().await.map_err(outside)?.map(|rows| (rows, at)))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// A partition with its name.
type Named = (PartitionId, Arc<str>);

struct Position {
    reading: Reading,
    splits: std::vec::IntoIter<(Arc<str>, Split)>,
    reader: Option<(Named, Box<dyn Reader>)>,
}

impl Position {
    async fn next(&mut self) -> windrow_core::Result<Option<RecordBatch>> {
        loop {
            if self.reader.is_none() {
                let Some((name, split)) = self.splits.next() else { return Ok(None) };
                let reader = self.reading.source.open(&split, &self.reading.request).await?;
                self.reader = Some(((split.partition, name), reader));
            }
            let Some((partition, reader)) = &mut self.reader else { continue };
            match reader.next().await? {
                Some(batch) => {
                    let rows = self.reading.check(partition, batch)?;
                    if rows.num_rows() > 0 {
                        return Ok(Some(rows));
                    }
                }
                None => self.reader = None,
            }
        }
    }
}

impl Reading {
    fn check(
        &self,
        (partition, name): &Named,
        batch: SourceBatch,
    ) -> windrow_core::Result<RecordBatch> {
        let partition = *partition;
        let taken = self.intake.take(batch, self.stream.clock.now_micros())?;
        self.bad.fetch_add(taken.bad.len() as u64, Ordering::Relaxed);
        self.stream.bad_rows.keep(&self.stream.name, (partition, ""), &taken.bad);
        let mut rows = taken.rows.project(&self.shown)?;
        if self.positions {
            rows = with_positions(&rows, name, |row| taken.row_offsets.offset(row))?;
        }
        self.left_out.apply(rows, partition, |row| taken.row_offsets.offset(row))
    }
}

/// An error of ours, on its way through DataFusion.
pub fn outside(error: windrow_core::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
