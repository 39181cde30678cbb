//! Answers: JSON for what was taken and for errors, and the status of each kind of error.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use windrow_core::{BadRow, Error, ErrorKind};
use windrow_engine::Pushed;

/// Bad records that an answer lists; `windrow.bad_rows` has more.
const LISTED_MAX: usize = 10;

/// What became of the records of a request.
#[derive(Debug, Serialize)]
struct Taken<'a> {
    rows: u64,
    bad: u64,
    repeated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<BadRecord<'a>>,
    /// A notice about the rows, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<&'static str>,
}

/// A record that is no row.
#[derive(Debug, Serialize)]
struct BadRecord<'a> {
    /// Its number in the body, from 0.
    record: u64,
    reason: &'a str,
}

/// An error.
#[derive(Debug, Serialize)]
struct Refused<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    hints: &'a [String],
}

/// Returns the answer for records that are in the stream. `bad`: those that are no rows, by their number.
pub(crate) fn accepted(pushed: Pushed, bad: &[BadRow]) -> Response {
    let listed = bad.iter().take(LISTED_MAX);
    let taken = Taken {
        rows: pushed.rows,
        bad: pushed.bad,
        repeated: pushed.repeated,
        errors: listed.map(|bad| BadRecord { record: bad.offset, reason: &bad.reason }).collect(),
        notice: pushed.in_1970.then_some(Pushed::NOTICE_1970),
    };
    json(StatusCode::ACCEPTED, &taken)
}

/// Returns the answer for an error.
pub(crate) fn refused(error: &Error) -> Response {
    let status = match error.kind() {
        ErrorKind::Sql | ErrorKind::Config | ErrorKind::Data => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Exists => StatusCode::CONFLICT,
        ErrorKind::Limit => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable | ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refused_with(status, error)
}

/// Returns the answer for an error whose status its kind does not say.
pub(crate) fn refused_with(status: StatusCode, error: &Error) -> Response {
    let body = Refused { error: error.message(), detail: error.detail(), hints: error.hints() };
    let mut response = json(status, &body);
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"windrow\""));
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Answers a request for something else.
pub(crate) async fn not_found(uri: Uri) -> Response {
    let error = Error::new(ErrorKind::NotFound, format!("there is nothing at {}", uri.path()))
        .with_hint("POST /v1/streams/NAME appends records to a stream.");
    refused(&error)
}
