//! Where rows enter a plan that runs once per micro-batch or per closed window.
//!
//! In a logical plan, a [`LeafTable`] takes the place of rows that come later. Its physical node reads them from the
//! [`LeafInputs`] that the *task context* carries, so that one physical plan serves all workers: each has its own task
//! context and its own inputs.
//!
//! Invariant: a leaf reads its inputs until they are replaced or cleared (one plan may scan a leaf twice); without
//! inputs it is empty. Nothing here waits.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, exec_err, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
    ReplaceChildrenOptions,
};
use windrow_operators::WindowRows;

/// The id of a leaf within a continuous plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeafId(pub usize);

impl fmt::Display for LeafId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leaf_{}", self.0)
    }
}

/// The batches that leaves read next. There is one per worker, carried by its task context as an extension of the
/// session's configuration: `SessionConfig::with_extension(Arc::new(inputs))`.
#[derive(Debug, Default)]
pub struct LeafInputs(Mutex<BTreeMap<LeafId, Input>>);

#[derive(Debug)]
enum Input {
    Batches(Vec<RecordBatch>),
    Windows(Vec<WindowRows>),
}

impl LeafInputs {
    /// Without batches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the batches that `leaf` reads from now on.
    pub fn set(&self, leaf: LeafId, batches: Vec<RecordBatch>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(leaf, Input::Batches(batches));
    }

    /// Sets the windows whose rows `leaf` reads from now on; the rows are computed on demand.
    pub fn set_windows(&self, leaf: LeafId, windows: Vec<WindowRows>) {
        let mut inputs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.insert(leaf, Input::Windows(windows));
    }

    /// Clears all inputs, so that all leaves are empty.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn open(
        &self,
        leaf: LeafId,
        schema: &SchemaRef,
        projection: Option<Vec<usize>>,
    ) -> Result<SendableRecordBatchStream> {
        let inputs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let batches = match inputs.get(&leaf) {
            None => vec![],
            Some(Input::Batches(batches)) => batches.clone(),
            Some(Input::Windows(windows)) => {
                let rows = windows.clone().into_iter().flatten().map(move |batch| {
                    let batch = batch.map_err(|e| DataFusionError::External(Box::new(e)))?;
                    match &projection {
                        Some(columns) => Ok(batch.project(columns)?),
                        None => Ok(batch),
                    }
                });
                let rows = futures::stream::iter(rows);
                return Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows)));
            }
        };
        Ok(Box::pin(MemoryStream::try_new(batches, Arc::clone(schema), projection)?))
    }
}

/// The planner's guess at the rows of a leaf: a large micro-batch.
const ROWS_GUESS: usize = 1 << 16;

/// Rows that come later, as a table for the planner.
#[derive(Debug, Clone)]
pub struct LeafTable {
    id: LeafId,
    schema: SchemaRef,
    rows_guess: usize,
}

impl LeafTable {
    /// The leaf `id`, whose batches will have exactly `schema`.
    pub fn new(id: LeafId, schema: SchemaRef) -> Self {
        Self { id, schema, rows_guess: ROWS_GUESS }
    }

    /// The same leaf with another guess at its rows: joins build their hash table over the smaller side.
    #[must_use]
    pub fn with_rows_guess(self, rows_guess: usize) -> Self {
        Self { rows_guess, ..self }
    }

    /// Its id in [`LeafInputs`].
    pub fn id(&self) -> LeafId {
        self.id
    }
}

#[async_trait]
impl TableProvider for LeafTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let leaf = LeafExec::try_new(self, projection.cloned())?;
        Ok(Arc::new(leaf))
    }
}

/// The physical form of a [`LeafTable`]: one partition, bounded.
#[derive(Debug)]
pub struct LeafExec {
    id: LeafId,
    projection: Option<Vec<usize>>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    rows_guess: usize,
}

impl LeafExec {
    fn try_new(table: &LeafTable, projection: Option<Vec<usize>>) -> Result<Self> {
        let schema = match &projection {
            Some(columns) => Arc::new(table.schema.project(columns)?),
            None => Arc::clone(&table.schema),
        };
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let (id, rows_guess) = (table.id, table.rows_guess);
        Ok(Self { id, projection, schema, properties: Arc::new(properties), rows_guess })
    }
}

impl DisplayAs for LeafExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeafExec: {}", self.id)
    }
}

impl ExecutionPlan for LeafExec {
    fn name(&self) -> &'static str {
        "LeafExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a leaf has no children") }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("a leaf has no children") }
    }

    fn partition_statistics(&self, _partition: Option<usize>) -> Result<Arc<Statistics>> {
        let mut guess = Statistics::new_unknown(&self.schema);
        guess.num_rows = Precision::Inexact(self.rows_guess);
        let bytes = self.rows_guess.saturating_mul(8 * self.schema.fields().len().max(1));
        guess.total_byte_size = Precision::Inexact(bytes);
        Ok(Arc::new(guess))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a leaf has one partition, not {}", partition + 1);
        }
        let Some(inputs) = context.session_config().get_extension::<LeafInputs>() else {
            return exec_err!("{} is executed without inputs in its task context", self.id);
        };
        inputs.open(self.id, &self.schema, self.projection.clone())
    }
}
