//! Rows that come from programs and not from SQL: batch after batch into a stream without connector.
//!
//! ```text
//! batch ─► columns by name, cast ─► generated columns, bad rows ─► write-ahead log ─► settled
//!          └──────────────── on the engine's threads ────────────┘  (or memory)
//! ```
//! Invariants: batches enter in the order in which they are offered, each wholly or not at all; who
//! offers waits while the log's queue is full.

use futures::future::BoxFuture;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use tokio::runtime::Handle;
use windrow_core::{Clock, Error, ErrorKind, Result};
use windrow_storage::wal::producers::Stamp;
use windrow_stream::Feed;
use windrow_stream::push::{PushStream, Pushed, Pushing};
use windrow_stream::target::Target;

use crate::catalog::Catalog;
use crate::session::{AbortOnDrop, Role, Session, insert};

/// The way into a stream for batches that all have the same columns.
#[derive(Debug, Clone)]
pub struct Ingest {
    push: Arc<PushStream>,
    target: Arc<Target>,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    cpu: Handle,
}

/// Which batch of which producer some rows are. A batch that is sent again is recognised by it and
/// not counted again, also after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchId {
    /// The name of the producer, of the sender's choosing: 1 to 256 bytes.
    pub producer: String,
    /// The number of the batch: 1, 2, 3, …
    pub sequence: u64,
}

/// A batch on its way.
#[derive(Debug)]
pub struct Incoming {
    push: Arc<PushStream>,
    pushing: Pushing,
}

impl Session {
    /// Opens a stream without connector for batches with these columns. They are matched with the
    /// stream's by name, and cast as INSERT does; a column that is left out is NULL.
    ///
    /// # Errors
    /// When the user may not write to it, there is no such stream, or the columns do not fit it.
    pub fn ingest(&self, stream: &str, columns: &Schema) -> Result<Ingest> {
        self.access().need(Role::Write, stream)?;
        let (parts, catalog) = (&self.engine.parts, &self.engine.catalog);
        let stream = catalog.stream(stream)?;
        let push = insert::fed_by_inserts(&stream)?;
        let target = Arc::new(Target::by_name(&push, columns)?.in_zone(self.time_zone()));
        Ok(Ingest {
            push,
            target,
            catalog: Arc::clone(catalog),
            clock: Arc::clone(&parts.clock),
            cpu: parts.cpu.clone(),
        })
    }
}

impl Ingest {
    /// Puts rows, as one batch, behind those that were offered before; [`Incoming::settled`] says
    /// what becomes of them. Waits while there is no room.
    ///
    /// # Errors
    /// When the rows do not fit the stream or it is gone; none of them is in the stream then.
    pub fn offer<'a>(
        &'a self,
        rows: Vec<RecordBatch>,
        id: Option<&'a BatchId>,
    ) -> BoxFuture<'a, Result<Incoming>> {
        Box::pin(async move {
            let now = self.clock.now_micros();
            let stamp = id.map(|id| Stamp::of_batch(&id.producer, id.sequence, now)).transpose()?;
            self.check_there()?;
            let (push, target) = (Arc::clone(&self.push), Arc::clone(&self.target));
            let work = async move {
                let rows: Vec<_> =
                    rows.iter().map(|rows| target.fit(rows)).collect::<Result<_>>()?;
                push.offer(&concat_batches(push.physical(), &rows)?, stamp).await
            };
            let pushing = AbortOnDrop(self.cpu.spawn(work)).await?;
            Ok(Incoming { push: Arc::clone(&self.push), pushing })
        })
    }

    /// A stream that was dropped or replaced meanwhile takes no rows.
    fn check_there(&self) -> Result<()> {
        let name = &self.push.name;
        match self.catalog.stream(name)?.feed {
            Feed::Push(ref push) if Arc::ptr_eq(push, &self.push) => Ok(()),
            _ => {
                let message = format!("stream \"{name}\" was replaced while rows came in");
                Err(Error::new(ErrorKind::NotFound, message)
                    .with_hint("Open it again, and send what was not acknowledged."))
            }
        }
    }
}

impl Incoming {
    /// What became of the batch, once it is durable, as far as the stream is.
    ///
    /// # Errors
    /// When it could not be written, or batches of its producer before it are missing; none of its
    /// rows is in the stream then.
    pub fn settled(self) -> BoxFuture<'static, Result<Pushed>> {
        Box::pin(async move { self.push.settled(self.pushing).await })
    }
}

#[cfg(test)]
mod tests;
