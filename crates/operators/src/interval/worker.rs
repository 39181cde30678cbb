//! A worker's part for one input of a join: sorts rows for the coordinator.

use arrow::record_batch::RecordBatch;
use windrow_core::{Result, Watermark};

use super::Side;
use super::piece::{arrange, positions, sorted};
use crate::port::WorkerPart;
use crate::segments::Segment;
use crate::segments::ordered::Gathered;
use crate::segments::spill::SpillSpace;

/// The part of one worker.
#[derive(Debug)]
pub(super) struct JoinWorker {
    side: Side,
    /// Whether rows with a NULL in their key are kept.
    keeps_nulls: bool,
    /// The batches, each in order of the positions.
    gathered: Gathered,
}

impl JoinWorker {
    pub(super) fn new(side: Side, keeps_nulls: bool) -> Self {
        Self { side, keeps_nulls, gathered: Gathered::new(positions, sorted) }
    }

    fn take_in(&mut self, batch: &RecordBatch, from: Option<&[i64]>) -> Result<()> {
        self.gathered.add(arrange(&self.side, self.keeps_nulls, batch, from)?)
    }
}

impl WorkerPart for JoinWorker {
    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        self.take_in(batch, None)
    }

    fn update_partly_late(&mut self, batch: &RecordBatch, from: &[i64]) -> Result<()> {
        self.take_in(batch, Some(from))
    }

    fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>> {
        self.gathered.flush(to)
    }

    fn take(&mut self) -> Box<dyn WorkerPart> {
        let (side, keeps_nulls) = (self.side.clone(), self.keeps_nulls);
        Box::new(Self { side, keeps_nulls, gathered: self.gathered.take() })
    }

    fn flush_all(&mut self) -> Result<Vec<Segment>> {
        self.gathered.flush_all()
    }

    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        self.gathered.spill(space)
    }

    fn next_close(&self) -> Option<i64> {
        self.gathered.next_close()
    }

    fn open_windows(&self) -> usize {
        self.gathered.rows()
    }

    fn size_bytes(&self) -> usize {
        self.gathered.size_bytes()
    }
}
