//! `CREATE EXTERNAL TABLE … WITH (refresh = '1 minute')`: the option, and the table in place of the one that DataFusion made.

use std::sync::Arc;
use std::time::Duration;

use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use windrow_core::{Error, Result};
use windrow_query::refreshed::{RefreshedRelation, RefreshedTable};
use windrow_sql::diagnostics::from_datafusion;

use crate::execution::context::StatementContext;
use crate::execution::options::length;
use crate::instance::refreshing::{self, SHORTEST};

/// The option, as DataFusion's planner names it.
const OPTION: &str = "format.refresh";

/// Takes the option from a plan.
///
/// # Errors
/// When it is not an interval of a second or more.
pub(super) fn take_refresh(plan: LogicalPlan) -> Result<(LogicalPlan, Option<Duration>)> {
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(mut create)) = plan else {
        return Ok((plan, None));
    };
    let Some(text) = create.options.remove(OPTION) else {
        return Ok((LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)), None));
    };
    let every = length("refresh", &text)?;
    if every < SHORTEST {
        let message = format!("option \"refresh\" is less than a second: '{text}'");
        return Err(Error::config(message).with_hint("Write refresh = '1 minute'."));
    }
    Ok((LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)), Some(every)))
}

/// Makes a table that was just created one that is refreshed, and loads it. While a data directory is opened, a table whose
/// files cannot be read is created all the same, and is loaded later.
///
/// # Errors
/// When it cannot be loaded; then it is not created.
pub(super) async fn make_refreshed(
    cx: &StatementContext,
    name: &str,
    every: Duration,
) -> Result<()> {
    let Some(files) = cx.catalog().provider(name) else {
        return Err(Error::internal("a table was created and is not there"));
    };
    if files.downcast_ref::<RefreshedRelation>().is_some() {
        // IF NOT EXISTS.
        return Ok(());
    }
    let table = Arc::new(RefreshedTable::new(name, every, files));
    let (state, clock) = (cx.state(), Arc::clone(&cx.instance.parts.clock));
    if cx.restoring.is_some() {
        refreshing::refresh(&table, &state, clock.as_ref()).await;
    } else if let Err(error) = refreshing::load(&table, &state, clock.as_ref()).await {
        cx.session.deregister_table(name).map_err(from_datafusion)?;
        return Err(error);
    }
    cx.catalog().set_provider(name, Arc::new(RefreshedRelation(Arc::clone(&table))));
    let catalog = Arc::downgrade(cx.catalog());
    let run = refreshing::run(Arc::downgrade(&table), every, state, (catalog, clock));
    cx.instance.parts.cpu.spawn(run);
    Ok(())
}
