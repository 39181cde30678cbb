//! The port of stateful operators: the runtime's only view of an operator between two stateless plans.
//!
//! ```text
//! rows of input 0 ─► WorkerPart (one per worker and input) ─flush─► segments ─┬─► CoordinatorPart ─close─► finished rows
//! rows of input 1 ─► WorkerPart ─flush─► segments ────────────────────────────┘
//! ```
//! A worker's part takes the prepared rows of one input, after [`StatefulOperator::classify`] has separated the late
//! ones. It emits its state as [`Segment`]s, which are also the unit of checkpoints and spilling. The
//! coordinator's part merges the segments of all workers and inputs and returns finished rows in order of event time.
//! Inputs are numbered from 0; an operator sees one watermark, the minimum over its inputs. ARCHITECTURE.md, "A
//! stateful operator", explains how to write one.
//!
//! Invariants of every operator: the same rows return the same finished rows, whatever the batches, the workers and the
//! times of flushes, cuts, restores and spills. Rows that are finished at a watermark do not change later.

use std::fmt::{self, Debug};
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::{SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use windrow_core::{Result, Watermark};

use crate::divided::DividedRows;
use crate::lateness::{NotOnTime, Tolerance};
use crate::segments::Segment;
use crate::segments::kept::{Cut, SavedState};
use crate::segments::spill::SpillSpace;
use crate::survey::{OpenState, Survey};

/// A planned stateful operator: a factory of the parts that run.
pub trait StatefulOperator: Debug + Send + Sync {
    /// The columns of a prepared batch, for each input.
    fn inputs(&self) -> Vec<&SchemaRef>;

    /// The columns of finished rows.
    fn output_schema(&self) -> &SchemaRef;

    /// Its kind, in one word, for EXPLAIN and `windrow.windows`.
    fn name(&self) -> &'static str;

    /// The unit of event time, the same in all inputs.
    fn time_unit(&self) -> TimeUnit;

    /// Describes the operator on one line, as EXPLAIN shows it: what it does, its keys, what it keeps.
    ///
    /// # Errors
    /// Those of the formatter.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// What it consists of, a line each, for EXPLAIN.
    fn parts(&self) -> Vec<String> {
        vec![]
    }

    /// The event times that it supports, in ticks. Rows at other times are bad rows.
    fn valid_times(&self) -> RangeInclusive<i64>;

    /// What it emits before it has finished; `None`: nothing.
    fn early_results(&self) -> Option<EarlyResults> {
        None
    }

    /// How long a row may affect results, in ticks: results that finish at a time depend on no row that is older than
    /// this. `i64::MAX` when there is no limit.
    fn reach(&self) -> i64;

    /// Returns the rows of a batch of an input that are late, for all or some results. `before` is the watermark of
    /// the batch's partition just before it. A row at or after that watermark (minus the allowed lateness) is on time
    /// in every operator.
    fn classify(
        &self,
        input: usize,
        times: &[i64],
        before: Watermark,
        tolerance: Tolerance,
    ) -> NotOnTime;

    /// Whether its coordinator's part can be cut and restored. A view whose query has an operator that cannot is refused
    /// in a data directory.
    fn is_resumable(&self) -> bool {
        true
    }

    /// Returns an empty part for another worker, for rows of `input`.
    fn worker(&self, input: usize) -> Box<dyn WorkerPart>;

    /// Returns an empty coordinator's part.
    fn coordinator(&self) -> Box<dyn CoordinatorPart>;

    /// Restores the coordinator's part from a cut. It [retains cuts](CoordinatorPart::keep_cuts).
    ///
    /// # Errors
    /// Corrupt when a segment cannot belong to such a cut.
    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>>;
}

/// The early results of an operator: its rows change until they are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlyResults {
    /// Whether windows are emitted as a whole, by the end that [`CoordinatorPart::next_end`] returns, whatever the watermark.
    /// [`Finished::windows`] is 1 when the window has closed, and 0 before. Otherwise changed rows are emitted, with
    /// [`CHANGE_CODE`](crate::CHANGE_CODE).
    pub whole: bool,
    /// Whether rows are corrected when they are final.
    pub revisions: bool,
}

/// The state of one worker for one input.
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

    /// Returns what the coordinator needs to close up to `to`. Later rows begin new state.
    ///
    /// # Errors
    /// When an aggregate cannot return its state.
    fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>>;

    /// Moves the whole state into a part of its own, at a cost that does not grow with the rows: for a checkpoint,
    /// during which all workers wait. Later rows begin new state.
    fn take(&mut self) -> Box<dyn WorkerPart>;

    /// Returns the whole state: for a checkpoint.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    fn flush_all(&mut self) -> Result<Vec<Segment>>;

    /// Writes its state to disk; it is emitted from there later.
    ///
    /// # Errors
    /// When it cannot be written.
    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()>;

    /// Returns the smallest watermark at which state held only here may finish; `None` when there is none.
    fn next_close(&self) -> Option<i64>;

    /// The number of windows (or the operator's equivalent) that have rows here.
    fn open_windows(&self) -> usize;

    /// The number of rows in its state.
    fn rows(&self) -> u64 {
        self.open_windows() as u64
    }

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

/// The rows of a finished window, batch by batch.
#[derive(Debug, Clone)]
pub enum WindowRows {
    /// In memory.
    Whole(std::vec::IntoIter<RecordBatch>),
    /// On disk, read on demand.
    Divided(Box<DividedRows>),
}

impl WindowRows {
    /// The number of rows; `None` when some of them are on disk.
    pub fn rows_in_memory(&self) -> Option<usize> {
        match self {
            Self::Whole(rows) => Some(rows.as_slice().iter().map(RecordBatch::num_rows).sum()),
            Self::Divided(_) => None,
        }
    }
}

impl Iterator for WindowRows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Whole(batches) => batches.next().map(Ok),
            Self::Divided(batches) => batches.next(),
        }
    }
}

/// The merged state of all workers.
///
/// # Contract
/// While [`flush_to`](Self::flush_to) requests it, the runtime flushes every worker, [adds](Self::add) the segments and
/// reports that by [`flushed`](Self::flushed). It then closes up to [`complete_to`](Self::complete_to) and no further.
pub trait CoordinatorPart: Debug + Send {
    /// Adds a segment of a worker's state for `input`.
    ///
    /// # Errors
    /// Internal when it arrives too late; when an aggregate cannot merge.
    fn add(&mut self, input: usize, segment: Segment) -> Result<()>;

    /// Returns how far workers must be flushed next to close what is finished at `reached`, the watermark of their
    /// inputs; `None` when no flush is needed. `idle`: no rows are on their way, so everything that can be finished
    /// must be finished now; otherwise it may wait for more.
    fn flush_to(&mut self, reached: Watermark, idle: bool) -> Option<Watermark>;

    /// Records that every worker has been flushed at `to`, and that the segments have been added.
    fn flushed(&mut self, to: Watermark);

    /// Returns how far everything can be closed now; at most `reached`.
    fn complete_to(&self, reached: Watermark) -> Watermark;

    /// Returns the end of the next finished rows, if that is at `to` or before.
    ///
    /// # Errors
    /// When an aggregate fails.
    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>>;

    /// Returns finished rows in order of their end, up to `to`: all of the next end, and of further ends until there
    /// are at least `rows_max`; `None` when there are none.
    ///
    /// # Errors
    /// When an aggregate fails; the operator must then not be used further.
    fn close(&mut self, to: Watermark, rows_max: usize) -> Result<Option<Finished>>;

    /// Returns the smallest watermark at which something may finish, as far as that is known without computing it.
    fn next_close(&self) -> Option<i64>;

    /// Whether rows have been added whose results wait for a moment without rows on their way, although the watermark says
    /// nothing about it: early results.
    fn holds_back(&self) -> bool {
        false
    }

    /// Requests rows in a deterministic order, whatever the order of arrival, so that rows of several ends may be
    /// returned together even if their positions must be the same in every run. Returns false when the operator has no
    /// such order. Must be called before anything is added.
    fn keep_order(&mut self) -> bool;

    /// Retains from now on what checkpoints need. Must be called before anything is added.
    fn keep_cuts(&mut self);

    /// Returns what a checkpoint needs of the current state. Everything that can be closed has been closed.
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

    /// The number of rows in its state, unchanged or as part of an aggregate.
    fn rows(&self) -> u64 {
        self.open_windows() as u64
    }

    /// Bytes of memory.
    fn size_bytes(&self) -> usize;

    /// Returns its state, `entries_max` entries at most. Every worker has just returned all of its state, which has
    /// been added. It may rearrange its state for that.
    ///
    /// # Errors
    /// When an aggregate cannot return its state; the operator must then not be used further.
    fn survey(&mut self, entries_max: usize) -> Result<Survey> {
        let state = OpenState {
            rows: self.rows(),
            bytes: self.size_bytes() as u64,
            ..OpenState::default()
        };
        Ok(Survey { states: vec![state], truncated: entries_max == 0 })
    }
}
