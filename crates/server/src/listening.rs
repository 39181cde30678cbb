//! A port that is bound, with what everything that serves on it shares; and how it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use windrow_core::{Clock, Error, ErrorKind, Result};
use windrow_engine::{Admission, Engine};

use crate::auth::login::{Door, LoginConfig};
use crate::connection::Connections;
use crate::limits::ServerLimits;
use crate::metrics::Monitor;
use crate::tls::TlsConfig;

/// After the time of grace clients are told why their queries end; then connections are cut.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

/// A bound port: clients that connect from now on are served once a wire takes it.
#[derive(Debug)]
pub struct Listening {
    /// What is served.
    pub engine: Engine,
    /// How.
    pub config: ServerConfig,
    /// The port.
    pub listener: TcpListener,
    /// Who may come in.
    pub door: Arc<Door>,
    /// What statements of all clients share.
    pub admission: Arc<Admission>,
    /// Who is connected.
    pub connections: Connections,
}

impl Listening {
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
}

/// Completes when a server that stops has no time left: queries may run on for `grace` after
/// [`Admission::stop`], then clients are told why they end.
pub async fn out_of_time(admission: &Admission, clock: &dyn Clock, grace: Duration) {
    admission.stopping().await;
    clock.sleep(grace).await;
    admission.end();
    clock.sleep(LAST_WORDS).await;
}
