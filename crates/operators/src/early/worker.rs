//! The rows that one worker has counted since the last flush, by slice.
//!
//! Invariant: a flush leaves the store empty, so that the coordinator has each row once.

use arrow::record_batch::RecordBatch;
use windrow_core::{Result, Watermark};

use crate::port::WorkerPart;
use crate::segments::Segment;
use crate::segments::spill::SpillSpace;
use crate::store::SliceStore;

/// The slices of one worker.
#[derive(Debug)]
pub(super) struct EarlyStore {
    store: SliceStore,
    /// How far the operator's watermark is behind the one at which windows close, in ticks.
    correct_for: i64,
}

impl EarlyStore {
    pub(super) fn new(store: SliceStore, correct_for: i64) -> Self {
        Self { store, correct_for }
    }
}

impl WorkerPart for EarlyStore {
    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        self.store.update(batch)
    }

    fn update_partly_late(&mut self, batch: &RecordBatch, from: &[i64]) -> Result<()> {
        self.store.update_partly_late(batch, from)
    }

    fn flush(&mut self, _to: Watermark) -> Result<Vec<Segment>> {
        self.store.flush_all()
    }

    fn take(&mut self) -> Box<dyn WorkerPart> {
        Box::new(Self { store: self.store.take(), correct_for: self.correct_for })
    }

    fn flush_all(&mut self) -> Result<Vec<Segment>> {
        self.store.flush_all()
    }

    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        self.store.spill(space)
    }

    fn next_close(&self) -> Option<i64> {
        self.store.next_flush().map(|at| at.saturating_sub(self.correct_for))
    }

    fn open_windows(&self) -> usize {
        self.store.open_slices()
    }

    fn rows(&self) -> u64 {
        self.store.rows()
    }

    fn size_bytes(&self) -> usize {
        self.store.size_bytes()
    }
}
