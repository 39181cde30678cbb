//! How far a query has read its streams: the part of a checkpoint that concerns sources.
//!
//! ```text
//! partition   split 0      split 1                split 2
//!             done         consumed up to 4711    not begun
//! ```
//! Invariant: the state of the same cut contains exactly the rows that a position says have been read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windrow_core::{Partition, Split};

/// How far one query has read one stream, by partition name and split number. (Partition numbers are reassigned at each
/// start.)
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions(BTreeMap<String, BTreeMap<usize, SplitPosition>>);

/// How far one split has been read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPosition {
    /// The identity of what it was read from; see [`Split::identity`].
    pub identity: String,
    /// One past the last offset that has reached the state.
    pub consumed: u64,
    /// Largest event time up to there, in ticks, including that of earlier splits.
    pub max: Option<i64>,
    /// Whether it has been read to its end.
    pub done: bool,
    /// Its reader's description of that position; see [`SourceBatch::place`](windrow_core::SourceBatch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Arc<str>>,
}

impl Positions {
    /// Returns the position behind the first `rows` rows of a log.
    pub fn behind(rows: u64) -> Self {
        let mut positions = Self::default();
        let split =
            SplitPosition { identity: "log".into(), consumed: rows, ..SplitPosition::default() };
        positions.0.entry("log".into()).or_default().insert(0, split);
        positions
    }

    /// Returns how far a split has been read, if at all.
    pub fn of(&self, partition: &str, split: usize) -> Option<&SplitPosition> {
        self.0.get(partition)?.get(&split)
    }

    /// Returns how far the single partition of a log has been read.
    pub fn of_log(&self) -> u64 {
        self.of("log", 0).map_or(0, |p| p.consumed)
    }

    /// Records that a split has been read up to `consumed`.
    pub fn advance(
        &mut self,
        partition: &str,
        split: &Split,
        (consumed, place): (u64, Option<&Arc<str>>),
        max: Option<i64>,
    ) {
        let position = self.entry(partition, split);
        position.consumed = position.consumed.max(consumed);
        position.max = position.max.max(max);
        if let Some(place) = place {
            position.place = Some(Arc::clone(place));
        }
    }

    /// Records that a split is about to be read from its start; returns whether that is new.
    pub fn begin(&mut self, partition: &str, split: &Split, place: &Arc<str>) -> bool {
        let position = self.entry(partition, split);
        let is_new = position.place.is_none() && position.consumed == 0;
        if is_new {
            position.place = Some(Arc::clone(place));
        }
        is_new
    }

    /// The number of splits that have been begun.
    pub fn count(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// The readers' own descriptions of their positions, by partition.
    pub fn places(&self) -> impl Iterator<Item = (&str, &SplitPosition, &Arc<str>)> {
        self.0.iter().flat_map(|(name, splits)| {
            splits.values().filter_map(|split| Some((name.as_str(), split, split.place.as_ref()?)))
        })
    }

    /// Records that a split has been read to its end.
    pub fn finish(&mut self, partition: &str, split: &Split, max: Option<i64>) {
        let position = self.entry(partition, split);
        position.max = position.max.max(max);
        position.done = true;
    }

    fn entry(&mut self, partition: &str, split: &Split) -> &mut SplitPosition {
        let splits = self.0.entry(partition.to_owned()).or_default();
        splits.entry(split.number).or_insert_with(|| SplitPosition {
            identity: split.identity.to_string(),
            ..SplitPosition::default()
        })
    }

    /// Returns the first partition that was begun, not finished, and is missing from `there`.
    pub fn missing(&self, there: &[Partition]) -> Option<&str> {
        let splits = |name: &str| {
            there.iter().find(|p| p.name == name).map_or(0, |partition| partition.splits.len())
        };
        let lost = |(name, read): &(&String, &BTreeMap<usize, SplitPosition>)| {
            let there = splits(name);
            read.iter().any(|(number, position)| *number >= there && !position.done)
        };
        self.0.iter().find(lost).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use windrow_core::PartitionId;

    use super::*;

    fn split(number: usize) -> Split {
        Split::new(PartitionId(0), number, "a.json (7 bytes)")
    }

    #[test]
    fn positions_only_move_forward_and_come_back_from_text() {
        let mut positions = Positions::default();
        positions.advance("a.json", &split(0), (5, Some(&"there".into())), Some(10));
        positions.advance("a.json", &split(0), (3, None), None);
        positions.finish("a.json", &split(1), Some(20));
        let text = serde_json::to_string(&positions).unwrap();
        let positions: Positions = serde_json::from_str(&text).unwrap();
        let first = positions.of("a.json", 0).unwrap();
        assert_eq!((first.consumed, first.max, first.done), (5, Some(10), false));
        assert_eq!(first.place.as_deref(), Some("there"));
        assert_eq!(positions.places().count(), 1);
        assert!(positions.of("a.json", 1).unwrap().done);
        assert_eq!(positions.of("b.json", 0), None);
        assert_eq!(Positions::behind(9).of_log(), 9);
    }

    #[test]
    fn a_partition_that_was_begun_must_be_there() {
        let mut positions = Positions::default();
        positions.finish("old", &split(0), None);
        positions.advance("new", &split(0), (1, None), None);
        assert_eq!(positions.missing(&[]), Some("new"));
        let there = Partition { id: PartitionId(3), name: "new".into(), splits: vec![split(0)] };
        assert_eq!(positions.missing(&[there]), None);
    }
}
