//! Statements: their tickets, schemas and execution.
//!
//! A ticket contains the statement itself, so that no state is held on the server for a client that does not fetch its
//! rows. It is executed when the rows are fetched. A statement without rows is executed when a client requests its
//! info: ADBC and others do not fetch a result without columns before they continue.

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

use crate::rows::{Messages, RowReporting, arrow_status, done, messages};
use crate::status::to_status;
use crate::wire;

/// The contents of the ticket of a statement.
#[derive(Debug, Serialize, Deserialize)]
struct StatementTicket {
    /// Identifies the execution, for cancellation.
    id: String,
    sql: String,
    /// The result, when it has been executed.
    done: Option<Done>,
}

/// The statement of a ticket.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// Identifies the execution, for cancellation.
    pub(crate) id: Vec<u8>,
    pub(crate) sql: String,
    /// The result, when it has been executed.
    pub(crate) done: Option<Done>,
}

/// Parses and plans a text without executing it.
///
/// # Errors
/// Those of the statement.
pub(crate) async fn prepare(session: &Session, sql: &str) -> Result<Prepared, Status> {
    let prepared = async { session.prepare(&session.parse(sql).await?).await };
    prepared.await.map_err(|e| to_status(&e, sql))
}

/// Returns the info of a text, before its rows are fetched; a statement without rows is executed.
///
/// # Errors
/// Those of the statement.
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
/// Those of the first execution that fails; the executions before it have taken effect.
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

/// Returns the info of a text with these columns, or of one that has been executed.
///
/// # Errors
/// When the columns cannot be encoded (a bug in Windrow).
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

/// Returns the info of rows with these columns.
///
/// # Errors
/// When the columns cannot be encoded (a bug in Windrow).
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

/// Decodes a ticket.
///
/// # Errors
/// INVALID_ARGUMENT when it is not from this server.
pub(crate) fn fetch(ticket: &TicketStatementQuery) -> Result<Fetch, Status> {
    let read: StatementTicket = serde_json::from_slice(&ticket.statement_handle)
        .map_err(|_| Status::invalid_argument("the ticket is not one of this server"))?;
    Ok(Fetch { id: read.id.into_bytes(), sql: read.sql, done: read.done })
}

/// Executes the statement of a ticket.
///
/// # Errors
/// Those of the statement before its first row.
pub(crate) async fn execute_text(
    session: &Session,
    sql: &str,
    mut execution: Execution,
    reporting: RowReporting,
) -> Result<Messages, Status> {
    let statement = unless_stopped(&mut execution, sql, session.parse(sql)).await?;
    // A query is known to return rows; it was prepared when its client requested its info.
    if !matches!(statement.statement, Statement::Query(_)) {
        let prepared = session.prepare(&statement).await.map_err(|e| to_status(&e, sql))?;
        return execute(session, &prepared, &Values::default(), execution, reporting).await;
    }
    match unless_stopped(&mut execution, sql, session.execute(&statement)).await? {
        Outcome::Rows(rows) => messages(rows, sql.into(), execution, reporting),
        Outcome::Done(said) => done(&said),
    }
}

/// Executes a prepared statement.
///
/// # Errors
/// Those of the statement before its first row.
pub(crate) async fn execute(
    session: &Session,
    prepared: &Prepared,
    values: &Values,
    mut execution: Execution,
    reporting: RowReporting,
) -> Result<Messages, Status> {
    let sql: Arc<str> = prepared.text().into();
    let outcome = session.execute_with(prepared, values);
    match unless_stopped(&mut execution, &sql, outcome).await? {
        Outcome::Rows(rows) if prepared.rows().is_some() => {
            messages(rows, sql, execution, reporting)
        }
        outcome => done(&unless_stopped(&mut execution, &sql, finish(outcome)).await?),
    }
}

/// Awaits a part of an execution of `sql`, unless it is cancelled.
async fn unless_stopped<T>(
    execution: &mut Execution,
    sql: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T, Status> {
    execution.unless_stopped(work).await.map_err(|e| to_status(&e, sql))
}

/// Executes a statement for each row of values; returns how many rows were changed.
///
/// # Errors
/// Those of the first execution that fails; the executions before it have taken effect.
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
