//! The root of a query's plan: a stage of operators, or rows of a stateless plan.

use std::sync::Arc;

use windrow_core::Result;
use windrow_sql::leaf::LeafId;
use windrow_storage::checkpoint::OperatorCut;

use crate::cut::TakenParts;
use crate::runner::PlanRunner;
use crate::stage::StageRun;
use crate::survey::{OperatorSize, OperatorSurvey};

/// The root of a query's plan at run time.
#[derive(Debug)]
pub(crate) enum Root {
    /// A stage, whose finished rows the coordinator sends.
    Stage(Box<StageRun>),
    /// A stateless plan: workers send its rows themselves; only nested stages are stepped by the coordinator.
    Rows { nested: Vec<(LeafId, StageRun)>, prepare: Arc<PlanRunner> },
}

impl Root {
    /// Moves out the state of the workers, for [`cut`](Self::cut).
    pub(crate) fn take_parts(&mut self) -> Vec<TakenParts> {
        let mut taken = vec![];
        match self {
            Self::Stage(stage) => stage.take_parts(&mut taken),
            Self::Rows { nested, .. } => {
                nested.iter_mut().for_each(|(_, stage)| stage.take_parts(&mut taken));
            }
        }
        taken
    }

    /// Returns the state of all operators, those of nested stages first, with what was `taken` from the workers.
    ///
    /// # Errors
    /// When an operator cannot return its state.
    pub(crate) fn cut(&mut self, taken: Vec<TakenParts>) -> Result<Vec<OperatorCut>> {
        let (mut taken, mut cuts) = (taken.into_iter(), vec![]);
        match self {
            Self::Stage(stage) => stage.cut(&mut taken, &mut cuts)?,
            Self::Rows { nested, .. } => {
                for (_, stage) in nested {
                    stage.cut(&mut taken, &mut cuts)?;
                }
            }
        }
        Ok(cuts)
    }

    /// A stage that is stepped, by its number.
    pub(crate) fn stage_mut(&mut self, at: usize) -> Option<&mut StageRun> {
        match self {
            Self::Stage(stage) => Some(stage.as_mut()).filter(|_| at == 0),
            Self::Rows { nested, .. } => nested.get_mut(at).map(|(_, stage)| stage),
        }
    }

    /// Whether it is an updating result, whose changes are emitted without waiting for the watermark.
    pub(crate) fn comes_at_once(&self) -> bool {
        matches!(self, Self::Stage(stage) if stage.changes.is_some())
    }

    /// What all operators keep, `entries_max` entries at most.
    ///
    /// # Errors
    /// When an aggregate cannot give its state.
    pub(crate) fn survey(&mut self, entries_max: usize) -> Result<Vec<OperatorSurvey>> {
        let mut all = vec![];
        match self {
            Self::Stage(stage) => stage.survey(entries_max, &mut all)?,
            Self::Rows { nested, .. } => {
                nested.iter_mut().try_for_each(|(_, stage)| stage.survey(entries_max, &mut all))?;
            }
        }
        Ok(all)
    }

    /// How much each operator keeps.
    pub(crate) fn sizes(&self) -> Vec<OperatorSize> {
        let mut all = vec![];
        match self {
            Self::Stage(stage) => stage.sizes(&mut all),
            Self::Rows { nested, .. } => nested.iter().for_each(|(_, stage)| stage.sizes(&mut all)),
        }
        all
    }

    /// The smallest watermark at which a window may close.
    pub(crate) fn next_close(&self) -> Option<i64> {
        match self {
            Self::Stage(stage) => stage.next_close(),
            Self::Rows { nested, .. } => nested.iter().filter_map(|(_, s)| s.next_close()).min(),
        }
    }
}
