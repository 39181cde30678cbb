//! Where a row stands in its partition.

use std::fmt::{self, Debug};

use crate::{Error, Result};

/// A partition of a stream: rows within one are ordered, between two they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A half-open range `[start, end)` of positions in a partition. What a position is belongs to
/// the source (row number in Parquet and memory, byte position in text files); the ranges of one
/// partition tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    start: u64,
    end: u64,
}

impl OffsetRange {
    /// The range `[start, end)`.
    ///
    /// # Errors
    /// When `end < start`.
    pub fn try_new(start: u64, end: u64) -> Result<Self> {
        if end < start {
            return Err(Error::internal(format!(
                "offset range ends before it starts: {start}..{end}"
            )));
        }
        Ok(Self { start, end })
    }

    /// First position.
    pub fn start(self) -> u64 {
        self.start
    }

    /// One past the last position.
    pub fn end(self) -> u64 {
        self.end
    }
}

/// The positions of the rows of one batch, worked out only for the rows somebody asks about (late
/// and bad ones).
pub trait RowOffsets: Debug + Send + Sync {
    /// The position of row `row` (from 0) of the batch.
    fn offset(&self, row: usize) -> u64;
}

/// Rows that follow one another from a first position: row `i` stands at `first + i`.
#[derive(Debug, Clone, Copy)]
pub struct Consecutive(pub u64);

impl RowOffsets for Consecutive {
    fn offset(&self, row: usize) -> u64 {
        self.0 + row as u64
    }
}

/// Positions that are listed one by one.
impl RowOffsets for Vec<u64> {
    fn offset(&self, row: usize) -> u64 {
        self.get(row).copied().unwrap_or(u64::MAX)
    }
}
