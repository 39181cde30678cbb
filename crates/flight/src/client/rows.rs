//! Rows received from a server, with the metadata sent beside them.

use std::fmt;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use tonic::Streaming;
use windrow_core::{Error, ErrorKind, Result};

use crate::status::from_status;

/// The progress of a result, as the server reports it in `app_metadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Position {
    /// The number of the last row: `SUBSCRIBE TO v AFTER` resumes behind it.
    pub sequence: Option<u64>,
    /// No later row has an event time below it.
    pub watermark: Option<String>,
    /// Start of the first window in the rows.
    pub window_start: Option<String>,
    /// End of the last window in the rows.
    pub window_end: Option<String>,
    /// Rows that the statement has read; `None` for a subscription.
    pub rows_in: Option<u64>,
    /// Stored bytes that a bounded statement has read.
    pub bytes: Option<u64>,
    /// Stored bytes that it reads in total.
    pub bytes_total: Option<u64>,
    /// Of the rows that it has read, those that were late.
    pub late: Option<u64>,
    /// Of the rows that it has read, those that could not be used.
    pub bad: Option<u64>,
    /// Windows that have rows and are not closed.
    pub open_windows: Option<usize>,
}

/// The rows of a statement. Dropping them cancels it.
pub struct RemoteRows {
    schema: SchemaRef,
    decoder: FlightDataDecoder,
    position: Option<Position>,
}

impl fmt::Debug for RemoteRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteRows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl RemoteRows {
    pub(super) fn new(schema: SchemaRef, data: Streaming<FlightData>) -> Self {
        let data = data.map_err(|status| FlightError::Tonic(Box::new(status)));
        Self { schema, decoder: FlightDataDecoder::new(data), position: None }
    }

    /// The columns, known before the first row.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The progress of the statement with the rows received so far; `None` before the server has reported.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Returns the next rows; `None` when there are no more. Dropping the future loses none. An error of the server
    /// ends the result.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            let data = match self.decoder.next().await? {
                Ok(data) => data,
                Err(error) => return Some(Err(from_flight(error))),
            };
            let told = data.app_metadata();
            if let Ok(position) = serde_json::from_slice(&told) {
                self.position = Some(position);
            }
            match data.payload {
                DecodedPayload::RecordBatch(batch) => return Some(Ok(batch)),
                DecodedPayload::Schema(schema) => self.schema = schema,
                DecodedPayload::None => {}
            }
        }
    }
}

fn from_flight(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => match std::error::Error::source(&*status) {
            // The connection broke: the status is not from a server.
            Some(cause) => Error::new(
                ErrorKind::Unavailable,
                format!("the connection to the server was lost: {cause}"),
            )
            .with_hint("Run the statement again; SUBSCRIBE TO … AFTER resumes where it stopped."),
            None => from_status(&status),
        },
        FlightError::Arrow(error) => error.into(),
        other => Error::data(format!("the server's data cannot be read: {other}")),
    }
}
