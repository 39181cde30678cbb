//! The task that reads a partition: it follows it again when the broker was away.
//!
//! ```text
//! Log::follow ─► Feed::next ─► queue of a few pieces ─► reader
//! ```
//! Invariant: a piece that was put into the queue is not fetched again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use windrow_core::{ErrorKind, Result};

use super::health::{Backoff, Report};
use super::log::{At, Feed, Fetched, Log, Reading, may_pass, on};

/// Pieces that wait for the reader at most.
const PIECES: usize = 2;
/// How long a bounded reading waits for a broker that was there when it began.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages in a piece at most.
pub(super) const PIECE_ROWS: usize = 512;

/// A task that ends when it is dropped.
pub(super) struct Pump<M> {
    pieces: mpsc::Receiver<Result<Fetched<M>>>,
    task: tokio::task::JoinHandle<()>,
}

impl<M> Drop for Pump<M> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<M: Send + 'static> Pump<M> {
    /// Starts to read. What ends begins here, so that it fails at once; what goes on begins when the broker is there.
    ///
    /// # Errors
    /// When the broker is away and the reading ends, and when it does not have the messages any more.
    pub(super) async fn start<L: Log<Message = M>>(
        (log, reading): (Arc<L>, Arc<Reading>),
        partition: Arc<str>,
        at: At,
    ) -> Result<Self> {
        let feed = match at.until_now {
            true => {
                let (log, partition, at) = (Arc::clone(&log), Arc::clone(&partition), at.clone());
                Some(on(&reading.io, async move { log.follow(&partition, &at).await }).await?)
            }
            false => None,
        };
        let (sender, pieces) = mpsc::channel(PIECES);
        let report = reading.health.begin(&partition);
        let work = Work { log, partition, at, report, sender, clock: Arc::clone(&reading.clock) };
        let task = reading.io.spawn(work.run(feed));
        Ok(Self { pieces, task })
    }

    /// Returns the next piece, and waits for it; `None`: the task has ended. Dropping the future loses nothing.
    ///
    /// # Errors
    /// With which the reading ended.
    pub(super) async fn next(&mut self) -> Option<Result<Fetched<M>>> {
        self.pieces.recv().await
    }

    /// Returns the next piece if it is there.
    pub(super) fn ready(&mut self) -> Option<Result<Fetched<M>>> {
        self.pieces.try_recv().ok()
    }
}

/// What the task does.
struct Work<L: Log> {
    log: Arc<L>,
    partition: Arc<str>,
    at: At,
    report: Report,
    sender: mpsc::Sender<Result<Fetched<L::Message>>>,
    clock: Arc<dyn windrow_core::Clock>,
}

impl<L: Log> Work<L> {
    async fn run(mut self, mut feed: Option<L::Feed>) {
        let (mut backoff, mut waited) = (Backoff::default(), Duration::ZERO);
        loop {
            match self.step(&mut feed).await {
                Ok(fetched) => {
                    (backoff, waited) = (Backoff::default(), Duration::ZERO);
                    self.report.answered(fetched.lag);
                    let is_over = fetched.is_over;
                    // The reader is gone, or there is no more.
                    if self.sender.send(Ok(fetched)).await.is_err() || is_over {
                        return;
                    }
                }
                Err(error)
                    if error.kind() == ErrorKind::Unavailable
                        || may_pass(&error) && !self.at.until_now =>
                {
                    feed = None;
                    self.report.away(error.message());
                    if self.at.until_now && waited >= PATIENCE {
                        // A reader that is gone needs no error.
                        drop(self.sender.send(Err(error)).await);
                        return;
                    }
                    let pause = backoff.next_pause();
                    self.clock.sleep(pause).await;
                    waited += pause;
                }
                Err(error) => {
                    self.report.away(error.message());
                    // A reader that is gone needs no error.
                    drop(self.sender.send(Err(error)).await);
                    return;
                }
            }
        }
    }

    async fn step(&mut self, feed: &mut Option<L::Feed>) -> Result<Fetched<L::Message>> {
        let following = match feed {
            Some(feed) => feed,
            None => feed.insert(self.log.follow(&self.partition, &self.at).await?),
        };
        let fetched = following.next(PIECE_ROWS).await?;
        let last = fetched.entries.last().map(|entry| entry.offset + 1);
        self.at.from = self.at.from.max(last).max(fetched.reached);
        if let Some(place) = &fetched.place {
            self.at.place = Arc::clone(place);
        }
        Ok(fetched)
    }
}
