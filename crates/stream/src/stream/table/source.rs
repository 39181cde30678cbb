//! The current contents of a connector, for a bounded query.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::stream;
use windrow_core::{
    Clock, Partition, PartitionId, Reader, ScanRequest, Source, SourceBatch, Split, StreamSchema,
};

use super::{Contents, LeftOut, ScanCall, Wanted, outside, with_positions};
use crate::intake::Intake;
use crate::kept::BadRows;
use crate::reads::{BoundedReads, BoundedScan};

/// The current contents of a connector.
#[derive(Debug, Clone)]
pub(crate) struct SourceContents {
    /// The name of the stream.
    pub(crate) stream: Arc<str>,
    pub(crate) schema: StreamSchema,
    pub(crate) source: Arc<dyn Source>,
    /// The checks that rows pass.
    pub(crate) intake: Intake,
    /// The store for rows that fail them.
    pub(crate) bad_rows: Arc<BadRows>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) left_out: Arc<LeftOut>,
}

#[async_trait]
impl Contents for SourceContents {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.schema())
    }

    async fn scan(&self, call: ScanCall<'_>) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = Wanted::of(call.projection, &self.schema());
        let projected = wanted.schema(&self.schema())?;
        let partitions = self.source.discover_now().await.map_err(outside)?;
        let named = |p: Partition| {
            let name: Arc<str> = p.name.into();
            p.splits.into_iter().map(move |split| (Arc::clone(&name), split))
        };
        let splits: Vec<(Arc<str>, Split)> = partitions.into_iter().flat_map(named).collect();
        let bytes = splits.iter().filter_map(|(_, split)| split.bytes).sum();
        let reads = call.state.config().get_extension::<BoundedReads>();
        let scan = BoundedScan::new(reads, &self.stream, bytes);
        let reading = self.reading(scan, &wanted, call.filters, call.batch_rows_max());
        let count = call.partitions().clamp(1, splits.len().max(1));
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
        let plan =
            StreamingTableExec::try_new(projected, streams, None, vec![], false, call.limit)?;
        Ok(Arc::new(plan))
    }
}

impl SourceContents {
    fn reading(
        &self,
        scan: BoundedScan,
        wanted: &Wanted,
        filters: &[Expr],
        batch_rows_max: usize,
    ) -> Reading {
        // The event time is always read: rows without one are bad rows, in this form as well.
        let mut columns = wanted.columns.clone();
        columns.extend(self.schema.event_time().map(|e| e.index));
        columns.sort_unstable();
        columns.dedup();
        let at = |column: usize| columns.partition_point(|c| *c < column);
        let mut intake = self.intake.clone();
        intake.time = self.schema.event_time().map(|e| at(e.index));
        let shown = wanted.columns.iter().map(|c| at(*c)).collect();
        let predicates = windrow_sql::plan::predicates(filters, &self.schema());
        Reading {
            contents: self.clone(),
            request: Arc::new(ScanRequest {
                predicates,
                ..ScanRequest::of_now(columns, batch_rows_max)
            }),
            intake,
            shown,
            positions: wanted.positions,
            scan,
        }
    }
}

/// The parameters of a bounded reading.
#[derive(Debug, Clone)]
struct Reading {
    contents: SourceContents,
    request: Arc<ScanRequest>,
    intake: Intake,
    /// The indexes of the requested columns among the scanned ones.
    shown: Vec<usize>,
    /// Whether the hidden column follows them.
    positions: bool,
    scan: BoundedScan,
}

/// Some splits, read one after the other.
struct Part {
    reading: Reading,
    schema: SchemaRef,
    /// With the names of their partitions.
    splits: Vec<(Arc<str>, Split)>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}, {} splits", self.reading.contents.stream, self.splits.len())
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
            bytes: 0,
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
    /// Stored bytes of the split of the reader.
    bytes: u64,
}

impl Position {
    async fn next(&mut self) -> windrow_core::Result<Option<RecordBatch>> {
        loop {
            if self.reader.is_none() {
                let Some((name, split)) = self.splits.next() else { return Ok(None) };
                let reader =
                    self.reading.contents.source.open(&split, &self.reading.request).await?;
                self.bytes = split.bytes.unwrap_or(0);
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
                None => {
                    self.reading.scan.add_bytes(self.bytes);
                    self.reader = None;
                }
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
        let SourceContents { stream, bad_rows, clock, left_out, .. } = &self.contents;
        let taken = self.intake.take(batch, clock.now_micros())?;
        self.scan.add_rows(taken.rows.num_rows() + taken.bad.len(), taken.bad.len());
        bad_rows.keep(stream, (partition, ""), &taken.bad);
        let mut rows = taken.rows.project(&self.shown)?;
        if self.positions {
            rows = with_positions(&rows, name, |row| taken.row_offsets.offset(row))?;
        }
        left_out.apply(rows, partition, |row| taken.row_offsets.offset(row))
    }
}
