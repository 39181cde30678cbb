//! Counts, sums and averages: values of rows that enter are added, those of rows that leave are subtracted.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use windrow_core::{Error, Result};

use super::frames::{ENTER, EVALUATE, event};
use super::functions::{Function, Source, column, integers, kept};
use super::history::{History, Logged, Numbers, ints_array};
use crate::aggregates::beyond;
use crate::failure;

/// `count`.
#[derive(Debug)]
pub(super) struct Counts {
    source: Source,
    counts: Vec<i64>,
}

impl Counts {
    pub(super) fn new(source: Source) -> Self {
        Self { source, counts: vec![] }
    }
}

impl Function for Counts {
    fn run(
        &mut self,
        events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef> {
        self.counts.resize(keys.max(self.counts.len()), 0);
        let (source, whole) = (self.source, self.source.is_whole(rows));
        let mut out = Vec::with_capacity(evaluated.len());
        for (what, row) in events.iter().copied().map(event) {
            let count = &mut self.counts[rows.entries[row as usize].key as usize];
            match what {
                EVALUATE => out.push(*count),
                ENTER => *count += i64::from(whole || source.has(rows, row)),
                _ => *count -= i64::from(whole || source.has(rows, row)),
            }
        }
        Ok(Arc::new(Int64Array::from(out)))
    }

    fn renumber(&mut self, _kept: &[u32], _numbers: &Numbers) {}

    fn keep_keys(&mut self, keys: &[u32]) {
        self.counts = kept(&self.counts, keys);
    }

    fn state(&mut self, keys: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(Int64Array::from(kept(&self.counts, keys)))])
    }

    fn state_columns(&self) -> usize {
        1
    }

    fn restore(&mut self, keys: &[usize], total: usize, state: &[ArrayRef]) -> Result<()> {
        self.counts.resize(total.max(self.counts.len()), 0);
        for (key, count) in keys.iter().zip(integers(state, 0, keys.len())?) {
            self.counts[*key] = *count;
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
    }
}

/// The types of a sum.
#[derive(Debug)]
pub(super) struct Sums {
    pub(super) average: bool,
    /// The type of the arguments, and that of the sum.
    pub(super) of: DataType,
}

/// A sum of values that are not NULL.
pub(super) trait Sum: Debug + Default + Clone + Copy + Send {
    /// One value.
    type Value: Copy;

    /// The values of a column.
    fn values(column: &Logged) -> &[Self::Value];

    fn add(&mut self, value: Self::Value, sums: &Sums);

    fn subtract(&mut self, value: Self::Value, sums: &Sums);

    /// The results.
    fn results(sums: &Sums, all: &[Self]) -> Result<ArrayRef>;

    /// The sums, and the number of values in each.
    fn state(all: &[Self]) -> [ArrayRef; 2];

    fn restore(state: &[ArrayRef], keys: usize) -> Result<Vec<Self>>;
}

/// Sums, one per key.
#[derive(Debug)]
pub(super) struct Running<S> {
    source: Source,
    sums: Sums,
    keys: Vec<S>,
}

impl<S> Running<S> {
    pub(super) fn new(source: Source, sums: Sums) -> Self {
        Self { source, sums, keys: vec![] }
    }
}

impl<S: Sum> Function for Running<S> {
    fn run(
        &mut self,
        events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef> {
        self.keys.resize(keys.max(self.keys.len()), S::default());
        let (source, whole) = (self.source, self.source.is_whole(rows));
        let values = S::values(&rows.columns[source.column]);
        let mut out = Vec::with_capacity(evaluated.len());
        for (what, row) in events.iter().copied().map(event) {
            let sum = &mut self.keys[rows.entries[row as usize].key as usize];
            if what == EVALUATE {
                out.push(*sum);
            } else if whole || source.has(rows, row) {
                let value = values[row as usize];
                if what == ENTER {
                    sum.add(value, &self.sums);
                } else {
                    sum.subtract(value, &self.sums);
                }
            }
        }
        S::results(&self.sums, &out)
    }

    fn renumber(&mut self, _kept: &[u32], _numbers: &Numbers) {}

    fn keep_keys(&mut self, keys: &[u32]) {
        self.keys = kept(&self.keys, keys);
    }

    fn state(&mut self, keys: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(S::state(&kept(&self.keys, keys)).to_vec())
    }

    fn state_columns(&self) -> usize {
        2
    }

    fn restore(&mut self, keys: &[usize], total: usize, state: &[ArrayRef]) -> Result<()> {
        self.keys.resize(total.max(self.keys.len()), S::default());
        for (key, sum) in keys.iter().zip(S::restore(state, keys.len())?) {
            self.keys[*key] = sum;
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<S>()
    }
}

/// A sum of integers, exact.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct IntSum {
    sum: i128,
    values: i64,
}

/// The exact integer; unsigned ones are held as signed ones in the history.
fn exact(value: i64, sums: &Sums) -> i128 {
    if sums.of == DataType::UInt64 { i128::from(value as u64) } else { i128::from(value) }
}

fn where_any<S>(all: &[S], any: impl Fn(&S) -> bool) -> Option<NullBuffer> {
    let valid = BooleanBuffer::collect_bool(all.len(), |i| any(&all[i]));
    Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0)
}

impl Sum for IntSum {
    type Value = i64;

    fn values(column: &Logged) -> &[i64] {
        column.ints()
    }

    #[inline]
    fn add(&mut self, value: i64, sums: &Sums) {
        self.sum += exact(value, sums);
        self.values += 1;
    }

    #[inline]
    fn subtract(&mut self, value: i64, sums: &Sums) {
        self.sum -= exact(value, sums);
        self.values -= 1;
    }

    fn results(sums: &Sums, all: &[Self]) -> Result<ArrayRef> {
        let fit = |sum: &Self| match sums.of {
            DataType::UInt64 => u64::try_from(sum.sum).ok().map(|sum| sum as i64),
            _ => i64::try_from(sum.sum).ok(),
        };
        let fitting: Option<Vec<i64>> = all.iter().map(fit).collect();
        let values = fitting.ok_or_else(|| failure::engine(beyond("sum", &sums.of)))?;
        ints_array(&sums.of, values, where_any(all, |sum| sum.values != 0))
    }

    fn state(all: &[Self]) -> [ArrayRef; 2] {
        let sums = Decimal128Array::from_iter_values(all.iter().map(|sum| sum.sum));
        let values = Int64Array::from_iter_values(all.iter().map(|sum| sum.values));
        [Arc::new(sums), Arc::new(values)]
    }

    fn restore(state: &[ArrayRef], keys: usize) -> Result<Vec<Self>> {
        let sums = column(state, 0, keys)?.as_primitive_opt::<Decimal128Type>();
        let sums = sums.ok_or_else(|| Error::internal("a state of OVER is of another type"))?;
        let values = integers(state, 1, keys)?.iter();
        let both = sums.values().iter().zip(values);
        Ok(both.map(|(sum, values)| Self { sum: *sum, values: *values }).collect())
    }
}

/// A sum of floats.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct FloatSum {
    sum: f64,
    values: i64,
}

impl Sum for FloatSum {
    type Value = f64;

    fn values(column: &Logged) -> &[f64] {
        column.floats()
    }

    #[inline]
    fn add(&mut self, value: f64, _sums: &Sums) {
        self.sum += value;
        self.values += 1;
    }

    #[inline]
    fn subtract(&mut self, value: f64, _sums: &Sums) {
        self.values -= 1;
        // The rounding errors of values that have left end with the last value.
        self.sum = if self.values == 0 { 0.0 } else { self.sum - value };
    }

    fn results(sums: &Sums, all: &[Self]) -> Result<ArrayRef> {
        let result = |sum: &Self| if sums.average { sum.sum / sum.values as f64 } else { sum.sum };
        let values: Vec<f64> = all.iter().map(result).collect();
        Ok(Arc::new(Float64Array::new(values.into(), where_any(all, |sum| sum.values != 0))))
    }

    fn state(all: &[Self]) -> [ArrayRef; 2] {
        let sums = Float64Array::from_iter_values(all.iter().map(|sum| sum.sum));
        let values = Int64Array::from_iter_values(all.iter().map(|sum| sum.values));
        [Arc::new(sums), Arc::new(values)]
    }

    fn restore(state: &[ArrayRef], keys: usize) -> Result<Vec<Self>> {
        let sums = column(state, 0, keys)?.as_primitive_opt::<Float64Type>();
        let sums = sums.ok_or_else(|| Error::internal("a state of OVER is of another type"))?;
        let both = sums.values().iter().zip(integers(state, 1, keys)?);
        Ok(both.map(|(sum, values)| Self { sum: *sum, values: *values }).collect())
    }
}
