//! ASOF joins: the row of the right input that is closest to a row of the left one.
//!
//! A row that looks back finds its partner when it is processed. One that looks forward waits: the next row of the
//! right input with its key takes it, together with all earlier rows that still wait; those before a row that was taken
//! have been taken with it. One that looks both ways finds its partner when it expires. Of several rows at one time,
//! the one with the greatest values counts, whichever came first.

use std::cmp::Ordering;
use std::collections::HashMap;

use arrow::array::make_comparator;
use arrow::compute::SortOptions;
use windrow_core::Result;

use super::LEFT;
use super::rows::{Entry, Rows};
use super::table::{Pairs, Table};

/// The pairs of the rows that were taken at one time, by the number of the left row.
#[derive(Debug, Default)]
pub(super) struct Takers {
    time: i64,
    pairs: HashMap<u32, usize>,
}

impl Table {
    pub(super) fn find_closest(
        &mut self,
        side: usize,
        entry: Entry,
        found: &mut Pairs,
        takers: &mut Takers,
    ) -> Result<()> {
        let partners = self.spec.partners(side, entry.time);
        let (looks_back, looks_around) = (self.spec.looks_back(), self.spec.looks_around());
        let [left, right] = &mut self.sides;
        match (side, looks_back) {
            (_, _) if looks_around => {
                let rows = if side == LEFT { left } else { right };
                rows.link();
                Ok(())
            }
            (LEFT, true) => {
                if let Some(partner) = right.latest_for(entry, partners)? {
                    found.push(LEFT, left.done as u32, partner, entry.time);
                }
                left.done += 1;
                Ok(())
            }
            (LEFT, false) => {
                left.link();
                Ok(())
            }
            (_, true) => {
                right.link();
                Ok(())
            }
            (_, false) => {
                let taken = left.take_waiting(right, (entry, partners), found, takers);
                right.done += 1;
                taken
            }
        }
    }
}

impl Rows {
    /// The latest row with the key of `entry` and a time within the bounds.
    fn latest_for(&self, entry: Entry, (first, last): (i64, i64)) -> Result<Option<u32>> {
        let mut at = self.head(&entry);
        let mut best: Option<(u32, i64)> = None;
        while let Some(row) = self.entry(at) {
            // The rows linked after it have no greater position, and so no greater time.
            if row.position < best.map_or(first, |best| best.1) {
                break;
            }
            if row.time >= first && row.time <= last && self.is_later((at, row.time), best)? {
                best = Some((at, row.time));
            }
            at = row.before(at);
        }
        Ok(best.map(|best| best.0))
    }

    /// The nearest row with the key of `entry` and a time within the bounds; of two equally near ones, the earlier.
    pub(super) fn nearest_to(
        &self,
        entry: Entry,
        (first, last): (i64, i64),
    ) -> Result<Option<u32>> {
        let mut at = self.head(&entry);
        let mut best: Option<(u32, i64)> = None;
        while let Some(row) = self.entry(at) {
            if row.time < first {
                break;
            }
            let apart = |time: i64| (time.abs_diff(entry.time), time);
            let nearer = best.is_none_or(|(_, time)| apart(row.time) < apart(time));
            let same = best.filter(|(_, time)| row.time == *time);
            if row.time <= last
                && (nearer || (same.is_some() && self.is_later((at, row.time), same)?))
            {
                best = Some((at, row.time));
            }
            at = row.before(at);
        }
        Ok(best.map(|best| best.0))
    }

    /// Whether a row is later than another one; at the same time, whether its values are greater.
    fn is_later(&self, (row, time): (u32, i64), than: Option<(u32, i64)>) -> Result<bool> {
        let Some((other, of)) = than else { return Ok(true) };
        match time.cmp(&of) {
            Ordering::Equal => Ok(self.by_values(row, other)? == Ordering::Greater),
            order => Ok(order == Ordering::Greater),
        }
    }

    /// Compares two rows column by column; NULL is the smallest value.
    fn by_values(&self, a: u32, b: u32) -> Result<Ordering> {
        let ((a, a_row), (b, b_row)) = (self.place(a), self.place(b));
        let (Some(a), Some(b)) = (self.batches.get(a), self.batches.get(b)) else {
            return Ok(Ordering::Equal);
        };
        // The position is not a value.
        let columns = a.num_columns().saturating_sub(1);
        let options = SortOptions { descending: false, nulls_first: true };
        for (a, b) in a.columns().iter().zip(b.columns()).take(columns) {
            let order = make_comparator(a, b, options)?(a_row, b_row);
            if order != Ordering::Equal {
                return Ok(order);
            }
        }
        Ok(Ordering::Equal)
    }

    /// Pairs the rows that wait for the next row of the right input with that row.
    fn take_waiting(
        &mut self,
        right: &Self,
        (entry, (first, last)): (Entry, (i64, i64)),
        found: &mut Pairs,
        takers: &mut Takers,
    ) -> Result<()> {
        if takers.time != entry.time {
            takers.pairs.clear();
            takers.time = entry.time;
        }
        let own = right.done as u32;
        let mut at = self.head(&entry);
        while let Some(row) = self.entry(at).copied() {
            if row.time < first {
                break;
            }
            if row.time <= last {
                let Some(matched) = self.matched.get_mut(at as usize) else { break };
                if !std::mem::replace(matched, true) {
                    takers.pairs.insert(at, found.times.len());
                    found.push(LEFT, at, own, entry.time);
                } else if let Some(pair) = takers.pairs.get(&at) {
                    let [_, partners] = &mut found.rows;
                    if let Some(partner) = partners.get_mut(*pair)
                        && right.by_values(own, *partner)? == Ordering::Greater
                    {
                        *partner = own;
                    }
                } else {
                    break;
                }
            }
            at = row.before(at);
        }
        Ok(())
    }

    /// Returns which rows are still needed by rows that look back from times of which all up to `effective` may be
    /// matched: those at `before` or later, but of those up to `effective` only the latest of each key.
    pub(super) fn latest(&self, effective: i64, before: i64) -> Result<Vec<bool>> {
        let mut useful: Vec<bool> = self.entries().map(|entry| entry.time >= before).collect();
        for head in self.heads() {
            let mut at = head;
            let mut best: Option<(u32, i64)> = None;
            while let Some(row) = self.entry(at) {
                if row.time <= effective {
                    let dropped = match self.is_later((at, row.time), best)? {
                        true => best.replace((at, row.time)).map(|best| best.0),
                        false => Some(at),
                    };
                    if let Some(slot) = dropped.and_then(|row| useful.get_mut(row as usize)) {
                        *slot = false;
                    }
                }
                at = row.before(at);
            }
        }
        Ok(useful)
    }
}
