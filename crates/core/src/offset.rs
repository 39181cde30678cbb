//! Positions of rows in a partition.

use std::fmt::{self, Debug};

use crate::{Error, Result};

/// A partition of a stream: rows within a partition are ordered, rows of different partitions are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A half-open range `[start, end)` of positions in a partition. The source defines what a position is (row number in
/// Parquet and memory, byte position in text files); the ranges of one partition tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    start: u64,
    end: u64,
}

impl OffsetRange {
    /// Returns the range `[start, end)`.
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

/// Positions that were assigned and whose rows are lost: they are never assigned again, and readers skip them.
///
/// Invariant: the ranges are in order and neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps(Vec<OffsetRange>);

impl Gaps {
    /// Builds gaps from ranges in any order; adjacent ranges are merged.
    pub fn new(ranges: impl IntoIterator<Item = OffsetRange>) -> Self {
        let mut ranges: Vec<OffsetRange> =
            ranges.into_iter().filter(|range| range.start < range.end).collect();
        ranges.sort_by_key(|range| range.start);
        let mut gaps: Vec<OffsetRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match gaps.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => gaps.push(range),
            }
        }
        Self(gaps)
    }

    /// Returns the first position at or after `position` that is not lost.
    pub fn after(&self, position: u64) -> u64 {
        let at = self.0.partition_point(|gap| gap.end <= position);
        self.0.get(at).filter(|gap| gap.start <= position).map_or(position, |gap| gap.end)
    }

    /// Counts the lost positions in `[from, to)`.
    pub fn within(&self, from: u64, to: u64) -> u64 {
        let lost = |gap: &OffsetRange| gap.end.min(to).saturating_sub(gap.start.max(from));
        self.0.iter().map(lost).sum()
    }

    /// Whether nothing is lost.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = OffsetRange> + '_ {
        self.0.iter().copied()
    }
}

/// The positions of the rows of one batch, computed only for the rows that need them (late and bad ones).
pub trait RowOffsets: Debug + Send + Sync {
    /// Returns the position of row `row` (from 0) of the batch.
    fn offset(&self, row: usize) -> u64;
}

/// Consecutive rows from a first position: row `i` is at `first + i`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_stepped_over() {
        let range = |start, end| OffsetRange::try_new(start, end).unwrap();
        let gaps = Gaps::new([range(20, 30), range(5, 5), range(3, 7), range(7, 9), range(8, 10)]);
        assert_eq!(gaps.iter().collect::<Vec<_>>(), [range(3, 10), range(20, 30)]);
        for (position, after) in [(0, 0), (2, 2), (3, 10), (9, 10), (10, 10), (29, 30), (30, 30)] {
            assert_eq!(gaps.after(position), after, "{position}");
        }
        assert_eq!((gaps.within(0, 100), gaps.within(5, 21), gaps.within(10, 20)), (17, 6, 0));
        assert!(Gaps::default().is_empty() && !gaps.is_empty());
    }
}
