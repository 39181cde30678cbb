//! `EXPLAIN [ANALYZE] [VERBOSE] statement`.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::LogicalPlan;
use windrow_core::Result;
use windrow_query::versions::refreshed;
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::leaf::LeafTable;
use windrow_sql::plan::{ContinuousPlan, Parameters, StreamRelation};

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

/// Returns a line for each reference table of a continuous query: the rule by which a version of it is chosen.
///
/// # Errors
/// When the plan cannot be walked (a bug).
pub(super) fn table_rules(plan: &ContinuousPlan) -> Result<String> {
    let mut rules = BTreeMap::new();
    plan.clone().map_plans(&mut |plan| {
        let walked = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let provider = source_as_provider(&scan.source)?;
                if !provider.is::<StreamRelation>() && !provider.is::<LeafTable>() {
                    let rule = match refreshed(scan) {
                        Some(table) => format!(
                            "checked every {} s; the event time of a row decides its version",
                            table.every().as_secs()
                        ),
                        None => "as it is when the query begins".to_owned(),
                    };
                    rules.insert(scan.table_name.table().to_owned(), rule);
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map(|_| plan).map_err(from_datafusion)
    })?;
    Ok(rules.iter().map(|(name, rule)| format!("table {name}: {rule}\n")).collect())
}
