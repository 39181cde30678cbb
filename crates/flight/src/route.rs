//! The way in: what the Flight SQL trait does not route goes to its room here, and what cannot be
//! read is refused in words.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria,
    Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, PollInfo, SchemaResult,
    Ticket,
};
use futures::StreamExt;
use prost::Message;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::auth::Identity;
use crate::metadata;
use crate::service::Service;
use crate::session::options;
use crate::status::{to_status, too_long};

/// The service as it is served.
#[derive(Debug, Clone)]
pub(crate) struct Route(pub(crate) Service);

/// The command in a descriptor or ticket.
///
/// # Errors
/// INVALID_ARGUMENT when it cannot be read.
pub(crate) fn command(bytes: &[u8]) -> Result<Command, Status> {
    let unreadable = |e: &dyn std::fmt::Display| {
        Status::invalid_argument(format!("the command cannot be read: {e}"))
    };
    let message = Any::decode(bytes).map_err(|e| unreadable(&e))?;
    Command::try_from(message).map_err(|e| unreadable(&e))
}

/// A refusal by the library, in the right code: what cannot be read is the client's mistake.
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
        let session = self.0.sessions.of(&request)?;
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

    /// A query is not executed before its rows are fetched, so that the first answer is the last.
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
            // A sender that takes longer than the time of grace is told why.
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

const CANCEL: &str = "CancelFlightInfo";

/// The actions beside those of Flight SQL.
pub(crate) fn actions() -> Vec<Result<ActionType, Status>> {
    let action = |name: &str, description: &str| {
        Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
    };
    vec![
        action(CANCEL, "Stops what the tickets of a FlightInfo have started."),
        action(options::SET, "Changes settings of the session."),
        action(options::GET, "Tells the settings of the session."),
        action(options::CLOSE, "Ends the session."),
    ]
}

fn read<M: Message + Default>(body: &[u8]) -> Result<M, Status> {
    M::decode(body).map_err(|e| Status::invalid_argument(format!("the action cannot be read: {e}")))
}

impl Service {
    /// The actions beside those of Flight SQL.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when the action is unknown or cannot be read.
    pub(crate) async fn action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let session = self.sessions.of(&request)?;
        let Action { r#type, body } = request.get_ref();
        let (result, cookie) = match r#type.as_str() {
            CANCEL => {
                let CancelFlightInfoRequest { info } = read(body)?;
                let info =
                    info.ok_or_else(|| Status::invalid_argument("the flight info is missing"))?;
                let status = match self.cancel(&info)? {
                    true => CancelStatus::Cancelled,
                    false => CancelStatus::NotCancellable,
                };
                (CancelFlightInfoResult::new(status).encode_to_vec(), false)
            }
            options::SET => {
                (options::set(&session.session, read(body)?).await.encode_to_vec(), true)
            }
            options::GET => (options::get(&session.session).encode_to_vec(), true),
            options::CLOSE => {
                self.sessions.close(&session);
                (options::CloseResult { status: 1 }.encode_to_vec(), false)
            }
            other => {
                let message = format!("\"{other}\" is not an action of this server");
                return Err(Status::invalid_argument(message));
            }
        };
        let result = arrow_flight::Result { body: result.into() };
        let mut response = Response::new(futures::stream::iter([Ok(result)]).boxed());
        if cookie {
            session.tell(response.metadata_mut());
        }
        Ok(response)
    }
}
