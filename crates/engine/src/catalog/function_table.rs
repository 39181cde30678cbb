//! The table of a function: it reserves the function's name in the catalog, and cannot be read.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::Error;
use windrow_stream::stream::table::outside;

/// See the module.
#[derive(Debug)]
pub(crate) struct FunctionTable {
    /// The name of the function.
    pub(crate) name: String,
}

#[async_trait]
impl TableProvider for FunctionTable {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let name = &self.name;
        Err(outside(
            Error::sql(format!("\"{name}\" is a function, it has no rows"))
                .with_hint(format!("Call it in an expression: SELECT {name}(…).")),
        ))
    }
}
