//! Ingest: rows from programs instead of SQL, batch by batch, into a stream without connector.
//!
//! ```text
//! batch ─► columns by name, cast ─► generated columns, bad rows ─► write-ahead log ─► settled
//!          └──────────────── on the engine's threads ────────────┘  (or memory)
//! ```
//! Invariants: batches enter in the order in which they are offered, each wholly or not at all; the caller waits while the
//! queue of the log is full.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use windrow_connectors::{RecordFormat, decode_records};
use windrow_core::{BadRow, Clock, Error, ErrorKind, Result};
use windrow_storage::wal::producers::Stamp;
use windrow_stream::push::{PushStream, Pushed, Pushing, Records};
use windrow_stream::target::Target;

use crate::access::Role;
use crate::catalog::Catalog;
use crate::execution::task::AbortOnDrop;
use crate::session::Session;
use crate::statements::insert::accepts_inserts;

/// Inserts batches with the same columns into a stream.
#[derive(Debug, Clone)]
pub struct Ingest {
    push: Arc<PushStream>,
    target: Arc<Target>,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    cpu: Handle,
}

/// Identifies a batch. A batch that is sent again is recognised and not inserted again, even after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchId {
    /// The name of the producer, of the sender's choosing: 1 to 256 bytes.
    pub producer: String,
    /// The number of the batch: 1, 2, 3, …
    pub sequence: u64,
}

/// A batch that is being inserted.
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
        let cx = self.statement_context();
        let (parts, catalog) = (&cx.instance.parts, cx.catalog());
        let stream = catalog.stream(stream)?;
        let push = accepts_inserts(&stream)?;
        let target = Arc::new(Target::by_name(&push, columns)?.in_zone(cx.insert_zone()));
        Ok(Ingest {
            push,
            target,
            catalog: Arc::clone(catalog),
            clock: Arc::clone(&parts.clock),
            cpu: parts.cpu.clone(),
        })
    }
}

impl Session {
    /// Checks that records can be written to a stream, before they are there.
    ///
    /// # Errors
    /// When the user may not write to it, there is no such stream, or it has a connector.
    pub fn accepts_records(&self, stream: &str) -> Result<()> {
        self.push_stream(stream).map(|_| ())
    }

    /// Decodes records and appends them as one batch, as [`Ingest::offer`] does. A record that cannot be decoded is a
    /// bad row; `on_bad_row` of the stream does not apply.
    ///
    /// # Errors
    /// As [`accepts_records`](Self::accepts_records); when the text cannot be divided into records; when a row does not
    /// fit the stream. Then none of them is in the stream.
    pub async fn ingest_records(
        &self,
        stream: &str,
        format: RecordFormat,
        text: Bytes,
        id: Option<&BatchId>,
    ) -> Result<Incoming> {
        let push = self.push_stream(stream)?;
        let cx = self.statement_context();
        let parts = &cx.instance.parts;
        let now = parts.clock.now_micros();
        let stamp = id.map(|id| Stamp::of_batch(&id.producer, id.sequence, now)).transpose()?;
        let zone = cx.insert_zone();
        let work = {
            let push = Arc::clone(&push);
            async move {
                let decoded = decode_records(&text, format, &push.physical())?;
                let target = Target::by_name(&push, &decoded.rows.schema())?.in_zone(zone);
                let rows = target.fit(&decoded.rows)?;
                let (numbers, bad) = (Some(decoded.numbers), decoded.bad);
                let records = Records { numbers, bad, count: decoded.count };
                push.offer_decoded(&rows, records, stamp).await
            }
        };
        let pushing = AbortOnDrop(parts.cpu.spawn(work)).await?;
        Ok(Incoming { push, pushing })
    }

    fn push_stream(&self, stream: &str) -> Result<Arc<PushStream>> {
        self.access().need(Role::Write, stream)?;
        let stream = self.statement_context().catalog().stream(stream)?;
        accepts_inserts(&stream)
    }
}

impl Ingest {
    /// Appends rows as one batch, after those that were offered before; [`Incoming::settled`] returns the result. Waits
    /// while the queue is full.
    ///
    /// # Errors
    /// When the rows do not fit the stream or it was dropped; then none of them is in the stream.
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
                let rows = concat_batches(target.schema(), &rows)?;
                push.check(&rows)?;
                push.offer(&rows, stamp).await
            };
            let pushing = AbortOnDrop(self.cpu.spawn(work)).await?;
            Ok(Incoming { push: Arc::clone(&self.push), pushing })
        })
    }

    /// Checks that the stream has not been dropped or replaced.
    fn check_there(&self) -> Result<()> {
        let name = &self.push.name;
        match self.catalog.stream(name)?.push() {
            Some(push) if Arc::ptr_eq(push, &self.push) => Ok(()),
            _ => {
                let message = format!("stream \"{name}\" was replaced while rows came in");
                Err(Error::new(ErrorKind::NotFound, message)
                    .with_hint("Open it again, and send what was not acknowledged."))
            }
        }
    }
}

impl Incoming {
    /// The bad rows, each with the number of its record in the batch (from 0) as its offset.
    pub fn bad(&self) -> Vec<BadRow> {
        self.pushing.bad()
    }

    /// Waits until the batch is as durable as the stream is, and returns the outcome.
    ///
    /// # Errors
    /// When it could not be written, or earlier batches of its producer are missing; then none of its rows is in the stream.
    pub fn settled(self) -> BoxFuture<'static, Result<Pushed>> {
        Box::pin(async move { self.push.settled(self.pushing).await })
    }
}

#[cfg(test)]
mod tests;
