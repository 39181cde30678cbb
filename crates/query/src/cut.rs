//! A cut: the whole state of a query between two micro-batches, from which it can be restored.
//!
//! ```text
//! workers ─┤ gate ├─► workers' parts, moved out ─────┐
//!                     positions of the taps          ├─ gate opens ─► coordinators' parts ─► segments ─► checkpoint
//!                     ledger, late and bad rows ─────┘
//! ```
//! Invariants: while the state is moved out, no worker is inside a micro-batch, so each row is either in the segments
//! and before the positions, or in neither. This pause does not depend on the number of rows: segments are made of the
//! moved state when the workers run again.

use std::vec;

use windrow_core::{Error, Result};
use windrow_operators::WorkerPart;
use windrow_storage::checkpoint::OperatorCut;

use crate::stage::{InputRun, StageRun};

/// The workers' state of one operator, each part with the number of its input.
pub(crate) type TakenParts = Vec<(usize, Box<dyn WorkerPart>)>;

impl StageRun {
    /// Moves out the workers' state of each operator, and appends it to `into`, those of nested stages first.
    pub(crate) fn take_parts(&mut self, into: &mut Vec<TakenParts>) {
        for run in &mut self.operators {
            for nested in run.inputs.iter_mut().flat_map(|input| &mut input.nested) {
                nested.stage.take_parts(into);
            }
            let inputs = run.inputs.iter_mut().enumerate();
            into.push(
                inputs
                    .flat_map(|(number, input)| {
                        input.take_parts().into_iter().map(move |part| (number, part))
                    })
                    .collect(),
            );
        }
    }

    /// Appends the state of the operators to `into`, those of nested stages first. `taken`: the output of
    /// [`take_parts`](Self::take_parts).
    ///
    /// # Errors
    /// When an operator cannot return its state.
    pub(crate) fn cut(
        &mut self,
        taken: &mut vec::IntoIter<TakenParts>,
        into: &mut Vec<OperatorCut>,
    ) -> Result<()> {
        for run in &mut self.operators {
            for nested in run.inputs.iter_mut().flat_map(|input| &mut input.nested) {
                nested.stage.cut(taken, into)?;
            }
            let parts = taken.next();
            for (input, mut part) in
                parts.ok_or_else(|| Error::internal("a cut lacks an operator"))?
            {
                for segment in part.flush_all()? {
                    run.operator.add(input, segment)?;
                }
            }
            into.push(OperatorCut { watermark: run.watermark, state: run.operator.cut()? });
            run.measure()?;
        }
        Ok(())
    }
}

impl InputRun {
    /// Moves out the state of nested stages and workers.
    fn take_parts(&mut self) -> Vec<Box<dyn WorkerPart>> {
        let nested = self.nested.iter_mut().map(|nested| nested.store.take());
        let stores = self.stores.lock();
        nested.chain(stores.iter().map(|store| store.lock().take())).collect()
    }
}
