//! Panics as errors: a panic below a statement or a view fails that statement or view, and no reader mistakes a result
//! that was cut off for a complete one.
//!
//! Invariants: a task that others wait for runs inside of [`caught`], or is joined and its failure reported by
//! [`stopped`]; a closed channel is not an end of rows unless the sender has said so. The panic itself, with its place,
//! is logged by the panic hook of the process.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::task::JoinError;
use windrow_core::{Error, ErrorKind, Result};

/// Awaits `work`; a panic becomes an error of whatever `what` names.
///
/// # Errors
/// Those of `work`; Internal when it panics.
pub async fn caught<T>(
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    unwound(what, work).await.and_then(|done| done)
}

/// As [`caught`], for callers that treat a panic differently from other errors: the panic is the outer error.
///
/// # Errors
/// Internal when `work` panics.
pub async fn unwound<T>(what: impl FnOnce() -> String, work: impl Future<Output = T>) -> Result<T> {
    // Whatever it borrowed belongs to the statement or view that fails now.
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let error = Error::panicked(&what(), &*panic);
        tracing::error!("{error}");
        error
    })
}

/// Returns the error for a task that panicked or was cancelled.
pub fn stopped(what: &str, end: JoinError) -> Error {
    match end.try_into_panic() {
        Ok(panic) => {
            let error = Error::panicked(what, &*panic);
            tracing::error!("{error}");
            error
        }
        Err(end) => {
            Error::new(ErrorKind::Cancelled, format!("{what} was cancelled")).with_source(end)
        }
    }
}
