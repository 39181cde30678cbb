//! Finding the rows of a batch on which expressions fail, which a view with `on_error = 'skip_row'` skips.
//!
//! A batch that fails is divided into sixteen pieces, and each piece that fails again, down to single rows.
//!
//! Invariants: a row is skipped only when the plan fails on it alone, so the other rows of its batch do not matter; the
//! output of the others is in their order; a failure for any other reason is returned.

use arrow::record_batch::RecordBatch;
use windrow_core::{ErrorKind, Result};
use windrow_sql::leaf::LeafId;

use crate::runner::PlanRunner;
use crate::versions::Inputs;

/// The number of pieces into which a failed batch is divided.
const PIECES: usize = 16;

/// The result for a batch.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    /// The output for the rows on which the plan does not fail.
    pub(crate) out: Vec<RecordBatch>,
    /// The numbers of the rows on which it fails, in order, with the reason.
    pub(crate) failed: Vec<(usize, String)>,
}

/// Runs a plan over the rows of one leaf, without those on which it fails. `beside`: the rows of other leaves.
///
/// # Errors
/// When it fails for another reason than its rows.
pub(crate) async fn run_rows(
    runner: &PlanRunner,
    (leaf, input): (LeafId, RecordBatch),
    beside: &Inputs,
) -> Result<Skipped> {
    let mut done = Skipped::default();
    let mut todo = vec![(0, input.num_rows())];
    while let Some((first, rows)) = todo.pop() {
        runner.beside(beside.clone());
        match runner.run_one(leaf, input.slice(first, rows)).await {
            Ok(out) => done.out.extend(out),
            Err(error) if error.kind() != ErrorKind::Data => return Err(error),
            Err(error) if rows <= 1 => done.failed.push((first, error.message().to_owned())),
            Err(_) => {
                let step = rows.div_ceil(PIECES);
                let pieces = (first..first + rows).step_by(step);
                // The first piece is on top.
                todo.extend(pieces.rev().map(|at| (at, step.min(first + rows - at))));
            }
        }
    }
    Ok(done)
}
