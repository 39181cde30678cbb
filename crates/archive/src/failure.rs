//! Converts errors of the underlying libraries to Windrow's.
//!
//! A missing or damaged file is [`ErrorKind::Corrupt`] and named; a store that does not respond is
//! [`ErrorKind::Unavailable`]; the rest is a bug in Windrow.

use std::error::Error as StdError;
use std::io;

use deltalake_core::{DeltaTableError, ObjectStoreError};
use parquet::errors::ParquetError;
use windrow_core::{Error, ErrorKind};

/// Returns the text of an error with all its causes, without repetitions.
fn chain(e: &(dyn StdError + 'static)) -> String {
    let mut text = first_line(e);
    let mut cause = e.source();
    while let Some(c) = cause {
        let said = first_line(c);
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = c.source();
    }
    text
}

/// Returns the first line: some libraries append a backtrace to their message.
fn first_line(e: &(dyn StdError + 'static)) -> String {
    e.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Finds a cause of type `T`.
fn cause<'a, T: StdError + 'static>(e: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut at = Some(e);
    while let Some(c) = at {
        if let Some(found) = c.downcast_ref::<T>() {
            return Some(found);
        }
        at = c.source();
    }
    None
}

/// Converts an error of an object store. `what` describes the attempted operation, with the name.
pub(crate) fn store(what: &str, e: ObjectStoreError) -> Error {
    if let Some(ours) = cause::<Error>(&e) {
        return damaged(ours, what);
    }
    let kind = match &e {
        ObjectStoreError::NotFound { .. } => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    let full = cause::<io::Error>(&e).is_some_and(|io| io.kind() == io::ErrorKind::StorageFull);
    let error = Error::new(kind, format!("cannot {what}: {}", chain(&e)));
    let error =
        if full { error.with_hint("The disk is full: make room, then retry.") } else { error };
    error.with_source(e)
}

/// Converts an error of reading or writing a Delta log.
pub(crate) fn delta(what: &str, e: DeltaTableError) -> Error {
    if let DeltaTableError::ObjectStore { source } = e {
        return store(what, source);
    }
    let text = chain(&e);
    let unavailable = matches!(
        e,
        DeltaTableError::Transaction { .. }
            | DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Io { .. }
    ) || kernel_did_not_reach_store(&text)
        || cause::<ObjectStoreError>(&e)
            .is_some_and(|o| !matches!(o, ObjectStoreError::NotFound { .. }))
        || cause::<io::Error>(&e).is_some_and(|io| io.kind() != io::ErrorKind::NotFound);
    let internal = matches!(
        e,
        DeltaTableError::SchemaMismatch { .. }
            | DeltaTableError::InvalidData { .. }
            | DeltaTableError::CommitValidation { .. }
            | DeltaTableError::SerializeLogJson { .. }
    );
    let kind = if unavailable {
        ErrorKind::Unavailable
    } else if internal {
        ErrorKind::Internal
    } else {
        ErrorKind::Corrupt
    };
    Error::new(kind, format!("cannot {what}: {text}")).with_source(e)
}

/// Whether the library's kernel got no response from the store. It does not report that as a typed cause.
fn kernel_did_not_reach_store(text: &str) -> bool {
    text.contains("Error interacting with object store") && !text.contains("not found")
}

/// Converts an error of reading a Parquet file.
pub(crate) fn reading(path: &str, e: ParquetError) -> Error {
    if let Some(ours) = cause::<Error>(&e) {
        return damaged(ours, "read the archive");
    }
    let unavailable = cause::<ObjectStoreError>(&e)
        .is_some_and(|o| !matches!(o, ObjectStoreError::NotFound { .. }));
    let kind = if unavailable { ErrorKind::Unavailable } else { ErrorKind::Corrupt };
    Error::new(kind, format!("cannot read the archive file \"{path}\": {}", chain(&e)))
        .with_source(e)
}

/// Restores one of Windrow's errors that passed through a library.
fn damaged(ours: &Error, what: &str) -> Error {
    let error = Error::new(ours.kind(), format!("cannot {what}: {}", ours.message()));
    ours.hints().iter().fold(error, Error::with_hint)
}

/// Converts an error of encoding rows as Parquet.
pub(crate) fn encoding(table: &str, e: ParquetError) -> Error {
    Error::internal(format!("cannot encode rows of \"{table}\" as Parquet: {}", chain(&e)))
        .with_source(e)
}

/// Converts the error of a task that did not finish.
pub(crate) fn task(e: tokio::task::JoinError) -> Error {
    if e.is_cancelled() {
        return Error::new(ErrorKind::Cancelled, "a task of the archive was cancelled")
            .with_source(e);
    }
    Error::panicked("a task of the archive", &e.to_string())
}
