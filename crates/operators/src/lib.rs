//! The stateful operators of Windrow: rows are gathered into slices, slices are merged into windows.
//!
//! A worker feeds prepared batches to its [`SliceStore`]; each row is counted once, in one slice, whatever the overlap
//! of windows. When the watermark passes, the store emits the slices as [`Segment`]s. A coordinator adds the segments
//! of all workers to one [`WindowMerger`], which closes windows in ascending order of their end. Which rows are late is
//! decided per row, before they get here ([`lateness`]).
//!
//! Invariants: synchronous, no input or output, no clock, no observable randomness. The same rows with the same tags
//! give the same windows, whatever the batches, the stores and the moments of flushing.
#![forbid(unsafe_code)]

pub mod aggregates;
mod bounds;
mod cut;
mod divided;
mod extents;
mod failure;
mod keys;
pub mod lateness;
mod merger;
mod overlapping;
mod partition;
mod port;
mod rows;
mod saved;
mod segment;
mod sessions;
mod slicing;
mod spec;
mod spill;
mod stacks;
mod store;
mod table;
mod tumbling;

pub use cut::{Cut, SavedSegment, SegmentId, SpilledSegment};
pub use divided::DividedRows;
pub use merger::{ClosedWindow, WindowMerger, WindowRows};
pub use port::{CoordinatorPart, Finished, SavedState, StatefulOperator, WorkerPart};
pub use rows::compact;
pub use segment::Segment;
pub use slicing::Slicing;
pub use spec::{
    AggregateCall, GroupingSets, Mode, OperatorSpec, SessionOperatorSpec, WindowOperator,
};
pub use spill::{SpillFile, SpillSpace, SpilledFile};
pub use store::SliceStore;
