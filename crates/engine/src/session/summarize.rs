//! `SUMMARIZE`: a line per column of what is there, with the columns that DuckDB gives.

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
use windrow_connectors::sql_name;
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::ContinuousQuery;
use windrow_sql::plan::distinct_columns;

use crate::session::outcome::ready;
use crate::session::{Outcome, Session};

/// What is worked out of a column, in the order of the columns of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Min,
    Max,
    Unique,
    Mean,
    Deviation,
    Quantile(u8),
    Values,
}

const FIGURES: [Figure; 9] = [
    Figure::Min,
    Figure::Max,
    Figure::Unique,
    Figure::Mean,
    Figure::Deviation,
    Figure::Quantile(25),
    Figure::Quantile(50),
    Figure::Quantile(75),
    Figure::Values,
];

/// The columns of the result.
pub(super) fn columns() -> SchemaRef {
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

impl Session {
    pub(super) async fn summarize(&self, query: ContinuousQuery) -> Result<Outcome> {
        let plan = self.plan(&query.query, &[]).await?;
        distinct_columns(&plan)?;
        let schema = Arc::new(plan.schema().as_arrow().clone());
        self.unseen.reads(&plan, &self.engine.catalog)?;
        let plan = self.physical(self.state(), figures(plan)?).await?;
        let rows = self.run_plan(plan).await?;
        let row = rows.iter().find(|batch| batch.num_rows() > 0);
        let row = row.ok_or_else(|| Error::internal("an aggregate without groups gave no row"))?;
        let batch = turned(&schema, row)?;
        Ok(Outcome::Rows(ready(columns(), vec![batch]).await.not_seeing(&self.unseen)))
    }
}

/// A plan that works out all figures of all columns, in one row: the number of rows, then column by column those
/// that its type has.
fn figures(plan: LogicalPlan) -> Result<LogicalPlan> {
    let mut wanted = vec![count(lit(1_i64)).alias("rows")];
    for (at, (qualifier, field)) in plan.schema().iter().enumerate() {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        for figure in FIGURES.into_iter().filter(|f| has(*f, field.data_type())) {
            let expr = of_column(figure, column.clone(), field.data_type());
            wanted.push(expr.alias(format!("{at} {figure:?}")));
        }
    }
    LogicalPlanBuilder::from(plan)
        .aggregate(Vec::<Expr>::new(), wanted)
        .and_then(LogicalPlanBuilder::build)
        .map_err(from_datafusion)
}

/// Whether values of the type have the figure.
fn has(figure: Figure, data_type: &DataType) -> bool {
    match figure {
        Figure::Values => true,
        Figure::Min | Figure::Max | Figure::Unique => {
            !data_type.is_nested() && *data_type != DataType::Null
        }
        Figure::Mean | Figure::Deviation | Figure::Quantile(_) => data_type.is_numeric(),
    }
}

fn of_column(figure: Figure, column: Expr, data_type: &DataType) -> Expr {
    let number = || expr_cast(column.clone(), DataType::Float64);
    match figure {
        Figure::Min => min(column),
        Figure::Max => max(column),
        Figure::Unique if data_type.is_integer() => approx_distinct(column),
        // As texts: sketches take few other types.
        Figure::Unique => approx_distinct(expr_cast(column, DataType::Utf8)),
        Figure::Mean => avg(number()),
        Figure::Deviation => stddev(number()),
        Figure::Quantile(percent) => approx_percentile_cont(
            number().sort(true, false),
            lit(f64::from(percent) / 100.0),
            None,
        ),
        Figure::Values => count(column),
    }
}

/// The row of figures as a row per column.
fn turned(schema: &Schema, row: &RecordBatch) -> Result<RecordBatch> {
    let mut given = row.columns().iter();
    let whole = |column: Option<&ArrayRef>| -> Result<Option<i64>> {
        let Some(column) = column else { return Ok(None) };
        let column = cast(column, &DataType::Int64)?;
        let column = column.as_primitive::<arrow::datatypes::Int64Type>();
        Ok(column.is_valid(0).then(|| column.value(0)))
    };
    let rows = whole(given.next())?.unwrap_or(0);
    let mut texts: Vec<Vec<Option<String>>> = vec![vec![]; FIGURES.len()];
    let (mut unique, mut values) = (vec![], vec![]);
    for field in schema.fields() {
        for (figure, texts) in FIGURES.into_iter().zip(&mut texts) {
            let column = if has(figure, field.data_type()) { given.next() } else { None };
            match figure {
                Figure::Unique => unique.push(whole(column)?),
                Figure::Values => values.push(whole(column)?.unwrap_or(0)),
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
        StringArray::from_iter_values(schema.fields().iter().map(|f| sql_name(f.data_type())));
    let mut made: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(types)];
    for (figure, texts) in FIGURES.into_iter().zip(texts) {
        made.push(match figure {
            Figure::Unique => Arc::new(Int64Array::from(std::mem::take(&mut unique))),
            Figure::Values => Arc::new(Int64Array::from(vec![rows; schema.fields().len()])),
            _ => Arc::new(StringArray::from(texts)),
        });
    }
    made.push(Arc::new(nulls));
    Ok(RecordBatch::try_new(columns(), made)?)
}
