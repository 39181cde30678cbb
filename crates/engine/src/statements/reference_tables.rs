//! Reference tables in a data directory: external ones are stored by their definition, tables in memory with their rows, which
//! are rewritten at each change. Reference tables are small.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::{MemTable, provider_as_source, source_as_provider};
use datafusion::logical_expr::{CreateMemoryTable, DdlStatement, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::prelude::SessionContext;
use windrow_core::Result;
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::bounded;

use crate::durable::definitions::{Definition, Kind};
use crate::durable::store::Store;
use crate::durable::table_rows::{read_rows, to_bytes};
use crate::execution::buffered::buffered;
use crate::execution::context::StatementContext;
use crate::names::SCHEMA;

/// A change by a statement of DataFusion's that has to be durable.
#[derive(Debug)]
pub(super) enum Change {
    /// A table was created.
    Created(String),
    /// Rows were inserted, updated or deleted.
    Rows(String),
}

impl Change {
    /// Returns what a plan changes; `None`: nothing.
    pub(super) fn of(plan: &LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
                Some(Self::Created(table.name.table().to_owned()))
            }
            LogicalPlan::Ddl(DdlStatement::CreateExternalTable(table)) => {
                Some(Self::Created(table.name.table().to_owned()))
            }
            LogicalPlan::Dml(dml) => Some(Self::Rows(dml.table_name.table().to_owned())),
            _ => None,
        }
    }

    /// Makes the change durable, in a data directory. `text`: the statement.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) async fn store(self, cx: &StatementContext, text: &str) -> Result<()> {
        let Some(store) = cx.instance.store.as_ref().filter(|_| cx.restoring.is_none()) else {
            return Ok(());
        };
        let definition = match &self {
            Self::Created(name) => {
                {
                    // What its query has called is in its rows.
                    let (what, models) = ((name.as_str(), Kind::Table, text), BTreeMap::new());
                    Some(store.record_using(what, cx.files().base(), models)?)
                }
            }
            Self::Rows(name) => {
                store.definitions().into_iter().find(|d| d.name == *name && d.kind == Kind::Table)
            }
        };
        match definition {
            Some(definition) => {
                store_rows(&cx.session, store, &definition).await?;
                store.mark_created(&definition)
            }
            None => Ok(()),
        }
    }
}

/// Executes the query of a table that is to be created and puts its rows in place of the query. The rows count in the memory
/// of the statement.
///
/// # Errors
/// When the query fails, or its rows take too much memory.
pub(super) async fn filled(
    cx: &StatementContext,
    mut table: CreateMemoryTable,
) -> Result<LogicalPlan> {
    let exists = cx.session.table_provider(table.name.clone()).await.is_ok();
    if exists && !table.or_replace {
        return bounded(LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)));
    }
    let query = cx.planner().optimized(Arc::unwrap_or_clone(table.input)).await?;
    let schema = Arc::clone(query.schema().inner());
    let plan = cx.planner().physical(cx.state(), query).await?;
    let plan = buffered(plan, 1);
    let counted = Arc::clone(&plan);
    let rows = cx.executor().collect_partitions(plan).await?;
    let rows = MemTable::try_new(schema, rows).map_err(from_datafusion)?;
    let rows = provider_as_source(Arc::new(rows));
    let rows = LogicalPlanBuilder::scan("rows", rows, None).and_then(LogicalPlanBuilder::build);
    table.input = Arc::new(rows.map_err(from_datafusion)?);
    drop(counted);
    Ok(LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)))
}

/// Writes the rows of a table in memory to the data directory; nothing for other tables.
async fn store_rows(
    session: &SessionContext,
    store: &Store,
    definition: &Definition,
) -> Result<()> {
    let name = definition.name.as_str();
    let table = session.table_provider(TableReference::partial(SCHEMA, name)).await;
    let table = table.map_err(from_datafusion)?;
    if table.downcast_ref::<MemTable>().is_none() {
        return Ok(());
    }
    let schema = table.schema();
    let frame = session.read_table(table).map_err(from_datafusion)?;
    let rows = frame.collect().await.map_err(from_datafusion)?;
    let owner = store.table_owner(definition);
    store.write_table(definition, &to_bytes(&schema, &rows, &owner)?)
}

/// Restores a reference table from the rows in the data directory. Returns whether there were some; otherwise its statement is
/// to be executed again.
///
/// # Errors
/// When the rows are damaged.
pub(crate) async fn restore_table(cx: &StatementContext, definition: &Definition) -> Result<bool> {
    let Some(store) = &cx.instance.store else { return Ok(false) };
    let Some((path, bytes)) = store.read_table(definition)? else { return Ok(false) };
    let table = read_rows(&path, &bytes, &store.table_owner(definition))?;
    let name = TableReference::partial(SCHEMA, definition.name.as_str());
    cx.session.register_table(name, Arc::new(table)).map_err(from_datafusion)?;
    Ok(true)
}

/// Whether a plan inserts into a table in memory.
pub(super) fn is_into_memory(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Dml(dml) = plan else { return false };
    source_as_provider(&dml.target).is_ok_and(|table| table.downcast_ref::<MemTable>().is_some())
}

/// Counts the rows that a plan inserts into a table in the memory of the statement.
///
/// # Errors
/// When the plan cannot be rewritten (a bug).
pub(super) fn buffered_by_table(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let counted = plan.transform_down(|node| {
        if node.downcast_ref::<DataSinkExec>().is_none() {
            return Ok(Transformed::no(node));
        }
        let inputs = node
            .children()
            .into_iter()
            .map(|input| buffered(Arc::clone(input), 1) as Arc<dyn ExecutionPlan>);
        let inputs = inputs.collect();
        let node = replace_children_if_necessary(node, inputs)?;
        Ok(Transformed::new(node, true, TreeNodeRecursion::Stop))
    });
    counted.map(|counted| counted.data).map_err(from_datafusion)
}
