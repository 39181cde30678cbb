//! The failures of views, on disk: they are reported again after a restart.
//!
//! ```text
//! failures.json  {"3":{"kind":"data","message":"divide by zero","again":true,…},…}     by the id of the definition
//! ```
//! Invariants: the file is informative and never relied on: a view whose failure could not be written runs again, and fails again.
//! It only has views that were in the catalog when it was written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind, Result};
use windrow_storage::files::{Files, io_error};

/// The kinds of errors, with their names in the file.
const KINDS: [(ErrorKind, &str); 12] = [
    (ErrorKind::Sql, "sql"),
    (ErrorKind::Config, "config"),
    (ErrorKind::NotFound, "not_found"),
    (ErrorKind::Exists, "exists"),
    (ErrorKind::Unavailable, "unavailable"),
    (ErrorKind::Data, "data"),
    (ErrorKind::Limit, "limit"),
    (ErrorKind::Corrupt, "corrupt"),
    (ErrorKind::Unauthenticated, "unauthenticated"),
    (ErrorKind::Denied, "denied"),
    (ErrorKind::Cancelled, "cancelled"),
    (ErrorKind::Internal, "internal"),
];

/// Why a view has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    kind: String,
    message: String,
    detail: Option<String>,
    hints: Vec<String>,
    /// Whether it would fail again on the same rows.
    pub(crate) again: bool,
}

impl Failure {
    /// Returns the failure of a view with `error`.
    pub(crate) fn of(error: &Error, again: bool) -> Self {
        let known = KINDS.iter().find(|(kind, _)| *kind == error.kind());
        Self {
            kind: known.map_or("internal", |(_, name)| name).to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hints: error.hints().to_vec(),
            again,
        }
    }

    /// Returns the error.
    pub(crate) fn error(&self) -> Error {
        let known = KINDS.iter().find(|(_, name)| *name == self.kind);
        let mut error =
            Error::new(known.map_or(ErrorKind::Internal, |(kind, _)| *kind), &self.message);
        if let Some(detail) = &self.detail {
            error = error.with_detail(detail);
        }
        self.hints.iter().fold(error, Error::with_hint)
    }
}

/// The failures of a data directory.
#[derive(Debug)]
pub(crate) struct Failures {
    files: Arc<dyn Files>,
    path: PathBuf,
    known: Mutex<BTreeMap<u64, Failure>>,
}

impl Failures {
    /// Reads the file. A file that cannot be parsed is ignored: its views run again.
    ///
    /// # Errors
    /// When the file cannot be read at all.
    pub(crate) fn open(files: &Arc<dyn Files>, directory: &Path) -> Result<Self> {
        let path = directory.join("failures.json");
        let known = match files.read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the failures of views cannot be read");
                BTreeMap::new()
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(io_error("read", &path, e)),
        };
        Ok(Self { files: Arc::clone(files), path, known: Mutex::new(known) })
    }

    /// Returns the failure of the view with this id.
    pub(crate) fn of(&self, id: u64) -> Option<Failure> {
        self.known.lock().get(&id).cloned()
    }

    /// Stores the failure of the view `id`, or removes it, as well as those of ids that are not in `ids`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn note(&self, id: u64, failure: Option<Failure>, ids: &[u64]) -> Result<()> {
        let mut known = self.known.lock();
        let mut new = known.clone();
        new.retain(|old, _| *old != id && ids.contains(old));
        new.extend(failure.map(|failure| (id, failure)));
        if new == *known {
            return Ok(());
        }
        let json = serde_json::to_vec_pretty(&new)
            .map_err(|e| Error::internal("a failure cannot be encoded").with_source(e))?;
        self.files.replace(&self.path, &json).map_err(|e| io_error("write", &self.path, e))?;
        *known = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_the_same_error_again() {
        for (kind, _) in KINDS {
            let error = Error::new(kind, "divide by zero").with_detail("It is.").with_hint("Try.");
            let again = Failure::of(&error, true).error();
            assert_eq!((again.kind(), again.render("")), (kind, error.render("")));
        }
    }
}
