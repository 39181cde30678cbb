//! A reader of one partition of a log.

use std::sync::Arc;

use async_trait::async_trait;
use windrow_core::{Reader, Result, ScanRequest, SourceBatch};

use super::assembly::Assembly;
use super::log::{At, Entry, Log, Reading};
use super::pump::{PIECE_ROWS, Pump};
use crate::formats::decode::Origin;

/// The reader.
pub(super) struct LogReader<L: Log> {
    reading: Arc<Reading>,
    partition: Arc<str>,
    unit: &'static str,
    pump: Pump<L::Message>,
    assembly: Assembly,
    /// Messages that have arrived and are not in a batch yet.
    waiting: std::collections::VecDeque<Entry<L::Message>>,
    /// The position behind them.
    reached: Option<u64>,
    /// The place behind them, and the one behind the batches that were returned.
    place_ahead: Arc<str>,
    place: Arc<str>,
    /// The offset up to which batches were returned; unknown before the first message.
    covered: Option<u64>,
    until_now: bool,
    /// Whether nothing arrives any more.
    is_over: bool,
    failed: Option<windrow_core::Error>,
}

impl<L: Log> LogReader<L> {
    /// Returns a reader of the columns of a request.
    ///
    /// # Errors
    /// When a column does not exist, and when a bounded reading cannot begin.
    pub(super) async fn open(
        parts: (Arc<L>, Arc<Reading>),
        partition: Arc<str>,
        at: At,
        scan: &ScanRequest,
    ) -> Result<Self> {
        let reading = Arc::clone(&parts.1);
        let assembly = Assembly::new(Arc::clone(&reading.values), scan)?;
        let unit = parts.0.unit();
        let (place, covered, until_now) = (Arc::clone(&at.place), at.from, at.until_now);
        let pump = Pump::start(parts, Arc::clone(&partition), at).await?;
        Ok(Self {
            reading,
            partition,
            unit,
            pump,
            assembly,
            waiting: std::collections::VecDeque::new(),
            reached: None,
            place_ahead: Arc::clone(&place),
            place,
            covered,
            until_now,
            is_over: false,
            failed: None,
        })
    }

    /// Takes what has arrived.
    fn take(&mut self, piece: Option<Result<super::log::Fetched<L::Message>>>) {
        match piece {
            None => self.is_over = true,
            Some(Err(error)) => {
                self.failed = Some(error);
                self.is_over = true;
            }
            Some(Ok(fetched)) => {
                self.is_over = fetched.is_over || self.until_now && fetched.is_caught_up;
                self.waiting.extend(fetched.entries);
                self.reached = self.reached.max(fetched.reached);
                if let Some(place) = fetched.place {
                    self.place_ahead = place;
                }
            }
        }
    }

    /// Returns what has arrived as a batch, as far as one has room.
    async fn batch(&mut self) -> Result<Option<SourceBatch>> {
        while self.assembly.has_room()
            && let Some(Entry { offset, message, value }) = self.waiting.pop_front()
        {
            if self.covered.is_none_or(|covered| offset >= covered) {
                self.assembly.push(offset, &message, value.as_deref());
            }
        }
        let health = Arc::clone(&self.reading.health);
        let note = move |error: &str| health.note(error);
        self.assembly.fetch_schemas(&self.reading.clock, self.until_now, note).await?;
        let is_all = self.waiting.is_empty();
        let reached = if is_all { self.reached.take() } else { None };
        let origin = Origin { kind: "partition", name: &self.partition, unit: self.unit };
        let Some(mut batch) = self.assembly.batch(origin, self.covered, reached)? else {
            return Ok(None);
        };
        self.covered = Some(batch.offsets.end());
        if is_all {
            self.place = Arc::clone(&self.place_ahead);
        }
        batch.place = Some(Arc::clone(&self.place));
        Ok(Some(batch))
    }
}

#[async_trait]
impl<L: Log> Reader for LogReader<L> {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        loop {
            while !self.is_over && self.waiting.len() < PIECE_ROWS {
                let Some(piece) = self.pump.ready() else { break };
                self.take(Some(piece));
            }
            if let Some(batch) = self.batch().await? {
                return Ok(Some(batch));
            }
            if self.is_over {
                return self.failed.take().map_or(Ok(None), Err);
            }
            let piece = self.pump.next().await;
            self.take(piece);
        }
    }
}
