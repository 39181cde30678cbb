//! A cut: the whole state of a query between two micro-batches, from which it can be restored.
//!
//! ```text
//! workers ─┤ gate ├─► workers' parts ─► coordinators' parts ─► segments ┐
//!                     positions of the taps ───────────────┼─► cut ─► checkpoint
//!                     ledger, late and bad rows ───────────┘
//! ```
//! Invariant: while a cut is made, no worker is inside a micro-batch, so each row is either in the segments and before
//! the positions, or in neither.

use windrow_core::Result;
use windrow_storage::checkpoint::OperatorCut;

use crate::stage::StageRun;

impl StageRun {
    /// Freezes all live state, and appends the state of the operators to `into`, those of nested stages first.
    ///
    /// # Errors
    /// When an operator cannot return its state.
    pub(crate) fn cut(&mut self, into: &mut Vec<OperatorCut>) -> Result<()> {
        for run in &mut self.operators {
            for nested in run.inputs.iter_mut().flat_map(|input| &mut input.nested) {
                nested.stage.cut(into)?;
            }
            run.take_segments(|store| store.flush_all())?;
            into.push(OperatorCut { watermark: run.watermark, state: run.operator.cut()? });
            run.measure()?;
        }
        Ok(())
    }
}
