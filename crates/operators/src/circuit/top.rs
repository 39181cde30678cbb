//! The first rows in an order, of all rows or of each partition, and their ranks.
//!
//! The first rows of a partition before and after its changes differ by what is returned.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use windrow_core::Result;

use super::delta::Delta;
use super::ordered::{OrderedRow, OrderedRows};

/// A function that numbers the rows of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// `row_number()`.
    RowNumber,
    /// `rank()`.
    Rank,
    /// `dense_rank()`.
    DenseRank,
}

/// The first rows of each partition, in an order.
#[derive(Debug, Clone)]
pub struct TopSpec {
    /// The columns that divide the rows; none: there is one partition.
    pub partition: Vec<usize>,
    /// The columns that order them.
    pub order: Vec<(usize, SortOptions)>,
    /// The number of rows that are left out first.
    pub skip: usize,
    /// The number of rows that are returned after them; `None`: all.
    pub fetch: Option<usize>,
    /// The functions whose values are appended to each row.
    pub ranks: Vec<Rank>,
    /// Rows for which the value of this function is greater are left out.
    pub at_most: Option<(usize, u64)>,
}

/// The rows of a [`TopSpec`].
#[derive(Debug)]
pub(super) struct Top {
    spec: TopSpec,
    rows: OrderedRows,
}

/// Rows with their ranks, each with the number of its occurrences.
type Found = BTreeMap<(Box<[u8]>, Vec<u64>), i64>;

impl Top {
    /// Without rows.
    ///
    /// # Errors
    /// When rows cannot be compared.
    pub(super) fn new(spec: &TopSpec, input: &SchemaRef) -> Result<Self> {
        let rows = OrderedRows::new(&spec.partition, &spec.order, input)?;
        Ok(Self { spec: spec.clone(), rows })
    }

    /// Adds and removes rows; returns the changes of the first ones.
    ///
    /// # Errors
    /// Internal when a row is removed that does not exist.
    pub(super) fn run(&mut self, rows: &Delta) -> Result<Delta> {
        let keyed = self.rows.keyed(rows)?;
        let mut found = Found::new();
        for (partition, members) in keyed.partitions() {
            self.first(partition, -1, &mut found)?;
            for row in members {
                self.rows.add(&keyed, row)?;
            }
            self.first(partition, 1, &mut found)?;
        }
        found.retain(|_, weight| *weight != 0);
        let mut columns = self.rows.decode(found.keys().map(|(row, _)| row.as_ref()))?;
        for at in 0..self.spec.ranks.len() {
            let ranks = found.keys().map(|(_, ranks)| ranks.get(at).copied());
            columns.push(Arc::new(ranks.collect::<UInt64Array>()) as ArrayRef);
        }
        Ok(Delta { columns, weights: found.into_values().collect() })
    }

    /// Adds `sign` times the first rows of a partition.
    fn first(&self, partition: &[u8], sign: i64, found: &mut Found) -> Result<()> {
        let (skip, fetch) = (self.spec.skip as i64, self.spec.fetch);
        let end = fetch.map_or(i64::MAX, |fetch| {
            skip.saturating_add(i64::try_from(fetch).unwrap_or(i64::MAX))
        });
        let mut counter = Counter::default();
        for kept in self.rows.of(partition) {
            let OrderedRow { order, row, weight: mut left } = kept?;
            counter.at(order);
            if self.spec.ranks.contains(&Rank::RowNumber) {
                while left > 0 && !self.is_after(&counter) && counter.rows < end {
                    counter.next();
                    if self.is_after(&counter) {
                        break;
                    }
                    if counter.rows > skip {
                        self.put(row, (&counter, sign), found);
                    }
                    left -= 1;
                }
                if left > 0 {
                    return Ok(());
                }
                continue;
            }
            // Equal rows have equal ranks.
            let before = counter.rows;
            counter.rows += left;
            counter.ranked(before);
            if self.is_after(&counter) {
                return Ok(());
            }
            let shown = counter.rows.min(end) - before.max(skip);
            if shown > 0 {
                self.put(row, (&counter, sign * shown), found);
            }
            if counter.rows >= end {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_after(&self, counter: &Counter) -> bool {
        let Some((at, most)) = self.spec.at_most else { return false };
        self.spec.ranks.get(at).is_some_and(|rank| counter.value(*rank) > most)
    }

    fn put(&self, row: &[u8], (counter, weight): (&Counter, i64), found: &mut Found) {
        let ranks = self.spec.ranks.iter().map(|rank| counter.value(*rank)).collect();
        *found.entry((row.into(), ranks)).or_insert(0) += weight;
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.rows.size_bytes()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }
}

/// The ranks of the row that was last counted.
#[derive(Debug, Default)]
struct Counter {
    rows: i64,
    rank: i64,
    dense: i64,
    order: Option<Box<[u8]>>,
    /// Whether the next row is the first with its order.
    fresh: bool,
}

impl Counter {
    /// The next row has this order.
    fn at(&mut self, order: &[u8]) {
        if self.order.as_deref() != Some(order) {
            self.order = Some(order.into());
            self.fresh = true;
        }
    }

    fn next(&mut self) {
        self.rows += 1;
        self.ranked(self.rows - 1);
    }

    /// `before`: the number of rows before the first of those that were counted last.
    fn ranked(&mut self, before: i64) {
        if std::mem::take(&mut self.fresh) {
            self.rank = before + 1;
            self.dense += 1;
        }
    }

    fn value(&self, rank: Rank) -> u64 {
        let value = match rank {
            Rank::RowNumber => self.rows,
            Rank::Rank => self.rank,
            Rank::DenseRank => self.dense,
        };
        value.unsigned_abs()
    }
}
