//! `SUMMARIZE`: statistics of each column, with DuckDB's columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use datafusion::common::Column;
use datafusion::functions_aggregate::expr_fn::{
    approx_distinct, approx_percentile_cont, avg, count, max, min, stddev,
};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast as expr_cast, lit};
use windrow_core::{Error, Result, sql_type};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::ContinuousQuery;
use windrow_sql::plan::{Parameters, distinct_columns, parameters};

use super::select::check_query;
use super::{Answer, Statement, authorize_late_rows};
use crate::access::Access;
use crate::access::admission::Weight;
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::{Outcome, existing_rows};

/// `SUMMARIZE table` or `SUMMARIZE query`.
#[derive(Debug)]
pub(crate) struct Summarize {
    pub(super) query: ContinuousQuery,
}

/// A statistic of a column, in the order of the columns of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Statistic {
    Min,
    Max,
    Unique,
    Mean,
    Deviation,
    Quantile(u8),
    Values,
}

const STATISTICS: [Statistic; 9] = [
    Statistic::Min,
    Statistic::Max,
    Statistic::Unique,
    Statistic::Mean,
    Statistic::Deviation,
    Statistic::Quantile(25),
    Statistic::Quantile(50),
    Statistic::Quantile(75),
    Statistic::Values,
];

/// Returns the columns of the result.
fn result_columns() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new("column_name", DataType::Utf8, false),
        Field::new("column_type", DataType::Utf8, false),
        text("min"),
        text("max"),
        Field::new("approx_unique", DataType::Int64, true),
        text("avg"),
        text("std"),
        text("q25"),
        text("q50"),
        text("q75"),
        Field::new("count", DataType::Int64, false),
        Field::new("null_percentage", DataType::Float64, true),
    ]))
}

impl Statement for Summarize {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("SUMMARIZE", Some(Weight::Query))
    }

    fn authorize(&self, access: &Access, catalog: &Catalog) -> Result<()> {
        authorize_late_rows(access, catalog, &self.query)
    }

    fn parameters<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Parameters> {
        Box::pin(async move { parameters(&cx.planner().unbound(&self.query.query).await?) })
    }

    fn columns<'a>(&'a self, _: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { Ok(Some(result_columns())) })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { check_query(cx, &self.query).await })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let plan = cx.planner().query(&self.query.query, &[]).await?;
            distinct_columns(&plan)?;
            let schema = Arc::new(plan.schema().as_arrow().clone());
            cx.skipped.add_reads(&plan, cx.catalog())?;
            let plan = cx.planner().physical(cx.state(), statistics(plan)?).await?;
            let rows = cx.executor().collect(plan).await?;
            let row = rows.iter().find(|batch| batch.num_rows() > 0);
            let row =
                row.ok_or_else(|| Error::internal("an aggregate without groups returned no row"))?;
            let batch = transposed(&schema, row)?;
            let rows = existing_rows(result_columns(), vec![batch]).await;
            Ok(Outcome::Rows(rows.skipping(&cx.skipped)))
        })
    }
}

/// Returns a plan that computes the statistics of all columns in one row: the number of rows, then column by column those
/// that its type has.
fn statistics(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut wanted = vec![count(lit(1_i64)).alias("rows")];
    for (at, (qualifier, field)) in plan.schema().iter().enumerate() {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        for statistic in STATISTICS.into_iter().filter(|f| has(*f, field.data_type())) {
            let expr = of_column(statistic, column.clone(), field.data_type());
            wanted.push(expr.alias(format!("{at} {statistic:?}")));
        }
    }
    LogicalPlanBuilder::from(plan)
        .aggregate(Vec::<Expr>::new(), wanted)
        .and_then(LogicalPlanBuilder::build)
        .map_err(from_datafusion)
}

/// Whether values of the type have the statistic.
fn has(statistic: Statistic, data_type: &DataType) -> bool {
    match statistic {
        Statistic::Values => true,
        Statistic::Min | Statistic::Max | Statistic::Unique => {
            !data_type.is_nested() && *data_type != DataType::Null
        }
        Statistic::Mean | Statistic::Deviation | Statistic::Quantile(_) => data_type.is_numeric(),
    }
}

fn of_column(statistic: Statistic, column: Expr, data_type: &DataType) -> Expr {
    let number = || expr_cast(column.clone(), DataType::Float64);
    match statistic {
        Statistic::Min => min(column),
        Statistic::Max => max(column),
        Statistic::Unique if data_type.is_integer() => approx_distinct(column),
        // As texts: sketches take few other types.
        Statistic::Unique => approx_distinct(expr_cast(column, DataType::Utf8)),
        Statistic::Mean => avg(number()),
        Statistic::Deviation => stddev(number()),
        Statistic::Quantile(percent) => approx_percentile_cont(
            number().sort(true, false),
            lit(f64::from(percent) / 100.0),
            None,
        ),
        Statistic::Values => count(column),
    }
}

/// Turns the row of statistics into a row per column.
fn transposed(schema: &Schema, row: &RecordBatch) -> Result<RecordBatch> {
    let mut given = row.columns().iter();
    let whole = |column: Option<&ArrayRef>| -> Result<Option<i64>> {
        let Some(column) = column else { return Ok(None) };
        let column = cast(column, &DataType::Int64)?;
        let column = column.as_primitive::<arrow::datatypes::Int64Type>();
        Ok(column.is_valid(0).then(|| column.value(0)))
    };
    let rows = whole(given.next())?.unwrap_or(0);
    let mut texts: Vec<Vec<Option<String>>> = vec![vec![]; STATISTICS.len()];
    let (mut unique, mut values) = (vec![], vec![]);
    for field in schema.fields() {
        for (statistic, texts) in STATISTICS.into_iter().zip(&mut texts) {
            let column = if has(statistic, field.data_type()) { given.next() } else { None };
            match statistic {
                Statistic::Unique => unique.push(whole(column)?),
                Statistic::Values => values.push(whole(column)?.unwrap_or(0)),
                _ => texts.push(match column {
                    Some(column) if column.is_valid(0) => Some(array_value_to_string(column, 0)?),
                    _ => None,
                }),
            }
        }
    }
    let nulls = values.iter().map(|values| {
        (rows > 0).then(|| ((rows - values) as f64 * 10_000.0 / rows as f64).round() / 100.0)
    });
    let nulls: Float64Array = nulls.collect();
    let names = StringArray::from_iter_values(schema.fields().iter().map(|f| f.name()));
    let types =
        StringArray::from_iter_values(schema.fields().iter().map(|f| sql_type(f.data_type())));
    let mut made: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(types)];
    for (statistic, texts) in STATISTICS.into_iter().zip(texts) {
        made.push(match statistic {
            Statistic::Unique => Arc::new(Int64Array::from(std::mem::take(&mut unique))),
            Statistic::Values => Arc::new(Int64Array::from(vec![rows; schema.fields().len()])),
            _ => Arc::new(StringArray::from(texts)),
        });
    }
    made.push(Arc::new(nulls));
    Ok(RecordBatch::try_new(result_columns(), made)?)
}
