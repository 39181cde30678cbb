//! `POST /v1/streams/{name}`: the records of the body become rows of the stream.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use windrow_core::{Error, ErrorKind, Result};
use windrow_engine::{BatchId, RecordFormat};
use windrow_server::auth::login::{Authenticator, LoggedIn};
use windrow_server::session::Sessions;

use crate::answer::{accepted, refused, refused_with};
use crate::body::{Bodies, Unread};
use crate::listener::Caller;

/// The name of a producer, and the number of a request among its requests: 1, 2, 3, …
const PRODUCER: &str = "windrow-producer";
const SEQUENCE: &str = "windrow-sequence";
/// A header of other systems that promises what only a producer and its sequence do here.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What the routes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) door: Arc<Authenticator>,
    pub(crate) sessions: Sessions,
    pub(crate) bodies: Bodies,
}

/// Appends the records of the body to the stream `name`.
pub(crate) async fn push(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(Caller(peer)): ConnectInfo<Caller>,
    Path(name): Path<String>,
    mut headers: HeaderMap,
    body: Body,
) -> Response {
    peer.has_called();
    let LoggedIn { identity, token } = match login(&shared, &mut headers).await {
        Ok(entered) => entered,
        Err(error) => return refused(&error),
    };
    peer.is_known();
    let (format, id) = match format_of(&headers).and_then(|format| {
        batch_id(&headers).map(|id| (format, id)).map_err(|error| (StatusCode::BAD_REQUEST, error))
    }) {
        Ok(said) => said,
        Err((status, error)) => return refused_with(status, &error),
    };
    let session = match shared.sessions.of(&identity, None, Some(peer.number())) {
        Ok(session) => shared.sessions.use_of(&session),
        Err(error) => return refused(&error),
    };
    // A stream that cannot be written to is refused before its rows are read.
    if let Err(error) = session.engine().accepts_records(&name) {
        return refused(&error);
    }
    let body = tokio::select! {
        read = shared.bodies.read(&headers, body) => read,
        error = session.stopped() => return refused(&error),
    };
    let body = match body {
        Ok(body) => body,
        Err(Unread(status, error)) => return refused_with(status, &error),
    };
    // Spawned, so that a client that goes away does not leave records half way, and a panic is an answer.
    let work = tokio::spawn(async move {
        let incoming =
            session.engine().ingest_records(&name, format, body.bytes.clone(), id.as_ref()).await?;
        let bad = incoming.bad();
        incoming.settled().await.map(|pushed| (pushed, bad))
    });
    let mut response = match work.await {
        Ok(Ok((pushed, bad))) => accepted(pushed, &bad),
        Ok(Err(error)) => refused(&error),
        Err(e) => refused(&Error::internal("the request ended early").with_source(e)),
    };
    if let Some(mut value) = token.and_then(|t| HeaderValue::from_str(&format!("Bearer {t}")).ok())
    {
        value.set_sensitive(true);
        response.headers_mut().insert(AUTHORIZATION, value);
    }
    response
}

async fn login(shared: &Shared, headers: &mut HeaderMap) -> Result<LoggedIn> {
    let header = headers.remove(AUTHORIZATION);
    let entered = match header.as_ref().map(HeaderValue::to_str).transpose() {
        Ok(header) => shared.door.enter(header).await?,
        Err(e) => {
            let message = "the header \"authorization\" is not text";
            return Err(Error::new(ErrorKind::Unauthenticated, message).with_source(e));
        }
    };
    Ok(entered)
}

/// The format of the body, from its content type.
fn format_of(headers: &HeaderMap) -> Result<RecordFormat, (StatusCode, Error)> {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(RecordFormat::Json),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/json-lines"
        | "application/x-jsonlines" => Ok(RecordFormat::Ndjson),
        "text/csv" => Ok(RecordFormat::Csv),
        "application/avro" | "application/vnd.apache.avro" | "avro/binary" => {
            Ok(RecordFormat::Avro)
        }
        other => {
            let message = match other {
                "" => "the request has no content-type".to_owned(),
                other => format!("content-type \"{other}\" is not supported"),
            };
            let error = Error::config(message).with_hint(
                "Known: application/json (an object or an array of objects), application/x-ndjson, \
                 text/csv (with a header), application/avro (an object container file).",
            );
            Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
        }
    }
}

/// The id of the request, with which it is taken once.
fn batch_id(headers: &HeaderMap) -> Result<Option<BatchId>> {
    if headers.contains_key(IDEMPOTENCY_KEY) {
        return Err(Error::config("the header \"idempotency-key\" is not supported")
            .with_hint("windrow-producer with windrow-sequence makes a request count once."));
    }
    let text = |name: &str| -> Result<Option<String>> {
        let value = headers.get(name).map(|value| value.to_str().map(str::to_owned));
        value
            .transpose()
            .map_err(|e| Error::config(format!("the header \"{name}\" is not text")).with_source(e))
    };
    match (text(PRODUCER)?, text(SEQUENCE)?) {
        (None, None) => Ok(None),
        (Some(producer), Some(sequence)) => {
            let sequence = sequence.trim().parse().map_err(|e| {
                let message = format!("windrow-sequence \"{sequence}\" is not a number");
                Error::config(message).with_hint("It is 1, 2, 3, …").with_source(e)
            })?;
            Ok(Some(BatchId { producer, sequence }))
        }
        (Some(_), None) => Err(Error::config("windrow-producer needs windrow-sequence")),
        (None, Some(_)) => Err(Error::config("windrow-sequence needs windrow-producer")),
    }
}
