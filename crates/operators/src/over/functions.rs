//! The trait of functions over frames, and those functions that only count rows.
//!
//! Invariant: the state of a function whose frame has a beginning follows from the rows of the history; that of all
//! others is returned by [`Function::state`], one row per key.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use windrow_core::{Error, Result};

use super::extremes::{Extreme, SlidingExtreme};
use super::frames::OverFrame;
use super::general::General;
use super::history::{History, Numbers, compares_as_number};
use super::picks::{Pick, Pinned};
use super::running::{Counts, FloatSum, IntSum, Running, Sums};
use super::{Logging, OverCall, OverFunction};

/// A function over the frame of each row.
pub(super) trait Function: Debug + Send {
    /// Processes `events`; returns its value at each evaluation, in order. Functions without a frame read `evaluated`,
    /// the rows in the same order. There are `keys` keys.
    fn run(
        &mut self,
        events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef>;

    /// Updates row numbers after all but the `kept` rows have been dropped from the history.
    fn renumber(&mut self, kept: &[u32], numbers: &Numbers);

    /// Updates the keys after all but the `kept` ones have been dropped.
    fn keep_keys(&mut self, kept: &[u32]);

    /// The state of some keys that does not follow from the history.
    fn state(&mut self, _keys: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![])
    }

    /// The number of columns of its state.
    fn state_columns(&self) -> usize {
        0
    }

    /// Restores the state of keys; there are `total` keys.
    fn restore(&mut self, _keys: &[usize], _total: usize, _state: &[ArrayRef]) -> Result<()> {
        Ok(())
    }

    /// Bytes of memory.
    fn size_bytes(&self) -> usize;
}

/// Creates the function of a call; `logging` says which columns of a row are in the history.
pub(super) fn function(call: &OverCall, logging: &Logging) -> Result<Box<dyn Function>> {
    let unbounded = call.frame.start().is_none();
    Ok(match &call.function {
        OverFunction::RowNumber => Box::new(RowNumbers::default()),
        OverFunction::Rank => Box::new(Ranks { dense: false, ranks: vec![] }),
        OverFunction::DenseRank => Box::new(Ranks { dense: true, ranks: vec![] }),
        OverFunction::Value { column, which, ignore_nulls, default } => {
            let column = logging.place(*column)?;
            if Pinned::is_needed(call) {
                let data_type = logging.data_type(column);
                Box::new(Pinned::new(column, *which, *ignore_nulls, data_type))
            } else {
                Box::new(Pick::new(column, *which, *ignore_nulls, default.clone()))
            }
        }
        OverFunction::Aggregate(aggregate) => {
            let arguments = aggregate.arguments.iter().map(|c| logging.place(*c));
            let arguments = arguments.collect::<Result<Vec<_>>>()?;
            let filter = aggregate.filter.map(|c| logging.place(c)).transpose()?;
            let plain = !aggregate.function.is_distinct();
            let name = aggregate.function.fun().name();
            let source = Source { column: arguments.first().copied().unwrap_or(0), filter };
            let of = logging.data_type(source.column);
            let result = aggregate.function.field().data_type().clone();
            match (name, &result) {
                ("count", _) if plain && arguments.len() == 1 => Box::new(Counts::new(source)),
                ("sum", DataType::Int64 | DataType::UInt64) if plain && of == result => {
                    Box::new(Running::<IntSum>::new(source, Sums { average: false, of }))
                }
                ("sum" | "avg", DataType::Float64) if plain && of == result => {
                    let sums = Sums { average: name == "avg", of };
                    Box::new(Running::<FloatSum>::new(source, sums))
                }
                ("min" | "max", _) if plain && of == result && compares_as_number(&of) => {
                    if unbounded {
                        Box::new(Extreme::new(source, name == "min", of))
                    } else {
                        Box::new(SlidingExtreme::new(source, name == "min"))
                    }
                }
                _ => {
                    let call = Arc::clone(&aggregate.function);
                    Box::new(General::new(call, (arguments, filter), !unbounded)?)
                }
            }
        }
    })
}

/// Whether the values of a call over rows of one time depend on their order.
pub(super) fn minds_order(call: &OverCall) -> bool {
    match &call.function {
        OverFunction::Rank | OverFunction::DenseRank => false,
        OverFunction::RowNumber | OverFunction::Value { .. } => true,
        OverFunction::Aggregate(aggregate) => {
            let any_order = ["count", "sum", "avg", "min", "max"];
            !any_order.contains(&aggregate.function.fun().name())
                || matches!(call.frame, OverFrame::Rows { .. })
        }
    }
}

/// The columns that an aggregate reads of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// The argument, by its index in the history.
    pub(super) column: usize,
    /// Only rows where this is true count.
    pub(super) filter: Option<usize>,
}

impl Source {
    /// Whether every row counts.
    pub(super) fn is_whole(&self, rows: &History) -> bool {
        self.filter.is_none() && rows.columns[self.column].all_valid()
    }

    /// Whether the row counts: its argument is not NULL.
    #[inline]
    pub(super) fn has(&self, rows: &History, row: u32) -> bool {
        passes(rows, self.filter, row) && rows.columns[self.column].is_valid(row)
    }
}

/// Whether a row passes the filter.
#[inline]
pub(super) fn passes(rows: &History, filter: Option<usize>, row: u32) -> bool {
    filter.is_none_or(|filter| {
        let filter = &rows.columns[filter];
        filter.is_valid(row) && filter.ints()[row as usize] != 0
    })
}

/// Some of the values, in the order of `kept`.
pub(super) fn kept<T: Clone + Default>(values: &[T], kept: &[u32]) -> Vec<T> {
    kept.iter().map(|key| values.get(*key as usize).cloned().unwrap_or_default()).collect()
}

/// A column of state.
pub(super) fn column(state: &[ArrayRef], at: usize, keys: usize) -> Result<&ArrayRef> {
    let column = state.get(at).filter(|column| column.len() == keys);
    column.ok_or_else(|| Error::internal("a state of OVER has other columns"))
}

/// A column of integers of state.
pub(super) fn integers(state: &[ArrayRef], at: usize, keys: usize) -> Result<&[i64]> {
    let integers = column(state, at, keys)?.as_primitive_opt::<Int64Type>();
    Ok(integers.ok_or_else(|| Error::internal("a state of OVER is of another type"))?.values())
}

/// `row_number()`.
#[derive(Debug, Default)]
struct RowNumbers {
    /// The rows of each key so far.
    counts: Vec<u64>,
}

impl Function for RowNumbers {
    fn run(
        &mut self,
        _events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef> {
        self.counts.resize(keys.max(self.counts.len()), 0);
        let numbers = evaluated.iter().map(|row| {
            let count = &mut self.counts[rows.entries[*row as usize].key as usize];
            *count += 1;
            *count
        });
        Ok(Arc::new(UInt64Array::from_iter_values(numbers)))
    }

    fn renumber(&mut self, _kept: &[u32], _numbers: &Numbers) {}

    fn keep_keys(&mut self, keys: &[u32]) {
        self.counts = kept(&self.counts, keys);
    }

    fn state(&mut self, keys: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(UInt64Array::from(kept(&self.counts, keys)))])
    }

    fn state_columns(&self) -> usize {
        1
    }

    fn restore(&mut self, keys: &[usize], total: usize, state: &[ArrayRef]) -> Result<()> {
        self.counts.resize(total.max(self.counts.len()), 0);
        let counts = column(state, 0, keys.len())?.as_primitive_opt::<UInt64Type>();
        let counts = counts.ok_or_else(|| Error::internal("a state of OVER is of another type"))?;
        for (key, count) in keys.iter().zip(counts.values()) {
            self.counts[*key] = *count;
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<u64>()
    }
}

/// `rank()` and `dense_rank()`.
#[derive(Debug)]
struct Ranks {
    dense: bool,
    ranks: Vec<Rank>,
}

/// The state of the rows of a key so far.
#[derive(Debug, Default, Clone, Copy)]
struct Rank {
    rows: i64,
    rank: i64,
    /// The time of the last one.
    time: i64,
}

impl Function for Ranks {
    fn run(
        &mut self,
        _events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef> {
        self.ranks.resize(keys.max(self.ranks.len()), Rank::default());
        let ranks = evaluated.iter().map(|row| {
            let entry = rows.entries[*row as usize];
            let rank = &mut self.ranks[entry.key as usize];
            rank.rows += 1;
            if rank.rows == 1 || rank.time != entry.time {
                rank.time = entry.time;
                rank.rank = if self.dense { rank.rank + 1 } else { rank.rows };
            }
            rank.rank as u64
        });
        Ok(Arc::new(UInt64Array::from_iter_values(ranks)))
    }

    fn renumber(&mut self, _kept: &[u32], _numbers: &Numbers) {}

    fn keep_keys(&mut self, keys: &[u32]) {
        self.ranks = kept(&self.ranks, keys);
    }

    fn state(&mut self, keys: &[u32]) -> Result<Vec<ArrayRef>> {
        let ranks = kept(&self.ranks, keys);
        let column = |of: fn(&Rank) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(ranks.iter().map(of)))
        };
        Ok(vec![column(|rank| rank.rows), column(|rank| rank.rank), column(|rank| rank.time)])
    }

    fn state_columns(&self) -> usize {
        3
    }

    fn restore(&mut self, keys: &[usize], total: usize, state: &[ArrayRef]) -> Result<()> {
        self.ranks.resize(total.max(self.ranks.len()), Rank::default());
        let columns = [0, 1, 2].map(|at| integers(state, at, keys.len()));
        let [rows, rank, time] = columns;
        let values = rows?.iter().zip(rank?).zip(time?);
        for (key, ((rows, rank), time)) in keys.iter().zip(values) {
            self.ranks[*key] = Rank { rows: *rows, rank: *rank, time: *time };
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.ranks.capacity() * size_of::<Rank>()
    }
}
