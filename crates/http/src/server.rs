//! The server: HTTP/1.1 on a bound port, its routes, a graceful shutdown.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use windrow_core::{Error, ErrorKind, Result};
use windrow_server::session::Sessions;
use windrow_server::{Listening, out_of_time};

use crate::answer::not_found;
use crate::body::Bodies;
use crate::listener::{Accepted, Caller, acceptor};
use crate::push::{Shared, push};

/// An HTTP server with a bound port: connecting clients are served once it [runs](Self::run).
#[derive(Debug)]
pub struct HttpServer(Listening);

impl HttpServer {
    /// Serves HTTP on a port.
    pub fn new(listening: Listening) -> Self {
        Self(listening)
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the system does not report it (a bug in Windrow).
    pub fn address(&self) -> Result<SocketAddr> {
        self.0.address()
    }

    /// Serves until [`Admission::stop`](windrow_engine::Admission::stop). Then no connections are accepted, and requests may continue for the grace
    /// period.
    ///
    /// # Errors
    /// When the TLS files cannot be used, or the transport fails.
    pub async fn run(self) -> Result<()> {
        let Listening { engine, config, listener, door, admission, connections } = self.0;
        let (limits, clock) = (&config.limits, engine.clock());
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let patience = limits.handshake_time_max;
        let incoming = connections.incoming(listener, Arc::clone(&clock), patience);
        let accepted = Accepted::new(incoming, tls, Arc::clone(&clock), patience);
        let shared = Shared {
            door,
            sessions: Sessions::new(engine),
            bodies: Bodies::new(limits.message_bytes_max, Arc::clone(&clock)),
        };
        let routes = Router::new()
            .route("/v1/streams/{name}", post(push))
            .fallback(not_found)
            // `Bodies` has a limit of its own.
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::new(shared));
        let stopping = Arc::clone(&admission);
        let serving = axum::serve(accepted, routes.into_make_service_with_connect_info::<Caller>())
            .with_graceful_shutdown(async move { stopping.stopping().await });
        tokio::select! {
            served = serving => served.map_err(|e| {
                let message = format!("the HTTP port stopped: {e}");
                Error::new(ErrorKind::Unavailable, message).with_source(e)
            }),
            () = out_of_time(&admission, &*clock, limits.grace) => Ok(()),
        }
    }
}
