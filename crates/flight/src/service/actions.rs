//! Actions beyond those of Flight SQL: cancellation by FlightInfo, and session settings.

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus,
};
use futures::StreamExt;
use prost::Message;
use tonic::{Request, Response, Status};

use super::Service;
use crate::session::{self, options};

/// The action that cancels an execution.
const CANCEL: &str = "CancelFlightInfo";

/// Lists the actions beyond those of Flight SQL.
pub(super) fn actions() -> Vec<Result<ActionType, Status>> {
    let action = |name: &str, description: &str| {
        Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() })
    };
    vec![
        action(CANCEL, "Cancels the executions started with the tickets of a FlightInfo."),
        action(options::SET, "Changes settings of the session."),
        action(options::GET, "Returns the settings of the session."),
        action(options::CLOSE, "Ends the session."),
    ]
}

fn read<M: Message + Default>(body: &[u8]) -> Result<M, Status> {
    M::decode(body).map_err(|e| Status::invalid_argument(format!("the action cannot be read: {e}")))
}

impl Service {
    /// Performs an action beyond those of Flight SQL.
    ///
    /// # Errors
    /// INVALID_ARGUMENT when the action is unknown or cannot be decoded.
    pub(super) async fn action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let session = self.session_of(&request)?;
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
            session::tell(&session, response.metadata_mut());
        }
        Ok(response)
    }
}
