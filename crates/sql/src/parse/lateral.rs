//! `LATERAL unnest(list)`, `LATERAL generate_series(1, n)` and `LATERAL (SELECT e AS a)` beside one relation: they
//! become columns that are added to its rows.
//!
//! The engine cannot plan them as relations. `FROM t, LATERAL unnest(t.l) AS u (n)` is read as
//! `FROM (SELECT *, unnest(t.l) AS n FROM t) AS t`, and `u.n` as `t.n`. Anything else is left unchanged.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, Join, JoinConstraint, JoinOperator,
    ObjectName, OrderBy, Query, Select, SelectItem, SetExpr, TableAlias, TableFactor,
    TableFunctionArgs, Value, VisitMut, VisitorMut, visit_expressions,
};

use super::foreign::call;
use super::relation::{plain, select_star};

/// Rewrites the laterals of a SELECT, and the ORDER BY that applies to it.
pub(super) fn added(select: &mut Select, order_by: Option<&mut OrderBy>) {
    let Some((base, all)) = laterals(select) else { return };
    let Some(first) = select.from.first_mut() else { return };
    first.joins.clear();
    let mut relation = first.relation.clone();
    for lateral in &all {
        let mut query = select_star(relation);
        if let SetExpr::Select(inner) = query.body.as_mut() {
            inner.projection.extend(lateral.columns.iter().cloned());
        }
        relation = TableFactor::Derived {
            lateral: false,
            subquery: Box::new(query),
            alias: Some(named(base.clone())),
            sample: None,
        };
    }
    first.relation = relation;
    select.from.truncate(1);
    let mut names = Names { base, of: all.into_iter().filter_map(|l| l.name).collect() };
    let _all = select.projection.visit(&mut names);
    let _all = select.selection.visit(&mut names);
    let _all = select.group_by.visit(&mut names);
    let _all = select.having.visit(&mut names);
    let _all = select.qualify.visit(&mut names);
    let _all = select.distinct.visit(&mut names);
    if let Some(order_by) = order_by {
        let _all = order_by.visit(&mut names);
    }
}

/// A lateral relation: the columns that it adds.
struct Lateral {
    name: Option<Ident>,
    columns: Vec<SelectItem>,
}

fn named(name: Ident) -> TableAlias {
    TableAlias { explicit: true, name, columns: vec![], at: None }
}

/// The name of the one relation, and the laterals beside it; `None` without laterals or with other relations.
fn laterals(select: &Select) -> Option<(Ident, Vec<Lateral>)> {
    let (first, others) = select.from.split_first()?;
    let base = match &first.relation {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), lateral: false, .. } => alias.name.clone(),
        TableFactor::Table { name, alias: None, args: None, .. } => {
            name.0.last()?.as_ident()?.clone()
        }
        _ => return None,
    };
    let joined = first.joins.iter().map(|join| always(join).then_some(&join.relation));
    let listed = others.iter().map(|item| item.joins.is_empty().then_some(&item.relation));
    let found = joined.chain(listed).map(|factor| lateral(factor?)).collect::<Option<Vec<_>>>()?;
    let all_of_one = |item: &SelectItem| matches!(item, SelectItem::QualifiedWildcard(..));
    (!found.is_empty() && !select.projection.iter().any(all_of_one)).then_some((base, found))
}

/// Whether a join has no condition, so that it returns all pairs.
fn always(join: &Join) -> bool {
    match &join.join_operator {
        JoinOperator::CrossJoin(_) => true,
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => match constraint {
            JoinConstraint::On(Expr::Value(value)) => value.value == Value::Boolean(true),
            _ => false,
        },
        _ => false,
    }
}

fn lateral(factor: &TableFactor) -> Option<Lateral> {
    match factor {
        TableFactor::Function { lateral: true, name, args, with_ordinality: false, alias }
            if plain(name).is_some_and(|i| i.value.eq_ignore_ascii_case("unnest")) =>
        {
            unnested(unnamed(args)?, alias.as_ref(), "unnest")
        }
        TableFactor::Function { lateral: true, name, args, with_ordinality: false, alias } => {
            series(name, args, alias.as_ref())
        }
        // As in PostgreSQL, a function reads the relations before it even without LATERAL.
        TableFactor::Table { name, args: Some(TableFunctionArgs { args, .. }), alias, .. } => {
            unnamed(args)?.iter().any(reads_columns).then(|| series(name, args, alias.as_ref()))?
        }
        TableFactor::UNNEST {
            alias,
            array_exprs,
            with_offset: false,
            with_ordinality: false,
            ..
        } => {
            let added = || unnested(array_exprs.clone(), alias.as_ref(), "unnest");
            array_exprs.iter().any(reads_columns).then(added)?
        }
        TableFactor::Derived { lateral: true, subquery, alias: Some(alias), .. } => {
            let columns = one_row(subquery, alias)?;
            Some(Lateral { name: Some(alias.name.clone()), columns })
        }
        _ => None,
    }
}

/// `generate_series(…)` or `range(…)`: the list function of that name, unnested.
fn series(name: &ObjectName, args: &[FunctionArg], alias: Option<&TableAlias>) -> Option<Lateral> {
    let name = plain(name)?.value.to_lowercase();
    if !["generate_series", "range"].contains(&name.as_str()) {
        return None;
    }
    unnested(vec![call(&name, unnamed(args)?)], alias, &name)
}

fn unnamed(args: &[FunctionArg]) -> Option<Vec<Expr>> {
    let exprs = args.iter().map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    });
    exprs.collect()
}

fn reads_columns(expr: &Expr) -> bool {
    let seen = visit_expressions(expr, |e| match e {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    seen.is_break()
}

/// `name`: the default name of the column.
fn unnested(exprs: Vec<Expr>, alias: Option<&TableAlias>, name: &str) -> Option<Lateral> {
    let names: Vec<Ident> = match alias {
        Some(alias) if !alias.columns.is_empty() => {
            alias.columns.iter().map(|column| column.name.clone()).collect()
        }
        // As in PostgreSQL: the only column has the name of the relation.
        Some(alias) => vec![alias.name.clone()],
        None => vec![Ident::new(name)],
    };
    (names.len() == exprs.len()).then(|| Lateral {
        name: alias.map(|alias| alias.name.clone()),
        columns: exprs
            .into_iter()
            .zip(names)
            .map(|(expr, alias)| SelectItem::ExprWithAlias {
                expr: call("unnest", vec![expr]),
                alias,
            })
            .collect(),
    })
}

/// The columns of a query that returns one row and reads nothing.
fn one_row(query: &Query, alias: &TableAlias) -> Option<Vec<SelectItem>> {
    let Query { with: None, order_by: None, limit_clause: None, fetch: None, body, .. } = query
    else {
        return None;
    };
    let SetExpr::Select(select) = body.as_ref() else { return None };
    let is_plain = select.from.is_empty()
        && select.selection.is_none()
        && select.having.is_none()
        && select.distinct.is_none()
        && select.qualify.is_none()
        && matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty());
    if !is_plain || select.projection.is_empty() {
        return None;
    }
    let item = |(at, item): (usize, &SelectItem)| {
        let renamed = alias.columns.get(at).map(|column| column.name.clone());
        match item {
            SelectItem::ExprWithAlias { expr, alias } => Some(SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: renamed.unwrap_or_else(|| alias.clone()),
            }),
            SelectItem::UnnamedExpr(expr) => {
                let alias = renamed?;
                Some(SelectItem::ExprWithAlias { expr: expr.clone(), alias })
            }
            _ => None,
        }
    };
    select.projection.iter().enumerate().map(item).collect()
}

/// Replaces the names of the laterals by that of the one relation.
struct Names {
    base: Ident,
    of: Vec<Ident>,
}

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let Some(first) = parts.first_mut()
            && self.of.iter().any(|name| name.value.eq_ignore_ascii_case(&first.value))
        {
            *first = Ident { span: first.span, ..self.base.clone() };
        }
        ControlFlow::Continue(())
    }
}
