//! A scan: one reading of a stream, for all queries that tap it.
//!
//! ```text
//! source ─► partitions ─► lanes ─► workers (at most `threads`) ─► taps
//! ```
//! A *lane* is a sequence of splits that must be read in order: those of a partition, or a single split where the event
//! times of all splits are known, so that its watermark is known without reading the splits before it. Splits within a
//! lane are decoded at the same time and consumed in order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::datatypes::DataType;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use windrow_core::{
    Clock, Error, Limits, Partition, PartitionId, Result, ScanRequest, Source, SourceBatch, Split,
    Watermark,
};
use windrow_stream::WhenIdle;
use windrow_stream::caught::{caught, stopped};
use windrow_stream::intake::Intake;
use windrow_stream::kept::BadRows;

use crate::progress::{SharedProgress, Step};
use crate::tap::{Origin, Tap, TapWorker};

/// One reading of a stream.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) stream: String,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) request: ScanRequest,
    pub(crate) taps: Vec<Arc<Tap>>,
    pub(crate) progress: SharedProgress,
    pub(crate) intake: Intake,
    pub(crate) time: ScanTime,
    pub(crate) bad_rows: Arc<BadRows>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    /// Rows of the history that are counted in `counters` and not read yet.
    pub(crate) unread: AtomicU64,
    /// The type of the event-time column, for display.
    pub(crate) time_type: Option<DataType>,
    /// The names of the streams that are paused.
    pub(crate) paused: watch::Receiver<BTreeSet<String>>,
}

/// How the scan's watermark is determined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanTime {
    /// The declared delay, in ticks; `None`: the source reports its watermark itself (a view), or there is no event
    /// time.
    pub(crate) delay_ticks: Option<i64>,
    /// When its partitions are idle. Those of a bounded source never are: the speed of reading must not determine what
    /// is late.
    pub(crate) when_idle: Option<WhenIdle>,
}

/// Totals over all scans, for the progress bar.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rows read.
    pub rows: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// All bytes, as far as sources know their sizes.
    pub bytes_total: AtomicU64,
    /// Of sources whose bytes are not known: rows read that existed when their reading began.
    pub history: AtomicU64,
    /// All rows of that kind.
    pub history_total: AtomicU64,
}

impl Counters {
    /// The number of rows of a split that count as history: those of logs and generators.
    fn history_of(split: &Split) -> u64 {
        if split.bytes.is_some() { 0 } else { split.rows.unwrap_or(0) }
    }
}

/// A sequence of splits that must be read in order.
#[derive(Debug)]
struct Lane {
    partition: PartitionId,
    name: String,
    splits: Vec<Split>,
    /// The largest event time of the partition so far: before this lane, and in what has been read of it.
    max: Option<i64>,
    /// The watermark of the scan when the lane was discovered, up to which windows may have been closed.
    hold: Watermark,
    /// Rows of the current split's history that are not read yet.
    history: u64,
}

/// How far a split was read before a restart, by the query that had read the least of it.
#[derive(Debug, Clone, Default)]
struct ReadBefore {
    /// Whether all queries had read it to its end.
    done: bool,
    from: Option<u64>,
    /// The largest event time up to there, in ticks.
    max: Option<i64>,
    /// The reader's description of that position.
    place: Option<Arc<str>>,
    /// The position of the query that had read the most of it.
    past: u64,
}

impl Scan {
    /// Reads the stream to its end, or until all queries have stopped. An error of the stream fails all its queries, an
    /// error of one query only that one.
    pub(crate) async fn run(self: Arc<Self>) {
        let result = tokio::select! {
            result = caught(|| self.reading(), Arc::clone(&self).read_all()) => result,
            () = self.all_stopped() => Ok(()),
        };
        let unread = self.unread.swap(0, Ordering::Relaxed);
        self.counters.history_total.fetch_sub(unread, Ordering::Relaxed);
        if let Err(error) = result {
            let error = Arc::new(error);
            for tap in &self.taps {
                tap.shared.fail(Arc::clone(&error));
            }
        }
        for tap in &self.taps {
            tap.shared.wake();
        }
    }

    /// The name of the scan in errors.
    fn reading(&self) -> String {
        format!("reading stream \"{}\"", self.stream)
    }

    /// Completes when all queries of the scan have stopped.
    async fn all_stopped(&self) {
        for tap in &self.taps {
            tap.shared.stopped().await;
        }
    }

    async fn read_all(self: Arc<Self>) -> Result<()> {
        for (partition, _, place) in self.taps.iter().flat_map(|tap| tap.at.from.places()) {
            self.source.recall(partition, place)?;
        }
        let partitions = self.source.discover().await?;
        self.find_again(&partitions)?;
        {
            let mut progress = self.progress.lock();
            if let Some(when) = self.time.when_idle.filter(|_| !self.source.is_bounded()) {
                progress.idles(when);
            }
            progress.add(&partitions, self.clock.now_micros());
        }
        // A stream without partitions may be idle too.
        self.taps.iter().for_each(|tap| tap.shared.wake());
        let again = self.source.rediscover_after();
        if again.is_none() {
            self.progress.lock().complete();
        }
        let lanes = self.lanes(partitions, Watermark::NONE);
        let mut tasks = JoinSet::new();
        if self.source.is_bounded() {
            let workers = self.limits.threads.clamp(1, lanes.len().max(1));
            let lanes = Arc::new(Mutex::new(VecDeque::from(lanes)));
            for _ in 0..workers {
                tasks.spawn(Arc::clone(&self).work(Arc::clone(&lanes)));
            }
            return self.join(tasks).await;
        }
        for lane in lanes {
            tasks.spawn(Arc::clone(&self).work(Arc::new(Mutex::new(VecDeque::from([lane])))));
        }
        match again {
            Some(after) => self.follow(after, tasks).await,
            None => self.join(tasks).await,
        }
    }

    /// Checks that all partitions that were partly read before a restart still exist, and restores late and bad rows.
    fn find_again(&self, partitions: &[Partition]) -> Result<()> {
        let names: Vec<_> = partitions.iter().map(|p| (p.id, p.name.as_str())).collect();
        for tap in &self.taps {
            let query = (tap.shared.name.as_str(), tap.shared.id);
            tap.at.show_unused(query, &names, (&tap.late_rows, &self.bad_rows));
            if let Some(missing) = tap.at.from.missing(partitions) {
                return Err(Error::data(format!(
                    "\"{missing}\" of stream \"{}\" is missing, and was not read to its end before \
                     the restart",
                    self.stream
                ))
                .with_hint(format!(
                    "Restore it, or drop \"{}\" and create it again.",
                    tap.shared.name
                )));
            }
        }
        Ok(())
    }

    /// Returns how far a split was read before a restart.
    fn read_before(&self, lane: &Lane, split: &Split) -> Result<ReadBefore> {
        let mut before: Option<ReadBefore> = None;
        let all = || self.taps.iter().map(|tap| tap.at.from.of(&lane.name, split.number));
        let past = all().flatten().map(|read| read.consumed).max().unwrap_or(0);
        for tap in &self.taps {
            let Some(read) = tap.at.from.of(&lane.name, split.number) else {
                return Ok(ReadBefore { past, ..ReadBefore::default() });
            };
            if *read.identity != *split.identity {
                return Err(Error::data(format!(
                    "{} of stream \"{}\" has changed since it was read: it was {}",
                    split.identity, self.stream, read.identity
                ))
                .with_hint(format!(
                    "Restore it, or drop \"{}\" and create it again.",
                    tap.shared.name
                )));
            }
            let from = if read.done { u64::MAX } else { read.consumed };
            let place = read.place.clone();
            let read = ReadBefore { done: read.done, from: Some(from), max: read.max, place, past };
            before = Some(match before {
                Some(least) if least.from <= read.from => least,
                _ => read,
            });
        }
        Ok(before.unwrap_or_default())
    }

    /// Starts a split; `None` when all queries had read it to its end before a restart.
    fn begin(&self, lane: &mut Lane, split: &Split) -> Result<Option<ScanRequest>> {
        let before = self.read_before(lane, split)?;
        let timed = self.time.delay_ticks.is_some();
        lane.max = lane.max.max(before.max.filter(|_| timed));
        lane.history = Counters::history_of(split);
        // Rows that were read before a restart are not work to be done.
        self.count_history(lane, before.from.unwrap_or(0));
        if let Some(place) = &split.place {
            for tap in &self.taps {
                tap.begins(&lane.name, split, place);
            }
        }
        let mut progress = self.progress.lock();
        progress.begin(lane.partition, split.number, (lane.history > 0, self.clock.now_micros()));
        if progress.may_be_idle() {
            // It may never have a row: coordinators now compute when it becomes idle.
            self.taps.iter().for_each(|tap| tap.shared.wake());
        }
        let request =
            ScanRequest { place: before.place, past: before.past, ..self.request.clone() };
        let Some(from) = before.from else { return Ok(Some(request)) };
        let step = Step {
            max: lane.max.filter(|_| timed),
            consumed: if before.done { 0 } else { from },
            now_micros: self.clock.now_micros(),
            ..Step::default()
        };
        progress.advance(lane.partition, split.number, &step);
        Ok((!before.done).then(|| ScanRequest { from: Some(from), ..request }))
    }

    fn joined(&self, done: Result<Result<()>, JoinError>) -> Result<()> {
        done.map_err(|end| stopped(&self.reading(), end))?
    }

    /// Waits for all workers.
    async fn join(&self, mut tasks: JoinSet<Result<()>>) -> Result<()> {
        while let Some(done) = tasks.join_next().await {
            self.joined(done)?;
        }
        Ok(())
    }

    /// Discovers new partitions at intervals, and reads them.
    async fn follow(
        self: Arc<Self>,
        after: Duration,
        mut tasks: JoinSet<Result<()>>,
    ) -> Result<()> {
        loop {
            tokio::select! {
                () = self.clock.sleep(after) => {}
                Some(done) = tasks.join_next(), if !tasks.is_empty() => { self.joined(done)?; continue; }
            }
            if self.taps.iter().all(|tap| tap.shared.is_stopped()) {
                return Ok(());
            }
            let mut found = self.source.discover().await?;
            let hold = {
                let mut progress = self.progress.lock();
                found.retain(|p| !progress.knows(p.id));
                let hold = progress.watermark();
                progress.add(&found, self.clock.now_micros());
                hold
            };
            for lane in self.lanes(found, hold) {
                tasks.spawn(Arc::clone(&self).work(Arc::new(Mutex::new(VecDeque::from([lane])))));
            }
        }
    }

    /// Divides partitions into lanes; `hold`: the watermark of the scan.
    fn lanes(&self, partitions: Vec<Partition>, hold: Watermark) -> Vec<Lane> {
        let timed = self.time.delay_ticks.is_some();
        let mut lanes = Vec::new();
        for partition in partitions {
            let Partition { id, name, splits } = partition;
            for split in &splits {
                let bytes = split.bytes.unwrap_or(0);
                self.counters.bytes_total.fetch_add(bytes, Ordering::Relaxed);
                let history = Counters::history_of(split);
                self.counters.history_total.fetch_add(history, Ordering::Relaxed);
                self.unread.fetch_add(history, Ordering::Relaxed);
            }
            let known = splits.iter().all(|s| s.event_times.is_some());
            if timed && !known {
                lanes.push(Lane { partition: id, name, splits, max: None, hold, history: 0 });
                continue;
            }
            let mut max = None;
            for split in splits {
                let end = split.event_times.map(|(_, max)| max);
                lanes.push(Lane {
                    partition: id,
                    name: name.clone(),
                    splits: vec![split],
                    max,
                    hold,
                    history: 0,
                });
                max = max.max(end);
            }
        }
        lanes
    }

    /// A worker: reads lane after lane.
    async fn work(self: Arc<Self>, lanes: Arc<Mutex<VecDeque<Lane>>>) -> Result<()> {
        let mut taps: Vec<TapWorker> = self.taps.iter().cloned().map(TapWorker::new).collect();
        loop {
            let Some(lane) = lanes.lock().pop_front() else { return Ok(()) };
            self.read_lane(lane, &mut taps).await?;
            if taps.is_empty() {
                return Ok(());
            }
        }
    }

    async fn read_lane(&self, mut lane: Lane, taps: &mut Vec<TapWorker>) -> Result<()> {
        let splits = std::mem::take(&mut lane.splits);
        if splits.len() == 1 || self.limits.threads == 1 {
            for split in splits {
                let Some(request) = self.begin(&mut lane, &split)? else {
                    self.end_split(&mut lane, &split, taps);
                    continue;
                };
                let mut reader = self.source.open(&split, &request).await?;
                while let Some(batch) = reader.next().await? {
                    self.take(&mut lane, &split, batch, taps).await?;
                    if taps.is_empty() {
                        return Ok(());
                    }
                }
                self.end_split(&mut lane, &split, taps);
            }
            return Ok(());
        }
        let ahead = self.limits.threads;
        let mut wanted = Vec::with_capacity(splits.len());
        for split in splits {
            let before = self.read_before(&lane, &split)?;
            wanted.push((split, before));
        }
        let mut decoded = stream::iter(wanted)
            .map(|(split, before)| {
                let request = ScanRequest { from: before.from, ..self.request.clone() };
                let source = (!before.done).then(|| Arc::clone(&self.source));
                decode(source, split, (request, self.reading()))
            })
            .buffered(ahead);
        while let Some(done) = decoded.next().await {
            let (split, batches) = done?;
            self.begin(&mut lane, &split)?;
            for batch in batches {
                self.take(&mut lane, &split, batch, taps).await?;
                if taps.is_empty() {
                    return Ok(());
                }
            }
            self.end_split(&mut lane, &split, taps);
        }
        Ok(())
    }

    /// Sends one micro-batch to all taps; then the watermark may move.
    async fn take(
        &self,
        lane: &mut Lane,
        split: &Split,
        batch: SourceBatch,
        taps: &mut Vec<TapWorker>,
    ) -> Result<()> {
        let now = self.clock.now_micros();
        let (explicit, idle) = (batch.watermark, batch.idle);
        let (began, consumed) = (batch.offsets.start(), batch.offsets.end());
        let place = batch.place.clone();
        let taken = self.intake.take(batch, now)?;
        self.bad_rows.keep(&self.stream, (lane.partition, &lane.name), &taken.bad);
        self.progress.lock().take(lane.partition);
        // A partition with a batch in flight is not idle.
        self.while_paused().await;
        let before = match (self.time.delay_ticks, lane.max) {
            (Some(delay), Some(max)) => Watermark::at(max).delayed(delay).advance(lane.hold),
            _ => lane.hold,
        };
        let timed = self.time.delay_ticks.is_some();
        let max = lane.max.max(taken.times.map(|(_, max)| max)).filter(|_| timed);
        let (name, place) = (&lane.name, place.as_ref());
        let origin =
            Origin { partition: lane.partition, name, split, before, consumed, place, max };
        let mut dead = Vec::new();
        let mut at = 0;
        // The taps of a query follow each other.
        for taps in taps.chunk_by(|a, b| Arc::ptr_eq(&a.tap.shared, &b.tap.shared)) {
            let Some(tap) = taps.first() else { continue };
            if tap.tap.shared.is_stopped() {
                dead.extend(at..at + taps.len());
            } else if let Err(error) =
                caught(|| tap.preparing(), TapWorker::take_together(taps, &taken, origin)).await
            {
                stop(tap, error);
                dead.extend(at..at + taps.len());
            }
            at += taps.len();
        }
        for at in dead.into_iter().rev() {
            taps.remove(at);
        }
        let rows = taken.rows.num_rows() as u64 + taken.skipped;
        self.counters.rows.fetch_add(rows, Ordering::Relaxed);
        self.count_history(lane, consumed.saturating_sub(began));
        if timed {
            lane.max = max;
        }
        // The time without rows begins now, however long the queries have taken.
        let (now_micros, backlog) = (self.clock.now_micros(), lane.history > 0);
        let step = Step { max, explicit, consumed, now_micros, idle, backlog };
        self.progress.lock().taken(lane.partition, split.number, &step);
        for tap in taps.iter() {
            tap.tap.shared.wake();
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    /// Waits while the stream is paused.
    async fn while_paused(&self) {
        let mut paused = self.paused.clone();
        if paused.wait_for(|names| !names.contains(&self.stream)).await.is_err() {
            // The engine ends.
            tracing::debug!(stream = self.stream, "nothing pauses streams any more");
        }
    }

    /// Records that `rows` rows of the lane's split were read; those after its history do not count.
    fn count_history(&self, lane: &mut Lane, rows: u64) {
        let rows = rows.min(lane.history);
        lane.history -= rows;
        // A stopped scan has subtracted its history already.
        let less = |unread: u64| unread.checked_sub(rows);
        if self.unread.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            self.counters.history.fetch_add(rows, Ordering::Relaxed);
        }
    }

    fn end_split(&self, lane: &mut Lane, split: &Split, taps: &[TapWorker]) {
        if self.time.delay_ticks.is_some() {
            // Skipped rows count for the watermark too.
            lane.max = lane.max.max(split.event_times.map(|(_, max)| max));
            let now_micros = self.clock.now_micros();
            let step = Step { max: lane.max, now_micros, ..Step::default() };
            self.progress.lock().advance(lane.partition, split.number, &step);
        }
        for tap in taps {
            tap.tap.at.positions.lock().finish(&lane.name, split, lane.max);
        }
        self.progress.lock().finish(lane.partition, split.number, self.clock.now_micros());
        self.counters.bytes.fetch_add(split.bytes.unwrap_or(0), Ordering::Relaxed);
        self.count_history(lane, u64::MAX);
        for tap in taps {
            tap.tap.shared.wake();
        }
    }
}

/// Stops a query after an error of its tap: a cancelled one is cancelled, others fail with the error.
fn stop(tap: &TapWorker, error: Error) {
    match error.kind() {
        windrow_core::ErrorKind::Cancelled => tap.tap.shared.cancel(),
        _ => tap.tap.shared.fail_by_rows(Arc::new(error)),
    }
    tap.tap.shared.wake();
}

/// Decodes a whole split on another thread; without a source there is nothing to decode.
async fn decode(
    source: Option<Arc<dyn Source>>,
    split: Split,
    (request, reading): (ScanRequest, String),
) -> Result<(Split, Vec<SourceBatch>)> {
    let Some(source) = source else { return Ok((split, vec![])) };
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut reader = source.open(&split, &request).await?;
        let mut batches = Vec::new();
        while let Some(batch) = reader.next().await? {
            batches.push(batch);
        }
        Ok((split, batches))
    });
    match task.join_next().await {
        Some(done) => done.map_err(|end| stopped(&reading, end))?,
        None => Err(Error::internal("decoding did not start")),
    }
}
