//! All other aggregates: one of DataFusion's accumulators per key, updated row by row.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::scalar::ScalarValue;
use windrow_core::{Error, Result};

use super::frames::{ENTER, EVALUATE, event};
use super::functions::{Function, passes};
use super::history::{History, Numbers};
use crate::failure;

/// See the module.
pub(super) struct General {
    call: Arc<AggregateFunctionExpr>,
    /// The indexes of its arguments in the history.
    arguments: Vec<usize>,
    filter: Option<usize>,
    /// Whether rows leave the frame.
    sliding: bool,
    state_columns: usize,
    keys: Vec<Option<Box<dyn Accumulator>>>,
    /// The bytes of the accumulators.
    bytes: usize,
}

impl fmt::Debug for General {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("General").field("call", &self.call.name()).finish_non_exhaustive()
    }
}

impl General {
    /// # Errors
    /// When the aggregate cannot be computed over such frames.
    pub(super) fn new(
        call: Arc<AggregateFunctionExpr>,
        (arguments, filter): (Vec<usize>, Option<usize>),
        sliding: bool,
    ) -> Result<Self> {
        let state_columns =
            if sliding { 0 } else { call.state_fields().map_err(failure::engine)?.len() };
        let made = Self { call, arguments, filter, sliding, state_columns, keys: vec![], bytes: 0 };
        made.accumulator()?;
        Ok(made)
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        let made = if self.sliding {
            self.call.create_sliding_accumulator()
        } else {
            self.call.create_accumulator()
        };
        made.map_err(failure::engine)
    }

    fn grow(&mut self, keys: usize) {
        if self.keys.len() < keys {
            self.keys.resize_with(keys, || None);
        }
    }

    /// The accumulator of a key.
    fn of(&mut self, key: usize) -> Result<&mut Box<dyn Accumulator>> {
        if self.keys[key].is_none() {
            let fresh = self.accumulator()?;
            self.bytes += fresh.size();
            self.keys[key] = Some(fresh);
        }
        self.keys[key].as_mut().ok_or_else(|| Error::internal("an accumulator is lost"))
    }
}

impl Function for General {
    fn run(
        &mut self,
        events: &[u32],
        evaluated: &[u32],
        rows: &History,
        keys: usize,
    ) -> Result<ArrayRef> {
        self.grow(keys);
        let moving: Vec<u32> = events
            .iter()
            .copied()
            .map(event)
            .filter(|(what, row)| *what != EVALUATE && passes(rows, self.filter, *row))
            .map(|(_, row)| row)
            .collect();
        let arguments = self.arguments.iter().map(|at| rows.columns[*at].gather(&moving));
        let arguments: Vec<ArrayRef> = arguments.collect::<Result<_>>()?;
        let mut one: Vec<ArrayRef> = Vec::with_capacity(arguments.len());
        let mut values: Vec<ScalarValue> = Vec::with_capacity(evaluated.len());
        let (filter, mut at) = (self.filter, 0);
        for (what, row) in events.iter().copied().map(event) {
            let key = rows.entries[row as usize].key as usize;
            if what == EVALUATE {
                values.push(self.of(key)?.evaluate().map_err(failure::engine)?);
            } else if passes(rows, filter, row) {
                one.clear();
                one.extend(arguments.iter().map(|argument| argument.slice(at, 1)));
                at += 1;
                let accumulator = self.of(key)?;
                let before = accumulator.size();
                let done = if what == ENTER {
                    accumulator.update_batch(&one)
                } else {
                    accumulator.retract_batch(&one)
                };
                done.map_err(failure::engine)?;
                let after = accumulator.size();
                self.bytes = (self.bytes + after).saturating_sub(before);
            }
        }
        if values.is_empty() {
            return Ok(new_empty_array(self.call.field().data_type()));
        }
        ScalarValue::iter_to_array(values).map_err(failure::engine)
    }

    fn renumber(&mut self, _kept: &[u32], _numbers: &Numbers) {}

    fn keep_keys(&mut self, keys: &[u32]) {
        self.keys = keys
            .iter()
            .map(|key| self.keys.get_mut(*key as usize).and_then(Option::take))
            .collect();
        self.bytes = self.keys.iter().flatten().map(|accumulator| accumulator.size()).sum();
    }

    fn state(&mut self, keys: &[u32]) -> Result<Vec<ArrayRef>> {
        self.grow(keys.iter().map(|key| *key as usize + 1).max().unwrap_or(0));
        let mut columns: Vec<Vec<ScalarValue>> = vec![vec![]; self.state_columns];
        for key in keys {
            let state = self.of(*key as usize)?.state().map_err(failure::engine)?;
            if state.len() != columns.len() {
                return Err(Error::internal("an accumulator has another state than it says"));
            }
            columns.iter_mut().zip(state).for_each(|(column, value)| column.push(value));
        }
        let columns = columns.into_iter().map(ScalarValue::iter_to_array);
        columns.collect::<Result<_, _>>().map_err(failure::engine)
    }

    fn state_columns(&self) -> usize {
        self.state_columns
    }

    fn restore(&mut self, keys: &[usize], total: usize, state: &[ArrayRef]) -> Result<()> {
        self.grow(total);
        for (row, key) in keys.iter().enumerate() {
            let one: Vec<ArrayRef> = state.iter().map(|column| column.slice(row, 1)).collect();
            let mut fresh = self.accumulator()?;
            fresh.merge_batch(&one).map_err(failure::engine)?;
            self.bytes += fresh.size();
            let old = self.keys[*key].replace(fresh);
            self.bytes = self.bytes.saturating_sub(old.map_or(0, |old| old.size()));
        }
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.bytes + self.keys.capacity() * size_of::<Option<Box<dyn Accumulator>>>()
    }
}
