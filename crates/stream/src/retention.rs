//! `retention = '7 days'`: a log releases rows that are so much older than its newest one, by
//! event time.
//!
//! ```text
//! offset   0            held               first                                  rows
//!          ├── released ──┼─ old, but needed ─┼─ kept: newest − retention … newest ─┤
//! ```
//! Old is everything in front of the first row that is not, whatever batch or file it is in and
//! whether the archive has it. A new reader is not given it any more, whatever else needs it:
//! that is the promise. Running queries and the views' checkpoints still have what they need; the
//! rest is released. What it took goes later: memory with its batch, the archive's files when all
//! their rows are released. Such rows that are not archived yet are, so that the write-ahead log releases them
//! too.
//!
//! Invariants: offsets stay what they were; a dropped row is older than the newest row by more
//! than the retention; a row that was released has been read by all running queries, and with a
//! data directory, no unfinished window of an archived view needs it: such a view resumes from one
//! of its checkpoints after a restart, and finds all rows that came after it.

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

/// By so many seconds of event time, or this part of the retention, the first row has to be older
/// than it may be: so old rows are looked for now and then, not with every new row.
const SLACK_SECONDS: i64 = 60;
const SLACK_PART: i64 = 60;
/// Rows whose event times are read from the archive at a time.
const READ_ROWS: usize = 8_192;

/// The retention of one log.
#[derive(Debug)]
pub struct Retention {
    /// The stream or view.
    name: String,
    log: Arc<StreamLog>,
    /// What archives the log, with a data directory.
    spiller: Option<Arc<Spiller>>,
    /// The event-time column.
    column: usize,
    /// How much older than the newest row a row may be, in ticks of the column.
    keep_ticks: i64,
    /// By how much more it is older when it goes.
    slack_ticks: i64,
    newest: Mutex<Newest>,
    /// The first row that is not old, as far as that has been looked for.
    young: Mutex<Young>,
    stop: watch::Sender<bool>,
}

/// The greatest event time, as far as it has been looked for.
#[derive(Debug, Default)]
struct Newest {
    ticks: Option<i64>,
    /// The tail has been looked at before this offset.
    offset: u64,
}

/// A row, the rows before which are all old.
#[derive(Debug, Clone, Copy, Default)]
struct Young {
    offset: u64,
    /// Its event time, in ticks; `None`: it has not been looked at.
    ticks: Option<i64>,
}

/// What a look at the front has found.
enum Old {
    /// All rows before this offset are old.
    All(u64),
    /// There is one that is not.
    Until(Young),
}

/// What readers still need of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// No row from this offset on may go.
    pub offset: u64,
    /// No row at this event time or after may go.
    pub ticks: i64,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Everything that is old is released.
    Done,
    /// Some of it is needed.
    Held,
}

impl Retention {
    /// The retention of a log by the event time in `column`; `spiller` archives it, with a data directory.
    pub fn new(
        name: &str,
        (log, spiller): (&Arc<StreamLog>, Option<&Arc<Spiller>>),
        column: usize,
        keep_ticks: i64,
    ) -> Arc<Self> {
        let unit = log.schema().fields().get(column).and_then(|f| time_unit(f.data_type()));
        let second = unit.map_or(1, ticks_per_second);
        let slack_ticks = second.saturating_mul(SLACK_SECONDS).min(keep_ticks / SLACK_PART);
        Arc::new(Self {
            name: name.to_owned(),
            log: Arc::clone(log),
            spiller: spiller.cloned(),
            column,
            keep_ticks,
            slack_ticks,
            young: Mutex::default(),
            newest: Mutex::default(),
            stop: watch::Sender::new(false),
        })
    }

    /// Every row that was ever dropped is older than this event time, in ticks; `None`: nothing
    /// was dropped.
    ///
    /// # Errors
    /// When the event-time column is none (our bug), or rows on disk cannot be read.
    pub fn dropped_before(&self) -> Result<Option<i64>> {
        if self.log.state().first == 0 { Ok(None) } else { self.limit() }
    }

    /// The same of rows that were dropped: a reader that goes on where it stood is not given them either.
    ///
    /// # Errors
    /// As [`dropped_before`](Self::dropped_before).
    pub fn release_before(&self) -> Result<Option<i64>> {
        if self.log.state().oldest == 0 { Ok(None) } else { self.limit() }
    }

    /// The oldest event time that is to be kept now.
    fn limit(&self) -> Result<Option<i64>> {
        let mut newest = self.newest.lock();
        let (archived, tail) = self.log.since(newest.offset);
        newest.ticks = newest.ticks.max(archived.and_then(|a| a.greatest_event_time()));
        for piece in tail {
            let rows = piece.load()?;
            let column = rows.column(self.column);
            let times = ticks(column)?;
            let known = (0..rows.num_rows()).filter(|row| column.is_valid(*row));
            newest.ticks = newest.ticks.max(known.filter_map(|row| times.get(row)).copied().max());
            newest.offset = newest.offset.max(piece.end());
        }
        Ok(newest.ticks.map(|newest| newest.saturating_sub(self.keep_ticks)))
    }

    /// Drops what is old, and releases what of it nothing needs.
    ///
    /// # Errors
    /// When rows on disk cannot be read, or the archive cannot be changed.
    pub async fn pass(&self, needed: Needed) -> Result<Pass> {
        let Some(limit) = self.limit()? else { return Ok(Pass::Done) };
        let first = self.log.state().first;
        let young = *self.young.lock();
        let due = limit.saturating_sub(self.slack_ticks);
        let known = young.offset >= first && young.ticks.is_some_and(|young| young >= due);
        if !known {
            let young = self.old_until((first, limit), u64::MAX).await?;
            *self.young.lock() = young;
            let dropped = self.log.hide_before(young.offset);
            if dropped > 0 {
                tracing::debug!(name = self.name, dropped, "retention drops old rows");
            }
        }
        let (first, held) = (self.log.state().first, self.log.state().oldest);
        if held < first {
            let mut end = needed.offset.min(first);
            if needed.ticks < limit && held < end {
                end = end.min(self.old_until((held, needed.ticks), end).await?.offset);
            }
            self.log.release_before(end);
        }
        self.give_back(limit.min(needed.ticks)).await?;
        Ok(if self.log.state().oldest >= first { Pass::Done } else { Pass::Held })
    }

    /// The first row from `from` on that is not older than `before`, or the one at `end`. Rows
    /// without event time count as old.
    async fn old_until(&self, (from, before): (u64, i64), end: u64) -> Result<Young> {
        let (archive, _) = self.log.since(u64::MAX);
        let mut at = from;
        if let Some(archive) = archive {
            at = at.max(archive.older_until(before, end));
            match self.old_in_archive(&archive, (at, before), end).await? {
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
            match self.old_in(rows.column(self.column), (at.max(piece.first), before))? {
                Old::All(end) => at = end,
                Old::Until(young) => return Ok(young),
            }
        }
        Ok(Young { offset: at, ticks: None })
    }

    /// The same in the archive, from the row `at` on.
    async fn old_in_archive(
        &self,
        archive: &ArchiveSnapshot,
        (mut at, before): (u64, i64),
        end: u64,
    ) -> Result<Old> {
        let end = end.min(archive.state().rows);
        if at >= end {
            return Ok(Old::All(at));
        }
        let mut times = archive.read(at, &[self.column], READ_ROWS).await?;
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

    /// Which of the rows from `first` on are old.
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

    /// Deletes the files of dropped rows; those that are not archived are, so that their log ends.
    async fn give_back(&self, before: i64) -> Result<()> {
        let Some(spiller) = &self.spiller else { return Ok(()) };
        let held = self.log.state().oldest;
        if !spiller.is_view() && held > spiller.archived_rows() {
            spiller.spill_until_stopped().await?;
        }
        spiller.drop_before(before, held).await?;
        Ok(())
    }

    /// Whose rows they are: the name of a stream or view.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A receiver that wakes when the log changes.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.log.watch()
    }

    /// Whether the log is archived: after a restart it is read again.
    pub fn is_archived(&self) -> bool {
        self.spiller.is_some()
    }

    /// Stops; the log is dropped, or the engine closes.
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
        log.append(RecordBatch::try_new(Arc::clone(log.schema()), vec![times]).unwrap()).unwrap();
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
        let retention = Retention::new("s", (&log, None), 0, 100);
        let all = Needed { offset: u64::MAX, ticks: i64::MAX };
        assert_eq!(retention.pass(all).await.unwrap(), Pass::Done);
        append(&log, &[Some(5), Some(50)]);
        append(&log, &[Some(20), None]);
        append(&log, &[Some(60)]);
        append(&log, &[Some(10)]);
        assert_eq!(retention.dropped_before().unwrap(), None);
        append(&log, &[Some(155), Some(30)]);
        // Below 55: the first two batches; the third is young, and what follows it stays.
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
        // Of a batch only the old rows go.
        append(&log, &[Some(170), Some(300)]);
        assert_eq!(retention.pass(all).await.unwrap(), Pass::Done);
        assert_eq!((held(&log), log.contents().tail_rows), ((9, 9, 1), 1));
    }
}
