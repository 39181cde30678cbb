//! Sessions: statements in, rows out.

pub(crate) mod access;
pub(crate) mod admission;
mod check;
mod compare;
mod create;
mod create_replay;
mod create_view;
mod drop;
mod explain;
mod external;
pub(crate) mod failing;
mod held;
pub(crate) mod insert;
mod kept_insert;
mod kept_view;
mod names;
mod objects;
pub(crate) mod outcome;
mod passing;
mod places;
pub(crate) mod planning;
mod prepare;
pub(crate) mod query;
mod rebuild;
mod restore;
mod room;
mod running;
mod settings;
mod show;
mod stream_options;
mod tables;
pub(crate) mod unseen;
mod verify;
mod verify_gone;
mod verify_refused;
mod view_options;
mod wait;
mod why_not;

use futures::future::BoxFuture;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::execution::SessionState;
use datafusion::prelude::SessionContext;
use windrow_core::{Budget, Error, Limits, Result};
use windrow_sql::parse::{Parsed, Statement, located, parse_one};
use windrow_sql::plan::{PlannerNames, TIME_ZONE};
use windrow_stream::caught::stopped;

use crate::durable::definitions::Definition;
use crate::engine::Inner;
use crate::session::running::Running;
use crate::session::unseen::Unseen;
pub use access::{Access, Grant, Role};
pub use admission::{Admission, QueryLimits};
pub use objects::{ObjectInfo, ObjectKind};
pub use outcome::{Done, Outcome, Position, ResultStream, UnusedRows};
pub use prepare::{Prepared, Values};

/// A longer text is read aside.
const LONG_TEXT_BYTES: usize = 64 << 10;

/// How a session is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Streams that are fed by INSERT count as ended once a `SELECT … EMIT` has read what they
    /// hold. Right where nobody else can insert while the query runs (a file of SQL that is
    /// executed statement by statement); otherwise such a query waits for further rows.
    pub push_ends: bool,
}

/// A session of an engine. Cheap to clone; the clones share settings.
#[derive(Clone)]
pub struct Session {
    pub(crate) engine: Arc<Inner>,
    pub(crate) context: Arc<SessionContext>,
    pub(crate) options: SessionOptions,
    /// The definition that is being restored, while an engine is opened.
    pub(crate) restoring: Option<Arc<Definition>>,
    /// What its user may do.
    access: Arc<Access>,
    /// The statement that this clone of the session executes.
    running: Option<Running>,
    /// What that statement may hold at once.
    budget: Option<Arc<Budget>>,
    /// The values of the parameters of the statement that is executed.
    pub(crate) values: Values,
    /// Many rows of them, for an INSERT that takes them all; the columns are the parameters.
    value_rows: Option<RecordBatch>,
    /// What the statement that is executed does not see.
    unseen: Arc<Unseen>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(
        engine: Arc<Inner>,
        context: SessionContext,
        options: SessionOptions,
        access: Arc<Access>,
    ) -> Self {
        let context = Arc::new(context);
        Self {
            engine,
            context,
            options,
            restoring: None,
            access,
            running: None,
            budget: None,
            values: Values::default(),
            value_rows: None,
            unseen: Arc::default(),
        }
    }

    /// Executes one statement given as text.
    ///
    /// # Errors
    /// When the text is not exactly one statement, and as [`Session::execute`].
    pub fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move { self.execute(&self.parse(sql).await?).await })
    }

    /// Reads the one statement of a text, within the limits of this session. A long text is read aside, in which
    /// other work goes on.
    ///
    /// # Errors
    /// What is wrong with the text; that it is longer, takes longer, or takes more memory than a statement may.
    pub fn parse<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Parsed>> {
        Box::pin(async move {
            self.check_size(sql)?;
            let session = self.for_statement();
            if sql.len() < LONG_TEXT_BYTES {
                return session.budget().run(|| parse_one(sql));
            }
            let sql = sql.to_owned();
            tokio::select! {
                read = session.planning(async move { parse_one(&sql) }) => read,
                error = session.too_long() => Err(error),
            }
        })
    }

    /// Executes one statement. Dropping the future, or the rows it gives, stops the statement.
    ///
    /// # Errors
    /// What is wrong with the statement, with its place; what failed while it ran.
    pub fn execute<'a>(&'a self, statement: &'a Parsed) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(async move {
            self.check_size(&statement.text)?;
            let session = self.for_statement();
            let admitted = statement.clone();
            let task = self.engine.parts.cpu.spawn(async move {
                session.admitted(admitted).await.map_err(|e| session.suggest(e))
            });
            match AbortOnDrop(task).await {
                Ok(Outcome::Rows(rows)) => Ok(Outcome::Rows(rows.located_in(statement))),
                done => done.map_err(|error| located(error, &statement.source())),
            }
        })
    }

    async fn dispatch(&self, parsed: Parsed) -> Result<Outcome> {
        if self.engine.plans_only() {
            return self.check(parsed).await;
        }
        if !matches!(&parsed.statement, Statement::CreateView(_) | Statement::CreateStream(_)) {
            self.engine.start_pending();
        }
        self.dispatch_statement(parsed).await
    }

    async fn dispatch_statement(&self, parsed: Parsed) -> Result<Outcome> {
        // A definition must mean the same when it is read again, after a restart.
        let defines = match &parsed.statement {
            Statement::CreateStream(_) | Statement::CreateView(_) => true,
            Statement::Insert(insert) => !insert.query.tail.is_empty(),
            _ => false,
        };
        let zone = match defines {
            true => self.state().config_options().execution.time_zone.clone(),
            false => None,
        };
        if let Some(zone) = zone.filter(|zone| zone != TIME_ZONE) {
            let done = self.in_utc().dispatch_in_zone(parsed).await?;
            return Ok(match done {
                Outcome::Done(Done { said, rows: None }) => {
                    let said = format!("{said} (times without zone are in UTC, not in {zone})");
                    Outcome::Done(said.into())
                }
                other => other,
            });
        }
        self.dispatch_in_zone(parsed).await
    }

    /// The same session in the time zone of the start.
    fn in_utc(&self) -> Self {
        self.in_zone(Some(TIME_ZONE.to_owned()))
    }

    /// The same session for definitions from before there was a time zone: TIMESTAMPTZ has none.
    fn without_zone(&self) -> Self {
        self.in_zone(None)
    }

    fn in_zone(&self, zone: Option<String>) -> Self {
        let mut state = self.state();
        state.config_mut().options_mut().execution.time_zone = zone;
        Self { context: Arc::new(SessionContext::new_with_state(state)), ..self.clone() }
    }

    async fn dispatch_in_zone(&self, parsed: Parsed) -> Result<Outcome> {
        let Parsed { statement, text, .. } = parsed;
        self.check_statement(&statement)?;
        match statement {
            Statement::CreateStream(create) => self.create_stream(create, &text).await,
            Statement::CreateView(create) => self.create_view(create, &text).await,
            Statement::Query(query) => self.query(query).await,
            Statement::Insert(insert) => self.insert(*insert, &text).await,
            Statement::Subscribe { view, after } => self.subscribe(&view, after).await,
            Statement::WaitFor { view, until, timeout } => {
                self.wait_for(&view, until, timeout).await
            }
            Statement::Verify(verify) => self.verify(*verify).await,
            Statement::Explain(explain) => self.explain(explain).await,
            Statement::Show(kind) => self.show(kind).await,
            Statement::ShowCreate(name) => self.show_create(&name).await,
            Statement::Describe(name) => self.describe(&name).await,
            Statement::Drop(drop) => self.drop_objects(&drop).await,
            Statement::Set(set) => self.set(&set),
            Statement::DataFusion(statement) => self.standard(*statement, &text).await,
        }
    }

    /// The settings, functions and catalog of the session as they are now.
    pub(crate) fn state(&self) -> SessionState {
        let mut state = self.context.state();
        state.config_mut().set_extension(Arc::clone(&self.unseen.scans));
        if self.restoring.as_ref().is_some_and(|definition| !definition.named_by_text) {
            state.config_mut().set_extension(Arc::new(PlannerNames));
        }
        state
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.engine.parts.limits
    }

    fn check_size(&self, text: &str) -> Result<()> {
        let max = self.limits().sql_bytes_max;
        if text.len() > max {
            return Err(Error::new(
                windrow_core::ErrorKind::Limit,
                format!("the statement has {} bytes, more than sql_bytes_max = {max}", text.len()),
            ));
        }
        Ok(())
    }
}

/// A task that stops when nobody waits for it any more.
pub(crate) struct AbortOnDrop<T>(pub(crate) tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<Result<T>> {
    type Output = Result<T>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(|done| match done {
            Ok(result) => result,
            Err(end) => Err(stopped("the statement", end)),
        })
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
