//! Keys that are compared by their bits: makes all NaN the same in GROUP BY, DISTINCT, set operations, joins and
//! sessions. (Zeros are already the same there, except in sessions.) Plans without floating-point keys are unchanged.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ExprSchema, JoinConstraint, Result};
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprSchemable, GroupingSet, Join, LogicalPlan,
    LogicalPlanBuilder, Operator,
};

use super::super::asof::AsofJoin;
use super::super::assign::{Keys, WindowAssign};
use super::floats::{canonical_in_place, canonical_operand, is_canonical, is_nan};

/// Handles the keys of a node.
pub(super) fn one_nan(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    Ok(match node {
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate)?,
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let all = input.schema().columns();
            match canonical_columns(&input, &all)? {
                Some(rows) => {
                    Transformed::yes(LogicalPlan::Distinct(Distinct::All(Arc::new(rows))))
                }
                None => Transformed::no(LogicalPlan::Distinct(Distinct::All(input))),
            }
        }
        LogicalPlan::Join(join) => joined(join)?,
        LogicalPlan::Extension(_) => match WindowAssign::of(&node) {
            Some(assign) => of_sessions(assign)?
                .map_or_else(|| Transformed::no(node.clone()), |a| Transformed::yes(a.into_plan())),
            None => match AsofJoin::of(&node) {
                Some(join) => of_asof(join)?.map_or_else(
                    || Transformed::no(node.clone()),
                    |j| Transformed::yes(j.into_plan()),
                ),
                None => Transformed::no(node),
            },
        },
        other => Transformed::no(other),
    })
}

/// The session keys; `None` if there is nothing to do.
fn of_sessions(assign: &WindowAssign) -> Result<Option<WindowAssign>> {
    let Keys::Of(keys) = assign.keys() else { return Ok(None) };
    let mut keys = keys.clone();
    let mut changed = false;
    for key in &mut keys {
        changed |= canonical_in_place(key, assign.input().schema().as_ref())?;
    }
    Ok(changed.then(|| assign.clone().with_keys(Keys::Of(keys))))
}

/// The keys of an ASOF join; `None` if there is nothing to do.
fn of_asof(join: &AsofJoin) -> Result<Option<AsofJoin>> {
    let mut on = join.on.clone();
    let mut changed = false;
    for (left, right) in &mut on {
        changed |= canonical_in_place(left, join.left.schema().as_ref())?;
        changed |= canonical_in_place(right, join.right.schema().as_ref())?;
    }
    Ok(changed.then(|| join.clone().with_on(on)))
}

/// Equality of floating-point numbers if one of the operands may be NaN.
pub(super) fn equal(mut expr: Expr, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    let mut changed = false;
    if let Expr::BinaryExpr(BinaryExpr { left, op, right }) = &mut expr
        && matches!(
            op,
            Operator::Eq | Operator::NotEq | Operator::IsDistinctFrom | Operator::IsNotDistinctFrom
        )
    {
        let is_number = |e: &Expr| matches!(e, Expr::Literal(value, _) if !is_nan(value));
        if !is_number(left) && !is_number(right) {
            changed |= canonical_operand(left, schema)?;
            changed |= canonical_operand(right, schema)?;
        }
    }
    Ok(Transformed::new_transformed(expr, changed))
}

/// `x IN (SELECT …)`, which becomes a join.
pub(super) fn in_subquery(mut expr: Expr, schema: &dyn ExprSchema) -> Result<Transformed<Expr>> {
    let mut changed = false;
    if let Expr::InSubquery(of) = &mut expr {
        changed |= canonical_operand(&mut of.expr, schema)?;
        let rows = &of.subquery.subquery;
        if let Some(rows) = canonical_columns(rows, &rows.schema().columns())? {
            of.subquery.subquery = Arc::new(rows);
            changed = true;
        }
    }
    Ok(Transformed::new_transformed(expr, changed))
}

/// Columns are made canonical below the aggregate, so that they keep their names; expressions in place.
fn grouped(mut aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(aggregate.input.schema());
    let mut columns = vec![];
    let mut changed = false;
    for key in &mut aggregate.group_expr {
        changed |= key_in_place(key, &schema, &mut columns)?;
    }
    let mut input = Arc::clone(&aggregate.input);
    if let Some(rows) = canonical_columns(&input, &columns)? {
        input = Arc::new(rows);
        changed = true;
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let aggregate = Aggregate::try_new(input, aggregate.group_expr, aggregate.aggr_expr)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// Handles one key of a GROUP BY; collects columns.
fn key_in_place(key: &mut Expr, schema: &DFSchema, columns: &mut Vec<Column>) -> Result<bool> {
    match key {
        Expr::Column(column) => {
            columns.push(column.clone());
            Ok(false)
        }
        Expr::Alias(alias) => key_in_place(&mut alias.expr, schema, columns),
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
            keys_in_place(sets.iter_mut().flatten(), schema, columns)
        }
        Expr::GroupingSet(GroupingSet::Cube(keys) | GroupingSet::Rollup(keys)) => {
            keys_in_place(keys.iter_mut(), schema, columns)
        }
        other => canonical_in_place(other, schema),
    }
}

fn keys_in_place<'k>(
    keys: impl Iterator<Item = &'k mut Expr>,
    schema: &DFSchema,
    columns: &mut Vec<Column>,
) -> Result<bool> {
    let mut changed = false;
    for key in keys {
        changed |= key_in_place(key, schema, columns)?;
    }
    Ok(changed)
}

/// The rows with the floating-point numbers of these columns made canonical; `None` if there are none, or they are
/// already.
fn canonical_columns(rows: &Arc<LogicalPlan>, columns: &[Column]) -> Result<Option<LogicalPlan>> {
    let schema = rows.schema();
    let made = |column: &Column| match rows.as_ref() {
        LogicalPlan::Projection(projection) => schema
            .maybe_index_of_column(column)
            .and_then(|at| projection.expr.get(at))
            .is_some_and(is_canonical),
        _ => false,
    };
    let wanted = |column: &Column| -> Result<bool> {
        let of = Expr::Column(column.clone()).get_type(schema.as_ref())?;
        let is_float = matches!(of, DataType::Float32 | DataType::Float64);
        Ok(is_float && columns.contains(column) && !made(column))
    };
    let mut changed = false;
    let mut exprs = Vec::with_capacity(schema.fields().len());
    for column in schema.columns() {
        let mut expr = Expr::Column(column.clone());
        if wanted(&column)? {
            changed |= canonical_in_place(&mut expr, schema.as_ref())?;
            expr = expr.alias_qualified(column.relation, column.name);
        }
        exprs.push(expr);
    }
    if !changed {
        return Ok(None);
    }
    LogicalPlanBuilder::from(Arc::clone(rows)).project(exprs)?.build().map(Some)
}

/// The keys of a join. (Equalities in its condition are handled like all others.)
fn joined(mut join: Join) -> Result<Transformed<LogicalPlan>> {
    let mut changed = false;
    for (left, right) in &mut join.on {
        changed |= canonical_operand(left, join.left.schema().as_ref())?;
        changed |= canonical_operand(right, join.right.schema().as_ref())?;
    }
    if changed {
        // USING accepts only columns; its effect on names has already been resolved.
        join.join_constraint = JoinConstraint::On;
    }
    Ok(Transformed::new_transformed(LogicalPlan::Join(join), changed))
}
