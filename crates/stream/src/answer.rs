//! The current rows of a view with an updating result.
//!
//! Changes are staged as they arrive, and become visible together at the end of an emission.
//!
//! Invariant: a reader sees all changes of an emission or none.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as PlanResult;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use parking_lot::Mutex;
use windrow_core::{Error, Result};
use windrow_operators::Answer;
use windrow_sql::diagnostics::from_datafusion;

use crate::log::StreamLog;

/// The number of changes that the log keeps for readers that are behind.
const CHANGES_KEPT: u64 = 1 << 18;

/// The current rows of a view.
#[derive(Debug)]
pub struct LiveAnswer {
    schema: SchemaRef,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    answer: Answer,
    staged: Vec<RecordBatch>,
    /// The bytes of its rows, reserved as long as the view exists.
    memory: MemoryReservation,
}

impl LiveAnswer {
    /// An answer without rows. `changes`: the columns of the changelog, the change column first; `key`: the key columns,
    /// numbered without the change column, see [`Answer::new`]; `memory`: the reservation that its rows count in.
    ///
    /// # Errors
    /// When values of the key cannot be compared.
    pub fn new(changes: &Schema, key: Option<&[usize]>, memory: MemoryReservation) -> Result<Self> {
        let fields: Vec<_> = changes.fields().iter().skip(1).cloned().collect();
        let schema = Arc::new(Schema::new(fields));
        let answer = Answer::new(Arc::clone(&schema), key)?;
        Ok(Self { schema, state: Mutex::new(State { answer, staged: vec![], memory }) })
    }

    /// The columns of its rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Stages changes, which the next commit makes visible.
    pub fn stage(&self, changes: RecordBatch) {
        self.state.lock().staged.push(changes);
    }

    /// Makes the staged changes visible, and drops old changes from `log`, which also contains them.
    ///
    /// # Errors
    /// When the rows take more memory than there is; Internal when the changes do not belong to this answer.
    pub fn commit(&self, log: &StreamLog) -> Result<()> {
        let mut state = self.state.lock();
        let staged = std::mem::take(&mut state.staged);
        let Some(first) = staged.first() else { return Ok(()) };
        // As one batch: each `apply` may have to rewrite earlier chunks.
        state.answer.apply(&concat_batches(&first.schema(), &staged)?)?;
        let bytes = state.answer.size_bytes();
        state.memory.try_resize(bytes).map_err(from_datafusion)?;
        drop(state);
        let old = log.state().rows.saturating_sub(CHANGES_KEPT);
        log.hide_before(old);
        log.release_before(old);
        Ok(())
    }

    /// Returns the rows that are visible now.
    ///
    /// # Errors
    /// When they cannot be gathered.
    pub fn rows(&self) -> Result<Vec<RecordBatch>> {
        self.state.lock().answer.rows()
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        self.state.lock().answer.size_bytes()
    }
}

/// A view with an updating result, as a table of its current rows.
#[derive(Debug)]
pub struct AnswerTable {
    answer: Arc<LiveAnswer>,
    log: Arc<StreamLog>,
}

impl AnswerTable {
    /// The rows of `answer`, whose changes are in `log`.
    pub fn new(answer: Arc<LiveAnswer>, log: Arc<StreamLog>) -> Self {
        Self { answer, log }
    }
}

#[async_trait]
impl TableProvider for AnswerTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.answer.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let external = |error: Error| DataFusionError::External(Box::new(error));
        if let Some(error) = self.log.failed() {
            return Err(external(error));
        }
        let rows = self.answer.rows().map_err(external)?;
        let table = MemTable::try_new(self.schema(), vec![rows])?;
        table.scan(state, projection, filters, limit).await
    }
}
