//! What a statement gives back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use windrow_core::{Error, Result};

use crate::query::shared::Shared;
use crate::session::running::Running;

/// What a statement gives back.
#[derive(Debug)]
pub enum Outcome {
    /// Rows, now or as windows close.
    Rows(ResultStream),
    /// It is done; what was done, for people (`CREATE STREAM`, `INSERT 0 3`).
    Done(String),
}

/// The rows of a query: a stream of Arrow batches that all have [`ResultStream::schema`].
/// Dropping it stops the query.
#[derive(Debug)]
pub struct ResultStream {
    schema: SchemaRef,
    continuous: bool,
    rows: mpsc::Receiver<Result<RecordBatch>>,
    stop: Stop,
    /// The statement that gives them, where somebody keeps account.
    running: Option<Running>,
    over: Option<Over>,
}

/// Completes when the rows are to end, with why.
struct Over(BoxFuture<'static, Error>);

impl std::fmt::Debug for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Over")
    }
}

/// What dropping a result stops.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A task that executes a bounded plan.
    Task(JoinHandle<()>),
    /// A continuous query.
    Query(Arc<Shared>),
}

impl Drop for Stop {
    fn drop(&mut self) {
        match self {
            Self::Task(task) => task.abort(),
            Self::Query(query) => query.cancel(),
        }
    }
}

impl ResultStream {
    pub(crate) fn new(
        schema: SchemaRef,
        continuous: bool,
        rows: mpsc::Receiver<Result<RecordBatch>>,
        stop: Stop,
    ) -> Self {
        Self { schema, continuous, rows, stop, running: None, over: None }
    }

    /// The same rows, counted for a statement.
    /// `over` completes when they are to end, with why.
    pub(super) fn counted(self, running: Running, over: Option<BoxFuture<'static, Error>>) -> Self {
        Self { running: Some(running), over: over.map(Over), ..self }
    }

    /// The columns, known before the first row.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether rows come as windows close (a query with EMIT, SUBSCRIBE).
    pub fn is_continuous(&self) -> bool {
        self.continuous
    }

    /// The number of a continuous query in `windrow.queries`.
    pub fn query_id(&self) -> Option<u64> {
        match &self.stop {
            Stop::Query(query) => Some(query.id),
            Stop::Task(_) => None,
        }
    }

    /// What became of the input rows so far, for a continuous query: late and bad ones.
    pub fn unused_rows(&self) -> Option<UnusedRows> {
        match &self.stop {
            Stop::Query(query) => {
                let total = query.ledger.total();
                Some(UnusedRows { late: total.late, bad: total.bad })
            }
            Stop::Task(_) => None,
        }
    }
}

/// Input rows that did not count, with the tables that hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedRows {
    /// In `windrow.late_rows`.
    pub late: u64,
    /// In `windrow.bad_rows`.
    pub bad: u64,
}

impl Stream for ResultStream {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let over = this.over.as_mut().map(|over| over.0.as_mut().poll(cx));
        let next = match over {
            Some(Poll::Ready(error)) => {
                this.over = None;
                this.rows.close();
                Poll::Ready(Some(Err(error)))
            }
            Some(Poll::Pending) | None => this.rows.poll_recv(cx),
        };
        if let (Some(running), Poll::Ready(next)) = (&this.running, &next) {
            running.note(next.as_ref());
        }
        next
    }
}

/// A result whose rows are all there already.
pub(crate) async fn ready(schema: SchemaRef, rows: Vec<RecordBatch>) -> ResultStream {
    let (sender, receiver) = mpsc::channel(rows.len().max(1));
    let mut rows = futures::stream::iter(rows);
    while let Some(batch) = rows.next().await {
        // The receiver is here, and there is room for every batch.
        drop(sender.try_send(Ok(batch)));
    }
    let done = tokio::spawn(async {});
    ResultStream::new(schema, false, receiver, Stop::Task(done))
}
