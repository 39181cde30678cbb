//! Functions that need all rows of a partition, recomputed whenever one of the rows comes or goes: window functions, which
//! return a value for each row, and aggregates over ordered rows, which return one row for each partition.
//!
//! Rows are kept as bytes in the order of partition, order and row, as in [`top`](super::top). What is returned is the
//! difference between the results of a partition before and after its changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{SortOptions, concat, take_arrays};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::LoweredAggregate;
use datafusion::physical_expr::window::WindowExpr;
use windrow_core::{Error, Result};

use super::delta::{Codec, Delta, pick};
use super::ordered::OrderedRows;
use crate::failure;

/// Functions over all rows of each partition.
#[derive(Debug, Clone)]
pub struct RecomputedSpec {
    /// The columns that divide the rows; none: there is one partition.
    pub partition: Vec<usize>,
    /// The columns that order the rows of a partition.
    pub order: Vec<(usize, SortOptions)>,
    /// What is computed.
    pub functions: Functions,
}

/// Functions over the rows of a partition; their expressions are over the columns of its rows.
#[derive(Debug, Clone)]
pub enum Functions {
    /// Each row, with the value of each of these appended.
    Windows(Vec<Arc<dyn WindowExpr>>),
    /// One row: the columns of the partition, and the value of each of these. Without partition columns there is a
    /// result row even when there are no rows.
    Aggregates(Vec<Arc<LoweredAggregate>>),
}

/// The rows of a [`RecomputedSpec`].
#[derive(Debug)]
pub(super) struct Recomputed {
    spec: RecomputedSpec,
    input: SchemaRef,
    rows: OrderedRows,
    result: Codec,
    begun: bool,
}

/// Rows of the result, each with the number of its occurrences.
type Found = BTreeMap<Box<[u8]>, i64>;

impl Recomputed {
    /// Without rows.
    ///
    /// # Errors
    /// When rows, or what is computed of them, cannot be compared.
    pub(super) fn new(
        spec: &RecomputedSpec,
        input: &SchemaRef,
        result: &SchemaRef,
    ) -> Result<Self> {
        Ok(Self {
            rows: OrderedRows::new(&spec.partition, &spec.order, input)?,
            result: Codec::of(result)?,
            spec: spec.clone(),
            input: Arc::clone(input),
            begun: false,
        })
    }

    /// Adds and removes rows; returns the changes of the results of their partitions.
    ///
    /// # Errors
    /// When a function fails; Internal when a row is removed that does not exist.
    pub(super) fn run(&mut self, rows: &Delta) -> Result<Delta> {
        let keyed = self.rows.keyed(rows)?;
        let mut changed = keyed.partitions();
        let begins = !std::mem::replace(&mut self.begun, true);
        if begins && self.spec.partition.is_empty() {
            changed.entry(&[]).or_default();
        }
        let touched: Vec<&[u8]> = changed.keys().copied().collect();
        let mut found = Found::new();
        if !begins {
            self.results(&touched, -1, &mut found)?;
        }
        for row in changed.values().flatten() {
            self.rows.add(&keyed, *row)?;
        }
        self.results(&touched, 1, &mut found)?;
        found.retain(|_, weight| *weight != 0);
        let columns = self.result.decode(found.keys().map(AsRef::as_ref))?;
        Ok(Delta { columns, weights: found.into_values().collect() })
    }

    /// Adds `sign` times the results of these partitions.
    fn results(&self, partitions: &[&[u8]], sign: i64, found: &mut Found) -> Result<()> {
        let (mut rows, mut ends): (Vec<&[u8]>, Vec<usize>) = (vec![], vec![]);
        for partition in partitions {
            for kept in self.rows.of(partition) {
                let kept = kept?;
                for _ in 0..kept.weight {
                    rows.push(kept.row);
                }
            }
            ends.push(rows.len());
        }
        let columns = self.rows.decode(rows.iter().copied())?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let all = RecordBatch::try_new_with_options(Arc::clone(&self.input), columns, &options)?;
        let (mut parts, mut begin): (Vec<Vec<ArrayRef>>, usize) = (vec![], 0);
        for end in ends {
            let partition = all.slice(begin, end - begin);
            begin = end;
            match &self.spec.functions {
                Functions::Windows(_) if partition.num_rows() == 0 => {}
                Functions::Windows(functions) => parts.push(windows(functions, &partition)?),
                Functions::Aggregates(_)
                    if partition.num_rows() == 0 && !self.spec.partition.is_empty() => {}
                Functions::Aggregates(functions) => {
                    let keys = pick(
                        partition.slice(0, partition.num_rows().min(1)).columns(),
                        &self.spec.partition,
                    )?;
                    parts.push(aggregates(functions, keys, &partition)?);
                }
            }
        }
        let Some(first) = parts.first() else { return Ok(()) };
        let mut together = Vec::with_capacity(first.len());
        for column in 0..first.len() {
            let pieces: Vec<&dyn Array> =
                parts.iter().filter_map(|part| Some(part.get(column)?.as_ref())).collect();
            together.push(concat(&pieces)?);
        }
        let count = together.first().map_or(0, Array::len);
        let encoded = self.result.encode(&together, count)?;
        for row in 0..count {
            *found.entry(encoded.row(row).into()).or_insert(0) += sign;
        }
        Ok(())
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.rows.size_bytes()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }
}

/// The rows of a partition with the values of window functions.
fn windows(functions: &[Arc<dyn WindowExpr>], rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let mut columns = rows.columns().to_vec();
    for function in functions {
        let values = function.evaluate(rows).map_err(failure::engine)?;
        if values.len() != rows.num_rows() {
            return Err(Error::internal("a window function without a value for each row"));
        }
        columns.push(values);
    }
    Ok(columns)
}

/// The row of a partition: its keys and the values of aggregates.
fn aggregates(
    functions: &[Arc<LoweredAggregate>],
    keys: Vec<ArrayRef>,
    rows: &RecordBatch,
) -> Result<Vec<ArrayRef>> {
    let mut columns = keys;
    for function in functions {
        let rows = ordered(function, &passing(function, rows)?)?;
        let aggregate = &function.aggregate;
        let all = aggregate.all_expressions();
        let mut arguments = vec![];
        for expr in all.args.iter().chain(&all.order_by_exprs) {
            arguments.push(evaluated(expr, &rows)?);
        }
        let mut accumulator = aggregate.create_accumulator().map_err(failure::engine)?;
        if rows.num_rows() > 0 {
            accumulator.update_batch(&arguments).map_err(failure::engine)?;
        }
        let value = accumulator.evaluate().map_err(failure::engine)?;
        columns.push(value.to_array().map_err(failure::engine)?);
    }
    Ok(columns)
}

/// The rows that pass the filter of an aggregate.
fn passing(function: &LoweredAggregate, rows: &RecordBatch) -> Result<RecordBatch> {
    let Some(filter) = &function.filter else { return Ok(rows.clone()) };
    let passes = evaluated(filter, rows)?;
    let passes = passes.as_boolean_opt();
    let passes = passes.ok_or_else(|| Error::internal("a filter is no condition"))?;
    Ok(arrow::compute::filter_record_batch(rows, passes)?)
}

/// The rows in the order of an aggregate; rows that are equal in it stay in the order in which they are kept.
fn ordered(function: &LoweredAggregate, rows: &RecordBatch) -> Result<RecordBatch> {
    if function.order_bys.is_empty() || rows.num_rows() < 2 {
        return Ok(rows.clone());
    }
    let (mut values, mut options): (Vec<ArrayRef>, Vec<SortOptions>) = (vec![], vec![]);
    for by in &function.order_bys {
        values.push(evaluated(&by.expr, rows)?);
        options.push(by.options);
    }
    let types: Vec<DataType> = values.iter().map(|value| value.data_type().clone()).collect();
    let codec = Codec::ordered(types.iter().zip(options))?;
    let keys = codec.encode(&values, rows.num_rows())?;
    let mut at: Vec<u32> = (0_u32..).take(rows.num_rows()).collect();
    at.sort_by(|a, b| keys.row(*a as usize).cmp(keys.row(*b as usize)));
    let columns = take_arrays(rows.columns(), &UInt32Array::from(at), None)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns, &options)?)
}

fn evaluated(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<ArrayRef> {
    let value = expr.evaluate(rows).map_err(failure::engine)?;
    value.into_array(rows.num_rows()).map_err(failure::engine)
}
