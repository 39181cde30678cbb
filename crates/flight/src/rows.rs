//! The rows of a statement as a stream of messages. Nothing is read ahead of the client: HTTP/2 flow control makes the
//! stream wait, and the stream makes the query wait.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use arrow_flight::FlightData;
use futures::{Stream, StreamExt};
use serde::Serialize;
use tonic::Status;
use tonic::metadata::MetadataMap;
use windrow_core::Error;
use windrow_core::time::{ticks_to_micros, time_unit};
use windrow_engine::{Done, Engine, Position, QueryStatus, ReadProgress, ResultStream, UnusedRows};
use windrow_server::running::{Execution, cancelled};

use crate::status::to_status;
use crate::wire::Encoder;

/// The messages that a client receives.
pub(crate) type Messages = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send + 'static>>;

/// After this long without rows, a continuous query sends a batch without rows.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The header by which a client requests a shorter heartbeat, in milliseconds.
pub(crate) const HEARTBEAT_HEADER: &str = "windrow-heartbeat-ms";
/// The shortest heartbeat.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// The `app_metadata` of a batch of a continuous query.
#[derive(Debug, Serialize)]
struct PositionMetadata {
    /// The number of the batch's last row; `None`: within a snapshot, which cannot be resumed.
    sequence: Option<u64>,
    /// No later row has an event time below it.
    watermark: Option<String>,
    /// The windows of the rows: the lowest start, the highest end.
    window_start: Option<String>,
    window_end: Option<String>,
    #[serde(flatten)]
    counts: Option<Counts>,
}

/// Counts of the input of a query; not available for a subscription to a view.
#[derive(Debug, Clone, Copy, Serialize)]
struct Counts {
    /// Input rows, late and bad ones among them.
    rows_in: u64,
    late: u64,
    bad: u64,
    /// Windows that have rows and are not closed.
    open_windows: usize,
}

/// The `app_metadata` at the end of a bounded result: rows of its connectors and views that are not in it.
#[derive(Debug, Clone, Copy, Serialize)]
struct Unused {
    late: u64,
    bad: u64,
}

/// How the rows of a result are reported to a client.
#[derive(Debug)]
pub(crate) struct RowReporting {
    /// The engine of the rows.
    engine: Engine,
    /// Time without rows after which a heartbeat is sent.
    heartbeat: Duration,
    /// Whether the client requested heartbeats: it then gets them for bounded statements too.
    is_wanted: bool,
}

/// The `app_metadata` with the progress of a bounded statement, if its client requested heartbeats.
#[derive(Debug, Serialize)]
struct Read {
    rows_in: u64,
    bytes: u64,
    bytes_total: u64,
}

impl RowReporting {
    /// Reads the settings from the headers of the client.
    pub(crate) fn of(engine: Engine, headers: &MetadataMap) -> Self {
        let wanted = headers.get(HEARTBEAT_HEADER).and_then(|v| v.to_str().ok()?.parse().ok());
        let wanted = wanted.map(Duration::from_millis);
        let is_wanted = wanted.is_some();
        let heartbeat = wanted.map_or(HEARTBEAT, |w| w.clamp(HEARTBEAT_MIN, HEARTBEAT));
        Self { engine, heartbeat, is_wanted }
    }
}

impl PositionMetadata {
    /// Describes the position behind the row `sequence`; `known` has the watermark.
    fn at(sequence: Option<u64>, known: Option<Position>) -> Self {
        let watermark = known.and_then(|p| p.watermark_micros).map(time_text);
        Self { sequence, watermark, window_start: None, window_end: None, counts: None }
    }

    fn json(&self) -> Result<Vec<u8>, ArrowError> {
        serde_json::to_vec(self).map_err(|e| ArrowError::ExternalError(Box::new(e)))
    }
}

/// The `app_metadata` of a statement without rows.
#[derive(Debug, Serialize)]
struct StatementDone<'a> {
    done: &'a str,
    rows: Option<u64>,
}

/// Returns the single message of a statement without rows: no columns, and the result as metadata.
pub(crate) fn done(done: &Done) -> Result<Messages, Status> {
    let said = StatementDone { done: &done.said, rows: done.rows };
    let json = serde_json::to_vec(&said).map_err(|e| Status::internal(e.to_string()))?;
    let head = Encoder::new(&Arc::new(Schema::empty())).head().with_app_metadata(json);
    Ok(futures::stream::iter([Ok(head)]).boxed())
}

/// Returns the messages of rows that are in memory.
pub(crate) fn batch(rows: &RecordBatch) -> Result<Messages, Status> {
    let mut encoder = Encoder::new(rows.schema_ref());
    let mut messages = vec![Ok(encoder.head())];
    for piece in encoder.pieces(rows).map_err(|e| arrow_status(e, ""))? {
        messages.push(Ok(encoder.message(&piece).map_err(|e| arrow_status(e, ""))?));
    }
    Ok(futures::stream::iter(messages).boxed())
}

/// Returns the messages of the rows of a running statement.
pub(crate) fn messages(
    mut rows: ResultStream,
    sql: Arc<str>,
    execution: Execution,
    reporting: RowReporting,
) -> Result<Messages, Status> {
    let encoder = Encoder::new(rows.schema());
    let windows = Windows::of(rows.schema());
    let mut head = encoder.head();
    if let Some(position) = rows.position() {
        // A client that loses the connection before the first batch resumes here.
        let metadata = PositionMetadata::at(position.sequence, Some(position));
        head = head.with_app_metadata(metadata.json().map_err(|e| arrow_status(e, &sql))?);
    }
    let ready = VecDeque::from([head]);
    let ended = false;
    let sending =
        Sending { rows, sql, execution, reporting, encoder, windows, ready, before: None, ended };
    let next = |sending: Option<Sending>| async move {
        let mut sending = sending?;
        match sending.next().await {
            Ok(Some(message)) => Some((Ok(message), Some(sending))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    };
    Ok(futures::stream::unfold(Some(sending), next).boxed())
}

#[derive(Debug)]
struct Sending {
    rows: ResultStream,
    sql: Arc<str>,
    execution: Execution,
    reporting: RowReporting,
    encoder: Encoder,
    windows: Windows,
    /// Messages of the batch that was read last.
    ready: VecDeque<FlightData>,
    /// The position of a continuous query before that batch.
    before: Option<Position>,
    /// Whether the last position has been sent.
    ended: bool,
}

impl Sending {
    async fn next(&mut self) -> Result<Option<FlightData>, Status> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            let waits = self.rows.is_continuous() || self.reporting.is_wanted;
            let clock = self.reporting.engine.clock();
            tokio::select! {
                biased;
                () = self.execution.stopped() => return Err(to_status(&cancelled(), "")),
                next = self.rows.next() => match next {
                    None if self.ended => return Ok(None),
                    None => {
                        self.ended = true;
                        self.tell_end()?;
                    }
                    Some(Err(error)) => return Err(to_status(&error, &self.sql)),
                    Some(Ok(rows)) => {
                        let encoded = self.encode(&rows);
                        encoded.map_err(|e| arrow_status(e, &self.sql))?;
                    }
                },
                () = clock.sleep(self.reporting.heartbeat), if waits => self.tell()?,
            }
        }
    }

    /// Sends the last position; of a bounded result, the rows that are not in it.
    fn tell_end(&mut self) -> Result<(), Status> {
        if self.rows.is_continuous() {
            return self.tell();
        }
        let Some(UnusedRows { late, bad }) = self.rows.unused_rows() else { return Ok(()) };
        if late + bad == 0 {
            return Ok(());
        }
        let none = RecordBatch::new_empty(Arc::clone(self.rows.schema()));
        self.send_metadata(&none, &Unused { late, bad })
    }

    /// Sends metadata with a batch that has no rows.
    fn send_metadata(
        &mut self,
        none: &RecordBatch,
        metadata: &impl Serialize,
    ) -> Result<(), Status> {
        let mut message = || {
            let json = serde_json::to_vec(metadata);
            let json = json.map_err(|e| ArrowError::ExternalError(Box::new(e)))?;
            Ok::<_, ArrowError>(self.encoder.message(none)?.with_app_metadata(json))
        };
        let message = message().map_err(|e| arrow_status(e, &self.sql))?;
        self.ready.push_back(message);
        Ok(())
    }

    /// Sends the position without rows, or the progress of a bounded statement.
    fn tell(&mut self) -> Result<(), Status> {
        let none = RecordBatch::new_empty(Arc::clone(self.rows.schema()));
        if let Some(ReadProgress { rows, bytes, bytes_total }) = self.rows.read_progress() {
            return self.send_metadata(&none, &Read { rows_in: rows, bytes, bytes_total });
        }
        self.encode(&none).map_err(|e| arrow_status(e, &self.sql))
    }

    fn encode(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        let position = self.rows.position();
        let before = std::mem::replace(&mut self.before, position);
        let first = self.rows.first();
        let counts = self.counts();
        let mut left = rows.num_rows() as u64;
        for piece in self.encoder.pieces(rows)? {
            let mut message = self.encoder.message(&piece)?;
            left -= piece.num_rows() as u64;
            if let Some(position) = position {
                // Rows of the batch after this piece may be older than its watermark.
                let known = if left == 0 { Some(position) } else { before };
                let [window_start, window_end] = self.windows.range(&piece)?;
                let metadata = PositionMetadata {
                    window_start,
                    window_end,
                    counts,
                    ..PositionMetadata::at(position.before(left, first), known)
                };
                message = message.with_app_metadata(metadata.json()?);
            }
            self.ready.push_back(message);
        }
        Ok(())
    }

    fn counts(&self) -> Option<Counts> {
        let status = self.reporting.engine.query_status(self.rows.query_id()?)?;
        let QueryStatus { rows_in, late, bad, windows_open, .. } = status;
        Some(Counts { rows_in, late, bad, open_windows: windows_open })
    }
}

/// The columns that hold the windows of the rows.
#[derive(Debug)]
struct Windows([Option<usize>; 2]);

impl Windows {
    fn of(columns: &SchemaRef) -> Self {
        Self(["window_start", "window_end"].map(|name| {
            let (index, field) = columns.column_with_name(name)?;
            time_unit(field.data_type()).map(|_| index)
        }))
    }

    fn range(&self, rows: &RecordBatch) -> Result<[Option<String>; 2], ArrowError> {
        let ticks = |column: Option<usize>| match column {
            Some(index) => {
                let column: &ArrayRef = rows.column(index);
                let unit = time_unit(column.data_type());
                Ok(Some((cast(column, &DataType::Int64)?, unit)))
            }
            None => Ok::<_, ArrowError>(None),
        };
        let [start, end] = self.0;
        let text = |ticks: Option<i64>, unit: Option<TimeUnit>| {
            Some(time_text(ticks_to_micros(ticks?, unit?)))
        };
        let start = ticks(start)?.and_then(|(c, u)| text(min(c.as_primitive::<Int64Type>()), u));
        let end = ticks(end)?.and_then(|(c, u)| text(max(c.as_primitive::<Int64Type>()), u));
        Ok([start, end])
    }
}

/// Formats a time in µs since the epoch as ISO text, without a zone.
fn time_text(micros: i64) -> String {
    let time = TimestampMicrosecondArray::from(vec![micros]);
    array_value_to_string(&time, 0).unwrap_or_else(|_| micros.to_string())
}

pub(crate) fn arrow_status(error: ArrowError, sql: &str) -> Status {
    to_status(&Error::from(error), sql)
}
