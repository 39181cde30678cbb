//! The executions of clients, so that they can be cancelled.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_core::{Error, ErrorKind, Result};

use crate::session::InUse;

/// All executions, by the id in their ticket.
#[derive(Debug, Clone, Default)]
pub struct Running(Arc<Mutex<Executions>>);

#[derive(Debug, Default)]
struct Executions {
    next: u64,
    stops: BTreeMap<(Vec<u8>, u64), watch::Sender<bool>>,
}

/// One execution; it is removed when this is dropped.
#[derive(Debug)]
pub struct Execution {
    /// The session that it belongs to.
    _session: InUse,
    running: Running,
    key: (Vec<u8>, u64),
    stopped: watch::Receiver<bool>,
}

impl Running {
    /// Registers an execution of the ticket `id` in a session.
    pub fn begin(&self, id: &[u8], session: InUse) -> Execution {
        let (stop, stopped) = watch::channel(false);
        let mut all = self.0.lock();
        all.next += 1;
        let key = (id.to_vec(), all.next);
        all.stops.insert(key.clone(), stop);
        Execution { _session: session, running: self.clone(), key, stopped }
    }

    /// Cancels all executions of a ticket; returns whether there was one. An empty id matches none, or any client could
    /// cancel executions without a ticket.
    pub fn cancel(&self, id: &[u8]) -> bool {
        if id.is_empty() {
            return false;
        }
        let all = self.0.lock();
        let from = (id.to_vec(), 0);
        let of_ticket = all.stops.range(from..).take_while(|((found, _), _)| found == id);
        let mut any = false;
        for (_, stop) in of_ticket {
            stop.send_replace(true);
            any = true;
        }
        any
    }
}

impl Execution {
    /// Awaits a part of the execution.
    ///
    /// # Errors
    /// Its own; [`ErrorKind::Cancelled`] when the execution is cancelled before it
    /// is done.
    pub async fn unless_stopped<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.stopped() => Err(cancelled()),
        }
    }

    /// Completes when the execution is cancelled.
    pub async fn stopped(&mut self) {
        // The sender lives as long as this.
        if self.stopped.wait_for(|stopped| *stopped).await.is_err() {
            futures::future::pending::<()>().await;
        }
    }
}

/// Returns the error for an execution cancelled by its client.
pub fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "the query was cancelled")
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.running.0.lock().stops.remove(&self.key);
    }
}
