//! What one worker has gathered of one input of a join: rows, arranged for the coordinator.

use arrow::record_batch::RecordBatch;
use windrow_core::{Result, Watermark};

use super::Side;
use super::piece::{self, arrange, sorted};
use crate::batches;
use crate::port::WorkerPart;
use crate::segments::Segment;
use crate::segments::ordered::{Piece, spill_pieces};
use crate::segments::spill::SpillSpace;

/// The rows that one worker has.
#[derive(Debug)]
pub(super) struct JoinWorker {
    side: Side,
    /// Rows with a NULL in their key are kept.
    keeps_nulls: bool,
    /// Each in order of the positions.
    batches: Vec<RecordBatch>,
    spilled: Vec<Piece>,
    /// The first position of all; `i64::MAX` when there is none.
    first: i64,
    rows: usize,
    bytes: usize,
}

impl JoinWorker {
    pub(super) fn new(side: Side, keeps_nulls: bool) -> Self {
        let (batches, spilled) = (vec![], vec![]);
        Self { side, keeps_nulls, batches, spilled, first: i64::MAX, rows: 0, bytes: 0 }
    }

    fn take_in(&mut self, batch: &RecordBatch, from: Option<&[i64]>) -> Result<()> {
        let batch = arrange(&self.side, self.keeps_nulls, batch, from)?;
        let Some(piece) = piece::of(batch.clone())? else { return Ok(()) };
        self.first = self.first.min(piece.first);
        self.rows += piece.rows;
        self.bytes += piece.size_bytes();
        self.batches.push(batch);
        Ok(())
    }

    /// Returns everything that it has.
    fn take_pieces(&mut self) -> Result<Vec<Piece>> {
        let mut pieces = std::mem::take(&mut self.spilled);
        for batch in batches::together(std::mem::take(&mut self.batches))? {
            pieces.extend(piece::of(sorted(batch)?)?);
        }
        (self.first, self.rows, self.bytes) = (i64::MAX, 0, 0);
        Ok(pieces)
    }
}

impl WorkerPart for JoinWorker {
    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        self.take_in(batch, None)
    }

    fn update_partly_late(&mut self, batch: &RecordBatch, from: &[i64]) -> Result<()> {
        self.take_in(batch, Some(from))
    }

    /// Rows at or after `to` leave as well: the coordinator keeps them as they are.
    fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>> {
        if self.first >= to.ticks() { Ok(vec![]) } else { self.flush_all() }
    }

    fn flush_all(&mut self) -> Result<Vec<Segment>> {
        let segments = self.take_pieces()?.into_iter().map(Piece::into_segment);
        Ok(segments.collect())
    }

    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        let (first, rows) = (self.first, self.rows);
        let pieces = self.take_pieces()?;
        self.spilled = spill_pieces(space, pieces)?;
        (self.first, self.rows) = (first, rows);
        Ok(())
    }

    fn next_close(&self) -> Option<i64> {
        (self.first < i64::MAX).then(|| self.first.saturating_add(1))
    }

    fn open_windows(&self) -> usize {
        self.rows
    }

    fn size_bytes(&self) -> usize {
        self.bytes
    }
}
