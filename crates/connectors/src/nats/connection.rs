//! Connections to a NATS server: where it is, the login, and what becomes of a connection.
//!
//! Invariant: no secret reaches an error or a log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use tokio::sync::{Mutex, watch};
use windrow_core::{Error, ErrorKind, Result};

use crate::ConnectorEnv;
use crate::broker::confine::confine_servers;
use crate::broker::health::{Backoff, Health};
use crate::causes::with_causes;
use crate::options::{StreamOptions, bad_value};
use crate::tls::client_config;

/// How long a server may take to accept a connection, and to answer a request.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a server is reached.
#[derive(Clone)]
pub(super) struct ServerOptions {
    servers: Vec<ServerAddr>,
    login: Login,
    tls_ca: Option<PathBuf>,
}

#[derive(Clone)]
enum Login {
    Nobody,
    User(String, String),
    Token(String),
    /// A file.
    Credentials(PathBuf),
}

/// Hides the login.
impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions").field("servers", &self.shown()).finish_non_exhaustive()
    }
}

impl ServerOptions {
    /// Parses the options.
    ///
    /// # Errors
    /// For addresses that are none, and for logins that do not fit together.
    pub(super) fn read(servers: &str, options: &StreamOptions<'_>) -> Result<Self> {
        // The text may have a password.
        let wrong = |why: &str| {
            Error::config(format!("option \"servers\" {why}"))
                .with_hint("Write servers = 'host:4222', with commas between several.")
        };
        let mut addresses = vec![];
        for server in servers.split(',').map(str::trim) {
            let address: ServerAddr = match server.is_empty() {
                true => return Err(wrong("has no address")),
                false => server.parse().map_err(|_| wrong("has an invalid address"))?,
            };
            if address.username().is_some() || address.password().is_some() {
                return Err(wrong("has a login in an address")
                    .with_hint("Give it by the options user and password, or token."));
            }
            if !matches!(address.scheme(), "nats" | "tls") {
                return Err(wrong("has an address that begins with neither nats:// nor tls://"));
            }
            addresses.push(address);
        }
        let text = |name| options.get(name).map(str::to_owned);
        let login = match (text("user"), text("password"), text("token"), text("credentials")) {
            (None, None, None, None) => Login::Nobody,
            (Some(user), Some(password), None, None) => Login::User(user, password),
            (None, None, Some(token), None) => Login::Token(token),
            (None, None, None, Some(file)) => Login::Credentials(file.into()),
            (Some(_), None, None, None) => {
                return Err(Error::config("option \"user\" needs the option \"password\""));
            }
            (None, Some(_), None, None) => {
                return Err(Error::config("option \"password\" needs the option \"user\""));
            }
            _ => {
                return Err(Error::config("a login is given in more than one way")
                    .with_hint("Give user and password, or token, or credentials."));
            }
        };
        let tls_ca = options.get("tls_ca").map(PathBuf::from);
        if tls_ca.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            return Err(bad_value("tls_ca", "", "a file"));
        }
        Ok(Self { servers: addresses, login, tls_ca })
    }

    /// Checks that the user may use the servers and read the files, whose names are resolved. `name`: a stream, or empty for any
    /// subject.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] when a remote user may not.
    pub(super) fn confined(&self, name: &str, env: &ConnectorEnv) -> Result<Self> {
        let places: Vec<String> = self.servers.iter().map(shown).collect();
        confine_servers("nats", &places, &[name.to_owned()], env)?;
        let resolved = |path: &PathBuf| -> Result<PathBuf> {
            Ok(env.files.to_read(&path.to_string_lossy())?.into())
        };
        let mut confined = self.clone();
        if let Login::Credentials(file) = &self.login {
            confined.login = Login::Credentials(resolved(file)?);
        }
        confined.tls_ca = self.tls_ca.as_ref().map(resolved).transpose()?;
        Ok(confined)
    }

    /// The addresses.
    pub(super) fn shown(&self) -> String {
        self.servers.iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    /// Connects. Afterwards the client connects again by itself.
    async fn connect(&self, health: &Arc<Health>, lost: watch::Sender<u64>) -> Result<Client> {
        let health = Arc::clone(health);
        let mut options = ConnectOptions::new()
            .name("windrow")
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .reconnect_delay_callback(|attempts| {
                let mut backoff = Backoff::default();
                (0..attempts.min(8)).fold(Duration::ZERO, |_, _| backoff.next_pause())
            })
            .event_callback(move |event| {
                match &event {
                    Event::Disconnected | Event::Closed => lost.send_modify(|times| *times += 1),
                    Event::ServerError(_) | Event::ClientError(_) | Event::SlowConsumer(_) => {
                        health.note(&event.to_string());
                    }
                    _ => tracing::debug!("nats: {event}"),
                }
                std::future::ready(())
            });
        options = match &self.login {
            Login::Nobody => options,
            Login::User(user, password) => {
                options.user_and_password(user.clone(), password.clone())
            }
            Login::Token(token) => options.token(token.clone()),
            Login::Credentials(file) => options.credentials_file(file).await.map_err(|why| {
                let file = file.display();
                Error::config(format!("option \"credentials\": \"{file}\" cannot be used: {why}"))
            })?,
        };
        if self.tls_ca.is_some() || self.servers.iter().any(ServerAddr::tls_required) {
            let file = self.tls_ca.clone();
            let config =
                tokio::task::spawn_blocking(move || client_config("tls_ca", file.as_deref()))
                    .await
                    .map_err(|end| {
                        Error::internal("reading certificates ended").with_source(end)
                    })??;
            options = options.tls_client_config(config).require_tls(true);
        }
        let connected = options.connect(self.servers.clone()).await;
        connected.map_err(|error| self.away(&with_causes(&error)))
    }

    /// The error of servers that do not answer.
    pub(super) fn away(&self, why: &str) -> Error {
        let message = format!("server \"{}\" does not answer: {why}", self.shown());
        Error::new(ErrorKind::Unavailable, message)
            .with_hint("Check servers, and user, token or credentials if it needs a login.")
    }
}

fn shown(address: &ServerAddr) -> String {
    format!("{}:{}", address.host(), address.port())
}

/// A connection that is made when it is needed.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) server: ServerOptions,
    health: Arc<Health>,
    client: Mutex<Option<Client>>,
    /// How often it was lost.
    lost: watch::Sender<u64>,
}

impl Connection {
    /// Returns a connection that is not made yet. Errors that are not of a request are noted in `health`.
    pub(super) fn new(server: ServerOptions, health: Arc<Health>) -> Self {
        let lost = watch::Sender::new(0);
        Self { server, health, client: Mutex::default(), lost }
    }

    /// Returns the client.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(super) async fn client(&self) -> Result<Client> {
        let mut client = self.client.lock().await;
        match &*client {
            Some(client) => Ok(client.clone()),
            None => {
                let made = self.server.connect(&self.health, self.lost.clone()).await?;
                Ok(client.insert(made).clone())
            }
        }
    }

    /// Returns JetStream.
    ///
    /// # Errors
    /// When the server does not answer.
    pub(super) async fn jetstream(&self) -> Result<Context> {
        self.client().await.map(jetstream::new)
    }

    /// Notifies when the connection is lost.
    pub(super) fn losses(&self) -> watch::Receiver<u64> {
        self.lost.subscribe()
    }

    /// Ends the connection.
    pub(super) async fn close(&self) {
        if let Some(client) = self.client.lock().await.take() {
            // Nothing waits for it: what was sent is acknowledged or sent again.
            drop(client.drain().await);
        }
    }
}
