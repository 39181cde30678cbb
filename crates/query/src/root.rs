//! The root of a query's plan: operators whose rows are finished, or rows that pass.

use std::sync::Arc;

use windrow_core::Result;
use windrow_sql::leaf::LeafId;
use windrow_storage::checkpoint::OperatorCut;

use crate::runner::PlanRunner;
use crate::stage::StageRun;
use crate::survey::{OperatorSize, OperatorSurvey};

/// The root of a query's plan, running.
#[derive(Debug)]
pub(crate) enum Root {
    /// Windows that close.
    Stage(Box<StageRun>),
    /// Rows that pass: workers send them out themselves, only nested stages are stepped here.
    Rows { nested: Vec<(LeafId, StageRun)>, prepare: Arc<PlanRunner> },
}

impl Root {
    /// The state of all window operators, those of nested stages first.
    ///
    /// # Errors
    /// When an aggregate cannot give its state.
    pub(crate) fn cut(&mut self, into: &mut Vec<OperatorCut>) -> Result<()> {
        match self {
            Self::Stage(stage) => stage.cut(into),
            Self::Rows { nested, .. } => {
                nested.iter_mut().try_for_each(|(_, stage)| stage.cut(into))
            }
        }
    }

    /// A stage that is stepped, by its number.
    pub(crate) fn stage_mut(&mut self, at: usize) -> Option<&mut StageRun> {
        match self {
            Self::Stage(stage) => Some(stage.as_mut()).filter(|_| at == 0),
            Self::Rows { nested, .. } => nested.get_mut(at).map(|(_, stage)| stage),
        }
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
