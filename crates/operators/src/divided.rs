//! A window whose segments are on disk: a few buckets are merged at a time, and its rows are returned in pieces, so
//! that it takes little memory whatever its size.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result};

use crate::OperatorSpec;
use crate::bounds::Bounds;
use crate::segments::spill::{BUCKETS, SpillSpace, Spilled};
use crate::table::GroupTable;

/// The ratio of the bytes of a live table to those of its frozen groups, approximately.
const LIVE_FACTOR: usize = 2;

/// The rows of a window, computed lazily; a clone computes them again.
#[derive(Debug, Clone)]
pub struct DividedRows {
    spec: Arc<OperatorSpec>,
    space: Arc<dyn SpillSpace>,
    bounds: Bounds,
    segments: Vec<Spilled>,
    /// Of an aggregate: the next bucket, and the number of buckets per piece.
    bucket: usize,
    step: usize,
    /// Of a window of rows: the next segment and its next batch.
    next: (usize, usize),
    /// Scratch.
    groups: Vec<usize>,
}

impl DividedRows {
    pub(crate) fn new(
        spec: &Arc<OperatorSpec>,
        space: Arc<dyn SpillSpace>,
        (start, end): (i64, i64),
        segments: Vec<Spilled>,
    ) -> Self {
        let bytes: usize = segments.iter().map(Spilled::bytes_in_memory).sum();
        let pieces = bytes.saturating_mul(LIVE_FACTOR) / space.pass_bytes().max(1) + 1;
        let step = BUCKETS / pieces.next_power_of_two().min(BUCKETS);
        let bounds = Bounds::new(spec, start, end);
        let spec = Arc::clone(spec);
        Self { spec, space, bounds, segments, bucket: 0, step, next: (0, 0), groups: vec![] }
    }

    /// Returns the next piece of an aggregate.
    fn piece(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(next) = self.segments.iter().filter_map(|s| s.next_bucket(self.bucket)).min()
        {
            self.bucket = next;
            let Some(table) = self.merge()? else {
                self.step = (self.step / 2).max(1);
                continue;
            };
            self.bucket += self.step;
            if table.len() > 0 {
                let (columns, rows) = table.evaluate()?;
                return self.bounds.batch(&self.spec, columns, rows).map(Some);
            }
        }
        Ok(None)
    }

    /// Merges the groups of the next buckets; `None` if they need too much memory and fewer would need less.
    fn merge(&mut self) -> Result<Option<GroupTable>> {
        let mut table = GroupTable::new(self.spec.columns(), 0)?;
        for segment in &self.segments {
            for groups in segment.groups(self.spec.columns(), self.bucket..self.bucket + self.step)
            {
                table.merge(&groups?, &mut self.groups)?;
                let bytes = table.size_bytes();
                if self.step > 1 && bytes > self.space.pass_bytes().saturating_mul(2) {
                    return Ok(None);
                }
                if let Some(error) = self.space.refuses(bytes) {
                    return Err(error);
                }
            }
        }
        Ok(Some(table))
    }

    /// Returns the next batch of a window of rows.
    fn batch(&mut self) -> Result<Option<RecordBatch>> {
        while let Some(segment) = self.segments.get(self.next.0) {
            if let Some(batch) = segment.batch(self.next.1) {
                self.next.1 += 1;
                let batch = batch?;
                let (columns, rows) = (batch.columns().to_vec(), batch.num_rows());
                return self.bounds.batch(&self.spec, columns, rows).map(Some);
            }
            self.next = (self.next.0 + 1, 0);
        }
        Ok(None)
    }
}

impl Iterator for DividedRows {
    type Item = Result<RecordBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match self.spec.mode() {
            crate::Mode::Aggregate { .. } => self.piece(),
            crate::Mode::Rows => self.batch(),
        };
        if !matches!(next, Ok(Some(_))) {
            // Ends the iteration, also after an error.
            (self.bucket, self.segments) = (BUCKETS, vec![]);
        }
        next.transpose()
    }
}
