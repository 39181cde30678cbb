//! Push streams: rows come by INSERT (later by Flight) and stay in a memory log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::offset::Consecutive;
use windrow_core::{Clock, OffsetRange, PartitionId, Result, SourceBatch};

use crate::query::intake::Intake;
use crate::query::kept::BadRows;
use crate::stream::generated::Columns;
use crate::stream::log::MemoryLog;

/// A stream without a connector.
#[derive(Debug)]
pub(crate) struct PushStream {
    pub(crate) name: String,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) intake: Intake,
    pub(crate) bad_rows: Arc<BadRows>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Generated columns, worked out as rows come in.
    pub(crate) columns: Option<Arc<Columns>>,
    /// Rows that were ever offered, good and bad: the offset of a bad row is its number among
    /// them.
    offered: AtomicU64,
}

/// What became of pushed rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Rows now in the stream.
    pub rows: u64,
    /// Rows that could not be used; see `windrow.bad_rows`.
    pub bad: u64,
}

impl PushStream {
    pub(crate) fn new(
        name: String,
        log: Arc<MemoryLog>,
        intake: Intake,
        bad_rows: Arc<BadRows>,
        clock: Arc<dyn Clock>,
        columns: Option<Arc<Columns>>,
    ) -> Self {
        Self { name, log, intake, bad_rows, clock, columns, offered: 0.into() }
    }

    /// The columns that rows are pushed with: all but the generated ones.
    pub(crate) fn physical(&self) -> &SchemaRef {
        self.columns.as_ref().map_or_else(|| self.log.schema(), |c| &c.physical)
    }

    /// Appends rows that have the [physical](Self::physical) columns.
    pub(crate) fn append(&self, rows: &RecordBatch) -> Result<Pushed> {
        let whole = match &self.columns {
            Some(columns) => columns.compute_all(rows)?,
            None => rows.clone(),
        };
        self.append_whole(whole)
    }

    /// Appends rows that have all columns.
    pub(crate) fn append_whole(&self, rows: RecordBatch) -> Result<Pushed> {
        let count = rows.num_rows() as u64;
        let first = self.offered.fetch_add(count, Ordering::Relaxed);
        let batch = SourceBatch {
            rows,
            offsets: OffsetRange::try_new(first, first + count)?,
            row_offsets: Arc::new(Consecutive(first)),
            bad: vec![],
            skipped: 0,
            watermark: None,
        };
        let taken = self.intake.take(batch, self.clock.now_micros())?;
        let pushed = Pushed { rows: taken.rows.num_rows() as u64, bad: taken.bad.len() as u64 };
        self.bad_rows.keep(&self.name, (PartitionId(0), "log"), &taken.bad);
        self.log.append(taken.rows)?;
        Ok(pushed)
    }
}
