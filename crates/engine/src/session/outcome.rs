//! What a statement gives back.

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
use windrow_sql::parse::{Parsed, StatementText, located};
use windrow_stream::caught::stopped;
use windrow_stream::intake::display_micros;
use windrow_stream::repeated::repeated;

use crate::session::running::Running;
use crate::session::unseen::Unseen;

/// What a statement gives back.
#[derive(Debug)]
pub enum Outcome {
    /// Rows, now or as windows close.
    Rows(ResultStream),
    /// It is done.
    Done(Done),
}

/// What a statement without rows did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// For people: `CREATE STREAM`, `INSERT 0 3`.
    pub said: String,
    /// How many rows were inserted, where that is what it does.
    pub rows: Option<u64>,
}

impl<T: Into<String>> From<T> for Done {
    fn from(said: T) -> Self {
        Self { said: said.into(), rows: None }
    }
}

/// The rows of a query: a stream of Arrow batches that all have [`ResultStream::schema`].
/// Dropping it stops the query.
#[derive(Debug)]
pub struct ResultStream {
    schema: SchemaRef,
    following: Option<Following>,
    rows: RowReceiver,
    stop: Stop,
    /// The statement that gives them, where somebody keeps account.
    running: Option<Running>,
    over: Option<Over>,
    /// What a bounded statement does not see.
    unseen: Option<Arc<Unseen>>,
    /// Nothing more is to be told: the end, or an error, has been.
    told: bool,
    /// The text of the statement, for the places of errors.
    source: Option<Box<StatementText>>,
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

impl Stop {
    /// How the work ended, once its channel is closed: that alone is no end, a panic or the end of the
    /// engine closes it too.
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
                    Err(Error::internal("the query gives no more rows and has not ended"))
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
            unseen: None,
            told: false,
            source: None,
        }
    }

    /// The same rows, counted for a statement.
    /// `over` completes when they are to end, with why.
    pub(super) fn counted(self, running: Running, over: Option<BoxFuture<'static, Error>>) -> Self {
        Self { running: Some(running), over: over.map(Over), ..self }
    }

    /// The same rows of a bounded statement, which does not see some others.
    pub(super) fn not_seeing(self, unseen: &Arc<Unseen>) -> Self {
        Self { unseen: Some(Arc::clone(unseen)), ..self }
    }

    /// The same rows; their errors get a place in the statement.
    pub(super) fn located_in(self, statement: &Parsed) -> Self {
        Self { source: Some(Box::new(statement.source())), ..self }
    }

    /// The columns, known before the first row.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether rows come as windows close (a query with EMIT, SUBSCRIBE).
    pub fn is_continuous(&self) -> bool {
        self.following.is_some()
    }

    /// How far a continuous query has come with what was read of it; `None` for a bounded one.
    pub fn position(&mut self) -> Option<Position> {
        self.following.as_mut().map(Following::position)
    }

    /// The number of a continuous query in `windrow.queries`.
    pub fn query_id(&self) -> Option<u64> {
        match &self.stop {
            Stop::Query(query) => Some(query.id),
            Stop::Task(_) => None,
        }
    }

    /// Rows that are not among these so far because they were late or bad: of the input of a continuous query; of a bounded
    /// one, those of the connectors and views that it reads.
    pub fn unused_rows(&self) -> Option<UnusedRows> {
        match &self.stop {
            Stop::Query(query) => {
                let total = query.ledger.total();
                Some(UnusedRows { late: total.late, bad: total.bad })
            }
            Stop::Task(_) => self.unseen.as_ref().map(|unseen| unseen.total()),
        }
    }
}

/// How far the reader of a continuous query has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The number of the last row that was read, counted from 1: of the view where one is
    /// subscribed to, so that `AFTER` it goes on behind it; of the result otherwise.
    pub sequence: u64,
    /// No later row has an event time below it, in µs since the epoch; `None`: nothing is known.
    pub watermark_micros: Option<i64>,
    /// All inputs have ended: no later row comes.
    pub is_complete: bool,
}

/// The reader's side of a continuous query.
#[derive(Debug)]
pub(crate) struct Following {
    /// Rows before the first one.
    first: u64,
    received: u64,
    promise: Arc<Promise>,
    watermark: Watermark,
    /// The type of the event time, which tells the unit of the watermark.
    time: Option<DataType>,
}

impl Following {
    /// Before the row with the offset `first`.
    pub(crate) fn new(first: u64, time: Option<DataType>) -> Self {
        let (promise, watermark) = (Arc::default(), Watermark::NONE);
        Self { first, received: 0, promise, watermark, time }
    }

    /// For who gives the rows.
    pub(crate) fn promise(&self) -> Arc<Promise> {
        Arc::clone(&self.promise)
    }

    fn position(&mut self) -> Position {
        if let Some(watermark) = self.promise.after(self.received) {
            self.watermark = self.watermark.advance(watermark);
        }
        let time = self.time.as_ref();
        Position {
            sequence: self.first + self.received,
            watermark_micros: time.and_then(|t| display_micros(self.watermark.ticks(), t)),
            is_complete: self.watermark == Watermark::END,
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
        let next = match next {
            Poll::Ready(None) if !this.told => {
                std::task::ready!(this.stop.poll_end(cx)).err().map(Err)
            }
            Poll::Ready(next) => next,
            Poll::Pending => return Poll::Pending,
        };
        this.told |= !matches!(next, Some(Ok(_)));
        let next = match (next, &this.source) {
            (Some(Err(error)), Some(source)) => Some(Err(located(error, source))),
            (next, _) => next,
        };
        let next = Poll::Ready(next);
        if let (Some(running), Poll::Ready(next)) = (&this.running, &next) {
            running.note(next.as_ref());
        }
        if let (Poll::Ready(Some(Ok(batch))), Some(following)) = (&next, &mut this.following) {
            following.received += batch.num_rows() as u64;
        }
        next
    }
}

/// A result whose rows are all there already.
pub(crate) async fn ready(schema: SchemaRef, rows: Vec<RecordBatch>) -> ResultStream {
    let (sender, receiver) = queue(rows.len().max(1), Some(usize::MAX));
    let mut rows = futures::stream::iter(rows);
    while let Some(batch) = rows.next().await {
        // The receiver is here, and there is room for every batch.
        drop(sender.send(Ok(batch)).await);
    }
    let done = tokio::spawn(async {});
    ResultStream::new(schema, None, receiver, Stop::Task(done))
}
