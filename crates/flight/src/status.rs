//! Errors over gRPC: the code that generic clients act on, the text that people read, and the parts from which
//! Windrow's own client reconstructs the same [`Error`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use windrow_core::{Error, ErrorKind, Place};

/// The trailer that carries the parts of an error as JSON.
const PARTS: &str = "windrow-error-bin";
/// Bytes of that trailer at most: HTTP/2 peers refuse long headers (16 KiB is usual).
const PARTS_BYTES_MAX: usize = 6 << 10;
/// Bytes of the text for people at most, for the same reason (percent-encoding may treble it).
const TEXT_BYTES_MAX: usize = 2 << 10;

/// The parts of an [`Error`] that are sent over the wire.
#[derive(Debug, Serialize, Deserialize)]
struct Parts {
    kind: String,
    message: String,
    detail: Option<String>,
    hints: Vec<String>,
    /// Line, column, end line, end column.
    place: Option<[usize; 4]>,
}

/// The kinds, with their names on the wire and their gRPC codes.
const KINDS: [(ErrorKind, &str, Code); 12] = [
    (ErrorKind::Sql, "sql", Code::InvalidArgument),
    (ErrorKind::Config, "config", Code::InvalidArgument),
    (ErrorKind::NotFound, "not_found", Code::NotFound),
    (ErrorKind::Exists, "exists", Code::AlreadyExists),
    (ErrorKind::Unavailable, "unavailable", Code::Unavailable),
    (ErrorKind::Data, "data", Code::InvalidArgument),
    (ErrorKind::Limit, "limit", Code::ResourceExhausted),
    (ErrorKind::Corrupt, "corrupt", Code::DataLoss),
    (ErrorKind::Unauthenticated, "unauthenticated", Code::Unauthenticated),
    (ErrorKind::Denied, "denied", Code::PermissionDenied),
    (ErrorKind::Cancelled, "cancelled", Code::Cancelled),
    (ErrorKind::Internal, "internal", Code::Internal),
];

/// Returns the status for `error`, raised by the statement `sql` (empty when there is none).
pub fn to_status(error: &Error, sql: &str) -> Status {
    let known = KINDS.iter().find(|(kind, ..)| *kind == error.kind());
    let (kind, code) = known.map_or(("internal", Code::Internal), |(_, name, code)| (name, *code));
    let parts = Parts {
        kind: kind.to_owned(),
        message: error.message().to_owned(),
        detail: error.detail().map(str::to_owned),
        hints: error.hints().to_vec(),
        place: error.place().map(|p| [p.line, p.column, p.end_line, p.end_column]),
    };
    let text = shortened(&error.render(sql), TEXT_BYTES_MAX);
    let mut metadata = MetadataMap::new();
    if let Ok(json) = serde_json::to_vec(&parts)
        && json.len() <= PARTS_BYTES_MAX
    {
        metadata.insert_bin(PARTS, MetadataValue::from_bytes(&json));
    }
    Status::with_details_and_metadata(code, text, Bytes::new(), metadata)
}

/// Returns the status for an error without a statement.
#[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped with")]
pub(crate) fn refused(error: Error) -> Status {
    to_status(&error, "")
}

/// Returns the error for a client message longer than the server accepts, which the library has refused.
pub(crate) fn too_long(status: &Status) -> Option<Error> {
    let refused = status.code() == Code::OutOfRange && status.message().contains("too large");
    refused.then(|| {
        let said = status.message().trim_start_matches("Error, ");
        Error::new(ErrorKind::Limit, said)
            .with_hint("Send fewer rows in a batch, or raise --max-message.")
    })
}

/// Returns the error that a server reported; for servers other than Windrow, its text and the kind nearest to its code.
pub fn from_status(status: &Status) -> Error {
    let parts: Option<Parts> = status
        .metadata()
        .get_bin(PARTS)
        .and_then(|value| value.to_bytes().ok())
        .and_then(|json| serde_json::from_slice(&json).ok());
    let Some(parts) = parts else {
        let found = KINDS.iter().find(|(_, _, code)| *code == status.code());
        let kind = match status.code() {
            Code::DeadlineExceeded | Code::Aborted => ErrorKind::Unavailable,
            Code::OutOfRange | Code::FailedPrecondition | Code::Unimplemented => ErrorKind::Config,
            _ => found.map_or(ErrorKind::Internal, |(kind, ..)| *kind),
        };
        return Error::new(kind, status.message());
    };
    let found = KINDS.iter().find(|(_, name, _)| *name == parts.kind);
    let mut error =
        Error::new(found.map_or(ErrorKind::Internal, |(kind, ..)| *kind), parts.message);
    if let Some(detail) = parts.detail {
        error = error.with_detail(detail);
    }
    for hint in parts.hints {
        error = error.with_hint(hint);
    }
    if let Some([line, column, end_line, end_column]) = parts.place {
        error = error.with_place(Place { line, column, end_line, end_column });
    }
    error
}

/// Truncates `text` at a character boundary.
fn shortened(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_back_whole() {
        for (kind, _, code) in KINDS {
            let error = Error::new(kind, "no column \"x\"")
                .with_detail("It is a stream.")
                .with_hint("Did you mean \"y\"?")
                .with_place(Place::at(2, 8));
            let status = to_status(&error, "SELECT\n 1, x, y");
            assert_eq!(status.code(), code);
            assert!(status.message().contains("line 2:  1, x, y"), "{}", status.message());
            let back = from_status(&status);
            assert_eq!(back.render("SELECT\n 1, x, y"), error.render("SELECT\n 1, x, y"));
            assert_eq!(back.kind(), kind);
        }
    }

    #[test]
    fn other_servers_are_understood() {
        let back = from_status(&Status::deadline_exceeded("too slow"));
        assert_eq!((back.kind(), back.message()), (ErrorKind::Unavailable, "too slow"));
    }

    #[test]
    fn long_texts_fit_into_headers() {
        let status = to_status(&Error::sql("ä".repeat(1 << 20)), "");
        assert!(status.message().len() < 4 << 10);
        assert!(from_status(&status).message().ends_with('…'));
    }
}
