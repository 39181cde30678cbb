//! Connections to an MQTT broker: where it is, the login, and what its refusals mean.
//!
//! Invariant: no secret reaches an error or a log.

use std::path::PathBuf;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, Packet, TlsConfiguration,
    Transport,
};
use windrow_core::{Error, ErrorKind, Result};

use crate::ConnectorEnv;
use crate::broker::confine::confine_servers;
use crate::causes::with_causes;
use crate::options::{StreamOptions, bad_value};
use crate::tls::client_config;

/// How often a silent connection is checked.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The largest message that MQTT has, in bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 268_435_455;
/// Identifiers of messages, and so messages that are not acknowledged.
const IDENTIFIERS: usize = 65_535;
/// Messages that are sent and not acknowledged.
pub(super) const FLIGHT: usize = 100;

/// How a broker is reached.
#[derive(Clone)]
pub(super) struct ServerOptions {
    host: String,
    port: u16,
    is_tls: bool,
    login: Option<(String, String)>,
    tls_ca: Option<PathBuf>,
}

/// Hides the login.
impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions").field("server", &self.shown()).finish_non_exhaustive()
    }
}

/// A connection that the broker has accepted.
pub(super) struct Connected {
    pub(super) client: AsyncClient,
    pub(super) events: EventLoop,
    /// Whether the broker has the session of an earlier connection.
    pub(super) has_session: bool,
}

impl ServerOptions {
    /// Parses the options.
    ///
    /// # Errors
    /// For an invalid address, and for an incomplete login.
    pub(super) fn read(server: &str, options: &StreamOptions<'_>) -> Result<Self> {
        // The text may have a password.
        let wrong = || {
            Error::config("option \"server\" is not an address").with_hint(
                "Write server = 'host:1883', or 'mqtts://host:8883' for TLS; the login goes into user and password.",
            )
        };
        let (scheme, address) = match server.trim().split_once("://") {
            Some((scheme, address)) => (Some(scheme.to_ascii_lowercase()), address),
            None => (None, server.trim()),
        };
        let tls_ca = options.get("tls_ca").map(PathBuf::from);
        if tls_ca.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
            return Err(bad_value("tls_ca", "", "a file"));
        }
        let is_tls = match scheme.as_deref() {
            None => tls_ca.is_some(),
            Some("mqtts" | "ssl" | "tls") => true,
            Some("mqtt" | "tcp") if tls_ca.is_none() => false,
            Some(_) => return Err(wrong()),
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (address, if is_tls { 8883 } else { 1883 }),
        };
        let is_bare = !host.starts_with('[') && host.contains(':');
        if host.is_empty() || is_bare || host.contains(['/', '@', ' ', ',']) {
            return Err(wrong());
        }
        let text = |name| options.get(name).map(str::to_owned);
        let login = match (text("user"), text("password")) {
            (None, None) => None,
            (Some(user), password) => Some((user, password.unwrap_or_default())),
            (None, Some(_)) => {
                return Err(Error::config("option \"password\" needs the option \"user\""));
            }
        };
        Ok(Self { host: host.to_owned(), port, is_tls, login, tls_ca })
    }

    /// Checks that the user may use the broker and read the file, whose name is resolved. `topics`: an empty name for any.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] when a remote user may not.
    pub(super) fn confined(&self, topics: &[String], env: &ConnectorEnv) -> Result<Self> {
        confine_servers("mqtt", &[self.shown()], topics, env)?;
        let mut confined = self.clone();
        if let Some(file) = &self.tls_ca {
            confined.tls_ca = Some(env.files.to_read(&file.to_string_lossy())?.into());
        }
        Ok(confined)
    }

    /// The address.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Connects, and waits until the broker has accepted it. `keeps`: whether the session outlives the connection; its messages
    /// are then acknowledged by hand.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the broker does not answer, [`ErrorKind::Denied`] when it refuses the login.
    pub(super) async fn connect(&self, client_id: &str, keeps: bool) -> Result<Connected> {
        let mut options = rumqttc::MqttOptions::new(client_id, &self.host, self.port);
        options
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(!keeps)
            .set_manual_acks(keeps)
            .set_inflight(u16::try_from(FLIGHT).unwrap_or(u16::MAX))
            .set_max_packet_size(MESSAGE_BYTES_MAX + 5, MESSAGE_BYTES_MAX + 5);
        if let Some((user, password)) = &self.login {
            options.set_credentials(user, password);
        }
        if self.is_tls {
            let file = self.tls_ca.clone();
            let config =
                tokio::task::spawn_blocking(move || client_config("tls_ca", file.as_deref()))
                    .await
                    .map_err(|end| {
                        Error::internal("reading certificates ended").with_source(end)
                    })??;
            let config = TlsConfiguration::Rustls(std::sync::Arc::new(config));
            options.set_transport(Transport::tls_with_config(config));
        }
        // There is always room for the acknowledgements of all messages that there can be.
        let (client, mut events) = AsyncClient::new(options, IDENTIFIERS + FLIGHT);
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(accepted))) => {
                Ok(Connected { client, events, has_session: accepted.session_present })
            }
            Ok(_) => Err(self.away("it did not begin with an answer to the connection")),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// The error with which a connection ended.
    pub(super) fn failed(&self, error: &ConnectionError) -> Error {
        let ConnectionError::ConnectionRefused(code) = error else {
            return self.away(&with_causes(error));
        };
        let (kind, why) = match code {
            ConnectReturnCode::BadUserNamePassword => {
                (ErrorKind::Denied, "the user or the password is wrong")
            }
            ConnectReturnCode::NotAuthorized => {
                (ErrorKind::Denied, "the login is missing or wrong, or has no right to connect")
            }
            ConnectReturnCode::BadClientId => (ErrorKind::Denied, "the client_id is not allowed"),
            ConnectReturnCode::RefusedProtocolVersion => {
                (ErrorKind::Denied, "it does not speak MQTT 3.1.1")
            }
            _ => (ErrorKind::Unavailable, "it is not available"),
        };
        Error::new(kind, format!("broker \"{}\" refuses the connection: {why}", self.shown()))
            .with_hint("Check user, password and client_id, and the rights of the user.")
    }

    /// The error of a broker that does not answer.
    pub(super) fn away(&self, why: &str) -> Error {
        let message = format!("broker \"{}\" does not answer: {why}", self.shown());
        Error::new(ErrorKind::Unavailable, message).with_hint(
            "Check server, and that no other client of the broker has the same client_id.",
        )
    }
}
