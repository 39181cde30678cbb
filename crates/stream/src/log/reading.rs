//! What readers of a log are given: the state of the log, and its rows wherever they are.
//!
//! Invariant: rows and boundaries that are read together are read under one lock; disk is read outside of it.

use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use tokio::sync::watch;
use windrow_archive::ArchiveSnapshot;
use windrow_core::{Behind, OffsetRange, Result};

use super::{Inner, LogState, StreamLog};
use crate::tail::Piece;

/// Rows of one batch that is read from the archive.
const READ_ROWS: usize = 8_192;

/// All rows of one moment: those of the archive, then those of the tail.
#[derive(Debug)]
pub struct Contents {
    /// The first row; the archive may have more before it.
    pub(crate) first: u64,
    /// The rows of the archive, if there is one.
    pub(crate) archive: Option<ArchiveSnapshot>,
    pub(crate) tail: Vec<Piece>,
    pub(crate) tail_rows: u64,
}

impl Contents {
    /// All rows, those of the archive read into memory.
    ///
    /// # Errors
    /// When the archive cannot be read.
    pub async fn batches(&self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        if let Some(archive) = &self.archive {
            let all: Vec<usize> = (0..archive.schema().fields().len()).collect();
            let first = archive.state().first_row.max(self.first);
            let rows = archive.read(first, &all, READ_ROWS).await?;
            batches = rows.try_collect().await?;
        }
        for piece in &self.tail {
            batches.push(piece.load()?);
        }
        Ok(batches)
    }

    /// The batches of the tail, if it is all in memory.
    pub fn tail_in_memory(&self) -> Option<Vec<RecordBatch>> {
        self.tail.iter().map(|piece| piece.batch().cloned()).collect()
    }

    /// The offset of the first row of the tail.
    pub(crate) fn tail_first(&self) -> Option<u64> {
        self.tail.first().map(|piece| piece.first)
    }
}

/// What stands at an offset.
pub(crate) enum ReadAt {
    Rows(RecordBatch),
    /// It is in the archive.
    Archived(ArchiveSnapshot),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    Dropped {
        /// The first row that is still there.
        first: u64,
    },
}

impl StreamLog {
    /// What it holds now.
    pub fn state(&self) -> LogState {
        self.inner.lock().state()
    }

    /// What followers may see: what stays as it is, also if the process is killed now.
    pub fn settled(&self) -> LogState {
        let inner = self.inner.lock();
        inner.archival.settled(inner.state(), inner.start)
    }

    /// A receiver that wakes at every change.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// All rows of now (cheap copies of references).
    pub fn contents(&self) -> Contents {
        let inner = self.inner.lock();
        let first = inner.first;
        let from = first.max(inner.start);
        let tail = inner.tail.pieces().iter().filter_map(|piece| piece.part(from, u64::MAX));
        Contents {
            first,
            archive: inner.archive.clone().filter(|_| inner.start > first),
            tail: tail.collect(),
            tail_rows: inner.rows - inner.start.max(first),
        }
    }

    /// What is archived, and the pieces of the tail from the one on that holds `offset` (cheap
    /// copies of references).
    pub fn since(&self, offset: u64) -> (Option<ArchiveSnapshot>, Vec<Piece>) {
        let inner = self.inner.lock();
        let pieces = inner.tail.pieces();
        let known = pieces.partition_point(|piece| piece.end() <= offset.max(inner.start));
        let pieces = pieces.iter().skip(known);
        let pieces = pieces.filter_map(|piece| piece.part(inner.start, u64::MAX));
        (inner.archive.clone(), pieces.collect())
    }

    /// Up to `rows_max` rows from `offset` on, from one stored batch.
    ///
    /// # Errors
    /// When they are on disk and cannot be read.
    pub(crate) fn read(&self, offset: u64, rows_max: usize) -> Result<ReadAt> {
        let inner = self.inner.lock();
        if offset < inner.oldest {
            return Ok(ReadAt::Dropped { first: inner.oldest });
        }
        let until = offset.saturating_add(rows_max as u64);
        let piece = inner.tail.at(offset).and_then(|piece| piece.part(offset, until));
        if offset < inner.start && piece.is_none() {
            return Ok(inner.archive.clone().map_or(ReadAt::Nothing, ReadAt::Archived));
        }
        // Disk is read when others can go on.
        drop(inner);
        piece.map_or(Ok(ReadAt::Nothing), |piece| piece.load().map(ReadAt::Rows))
    }

    /// Which rows of these offsets came behind the watermark, counted from the first.
    pub fn behind(&self, offsets: OffsetRange) -> Vec<Behind> {
        let inner = self.inner.lock();
        let there = inner.behind.range(offsets.start()..offsets.end());
        let row = |offset: u64| usize::try_from(offset - offsets.start()).ok();
        there.filter_map(|(o, w)| Some(Behind { row: row(*o)?, watermark: *w })).collect()
    }

    /// The first offset from `offset` on whose row is not lost.
    pub(crate) fn behind_gap(&self, offset: u64) -> u64 {
        self.inner.lock().archive.as_ref().map_or(offset, |a| a.gaps().after(offset))
    }

    /// An archived row before which all rows have an event time below `event_time`, in ticks of
    /// the archive's event-time column; the first row when nothing is known.
    pub(crate) fn row_from(&self, event_time: i64) -> u64 {
        let inner = self.inner.lock();
        inner.archive.as_ref().map_or(inner.first, |a| a.row_from(event_time).max(inner.first))
    }

    /// Returns the bytes of memory that its rows take, those among them that readers still need.
    pub fn memory_bytes(&self) -> usize {
        self.inner.lock().tail.memory_bytes()
    }

    /// How many rows are there.
    pub fn held_rows(&self) -> u64 {
        let inner = self.inner.lock();
        let lost = inner.archive.as_ref().map_or(0, |a| a.gaps().within(inner.first, inner.rows));
        inner.rows - inner.first - lost
    }

    /// Whether some of its rows are lost.
    pub fn has_gaps(&self) -> bool {
        self.inner.lock().archive.as_ref().is_some_and(|a| !a.gaps().is_empty())
    }
}

impl Inner {
    fn state(&self) -> LogState {
        LogState {
            first: self.first,
            oldest: self.oldest,
            rows: self.rows,
            watermark: self.watermark,
            ended: self.ended,
            rests: self.rests,
        }
    }
}
