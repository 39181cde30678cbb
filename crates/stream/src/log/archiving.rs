//! How rows of a log move to its archive, and how long its writer may be ahead of that.
//!
//! Invariant: the tail releases rows only when it is given a snapshot of the archive that has them.

use windrow_archive::ArchiveSnapshot;
use windrow_core::{Limits, Watermark};

use super::archival::{Archival, Complete, Written};
use super::{Frontier, Inner, LogEnd, StreamLog};
use crate::tail::Piece;

/// A writer waits when the archive is behind by this number of tails.
const TAILS_MAX: u64 = 4;
/// The same by bytes; with a limit of memory most of them lie on disk.
const TAIL_BYTES_MAX: usize = 2;

/// How long a tail may be while its writer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub(crate) bytes: usize,
}

impl Room {
    /// So many tails as the archive takes in at a time.
    pub fn of(limits: &Limits) -> Self {
        Self {
            rows: limits.tail_rows_max.saturating_mul(TAILS_MAX),
            bytes: limits.tail_bytes_max.saturating_mul(TAIL_BYTES_MAX),
        }
    }
}

/// Rows of the tail that may go to the archive.
#[derive(Debug)]
pub struct Unarchived {
    /// Offset of the first.
    pub first: u64,
    /// The rows.
    pub rows: Vec<Piece>,
    /// One past the last offset.
    pub end: u64,
    /// The watermark that they are complete up to.
    pub(crate) watermark: Watermark,
    /// How far the archive is when it has them.
    pub frontier: Frontier,
}

impl StreamLog {
    /// A checkpoint says what the rows before `given` were made of: the archive may take them, where rows are
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

    /// The archived rows are complete up to this watermark: the same promise as before a restart.
    pub fn resume_at(&self, watermark: Watermark) {
        let mut inner = self.inner.lock();
        inner.watermark = inner.watermark.advance(watermark);
        if let Archival::Checkpoints(by) = &mut inner.archival {
            by.resume_at(watermark);
        }
    }

    /// The complete rows that the archive does not have. `None` when it is up to date, the
    /// watermark included.
    pub fn unarchived(&self) -> Option<Unarchived> {
        let inner = self.inner.lock();
        let Complete { rows: end, watermark, frontier } =
            inner.archival.complete(inner.written())?;
        let pieces = inner.tail.pieces().iter();
        let pieces = pieces.skip_while(|piece| piece.end() <= inner.start);
        let rows = pieces.map_while(|piece| piece.part(inner.start, end)).collect();
        Some(Unarchived { first: inner.start, rows, end, watermark, frontier })
    }

    /// The archive has grown: the tail releases what it holds now.
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

    /// How far the archive is.
    pub fn frontier(&self) -> Frontier {
        self.inner.lock().frontier()
    }

    /// Rows and bytes of the tail.
    pub(crate) fn tail_size(&self) -> (u64, usize) {
        let inner = self.inner.lock();
        (inner.rows - inner.start, inner.tail.bytes())
    }

    /// Waits until the tail is within a number of rows and bytes; a writer that is faster than the archive
    /// takes in is slowed down.
    pub async fn wait_for_room(&self, room: Room) {
        let mut changed = self.watch();
        while self.is_longer_than(room) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether the tail is longer than that, and its writer waits for the archive.
    pub(crate) fn is_longer_than(&self, room: Room) -> bool {
        let inner = self.inner.lock();
        let long = inner.rows - inner.start > room.rows || inner.tail.bytes() > room.bytes;
        !inner.is_released && long
    }

    /// The tail is archived no more (its object is dropped, or the engine closes).
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
