//! The contents of open windows, slice by slice.

use std::collections::BTreeMap;

use super::next_end;
use crate::OperatorSpec;
use crate::slicing::Slicing;
use crate::survey::{OpenState, Survey, Times, cover};

/// The rows and bytes added of one slice and end of a first window.
#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    rows: u64,
    /// The bytes of memory that they took when they were added.
    bytes: usize,
    times: Times,
}

/// The rows and bytes added, by slice and end of the first window in which they count, until the last window of the
/// slice has closed.
#[derive(Debug, Default)]
pub(super) struct Added(BTreeMap<(i64, i64), Slice>);

impl Added {
    /// Records rows and bytes of a segment, and its first and last time.
    pub(super) fn add(&mut self, key: (i64, i64), (rows, bytes): (u64, usize), times: Times) {
        let slice = self.0.entry(key).or_default();
        slice.rows += rows;
        slice.bytes += bytes;
        slice.times = cover(slice.times, times);
    }

    /// Drops slices without open windows.
    pub(super) fn forget(&mut self, slicing: &Slicing, frontier: i64) {
        while let Some(first) = self.0.first_entry() {
            if slicing.last_end(first.key().0) > frontier {
                break;
            }
            first.remove();
        }
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.0.values().map(|slice| slice.rows).sum()
    }

    /// Returns the windows that end after `frontier`, in order of their end. `bytes` returns those that a slice takes
    /// now, from those that it took when it was added.
    pub(super) fn survey(
        &self,
        spec: &OperatorSpec,
        frontier: i64,
        bytes: impl Fn((i64, i64), usize) -> usize,
        windows_max: usize,
    ) -> Survey {
        let slicing = spec.slicing();
        let sized: BTreeMap<(i64, i64), Slice> = self
            .0
            .iter()
            .map(|(key, slice)| (*key, Slice { bytes: bytes(*key, slice.bytes), ..*slice }))
            .collect();
        let late = sized.iter().filter(|((_, from), _)| *from > i64::MIN);
        let late: BTreeMap<(i64, i64), Slice> = late.map(|(key, slice)| (*key, *slice)).collect();
        let on_time = Sums::of(sized.iter().filter(|((_, from), _)| *from == i64::MIN));
        let mut survey = Survey::default();
        let mut end = frontier;
        let mut open = 0;
        let keys: Vec<(i64, i64)> = sized.keys().copied().collect();
        while let Some(next) = next_end(spec, end, keys.iter().skip(open)) {
            if survey.states.len() >= windows_max {
                survey.truncated = true;
                break;
            }
            end = next;
            let start = slicing.start_of(end);
            let mut all = on_time.between(start, end);
            let within = late.range((start, i64::MIN)..(end, i64::MIN));
            for (_, slice) in within.filter(|((_, from), _)| *from <= end) {
                all.add(slice);
            }
            survey.states.push(OpenState {
                bounds: Some((start, end)),
                rows: all.rows,
                bytes: all.bytes as u64,
                times: all.times,
                ..OpenState::default()
            });
            while keys.get(open).is_some_and(|(slice, _)| slicing.last_end(*slice) <= end) {
                open += 1;
            }
        }
        survey
    }
}

impl Slice {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.times = cover(self.times, other.times);
    }
}

/// Slices of rows that are on time, with prefix sums.
struct Sums<'a> {
    slices: Vec<(i64, &'a Slice)>,
    /// Rows and bytes before each slice, and of all of them.
    before: Vec<(u64, usize)>,
}

impl<'a> Sums<'a> {
    fn of(slices: impl Iterator<Item = (&'a (i64, i64), &'a Slice)>) -> Self {
        let slices: Vec<_> = slices.map(|((start, _), slice)| (*start, slice)).collect();
        let mut before = vec![(0, 0)];
        let (mut rows, mut bytes) = (0, 0);
        for (_, slice) in &slices {
            (rows, bytes) = (rows + slice.rows, bytes + slice.bytes);
            before.push((rows, bytes));
        }
        Self { slices, before }
    }

    /// The slices that start in `start..end` together. They are in order, so the first of them has the first row.
    fn between(&self, start: i64, end: i64) -> Slice {
        let from = self.slices.partition_point(|(slice, _)| *slice < start);
        let to = self.slices.partition_point(|(slice, _)| *slice < end).max(from);
        let at = |place: usize| self.before.get(place).copied().unwrap_or_default();
        let within = self.slices.get(from..to).unwrap_or_default();
        let times = |slice: Option<&(i64, &Slice)>| slice.and_then(|(_, slice)| slice.times);
        Slice {
            rows: at(to).0 - at(from).0,
            bytes: at(to).1 - at(from).1,
            times: cover(times(within.first()), times(within.last())),
        }
    }
}
