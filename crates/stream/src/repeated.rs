//! Copies of an error that several readers get.

use std::sync::Arc;

use windrow_core::Error;

/// Returns a copy of the error, with the original as its source.
pub fn repeated(error: &Arc<Error>) -> Error {
    with_message(error, error.message().to_owned())
}

/// Returns a copy of the error with another message.
pub fn with_message(error: &Arc<Error>, message: String) -> Error {
    let mut copy = Error::new(error.kind(), message);
    if let Some(detail) = error.detail() {
        copy = copy.with_detail(detail);
    }
    if let Some(place) = error.place() {
        copy = copy.with_place(place);
    }
    for hint in error.hints() {
        copy = copy.with_hint(hint);
    }
    copy.with_source(
        Box::new(ErrorRef(Arc::clone(error))) as Box<dyn std::error::Error + Send + Sync>
    )
}

#[derive(Debug)]
struct ErrorRef(Arc<Error>);

impl std::fmt::Display for ErrorRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ErrorRef {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(self.0.as_ref())
    }
}
