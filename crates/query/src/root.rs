//! The root of a query's plan: a stage of operators, or rows of a stateless plan.

use std::sync::Arc;

use windrow_core::Result;
use windrow_sql::leaf::LeafId;
use windrow_storage::checkpoint::OperatorCut;

use crate::runner::PlanRunner;
use crate::stage::StageRun;

/// The root of a query's plan at run time.
#[derive(Debug)]
pub(crate) enum Root {
    /// A stage, whose finished rows the coordinator sends.
    Stage(Box<StageRun>),
    /// A stateless plan: workers send its rows themselves; only nested stages are stepped by the coordinator.
    Rows { nested: Vec<(LeafId, StageRun)>, prepare: Arc<PlanRunner> },
}

impl Root {
    /// Appends the state of all stateful operators to `into`, those of nested stages first.
    ///
    /// # Errors
    /// When an operator cannot return its state.
    pub(crate) fn cut(&mut self, into: &mut Vec<OperatorCut>) -> Result<()> {
        match self {
            Self::Stage(stage) => stage.cut(into),
            Self::Rows { nested, .. } => {
                nested.iter_mut().try_for_each(|(_, stage)| stage.cut(into))
            }
        }
    }

    /// The smallest watermark at which a window may close.
    pub(crate) fn next_close(&self) -> Option<i64> {
        match self {
            Self::Stage(stage) => stage.next_close(),
            Self::Rows { nested, .. } => nested.iter().filter_map(|(_, s)| s.next_close()).min(),
        }
    }
}
