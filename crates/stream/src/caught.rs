//! Panics as errors: whatever unwinds below a statement or a view fails that statement or view, and nobody
//! takes what it left behind for an end.
//!
//! Invariants: a task that others wait for runs inside of [`caught`], or is joined and its end told by
//! [`stopped`]; a channel that closes is no end unless the side that filled it says so. The panic itself, with its place,
//! is in the log by the process' panic hook.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::task::JoinError;
use windrow_core::{Error, ErrorKind, Result};

/// Completes `work`; a panic is the error of what `what` names.
///
/// # Errors
/// Those of `work`; Internal when it panics.
pub async fn caught<T>(
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    unwound(what, work).await.and_then(|done| done)
}

/// The same, for callers that treat a panic unlike other errors.
///
/// # Errors
/// Internal when `work` panics.
pub async fn unwound<T>(what: impl FnOnce() -> String, work: impl Future<Output = T>) -> Result<T> {
    // What was borrowed belongs to the statement or view that fails now.
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
        let error = Error::panicked(&what(), &*panic);
        tracing::error!("{error}");
        error
    })
}

/// The error of a task that did not come back.
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
