//! A small HTTP server that takes requests of webhook sinks and remembers them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use libtest_mimic::Failed;

use crate::program::PATIENCE;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Post {
    /// Its key.
    pub(crate) fn key(&self) -> &str {
        self.headers.get("idempotency-key").map_or("", String::as_str)
    }
}

/// The status that the server answers a request with, which is the so manieth.
type Answer = Box<dyn Fn(usize, &Post) -> u16 + Send + Sync>;

struct Shared {
    answer: Answer,
    posts: Mutex<Vec<Post>>,
    came: Condvar,
    ends: AtomicBool,
}

/// A server, until it is dropped.
pub(crate) struct Hooks {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Hooks {
    /// A server that answers every request well.
    pub(crate) fn start() -> Result<Self, Failed> {
        Self::answering(0, |_, _| 200)
    }

    /// A server that answers as it is told, at a port (0: any).
    pub(crate) fn answering(
        port: u16,
        answer: impl Fn(usize, &Post) -> u16 + Send + Sync + 'static,
    ) -> Result<Self, Failed> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            posts: Mutex::default(),
            came: Condvar::new(),
            ends: AtomicBool::new(false),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if server.ends.load(Ordering::Acquire) {
                    return;
                }
                let server = Arc::clone(&server);
                // A client that is killed in the middle of a request has sent none.
                std::thread::spawn(move || connection.is_ok_and(|c| server.serve(&c).is_some()));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook/secret-path", self.address)
    }

    /// The requests that have come.
    pub(crate) fn posts(&self) -> Vec<Post> {
        self.shared.posts().clone()
    }

    /// Waits until `count` requests have come.
    pub(crate) fn wait_for(&self, count: usize) -> Result<Vec<Post>, Failed> {
        let posts = self.shared.posts();
        let waited =
            self.shared.came.wait_timeout_while(posts, PATIENCE, |posts| posts.len() < count);
        let (posts, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return Err(format!("{} requests came, not {count}", posts.len()).into());
        }
        Ok(posts.clone())
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        // It wakes the server, which closes its port.
        drop(TcpStream::connect(self.address));
    }
}

impl Shared {
    fn posts(&self) -> MutexGuard<'_, Vec<Post>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one request; `None`: it was cut off.
    fn serve(&self, connection: &TcpStream) -> Option<()> {
        let mut from = BufReader::new(connection.try_clone().ok()?);
        let mut headers = BTreeMap::new();
        let mut line = String::new();
        while from.read_line(&mut line).ok()? > 2 {
            if let Some((name, value)) = line.trim_end().split_once(": ") {
                headers.insert(name.to_ascii_lowercase(), value.to_owned());
            }
            line.clear();
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        from.read_exact(&mut body).ok()?;
        let post = Post { headers, body: String::from_utf8(body).ok()? };
        let status = {
            let mut posts = self.posts();
            let status = (self.answer)(posts.len(), &post);
            posts.push(post);
            status
        };
        self.came.notify_all();
        let answer =
            format!("HTTP/1.1 {status} .\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let mut to = connection;
        to.write_all(answer.as_bytes()).ok()
    }
}
