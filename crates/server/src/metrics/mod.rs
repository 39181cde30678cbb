//! The monitoring port: `/metrics` for Prometheus, `/healthz` and `/readyz` for whatever starts and stops servers. It
//! needs no login; it reports names and numbers, no rows.

mod text;

use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use windrow_core::{Error, ErrorKind, Result};
use windrow_engine::{Admission, Engine};

use crate::auth::login::Authenticator;
use crate::connection::Connections;

/// The format of `/metrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A view of the state of a server, for monitoring.
#[derive(Debug, Clone)]
pub struct Monitor {
    pub(crate) engine: Engine,
    pub(crate) door: Arc<Authenticator>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) connections: Connections,
}

impl Monitor {
    /// Returns why the server is not ready, a line for each reason; empty when it is ready.
    pub fn not_ready(&self) -> Vec<String> {
        let mut why = vec![];
        if self.admission.is_stopping() {
            why.push("the server is stopping".to_owned());
        }
        let health = self.engine.health();
        for query in health.queries.iter().filter(|q| q.failed) {
            why.push(format!("view \"{}\" has failed", query.name));
        }
        for log in &health.logs {
            if let Some(error) = &log.archive_error {
                why.push(format!("\"{}\" cannot be archived: {error}", log.name));
            }
        }
        why
    }
}

/// The monitoring port, bound.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    monitor: Monitor,
}

impl MetricsServer {
    /// Binds the port.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when that fails.
    pub async fn bind(address: SocketAddr, monitor: Monitor) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|e| {
            let message = format!("cannot listen on {address}: {e}");
            Error::new(ErrorKind::Unavailable, message)
                .with_hint("--metrics names another port; port 0 is any free one.")
                .with_source(e)
        })?;
        Ok(Self { listener, monitor })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the system does not report it (a bug in Windrow).
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener
            .local_addr()
            .map_err(|e| Error::internal("the port has no address").with_source(e))
    }

    /// Serves until the future is dropped.
    ///
    /// # Errors
    /// When the transport fails.
    pub fn run(self) -> impl Future<Output = Result<()>> + Send {
        let routes = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(self.monitor);
        let served = axum::serve(self.listener, routes).into_future();
        async {
            served.await.map_err(|e| {
                let message = format!("the monitoring port stopped: {e}");
                Error::new(ErrorKind::Unavailable, message).with_source(e)
            })
        }
    }
}

async fn metrics(State(monitor): State<Monitor>) -> Response {
    // Lists of files may be long: render off the threads that serve.
    match tokio::task::spawn_blocking(move || text::render(monitor)).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn ready(State(monitor): State<Monitor>) -> Response {
    let why = monitor.not_ready();
    if why.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, why.join("\n") + "\n").into_response()
}
