//! The port of stateful operators: all that the runtime knows of what stands between two stateless plans.
//!
//! ```text
//! prepared rows ─► WorkerPart (one per worker) ─flush─► segments ─► CoordinatorPart ─close─► finished rows
//! ```
//! A worker's part takes rows, with those that are late told apart by [`StatefulOperator::classify`] before. It gives
//! what it has gathered as [`Segment`]s, which are also what is saved and spilled. The coordinator's part puts the
//! segments of all workers together and gives finished rows in order of event time. ARCHITECTURE.md, "A stateful
//! operator", says how a new one is made.
//!
//! Invariants of every operator: the same rows give the same finished rows, whatever the batches, the workers and the
//! moments of flushing, cutting, restoring and spilling. What is finished at a watermark does not change later.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Result, Watermark};

use crate::divided::DividedRows;
use crate::lateness::{NotOnTime, Tolerance};
use crate::segments::Segment;
use crate::segments::kept::{Cut, SavedState};
use crate::segments::spill::SpillSpace;
use crate::spec::WindowOperator;

/// A stateful operator, as it was planned: it makes the parts that run.
pub trait StatefulOperator: Debug + Send + Sync {
    /// The columns of a prepared batch.
    fn input_schema(&self) -> &SchemaRef;

    /// The columns of finished rows.
    fn output_schema(&self) -> &SchemaRef;

    /// The event times that it can take, in ticks. Rows at others are bad rows.
    fn valid_times(&self) -> RangeInclusive<i64>;

    /// Which rows of a batch are late, in all or in part. `before` is the watermark of the batch's partition just
    /// before it. A row at or after that watermark (less the allowed lateness) is on time in every operator.
    fn classify(&self, times: &[i64], before: Watermark, tolerance: Tolerance) -> NotOnTime;

    /// The part of one more worker, empty.
    fn worker(&self) -> Box<dyn WorkerPart>;

    /// The coordinator's part, empty.
    fn coordinator(&self) -> Box<dyn CoordinatorPart>;

    /// The coordinator's part as it was at a cut. It [keeps cuts](CoordinatorPart::keep_cuts).
    ///
    /// # Errors
    /// Corrupt when a segment cannot be one of such a cut.
    fn restore(&self, state: SavedState<'_>) -> Result<Box<dyn CoordinatorPart>>;
}

/// What one worker has gathered.
pub trait WorkerPart: Debug + Send {
    /// Takes rows that are on time.
    ///
    /// # Errors
    /// When an aggregate fails; Internal when the batch is not as planned.
    fn update(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Takes rows that are late in part: row `i` counts from `from[i]` on, as
    /// [`classify`](StatefulOperator::classify) has said.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    fn update_partly_late(&mut self, batch: &RecordBatch, from: &[i64]) -> Result<()>;

    /// Gives what the coordinator needs to close up to `to`. What comes later starts afresh.
    ///
    /// # Errors
    /// When an aggregate cannot give its state.
    fn flush(&mut self, to: Watermark) -> Result<Vec<Segment>>;

    /// Gives all there is: for a checkpoint.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    fn flush_all(&mut self) -> Result<Vec<Segment>>;

    /// Writes what it has to disk; it leaves from there.
    ///
    /// # Errors
    /// When it cannot be written.
    fn spill(&mut self, space: &dyn SpillSpace) -> Result<()>;

    /// The smallest watermark at which something that is here alone may finish; `None` when there is nothing.
    fn next_close(&self) -> Option<i64>;

    /// Windows (or what the operator has instead) that have rows here.
    fn open_windows(&self) -> usize;

    /// Bytes of memory.
    fn size_bytes(&self) -> usize;
}

/// Finished rows that leave together.
#[derive(Debug)]
pub struct Finished {
    /// How many windows (or what the operator has instead) they are.
    pub windows: u64,
    /// In order of their end; by [`StatefulOperator::output_schema`].
    pub rows: WindowRows,
}

/// The rows of a finished window, batch by batch.
#[derive(Debug, Clone)]
pub enum WindowRows {
    /// In memory.
    Whole(std::vec::IntoIter<RecordBatch>),
    /// Made from disk as they are asked for.
    Divided(Box<DividedRows>),
}

impl WindowRows {
    /// How many there are; `None` when some of them are on disk.
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

/// What all workers have gathered, put together.
///
/// # Contract
/// While [`flush_to`](Self::flush_to) asks for it, the runtime flushes every worker, [adds](Self::add) the segments and
/// says so by [`flushed`](Self::flushed). It then closes up to [`complete_to`](Self::complete_to) and no further.
pub trait CoordinatorPart: Debug + Send {
    /// Takes a segment of a worker.
    ///
    /// # Errors
    /// Internal when it came too late; what an aggregate says when it cannot merge.
    fn add(&mut self, segment: Segment) -> Result<()>;

    /// How far workers are to be flushed next so that what their inputs, which have `reached` a watermark, have finished
    /// can be closed; `None` when nothing more is wanted. `idle`: no rows are on their way, so that what can be finished
    /// is to be finished now; otherwise it may wait for more.
    fn flush_to(&self, reached: Watermark, idle: bool) -> Option<Watermark>;

    /// Every worker has been flushed at `to`, and the segments have been added.
    fn flushed(&mut self, to: Watermark);

    /// How far everything can be closed now; at most `reached`.
    fn complete_to(&self, reached: Watermark) -> Watermark;

    /// The end of the next finished rows, if that is at `to` or before.
    ///
    /// # Errors
    /// When an aggregate fails.
    fn next_end(&mut self, to: Watermark) -> Result<Option<i64>>;

    /// Gives finished rows in order of their end, up to `to`: all of the next end, and of further ones until there are at
    /// least `rows_max`; `None` when there are none.
    ///
    /// # Errors
    /// When an aggregate fails; the operator is then not to be used further.
    fn close(&mut self, to: Watermark, rows_max: usize) -> Result<Option<Finished>>;

    /// The smallest watermark at which something may finish, as far as that can be told without working it out.
    fn next_close(&self) -> Option<i64>;

    /// Asks for rows in one order, whatever came when: then those of several ends may leave together also where their places
    /// are to be the same in every run. False when the operator has no such order. To be told before anything is added.
    fn keep_order(&mut self) -> bool;

    /// Remembers from now on what a checkpoint needs. To be told before anything is added.
    fn keep_cuts(&mut self);

    /// What a checkpoint needs of the state as it is. All that can be closed has been.
    ///
    /// # Errors
    /// Internal without [`keep_cuts`](Self::keep_cuts); when an aggregate cannot give its state.
    fn cut(&mut self) -> Result<Cut>;

    /// Where state goes when memory is short. To be told before anything is added.
    fn spill_to(&mut self, space: Arc<dyn SpillSpace>);

    /// Writes what is in memory to disk, without [`spill_to`](Self::spill_to) nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    fn spill(&mut self) -> Result<()>;

    /// Windows (or what the operator has instead) that are open, as far as they are known here.
    fn open_windows(&self) -> usize;

    /// Bytes of memory.
    fn size_bytes(&self) -> usize;
}

impl WindowOperator {
    /// What runs it: the registry of operators.
    pub fn stateful(&self) -> Arc<dyn StatefulOperator> {
        match self {
            Self::Aligned(operator) => Arc::clone(operator) as _,
            Self::Session(operator) => Arc::clone(operator) as _,
        }
    }
}
