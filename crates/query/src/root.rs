//! The root of a query's plan: operators whose rows are finished, or rows that pass.

use std::sync::Arc;

use windrow_core::Result;
use windrow_sql::leaf::LeafId;
use windrow_storage::checkpoint::OperatorCut;

use crate::runner::PlanRunner;
use crate::stage::StageRun;

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

    /// The smallest watermark at which a window may close.
    pub(crate) fn next_close(&self) -> Option<i64> {
        match self {
            Self::Stage(stage) => stage.next_close(),
            Self::Rows { nested, .. } => nested.iter().filter_map(|(_, s)| s.next_close()).min(),
        }
    }
}
