//! The queue of rows to one reader, bounded by batches and by bytes.
//!
//! Invariant: the queue holds at most its maximum of bytes, or a single batch.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow::record_batch::RecordBatch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use windrow_core::Result;

use windrow_core::size::bytes_of;

/// Bytes of a queue where there is no memory limit.
const QUEUE_BYTES: usize = 64 << 20;
/// The unit in which bytes are counted.
const UNIT: usize = 1 << 10;

/// The sending end of a queue.
#[derive(Debug, Clone)]
pub struct RowSender {
    sender: mpsc::Sender<Sent>,
    room: Arc<Semaphore>,
    units: u32,
}

/// The receiving end of a queue.
#[derive(Debug)]
pub struct RowReceiver(mpsc::Receiver<Sent>);

#[derive(Debug)]
struct Sent {
    rows: Result<RecordBatch>,
    _room: Option<OwnedSemaphorePermit>,
}

/// The error of sending when the reader is gone.
#[derive(Debug)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of the rows is gone")
    }
}

impl std::error::Error for Gone {}

/// Returns a queue of at most `batches` batches and `bytes` bytes (`None`: 64 MiB).
pub fn queue(batches: usize, bytes: Option<usize>) -> (RowSender, RowReceiver) {
    let (sender, receiver) = mpsc::channel(batches);
    let units = u32::try_from(bytes.unwrap_or(QUEUE_BYTES) / UNIT).unwrap_or(u32::MAX).max(1);
    let room = Arc::new(Semaphore::new(units as usize));
    (RowSender { sender, room, units }, RowReceiver(receiver))
}

impl RowSender {
    /// Waits until there is room, then sends rows, or an error instead of them.
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
    /// Receives the next rows or an error; `None` at the end.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<RecordBatch>>> {
        self.0.poll_recv(cx).map(|sent| sent.map(|sent| sent.rows))
    }

    /// Closes the queue: sending fails from now on.
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
        // A batch that is larger than the whole queue is sent alone.
        let (sender, receiver) = queue(16, Some(1));
        sender.send(Ok(batch.clone())).now_or_never().unwrap().unwrap();
        let waits = sender.send(Ok(batch));
        drop(receiver);
        waits.await.unwrap_err();
    }
}
