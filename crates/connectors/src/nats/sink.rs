//! Sinks with `connector = 'nats'`: rows as messages of JetStream, each with an id.
//!
//! An id is the name and the id of the sink with the number of the row. A message that comes again, after a crash or a lost
//! answer, has the same one, and the stream drops it if the first came within its window of de-duplication.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::{self, context::PublishError};
use async_nats::{Client, HeaderMap, HeaderValue};
use async_trait::async_trait;
use windrow_core::{Error, Guarantee, Result, Sink};

use super::connection::Connection;
use super::options::{NatsSinkOptions, is_subject};
use crate::broker::health::Health;
use crate::broker::sink::{Destination, Sending, message_sink};
use crate::causes::with_causes;
use crate::env::{ConnectorEnv, SinkSpec};

/// Messages whose acknowledgements are waited for together.
const FLIGHT: usize = 256;
/// The header of the id.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The code of a message that is larger than the stream allows.
const TOO_LARGE: u64 = 10_054;

/// Returns a sink of the options of `CREATE SINK … WITH (connector = 'nats', …)`. Nothing is sent yet.
///
/// # Errors
/// For invalid options, column types that the format does not have, and servers that the user may not write to.
pub(crate) fn open_sink(
    options: &[(String, String)],
    spec: &SinkSpec,
    env: &ConnectorEnv,
) -> Result<Box<dyn Sink>> {
    let options = NatsSinkOptions::read(options)?;
    let place = if options.subject.contains("${") { "" } else { &options.subject };
    let server = options.server.confined(place, env)?;
    let destination = NatsDestination {
        key: format!("{}:{}", spec.name, spec.id),
        timeout: options.sink.timeout,
        connection: Connection::new(server, Arc::new(Health::default())),
    };
    let subject = ("subject", options.subject.as_str());
    message_sink(destination, (&options.shape, options.sink), subject, spec, &env.io)
}

#[derive(Debug)]
struct NatsDestination {
    /// With which ids begin.
    key: String,
    timeout: Duration,
    connection: Connection,
}

impl NatsDestination {
    /// Checks what no server takes, and what would end the connection.
    fn check(client: &Client, sending: &Sending) -> Result<()> {
        let subject = &sending.topic;
        if !is_subject(subject, false) {
            return Err(Error::data(format!("\"{subject}\" is not a subject")).with_hint(
                "Tokens between dots are not empty, and have neither spaces nor the characters * and >.",
            ));
        }
        let (size, most) = (sending.message.size(), client.server_info().max_payload);
        match most > 0 && size > most {
            true => Err(Error::data(format!(
                "the message has {size} bytes, and the server takes {most} (max_payload)"
            ))),
            false => Ok(()),
        }
    }

    fn headers(&self, sending: &Sending) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, format!("{}:{}", self.key, sending.message.row + 1).as_str());
        for (name, value) in &sending.message.headers {
            let Some(value) = value else { continue };
            let wrong = |why: &str| Error::data(format!("header \"{name}\" {why}"));
            let value = std::str::from_utf8(value).map_err(|_| wrong("is not UTF-8"))?;
            let value: HeaderValue =
                value.parse().map_err(|_| wrong("has a line break, which headers do not have"))?;
            let name: async_nats::HeaderName =
                name.parse().map_err(|_| wrong("has a name that headers do not have"))?;
            headers.append(name, value);
        }
        Ok(headers)
    }

    fn failed(&self, error: &PublishError, subject: &str) -> Error {
        match error.kind() {
            // Also while a server starts.
            PublishErrorKind::StreamNotFound => {
                self.connection.server.away(&format!("no stream takes subject \"{subject}\""))
            }
            _ if is_too_large(error) => Error::data(format!(
                "the stream of subject \"{subject}\" takes no message of this size"
            )),
            _ => self.connection.server.away(&with_causes(error)),
        }
    }

    /// Sends some messages and waits for all acknowledgements; returns how many came without a gap.
    async fn send_some(
        &self,
        (client, jetstream): (&Client, &Context),
        messages: &[Sending],
    ) -> (usize, Result<()>) {
        let mut failed = Ok(());
        let mut acknowledgements = vec![];
        for sending in messages {
            let sent = async {
                Self::check(client, sending)?;
                let payload = sending.message.value.clone().unwrap_or_default();
                let subject = sending.topic.clone();
                let headers = self.headers(sending)?;
                let sent = jetstream.publish_with_headers(subject, headers, payload).await;
                sent.map_err(|error| self.failed(&error, &sending.topic))
            };
            match sent.await {
                Ok(acknowledgement) => acknowledgements.push((acknowledgement, &sending.topic)),
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
        }
        let mut taken = 0;
        for (acknowledgement, subject) in acknowledgements {
            match acknowledgement.await {
                Ok(_) => taken += 1,
                Err(error) => return (taken, Err(self.failed(&error, subject))),
            }
        }
        (taken, failed)
    }
}

fn is_too_large(error: &PublishError) -> bool {
    let cause = std::error::Error::source(error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<jetstream::Error>());
    cause.is_some_and(|error| error.error_code().0 == TOO_LARGE)
}

#[async_trait]
impl Destination for NatsDestination {
    fn guarantee(&self) -> Guarantee {
        Guarantee::OnceWithinWindow
    }

    async fn connect(&mut self) -> Result<()> {
        self.connection.client().await.map(drop)
    }

    async fn send(&mut self, messages: &[Sending]) -> (usize, Result<()>) {
        let client = match self.connection.client().await {
            Ok(client) => client,
            Err(error) => return (0, Err(error)),
        };
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(self.timeout);
        let mut taken = 0;
        for some in messages.chunks(FLIGHT) {
            let (more, sent) = self.send_some((&client, &jetstream), some).await;
            taken += more;
            if sent.is_err() {
                return (taken, sent);
            }
        }
        (taken, Ok(()))
    }

    async fn close(&mut self) {
        self.connection.close().await;
    }
}
