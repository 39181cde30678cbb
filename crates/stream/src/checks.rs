//! CHECK constraints of streams: `CHECK (amount > 0)`. A row that violates one is a bad row if it comes from a connector, and
//! makes an INSERT fail. As in SQL, a condition that is NULL is satisfied.
//!
//! Invariant: whether a row of a connector is bad does not depend on the columns that a query reads. So the columns of
//! checks are always read.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use windrow_core::{Error, Reader, Result, ScanRequest, Source, SourceBatch, Split};
use windrow_sql::diagnostics::from_datafusion;

use crate::altered::Alteration;
use crate::bad::{OnBad, taken_out};
use crate::intake::render_row;

/// A condition that rows must satisfy.
#[derive(Debug, Clone)]
pub struct Check {
    /// Its name, which appears in the reason of bad rows.
    pub name: String,
    /// The condition as SQL, for listings.
    pub text: String,
    /// The condition, a boolean over the columns of the stream.
    pub condition: Arc<dyn PhysicalExpr>,
}

/// The checks of a stream, in order.
#[derive(Debug, Clone, Default)]
pub struct Checks(pub Vec<Check>);

impl Checks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the rows that violate a check, with the reason; a row occurs once for each check that it violates.
    fn broken(&self, rows: &RecordBatch) -> Result<Vec<(usize, String)>> {
        let mut broken = vec![];
        for check in &self.0 {
            broken.extend(check.broken(rows)?);
        }
        Ok(broken)
    }

    /// Returns why rows with all columns are refused; `None` if all of them satisfy the checks.
    ///
    /// # Errors
    /// When a condition is not boolean (a bug).
    pub(crate) fn refused(&self, rows: &RecordBatch) -> Result<Option<String>> {
        let Some((row, reason)) = self.broken(rows)?.into_iter().min_by_key(|(row, _)| *row) else {
            return Ok(None);
        };
        Ok(Some(format!("{reason}: {}", render_row(rows, row)?)))
    }

    /// Turns the rows of a batch with all columns that violate a check into bad rows.
    ///
    /// # Errors
    /// When a condition is not boolean, or a row cannot be rendered.
    pub(crate) fn applied(&self, batch: SourceBatch) -> Result<SourceBatch> {
        let broken = self.broken(&batch.rows)?;
        taken_out(batch, broken, OnBad::DeadLetter)
    }

    /// The conditions that read a column, as SQL.
    pub fn of_column(&self, column: usize) -> impl Iterator<Item = &str> {
        let reads = move |check: &&Check| {
            collect_columns(&check.condition).iter().any(|read| read.index() == column)
        };
        self.0.iter().filter(reads).map(|check| check.text.as_str())
    }

    /// The columns that the conditions read.
    fn columns(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().flat_map(|check| collect_columns(&check.condition)).map(|c| c.index())
    }

    /// The same checks over rows with other columns, matched by name.
    fn over(&self, schema: &Schema) -> Result<Self> {
        let over = |check: &Check| {
            let condition = reassign_expr_columns(Arc::clone(&check.condition), schema);
            let condition = condition.map_err(from_datafusion)?;
            Ok(Check { condition, ..check.clone() })
        };
        self.0.iter().map(over).collect::<Result<_>>().map(Self)
    }
}

impl Check {
    fn broken(&self, rows: &RecordBatch) -> Result<Vec<(usize, String)>> {
        if rows.num_rows() == 0 {
            return Ok(vec![]);
        }
        match self.met(rows) {
            Ok(met) => {
                let falses = met.iter().enumerate().filter(|(_, met)| *met == Some(false));
                let reason = || format!("violates check \"{}\"", self.name);
                Ok(falses.map(|(row, _)| (row, reason())).collect())
            }
            Err(error) if rows.num_rows() == 1 => {
                Ok(vec![(0, format!("check \"{}\": {}", self.name, error.message()))])
            }
            // Evaluation fails for at least one row: find out for which.
            Err(_) => {
                let mut broken = vec![];
                for row in 0..rows.num_rows() {
                    let one = self.broken(&rows.slice(row, 1))?;
                    broken.extend(one.into_iter().map(|(_, reason)| (row, reason)));
                }
                Ok(broken)
            }
        }
    }

    fn met(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let met = self.condition.evaluate(rows).and_then(|met| met.into_array(rows.num_rows()));
        let met = met.map_err(from_datafusion)?;
        let met = met.as_boolean_opt().cloned();
        met.ok_or_else(|| Error::internal(format!("check \"{}\" is no boolean", self.name)))
    }
}

/// The transformation that turns rows that violate a check into bad rows.
#[derive(Debug)]
pub struct Checked {
    /// The checks.
    pub checks: Checks,
    /// The treatment of rows that violate one. No single value could become NULL, so `null` is the same as `dead_letter`.
    pub on_bad: OnBad,
}

#[async_trait]
impl Alteration for Checked {
    fn schema(&self, read: SchemaRef) -> SchemaRef {
        read
    }

    async fn open(
        &self,
        source: &dyn Source,
        split: &Split,
        scan: &ScanRequest,
    ) -> Result<Box<dyn Reader>> {
        let mut read = scan.projection.clone();
        read.extend(self.checks.columns());
        read.sort_unstable();
        read.dedup();
        let wanted =
            scan.projection.iter().map(|column| read.binary_search(column).unwrap_or_default());
        let wanted = wanted.collect();
        let checks = self.checks.over(&source.schema().project(&read)?)?;
        let request = ScanRequest { projection: read, ..scan.clone() };
        let inner = source.open(split, &request).await?;
        Ok(Box::new(CheckedReader { inner, checks, wanted, on_bad: self.on_bad }))
    }
}

struct CheckedReader {
    inner: Box<dyn Reader>,
    checks: Checks,
    /// Indexes of the projected columns among those that are read.
    wanted: Vec<usize>,
    on_bad: OnBad,
}

#[async_trait]
impl Reader for CheckedReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        let Some(batch) = self.inner.next().await? else { return Ok(None) };
        let broken = self.checks.broken(&batch.rows)?;
        let mut batch = taken_out(batch, broken, self.on_bad)?;
        batch.rows = batch.rows.project(&self.wanted)?;
        Ok(Some(batch))
    }
}
