//! The table of a sink: it has the columns that the sink writes, and no rows that could be read.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use windrow_core::Error;
use windrow_stream::stream::table::outside;

/// See the module.
#[derive(Debug)]
pub(crate) struct SinkTable {
    /// The name of the sink.
    pub(crate) name: String,
    /// The view that it reads.
    pub(crate) view: String,
    /// The columns.
    pub(crate) schema: SchemaRef,
}

#[async_trait]
impl TableProvider for SinkTable {
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
        let Self { name, view, .. } = self;
        Err(outside(
            Error::sql(format!("\"{name}\" is a sink, its rows are where it writes them"))
                .with_hint(format!("Read the view that it takes its rows from: \"{view}\".")),
        ))
    }
}
