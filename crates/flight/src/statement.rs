//! Statements: their tickets, their schemas, their execution.
//!
//! A ticket holds the statement itself, so that nothing waits on the server for a client that does
//! not come for its rows. It is executed when the rows are fetched. A statement without rows is
//! executed when a client asks for it: ADBC and others do not fetch what has no columns before they
//! go on.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::sql::{ProstMessageExt, TicketStatementQuery};
use arrow_flight::{FlightDescriptor, FlightEndpoint, FlightInfo, Ticket};
use prost::Message;
use serde::{Deserialize, Serialize};
use tonic::Status;
use windrow_core::Result;
use windrow_engine::{Done, Outcome, Prepared, Session, Values};
use windrow_server::running::Execution;
use windrow_server::session::unguessable;
use windrow_server::statement::{each, finish};
use windrow_sql::parse::Statement;

use crate::rows::{Messages, Telling, arrow_status, done, messages};
use crate::status::to_status;
use crate::wire;

/// What the ticket of a statement says.
#[derive(Debug, Serialize, Deserialize)]
struct StatementTicket {
    /// Names the execution, for cancelling it.
    id: String,
    sql: String,
    /// What was done, when it has been executed.
    done: Option<Done>,
}

/// What is known of a ticket's statement.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// For cancelling it.
    pub(crate) id: Vec<u8>,
    pub(crate) sql: String,
    /// What was done, when it has been executed.
    pub(crate) done: Option<Done>,
}

/// Understands a text without executing it.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn prepare(session: &Session, sql: &str) -> Result<Prepared, Status> {
    let prepared = async { session.prepare(&session.parse(sql).await?).await };
    prepared.await.map_err(|e| to_status(&e, sql))
}

/// What a client is told before it fetches the rows of a text; without rows, it is executed.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn info(
    session: &Session,
    sql: String,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let prepared = prepare(session, &sql).await?;
    match prepared.rows() {
        Some(rows) => info_for(&wire::schema(rows), sql, None, descriptor),
        None => execute_now(session, &prepared, &[Values::default()], descriptor).await,
    }
}

/// Executes a statement without rows, for each row of values.
///
/// # Errors
/// What fails; the executions before it have been done.
pub(crate) async fn execute_now(
    session: &Session,
    prepared: &Prepared,
    values: &[Values],
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let sql = prepared.text();
    let done = each(session, prepared, values).await.map_err(|e| to_status(&e, sql))?;
    info_for(&Schema::empty(), String::new(), Some(done), descriptor)
}

/// What a client is told of a text that gives these columns, or has been executed.
///
/// # Errors
/// When the columns cannot be written (our bug).
pub(crate) fn info_for(
    columns: &Schema,
    sql: String,
    done: Option<Done>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let ticket = StatementTicket { id: unguessable(), sql, done };
    let handle = serde_json::to_vec(&ticket).map_err(|e| Status::internal(e.to_string()))?;
    let ticket = TicketStatementQuery { statement_handle: handle.into() };
    info_of(columns, ticket.as_any().encode_to_vec(), descriptor)
}

/// The columns as they are sent; none for a statement without rows.
pub(crate) fn sent(rows: Option<&SchemaRef>) -> SchemaRef {
    rows.map_or_else(|| Arc::new(Schema::empty()), wire::schema)
}

/// What a client is told of rows with these columns.
///
/// # Errors
/// When the columns cannot be written (our bug).
pub(crate) fn info_of(
    columns: &Schema,
    ticket: Vec<u8>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    Ok(FlightInfo::new()
        .try_with_schema(columns)
        .map_err(|e| arrow_status(e, ""))?
        .with_endpoint(endpoint)
        .with_descriptor(descriptor)
        .with_total_records(-1)
        .with_total_bytes(-1)
        .with_ordered(true))
}

/// Reads a ticket.
///
/// # Errors
/// INVALID_ARGUMENT when it is none of ours.
pub(crate) fn fetch(ticket: &TicketStatementQuery) -> Result<Fetch, Status> {
    let read: StatementTicket = serde_json::from_slice(&ticket.statement_handle)
        .map_err(|_| Status::invalid_argument("the ticket is not one of this server"))?;
    Ok(Fetch { id: read.id.into_bytes(), sql: read.sql, done: read.done })
}

/// Executes the statement of a ticket.
///
/// # Errors
/// What is wrong with it, and what fails before the first row.
pub(crate) async fn execute_text(
    session: &Session,
    sql: &str,
    mut execution: Execution,
    telling: Telling,
) -> Result<Messages, Status> {
    let statement = unless_stopped(&mut execution, sql, session.parse(sql)).await?;
    // Of a query it is known that it gives rows; it was prepared when its client asked for it.
    if !matches!(statement.statement, Statement::Query(_)) {
        let prepared = session.prepare(&statement).await.map_err(|e| to_status(&e, sql))?;
        return execute(session, &prepared, &Values::default(), execution, telling).await;
    }
    match unless_stopped(&mut execution, sql, session.execute(&statement)).await? {
        Outcome::Rows(rows) => messages(rows, sql.into(), execution, telling),
        Outcome::Done(said) => done(&said),
    }
}

/// Executes a prepared statement.
///
/// # Errors
/// What fails before the first row.
pub(crate) async fn execute(
    session: &Session,
    prepared: &Prepared,
    values: &Values,
    mut execution: Execution,
    telling: Telling,
) -> Result<Messages, Status> {
    let sql: Arc<str> = prepared.text().into();
    let outcome = session.execute_with(prepared, values);
    match unless_stopped(&mut execution, &sql, outcome).await? {
        Outcome::Rows(rows) if prepared.rows().is_some() => messages(rows, sql, execution, telling),
        outcome => done(&unless_stopped(&mut execution, &sql, finish(outcome)).await?),
    }
}

/// Waits for a part of an execution of `sql`, unless that is cancelled.
async fn unless_stopped<T>(
    execution: &mut Execution,
    sql: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T, Status> {
    execution.unless_stopped(work).await.map_err(|e| to_status(&e, sql))
}

/// Executes a statement for each row of values; how many rows were changed.
///
/// # Errors
/// What fails; the executions before it have been done.
pub(crate) async fn update(
    session: &Session,
    prepared: &Prepared,
    values: &[Values],
    mut execution: Execution,
) -> Result<i64, Status> {
    let done = each(session, prepared, values);
    let done = unless_stopped(&mut execution, prepared.text(), done).await?;
    Ok(i64::try_from(done.rows.unwrap_or_default()).unwrap_or(i64::MAX))
}
