//! Which files a statement may read and write.

use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use windrow_connectors::Files;
use windrow_core::Result;
use windrow_sql::diagnostics::from_datafusion;
use windrow_stream::stream::table::outside;

use crate::execution::context::StatementContext;

impl StatementContext {
    /// Returns the files that the statement may use.
    pub(crate) fn files(&self) -> Files {
        let parts = &self.instance.parts;
        match &self.restoring {
            // Objects of remote users stay within their roots, if any are configured today.
            Some(definition) => match &definition.base {
                Some(base) if parts.files.base().is_some() => parts.files.clone().relative_to(base),
                Some(base) => Files::anywhere().relative_to(base),
                None => Files::anywhere(),
            },
            None if self.access.is_confined() => parts.files.clone(),
            None => Files::anywhere(),
        }
    }

    /// Resolves the files of a plan of DataFusion's.
    ///
    /// # Errors
    /// When the statement may not use them.
    pub(crate) fn resolve_files(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let files = self.files();
        let resolved = plan.transform_down_with_subqueries(|node| {
            Ok(match node {
                LogicalPlan::Copy(mut copy) => {
                    copy.output_url = files.to_write(&copy.output_url).map_err(outside)?;
                    Transformed::yes(LogicalPlan::Copy(copy))
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
        resolved.map(|resolved| resolved.data).map_err(from_datafusion)
    }
}
