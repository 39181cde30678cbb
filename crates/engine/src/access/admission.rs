//! Admission control: how many statements run and wait at once on a server, and how much memory and time each of them may
//! take. Shared by all sessions of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use windrow_core::{Error, ErrorKind, Result};

/// The limits of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLimits {
    /// Maximum number of bounded statements that run at the same time; further ones wait.
    pub queries_max: usize,
    /// Maximum number of statements that wait to run; further ones are refused.
    pub queue_max: usize,
    /// Maximum number of continuous results (`SELECT … EMIT`, `SUBSCRIBE`, `WAIT FOR`) at the same time; further ones are
    /// refused.
    pub streams_max: usize,
    /// Maximum memory of one statement in bytes: for planning, results of functions, sorts, joins and groupings, and rows
    /// that it buffers. Sorts and groupings spill to disk at that point, other operators fail. `None`: a quarter of the
    /// machine's memory.
    pub query_bytes_max: Option<usize>,
    /// Maximum duration of one bounded statement. `None`: unlimited.
    pub query_time_max: Option<Duration>,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            queries_max: 100,
            queue_max: 1_000,
            streams_max: 10_000,
            query_bytes_max: None,
            query_time_max: None,
        }
    }
}

/// The limits, and how much of them is in use.
#[derive(Debug)]
pub struct Admission {
    limits: QueryLimits,
    queries: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    waiting: AtomicUsize,
    phase: watch::Sender<Phase>,
}

/// How far the server has shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It is running.
    Open,
    /// Running bounded statements may finish; no statement starts, continuous results end.
    Stopping,
    /// All statements end.
    Ended,
}

/// The limit that a statement counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// [`QueryLimits::queries_max`]: it ends by itself, and uses the CPU until then.
    Query,
    /// [`QueryLimits::streams_max`]: it runs until its client leaves, and mostly waits.
    Stream,
}

/// A statement's share of the limits; dropping it returns the share.
#[derive(Debug)]
pub(crate) struct Permit {
    _taken: OwnedSemaphorePermit,
}

impl Admission {
    /// Creates the limits, with nothing in use.
    pub fn new(limits: QueryLimits) -> Self {
        let queries = Semaphore::new(limits.queries_max.min(Semaphore::MAX_PERMITS));
        let streams = Semaphore::new(limits.streams_max.min(Semaphore::MAX_PERMITS));
        Self {
            limits,
            queries: Arc::new(queries),
            streams: Arc::new(streams),
            waiting: AtomicUsize::new(0),
            phase: watch::Sender::new(Phase::Open),
        }
    }

    /// Begins the shutdown: no statement starts any more, and continuous results end with an error that asks clients to
    /// reconnect.
    pub fn stop(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Ends the grace period: bounded statements that are still running end with the same error.
    pub fn end(&self) {
        self.phase.send_replace(Phase::Ended);
    }

    /// Whether the server is shutting down ([`stop`](Self::stop)).
    pub fn is_stopping(&self) -> bool {
        *self.phase.borrow() != Phase::Open
    }

    /// Completes when the server begins to shut down ([`stop`](Self::stop)).
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.reaches(Phase::Stopping)
    }

    /// Completes with the error of a continuous result when the server begins to shut down ([`stop`](Self::stop)).
    pub fn stopped(&self) -> impl Future<Output = Error> + Send + use<> {
        self.closed(Weight::Stream)
    }

    /// Completes with the error of a bounded statement when the grace period has ended ([`end`](Self::end)).
    pub fn ended(&self) -> impl Future<Output = Error> + Send + use<> {
        self.closed(Weight::Query)
    }

    /// Completes with the error of a statement of this weight when the shutdown ends it.
    pub(crate) fn closed(&self, weight: Weight) -> impl Future<Output = Error> + Send + use<> {
        let reached = self.reaches(match weight {
            Weight::Query => Phase::Ended,
            Weight::Stream => Phase::Stopping,
        });
        async move {
            reached.await;
            stopping()
        }
    }

    fn reaches(&self, phase: Phase) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.phase.subscribe();
        async move {
            // A server that is gone without a shutdown ends nothing.
            if receiver.wait_for(|now| *now >= phase).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The limits.
    pub fn limits(&self) -> &QueryLimits {
        &self.limits
    }

    /// Number of bounded statements that are running.
    pub fn running(&self) -> usize {
        self.limits.queries_max.saturating_sub(self.queries.available_permits())
    }

    /// Number of statements that are waiting to run.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Number of continuous results that are open.
    pub fn streams(&self) -> usize {
        self.limits.streams_max.saturating_sub(self.streams.available_permits())
    }

    /// Waits until a statement may run.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when too many statements are waiting, or too many continuous results are open;
    /// [`ErrorKind::Unavailable`] when the server is shutting down.
    pub(crate) async fn enter(&self, weight: Weight) -> Result<Permit> {
        if self.is_stopping() {
            return Err(stopping());
        }
        let taken = match weight {
            Weight::Query => tokio::select! {
                taken = self.wait() => taken?,
                () = self.stopping() => return Err(stopping()),
            },
            Weight::Stream => {
                Arc::clone(&self.streams).try_acquire_owned().map_err(|_full| self.no_stream())?
            }
        };
        Ok(Permit { _taken: taken })
    }

    async fn wait(&self) -> Result<OwnedSemaphorePermit> {
        if let Ok(free) = Arc::clone(&self.queries).try_acquire_owned() {
            return Ok(free);
        }
        let _waiting = Waiting::enter(self).ok_or_else(|| self.queue_full())?;
        Arc::clone(&self.queries)
            .acquire_owned()
            .await
            .map_err(|e| Error::internal("the queue of queries is closed").with_source(e))
    }

    fn queue_full(&self) -> Error {
        let QueryLimits { queries_max, queue_max, .. } = self.limits;
        Error::new(
            ErrorKind::Limit,
            format!("{queries_max} queries run and {queue_max} wait, which is the limit"),
        )
        .with_hint("Try again later, or raise --max-queries or --max-queue.")
    }

    fn no_stream(&self) -> Error {
        let max = self.limits.streams_max;
        Error::new(
            ErrorKind::Limit,
            format!("{max} continuous results are open, which is the limit"),
        )
        .with_hint("Close some, or raise --max-streams.")
    }
}

/// The error of statements on a server that is shutting down.
pub(crate) fn stopping() -> Error {
    Error::new(ErrorKind::Unavailable, "the server is stopping")
        .with_hint("Connect again; SUBSCRIBE TO … AFTER resumes where it stopped.")
}

/// A statement that is counted as waiting until this is dropped.
struct Waiting<'a>(&'a Admission);

impl<'a> Waiting<'a> {
    fn enter(admission: &'a Admission) -> Option<Self> {
        let max = admission.limits.queue_max;
        admission
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1))
            .ok()
            .map(|_| Self(admission))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn some_run_some_wait_and_the_rest_are_refused() {
        let limits =
            QueryLimits { queries_max: 1, queue_max: 1, streams_max: 1, ..QueryLimits::default() };
        let admission = Admission::new(limits);
        let first = admission.enter(Weight::Query).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(admission.enter(Weight::Query));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!((admission.running(), admission.waiting()), (1, 1));
        let third = admission.enter(Weight::Query).now_or_never().unwrap().unwrap_err();
        assert_eq!(third.kind(), ErrorKind::Limit);
        assert_eq!(third.message(), "1 queries run and 1 wait, which is the limit");
        drop(first);
        let second = second.now_or_never().unwrap().unwrap();
        assert_eq!((admission.running(), admission.waiting()), (1, 0));
        drop(second);
        assert_eq!(admission.running(), 0);
        let stream = admission.enter(Weight::Stream).now_or_never().unwrap().unwrap();
        assert!(admission.enter(Weight::Stream).now_or_never().unwrap().is_err());
        drop(stream);
        assert_eq!(admission.streams(), 0);
    }

    #[test]
    fn a_stop_ends_what_waits_and_what_never_ends() {
        let limits = QueryLimits { queries_max: 1, ..QueryLimits::default() };
        let admission = Admission::new(limits);
        let running = admission.enter(Weight::Query).now_or_never().unwrap().unwrap();
        let mut waits = Box::pin(admission.enter(Weight::Query));
        assert!(waits.as_mut().now_or_never().is_none());
        let (query, stream) = (Weight::Query, Weight::Stream);
        assert!(admission.closed(stream).now_or_never().is_none());
        admission.stop();
        for error in [
            waits.now_or_never().unwrap().unwrap_err(),
            admission.enter(stream).now_or_never().unwrap().unwrap_err(),
            admission.closed(stream).now_or_never().unwrap(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert_eq!(error.message(), "the server is stopping");
        }
        assert!(admission.closed(query).now_or_never().is_none());
        admission.end();
        assert!(admission.closed(query).now_or_never().is_some());
        drop(running);
    }

    #[test]
    fn a_cancelled_wait_is_not_counted() {
        let limits = QueryLimits { queries_max: 0, queue_max: 5, ..QueryLimits::default() };
        let admission = Admission::new(limits);
        let mut waiting = Box::pin(admission.enter(Weight::Query));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_eq!(admission.waiting(), 1);
        drop(waiting);
        assert_eq!(admission.waiting(), 0);
    }
}
