//! Divides a batch into pieces that are in one slice each.
//!
//! A typical batch lies in one slice and is not changed; a batch in order of time is divided into runs without copying;
//! only a mixed batch is copied, and only once.

use std::collections::BTreeMap;

use arrow::array::UInt32Array;
use windrow_core::{Error, Result};

use crate::slicing::Slicing;

/// The average number of rows per run from which runs are used without copying.
const RUN_ROWS_MIN: usize = 256;
/// Up to this many slices, the slice of a row is found by comparison, beyond that by division.
const COMPARED_SLICES_MAX: usize = 12;

/// Rows `[start, start + len)`, which are in one slice; `len` is not 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) slice: i64,
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The first and the last time.
    pub(crate) times: (i64, i64),
}

impl Piece {
    /// A piece of one row.
    pub(crate) fn of_row(slice: i64, start: usize, time: i64) -> Self {
        Self { slice, start, len: 1, times: (time, time) }
    }

    /// Adds the row after its last one.
    pub(crate) fn extend(&mut self, time: i64) {
        self.len += 1;
        self.times = (self.times.0.min(time), self.times.1.max(time));
    }
}

/// The division of a batch into slices.
#[derive(Debug)]
pub(crate) enum Partition {
    /// All rows are in one slice.
    One(Piece),
    /// Runs of the batch, unchanged.
    Runs(Vec<Piece>),
    /// Runs of the batch after its rows have been reordered like this.
    Gather(UInt32Array, Vec<Piece>),
}

/// Divides rows at `times` into slices. `times` is not empty.
pub(crate) fn partition(slicing: &Slicing, times: &[i64]) -> Result<Partition> {
    let Some(&first) = times.first() else {
        return Ok(Partition::Runs(vec![]));
    };
    let (slice, last) = slicing.bounds(first);
    let (min, max) = times.iter().fold((first, first), |(a, b), &time| (a.min(time), b.max(time)));
    if min >= slice && max <= last {
        let piece = Piece { slice, start: 0, len: times.len(), times: (min, max) };
        return Ok(Partition::One(piece));
    }
    if u32::try_from(times.len()).is_err() {
        return Err(Error::internal(format!("a micro-batch of {} rows", times.len())));
    }
    if let Some(runs) = runs(slicing, times) {
        return Ok(Partition::Runs(runs));
    }
    let Some(width) = slicing.width() else {
        return Ok(sort(slicing, times));
    };
    let base = slicing.slice(min);
    let span = max.abs_diff(base) / width.unsigned_abs();
    Ok(match usize::try_from(span) {
        Ok(span) if span < times.len().saturating_mul(2) => {
            count_and_scatter(width, times, base, span + 1)
        }
        _ => sort(slicing, times),
    })
}

/// Returns the runs of one slice each, if they are long enough to be worth it.
fn runs(slicing: &Slicing, times: &[i64]) -> Option<Vec<Piece>> {
    let runs_max = times.len() / RUN_ROWS_MIN;
    let mut runs: Vec<Piece> = vec![];
    let mut start = 0;
    while let Some(&first) = times.get(start) {
        if runs.len() >= runs_max {
            return None;
        }
        let (slice, last) = slicing.bounds(first);
        let mut piece = Piece { slice, start, len: 0, times: (first, first) };
        for &time in times.get(start..).unwrap_or_default() {
            if time < slice || time > last {
                break;
            }
            piece.extend(time);
        }
        start += piece.len;
        runs.push(piece);
    }
    Some(runs)
}

/// Sorts by slice number with a counting sort; stable.
fn count_and_scatter(width: i64, times: &[i64], base: i64, slices: usize) -> Partition {
    let numbers = slice_numbers(width, times, base, slices);
    // The times are looked at together with the numbers: a pass of their own would take as long again.
    let mut counts = vec![(0_u32, i64::MAX, i64::MIN); slices];
    for (&number, &time) in numbers.iter().zip(times) {
        if let Some((count, first, last)) = counts.get_mut(number as usize) {
            *count += 1;
            *first = (*first).min(time);
            *last = (*last).max(time);
        }
    }
    let mut pieces = vec![];
    let mut places = Vec::with_capacity(slices);
    let mut start = 0_u32;
    for (number, (len, first, last)) in counts.into_iter().enumerate() {
        if len > 0 {
            let slice = base.saturating_add((number as i64).saturating_mul(width));
            let (start, len) = (start as usize, len as usize);
            pieces.push(Piece { slice, start, len, times: (first, last) });
        }
        places.push(start);
        start += len;
    }
    let mut order = vec![0_u32; times.len()];
    for (row, &number) in (0_u32..).zip(&numbers) {
        if let Some(place) = places.get_mut(number as usize) {
            if let Some(slot) = order.get_mut(*place as usize) {
                *slot = row;
            }
            *place += 1;
        }
    }
    Partition::Gather(UInt32Array::from(order), pieces)
}

/// Returns the number of each row's slice, from 0 for the one at `base`.
fn slice_numbers(width: i64, times: &[i64], base: i64, slices: usize) -> Vec<u32> {
    let width = width.unsigned_abs();
    if slices <= COMPARED_SLICES_MAX {
        let mut numbers = vec![0_u32; times.len()];
        for number in 1..slices as u64 {
            let bound = number.saturating_mul(width);
            for (slot, &t) in numbers.iter_mut().zip(times) {
                *slot += u32::from(t.wrapping_sub(base) as u64 >= bound);
            }
        }
        return numbers;
    }
    times.iter().map(|&t| (t.wrapping_sub(base) as u64 / width) as u32).collect()
}

/// Sorts times that are far apart, or in slices of different lengths, by slice, keeping the order of rows.
fn sort(slicing: &Slicing, times: &[i64]) -> Partition {
    let mut known = KnownSlices { slicing, ends: BTreeMap::new(), last: None };
    let even = slicing.width().is_some();
    let mut slice = |time| if even { slicing.slice(time) } else { known.slice(time) };
    let mut rows: Vec<(i64, u32)> =
        times.iter().zip(0_u32..).map(|(&t, row)| (slice(t), row)).collect();
    rows.sort_unstable();
    let mut pieces: Vec<Piece> = vec![];
    for (i, (slice, row)) in rows.iter().enumerate() {
        let Some(&time) = times.get(*row as usize) else { continue };
        match pieces.last_mut() {
            Some(piece) if piece.slice == *slice => piece.extend(time),
            _ => pieces.push(Piece::of_row(*slice, i, time)),
        }
    }
    Partition::Gather(rows.iter().map(|(_, row)| *row).collect::<Vec<u32>>().into(), pieces)
}

/// The slices found so far: a lookup is cheaper than the calendar.
struct KnownSlices<'a> {
    slicing: &'a Slicing,
    /// The last tick of each slice, by the first.
    ends: BTreeMap<i64, i64>,
    /// First and last tick of the slice that was found last.
    last: Option<(i64, i64)>,
}

impl KnownSlices<'_> {
    fn slice(&mut self, time: i64) -> i64 {
        let contains = |slice: &(i64, i64)| (slice.0..=slice.1).contains(&time);
        if let Some(slice) = self.last.filter(contains) {
            return slice.0;
        }
        let before = self.ends.range(..=time).next_back().map(|(from, to)| (*from, *to));
        let slice = before.filter(contains).unwrap_or_else(|| self.slicing.bounds(time));
        self.ends.insert(slice.0, slice.1);
        self.last = Some(slice);
        slice.0
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use windrow_core::{Calendar, CalendarUnit, StepUnit, WindowKind, WindowSpec, Zone};

    use super::*;

    fn slicing(width: i64) -> Slicing {
        Slicing::new(WindowSpec::try_new(WindowKind::Tumble { size: width }, 3).unwrap())
    }

    /// Checks that every row is in exactly one piece, the one of its slice, and that rows of a slice keep their order.
    fn check(slicing: &Slicing, times: &[i64]) -> &'static str {
        let (what, order, pieces) = match partition(slicing, times).unwrap() {
            Partition::One(piece) => ("one", None, vec![piece]),
            Partition::Runs(pieces) => ("runs", None, pieces),
            Partition::Gather(order, pieces) => ("gather", Some(order), pieces),
        };
        let mut next = 0;
        for piece in pieces {
            assert_eq!(piece.start, next, "pieces tile");
            next += piece.len;
            let rows: Vec<usize> = (piece.start..next)
                .map(|at| order.as_ref().map_or(at, |order| order.value(at) as usize))
                .collect();
            assert!(rows.is_sorted());
            assert!(rows.iter().all(|row| slicing.slice(times[*row]) == piece.slice));
            let own = || rows.iter().map(|row| times[*row]);
            assert_eq!(piece.times, (own().min().unwrap(), own().max().unwrap()));
        }
        assert_eq!(next, times.len());
        what
    }

    #[test]
    fn batches_are_cut_by_slice() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let slicing = slicing(rng.random_range(1..1000));
            let jitter = rng.random_range(1..5000);
            let step = [0, 1, 3, 1_000_000_007][rng.random_range(0..4)];
            let times: Vec<i64> = (0..rng.random_range(1..3000))
                .map(|i| i * step + rng.random_range(-jitter..jitter) * i64::from(jitter > 2000))
                .collect();
            seen.insert(check(&slicing, &times));
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }

    #[test]
    fn batches_are_cut_by_day_and_month() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let calendar = Calendar {
                unit: [CalendarUnit::Day, CalendarUnit::Month][rng.random_range(0..2)],
                step_unit: StepUnit::Tick,
                zone: Zone::of("Europe/Berlin").unwrap(),
                ticks_per_second: 1000,
                shift_seconds: rng.random_range(0..86_400),
            };
            let size = rng.random_range(1..4);
            let step = rng.random_range(3_600_000..86_400_000);
            let kind = match rng.random_range(0..3) {
                0 => WindowKind::Tumble { size },
                1 => WindowKind::Hop { slide: 1, size },
                _ => WindowKind::Cumulate { step, size },
            };
            let slicing = Slicing::new(WindowSpec::of_calendar(kind, 0, calendar).unwrap());
            let step = [0, 1_000, 100_000, 40_000_000][rng.random_range(0..4)];
            let jitter = [1, 1_000, 5_000_000_000][rng.random_range(0..3)];
            let times: Vec<i64> = (0..rng.random_range(1..3000))
                .map(|i| 1_700_000_000_000 + i * step + rng.random_range(-jitter..jitter))
                .collect();
            seen.insert(check(&slicing, &times));
        }
        assert_eq!(seen.len(), 3, "{seen:?}");
    }

    #[test]
    fn the_ends_of_time_do_not_panic() {
        let ends = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
        for width in [1, 10, i64::MAX / 4] {
            let slicing = slicing(width);
            let valid =
                WindowSpec::try_new(WindowKind::Tumble { size: width }, 3).unwrap().valid_times();
            partition(&slicing, &ends).unwrap();
            let times: Vec<i64> = ends.into_iter().filter(|t| valid.contains(t)).collect();
            check(&slicing, &[times.as_slice(), &[*valid.start(), *valid.end()]].concat());
        }
    }
}
