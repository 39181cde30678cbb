//! A bound port, with the state shared by everything that serves on it, and its shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use windrow_core::{Clock, Error, ErrorKind, Result};
use windrow_engine::{Admission, Engine};

use crate::auth::login::{Authenticator, LoginConfig};
use crate::connection::Connections;
use crate::limits::ServerLimits;
use crate::metrics::Monitor;
use crate::tls::TlsConfig;

/// The time, after the grace period, in which clients get the error that ends their queries, before connections are
/// closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The configuration of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The address to listen on; port 0 is any free one.
    pub address: SocketAddr,
    /// The configuration of logins; without users and tokens no login is needed.
    pub login: LoginConfig,
    /// TLS; `None`: plain text.
    pub tls: Option<TlsConfig>,
    /// Limits on clients.
    pub limits: ServerLimits,
}

impl ServerConfig {
    /// Returns the configuration of a server without logins.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, login: LoginConfig::default(), tls: None, limits: ServerLimits::default() }
    }

    /// Whether clients must authenticate: by login, token or certificate.
    pub fn is_guarded(&self) -> bool {
        self.login.is_needed() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// # Errors
    /// When the server would be open to anyone on a network.
    fn check(&self) -> Result<()> {
        if self.is_guarded() || self.address.ip().is_loopback() {
            return Ok(());
        }
        let message = format!("{} is open to the network, and nobody has to log in", self.address);
        Err(Error::config(message)
            .with_hint("Add --users, --tokens or --tls-client-ca, or listen on 127.0.0.1 only."))
    }
}

/// A bound port: connecting clients are served once a wire takes it.
#[derive(Debug)]
pub struct Listening {
    /// The engine that is served.
    pub engine: Engine,
    /// The configuration.
    pub config: ServerConfig,
    /// The port.
    pub listener: TcpListener,
    /// The authenticator.
    pub door: Arc<Authenticator>,
    /// The limits shared by the statements of all clients.
    pub admission: Arc<Admission>,
    /// The open connections.
    pub connections: Connections,
}

impl Listening {
    /// Binds the port.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when that fails;
    /// [`ErrorKind::Config`] when a file of users, tokens or certificates cannot be
    /// used, or the server would be open to anyone on a network.
    pub async fn bind(engine: Engine, config: ServerConfig) -> Result<Self> {
        config.check()?;
        let admission = Arc::new(Admission::new(config.limits.queries.clone()));
        let door =
            Arc::new(Authenticator::open(&config.login, &engine.clock(), Arc::clone(&admission))?);
        let listener = listen(config.address).await?;
        let max = config.limits.connections_max;
        let per_peer = config.limits.peer_connections_max.unwrap_or(max.div_ceil(2));
        let connections = Connections::new(max, per_peer);
        Ok(Self { engine, config, listener, door, admission, connections })
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

    /// Binds another port of the same server, for another wire: logins, limits and connections are shared.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when that fails; [`ErrorKind::Config`] when it would be open to anyone on a network.
    pub async fn beside(&self, address: SocketAddr) -> Result<Self> {
        let config = ServerConfig { address, ..self.config.clone() };
        config.check()?;
        Ok(Self {
            engine: self.engine.clone(),
            listener: listen(address).await?,
            config,
            door: Arc::clone(&self.door),
            admission: Arc::clone(&self.admission),
            connections: self.connections.clone(),
        })
    }

    /// Returns a monitor of the server, valid while the server exists.
    pub fn monitor(&self) -> Monitor {
        Monitor {
            engine: self.engine.clone(),
            door: Arc::clone(&self.door),
            admission: Arc::clone(&self.admission),
            connections: self.connections.clone(),
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        let message = format!("cannot listen on {address}: {e}");
        Error::new(ErrorKind::Unavailable, message).with_source(e)
    })
}

/// Completes when a stopping server has no time left: queries may continue for `grace` after [`Admission::stop`], then
/// they end with an error, which clients have some time to receive.
pub async fn out_of_time(admission: &Admission, clock: &dyn Clock, grace: Duration) {
    admission.stopping().await;
    clock.sleep(grace).await;
    admission.end();
    clock.sleep(LAST_WORDS).await;
}
