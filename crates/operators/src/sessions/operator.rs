//! Sessions, implementing the port of stateful operators.

use std::fmt;
use std::ops::RangeInclusive;

use arrow::datatypes::{SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark, Windows};

use super::SessionMerger;
use crate::describe::{describe_mode, describe_windows, names};
use crate::lateness::{NotOnTime, Tolerance};
use crate::port::{CoordinatorPart, StatefulOperator, WorkerPart};
use crate::segments::Segment;
use crate::segments::kept::SavedState;
use crate::segments::spill::SpillSpace;
use crate::spec::SessionOperatorSpec;
use crate::store::SliceStore;

impl StatefulOperator for SessionOperatorSpec {
    fn inputs(&self) -> Vec<&SchemaRef> {
        vec![self.input_schema()]
    }

    fn output_schema(&self) -> &SchemaRef {
        self.output_schema()
    }

    fn name(&self) -> &'static str {
        "window"
    }

    fn time_unit(&self) -> TimeUnit {
        self.time_unit()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe_windows(Windows::Session(self.session()), self.time_unit()))?;
        if !self.keys().is_empty() {
            write!(f, " per [{}]", names(self.input_schema(), self.keys()))?;
        }
        describe_mode(f, self.input_schema(), self.mode(), "open session")
    }

    /// The length of a session has no limit.
    fn reach(&self) -> i64 {
        i64::MAX
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        self.session().valid_times()
    }

    fn classify(
        &self,
        _input: usize,
        times: &[i64],
        before: Watermark,
        tolerance: Tolerance,
    ) -> NotOnTime {
        super::classify(times, before, tolerance)
    }

    fn worker(&self, _input: usize) -> Box<dyn WorkerPart> {
        Box::new(SessionStore { gap: self.session().gap(), store: SliceStore::of_sessions(self) })
    }

    fn coordinator(&self) -> Box<dyn CoordinatorPart> {
        Box::new(SessionMerger::new(self))
    }

    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>> {
        Ok(Box::new(SessionMerger::restore(self, state)?))
    }
}

/// A worker's pieces of sessions, slice by slice.
#[derive(Debug)]
struct SessionStore {
    gap: i64,
    store: SliceStore,
}

impl WorkerPart for SessionStore {
    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        self.store.update(batch)
    }

    fn update_partly_late(&mut self, _batch: &RecordBatch, _from: &[i64]) -> Result<()> {
        Err(Error::internal("a row of a session is late in part"))
    }

    fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>> {
        self.store.flush(to)
    }

    fn take(&mut self) -> Box<dyn WorkerPart> {
        Box::new(Self { gap: self.gap, store: self.store.take() })
    }

    fn flush_all(&mut self) -> Result<Vec<Segment>> {
        self.store.flush_all()
    }

    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        self.store.spill(space)
    }

    fn next_close(&self) -> Option<i64> {
        self.store.first_open().map(|slice| slice.saturating_add(self.gap))
    }

    fn open_windows(&self) -> usize {
        self.store.groups()
    }

    fn rows(&self) -> u64 {
        self.store.rows()
    }

    fn size_bytes(&self) -> usize {
        self.store.size_bytes()
    }
}
