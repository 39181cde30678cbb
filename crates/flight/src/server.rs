//! The server: a port that is bound, the service behind it, a stop that waits.

use std::future::Future;
use std::net::SocketAddr;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use windrow_core::{Error, ErrorKind, Result};
use windrow_runtime::Engine;

use crate::service::Service;

/// How a server is to be.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens; port 0 is any free one.
    pub address: SocketAddr,
}

/// A Flight SQL server whose port is bound: who connects from now on is served once it
/// [runs](Self::run).
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    listener: TcpListener,
}

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// Unavailable when that is not possible.
    pub async fn bind(engine: Engine, config: ServerConfig) -> Result<Self> {
        let listener = TcpListener::bind(config.address).await.map_err(|e| {
            let message = format!("cannot listen on {}: {e}", config.address);
            Error::new(ErrorKind::Unavailable, message).with_source(e)
        })?;
        Ok(Self { engine, listener })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say (our bug).
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener
            .local_addr()
            .map_err(|e| Error::internal("the port has no address").with_source(e))
    }

    /// Serves until `stop` completes, then lets what runs end.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<()> {
        let service = FlightServiceServer::new(Service::new(self.engine));
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(self.listener), stop)
            .await
            .map_err(|e| {
                Error::new(ErrorKind::Unavailable, format!("the server stopped: {e}"))
                    .with_source(e)
            })
    }
}
