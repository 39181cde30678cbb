//! A cut: the whole state of a query between two micro-batches, and what it grows from again.
//!
//! ```text
//! workers ─┤ gate ├─► workers' parts ─► coordinators' parts ─► segments ┐
//!                     positions of the taps ───────────────┼─► cut ─► checkpoint
//!                     ledger, late and bad rows ───────────┘
//! ```
//! Invariants: while a cut is made no worker is inside of a micro-batch; so each row is either in
//! the segments and before the positions, or in neither.

use windrow_core::Result;
use windrow_storage::checkpoint::InputCut;

use crate::stage::StageRun;

impl StageRun {
    /// Freezes all that is live and gives the state of the window operators, those of nested
    /// stages first.
    ///
    /// # Errors
    /// When an aggregate cannot give its state.
    pub(crate) fn cut(&mut self, into: &mut Vec<InputCut>) -> Result<()> {
        for input in &mut self.inputs {
            for nested in &mut input.nested {
                nested.stage.cut(into)?;
                for segment in nested.store.flush_all()? {
                    input.operator.add(segment)?;
                }
                nested.store.shrunk();
            }
            let stores: Vec<_> = input.stores.lock().clone();
            for store in stores {
                let mut store = store.lock();
                let segments = store.flush_all()?;
                store.shrunk();
                drop(store);
                for segment in segments {
                    input.operator.add(segment)?;
                }
            }
            into.push(InputCut { watermark: input.watermark, merger: input.operator.cut()? });
            input.measure()?;
        }
        Ok(())
    }
}
