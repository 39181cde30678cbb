//! The stateful operators of Windrow: everything between two stateless plans that keeps state. A new kind of operator
//! is a module here that implements the traits of `port`; the code that runs, saves or shows operators uses only these
//! traits. No clock, no input or output, no SQL text and no catalog belongs here.
//!
//! A worker feeds prepared batches to its [`WorkerPart`] (aligned windows and sessions share the [`SliceStore`]: each row
//! is counted once, in one slice, however many windows overlap). When the watermark passes, it emits its state as
//! [`Segment`]s. A coordinator adds the segments of all workers to one [`CoordinatorPart`], which returns finished rows
//! in ascending order of their end. Which rows are late is decided per row before that ([`lateness`]).
//!
//! Invariants: synchronous, no input or output, no clock, no observable randomness. The same rows with the same tags
//! return the same windows, whatever the batches, the stores and the times of flushes.
#![forbid(unsafe_code)]

pub mod aggregates;
mod batches;
mod bounds;
mod calendar;
mod changing;
mod circuit;
mod describe;
mod divided;
mod early;
mod extents;
mod failure;
mod in_order;
mod interval;
mod keys;
pub mod lateness;
mod leaving;
mod over;
mod partition;
mod pattern;
mod port;
mod row_ends;
mod segments;
mod sessions;
mod slicing;
mod spec;
mod store;
mod survey;
mod table;
mod windows;

pub use batches::compact;
pub use changing::{
    Answer, CHANGE_CODE, ChangingSpec, IS_FINAL, REVISION, early_fields, normalised,
    normalised_windows,
};
pub use circuit::{
    CircuitNode, CircuitSpec, Functions, PairSpec, Rank, RecomputedSpec, Returned, Step, TopSpec,
};
pub use describe::describe_windows;
pub use divided::DividedRows;
pub use early::{Differences, EarlySpec};
pub use interval::{IntervalJoinSpec, JoinFilter, JoinInput, JoinKind, Matching};
pub use over::{FrameRow, OverCall, OverFrame, OverFunction, OverSpec};
pub use pattern::{
    Condition, Formula, Output, Pattern, PatternPlan, PatternSpec, Read, RowOf, Skip, Slot,
    VARIABLES_MAX, slot_schema,
};
pub use port::{CoordinatorPart, EarlyResults, Finished, StatefulOperator, WindowRows, WorkerPart};
pub use row_ends::RowEnds;
pub use segments::Segment;
pub use segments::kept::{Cut, SavedSegment, SavedState, SegmentId, SpilledSegment};
pub use segments::spill::{SpillFile, SpillSpace, SpilledFile};
pub use slicing::Slicing;
pub use spec::{AggregateCall, GroupingSets, Mode, OperatorSpec, SessionOperatorSpec};
pub use store::SliceStore;
pub use survey::{OpenState, Survey};
pub use windows::{ClosedWindow, WindowMerger};
