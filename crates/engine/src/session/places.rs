//! The files of statements: where they may be, for whom.

use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use windrow_connectors::Files;
use windrow_core::Result;
use windrow_sql::diagnostics::from_datafusion;
use windrow_stream::stream::table::outside;

use crate::session::Session;
use crate::session::copy::without_directories;

impl Session {
    /// Which files its statements may touch.
    pub(super) fn files(&self) -> Files {
        let parts = &self.engine.parts;
        match &self.restoring {
            // What remote users made stays where they may be, if there are any today.
            Some(definition) => match &definition.base {
                Some(base) if parts.files.base().is_some() => parts.files.clone().relative_to(base),
                Some(base) => Files::anywhere().relative_to(base),
                None => Files::anywhere(),
            },
            None if self.access.is_confined() => parts.files.clone(),
            None => Files::anywhere(),
        }
    }

    /// A plan of DataFusion's that reads and writes files only where it may.
    pub(super) fn in_places(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let files = self.files();
        let placed = plan.transform_down_with_subqueries(|node| {
            Ok(match node {
                LogicalPlan::Copy(mut copy) => {
                    copy.output_url = files.to_write(&copy.output_url).map_err(outside)?;
                    Transformed::yes(LogicalPlan::Copy(without_directories(copy).map_err(outside)?))
                }
                LogicalPlan::Ddl(DdlStatement::CreateExternalTable(mut create)) => {
                    for location in &mut create.locations {
                        *location = files.to_read(location).map_err(outside)?;
                        files.check_below(location).map_err(outside)?;
                    }
                    Transformed::yes(LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)))
                }
                node => Transformed::no(node),
            })
        });
        placed.map(|placed| placed.data).map_err(from_datafusion)
    }
}
