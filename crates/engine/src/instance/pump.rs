//! Copies the archived rows of a view to a stream, exactly once: the second half of a durable continuous INSERT.
//!
//! ```text
//! view   ├─ archived ────────────────┼─ memory ─┤
//!        └─ in the stream ─┴─ copied ┘
//! ```
//! The log of the stream stores how many rows it has taken, as the sequence number of a producer.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use windrow_core::{Clock, ErrorKind, OffsetRange, Result};
use windrow_query::shared::Shared;
use windrow_storage::wal::producers::Stamp;
use windrow_stream::caught::caught;
use windrow_stream::log::{Completion, StreamLog};
use windrow_stream::push::PushStream;
use windrow_stream::spill::Spiller;
use windrow_stream::target::Target;

use crate::catalog::{Catalog, Materialized, Object};

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
    spiller: Arc<Spiller>,
    push: Arc<PushStream>,
    target: Target,
    producer: Arc<str>,
    copying: tokio::sync::Mutex<()>,
}

impl Pump {
    /// Creates a pump from an archived view to a stream; `id` identifies the INSERT in the data directory. `None`: the view
    /// is not archived.
    pub(crate) fn new(
        view: &Materialized,
        (push, target): (&Arc<PushStream>, Target),
        id: u64,
    ) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            view: view.name.clone(),
            query: Arc::clone(&view.query),
            log: Arc::clone(&view.log),
            spiller: Arc::clone(view.spiller.as_ref()?),
            push: Arc::clone(push),
            target,
            producer: Stamp::insert(id),
            copying: tokio::sync::Mutex::new(()),
        }))
    }

    /// Copies until the view is dropped or all its rows are copied.
    pub(crate) async fn run(self: Arc<Self>, catalog: Arc<Catalog>, clock: Arc<dyn Clock>) {
        let mut changed = self.log.watch();
        while self.is_wanted(&catalog) {
            changed.mark_unchanged();
            let work = async {
                self.archive().await?;
                self.copy().await
            };
            let copied = caught(|| format!("inserting the rows of \"{}\"", self.view), work).await;
            match copied {
                Ok(()) if self.log.state().ended && self.is_done() => return,
                Ok(()) => {}
                Err(_) if !self.is_wanted(&catalog) => return,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(name = self.view, %error, "the rows of a continuous INSERT wait");
                }
                Err(error) => return self.query.fail(Arc::new(error)),
            }
            if self.is_done() && changed.changed().await.is_err() {
                return;
            }
            clock.sleep(INTERVAL).await;
        }
    }

    /// Archives the rows that the view has now.
    async fn archive(&self) -> Result<()> {
        let by_checkpoint = self.log.completion().is_some_and(Completion::is_by_checkpoint);
        if by_checkpoint && !self.log.state().ended {
            return self.query.checkpoint().await;
        }
        self.spiller.spill_until_stopped().await.map(|_| ())
    }

    fn is_wanted(&self, catalog: &Catalog) -> bool {
        let there = catalog.get(&self.view);
        matches!(there, Some(Object::Materialized(view)) if Arc::ptr_eq(&view.log, &self.log))
    }

    /// Whether the stream has all rows of the view.
    fn is_done(&self) -> bool {
        self.push.taken(&self.producer) >= self.log.state().rows
    }

    /// Copies the archived rows that are not in the stream yet.
    ///
    /// # Errors
    /// When the archive cannot be read, or the stream refuses the rows.
    pub(crate) async fn copy(&self) -> Result<()> {
        let _one_at_a_time = self.copying.lock().await;
        let (Some(archive), _) = self.log.since(0) else { return Ok(()) };
        let mut at = self.push.taken(&self.producer);
        if at >= archive.state().rows {
            return Ok(());
        }
        let all: Vec<usize> = (0..self.log.schema().fields().len()).collect();
        let mut rows = archive.read(at, &all, BATCH_ROWS).await?;
        while let Some(batch) = rows.try_next().await? {
            let end = at + batch.num_rows() as u64;
            let stamp = Stamp::of_rows(&self.producer, OffsetRange::try_new(at, end)?);
            let pushing = self.push.offer(&self.target.fit(&batch)?, Some(stamp)).await?;
            self.push.settled(pushing).await?;
            at = end;
        }
        Ok(())
    }
}
