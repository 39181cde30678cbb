//! Where the rows of a continuous query go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::record_batch::RecordBatch;
use windrow_core::{Behind, Clock, Error, ErrorKind, Result, Watermark};
use windrow_stream::log::{Completion, LogEnd, Room, StreamLog};
use windrow_stream::push::PushStream;
use windrow_stream::target::Target;

use crate::promise::Promise;
use crate::queue::RowSender;

/// The end of a continuous query.
#[derive(Debug, Clone)]
pub enum Output {
    /// A client that reads as fast as it can; the query waits for it.
    Client {
        /// Its queue.
        rows: RowSender,
        /// The watermark that goes with the rows.
        promise: Arc<Promise>,
    },
    /// A materialized view: finished windows stay here.
    View {
        /// Its log.
        log: Arc<StreamLog>,
        /// The view is archived, and waits while more than that is not yet. The
        /// rows of a window then come in one order, whatever the threads, so that their offsets
        /// are the same when the query is run again after a crash.
        room: Option<Room>,
        /// Number of the next rows that are in the archive already: they are recomputed.
        archived_rows: Arc<AtomicU64>,
    },
    /// Another stream (`INSERT INTO s SELECT … EMIT`).
    Stream {
        /// Which.
        stream: Arc<PushStream>,
        /// How the columns fit.
        target: Arc<Target>,
    },
}

impl Output {
    /// Hands on rows, in order.
    ///
    /// # Errors
    /// `Cancelled` when the client is gone; what the log says otherwise.
    pub async fn send(&self, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        match self {
            Self::View { log, .. } => log.append(rows).map(|_| ()),
            Self::Client { rows: client, promise } => {
                promise.count(rows.num_rows());
                client.send(Ok(rows)).await.map_err(|closed| {
                    Error::new(ErrorKind::Cancelled, "the client has gone").with_source(closed)
                })
            }
            Self::Stream { stream, target } => stream.append(&target.fit(&rows)?).await.map(|_| ()),
        }
    }

    /// Hands on rows that passed one by one, some of which came `behind` the watermark. Returns how
    /// many of them are new: the archive may have some already.
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
        // Rows that come in one order come from one worker at a time.
        log.note_behind(log.state().rows - left, behind);
        let gone = rows.num_rows().min(usize::try_from(left).unwrap_or(usize::MAX));
        archived_rows.store(left - gone as u64, Ordering::Relaxed);
        let new = rows.slice(gone, rows.num_rows() - gone);
        let count = new.num_rows();
        log.append(new).map(|_| count)
    }

    /// Whether readers of the rows learn which of them came behind the watermark.
    pub(crate) fn tells_behind(&self) -> bool {
        matches!(self, Self::View { .. })
    }

    /// The end of what was returned so far, for a view that is archived by it.
    pub fn given(&self) -> Option<LogEnd> {
        let Self::View { log, archived_rows, .. } = self else { return None };
        log.completion().is_some_and(Completion::is_by_checkpoint).then(|| {
            let given = log.given();
            let again = archived_rows.load(Ordering::Relaxed);
            LogEnd { rows: given.rows.saturating_sub(again), ..given }
        })
    }

    /// Hands on all rows of the windows that closed together; `in_order`: as they are to stay.
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

    /// Promises that later rows have no event time below `watermark`.
    pub fn advance(&self, watermark: Watermark) {
        match self {
            Self::View { log, .. } if watermark != Watermark::END => log.advance(watermark),
            Self::Client { promise, .. } => promise.tell(watermark),
            Self::View { .. } | Self::Stream { .. } => {}
        }
    }

    /// Tells whether there is nothing to come for now, because all that it is made of is idle.
    pub fn rest(&self, rests: bool) {
        if let Self::View { log, .. } = self {
            log.rest(rests);
        }
    }

    /// Waits until the archive has taken in enough of what was returned, and readers that follow a view closely
    /// have read enough of it.
    pub(crate) async fn wait_for_room(&self, clock: &dyn Clock) {
        let Self::View { log, room, .. } = self else { return };
        if let Some(room) = room {
            log.wait_for_room(*room).await;
        }
        log.wait_for_followers(clock).await;
    }

    /// Whether the rows of a window are put into one order.
    pub(crate) fn is_ordered(&self) -> bool {
        matches!(self, Self::View { room: Some(_), .. })
    }

    /// All rows have been sent. A client's channel ends when the query drops it; a stream lives
    /// on.
    pub fn end(&self) {
        match self {
            Self::View { log, .. } => log.end(),
            Self::Client { .. } | Self::Stream { .. } => {}
        }
    }

    /// The query has failed.
    pub async fn fail(&self, error: Error) {
        match self {
            // A client that is gone needs no error.
            Self::Client { rows: client, .. } => drop(client.send(Err(error)).await),
            // The readers of a view have the error already.
            Self::View { .. } | Self::Stream { .. } => {}
        }
    }
}

/// The rows sorted by all columns that can be compared, in one batch; `None` when there are none.
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
