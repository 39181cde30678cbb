//! The way of rows to one reader: as many batches as a query may be ahead, and so many bytes.
//!
//! Invariant: there are at most as many bytes on the way as the queue may hold, or one batch.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::record_batch::RecordBatch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use windrow_core::Result;

use windrow_core::size::bytes_of;

/// Bytes of a queue where there is no limit of memory.
const QUEUE_BYTES: usize = 64 << 20;
/// What bytes are counted in.
const UNIT: usize = 1 << 10;

/// The end that rows are given to.
#[derive(Debug, Clone)]
pub struct RowSender {
    sender: mpsc::Sender<Sent>,
    room: Arc<Semaphore>,
    units: u32,
}

/// The end that rows are read from.
#[derive(Debug)]
pub struct RowReceiver(mpsc::Receiver<Sent>);

#[derive(Debug)]
struct Sent {
    rows: Result<RecordBatch>,
    _room: Option<OwnedSemaphorePermit>,
}

/// The reader is gone.
#[derive(Debug)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the rows")
    }
}

impl std::error::Error for Gone {}

/// A queue of so many batches and bytes (`None`: some).
pub fn queue(batches: usize, bytes: Option<usize>) -> (RowSender, RowReceiver) {
    let (sender, receiver) = mpsc::channel(batches);
    let units = u32::try_from(bytes.unwrap_or(QUEUE_BYTES) / UNIT).unwrap_or(u32::MAX).max(1);
    let room = Arc::new(Semaphore::new(units as usize));
    (RowSender { sender, room, units }, RowReceiver(receiver))
}

impl RowSender {
    /// Waits until there is room, then passes on rows, or the error instead of them.
    pub async fn send(&self, rows: Result<RecordBatch>) -> Result<(), Gone> {
        let room = match &rows {
            Ok(rows) => {
                let units = u32::try_from(bytes_of(rows) / UNIT).unwrap_or(u32::MAX);
                let room = Arc::clone(&self.room).acquire_many_owned(units.min(self.units));
                tokio::select! {
                    room = room => room.ok(),
                    () = self.sender.closed() => return Err(Gone),
                }
            }
            Err(_) => None,
        };
        self.sender.send(Sent { rows, _room: room }).await.map_err(|_closed| Gone)
    }
}

impl RowReceiver {
    /// The next rows, or why there are none; `None` when no more will come.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        self.0.poll_recv(cx).map(|sent| sent.map(|sent| sent.rows))
    }

    /// Takes no more: senders find that the reader is gone.
    pub fn close(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_queue_holds_so_many_bytes() {
        let n: ArrayRef = Arc::new(Int64Array::from(vec![1; 1024]));
        let batch = RecordBatch::try_from_iter([("n", n)]).unwrap();
        let (sender, mut receiver) = queue(16, Some(20 << 10));
        for _ in 0..2 {
            sender.send(Ok(batch.clone())).now_or_never().unwrap().unwrap();
        }
        assert!(sender.send(Ok(batch.clone())).now_or_never().is_none());
        let mut next = || std::future::poll_fn(|cx| receiver.poll_recv(cx)).now_or_never();
        assert!(next().flatten().is_some());
        sender.send(Ok(batch.clone())).now_or_never().unwrap().unwrap();
        assert!(next().is_some() && next().is_some() && next().is_none());
        // One batch that is larger than all of it goes alone.
        let (sender, receiver) = queue(16, Some(1));
        sender.send(Ok(batch.clone())).now_or_never().unwrap().unwrap();
        let waits = sender.send(Ok(batch));
        drop(receiver);
        waits.await.unwrap_err();
    }
}
