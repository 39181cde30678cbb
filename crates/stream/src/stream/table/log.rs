//! The contents of a log for a bounded query: its archive, then its memory tail.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::union::UnionExec;
use futures::{StreamExt, stream};
use windrow_core::{PartitionId, Reader, ScanRequest};

use super::{Contents, LeftOut, ScanCall, Wanted, outside, with_positions};
use crate::history::History;
use crate::log::StreamLog;
use crate::log_reader::{LOG_PARTITION, LogSource};

/// A log with fewer rows is read in order by one thread: several would not be faster.
const ORDERED_ROWS: u64 = 65_536;

/// The current contents of a log: its archive, then its tail.
#[derive(Debug)]
pub(crate) struct LogContents {
    log: Arc<StreamLog>,
    /// The columns that are read: the first ones of the log.
    schema: SchemaRef,
    left_out: LeftOut,
    /// The history of a connector, which catches up before the log is read.
    history: Option<Arc<History>>,
}

impl LogContents {
    /// `schema`: the first columns of the log, or all.
    pub(crate) fn new(log: Arc<StreamLog>, schema: SchemaRef, left_out: LeftOut) -> Self {
        Self { log, schema, left_out, history: None }
    }

    /// Returns the history of a connector, with the rows that the connector has now.
    pub(crate) fn of_history(history: &Arc<History>) -> Self {
        let history = Arc::clone(history);
        let log = Arc::clone(&history.push.log);
        let schema = log.schema();
        Self { log, schema, left_out: LeftOut::default(), history: Some(history) }
    }

    /// Plans a scan of the rows with offsets in `range` (without bounds: all) that are not left out, in order.
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

/// A range of a log, read in order.
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
        let request = ScanRequest::of_now(self.projection.clone(), self.batch_rows_max);
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
impl Contents for LogContents {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn scan(&self, call: ScanCall<'_>) -> Result<Arc<dyn ExecutionPlan>> {
        let projection = call.projection;
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
            return self.scan_in_order(projection, call.batch_rows_max(), (None, None));
        }
        let contents = self.log.contents();
        // The log may have more columns by now.
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let projection = Some(projection.unwrap_or(&all));
        let batch_rows = call.batch_rows_max();
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
                    _ => call.partitions(),
                };
                let partitions = spread(in_memory.unwrap_or_default(), count);
                MemorySourceConfig::try_new_exec(
                    &partitions,
                    Arc::clone(&contents.schema),
                    projection.cloned(),
                )?
            }
        };
        let Some(archive) = contents.archive else { return Ok(tail) };
        let (archive, parted) = archive.from_row(contents.first);
        let archived = archive.scan(call.state, projection, call.filters, call.limit).await?;
        let mut parts = vec![archived];
        if let Some(until) = parted {
            // The first file has dropped rows: the others are read by their offsets.
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

/// Returns the error for sampling a history: rows have other offsets there than in the connector, which the continuous
/// form reads.
fn unsampled(stream: &str) -> windrow_core::Error {
    windrow_core::Error::sql(format!(
        "the retained rows of stream \"{stream}\" cannot be sampled: their offsets in the source are not retained"
    ))
    .with_hint("Sample a materialized view over it, or omit the option retention.")
}

/// Distributes batches over at most `count` partitions, in runs, so that each partition keeps their order.
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
