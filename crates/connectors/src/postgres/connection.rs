//! Connections, and the classification of PostgreSQL's errors for a sink.
//!
//! Invariant: no message contains the password.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use windrow_core::{Clock, Error, ErrorKind, Result};

use super::options::{Encryption, PostgresOptions, Server};
use super::tls::Tls;
use crate::causes::with_causes;

/// A connection, which is closed when it is dropped.
pub(super) struct Connection {
    pub(super) client: Client,
    serving: AbortHandle,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A statement may still be running: its result is not needed.
        self.serving.abort();
    }
}

impl Connection {
    /// Connects and logs in. Must be called on the runtime `io`.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses the login.
    pub(super) async fn open(options: &PostgresOptions, io: &Handle) -> Result<Self> {
        let mut config = Config::new();
        match &options.server {
            Server::Tcp(host, port) => config.host(host).port(*port),
            Server::Socket(dir, port) => config.host_path(dir).port(*port),
        };
        config.user(&options.user).dbname(&options.database).application_name("windrow");
        if let Some(password) = &options.password {
            config.password(password);
        }
        // Both sides notice a dead peer, and the server aborts the transaction of a dead session.
        config
            .connect_timeout(options.timeout)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .tcp_user_timeout(options.timeout)
            .options(
                "-c idle_in_transaction_session_timeout=60s -c lock_timeout=10s -c TimeZone=UTC",
            );
        let server = &options.server;
        let failed = |error: &tokio_postgres::Error| Self::refused(error, server);
        match &options.encryption {
            Encryption::Off => {
                config.ssl_mode(tokio_postgres::config::SslMode::Disable);
                let (client, connection) = config.connect(NoTls).await.map_err(|e| failed(&e))?;
                Ok(Self::serve(client, connection, io))
            }
            Encryption::Verified(certificates) => {
                config.ssl_mode(tokio_postgres::config::SslMode::Require);
                let tls = Tls::new(certificates.as_deref())?;
                let (client, connection) = config.connect(tls).await.map_err(|e| failed(&e))?;
                Ok(Self::serve(client, connection, io))
            }
        }
    }

    fn serve<S, T>(
        client: Client,
        connection: tokio_postgres::Connection<S, T>,
        io: &Handle,
    ) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let serving = io.spawn(async move {
            if let Err(error) = connection.await {
                // Running statements report it too.
                tracing::debug!(%error, "a connection to PostgreSQL has ended");
            }
        });
        Self { client, serving: serving.abort_handle() }
    }

    /// The error of a connection that could not be established.
    fn refused(error: &tokio_postgres::Error, server: &Server) -> Error {
        let why = said(error);
        let refused = Error::new(
            ErrorKind::Unavailable,
            format!("PostgreSQL at \"{server}\" cannot be reached: {why}"),
        );
        if why.contains("does not support TLS") {
            return refused.with_hint(
                "The server has no TLS: sslmode = 'disable' sends rows without encryption, also to others that listen.",
            );
        }
        match error.code() {
            Some(_) => refused.with_hint("Check user, password and database, and pg_hba.conf."),
            None => refused.with_hint("Check host, port and sslmode."),
        }
    }
}

/// Waits for `work`, but not longer than `time`.
///
/// # Errors
/// Those of `work`; [`Unavailable`](ErrorKind::Unavailable) when it takes too long.
pub(super) async fn in_time<T>(
    clock: &Arc<dyn Clock>,
    time: Duration,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = clock.sleep(time) => Err(Error::new(
            ErrorKind::Unavailable,
            format!("{what} takes longer than {} s", time.as_secs_f64()),
        )
        .with_hint("The option timeout says how long it may take.")),
    }
}

/// Returns the text of an error with its causes.
fn said(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let mut text = db.message().to_owned();
        if let Some(detail) = db.detail() {
            text.push_str(&format!(" ({})", detail.trim_end_matches('.')));
        }
        return text;
    }
    with_causes(error)
}

/// Classifies an error of a statement: a refused row, an unavailable destination, or an error that needs the user.
pub(super) fn judged(error: &tokio_postgres::Error, options: &PostgresOptions) -> Error {
    let table = options.shown_table();
    let Some(code) = error.code() else {
        let message = format!("the connection to \"{}\" is lost: {}", options.server, said(error));
        return Error::new(ErrorKind::Unavailable, message);
    };
    let why = format!("{} (SQLSTATE {})", said(error), code.code());
    let class = code.code().get(..2).unwrap_or_default();
    match class {
        "22" | "23" | "44" | "54" | "P0" => {
            Error::data(format!("table \"{table}\" refuses a row: {why}"))
        }
        "08" | "25" | "40" | "53" | "55" | "57" | "58" => {
            Error::new(ErrorKind::Unavailable, format!("\"{table}\" cannot be written: {why}"))
        }
        "42" if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
            Error::config(format!("user \"{}\" may not write to \"{table}\": {why}", options.user))
                .with_hint("Grant SELECT, INSERT and UPDATE on the table and on windrow_sinks.")
        }
        _ => Error::config(format!("\"{table}\" cannot be written: {why}")),
    }
}

/// Returns the refused row of a COPY, counted from 0, if PostgreSQL names it.
pub(super) fn refused_row(error: &tokio_postgres::Error) -> Option<u64> {
    let place = error.as_db_error()?.where_()?;
    let line = place.lines().find(|line| line.starts_with("COPY "))?;
    let (_, number) = line.split_once(", line ")?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number.get(..digits)?.parse::<u64>().ok()?.checked_sub(1)
}
