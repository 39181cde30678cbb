//! The table of an object that has a name among tables and cannot be read: a sink, a function, a model.

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
pub(crate) struct Rowless {
    schema: SchemaRef,
    /// Why it cannot be read.
    message: String,
    hint: String,
}

impl Rowless {
    /// The table of a sink that reads `view`, with the columns that the sink writes.
    pub(crate) fn of_sink(name: &str, view: &str, schema: SchemaRef) -> Self {
        Self {
            schema,
            message: format!("\"{name}\" is a sink, its rows are where it writes them"),
            hint: format!("Read the view that it takes its rows from: \"{view}\"."),
        }
    }

    /// The table of a function.
    pub(crate) fn of_function(name: &str) -> Self {
        Self {
            schema: Arc::new(Schema::empty()),
            message: format!("\"{name}\" is a function, it has no rows"),
            hint: format!("Call it in an expression: SELECT {name}(…)."),
        }
    }
}

impl Rowless {
    /// The table of a model.
    pub(crate) fn of_model(name: &str) -> Self {
        Self {
            schema: Arc::new(Schema::empty()),
            message: format!("\"{name}\" is a model, it has no rows"),
            hint: format!("Call it in an expression: SELECT predict({name}, …)."),
        }
    }
}

#[async_trait]
impl TableProvider for Rowless {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
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
        Err(outside(Error::sql(self.message.clone()).with_hint(self.hint.clone())))
    }
}
