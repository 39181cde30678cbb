//! Which rows of a log its archive takes, and what its followers may see before that.
//!
//! A log is archived in one of four ways. Each has a type with the state that it alone needs; the
//! log itself has what all of them share.
//!
//! | log | the archive takes | version of a commit |
//! |---|---|---|
//! | in memory alone | nothing | |
//! | of a push stream | every row | rows |
//! | of a view with windows | rows of finished windows | watermark |
//! | of a view without windows | rows that a checkpoint says the origin of | rows |
//!
//! Invariant: the version of a commit is read and written as a [`Frontier`] only, which says whether it counts
//! rows or is a watermark.

use arrow::record_batch::RecordBatch;
use windrow_core::size::shown_bytes;
use windrow_core::{Error, ErrorKind, Result, Watermark};

use super::{LogEnd, LogState};
use crate::memory;

/// What makes rows of an archived log complete: the archive takes no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// Nothing but being appended: the rows of a push stream.
    Append,
    /// The watermark that has passed them: finished windows.
    Watermark,
    /// A checkpoint that says what they were made of: views without windows.
    Checkpoint {
        /// Recomputed rows come in the same order, so a row that is not archived yet has the
        /// same offset after a crash. Otherwise followers of the log get only what is archived.
        in_order: bool,
    },
}

/// How far an archive is, by the version of its newest commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frontier {
    /// Nothing has been committed.
    Nothing,
    /// It has the rows before this offset.
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

    /// Whether rows that are not archived may be others after a crash. Followers do not get them.
    pub fn is_unordered(self) -> bool {
        self == Self::Checkpoint { in_order: false }
    }

    /// What the version of an archive's newest commit says.
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

    /// The version of a commit that brings an archive to here.
    pub fn version(self) -> i64 {
        match self {
            Self::Nothing => i64::MIN,
            Self::Rows(rows) => i64::try_from(rows).unwrap_or(i64::MAX),
            Self::Windows(watermark) => watermark.ticks(),
            Self::All => Watermark::END.ticks(),
        }
    }
}

/// What is common to the ways in which a log can be archived, at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// What has been appended and promised.
    pub(super) end: LogEnd,
    /// One past the last archived row.
    pub(super) archived: u64,
    /// How far the archive is.
    pub(super) frontier: Frontier,
    /// Whether the writer is done.
    pub(super) ended: bool,
}

/// Rows that are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Complete {
    /// One past the last one.
    pub(super) rows: u64,
    /// The watermark that they are complete up to.
    pub(super) watermark: Watermark,
    /// How far the archive is when it has them.
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
    /// An archive that has `archived` of a log whose rows are complete by `completion`.
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

    /// What makes rows complete, where the log is archived.
    pub(super) fn completion(&self) -> Option<Completion> {
        match self {
            Self::Never(_) => None,
            Self::Rows => Some(Completion::Append),
            Self::Windows(_) => Some(Completion::Watermark),
            Self::Checkpoints(by) => Some(Completion::Checkpoint { in_order: by.in_order }),
        }
    }

    /// Rows are about to be appended.
    ///
    /// # Errors
    /// Limit when the log may not hold so much.
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

    /// The archive has grown to `rows` rows.
    pub(super) fn archived(&mut self, rows: u64) {
        if let Self::Checkpoints(by) = self {
            by.settle(rows);
        }
    }

    /// The rows that are complete and that the archive does not have. `None` when it is up to date,
    /// the watermark included.
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

    /// What of a log followers may see: what stays as it is, also if the process is killed now.
    pub(super) fn settled(&self, now: LogState, archived: u64) -> LogState {
        match self {
            Self::Checkpoints(by) if !by.in_order => by.settled(now, archived),
            Self::Never(_) | Self::Rows | Self::Windows(_) | Self::Checkpoints(_) => now,
        }
    }
}

/// A log in memory alone.
#[derive(Debug, Default)]
pub(super) struct InMemory {
    limit: Option<Limit>,
}

/// How much a log in memory may hold.
#[derive(Debug)]
struct Limit {
    /// The stream or view.
    name: String,
    bytes_max: usize,
    /// Bytes that its rows were appended with.
    bytes: usize,
}

impl InMemory {
    /// The log of the stream or view `name`, with its maximum size in bytes.
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

    /// Records the bytes of the rows that are left after some were released.
    pub(super) fn released(&mut self, bytes: usize) {
        if let Some(limit) = &mut self.limit {
            limit.bytes = bytes;
        }
    }
}

impl Limit {
    fn exceeded(&self) -> Error {
        let (name, max) = (&self.name, memory::display(self.bytes_max));
        let message = format!("\"{name}\" is in memory alone and may hold {max} of rows");
        Error::new(ErrorKind::Limit, message).with_hint(
            "Raise the limit (--stream-limit), or keep everything in a data directory (windrow DIR).",
        )
    }
}

/// A log of finished windows: those rows are complete that were there when the watermark moved last.
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

/// A log of rows that passed one by one: those are complete that a checkpoint says the origin of.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// See [`Completion::Checkpoint`].
    in_order: bool,
    /// What the log had been given at the newest checkpoint.
    newest: LogEnd,
    /// The watermark that the archived rows are complete up to.
    watermark: Watermark,
}

impl Checkpoints {
    /// There is a checkpoint of what the rows before `newest` were made of. `archived`: the rows that the archive has.
    pub(super) fn checkpointed(&mut self, newest: LogEnd, archived: u64) {
        self.newest = newest;
        self.settle(archived);
    }

    /// The archived rows are complete up to this watermark.
    pub(super) fn resume_at(&mut self, watermark: Watermark) {
        self.watermark = self.watermark.advance(watermark);
        self.newest.watermark = self.newest.watermark.advance(watermark);
    }

    /// Once the archive has all rows of a checkpoint, what that promises holds for them.
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
