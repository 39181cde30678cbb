//! Server-sent events (`text/event-stream`): each event with data is a message.
//!
//! A connection that ends is made again with the id of the last event, so that a server which keeps events sends those that
//! were missed. The id is known while the process runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response};
use windrow_core::{Error, Result};

use super::feed::{Incoming, Origin, Received};
use super::options::WebOptions;
use super::{away, refused};
use crate::causes::with_causes;

/// How long a connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(10);
/// The header of the id of the last event.
const LAST_ID: &str = "last-event-id";
/// The name of an event that has none.
const MESSAGE: &str = "message";

/// Where the events are.
#[derive(Debug)]
pub(super) struct Events {
    options: WebOptions,
    client: Client,
    bytes_max: usize,
    last_id: Arc<Mutex<Option<String>>>,
}

impl Events {
    /// `bytes_max`: of the data of an event, in bytes; a longer one is cut off behind it, and a bad row.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub(super) fn new(options: WebOptions, bytes_max: usize) -> Result<Self> {
        let mut client = Client::builder()
            .connect_timeout(PATIENCE)
            .tcp_keepalive(PATIENCE)
            .user_agent(concat!("windrow/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &options.tls_ca {
            let wrong = |why: String| {
                Error::config(format!("option \"tls_ca\": \"{}\" {why}", file.display()))
            };
            let pem = std::fs::read(file).map_err(|e| wrong(format!("cannot be read: {e}")))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|e| wrong(format!("is not a certificate: {e}")))?;
            client = client.tls_built_in_root_certs(false);
            for certificate in certificates {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client.build();
        let client = client
            .map_err(|e| Error::internal("the HTTP client cannot be created").with_source(e))?;
        Ok(Self { options, client, bytes_max, last_id: Arc::default() })
    }
}

#[async_trait]
impl Origin for Events {
    async fn connect(&self) -> Result<Box<dyn Incoming>> {
        let mut request =
            self.client.get(self.options.url.clone()).headers(self.options.headers.clone());
        request = request.header(ACCEPT, "text/event-stream");
        let last = self.last_id.lock().clone();
        if let Some(id) = last.and_then(|id| HeaderValue::from_str(&id).ok()) {
            request = request.header(LAST_ID, id);
        }
        let answered = request.send().await;
        let answer = answered.map_err(|e| away(&self.options, &with_causes(&e.without_url())))?;
        if answer.status().as_u16() != 200 {
            return Err(refused(&self.options, answer.status().as_u16()));
        }
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Err(away(&self.options, "its answer is not text/event-stream"));
        }
        Ok(Box::new(Stream {
            options: self.options.clone(),
            answer,
            lines: Lines { bytes_max: self.bytes_max, ..Lines::default() },
            last_id: Arc::clone(&self.last_id),
        }))
    }
}

struct Stream {
    options: WebOptions,
    answer: Response,
    lines: Lines,
    last_id: Arc<Mutex<Option<String>>>,
}

#[async_trait]
impl Incoming for Stream {
    async fn next(&mut self) -> Result<Received> {
        loop {
            while let Some(received) = self.lines.events.pop_front() {
                if let Some(id) = &received.id {
                    *self.last_id.lock() = Some(id.clone());
                }
                let name = received.event.as_deref().unwrap_or(MESSAGE);
                if self.options.events.is_empty() || self.options.events.iter().any(|e| e == name) {
                    return Ok(received);
                }
            }
            match self.answer.chunk().await {
                Ok(Some(chunk)) => self.lines.push(&chunk),
                Ok(None) => return Err(away(&self.options, "it has ended the answer")),
                Err(e) => return Err(away(&self.options, &with_causes(&e.without_url()))),
            }
        }
    }
}

/// Finds events in running text.
#[derive(Debug, Default)]
struct Lines {
    events: VecDeque<Received>,
    /// The data of an event, and a line, at most; in bytes.
    bytes_max: usize,
    line: Vec<u8>,
    /// Whether the last byte was a CR, which a LF may follow.
    was_cr: bool,
    data: Option<Vec<u8>>,
    event: Option<String>,
    id: Option<String>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\n' if self.was_cr => self.was_cr = false,
                b'\n' | b'\r' => {
                    self.was_cr = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    self.take(&line);
                }
                _ => {
                    self.was_cr = false;
                    if self.line.len() <= self.bytes_max + "data: ".len() {
                        self.line.push(*byte);
                    }
                }
            }
        }
    }

    /// Takes a line; an empty one ends an event.
    fn take(&mut self, line: &[u8]) {
        if line.is_empty() {
            let (data, event) = (self.data.take(), self.event.take());
            if let Some(data) = data {
                // The id stays until another comes.
                self.events.push_back(Received { value: data.into(), event, id: self.id.clone() });
            }
            return;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"data" => match &mut self.data {
                None => self.data = Some(value.to_vec()),
                Some(data) if data.len() <= self.bytes_max => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                Some(_) => {}
            },
            b"event" => self.event = Some(text()),
            b"id" if !value.contains(&0) => self.id = Some(text()).filter(|id| !id.is_empty()),
            // A comment, or a field that this does not need.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn events(pieces: &[&str]) -> Vec<(String, Option<String>, Option<String>)> {
        let mut lines = Lines { bytes_max: 20, ..Lines::default() };
        pieces.iter().for_each(|piece| lines.push(piece.as_bytes()));
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        lines.events.iter().map(|e| (text(&e.value), e.event.clone(), e.id.clone())).collect()
    }

    #[test]
    fn events_are_found_however_they_arrive() {
        let text = ": hi\nid: 1\nevent: a\ndata: x\ndata:y\n\nretry: 5\n\ndata\r\n\r\nid\rdata: ü\r\rdata: open";
        let some = |text: &str| Some(text.to_owned());
        let expected = [
            ("x\ny".to_owned(), some("a"), some("1")),
            (String::new(), None, some("1")),
            ("ü".to_owned(), None, None),
        ];
        assert_eq!(events(&[text]), expected);
        let mut lines = Lines { bytes_max: 20, ..Lines::default() };
        text.bytes().for_each(|byte| lines.push(&[byte]));
        assert_eq!(lines.events.len(), 3);
    }

    #[test]
    fn what_is_too_long_does_not_grow() {
        let long = "x".repeat(1_000);
        let found = events(&["data: ", &long, "\ndata: ", &long, "\n\n"]);
        assert!(found[0].0.len() > 20 && found[0].0.len() < 30, "{}", found[0].0.len());
    }
}
