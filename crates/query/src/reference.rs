//! Reference tables of a continuous query: read when it begins, so that no micro-batch reads their files again, and
//! held as long as it runs.
//!
//! Invariants: a table is read once however many plans of the query name it, so all of them see the same rows; its rows
//! count in the memory of the query and of the engine, batch by batch as they are read. The rows of a table in memory
//! belong to that table, and are not counted twice.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::datasource::{MemTable, provider_as_source, source_as_provider};
use datafusion::execution::SessionState;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::{LogicalPlan, TableScan, TableScanBuilder};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::leaf::LeafTable;
use windrow_stream::memory::display;

use crate::runner::RunBytes;

/// The reference tables that a query has read.
#[derive(Debug, Default)]
pub(crate) struct ReferenceTables(Vec<Held>);

#[derive(Debug)]
struct Held {
    scan: TableScan,
    rows: Vec<RecordBatch>,
    /// Their memory, reserved as long as the query runs.
    memory: MemoryReservation,
}

impl ReferenceTables {
    /// Replaces the tables of a plan by their current rows, which are read at their first use.
    ///
    /// # Errors
    /// When a table cannot be read, or all together take more memory than a query may.
    pub(crate) async fn pin(
        &mut self,
        state: &SessionState,
        plan: LogicalPlan,
    ) -> Result<LogicalPlan> {
        let mut scans = Vec::new();
        plan.apply(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && !is_leaf(scan)
            {
                scans.push(scan.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(from_datafusion)?;
        if scans.is_empty() {
            return Ok(plan);
        }
        let mut pinned = Vec::with_capacity(scans.len());
        for scan in scans {
            pinned.push(self.table(state, scan).await?);
        }
        let mut pinned = pinned.into_iter();
        plan.transform_down(|node| match node {
            LogicalPlan::TableScan(scan) if !is_leaf(&scan) => match pinned.next() {
                Some(table) => Ok(Transformed::yes(table)),
                None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
            },
            node => Ok(Transformed::no(node)),
        })
        .map(|t| t.data)
        .map_err(from_datafusion)
    }

    async fn table(&mut self, state: &SessionState, scan: TableScan) -> Result<LogicalPlan> {
        // Table functions have the same name whatever their arguments.
        let same = |held: &&Held| held.scan == scan && Arc::ptr_eq(&held.scan.source, &scan.source);
        let rows = match self.0.iter().find(same) {
            Some(held) => held.rows.clone(),
            None => {
                let taken = self.0.iter().map(|held| held.memory.size()).sum();
                let (rows, memory) = rows_of_table(state, &scan, taken).await?;
                self.0.push(Held { scan: scan.clone(), rows: rows.clone(), memory });
                rows
            }
        };
        let schema = Arc::clone(scan.projected_schema.inner());
        let table = MemTable::try_new(schema, vec![rows]).map_err(from_datafusion)?;
        let table: Arc<dyn TableProvider> = Arc::new(table);
        let scan = TableScanBuilder::new(scan.table_name, provider_as_source(table)).build();
        scan.map(LogicalPlan::TableScan).map_err(from_datafusion)
    }

    /// The tables, with the [digests](digest) of their rows.
    ///
    /// # Errors
    /// When a column cannot be compared.
    pub(crate) fn digests(&self) -> Result<Vec<(TableScan, u64)>> {
        let each = self.0.iter().map(|held| Ok((held.scan.clone(), digest(&held.rows)?)));
        each.collect()
    }
}

/// Reads a reference table; `taken`: the bytes of the query's other tables. The rows count as long as the returned
/// reservation exists.
///
/// # Errors
/// When it cannot be read, or takes more memory than there is.
pub async fn rows_of_table(
    state: &SessionState,
    scan: &TableScan,
    taken: usize,
) -> Result<(Vec<RecordBatch>, MemoryReservation)> {
    let bytes_max = state.config().get_extension::<RunBytes>().map_or(usize::MAX, |bytes| bytes.0);
    let name = scan.table_name.table();
    let memory = MemoryConsumer::new(format!("reference table \"{name}\""))
        .register(&state.runtime_env().memory_pool);
    let in_memory = source_as_provider(&scan.source).is_ok_and(|table| table.is::<MemTable>());
    let plan = LogicalPlan::TableScan(scan.clone());
    let plan = state.query_planner().create_physical_plan(&plan, state).await;
    let mut batches = execute_stream(plan.map_err(from_datafusion)?, state.task_ctx())
        .map_err(from_datafusion)?;
    let mut counter = RecordBatchMemoryCounter::new();
    let mut rows = vec![];
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(from_datafusion)?;
        if !in_memory {
            counter.count_batch(&batch);
            let bytes = counter.memory_usage();
            if bytes.saturating_add(taken) > bytes_max {
                return Err(too_large(name, bytes_max));
            }
            memory.try_resize(bytes).map_err(from_datafusion)?;
        }
        rows.push(batch);
    }
    Ok((rows, memory))
}

fn too_large(name: &str, bytes_max: usize) -> Error {
    let message = format!(
        "the rows of table \"{name}\", which a continuous query holds in memory, exceed the memory of a query \
         (--query-memory, {})",
        display(bytes_max)
    );
    Error::new(ErrorKind::Limit, message).with_hint(
        "Put the columns and rows that the query needs into a smaller table (CREATE TABLE … AS), or raise --query-memory.",
    )
}

/// Returns a hash of the rows that does not depend on their order.
///
/// # Errors
/// When a column cannot be compared.
pub fn digest(rows: &[RecordBatch]) -> Result<u64> {
    let mut digest = 0_u64;
    for batch in rows {
        let mut hashes = vec![0; batch.num_rows()];
        if batch.num_columns() > 0 {
            create_hashes(batch.columns(), &RandomState::default(), &mut hashes)
                .map_err(from_datafusion)?;
        }
        digest = hashes.iter().fold(digest, |sum, hash| sum.wrapping_add(hash | 1));
    }
    Ok(digest)
}

fn is_leaf(scan: &TableScan) -> bool {
    source_as_provider(&scan.source).is_ok_and(|p| p.downcast_ref::<LeafTable>().is_some())
}
