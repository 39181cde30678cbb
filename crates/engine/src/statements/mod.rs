//! The statements of SQL, one file and one type each.
//!
//! ```text
//! Parsed ─ of ─► dyn Statement ─┬─► authorize, admission          before it runs
//!                               ├─► parameters, columns           prepared, not executed
//!                               ├─► check                         an engine that only plans
//!                               └─► execute ─► Outcome
//! ```
//! Each statement defines what it requires: rights, its place in the limits of a server, parameters, columns. [`of`] is
//! the only place that enumerates them. Shared parts are in `execution`, and materialized views in `views`.

mod add_column;
mod alter_stream;
mod change_rows;
pub(crate) mod continuous_insert;
mod copy;
mod create_function;
mod create_model;
mod create_sink;
mod create_stream;
mod create_stream_as;
mod create_view;
mod csv_header;
mod declared_columns;
mod drop;
mod explain;
mod file_relations;
mod function_descriptions;
mod function_names;
pub(crate) mod insert;
mod keyed_stream;
mod pause_sink;
mod pause_stream;
mod reference_tables;
mod refreshed_tables;
mod replay;
mod select;
mod set;
mod show;
mod show_functions;
mod show_models;
mod standard;
mod stream_options;
mod subscribe;
mod summarize;
mod timestamp;
mod truncate;
mod verify;
mod wait_for;
mod why_not;

use std::fmt::Debug;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use sqlparser::ast::ObjectName;
use windrow_core::{Error, Result};
use windrow_sql::parse::{self, ContinuousQuery, Explained, Parsed};
use windrow_sql::plan::Parameters;

use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;
use crate::names::{granted_name, plain_name};

pub(crate) use self::function_names::is_taken;
pub(crate) use self::reference_tables::restore_table;

/// The future of a statement's result. The methods are not `async fn` of `async_trait`: because of the lifetime bounds that it
/// adds, the compiler proves again for each method that all types of the syntax tree are `Send`, which takes seconds each
/// time.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T>>;

/// A statement.
pub(crate) trait Statement: Debug + Send + Sync {
    /// Returns its name in the log, and the limit that it counts in; `None`: it counts in none, because it is short.
    fn admission(&self) -> (&'static str, Option<Weight>);

    /// Checks that the user may do what the statement does or names beside its query. What the query reads is checked when it
    /// is planned.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`](windrow_core::ErrorKind::Denied).
    fn authorize(&self, access: &Access, catalog: &Catalog) -> Result<()>;

    /// Whether it is executed again at each start from a data directory, and so must not depend on the settings of a session.
    fn is_definition(&self) -> bool {
        false
    }

    /// Whether queued views start before it. Otherwise they wait for further ones, and read their streams together.
    fn starts_queued_views(&self) -> bool {
        true
    }

    /// Returns the parameters of the statement.
    ///
    /// # Errors
    /// When it cannot be planned.
    fn parameters<'a>(&'a self, _cx: &'a StatementContext) -> Answer<'a, Parameters> {
        Box::pin(async move { Ok(Parameters::new()) })
    }

    /// Returns the columns of its rows; `None`: it returns no rows.
    ///
    /// # Errors
    /// When it cannot be planned.
    fn columns<'a>(&'a self, _cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { Ok(None) })
    }

    /// Whether it is an INSERT that [`value_rows`](StatementContext::value_rows) can give all its rows at once.
    ///
    /// # Errors
    /// When it cannot be planned.
    fn takes_value_rows<'a>(&'a self, _cx: &'a StatementContext) -> Answer<'a, bool> {
        Box::pin(async move { Ok(false) })
    }

    /// Plans the statement, and defines what later statements name, without running a query. By default it is executed.
    ///
    /// # Errors
    /// What is wrong with the statement, with its place.
    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { self.execute(cx).await.map(drop) })
    }

    /// Explains how the statement runs.
    ///
    /// # Errors
    /// When it cannot be planned, or not be explained at all.
    fn explain<'a>(
        &'a self,
        cx: &'a StatementContext,
        options: ExplainOptions,
    ) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let _ = (cx, options);
            Err(Error::sql("EXPLAIN takes a query, an INSERT or a CREATE VIEW"))
        })
    }

    /// Executes the statement.
    ///
    /// # Errors
    /// What is wrong with the statement, with its place; what failed while it ran.
    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome>;
}

/// How a statement is explained.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExplainOptions {
    /// Executes it and shows what happened.
    pub(crate) analyze: bool,
    /// Shows more detail.
    pub(crate) verbose: bool,
}

/// Returns the statement that was parsed.
pub(crate) fn of(parsed: Parsed) -> Box<dyn Statement> {
    file_relations::OverFiles::or_plain(parsed, of_statement)
}

fn of_statement(statement: parse::Statement, text: String) -> Box<dyn Statement> {
    match statement {
        parse::Statement::CreateStream(create) => {
            Box::new(create_stream::CreateStream { create, text })
        }
        parse::Statement::AlterStream(alter) => {
            Box::new(alter_stream::AlterStream { alter: *alter, text })
        }
        parse::Statement::Truncate(name) => Box::new(truncate::Truncate { name, text }),
        parse::Statement::CreateView(create) => Box::new(create_view::CreateView { create, text }),
        parse::Statement::CreateSink(create) => {
            Box::new(create_sink::CreateSink { create: *create, text })
        }
        parse::Statement::CreateFunction(create) => {
            Box::new(create_function::CreateFunction { create: *create, text })
        }
        parse::Statement::CreateModel(create) => {
            Box::new(create_model::CreateModel { create: *create, text })
        }
        parse::Statement::PauseSink { sink, resume } => {
            Box::new(pause_sink::PauseSink { sink, resume })
        }
        parse::Statement::PauseStream { stream, resume } => {
            Box::new(pause_stream::PauseStream { stream, resume })
        }
        parse::Statement::Query(query) => Box::new(select::Select { query }),
        parse::Statement::Insert(insert) => Box::new(insert::Insert { insert: *insert, text }),
        parse::Statement::Subscribe { view, after, snapshot } => {
            Box::new(subscribe::Subscribe { view, after, snapshot })
        }
        parse::Statement::WaitFor { view, until, timeout } => {
            Box::new(wait_for::WaitFor { view, until, timeout })
        }
        parse::Statement::Verify(verify) => Box::new(verify::VerifyView(*verify)),
        parse::Statement::Explain(parse::Explain { analyze, verbose, what }) => match what {
            Explained::WhyNot(view) => Box::new(why_not::ExplainWhyNot { view }),
            Explained::Statement(inner) => Box::new(explain::Explain {
                statement: of_statement(*inner, text),
                options: ExplainOptions { analyze, verbose },
            }),
        },
        parse::Statement::Show(kind) => Box::new(show::Show(kind)),
        parse::Statement::ShowFunctions(pattern) => {
            Box::new(show_functions::ShowFunctions(pattern))
        }
        parse::Statement::ShowCreate(name) => Box::new(show::ShowCreate(name)),
        parse::Statement::Describe(name) => Box::new(show::Describe(name)),
        parse::Statement::DescribeFunction(name) => {
            Box::new(show_functions::DescribeFunction(name))
        }
        parse::Statement::Drop(drop) => Box::new(drop::Drop(drop)),
        parse::Statement::Set(set) => Box::new(set::Set(set)),
        parse::Statement::Summarize(query) => Box::new(summarize::Summarize { query: *query }),
        parse::Statement::CopyFrom(copy) => Box::new(copy::CopyFrom { copy: *copy, text }),
        // The client formats the rows.
        parse::Statement::CopyOut(copy) => Box::new(select::Select { query: copy.query }),
        parse::Statement::DataFusion(statement) => match parse::ChangeRows::of(&statement) {
            Some(change) => {
                Box::new(change_rows::ChangeRows { change, statement: *statement, text })
            }
            None => Box::new(standard::Standard { statement: *statement, text }),
        },
    }
}

/// Checks that the user has a role on an object that a statement names.
fn need(access: &Access, role: Role, name: &ObjectName) -> Result<()> {
    access.need(role, &granted_name(name))
}

/// Checks that the user may write to the stream for late rows of a query, or create it.
fn authorize_late_rows(access: &Access, catalog: &Catalog, query: &ContinuousQuery) -> Result<()> {
    let Some(name) = &query.tail.late_data_to else { return Ok(()) };
    let name = plain_name(name)?;
    let role = if catalog.exists(&name) { Role::Write } else { Role::Admin };
    access.need(role, &name)
}

/// Returns the columns of rows that exist already.
fn columns_of(outcome: &Outcome) -> Option<SchemaRef> {
    match outcome {
        Outcome::Rows(rows) => Some(std::sync::Arc::clone(rows.schema())),
        Outcome::Done(_) => None,
    }
}
