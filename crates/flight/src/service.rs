//! What Flight SQL asks, answered by the engine.

use std::sync::Arc;

use arrow_flight::HandshakeRequest;
use arrow_flight::sql::SqlInfo;
use arrow_flight::sql::server::FlightSqlService;
use tonic::{Request, Response, Status, Streaming};
use windrow_runtime::Engine;

use crate::auth::handshake::{HandshakeStream, handshake};
use crate::auth::login::Door;

/// The Flight SQL service of an engine.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    #[expect(dead_code, reason = "the statements come next")]
    engine: Engine,
    door: Arc<Door>,
}

impl Service {
    pub(crate) fn new(engine: Engine, door: Arc<Door>) -> Self {
        Self { engine, door }
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

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
