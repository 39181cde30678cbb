//! Stores the rows of a source that forgets them: they are in the log of the stream before they are acknowledged.
//!
//! ```text
//! source ─ batch ─► log (durable) ─ acknowledge ─► source
//! ```
//! Invariants: nothing is acknowledged that is not as durable as the stream is; an error ends nothing, since what was not
//! acknowledged comes again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use windrow_core::{
    BadRow, Clock, Error, ErrorKind, Partition, Result, ScanRequest, Source, SourceBatch,
    SourceHealth,
};

use crate::caught::{caught, stopped};
use crate::push::{PushStream, Records};

/// The time before the source is read again after an error: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Receives the rows of one stream until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    work: Arc<Work>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Starts to store the rows of a source.
    pub fn begin(
        push: Arc<PushStream>,
        source: Arc<dyn Source>,
        (clock, batch_rows_max): (Arc<dyn Clock>, usize),
        cpu: &tokio::runtime::Handle,
    ) -> Self {
        let work = Arc::new(Work { push, source, clock, batch_rows_max, state: Mutex::default() });
        let task = cpu.spawn(Arc::clone(&work).run());
        Self { work, task }
    }

    /// The state of the connection. The last error is that of storing rows while they cannot be stored.
    pub fn health(&self) -> Option<SourceHealth> {
        let health = self.work.source.health()?;
        let failed = self.work.state.lock().error.clone();
        Some(SourceHealth { last_error: failed.or(health.last_error), ..health })
    }

    /// Stops. What was not acknowledged stays with the source.
    pub fn end(&self) {
        self.task.abort();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Debug)]
struct Work {
    push: Arc<PushStream>,
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    batch_rows_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Why rows are not stored; `None`: they are.
    error: Option<String>,
    /// How often an error has come after another.
    failures: u32,
}

impl Work {
    async fn run(self: Arc<Self>) {
        loop {
            let received = caught(|| self.what(), self.receive()).await;
            // A source that ends has no more.
            let Err(error) = received else { return };
            self.rest(&error).await;
        }
    }

    /// Notes an error, and sleeps longer the more of them there were.
    async fn rest(&self, error: &Error) {
        let stream = &self.push.name;
        tracing::warn!(stream, %error, "the rows of a connector cannot be stored, trying again");
        let failures = {
            let mut state = self.state.lock();
            state.error = Some(error.message().to_owned());
            state.failures = state.failures.saturating_add(1);
            state.failures
        };
        let pause = BACK_OFF.0 * 2_u32.pow(failures.min(10) - 1);
        self.clock.sleep(pause.min(BACK_OFF.1)).await;
    }

    /// The name of this work in errors.
    fn what(&self) -> String {
        format!("receiving the rows of stream \"{}\"", self.push.name)
    }

    async fn receive(self: &Arc<Self>) -> Result<()> {
        let mut readers = JoinSet::new();
        for partition in self.source.discover().await? {
            readers.spawn(Arc::clone(self).read(partition));
        }
        while let Some(done) = readers.join_next().await {
            done.map_err(|end| stopped(&self.what(), end))??;
        }
        Ok(())
    }

    async fn read(self: Arc<Self>, partition: Partition) -> Result<()> {
        let all = (0..self.source.schema().fields().len()).collect();
        let request =
            ScanRequest { until_now: false, ..ScanRequest::of_now(all, self.batch_rows_max) };
        for split in &partition.splits {
            let mut reader = self.source.open(split, &request).await?;
            while let Some(batch) = reader.next().await? {
                let end = batch.offsets.end();
                // The connector does not hold them any more, so they wait here until the log takes rows again.
                while let Err(error) = self.store(batch.clone()).await {
                    if error.kind() != ErrorKind::Unavailable {
                        return Err(error);
                    }
                    self.rest(&error).await;
                }
                self.source.acknowledge(split, end);
                *self.state.lock() = State::default();
            }
        }
        Ok(())
    }

    /// Returns when the rows are as durable as the stream is.
    async fn store(&self, batch: SourceBatch) -> Result<()> {
        let SourceBatch { rows, offsets, row_offsets, bad, .. } = batch;
        let first = offsets.start();
        let number = |offset: u64| offset.saturating_sub(first);
        let numbers = (0..rows.num_rows()).map(|row| number(row_offsets.offset(row))).collect();
        let bad = bad.into_iter().map(|bad| BadRow { offset: number(bad.offset), ..bad });
        let records =
            Records { numbers: Some(numbers), bad: bad.collect(), count: number(offsets.end()) };
        let pushing = self.push.offer_decoded(&rows, records, None).await?;
        self.push.settled(pushing).await.map(drop)
    }
}
