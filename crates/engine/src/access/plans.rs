//! The roles that DataFusion's own statements require, by their plans.

use datafusion::common::TableReference;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{DdlStatement, LogicalPlan, Statement as PlanStatement};
use windrow_core::Result;
use windrow_sql::diagnostics::from_datafusion;
use windrow_stream::stream::table::outside;

use crate::access::settings::{check_range, may_set};
use crate::access::{Access, Role};
use crate::names::granted_table;

/// Checks that the user may do what a plan does.
///
/// # Errors
/// [`ErrorKind::Denied`](windrow_core::ErrorKind::Denied); a setting that is out of range.
pub(crate) fn check_plan(access: &Access, plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        check_node(access, node).map_err(outside)?;
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
    .map_err(from_datafusion)
}

fn check_node(access: &Access, node: &LogicalPlan) -> Result<()> {
    let need = |role, name: &TableReference| access.need(role, &granted_table(name));
    match node {
        LogicalPlan::Dml(dml) => need(Role::Write, &dml.table_name),
        LogicalPlan::Copy(_) => access.need_somewhere(Role::Write, "COPY"),
        LogicalPlan::Ddl(ddl) => match ddl {
            DdlStatement::CreateExternalTable(create) => need(Role::Admin, &create.name),
            DdlStatement::CreateMemoryTable(create) => need(Role::Admin, &create.name),
            DdlStatement::CreateView(create) => need(Role::Admin, &create.name),
            DdlStatement::CreateIndex(create) => need(Role::Admin, &create.table),
            DdlStatement::DropTable(drop) => need(Role::Admin, &drop.name),
            DdlStatement::DropView(drop) => need(Role::Admin, &drop.name),
            DdlStatement::CreateCatalogSchema(_)
            | DdlStatement::CreateCatalog(_)
            | DdlStatement::DropCatalogSchema(_)
            | DdlStatement::CreateFunction(_)
            | DdlStatement::DropFunction(_) => access.need_everywhere(Role::Admin, ddl.name()),
        },
        LogicalPlan::Statement(PlanStatement::SetVariable(set)) => {
            may_set(access, "SET", &set.variable)?;
            check_range(&set.variable, &set.value)
        }
        LogicalPlan::Statement(PlanStatement::ResetVariable(reset)) => {
            may_set(access, "RESET", &reset.variable)
        }
        _ => Ok(()),
    }
}
