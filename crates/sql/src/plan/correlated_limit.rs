//! Correlated subqueries with LIMIT, which DataFusion cannot turn into joins.
//!
//! A scalar subquery `(SELECT x … ORDER BY k LIMIT 1)` is `(SELECT first_value(x ORDER BY k) …)`. For `LATERAL (SELECT … ORDER
//! BY … LIMIT n)`, the rows of the left side are numbered, the join is made without LIMIT, and the matches of each row are
//! numbered in the order of the subquery:
//! ```text
//! left ⋈ lateral(limit n (sort k (x)))  =  filter(number <= n) ◄ number(by row, order by k) ◄ number(left) ⋈ lateral(x)
//! ```
//! A row of a LEFT JOIN without a match has number 1, and stays.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, TableReference};
use datafusion::functions_aggregate::first_last::first_value;
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, FetchType, Join, JoinType, Limit, LogicalPlan, LogicalPlanBuilder, SkipType, Sort,
    SortExpr, Subquery, WindowFrame, WindowFunctionDefinition, lit,
};

use windrow_core::Error;

use super::bounded::named;
use super::is_streaming;
use super::shape::refused;

/// The number of a row of the left side.
const ROW: &str = "__lateral_row";
/// The number of a match among those of its row.
const MATCH: &str = "__lateral_match";
/// The prefix of the columns that the subquery is ordered by.
const ORDER: &str = "__lateral_order";

/// Rewrites every correlated subquery with a LIMIT of constants.
///
/// # Errors
/// When a node cannot be built.
pub(crate) fn decide(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = &node
            && let Some(plan) = numbered(join)?
        {
            return Ok(Transformed::yes(plan));
        }
        node.map_expressions(|expr| expr.transform_up(first))
    })
    .data()
}

/// A scalar subquery of the first row, as an aggregate.
fn first(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::ScalarSubquery(subquery) = &expr else { return Ok(Transformed::no(expr)) };
    let LogicalPlan::Limit(limit) = subquery.subquery.as_ref() else {
        return Ok(Transformed::no(expr));
    };
    if subquery.outer_ref_columns.is_empty() || constants(limit)? != Some((0, Some(1))) {
        return Ok(Transformed::no(expr));
    }
    let (rows, order) = unsorted(&limit.input)?;
    let Some(value) = rows.schema().columns().into_iter().next() else {
        return Ok(Transformed::no(expr));
    };
    let by = order.into_iter().enumerate().map(|(i, sort)| {
        let column = Expr::Column(Column::new_unqualified(order_name(i)));
        SortExpr::new(column, sort.asc, sort.nulls_first)
    });
    let value = first_value(Expr::Column(value), by.collect());
    let rows = LogicalPlanBuilder::from(rows).aggregate(Vec::<Expr>::new(), [value])?.build()?;
    Ok(Transformed::yes(Expr::ScalarSubquery(subquery.with_plan(Arc::new(rows)))))
}

/// Refuses a lateral subquery with LIMIT over a stream, in a plan that has to run continuously.
///
/// # Errors
/// When there is one.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let fields = node.schema().fields();
        if fields.iter().any(|f| [ROW, MATCH].contains(&f.name().as_str())) && is_streaming(node) {
            let e = Error::sql("LATERAL with LIMIT over a stream cannot run continuously");
            return Err(refused(e.with_hint(
                "Use an ASOF JOIN for the closest row in time, or remove EMIT to run it once.",
            )));
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

/// The join with its limit as a filter; `None` when it is not of this form.
fn numbered(join: &Join) -> Result<Option<LogicalPlan>> {
    let always = join.filter.as_ref().is_none_or(|filter| *filter == lit(true));
    if !always || !join.on.is_empty() || !matches!(join.join_type, JoinType::Inner | JoinType::Left)
    {
        return Ok(None);
    }
    let Some((subquery, alias)) = lateral(&join.right) else { return Ok(None) };
    let LogicalPlan::Limit(limit) = subquery.subquery.as_ref() else { return Ok(None) };
    let Some((skip, fetch)) = constants(limit)? else { return Ok(None) };
    // A row none of whose matches is left would be lost.
    let loses = join.join_type == JoinType::Left && (skip > 0 || fetch == Some(0));
    if subquery.outer_ref_columns.is_empty() || loses {
        return Ok(None);
    }
    let (rows, order) = unsorted(&limit.input)?;
    let wider = LogicalPlan::Subquery(subquery.with_plan(Arc::new(rows)));
    let right = match alias {
        Some(alias) => LogicalPlanBuilder::from(wider).alias(alias.clone())?.build()?,
        None => wider,
    };
    let order: Vec<SortExpr> = order
        .into_iter()
        .enumerate()
        .map(|(i, sort)| {
            let column = Expr::Column(Column::new(alias.cloned(), order_name(i)));
            SortExpr::new(column, sort.asc, sort.nulls_first)
        })
        .collect();
    let left =
        with_number(LogicalPlanBuilder::from(join.left.as_ref().clone()), vec![], vec![], ROW)?;
    let on = lit(true);
    let joined = left.join_on(right, join.join_type, [on])?;
    let by_row = vec![Expr::Column(Column::new_unqualified(ROW))];
    let number = || Expr::Column(Column::new_unqualified(MATCH));
    let mut rows = with_number(joined, by_row, order, MATCH)?.filter(number().gt(lit(skip)))?;
    if let Some(fetch) = fetch {
        rows = rows.filter(number().lt_eq(lit(skip.saturating_add(fetch))))?;
    }
    let columns = join.schema.iter();
    let columns = columns.map(|(of, field)| Expr::Column(Column::new(of.cloned(), field.name())));
    Ok(Some(rows.project(columns.collect::<Vec<_>>())?.build()?))
}

/// The subquery of a lateral relation, and the relation's alias.
fn lateral(plan: &LogicalPlan) -> Option<(&Subquery, Option<&TableReference>)> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some((subquery, None)),
        LogicalPlan::SubqueryAlias(alias) => match alias.input.as_ref() {
            LogicalPlan::Subquery(subquery) => Some((subquery, Some(&alias.alias))),
            _ => None,
        },
        _ => None,
    }
}

/// The numbers of rows that a LIMIT skips and returns, where both are constants.
fn constants(limit: &Limit) -> Result<Option<(u64, Option<u64>)>> {
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
        (limit.get_skip_type()?, limit.get_fetch_type()?)
    else {
        return Ok(None);
    };
    Ok(Some((skip as u64, fetch.map(|fetch| fetch as u64))))
}

/// `plan` without the sort at its top or below its projection, with the sort's values as further columns.
fn unsorted(plan: &LogicalPlan) -> Result<(LogicalPlan, Vec<SortExpr>)> {
    let own = |plan: &LogicalPlan| -> Vec<Expr> {
        plan.schema().columns().into_iter().map(Expr::Column).collect()
    };
    let (mut exprs, sort) = match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => (own(&sort.input), sort),
        LogicalPlan::Projection(projection) => match projection.input.as_ref() {
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => (projection.expr.clone(), sort),
            _ => return Ok((plan.clone(), vec![])),
        },
        _ => return Ok((plan.clone(), vec![])),
    };
    let Sort { expr: order, input, .. } = sort;
    exprs.extend(order.iter().enumerate().map(|(i, sort)| sort.expr.clone().alias(order_name(i))));
    let rows = LogicalPlanBuilder::from(input.as_ref().clone()).project(exprs)?.build()?;
    Ok((rows, order.clone()))
}

fn order_name(i: usize) -> String {
    format!("{ORDER}_{i}")
}

/// `rows` with a column `name` more: the number of the row from 1 on.
fn with_number(
    rows: LogicalPlanBuilder,
    by: Vec<Expr>,
    order: Vec<SortExpr>,
    name: &str,
) -> Result<LogicalPlanBuilder> {
    let function = WindowFunctionDefinition::WindowUDF(row_number_udwf());
    let mut number = WindowFunction::new(function, vec![]);
    number.params.partition_by = by;
    number.params.window_frame = WindowFrame::new((!order.is_empty()).then_some(false));
    number.params.order_by = order;
    let number = Expr::from(number);
    let schema = Arc::clone(rows.schema());
    let mut columns: Vec<Expr> = schema
        .iter()
        .map(|(of, field)| {
            let column = Expr::Column(Column::new(of.cloned(), field.name()));
            named(column, of.cloned(), field.name())
        })
        .collect();
    let plain = Column::new_unqualified(number.schema_name().to_string());
    columns.push(Expr::Column(plain).alias(name));
    rows.window([number])?.project(columns)
}
