//! Connections: their limits, in total and per peer, and the closing of silent ones.
//!
//! Invariant: connections without a login never keep out others: they are closed first.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use windrow_core::Clock;

/// The number of the next connection.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The peer of a connection; a wire stores it beside each request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Unique among all connections of the process.
    number: u64,
    called: Arc<AtomicBool>,
    known: Arc<AtomicBool>,
}

impl Peer {
    /// The number of the connection.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Marks the connection as used: a call arrived.
    pub fn has_called(&self) {
        self.called.store(true, Ordering::Relaxed);
    }

    /// Marks the connection as authenticated: one of its calls was.
    pub fn is_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

/// The open connections, and their limits.
#[derive(Debug, Clone)]
pub struct Connections {
    free: Arc<Semaphore>,
    per_peer: usize,
    open: Arc<Mutex<BTreeMap<u64, Open>>>,
}

/// An open connection.
#[derive(Debug)]
struct Open {
    from: IpAddr,
    known: Arc<AtomicBool>,
    /// Dropping it closes the connection.
    _close: oneshot::Sender<()>,
}

/// The slot of one connection.
struct Place {
    _free: OwnedSemaphorePermit,
    number: u64,
    open: Arc<Mutex<BTreeMap<u64, Open>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.lock().remove(&self.number);
    }
}

impl Connections {
    /// Allows at most `max` connections, and at most `per_peer` from one address.
    pub fn new(max: usize, per_peer: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(max)), per_peer, open: Arc::default() }
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.open.lock().len()
    }

    /// Accepts connections from now on. When there are too many, the oldest one without a login is closed; where all
    /// have one, new connections wait until one closes. A connection without a call within `patience` is closed.
    pub fn incoming(
        &self,
        listener: TcpListener,
        clock: Arc<dyn Clock>,
        patience: Duration,
    ) -> impl Stream<Item = io::Result<Connection>> + Send + use<> {
        let start = (self.clone(), listener, clock);
        futures::stream::unfold(start, move |(all, listener, clock)| async move {
            loop {
                let (stream, from) = match listener.accept().await {
                    Ok((stream, address)) => (stream, network(address.ip())),
                    Err(error) => {
                        // For example, out of file descriptors. Accepting again at once would only burn CPU.
                        tracing::warn!(%error, "a connection could not be accepted");
                        clock.sleep(Duration::from_millis(50)).await;
                        return Some((Err(error), (all, listener, clock)));
                    }
                };
                if !all.admits(from) {
                    tracing::warn!(%from, "a peer has too many connections, a further one is closed");
                    continue;
                }
                // The semaphore is never closed; if it were, there would be no more connections.
                let permit = all.place().await?;
                // Without nodelay small answers are delayed; a failure to set it only costs latency.
                drop(stream.set_nodelay(true));
                let connection = all.open_one(stream, from, permit, clock.sleep(patience));
                return Some((Ok(connection), (all, listener, clock)));
            }
        })
    }

    fn open_one(
        &self,
        stream: TcpStream,
        from: IpAddr,
        permit: OwnedSemaphorePermit,
        too_long: BoxFuture<'static, ()>,
    ) -> Connection {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (called, known) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (close, closed) = oneshot::channel();
        let open = Open { from, known: Arc::clone(&known), _close: close };
        self.open.lock().insert(number, open);
        let place = Place { _free: permit, number, open: Arc::clone(&self.open) };
        let peer = Peer { number, called, known };
        Connection { stream, peer, too_long: Some(too_long), closed, _place: place }
    }

    /// Whether one more connection from there is admitted. An older one is closed for it, unless all have a login.
    fn admits(&self, from: IpAddr) -> bool {
        let mut open = self.open.lock();
        let there = open.values().filter(|one| one.from == from).count();
        there < self.per_peer || close_oldest(&mut open, |one| one.from == from)
    }

    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        {
            let mut open = self.open.lock();
            // The peer with the most of them loses one.
            let mut strangers = BTreeMap::<IpAddr, usize>::new();
            for one in open.values().filter(|one| !one.known.load(Ordering::Relaxed)) {
                *strangers.entry(one.from).or_default() += 1;
            }
            let most = strangers.into_iter().max_by_key(|(_, count)| *count);
            if let Some((from, _)) = most {
                close_oldest(&mut open, |one| one.from == from);
            }
        }
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

/// Closes the oldest connection without a login among some, if there is one.
fn close_oldest(open: &mut BTreeMap<u64, Open>, among: impl Fn(&Open) -> bool) -> bool {
    let stranger = |one: &Open| !one.known.load(Ordering::Relaxed) && among(one);
    let oldest = open.iter().find(|(_, one)| stranger(one)).map(|(number, _)| *number);
    oldest.and_then(|number| open.remove(&number)).is_some()
}

/// The unit of a peer: an address; for IPv6, the network that a customer is assigned.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// A connection, counted while it exists.
pub struct Connection {
    stream: TcpStream,
    peer: Peer,
    /// The deadline for the first call.
    too_long: Option<BoxFuture<'static, ()>>,
    /// Completes when its slot is needed.
    closed: oneshot::Receiver<()>,
    _place: Place,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// The peer of the connection.
    pub fn peer(&self) -> &Peer {
        &self.peer
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
        if Pin::new(&mut this.closed).poll(context).is_ready() {
            let why = "the connection was closed for another one: it had no login";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
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
