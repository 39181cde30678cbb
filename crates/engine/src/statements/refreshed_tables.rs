//! `CREATE EXTERNAL TABLE … WITH (refresh = '1 minute')`: the option, and the table in place of the one that DataFusion made.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use windrow_core::{Error, Result};
use windrow_query::refreshed::{RefreshedRelation, RefreshedTable};
use windrow_query::shared::{Shared, Status};
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

/// Checks that no running query reads the versions of a refreshed table, which is to be dropped or replaced.
///
/// # Errors
/// When one does; it is named.
pub(super) fn check_unread(cx: &StatementContext, name: &str) -> Result<()> {
    let queries = cx.instance.parts.queries.lock();
    let reads = |query: &&Arc<Shared>| {
        let lives = matches!(query.status(), Status::Running);
        let versions = query.versions.get().filter(|_| lives);
        versions.is_some_and(|all| all.shown().iter().any(|of| of.table.name() == name))
    };
    match queries.values().find(reads) {
        None => Ok(()),
        Some(query) => Err(Error::sql(format!(
            "the versions of table \"{name}\" are read by \"{}\"",
            query.name
        ))
        .with_hint(format!("End \"{}\" first.", query.name))),
    }
}

/// Makes a table that was just created one that is refreshed, and loads it. `before`: what had its name. While a data directory is opened, a table whose
/// files cannot be read is created all the same, and is loaded later.
///
/// # Errors
/// When it cannot be loaded; then it is not created.
pub(super) async fn make_refreshed(
    cx: &StatementContext,
    (name, before): (&str, Option<Arc<dyn TableProvider>>),
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
    // Without the catalog, which would keep the data directory open as long as the table waits.
    let state = cx.state();
    let state = SessionStateBuilder::new()
        .with_config(state.config().clone())
        .with_runtime_env(Arc::clone(state.runtime_env()))
        .with_default_features()
        .build();
    let clock = Arc::clone(&cx.instance.parts.clock);
    if cx.restoring.is_some() {
        refreshing::refresh(&table, &state, clock.as_ref()).await;
    } else if let Err(error) = refreshing::load(&table, &state, clock.as_ref()).await {
        match before {
            Some(before) => cx.catalog().set_provider(name, before),
            None => drop(cx.session.deregister_table(name).map_err(from_datafusion)?),
        }
        return Err(error);
    }
    cx.catalog().set_provider(name, Arc::new(RefreshedRelation(Arc::clone(&table))));
    let catalog = Arc::downgrade(cx.catalog());
    let run = refreshing::run(Arc::downgrade(&table), every, state, (catalog, clock));
    cx.instance.parts.cpu.spawn(run);
    Ok(())
}
