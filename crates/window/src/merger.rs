//! Closes windows.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use crate::{OperatorSpec, Segment};

/// A finished window.
#[derive(Debug, Clone)]
pub struct ClosedWindow {
    /// First tick.
    pub start: i64,
    /// One past the last tick.
    pub end: i64,
    /// Its rows, by [`OperatorSpec::output_schema`]; at least one.
    pub rows: Vec<RecordBatch>,
}

/// Merges segments and closes windows in ascending order of their end.
#[derive(Debug)]
pub struct WindowMerger {
    spec: Arc<OperatorSpec>,
}

impl WindowMerger {
    /// An empty merger.
    pub fn new(spec: Arc<OperatorSpec>) -> Self {
        Self { spec }
    }

    /// Takes a segment.
    ///
    /// # Errors
    /// Internal when all its windows have been closed already.
    pub fn add(&mut self, segment: Segment) -> Result<()> {
        Err(Error::internal(format!("not built yet: {segment:?} {:?}", self.spec.window())))
    }

    /// Closes all windows that end at `watermark` or before; empty ones do not appear.
    ///
    /// # Errors
    /// When an aggregate fails, or what `output` returns.
    pub fn close(
        &mut self,
        watermark: Watermark,
        output: &mut dyn FnMut(ClosedWindow) -> Result<()>,
    ) -> Result<()> {
        output(ClosedWindow { start: watermark.ticks(), end: 0, rows: vec![] })
    }

    /// End of the next window that has rows.
    pub fn next_end(&self) -> Option<i64> {
        None
    }

    /// Windows that have rows here and are not closed (an upper bound where time is sparse).
    pub fn open_windows(&self) -> usize {
        0
    }

    /// Bytes of state.
    pub fn size_bytes(&self) -> usize {
        0
    }
}
