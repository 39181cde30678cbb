//! `retention = '7 days'`: a log drops rows whose event time is that much older than that of its newest row. `TRUNCATE`: it drops
//! all rows that it has.
//!
//! ```text
//! offset   0            held               first                                  rows
//!          ├── released ──┼─ old, but needed ─┼─ kept: newest − retention … newest ─┤
//! ```
//! All rows before the first one that is not old enough are dropped, whatever batch or file they are in and whether
//! they are archived. New readers do not get them, whatever else needs them: that is the promise. Dropped rows that
//! running queries and the views' checkpoints still need are held for these; the others are released. Their space is
//! freed later: memory with its batch, the archive's files when all their rows are released. Released rows that are not
//! archived yet are archived first, so that the write-ahead log can delete them.
//!
//! Invariants: offsets do not change; a dropped row is older than the newest row by more than the retention; a released
//! row has been read by all running queries, and, with a data directory, no unfinished window of an archived view needs
//! it: after a restart such a view resumes from one of its checkpoints, and finds all rows that follow it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_archive::ArchiveSnapshot;
use windrow_core::Result;
use windrow_core::time::{ticks_per_second, time_unit};

use crate::intake::ticks;
use crate::log::StreamLog;
use crate::spill::Spiller;

/// Rows are dropped when the first one exceeds the retention by this many seconds, or by the retention divided by
/// `SLACK_PART` if that is less: so old rows are not searched for with every new row.
const SLACK_SECONDS: i64 = 60;
const SLACK_PART: i64 = 60;
/// Rows per batch of event times read from the archive.
const READ_ROWS: usize = 8_192;

/// The retention of one log.
#[derive(Debug)]
pub struct Retention {
    /// The name of the stream or view.
    name: String,
    log: Arc<StreamLog>,
    /// Archives the log, where there is a data directory.
    spiller: Option<Arc<Spiller>>,
    /// The index of the event-time column, if there is one.
    column: Option<usize>,
    /// The retention, in ticks of the column; `None`: rows are retained for ever.
    keep_ticks: Mutex<Option<i64>>,
    truncated: Mutex<Truncated>,
    newest: Mutex<Newest>,
    /// The first row that is not old, when it was last searched for.
    young: Mutex<Young>,
    stop: watch::Sender<bool>,
}

/// The rows that `TRUNCATE` has dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Truncated {
    /// The offset after the last of them.
    pub end: u64,
    /// An event time, in ticks, below which those of all of them are; `None`: they have none.
    pub before_ticks: Option<i64>,
}

/// The greatest event time, in ticks, of the archive and of the tail before `offset`.
#[derive(Debug, Default)]
struct Newest {
    ticks: Option<i64>,
    /// Rows of the tail before this offset are included.
    offset: u64,
}

/// A row before which all rows are old.
#[derive(Debug, Clone, Copy, Default)]
struct Young {
    offset: u64,
    /// Its event time, in ticks; `None`: unknown.
    ticks: Option<i64>,
}

/// The result of a search for the first row that is not old.
enum Old {
    /// All rows before this offset are old.
    All(u64),
    /// This is the first row that is not old.
    Until(Young),
}

/// The rows of a log that readers still need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// Rows from this offset on must not be released.
    pub offset: u64,
    /// Rows with this event time (in ticks) or a later one, and those behind them, must not be released.
    pub ticks: i64,
}

/// The outcome of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// All dropped rows are released.
    Done,
    /// Some dropped rows are still needed.
    Held,
}

impl Retention {
    /// Returns the retention of a log by the event time in column `column`, which may be `None` where `keep_ticks` is; `spiller`
    /// archives the log, where there is a data directory. `keep_ticks`: in ticks of the column; `None`: rows are retained for
    /// ever.
    pub fn new(
        name: &str,
        (log, spiller): (&Arc<StreamLog>, Option<&Arc<Spiller>>),
        column: Option<usize>,
        keep_ticks: Option<i64>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            log: Arc::clone(log),
            spiller: spiller.cloned(),
            column,
            keep_ticks: Mutex::new(keep_ticks),
            truncated: Mutex::default(),
            young: Mutex::default(),
            newest: Mutex::default(),
            stop: watch::Sender::new(false),
        })
    }

    /// Sets the retention, in ticks of the event-time column; `None`: rows are retained for ever. The next pass applies it.
    pub fn keep(&self, keep_ticks: Option<i64>) {
        *self.keep_ticks.lock() = keep_ticks;
        *self.young.lock() = Young::default();
        self.log.notify();
    }

    /// Records the rows that were truncated before a restart. The first pass drops them, after the views that still need them
    /// have been opened.
    pub fn was_truncated(&self, truncated: Truncated) {
        *self.truncated.lock() = truncated;
        self.log.notify();
    }

    /// Drops all rows that the log has now: new readers do not get them. Running queries that have not consumed them yet still
    /// do. `record` makes the change durable before it takes effect. Returns how many rows were dropped.
    ///
    /// # Errors
    /// When rows on disk cannot be read, and as `record`; then nothing has changed.
    pub async fn truncate(&self, record: impl FnOnce(Truncated) -> Result<()>) -> Result<u64> {
        let end = self.log.state().rows;
        let newest = self.greatest()?.map(|newest| newest.saturating_add(1));
        // Rows that were truncated before may be gone from the archive, and later than all that are there.
        let before_ticks = newest.max(self.truncated.lock().before_ticks);
        if let Some(spiller) = &self.spiller {
            // A log that lost rows would give their offsets to new rows, which would count as truncated.
            spiller.note_extents().await?;
        }
        let truncated = Truncated { end, before_ticks };
        record(truncated)?;
        *self.truncated.lock() = truncated;
        let held = self.log.held_rows();
        self.log.hide_before(end);
        let dropped = held.saturating_sub(self.log.held_rows());
        self.log.notify();
        Ok(dropped)
    }

    /// Returns an event time, in ticks, below which the times of all dropped rows are; `None`: nothing was dropped.
    ///
    /// # Errors
    /// When the event-time column is not a timestamp (a bug in Windrow), or rows on disk cannot be read.
    pub fn dropped_before(&self) -> Result<Option<i64>> {
        if self.log.state().first == 0 { Ok(None) } else { self.lost_before() }
    }

    /// Returns the same for released rows, which readers that began earlier do not get either.
    ///
    /// # Errors
    /// As [`dropped_before`](Self::dropped_before).
    pub fn release_before(&self) -> Result<Option<i64>> {
        if self.log.state().oldest == 0 { Ok(None) } else { self.lost_before() }
    }

    /// Whether rows were dropped that have no event time.
    pub fn has_dropped_timeless(&self) -> bool {
        self.column.is_none() && self.log.state().first > 0
    }

    fn lost_before(&self) -> Result<Option<i64>> {
        let truncated = *self.truncated.lock();
        Ok(self.limit()?.max(truncated.before_ticks.filter(|_| truncated.end > 0)))
    }

    /// The lowest event time that is retained now, in ticks; `None`: there is no row with an event time, or rows are retained
    /// for ever.
    fn limit(&self) -> Result<Option<i64>> {
        let Some(keep) = *self.keep_ticks.lock() else { return Ok(None) };
        Ok(self.greatest()?.map(|newest| newest.saturating_sub(keep)))
    }

    /// The greatest event time, in ticks.
    fn greatest(&self) -> Result<Option<i64>> {
        let Some(column) = self.column else { return Ok(None) };
        let mut newest = self.newest.lock();
        let (archived, tail) = self.log.since(newest.offset);
        newest.ticks = newest.ticks.max(archived.and_then(|a| a.greatest_event_time()));
        for piece in tail {
            let rows = piece.load()?;
            let column = rows.column(column);
            let times = ticks(column)?;
            let known = (0..rows.num_rows()).filter(|row| column.is_valid(*row));
            newest.ticks = newest.ticks.max(known.filter_map(|row| times.get(row)).copied().max());
            newest.offset = newest.offset.max(piece.end());
        }
        Ok(newest.ticks)
    }

    /// How far the first row exceeds the retention when rows are dropped, in ticks.
    fn slack(&self) -> i64 {
        let keep = self.keep_ticks.lock().unwrap_or_default();
        let schema = self.log.schema();
        let field = self.column.and_then(|column| schema.fields().get(column));
        let unit = field.and_then(|f| time_unit(f.data_type()));
        let second = unit.map_or(1, ticks_per_second);
        second.saturating_mul(SLACK_SECONDS).min(keep / SLACK_PART)
    }

    /// Drops old and truncated rows, and releases those that are not `needed`.
    ///
    /// # Errors
    /// When rows on disk cannot be read, or the archive cannot be changed.
    pub async fn pass(&self, needed: Needed) -> Result<Pass> {
        let truncated = *self.truncated.lock();
        self.log.hide_before(truncated.end);
        let limit = self.limit()?;
        if let (Some(limit), Some(column)) = (limit, self.column) {
            self.drop_old(limit, column).await?;
        }
        let (first, held) = (self.log.state().first, self.log.state().oldest);
        if held < first {
            let mut end = needed.offset.min(first);
            // Rows that are past the retention are older than the limit, truncated ones can have any event time.
            let all_older = limit.filter(|_| truncated.end <= held).unwrap_or(i64::MAX);
            if needed.ticks < all_older && held < end {
                end = match self.column {
                    Some(column) => {
                        let young = self.old_until(column, (held, needed.ticks), end).await?;
                        end.min(young.offset)
                    }
                    None => held,
                };
            }
            self.log.release_before(end);
        }
        let oldest = self.log.state().oldest;
        if oldest > 0 {
            let is_truncated = truncated.end >= oldest;
            let before = limit.map_or(i64::MAX, |limit| limit.min(needed.ticks));
            self.give_back(if is_truncated { i64::MAX } else { before }).await?;
        }
        Ok(if oldest >= first { Pass::Done } else { Pass::Held })
    }

    /// Drops the rows before the first one whose event time is not below `limit`.
    async fn drop_old(&self, limit: i64, column: usize) -> Result<()> {
        let first = self.log.state().first;
        let young = *self.young.lock();
        let due = limit.saturating_sub(self.slack());
        if young.offset >= first && young.ticks.is_some_and(|young| young >= due) {
            return Ok(());
        }
        let young = self.old_until(column, (first, limit), u64::MAX).await?;
        *self.young.lock() = young;
        let dropped = self.log.hide_before(young.offset);
        if dropped > 0 {
            tracing::debug!(name = self.name, dropped, "retention drops old rows");
        }
        Ok(())
    }

    /// Returns the first row from offset `from` on whose event time is not below `before`, or the one at `end`. Rows
    /// without event time count as old.
    async fn old_until(
        &self,
        column: usize,
        (from, before): (u64, i64),
        end: u64,
    ) -> Result<Young> {
        let (archive, _) = self.log.since(u64::MAX);
        let mut at = from;
        if let Some(archive) = archive {
            at = at.max(archive.older_until(before, end));
            match self.old_in_archive((&archive, column), (at, before), end).await? {
                Old::All(end) => at = end,
                Old::Until(young) => return Ok(young),
            }
        }
        for piece in self.log.since(at).1 {
            if at >= end {
                break;
            }
            let rows = piece.part(at, end).map(|piece| piece.load()).transpose()?;
            let Some(rows) = rows else { continue };
            match self.old_in(rows.column(column), (at.max(piece.first), before))? {
                Old::All(end) => at = end,
                Old::Until(young) => return Ok(young),
            }
        }
        Ok(Young { offset: at, ticks: None })
    }

    /// Searches the archive, from offset `at` on.
    async fn old_in_archive(
        &self,
        (archive, column): (&ArchiveSnapshot, usize),
        (mut at, before): (u64, i64),
        end: u64,
    ) -> Result<Old> {
        let end = end.min(archive.state().rows);
        if at >= end {
            return Ok(Old::All(at));
        }
        let mut times = archive.read(at, &[column], READ_ROWS).await?;
        while let Some(rows) = times.try_next().await? {
            // A file has no gap in it, so no batch has.
            at = archive.gaps().after(at);
            match self.old_in(rows.column(0), (at, before))? {
                Old::All(next) => at = next,
                Old::Until(young) if young.offset < end => return Ok(Old::Until(young)),
                Old::Until(_) => at = end,
            }
            if at >= end {
                break;
            }
        }
        Ok(Old::All(at.min(end)))
    }

    /// Searches a column of event times whose first row has the offset `first`.
    fn old_in(&self, column: &ArrayRef, (first, before): (u64, i64)) -> Result<Old> {
        let mut times = ticks(column)?.iter().enumerate();
        let young = times.find(|(row, time)| **time >= before && column.is_valid(*row));
        Ok(match young {
            Some((row, time)) => {
                Old::Until(Young { offset: first + row as u64, ticks: Some(*time) })
            }
            None => Old::All(first + column.len() as u64),
        })
    }

    /// Deletes the files of released rows. Released rows that are not archived yet are archived first, so that the
    /// write-ahead log can delete them.
    async fn give_back(&self, before: i64) -> Result<()> {
        let Some(spiller) = &self.spiller else { return Ok(()) };
        let held = self.log.state().oldest;
        if !spiller.is_view() && held > spiller.archived_rows() {
            spiller.spill_until_stopped().await?;
        }
        spiller.drop_before(before, held).await?;
        Ok(())
    }

    /// Whether there is nothing to drop, however old rows are.
    pub fn is_idle(&self) -> bool {
        self.keep_ticks.lock().is_none() && self.truncated.lock().end <= self.log.state().oldest
    }

    /// Whether rows were truncated.
    pub fn is_truncated(&self) -> bool {
        self.truncated.lock().end > 0
    }

    /// The name of the stream or view.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns a receiver that is notified of every change of the log.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.log.watch()
    }

    /// Whether the log is archived, and so is read again after a restart.
    pub fn is_archived(&self) -> bool {
        self.spiller.is_some()
    }

    /// Stops retention: the log is dropped, or the engine closes.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Completes when it is stopped.
    pub async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives in self.
        drop(stop.wait_for(|stop| *stop).await);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, TimestampMillisecondArray};
    use arrow::record_batch::RecordBatch;

    use super::*;
    use crate::log::ReadAt;

    fn append(log: &StreamLog, times: &[Option<i64>]) {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(times.to_vec()));
        log.append(RecordBatch::try_new(log.schema(), vec![times]).unwrap()).unwrap();
    }

    fn log() -> Arc<StreamLog> {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0]));
        StreamLog::new(
            RecordBatch::try_from_iter_with_nullable([("ts", times, true)]).unwrap().schema(),
        )
    }

    #[tokio::test]
    async fn old_rows_go_from_the_front() {
        let log = log();
        let retention = Retention::new("s", (&log, None), Some(0), Some(100));
        let all = Needed { offset: u64::MAX, ticks: i64::MAX };
        assert_eq!(retention.pass(all).await.unwrap(), Pass::Done);
        append(&log, &[Some(5), Some(50)]);
        append(&log, &[Some(20), None]);
        append(&log, &[Some(60)]);
        append(&log, &[Some(10)]);
        assert_eq!(retention.dropped_before().unwrap(), None);
        append(&log, &[Some(155), Some(30)]);
        // Below 55: the first two batches. The third is not, so the rows after it remain.
        let standing = Needed { offset: 1, ticks: i64::MAX };
        assert_eq!(retention.pass(standing).await.unwrap(), Pass::Held);
        let held = |log: &StreamLog| (log.state().oldest, log.state().first, log.held_rows());
        assert_eq!(held(&log), (1, 4, 4), "a reader stands in the first batch");
        let Ok(ReadAt::Rows(rows)) = log.read(1, 10) else { panic!("it is given what it needs") };
        assert_eq!(rows.num_rows(), 1);
        assert_eq!(retention.pass(Needed { ticks: 20, ..all }).await.unwrap(), Pass::Held);
        assert_eq!(held(&log), (1, 4, 4), "an open window needs 20");
        assert_eq!(retention.pass(Needed { ticks: 60, ..all }).await.unwrap(), Pass::Done);
        assert_eq!((held(&log), log.state().rows), ((4, 4, 4), 8));
        assert_eq!(retention.dropped_before().unwrap(), Some(55));
        // Only the old rows of a batch are dropped.
        append(&log, &[Some(170), Some(300)]);
        assert_eq!(retention.pass(all).await.unwrap(), Pass::Done);
        assert_eq!((held(&log), log.contents().tail_rows), ((9, 9, 1), 1));
    }

    #[tokio::test]
    async fn truncated_rows_are_kept_for_their_readers() {
        let log = log();
        let retention = Retention::new("s", (&log, None), Some(0), None);
        let all = Needed { offset: u64::MAX, ticks: i64::MAX };
        append(&log, &[Some(5), Some(50)]);
        append(&log, &[Some(20)]);
        assert_eq!(retention.pass(all).await.unwrap(), Pass::Done);
        let failed = retention.truncate(|_| Err(windrow_core::Error::internal("no"))).await;
        assert_eq!((failed.is_err(), log.held_rows()), (true, 3), "then nothing has changed");
        assert_eq!(retention.truncate(|_| Ok(())).await.unwrap(), 3);
        assert_eq!((log.held_rows(), log.state().rows), (0, 3));
        let standing = Needed { offset: 2, ticks: i64::MAX };
        assert_eq!(retention.pass(standing).await.unwrap(), Pass::Held);
        assert_eq!((log.state().oldest, log.state().first), (2, 3));
        append(&log, &[Some(1)]);
        assert_eq!((log.held_rows(), log.state().rows), (1, 4), "offsets go on");
        assert_eq!(retention.pass(all).await.unwrap(), Pass::Done);
        assert_eq!(log.state().oldest, 3);
        assert_eq!(retention.dropped_before().unwrap(), Some(51));
        // A retention that is set later counts from the newest row of all.
        retention.keep(Some(10));
        assert_eq!(retention.pass(all).await.unwrap(), Pass::Done);
        assert_eq!(log.held_rows(), 0);
    }
}
