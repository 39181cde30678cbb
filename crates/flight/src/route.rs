//! The entry point: calls that the Flight SQL trait does not route are routed here, and requests that cannot be decoded
//! are refused with a readable error.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo,
    SchemaResult, Ticket,
};
use futures::StreamExt;
use tonic::{Code, Request, Response, Status, Streaming};
use windrow_server::auth::Identity;

use crate::metadata;
use crate::service::{Service, command};
use crate::status::{to_status, too_long};

/// The service as it is exposed.
#[derive(Debug, Clone)]
pub(crate) struct Route(pub(crate) Service);

/// Maps a refusal by the library to the right code: a request that cannot be decoded is the client's mistake.
fn in_words(status: Status) -> Status {
    if let Some(error) = too_long(&status) {
        return to_status(&error, "");
    }
    let message = status.message();
    let unread = ["ParseError(", "DecodeError", "IpcError("].iter().any(|m| message.starts_with(m));
    match status.code() {
        Code::Internal | Code::InvalidArgument if unread => {
            Status::invalid_argument(format!("the request cannot be read: {message}"))
        }
        _ => status,
    }
}

#[tonic::async_trait]
impl FlightService for Route {
    type HandshakeStream = <Service as FlightService>::HandshakeStream;
    type ListFlightsStream = <Service as FlightService>::ListFlightsStream;
    type DoGetStream = <Service as FlightService>::DoGetStream;
    type DoPutStream = <Service as FlightService>::DoPutStream;
    type DoActionStream = <Service as FlightService>::DoActionStream;
    type ListActionsStream = <Service as FlightService>::ListActionsStream;
    type DoExchangeStream = <Service as FlightService>::DoExchangeStream;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        self.0.handshake(request).await
    }

    async fn list_flights(
        &self,
        request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        let session = self.0.session_of(&request)?;
        let flights = metadata::flights(&session.session, &request.get_ref().expression).await?;
        Ok(Response::new(futures::stream::iter(flights.into_iter().map(Ok)).boxed()))
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        command(&request.get_ref().cmd)?;
        self.0.get_flight_info(request).await.map_err(in_words)
    }

    /// A query is not executed before its rows are fetched, so the first answer is final.
    async fn poll_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        let info = self.get_flight_info(request).await?;
        Ok(info.map(|info| PollInfo { progress: Some(1.0), ..PollInfo::new().with_info(info) }))
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        self.0.columns(request).await.map(Response::new).map_err(in_words)
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        command(&request.get_ref().ticket)?;
        self.0.do_get(request).await.map_err(in_words)
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let identity = request.extensions().get::<Identity>();
        let ended = identity.map(|identity| identity.admission().ended());
        let ended = async move {
            match ended {
                Some(ended) => ended.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = self.0.do_put(request) => done.map_err(in_words),
            // A sender that takes longer than the grace period gets an error.
            error = ended => Err(to_status(&error, "")),
        }
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.0.do_exchange(request).await
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        self.0.do_action(request).await.map_err(in_words)
    }

    async fn list_actions(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        self.0.list_actions(request).await
    }
}
