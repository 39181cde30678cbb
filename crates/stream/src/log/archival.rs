//! Which rows of a log may be archived, and what its followers may see before that.
//!
//! A log is archived in one of four ways, each of which has a type with its own state; the log has the state that they
//! share.
//!
//! | log | archived | version of a commit |
//! |---|---|---|
//! | in memory only | nothing | |
//! | of a push stream | every row | rows |
//! | of a view with windows | rows of finished windows | watermark |
//! | of a view without windows | rows whose origin is in a checkpoint | rows |
//!
//! Invariant: the version of a commit is read and written as a [`Frontier`] only, which says whether it counts
//! rows or is a watermark.

use arrow::record_batch::RecordBatch;
use windrow_core::size::shown_bytes;
use windrow_core::{Error, ErrorKind, Result, Watermark};

use super::{LogEnd, LogState};
use crate::memory;

/// The condition under which rows of a log are complete; only complete rows are archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// They are appended: the rows of a push stream.
    Append,
    /// The watermark has passed them: finished windows.
    Watermark,
    /// A checkpoint records which inputs they were computed from: views without windows.
    Checkpoint {
        /// Whether recomputed rows have the same order, so that a row that is not archived yet has the same offset
        /// after a crash. Otherwise followers of the log get archived rows only.
        in_order: bool,
    },
}

/// The progress of an archive, according to the version of its newest commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frontier {
    /// Nothing has been committed.
    Nothing,
    /// It has the rows below this offset.
    Rows(u64),
    /// It has the windows that end at or before this watermark.
    Windows(Watermark),
    /// It has all rows that the log will ever have.
    All,
}

impl Completion {
    /// Whether rows are complete by checkpoints.
    pub fn is_by_checkpoint(self) -> bool {
        matches!(self, Self::Checkpoint { .. })
    }

    /// Whether rows that are not archived may have other offsets after a crash. Followers do not get these.
    pub fn is_unordered(self) -> bool {
        self == Self::Checkpoint { in_order: false }
    }

    /// Decodes the version of an archive's newest commit.
    pub fn frontier(self, version: Option<i64>) -> Frontier {
        match (self, version) {
            (_, None) => Frontier::Nothing,
            (Self::Watermark | Self::Checkpoint { .. }, Some(i64::MAX)) => Frontier::All,
            (Self::Watermark, Some(ticks)) => Frontier::Windows(Watermark::at(ticks)),
            (Self::Append | Self::Checkpoint { .. }, Some(rows)) => {
                Frontier::Rows(u64::try_from(rows).unwrap_or(0))
            }
        }
    }
}

impl Frontier {
    /// The watermark up to which the archive has all windows: [`Watermark::NONE`] where it has no windows,
    /// [`Watermark::END`] when it has everything.
    pub fn watermark(self) -> Watermark {
        match self {
            Self::Nothing | Self::Rows(_) => Watermark::NONE,
            Self::Windows(watermark) => watermark,
            Self::All => Watermark::END,
        }
    }

    /// The watermark up to which the archive has all windows, where it has any.
    pub fn windows(self) -> Option<Watermark> {
        match self {
            Self::Nothing | Self::Rows(_) => None,
            Self::Windows(_) | Self::All => Some(self.watermark()),
        }
    }

    /// The version of the commit with which an archive reaches this frontier.
    pub fn version(self) -> i64 {
        match self {
            Self::Nothing => i64::MIN,
            Self::Rows(rows) => i64::try_from(rows).unwrap_or(i64::MAX),
            Self::Windows(watermark) => watermark.ticks(),
            Self::All => Watermark::END.ticks(),
        }
    }
}

/// The state of a log that all ways of archiving share, at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// The end of the log and its watermark.
    pub(super) end: LogEnd,
    /// One past the last archived row.
    pub(super) archived: u64,
    /// The progress of the archive.
    pub(super) frontier: Frontier,
    /// Whether the log has ended.
    pub(super) ended: bool,
}

/// The complete rows of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Complete {
    /// One past the last complete row.
    pub(super) rows: u64,
    /// The watermark up to which they are complete.
    pub(super) watermark: Watermark,
    /// The progress of the archive when it has them.
    pub(super) frontier: Frontier,
}

/// The way in which a log is archived.
#[derive(Debug)]
pub(super) enum Archival {
    Never(InMemory),
    Rows,
    Windows(Windows),
    Checkpoints(Checkpoints),
}

impl Archival {
    /// Returns the state of a log whose rows are complete by `completion`, and of which `archived` is archived.
    pub(super) fn by(completion: Completion, archived: LogEnd) -> Self {
        match completion {
            Completion::Append => Self::Rows,
            Completion::Watermark => Self::Windows(Windows { rows: archived.rows }),
            Completion::Checkpoint { in_order } => Self::Checkpoints(Checkpoints {
                in_order,
                newest: archived,
                watermark: archived.watermark,
            }),
        }
    }

    /// The condition under which rows are complete; `None`: the log is not archived.
    pub(super) fn completion(&self) -> Option<Completion> {
        match self {
            Self::Never(_) => None,
            Self::Rows => Some(Completion::Append),
            Self::Windows(_) => Some(Completion::Watermark),
            Self::Checkpoints(by) => Some(Completion::Checkpoint { in_order: by.in_order }),
        }
    }

    /// Checks that rows may be appended, and counts their bytes.
    ///
    /// # Errors
    /// Limit when the log would exceed its maximum size.
    pub(super) fn admit(&mut self, rows: &RecordBatch) -> Result<()> {
        match self {
            Self::Never(memory) => memory.admit(rows),
            Self::Rows | Self::Windows(_) | Self::Checkpoints(_) => Ok(()),
        }
    }

    /// Records the number of rows after which the writer promised its watermark.
    pub(super) fn advanced(&mut self, rows: u64) {
        if let Self::Windows(windows) = self {
            windows.rows = rows;
        }
    }

    /// Records that the archive has grown to `rows` rows.
    pub(super) fn archived(&mut self, rows: u64) {
        if let Self::Checkpoints(by) = self {
            by.settle(rows);
        }
    }

    /// Returns the complete rows that are not archived. `None`: the archive is up to date, the watermark included.
    pub(super) fn complete(&self, log: Written) -> Option<Complete> {
        match self {
            Self::Never(_) => None,
            Self::Rows => (log.end.rows > log.archived).then_some(Complete {
                rows: log.end.rows,
                watermark: log.end.watermark,
                frontier: Frontier::Rows(log.end.rows),
            }),
            Self::Windows(windows) => windows.complete(log),
            Self::Checkpoints(by) => by.complete(log),
        }
    }

    /// Returns the part of a log that followers may see: what remains true if the process is killed now.
    pub(super) fn settled(&self, now: LogState, archived: u64) -> LogState {
        match self {
            Self::Checkpoints(by) if !by.in_order => by.settled(now, archived),
            Self::Never(_) | Self::Rows | Self::Windows(_) | Self::Checkpoints(_) => now,
        }
    }
}

/// A log in memory only.
#[derive(Debug, Default)]
pub(super) struct InMemory {
    limit: Option<Limit>,
}

/// The maximum size of a log in memory.
#[derive(Debug)]
struct Limit {
    /// The name of the stream or view.
    name: String,
    bytes_max: usize,
    /// Bytes of the rows that it holds.
    bytes: usize,
}

impl InMemory {
    /// Returns the state of the log of the stream or view `name`, with its maximum size in bytes.
    pub(super) fn new(name: &str, bytes_max: Option<usize>) -> Self {
        let limit = |bytes_max| Limit { name: name.to_owned(), bytes_max, bytes: 0 };
        Self { limit: bytes_max.map(limit) }
    }

    fn admit(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(limit) = &mut self.limit else { return Ok(()) };
        let bytes = limit.bytes.saturating_add(shown_bytes(rows)?);
        if bytes > limit.bytes_max {
            return Err(limit.exceeded());
        }
        limit.bytes = bytes;
        Ok(())
    }

    /// Records the bytes of the remaining rows after some were released.
    pub(super) fn released(&mut self, bytes: usize) {
        if let Some(limit) = &mut self.limit {
            limit.bytes = bytes;
        }
    }
}

impl Limit {
    fn exceeded(&self) -> Error {
        let (name, max) = (&self.name, memory::display(self.bytes_max));
        let message = format!("\"{name}\" is in memory only and may hold {max} of rows");
        Error::new(ErrorKind::Limit, message).with_hint(
            "Raise the limit (--stream-limit), or keep everything in a data directory (windrow DIR).",
        )
    }
}

/// A log of finished windows: the rows before the last advance of the watermark are complete.
#[derive(Debug)]
pub(super) struct Windows {
    rows: u64,
}

impl Windows {
    fn complete(&self, log: Written) -> Option<Complete> {
        let watermark = log.end.watermark;
        (log.frontier.watermark() < watermark).then_some(Complete {
            rows: self.rows,
            watermark,
            frontier: match watermark {
                Watermark::END => Frontier::All,
                watermark => Frontier::Windows(watermark),
            },
        })
    }
}

/// A log of a view without windows: the rows whose origin is in a checkpoint are complete.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// See [`Completion::Checkpoint`].
    in_order: bool,
    /// The end of the log at the newest checkpoint.
    newest: LogEnd,
    /// The watermark up to which the archived rows are complete.
    watermark: Watermark,
}

impl Checkpoints {
    /// Records that a checkpoint has the origin of the rows before `newest`. `archived`: the number of archived rows.
    pub(super) fn checkpointed(&mut self, newest: LogEnd, archived: u64) {
        self.newest = newest;
        self.settle(archived);
    }

    /// Records the watermark up to which the archived rows are complete.
    pub(super) fn resume_at(&mut self, watermark: Watermark) {
        self.watermark = self.watermark.advance(watermark);
        self.newest.watermark = self.newest.watermark.advance(watermark);
    }

    /// Adopts the watermark of the newest checkpoint once all its rows are archived.
    fn settle(&mut self, archived: u64) {
        if archived >= self.newest.rows {
            self.watermark = self.watermark.advance(self.newest.watermark);
        }
    }

    fn complete(&self, log: Written) -> Option<Complete> {
        if log.ended {
            let (rows, watermark) = (log.end.rows, Watermark::END);
            let complete = Complete { rows, watermark, frontier: Frontier::All };
            return (log.frontier != Frontier::All).then_some(complete);
        }
        let LogEnd { rows, watermark } = self.newest;
        let complete = Complete { rows, watermark, frontier: Frontier::Rows(rows) };
        (rows > log.archived).then_some(complete)
    }

    fn settled(&self, now: LogState, archived: u64) -> LogState {
        let is_all_archived = archived == now.rows;
        let ended = now.ended && is_all_archived;
        LogState {
            rows: archived,
            watermark: if ended { Watermark::END } else { self.watermark },
            ended,
            rests: now.rests && is_all_archived,
            ..now
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(rows: u64, watermark: Watermark, archived: (u64, Frontier)) -> Written {
        let (archived, frontier) = archived;
        let ended = watermark == Watermark::END;
        Written { end: LogEnd { rows, watermark }, archived, frontier, ended }
    }

    #[test]
    fn a_version_is_rows_or_a_watermark_and_never_both() {
        let by_checkpoint = Completion::Checkpoint { in_order: true };
        for completion in [Completion::Append, Completion::Watermark, by_checkpoint] {
            assert_eq!(completion.frontier(None), Frontier::Nothing);
        }
        let at = Watermark::at(7);
        assert_eq!(Completion::Append.frontier(Some(7)), Frontier::Rows(7));
        assert_eq!(by_checkpoint.frontier(Some(7)), Frontier::Rows(7));
        assert_eq!(Completion::Watermark.frontier(Some(7)), Frontier::Windows(at));
        for (completion, frontier) in [
            (Completion::Append, Frontier::Rows(7)),
            (Completion::Watermark, Frontier::Windows(Watermark::at(-7))),
            (Completion::Watermark, Frontier::All),
            (by_checkpoint, Frontier::Rows(7)),
            (by_checkpoint, Frontier::All),
        ] {
            assert_eq!(completion.frontier(Some(frontier.version())), frontier);
        }
        assert_eq!(Frontier::Rows(7).watermark(), Watermark::NONE);
        assert_eq!(Frontier::All.watermark(), Watermark::END);
    }

    #[test]
    fn windows_are_complete_when_the_watermark_has_passed_them() {
        let none = LogEnd { rows: 0, watermark: Watermark::NONE };
        let mut windows = Archival::by(Completion::Watermark, none);
        let nothing = (0, Frontier::Nothing);
        assert_eq!(windows.complete(written(3, Watermark::NONE, nothing)), None);
        windows.advanced(2);
        let at = Watermark::at(10);
        let complete = windows.complete(written(3, at, nothing)).unwrap();
        assert_eq!((complete.rows, complete.frontier), (2, Frontier::Windows(at)));
        assert_eq!(windows.complete(written(3, at, (2, complete.frontier))), None);
    }

    #[test]
    fn followers_of_unordered_rows_see_what_is_archived() {
        let none = LogEnd { rows: 0, watermark: Watermark::NONE };
        let mut by = Archival::by(Completion::Checkpoint { in_order: false }, none);
        let at = Watermark::at(10);
        let now =
            LogState { first: 0, oldest: 0, rows: 5, watermark: at, ended: false, rests: true };
        assert_eq!(by.complete(written(5, at, (0, Frontier::Nothing))), None);
        assert_eq!(by.settled(now, 0).rows, 0);
        let Archival::Checkpoints(checkpoints) = &mut by else { panic!() };
        checkpoints.checkpointed(LogEnd { rows: 4, watermark: at }, 0);
        let complete = by.complete(written(5, at, (0, Frontier::Nothing))).unwrap();
        assert_eq!((complete.rows, complete.frontier), (4, Frontier::Rows(4)));
        assert_eq!(by.settled(now, 3).watermark, Watermark::NONE);
        by.archived(4);
        let settled = by.settled(now, 4);
        assert_eq!((settled.rows, settled.watermark, settled.rests), (4, at, false));
    }
}
