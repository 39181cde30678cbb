//! Aligned windows, implementing the port of stateful operators.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::{SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use windrow_core::{Result, Watermark, Windows};

use super::merger::WindowMerger;
use crate::describe::{describe_kept, describe_mode, describe_windows};
use crate::lateness::{NotOnTime, Tolerance, classify};
use crate::port::{CoordinatorPart, Finished, StatefulOperator, WorkerPart};
use crate::segments::Segment;
use crate::segments::kept::{Cut, SavedState};
use crate::segments::spill::SpillSpace;
use crate::spec::OperatorSpec;
use crate::store::SliceStore;
use crate::survey::Survey;

impl StatefulOperator for OperatorSpec {
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
        match self.row_ends() {
            Some(_) => f.write_str("windows that the rows came with")?,
            None => {
                f.write_str(&describe_windows(Windows::Aligned(self.window()), self.time_unit()))?;
            }
        }
        let kept = match self.row_ends() {
            Some(_) => "window".to_owned(),
            None => describe_kept(self.window(), self.slicing(), self.time_unit()),
        };
        describe_mode(f, self.input_schema(), self.mode(), &kept)
    }

    fn reach(&self) -> i64 {
        self.window().size()
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        self.window().valid_times()
    }

    fn classify(
        &self,
        _input: usize,
        times: &[i64],
        before: Watermark,
        tolerance: Tolerance,
    ) -> NotOnTime {
        match self.row_ends() {
            Some(ends) => classify(self.slicing(), &ends.last_ticks(times), before, tolerance),
            None => classify(self.slicing(), times, before, tolerance),
        }
    }

    fn worker(&self, _input: usize) -> Box<dyn WorkerPart> {
        Box::new(SliceStore::new(self))
    }

    fn coordinator(&self) -> Box<dyn CoordinatorPart> {
        Box::new(WindowMerger::new(Arc::new(self.clone())))
    }

    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>> {
        Ok(Box::new(WindowMerger::restore(Arc::new(self.clone()), state)?))
    }
}

impl WorkerPart for SliceStore {
    fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        self.update(batch)
    }

    fn update_partly_late(&mut self, batch: &RecordBatch, from: &[i64]) -> Result<()> {
        self.update_partly_late(batch, from)
    }

    fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>> {
        self.flush(to)
    }

    fn take(&mut self) -> Box<dyn WorkerPart> {
        Box::new(self.take())
    }

    fn flush_all(&mut self) -> Result<Vec<Segment>> {
        self.flush_all()
    }

    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()> {
        self.spill(space)
    }

    fn next_close(&self) -> Option<i64> {
        self.next_flush()
    }

    fn open_windows(&self) -> usize {
        self.open_slices()
    }

    fn rows(&self) -> u64 {
        self.rows()
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes()
    }
}

impl CoordinatorPart for WindowMerger {
    fn add(&mut self, _input: usize, segment: Segment) -> Result<()> {
        self.add(segment)
    }

    fn flush_to(&mut self, reached: Watermark, _idle: bool) -> Option<Watermark> {
        (reached > self.flushed_to()).then_some(reached)
    }

    fn flushed(&mut self, to: Watermark) {
        self.set_flushed(to);
    }

    fn complete_to(&self, reached: Watermark) -> Watermark {
        reached.min(self.flushed_to())
    }

    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>> {
        Ok(WindowMerger::next_end(self).filter(|end| to.closes(*end)))
    }

    fn close(&mut self, to: Watermark, _rows_max: usize) -> Result<Option<Finished>> {
        // A window usually has many rows, so each is returned alone.
        let mut finished = None;
        while finished.is_none()
            && let Some(end) = WindowMerger::next_end(self).filter(|end| to.closes(*end))
        {
            WindowMerger::close(self, Watermark::at(end), &mut |window| {
                finished = Some(Finished { windows: 1, rows: window.rows });
                Ok(())
            })?;
        }
        if finished.is_none() {
            WindowMerger::close(self, to, &mut |_| Ok(()))?;
        }
        Ok(finished)
    }

    fn next_close(&self) -> Option<i64> {
        self.next_end()
    }

    fn keep_order(&mut self) -> bool {
        false
    }

    fn keep_cuts(&mut self) {
        self.keep_cuts();
    }

    fn cut(&mut self) -> Result<Cut> {
        self.cut()
    }

    fn spill_to(&mut self, space: Arc<dyn SpillSpace>) {
        self.spill_to(space);
    }

    fn spill(&mut self) -> Result<()> {
        self.spill()
    }

    fn open_windows(&self) -> usize {
        self.open_windows()
    }

    fn rows(&self) -> u64 {
        self.rows()
    }

    fn survey(&mut self, entries_max: usize) -> Result<Survey> {
        Ok(self.survey_windows(entries_max))
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes()
    }
}
