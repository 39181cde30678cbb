//! The outcome of a statement: rows or a message.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use windrow_core::{Error, Result, Watermark};
use windrow_query::promise::Promise;
use windrow_query::queue::{RowReceiver, queue};
use windrow_query::shared::{Shared, Status, cancelled};
use windrow_sql::parse::{StatementText, located};
use windrow_stream::caught::stopped;
use windrow_stream::intake::display_micros;
use windrow_stream::reads::ReadProgress;
use windrow_stream::repeated::repeated;

use crate::execution::first_rows::FirstRows;
use crate::execution::running::Running;
use crate::execution::skipped::SkippedRows;

/// The outcome of a statement.
#[derive(Debug)]
pub enum Outcome {
    /// It returns rows: the current ones, or new ones as windows close.
    Rows(ResultStream),
    /// It is done and returns no rows.
    Done(Done),
}

/// The outcome of a statement that returns no rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The command tag with remarks: `CREATE STREAM`, `INSERT 0 3`.
    pub said: String,
    /// Number of rows that an INSERT has inserted; `None` for other statements.
    pub rows: Option<u64>,
}

impl<T: Into<String>> From<T> for Done {
    fn from(said: T) -> Self {
        Self { said: said.into(), rows: None }
    }
}

/// The rows of a statement: a stream of Arrow batches with the schema [`ResultStream::schema`]. Dropping it stops the query.
#[derive(Debug)]
pub struct ResultStream {
    schema: SchemaRef,
    following: Option<Following>,
    rows: RowReceiver,
    stop: Stop,
    /// The statement, on a server.
    running: Option<Running>,
    over: Option<Over>,
    /// The late and bad rows that a bounded statement skips.
    skipped: Option<Arc<SkippedRows>>,
    /// Whether the end, or an error, has been returned.
    is_over: bool,
    /// Which of the rows are returned, if not all.
    first: Option<FirstRows>,
    /// The text of the statement, for the places of errors.
    source: Option<Box<StatementText>>,
}

/// Completes when the rows must end, with the reason.
struct Over(BoxFuture<'static, Error>);

impl std::fmt::Debug for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Over")
    }
}

/// The work that is stopped when the rows are dropped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A task that executes a bounded plan.
    Task(JoinHandle<()>),
    /// A continuous query.
    Query(Arc<Shared>),
}

impl Stop {
    /// Returns how the work ended, once its channel is closed. That alone is no proper end: a panic and the end of the engine
    /// close it too.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self {
            Self::Task(task) => Pin::new(task)
                .poll(cx)
                .map(|joined| joined.map_err(|end| stopped("the statement", end))),
            Self::Query(query) => Poll::Ready(match query.status() {
                Status::Finished => Ok(()),
                Status::Failed(error) => Err(repeated(&error)),
                Status::Cancelled => Err(cancelled()),
                Status::Running => {
                    Err(Error::internal("the query returns no more rows and has not ended"))
                }
            }),
        }
    }
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
    /// Creates the rows of a statement that come through a queue. `following`: of a continuous query.
    pub(crate) fn new(
        schema: SchemaRef,
        following: Option<Following>,
        rows: RowReceiver,
        stop: Stop,
    ) -> Self {
        Self {
            schema,
            following,
            rows,
            stop,
            running: None,
            over: None,
            skipped: None,
            is_over: false,
            first: None,
            source: None,
        }
    }

    /// Returns only some of the rows. The query ends after the last of them.
    pub(crate) fn only(self, first: Option<FirstRows>) -> Self {
        Self { first, ..self }
    }

    /// Counts the rows for a running statement. `over` completes when they must end, with the reason.
    pub(super) fn counted(self, running: Running, over: Option<BoxFuture<'static, Error>>) -> Self {
        Self { running: Some(running), over: over.map(Over), ..self }
    }

    /// Reports late and bad rows that the statement skips.
    pub(crate) fn skipping(self, skipped: &Arc<SkippedRows>) -> Self {
        Self { skipped: Some(Arc::clone(skipped)), ..self }
    }

    /// Adds places in the statement to errors.
    pub(crate) fn located_in(self, source: StatementText) -> Self {
        Self { source: Some(Box::new(source)), ..self }
    }

    /// Returns the columns, which are known before the first row.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether rows come as windows close (a query with EMIT, SUBSCRIBE).
    pub fn is_continuous(&self) -> bool {
        self.following.is_some()
    }

    /// Returns the position of a continuous query after the rows that were read; `None` for a bounded one.
    pub fn position(&mut self) -> Option<Position> {
        self.following.as_mut().map(Following::position)
    }

    /// Returns the sequence number before the first row of a continuous query, or after the snapshot that it begins with;
    /// 0 for a bounded one.
    pub fn first(&self) -> u64 {
        self.following.as_ref().map_or(0, |following| following.first)
    }

    /// Returns the id of a continuous query in `windrow.queries`; `None` for others.
    pub fn query_id(&self) -> Option<u64> {
        match &self.stop {
            Stop::Query(query) => Some(query.id),
            Stop::Task(_) => None,
        }
    }

    /// Returns how much of its connectors a bounded statement has read; `None` for a continuous query.
    pub fn read_progress(&self) -> Option<ReadProgress> {
        match &self.stop {
            Stop::Query(_) => None,
            Stop::Task(_) => self.skipped.as_ref().map(|skipped| skipped.read_progress()),
        }
    }

    /// Returns how many rows have been excluded so far because they were late or bad: of a continuous query, rows of its
    /// inputs; of a bounded one, rows of the connectors and views that it reads. `None`: not counted.
    pub fn unused_rows(&self) -> Option<UnusedRows> {
        match &self.stop {
            Stop::Query(query) => {
                let total = query.ledger.total();
                Some(UnusedRows { late: total.late, bad: total.bad })
            }
            Stop::Task(_) => self.skipped.as_ref().map(|skipped| skipped.total()),
        }
    }
}

/// The position of a reader in the rows of a continuous query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The sequence number of the last row that was read, counted from 1: in the view of a subscription, which
    /// `SUBSCRIBE … AFTER` resumes from; otherwise in the result. `None`: within a snapshot, which cannot be resumed.
    pub sequence: Option<u64>,
    /// The watermark in µs since the Unix epoch: no later row has an event time below it. `None`: none yet.
    pub watermark_micros: Option<i64>,
    /// Whether all inputs have ended: no row follows.
    pub is_complete: bool,
}

impl Position {
    /// Returns the sequence number of the row that is `left` rows before the one that was read last; `first`: as in
    /// [`ResultStream::first`].
    pub fn before(&self, left: u64, first: u64) -> Option<u64> {
        self.sequence?.checked_sub(left).filter(|sequence| *sequence >= first)
    }
}

/// Tracks the position of a reader of a continuous query.
#[derive(Debug)]
pub(crate) struct Following {
    /// Number of rows before the first one.
    first: u64,
    /// The number of rows of a snapshot, which come before the first one.
    snapshot: u64,
    received: u64,
    promise: Arc<Promise>,
    watermark: Watermark,
    /// The type of the event time, which determines the unit of the watermark.
    time: Option<DataType>,
}

impl Following {
    /// Starts before the row with the offset `first`. `time`: the type of the event time.
    pub(crate) fn new(first: u64, time: Option<DataType>) -> Self {
        let (promise, watermark) = (Arc::default(), Watermark::NONE);
        Self { first, snapshot: 0, received: 0, promise, watermark, time }
    }

    /// Adds a snapshot of `rows` rows that comes first.
    pub(crate) fn after_snapshot(self, rows: u64) -> Self {
        Self { snapshot: rows, ..self }
    }

    /// Returns the promise in which the sender of the rows records watermarks.
    pub(crate) fn promise(&self) -> Arc<Promise> {
        Arc::clone(&self.promise)
    }

    fn position(&mut self) -> Position {
        if let Some(watermark) = self.promise.after(self.received) {
            self.watermark = self.watermark.advance(watermark);
        }
        let time = self.time.as_ref();
        Position {
            sequence: self.received.checked_sub(self.snapshot).map(|rows| self.first + rows),
            watermark_micros: time.and_then(|t| display_micros(self.watermark.ticks(), t)),
            is_complete: self.watermark == Watermark::END,
        }
    }
}

/// Numbers of input rows that were excluded, with the tables that hold the rows.
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
        loop {
            if this.first.is_some_and(FirstRows::is_done) {
                this.end();
                return Poll::Ready(None);
            }
            let mut next = std::task::ready!(this.poll_any(cx));
            if let (Some(Ok(batch)), Some(first)) = (&mut next, &mut this.first) {
                let taken = first.take(batch);
                if taken.num_rows() == 0 && batch.num_rows() > 0 {
                    continue;
                }
                *batch = taken;
            }
            if let Some(running) = &this.running {
                running.note(next.as_ref());
            }
            return Poll::Ready(next);
        }
    }
}

impl ResultStream {
    /// Ends the rows before the query ends.
    fn end(&mut self) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        self.rows.close();
        if let Stop::Query(query) = &self.stop {
            query.cancel();
        }
        if let Some(running) = &self.running {
            running.note(None);
        }
    }

    /// Returns the next rows of the query, whether or not they are returned.
    fn poll_any(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        let this = self;
        let over = this.over.as_mut().map(|over| over.0.as_mut().poll(cx));
        let next = match over {
            Some(Poll::Ready(error)) => {
                this.over = None;
                this.rows.close();
                Poll::Ready(Some(Err(error)))
            }
            Some(Poll::Pending) | None => this.rows.poll_recv(cx),
        };
        let next = match next {
            Poll::Ready(None) if !this.is_over => {
                std::task::ready!(this.stop.poll_end(cx)).err().map(Err)
            }
            Poll::Ready(next) => next,
            Poll::Pending => return Poll::Pending,
        };
        this.is_over |= !matches!(next, Some(Ok(_)));
        let next = match (next, &this.source) {
            (Some(Err(error)), Some(source)) => Some(Err(located(error, source))),
            (next, _) => next,
        };
        let next = Poll::Ready(next);
        if let (Poll::Ready(Some(Ok(batch))), Some(following)) = (&next, &mut this.following) {
            following.received += batch.num_rows() as u64;
        }
        next
    }
}

/// Returns rows that exist already as the rows of a statement.
pub(crate) async fn existing_rows(schema: SchemaRef, rows: Vec<RecordBatch>) -> ResultStream {
    let (sender, receiver) = queue(rows.len().max(1), Some(usize::MAX));
    let mut rows = futures::stream::iter(rows);
    while let Some(batch) = rows.next().await {
        // The receiver exists, and the queue has room for every batch.
        drop(sender.send(Ok(batch)).await);
    }
    let done = tokio::spawn(async {});
    ResultStream::new(schema, None, receiver, Stop::Task(done))
}
