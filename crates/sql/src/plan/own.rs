//! Resolves `window_start`, `window_end` and `window_time` for windows over relations that have windows themselves.
//!
//! `FROM HOP(m, …)` adds new bounds to the rows, and hides those that the view `m` has itself. Unqualified names are
//! the new bounds. `m.window_time` is the view's own: [`name_apart`] passes it through the window with a unique name.
//! Within an aggregate an unqualified name hardly means the new bounds, which are the same for all rows of a window:
//! [`check`] refuses it as ambiguous.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as PlanResult, TableReference};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, Ident, ObjectName, OrderBy, Query, Select, SelectItem,
    SetExpr, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};
use windrow_core::{Error, Result};

use super::assign::{BOUNDS, WindowAssign};
use super::shape::refused;
use crate::diagnostics::place_of;

/// The bounds of the relations in a query, by the relations' names.
type Owners = BTreeMap<String, Vec<&'static str>>;

/// Passes the own bounds of views through the windows over them, if the query refers to them.
///
/// # Errors
/// Never in practice: the planner reports relations that do not exist.
pub(crate) async fn name_apart(state: &SessionState, query: &mut Query) -> Result<()> {
    let mut mentions = Mentions::default();
    let _never_breaks = Visit::visit(query, &mut mentions);
    let mut owners = Owners::new();
    for (name, bounds) in mentions.0 {
        let table = TableReference::bare(name.as_str());
        let Ok(schema) = state.schema_for_ref(table) else { continue };
        let Ok(Some(table)) = schema.table(&name).await else { continue };
        let schema = table.schema();
        let own = bounds.into_iter().filter(|b| schema.column_with_name(b).is_some());
        let own: Vec<&'static str> = own.collect();
        if !own.is_empty() {
            owners.insert(name, own);
        }
    }
    if !owners.is_empty() {
        let _never_breaks = VisitMut::visit(query, &mut Apart { owners });
    }
    Ok(())
}

/// The relations whose bounds a query refers to: `m.window_time`.
#[derive(Default)]
struct Mentions(BTreeMap<String, Vec<&'static str>>);

impl Visitor for Mentions {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let Some((relation, bound)) = own_bound(expr) {
            let bounds = self.0.entry(relation).or_default();
            if !bounds.contains(&bound) {
                bounds.push(bound);
            }
        }
        ControlFlow::Continue(())
    }
}

fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// `relation.bound`.
fn own_bound(expr: &ast::Expr) -> Option<(String, &'static str)> {
    let ast::Expr::CompoundIdentifier(names) = expr else { return None };
    let [relation, column] = names.as_slice() else { return None };
    let column = folded(column);
    let bound = BOUNDS.into_iter().find(|b| *b == column)?;
    Some((folded(relation), bound))
}

/// The name with which a bound passes through the windows over its view.
fn apart(relation: &str, bound: &str) -> Ident {
    Ident::with_quote('"', format!("{bound} of {relation}"))
}

struct Apart {
    owners: Owners,
}

impl VisitorMut for Apart {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let Query { body, order_by, .. } = query;
        if let SetExpr::Select(select) = body.as_mut() {
            self.select(select, order_by.as_mut());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        self.select(select, None);
        ControlFlow::Continue(())
    }
}

impl Apart {
    fn select(&self, select: &mut Select, order_by: Option<&mut OrderBy>) {
        let mut through = Owners::new();
        for table in &mut select.from {
            let joined = table.joins.iter_mut().map(|join| &mut join.relation);
            for factor in std::iter::once(&mut table.relation).chain(joined) {
                let Some((input, name)) = windowed(factor) else { continue };
                let Some(bounds) = self.owners.get(&name) else { continue };
                for bound in bounds {
                    let alias = apart(&name, bound);
                    let own = vec![Ident::with_quote('"', name.clone()), Ident::new(*bound)];
                    let expr = ast::Expr::CompoundIdentifier(own);
                    input.push(SelectItem::ExprWithAlias { expr, alias });
                }
                through.insert(name, bounds.clone());
            }
        }
        if through.is_empty() {
            return;
        }
        let mut renamed = Renamed { through, inside: 0 };
        let Select { projection, selection, group_by, having, qualify, distinct, .. } = select;
        renamed.within(projection);
        renamed.within(selection);
        renamed.within(group_by);
        renamed.within(having);
        renamed.within(qualify);
        renamed.within(distinct);
        for table in &mut select.from {
            for join in &mut table.joins {
                renamed.within(&mut join.join_operator);
            }
        }
        if let Some(order_by) = order_by {
            renamed.within(order_by);
        }
    }
}

/// The columns that a window without an alias reads, of `SELECT * FROM name`, and that name.
fn windowed(factor: &mut TableFactor) -> Option<(&mut Vec<SelectItem>, String)> {
    let TableFactor::Table { name, alias: None, args: Some(args), .. } = factor else {
        return None;
    };
    let function = last(name)?;
    if !["tumble", "hop", "cumulate", "session"].contains(&function.as_str()) {
        return None;
    }
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Subquery(query))) =
        args.args.first_mut()?
    else {
        return None;
    };
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let [SelectItem::Wildcard(_)] = select.projection.as_slice() else { return None };
    let [table] = select.from.as_slice() else { return None };
    let name = match &table.relation {
        TableFactor::Table { name, alias: None, args: None, .. } if table.joins.is_empty() => {
            last(name)?
        }
        _ => return None,
    };
    Some((&mut select.projection, name))
}

fn last(name: &ObjectName) -> Option<String> {
    name.0.last()?.as_ident().map(folded)
}

/// Replaces the names of bounds by those with which they pass through.
struct Renamed {
    through: Owners,
    /// The depth within the inputs of windows, where bounds still have their own names.
    inside: usize,
}

impl Renamed {
    fn within<T: VisitMut>(&mut self, tree: &mut T) {
        let _never_breaks = tree.visit(self);
    }
}

impl VisitorMut for Renamed {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.inside += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.inside -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if self.inside == 0
            && let Some((relation, bound)) = own_bound(expr)
            && self.through.get(&relation).is_some_and(|bounds| bounds.contains(&bound))
        {
            *expr = ast::Expr::Identifier(apart(&relation, bound));
        }
        ControlFlow::Continue(())
    }
}

/// Refuses unqualified bounds within aggregates over windows whose input has bounds of its own.
///
/// # Errors
/// When there is one; the hint says how to name each of the two.
pub(crate) fn check(plan: &LogicalPlan) -> PlanResult<()> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            for expr in &aggregate.aggr_expr {
                expr.apply(|inner| {
                    if let Expr::Column(column) = inner {
                        unambiguous(&aggregate.input, column)?;
                    }
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map(|_| ())
}

fn unambiguous(plan: &LogicalPlan, column: &Column) -> PlanResult<()> {
    let Some(bound) = BOUNDS.into_iter().find(|b| *b == column.name) else { return Ok(()) };
    let Some(index) = plan.schema().maybe_index_of_column(column) else { return Ok(()) };
    let Some(assign) = origin(plan, index) else { return Ok(()) };
    let own = assign.input().schema().iter().find(|(_, field)| field.name() == bound);
    let Some((owner, _)) = own else { return Ok(()) };
    let error =
        Error::sql(format!("column \"{bound}\" is ambiguous: the rows have one, and their window"));
    let constant = "that of the window is the same for all its rows, and needs no aggregate";
    let hint = match owner {
        Some(owner) => format!(
            "Write {owner}.{bound} for that of the rows, or rename it below the window: \
             (SELECT {bound} AS other, … FROM …); {constant}."
        ),
        None => format!(
            "Rename that of the rows below the window: (SELECT {bound} AS other, … FROM …); {constant}."
        ),
    };
    let error = error.with_hint(hint);
    let place = column.spans().first().and_then(place_of);
    Err(refused(match place {
        Some(place) => error.with_place(place),
        None => error,
    }))
}

/// The window that a column is a bound of.
fn origin(plan: &LogicalPlan, index: usize) -> Option<&WindowAssign> {
    match plan {
        LogicalPlan::Filter(filter) => origin(&filter.input, index),
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, index),
        LogicalPlan::Sort(sort) => origin(&sort.input, index),
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            match index.checked_sub(left) {
                None => origin(&join.left, index),
                Some(index) => origin(&join.right, index),
            }
        }
        LogicalPlan::Projection(projection) => {
            match projection.expr.get(index)?.clone().unalias() {
                Expr::Column(column) => {
                    let index = projection.input.schema().maybe_index_of_column(&column)?;
                    origin(&projection.input, index)
                }
                _ => None,
            }
        }
        _ => WindowAssign::of(plan).filter(|assign| assign.kept().count() <= index),
    }
}
