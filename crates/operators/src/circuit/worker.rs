//! The rows of one input of a circuit that a worker has taken since the last flush.

use arrow::record_batch::RecordBatch;
use windrow_core::{Result, Watermark};

use crate::batches;
use crate::changing::segment;
use crate::port::WorkerPart;
use crate::segments::spill::{SpillSpace, spill_rows};
use crate::segments::{Body, Segment};

/// The rows since the last flush.
#[derive(Debug, Default)]
pub(super) struct InputRows {
    batches: Vec<RecordBatch>,
    rows: u64,
    bytes: usize,
    /// The segments that were spilled to disk.
    spilled: Vec<Segment>,
}

impl InputRows {
    fn leave(&mut self) -> Result<Vec<RecordBatch>> {
        self.rows = 0;
        self.bytes = 0;
        batches::together(std::mem::take(&mut self.batches))
    }
}

impl WorkerPart for InputRows {
    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() > 0 {
            let batch = batches::without_foreign_bytes(batch.clone())?;
            self.rows += batch.num_rows() as u64;
            self.bytes += batch.get_array_memory_size();
            self.batches.push(batch);
        }
        Ok(())
    }

    fn update_partly_late(&mut self, batch: &RecordBatch, _from: &[i64]) -> Result<()> {
        self.update(batch)
    }

    fn flush(&mut self, _to: Watermark) -> Result<Vec<Segment>> {
        self.flush_all()
    }

    fn take(&mut self) -> Box<dyn WorkerPart> {
        Box::new(std::mem::take(self))
    }

    fn flush_all(&mut self) -> Result<Vec<Segment>> {
        let mut segments = std::mem::take(&mut self.spilled);
        let rows = self.rows;
        let batches = self.leave()?;
        if !batches.is_empty() {
            segments.push(segment(rows, Body::Rows(batches)));
        }
        Ok(segments)
    }

    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        let batches = self.leave()?;
        if batches.is_empty() {
            return Ok(());
        }
        let rows: Vec<u64> = batches.iter().map(|batch| batch.num_rows() as u64).collect();
        let spilled = spill_rows(space, batches)?.into_iter().zip(rows);
        self.spilled.extend(spilled.map(|(body, rows)| segment(rows, Body::Spilled(body))));
        Ok(())
    }

    fn next_close(&self) -> Option<i64> {
        None
    }

    fn open_windows(&self) -> usize {
        0
    }

    fn rows(&self) -> u64 {
        self.rows + self.spilled.iter().map(Segment::rows).sum::<u64>()
    }

    fn size_bytes(&self) -> usize {
        self.bytes
    }
}
