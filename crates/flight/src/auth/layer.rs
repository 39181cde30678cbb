//! The layer in front of the service: every call needs an [`Identity`], except the handshake that creates one.
//!
//! [`Identity`]: windrow_server::auth::Identity

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};
use windrow_core::{Error, ErrorKind};
use windrow_server::auth::login::{Authenticator, LoggedIn};

use crate::connection::peer;
use crate::status::to_status;

/// The only call that needs no identity.
const HANDSHAKE: &str = "/arrow.flight.protocol.FlightService/Handshake";

/// A token issued by a handshake, in the extensions of its request.
#[derive(Debug, Clone)]
pub(crate) struct IssuedToken(pub(crate) String);

/// Wraps a service in [`Authenticated`].
#[derive(Debug, Clone)]
pub(crate) struct AuthLayer(pub(crate) Arc<Authenticator>);

impl<S> Layer<S> for AuthLayer {
    type Service = Authenticated<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticated { inner, authenticator: Arc::clone(&self.0) }
    }
}

/// A service that accepts authenticated calls only.
#[derive(Debug, Clone)]
pub(crate) struct Authenticated<S> {
    inner: S,
    authenticator: Arc<Authenticator>,
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The ready service handles this call; a fresh clone waits for the next one.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let authenticator = Arc::clone(&self.authenticator);
        if let Some(peer) = peer(request.extensions()) {
            peer.has_called();
        }
        Box::pin(async move {
            let header = request.headers_mut().remove(AUTHORIZATION);
            let handshake = request.uri().path() == HANDSHAKE;
            if handshake && header.is_none() {
                // User and password may be in its messages.
                return inner.call(request).await;
            }
            let entered = match header.as_ref().map(HeaderValue::to_str).transpose() {
                Ok(header) => authenticator.enter(header).await,
                Err(e) => {
                    let message = "the header \"authorization\" is not text";
                    Err(Error::new(ErrorKind::Unauthenticated, message).with_source(e))
                }
            };
            let LoggedIn { identity, token } = match entered {
                Ok(entered) => entered,
                Err(error) => return Ok(to_status(&error, "").into_http()),
            };
            if let Some(peer) = peer(request.extensions()) {
                peer.is_known();
            }
            request.extensions_mut().insert(identity);
            if let (true, Some(token)) = (handshake, &token) {
                request.extensions_mut().insert(IssuedToken(token.clone()));
            }
            let mut response = inner.call(request).await?;
            if let Some(mut value) =
                token.and_then(|t| HeaderValue::from_str(&format!("Bearer {t}")).ok())
            {
                value.set_sensitive(true);
                response.headers_mut().insert(AUTHORIZATION, value);
            }
            Ok(response)
        })
    }
}
