//! The contents of a checkpoint of a query, as plain data: the state of its operators, how far its leaves have been
//! read, its counts, and the rows that did not count.
//!
//! Types that are written to a file have the fields of the file here. What a cut is and when one is made is up to the
//! code that runs the query; nothing is computed here.

use serde::{Deserialize, Serialize};
use windrow_core::Watermark;
use windrow_operators::Cut;

use super::positions::Positions;
use super::segments::StoredSegments;

/// The state of a query at one moment.
#[derive(Debug)]
pub struct QueryCut {
    /// When it was made.
    pub at: CutTime,
    /// The stateful operators, those of nested stages first.
    pub operators: Vec<OperatorCut>,
    /// One per leaf of the plan, in the plan's order.
    pub taps: Vec<TapCut>,
    /// Its counts.
    pub counts: Counts,
    /// Late and bad rows, and rows that arrived behind the watermark, that no earlier cut has returned.
    pub unused: Vec<Unused>,
    /// The number of rows that the query had returned; `None` where the archive is not compared with it.
    pub rows_given: Option<u64>,
}

/// The time of a cut, and the pause that it caused.
#[derive(Debug, Clone, Copy, Default)]
pub struct CutTime {
    /// When it was begun, in µs since the Unix epoch.
    pub taken_micros: i64,
    /// How long the workers of the query were stopped for it, in µs.
    pub paused_micros: i64,
}

/// The state of one stateful operator.
#[derive(Debug)]
pub struct OperatorCut {
    /// The watermark; results that are final at it have been returned.
    pub watermark: Watermark,
    /// Its segments.
    pub state: Cut,
}

/// How far one leaf has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapCut {
    /// The name of the stream.
    pub stream: String,
    /// The offset from which it began to read a log; `None`: from the first row.
    pub began: Option<u64>,
    /// The watermark up to which windows over its rows may have been closed, in ticks.
    pub hold: i64,
    /// How far its splits have been read.
    pub positions: Positions,
}

/// The counts of a query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Its rows, by outcome.
    pub rows: Entry,
    /// Of the rows that count, those that count in some of their windows only.
    pub partly_late: u64,
    /// Of the bad rows, those for which an expression of the query failed.
    #[serde(default)]
    pub skipped: u64,
    /// Windows closed.
    pub windows_closed: u64,
    /// Micro-batches processed.
    pub batches: u64,
}

/// A late row retained for inspection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLate {
    /// The name of its stream.
    pub stream: String,
    /// The name of its partition.
    pub partition: String,
    /// Its offset in the partition.
    pub offset: u64,
    /// Its event time in µs since the Unix epoch.
    pub event_time_micros: i64,
    /// The watermark that it was behind, in the same unit; `None`: unknown.
    pub watermark_micros: Option<i64>,
    /// The row as text.
    pub row: String,
}

/// A bad row retained for inspection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBad {
    /// The name of its stream.
    pub stream: String,
    /// The name of its partition.
    pub partition: String,
    /// Its offset in the partition.
    pub offset: u64,
    /// The reason why it could not be used.
    pub reason: String,
    /// The part of it that was read.
    pub raw: String,
    /// Whether it is bad because an expression of the query failed on it; for other queries it may be good.
    #[serde(default)]
    pub skipped: bool,
}

/// A row of a view that arrived behind the watermark of the input that it was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBehind {
    /// Its offset in the view.
    pub row: u64,
    /// That watermark, in ticks.
    pub behind: i64,
}

/// A row that did not count, or that will not count in all windows over the view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Unused {
    /// It arrived after its windows had closed.
    Late(SavedLate),
    /// It could not be used.
    Bad(SavedBad),
    /// It is in the view, and is late for windows over the view.
    Behind(SavedBehind),
}

impl Unused {
    /// The stream of a late or bad row.
    pub fn stream(&self) -> Option<&str> {
        match self {
            Self::Late(late) => Some(&late.stream),
            Self::Bad(bad) => Some(&bad.stream),
            Self::Behind(_) => None,
        }
    }
}

/// The state from which a query resumes.
#[derive(Debug, Default)]
pub struct Resume {
    /// As in [`QueryCut::operators`].
    pub operators: Vec<OperatorState>,
    /// As in [`QueryCut::taps`].
    pub taps: Vec<TapCut>,
    /// As in [`QueryCut::counts`].
    pub counts: Counts,
    /// Late and bad rows, and rows that arrived behind the watermark, of all cuts up to this one.
    pub unused: Vec<Unused>,
    /// As in [`QueryCut::rows_given`].
    pub rows_given: Option<u64>,
}

/// The state from which one stateful operator is restored.
#[derive(Debug)]
pub struct OperatorState {
    /// As in [`OperatorCut::watermark`].
    pub watermark: Watermark,
    /// See [`Cut::frontier`].
    pub frontier: i64,
    /// See [`Cut::next_id`].
    pub next_id: u64,
    /// The segments that it still needs.
    pub segments: StoredSegments,
}

/// The rows of one micro-batch by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rows returned by the source.
    pub rows_in: u64,
    /// Rows that reached the window (or the output, in a stateless query).
    pub aggregated: u64,
    /// Rows rejected by a condition.
    pub filtered: u64,
    /// Rows whose windows had all closed.
    pub late: u64,
    /// Rows that could not be used.
    pub bad: u64,
}

impl Entry {
    /// Whether every row is accounted for.
    pub fn is_balanced(self) -> bool {
        self.rows_in == self.aggregated + self.filtered + self.late + self.bad
    }
}
