//! Connections to a Redis server: where it is, and the login.
//!
//! Invariant: no secret reaches an error or a log.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisConnectionInfo, RedisError};
use windrow_core::{Error, ErrorKind, Result};

use crate::ConnectorEnv;
use crate::broker::confine::confine_servers;
use crate::causes::with_causes;
use crate::options::{StreamOptions, bad_value};

/// How long a server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a server is reached.
#[derive(Clone)]
pub(super) struct ServerOptions {
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<String>,
    database: u32,
}

/// Hides the login.
impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions").field("server", &self.shown()).finish_non_exhaustive()
    }
}

impl ServerOptions {
    /// Parses the options.
    ///
    /// # Errors
    /// For an invalid address, and for an incomplete login.
    pub(super) fn read(server: &str, options: &StreamOptions<'_>) -> Result<Self> {
        // The text may have a password.
        let wrong = || {
            Error::config("option \"server\" is not an address")
                .with_hint("Write server = 'host:6379'; the login goes into user and password.")
        };
        let (host, port) = server.trim().rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(['/', '@', ' ', ',']) {
            return Err(wrong());
        }
        let text = |name| options.get(name).map(str::to_owned);
        let (user, password) = (text("user"), text("password"));
        if user.is_some() && password.is_none() {
            return Err(Error::config("option \"user\" needs the option \"password\""));
        }
        if password.as_ref().is_some_and(String::is_empty) {
            return Err(Error::config("option \"password\" is empty"));
        }
        let database = options.number::<u32>("database")?.unwrap_or(0);
        if database > 1_000_000 {
            return Err(bad_value("database", &database.to_string(), "the number of a database"));
        }
        Ok(Self { host: host.to_owned(), port, user, password, database })
    }

    /// Checks that the user may use the server. `streams`: an empty name for any.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] when a remote user may not.
    pub(super) fn confined(&self, streams: &[String], env: &ConnectorEnv) -> Result<()> {
        confine_servers("redis", &[self.shown()], streams, env)
    }

    /// The address.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Connects.
    ///
    /// # Errors
    /// When the server does not answer, or refuses the login.
    pub(super) async fn connect(&self, timeout: Duration) -> Result<MultiplexedConnection> {
        let mut login = RedisConnectionInfo::default().set_db(self.database.into());
        if let Some(user) = &self.user {
            login = login.set_username(user);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        let address = (self.host.as_str(), self.port).into_connection_info();
        let info = address.map_err(|error| self.away(&error))?.set_redis_settings(login);
        let client = Client::open(info).map_err(|error| self.away(&error))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(timeout));
        let connected = client.get_multiplexed_async_connection_with_config(&config).await;
        connected.map_err(|error| self.away(&error))
    }

    /// The error of a server that does not answer, or answers with an error that may pass.
    pub(super) fn away(&self, error: &RedisError) -> Error {
        let why = with_causes(error);
        let is_refused = error.kind() == redis::ErrorKind::AuthenticationFailed
            || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
        if is_refused {
            let message = format!("server \"{}\" refuses the login: {why}", self.shown());
            return Error::new(ErrorKind::Denied, message)
                .with_hint("Check user and password, and the rights of the user to the stream.");
        }
        let message = format!("server \"{}\" does not answer: {why}", self.shown());
        Error::new(ErrorKind::Unavailable, message)
            .with_hint("Check server, and user and password if it needs a login.")
    }
}
