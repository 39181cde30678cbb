//! Sinks with `connector = 'webhook'`: rows as HTTP requests, each at least once, with the same key again.
//!
//! ```text
//! write ─► requests, in memory ─ commit ─► POST, one after the other; what is sent is not sent again by this process
//! ```
//! A key is the name and the id of the sink with the numbers of the rows. After a crash the engine makes commits of the same
//! rows again, so that a request that comes twice has the same key. Addresses are shown without their path, which often is a
//! secret.
//!
//! Invariant: no message has the path of the URL, a header or the secret in it.

mod options;
mod signature;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use url::Url;
use windrow_core::{Clock, Error, ErrorKind, Guarantee, OffsetRange, Result, Sink};

pub use self::options::OPTIONS;
use self::options::WebhookOptions;
use self::signature::hmac_sha256;
use crate::causes::with_causes;
use crate::encode::{Encoding, Packing, json_lines};
use crate::env::{ConnectorEnv, SinkSpec};
use crate::template::Template;

/// The header of the key of a request.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header of the signature of a body.
const SIGNATURE: &str = "x-windrow-signature";
/// Rows that are taken at once where each has a request of its own.
const ROWS_MAX: usize = 64;
/// How much of an answer is shown in an error, in characters.
const ANSWER_MAX: usize = 200;
/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 10;
/// Answers that are not about the rows of the request: any other request would be refused also.
const CALLS_FOR_A_PERSON: &[StatusCode] = &[
    StatusCode::UNAUTHORIZED,
    StatusCode::PAYMENT_REQUIRED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::PROXY_AUTHENTICATION_REQUIRED,
    StatusCode::GONE,
    StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
];
/// The longest time that a destination can ask to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// A request that has not been answered yet.
#[derive(Debug)]
struct Request {
    key: String,
    body: Bytes,
    /// The numbers of its rows.
    range: OffsetRange,
}

/// A sink that sends requests.
struct Webhook {
    /// Name and id of the sink, with which keys begin.
    key: String,
    options: WebhookOptions,
    template: Option<Template>,
    client: Client,
    clock: Arc<dyn Clock>,
    /// The rows of the next request, in mode 'batch'.
    batch: Vec<u8>,
    /// Their numbers.
    range: Option<OffsetRange>,
    requests: VecDeque<Request>,
    /// How many have been answered well.
    acknowledged: u64,
    retry_after: Option<Duration>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = shown_url(self.options.url.as_str());
        f.debug_struct("Webhook").field("key", &self.key).field("url", &url).finish_non_exhaustive()
    }
}

/// Returns a URL without its path.
pub(crate) fn shown_url(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) if url.has_host() => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}/***", url.scheme(), url.host_str().unwrap_or_default())
        }
        Ok(_) | Err(_) => "***".to_owned(),
    }
}

/// Returns a sink of the options of `CREATE SINK … WITH (connector = 'webhook', …)`. Nothing is sent yet.
///
/// # Errors
/// For invalid options, columns that JSON does not have, and a URL that the user may not write to.
pub(crate) fn open(
    options: &[(String, String)],
    spec: &SinkSpec,
    env: &ConnectorEnv,
) -> Result<Box<dyn Sink>> {
    let options = WebhookOptions::read(options)?;
    if env.files.is_confined() {
        // Requests of the server reach what its users may not.
        env.files.to_write(options.url.as_str()).map_err(|error| {
            let shown = shown_url(options.url.as_str());
            Error::new(error.kind(), format!("\"{shown}\" may not be written to by remote users"))
                .with_hint("An administrator allows the URL (--allow-path).")
        })?;
    }
    Encoding::Json(Packing::Plain).check(&spec.schema)?;
    let template = match &options.body {
        Some(body) => Some(Template::parse(("body", body), &spec.schema, options.is_json)?),
        None => None,
    };
    let client = Client::builder()
        // A redirected POST becomes a GET, and its headers would go to another server.
        .redirect(Policy::none())
        .timeout(options.timeout)
        .user_agent(concat!("windrow/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Error::internal("the HTTP client cannot be created").with_source(e))?;
    Ok(Box::new(Webhook {
        key: format!("{}:{}", key_part(&spec.name), spec.id),
        options,
        template,
        client,
        clock: Arc::clone(&env.clock),
        batch: Vec::new(),
        range: None,
        requests: VecDeque::new(),
        acknowledged: 0,
        retry_after: None,
    }))
}

/// Returns a name as headers allow it.
fn key_part(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if plain(c) {
            out.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out
}

impl Webhook {
    /// Sends a request.
    async fn send(&self, request: &Request) -> Result<(), (Error, Option<Duration>)> {
        let mut post = self
            .client
            .post(self.options.url.clone())
            .headers(self.options.headers.clone())
            .header(IDEMPOTENCY_KEY, &request.key);
        if let Some(secret) = &self.options.secret {
            let signature = hmac_sha256(secret.as_bytes(), &request.body);
            post = post.header(SIGNATURE, format!("sha256={signature}"));
        }
        let shown = shown_url(self.options.url.as_str());
        match post.body(request.body.clone()).send().await {
            Ok(answer) => self.judge(answer, request, &shown).await,
            Err(error) => {
                let error = error.without_url();
                let why = with_causes(&error);
                let message = format!("\"{shown}\" cannot be reached: {why}");
                Err((Error::new(ErrorKind::Unavailable, message).with_source(error), None))
            }
        }
    }

    /// Decides what an answer means.
    async fn judge(
        &self,
        answer: Response,
        request: &Request,
        shown: &str,
    ) -> Result<(), (Error, Option<Duration>)> {
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|text| self.wait_of(text));
        let said = said(answer).await;
        let temporary = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if temporary {
            let message = format!("\"{shown}\" answers {status}{said}");
            return Err((Error::new(ErrorKind::Unavailable, message), after));
        }
        let key = &request.key;
        let message = format!("\"{shown}\" refuses the request \"{key}\": {status}{said}");
        let error = match status.is_redirection() {
            true => Error::config(message)
                .with_hint("Redirects are not followed: give the URL that it leads to."),
            false if CALLS_FOR_A_PERSON.contains(&status) => Error::config(message),
            false => Error::data(message),
        };
        Err((error, None))
    }

    /// Parses the value of `Retry-After`: seconds, or a date.
    fn wait_of(&self, text: &str) -> Option<Duration> {
        let wait = match text.trim().parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let at = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
                let micros = at.timestamp_micros().saturating_sub(self.clock.now_micros());
                Duration::from_micros(u64::try_from(micros).unwrap_or(0))
            }
        };
        Some(wait.min(RETRY_AFTER_MAX))
    }

    /// Makes the request of the rows of a batch.
    fn complete(&mut self) {
        if let Some(range) = self.range.take() {
            let mut body = std::mem::take(&mut self.batch);
            if body.is_empty() {
                return;
            }
            body.push(b']');
            let key = format!("{}:{}-{}", self.key, range.start() + 1, range.end());
            self.requests.push_back(Request { key, body: Bytes::from(body), range });
        }
    }
}

#[async_trait]
impl Sink for Webhook {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn wait_max(&self) -> Duration {
        match self.options.batch_rows {
            Some(_) => self.options.batch_interval,
            None => Duration::ZERO,
        }
    }

    async fn open(&mut self, _: Option<u64>) -> Result<Option<u64>> {
        Ok(None)
    }

    fn room(&self) -> usize {
        let taken = self.range.map_or(0, |range| range.end() - range.start());
        let taken = usize::try_from(taken).unwrap_or(usize::MAX);
        match self.options.batch_rows {
            Some(rows) => rows.saturating_sub(taken),
            None => ROWS_MAX.saturating_sub(self.requests.len()),
        }
    }

    async fn write(&mut self, rows: &RecordBatch, range: OffsetRange) -> Result<()> {
        if self.options.batch_rows.is_some() {
            for line in json_lines(rows)? {
                self.batch.push(if self.batch.is_empty() { b'[' } else { b',' });
                self.batch.extend_from_slice(&line);
            }
            let from = self.range.map_or(range.start(), OffsetRange::start);
            self.range = Some(OffsetRange::try_new(from, range.end())?);
            return Ok(());
        }
        let bodies: Vec<Bytes> = match &self.template {
            Some(template) => template.fill(rows)?.into_iter().map(Bytes::from).collect(),
            None => json_lines(rows)?,
        };
        for (row, body) in (range.start()..).zip(bodies) {
            let key = format!("{}:{}", self.key, row + 1);
            let range = OffsetRange::try_new(row, row + 1)?;
            self.requests.push_back(Request { key, body, range });
        }
        Ok(())
    }

    async fn commit(&mut self, _: u64) -> Result<()> {
        self.complete();
        self.retry_after = None;
        while let Some(request) = self.requests.front() {
            if let Err((error, after)) = self.send(request).await {
                self.retry_after = after;
                return Err(error);
            }
            self.requests.pop_front();
            self.acknowledged += 1;
        }
        Ok(())
    }

    fn progress(&self) -> u64 {
        self.acknowledged
    }

    fn delivered(&self) -> Option<u64> {
        self.requests.front().map(|request| request.range.start())
    }

    fn refused(&self) -> Option<u64> {
        let range = self.requests.front()?.range;
        (range.end() - range.start() == 1).then_some(range.start())
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    async fn close(&mut self) -> Result<()> {
        self.batch.clear();
        self.range = None;
        self.requests.clear();
        Ok(())
    }
}

/// Returns the beginning of the body of an answer, for messages.
async fn said(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER_BYTES_MAX {
        match answer.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            // What it says is additional: the status has been received.
            Ok(None) | Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.chars().filter(|c| !c.is_control()).take(ANSWER_MAX).collect();
    if text.trim().is_empty() { String::new() } else { format!(" ({})", text.trim()) }
}

#[cfg(test)]
mod tests;
