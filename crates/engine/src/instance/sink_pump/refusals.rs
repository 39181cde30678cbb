//! Rows that the destination refuses: each is found, stored, and skipped.
//!
//! ```text
//! written ├──────── refused ────────┤   half of it, and so on, until it is one row, unless the destination names the row
//! row     ├─┤ stored in windrow.rejected_rows ─► committed without its values
//! ```
//! After a refusal, commits double in size, starting with one row.
//!
//! Invariants: a refused row is stored before the commit that skips it, and not sent again after that; where the destination
//! does not store the sequence, the rows of each smaller commit are fixed in the record like those of any other.

use std::sync::Arc;

use arrow::array::RecordBatch;
use windrow_connectors::row_json;
use windrow_core::{Error, ErrorKind, OffsetRange, Result, ScanRequest, Source};
use windrow_stream::caught::stopped;
use windrow_stream::log::StreamLog;
use windrow_stream::log_reader::LogSource;

use super::{BATCH_ROWS, Pause, SinkPump};
use crate::durable::sink_records::RejectedRow;

/// The search for a refused row.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Whether refused rows are set aside.
    pub(super) are_set_aside: bool,
    /// The maximum number of rows in a commit, during the search.
    pub(super) at_most: Option<u64>,
    /// The end of the rows that were written last.
    pub(super) tried: u64,
    /// Whether the last error is that of a refused row.
    is_refusal: bool,
}

impl Refusals {
    /// Records whether a result of the sink is the refusal of a row.
    pub(super) fn noted<T>(&mut self, answer: Result<T>) -> Result<T> {
        self.is_refusal = matches!(&answer, Err(error) if error.kind() == ErrorKind::Data);
        answer
    }

    /// Whether an error is that of a row to be set aside.
    pub(super) fn takes(&mut self, error: &Error) -> bool {
        let is_refusal = std::mem::take(&mut self.is_refusal);
        self.are_set_aside && is_refusal && error.kind() == ErrorKind::Data
    }

    /// Doubles the size of commits, until the limit is lifted.
    pub(super) fn grow(&mut self) {
        self.at_most = self.at_most.map(|most| most * 2).filter(|most| *most < BATCH_ROWS as u64);
    }
}

impl SinkPump {
    /// Decides what to try next after a refusal.
    pub(super) async fn refuse(&mut self, error: Error) -> Result<Pause> {
        let (delivered, refused) = (self.sink.delivered(), self.sink.refused());
        self.sink.rewind().await?;
        if let Some(delivered) = delivered.filter(|to| *to > self.record.committed) {
            self.advance(delivered);
        }
        let first = self.record.committed;
        self.written = first;
        self.is_committing = false;
        self.record.writing = None;
        let tried = self.refusals.tried.saturating_sub(first);
        if tried == 0 {
            return Err(error);
        }
        // A row that was refused among others is tried again alone.
        let is_found = tried == 1 || (refused == Some(first) && delivered == Some(first));
        if is_found {
            self.set_aside(first, &error).await?;
            self.refusals.at_most = Some(1);
            return Ok(Pause::Refused);
        }
        self.refusals.at_most = Some(match refused {
            Some(row) if row > first && row < self.refusals.tried => row - first,
            Some(row) if row == first => 1,
            _ => tried / 2,
        });
        Ok(Pause::Refused)
    }

    /// Stores a refused row.
    async fn set_aside(&mut self, row: u64, error: &Error) -> Result<()> {
        let rows = read(Arc::clone(&self.object.rows.log), row).await?;
        let refused = RejectedRow {
            row,
            reason: error.message().to_owned(),
            at: self.clock.now_micros(),
            values: rows.as_ref().and_then(row_json),
        };
        let mut rejected = self.object.rejected();
        rejected.add(refused);
        if let Some((store, definition)) = self.place.clone() {
            let store = store.upgrade().ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "the data directory is closed")
            })?;
            let stored = rejected.clone();
            let write = move || store.write_rejected(&definition, &stored);
            let written = tokio::task::spawn_blocking(write).await;
            written.map_err(|end| stopped("storing a refused row", end))??;
        }
        let name = &self.object.name;
        tracing::warn!(sink = name, row, %error, "a row was refused and set aside");
        self.object.set_rejected(rejected);
        self.object.set(|state| state.last_error = Some(error.message().to_owned()));
        Ok(())
    }

    /// Commits the row that was set aside, without its values.
    pub(super) async fn skip_refused(&mut self) -> Result<()> {
        let Some(row) = self.object.open_rejection(self.record.committed) else { return Ok(()) };
        if row != self.record.committed {
            return Err(Error::internal(format!("row {row} was refused before others were sent")));
        }
        let none = RecordBatch::new_empty(self.object.rows.log.schema());
        self.record.writing = None;
        self.sink.write(&none, OffsetRange::try_new(row, row + 1)?).await?;
        self.written = row + 1;
        self.commit().await
    }
}

/// Returns a row; `None`: retention has dropped it.
async fn read(log: Arc<StreamLog>, row: u64) -> Result<Option<RecordBatch>> {
    let all = (0..log.schema().fields().len()).collect();
    let request = ScanRequest { from: Some(row), ..ScanRequest::of_now(all, BATCH_ROWS) };
    let source = LogSource::part(log, Some(row), row + 1);
    for partition in source.discover().await? {
        for split in &partition.splits {
            let mut reader = source.open(split, &request).await?;
            while let Some(batch) = reader.next().await? {
                if batch.rows.num_rows() > 0 {
                    return Ok(Some(batch.rows));
                }
            }
        }
    }
    Ok(None)
}
