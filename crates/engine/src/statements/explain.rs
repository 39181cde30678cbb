//! `EXPLAIN [ANALYZE] [VERBOSE] statement`.

use arrow::datatypes::SchemaRef;
use windrow_core::Result;
use windrow_sql::plan::Parameters;

use super::{Answer, ExplainOptions, Statement, columns_of};
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

    fn parameters<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Parameters> {
        Box::pin(async move { self.statement.parameters(cx).await })
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move {
            // They are the same without executing it.
            let options = ExplainOptions { analyze: false, ..self.options };
            Ok(columns_of(&self.statement.explain(cx, options).await?))
        })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { self.statement.check(cx).await })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move { self.statement.explain(cx, self.options).await })
    }
}
