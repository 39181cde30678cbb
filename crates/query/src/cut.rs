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

use crate::stage::{OperatorRun, StageRun};

/// The workers' state of one operator, each part with the number of its input.
pub(crate) type TakenParts = Vec<(usize, Box<dyn WorkerPart>)>;

impl StageRun {
    /// Moves out what the workers have gathered for each operator, those of nested stages first.
    pub(crate) fn take_parts(&mut self, into: &mut Vec<TakenParts>) {
        for run in &mut self.operators {
            for nested in run.inputs.iter_mut().flat_map(|input| &mut input.nested) {
                nested.stage.take_parts(into);
            }
            into.push(run.take_parts());
        }
    }

    /// Returns the state of the operators, those of nested stages first; `taken`: what [`take_parts`](Self::take_parts)
    /// moved out.
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
            run.add_parts(parts.ok_or_else(|| Error::internal("a cut lacks an operator"))?)?;
            into.push(OperatorCut { watermark: run.watermark, state: run.operator.cut()? });
            run.measure()?;
        }
        Ok(())
    }
}

impl OperatorRun {
    /// Moves out what nested stages and workers have gathered.
    pub(crate) fn take_parts(&mut self) -> TakenParts {
        let mut parts = vec![];
        for (number, input) in self.inputs.iter_mut().enumerate() {
            let nested = input.nested.iter_mut().map(|nested| nested.store.take());
            let stores = input.stores.lock();
            let taken = nested.chain(stores.iter().map(|store| store.lock().take()));
            parts.extend(taken.map(|part| (number, part)));
        }
        parts
    }

    /// Adds what was moved out to the coordinator's part.
    ///
    /// # Errors
    /// When a part cannot return its state.
    pub(crate) fn add_parts(&mut self, parts: TakenParts) -> Result<()> {
        for (input, mut part) in parts {
            for segment in part.flush_all()? {
                self.operator.add(input, segment)?;
            }
        }
        Ok(())
    }
}
