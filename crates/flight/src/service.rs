//! What Flight SQL asks, answered by the engine.

use arrow_flight::sql::SqlInfo;
use arrow_flight::sql::server::FlightSqlService;
use windrow_runtime::Engine;

/// The Flight SQL service of an engine.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    #[expect(dead_code, reason = "the statements come next")]
    engine: Engine,
}

impl Service {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine }
    }
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Self;

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
