//! The call `Handshake`: exchanges user and password, in the header (then the layer has authenticated them) or in the
//! first message, for a token.

use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::{BasicAuth, HandshakeRequest, HandshakeResponse};
use bytes::Bytes;
use futures::Stream;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use windrow_core::{Error, ErrorKind};
use windrow_server::auth::login::Authenticator;

use super::layer::IssuedToken;
use crate::status::to_status;

/// The token returned where none is needed: clients expect one.
const NO_TOKEN: &str = "none";

/// The response of `Handshake`.
pub(crate) type HandshakeStream =
    Pin<Box<dyn Stream<Item = Result<HandshakeResponse, Status>> + Send>>;

/// Performs a handshake.
///
/// # Errors
/// When user or password is wrong or missing.
pub(crate) async fn handshake(
    door: &Arc<Authenticator>,
    request: Request<Streaming<HandshakeRequest>>,
) -> Result<Response<HandshakeStream>, Status> {
    let given = request.extensions().get::<IssuedToken>().cloned();
    let (token, version) = match given {
        Some(IssuedToken(token)) => (token, 0),
        None => in_message(door, request.into_inner()).await?,
    };
    let payload = Bytes::from(token.clone());
    let answer = HandshakeResponse { protocol_version: version, payload };
    let answer: HandshakeStream = Box::pin(futures::stream::once(async { Ok(answer) }));
    let mut response = Response::new(answer);
    // Clients look for it either here or in the message.
    if let Ok(value) = MetadataValue::try_from(format!("Bearer {token}")) {
        response.metadata_mut().insert("authorization", value);
    }
    Ok(response)
}

async fn in_message(
    door: &Arc<Authenticator>,
    mut messages: Streaming<HandshakeRequest>,
) -> Result<(String, u64), Status> {
    let first = messages.message().await?.unwrap_or_default();
    if first.payload.is_empty() {
        // Succeeds where no login is needed.
        let entered = door.enter(None).await.map_err(|e| to_status(&e, ""))?;
        return Ok((entered.token.unwrap_or_else(|| NO_TOKEN.to_owned()), first.protocol_version));
    }
    let auth = BasicAuth::decode(first.payload).map_err(|e| {
        let message = "the message of the handshake holds no user and password";
        to_status(&Error::new(ErrorKind::Unauthenticated, message).with_source(e), "")
    })?;
    let entered = door.login(&auth.username, auth.password).await.map_err(|e| to_status(&e, ""))?;
    Ok((entered.token.unwrap_or_else(|| NO_TOKEN.to_owned()), first.protocol_version))
}
