//! Projections equal to the one below them: `SELECT x + x AS x FROM (SELECT x + x AS x FROM …)`.
//!
//! DataFusion 55 removes the upper of two projections with equal expressions as redundant, although its `x` is the
//! lower one's result, so that results were wrong (`merge_consecutive_projections`, "a fast path"). An analyzer rule
//! renames the columns between them, so that the expressions differ.
//!
//! Invariant: names, types and values of the output do not change.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};
use datafusion::optimizer::AnalyzerRule;

/// Renames the columns between equal projections.
#[derive(Debug)]
pub(super) struct NameApart;

impl AnalyzerRule for NameApart {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let named = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Projection(upper) => match upper.input.as_ref() {
                LogicalPlan::Projection(lower) if are_mistaken(&upper, lower) => {
                    apart(&upper, lower).map(Transformed::yes)
                }
                _ => Ok(Transformed::no(LogicalPlan::Projection(upper))),
            },
            other => Ok(Transformed::no(other)),
        });
        named.map(|named| named.data)
    }

    fn name(&self) -> &'static str {
        "name_apart"
    }
}

/// Whether the upper one would be removed, and something with it.
fn are_mistaken(upper: &Projection, lower: &Projection) -> bool {
    upper.expr == lower.expr && !upper.expr.iter().all(|expr| matches!(expr, Expr::Column(_)))
}

fn apart(upper: &Projection, lower: &Projection) -> Result<LogicalPlan> {
    let name = |at: usize| format!("__below_{at}");
    let below = lower.expr.iter().enumerate().map(|(at, expr)| {
        let unnamed = expr.clone().unalias();
        unnamed.alias(name(at))
    });
    let below = Projection::try_new(below.collect(), Arc::clone(&lower.input))?;
    let fields = upper.schema.iter();
    let above = upper.expr.iter().zip(fields).map(|(expr, (qualifier, field))| {
        let renamed = expr.clone().unalias().transform_down(|part| match part {
            Expr::Column(column) => {
                let at = lower.schema.index_of_column(&column)?;
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name(at)))))
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(renamed.data.alias_qualified(qualifier.cloned(), field.name()))
    });
    let above = above.collect::<Result<Vec<_>>>()?;
    Projection::try_new(above, Arc::new(LogicalPlan::Projection(below)))
        .map(LogicalPlan::Projection)
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::runtime_env::RuntimeEnv;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;
    use crate::plan::session_state;

    #[tokio::test]
    async fn each_level_counts() {
        let state = session_state(SessionConfig::new(), Arc::new(RuntimeEnv::default())).unwrap();
        let context = SessionContext::new_with_state(state);
        for (each, wanted) in [("x + x", 24), ("x * 2", 24), ("x + 1", 6)] {
            let sql = (0..3).fold("SELECT value AS x FROM range(3, 4)".to_owned(), |sql, _| {
                format!("SELECT {each} AS x FROM ({sql})")
            });
            let rows = context.sql(&sql).await.unwrap().collect().await.unwrap();
            let told = pretty_format_batches(&rows).unwrap().to_string();
            assert!(told.contains(&format!("| {wanted} ")), "{sql}:\n{told}");
        }
    }
}
