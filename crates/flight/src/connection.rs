//! Connections: how many there are, and that none is held by somebody who says nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TlsConnectInfo};
use windrow_core::Clock;

/// The number of the next connection.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Who is at the other end, in the extensions of each request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// No other connection of the process has or had it.
    number: u64,
    called: Arc<AtomicBool>,
}

impl Peer {
    /// The peer of a request, with TLS or without.
    pub(crate) fn of(extensions: &http::Extensions) -> Option<&Self> {
        let tls = || extensions.get::<TlsConnectInfo<Self>>().map(TlsConnectInfo::get_ref);
        extensions.get::<Self>().or_else(tls)
    }

    /// Names the connection.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The connection is in use: a call came.
    pub(crate) fn has_called(extensions: &http::Extensions) {
        if let Some(peer) = Self::of(extensions) {
            peer.called.store(true, Ordering::Relaxed);
        }
    }
}

/// How many connections there are.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    free: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
}

/// One connection's place, and its part of the count.
struct Place {
    _free: OwnedSemaphorePermit,
    open: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), open: Arc::default() }
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Those who connect from now on. When there are too many, others wait in the system's queue
    /// until one leaves. Who makes no call within `patience` is closed.
    pub(crate) fn incoming(
        &self,
        listener: TcpListener,
        clock: Arc<dyn Clock>,
        patience: Duration,
    ) -> impl Stream<Item = io::Result<Connection>> + Send + use<> {
        let (free, open) = (Arc::clone(&self.free), Arc::clone(&self.open));
        futures::stream::unfold(
            (listener, free, open, clock),
            move |(listener, free, open, clock)| async move {
                // Nobody closes it: then there are no more.
                let permit = Arc::clone(&free).acquire_owned().await.ok()?;
                let accepted = match listener.accept().await {
                    Ok((stream, _)) => {
                        // Small answers wait for nothing. Without it they only come later.
                        drop(stream.set_nodelay(true));
                        open.fetch_add(1, Ordering::Relaxed);
                        let place = Place { _free: permit, open: Arc::clone(&open) };
                        let called = Arc::new(AtomicBool::new(false));
                        let number = NEXT.fetch_add(1, Ordering::Relaxed);
                        let peer = Peer { number, called };
                        let too_long = clock.sleep(patience);
                        Ok(Connection { stream, peer, too_long: Some(too_long), _place: place })
                    }
                    Err(error) => {
                        // Out of file descriptors, for one. Accepting again at once would only burn.
                        tracing::warn!(%error, "a connection could not be accepted");
                        clock.sleep(Duration::from_millis(50)).await;
                        Err(error)
                    }
                };
                Some((accepted, (listener, free, open, clock)))
            },
        )
    }
}

/// A connection that counts as long as it lives.
pub(crate) struct Connection {
    stream: TcpStream,
    peer: Peer,
    /// Until the first call.
    too_long: Option<BoxFuture<'static, ()>>,
    _place: Place,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.peer.called.load(Ordering::Relaxed) {
            this.too_long = None;
        }
        if let Some(too_long) = &mut this.too_long
            && too_long.as_mut().poll(context).is_ready()
        {
            let why = "the connection made no call in time";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
