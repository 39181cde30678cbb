//! Where the rows of a continuous query go.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use tokio::sync::mpsc;
use windrow_core::{Error, ErrorKind, Result, Watermark};

use crate::session::insert::Target;
use crate::stream::log::MemoryLog;
use crate::stream::push::PushStream;

/// The end of a continuous query.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// A client that reads as fast as it can; the query waits for it.
    Client(mpsc::Sender<Result<RecordBatch>>),
    /// A materialized view: finished windows stay here.
    View(Arc<MemoryLog>),
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
    pub(crate) async fn send(&self, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        match self {
            Self::Client(client) => client.send(Ok(rows)).await.map_err(|closed| {
                Error::new(ErrorKind::Cancelled, "the client has gone").with_source(closed)
            }),
            Self::View(log) => log.append(rows).map(|_| ()),
            Self::Stream { stream, target } => stream.append(&target.fit(&rows)?).map(|_| ()),
        }
    }

    /// Promises that later rows have no event time below `watermark`.
    pub(crate) fn advance(&self, watermark: Watermark) {
        match self {
            Self::View(log) if watermark != Watermark::END => log.advance(watermark),
            Self::View(_) | Self::Client(_) | Self::Stream { .. } => {}
        }
    }

    /// All rows have been sent. A client's channel ends when the query drops it; a stream lives
    /// on.
    pub(crate) fn end(&self) {
        match self {
            Self::View(log) => log.end(),
            Self::Client(_) | Self::Stream { .. } => {}
        }
    }

    /// The query has failed.
    pub(crate) async fn fail(&self, error: Error) {
        match self {
            // A client that is gone needs no error.
            Self::Client(client) => drop(client.send(Err(error)).await),
            Self::View(_) | Self::Stream { .. } => {}
        }
    }
}
