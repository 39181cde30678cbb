//! Traces which input row an output row came from, which is needed for late rows and for changes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result, UnnestOptions, internal_err};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Projection, TableScan, TableScanBuilder, Union,
};
use windrow_core::Error;

use super::flow::{Leaf, RowsFlow, Stage};
use crate::diagnostics::from_datafusion;
use crate::leaf::LeafTable;

/// The name of the hidden column that numbers rows.
pub const ROW_COLUMN: &str = "__row";

impl RowsFlow {
    /// The same plan with a hidden last column [`ROW_COLUMN`] (`UInt64`, not NULL) in every leaf and in the output:
    /// each output row has the number of the input row that it came from.
    ///
    /// # Errors
    /// When a node cannot be rebuilt (our bug).
    pub fn traced(&self) -> Result<Self, Error> {
        let plan = self.plan.clone().transform_up(trace).data().and_then(last);
        let leaves = self.leaves.iter().map(|leaf| {
            let mut fields = leaf.schema.fields().to_vec();
            fields.push(Arc::new(row_field()));
            let schema = Arc::new(Schema::new(fields));
            Leaf { schema, ..leaf.clone() }
        });
        Ok(Self { plan: plan.map_err(from_datafusion)?, leaves: leaves.collect() })
    }
}

impl Stage {
    /// The finish plan with a hidden last column, which the leaf has too: the code of each change
    /// ([`windrow_operators::CHANGE_CODE`]), or the number of the finished row that a row comes from.
    ///
    /// # Errors
    /// When a node cannot be rebuilt (our bug).
    pub fn traced_finish(&self) -> Result<LogicalPlan, Error> {
        let plan = self.finish.clone().transform_up(trace).data().and_then(last);
        plan.map_err(from_datafusion)
    }
}

fn row_field() -> Field {
    Field::new(ROW_COLUMN, DataType::UInt64, false)
}

/// The hidden column of a plan.
fn row_column(plan: &LogicalPlan) -> Option<Column> {
    plan.schema().columns().into_iter().find(|column| column.name == ROW_COLUMN)
}

fn trace(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    Ok(Transformed::yes(match node {
        LogicalPlan::TableScan(scan) => trace_scan(scan)?,
        LogicalPlan::Projection(mut projection) => match row_column(&projection.input) {
            Some(row) => {
                projection.expr.push(Expr::Column(row));
                LogicalPlan::Projection(Projection::try_new(projection.expr, projection.input)?)
            }
            None => LogicalPlan::Projection(projection),
        },
        LogicalPlan::Union(union) => {
            let mut inputs = Vec::with_capacity(union.inputs.len());
            for input in union.inputs {
                inputs.push(match row_column(&input) {
                    Some(_) => Arc::new(last(Arc::unwrap_or_clone(input))?),
                    None => input,
                });
            }
            LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)
        }
        LogicalPlan::Unnest(unnest) => {
            let options: UnnestOptions = unnest.options;
            LogicalPlanBuilder::from(unnest.input)
                .unnest_columns_with_options(unnest.exec_columns, options)?
                .build()?
        }
        other => other.recompute_schema()?,
    }))
}

fn trace_scan(scan: TableScan) -> Result<LogicalPlan> {
    let provider = source_as_provider(&scan.source)?;
    let Some(leaf) = provider.downcast_ref::<LeafTable>() else {
        return Ok(LogicalPlan::TableScan(scan));
    };
    let schema = scan.source.schema();
    let row = schema.fields().len();
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(row_field()));
    let table = LeafTable::new(leaf.id(), Arc::new(Schema::new(fields)));
    let projection = scan.projection.map(|mut columns| {
        columns.push(row);
        columns
    });
    TableScanBuilder::new(scan.table_name, provider_as_source(Arc::new(table)))
        .with_projection(projection)
        .build()
        .map(LogicalPlan::TableScan)
}

/// The plan with the hidden column as the last one.
fn last(plan: LogicalPlan) -> Result<LogicalPlan> {
    let Some(row) = row_column(&plan) else {
        return internal_err!("rows of this plan cannot be traced");
    };
    let columns = plan.schema().columns();
    if columns.last() == Some(&row) {
        return Ok(plan);
    }
    let others = columns.into_iter().filter(|column| *column != row);
    let exprs: Vec<Expr> = others.chain([row.clone()]).map(Expr::Column).collect();
    LogicalPlanBuilder::from(plan).project(exprs)?.build()
}
