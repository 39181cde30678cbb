//! Compares prepare plans except for names: Nexmark q5 has the same aggregate twice, with two aliases; it is computed
//! once.

use std::fmt::Write as _;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::stream_of;

/// A text that is equal for two plans only if they return the same rows with the same columns in the same order.
/// `None`: the plan cannot be compared, because it joins, or does something that may differ from run to run.
#[recursive::recursive]
pub(crate) fn of_plan(plan: &LogicalPlan) -> Result<Option<String>> {
    let (head, exprs): (String, &[Expr]) = match plan {
        LogicalPlan::TableScan(scan) => {
            return Ok(stream_of(scan).filter(|_| scan.fetch.is_none()).map(|relation| {
                format!("scan {:?} {:?} {:?}", relation.name(), scan.projection, scan.filters)
            }));
        }
        LogicalPlan::SubqueryAlias(alias) => return of_plan(&alias.input),
        LogicalPlan::Projection(projection) => ("project".to_owned(), &projection.expr),
        LogicalPlan::Filter(filter) => {
            ("filter".to_owned(), std::slice::from_ref(&filter.predicate))
        }
        _ => return Ok(None),
    };
    let inputs = plan.inputs();
    let [input] = inputs.as_slice() else { return Ok(None) };
    let Some(below) = of_plan(input)? else { return Ok(None) };
    let mut text = head;
    for expr in exprs {
        if expr.is_volatile() {
            return Ok(None);
        }
        let expr = by_position(expr, input)?;
        if write!(text, " [{expr:?}]").is_err() {
            return Ok(None);
        }
    }
    Ok(Some(format!("{text} of ({below})")))
}

/// The expression with columns as positions in its input, and without aliases.
fn by_position(expr: &Expr, input: &LogicalPlan) -> Result<Expr> {
    expr.clone()
        .transform_up(|node| match node {
            Expr::Column(column) => {
                let index = input.schema().index_of_column(&column)?;
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(format!("#{index}")))))
            }
            Expr::Alias(alias) => Ok(Transformed::yes(*alias.expr)),
            other => Ok(Transformed::no(other)),
        })
        .data()
}
