//! The server: a port that is bound, who may come in, the service behind it, a stop that waits.
//!
//! ```text
//! connections ─► TLS ─► HTTP/2 ─► AuthLayer ─► Service ─► Session ─► Engine
//! ```

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use windrow_core::{Error, ErrorKind, Result};
use windrow_runtime::{Admission, Engine};

use crate::auth::layer::AuthLayer;
use crate::auth::login::{Door, LoginConfig};
use crate::connection::Connections;
use crate::limits::ServerLimits;
use crate::metrics::Monitor;
use crate::route::Route;
use crate::service::Service;
use crate::tls::TlsConfig;
use crate::unwound::CatchLayer;

/// How a server is to be.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens; port 0 is any free one.
    pub address: SocketAddr,
    /// Who may log in; without users and tokens nobody has to.
    pub login: LoginConfig,
    /// TLS; `None`: plain text.
    pub tls: Option<TlsConfig>,
    /// How much clients may take.
    pub limits: ServerLimits,
}

impl ServerConfig {
    /// A server that everybody may use who reaches it.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, login: LoginConfig::default(), tls: None, limits: ServerLimits::default() }
    }

    /// Whether clients have to show who they are: by login, token or certificate.
    pub fn is_guarded(&self) -> bool {
        self.login.is_needed() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// # Errors
    /// When strangers could come in.
    fn check(&self) -> Result<()> {
        if self.is_guarded() || self.address.ip().is_loopback() {
            return Ok(());
        }
        let message = format!("{} is open to the network, and nobody has to log in", self.address);
        Err(Error::config(message)
            .with_hint("Give --users, --tokens or --tls-client-ca, or listen on 127.0.0.1 alone."))
    }
}

/// A Flight SQL server whose port is bound: who connects from now on is served once it
/// [runs](Self::run).
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    config: ServerConfig,
    listener: TcpListener,
    door: Arc<Door>,
    admission: Arc<Admission>,
    connections: Connections,
}

/// After the time of grace clients are told why their queries end; then connections are cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Server {
    /// Binds the port.
    ///
    /// # Errors
    /// Unavailable when that is not possible; a mistake in the configuration when a file of users,
    /// tokens or certificates cannot be used, or strangers could come in.
    pub async fn bind(engine: Engine, config: ServerConfig) -> Result<Self> {
        config.check()?;
        let admission = Arc::new(Admission::new(config.limits.queries.clone()));
        let door = Arc::new(Door::open(&config.login, &engine.clock(), Arc::clone(&admission))?);
        let listener = TcpListener::bind(config.address).await.map_err(|e| {
            let message = format!("cannot listen on {}: {e}", config.address);
            Error::new(ErrorKind::Unavailable, message).with_source(e)
        })?;
        let max = config.limits.connections_max;
        let per_peer = config.limits.peer_connections_max.unwrap_or(max.div_ceil(2));
        let connections = Connections::new(max, per_peer);
        Ok(Self { engine, config, listener, door, admission, connections })
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

    /// What the server does, for monitoring, as long as it is there.
    pub fn monitor(&self) -> Monitor {
        Monitor {
            engine: self.engine.clone(),
            door: Arc::clone(&self.door),
            admission: Arc::clone(&self.admission),
            connections: self.connections.clone(),
        }
    }

    /// Serves until `stop` completes. Then nobody comes in any more, continuous results end with a
    /// status that tells clients to come back, and queries may run on for the time of grace.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<()> {
        let limits = &self.config.limits;
        let clock = self.engine.clock();
        let mut server = tonic::transport::Server::builder()
            .max_concurrent_streams(limits.calls_max)
            .http2_keepalive_interval(Some(limits.keepalive))
            .http2_keepalive_timeout(Some(limits.keepalive))
            .http2_max_header_list_size(limits.header_bytes_max)
            .http2_adaptive_window(Some(true));
        if let Some(tls) = &self.config.tls {
            let read = tls.read(limits.handshake_time_max)?;
            server = server.tls_config(read).map_err(|e| tls.unusable(e))?;
        }
        let patience = limits.handshake_time_max;
        let incoming = self.connections.incoming(self.listener, Arc::clone(&clock), patience);
        let service = Service::new(self.engine, Arc::clone(&self.door));
        let service = FlightServiceServer::new(Route(service))
            .max_decoding_message_size(limits.message_bytes_max)
            .max_encoding_message_size(usize::MAX);
        let admission = self.admission;
        let serving = server
            .layer(CatchLayer)
            .layer(AuthLayer(self.door))
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async {
                stop.await;
                admission.stop();
            });
        let out_of_time = async {
            admission.stopping().await;
            clock.sleep(limits.grace).await;
            admission.end();
            clock.sleep(LAST_WORDS).await;
        };
        tokio::select! {
            served = serving => served.map_err(|e| {
                Error::new(ErrorKind::Unavailable, format!("the server stopped: {e}"))
                    .with_source(e)
            }),
            () = out_of_time => Ok(()),
        }
    }
}
