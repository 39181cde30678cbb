//! The history of a stream with a connector (`retention = '…'`): its rows in a log of their own, which bounded queries
//! read and which outlives files that are deleted.
//!
//! ```text
//! source ─► partitions ─ pass ─► log ─► archive ─► SELECT … FROM stream
//! ```
//! Continuous queries read the source itself, where each partition has its own order: in a single log, rows of a slow
//! partition would be late. A pass copies what the source holds now to the log; passes are made in the background, and
//! before a bounded query.
//!
//! Invariants: each row of the source is in the log once, also after a crash, because a partition is a producer of the
//! log whose sequence numbers are its offsets; one pass at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use windrow_core::{
    Clock, Error, ErrorKind, Limits, OffsetRange, Partition, PartitionId, Result, RowOffsets,
    ScanRequest, Source,
};
use windrow_storage::wal::producers::Stamp;

use crate::caught::{caught, stopped};
use crate::places::Places;
use crate::push::PushStream;

/// The minimum pause between two passes.
const PAUSE: Duration = Duration::from_secs(1);
/// The pause after a pass, as a multiple of its duration.
const PAUSES: u32 = 20;

/// The history of one stream.
#[derive(Debug)]
pub struct History {
    /// The log with the retained rows.
    pub push: Arc<PushStream>,
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    threads: usize,
    batch_rows_max: usize,
    /// Distinguishes this reading from those before a restart, where a restart may assign other offsets.
    reading: Option<i64>,
    /// The readers' positions in partitions, where readers describe them.
    places: Places,
    passing: tokio::sync::Mutex<Passes>,
}

/// The state that passes share.
#[derive(Debug, Default)]
struct Passes {
    /// Whether the source knows how far it was read before a restart.
    recalled: bool,
    /// Whether all of a bounded source has been copied.
    done: bool,
}

impl History {
    /// Starts to copy the rows of `source`, until the history is dropped. `steady`: whether its offsets are the same
    /// after a restart. `places`: how far it was read before a restart.
    pub fn begin(
        push: Arc<PushStream>,
        (source, steady): (Arc<dyn Source>, bool),
        places: Places,
        (clock, limits): (Arc<dyn Clock>, &Limits),
        cpu: &tokio::runtime::Handle,
    ) -> Arc<Self> {
        let history = Arc::new(Self {
            push,
            source,
            threads: limits.threads,
            batch_rows_max: limits.batch_rows_max,
            reading: (!steady).then(|| clock.now_micros()),
            clock,
            places,
            passing: tokio::sync::Mutex::default(),
        });
        let weak = Arc::downgrade(&history);
        cpu.spawn(async move {
            while let Some(history) = weak.upgrade() {
                let start = history.clock.now_micros();
                let passed = caught(|| history.keeping(), history.catch_up()).await;
                if let Err(error) = &passed {
                    let stream = &history.push.name;
                    tracing::warn!(stream, %error, "cannot read new rows into the history, it is tried again");
                } else if history.source.is_bounded() {
                    return;
                }
                let took = history.clock.now_micros().saturating_sub(start);
                let took = Duration::from_micros(u64::try_from(took).unwrap_or(0));
                let pause = history.clock.sleep(PAUSE.max(took * PAUSES));
                drop(history);
                pause.await;
            }
        });
        history
    }

    /// Copies what the source holds now to the log.
    ///
    /// # Errors
    /// When the source cannot be read, or has changed; when the log accepts no rows.
    pub(crate) async fn catch_up(self: &Arc<Self>) -> Result<()> {
        let mut passes = self.passing.lock().await;
        if passes.done {
            return Ok(());
        }
        if !passes.recalled {
            for (partition, place) in self.places.all() {
                self.source.recall(&partition, &place)?;
            }
            passes.recalled = true;
        }
        let partitions = self.source.discover().await?;
        let names = self.push.producers();
        for partition in &partitions {
            self.check_unchanged(partition, &names)?;
            if let (Some(split), None) = (partition.splits.first(), self.places.of(&partition.name))
                && let (Some(place), 0) = (&split.place, self.push.taken(&self.producer(partition)))
            {
                self.places.note(&partition.name, 0, place);
            }
        }
        self.keep_places().await?;
        let count = self.threads.clamp(1, partitions.len().max(1));
        let partitions = Arc::new(Mutex::new(VecDeque::from(partitions)));
        let mut workers = JoinSet::new();
        for _ in 0..count {
            workers.spawn(Arc::clone(self).work(Arc::clone(&partitions)));
        }
        while let Some(worked) = workers.join_next().await {
            worked.map_err(|end| stopped(&self.keeping(), end))??;
        }
        self.keep_places().await?;
        passes.done = self.source.is_bounded();
        Ok(())
    }

    /// Stores the positions, after the rows before them are durable.
    async fn keep_places(self: &Arc<Self>) -> Result<()> {
        let (Some(new), Some(spiller)) = (self.places.unwritten(), &self.push.spiller) else {
            return Ok(());
        };
        spiller.note_extents().await?;
        let history = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || history.places.write(new)).await;
        written.map_err(|end| stopped(&self.keeping(), end))?
    }

    /// [Catches up](Self::catch_up) before the history is read. A source that is unavailable or deleted is not an
    /// error: the history outlives it.
    ///
    /// # Errors
    /// As [`catch_up`](Self::catch_up), except for such a source.
    pub(crate) async fn freshen(self: &Arc<Self>) -> Result<()> {
        match self.catch_up().await {
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::NotFound) => {
                let stream = &self.push.name;
                tracing::warn!(stream, %error, "the source cannot be read, the result has its retained rows only");
                Ok(())
            }
            other => other,
        }
    }

    async fn work(self: Arc<Self>, partitions: Arc<Mutex<VecDeque<Partition>>>) -> Result<()> {
        loop {
            let Some(partition) = partitions.lock().pop_front() else { return Ok(()) };
            self.read(&partition).await?;
        }
    }

    /// The name of this work in errors.
    fn keeping(&self) -> String {
        format!("keeping the rows of stream \"{}\"", self.push.name)
    }

    /// The name of a partition as a producer of the log.
    fn producer(&self, partition: &Partition) -> Arc<str> {
        let identity = partition.splits.first().map_or("", |split| &*split.identity);
        match self.reading {
            Some(reading) => format!("{}\n{identity}\n{reading}", partition.name).into(),
            None => format!("{}\n{identity}", partition.name).into(),
        }
    }

    /// Refuses a partition whose contents have been replaced: another file of the same name has other rows at the same
    /// offsets.
    fn check_unchanged(&self, partition: &Partition, known: &[Arc<str>]) -> Result<()> {
        let (name, ours) = (format!("{}\n", partition.name), self.producer(partition));
        let was = known.iter().find(|k| k.starts_with(&name) && **k != ours);
        match was.filter(|_| self.reading.is_none()) {
            None => Ok(()),
            Some(was) => Err(Error::data(format!(
                "\"{}\" of stream \"{}\" has changed since its rows were kept: it was {}",
                partition.name,
                self.push.name,
                was.strip_prefix(&name).unwrap_or(was)
            ))
            .with_hint("Restore it, or drop the stream and create it again.")),
        }
    }

    async fn read(&self, partition: &Partition) -> Result<()> {
        let producer = self.producer(partition);
        let mut consumed = self.push.taken(&producer);
        let request = ScanRequest::of_now(
            (0..self.source.schema().fields().len()).collect(),
            self.batch_rows_max,
        );
        for split in &partition.splits {
            let mut request = ScanRequest { from: Some(consumed), ..request.clone() };
            if let Some((at, place)) = self.places.of(&partition.name) {
                (request.from, request.past) = (Some(at.min(consumed)), consumed);
                request.place = Some(place);
            }
            let mut reader = self.source.open(split, &request).await?;
            while let Some(batch) = reader.next().await? {
                let end = batch.offsets.end();
                let place = batch.place.clone();
                let stands = || {
                    if let Some(place) = &place {
                        self.places.note(&partition.name, end, place);
                    }
                };
                if end <= consumed {
                    stands();
                    continue;
                }
                let taken = self.push.intake.take(batch, self.clock.now_micros())?;
                let rows = behind(taken.rows, &*taken.row_offsets, consumed)?;
                let range = OffsetRange::try_new(consumed, end)?;
                let stamp = Stamp::of_rows(&producer, range);
                self.push.append_read(rows, stamp).await?;
                self.keep_bad(partition, &taken.bad, consumed);
                stands();
                consumed = end;
            }
        }
        Ok(())
    }

    fn keep_bad(&self, partition: &Partition, bad: &[windrow_core::BadRow], from: u64) {
        let new: Vec<_> = bad.iter().filter(|bad| bad.offset >= from).cloned().collect();
        let place: (PartitionId, &str) = (partition.id, &partition.name);
        self.push.bad_rows.keep(&self.push.name, place, &new);
    }
}

/// Returns those of `rows` whose offset is `from` or greater.
fn behind(rows: RecordBatch, offsets: &dyn RowOffsets, from: u64) -> Result<RecordBatch> {
    if rows.num_rows() == 0 || offsets.offset(0) >= from {
        return Ok(rows);
    }
    let keep = (0..rows.num_rows()).map(|row| Some(offsets.offset(row) >= from));
    Ok(filter_record_batch(&rows, &BooleanArray::from_iter(keep))?)
}
