//! The server: gRPC on a bound port, the layers and the service behind it, a graceful shutdown.
//!
//! ```text
//! connections ─► TLS ─► HTTP/2 ─► AuthLayer ─► Service ─► Session ─► Engine
//! ```

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::TryStreamExt;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use windrow_core::{Error, ErrorKind, Result};
use windrow_engine::Engine;
use windrow_server::{Listening, Monitor, Pem, ServerConfig, out_of_time};

use crate::auth::layer::AuthLayer;
use crate::connection::Wired;
use crate::route::Route;
use crate::service::Service;
use crate::unwound::CatchLayer;

/// A Flight SQL server with a bound port: connecting clients are served once it [runs](Self::run).
#[derive(Debug)]
pub struct Server(Listening);

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// As [`Listening::bind`].
    pub async fn bind(engine: Engine, config: ServerConfig) -> Result<Self> {
        Listening::bind(engine, config).await.map(Self)
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// When the system does not report it (a bug in Windrow).
    pub fn address(&self) -> Result<SocketAddr> {
        self.0.address()
    }

    /// The port, beside which other wires may be served.
    pub fn listening(&self) -> &Listening {
        &self.0
    }

    /// Returns a monitor of the server, valid while the server exists.
    pub fn monitor(&self) -> Monitor {
        self.0.monitor()
    }

    /// Serves until `stop` completes. Then no connections are accepted, continuous results end with a status that asks
    /// clients to reconnect, and queries may continue for the grace period.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<()> {
        let Listening { engine, config, listener, door, admission, connections } = self.0;
        let limits = &config.limits;
        let clock = engine.clock();
        let mut server = tonic::transport::Server::builder()
            .max_concurrent_streams(limits.calls_max)
            .http2_keepalive_interval(Some(limits.keepalive))
            .http2_keepalive_timeout(Some(limits.keepalive))
            .http2_max_header_list_size(limits.header_bytes_max)
            .http2_adaptive_window(Some(true));
        let patience = limits.handshake_time_max;
        if let Some(tls) = &config.tls {
            let of_tonic = tls_config(tls.read()?).timeout(patience);
            server = server.tls_config(of_tonic).map_err(|e| tls.unusable(e))?;
        }
        let incoming = connections.incoming(listener, Arc::clone(&clock), patience).map_ok(Wired);
        let service = Service::new(engine, Arc::clone(&door));
        let service = FlightServiceServer::new(Route(service))
            .max_decoding_message_size(limits.message_bytes_max)
            .max_encoding_message_size(usize::MAX);
        let serving = server
            .layer(CatchLayer)
            .layer(AuthLayer(door))
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async {
                stop.await;
                admission.stop();
            });
        tokio::select! {
            served = serving => served.map_err(|e| {
                Error::new(ErrorKind::Unavailable, format!("the server stopped: {e}"))
                    .with_source(e)
            }),
            () = out_of_time(&admission, &*clock, limits.grace) => Ok(()),
        }
    }
}

/// Converts the TLS configuration to tonic's.
fn tls_config(Pem { cert, key, client_ca }: Pem) -> ServerTlsConfig {
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
    match client_ca {
        Some(ca) => tls.client_ca_root(Certificate::from_pem(ca)),
        None => tls,
    }
}
