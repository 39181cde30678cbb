//! The versions of refreshed reference tables that one query uses, and the event times from which each counts.
//!
//! A version that is found between two micro-batches counts for rows that are later than every row and every end of
//! windows the query has processed. From then on the event time of a row alone decides which version it is joined with:
//! neither the order of rows, nor batches, threads or a later version change that. Rows before the first version's time
//! are joined with the first.
//!
//! Invariant: a version is in the list, and recorded where the query is durable, before a row is joined with it.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{LogicalPlan, TableScan};
use futures::future::BoxFuture;
use tokio::sync::Mutex;
use windrow_core::time::{ticks_per_second, time_unit};
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::leaf::{LeafId, LeafTable};
use windrow_sql::plan::{LeafSource, RowsFlow};
use windrow_stream::intake::ticks;

use crate::refreshed::{RefreshedRelation, RefreshedTable, TableVersion};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// The number of versions that a query without a name keeps: it cannot be recomputed.
const KEPT_UNNAMED: usize = 16;

/// A version in the list of a query.
#[derive(Debug, Clone)]
pub struct Counted {
    /// The event time from which it counts, in µs since the Unix epoch; `i64::MIN`: from the beginning.
    pub from_micros: i64,
    /// The version.
    pub version: Arc<TableVersion>,
}

/// The versions that a query uses of one table, in order of time; never empty.
#[derive(Debug, Clone)]
pub struct OfTable {
    /// The table.
    pub table: Arc<RefreshedTable>,
    /// Its versions.
    pub versions: Vec<Counted>,
}

/// Where a durable query records its versions.
pub trait Recorder: Debug + Send + Sync {
    /// Returns the versions of a table that are recorded, in order; the first one counts from the beginning.
    fn recorded<'a>(&'a self, table: &'a str) -> BoxFuture<'a, Result<Vec<Counted>>>;

    /// Records another version of a table, durably.
    fn record<'a>(
        &'a self,
        table: &'a RefreshedTable,
        next: &'a Counted,
    ) -> BoxFuture<'a, Result<()>>;

    /// The event time up to which rows may have been joined before a restart, in µs; `None`: the query is new.
    fn reached(&self) -> Option<i64>;

    /// Records, durably, that rows up to this event time (µs) are about to be joined.
    fn reach(&self, micros: i64) -> BoxFuture<'_, Result<()>>;
}

/// The versions that a query uses of all its refreshed tables.
#[derive(Debug)]
pub struct Versions {
    /// Whether the query is that of a view, which can be recomputed and keeps all versions.
    keeps_all: bool,
    bytes_max: usize,
    recorder: Option<Arc<dyn Recorder>>,
    state: Mutex<Reached>,
    shown: parking_lot::Mutex<Arc<Vec<OfTable>>>,
}

#[derive(Debug)]
struct Reached {
    /// The latest event time that rows have been joined at, in µs.
    micros: i64,
    tables: Arc<Vec<OfTable>>,
}

/// A scan of a refreshed table in a plan: its rows come with each run.
#[derive(Debug, Clone)]
pub(crate) struct VersionedLeaf {
    leaf: LeafId,
    /// The number of the table among those of the query.
    table: usize,
}

/// Rows for leaves of a plan.
pub(crate) type Inputs = Vec<(LeafId, Vec<RecordBatch>)>;

impl Versions {
    /// Returns the versions of the tables that a query scans: the recorded ones, or the current ones.
    ///
    /// # Errors
    /// When a table has never been loaded, or a record cannot be read or written.
    pub(crate) async fn open(
        tables: Vec<Arc<RefreshedTable>>,
        recorder: Option<Arc<dyn Recorder>>,
        (keeps_all, bytes_max): (bool, usize),
    ) -> Result<Self> {
        let mut all = Vec::with_capacity(tables.len());
        for table in tables {
            let mut versions = match &recorder {
                Some(recorder) => recorder.recorded(table.name()).await?,
                None => vec![],
            };
            let columns = |schema: &SchemaRef| -> Vec<(String, DataType)> {
                let fields = schema.fields().iter();
                fields.map(|field| (field.name().clone(), field.data_type().clone())).collect()
            };
            let now = columns(&table.files().schema());
            let mut batches = versions.iter().flat_map(|of| &of.version.batches);
            if batches.any(|batch| columns(&batch.schema()) != now) {
                let message = format!(
                    "table \"{}\" has other columns than its recorded versions",
                    table.name()
                );
                return Err(Error::sql(message).with_hint(
                    "Give the table its columns back, or drop the view and create it again.",
                ));
            }
            if versions.is_empty() {
                let first = Counted { from_micros: i64::MIN, version: table.current()? };
                if let Some(recorder) = &recorder {
                    recorder.record(&table, &first).await?;
                }
                versions.push(first);
            }
            all.push(OfTable { table, versions });
        }
        let tables = Arc::new(all);
        let micros = recorder.as_ref().and_then(|recorder| recorder.reached());
        Ok(Self {
            keeps_all,
            bytes_max,
            recorder,
            shown: parking_lot::Mutex::new(Arc::clone(&tables)),
            state: Mutex::new(Reached { micros: micros.unwrap_or(i64::MIN), tables }),
        })
    }

    /// The versions now, for display.
    pub fn shown(&self) -> Arc<Vec<OfTable>> {
        Arc::clone(&self.shown.lock())
    }

    /// Returns the versions for rows up to an event time (µs). Versions that are new count for later rows than any before.
    ///
    /// # Errors
    /// When a version cannot be recorded, or all of them take too much memory.
    pub(crate) async fn up_to(&self, micros: i64) -> Result<Arc<Vec<OfTable>>> {
        let mut state = self.state.lock().await;
        for at in 0..state.tables.len() {
            self.take_new(&mut state, at).await?;
        }
        if micros > state.micros {
            if let Some(recorder) = &self.recorder {
                recorder.reach(micros).await?;
            }
            state.micros = micros;
        }
        Ok(Arc::clone(&state.tables))
    }

    /// Divides rows with these event times (µs) by the versions that they are joined with: the rows of the tables, and the
    /// numbers of the rows.
    ///
    /// # Errors
    /// As [`up_to`](Self::up_to).
    pub(crate) async fn divide(
        &self,
        leaves: &[VersionedLeaf],
        micros: &[i64],
    ) -> Result<Vec<(Inputs, Vec<usize>)>> {
        let latest = micros.iter().copied().max().unwrap_or(i64::MIN);
        let tables = self.up_to(latest).await?;
        let parts = parts(leaves, &tables, micros).into_iter();
        Ok(parts.map(|(at, rows)| (rows_at(leaves, &tables, at), rows)).collect())
    }

    /// Adds the newest version of a table, if it is not the last one in the list.
    async fn take_new(&self, state: &mut Reached, at: usize) -> Result<()> {
        let Some(of) = state.tables.get(at) else { return Ok(()) };
        // One that has never been loaded in this process may have recorded versions.
        let Some(version) = of.table.state().version else { return Ok(()) };
        let Some(last) = of.versions.last() else { return Ok(()) };
        if Arc::ptr_eq(&last.version, &version) || last.version.is_same(&version) {
            return Ok(());
        }
        let from_micros = state.micros.saturating_add(1).max(last.from_micros.saturating_add(1));
        let next = Counted { from_micros, version };
        if let Some(recorder) = &self.recorder {
            recorder.record(&of.table, &next).await?;
        }
        let mut tables = state.tables.as_ref().clone();
        if let Some(of) = tables.get_mut(at) {
            of.versions.push(next);
            let surplus = of.versions.len().saturating_sub(KEPT_UNNAMED);
            if !self.keeps_all && surplus > 0 {
                of.versions.drain(..surplus);
            }
            check_memory(of, self.bytes_max)?;
        }
        state.tables = Arc::new(tables);
        *self.shown.lock() = Arc::clone(&state.tables);
        Ok(())
    }
}

/// Checks that the versions of a table take no more memory than a query may.
fn check_memory(of: &OfTable, bytes_max: usize) -> Result<()> {
    let bytes: usize = of.versions.iter().map(|counted| counted.version.bytes()).sum();
    if bytes <= bytes_max {
        return Ok(());
    }
    let message = format!(
        "the {} versions of table \"{}\" that the query holds exceed the memory of a query (--query-memory)",
        of.versions.len(),
        of.table.name()
    );
    Err(Error::new(ErrorKind::Limit, message).with_hint(
        "CREATE OR REPLACE the view, which then begins with the current version, refresh the table less often, or raise --query-memory.",
    ))
}

/// The number of the version that counts at an event time.
pub fn number_at(of: &OfTable, micros: i64) -> usize {
    of.versions.partition_point(|counted| counted.from_micros <= micros).saturating_sub(1)
}

/// Returns the rows of these leaves for rows at an event time.
pub(crate) fn rows_at(leaves: &[VersionedLeaf], tables: &[OfTable], micros: i64) -> Inputs {
    let rows = |leaf: &VersionedLeaf| {
        let of = tables.get(leaf.table)?;
        let counted = of.versions.get(number_at(of, micros))?;
        Some((leaf.leaf, counted.version.batches.clone()))
    };
    leaves.iter().filter_map(rows).collect()
}

/// Converts ticks to µs, rounded down.
pub(crate) fn micros(ticks: i64, unit: TimeUnit) -> i64 {
    let per_second = ticks_per_second(unit);
    if per_second > MICROS_PER_SECOND {
        ticks.div_euclid(per_second / MICROS_PER_SECOND)
    } else {
        ticks.saturating_mul(MICROS_PER_SECOND / per_second)
    }
}

/// The event times of the rows with the numbers `at` of a column, or of all, in µs; NULL is before all others.
///
/// # Errors
/// When the column has no times (a bug).
pub(crate) fn event_micros(column: &ArrayRef, at: Option<&[usize]>) -> Result<Vec<i64>> {
    let unit = time_unit(column.data_type());
    let unit = unit.ok_or_else(|| Error::internal("the event time has no unit"))?;
    let times = ticks(column)?;
    let of = |row: usize| match times.get(row).filter(|_| column.is_valid(row)) {
        Some(ticks) => micros(*ticks, unit),
        None => i64::MIN,
    };
    Ok(match at {
        Some(at) => at.iter().map(|row| of(*row)).collect(),
        None => (0..column.len()).map(of).collect(),
    })
}

/// Divides rows by the versions that they are joined with: for each part, the numbers of its rows, and an event time of
/// it. `micros`: the event times of the rows.
fn parts(leaves: &[VersionedLeaf], tables: &[OfTable], micros: &[i64]) -> Vec<(i64, Vec<usize>)> {
    let mut bounds: Vec<i64> = leaves
        .iter()
        .filter_map(|leaf| tables.get(leaf.table))
        .flat_map(|of| of.versions.iter().skip(1).map(|counted| counted.from_micros))
        .collect();
    bounds.sort_unstable();
    bounds.dedup();
    let mut parts: Vec<(i64, Vec<usize>)> = vec![];
    parts.resize_with(bounds.len() + 1, || (i64::MIN, vec![]));
    for (row, at) in micros.iter().enumerate() {
        if let Some((time, rows)) = parts.get_mut(bounds.partition_point(|from| from <= at)) {
            *time = *at;
            rows.push(row);
        }
    }
    parts.retain(|(_, rows)| !rows.is_empty());
    parts
}

/// Returns the rows with these numbers, which ascend.
pub(crate) fn picked(batch: &RecordBatch, rows: &[usize]) -> Result<RecordBatch> {
    if rows.len() == batch.num_rows() {
        return Ok(batch.clone());
    }
    let mut keep = vec![false; batch.num_rows()];
    for row in rows {
        if let Some(slot) = keep.get_mut(*row) {
            *slot = true;
        }
    }
    Ok(filter_record_batch(batch, &BooleanArray::from(keep))?)
}

/// The refreshed tables that the plans of a query scan, while it is being made.
#[derive(Debug, Default)]
pub(crate) struct Scans {
    pub(crate) tables: Vec<Arc<RefreshedTable>>,
    leaves: usize,
}

impl Scans {
    /// Replaces the scans of refreshed tables in a plan by leaves.
    ///
    /// # Errors
    /// When the plan cannot be rewritten (a bug).
    pub(crate) fn replace(
        &mut self,
        plan: LogicalPlan,
    ) -> Result<(LogicalPlan, Vec<VersionedLeaf>)> {
        let mut found = vec![];
        let replaced = plan.transform_down_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
            let Some(table) = refreshed(&scan) else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            let (leaf, guess) = self.leaf(&table);
            let rows = LeafTable::new(leaf.leaf, table.files().schema()).with_rows_guess(guess);
            found.push(leaf);
            let source = provider_as_source(Arc::new(rows));
            Ok(Transformed::new(
                LogicalPlan::TableScan(TableScan { source, ..scan }),
                true,
                TreeNodeRecursion::Continue,
            ))
        });
        Ok((replaced.map_err(from_datafusion)?.data, found))
    }

    /// Refuses refreshed tables in a plan. `what`: what they would be joined with.
    ///
    /// # Errors
    /// When there are some.
    pub(crate) fn refuse(&self, found: &[VersionedLeaf], what: &str) -> Result<()> {
        let Some(table) = found.first().and_then(|leaf| self.tables.get(leaf.table)) else {
            return Ok(());
        };
        let name = table.name();
        let message = format!("table \"{name}\" is refreshed, and cannot be joined {what}");
        Err(Error::sql(message).with_hint(
            "The event time of a row decides which version it is joined with: join the table with a stream that has a \
             WATERMARK, before or directly after its windows, or create the table without refresh.",
        ))
    }

    /// Checks that the rows of a plan with these scans have event times. `has_times`: whether those of a stream do.
    ///
    /// # Errors
    /// When they do not.
    pub(crate) fn check_times(
        &self,
        found: &[VersionedLeaf],
        flow: &RowsFlow,
        has_times: &dyn Fn(&str) -> Result<bool>,
    ) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        if flow.leaves.is_empty() {
            return self.refuse(found, "without rows of a stream");
        }
        for leaf in &flow.leaves {
            let LeafSource::Stream { relation, .. } = &leaf.from else {
                return self.refuse(found, "with the rows of another result");
            };
            let name = relation.name();
            if !has_times(name)? {
                self.refuse(found, &format!("with \"{name}\", whose rows have no event time"))?;
            }
        }
        Ok(())
    }

    /// Returns another leaf for a table, and a guess at its rows.
    fn leaf(&mut self, table: &Arc<RefreshedTable>) -> (VersionedLeaf, usize) {
        let same = |other: &Arc<RefreshedTable>| Arc::ptr_eq(other, table);
        let at = self.tables.iter().position(same).unwrap_or_else(|| {
            self.tables.push(Arc::clone(table));
            self.tables.len() - 1
        });
        // The planner numbers its leaves from 0.
        let leaf = LeafId(usize::MAX - self.leaves);
        self.leaves += 1;
        let rows = table.state().version.map_or(1, |version| version.rows());
        (VersionedLeaf { leaf, table: at }, usize::try_from(rows).unwrap_or(usize::MAX))
    }
}

/// The refreshed table that a scan reads.
pub fn refreshed(scan: &TableScan) -> Option<Arc<RefreshedTable>> {
    let provider = source_as_provider(&scan.source).ok()?;
    provider.downcast_ref::<RefreshedRelation>().map(|relation| Arc::clone(&relation.0))
}
