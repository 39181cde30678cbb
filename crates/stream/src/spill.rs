//! Moves rows from the tail of a log to its archive, in the background.
//!
//! A view archives the windows that are finished by its watermark; the watermark is the transaction's version, from
//! which the query knows after a crash which windows to omit. A view without windows archives the rows whose origin is
//! in a checkpoint; the version is the end offset, by which that checkpoint is identified. A push stream archives all
//! its rows; the version is the end offset, and the write-ahead log deletes segments that are archived.
//!
//! Before rows are archived, the logs from which they were computed record their extents, so that a log that loses its
//! end later is not mistaken for a shorter one.
//!
//! Invariants: one spill at a time; the tail releases rows only after the archive has committed them; a failed spill
//! changes nothing and is retried.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_archive::{ArchiveFile, ArchiveTable, HeldFiles, Provenance};
use windrow_core::{Clock, Error, Layout, Limits, Result};
use windrow_storage::wal::Wal;

use crate::caught::unwound;
use crate::log::{Frontier, Room, StreamLog, Unarchived};
use crate::repeated::repeated;

/// With this many files, small ones are merged.
const FILES_MANY: usize = 32;
/// The age at which files that were removed from the archive are deleted; readers may still hold them.
const VACUUM_AFTER: Duration = Duration::from_secs(3_600);

/// The query that produces the rows of a log, as its archive sees it.
pub trait Fails: fmt::Debug + Send + Sync {
    /// Makes the query fail with this error, because the state of its archive is unknown.
    fn fail(&self, error: Arc<Error>);
}

/// Moves the rows of one log to its archive.
#[derive(Debug)]
pub struct Spiller {
    log: Arc<StreamLog>,
    archive: Arc<ArchiveTable>,
    origin: Origin,
    spilling: tokio::sync::Mutex<()>,
    stop: watch::Sender<bool>,
    error: Mutex<Option<String>>,
}

/// The origin of the rows of a log.
#[derive(Debug)]
enum Origin {
    /// A push stream. Its write-ahead log deletes archived rows.
    Stream(Arc<Wal>),
    /// A view.
    View {
        /// The logs from which its rows are computed, including those below the views that it reads.
        sources: Vec<Arc<Wal>>,
        /// Its query, which fails when the archive panics.
        query: OnceLock<Weak<dyn Fails>>,
    },
}

impl Spiller {
    /// Returns a spiller of a push stream, from `log` to `archive`. `wal` is its write-ahead log.
    pub fn of_stream(log: Arc<StreamLog>, archive: Arc<ArchiveTable>, wal: Arc<Wal>) -> Arc<Self> {
        Self::of(log, archive, Origin::Stream(wal))
    }

    /// Returns a spiller of a view, from `log` to `archive`. `sources`: the logs from which its rows are computed.
    pub fn of_view(
        log: Arc<StreamLog>,
        archive: Arc<ArchiveTable>,
        sources: Vec<Arc<Wal>>,
    ) -> Arc<Self> {
        Self::of(log, archive, Origin::View { sources, query: OnceLock::new() })
    }

    fn of(log: Arc<StreamLog>, archive: Arc<ArchiveTable>, origin: Origin) -> Arc<Self> {
        Arc::new(Self {
            log,
            archive,
            origin,
            spilling: tokio::sync::Mutex::new(()),
            stop: watch::Sender::new(false),
            error: Mutex::new(None),
        })
    }

    /// Adds columns to the archive, at the end.
    pub(crate) fn widen(&self, layout: &Layout) -> Result<()> {
        self.archive.widen(Arc::clone(layout.schema()), layout.added().to_vec())
    }

    /// Sets the query of a view, which fails when archiving panics.
    pub fn is_of<Q: Fails + 'static>(&self, of: &Arc<Q>) {
        if let Origin::View { query, .. } = &self.origin {
            query.get_or_init(|| {
                let of: Weak<Q> = Arc::downgrade(of);
                of
            });
        }
    }

    /// The logs from which the rows of a view are computed, or the one of a push stream.
    pub fn sources(&self) -> &[Arc<Wal>] {
        match &self.origin {
            Origin::Stream(wal) => std::slice::from_ref(wal),
            Origin::View { sources, .. } => sources,
        }
    }

    /// The write-ahead log of a push stream.
    fn wal(&self) -> Option<&Arc<Wal>> {
        match &self.origin {
            Origin::Stream(wal) => Some(wal),
            Origin::View { .. } => None,
        }
    }

    /// Records the extents of the [sources](Self::sources).
    ///
    /// # Errors
    /// When that cannot be written.
    pub async fn note_extents(&self) -> Result<()> {
        let logs = self.sources().to_vec();
        if logs.is_empty() {
            return Ok(());
        }
        let note = move || logs.iter().try_for_each(|log| log.note_extent());
        let noted = tokio::task::spawn_blocking(note).await;
        noted.map_err(|e| Error::internal("noting the extent of a log stopped").with_source(e))?
    }

    /// Whether these are the rows of a view.
    pub fn is_view(&self) -> bool {
        matches!(self.origin, Origin::View { .. })
    }

    /// Archives the rows that are complete now; returns the progress of the archive.
    ///
    /// # Errors
    /// When the archive cannot be written; then nothing has changed.
    pub async fn spill(&self) -> Result<Frontier> {
        let _one_at_a_time = self.spilling.lock().await;
        self.spill_alone().await
    }

    /// As [`spill`](Self::spill), but does nothing once it has been stopped.
    ///
    /// # Errors
    /// As [`spill`](Self::spill).
    pub async fn spill_until_stopped(&self) -> Result<Frontier> {
        let _one_at_a_time = self.spilling.lock().await;
        if *self.stop.borrow() {
            return Ok(self.frontier());
        }
        self.spill_alone().await
    }

    /// Spills; a panic becomes an error, and fails the query of a view, because the state of the archive is then
    /// unknown.
    async fn spill_alone(&self) -> Result<Frontier> {
        match unwound(|| "archiving".to_owned(), self.spill_complete()).await {
            Ok(spilled) => spilled,
            Err(panic) => {
                let panic = Arc::new(panic);
                *self.error.lock() = Some(panic.message().to_owned());
                if let Origin::View { query, .. } = &self.origin
                    && let Some(query) = query.get().and_then(Weak::upgrade)
                {
                    query.fail(Arc::clone(&panic));
                }
                Err(repeated(&panic))
            }
        }
    }

    async fn spill_complete(&self) -> Result<Frontier> {
        let Some(rows) = self.log.unarchived() else {
            return Ok(self.frontier());
        };
        if rows.rows.is_empty() && rows.frontier != Frontier::All {
            // An advance of the watermark without rows is not worth a commit.
            return Ok(self.frontier());
        }
        let (first, end) = (rows.first, rows.end);
        let done = self.write(rows).await;
        *self.error.lock() = done.as_ref().err().map(|e| e.message().to_owned());
        if let Err(error) = done {
            // An earlier commit, by this process or its predecessor, may have arrived late: with the same rows, but
            // another end. Rows whose order changes when they are recomputed are the same only if this process sent
            // them.
            let archive = self.archive.snapshot();
            let first = if self.log.is_unordered() { end } else { first + 1 };
            if (first..=end).contains(&archive.state().rows) {
                self.log.archived(archive);
            }
            return Err(error);
        }
        self.log.archived(self.archive.snapshot());
        if let Some(wal) = self.wal() {
            wal.delete_below(end)?;
        }
        if self.archive.state().files >= FILES_MANY
            && let Err(error) = self.tidy().await
        {
            // The rows are archived; the next spill merges.
            tracing::warn!(%error, "cannot merge small archive files");
        }
        Ok(self.frontier())
    }

    /// Commits rows to the archive.
    async fn write(&self, rows: Unarchived) -> Result<()> {
        self.note_extents().await?;
        let Unarchived { first, rows, watermark, frontier, .. } = rows;
        let watermark = self.is_view().then(|| watermark.ticks());
        let provenance = Provenance { watermark, ..Provenance::default() };
        let batches = rows.into_iter().map(|piece| piece.load());
        self.archive.append_from(batches, first, frontier.version(), &provenance).await.map(|_| ())
    }

    /// The log whose rows are archived.
    pub fn log(&self) -> &StreamLog {
        &self.log
    }

    /// Drops whole files from the front whose rows all have event times below `event_time` (in ticks) and offsets below
    /// `end_max`. Returns the number of dropped rows.
    ///
    /// # Errors
    /// When the archive cannot be changed.
    pub(crate) async fn drop_before(&self, event_time: i64, end_max: u64) -> Result<u64> {
        let _one_at_a_time = self.spilling.lock().await;
        if *self.stop.borrow() {
            return Ok(0);
        }
        let dropped = self.archive.drop_before(event_time, end_max).await?;
        if dropped > 0 {
            self.log.archived(self.archive.snapshot());
            self.archive.vacuum(VACUUM_AFTER).await?;
        }
        Ok(dropped)
    }

    /// The progress of the archive.
    pub fn frontier(&self) -> Frontier {
        let version = self.archive.state().txn_version;
        let completion = self.log.completion();
        completion.map_or(Frontier::Nothing, |completion| completion.frontier(version))
    }

    /// Drops released changes, merges small files, and deletes files that were removed some time ago.
    async fn tidy(&self) -> Result<()> {
        // Rows with event times are dropped by their retention.
        let dropped = self.archive.drop_rows(self.log.state().oldest).await?;
        if self.archive.compact().await? || dropped > 0 {
            self.log.archived(self.archive.snapshot());
            self.archive.vacuum(VACUUM_AFTER).await?;
        }
        Ok(())
    }

    /// Spills when the tail is long, and otherwise at intervals, until it is stopped.
    pub async fn run(self: Arc<Self>, clock: Arc<dyn Clock>, limits: Limits) {
        let mut stop = self.stop.subscribe();
        loop {
            tokio::select! {
                stopped = stop.wait_for(|stop| *stop) => { drop(stopped); return; }
                () = clock.sleep(limits.spill_interval) => {}
                () = self.when(|| self.is_due(&limits)) => {}
            }
            // A push stream is durable without its archive: a few rows are not worth a file.
            if !self.is_view() && !self.is_long(&limits) {
                if let Err(error) = self.note_extents().await {
                    tracing::warn!(%error, "cannot record the extent of a log");
                }
                continue;
            }
            if let Err(error) = self.spill().await {
                tracing::warn!(%error, "the archive cannot be written, finished rows remain in memory");
                tokio::select! {
                    stopped = stop.wait_for(|stop| *stop) => { drop(stopped); return; }
                    () = clock.sleep(limits.spill_interval) => {}
                }
            }
        }
    }

    /// Whether to spill at once.
    fn is_due(&self, limits: &Limits) -> bool {
        match self.log.completion() {
            Some(by) if by.is_by_checkpoint() => self.log.unarchived().is_some(),
            _ => self.is_long(limits),
        }
    }

    /// Completes when the tail is long.
    pub async fn long(&self, limits: &Limits) {
        self.when(|| self.is_long(limits)).await;
    }

    /// Completes when `is_true` returns true, which is checked at every change of the log.
    async fn when(&self, is_true: impl Fn() -> bool) {
        let mut changed = self.log.watch();
        while !is_true() {
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn is_long(&self, limits: &Limits) -> bool {
        let (rows, bytes) = self.log.tail_size();
        rows >= limits.tail_rows_max
            || bytes >= limits.tail_bytes_max
            || (rows > 0 && self.wal().is_some_and(|wal| wal.is_scattered()))
    }

    /// Stops, and waits for a spill in progress.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.log.release();
        drop(self.spilling.lock().await);
    }

    /// The files of the archive.
    pub fn files(&self) -> Vec<ArchiveFile> {
        self.archive.snapshot().files().collect()
    }

    /// Returns a handle that shows whether the archive's files are still being read.
    pub fn held(&self) -> HeldFiles {
        self.archive.snapshot().held()
    }

    /// The number of rows that are archived.
    pub fn archived_rows(&self) -> u64 {
        self.archive.state().rows
    }

    /// Whether more rows than `room` wait for the archive.
    pub fn is_over(&self, room: Room) -> bool {
        self.log.is_longer_than(room)
    }

    /// Records whether the step before the next spill (a checkpoint) has failed, and why.
    pub fn waits(&self, why: Option<&Error>) {
        *self.error.lock() = why.map(|e| e.message().to_owned());
    }

    /// Why the last spill failed, if it did.
    pub fn error(&self) -> Option<String> {
        self.error.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::record_batch::RecordBatch;
    use futures::future::BoxFuture;
    use object_store::memory::InMemory;
    use url::Url;
    use windrow_archive::{Storage, TableSpec};
    use windrow_core::offset::Gaps;
    use windrow_core::{ErrorKind, ManualClock, Watermark};

    use super::*;
    use crate::log::Completion;

    /// A query that remembers that it has failed.
    #[derive(Debug, Default)]
    struct Query(AtomicBool);

    impl Fails for Query {
        fn fail(&self, _error: Arc<Error>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// A clock that panics when it is told to.
    #[derive(Debug)]
    struct Bomb(ManualClock, AtomicBool);

    impl Clock for Bomb {
        fn now_micros(&self) -> i64 {
            assert!(!self.1.load(Ordering::Relaxed), "it is late");
            self.0.now_micros()
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            self.0.sleep(duration)
        }
    }

    #[tokio::test]
    async fn a_view_fails_when_its_archive_panics() {
        let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let rows = RecordBatch::try_from_iter([("n", n)]).unwrap();
        let clock = Arc::new(Bomb(ManualClock::at(0), AtomicBool::new(false)));
        let url = Url::parse("memory:///archive/").unwrap();
        let storage = Storage::object_store(url, Arc::new(InMemory::new())).unwrap();
        let spec = TableSpec {
            name: "v".into(),
            schema: rows.schema(),
            event_time: None,
            engine_version: "0".into(),
            fingerprint: String::new(),
            owner: None,
            gaps: Gaps::default(),
            added: vec![],
        };
        let archive =
            ArchiveTable::open(storage.child("v").unwrap(), spec, Arc::clone(&clock) as _);
        let archive = Arc::new(archive.await.unwrap());
        let by = Completion::Watermark;
        let log = StreamLog::restored(rows.schema(), archive.snapshot(), by, None);
        let spiller = Spiller::of_view(Arc::clone(&log), archive, vec![]);
        let query = Arc::new(Query::default());
        spiller.is_of(&query);
        log.append(rows).unwrap();
        log.advance(Watermark::at(1));
        clock.1.store(true, Ordering::Relaxed);
        let error = spiller.spill().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(error.message(), "archiving stopped at a panic: it is late");
        assert_eq!(spiller.error().unwrap(), error.message());
        assert!(query.0.load(Ordering::Relaxed));
        clock.1.store(false, Ordering::Relaxed);
        // Later spills do not wait for it.
        spiller.spill().await.unwrap();
        assert_eq!(spiller.archived_rows(), 2);
    }
}
