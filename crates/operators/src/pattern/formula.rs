//! Expressions over the rows of a match: what they read of it, and how they are computed from that.
//!
//! An expression is one of DataFusion's over columns that are *slots*. A slot is a column of one row of the match, an aggregate
//! over some of its rows, or what is known of the match itself.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use windrow_core::{Error, Result};

use crate::failure;
use crate::spec::AggregateCall;

/// A row of a match, as seen from the last row so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowOf {
    /// Only rows of these variables count, as bits; `None`: all rows.
    pub variables: Option<u64>,
    /// Counted from the first of them, otherwise from the last.
    pub first: bool,
    /// How many of them further on, or further back.
    pub offset: u32,
    /// Then, by how many rows of the partition later (or earlier, if negative).
    pub shift: i32,
}

impl RowOf {
    /// The last row so far.
    pub const LAST: Self = Self { variables: None, first: false, offset: 0, shift: 0 };

    /// Whether it is the row that is to be mapped to `variable`, or stands at a fixed distance from it.
    pub fn is_current(&self, variable: u64) -> bool {
        let counts = self.variables.is_none_or(|variables| variables & variable != 0);
        counts && !self.first && self.offset == 0
    }
}

/// What an expression reads.
#[derive(Debug, Clone)]
pub enum Slot {
    /// A column of the input; NULL where there is no such row.
    Value {
        /// The row.
        row: RowOf,
        /// The column.
        column: usize,
    },
    /// An aggregate over the rows of these variables, as bits (`None`: all rows).
    Aggregate {
        /// See above.
        variables: Option<u64>,
        /// The function; its arguments and its filter are columns of the input.
        call: AggregateCall,
    },
    /// The name of the variable of the last row of these variables, as bits (`None`: of all rows).
    Classifier(Option<u64>),
    /// The number of the match within its partition, from 1.
    MatchNumber,
}

/// A slot of an expression.
#[derive(Debug, Clone)]
pub struct Read {
    /// What is read.
    pub slot: Slot,
    /// It sees all rows of the match, also before the last one.
    pub is_final: bool,
    /// Its type.
    pub data_type: DataType,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Formula {
    expr: Arc<dyn PhysicalExpr>,
    pub(super) reads: Vec<Read>,
    schema: SchemaRef,
}

/// The columns of an expression over these slots, in their order.
pub fn slot_schema(reads: &[Read]) -> Schema {
    let fields = reads.iter().enumerate();
    let fields = fields.map(|(i, read)| Field::new(format!("${i}"), read.data_type.clone(), true));
    Schema::new(fields.collect::<Vec<_>>())
}

impl Formula {
    /// `expr` over the columns of [`slot_schema`].
    pub fn new(expr: Arc<dyn PhysicalExpr>, reads: Vec<Read>) -> Self {
        let schema = Arc::new(slot_schema(&reads));
        Self { expr, reads, schema }
    }

    /// The slots that it reads.
    pub fn reads(&self) -> &[Read] {
        &self.reads
    }

    /// The type of the result.
    ///
    /// # Errors
    /// When the expression does not fit its columns (a bug in Windrow).
    pub fn data_type(&self) -> Result<DataType> {
        self.expr.data_type(&self.schema).map_err(failure::engine)
    }

    /// Computes it for `rows` rows, given the values of its slots.
    pub(super) fn evaluate(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let value = self.expr.evaluate(&batch).map_err(failure::engine)?;
        value.into_array(rows).map_err(failure::engine)
    }

    /// The same of a condition; NULL is not true.
    pub(super) fn holds(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<BooleanArray> {
        let value = self.evaluate(columns, rows)?;
        let value = value.as_boolean_opt();
        value.cloned().ok_or_else(|| Error::internal("a condition of DEFINE is not boolean"))
    }
}

/// When a row may be mapped to a variable: both must hold.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// What depends on the row and its neighbours in the partition alone.
    pub row: Option<Formula>,
    /// What depends on the rows of the match so far.
    pub history: Option<Formula>,
}

/// An aggregate over rows so far: what is needed to go on, and the value.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    state: Arc<Vec<ArrayRef>>,
    pub(super) value: ScalarValue,
}

impl Counted {
    /// No rows yet.
    pub(super) fn nothing(call: &AggregateCall) -> Result<Self> {
        let mut accumulator = call.function.create_accumulator().map_err(failure::engine)?;
        let value = accumulator.evaluate().map_err(failure::engine)?;
        Ok(Self { state: Arc::new(vec![]), value })
    }

    /// One more row.
    pub(super) fn and(&self, call: &AggregateCall, row: &[ArrayRef]) -> Result<Self> {
        let next = || {
            let mut accumulator = call.function.create_accumulator()?;
            if !self.state.is_empty() {
                accumulator.merge_batch(&self.state)?;
            }
            accumulator.update_batch(row)?;
            let value = accumulator.evaluate()?;
            let state = accumulator.state()?;
            let state = state.iter().map(|value| value.to_array_of_size(1));
            Ok(Self { state: Arc::new(state.collect::<Result<_, _>>()?), value })
        };
        next().map_err(failure::engine)
    }
}

/// An aggregate over rows that are all there.
pub(super) fn total(call: &AggregateCall, rows: &[ArrayRef]) -> Result<ScalarValue> {
    let value = || {
        let mut accumulator = call.function.create_accumulator()?;
        if rows.first().is_some_and(|column| !column.is_empty()) {
            accumulator.update_batch(rows)?;
        }
        accumulator.evaluate()
    };
    value().map_err(failure::engine)
}
