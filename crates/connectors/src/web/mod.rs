//! `connector = 'websocket'` and `connector = 'sse'`: messages that a server sends over a connection that Windrow makes.
//!
//! ```text
//! server ─ Incoming ─► feed ─► rows ─► log of the stream
//! ```
//! Neither has acknowledgements: what is sent while there is no connection is missed, so each message is a row at most
//! once. The source [forgets](windrow_core::Source::forgets), and queries read the log.

mod feed;
mod options;
mod sse;
mod websocket;

use std::sync::Arc;

use windrow_core::{Error, ErrorKind, Result, Source};

use self::feed::{Origin, WebLog};
pub(crate) use self::options::{SSE_OPTIONS, WEBSOCKET_OPTIONS};
use self::options::{WebOptions, shown};
use self::sse::Events;
use self::websocket::Socket;
use crate::broker::columns::{Metadata, Names};
use crate::broker::health::Health;
use crate::broker::log::{Reading, source};
use crate::tls::client_config;
use crate::{ConnectorEnv, Declared};

/// What a message of a WebSocket carries.
const OF_SOCKET: Names = &[("timestamp", Metadata::Timestamp)];
/// What an event carries.
const OF_EVENT: Names =
    &[("event", Metadata::Topic), ("id", Metadata::Id), ("timestamp", Metadata::Timestamp)];

/// Opens a WebSocket.
///
/// # Errors
/// See [`open_source`](crate::open_source). A server that is away is none: a notice says so.
pub(crate) async fn open_socket(
    options: &[(String, String)],
    declared: &Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    let options = WebOptions::read("websocket", options, WEBSOCKET_OPTIONS)?.confined(env)?;
    let tls = match options.url.scheme() {
        "wss" => Some(Arc::new(client_config("tls_ca", options.tls_ca.as_deref())?)),
        _ => None,
    };
    let socket = Socket { options: options.clone(), tls, clock: Arc::clone(&env.clock) };
    open(socket, &options, ("websocket", OF_SOCKET), (declared, env)).await
}

/// Opens server-sent events.
///
/// # Errors
/// See [`open_source`](crate::open_source). A server that is away is none: a notice says so.
pub(crate) async fn open_events(
    options: &[(String, String)],
    declared: &Declared,
    env: &ConnectorEnv,
) -> Result<Arc<dyn Source>> {
    let options = WebOptions::read("sse", options, SSE_OPTIONS)?.confined(env)?;
    let events = Events::new(options.clone(), env.limits.row_bytes_max)?;
    open(events, &options, ("sse", OF_EVENT), (declared, env)).await
}

async fn open<O: Origin>(
    origin: O,
    options: &WebOptions,
    names: (&str, Names),
    (declared, env): (&Declared, &ConnectorEnv),
) -> Result<Arc<dyn Source>> {
    let (values, notices) = options.values.open(declared, names, None, env).await?;
    let reading = Reading {
        values: Arc::new(values),
        clock: Arc::clone(&env.clock),
        io: env.io.clone(),
        health: Arc::new(Health::default()),
    };
    source(WebLog::new(origin, Arc::clone(&env.clock)), reading, notices, declared.restored).await
}

/// The error of a server that does not answer.
fn away(options: &WebOptions, why: &str) -> Error {
    let message = format!("server \"{}\" does not answer: {why}", shown(&options.url));
    Error::new(ErrorKind::Unavailable, message)
        .with_hint("Check url, and what the server needs in headers.")
}

/// The error of a server that answers with a status of HTTP.
fn refused(options: &WebOptions, status: u16) -> Error {
    let shown = shown(&options.url);
    match status {
        401 | 403 | 407 => Error::new(
            ErrorKind::Denied,
            format!("server \"{shown}\" refuses the login: it answers with status {status}"),
        )
        .with_hint("Put the credentials in a header: 'header.Authorization' = 'Bearer …'."),
        404 | 410 => Error::new(
            ErrorKind::NotFound,
            format!("server \"{shown}\" answers with status {status}: there is no such path"),
        )
        .with_hint("Check url."),
        _ => away(options, &format!("it answers with status {status}")),
    }
}
