//! Aligned windows: slices of all workers are merged into windows, which close in order of their end.
//!
//! The state of each kind of window is behind [`Windows`]; [`WindowMerger`] closes windows, and its `open` holds the
//! segments that checkpoints and spilling need.

mod merger;
mod open;
mod operator;
mod overlapping;
mod rows;
mod stacks;
mod survey;
mod tumbling;

use std::fmt::Debug;

use arrow::array::ArrayRef;
use windrow_core::Result;

pub use self::merger::{ClosedWindow, WindowMerger};
use self::overlapping::Overlapping;
use self::rows::RowWindows;
use self::tumbling::Tumbling;
use crate::segments::Segment;
use crate::spec::{Mode, OperatorSpec};

/// Columns (without bounds) of some rows of a window, and the number of rows.
type Part = (Vec<ArrayRef>, usize);

/// The state of a kind of window.
trait Windows: Debug + Send {
    /// Adds a segment, of which some windows end after `frontier`.
    fn add(&mut self, spec: &OperatorSpec, segment: Segment) -> Result<()>;

    /// The end of the first window after `frontier` that has rows.
    fn next_end(&self, spec: &OperatorSpec, frontier: i64) -> Option<i64>;

    /// Returns the rows of the window that ends at `end`, which is the next; drops what no later window needs.
    fn close(&mut self, spec: &OperatorSpec, end: i64) -> Result<Vec<Part>>;

    /// The start of the last slice that has rows.
    fn last_slice(&self) -> Option<i64>;

    fn size_bytes(&self) -> usize;

    /// The bytes of memory of one slice and end of a first window; `None` if the state is not held by slice.
    fn slice_bytes(&self, key: (i64, i64)) -> Option<usize>;
}

/// Returns empty windows of the spec's kind.
fn new_windows(spec: &OperatorSpec) -> Box<dyn Windows> {
    match (spec.mode(), spec.window().is_disjoint()) {
        (Mode::Rows, _) => Box::new(RowWindows::default()),
        (_, true) => Box::new(Tumbling::default()),
        (_, false) => Box::new(Overlapping::default()),
    }
}

/// The end of the first window after `frontier` in which one of `keys` (slice and the end from which it counts,
/// ascending) counts.
fn next_end<'a>(
    spec: &OperatorSpec,
    frontier: i64,
    keys: impl Iterator<Item = &'a (i64, i64)>,
) -> Option<i64> {
    let slicing = spec.slicing();
    let mut next: Option<i64> = None;
    for &(slice, from) in keys {
        let earliest = slicing.end_after(slice, frontier);
        if next.is_some_and(|next| next <= earliest) {
            break; // Later slices have no earlier window.
        }
        let end = slicing.end_after(slice, frontier.max(from.saturating_sub(1)));
        if end <= slicing.last_end(slice) && next.is_none_or(|next| end < next) {
            next = Some(end);
        }
    }
    next
}
