//! What a checkpoint holds of a query, as plain data: the state of its operators, how far its leaves have been read, what
//! it has counted, and rows that did not count.
//!
//! What goes into a file has here the fields of the file. What a cut is and when one is made is up to those who run the
//! query; here nothing is computed from it.

use serde::{Deserialize, Serialize};
use windrow_core::Watermark;
use windrow_operators::Cut;

use super::positions::Positions;
use super::segments::StoredSegments;

/// The state of a query at one moment.
#[derive(Debug)]
pub struct QueryCut {
    /// The stateful operators, those of nested stages first.
    pub inputs: Vec<InputCut>,
    /// In the order of the plan's leaves.
    pub taps: Vec<TapCut>,
    /// What it had counted.
    pub counts: Counts,
    /// Late and bad rows, and rows that came behind, which no earlier cut has given.
    pub unused: Vec<Unused>,
    /// Rows that the query had given out, where the archive is held to that.
    pub rows_given: Option<u64>,
}

/// The state of one stateful operator.
#[derive(Debug)]
pub struct InputCut {
    /// Windows up to here have been closed.
    pub watermark: Watermark,
    /// Its segments.
    pub merger: Cut,
}

/// How far one leaf has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapCut {
    /// The name of the stream.
    pub stream: String,
    /// Where it began to read a log; `None`: at the beginning.
    pub began: Option<u64>,
    /// Windows over its rows may be closed up to here, in ticks.
    pub hold: i64,
    /// How far its splits have been read.
    pub positions: Positions,
}

/// What a query has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// What became of its rows.
    pub rows: Entry,
    /// Of the rows that count, those that count in some of their windows only.
    pub partly_late: u64,
    /// Of the bad rows, those that an expression of the query failed on.
    #[serde(default)]
    pub skipped: u64,
    /// Windows that have been closed.
    pub windows_closed: u64,
    /// Micro-batches that have been taken.
    pub batches: u64,
}

/// A late row that is kept for looking at.
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
    /// The watermark that it was behind, in the same unit; `None`: not known.
    pub watermark_micros: Option<i64>,
    /// The row as text.
    pub row: String,
}

/// A bad row that is kept for looking at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBad {
    /// The name of its stream.
    pub stream: String,
    /// The name of its partition.
    pub partition: String,
    /// Its offset in the partition.
    pub offset: u64,
    /// Why it could not be used.
    pub reason: String,
    /// What of it was read.
    pub raw: String,
    /// An expression of the query fails on it; for others it may be good.
    #[serde(default)]
    pub skipped: bool,
}

/// A row of a view that came behind the watermark of what it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBehind {
    /// Its offset in the view.
    pub row: u64,
    /// In ticks.
    pub behind: i64,
}

/// A row that did not count, or that will not count in all windows over the view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Unused {
    /// It came after its windows had closed.
    Late(SavedLate),
    /// It could not be used.
    Bad(SavedBad),
    /// It is in the view, and is late for windows over that.
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

/// What a query goes on from.
#[derive(Debug, Default)]
pub struct Resume {
    /// As in [`QueryCut::inputs`].
    pub inputs: Vec<InputState>,
    /// As in [`QueryCut::taps`].
    pub taps: Vec<TapCut>,
    /// As in [`QueryCut::counts`].
    pub counts: Counts,
    /// Late and bad rows, and rows that came behind, of all cuts up to this one.
    pub unused: Vec<Unused>,
    /// As in [`QueryCut::rows_given`].
    pub rows_given: Option<u64>,
}

/// What one stateful operator grows from again.
#[derive(Debug)]
pub struct InputState {
    /// As in [`InputCut::watermark`].
    pub watermark: Watermark,
    /// See [`Cut::frontier`].
    pub frontier: i64,
    /// See [`Cut::next_id`].
    pub next_id: u64,
    /// The segments that its open windows are made of.
    pub segments: StoredSegments,
}

/// What became of the rows of one micro-batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rows that the source gave.
    pub rows_in: u64,
    /// Rows that reached the window (or the output, in a stateless query).
    pub aggregated: u64,
    /// Rows that a condition left out.
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
