//! Streams as tables for bounded queries: with the same decoding and the same checks as in a continuous query, but none
//! of its windows.
//!
//! A log is read by `log`, a connector by `source`; both are `Contents` of one `Table`.

mod log;
mod source;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::PartitionId;
use windrow_sql::plan::{POSITION_COLUMN, positions};

pub(crate) use self::log::LogContents;
pub(crate) use self::source::SourceContents;

/// Rows of a stream that a bounded query does not read.
#[derive(Debug, Clone, Default)]
pub struct LeftOut {
    /// Of a log: all rows before this offset.
    pub before: Option<u64>,
    /// Of a log: all rows from this offset on.
    pub from: Option<u64>,
    /// Single rows.
    pub rows: BTreeSet<(PartitionId, u64)>,
}

impl LeftOut {
    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.before.or(self.from).is_none()
    }

    /// Returns those of `rows` that are not left out; row `i` has the offset `offset(i)`.
    fn apply(
        &self,
        rows: RecordBatch,
        partition: PartitionId,
        offset: impl Fn(usize) -> u64,
    ) -> windrow_core::Result<RecordBatch> {
        if self.is_empty() {
            return Ok(rows);
        }
        let held = self.before.unwrap_or(0)..self.from.unwrap_or(u64::MAX);
        let keep = BooleanArray::from_iter((0..rows.num_rows()).map(|row| {
            let at = offset(row);
            Some(held.contains(&at) && !self.rows.contains(&(partition, at)))
        }));
        Ok(filter_record_batch(&rows, &keep)?)
    }
}

/// The contents of a stream for a bounded query.
#[async_trait]
pub(crate) trait Contents: Debug + Send + Sync {
    fn schema(&self) -> SchemaRef;

    /// Plans a scan.
    ///
    /// # Errors
    /// When the stream cannot be read.
    async fn scan(&self, call: ScanCall<'_>) -> Result<Arc<dyn ExecutionPlan>>;
}

/// The arguments of a scan by DataFusion.
#[derive(Clone, Copy)]
pub(crate) struct ScanCall<'a> {
    state: &'a dyn Session,
    projection: Option<&'a Vec<usize>>,
    filters: &'a [Expr],
    limit: Option<usize>,
}

impl ScanCall<'_> {
    fn batch_rows_max(&self) -> usize {
        self.state.config().batch_size()
    }

    /// The number of partitions that a plan should have.
    fn partitions(&self) -> usize {
        self.state.config().target_partitions()
    }
}

/// The contents of a stream as a table of DataFusion.
#[derive(Debug)]
pub(crate) struct Table<C>(pub(crate) C);

#[async_trait]
impl<C: Contents + 'static> TableProvider for Table<C> {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // Archives and readers skip rows by their statistics; a tail skips none.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.scan(ScanCall { state, projection, filters, limit }).await
    }
}

/// The columns that are read, and whether the hidden column with positions follows them.
struct Wanted {
    columns: Vec<usize>,
    positions: bool,
}

impl Wanted {
    fn of(projection: Option<&Vec<usize>>, schema: &SchemaRef) -> Self {
        let all = schema.fields().len();
        let mut columns = projection.cloned().unwrap_or_else(|| (0..all).collect());
        // It is the last: the planner keeps columns in their order.
        let positions = columns.last() == Some(&all);
        if positions {
            columns.pop();
        }
        Self { columns, positions }
    }

    fn schema(&self, schema: &SchemaRef) -> Result<SchemaRef> {
        let mut fields = schema.project(&self.columns)?.fields().to_vec();
        fields.extend(self.positions.then(|| Arc::new(position_field())));
        Ok(Arc::new(Schema::new(fields)))
    }
}

fn position_field() -> Field {
    Field::new(POSITION_COLUMN, DataType::UInt64, false)
}

/// Appends the hidden column with the positions of the rows, from which samples are taken. It fails only for a bug in
/// Windrow.
pub fn with_positions(
    rows: &RecordBatch,
    partition: &str,
    offset: impl Fn(usize) -> u64,
) -> windrow_core::Result<RecordBatch> {
    let column = positions(partition, (0..rows.num_rows()).map(offset));
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(position_field()));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(column));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Wraps one of Windrow's errors, to pass through DataFusion.
pub fn outside(error: windrow_core::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
