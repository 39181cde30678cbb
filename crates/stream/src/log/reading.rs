//! Reading a log: its state, and its rows wherever they are stored.
//!
//! Invariant: rows and boundaries that belong together are read under one lock; disks are read outside of it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use tokio::sync::watch;
use windrow_archive::ArchiveSnapshot;
use windrow_core::{Behind, OffsetRange, Result};

use super::{Inner, LogState, StreamLog};
use crate::tail::Piece;

/// Rows per batch read from the archive.
const READ_ROWS: usize = 8_192;

/// All rows at one moment: those of the archive, then those of the tail.
#[derive(Debug)]
pub struct Contents {
    /// The columns.
    pub(crate) schema: SchemaRef,
    /// The offset of the first row; the archive may have older ones.
    pub(crate) first: u64,
    /// The archive, if there is one.
    pub(crate) archive: Option<ArchiveSnapshot>,
    pub(crate) tail: Vec<Piece>,
    pub(crate) tail_rows: u64,
}

impl Contents {
    /// Returns all rows; those of the archive are read into memory.
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

    /// The batches of the tail; `None`: some are on disk.
    pub fn tail_in_memory(&self) -> Option<Vec<RecordBatch>> {
        self.tail.iter().map(|piece| piece.batch().cloned()).collect()
    }

    /// The offset of the first row of the tail.
    pub(crate) fn tail_first(&self) -> Option<u64> {
        self.tail.first().map(|piece| piece.first)
    }
}

/// The row at an offset.
pub(crate) enum ReadAt {
    Rows(RecordBatch),
    /// It is in the archive.
    Archived(ArchiveSnapshot),
    /// It has not been appended yet.
    Nothing,
    /// It was dropped.
    Dropped {
        /// The first retained offset.
        first: u64,
    },
}

impl StreamLog {
    /// The current extent of the log.
    pub fn state(&self) -> LogState {
        self.inner.lock().state()
    }

    /// The part of the log that followers may see: what remains true if the process is killed now.
    pub fn settled(&self) -> LogState {
        let inner = self.inner.lock();
        inner.archival.settled(inner.state(), inner.start)
    }

    /// Returns a receiver that is notified of every change.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns all current rows (cheap copies of references).
    pub fn contents(&self) -> Contents {
        let inner = self.inner.lock();
        let first = inner.first;
        let from = first.max(inner.start);
        let tail = inner.tail.pieces().iter().filter_map(|piece| piece.part(from, u64::MAX));
        Contents {
            schema: Arc::clone(inner.tail.schema()),
            first,
            archive: inner.archive.clone().filter(|_| inner.start > first),
            tail: tail.collect(),
            tail_rows: inner.rows - inner.start.max(first),
        }
    }

    /// Returns the archive, and the pieces of the tail from the one on that holds `offset` (cheap copies of
    /// references).
    pub fn since(&self, offset: u64) -> (Option<ArchiveSnapshot>, Vec<Piece>) {
        let inner = self.inner.lock();
        let pieces = inner.tail.pieces();
        let known = pieces.partition_point(|piece| piece.end() <= offset.max(inner.start));
        let pieces = pieces.iter().skip(known);
        let pieces = pieces.filter_map(|piece| piece.part(inner.start, u64::MAX));
        (inner.archive.clone(), pieces.collect())
    }

    /// Reads up to `rows_max` rows from `offset` on, from one stored batch.
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
        // Disks are read without the lock.
        drop(inner);
        piece.map_or(Ok(ReadAt::Nothing), |piece| piece.load().map(ReadAt::Rows))
    }

    /// Returns the rows of these offsets that arrived behind the watermark, numbered from the first offset.
    pub fn behind(&self, offsets: OffsetRange) -> Vec<Behind> {
        let inner = self.inner.lock();
        let there = inner.behind.range(offsets.start()..offsets.end());
        let row = |offset: u64| usize::try_from(offset - offsets.start()).ok();
        there.filter_map(|(o, w)| Some(Behind { row: row(*o)?, watermark: *w })).collect()
    }

    /// Returns the first offset at or after `offset` that is not lost.
    pub(crate) fn behind_gap(&self, offset: u64) -> u64 {
        self.inner.lock().archive.as_ref().map_or(offset, |a| a.gaps().after(offset))
    }

    /// Returns an archived row before which all rows have an event time below `event_time`, in ticks of the archive's
    /// event-time column; the first row when nothing is known.
    pub(crate) fn row_from(&self, event_time: i64) -> u64 {
        let inner = self.inner.lock();
        inner.archive.as_ref().map_or(inner.first, |a| a.row_from(event_time).max(inner.first))
    }

    /// Returns the bytes of memory that its rows take, those among them that readers still need.
    pub fn memory_bytes(&self) -> usize {
        self.inner.lock().tail.memory_bytes()
    }

    /// The number of rows that a reader can get.
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
