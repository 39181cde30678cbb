//! The statements that DataFusion reads: reference tables, COPY, SET, SHOW, …

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{CreateMemoryTable, DdlStatement, LogicalPlan};
use datafusion::sql::parser::Statement as EngineStatement;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::{Parameters, bounded, distinct_columns, parameters};
use windrow_stream::texts::no_lengths;

use super::copy::{rows_written, write_tag};
use super::csv_header::check_header;
use super::reference_tables::{Change, buffered_by_table, filled, is_into_memory};
use super::refreshed_tables::{check_unread, make_refreshed, take_refresh};
use super::{Answer, Statement};
use crate::access::Access;
use crate::access::admission::Weight;
use crate::access::plans::check_plan;
use crate::catalog::{Catalog, exists};
use crate::execution::context::StatementContext;
use crate::execution::outcome::{Done, Outcome};

/// A statement of DataFusion's.
#[derive(Debug)]
pub(crate) struct Standard {
    pub(super) statement: EngineStatement,
    pub(super) text: String,
}

impl Statement for Standard {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("other", Some(Weight::Query))
    }

    fn authorize(&self, _: &Access, _: &Catalog) -> Result<()> {
        // What it does is known from its plan, which is checked when it is executed.
        Ok(())
    }

    fn parameters<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Parameters> {
        Box::pin(async move {
            match cx.planner().statement(self.statement.clone()).await? {
                LogicalPlan::Statement(_) => Ok(Parameters::new()),
                plan => parameters(&plan),
            }
        })
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move {
            let plan = cx.planner().statement(self.statement.clone()).await?;
            check_plan(&cx.access, &plan)?;
            match cx.planner().bind(plan)? {
                LogicalPlan::Ddl(_)
                | LogicalPlan::Dml(_)
                | LogicalPlan::Copy(_)
                | LogicalPlan::Statement(_) => Ok(None),
                plan => Ok(Some(cx.planner().physical(cx.state(), plan).await?.schema())),
            }
        })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move {
            no_lengths(&self.statement)?;
            let plan = bounded(cx.planner().statement(self.statement.clone()).await?)?;
            let (plan, _) = take_refresh(plan)?;
            match plan {
                LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => define_table(cx, table),
                // Only the columns of the files are read.
                LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) => {
                    cx.session.execute_logical_plan(plan).await.map(drop).map_err(from_datafusion)
                }
                plan => cx.state().optimize(&plan).map(drop).map_err(from_datafusion),
            }
        })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            // Older versions have accepted and ignored lengths.
            if cx.restoring.is_none() {
                no_lengths(&self.statement)?;
            }
            let plan = cx.planner().statement(self.statement.clone()).await?;
            let plan = cx.planner().bind(plan)?;
            check_plan(&cx.access, &plan)?;
            let (plan, refresh) = take_refresh(cx.resolve_files(plan)?)?;
            if cx.restoring.is_none() {
                check_location(&plan)?;
            }
            check_header(&cx.state(), &plan).await?;
            match &plan {
                LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
                    distinct_columns(&table.input)?;
                    cx.skipped.add_reads(&plan, cx.catalog())?;
                }
                LogicalPlan::Copy(copy) => distinct_columns(&copy.input)?,
                _ => {}
            }
            if cx.restoring.is_none() && is_there(cx, &plan)? {
                return Ok(Outcome::Done(tag(&self.statement).into()));
            }
            let change = Change::of(&plan);
            let before = match &change {
                Some(Change::Created(name)) => cx.catalog().provider(name),
                _ => None,
            };
            let plan = match plan {
                LogicalPlan::Dml(_) | LogicalPlan::Copy(_) => {
                    return write(cx, plan, change, &self.text).await;
                }
                LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(table)) => {
                    filled(cx, table).await?
                }
                plan @ (LogicalPlan::Ddl(_) | LogicalPlan::Statement(_)) => bounded(plan)?,
                plan => return cx.executor().bounded(plan).await,
            };
            let frame = cx.session.execute_logical_plan(plan).await.map_err(from_datafusion)?;
            let (state, plan) = frame.into_parts();
            let plan = cx.planner().physical(state, plan).await?;
            if !plan.schema().fields().is_empty() {
                return Ok(Outcome::Rows(cx.executor().stream(plan)));
            }
            // It is done; running the plan shows errors that came late.
            cx.executor().collect(plan).await?;
            if let (Some(Change::Created(name)), Some(every)) = (&change, refresh) {
                make_refreshed(cx, (name, before), every).await?;
            }
            if let Some(change) = change {
                change.store(cx, &self.text).await?;
            }
            Ok(Outcome::Done((tag(&self.statement) + &cx.skipped.total().aside()).into()))
        })
    }
}

/// Whether a table that is to be created if it does not exist does exist.
///
/// # Errors
/// When another object has its name, or a query reads the versions of the table that would be replaced.
fn is_there(cx: &StatementContext, plan: &LogicalPlan) -> Result<bool> {
    let (name, if_not_exists, replaces) = match plan {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)) => {
            (create.name.table(), create.if_not_exists, create.or_replace)
        }
        LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(create)) => {
            (create.name.table(), create.if_not_exists, create.or_replace)
        }
        _ => return Ok(false),
    };
    if !cx.catalog().exists(name) || if_not_exists {
        return Ok(cx.catalog().exists(name));
    }
    if let (Some(object), true) = (cx.catalog().get(name), replaces) {
        let kind = object.kind();
        return Err(Error::sql(format!("\"{name}\" is a {kind}, not a table")).with_hint(format!(
            "Use another name, or DROP {} {name} first.",
            kind.to_uppercase()
        )));
    }
    if replaces {
        check_unread(cx, name)?;
    }
    Ok(false)
}

/// Checks that the file of an external table exists: otherwise the table would be empty without a word. A directory (a path that ends
/// in `/`), a glob and a URL may have no files yet.
fn check_location(plan: &LogicalPlan) -> Result<()> {
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)) = plan else { return Ok(()) };
    let is_file = |path: &&String| {
        !path.contains("://") && !path.ends_with('/') && !path.contains(['*', '?', '['])
    };
    match create.locations.iter().filter(is_file).find(|path| !Path::new(path).exists()) {
        None => Ok(()),
        Some(path) => {
            Err(Error::new(ErrorKind::NotFound, format!("file \"{path}\" does not exist"))
                .with_hint("A path that ends in / is a directory, which INSERT may fill."))
        }
    }
}

/// Writes rows to a table or to files.
async fn write(
    cx: &StatementContext,
    plan: LogicalPlan,
    change: Option<Change>,
    text: &str,
) -> Result<Outcome> {
    // The rows keep the order of what is read: rows of a stream in another order would be late rows when they are read back.
    let in_memory = is_into_memory(&plan);
    let physical = cx.planner().physical_in_order(plan.clone()).await?;
    let physical = if in_memory { buffered_by_table(physical)? } else { physical };
    let rows = rows_written(&cx.executor().collect(physical).await?)?;
    // The number of rows is returned once they are durable.
    if let Some(change) = change {
        change.store(cx, text).await?;
    }
    let said = write_tag(&plan, rows) + &cx.skipped.total().aside();
    Ok(Outcome::Done(Done { said, rows: Some(rows) }))
}

/// Defines a table without its rows.
fn define_table(cx: &StatementContext, table: CreateMemoryTable) -> Result<()> {
    cx.state().optimize(&table.input).map_err(from_datafusion)?;
    let schema = Arc::new(table.input.schema().as_arrow().clone());
    let empty = MemTable::try_new(schema, vec![vec![]]).map_err(from_datafusion)?;
    let name = table.name.table().to_owned();
    if cx.catalog().exists(&name) {
        if table.if_not_exists {
            return Ok(());
        }
        if !table.or_replace {
            return Err(exists(&name));
        }
        cx.session.deregister_table(table.name.clone()).map_err(from_datafusion)?;
    }
    cx.session.register_table(table.name, Arc::new(empty)).map_err(from_datafusion)?;
    Ok(())
}

/// Returns the command tag of a statement: its first two words.
fn tag(statement: &EngineStatement) -> String {
    let text = statement.to_string();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    words.join(" ").to_uppercase()
}
