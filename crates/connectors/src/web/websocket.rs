//! A WebSocket: each text or binary message is a message of the stream.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};
use windrow_core::{Clock, Result};

use super::feed::{Incoming, Origin, Received};
use super::options::WebOptions;
use super::{away, refused};

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(10);
/// The silence after which the server is pinged; it has as long again to answer.
const SILENCE: Duration = Duration::from_secs(30);

/// Where the socket is.
#[derive(Clone)]
pub(super) struct Socket {
    pub(super) options: WebOptions,
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Socket {
    async fn open(&self) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
        let failed = |error: SocketError| match error {
            SocketError::Http(answer) => refused(&self.options, answer.status().as_u16()),
            other => away(&self.options, &other.to_string()),
        };
        let mut request = self.options.url.as_str().into_client_request().map_err(failed)?;
        for (name, value) in &self.options.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let connector = self.tls.clone().map_or(Connector::Plain, Connector::Rustls);
        let connect = connect_async_tls_with_config(request, None, true, Some(connector));
        let (mut stream, _) = connect.await.map_err(failed)?;
        if let Some(text) = &self.options.subscribe {
            stream.send(Message::text(text.clone())).await.map_err(failed)?;
        }
        Ok(stream)
    }
}

#[async_trait]
impl Origin for Socket {
    async fn connect(&self) -> Result<Box<dyn Incoming>> {
        let stream = tokio::select! {
            stream = self.open() => stream?,
            () = self.clock.sleep(PATIENCE) => {
                return Err(away(&self.options, "it takes too long to accept a connection"));
            }
        };
        Ok(Box::new(Connection { socket: self.clone(), stream, is_asked: false }))
    }
}

struct Connection {
    socket: Socket,
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Whether the server was pinged.
    is_asked: bool,
}

#[async_trait]
impl Incoming for Connection {
    async fn next(&mut self) -> Result<Received> {
        let options = &self.socket.options;
        loop {
            let received = tokio::select! {
                biased;
                received = self.stream.next() => received,
                () = self.socket.clock.sleep(SILENCE) => {
                    if self.is_asked {
                        return Err(away(options, "it has been silent for a minute"));
                    }
                    self.is_asked = true;
                    let asked = self.stream.send(Message::Ping(Bytes::new())).await;
                    asked.map_err(|error| away(options, &error.to_string()))?;
                    continue;
                }
            };
            self.is_asked = false;
            let value = match received {
                Some(Ok(Message::Text(text))) => Bytes::from(text),
                Some(Ok(Message::Binary(bytes))) => bytes,
                Some(Ok(Message::Close(_))) | None => {
                    return Err(away(options, "it has closed the connection"));
                }
                // A ping is answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => return Err(away(options, &error.to_string())),
            };
            return Ok(Received { value, event: None, id: None });
        }
    }
}
