//! The types of columns as `information_schema.columns` shows them: by their SQL names.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, Volatility, create_udf,
};
use datafusion::optimizer::AnalyzerRule;
use windrow_core::with_sql_types;

/// Replaces Arrow's type names by SQL's. It is idempotent: no SQL name is one of Arrow's.
#[derive(Debug)]
pub(super) struct TypeNames;

impl AnalyzerRule for TypeNames {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let named = plan.transform_up_with_subqueries(|node| match &node {
            LogicalPlan::TableScan(scan)
                if scan.table_name.table() == "columns"
                    && scan.table_name.schema() == Some("information_schema") =>
            {
                named(node).map(Transformed::yes)
            }
            _ => Ok(Transformed::no(node)),
        });
        named.map(|named| named.data)
    }

    fn name(&self) -> &'static str {
        "type_names"
    }
}

fn named(scan: LogicalPlan) -> Result<LogicalPlan> {
    let function = Arc::new(sql_names());
    let columns = scan.schema().columns().into_iter().map(|column| {
        if column.name != "data_type" {
            return Expr::Column(column);
        }
        let (name, relation) = (column.name.clone(), column.relation.clone());
        function.call(vec![Expr::Column(column)]).alias_qualified(relation, name)
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(scan).project(columns)?.build()
}

/// A function from Arrow's type names to SQL's.
fn sql_names() -> ScalarUDF {
    let text = || DataType::Utf8;
    let named = |values: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(values)?;
        let names = arrays.first().map(|names| names.as_string::<i32>().iter());
        let named = names.into_iter().flatten().map(|name| name.map(with_sql_types));
        Ok(ColumnarValue::Array(Arc::new(named.collect::<StringArray>()) as ArrayRef))
    };
    create_udf("sql_type_name", vec![text()], text(), Volatility::Immutable, Arc::new(named))
}
