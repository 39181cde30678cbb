//! Rewrites other spellings of a query as the one that the planner reads.
//!
//! Over the tokens: `FROM t WHERE …` without SELECT, `AS NOT MATERIALIZED (…)`. Over the tree:
//! `FETCH FIRST n ROWS ONLY`, `FROM t`, named windows (also in ORDER BY and QUALIFY, and
//! `OVER (w ORDER BY …)`), and columns of a SELECT that would have the same name.
//!
//! Invariant: the result means the same and has no named windows.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Fetch, Ident, LimitClause, NamedWindowDefinition, NamedWindowExpr, OrderBy, OrderByExpr,
    OrderByKind, Query, Select, SelectFlavor, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
    WildcardAdditionalOptions, WindowSpec, WindowType,
};
use sqlparser::tokenizer::{Token, TokenWithSpan};
use windrow_core::{Error, Result};

use super::cursor::{is_word, place_of};
use super::{foreign, foreign_functions, lateral};

/// Rewrites the tokens of a statement.
///
/// # Errors
/// `AS MATERIALIZED`, which would have no effect.
pub(super) fn tokens(tokens: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>> {
    let mut out: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // Elsewhere a word after AS is a name.
    let creates = tokens.first().is_some_and(|t| is_word(&t.token, "CREATE"));
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let ahead = tokens.get(at..).unwrap_or_default();
        let sees = |n: usize, word: &str| ahead.get(n).is_some_and(|t| is_word(&t.token, word));
        let opens = |n: usize| ahead.get(n).is_some_and(|t| t.token == Token::LParen);
        let follows = out.last().map(|t| &t.token);
        if follows.is_some_and(|t| is_word(t, "AS")) {
            if sees(0, "NOT") && sees(1, "MATERIALIZED") && opens(2) {
                at += 2;
                continue;
            }
            if sees(0, "MATERIALIZED") && opens(1) {
                return Err(Error::sql("a query in WITH is not kept: it cannot be MATERIALIZED")
                    .with_place(place_of(token.span))
                    .with_hint(
                        "Leave MATERIALIZED out, or keep the rows with CREATE TABLE … AS or \
                         CREATE MATERIALIZED VIEW.",
                    ));
            }
        }
        // `TABLE t` is a query; `TABLE(…)`, `CREATE TABLE` and the `TABLE t` of a window function are not.
        let begins = begins_query(follows, creates) && follows.is_none_or(|t| *t != Token::LParen);
        if sees(0, "TABLE") && begins && !opens(1) {
            let words = [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")];
            let span = token.span;
            out.extend(words.map(|token| TokenWithSpan { token, span }));
            at += 1;
            continue;
        }
        if sees(0, "FROM") && begins_query(follows, creates) && !selects(ahead) {
            for word in [Token::make_keyword("SELECT"), Token::Mul] {
                out.push(TokenWithSpan { token: word, span: token.span });
            }
        }
        out.push(token.clone());
        at += 1;
    }
    Ok(out)
}

/// Whether a query may begin after this token, so that a FROM cannot belong to anything else.
fn begins_query(before: Option<&Token>, creates: bool) -> bool {
    let words = ["UNION", "ALL", "EXCEPT", "INTERSECT"];
    before.is_none_or(|t| {
        *t == Token::LParen || words.iter().any(|w| is_word(t, w)) || (creates && is_word(t, "AS"))
    })
}

/// Whether the query that begins with this FROM has a SELECT itself.
fn selects(tokens: &[TokenWithSpan]) -> bool {
    let mut depth = 0_usize;
    for token in tokens {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return false,
            Token::RParen => depth -= 1,
            word if depth == 0 && is_word(word, "SELECT") => return true,
            word if depth == 0
                && ["UNION", "EXCEPT", "INTERSECT"].iter().any(|w| is_word(word, w)) =>
            {
                return false;
            }
            _ => {}
        }
    }
    false
}

/// Rewrites all queries in `tree`.
///
/// # Errors
/// A window that is not defined, defined twice, or cannot be extended as written.
pub(super) fn tree<T: VisitMut>(tree: &mut T) -> Result<()> {
    match tree.visit(&mut Walk) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Walk;

impl VisitorMut for Walk {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        fetch(query);
        let Query { body, order_by, .. } = query;
        match body.as_mut() {
            SetExpr::Select(select) => {
                order_by_all(select, order_by.as_mut());
                lateral::added(select, order_by.as_mut());
                flow(windows(select, order_by.as_mut()))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        if select.flavor == SelectFlavor::FromFirstNoSelect && select.projection.is_empty() {
            let all = WildcardAdditionalOptions::default();
            select.projection = vec![SelectItem::Wildcard(all)];
            select.flavor = SelectFlavor::Standard;
        }
        lateral::added(select, None);
        select.projection.iter_mut().for_each(foreign_functions::name_as_written);
        name_apart(&mut select.projection);
        flow(windows(select, None))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        flow(foreign::expression(expr))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        // Whether there are rows does not depend on columns: EXISTS (SELECT FROM t).
        if let Expr::Exists { subquery, .. } = expr
            && let SetExpr::Select(select) = subquery.body.as_mut()
            && select.projection.is_empty()
        {
            let one = Expr::value(Value::Number("1".to_owned(), false));
            select.projection.push(SelectItem::UnnamedExpr(one));
        }
        ControlFlow::Continue(())
    }
}

/// Rewrites `ORDER BY ALL` as the ordinals of the columns. With a wildcard, the engine does it.
fn order_by_all(select: &Select, order_by: Option<&mut OrderBy>) {
    let Some(order_by) = order_by else { return };
    let OrderByKind::All(options) = &order_by.kind else { return };
    let is_one = |item: &SelectItem| {
        matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
    };
    if !select.projection.iter().all(is_one) {
        return;
    }
    let column = |number: usize| OrderByExpr {
        expr: Expr::value(Value::Number(number.to_string(), false)),
        options: *options,
        with_fill: None,
    };
    order_by.kind = OrderByKind::Expressions((1..=select.projection.len()).map(column).collect());
}

fn flow(result: Result<()>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

/// Rewrites `FETCH FIRST n ROWS ONLY` as `LIMIT n`. Its other forms are refused later.
fn fetch(query: &mut Query) {
    let Some(Fetch { with_ties: false, percent: false, quantity }) = &query.fetch else { return };
    let one = || Expr::value(Value::Number("1".to_owned(), false));
    let quantity = quantity.clone().unwrap_or_else(one);
    match &mut query.limit_clause {
        None => {
            let (limit, offset, limit_by) = (Some(quantity), None, vec![]);
            query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by });
        }
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = Some(quantity),
        Some(_) => return,
    }
    query.fetch = None;
}

/// Replaces the names of windows by their definitions.
fn windows(select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
    if select.named_window.is_empty() {
        return Ok(());
    }
    let mut known: Vec<(Ident, WindowSpec)> = vec![];
    for NamedWindowDefinition(name, definition) in std::mem::take(&mut select.named_window) {
        if lookup(&known, &name).is_some() {
            return Err(Error::sql(format!("window \"{}\" is defined twice", name.value))
                .with_place(place_of(name.span))
                .with_hint("Rename or remove one of them."));
        }
        let spec = match definition {
            NamedWindowExpr::NamedWindow(other) => named(&known, &other)?,
            NamedWindowExpr::WindowSpec(spec) => built(&known, spec)?,
        };
        known.push((name, spec));
    }
    let mut resolve = Resolve { known, nested: 0 };
    let mut done = select.projection.visit(&mut resolve);
    if done.is_continue() {
        done = select.qualify.visit(&mut resolve);
    }
    if done.is_continue() {
        done = select.distinct.visit(&mut resolve);
    }
    if let Some(order_by) = order_by
        && done.is_continue()
    {
        done = order_by.visit(&mut resolve);
    }
    match done {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

fn lookup<'a>(known: &'a [(Ident, WindowSpec)], name: &Ident) -> Option<&'a WindowSpec> {
    known.iter().find(|(n, _)| folded(n) == folded(name)).map(|(_, spec)| spec)
}

fn named(known: &[(Ident, WindowSpec)], name: &Ident) -> Result<WindowSpec> {
    lookup(known, name).cloned().ok_or_else(|| no_window(name))
}

/// The error for a window that is not defined.
pub(super) fn no_window(name: &Ident) -> Error {
    Error::sql(format!("there is no window \"{}\"", name.value))
        .with_place(place_of(name.span))
        .with_hint(format!("Define it after FROM: WINDOW {} AS (PARTITION BY …).", name.value))
}

/// A definition that extends another: `w AS (v ORDER BY …)`.
fn built(known: &[(Ident, WindowSpec)], mut spec: WindowSpec) -> Result<WindowSpec> {
    let Some(name) = spec.window_name.take() else { return Ok(spec) };
    let base = named(known, &name)?;
    let wrong = |what: &str| {
        Error::sql(format!("window \"{}\" cannot be extended: {what}", name.value))
            .with_place(place_of(name.span))
            .with_hint("Write the whole window out: OVER (PARTITION BY … ORDER BY …).")
    };
    if !spec.partition_by.is_empty() {
        return Err(wrong("its PARTITION BY cannot be replaced"));
    }
    if base.window_frame.is_some() {
        return Err(wrong("it has a frame"));
    }
    if !base.order_by.is_empty() && !spec.order_by.is_empty() {
        return Err(wrong("it has an ORDER BY"));
    }
    if spec.order_by.is_empty() {
        spec.order_by = base.order_by;
    }
    Ok(WindowSpec { partition_by: base.partition_by, ..spec })
}

/// Replaces names by definitions; not in subqueries, which have windows of their own.
struct Resolve {
    known: Vec<(Ident, WindowSpec)>,
    nested: usize,
}

impl VisitorMut for Resolve {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Self::Break> {
        self.nested += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Self::Break> {
        self.nested -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let over = match &mut function.over {
            Some(over) if self.nested == 0 => over,
            _ => return ControlFlow::Continue(()),
        };
        let spec = match over {
            WindowType::NamedWindow(name) => named(&self.known, name),
            WindowType::WindowSpec(spec) => built(&self.known, spec.clone()),
        };
        flow(spec.map(|spec| *over = WindowType::WindowSpec(spec)))
    }
}

/// Appends `_1`, `_2`, … to columns of a SELECT that would have the name of an earlier one. The planner identifies
/// columns by name; it can distinguish columns of two relations.
fn name_apart(projection: &mut [SelectItem]) {
    let everything = projection.iter().any(|item| match item {
        SelectItem::Wildcard(options) => {
            options.opt_exclude.is_none() && options.opt_except.is_none()
        }
        _ => false,
    });
    // By name, so that the work for many columns does not grow with the square of their number.
    let mut taken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for item in projection.iter_mut() {
        let Some((key, name)) = named_as(item) else { continue };
        let column = matches!(
            item,
            SelectItem::UnnamedExpr(Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        );
        let others = taken.entry(name.to_lowercase()).or_default();
        let twice = everything && column || others.iter().any(|other| clash(other, &key));
        if !twice {
            others.push(key);
            if let SelectItem::UnnamedExpr(expr @ Expr::Subquery(_)) = item {
                // The planner gives all of them the same name.
                let alias = Ident::with_quote('"', name);
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            continue;
        }
        let from = counted.entry(name.clone()).or_insert(1);
        let free = loop {
            let free = format!("{name}_{from}");
            let others = taken.entry(free.to_lowercase()).or_default();
            if !others.contains(&free) {
                others.push(free.clone());
                break free;
            }
            *from += 1;
        };
        let alias = Ident::with_quote('"', free);
        match item {
            SelectItem::UnnamedExpr(expr) => {
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
            SelectItem::ExprWithAlias { alias: old, .. } => *old = alias,
            _ => {}
        }
    }
}

/// The key that identifies a column, and its name.
fn named_as(item: &SelectItem) -> Option<(String, String)> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some((folded(alias), folded(alias))),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some((folded(name), folded(name))),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => {
            let key: Vec<String> = names.iter().map(folded).collect();
            Some((key.join("."), key.last()?.clone()))
        }
        // As in PostgreSQL, the name of its column.
        SelectItem::UnnamedExpr(Expr::Subquery(query)) => {
            let name = match query.body.as_ref() {
                SetExpr::Select(select) => select.projection.first().and_then(named_as),
                _ => None,
            };
            let name = name.map_or_else(|| "subquery".to_owned(), |(_, name)| name);
            Some((name.to_lowercase(), name))
        }
        SelectItem::UnnamedExpr(Expr::Exists { negated, .. }) => {
            Some((format!("exists {negated}"), "exists".to_owned()))
        }
        SelectItem::UnnamedExpr(Expr::InSubquery { expr, negated, .. }) => {
            Some((format!("{expr} in {negated}"), "in".to_owned()))
        }
        SelectItem::UnnamedExpr(expr) => {
            let text = expr.to_string();
            let key =
                if text.contains(['\'', '"', '`']) { text.clone() } else { text.to_lowercase() };
            Some((key, text))
        }
        _ => None,
    }
}

/// Whether two columns would have the same name: `k` may be `a.k`, `a.k` is not `b.k`.
fn clash(a: &str, b: &str) -> bool {
    let ends = |long: &str, short: &str| {
        !short.contains('.') && long.strip_suffix(short).is_some_and(|l| l.ends_with('.'))
    };
    a == b || ends(a, b) || ends(b, a)
}
