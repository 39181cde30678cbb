//! Results that leave one by one, in order of their ends, and how far the workers have been flushed for them: what the coordinators of
//! operators have in common that keep rows in order.
//!
//! Invariant: ends ascend, within a batch and from one to the next; no batch is empty.

use std::collections::VecDeque;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::record_batch::RecordBatch;
use arrow::row::RowConverter;
use windrow_core::{Result, Watermark};

use crate::batches;
use crate::port::{Finished, WindowRows};

/// Rows that have not been returned.
#[derive(Debug, Default)]
pub(crate) struct Leaving(VecDeque<Part>);

#[derive(Debug)]
struct Part {
    rows: RecordBatch,
    /// When each row leaves.
    ends: Vec<i64>,
    /// Those before it have left.
    at: usize,
}

impl Leaving {
    /// Adds rows, in order of their ends.
    pub(crate) fn push(&mut self, rows: RecordBatch, ends: Vec<i64>) {
        if !ends.is_empty() {
            self.0.push_back(Part { rows, ends, at: 0 });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The end of the next row.
    pub(crate) fn next_end(&self) -> Option<i64> {
        let part = self.0.front()?;
        part.ends.get(part.at).copied()
    }

    /// Returns the next rows that leave at a watermark, `rows_max` and then those of the same end at most.
    pub(crate) fn close(&mut self, to: Watermark, rows_max: usize) -> Option<Finished> {
        let Part { rows, ends, at } = self.0.front_mut()?;
        let start = *at;
        let within = ends.partition_point(|end| to.closes(*end));
        if within <= start {
            return None;
        }
        let mut end = start.saturating_add(rows_max.max(1)).min(within);
        while end < within && ends.get(end) == ends.get(end - 1) {
            end += 1;
        }
        let rows = rows.slice(start, end - start);
        *at = end;
        if end == ends.len() {
            self.0.pop_front();
        }
        let windows = rows.num_rows() as u64;
        Some(Finished { windows, rows: WindowRows::Whole(vec![rows].into_iter()) })
    }

    /// Bytes of memory.
    pub(crate) fn size_bytes(&self) -> usize {
        let part = |part: &Part| {
            part.rows.get_array_memory_size() + part.ends.capacity() * size_of::<i64>()
        };
        self.0.iter().map(part).sum()
    }
}

/// Puts rows of one end in the order of some of their columns.
pub(crate) fn ordered(
    rows: &RecordBatch,
    ends: &[i64],
    (converter, columns): (&RowConverter, &[ArrayRef]),
) -> Result<RecordBatch> {
    let comparable = converter.convert_columns(columns)?;
    let mut places: Vec<u32> =
        (0..ends.len()).filter_map(|place| u32::try_from(place).ok()).collect();
    places.sort_by(|a, b| {
        let (a, b) = (*a as usize, *b as usize);
        let own = ends.get(a).cmp(&ends.get(b));
        own.then_with(|| comparable.row(a).cmp(&comparable.row(b)))
    });
    let places = UInt32Array::from(places);
    let columns = rows.columns().iter().map(|column| take(column, &places, None));
    batches::with_columns(rows, columns.collect::<Result<_, _>>()?, places.len())
}

/// How far the workers have been flushed.
#[derive(Debug)]
pub(crate) struct Flushed {
    to: Watermark,
    /// No rows are on their way.
    idle: bool,
}

impl Default for Flushed {
    fn default() -> Self {
        Self { to: Watermark::NONE, idle: false }
    }
}

impl Flushed {
    /// How far to flush at a watermark.
    pub(crate) fn ask(&mut self, reached: Watermark, idle: bool) -> Option<Watermark> {
        self.idle = idle;
        (reached > self.to).then_some(reached)
    }

    pub(crate) fn note(&mut self, to: Watermark) {
        self.to = self.to.advance(to);
    }

    /// How far results can be completed. Reading what is on disk (`short`) is worth it for many rows, and when no more are on
    /// their way; otherwise that waits behind the `frontier`.
    pub(crate) fn complete_to(
        &self,
        reached: Watermark,
        frontier: i64,
        short: bool,
        many: impl FnOnce() -> bool,
    ) -> Watermark {
        let to = reached.min(self.to);
        if self.idle || to == Watermark::END || !short || many() {
            return to;
        }
        Watermark::at(frontier).min(to)
    }
}
