//! The catalog's entry for a stream or a materialized view.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableProvider};
use datafusion::common::{Constraints, Result, Statistics, internal_err};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::WindowSpec;

/// A column that carries event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventTime {
    /// Index of the column.
    pub column: usize,
    /// How far its values may lie behind the watermark, in ticks of the column: after the watermark W no row has a
    /// value below `W - lag_ticks`.
    pub lag_ticks: i64,
    /// Whether the value determines the end of the row's window, so that a row at exactly `W - lag_ticks` is finished
    /// as well; otherwise only rows below it are.
    pub closes: bool,
    /// How the value determines the end of the row's window, if it does.
    pub to_end: Option<ToEnd>,
}

/// How a value determines the end of a row's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToEnd {
    /// The end is this many ticks later.
    Ticks(i64),
    /// The value is the start of one of these windows, whose lengths differ.
    CalendarWindow(WindowSpec),
}

/// The name of the hidden column with the position of a row: see
/// [`positions`](super::positions).
pub const POSITION_COLUMN: &str = "__position";

/// A stream or a materialized view, for the planner.
///
/// The provider of its present contents has one column more than its schema: the index after the last is that of
/// [`POSITION_COLUMN`].
///
/// A bounded plan scans it through that provider. A continuous plan never scans it:
/// [`continuous`](super::continuous) replaces it by a leaf.
#[derive(Debug, Clone)]
pub struct StreamRelation {
    name: String,
    schema: SchemaRef,
    event_times: Vec<EventTime>,
    bounded: Arc<dyn TableProvider>,
    /// Whether the hidden column is visible, as the last of `schema`.
    positions: bool,
}

impl StreamRelation {
    /// A stream called `name`, whose columns `event_times` carry event time; `bounded` reads its present contents, with
    /// the same schema.
    pub fn new(
        name: String,
        schema: SchemaRef,
        event_times: Vec<EventTime>,
        bounded: Arc<dyn TableProvider>,
    ) -> Self {
        Self { name, schema, event_times, bounded, positions: false }
    }

    /// Its name in the catalog.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same stream with other present contents of the same schema.
    #[must_use]
    pub fn with_contents(&self, bounded: Arc<dyn TableProvider>) -> Self {
        Self { bounded, ..self.clone() }
    }

    /// The same stream with the hidden column after its own.
    #[must_use]
    pub(crate) fn with_positions(&self) -> Self {
        let mut fields = self.schema.fields().to_vec();
        if !self.positions {
            fields.push(Arc::new(Field::new(POSITION_COLUMN, DataType::UInt64, false)));
        }
        Self { schema: Arc::new(Schema::new(fields)), positions: true, ..self.clone() }
    }

    /// The index of the hidden column, if it is visible.
    pub fn position(&self) -> Option<usize> {
        self.schema.fields().len().checked_sub(1).filter(|_| self.positions)
    }

    /// Whether its rows come with windows.
    pub fn has_windows(&self) -> bool {
        self.window().is_some()
    }

    /// The column that identifies the windows of its rows most directly, and how; `None` if they have none. (If the
    /// first event time identifies no window, rows arrive one by one, and some of them late.)
    pub(crate) fn window(&self) -> Option<(&EventTime, ToEnd)> {
        self.event_times.first()?.to_end?;
        let told = self.event_times.iter().filter_map(|time| Some((time, time.to_end?)));
        told.min_by_key(|(_, to_end)| match to_end {
            ToEnd::Ticks(1) => 0,
            ToEnd::Ticks(0) => 1,
            ToEnd::Ticks(_) => 2,
            ToEnd::CalendarWindow(_) => 3,
        })
    }

    /// Its columns that carry event time.
    pub fn event_times(&self) -> &[EventTime] {
        &self.event_times
    }
}

#[async_trait]
impl TableProvider for StreamRelation {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.bounded.constraints()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.bounded.get_column_default(column)
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let projection = projection.or(self.positions.then_some(&all));
        self.bounded.scan(state, projection, filters, limit).await
    }

    async fn scan_with_args<'a>(
        &self,
        state: &dyn Session,
        args: ScanArgs<'a>,
    ) -> Result<ScanResult> {
        if self.positions && args.projection().is_none() {
            let all: Vec<usize> = (0..self.schema.fields().len()).collect();
            let args = args.with_projection(Some(&all));
            return self.bounded.scan_with_args(state, args).await;
        }
        self.bounded.scan_with_args(state, args).await
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        self.bounded.supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.bounded.statistics()
    }

    async fn insert_into(
        &self,
        state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        insert_op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.bounded.insert_into(state, input, insert_op).await
    }
}

/// A [`StreamRelation`] within a plan that is becoming continuous. It accepts no filters from the optimiser, so that
/// these remain above it, and it is never scanned.
#[derive(Debug, Clone)]
pub(crate) struct ContinuousScan(pub(crate) Arc<StreamRelation>);

#[async_trait]
impl TableProvider for ContinuousScan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        internal_err!("stream \"{}\" of a continuous plan is scanned", self.0.name)
    }
}
