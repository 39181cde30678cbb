//! Rows whose expressions fail, found in a batch: what a view with `on_error = 'skip_row'` leaves out.
//!
//! A batch that fails is cut into sixteen, and each piece that fails again, down to the rows.
//!
//! Invariants: a row is left out only when the plan fails on it alone, so it does not matter which rows were
//! in its batch; the output of the others is in their order; what fails by anything but its rows fails.

use arrow::record_batch::RecordBatch;
use windrow_core::{ErrorKind, Result};
use windrow_sql::leaf::LeafId;

use crate::runner::PlanRunner;

/// A batch that fails is cut into so many pieces.
const PIECES: usize = 16;

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    /// The output for the rows that do not fail.
    pub(crate) out: Vec<RecordBatch>,
    /// The rows that do, in their order, with the reason.
    pub(crate) failed: Vec<(usize, String)>,
}

/// Runs a plan over the rows of one leaf, without those that it fails on.
///
/// # Errors
/// When it fails by anything but its rows.
pub(crate) async fn run_rows(
    runner: &PlanRunner,
    leaf: LeafId,
    input: RecordBatch,
) -> Result<Skipped> {
    let mut done = Skipped::default();
    let mut todo = vec![(0, input.num_rows())];
    while let Some((first, rows)) = todo.pop() {
        match runner.run_one(leaf, input.slice(first, rows)).await {
            Ok(out) => done.out.extend(out),
            Err(error) if error.kind() != ErrorKind::Data => return Err(error),
            Err(error) if rows <= 1 => done.failed.push((first, error.message().to_owned())),
            Err(_) => {
                let step = rows.div_ceil(PIECES);
                let pieces = (first..first + rows).step_by(step);
                // The first is taken next.
                todo.extend(pieces.rev().map(|at| (at, step.min(first + rows - at))));
            }
        }
    }
    Ok(done)
}
