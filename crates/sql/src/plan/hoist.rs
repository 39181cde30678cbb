//! Lifts a window relation above everything that treats rows one by one.
//!
//! `filter(project(join(windows(rows), table)))` becomes `windows(filter(project(join(rows, table))))`, so that all of
//! it runs per micro-batch, in parallel, and the window operator reads plain columns. Expressions over bounds only are
//! kept for the closed window. An expression that mixes bounds and columns of rows stops the lift, and so does a node
//! that removes rows of sessions or adds some: the other rows of a session depend on them.

use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, TableReference};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Expr, Join, LogicalPlan, LogicalPlanBuilder, Projection, TableScan,
};
use windrow_core::Windows;
use windrow_operators::RowEnds;

use super::aggregate::OPERATOR;
use super::assign::{BOUNDS, WindowAssign};
use super::bounded::lower_all;
use super::lineage;
use super::shape::{Kind, kind};
use super::{stream_of, view_windows};

/// The qualifier of bounds in expressions that are computed for the closed window.
const BOUND_QUALIFIER: &str = "__window";

/// A plan in two parts: `windows(inner)`, and how its columns follow from them.
#[derive(Debug)]
pub(crate) struct Hoisted {
    /// The rows, without windows.
    pub(crate) inner: LogicalPlan,
    /// The time column of the windows in `inner`.
    pub(crate) time: Column,
    /// The windows.
    pub(crate) windows: Windows,
    /// The session keys, over `inner`.
    pub(crate) session_keys: Vec<Expr>,
    /// The unit of the bounds.
    pub(crate) unit: TimeUnit,
    /// How far the time column may lie behind the watermark.
    pub(crate) lag_ticks: i64,
    /// For rows that come with their windows: how the end of a window follows from the first event time of their view.
    pub(crate) row_ends: Option<RowEnds>,
    /// The origin of each column of the plan, in order.
    pub(crate) outputs: Vec<Output>,
    /// Conditions over bounds: only windows that satisfy all of them are returned.
    pub(crate) conditions: Vec<Expr>,
}

/// The origin of a column of a hoisted plan.
#[derive(Debug, Clone)]
pub(crate) enum Output {
    /// A column of the rows.
    Row(Column),
    /// An expression over bounds alone (see [`at_leaf`]).
    Bound(Expr),
}

/// An expression in terms of a hoisted plan.
#[derive(Debug)]
pub(crate) enum Rewritten {
    /// Over columns of the rows, or without columns.
    Row(Expr),
    /// Over bounds alone.
    Bound(Expr),
    /// Over both.
    Mixed,
}

/// Splits `plan`; `None` when something in it stops the lift.
///
/// # Errors
/// When a rewritten node is invalid (our bug).
#[recursive::recursive]
pub(crate) fn hoist(plan: &LogicalPlan, names: &mut usize) -> Result<Option<Hoisted>> {
    match plan {
        LogicalPlan::Extension(_) => WindowAssign::of(plan).map(of_assign).transpose(),
        LogicalPlan::TableScan(scan) => of_view(plan, scan),
        // Columns keep their order; only their names change, and those are not used here.
        LogicalPlan::SubqueryAlias(alias) => hoist(&alias.input, names),
        LogicalPlan::Projection(projection) => {
            let Some(below) = hoist(&projection.input, names)? else { return Ok(None) };
            below.project(projection, names)
        }
        LogicalPlan::Filter(filter) => {
            let Some(mut below) = hoist(&filter.input, names)? else { return Ok(None) };
            for condition in split_conjunction(&filter.predicate) {
                match below.rewrite(condition, filter.input.schema())? {
                    Rewritten::Row(_) if below.has_sessions() => return Ok(None),
                    Rewritten::Row(condition) => {
                        let rows = LogicalPlanBuilder::from(below.inner);
                        below.inner = rows.filter(condition)?.build()?;
                    }
                    Rewritten::Bound(condition) => below.conditions.push(condition),
                    Rewritten::Mixed => return Ok(None),
                }
            }
            Ok(Some(below))
        }
        LogicalPlan::Join(join) => of_join(join, names),
        _ => Ok(None),
    }
}

fn of_assign(assign: &WindowAssign) -> Result<Hoisted> {
    let known = lineage::columns(assign.input())?;
    let lag = lineage::of_column(&known, assign.input(), assign.time()).lag.unwrap_or(0);
    // A row that is exactly one gap after the last one of a session still joins it.
    let behind = match assign.windows() {
        Windows::Aligned(_) => 0,
        Windows::Session(_) => 1,
    };
    let rows = assign
        .kept()
        .map(|i| Output::Row(Column::from(assign.input().schema().qualified_field(i))));
    let bounds = BOUNDS.iter().map(|name| {
        let qualifier = TableReference::bare(BOUND_QUALIFIER);
        Output::Bound(Expr::Column(Column::new(Some(qualifier), *name)))
    });
    Ok(Hoisted {
        inner: assign.input().clone(),
        time: assign.time().clone(),
        windows: assign.windows(),
        session_keys: assign.session_keys()?,
        unit: assign.time_type()?.1,
        lag_ticks: lag.saturating_add(behind),
        row_ends: None,
        outputs: rows.chain(bounds).collect(),
        conditions: vec![],
    })
}

/// The rows of a view of windows, by those windows, whose bounds are columns of the rows.
fn of_view(plan: &LogicalPlan, scan: &TableScan) -> Result<Option<Hoisted>> {
    let Some(relation) = stream_of(scan) else { return Ok(None) };
    let Some(found) = view_windows::of_scan(scan, &relation)? else { return Ok(None) };
    Ok(Some(Hoisted {
        inner: found.rows,
        time: found.time,
        windows: Windows::Aligned(found.windows),
        session_keys: vec![],
        unit: found.unit,
        lag_ticks: found.lag_ticks,
        row_ends: Some(found.row_ends),
        outputs: plan.schema().columns().into_iter().map(Output::Row).collect(),
        conditions: vec![],
    }))
}

/// A join of windowed rows with a table that does not stream.
fn of_join(join: &Join, names: &mut usize) -> Result<Option<Hoisted>> {
    let (left, right) = (kind(&join.left)?, kind(&join.right)?);
    let rows_left = right == Kind::Static;
    let (rows, table) = match (left, right) {
        (Kind::Rows { windowed: true }, Kind::Static) => (&join.left, &join.right),
        (Kind::Static, Kind::Rows { windowed: true }) => (&join.right, &join.left),
        _ => return Ok(None),
    };
    let Some(below) = hoist(rows, names)?.filter(|below| !below.has_sessions()) else {
        return Ok(None);
    };
    let mut on = Vec::with_capacity(join.on.len());
    for (l, r) in &join.on {
        let Rewritten::Row(rewritten) =
            below.rewrite(if rows_left { l } else { r }, rows.schema())?
        else {
            return Ok(None);
        };
        on.push(if rows_left { (rewritten, r.clone()) } else { (l.clone(), rewritten) });
    }
    let filter = match &join.filter {
        None => None,
        Some(filter) => match below.rewrite_beside(filter, rows.schema(), Some(table.schema()))? {
            Rewritten::Row(filter) => Some(filter),
            _ => return Ok(None),
        },
    };
    let table = Arc::new(lower_all(table.as_ref().clone())?);
    let inner = Arc::new(below.inner.clone());
    let sides = if rows_left { (inner, table) } else { (table, inner) };
    let Ok(joined) = Join::try_new(
        sides.0,
        sides.1,
        on,
        filter,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    ) else {
        // A name below an alias clashes with one of the table: the join cannot be moved.
        return Ok(None);
    };
    // The table's columns (or a mark) are the rest of the schema, before or after the rows'.
    let extra = join.schema.fields().len().saturating_sub(below.outputs.len());
    let all = joined.schema.columns();
    let table_columns: Vec<Column> = if rows_left {
        all.into_iter().rev().take(extra).rev().collect()
    } else {
        all.into_iter().take(extra).collect()
    };
    let table_outputs = table_columns.into_iter().map(Output::Row);
    let outputs = if rows_left {
        below.outputs.into_iter().chain(table_outputs).collect()
    } else {
        table_outputs.chain(below.outputs).collect()
    };
    Ok(Some(Hoisted { inner: LogicalPlan::Join(joined), outputs, ..below }))
}

impl Hoisted {
    /// Whether the windows are sessions.
    pub(crate) fn has_sessions(&self) -> bool {
        matches!(self.windows, Windows::Session(_))
    }

    /// `expr` over the plan's columns (`schema`), in terms of `inner` and bounds.
    pub(crate) fn rewrite(&self, expr: &Expr, schema: &DFSchema) -> Result<Rewritten> {
        self.rewrite_beside(expr, schema, None)
    }

    fn rewrite_beside(
        &self,
        expr: &Expr,
        schema: &DFSchema,
        table: Option<&DFSchema>,
    ) -> Result<Rewritten> {
        let (mut rows, mut bounds, mut opaque) = (false, false, false);
        let rewritten = expr
            .clone()
            .transform_down(|node| match node {
                Expr::Column(column) => {
                    let output = schema
                        .maybe_index_of_column(&column)
                        .and_then(|index| self.outputs.get(index));
                    match output {
                        Some(Output::Row(inner)) => {
                            rows = true;
                            let inner = Expr::Column(inner.clone());
                            Ok(Transformed::new(inner, true, TreeNodeRecursion::Jump))
                        }
                        Some(Output::Bound(bound)) => {
                            bounds = true;
                            Ok(Transformed::new(bound.clone(), true, TreeNodeRecursion::Jump))
                        }
                        None => {
                            // A column of the other table, or an unknown one.
                            rows = true;
                            opaque |= table.is_none_or(|t| !t.has_column(&column));
                            Ok(Transformed::no(Expr::Column(column)))
                        }
                    }
                }
                Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::ScalarSubquery(_)
                | Expr::OuterReferenceColumn(..) => {
                    opaque = true;
                    Ok(Transformed::no(node))
                }
                other => Ok(Transformed::no(other)),
            })
            .data()?;
        Ok(match (rows, bounds) {
            _ if opaque => Rewritten::Mixed,
            (true, true) => Rewritten::Mixed,
            (false, true) => Rewritten::Bound(rewritten),
            (_, false) => Rewritten::Row(rewritten),
        })
    }

    /// Moves a projection below the windows, with fresh names for what it computes.
    fn project(mut self, projection: &Projection, names: &mut usize) -> Result<Option<Self>> {
        let schema = projection.input.schema();
        let mut outputs = Vec::with_capacity(projection.expr.len());
        let mut kept = vec![self.time.clone()];
        for column in self.session_keys.iter().flat_map(Expr::column_refs) {
            if !kept.contains(column) {
                kept.push(column.clone());
            }
        }
        let mut computed = vec![];
        for expr in &projection.expr {
            match self.rewrite(expr, schema)? {
                Rewritten::Mixed => return Ok(None),
                Rewritten::Bound(expr) => outputs.push(Output::Bound(expr.unalias())),
                Rewritten::Row(expr) => match expr.unalias() {
                    Expr::Column(column) => {
                        if !kept.contains(&column) {
                            kept.push(column.clone());
                        }
                        outputs.push(Output::Row(column));
                    }
                    expr => {
                        *names += 1;
                        let name = format!("__c{names}");
                        let column = Column::new_unqualified(&name);
                        for key in self.session_keys.iter_mut().filter(|key| **key == expr) {
                            *key = Expr::Column(column.clone());
                        }
                        outputs.push(Output::Row(column));
                        computed.push(expr.alias(name));
                    }
                },
            }
        }
        if !computed.is_empty() {
            let exprs = kept.into_iter().map(Expr::Column).chain(computed);
            self.inner = LogicalPlanBuilder::from(self.inner).project(exprs)?.build()?;
        }
        Ok(Some(Self { outputs, ..self }))
    }
}

/// Whether there are sessions below `plan`, with only row-wise nodes above them, so that [`hoist`] finds them.
#[recursive::recursive]
pub(crate) fn is_over_session(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::SubqueryAlias(_) | LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => {
            plan.inputs().iter().all(|input| is_over_session(input))
        }
        _ => WindowAssign::of(plan)
            .is_some_and(|assign| matches!(assign.windows(), Windows::Session(_))),
    }
}

/// Turns an expression over bounds and the operator's columns into one over the leaf `leaf`.
pub(crate) fn at_leaf(expr: Expr, leaf: &TableReference) -> Result<Expr> {
    expr.transform(|node| match node {
        Expr::Column(column)
            if column
                .relation
                .as_ref()
                .is_some_and(|r| matches!(r.table(), BOUND_QUALIFIER | OPERATOR)) =>
        {
            let column = Column::new(Some(leaf.clone()), column.name);
            Ok(Transformed::yes(Expr::Column(column)))
        }
        other => Ok(Transformed::no(other)),
    })
    .data()
}
