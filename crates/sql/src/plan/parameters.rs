//! The parameters of a plan, their types, and their replacement by values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, ParamValues, ScalarValue, plan_datafusion_err};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, UNNAMED_TABLE};
use windrow_core::{Error, Result};

use crate::diagnostics::from_datafusion;

/// The types of the parameters by number, from 1; `None`: the statement does not determine it.
pub type Parameters = BTreeMap<usize, Option<DataType>>;

/// The parameters of a plan.
///
/// # Errors
/// When a type cannot be inferred for any other reason.
pub fn parameters(plan: &LogicalPlan) -> Result<Parameters> {
    let fields = plan.get_parameter_fields().map_err(from_datafusion)?;
    let mut found = Parameters::new();
    let mut names: Vec<_> = fields.into_iter().collect();
    names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    for (name, field) in names {
        let known = field.map(|f| f.data_type().clone()).filter(|t| *t != DataType::Null);
        found.insert(number(&name)?, known);
    }
    Ok(found)
}

/// The plan with its parameters replaced by values.
///
/// # Errors
/// When a parameter has no value.
pub fn bind(plan: LogicalPlan, values: &[ScalarValue]) -> Result<LogicalPlan> {
    let names = plan.get_parameter_names().map_err(from_datafusion)?;
    let mut numbers = names.iter().map(|n| number(n)).collect::<Result<Vec<_>>>()?;
    numbers.sort_unstable();
    match numbers.last() {
        None => Ok(plan),
        Some(last) if *last > values.len() => {
            Err(Error::sql(format!("parameter ${} has no value", values.len() + 1))
                .with_hint("Prepare the statement, and bind a value to each of its parameters."))
        }
        Some(_) => {
            let values = ParamValues::from(values.to_vec());
            plan.replace_params_with_values(&values).map_err(from_datafusion)
        }
    }
}

/// The plan of `VALUES (…)` of one row, for all rows of `values`, whose columns are the parameters in order; `None` for
/// any other plan.
///
/// # Errors
/// When a parameter has no value.
pub(super) fn bind_rows(plan: LogicalPlan, values: RecordBatch) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Values(one) = plan else { return Ok(None) };
    let ([exprs], fields) = (&one.values[..], one.schema.fields()) else { return Ok(None) };
    let columns = values.schema();
    let value = |expr: Expr| {
        let Expr::Placeholder(placeholder) = &expr else { return Ok(Transformed::no(expr)) };
        let column = number(&placeholder.id).ok().and_then(|n| columns.fields().get(n - 1));
        let column =
            column.ok_or_else(|| plan_datafusion_err!("{} has no value", placeholder.id))?;
        Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column.name()))))
    };
    let exprs = exprs.iter().zip(fields).map(|(expr, field)| {
        let expr = expr.clone().transform(value)?.data;
        Ok(expr.alias(field.name()))
    });
    let exprs = exprs.collect::<Result<Vec<_>, DataFusionError>>().map_err(from_datafusion)?;
    let table = MemTable::try_new(values.schema(), vec![vec![values]]).map_err(from_datafusion)?;
    LogicalPlanBuilder::scan(UNNAMED_TABLE, provider_as_source(Arc::new(table)), None)
        .and_then(|rows| rows.project(exprs))
        .and_then(LogicalPlanBuilder::build)
        .map(Some)
        .map_err(from_datafusion)
}

fn number(name: &str) -> Result<usize> {
    name.strip_prefix('$')
        .and_then(|n| n.parse().ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| Error::sql(format!("\"{name}\" is not a parameter")))
}
