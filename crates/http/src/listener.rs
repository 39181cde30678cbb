//! Connections whose TLS handshake, if any, is done. Handshakes run side by side, so that a slow one delays nobody.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures::{Stream, StreamExt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use windrow_core::{Clock, Result};
use windrow_server::TlsConfig;
use windrow_server::connection::{Connection, Peer};

/// Connections that wait to be served. Further ones wait before their handshake.
const READY_MAX: usize = 16;

/// The connections of a port.
pub(crate) struct Accepted {
    ready: mpsc::Receiver<Transport>,
}

/// The bytes of a connection.
pub(crate) enum Transport {
    Plain(Connection),
    Tls(Box<TlsStream<Connection>>),
}

/// The peer of a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Peer);

impl Accepted {
    /// Accepts `incoming` connections in the background, until this is dropped. A handshake may take `patience`.
    pub(crate) fn new(
        incoming: impl Stream<Item = io::Result<Connection>> + Send + 'static,
        tls: Option<TlsAcceptor>,
        clock: Arc<dyn Clock>,
        patience: Duration,
    ) -> Self {
        let (sender, ready) = mpsc::channel(READY_MAX);
        tokio::spawn(async move {
            let mut incoming = std::pin::pin!(incoming);
            loop {
                let connection = tokio::select! {
                    next = incoming.next() => next,
                    () = sender.closed() => None,
                };
                let connection = match connection {
                    Some(Ok(connection)) => connection,
                    // It has been logged.
                    Some(Err(_)) => continue,
                    None => return,
                };
                let Some(tls) = tls.clone() else {
                    if sender.send(Transport::Plain(connection)).await.is_err() {
                        return;
                    }
                    continue;
                };
                let (sender, too_long) = (sender.clone(), clock.sleep(patience));
                // Their number is limited by that of connections.
                tokio::spawn(async move {
                    let shaken = tokio::select! {
                        shaken = tls.accept(connection) => shaken,
                        () = too_long => return,
                    };
                    match shaken {
                        // The server has stopped if nobody receives it.
                        Ok(stream) => drop(sender.send(Transport::Tls(Box::new(stream))).await),
                        Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
                    }
                });
            }
        });
        Self { ready }
    }
}

impl Listener for Accepted {
    type Io = Transport;
    type Addr = ();

    async fn accept(&mut self) -> (Transport, ()) {
        match self.ready.recv().await {
            Some(transport) => (transport, ()),
            // The port was closed: nothing comes any more.
            None => futures::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport {
    fn peer(&self) -> &Peer {
        match self {
            Self::Plain(connection) => connection.peer(),
            Self::Tls(stream) => stream.get_ref().0.peer(),
        }
    }
}

impl Connected<IncomingStream<'_, Accepted>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Accepted>) -> Self {
        Self(stream.io().peer().clone())
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(connection) => Pin::new(connection).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Returns what makes connections secure.
///
/// # Errors
/// When a file cannot be read, or is not what it should be.
pub(crate) fn acceptor(tls: &TlsConfig) -> Result<TlsAcceptor> {
    let pem = tls.read()?;
    let unusable = |e| tls.unusable(e);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem.cert)
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| tls.unusable(e))?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|e| tls.unusable(e))?;
    let builder = rustls::ServerConfig::builder();
    let builder = match &pem.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for one in CertificateDer::pem_slice_iter(ca) {
                roots.add(one.map_err(|e| tls.unusable(e))?).map_err(unusable)?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
            builder.with_client_cert_verifier(verifier.map_err(|e| tls.unusable(e))?)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(unusable)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
