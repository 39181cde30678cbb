//! The Flight SQL service on the engine. Each method only dispatches to the module that answers.

mod actions;
mod transactions;

use std::ops::Deref;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, ActionEndSavepointRequest, ActionEndTransactionRequest,
    Any, Command, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas,
    CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery,
    CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, FlightDescriptor, FlightInfo, HandshakeRequest, SchemaResult, Ticket,
};
use futures::TryStreamExt;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};
use windrow_core::{Error, ErrorKind};
use windrow_engine::{Engine, Prepared, Session, Values};
use windrow_server::auth::login::Authenticator;
use windrow_server::running::{Execution, Running};
use windrow_server::session::{ClientSession, Sessions};

use self::transactions::{no_transaction, transactionless};
use crate::auth::handshake::{HandshakeStream, handshake};
use crate::ingest;
use crate::metadata;
use crate::rows::{self, RowReporting};
use crate::session;
use crate::statement;
use crate::status::{refused, to_status};

/// Rows of parameters that a statement accepts at once.
const BOUND_ROWS_MAX: usize = 1_000_000;

/// The Flight SQL service of an engine.
///
/// That an engine can be shared between threads is proved once, where this is created, and not again for each method of
/// the services: plans and syntax trees are deep, and each proof takes the compiler seconds.
#[derive(Clone)]
pub(crate) struct Service(Arc<dyn Deref<Target = Parts> + Send + Sync>);

/// The parts of the service.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) running: Running,
    engine: Engine,
    door: Arc<Authenticator>,
}

impl Service {
    pub(crate) fn new(engine: Engine, door: Arc<Authenticator>) -> Self {
        let sessions = Arc::new(Sessions::new(engine.clone()));
        let parts = Parts { sessions, running: Running::default(), engine, door };
        Self(Arc::new(Box::new(parts)))
    }
}

impl Deref for Service {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Parts::fmt(self, f)
    }
}

type Info = Result<Response<FlightInfo>, Status>;
type Rows = Result<Response<<Service as FlightService>::DoGetStream>, Status>;

/// Returns the info of a metadata request, before its rows: they are fetched by the same command.
fn metadata_info(
    command: &impl ProstMessageExt,
    columns: &arrow::datatypes::Schema,
    request: Request<FlightDescriptor>,
) -> Info {
    let ticket = command.as_any().encode_to_vec();
    statement::info_of(columns, ticket, request.into_inner()).map(Response::new)
}

async fn rows_of(
    session: &Session,
    prepared: &Prepared,
    values: &Values,
    execution: Execution,
    reporting: RowReporting,
) -> Rows {
    statement::execute(session, prepared, values, execution, reporting).await.map(Response::new)
}

fn metadata_rows(rows: &RecordBatch) -> Rows {
    rows::batch(rows).map(Response::new)
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<HandshakeStream>, Status> {
        handshake(&self.door, request).await
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.sessions.use_of(&self.session_of(&request)?);
        ingest::bulk(session.engine(), command, request.into_inner()).await
    }

    async fn do_put_fallback(
        &self,
        request: Request<PeekableFlightDataStream>,
        message: Any,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        let session = self.sessions.use_of(&self.session_of(&request)?);
        ingest::put(session, &message, request.into_inner()).await.map(Response::new)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        no_transaction(query.transaction_id.as_deref())?;
        let session = self.session_of(&request)?;
        statement::info(&session.session, query.query, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        request: Request<Ticket>,
    ) -> Rows {
        let fetch = statement::fetch(&ticket)?;
        if let Some(done) = &fetch.done {
            return rows::done(done).map(Response::new);
        }
        let session = self.session_of(&request)?;
        let execution = self.begin(&fetch.id, &session);
        let reporting = RowReporting::of(self.engine.clone(), request.metadata());
        let rows = statement::execute_text(&session.session, &fetch.sql, execution, reporting);
        rows.await.map(Response::new)
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        no_transaction(query.transaction_id.as_deref())?;
        let session = self.session_of(&request)?;
        let prepared = statement::prepare(&session.session, &query.query).await?;
        let dataset_schema = metadata::schema_bytes(&statement::sent(prepared.rows()))?;
        let parameter_schema = metadata::schema_bytes(&prepared.parameters())?;
        let handle = session.prepared.add(prepared).map_err(refused)?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.into(),
            dataset_schema,
            parameter_schema,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<(), Status> {
        // Closing twice is not an error: clients also close when a connection breaks.
        self.session_of(&request)?.prepared.close(&query.prepared_statement_handle);
        Ok(())
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let session = self.session_of(&request)?;
        let found = session.prepared.get(&query.prepared_statement_handle).map_err(refused)?;
        let prepared = &found.prepared;
        if prepared.rows().is_none() {
            let (session, values) = (&session.session, found.bound());
            let told = statement::execute_now(session, prepared, &values, request.into_inner());
            return told.await.map(Response::new);
        }
        let values = found.bound_once().map_err(refused)?;
        // The current columns: the object that is read may have been replaced, or be gone.
        let columns = session.session.columns_with(prepared, &values).await;
        let columns = columns.map_err(|e| to_status(&e, prepared.text()))?;
        metadata_info(&query, &statement::sent(columns.as_ref()), request)
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Rows {
        let session = self.session_of(&request)?;
        let found = session.prepared.get(&query.prepared_statement_handle).map_err(refused)?;
        let execution = self.begin(&query.prepared_statement_handle, &session);
        let values = found.bound_once().map_err(refused)?;
        let reporting = RowReporting::of(self.engine.clone(), request.metadata());
        rows_of(&session.session, &found.prepared, &values, execution, reporting).await
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let session = self.session_of(&request)?;
        let found = session.prepared.get(&query.prepared_statement_handle).map_err(refused)?;
        if let Some(values) = parameters(&found.prepared, request.into_inner()).await? {
            found.bind(values);
        }
        let handle = query.prepared_statement_handle;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    async fn do_put_statement_update(
        &self,
        update: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        no_transaction(update.transaction_id.as_deref())?;
        let session = self.session_of(&request)?;
        let prepared = statement::prepare(&session.session, &update.query).await?;
        let values = [Values::default()];
        let execution = self.begin(b"", &session);
        statement::update(&session.session, &prepared, &values, execution).await
    }

    async fn do_put_prepared_statement_update(
        &self,
        update: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.session_of(&request)?;
        let handle = &update.prepared_statement_handle;
        let found = session.prepared.get(handle).map_err(refused)?;
        let values = match parameters(&found.prepared, request.into_inner()).await? {
            Some(values) => values,
            None => found.bound(),
        };
        let execution = self.begin(handle, &session);
        statement::update(&session.session, &found.prepared, &values, execution).await
    }

    async fn do_action_begin_transaction(
        &self,
        _query: ActionBeginTransactionRequest,
        _request: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        Err(transactionless())
    }

    async fn do_action_end_transaction(
        &self,
        _query: ActionEndTransactionRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Err(transactionless())
    }

    async fn do_action_begin_savepoint(
        &self,
        _query: ActionBeginSavepointRequest,
        _request: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        Err(transactionless())
    }

    async fn do_action_end_savepoint(
        &self,
        _query: ActionEndSavepointRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Err(transactionless())
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        _request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(query.info)
            .map_err(|e| Status::invalid_argument(format!("the flight info is damaged: {e}")))?;
        let cancelled = self.cancel(&info)?;
        // 1: cancelled, 3: there was nothing to cancel.
        Ok(ActionCancelQueryResult { result: if cancelled { 1 } else { 3 } })
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        self.action(request).await
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        Some(actions::actions())
    }

    async fn get_flight_info_fallback(
        &self,
        command: Command,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let path = &request.get_ref().path;
        if path.is_empty() {
            return Err(unknown(&command.into_any()));
        }
        let sql = metadata::select(path);
        let session = self.session_of(&request)?;
        statement::info(&session.session, sql, request.into_inner()).await.map(Response::new)
    }

    async fn do_get_fallback(&self, _: Request<Ticket>, message: Any) -> Rows {
        Err(unknown(&message))
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Info {
        metadata_info(&query, &query.into_builder().schema(), request)
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Rows {
        let session = self.session_of(&request)?;
        metadata_rows(&metadata::catalogs(&session.session, query)?)
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Info {
        metadata_info(&query, &query.clone().into_builder().schema(), request)
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Rows {
        let session = self.session_of(&request)?;
        metadata_rows(&metadata::schemas(&session.session, query)?)
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Info {
        metadata_info(&query, &query.clone().into_builder().schema(), request)
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Rows {
        let session = self.session_of(&request)?;
        metadata_rows(&metadata::tables(&session.session, query).await?)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Info {
        metadata_info(&query, &query.into_builder().schema(), request)
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, _: Request<Ticket>) -> Rows {
        metadata_rows(&metadata::table_types(query)?)
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let columns = metadata::sql_info::known()?.schema();
        metadata_info(&query, &columns, request)
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _: Request<Ticket>) -> Rows {
        let rows = query.into_builder(metadata::sql_info::known()?).build();
        metadata_rows(&rows.map_err(|e| Status::internal(e.to_string()))?)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Info {
        let columns = metadata::types::known()?.schema();
        metadata_info(&query, &columns, request)
    }

    async fn do_get_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        _: Request<Ticket>,
    ) -> Rows {
        let rows = query.into_builder(metadata::types::known()?).build();
        metadata_rows(&rows.map_err(|e| Status::internal(e.to_string()))?)
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        metadata_info(&query, &metadata::keys::primary(), request)
    }

    async fn do_get_primary_keys(&self, _: CommandGetPrimaryKeys, _: Request<Ticket>) -> Rows {
        metadata_rows(&RecordBatch::new_empty(metadata::keys::primary()))
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        metadata_info(&query, &metadata::keys::foreign(), request)
    }

    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, _: Request<Ticket>) -> Rows {
        metadata_rows(&RecordBatch::new_empty(metadata::keys::foreign()))
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Info {
        metadata_info(&query, &metadata::keys::foreign(), request)
    }

    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, _: Request<Ticket>) -> Rows {
        metadata_rows(&RecordBatch::new_empty(metadata::keys::foreign()))
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Info {
        metadata_info(&query, &metadata::keys::foreign(), request)
    }

    async fn do_get_cross_reference(
        &self,
        _: CommandGetCrossReference,
        _: Request<Ticket>,
    ) -> Rows {
        metadata_rows(&RecordBatch::new_empty(metadata::keys::foreign()))
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}

impl Service {
    /// Returns the session of a request.
    ///
    /// # Errors
    /// NOT_FOUND when the cookie names a session that has ended.
    pub(crate) fn session_of<T>(&self, request: &Request<T>) -> Result<Arc<ClientSession>, Status> {
        session::of(&self.sessions, request)
    }

    /// Registers the execution of a ticket or handle.
    fn begin(&self, id: &[u8], session: &Arc<ClientSession>) -> Execution {
        self.running.begin(id, self.sessions.use_of(session))
    }

    /// Returns the columns of what a descriptor names; nothing is executed.
    ///
    /// # Errors
    /// Those of the statement.
    pub(crate) async fn columns(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<SchemaResult, Status> {
        let session = self.session_of(&request)?;
        let columns = match command(&request.get_ref().cmd)? {
            Command::CommandStatementQuery(query) => {
                let prepared = statement::prepare(&session.session, &query.query).await?;
                statement::sent(prepared.rows())
            }
            Command::CommandPreparedStatementQuery(query) => {
                let found =
                    session.prepared.get(&query.prepared_statement_handle).map_err(refused)?;
                statement::sent(found.prepared.rows())
            }
            // A metadata request, or a path: it only reads.
            _ => {
                let info = self.get_flight_info(request).await?;
                return Ok(SchemaResult { schema: info.into_inner().schema });
            }
        };
        Ok(SchemaResult { schema: metadata::schema_bytes(&columns)? })
    }

    /// Cancels the executions of the tickets of `info`; returns whether anything ran.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when a ticket is not from this server.
    pub(crate) fn cancel(&self, info: &FlightInfo) -> Result<bool, Status> {
        let mut any = false;
        for ticket in info.endpoint.iter().filter_map(|e| e.ticket.as_ref()) {
            let command = command(&ticket.ticket)?;
            any |= match command {
                Command::TicketStatementQuery(ticket) => {
                    self.running.cancel(&statement::fetch(&ticket)?.id)
                }
                Command::CommandPreparedStatementQuery(query) => {
                    self.running.cancel(&query.prepared_statement_handle)
                }
                // Metadata is complete before it could be cancelled.
                _ => false,
            };
        }
        Ok(any)
    }
}

/// Decodes the command in a descriptor or ticket.
///
/// # Errors
/// INVALID_ARGUMENT when it cannot be decoded.
pub(crate) fn command(bytes: &[u8]) -> Result<Command, Status> {
    let unreadable = |e: &dyn std::fmt::Display| {
        Status::invalid_argument(format!("the command cannot be read: {e}"))
    };
    let message = Any::decode(bytes).map_err(|e| unreadable(&e))?;
    Command::try_from(message).map_err(|e| unreadable(&e))
}

/// Reads the parameter values that a client sends; `None` when it sends no columns.
async fn parameters(
    prepared: &Prepared,
    messages: PeekableFlightDataStream,
) -> Result<Option<Vec<Values>>, Status> {
    // The message with the command may contain nothing else: it is neither a schema nor a batch.
    let messages = messages
        .try_filter(|message| std::future::ready(!message.data_header.is_empty()))
        .map_err(|status| FlightError::Tonic(Box::new(status)));
    let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
    let mut values = Vec::new();
    let mut any = false;
    while let Some(batch) = batches.try_next().await.map_err(damaged)? {
        if batch.num_columns() == 0 {
            continue;
        }
        any = true;
        if values.len() + batch.num_rows() > BOUND_ROWS_MAX {
            let message = format!("more than {BOUND_ROWS_MAX} rows of parameters");
            let error =
                Error::new(ErrorKind::Limit, message).with_hint("Send rows with a bulk ingest.");
            return Err(to_status(&error, ""));
        }
        values.extend(prepared.bind(&batch).map_err(|e| to_status(&e, prepared.text()))?);
    }
    Ok(any.then_some(values))
}

fn damaged(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        other => Status::invalid_argument(format!("the parameters cannot be read: {other}")),
    }
}

fn unknown(message: &Any) -> Status {
    let what = match message.type_url.rsplit('.').next() {
        Some(name) if !name.is_empty() => format!("\"{name}\" is not a command of this server"),
        _ => "the descriptor or ticket has no command".to_owned(),
    };
    Status::invalid_argument(what)
}
