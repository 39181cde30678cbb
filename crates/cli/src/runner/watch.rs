//! Waiting while checking for Ctrl-C and updating the progress line.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::FutureExt;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use windrow_core::Result;
use windrow_engine::Engine;

use crate::connection::Rows;
use crate::interrupt::Interrupts;
use crate::progress::{Bar, TICK};

/// A wait.
pub(super) struct Watch {
    /// When it began.
    pub(super) start: Instant,
    interrupts: Arc<Interrupts>,
    ticks: Interval,
    /// The progress line.
    pub(super) bar: Bar,
}

impl Watch {
    pub(super) fn new(engine: Option<&Engine>, interrupts: &Arc<Interrupts>, quiet: bool) -> Self {
        let start = Instant::now();
        let mut ticks = interval_at(start + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { start, interrupts: Arc::clone(interrupts), ticks, bar: Bar::new(engine, quiet) }
    }

    /// Waits for `work`.
    ///
    /// # Errors
    /// When Ctrl-C comes first.
    pub(super) async fn until<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                error = self.interrupts.cancelled() => return Err(error),
                _ = self.ticks.tick() => self.bar.tick(),
                done = &mut work => return Ok(done),
            }
        }
    }

    /// Waits for the next rows, of which `rows_out` have been received; the line shows the progress of the query.
    ///
    /// # Errors
    /// When Ctrl-C comes first.
    pub(super) async fn next(
        &mut self,
        rows: &mut Rows,
        rows_out: u64,
    ) -> Result<Option<Result<RecordBatch>>> {
        loop {
            tokio::select! {
                biased;
                error = self.interrupts.cancelled() => return Err(error),
                _ = self.ticks.tick() => {
                    self.bar.live(rows.is_continuous().then(|| rows.live()), rows_out);
                    self.bar.read(rows.read_progress());
                    self.bar.tick();
                }
                next = rows.next() => return Ok(next),
            }
        }
    }

    /// Checks for Ctrl-C and updates the bar, without waiting.
    pub(super) fn glance(&mut self) -> Result<()> {
        if self.ticks.tick().now_or_never().is_some() {
            self.bar.tick();
        }
        self.interrupts.cancelled().now_or_never().map_or(Ok(()), Err)
    }
}
