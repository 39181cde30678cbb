//! The port of stateful operators: all that the runtime knows of an operator between two stateless plans.
//!
//! ```text
//! prepared rows ─► WorkerPart (one per worker) ─flush─► segments ─► CoordinatorPart ─close─► finished rows
//! ```
//! A worker's part takes rows, after [`StatefulOperator::classify`] has separated the late ones. It emits what it has
//! gathered as [`Segment`]s, which are also the unit of checkpoints and spilling. The coordinator's part merges the
//! segments of all workers and returns finished rows in order of event time. ARCHITECTURE.md, "A stateful operator",
//! explains how to write one.
//!
//! Invariants of every operator: the same rows give the same finished rows, whatever the batches, the workers and the
//! moments of flushing, cutting, restoring and spilling. Rows that are finished at a watermark do not change later.

use std::fmt::{self, Debug};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result, Watermark};

use crate::cut::{Cut, SavedSegment};
use crate::lateness::{NotOnTime, Tolerance, classify};
use crate::merger::WindowRows;
use crate::sessions::SessionMerger;
use crate::spec::{OperatorSpec, SessionOperatorSpec, WindowOperator};
use crate::spill::SpillSpace;
use crate::{Segment, SliceStore, WindowMerger};

/// A planned stateful operator: a factory of the parts that run.
pub trait StatefulOperator: Debug + Send + Sync {
    /// The columns of a prepared batch.
    fn input_schema(&self) -> &SchemaRef;

    /// The columns of finished rows.
    fn output_schema(&self) -> &SchemaRef;

    /// The event times that it supports, in ticks. Rows at other times are bad rows.
    fn valid_times(&self) -> RangeInclusive<i64>;

    /// Returns the rows of a batch that are late, in all or some windows. `before` is the watermark of the batch's
    /// partition just before it. A row at or after that watermark (minus the allowed lateness) is on time in every
    /// operator.
    fn classify(&self, times: &[i64], before: Watermark, tolerance: Tolerance) -> NotOnTime;

    /// Returns an empty part for another worker.
    fn worker(&self) -> Box<dyn WorkerPart>;

    /// Returns an empty coordinator's part.
    fn coordinator(&self) -> Box<dyn CoordinatorPart>;

    /// Restores the coordinator's part from a cut. It [keeps cuts](CoordinatorPart::keep_cuts).
    ///
    /// # Errors
    /// Corrupt when a segment cannot belong to such a cut.
    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>>;
}

/// The state from which an operator is restored.
pub struct SavedState<'a> {
    /// See [`Cut::frontier`].
    pub frontier: i64,
    /// See [`Cut::next_id`].
    pub next_id: u64,
    /// Exactly the segments that the cut needed, in any order. They are taken one by one.
    pub segments: &'a mut dyn Iterator<Item = Result<SavedSegment>>,
    /// Where segments that do not fit in memory are written; `None`: they stay in memory.
    pub space: Option<&'a dyn SpillSpace>,
}

impl Debug for SavedState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedState").field("frontier", &self.frontier).finish_non_exhaustive()
    }
}

/// The state of one worker.
pub trait WorkerPart: Debug + Send {
    /// Takes rows that are on time.
    ///
    /// # Errors
    /// When an aggregate fails; Internal when the batch is not as planned.
    fn update(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Takes rows that are partly late: row `i` counts from `from[i]` on, as returned by
    /// [`classify`](StatefulOperator::classify).
    ///
    /// # Errors
    /// As [`update`](Self::update).
    fn update_partly_late(&mut self, batch: &RecordBatch, from: &[i64]) -> Result<()>;

    /// Returns what the coordinator needs to close up to `to`. Later rows start afresh.
    ///
    /// # Errors
    /// When an aggregate cannot return its state.
    fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>>;

    /// Returns the whole state: for a checkpoint.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    fn flush_all(&mut self) -> Result<Vec<Segment>>;

    /// Writes its state to disk, from where it is later emitted.
    ///
    /// # Errors
    /// When it cannot be written.
    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()>;

    /// Returns the smallest watermark at which state held only here may finish; `None` when there is none.
    fn next_close(&self) -> Option<i64>;

    /// The number of windows (or the operator's equivalent) that have rows here.
    fn open_windows(&self) -> usize;

    /// Bytes of memory.
    fn size_bytes(&self) -> usize;
}

/// Finished rows that are returned together.
#[derive(Debug)]
pub struct Finished {
    /// The number of windows (or the operator's equivalent) that they form.
    pub windows: u64,
    /// In order of their end; by [`StatefulOperator::output_schema`].
    pub rows: WindowRows,
}

/// The merged state of all workers.
///
/// # Contract
/// While [`flush_to`](Self::flush_to) requests it, the runtime flushes every worker, [adds](Self::add) the segments and
/// reports that by [`flushed`](Self::flushed). It then closes up to [`complete_to`](Self::complete_to) and no further.
pub trait CoordinatorPart: Debug + Send {
    /// Adds a segment of a worker.
    ///
    /// # Errors
    /// Internal when it arrives too late; when an aggregate cannot merge.
    fn add(&mut self, segment: Segment) -> Result<()>;

    /// Returns how far workers are to be flushed next, so that what their inputs, which have `reached` a watermark,
    /// have finished can be closed; `None` when no flush is needed. `idle`: no rows are on their way, so whatever can
    /// be finished is to be finished now; otherwise it may wait for more.
    fn flush_to(&self, reached: Watermark, idle: bool) -> Option<Watermark>;

    /// Records that every worker has been flushed at `to`, and that the segments have been added.
    fn flushed(&mut self, to: Watermark);

    /// Returns how far everything can be closed now; at most `reached`.
    fn complete_to(&self, reached: Watermark) -> Watermark;

    /// Returns the end of the next finished rows, if that is at `to` or before.
    ///
    /// # Errors
    /// When an aggregate fails.
    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>>;

    /// Returns finished rows in order of their end, up to `to`: all of the next end, and of further ones until there
    /// are at least `rows_max`; `None` when there are none.
    ///
    /// # Errors
    /// When an aggregate fails; the operator must then not be used further.
    fn close(&mut self, to: Watermark, rows_max: usize) -> Result<Option<Finished>>;

    /// Returns the smallest watermark at which something may finish, as far as that is known without computing it.
    fn next_close(&self) -> Option<i64>;

    /// Requests rows in a deterministic order, whatever the order of arrival: then those of several ends may be
    /// returned together even where their positions must be the same in every run. Returns false when the operator has
    /// no such order. Must be called before anything is added.
    fn keep_order(&mut self) -> bool;

    /// Retains from now on what a checkpoint needs. Must be called before anything is added.
    fn keep_cuts(&mut self);

    /// Returns what a checkpoint needs of the current state. Everything that can be closed has been.
    ///
    /// # Errors
    /// Internal without [`keep_cuts`](Self::keep_cuts); when an aggregate cannot return its state.
    fn cut(&mut self) -> Result<Cut>;

    /// Sets where state is written when memory is short. Must be called before anything is added.
    fn spill_to(&mut self, space: Arc<dyn SpillSpace>);

    /// Writes everything in memory to disk; without [`spill_to`](Self::spill_to) nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    fn spill(&mut self) -> Result<()>;

    /// The number of open windows (or the operator's equivalent), as far as known here.
    fn open_windows(&self) -> usize;

    /// Bytes of memory.
    fn size_bytes(&self) -> usize;
}

impl WindowOperator {
    /// Returns its implementation: the registry of operators.
    pub fn stateful(&self) -> Arc<dyn StatefulOperator> {
        match self {
            Self::Aligned(operator) => Arc::clone(operator) as _,
            Self::Session(operator) => Arc::clone(operator) as _,
        }
    }
}

impl StatefulOperator for OperatorSpec {
    fn input_schema(&self) -> &SchemaRef {
        self.input_schema()
    }

    fn output_schema(&self) -> &SchemaRef {
        self.output_schema()
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        self.window().valid_times()
    }

    fn classify(&self, times: &[i64], before: Watermark, tolerance: Tolerance) -> NotOnTime {
        classify(self.slicing(), times, before, tolerance)
    }

    fn worker(&self) -> Box<dyn WorkerPart> {
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

    fn size_bytes(&self) -> usize {
        self.size_bytes()
    }
}

impl CoordinatorPart for WindowMerger {
    fn add(&mut self, segment: Segment) -> Result<()> {
        self.add(segment)
    }

    fn flush_to(&self, reached: Watermark, _idle: bool) -> Option<Watermark> {
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
        // A window usually has many rows: each is returned alone.
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

    fn size_bytes(&self) -> usize {
        self.size_bytes()
    }
}

impl StatefulOperator for SessionOperatorSpec {
    fn input_schema(&self) -> &SchemaRef {
        self.input_schema()
    }

    fn output_schema(&self) -> &SchemaRef {
        self.output_schema()
    }

    fn valid_times(&self) -> RangeInclusive<i64> {
        self.session().valid_times()
    }

    fn classify(&self, times: &[i64], before: Watermark, tolerance: Tolerance) -> NotOnTime {
        crate::sessions::classify(times, before, tolerance)
    }

    fn worker(&self) -> Box<dyn WorkerPart> {
        Box::new(SessionStore { gap: self.session().gap(), store: SliceStore::of_sessions(self) })
    }

    fn coordinator(&self) -> Box<dyn CoordinatorPart> {
        Box::new(SessionMerger::new(self))
    }

    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>> {
        Ok(Box::new(SessionMerger::restore(self, state)?))
    }
}

/// The session pieces of one worker, slice by slice.
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

    fn size_bytes(&self) -> usize {
        self.store.size_bytes()
    }
}
