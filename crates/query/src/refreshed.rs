//! A reference table that is loaded again at an interval: its newest version, and the outcome of the last attempt to load
//! it. The caller loads it; queries take versions from here (see [`crate::versions`]).
//!
//! Invariants: versions are numbered from 1 without gaps; a version differs from the one before it in its rows; a failed
//! attempt leaves the version as it is.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, Result as EngineResult};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use windrow_core::{Error, ErrorKind, Result};

use crate::reference::digest;

/// What the planning functions of [`TableProvider`] return.
type Planned<'a> = BoxFuture<'a, EngineResult<Arc<dyn ExecutionPlan>>>;

/// A version of a reference table.
#[derive(Debug)]
pub struct TableVersion {
    /// When it was loaded, in µs since the Unix epoch.
    pub loaded_micros: i64,
    /// Its rows, with all columns.
    pub batches: Vec<RecordBatch>,
    /// The [digest] of its rows.
    pub digest: u64,
    /// The memory of its rows; `None`: they are counted elsewhere.
    memory: Option<MemoryReservation>,
}

impl TableVersion {
    /// Returns a version.
    ///
    /// # Errors
    /// When a column cannot be compared.
    pub fn try_new(
        loaded_micros: i64,
        batches: Vec<RecordBatch>,
        memory: Option<MemoryReservation>,
    ) -> Result<Self> {
        let digest = digest(&batches)?;
        Ok(Self { loaded_micros, batches, digest, memory })
    }

    /// The number of its rows.
    pub fn rows(&self) -> u64 {
        self.batches.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    /// The memory of its rows, in bytes.
    pub fn bytes(&self) -> usize {
        let arrays = || self.batches.iter().map(RecordBatch::get_array_memory_size).sum();
        self.memory.as_ref().map_or_else(arrays, MemoryReservation::size)
    }
}

/// What is known of a refreshed table.
#[derive(Debug, Clone, Default)]
pub struct RefreshState {
    /// The newest version; `None`: it has never been loaded.
    pub version: Option<Arc<TableVersion>>,
    /// How many versions there have been since the table was opened.
    pub versions: u64,
    /// When its files were last checked, in µs since the Unix epoch.
    pub checked_micros: Option<i64>,
    /// The error of the last attempt, if it failed.
    pub last_error: Option<Arc<Error>>,
    /// What identified the content of the files when they were loaded last.
    pub fingerprint: Option<String>,
}

/// A reference table that is loaded again at an interval.
#[derive(Debug)]
pub struct RefreshedTable {
    name: String,
    every: Duration,
    files: Arc<dyn TableProvider>,
    state: Mutex<RefreshState>,
}

impl RefreshedTable {
    /// Returns a table that has not been loaded. `files`: what it is loaded from, at the interval `every`.
    pub fn new(name: &str, every: Duration, files: Arc<dyn TableProvider>) -> Self {
        Self { name: name.to_owned(), every, files, state: Mutex::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often its files are checked.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// What it is loaded from.
    pub fn files(&self) -> &Arc<dyn TableProvider> {
        &self.files
    }

    /// What is known of it now.
    pub fn state(&self) -> RefreshState {
        self.state.lock().clone()
    }

    /// Its newest version.
    ///
    /// # Errors
    /// When it has never been loaded.
    pub fn current(&self) -> Result<Arc<TableVersion>> {
        let state = self.state.lock();
        state.version.clone().ok_or_else(|| {
            let why = state.last_error.as_ref().map_or_else(String::new, |e| format!(": {e}"));
            let message = format!("table \"{}\" has not been loaded yet{why}", self.name);
            Error::new(ErrorKind::Unavailable, message)
                .with_hint("It is loaded again at its next refresh; see windrow.tables.")
        })
    }

    /// Notes that its files were checked, and have not changed.
    pub fn unchanged(&self, now_micros: i64) {
        let mut state = self.state.lock();
        state.checked_micros = Some(now_micros);
        state.last_error = None;
    }

    /// Notes that it could not be loaded.
    pub fn failed(&self, now_micros: i64, error: Error) {
        let mut state = self.state.lock();
        state.checked_micros = Some(now_micros);
        state.last_error = Some(Arc::new(error));
    }

    /// Takes what was loaded from files with this fingerprint. Equal rows are not a new version.
    pub fn loaded(&self, version: TableVersion, fingerprint: Option<String>) {
        let mut state = self.state.lock();
        state.checked_micros = Some(version.loaded_micros);
        state.last_error = None;
        state.fingerprint = fingerprint;
        if state.version.as_ref().is_some_and(|now| now.is_same(&version)) {
            return;
        }
        state.version = Some(Arc::new(version));
        state.versions += 1;
    }

    fn scan_now(&self, projection: Option<&Vec<usize>>) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let version = self.current().map_err(|e| DataFusionError::External(Box::new(e)))?;
        let rows = [version.batches.clone()];
        Ok(MemorySourceConfig::try_new_exec(&rows, self.files.schema(), projection.cloned())?)
    }
}

impl TableVersion {
    /// Whether both have the same rows, in any order.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.rows() == other.rows()
    }
}

/// A refreshed table for the planner: a bounded query reads its newest version.
#[derive(Debug)]
pub struct RefreshedRelation(pub Arc<RefreshedTable>);

impl TableProvider for RefreshedRelation {
    fn schema(&self) -> SchemaRef {
        self.0.files.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.0.files.get_column_default(column)
    }

    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        _: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _: &'d [Expr],
        _: Option<usize>,
    ) -> Planned<'f>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
        Self: 'f,
    {
        Box::pin(std::future::ready(self.0.scan_now(projection)))
    }

    fn insert_into<'a, 'b, 'f>(
        &'a self,
        state: &'b dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Planned<'f>
    where
        'a: 'f,
        'b: 'f,
        Self: 'f,
    {
        // The files are read at the next refresh, like any other change of them.
        self.0.files.insert_into(state, input, op)
    }
}
