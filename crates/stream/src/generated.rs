//! Generated columns: `col TYPE GENERATED ALWAYS AS (expr)`, computed from the physical columns of each batch before
//! anything else sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{ArrayRef, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use windrow_core::{Clock, Reader, Result, ScanRequest, Source, SourceBatch, Split};
use windrow_sql::diagnostics::from_datafusion;

use crate::altered::Alteration;
use crate::texts::Texts;

/// The origin of a column of a stream.
#[derive(Debug, Clone)]
pub enum Column {
    /// Read from the source, where it has this index.
    Physical(usize),
    /// Computed over the source's columns.
    Generated(Arc<dyn PhysicalExpr>),
    /// The time at which the row enters; stored with the row, so that every reading sees the same time.
    Intake(Arc<IntakeTime>),
}

/// The processing time of a stream: the clock, which never goes back.
#[derive(Debug)]
pub struct IntakeTime {
    clock: Arc<dyn Clock>,
    last_micros: AtomicI64,
}

impl IntakeTime {
    /// Returns the processing time of `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last_micros: AtomicI64::new(i64::MIN) }
    }

    /// The time of rows that enter now, as a column of `rows` rows.
    fn column(&self, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
        let now = self.clock.now_micros();
        let now = self.last_micros.fetch_max(now, Ordering::Relaxed).max(now);
        let one = TimestampMicrosecondArray::from(vec![now]);
        let one = cast(&one, data_type)?;
        Ok(take(&one, &UInt32Array::from(vec![0; rows]), None)?)
    }
}

/// The columns of a stream with generated columns.
#[derive(Debug, Clone)]
pub struct Columns {
    /// All columns, as declared.
    pub schema: SchemaRef,
    /// The source's columns.
    pub physical: SchemaRef,
    /// The origin of each column of `schema`.
    pub columns: Vec<Column>,
    /// What the texts of the source's columns must be.
    pub texts: Texts,
}

impl Columns {
    /// Computes the columns `wanted` from rows with all physical columns.
    pub(crate) fn compute(&self, rows: &RecordBatch, wanted: &[usize]) -> Result<RecordBatch> {
        let mut arrays = Vec::with_capacity(wanted.len());
        for index in wanted {
            let field = self.schema.field(*index);
            arrays.push(match self.columns.get(*index) {
                Some(Column::Physical(at)) => Arc::clone(rows.column(*at)),
                Some(Column::Generated(expr)) => {
                    let value = expr
                        .evaluate(rows)
                        .and_then(|v| v.into_array(rows.num_rows()))
                        .map_err(from_datafusion)?;
                    cast(&value, field.data_type())?
                }
                Some(Column::Intake(time)) => time.column(rows.num_rows(), field.data_type())?,
                None => return Err(windrow_core::Error::internal("no such column")),
            });
        }
        let schema = Arc::new(self.schema.project(wanted)?);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }

    /// Computes all columns from rows with all physical columns.
    pub(crate) fn compute_all(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        self.compute(rows, &all)
    }

    /// Whether any column is generated.
    pub fn any_generated(&self) -> bool {
        self.columns.iter().any(|c| !matches!(c, Column::Physical(_)))
    }

    /// The index of the processing-time column, if there is one.
    pub fn intake(&self) -> Option<usize> {
        self.columns.iter().position(|c| matches!(c, Column::Intake(_)))
    }

    /// The physical columns from which the columns `wanted` are computed, ascending.
    fn needed(&self, wanted: &[usize]) -> Vec<usize> {
        let mut needed: Vec<usize> = wanted
            .iter()
            .filter_map(|index| self.columns.get(*index))
            .flat_map(|column| match column {
                Column::Physical(at) => vec![*at],
                Column::Generated(expr) => {
                    let mut at: Vec<usize> =
                        collect_columns(expr).into_iter().map(|c| c.index()).collect();
                    at.sort_unstable();
                    at
                }
                Column::Intake(_) => vec![],
            })
            .collect();
        needed.sort_unstable();
        needed.dedup();
        needed
    }
}

/// The transformation that adds the generated columns to rows.
#[derive(Debug)]
pub struct Generated(pub Arc<Columns>);

#[async_trait]
impl Alteration for Generated {
    fn schema(&self, _: SchemaRef) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    async fn open(
        &self,
        source: &dyn Source,
        split: &Split,
        scan: &ScanRequest,
    ) -> Result<Box<dyn Reader>> {
        let Self(columns) = self;
        let physical = columns.needed(&scan.projection);
        let request = ScanRequest {
            projection: physical.clone(),
            // The indexes of physical columns differ from those of all columns; the plan applies the conditions itself.
            predicates: vec![],
            event_time: None,
            ..scan.clone()
        };
        Ok(Box::new(GeneratedReader {
            inner: source.open(split, &request).await?,
            columns: Arc::clone(columns),
            physical,
            wanted: scan.projection.clone(),
        }))
    }
}

struct GeneratedReader {
    inner: Box<dyn Reader>,
    columns: Arc<Columns>,
    physical: Vec<usize>,
    wanted: Vec<usize>,
}

#[async_trait]
impl Reader for GeneratedReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        let Some(mut batch) = self.inner.next().await? else { return Ok(None) };
        let whole = self.widen(&batch.rows)?;
        batch.rows = self.columns.compute(&whole, &self.wanted)?;
        Ok(Some(batch))
    }
}

impl GeneratedReader {
    /// Returns rows with all physical columns; those that were not read are NULL.
    fn widen(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let schema = &self.columns.physical;
        let mut fields = Vec::with_capacity(schema.fields().len());
        let mut arrays = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            match self.physical.binary_search(&index) {
                Ok(at) => {
                    fields.push(Arc::clone(field));
                    arrays.push(Arc::clone(rows.column(at)));
                }
                Err(_) => {
                    fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
                    arrays.push(arrow::array::new_null_array(field.data_type(), count));
                }
            }
        }
        let schema = Arc::new(arrow::datatypes::Schema::new(fields));
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(schema, arrays, &options)?)
    }
}
