//! A look at what the operators of a running query keep, for [`crate::survey`].

use std::sync::Arc;

use windrow_core::Result;

use crate::stage::{OperatorRun, StageRun};
use crate::survey::OperatorSurvey;

impl StageRun {
    /// Adds what its operators keep, those of nested stages first, until there are `entries_max` entries.
    pub(crate) fn survey(
        &mut self,
        entries_max: usize,
        into: &mut Vec<OperatorSurvey>,
    ) -> Result<()> {
        for operator in &mut self.operators {
            for nested in operator.inputs.iter_mut().flat_map(|input| &mut input.nested) {
                nested.stage.survey(entries_max, into)?;
            }
            let told: usize = into.iter().map(|told| told.survey.states.len()).sum();
            into.push(operator.survey(entries_max.saturating_sub(told))?);
        }
        Ok(())
    }
}

impl OperatorRun {
    fn survey(&mut self, entries_max: usize) -> Result<OperatorSurvey> {
        let parts = self.take_parts();
        self.add_parts(parts)?;
        let mut survey = self.operator.survey(entries_max)?;
        survey.truncated |= survey.states.len() > entries_max;
        survey.states.truncate(entries_max);
        self.measure()?;
        Ok(OperatorSurvey {
            operator: Arc::clone(&self.described),
            time_unit: self.time_unit,
            survey,
        })
    }
}
