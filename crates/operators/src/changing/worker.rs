//! The groups that one worker has aggregated since the last flush.
//!
//! Invariant: a flush leaves the worker empty, so each row is in exactly one segment.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use crate::batches;
use crate::port::WorkerPart;
use crate::segments::spill::{SpillSpace, spill};
use crate::segments::{Body, Segment};
use crate::spec::Columns;
use crate::table::GroupTable;

/// The rows that are aggregated at a time: few enough to fit into the cache.
const STEP_ROWS: usize = 8192;

/// The groups of the rows since the last flush.
#[derive(Debug)]
pub(super) struct Partial {
    columns: Arc<Columns>,
    table: Option<Box<GroupTable>>,
    /// The number of rows in the table.
    rows: u64,
    /// The segments that were spilled to disk.
    spilled: Vec<Segment>,
    /// The number of groups at the last flush, as an estimate for the next one.
    expected: usize,
    /// Scratch: group numbers of the current rows.
    groups: Vec<usize>,
}

impl Partial {
    pub(super) fn new(columns: &Arc<Columns>) -> Self {
        Self {
            columns: Arc::clone(columns),
            table: None,
            rows: 0,
            spilled: vec![],
            expected: 0,
            groups: vec![],
        }
    }

    /// The table as a segment.
    fn leave(&mut self) -> Option<Segment> {
        let table = self.table.take()?;
        self.expected = table.len();
        let rows = std::mem::take(&mut self.rows);
        Some(segment(rows, Body::Live(table)))
    }
}

/// All rows are in one slice.
pub(crate) fn segment(rows: u64, body: Body) -> Segment {
    Segment { slice: 0, counts_from: i64::MIN, rows, times: None, body }
}

impl WorkerPart for Partial {
    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_columns() != self.columns.input_schema().fields().len() {
            return Err(Error::internal("a prepared batch has other columns than its operator"));
        }
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let table = match &mut self.table {
            Some(table) => table,
            None => {
                let table = GroupTable::new(&self.columns, self.expected)?;
                self.table.insert(Box::new(table))
            }
        };
        let layout = &self.columns.layout().columns;
        let packed: Vec<ArrayRef> = layout.iter().map(|c| Arc::clone(batch.column(*c))).collect();
        for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
            let len = STEP_ROWS.min(batch.num_rows() - start);
            let part: Vec<ArrayRef> = packed.iter().map(|c| c.slice(start, len)).collect();
            table.update(&self.columns, &part, len, &mut self.groups)?;
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn update_partly_late(&mut self, batch: &RecordBatch, _from: &[i64]) -> Result<()> {
        self.update(&batches::without_foreign_bytes(batch.clone())?)
    }

    fn flush(&mut self, _to: Watermark) -> Result<Vec<Segment>> {
        self.flush_all()
    }

    fn take(&mut self) -> Box<dyn WorkerPart> {
        let expected = self.table.as_ref().map_or(self.expected, |table| table.len());
        let empty = Self { expected, ..Self::new(&self.columns) };
        Box::new(std::mem::replace(self, empty))
    }

    fn flush_all(&mut self) -> Result<Vec<Segment>> {
        let mut segments = std::mem::take(&mut self.spilled);
        segments.extend(self.leave());
        Ok(segments)
    }

    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        let segments = self.leave().into_iter().collect();
        self.spilled.extend(spill(&self.columns, space, segments)?);
        Ok(())
    }

    fn next_close(&self) -> Option<i64> {
        None
    }

    fn open_windows(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.len())
    }

    fn rows(&self) -> u64 {
        self.rows + self.spilled.iter().map(Segment::rows).sum::<u64>()
    }

    fn size_bytes(&self) -> usize {
        self.table.as_ref().map_or(0, |table| table.size_bytes())
    }
}
