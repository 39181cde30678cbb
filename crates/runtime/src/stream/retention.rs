//! `retention = '7 days'`: a log lets go of rows that are so much older than its newest one, by
//! event time.
//!
//! ```text
//! offset   0          first                                    rows
//!          ├─ dropped ──┼─ old, but needed ─┼─ kept: newest − retention … newest ─┤
//! ```
//! Rows go from the front, in whole files of the archive or whole batches of memory, so somewhat
//! more is kept than asked for.
//!
//! Invariants: offsets stay what they were; a dropped row is older than the newest row by more
//! than the retention; a running query has read it; and with a data directory, no unfinished
//! window of an archived view needs it: such a view goes on from one of its checkpoints after a
//! restart, and finds all rows that came after it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_core::Result;

use crate::catalog::{Catalog, Object};
use crate::caught::caught;
use crate::engine::Parts;
use crate::query::intake::ticks;
use crate::query::shared::Status;
use crate::stream::log::StreamLog;
use crate::stream::spill::Spiller;

/// How often old rows are looked for at most, and again while a reader needs them.
const INTERVAL: Duration = Duration::from_secs(1);

/// The retention of one log.
#[derive(Debug)]
pub(crate) struct Retention {
    /// The stream or view.
    name: String,
    log: Arc<StreamLog>,
    /// Who archives the log, with a data directory.
    spiller: Option<Arc<Spiller>>,
    /// The event-time column.
    column: usize,
    /// How much older than the newest row a row may be, in ticks of the column.
    keep_ticks: i64,
    newest: Mutex<Newest>,
    stop: watch::Sender<bool>,
}

/// The greatest event time, as far as it has been looked for.
#[derive(Debug, Default)]
struct Newest {
    ticks: Option<i64>,
    /// The tail has been looked at before this offset.
    offset: u64,
}

/// What readers still need of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Needed {
    /// No row from this offset on may go.
    offset: u64,
    /// No row at this event time or after may go.
    ticks: i64,
}

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Everything that is old is gone, but for the rest of a file or batch.
    Done,
    /// Old rows are needed by a reader.
    Held,
}

impl Retention {
    pub(crate) fn new(
        name: &str,
        (log, spiller): (&Arc<StreamLog>, Option<&Arc<Spiller>>),
        column: usize,
        keep_ticks: i64,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            log: Arc::clone(log),
            spiller: spiller.cloned(),
            column,
            keep_ticks,
            newest: Mutex::default(),
            stop: watch::Sender::new(false),
        })
    }

    /// Every row that was ever dropped is older than this event time, in ticks; `None`: nothing
    /// was dropped.
    ///
    /// # Errors
    /// When the event-time column is none (our bug).
    pub(crate) fn dropped_before(&self) -> Result<Option<i64>> {
        if self.log.state().first == 0 { Ok(None) } else { self.limit() }
    }

    /// The oldest event time that is to be kept now.
    fn limit(&self) -> Result<Option<i64>> {
        let mut newest = self.newest.lock();
        let (archived, tail) = self.log.since(newest.offset);
        newest.ticks = newest.ticks.max(archived.and_then(|a| a.greatest_event_time()));
        for (first, rows) in tail {
            let column = rows.column(self.column);
            let times = ticks(column)?;
            let known = (0..rows.num_rows()).filter(|row| column.is_valid(*row));
            newest.ticks = newest.ticks.max(known.filter_map(|row| times.get(row)).copied().max());
            newest.offset = newest.offset.max(first + rows.num_rows() as u64);
        }
        Ok(newest.ticks.map(|newest| newest.saturating_sub(self.keep_ticks)))
    }

    /// Lets go of what is old and needed by nobody.
    async fn pass(&self, needed: Needed) -> Result<Pass> {
        let Some(limit) = self.limit()? else { return Ok(Pass::Done) };
        let before = limit.min(needed.ticks);
        let dropped = match &self.spiller {
            Some(spiller) => spiller.drop_before(before, needed.offset).await?,
            None => self.drop_from_memory(before, needed.offset)?,
        };
        if dropped > 0 {
            tracing::debug!(name = self.name, dropped, "retention let go of old rows");
        }
        let all = before == limit && needed.offset >= self.log.state().rows;
        Ok(if all { Pass::Done } else { Pass::Held })
    }

    fn drop_from_memory(&self, before: i64, offset_max: u64) -> Result<u64> {
        let (_, tail) = self.log.since(0);
        let mut end = 0;
        for (first, rows) in tail {
            let column = rows.column(self.column);
            let mut times = ticks(column)?.iter().enumerate();
            let behind = first + rows.num_rows() as u64;
            if behind > offset_max
                || times.any(|(row, time)| *time >= before && column.is_valid(row))
            {
                break;
            }
            end = behind;
        }
        Ok(self.log.let_go_before(end))
    }

    /// Lets go of old rows from now on, until it is stopped.
    pub(crate) async fn run(self: Arc<Self>, parts: Arc<Parts>, catalog: Arc<Catalog>) {
        let mut stop = self.stop.subscribe();
        let mut changed = self.log.watch();
        let mut last = Pass::Held;
        loop {
            let wait = async {
                if last == Pass::Done && changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                parts.clock.sleep(INTERVAL).await;
            };
            tokio::select! {
                stopped = stop.wait_for(|stop| *stop) => { drop(stopped); return; }
                () = wait => {}
            }
            changed.mark_unchanged();
            let pass = async { self.pass(self.needed(&parts, &catalog)).await };
            last = match caught(|| format!("retention of \"{}\"", self.name), pass).await {
                Ok(pass) => pass,
                Err(error) => {
                    tracing::warn!(name = self.name, %error, "old rows stay, they cannot be dropped");
                    Pass::Held
                }
            };
        }
    }

    /// Stops; the log is dropped, or the engine closes.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// What the readers of the log still need.
    fn needed(&self, parts: &Parts, catalog: &Catalog) -> Needed {
        // Queries read the connector, and what is kept of its rows is for bounded ones.
        if matches!(catalog.get(&self.name), Some(Object::Stream(s)) if s.history.is_some()) {
            return Needed { offset: u64::MAX, ticks: i64::MAX };
        }
        // Without a data directory nothing is read again.
        let ticks = self.spiller.as_ref().map_or(i64::MAX, |_| open_from(catalog, &self.name, 0));
        let mut needed = Needed { offset: u64::MAX, ticks };
        for query in parts.queries.lock().values().filter(|q| !q.is_over()) {
            if query.reads(&self.name) {
                needed.offset = needed.offset.min(query.consumed(&self.name));
            }
        }
        for object in catalog.all() {
            let Object::Materialized(view) = object else { continue };
            if !view.reads.contains(&self.name) || view.query.is_over() {
                continue;
            }
            needed.offset = needed.offset.min(view.consumed(&self.name));
            // After a restart it goes on from one of these.
            if let Some(checkpoints) = &view.checkpoints {
                needed.offset = needed.offset.min(checkpoints.needs(&self.name));
            }
        }
        needed
    }
}

/// From which event time on a restart reads a log again for views without checkpoints: what the
/// unfinished windows hold that are made of it. `reach` is how far before their own event time the rows of the log may be.
fn open_from(catalog: &Catalog, name: &str, reach: i64) -> i64 {
    let mut open = i64::MAX;
    for object in catalog.all() {
        let Object::Materialized(view) = object else { continue };
        // One that has finished reads nothing any more, and one with checkpoints goes on from them.
        if !view.reads.iter().any(|read| read == name)
            || matches!(view.query.status(), Status::Finished)
            || view.checkpoints.is_some()
        {
            continue;
        }
        let reach = reach.saturating_add(view.reach_ticks);
        let from = match &view.spiller {
            Some(spiller) => spiller.frontier().delayed(reach).ticks(),
            // It is worked out again, for those that read it.
            None => open_from(catalog, &view.name, reach),
        };
        open = open.min(from);
    }
    open
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, TimestampMillisecondArray};
    use arrow::record_batch::RecordBatch;

    use super::*;

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
    async fn whole_batches_go_from_the_front() {
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
        assert_eq!(
            retention.pass(Needed { offset: 3, ticks: i64::MAX }).await.unwrap(),
            Pass::Held
        );
        assert_eq!(log.state().first, 2, "a reader stands in the second batch");
        assert_eq!(retention.pass(Needed { ticks: 20, ..all }).await.unwrap(), Pass::Held);
        assert_eq!(log.state().first, 2, "an open window needs 20");
        assert_eq!(retention.pass(all).await.unwrap(), Pass::Done);
        assert_eq!((log.state().first, log.state().rows), (4, 8));
        assert_eq!(retention.dropped_before().unwrap(), Some(55));
        append(&log, &[Some(300)]);
        assert_eq!(retention.pass(all).await.unwrap(), Pass::Done);
        assert_eq!((log.state().first, log.contents().tail_rows), (8, 1));
    }
}
