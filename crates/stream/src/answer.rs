//! The current rows of a view with an updating result.
//!
//! Changes are staged as they arrive, and become visible together at the end of an emission. The log of the view has the
//! changes; in a data directory, checkpoints have the rows.
//!
//! Invariants: a reader sees all changes of an emission or none; the visible rows are the changes of the log before
//! [`CurrentRows::sequence`], folded.

use std::fmt;
use std::sync::{Arc, Weak};

use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as PlanResult;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use parking_lot::Mutex;
use windrow_core::{Error, Result};
use windrow_operators::{Answer, Cut, SavedState};
use windrow_sql::diagnostics::from_datafusion;

use crate::log::StreamLog;

/// The number of changes that the log keeps for readers that are behind.
const CHANGES_KEPT: u64 = 1 << 18;

/// A reader of all changes, which are kept until it has them.
pub trait ReadsChanges: fmt::Debug + Send + Sync {
    /// Returns the number of changes that it does not need any more.
    fn has_read(&self) -> u64;
}

/// The current rows of a view.
#[derive(Debug)]
pub struct LiveAnswer {
    schema: SchemaRef,
    readers: Mutex<Vec<Weak<dyn ReadsChanges>>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    answer: Answer,
    staged: Vec<RecordBatch>,
    /// The number of changes in the log that `answer` contains.
    sequence: u64,
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
        Ok(Self {
            schema,
            readers: Mutex::default(),
            state: Mutex::new(State { answer, staged: vec![], sequence: 0, memory }),
        })
    }

    /// Keeps all changes that `reader` has not read, as long as it exists.
    pub fn keep_for<R: ReadsChanges + 'static>(&self, reader: &Arc<R>) {
        let reader: Weak<R> = Arc::downgrade(reader);
        self.readers.lock().push(reader);
    }

    /// Returns the number of changes that all readers have read.
    fn read_by_all(&self) -> u64 {
        let mut readers = self.readers.lock();
        readers.retain(|reader| reader.strong_count() > 0);
        let read = readers.iter().filter_map(|reader| Some(reader.upgrade()?.has_read()));
        read.min().unwrap_or(u64::MAX)
    }

    /// The names of the columns of its key; `None`: rows are removed by value.
    pub fn key(&self) -> Option<Vec<String>> {
        let state = self.state.lock();
        let name = |column: &usize| self.schema.field(*column).name().clone();
        state.answer.key().map(|key| key.iter().map(name).collect())
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
        let sequence = log.state().rows;
        state.sequence = sequence;
        state.measure()?;
        drop(state);
        let old = sequence.saturating_sub(CHANGES_KEPT).min(self.read_by_all());
        log.hide_before(old);
        log.release_before(old);
        Ok(())
    }

    /// Returns the rows that are visible now. They are copied; `pool` counts the copy.
    ///
    /// # Errors
    /// When they take more memory than there is, or cannot be gathered.
    pub fn rows(&self, pool: &Arc<dyn MemoryPool>) -> Result<CurrentRows> {
        let held = MemoryConsumer::new("the current rows of a view").register(pool);
        let state = self.state.lock();
        // About what the copy will take: the rows are a part of that.
        held.try_grow(state.answer.copy_bytes()).map_err(from_datafusion)?;
        let batches = state.answer.rows()?;
        let sequence = state.sequence;
        drop(state);
        held.try_resize(batches.iter().map(RecordBatch::get_array_memory_size).sum())
            .map_err(from_datafusion)?;
        Ok(CurrentRows { batches, sequence, held: Arc::new(held) })
    }

    /// The number of rows that are visible now.
    pub fn len(&self) -> u64 {
        self.state.lock().answer.len()
    }

    /// Whether no rows are visible now.
    pub fn is_empty(&self) -> bool {
        self.state.lock().answer.is_empty()
    }

    /// Returns what a checkpoint needs of the rows, between two emissions.
    ///
    /// # Errors
    /// Internal during an emission; when the rows cannot be gathered.
    pub fn cut(&self) -> Result<Cut> {
        let mut state = self.state.lock();
        if !state.staged.is_empty() {
            return Err(Error::internal("a cut during an emission"));
        }
        state.answer.cut()
    }

    /// Restores the rows from a cut at which the log had `sequence` changes. There are none before.
    ///
    /// # Errors
    /// Corrupt when a segment cannot belong to such a cut; when the rows take more memory than there is.
    pub fn restore(&self, saved: SavedState<'_>, sequence: u64) -> Result<()> {
        let mut state = self.state.lock();
        state.answer.restore(saved)?;
        state.sequence = sequence;
        state.measure()
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        self.state.lock().answer.size_bytes()
    }
}

impl State {
    /// Reserves the memory of the rows.
    fn measure(&self) -> Result<()> {
        self.memory.try_resize(self.answer.size_bytes()).map_err(from_datafusion)
    }
}

/// The current rows of a view at one moment.
#[derive(Debug, Clone)]
pub struct CurrentRows {
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// The number of changes in the log of the view that they contain.
    pub sequence: u64,
    /// The memory of the rows.
    held: Arc<MemoryReservation>,
}

/// Current rows as a partition of a plan, which holds their memory.
#[derive(Debug)]
struct HeldRows {
    schema: SchemaRef,
    rows: CurrentRows,
}

impl PartitionStream for HeldRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let CurrentRows { batches, held, .. } = self.rows.clone();
        // The memory counts as long as the stream.
        let next = |(mut left, held): (std::vec::IntoIter<RecordBatch>, Arc<MemoryReservation>)| {
            std::future::ready(left.next().map(|batch| (Ok(batch), (left, held))))
        };
        let rows = futures::stream::unfold((batches.into_iter(), held), next);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
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
        _: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let external = |error: Error| DataFusionError::External(Box::new(error));
        if let Some(error) = self.log.failed() {
            return Err(external(error));
        }
        let rows = self.answer.rows(&state.runtime_env().memory_pool).map_err(external)?;
        let schema = self.schema();
        let partition = Arc::new(HeldRows { schema: Arc::clone(&schema), rows });
        let plan =
            StreamingTableExec::try_new(schema, vec![partition], projection, None, false, limit)?;
        Ok(Arc::new(plan))
    }
}
