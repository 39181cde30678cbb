//! Operators with one input that process rows in order of time, each key separately, and return results one by one.
//!
//! ```text
//! rows ─► workers ─pieces─► waiting ─in order of time─► table (the state of all keys) ─► results, in order of their ends
//! ```
//! When the watermark has passed a time, all rows up to it have arrived. They are processed by the operator's table
//! together. This module contains what all such operators share: workers, waiting rows, checkpoints, and, when memory
//! is short, the state on disk in parts by the hash of the key.
//!
//! Invariants: rows before the frontier have been processed. A segment of input 0 holds rows, one of input 1 the state
//! of keys; a later one of these replaces the state of a key in earlier ones.

mod coordinator;
pub(crate) mod piece;
mod state;
mod ties;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::RowConverter;
use windrow_core::Result;

pub(crate) use coordinator::InOrder;
pub(crate) use piece::OrderedWorker;
pub(crate) use ties::{Ties, sort_fields};

use crate::survey::Times;

/// A planned operator of this kind.
pub(crate) trait OrderedSpec: fmt::Debug + Send + Sync + Sized + 'static {
    /// The state of its keys.
    type Table: OrderedTable<Spec = Self>;

    /// The columns of the input, which may be NULL.
    fn state_schema(&self) -> &SchemaRef;

    /// The columns of results.
    fn returned(&self) -> &SchemaRef;

    /// The columns of the input that are the key.
    fn key_columns(&self) -> &[usize];

    /// The order of results of one end; `None` when a column cannot be compared.
    fn returned_order(&self) -> Option<RowOrder>;

    /// Whether the table returns results of one end in another order.
    fn returns_unordered(&self) -> bool;

    /// How many ticks after its time a row is returned, without the wait for other rows.
    fn wait_ticks(&self) -> i64;

    /// Whether keys without new rows change as time passes.
    fn all_advance(&self) -> bool;

    /// Returns the time before which rows are no longer needed once those before `frontier` have been processed.
    fn useless_before(&self, frontier: i64) -> i64;
}

/// The state of keys in memory.
pub(crate) trait OrderedTable: fmt::Debug + Send + Sized {
    /// The operator.
    type Spec;

    /// An empty table. `ordered`: results of one end are returned in one order, whichever came first.
    fn new(spec: &Arc<Self::Spec>, ordered: bool) -> Result<Self>;

    /// From now on, results of one end are returned in one order.
    fn keep_order(&mut self);

    /// Records from now on which keys change.
    fn remember_touched(&mut self);

    /// Records that all keys have changed since the last checkpoint.
    fn touch_all(&mut self);

    /// Processes rows in order of time: all those before `to` that have not been processed. `last`: no more rows
    /// follow.
    fn process(
        &mut self,
        rows: Option<RecordBatch>,
        to: i64,
        last: bool,
    ) -> Result<Option<Evaluated>>;

    /// Fills an empty table with the state after rows before `frontier` had been processed: `states` in their order.
    fn load(
        &mut self,
        rows: Option<RecordBatch>,
        states: &[RecordBatch],
        frontier: i64,
    ) -> Result<()>;

    /// The rows that it needs, with the columns of the state.
    fn rows(&mut self) -> Result<Option<RecordBatch>>;

    /// The state of keys beyond their rows: of those that have changed since the last call, or of all.
    fn states(&mut self, all: bool) -> Result<Option<RecordBatch>>;

    /// The number of rows that it needs.
    fn len(&self) -> usize;

    /// The first and the last event time of these rows.
    fn times(&self) -> Times;

    /// The number of keys.
    fn keys_len(&self) -> usize;

    /// Whether it has no state.
    fn is_empty(&self) -> bool;

    /// The time of the first row that waits for time to pass, as far as known.
    fn waits_at(&self) -> Option<i64>;

    /// The time before which it needs no rows; `i64::MIN` if that is unknown.
    fn needed_from(&self) -> i64;

    /// Bytes of memory.
    fn size_bytes(&self) -> usize;
}

/// The order of results of one end.
pub(crate) struct RowOrder {
    pub(crate) converter: RowConverter,
    /// The columns that it compares.
    pub(crate) columns: Vec<usize>,
}

/// Results.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub(crate) rows: RecordBatch,
    /// The end of each, ascending.
    pub(crate) ends: Vec<i64>,
}
