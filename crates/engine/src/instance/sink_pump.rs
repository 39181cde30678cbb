//! Moves the rows of a view to the destination of a sink.
//!
//! ```text
//! view    ├─ committed ──────┼─ taken ─┼─ final ─┼─ may change ─┤
//!         record ◄───────────┘
//! ```
//! Only final rows are taken: they keep their number and their values, so that what was taken and not committed can be read
//! again. In a data directory rows are final once they are archived.
//!
//! Invariants: the record is never ahead of the destination; where a destination does not know what it has, the rows of a commit
//! are fixed in the record before any of them is sent; an error stops the sink, and never the view; a refused row is
//! stored before the sink continues without it (`refusals`).

mod refusals;

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use windrow_core::{
    Clock, Error, ErrorKind, Guarantee, OffsetRange, Result, ScanRequest, Sink, Source, SourceBatch,
};
use windrow_stream::caught::{caught, stopped};
use windrow_stream::log_reader::LogSource;

use crate::catalog::sinks::{Control, Phase, SinkObject};
use crate::durable::definitions::Definition;
use crate::durable::sink_records::SinkRecord;
use crate::durable::store::Store;
use refusals::Refusals;

/// Minimum time between two looks for final rows, where rows become final by archiving.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rows that are read as one batch.
const BATCH_ROWS: usize = 8_192;
/// The time before a failed attempt is repeated: at first, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// The place of a sink's record in the data directory, which the sink does not keep open.
pub(crate) type RecordPlace = (Weak<Store>, Definition);

/// Moves the rows of one sink.
#[derive(Debug)]
pub(crate) struct SinkPump {
    object: Arc<SinkObject>,
    sink: Box<dyn Sink>,
    /// Whether the destination is open.
    is_open: bool,
    place: Option<RecordPlace>,
    record: SinkRecord,
    /// Whether the record has changes that are not stored.
    is_unstored: bool,
    /// The end of the rows that were taken.
    written: u64,
    /// Whether a commit has begun and has failed.
    is_committing: bool,
    /// Since when rows wait, in µs.
    waiting_since: Option<i64>,
    /// What happens to rows that the destination refuses.
    refusals: Refusals,
    clock: Arc<dyn Clock>,
    control: watch::Receiver<Control>,
}

/// Why the pump does not continue.
enum Pause {
    Paused,
    /// A row was refused: the pump continues with smaller commits, or without the row.
    Refused,
    Ended,
    Finished,
}

impl SinkPump {
    /// Returns the pump of a sink. `is_open`: its destination is open already.
    pub(crate) fn new(
        object: &Arc<SinkObject>,
        (sink, is_open): (Box<dyn Sink>, bool),
        place: Option<RecordPlace>,
        record: SinkRecord,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self {
            object: Arc::clone(object),
            sink,
            is_open,
            place,
            record,
            is_unstored: false,
            written: record.committed,
            is_committing: false,
            waiting_since: None,
            refusals: Refusals::default(),
            clock: Arc::clone(clock),
            control: object.control(),
        }
    }

    /// Sets whether refused rows are set aside; otherwise they stop the sink.
    pub(crate) fn rejecting(mut self, rejects: bool) -> Self {
        self.refusals.are_set_aside = rejects;
        self
    }

    /// Moves rows until the sink is dropped, or its view has ended and all rows are committed.
    pub(crate) async fn run(mut self) {
        let mut control = self.object.control();
        let name = self.object.name.clone();
        let mut back_off = BACK_OFF.0;
        loop {
            let before = (self.record.committed, self.sink.progress());
            let worked = tokio::select! {
                biased;
                _ = control.wait_for(|control| control.dropped) => Ok(Pause::Ended),
                worked = caught(|| format!("sink \"{name}\""), self.work()) => worked,
            };
            if (self.record.committed, self.sink.progress()) != before {
                back_off = BACK_OFF.0;
                // From now on it fails anew.
                self.recover();
            }
            let worked = match worked {
                Err(error) if self.refusals.takes(&error) => self.refuse(error).await,
                worked => worked,
            };
            match worked {
                Ok(Pause::Refused) => {}
                Ok(Pause::Paused) => self.pause().await,
                Ok(Pause::Ended) => return self.end(Phase::Gone).await,
                Ok(Pause::Finished) => return self.end(Phase::Finished).await,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    let wait = self.sink.retry_after().unwrap_or(back_off);
                    back_off = (back_off * 2).min(BACK_OFF.1);
                    self.note(&error);
                    self.sleep_until_resumed(wait).await;
                }
                Err(error) => {
                    self.stop(error).await;
                    back_off = BACK_OFF.0;
                }
            }
        }
    }

    /// Waits until the sink is resumed. That it is paused is stored first.
    async fn pause(&mut self) {
        let mut control = self.object.control();
        if let Err(error) = self.store().await {
            self.note(&error);
            return self.clock.sleep(BACK_OFF.0).await;
        }
        // The sender lives in the object, which this holds.
        drop(control.wait_for(|c| !c.paused || c.ends || c.dropped).await);
    }

    async fn end(mut self, phase: Phase) {
        let is_dropped = self.control.borrow().dropped;
        if self.is_committing && !is_dropped && self.sink.guarantee() == Guarantee::ExactlyOnce {
            // Its replacement continues after the rows that the destination has.
            if let Ok(Some(has)) = self.sink.open(Some(self.record.committed)).await
                && has > self.record.committed
            {
                self.object.set(|state| state.committed = has);
            }
        }
        if let Err(error) = self.sink.close().await {
            tracing::warn!(sink = self.object.name, %error, "a sink could not be closed");
        }
        self.object.set(|state| state.phase = phase);
    }

    /// Records a temporary error.
    fn note(&self, error: &Error) {
        let name = &self.object.name;
        tracing::warn!(sink = name, %error, "the rows of a sink wait");
        let now = self.clock.now_micros();
        self.object.set(|state| {
            state.retries += 1;
            state.last_error = Some(error.message().to_owned());
            if !matches!(state.phase, Phase::Retrying(_)) {
                state.phase = Phase::Retrying(now);
            }
        });
    }

    /// Records that the destination does not fail any more.
    fn recover(&self) {
        if matches!(self.object.state().phase, Phase::Retrying(_)) {
            self.object.set(|state| state.phase = Phase::Running);
        }
    }

    /// Stops at an error until a person resumes the sink. Rows that were not committed are read again then.
    async fn stop(&mut self, error: Error) {
        let mut control = self.object.control();
        // Before others see that it has stopped, and resume it.
        let resumed = control.borrow_and_update().resumed;
        let name = self.object.name.clone();
        tracing::error!(sink = name, %error, "a sink has stopped");
        if let Err(error) = self.sink.close().await {
            tracing::warn!(sink = name, %error, "a sink could not be closed");
        }
        (self.is_open, self.is_committing) = (false, false);
        self.written = self.record.committed;
        let mut shown =
            Error::new(error.kind(), format!("sink \"{name}\" has stopped: {}", error.message()));
        for hint in error.hints() {
            shown = shown.with_hint(hint);
        }
        let shown = shown.with_hint(format!("RESUME SINK {name} tries again."));
        self.object.set(|state| {
            state.last_error = Some(error.message().to_owned());
            state.phase = Phase::Stopped(Arc::new(shown));
        });
        // The sender lives in the object, which this holds.
        drop(control.wait_for(|c| c.resumed > resumed || c.ends || c.dropped).await);
        self.object.set(|state| state.phase = Phase::Running);
    }

    /// Sleeps before the next attempt, unless the sink is paused, resumed or dropped meanwhile.
    async fn sleep_until_resumed(&mut self, wait: Duration) {
        let mut control = self.object.control();
        let now = *control.borrow_and_update();
        let changes =
            |c: &Control| c.paused != now.paused || c.resumed > now.resumed || c.ends || c.dropped;
        tokio::select! {
            () = self.clock.sleep(wait) => {}
            _ = control.wait_for(changes) => {}
        }
    }

    /// Moves rows as they come.
    async fn work(&mut self) -> Result<Pause> {
        if !self.control.borrow().paused {
            self.open().await?;
        }
        loop {
            let control = *self.control.borrow_and_update();
            if control.ends || control.dropped {
                return Ok(Pause::Ended);
            }
            if control.paused {
                return Ok(Pause::Paused);
            }
            if self.object.state().is_paused {
                // It is resumed.
                self.store().await?;
            }
            let log = Arc::clone(&self.object.rows.log);
            let mut changed = log.watch();
            let is_due = self.is_due(control);
            let to = match is_due {
                true => self.object.rows.finish().await?,
                false => self.object.rows.count(),
            };
            self.read(to).await?;
            if is_due {
                self.commit().await?;
            }
            self.recover();
            let state = log.state();
            if state.ended && self.record.committed >= state.rows {
                return Ok(Pause::Finished);
            }
            if let Some(error) = log.failed()
                && self.written >= self.object.rows.count()
            {
                self.commit().await?;
                return Err(error);
            }
            self.wait(&mut changed, control).await;
        }
    }

    /// Opens the destination, and completes the commit that has failed.
    async fn open(&mut self) -> Result<()> {
        if !self.is_open {
            if let Some(has) = self.sink.open(Some(self.record.committed)).await?
                && has > self.record.committed
            {
                // The process ended between the commit and the record.
                self.advance(has);
            }
            self.written = self.record.committed;
            self.is_open = true;
        }
        let rows = self.object.rows.log.state();
        if rows.ended && self.record.committed > rows.rows {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "view \"{}\" has lost rows: it has {}, and the sink has committed {}",
                    self.object.view, rows.rows, self.record.committed
                ),
            )
            .with_hint("Restore its archive from a backup."));
        }
        if self.is_committing || self.is_unstored {
            self.commit().await?;
        }
        self.skip_refused().await
    }

    /// Whether the rows that are there are to be committed now.
    fn is_due(&mut self, control: Control) -> bool {
        let state = self.object.rows.log.state();
        if state.rows <= self.record.committed {
            self.waiting_since = None;
            return false;
        }
        let now = self.clock.now_micros();
        let since = *self.waiting_since.get_or_insert(now);
        let waited = Duration::from_micros(u64::try_from(now - since).unwrap_or(0));
        state.ended
            || self.record.writing.is_some()
            || self.refusals.at_most.is_some()
            || control.flush_to > self.record.committed
            || waited >= self.sink.wait_max()
    }

    /// Takes the rows below `to`, and commits whenever the sink has no room.
    async fn read(&mut self, to: u64) -> Result<()> {
        if self.written >= to {
            return Ok(());
        }
        let log = &self.object.rows.log;
        let source = LogSource::part(Arc::clone(log), Some(self.written), to);
        let all = (0..log.schema().fields().len()).collect();
        // By `from`, rows that retention has dropped are an error and are not skipped.
        let request =
            ScanRequest { from: Some(self.written), ..ScanRequest::of_now(all, BATCH_ROWS) };
        for partition in source.discover().await? {
            for split in &partition.splits {
                let mut reader = source.open(split, &request).await?;
                while self.written < to
                    && !self.is_interrupted()
                    && let Some(batch) = reader.next().await?
                {
                    self.take(batch).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether something else than reading is to be done.
    fn is_interrupted(&self) -> bool {
        let control = *self.control.borrow();
        control.paused || control.ends || control.dropped
    }

    async fn take(&mut self, batch: SourceBatch) -> Result<()> {
        let (first, end) = (batch.offsets.start(), batch.offsets.end());
        let rows = batch.rows;
        if rows.num_rows() == 0 {
            // Lost rows.
            self.sink.write(&rows, batch.offsets).await?;
            self.written = end;
            return Ok(());
        }
        let mut at = 0;
        while at < rows.num_rows() {
            let room = self.room();
            if room == 0 {
                self.commit().await?;
                continue;
            }
            let count = room.min(rows.num_rows() - at);
            let from = first + at as u64;
            let range = OffsetRange::try_new(from, from + count as u64)?;
            self.refusals.tried = range.end();
            let taken = self.sink.write(&rows.slice(at, count), range).await;
            self.refusals.noted(taken)?;
            at += count;
            self.written = range.end();
        }
        if self.room() == 0 {
            self.commit().await?;
        }
        Ok(())
    }

    /// The rows that may be taken before the next commit.
    fn room(&self) -> usize {
        let fixed = self.record.writing.map_or(u64::MAX, |to| to.saturating_sub(self.written));
        let taken = self.written - self.record.committed;
        let fixed =
            self.refusals.at_most.map_or(fixed, |most| fixed.min(most.saturating_sub(taken)));
        self.sink.room().min(usize::try_from(fixed).unwrap_or(usize::MAX))
    }

    /// Commits the rows that were taken.
    async fn commit(&mut self) -> Result<()> {
        if self.is_unstored {
            self.store().await?;
        }
        if self.written == self.record.committed {
            return Ok(());
        }
        if self.sink.guarantee() != Guarantee::ExactlyOnce {
            match self.record.writing {
                // The destination may have these rows already: they come together again.
                Some(writing) if self.written < writing => return Ok(()),
                Some(_) => {}
                None => {
                    self.record.writing = Some(self.written);
                    self.store().await?;
                }
            }
        }
        self.is_committing = true;
        self.refusals.tried = self.written;
        let committed = self.sink.commit(self.written).await;
        self.refusals.noted(committed)?;
        self.is_committing = false;
        self.refusals.grow();
        self.advance(self.written);
        self.store().await
    }

    fn advance(&mut self, committed: u64) {
        self.record.committed = committed;
        self.record.writing = self.record.writing.filter(|to| *to > committed);
        self.waiting_since = None;
        self.is_unstored = true;
    }

    /// Stores the record.
    async fn store(&mut self) -> Result<()> {
        self.is_unstored = true;
        let paused = self.control.borrow().paused;
        if let Some((store, definition)) = self.place.clone() {
            let store = store.upgrade().ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "the data directory is closed")
            })?;
            let record = SinkRecord { paused, ..self.record };
            let write = move || store.write_sink(&definition, record);
            let written = tokio::task::spawn_blocking(write).await;
            written.map_err(|end| stopped("storing the progress of a sink", end))??;
        }
        self.is_unstored = false;
        let committed = self.record.committed;
        let rejected = self.object.rejected_below(committed);
        let before = self.object.state();
        if (before.committed, before.is_paused) != (committed, paused) {
            self.object.set(|state| {
                (state.committed, state.is_paused) = (committed, paused);
                state.rejected = rejected;
            });
        }
        Ok(())
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self, changed: &mut watch::Receiver<()>, seen: Control) {
        let rows = &self.object.rows;
        let outstanding = rows.log.state().rows > self.record.committed;
        let mut control = self.control.clone();
        let is_changed =
            |c: &Control| c.paused || c.ends || c.dropped || c.flush_to > seen.flush_to;
        let wait_max = self.sink.wait_max();
        let pause = if rows.are_archived() { INTERVAL } else { INTERVAL.min(wait_max) };
        let clock = Arc::clone(&self.clock);
        let next = async {
            if !outstanding && changed.changed().await.is_err() {
                // The log lives as long as the view.
                std::future::pending::<()>().await;
            }
            clock.sleep(pause).await;
        };
        tokio::select! {
            _ = control.wait_for(is_changed) => {}
            () = next => {}
        }
    }
}
