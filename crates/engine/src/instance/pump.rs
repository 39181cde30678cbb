//! Copies the rows of a view to a stream, exactly once: the second half of a durable continuous INSERT, and of a stream AS SELECT.
//!
//! ```text
//! view   ├─ archived ────────────────┼─ memory ─┤
//!        └─ in the stream ─┴─ copied ┘
//! ```
//! The log of the stream stores how many rows it has taken, as the sequence number of a producer. In a data directory only
//! archived rows are copied, since only these never change; in memory they are copied at once, and then released.

use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use windrow_core::{Clock, ErrorKind, OffsetRange, Result};
use windrow_query::shared::Shared;
use windrow_storage::wal::producers::Stamp;
use windrow_stream::caught::caught;
use windrow_stream::log::{Completion, StreamLog};
use windrow_stream::push::PushStream;
use windrow_stream::spill::Spiller;
use windrow_stream::target::Target;

/// Maximum time until final rows are archived.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rows that are copied as one batch.
const BATCH_ROWS: usize = 8_192;

/// Copies one view to one stream.
#[derive(Debug)]
pub(crate) struct Pump {
    view: String,
    query: Arc<Shared>,
    log: Arc<StreamLog>,
    spiller: Option<Arc<Spiller>>,
    push: Arc<PushStream>,
    target: Target,
    producer: Arc<str>,
    copying: tokio::sync::Mutex<()>,
}

impl Pump {
    /// Creates a pump from the view with this name, query, log and archive to a stream; `id` identifies the INSERT or the stream
    /// in the data directory.
    pub(crate) fn new(
        (view, query): (&str, &Arc<Shared>),
        (log, spiller): (&Arc<StreamLog>, Option<&Arc<Spiller>>),
        (push, target): (&Arc<PushStream>, Target),
        id: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            view: view.to_owned(),
            query: Arc::clone(query),
            log: Arc::clone(log),
            spiller: spiller.cloned(),
            push: Arc::clone(push),
            target,
            producer: Stamp::insert(id),
            copying: tokio::sync::Mutex::new(()),
        })
    }

    /// Copies while the view `is_wanted`, until all its rows are copied.
    pub(crate) async fn run(
        self: Arc<Self>,
        is_wanted: impl Fn() -> bool + Send,
        clock: Arc<dyn Clock>,
    ) {
        let mut changed = self.log.watch();
        while is_wanted() {
            changed.mark_unchanged();
            let what = || format!("inserting the rows of \"{}\"", self.view);
            let copied = caught(what, self.catch_up()).await;
            let is_done = copied.is_ok() && self.spiller.is_none();
            match copied {
                Ok(()) if self.log.state().ended && self.is_done() => return,
                Ok(()) => {}
                Err(_) if !is_wanted() => return,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(name = self.view, %error, "the rows of a continuous INSERT wait");
                }
                Err(error) => return self.query.fail(Arc::new(error)),
            }
            if self.is_done() && changed.changed().await.is_err() {
                return;
            }
            if is_done {
                continue;
            }
            clock.sleep(INTERVAL).await;
        }
    }

    /// Copies the final rows that the view has now.
    ///
    /// # Errors
    /// When they cannot be archived, and as [`copy`](Self::copy).
    pub(crate) async fn catch_up(&self) -> Result<()> {
        if let Some(spiller) = &self.spiller {
            self.archive(spiller).await?;
        }
        self.copy().await
    }

    /// Archives the rows that the view has now.
    async fn archive(&self, spiller: &Spiller) -> Result<()> {
        let by_checkpoint = self.log.completion().is_some_and(Completion::is_by_checkpoint);
        if by_checkpoint && !self.log.state().ended {
            return self.query.checkpoint().await;
        }
        spiller.spill_until_stopped().await.map(|_| ())
    }

    /// Whether the stream has all rows of the view.
    fn is_done(&self) -> bool {
        self.push.taken(&self.producer) >= self.log.state().rows
    }

    /// Copies the archived rows (in memory: all) that are not in the stream yet.
    ///
    /// # Errors
    /// When the archive cannot be read, or the stream refuses the rows.
    pub(crate) async fn copy(&self) -> Result<()> {
        let _one_at_a_time = self.copying.lock().await;
        if self.spiller.is_none() {
            return self.copy_tail().await;
        }
        let (Some(archive), _) = self.log.since(0) else { return Ok(()) };
        let mut at = self.push.taken(&self.producer);
        if at >= archive.state().rows {
            return Ok(());
        }
        let all: Vec<usize> = (0..self.log.schema().fields().len()).collect();
        let mut rows = archive.read(at, &all, BATCH_ROWS).await?;
        while let Some(batch) = rows.try_next().await? {
            at = self.put(at, &batch).await?;
        }
        Ok(())
    }

    /// Copies rows in memory, and releases them.
    async fn copy_tail(&self) -> Result<()> {
        let mut at = self.push.taken(&self.producer);
        for piece in self.log.since(at).1 {
            if let Some(new) = piece.part(at, u64::MAX) {
                at = self.put(at, &new.load()?).await?;
            }
        }
        self.log.release_before(at);
        Ok(())
    }

    /// Inserts rows whose first one has the offset `at`. Returns the offset after them.
    async fn put(&self, at: u64, rows: &RecordBatch) -> Result<u64> {
        let end = at + rows.num_rows() as u64;
        let stamp = Stamp::of_rows(&self.producer, OffsetRange::try_new(at, end)?);
        let pushing = self.push.offer(&self.target.fit(rows)?, Some(stamp)).await?;
        self.push.settled(pushing).await?;
        Ok(end)
    }
}
