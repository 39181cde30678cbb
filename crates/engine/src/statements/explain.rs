//! `EXPLAIN [ANALYZE] [VERBOSE] statement`.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use windrow_core::Result;
use windrow_sql::plan::Parameters;

use super::{ExplainOptions, Statement, columns_of};
use crate::access::Access;
use crate::access::admission::Weight;
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;

/// `EXPLAIN [ANALYZE] [VERBOSE] statement`.
#[derive(Debug)]
pub(crate) struct Explain {
    pub(super) statement: Box<dyn Statement>,
    pub(super) options: ExplainOptions,
}

#[async_trait]
impl Statement for Explain {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        match self.options.analyze {
            // It runs as long as the statement does.
            true => ("EXPLAIN ANALYZE", self.statement.admission().1),
            false => ("EXPLAIN", None),
        }
    }

    fn authorize(&self, access: &Access, catalog: &Catalog) -> Result<()> {
        match self.options.analyze {
            true => self.statement.authorize(access, catalog),
            // The statement is only planned.
            false => Ok(()),
        }
    }

    async fn parameters(&self, cx: &StatementContext) -> Result<Parameters> {
        self.statement.parameters(cx).await
    }

    async fn columns(&self, cx: &StatementContext) -> Result<Option<SchemaRef>> {
        // They are the same without executing it.
        let options = ExplainOptions { analyze: false, ..self.options };
        Ok(columns_of(&self.statement.explain(cx, options).await?))
    }

    async fn check(&self, cx: &StatementContext) -> Result<()> {
        self.statement.check(cx).await
    }

    async fn execute(&self, cx: &StatementContext) -> Result<Outcome> {
        self.statement.explain(cx, self.options).await
    }
}
