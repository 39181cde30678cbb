//! Processed rows on disk, for joins that need to know what a row has matched, or which row is the latest of its key:
//! in buckets by the hash of their keys, each of which is read, joined and rewritten as a whole.
//!
//! Plain pairs need no buckets ([`super::coordinator`]): their rows stay on disk as they were written.
//!
//! Invariants: a row is in the bucket of its key, in either input. The rows of a bucket are in order of their
//! positions; the last column but one says whether they have matched.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, Result};

use super::coordinator::{IntervalJoin, run_all};
use super::piece::{self, merged, sorted, times};
use super::table::{Matched, Table, Taken};
use super::{IntervalJoinSpec, LEFT, Side};
use crate::segments::ordered::{Held, Piece};
use crate::segments::spill::{BUCKETS, bucket_of, by_bucket, spill_rows};

/// The number of buckets with files of their own: fewer than for state of groups, since rows are larger.
const PARTS: usize = 64;
/// The name of the column that says whether a row has matched.
const MATCHED: &str = "matched";
/// A bucket is read together with others if it takes less than this share of the bytes that may be read at a time.
const SHARE: usize = 2;

/// Rows by the bucket of their key: none, or [`PARTS`] buckets.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    list: Vec<Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    sides: [Vec<Piece>; 2],
    /// When its next row expires.
    expires: Option<i64>,
}

impl Bucket {
    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.sides.iter().flatten()
    }

    fn bytes_in_memory(&self) -> usize {
        self.pieces().map(Piece::bytes_in_memory).sum()
    }
}

impl Buckets {
    /// Whether there are no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces().next().is_none()
    }

    /// All pieces.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.list.iter().flat_map(Bucket::pieces)
    }

    /// All pieces of one input.
    pub(super) fn pieces_on(&self, side: usize) -> impl Iterator<Item = &Piece> {
        self.list.iter().filter_map(move |bucket| bucket.sides.get(side)).flatten()
    }

    /// The rows of one input, without the column of matches.
    pub(super) fn pieces_of(&self, side: &Side, number: usize) -> Result<Vec<Piece>> {
        let mut all = vec![];
        for bucket in &self.list {
            let pieces = bucket.sides.get(number).into_iter().flatten();
            if let Some((rows, _)) = read(side, pieces)? {
                all.extend(piece::of(rows)?);
            }
        }
        Ok(all)
    }

    /// When the next row expires.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        self.list.iter().filter_map(|bucket| bucket.expires).min()
    }

    /// Drops pieces whose last row is no longer needed.
    pub(super) fn drop_useless(&mut self, spec: &IntervalJoinSpec, frontier: i64) {
        for bucket in &mut self.list {
            for (side, pieces) in bucket.sides.iter_mut().enumerate() {
                let before = spec.useless_before(side, frontier);
                pieces.retain(|piece| piece.last >= before);
            }
        }
    }

    /// Adds processed rows.
    pub(super) fn add(&mut self, spec: &IntervalJoinSpec, side: usize, taken: Taken) -> Result<()> {
        let Some(rows) = with_matched(spec.side(side), taken)? else { return Ok(()) };
        self.list.resize_with(PARTS, Bucket::default);
        let (begins, order) = parts_of(spec.side(side), &rows)?;
        for (number, bucket) in self.list.iter_mut().enumerate() {
            let rows = rows_of(&rows, &order, part(&begins, number, number + 1))?;
            if let Some(rows) = rows {
                let rows = sorted(rows)?;
                bucket.expires =
                    bucket.expires.into_iter().chain(first_expiry(spec, side, &rows)?).min();
                if let Some(pieces) = bucket.sides.get_mut(side) {
                    pieces.extend(piece::of(rows)?);
                }
            }
        }
        Ok(())
    }

    /// Writes all rows in memory to one file.
    pub(super) fn spill(&mut self, space: &dyn crate::SpillSpace) -> Result<()> {
        let (mut places, mut batches) = (vec![], vec![]);
        for (number, bucket) in self.list.iter_mut().enumerate() {
            for (side, pieces) in bucket.sides.iter_mut().enumerate() {
                let in_memory = pieces.extract_if(.., |piece| matches!(piece.held, Held::Rows(_)));
                for batch in in_memory.flat_map(|piece| piece.parts(space)) {
                    places.push((number, side));
                    batches.push(batch?);
                }
            }
        }
        if batches.is_empty() {
            return Ok(());
        }
        let kept =
            batches.iter().map(|batch| piece::of(batch.clone())).collect::<Result<Vec<_>>>()?;
        let spilled = spill_rows(space, batches)?;
        for (((number, side), piece), spilled) in places.into_iter().zip(kept).zip(spilled) {
            let slot = self.list.get_mut(number).and_then(|bucket| bucket.sides.get_mut(side));
            if let (Some(slot), Some(piece)) = (slot, piece) {
                slot.push(piece.on_disk(spilled));
            }
        }
        Ok(())
    }

    /// Removes and returns all rows, those of each input in order.
    pub(super) fn take_all(&mut self, spec: &IntervalJoinSpec) -> Result<[Option<Rows>; 2]> {
        let list = std::mem::take(&mut self.list);
        let mut all = [None, None];
        for (side, slot) in all.iter_mut().enumerate() {
            let pieces = list.iter().filter_map(|bucket| bucket.sides.get(side)).flatten();
            *slot = read(spec.side(side), pieces)?;
        }
        Ok(all)
    }
}

/// Rows of one input, and whether each has matched.
pub(super) type Rows = (RecordBatch, Vec<bool>);

impl IntervalJoin {
    /// Joins new rows with those on disk, a few buckets at a time. All rows before `end` have been added.
    pub(super) fn pass_buckets(&mut self, new: &[Vec<RecordBatch>; 2], end: i64) -> Result<()> {
        let Some(space) = self.space.clone() else {
            return Err(Error::internal("a join has rows on disk, and no space for them"));
        };
        let spec = Arc::clone(&self.spec);
        let mut sorted_new = vec![];
        for (side, batches) in new.iter().enumerate() {
            let Some(rows) = merged(&spec.side(side).state_schema, batches)? else {
                sorted_new.push(None);
                continue;
            };
            let (begins, order) = parts_of(spec.side(side), &rows)?;
            sorted_new.push(Some((rows, begins, order)));
        }
        let mut made = vec![];
        let mut first = 0;
        while first < PARTS {
            let until = self.buckets.group(first, space.pass_bytes() / SHARE);
            let mut table = Table::new(&spec);
            let mut any = self.buckets.expire_before(first..until, end);
            let mut fresh = vec![];
            for (side, new) in sorted_new.iter().enumerate() {
                let Some((rows, begins, order)) = new else { continue };
                if let Some(rows) = rows_of(rows, order, part(begins, first, until))? {
                    fresh.push((side, vec![rows]));
                    any = true;
                }
            }
            if any {
                for (side, old) in
                    self.buckets.take_group(&spec, first..until)?.into_iter().enumerate()
                {
                    if let Some((rows, matched)) = old {
                        table.add_processed(side, vec![rows], &matched)?;
                    }
                }
                for (side, rows) in fresh {
                    table.add(side, rows)?;
                }
                run_all(&mut table, end, &mut made)?;
                for (side, taken) in table.take(end)?.into_iter().enumerate() {
                    self.buckets.add(&spec, side, taken)?;
                }
                self.buckets.spill(space.as_ref())?;
            }
            first = until;
        }
        self.push_made(made)
    }

    /// Moves the rows on disk to the table, unless they take more than `bytes_max`.
    pub(super) fn load_buckets(&mut self, bytes_max: usize) -> Result<()> {
        let bytes: usize = self.buckets.pieces().map(Piece::bytes_in_memory).sum();
        if bytes > bytes_max {
            return Ok(());
        }
        let spec = Arc::clone(&self.spec);
        for (side, rows) in self.buckets.take_all(&spec)?.into_iter().enumerate() {
            if let Some((rows, matched)) = rows {
                self.table.add_processed(side, vec![rows], &matched)?;
            }
        }
        Ok(())
    }

    /// Returns the time before which rows on disk expire together, at most `to`: about as many as may be read at a
    /// time, if they are distributed evenly.
    pub(super) fn expiry_end_of_buckets(&self, to: i64) -> i64 {
        let Some(first) = self.buckets.next_expiry().filter(|first| *first < to) else {
            return to;
        };
        let bytes: usize = self.buckets.pieces().map(Piece::bytes_in_memory).sum();
        let steps = bytes / self.pass_bytes().max(1) + 1;
        let last = self.buckets.pieces().map(|piece| piece.last).max().unwrap_or(first);
        let wait = self.spec.wait(LEFT).max(self.spec.wait(super::RIGHT));
        let last = last.saturating_add(wait).max(first);
        let step = last.saturating_sub(first) / i64::try_from(steps).unwrap_or(i64::MAX);
        first.saturating_add(step).saturating_add(1).min(to)
    }
}

impl Buckets {
    /// The end of a group of buckets that begins with `first` and takes about `bytes_max` bytes.
    fn group(&self, first: usize, bytes_max: usize) -> usize {
        let mut bytes = 0_usize;
        let mut end = first;
        while end < PARTS {
            let more = self.list.get(end).map_or(0, Bucket::bytes_in_memory);
            bytes = bytes.saturating_add(more);
            if bytes > bytes_max && end > first {
                break;
            }
            end += 1;
        }
        end
    }

    /// Whether rows of these buckets expire before `end`.
    fn expire_before(&self, buckets: std::ops::Range<usize>, end: i64) -> bool {
        let buckets = self.list.get(buckets).unwrap_or_default();
        buckets.iter().any(|bucket| bucket.expires.is_some_and(|expires| expires < end))
    }

    /// Removes and returns the rows of some buckets, those of each input in order.
    fn take_group(
        &mut self,
        spec: &IntervalJoinSpec,
        buckets: std::ops::Range<usize>,
    ) -> Result<[Option<Rows>; 2]> {
        let mut group = Self::default();
        for bucket in self.list.get_mut(buckets).unwrap_or_default() {
            group.list.push(std::mem::take(bucket));
        }
        group.take_all(spec)
    }
}

/// Reads pieces of buckets and sorts their rows.
fn read<'a>(side: &Side, pieces: impl Iterator<Item = &'a Piece>) -> Result<Option<Rows>> {
    let batches: Vec<_> = pieces.map(Piece::read).collect::<Result<_>>()?;
    let batches: Vec<RecordBatch> = batches.into_iter().flatten().collect();
    let Some(rows) = merged(&bucket_schema(side), &batches)? else { return Ok(None) };
    let mut columns = rows.columns().to_vec();
    let matched = columns.remove(columns.len().saturating_sub(2));
    let matched = matched.as_boolean_opt();
    let matched = matched.ok_or_else(|| Error::internal("what a row has matched is lost"))?;
    let matched = matched.iter().map(|matched| matched == Some(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = Arc::clone(&side.state_schema);
    Ok(Some((RecordBatch::try_new_with_options(schema, columns, &options)?, matched)))
}

/// The columns of a bucket's rows.
fn bucket_schema(side: &Side) -> SchemaRef {
    let mut fields = side.state_schema.fields().to_vec();
    let before = fields.len().saturating_sub(1);
    fields.insert(before, Arc::new(Field::new(MATCHED, DataType::Boolean, false)));
    Arc::new(Schema::new(fields))
}

/// Rows with their column of matches; `None` without rows.
fn with_matched(side: &Side, taken: Taken) -> Result<Option<RecordBatch>> {
    let mut matched = taken.matched;
    let rows: usize = taken.batches.iter().map(RecordBatch::num_rows).sum();
    matched.resize(rows, false);
    let mut before = 0;
    let mut batches = vec![];
    for batch in taken.batches {
        let end = before + batch.num_rows();
        let own = matched.get(before..end).unwrap_or_default().to_vec();
        before = end;
        let mut columns = batch.columns().to_vec();
        columns.insert(columns.len().saturating_sub(1), Arc::new(BooleanArray::from(own)));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        batches.push(RecordBatch::try_new_with_options(bucket_schema(side), columns, &options)?);
    }
    merged(&bucket_schema(side), &batches)
}

/// Where each part begins among the rows sorted by part, and the order of these rows.
fn parts_of(side: &Side, rows: &RecordBatch) -> Result<(Vec<usize>, Vec<u32>)> {
    let keys = side.input.keys.iter().filter_map(|key| rows.columns().get(*key).cloned());
    let keys: Vec<ArrayRef> = keys.collect();
    Ok(by_bucket(&bucket_of(&keys, rows.num_rows())?))
}

/// The range of the rows of some parts.
fn part(begins: &[usize], first: usize, end: usize) -> std::ops::Range<usize> {
    let begin = |part: usize| {
        let bucket = part * (BUCKETS / PARTS);
        begins.get(bucket).or(begins.last()).copied().unwrap_or(0)
    };
    begin(first)..begin(end)
}

fn rows_of(
    rows: &RecordBatch,
    order: &[u32],
    places: std::ops::Range<usize>,
) -> Result<Option<RecordBatch>> {
    let numbers = order.get(places).unwrap_or_default();
    if numbers.is_empty() {
        return Ok(None);
    }
    Ok(Some(take_record_batch(rows, &UInt32Array::from(numbers.to_vec()))?))
}

/// When the first row that has not matched expires, if there is one.
fn first_expiry(spec: &IntervalJoinSpec, side: usize, rows: &RecordBatch) -> Result<Option<i64>> {
    if !spec.expires(side) {
        return Ok(None);
    }
    let matched = rows.columns().get(rows.num_columns().saturating_sub(2));
    let matched = matched.and_then(|column| column.as_boolean_opt());
    let matched = matched.ok_or_else(|| Error::internal("what a row has matched is lost"))?;
    let times = times(rows)?.iter().zip(matched.values());
    let first = times.filter(|(_, matched)| !matched).map(|(time, _)| *time).min();
    Ok(first.map(|time| time.saturating_add(spec.wait(side))))
}

/// Merges the results of several tables in order of time.
pub(super) fn in_order(schema: &SchemaRef, made: Vec<Matched>) -> Result<Option<Matched>> {
    if made.is_empty() {
        return Ok(None);
    }
    let rows = arrow::compute::concat_batches(schema, made.iter().map(|m| &m.rows))?;
    let times: Vec<i64> = made.into_iter().flat_map(|m| m.times).collect();
    let mut order: Vec<u32> = (0..times.len()).filter_map(|at| u32::try_from(at).ok()).collect();
    order.sort_by_key(|at| times.get(*at as usize));
    let times = order.iter().filter_map(|at| times.get(*at as usize).copied()).collect();
    let rows = take_record_batch(&rows, &UInt32Array::from(order))?;
    Ok(Some(Matched { rows, times }))
}
