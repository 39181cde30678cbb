//! Queries and their SELECTs.

use sqlparser::ast::{
    Cte, Distinct, ExprWithAliasAndOrderBy, Fetch, GroupByExpr, LimitClause, OrderBy, OrderByExpr,
    OrderByKind, OrderByOptions, PipeOperator, Query, Select, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, SelectModifiers, SetExpr, WildcardAdditionalOptions, With,
};
use windrow_core::Result;

use super::{Walk, relation};

pub(super) fn query(walk: &Walk<'_>, query: &Query) -> Result<()> {
    let Query {
        with,
        body,
        order_by: order,
        limit_clause,
        fetch: rows,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    if let Some(With { with_token: _, recursive: _, cte_tables }) = with {
        for Cte { alias, query: _, from, materialized, closing_paren_token: _ } in cte_tables {
            relation::alias(walk, alias)?;
            walk.without(
                from.is_some(),
                "FROM",
                "a query in WITH has no FROM of its own",
                "Remove it.",
            )?;
            let hint = "Leave it out: the query is made part of those that use it.";
            walk.without(
                materialized.is_some(),
                "MATERIALIZED",
                "a query in WITH cannot be MATERIALIZED",
                hint,
            )?;
        }
    }
    set_expr(walk, body)?;
    if let Some(order) = order {
        order_by(walk, order)?;
    }
    match limit_clause {
        Some(LimitClause::LimitOffset { limit: _, offset: _, limit_by }) => {
            let hint = "Number the rows: … QUALIFY row_number() OVER (PARTITION BY …) <= n.";
            walk.without(!limit_by.is_empty(), "LIMIT", "LIMIT … BY is not supported", hint)?;
        }
        Some(LimitClause::OffsetCommaLimit { offset: _, limit: _ }) | None => {}
    }
    if let Some(rows) = rows {
        fetch(walk, rows)?;
    }
    let hint = "Leave it out: rows are never changed in place, so there is nothing to lock.";
    walk.without(!locks.is_empty(), "FOR", "a query locks no rows", hint)?;
    let hint = "Leave it out; --format chooses how results are written, to_json makes JSON.";
    walk.without(
        for_clause.is_some(),
        "FOR",
        "FOR XML, FOR JSON and FOR BROWSE are not supported",
        hint,
    )?;
    let hint = "Use SET name = value before the query.";
    walk.without(settings.is_some(), "SETTINGS", "a query has no SETTINGS of its own", hint)?;
    let hint = "Leave it out; --format or SET output chooses how results are written.";
    walk.without(format_clause.is_some(), "FORMAT", "a query has no FORMAT", hint)?;
    pipe_operators.iter().try_for_each(|operator| pipe(walk, operator))
}

/// `FETCH FIRST n ROWS ONLY` has been rewritten as LIMIT before.
fn fetch(walk: &Walk<'_>, fetch: &Fetch) -> Result<()> {
    let Fetch { with_ties, percent, quantity: _ } = fetch;
    let hint = "Rank the rows: … QUALIFY rank() OVER (ORDER BY …) <= n.";
    walk.without(*with_ties, "FETCH", "FETCH … WITH TIES is not supported", hint)?;
    let hint = "Number the rows: … QUALIFY percent_rank() OVER (ORDER BY …) < 0.1.";
    walk.without(*percent, "FETCH", "FETCH … PERCENT is not supported", hint)?;
    Err(walk.refused("FETCH", "a query has LIMIT and FETCH", "Keep one of them."))
}

fn set_expr(walk: &Walk<'_>, body: &SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        SetExpr::SetOperation { left, op: _, set_quantifier: _, right } => {
            set_expr(walk, left)?;
            set_expr(walk, right)
        }
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            let message = "a statement that changes rows cannot be part of a query";
            Err(walk.refused("WITH", message, "Write it as a statement of its own."))
        }
        SetExpr::Table(_) => {
            let hint = "Write SELECT * FROM it.";
            Err(walk.refused("TABLE", "TABLE is not supported as a query", hint))
        }
    }
}

fn order_by(walk: &Walk<'_>, order_by: &OrderBy) -> Result<()> {
    let OrderBy { kind, interpolate } = order_by;
    let hint = "Make the missing rows with generate_series, and join.";
    walk.without(interpolate.is_some(), "INTERPOLATE", "INTERPOLATE is not supported", hint)?;
    match kind {
        OrderByKind::All(OrderByOptions { asc: _, nulls_first: _ }) => Ok(()),
        OrderByKind::Expressions(exprs) => exprs.iter().try_for_each(|e| ordered(walk, e)),
    }
}

/// One expression of any ORDER BY.
pub(super) fn ordered(walk: &Walk<'_>, expr: &OrderByExpr) -> Result<()> {
    let OrderByExpr { expr: _, options, with_fill } = expr;
    let OrderByOptions { asc: _, nulls_first: _ } = options;
    let hint = "Make the missing rows with generate_series, and join.";
    walk.without(with_fill.is_some(), "WITH FILL", "WITH FILL is not supported", hint)
}

fn pipe(walk: &Walk<'_>, operator: &PipeOperator) -> Result<()> {
    let grouped = |exprs: &[ExprWithAliasAndOrderBy]| {
        exprs.iter().try_for_each(|e| {
            let ExprWithAliasAndOrderBy { expr: _, order_by } = e;
            let OrderByOptions { asc, nulls_first } = order_by;
            let hint = "Write |> ORDER BY after it.";
            let there = asc.is_some() || nulls_first.is_some();
            walk.without(there, "AGGREGATE", "|> AGGREGATE does not order", hint)
        })
    };
    match operator {
        PipeOperator::Limit { expr: _, offset: _ }
        | PipeOperator::Where { expr: _ }
        | PipeOperator::As { alias: _ }
        | PipeOperator::Union { set_quantifier: _, queries: _ }
        | PipeOperator::Intersect { set_quantifier: _, queries: _ }
        | PipeOperator::Except { set_quantifier: _, queries: _ } => Ok(()),
        PipeOperator::OrderBy { exprs } => exprs.iter().try_for_each(|e| ordered(walk, e)),
        PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => {
            exprs.iter().try_for_each(|item| select_item(walk, item))
        }
        PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
            grouped(full_table_exprs)?;
            grouped(group_by_expr)
        }
        PipeOperator::Join(join) => relation::join(walk, join),
        PipeOperator::Set { .. }
        | PipeOperator::Drop { .. }
        | PipeOperator::TableSample { .. }
        | PipeOperator::Rename { .. }
        | PipeOperator::Call { .. }
        | PipeOperator::Pivot { .. }
        | PipeOperator::Unpivot { .. } => {
            let text = operator.to_string();
            let word = text.split_whitespace().next().unwrap_or_default().to_uppercase();
            let hint = "The operators after |> are WHERE, SELECT, EXTEND, AS, AGGREGATE, \
                        ORDER BY, LIMIT, JOIN, UNION, INTERSECT and EXCEPT.";
            Err(walk.refused(&word, &format!("|> {word} is not supported"), hint))
        }
    }
}

pub(super) fn select(walk: &Walk<'_>, select: &Select) -> Result<()> {
    let Select {
        select_token: _,
        optimizer_hints,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having: _,
        named_window: _,
        qualify: _,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    walk.without(
        !optimizer_hints.is_empty(),
        "SELECT",
        "optimizer hints are not supported",
        "Remove them.",
    )?;
    match distinct {
        None | Some(Distinct::All | Distinct::Distinct | Distinct::On(_)) => {}
    }
    let modified = select_modifiers.as_ref().is_some_and(SelectModifiers::is_any_set);
    walk.without(modified, "SELECT", "modifiers of SELECT are not supported", "Leave them out.")?;
    walk.without(top.is_some(), "TOP", "TOP is not supported", "Write LIMIT after the query.")?;
    let hint = "Write SELECT * EXCLUDE (…).";
    walk.without(exclude.is_some(), "EXCLUDE", "EXCLUDE is only allowed after *", hint)?;
    let hint = "Write CREATE TABLE name AS SELECT ….";
    walk.without(into.is_some(), "INTO", "SELECT … INTO does not create a table", hint)?;
    let hint = "Write FROM t, unnest(t.list) AS u (x).";
    walk.without(!lateral_views.is_empty(), "LATERAL VIEW", "LATERAL VIEW is not supported", hint)?;
    walk.without(prewhere.is_some(), "PREWHERE", "PREWHERE is not supported", "Write WHERE.")?;
    let hint = "Write WITH RECURSIVE.";
    walk.without(!connect_by.is_empty(), "CONNECT BY", "CONNECT BY is not supported", hint)?;
    let hint = "Write ORDER BY after the query; rows need not be distributed.";
    walk.without(!cluster_by.is_empty(), "CLUSTER BY", "CLUSTER BY is not supported", hint)?;
    walk.without(
        !distribute_by.is_empty(),
        "DISTRIBUTE BY",
        "DISTRIBUTE BY is not supported",
        hint,
    )?;
    walk.without(!sort_by.is_empty(), "SORT BY", "SORT BY is not supported", hint)?;
    let hint = "Select the columns, or named_struct('name', value, …).";
    walk.without(
        value_table_mode.is_some(),
        "AS",
        "SELECT AS STRUCT and AS VALUE are not supported",
        hint,
    )?;
    grouping(walk, group_by)?;
    for table in from {
        table.joins.iter().try_for_each(|join| relation::join(walk, join))?;
    }
    let empty = match flavor {
        SelectFlavor::Standard | SelectFlavor::FromFirst => projection.is_empty(),
        SelectFlavor::FromFirstNoSelect => false,
    };
    let hint = "Write SELECT * for all columns.";
    walk.without(empty, "SELECT", "SELECT has no columns", hint)?;
    projection.iter().try_for_each(|item| select_item(walk, item))
}

fn grouping(walk: &Walk<'_>, group_by: &GroupByExpr) -> Result<()> {
    let modifiers = match group_by {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => modifiers,
    };
    let hint = "Write GROUP BY ROLLUP (…), CUBE (…) or GROUPING SETS (…).";
    walk.without(
        !modifiers.is_empty(),
        "GROUP BY",
        "nothing may follow the columns of GROUP BY",
        hint,
    )
}

fn select_item(walk: &Walk<'_>, item: &SelectItem) -> Result<()> {
    match item {
        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { expr: _, alias: _ } => Ok(()),
        SelectItem::ExprWithAliases { expr: _, aliases: _ } => {
            let hint = "Give it one name, or unnest it in FROM.";
            Err(walk.refused("AS", "a column cannot have several names", hint))
        }
        SelectItem::QualifiedWildcard(kind, options) => {
            wildcard(walk, options)?;
            match kind {
                SelectItemQualifiedWildcardKind::ObjectName(_) => Ok(()),
                SelectItemQualifiedWildcardKind::Expr(_) => {
                    let hint = "Name the fields: (value).a, (value).b.";
                    Err(walk.refused(
                        "SELECT",
                        "the fields of a value cannot be selected with *",
                        hint,
                    ))
                }
            }
        }
        SelectItem::Wildcard(options) => wildcard(walk, options),
    }
}

/// The options of `*`.
pub(super) fn wildcard(walk: &Walk<'_>, options: &WildcardAdditionalOptions) -> Result<()> {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude: _,
        opt_except: _,
        opt_replace: _,
        opt_rename,
        opt_alias,
    } = options;
    let hint = "Name the columns, or leave some out with * EXCLUDE (…).";
    walk.without(opt_ilike.is_some(), "ILIKE", "* ILIKE is not supported", hint)?;
    let hint = "Leave the column out and add it: SELECT * EXCLUDE (a), a AS b.";
    walk.without(opt_rename.is_some(), "RENAME", "* RENAME is not supported", hint)?;
    walk.without(opt_alias.is_some(), "AS", "* cannot have a name", "Leave it out.")
}
