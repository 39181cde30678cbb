//! Expressions over the rows of a match: what they read of it, and how they are computed from that.
//!
//! An expression is one of DataFusion's over columns that are *slots*. A slot is a column of one row of the match, an
//! aggregate over some of its rows, or a property of the match itself.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use windrow_core::{Error, Result};

use crate::failure;
use crate::spec::AggregateCall;

/// A row of a match, relative to the last row so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowOf {
    /// Only rows of these variables count, as bits; `None`: all rows.
    pub variables: Option<u64>,
    /// Whether to count from the first of them; otherwise from the last.
    pub first: bool,
    /// The number of rows to move on from there, forward from the first or backward from the last.
    pub offset: u32,
    /// Then, the number of rows of the partition by which to move forward (or backward, if negative).
    pub shift: i32,
}

impl RowOf {
    /// The last row so far.
    pub const LAST: Self = Self { variables: None, first: false, offset: 0, shift: 0 };

    /// Whether it is the row that is about to be mapped to `variable`, or at a fixed distance from it.
    pub fn is_current(&self, variable: u64) -> bool {
        let counts = self.variables.is_none_or(|variables| variables & variable != 0);
        counts && !self.first && self.offset == 0
    }
}

/// A value that an expression reads.
#[derive(Debug, Clone)]
pub enum Slot {
    /// A column of the input; NULL if there is no such row.
    Value {
        /// The row.
        row: RowOf,
        /// The column.
        column: usize,
    },
    /// An aggregate over the rows of these variables, as bits (`None`: all rows).
    Aggregate {
        /// The variables.
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
    /// Whether it sees all rows of the match, even before the last one.
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

    /// Computes the results for `rows` rows, given the values of the slots.
    pub(super) fn evaluate(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.schema);
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let value = self.expr.evaluate(&batch).map_err(failure::engine)?;
        value.into_array(rows).map_err(failure::engine)
    }

    /// Like [`evaluate`](Self::evaluate), for a condition; NULL is not true.
    pub(super) fn holds(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<BooleanArray> {
        let value = self.evaluate(columns, rows)?;
        let value = value.as_boolean_opt();
        value.cloned().ok_or_else(|| Error::internal("a condition of DEFINE is not boolean"))
    }
}

/// The condition under which a row may be mapped to a variable: both parts must be true.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// The part that depends only on the row and its neighbours in the partition.
    pub row: Option<Formula>,
    /// The part that depends on the rows of the match so far.
    pub history: Option<Formula>,
}

/// An aggregate over the rows so far: its state and its value.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    state: Arc<Vec<ArrayRef>>,
    pub(super) value: ScalarValue,
}

impl Counted {
    /// Without rows.
    pub(super) fn nothing(call: &AggregateCall) -> Result<Self> {
        let mut accumulator = call.function.create_accumulator().map_err(failure::engine)?;
        let value = accumulator.evaluate().map_err(failure::engine)?;
        Ok(Self { state: Arc::new(vec![]), value })
    }

    /// With one more row.
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

/// An aggregate over all of the given rows.
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
