//! The open slices of one worker.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use crate::{OperatorSpec, Segment};

/// The open slices of one worker.
#[derive(Debug)]
pub struct SliceStore {
    spec: Arc<OperatorSpec>,
}

impl SliceStore {
    /// An empty store.
    pub fn new(spec: Arc<OperatorSpec>) -> Self {
        Self { spec }
    }

    /// Counts rows that are on time.
    ///
    /// # Errors
    /// When an aggregate fails (overflow, memory).
    pub fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        Err(Error::internal(format!(
            "not built yet: {} {:?}",
            batch.num_rows(),
            self.spec.window()
        )))
    }

    /// Counts rows that are partly late: row `i` only in windows that end at `from[i]` or after.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn update_partly_late(&mut self, batch: &RecordBatch, from: &[i64]) -> Result<()> {
        Err(Error::internal(format!("not built yet: {} {}", batch.num_rows(), from.len())))
    }

    /// The slices that belong to a window which `watermark` closes, in order of their start.
    ///
    /// # Errors
    /// When an aggregate cannot give its state.
    pub fn flush(&mut self, watermark: Watermark) -> Result<Vec<Segment>> {
        Err(Error::internal(format!("not built yet: {watermark:?}")))
    }

    /// Start of the first open slice.
    pub fn first_open(&self) -> Option<i64> {
        None
    }

    /// Bytes of state.
    pub fn size_bytes(&self) -> usize {
        0
    }

    /// Rows in the open slices.
    pub fn rows(&self) -> u64 {
        0
    }
}
