//! The reference tables of a durable view, as of its creation.
//!
//! Each table is stored in a file, which is read when the query starts (it holds the columns that it needs) and when the view
//! is verified. A view that was created by a version without such files stores its tables when it is restored.
//!
//! Invariant: a row is joined with the same version of a table before and after a restart, and when VERIFY recomputes the view.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::{MemTable, TableType, provider_as_source, source_as_provider};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, TableProviderFilterPushDown, TableScan,
    TableScanBuilder, TableSource,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::Column;
use futures::future::BoxFuture;
use windrow_core::{Error, Result};
use windrow_query::reference::rows_of_table;
use windrow_query::refreshed::RefreshedRelation;
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::leaf::LeafTable;
use windrow_sql::plan::{ContinuousPlan, StreamRelation};

use crate::durable::definitions::{Definition, Part};
use crate::durable::store::{Store, missing};
use crate::durable::table_rows::{read_rows, to_bytes};
use crate::durable::table_versions::changed_rule;
use crate::execution::context::StatementContext;
use crate::names::SCHEMA;

/// What [`TableProvider::scan`] returns.
type Planned<'a> = BoxFuture<'a, datafusion::common::Result<Arc<dyn ExecutionPlan>>>;

/// Tables by name.
type Sources = BTreeMap<String, Arc<dyn TableSource>>;

/// Returns both forms of the query of a view, reading the stored tables. For a new view, and where none have been stored, the
/// current rows are stored first.
///
/// # Errors
/// When a table cannot be read or written, or has other columns now.
pub(super) async fn keep_tables(
    cx: &StatementContext,
    definition: &Definition,
    (plan, bounded): (ContinuousPlan, LogicalPlan),
) -> Result<(ContinuousPlan, LogicalPlan)> {
    let Some(store) = &cx.instance.store else { return Ok((plan, bounded)) };
    let mut read = Sources::new();
    let plan = plan.map_plans(&mut |plan| find(&plan, &mut read).map(|()| plan))?;
    find(&bounded, &mut read)?;
    let mut kept = Sources::new();
    for (name, source) in read {
        // A table function has a name, but is no table.
        let table = TableReference::partial(SCHEMA, name.as_str());
        if !cx.session.table_exist(table).map_err(from_datafusion)? {
            continue;
        }
        let table = keep(cx, (store, definition), &name, source).await?;
        kept.insert(name, provider_as_source(Arc::new(table)));
    }
    if kept.is_empty() {
        return Ok((plan, bounded));
    }
    Ok((plan.map_plans(&mut |plan| replace(plan, &kept))?, replace(bounded, &kept)?))
}

/// The table that a scan reads; `None` for a stream, a view, the input of a plan, or a table with versions.
fn table_of(scan: &TableScan) -> Option<&str> {
    let provider = source_as_provider(&scan.source).ok()?;
    let enters = provider.is::<StreamRelation>()
        || provider.is::<LeafTable>()
        || provider.is::<RefreshedRelation>();
    let is_ours = scan.table_name.schema().is_none_or(|schema| schema == SCHEMA);
    (!enters && is_ours).then(|| scan.table_name.table())
}

fn find(plan: &LogicalPlan, found: &mut Sources) -> Result<()> {
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(name) = table_of(scan)
        {
            found.entry(name.to_owned()).or_insert_with(|| Arc::clone(&scan.source));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map(drop).map_err(from_datafusion)
}

fn replace(plan: LogicalPlan, kept: &Sources) -> Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        match table_of(&scan).and_then(|name| kept.get(name)) {
            Some(source) => {
                let source = Arc::clone(source);
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        }
    });
    replaced.data().map_err(from_datafusion)
}

/// Returns the stored table, which is stored first if necessary.
async fn keep(
    cx: &StatementContext,
    (store, definition): (&Arc<Store>, &Definition),
    name: &str,
    source: Arc<dyn TableSource>,
) -> Result<KeptTable> {
    let table = KeptTable {
        store: Arc::clone(store),
        definition: definition.clone(),
        name: name.to_owned(),
        schema: source.schema(),
    };
    if let Some(stored) = table.stored().await? {
        let fields = |schema: &Schema| {
            let fields = schema.fields().iter();
            fields.map(|f| (f.name().clone(), f.data_type().clone())).collect::<Vec<_>>()
        };
        if fields(&stored.schema()) != fields(&table.schema) {
            return Err(Error::sql(format!(
                "table \"{name}\" has other columns than when view \"{}\" began",
                definition.name
            ))
            .with_hint(format!(
                "Give the table its columns back, or DROP MATERIALIZED VIEW {} and create it again.",
                definition.name
            )));
        }
        return Ok(table);
    }
    if definition.parts.contains(&Part::Versions) {
        return Err(changed_rule(&definition.name, name, "is not refreshed any more, and was"));
    }
    let scan = TableScanBuilder::new(name, source).build().map_err(from_datafusion)?;
    // The reservation is held while the rows are written.
    let (rows, _held) = rows_of_table(&cx.state(), &scan, 0).await?;
    table.write(rows).await?;
    Ok(table)
}

/// A table as it is stored for a view.
#[derive(Debug, Clone)]
struct KeptTable {
    store: Arc<Store>,
    definition: Definition,
    name: String,
    schema: SchemaRef,
}

impl KeptTable {
    /// Returns the stored rows; `None`: no table of the view has been stored.
    async fn stored(&self) -> Result<Option<MemTable>> {
        let table = self.clone();
        run(move || {
            let Self { store, definition, name, .. } = &table;
            let Some((path, bytes)) = store.read_reference(definition, name)? else {
                return Ok(None);
            };
            read_rows(&path, &bytes, &store.reference_owner(definition)).map(Some)
        })
        .await
    }

    async fn write(&self, rows: Vec<RecordBatch>) -> Result<()> {
        let table = self.clone();
        run(move || {
            let Self { store, definition, name, schema } = &table;
            let bytes = to_bytes(schema, &rows, &store.reference_owner(definition))?;
            store.write_reference(definition, name, &bytes)
        })
        .await
    }
}

impl KeptTable {
    fn planned(
        self,
        state: &dyn Session,
        projection: Option<Vec<usize>>,
        filter: Option<Expr>,
    ) -> Planned<'_> {
        Box::pin(async move {
            let external = |error: Error| DataFusionError::External(Box::new(error));
            let rows = self.stored().await.map_err(external)?;
            let rows = rows.ok_or_else(|| external(missing("a table of", self.name.as_ref())))?;
            let source = provider_as_source(Arc::new(rows));
            let mut plan = LogicalPlanBuilder::scan(self.name.as_str(), source, None)?;
            // The table that was planned with may have accepted these filters.
            if let Some(filter) = filter {
                plan = plan.filter(filter)?;
            }
            if let Some(projection) = projection {
                let table = TableReference::bare(self.name.as_str());
                let column = |at: &usize| {
                    let name = self.schema.field(*at).name();
                    Expr::Column(Column::new(Some(table.clone()), name))
                };
                plan = plan.project(projection.iter().map(column).collect::<Vec<_>>())?;
            }
            state.create_physical_plan(&plan.build()?).await
        })
    }
}

/// Runs blocking work.
async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::internal("access to a stored table stopped").with_source(e))?
}

impl TableProvider for KeptTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        _: Option<usize>,
    ) -> Planned<'f>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
        Self: 'f,
    {
        // Not an `async fn`, which would capture the filters: proving that they are `Send` takes the compiler long.
        self.clone().planned(state, projection.cloned(), conjunction(filters.to_vec()))
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }
}
