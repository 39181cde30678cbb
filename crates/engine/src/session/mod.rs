//! Sessions: the front that takes statements and returns rows. What statements do is in `statements`.

mod objects;
mod prepared;

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::parse::{Parsed, StatementText, located, parse_one};
use windrow_sql::plan::TIME_ZONE;

use crate::access::Access;
use crate::catalog::Catalog;
use crate::execution::context::{SessionOptions, StatementContext};
use crate::execution::outcome::{Done, Outcome};
use crate::execution::running::admitted;
use crate::execution::task::AbortOnDrop;
use crate::instance::Instance;
use crate::statements::{self, Statement};

pub use self::objects::{ObjectInfo, ObjectKind};
pub use self::prepared::Prepared;

/// A longer text is parsed on a thread for planning.
const LONG_TEXT_BYTES: usize = 64 << 10;

/// A session of an engine. Cheap to clone; the clones share settings.
#[derive(Clone)]
pub struct Session {
    instance: Arc<Instance>,
    context: Arc<SessionContext>,
    options: SessionOptions,
    access: Arc<Access>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Session {
    /// Creates a session with the settings, functions and catalogs of `context`.
    pub(crate) fn new(
        instance: Arc<Instance>,
        context: SessionContext,
        options: SessionOptions,
        access: Arc<Access>,
    ) -> Self {
        Self { instance, context: Arc::new(context), options, access }
    }

    /// Executes one statement given as text.
    ///
    /// # Errors
    /// When the text is not exactly one statement, and as [`Session::execute`].
    pub fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move { self.execute(&self.parse(sql).await?).await })
    }

    /// Parses the one statement of a text, within the limits of this session.
    ///
    /// # Errors
    /// What is wrong with the text; that it is longer, takes longer, or takes more memory than a statement may.
    pub fn parse<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Parsed>> {
        Box::pin(async move {
            self.check_size(sql)?;
            let cx = self.statement_context();
            if sql.len() < LONG_TEXT_BYTES {
                return cx.budget.run(|| parse_one(sql));
            }
            let sql = sql.to_owned();
            tokio::select! {
                parsed = cx.planner().run(async move { parse_one(&sql) }) => parsed,
                error = cx.deadline() => Err(error),
            }
        })
    }

    /// Executes one statement. Dropping the future, or the rows that it returns, stops the statement.
    ///
    /// # Errors
    /// What is wrong with the statement, with its place; what failed while it ran.
    pub fn execute<'a>(&'a self, statement: &'a Parsed) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            self.check_size(&statement.text)?;
            let source = statement.source();
            let statement = Arc::from(statements::of(statement.clone()));
            located_in(self.spawn(self.statement_context(), statement).await, source)
        })
    }

    /// What the user of the session may do.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Returns the objects.
    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.instance.catalog
    }

    /// Returns the context of a new statement.
    pub(crate) fn statement_context(&self) -> StatementContext {
        StatementContext::new(&self.instance, &self.context, self.options, &self.access)
    }

    /// Executes a statement on the threads of the engine.
    async fn spawn(&self, cx: StatementContext, statement: Arc<dyn Statement>) -> Result<Outcome> {
        let task = self.instance.parts.cpu.spawn(async move {
            let dispatch = |cx| dispatch(cx, &*statement);
            let done = admitted(&cx, statement.admission(), dispatch).await;
            done.map_err(|error| cx.suggest(error))
        });
        AbortOnDrop(task).await
    }

    fn check_size(&self, text: &str) -> Result<()> {
        let max = self.instance.parts.limits.sql_bytes_max;
        if text.len() > max {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("the statement has {} bytes, more than sql_bytes_max = {max}", text.len()),
            ));
        }
        Ok(())
    }
}

/// Adds places in the text of the statement to errors, also to those of its rows.
fn located_in(outcome: Result<Outcome>, source: StatementText) -> Result<Outcome> {
    match outcome {
        Ok(Outcome::Rows(rows)) => Ok(Outcome::Rows(rows.located_in(source))),
        done => done.map_err(|error| located(error, &source)),
    }
}

/// Executes a statement, or only plans it in an engine that does nothing else.
async fn dispatch(cx: StatementContext, statement: &dyn Statement) -> Result<Outcome> {
    if cx.instance.is_plan_only() {
        statement.check(&cx).await?;
        return Ok(Outcome::Done("CHECK".into()));
    }
    if statement.starts_queued_views() {
        cx.instance.start_pending();
    }
    // A definition must mean the same when it is executed again at the next start.
    let zone = cx.time_zone().filter(|zone| statement.is_definition() && zone != TIME_ZONE);
    let Some(zone) = zone else { return execute(&cx, statement).await };
    let done = execute(&cx.in_zone(Some(TIME_ZONE.to_owned())), statement).await?;
    Ok(match done {
        Outcome::Done(Done { said, rows: None }) => {
            let said = format!("{said} (times without zone are in UTC, not in {zone})");
            Outcome::Done(said.into())
        }
        other => other,
    })
}

async fn execute(cx: &StatementContext, statement: &dyn Statement) -> Result<Outcome> {
    statement.authorize(&cx.access, cx.catalog())?;
    statement.execute(cx).await
}
