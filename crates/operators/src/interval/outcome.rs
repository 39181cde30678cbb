//! Results other than plain pairs: pairs that satisfy a condition, rows that match nothing, rows that match something.
//!
//! Rows are processed as for pairs. The pairs found are candidates; the condition is evaluated for many at a time. Then
//! the rows that have matched are marked, and rows that expire before `until` without a mark are returned as unmatched.
//!
//! Invariant: results are in order of their time, also across calls: a call returns all results before the next row
//! that it leaves unprocessed.

use std::sync::Arc;

use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::Result;

use super::closest::Takers;
use super::rows::{Entry, NONE, Rows};
use super::table::{Matched, Pairs, Table};
use super::{JoinFilter, LEFT, Matching, RIGHT};

/// The numbers of a row of each input, or of one, and the time of the result.
type Outcome = (i64, [u32; 2]);

impl Table {
    /// Like `run`, for joins with other results than pairs.
    pub(super) fn run_outcomes(&mut self, rows_max: usize, until: i64) -> Result<Option<Matched>> {
        let mut found = Pairs::default();
        let mut takers = Takers::default();
        let mut last = i64::MIN;
        while let Some((side, entry)) = self.next_entry() {
            if found.times.len() >= rows_max && entry.position > last {
                break;
            }
            last = entry.position;
            match self.spec.matching {
                Matching::All => self.find_all(side, entry, &mut found),
                Matching::Closest => self.find_closest(side, entry, &mut found, &mut takers)?,
            }
        }
        let found = match self.spec.filter.clone() {
            Some(filter) => self.filtered(&filter, found)?,
            None => found,
        };
        let outcomes = self.outcomes(found, self.next_position().unwrap_or(until))?;
        if outcomes.is_empty() {
            return Ok(None);
        }
        let mut all = Pairs::default();
        for (time, [left, right]) in outcomes {
            all.push(LEFT, left, right, time);
        }
        self.gather(all).map(Some)
    }

    /// The next row to be processed. At the same time, rows of the left input come first, unless they look for earlier
    /// ones.
    fn next_entry(&self) -> Option<(usize, Entry)> {
        let [left, right] = &self.sides;
        match (left.next(), right.next()) {
            (None, None) => None,
            (Some(l), None) => Some((LEFT, *l)),
            (None, Some(r)) => Some((RIGHT, *r)),
            (Some(l), Some(r)) => {
                let left_first = match self.spec.looks_back() {
                    true => l.position < r.position,
                    false => (l.position, l.time) <= (r.position, r.time),
                };
                Some(if left_first { (LEFT, *l) } else { (RIGHT, *r) })
            }
        }
    }

    fn find_all(&mut self, side: usize, entry: Entry, found: &mut Pairs) {
        let [left, right] = &mut self.sides;
        let (own, other) = if side == LEFT { (left, right) } else { (right, left) };
        // A row that is partly late does not search; it is only found.
        if entry.time == entry.position {
            other.find(&entry, self.spec.partners(side, entry.time), |partner| {
                found.push(side, own.done as u32, partner, entry.time);
            });
        }
        own.link();
    }

    /// The pairs that satisfy the condition.
    fn filtered(&self, filter: &JoinFilter, found: Pairs) -> Result<Pairs> {
        if found.times.is_empty() {
            return Ok(found);
        }
        let mut columns = vec![];
        for (side, ((rows, numbers), wanted)) in
            self.sides.iter().zip(&found.rows).zip(&filter.columns).enumerate()
        {
            let schema = &self.spec.side(side).input.schema;
            rows.gather(schema, wanted.iter().copied(), numbers, &mut columns)?;
        }
        let options = RecordBatchOptions::new().with_row_count(Some(found.times.len()));
        let schema = Arc::clone(&filter.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let keeps = filter.keeps(&batch)?;
        let mut kept = Pairs::default();
        let [left, right] = &found.rows;
        for (((time, left), right), keeps) in found.times.iter().zip(left).zip(right).zip(&keeps) {
            if keeps == Some(true) {
                kept.push(LEFT, *left, *right, *time);
            }
        }
        Ok(kept)
    }

    /// Marks rows that have matched, and returns all results before `until`, in order.
    fn outcomes(&mut self, found: Pairs, until: i64) -> Result<Vec<Outcome>> {
        let spec = Arc::clone(&self.spec);
        let mut outcomes: Vec<Outcome> = vec![];
        for (side, (rows, numbers)) in self.sides.iter_mut().zip(&found.rows).enumerate() {
            if !spec.tracks(side) {
                continue;
            }
            for (number, time) in numbers.iter().zip(&found.times) {
                let Some(matched) = rows.matched.get_mut(*number as usize) else { continue };
                let first = !std::mem::replace(matched, true);
                if first && spec.kind.has_matched(side) {
                    outcomes.push((*time, alone(side, *number)));
                }
            }
        }
        if spec.kind.has_pairs() {
            let [left, right] = found.rows;
            let pairs = left.into_iter().zip(right).map(|(left, right)| [left, right]);
            outcomes.extend(found.times.into_iter().zip(pairs));
        }
        for (side, rows) in self.sides.iter_mut().enumerate() {
            if spec.expires(side) && !spec.looks_around() {
                let wait = spec.wait(side);
                rows.expire(wait, until, |number, time| outcomes.push((time, alone(side, number))));
            }
        }
        if spec.looks_around() {
            self.nearest_before(until, &mut outcomes)?;
        }
        outcomes.sort_by_key(|outcome| outcome.0);
        Ok(outcomes)
    }

    /// Finds the nearest row of the right input for each row of the left one that expires before `until`.
    fn nearest_before(&mut self, until: i64, outcomes: &mut Vec<Outcome>) -> Result<()> {
        let mut expired = vec![];
        let wait = self.spec.wait(LEFT);
        let keeps = self.spec.kind.has_unmatched(LEFT);
        let [left, right] = &mut self.sides;
        left.expire(wait, until, |number, time| expired.push((number, time)));
        for (number, time) in expired {
            let Some(entry) = left.entry(number).copied() else { continue };
            match right.nearest_to(entry, self.spec.partners(LEFT, entry.time))? {
                Some(partner) => outcomes.push((time, [number, partner])),
                None if keeps => outcomes.push((time, alone(LEFT, number))),
                None => {}
            }
        }
        Ok(())
    }

    /// When the next row expires.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        let sides = self.sides.iter().enumerate().filter_map(|(side, rows)| {
            let next = rows.entry_at(rows.expired).filter(|_| rows.expired < rows.done)?;
            let wanted = self.spec.expires(side);
            wanted.then(|| next.time.saturating_add(self.spec.wait(side)))
        });
        sides.min()
    }

    /// Returns the time before which about `rows_max` rows expire, at most `to`. All rows have been processed.
    pub(super) fn expiry_end(&self, to: i64, rows_max: usize) -> i64 {
        let sides = self.sides.iter().enumerate().filter_map(|(side, rows)| {
            let last = rows.entry_at(rows.expired.saturating_add(rows_max))?;
            let wanted = self.spec.expires(side);
            let end = last.time.saturating_add(self.spec.wait(side)).saturating_add(1);
            wanted.then_some(end)
        });
        sides.min().map_or(to, |end| end.min(to))
    }
}

impl Rows {
    /// Calls `unmatched` for each row that has not matched and expires before `until`, that is `wait` after its own
    /// time.
    fn expire(&mut self, wait: i64, until: i64, mut unmatched: impl FnMut(u32, i64)) {
        while self.expired < self.done
            && let Some(entry) = self.entry_at(self.expired)
        {
            let matched = self.matched.get(self.expired).copied().unwrap_or(false);
            let time = entry.time.saturating_add(wait);
            if !matched && time >= until {
                break;
            }
            if !matched {
                unmatched(self.expired as u32, time);
            }
            self.expired += 1;
        }
    }
}

/// A row of one input without a partner.
fn alone(side: usize, number: u32) -> [u32; 2] {
    if side == LEFT { [number, NONE] } else { [NONE, number] }
}
