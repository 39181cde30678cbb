//! The destination of the rows of a continuous query.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::record_batch::RecordBatch;
use windrow_core::{Behind, Clock, Error, ErrorKind, Result, Watermark};
use windrow_storage::checkpoint::OperatorCut;
use windrow_stream::answer::LiveAnswer;
use windrow_stream::log::{Completion, LogEnd, Room, StreamLog};
use windrow_stream::push::PushStream;
use windrow_stream::target::Target;

use crate::promise::Promise;
use crate::queue::RowSender;

/// The destination of the rows of a continuous query.
#[derive(Debug, Clone)]
pub enum Output {
    /// A client; the query waits while its queue is full.
    Client {
        /// Its queue.
        rows: RowSender,
        /// The watermark up to which the rows are complete.
        promise: Arc<Promise>,
    },
    /// A materialized view, which stores the rows.
    View {
        /// Its log.
        log: Arc<StreamLog>,
        /// For an archived view: the size of the tail at which the query waits. The rows of a window are then sorted,
        /// so that their offsets are the same when they are recomputed after a crash.
        room: Option<Room>,
        /// The number of the next rows that are archived already: they are recomputed and not appended.
        archived_rows: Arc<AtomicU64>,
        /// The current rows of a view with an updating result.
        answer: Option<Arc<LiveAnswer>>,
    },
    /// Another stream (`INSERT INTO s SELECT … EMIT`).
    Stream {
        /// The stream.
        stream: Arc<PushStream>,
        /// The mapping of the query's columns to the stream's.
        target: Arc<Target>,
    },
}

impl Output {
    /// Sends rows, in order.
    ///
    /// # Errors
    /// `Cancelled` when the client is gone; those of the log or stream otherwise.
    pub async fn send(&self, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        match self {
            Self::View { log, answer, .. } => {
                if let Some(answer) = answer {
                    answer.stage(rows.clone());
                }
                log.append(rows).map(|_| ())
            }
            Self::Client { rows: client, promise } => {
                promise.count(rows.num_rows());
                client.send(Ok(rows)).await.map_err(|closed| {
                    Error::new(ErrorKind::Cancelled, "the client is gone").with_source(closed)
                })
            }
            Self::Stream { stream, target } => stream.append(&target.fit(&rows)?).await.map(|_| ()),
        }
    }

    /// Sends rows of a stateless query, some of which arrived `behind` the watermark. Returns the number of new rows:
    /// the others are archived already.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn pass(&self, rows: RecordBatch, behind: &[Behind]) -> Result<usize> {
        let Self::View { log, archived_rows, .. } = self else {
            let count = rows.num_rows();
            return self.send(rows).await.map(|()| count);
        };
        let left = archived_rows.load(Ordering::Relaxed);
        if left == 0 {
            let count = rows.num_rows();
            return log.append_behind(rows, behind).map(|_| count);
        }
        // Rows of a fixed order come from one worker at a time.
        log.note_behind(log.state().rows - left, behind);
        let gone = rows.num_rows().min(usize::try_from(left).unwrap_or(usize::MAX));
        archived_rows.store(left - gone as u64, Ordering::Relaxed);
        let new = rows.slice(gone, rows.num_rows() - gone);
        let count = new.num_rows();
        log.append(new).map(|_| count)
    }

    /// Whether readers of the rows are informed which of them arrived behind the watermark.
    pub(crate) fn tells_behind(&self) -> bool {
        matches!(self, Self::View { .. })
    }

    /// The end of the rows returned so far, for a view whose rows are complete by checkpoints; `None` for other
    /// outputs.
    pub fn given(&self) -> Option<LogEnd> {
        let Self::View { log, archived_rows, .. } = self else { return None };
        log.completion().is_some_and(Completion::is_by_checkpoint).then(|| {
            let given = log.given();
            let again = archived_rows.load(Ordering::Relaxed);
            LogEnd { rows: given.rows.saturating_sub(again), ..given }
        })
    }

    /// Sends all rows of windows that closed together; `in_order`: they need not be sorted.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn send_closed(&self, rows: Vec<RecordBatch>, in_order: bool) -> Result<()> {
        if let (Self::View { room: Some(_), .. }, false) = (self, in_order) {
            return match ordered(&rows)? {
                Some(rows) => self.send(rows).await,
                None => Ok(()),
            };
        }
        for rows in rows {
            self.send(rows).await?;
        }
        Ok(())
    }

    /// Makes the changes since the last call visible together.
    ///
    /// # Errors
    /// Internal when the changes do not belong to the view.
    pub(crate) fn commit(&self) -> Result<()> {
        match self {
            Self::View { log, answer: Some(answer), .. } => answer.commit(log),
            Self::View { .. } | Self::Client { .. } | Self::Stream { .. } => Ok(()),
        }
    }

    /// Whether it has current rows, because its result is updating.
    pub(crate) fn has_current_rows(&self) -> bool {
        matches!(self, Self::View { answer: Some(_), .. })
    }

    /// Returns what a checkpoint needs of the current rows of a view with an updating result, as an operator behind those
    /// of the query; `None` for other outputs.
    ///
    /// # Errors
    /// Internal during an emission.
    pub(crate) fn cut(&self) -> Result<Option<OperatorCut>> {
        let Self::View { answer: Some(answer), .. } = self else { return Ok(None) };
        Ok(Some(OperatorCut { watermark: Watermark::NONE, state: answer.cut()? }))
    }

    /// Promises that later rows have no event time below `watermark`.
    pub fn advance(&self, watermark: Watermark) {
        match self {
            Self::View { log, .. } if watermark != Watermark::END => log.advance(watermark),
            Self::Client { promise, .. } => promise.advance(watermark),
            Self::View { .. } | Self::Stream { .. } => {}
        }
    }

    /// Informs the readers of a view whether it is idle, because all its inputs are.
    pub fn rest(&self, rests: bool) {
        if let Self::View { log, .. } = self {
            log.rest(rests);
        }
    }

    /// Waits until few enough rows of a view are not archived, and until its near followers have caught up.
    pub(crate) async fn wait_for_room(&self, clock: &dyn Clock) {
        let Self::View { log, room, .. } = self else { return };
        if let Some(room) = room {
            log.wait_for_room(*room).await;
        }
        log.wait_for_followers(clock).await;
    }

    /// Whether the rows of a window are sorted.
    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self, Self::View { room: Some(_), .. })
    }

    /// Ends a view's log, when all rows have been sent. A client's queue ends when the query drops it; a stream
    /// continues.
    pub fn end(&self) {
        match self {
            Self::View { log, .. } => log.end(),
            Self::Client { .. } | Self::Stream { .. } => {}
        }
    }

    /// Sends a client the error with which the query has failed.
    pub async fn fail(&self, error: Error) {
        match self {
            // Fails only when the client is gone.
            Self::Client { rows: client, .. } => drop(client.send(Err(error)).await),
            // The readers of a view have the error already.
            Self::View { .. } | Self::Stream { .. } => {}
        }
    }
}

/// Sorts rows by all columns that can be compared, into one batch; `None` when there are none.
fn ordered(rows: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    let Some(first) = rows.first() else { return Ok(None) };
    let rows = concat_batches(&first.schema(), rows)?;
    if rows.num_rows() < 2 {
        return Ok(Some(rows));
    }
    let columns: Vec<SortColumn> = rows
        .columns()
        .iter()
        .filter(|c| !c.data_type().is_nested())
        .map(|c| SortColumn { values: Arc::clone(c), options: None })
        .collect();
    if columns.is_empty() {
        return Ok(Some(rows));
    }
    let order = lexsort_to_indices(&columns, None)?;
    Ok(Some(take_record_batch(&rows, &order)?))
}
