//! Tasks that stop with whatever waits for them.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use windrow_core::Result;
use windrow_stream::caught::stopped;

/// A task that is aborted when this is dropped.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Future for AbortOnDrop<Result<T>> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|done| match done {
            Ok(result) => result,
            Err(end) => Err(stopped("the statement", end)),
        })
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
