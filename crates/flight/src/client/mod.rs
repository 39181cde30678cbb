//! The Flight SQL client of the `windrow` command: statements as text, rows with the metadata that the server sends
//! beside them, errors reconstructed as they were raised.

mod rows;
mod target;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::Schema;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightData, FlightDescriptor, FlightInfo, HandshakeRequest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use prost::Message;
use serde::Deserialize;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status, Streaming};
use windrow_core::{Error, ErrorKind, Result};

pub use self::rows::{Position, RemoteRows};
pub use self::target::Target;
use crate::rows::HEARTBEAT_HEADER;
use crate::status::from_status;

/// How long connecting to a server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent connection is probed, and how long a probe may take.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How often, in ms, a continuous query reports its progress: people watch it.
const HEARTBEAT_MS: u64 = 500;
/// Bytes of one message at most; servers send rows in pieces of some MiB.
const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Cookies stored per server at most.
const COOKIES_MAX: usize = 16;

/// How to reach a server and log in.
#[derive(Clone)]
pub struct ClientConfig {
    /// The server, and the user.
    pub target: Target,
    /// A token instead of user and password.
    pub token: Option<String>,
    /// The certificate authority to trust, in PEM; `None`: those of the system.
    pub tls_ca: Option<PathBuf>,
    /// The client's own certificate and key, in PEM.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").field("target", &self.target).finish_non_exhaustive()
    }
}

/// The result of a statement.
#[derive(Debug)]
pub enum Reply {
    /// Rows, now or as windows close.
    Rows(Box<RemoteRows>),
    /// The statement is done; a summary for people.
    Done(String),
}

/// Metadata that a server sends for a statement without rows.
#[derive(Deserialize)]
struct StatementDone {
    done: String,
}

/// A connection to a server. Cheap to clone; the clones share the session. After the server has been unreachable, the
/// next statement reconnects.
#[derive(Debug, Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    flight: FlightServiceClient<Channel>,
    session: Arc<Mutex<Session>>,
}

/// State sent with every call.
#[derive(Default)]
struct Session {
    authorization: Option<AsciiMetadataValue>,
    /// `name=value`.
    cookies: Vec<(String, String)>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Client {
    /// Connects, and logs in where there is a user.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the server does not respond, [`ErrorKind::Unauthenticated`] when it rejects the
    /// login, [`ErrorKind::Config`] when a certificate cannot be used.
    pub async fn connect(config: ClientConfig) -> Result<Self> {
        let channel = endpoint(&config)?.connect().await.map_err(|e| unreachable(&config, &e))?;
        let flight = FlightServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let client = Self { config: Arc::new(config), flight, session: Arc::default() };
        client.log_in().await?;
        Ok(client)
    }

    /// The server, for messages.
    pub fn target(&self) -> &Target {
        &self.config.target
    }

    /// Executes a statement. Dropping the future, or the returned rows, cancels it.
    ///
    /// # Errors
    /// Those of the server, with places in `sql`; [`ErrorKind::Unavailable`] when it does not respond.
    pub async fn execute(&self, sql: &str) -> Result<Reply> {
        let info = self.info(sql).await?;
        if !has_rows(&info) {
            return self.done(info).await;
        }
        Ok(Reply::Rows(Box::new(self.rows(info).await?)))
    }

    /// Requests the info of a statement; a statement without rows is executed by this.
    async fn info(&self, sql: &str) -> Result<FlightInfo> {
        let query = CommandStatementQuery { query: sql.to_owned(), transaction_id: None };
        let command = query.as_any().encode_to_vec();
        self.call(|mut flight, headers| {
            let descriptor = FlightDescriptor::new_cmd(command.clone());
            async move { flight.get_flight_info(with(headers, descriptor)).await }
        })
        .await
    }

    async fn rows(&self, info: FlightInfo) -> Result<RemoteRows> {
        let data = self.fetch(&info).await?;
        let schema = info.try_decode_schema()?;
        Ok(RemoteRows::new(Arc::new(schema), data))
    }

    /// Returns the result of a statement without rows, which was executed by requesting its info.
    async fn done(&self, info: FlightInfo) -> Result<Reply> {
        let mut data = self.fetch(&info).await?;
        let mut reply = Reply::Done("OK".to_owned());
        while let Some(message) = data.message().await.map_err(|status| self.error(&status))? {
            if let Ok(StatementDone { done }) = serde_json::from_slice(&message.app_metadata) {
                reply = Reply::Done(done);
            }
        }
        Ok(reply)
    }

    /// Requests the messages of a statement.
    async fn fetch(&self, info: &FlightInfo) -> Result<Streaming<FlightData>> {
        let ticket = info.endpoint.first().and_then(|endpoint| endpoint.ticket.clone());
        let ticket = ticket
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "the server returned no ticket"))?;
        self.call(|mut flight, mut headers| {
            let ticket = ticket.clone();
            headers.insert(HEARTBEAT_HEADER, AsciiMetadataValue::from(HEARTBEAT_MS));
            async move { flight.do_get(with(headers, ticket)).await }
        })
        .await
    }

    /// Makes a call; an expired login is renewed once.
    async fn call<T, F>(
        &self,
        make: impl Fn(FlightServiceClient<Channel>, MetadataMap) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut done = make(self.flight.clone(), self.headers()).await;
        let ended = done.as_ref().err().is_some_and(|s| s.code() == Code::Unauthenticated);
        if ended && self.config.target.user.is_some() && self.config.token.is_none() {
            self.log_in().await?;
            done = make(self.flight.clone(), self.headers()).await;
        }
        let response = done.map_err(|status| self.error(&status))?;
        self.keep_cookies(response.metadata());
        Ok(response.into_inner())
    }

    /// Logs in with user and password, or takes the token.
    async fn log_in(&self) -> Result<()> {
        if let Some(token) = &self.config.token {
            self.session.lock().authorization = Some(secret(&format!("Bearer {token}"))?);
            return Ok(());
        }
        let Some(user) = &self.config.target.user else { return Ok(()) };
        let password = self.config.target.password.as_deref().unwrap_or_default();
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let mut headers = MetadataMap::new();
        headers.insert("authorization", secret(&basic)?);
        let hello = futures::stream::iter([HandshakeRequest::default()]);
        let answer = self.flight.clone().handshake(with(headers, hello)).await;
        let answer = answer.map_err(|status| self.error(&status))?;
        let bearer = answer.metadata().get("authorization").cloned();
        self.keep_cookies(answer.metadata());
        // Dropping the rest of the answer ends the call; what matters is in its headers.
        drop(answer);
        let mut bearer = bearer.ok_or_else(|| {
            Error::new(
                ErrorKind::Unauthenticated,
                "the server accepted the login and returned no token",
            )
        })?;
        bearer.set_sensitive(true);
        self.session.lock().authorization = Some(bearer);
        Ok(())
    }

    /// Returns the headers of a call.
    fn headers(&self) -> MetadataMap {
        let session = self.session.lock();
        let mut headers = MetadataMap::new();
        if let Some(authorization) = &session.authorization {
            headers.insert("authorization", authorization.clone());
        }
        let cookies: Vec<String> =
            session.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if let Ok(cookies) = AsciiMetadataValue::try_from(cookies.join("; "))
            && !session.cookies.is_empty()
        {
            headers.insert("cookie", cookies);
        }
        headers
    }

    /// Stores the cookies by which the server identifies the session.
    fn keep_cookies(&self, metadata: &MetadataMap) {
        let mut session = self.session.lock();
        for cookie in metadata.get_all("set-cookie").iter().filter_map(|c| c.to_str().ok()) {
            let pair = cookie.split(';').next().unwrap_or_default();
            let Some((name, value)) = pair.split_once('=') else { continue };
            let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
            session.cookies.retain(|(known, _)| *known != name);
            if session.cookies.len() < COOKIES_MAX {
                session.cookies.push((name, value));
            }
        }
    }

    /// Converts a status of the server, or of the connection, to an error.
    fn error(&self, status: &Status) -> Error {
        match std::error::Error::source(status) {
            // The connection itself broke, or does not exist: the status is not from a server.
            Some(source) => unreachable(&self.config, source),
            None => from_status(status),
        }
    }
}

/// Builds a request with headers.
fn with<T>(headers: MetadataMap, message: T) -> Request<T> {
    let mut request = Request::new(message);
    *request.metadata_mut() = headers;
    request
}

/// Builds a header that is not to be shown.
fn secret(text: &str) -> Result<AsciiMetadataValue> {
    let mut value = AsciiMetadataValue::try_from(text).map_err(|_| {
        Error::config("the token has characters that cannot be sent")
            .with_hint("A token is one line of printable ASCII characters.")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a statement returns rows.
fn has_rows(info: &FlightInfo) -> bool {
    !info.schema.is_empty()
        && info.clone().try_decode_schema().is_ok_and(|schema: Schema| !schema.fields().is_empty())
}

fn endpoint(config: &ClientConfig) -> Result<Endpoint> {
    let target = &config.target;
    let scheme = if target.tls { "https" } else { "http" };
    let wrong = |e: tonic::transport::Error| {
        Error::config(format!("cannot connect to {target}: {}", innermost(&e)))
    };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{}", target.authority))
        .map_err(wrong)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    if !target.tls {
        if config.tls_ca.is_some() || config.tls_identity.is_some() {
            return Err(Error::config("certificates need an encrypted connection")
                .with_hint("Write grpc+tls:// instead of grpc://."));
        }
        return Ok(endpoint);
    }
    let mut tls = ClientTlsConfig::new().domain_name(&target.host);
    tls = match &config.tls_ca {
        Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
        None => tls.ca_certificates(trusted()),
    };
    if let Some((certificate, key)) = &config.tls_identity {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    endpoint.tls_config(tls).map_err(wrong)
}

/// The certificate authorities that the system trusts.
fn trusted() -> Vec<Certificate> {
    let pem = |der: &[u8]| {
        let text = BASE64_STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    let found = rustls_native_certs::load_native_certs();
    found.certs.iter().map(|der| Certificate::from_pem(pem(der))).collect()
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Error::config(format!("cannot read \"{}\": {e}", path.display())).with_source(e)
    })
}

/// Returns the error for a server that does not respond.
fn unreachable(config: &ClientConfig, cause: &(dyn std::error::Error + 'static)) -> Error {
    let target = &config.target;
    Error::new(
        ErrorKind::Unavailable,
        format!("the server at {target} does not answer: {}", innermost(cause)),
    )
    .with_hint("Is it running (windrow serve), and are address and certificates right?")
}

/// Returns the innermost cause of an error: the outer ones say "transport error".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
