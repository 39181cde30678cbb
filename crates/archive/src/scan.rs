//! A snapshot as a DataFusion plan.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
    replace_columns_with_literals,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::precision;
use crate::snapshot::ArchiveSnapshot;
use crate::storage::Storage;

/// The URL under which DataFusion finds the store of `storage`. Not its real URL: another store may be registered
/// there, with other settings.
fn store_url(storage: &Storage) -> Result<ObjectStoreUrl> {
    let mut hash = DefaultHasher::new();
    Arc::as_ptr(&storage.root()).cast::<()>().hash(&mut hash);
    ObjectStoreUrl::parse(format!("windrow-archive://{:016x}", hash.finish()))
}

impl ArchiveSnapshot {
    /// Returns a plan that reads the rows in any order. The filters are used to skip files, row groups and pages, and
    /// are not applied to each row: the caller reports them as inexact.
    ///
    /// # Errors
    /// When a filter cannot be planned.
    pub async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = Arc::clone(&self.spec.schema);
        if self.live.files.is_empty() {
            let projected = match projection {
                Some(p) => Arc::new(schema.project(p)?),
                None => schema,
            };
            return Ok(Arc::new(EmptyExec::new(projected)));
        }
        let url = store_url(&self.storage)?;
        session.runtime_env().register_object_store(url.as_ref(), self.storage.root());
        let mut parquet = session.config_options().execution.parquet.clone();
        parquet.pruning = true;
        let stored = precision::stored(&schema);
        let mut source = ParquetSource::new(Arc::clone(&stored)).with_table_parquet_options(
            TableParquetOptions { global: parquet, ..TableParquetOptions::default() },
        );
        if let Some(filter) = conjunction(precision::widened(filters, &schema)?) {
            let names = DFSchema::try_from(Arc::clone(&stored))?;
            source = source.with_predicate(session.create_physical_expr(filter, &names)?);
        }
        let files: Vec<PartitionedFile> = self.live.files.iter().map(|f| self.file(f)).collect();
        let mut statistics = Statistics::new_unknown(&stored);
        let held: u64 = self.live.files.iter().map(|f| f.end - f.start).sum();
        statistics.num_rows = usize::try_from(held).map_or(Precision::Absent, Precision::Exact);
        let wanted: Vec<usize> =
            projection.cloned().unwrap_or_else(|| (0..schema.fields().len()).collect());
        // The remainder of each column of nanoseconds is read after the wanted columns.
        let mut read = wanted.clone();
        let rests: Vec<Option<usize>> = wanted
            .iter()
            .map(|column| {
                let rest = precision::rest_of(&schema, *column)?;
                read.push(rest);
                Some(read.len() - 1)
            })
            .collect();
        let groups = FileGroup::new(files).split_files(session.config().target_partitions().max(1));
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(Some(read))?
            .with_expr_adapter(self.defaults()?)
            // With filters that are not applied here, a limit would lose rows.
            .with_limit(if filters.is_empty() { limit } else { None })
            .build();
        let scan: Arc<dyn ExecutionPlan> = DataSourceExec::from_data_source(config);
        if rests.iter().all(Option::is_none) {
            return Ok(scan);
        }
        let scanned = scan.schema();
        let columns = rests.iter().enumerate().map(|(i, rest)| {
            let name = scanned.field(i).name().clone();
            let expr = match rest {
                Some(rest) => precision::joined(&scanned, i, *rest),
                None => Arc::new(Column::new(&name, i)),
            };
            (expr, name)
        });
        let columns: Vec<(Arc<dyn PhysicalExpr>, String)> = columns.collect();
        Ok(Arc::new(ProjectionExec::try_new(columns, scan)?))
    }

    /// Returns the adapter that fills in columns that were added after a file was written; `None`: they are NULL.
    fn defaults(&self) -> Result<Option<Arc<dyn PhysicalExprAdapterFactory>>> {
        let layout = self.spec.layout();
        let mut values = HashMap::new();
        for (index, field) in self.spec.schema.fields().iter().enumerate() {
            let Some(one) = layout.fill(index).filter(|one| one.null_count() == 0) else {
                continue;
            };
            values.extend(precision::parts(field.name(), ScalarValue::try_from_array(one, 0)?));
        }
        Ok(match values.is_empty() {
            true => None,
            false => Some(Arc::new(Defaults(Arc::new(values)))),
        })
    }

    /// Returns one file for DataFusion. It carries the entry, so that a vacuum sees that the file is held.
    fn file(&self, entry: &Arc<crate::file_entry::FileEntry>) -> PartitionedFile {
        let path = self.storage.path_of(&entry.name);
        let mut file = PartitionedFile::new(String::new(), entry.bytes);
        file.object_meta.location = path;
        let mut statistics = entry.stats.to_datafusion();
        let known = Arc::make_mut(&mut statistics);
        // Statistics of a column must hold of its stored part: where both bounds are equal, the engine substitutes them
        // for the column.
        for column in &mut known.column_statistics {
            for bound in [&mut column.min_value, &mut column.max_value] {
                *bound = precision::stored_bound(bound);
            }
        }
        let stored = precision::stored(&self.spec.schema).fields().len();
        known.column_statistics.resize_with(stored, ColumnStatistics::new_unknown);
        file.with_statistics(statistics).with_extension(Arc::clone(entry))
    }
}

/// The values of added columns in files without them.
#[derive(Debug)]
struct Defaults(Arc<HashMap<String, ScalarValue>>);

impl PhysicalExprAdapterFactory for Defaults {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let lacks = |name: &&String| file.column_with_name(name).is_none();
        let missing = self.0.iter().filter(|(name, _)| lacks(name));
        let missing = missing.map(|(name, value)| (name.clone(), value.clone())).collect();
        let inner = DefaultPhysicalExprAdapterFactory.create(table, file)?;
        Ok(Arc::new(WithDefaults { missing, inner }))
    }
}

#[derive(Debug)]
struct WithDefaults {
    missing: HashMap<String, ScalarValue>,
    inner: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for WithDefaults {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        self.inner.rewrite(replace_columns_with_literals(expr, &self.missing)?)
    }
}
