//! What Flight SQL asks, answered by the engine.

use std::sync::Arc;

use arrow_flight::HandshakeRequest;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{Any, CommandStatementIngest, SqlInfo};
use tonic::{Request, Response, Status, Streaming};
use windrow_core::Error;
use windrow_runtime::{Engine, Session, SessionOptions};

use crate::auth::Identity;
use crate::auth::handshake::{HandshakeStream, handshake};
use crate::auth::login::Door;
use crate::ingest;
use crate::status::to_status;

/// The Flight SQL service of an engine.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    engine: Engine,
    door: Arc<Door>,
}

impl Service {
    pub(crate) fn new(engine: Engine, door: Arc<Door>) -> Self {
        Self { engine, door }
    }

    /// A session of who made a call.
    fn session<T>(&self, request: &Request<T>) -> Result<Session, Status> {
        let caller = request.extensions().get::<Identity>();
        caller
            .ok_or_else(|| Error::internal("a call came past the login"))
            .and_then(|caller| self.engine.session_of(SessionOptions::default(), caller.access()))
            .map_err(|e| to_status(&e, ""))
    }
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
        ingest::bulk(&self.session(&request)?, command, request.into_inner()).await
    }

    async fn do_put_fallback(
        &self,
        request: Request<PeekableFlightDataStream>,
        message: Any,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        let session = self.session(&request)?;
        ingest::put(session, &message, request.into_inner()).await.map(Response::new)
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
