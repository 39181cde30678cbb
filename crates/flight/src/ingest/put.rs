//! DoPut to a stream by its name: each batch is acknowledged when it is in the stream.

use arrow_flight::PutResult;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::sql::Any;
use arrow_flight::sql::server::PeekableFlightDataStream;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use futures::{FutureExt, TryFutureExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tonic::Status;
use windrow_core::{Error, Result};
use windrow_engine::{BatchId, Incoming, Ingest, Pushed};
use windrow_server::session::InUse;

use super::{decoded, stream_of, unreadable};
use crate::status::refused;

/// Batches of one sender that wait for the log concurrently, so that they share its syncs.
const WAITING_MAX: usize = 8;

/// The sender's metadata of a batch, in `app_metadata` as JSON. On the first message, the one with the schema, it
/// applies to the batch that follows, and the producer to all.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchMetadata {
    producer: Option<String>,
    sequence: Option<u64>,
}

/// The metadata of an acknowledgement, likewise.
#[derive(Debug, Serialize)]
struct Acknowledgement {
    sequence: u64,
    rows: u64,
    bad: u64,
    repeated: bool,
    /// A notice about the rows, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<&'static str>,
}

/// A sender.
struct Sender {
    session: InUse,
    /// Completes when the server stops.
    stopped: BoxFuture<'static, Error>,
    stream: String,
    data: FlightDataDecoder,
    ingest: Option<Ingest>,
    producer: Option<String>,
    /// The number of the next batch, if the sender does not give it; a producer gives the first.
    next: Option<u64>,
}

/// Ingests the batches of a sender into the stream that its descriptor names. `command`: the command of the descriptor,
/// which must be empty.
pub(crate) async fn put(
    session: InUse,
    command: &Any,
    mut data: PeekableFlightDataStream,
) -> Result<BoxStream<'static, Result<PutResult, Status>>, Status> {
    if !command.type_url.is_empty() {
        let error = format!("DoPut does not support {}", command.type_url);
        return Err(Status::unimplemented(error));
    }
    let first = data.peek().await.cloned().transpose()?;
    let descriptor = first.and_then(|first| first.flight_descriptor).unwrap_or_default();
    let stream = stream_of(&descriptor).map_err(refused)?;
    let (data, stopped) = (decoded(data), session.stopped().boxed());
    let sender =
        Sender { session, stopped, stream, data, ingest: None, producer: None, next: Some(1) };
    let offered = stream::unfold(Some(sender), |sender| async {
        let mut sender = sender?;
        match sender.offer_next().await {
            Ok(None) => None,
            Ok(Some(offered)) => Some((Ok(offered), Some(sender))),
            // Nothing is accepted after it.
            Err(error) => Some((Err(error), None)),
        }
    });
    // In order: acknowledgements before an error are sent before it.
    let answers = offered
        .map(|offered| async {
            let (sequence, incoming) = offered?;
            incoming.settled().await.and_then(|pushed| answer(sequence, pushed))
        })
        .buffered(WAITING_MAX)
        .map_err(refused);
    Ok(answers.boxed())
}

impl Sender {
    /// Starts the next batch and returns it with its number.
    async fn offer_next(&mut self) -> Result<Option<(u64, Incoming)>> {
        loop {
            let message = tokio::select! {
                biased;
                // Batches already accepted are still acknowledged.
                error = &mut self.stopped => return Err(error),
                message = self.data.try_next().map_err(unreadable) => message?,
            };
            let Some(message) = message else { return Ok(None) };
            let said = said(&message.inner.app_metadata)?;
            match message.payload {
                DecodedPayload::Schema(schema) => {
                    if self.ingest.is_some() {
                        return Err(Error::data("the columns of the batches changed")
                            .with_hint("Send them with another DoPut."));
                    }
                    self.ingest = Some(self.session.engine().ingest(&self.stream, &schema)?);
                    self.said(said);
                }
                DecodedPayload::RecordBatch(rows) => {
                    self.said(said);
                    let id = self.id()?;
                    let Some(ingest) = &self.ingest else {
                        return Err(Error::data("a batch came before its schema"));
                    };
                    let sequence = id.sequence;
                    let id = (!id.producer.is_empty()).then_some(&id);
                    let incoming = ingest.offer(vec![rows], id).await?;
                    self.next = sequence.checked_add(1);
                    return Ok(Some((sequence, incoming)));
                }
                DecodedPayload::None => self.said(said),
            }
        }
    }

    fn said(&mut self, said: BatchMetadata) {
        if let Some(producer) = said.producer
            && self.producer.as_ref() != Some(&producer)
        {
            self.producer = Some(producer);
            self.next = None;
        }
        self.next = said.sequence.or(self.next);
    }

    /// The id of the next batch; unnamed: of no producer.
    fn id(&self) -> Result<BatchId> {
        let producer = self.producer.clone().unwrap_or_default();
        if self.producer.as_ref().is_some_and(String::is_empty) {
            return Err(Error::data("the name of a producer is empty"));
        }
        let sequence = self.next.ok_or_else(|| {
            Error::data(format!("producer \"{producer}\" gives no sequence to its batch"))
                .with_hint("Send {\"producer\":\"…\",\"sequence\":1} as app_metadata of the batch.")
        })?;
        Ok(BatchId { producer, sequence })
    }
}

fn said(metadata: &Bytes) -> Result<BatchMetadata> {
    if metadata.is_empty() {
        return Ok(BatchMetadata::default());
    }
    serde_json::from_slice(metadata).map_err(|e| {
        Error::data(format!("the app_metadata of a batch is not understood: {e}"))
            .with_hint("Send {\"producer\":\"…\",\"sequence\":1}, or nothing.")
            .with_source(e)
    })
}

fn answer(sequence: u64, pushed: Pushed) -> Result<PutResult> {
    let Pushed { rows, bad, repeated, in_1970 } = pushed;
    let notice = in_1970.then_some(Pushed::NOTICE_1970);
    let json = serde_json::to_vec(&Acknowledgement { sequence, rows, bad, repeated, notice })
        .map_err(|e| {
            Error::internal("an acknowledgement cannot be written as JSON").with_source(e)
        })?;
    Ok(PutResult { app_metadata: json.into() })
}
