//! How rows of a log move to its archive, and how far its writer may be ahead of that.
//!
//! Invariant: the tail releases rows only when it receives a snapshot of the archive that has them.

use windrow_archive::ArchiveSnapshot;
use windrow_core::{Limits, Watermark};

use super::archival::{Archival, Complete, Written};
use super::{Frontier, Inner, LogEnd, StreamLog};
use crate::tail::Piece;

/// A writer waits when more rows than this number of tails (of `tail_rows_max`) are not archived.
const TAILS_MAX: u64 = 4;
/// The same for bytes; with a memory limit most of them are on disk.
const TAIL_BYTES_MAX: usize = 2;

/// The size of a tail up to which its writer need not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub(crate) bytes: usize,
}

impl Room {
    /// Returns the room for a few tails of the maximum size.
    pub fn of(limits: &Limits) -> Self {
        Self {
            rows: limits.tail_rows_max.saturating_mul(TAILS_MAX),
            bytes: limits.tail_bytes_max.saturating_mul(TAIL_BYTES_MAX),
        }
    }
}

/// Rows of the tail that are to be archived.
#[derive(Debug)]
pub struct Unarchived {
    /// The offset of the first row.
    pub first: u64,
    /// The rows.
    pub rows: Vec<Piece>,
    /// One past the last offset.
    pub end: u64,
    /// The watermark up to which they are complete.
    pub(crate) watermark: Watermark,
    /// The progress of the archive when it has them.
    pub frontier: Frontier,
}

impl StreamLog {
    /// Records that a checkpoint has the origin of the rows before `given`: they may be archived, where rows are
    /// complete by checkpoints.
    pub fn checkpointed(&self, given: LogEnd) {
        {
            let mut inner = self.inner.lock();
            let start = inner.start;
            if let Archival::Checkpoints(by) = &mut inner.archival {
                by.checkpointed(given, start);
            }
        }
        self.changed.send_replace(());
    }

    /// Restores the watermark from before a restart, up to which the archived rows are complete.
    pub fn resume_at(&self, watermark: Watermark) {
        let mut inner = self.inner.lock();
        inner.watermark = inner.watermark.advance(watermark);
        if let Archival::Checkpoints(by) = &mut inner.archival {
            by.resume_at(watermark);
        }
    }

    /// Returns the complete rows that are not archived. `None`: the archive is up to date, the watermark included.
    pub fn unarchived(&self) -> Option<Unarchived> {
        let inner = self.inner.lock();
        let Complete { rows: end, watermark, frontier } =
            inner.archival.complete(inner.written())?;
        let pieces = inner.tail.pieces().iter();
        let pieces = pieces.skip_while(|piece| piece.end() <= inner.start);
        let rows = pieces.map_while(|piece| piece.part(inner.start, end)).collect();
        Some(Unarchived { first: inner.start, rows, end, watermark, frontier })
    }

    /// Adopts a newer snapshot of the archive; the tail releases the rows that it has.
    pub fn archived(&self, archive: ArchiveSnapshot) {
        let wanted = self.followers.first_wanted();
        let mut inner = self.inner.lock();
        inner.cut(archive.next_row(), wanted);
        inner.begin_at(archive.state().first_row);
        let start = inner.start;
        inner.archival.archived(start);
        inner.archive = Some(archive);
        drop(inner);
        self.changed.send_replace(());
    }

    /// The progress of the archive.
    pub fn frontier(&self) -> Frontier {
        self.inner.lock().frontier()
    }

    /// Rows and bytes that are not archived.
    pub(crate) fn tail_size(&self) -> (u64, usize) {
        let inner = self.inner.lock();
        (inner.rows - inner.start, inner.tail.bytes())
    }

    /// Waits until the tail has at most the rows and bytes of `room`: the back-pressure of the archive on writers.
    pub async fn wait_for_room(&self, room: Room) {
        let mut changed = self.watch();
        while self.is_longer_than(room) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the tail exceeds `room`, so that its writer has to wait for the archive.
    pub(crate) fn is_longer_than(&self, room: Room) -> bool {
        let inner = self.inner.lock();
        let long = inner.rows - inner.start > room.rows || inner.tail.bytes() > room.bytes;
        !inner.is_released && long
    }

    /// Ends archiving (the object is dropped, or the engine closes): writers do not wait for it any more.
    pub(crate) fn release(&self) {
        self.inner.lock().is_released = true;
        self.changed.send_replace(());
    }
}

impl Inner {
    fn frontier(&self) -> Frontier {
        let version = self.archive.as_ref().and_then(|archive| archive.state().txn_version);
        let completion = self.archival.completion();
        completion.map_or(Frontier::Nothing, |completion| completion.frontier(version))
    }

    fn written(&self) -> Written {
        Written {
            end: LogEnd { rows: self.rows, watermark: self.watermark },
            archived: self.start,
            frontier: self.frontier(),
            ended: self.ended,
        }
    }
}
