//! Spelling 3: `GROUP BY TUMBLE(ts, i)` with `TUMBLE_START` and the like; and spelling 4, which [`super::clause`] has
//! rewritten as spelling 3 with a marked name.
//!
//! The window moves into FROM, around the relation that the time column belongs to; in GROUP BY it is replaced by its
//! bounds, and elsewhere its functions are replaced by the columns of the bounds.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, ObjectName, OrderBy, Query, Select, SelectItem,
    TableAlias, TableFactor, TableFunctionArgs, Value, VisitMut, VisitorMut, visit_expressions,
};
use windrow_core::{Error, Place, Result};

use super::cursor::place_of;
use super::relation::{
    GROUPED, WindowFunction, is_interval, name_place, named_table, placed, plain, select_star,
    time_column, unnamed, window_name, wrong,
};

/// Marks the names of windows that came from a clause. `$` cannot begin an identifier.
pub(super) const CLAUSE_MARK: char = '$';

const START: &str = "window_start";
const END: &str = "window_end";
const TIME: &str = "window_time";

/// Which window function, or which bound of it, a scalar function call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mention {
    Window { clause: bool },
    Bound(&'static str),
}

/// The window function, or the bound of a window, that a scalar function's name stands for, if any.
pub(super) fn mention(name: &ObjectName) -> Option<(WindowFunction, Mention)> {
    let name = plain(name)?.value.to_lowercase();
    if let Some(marked) = name.strip_prefix(CLAUSE_MARK) {
        return Some((WindowFunction::named(marked)?, Mention::Window { clause: true }));
    }
    if let Some(window) = WindowFunction::named(&name) {
        return Some((window, Mention::Window { clause: false }));
    }
    let (window, bound) = name.split_once('_')?;
    let bound = match bound {
        "start" => START,
        "end" => END,
        "rowtime" | "time" => TIME,
        _ => return None,
    };
    Some((WindowFunction::named(window)?, Mention::Bound(bound)))
}

/// The window of one SELECT.
#[derive(Debug, Clone)]
struct Call {
    window: WindowFunction,
    args: Vec<FunctionArg>,
    clause: bool,
    place: Option<Place>,
}

/// Rewrites a SELECT, and the ORDER BY that applies to it, if its GROUP BY has a window.
pub(super) fn rewrite(select: &mut Select, mut order_by: Option<&mut OrderBy>) -> Result<()> {
    let GroupByExpr::Expressions(group_by, _) = &select.group_by else { return Ok(()) };
    let mut found: Option<Call> = None;
    for call in flat(group_by).filter_map(|e| resolve(e, &select.projection)) {
        match &found {
            Some(first) if first.window != call.window || first.args != call.args => {
                return Err(placed(
                    Error::sql("GROUP BY has two different windows")
                        .with_hint("Put one of them into a subquery, and group over window_time."),
                    call.place,
                ));
            }
            Some(_) => {}
            None => found = Some(call),
        }
    }
    let Some(call) = found else { return Ok(()) };
    if call.clause {
        check_clause(select, &call)?;
    }
    let mut bounds = Bounds { call: &call, nested: 0, uses_time: false };
    // Ordinals and aliases in GROUP BY refer to the projection before it is rewritten.
    let projection = select.projection.clone();
    for item in &mut select.projection {
        name_window(item);
    }
    let mut done = select.projection.visit(&mut bounds);
    let GroupByExpr::Expressions(group_by, _) = &mut select.group_by else { return Ok(()) };
    for part in [&mut select.having, &mut select.qualify] {
        done = and_then(done, || part.visit(&mut bounds));
    }
    done = and_then(done, || select.distinct.visit(&mut bounds));
    done = and_then(done, || select.named_window.visit(&mut bounds));
    if let Some(order_by) = &mut order_by {
        done = and_then(done, || order_by.visit(&mut bounds));
    }
    if let ControlFlow::Break(error) = done {
        return Err(*error);
    }
    let uses_time = bounds.uses_time;
    regroup(group_by, &projection, uses_time);
    wrap(select, call)
}

fn and_then(
    done: ControlFlow<Box<Error>>,
    next: impl FnOnce() -> ControlFlow<Box<Error>>,
) -> ControlFlow<Box<Error>> {
    match done {
        ControlFlow::Continue(()) => next(),
        stop => stop,
    }
}

/// The grouping expressions, including those inside grouping sets.
fn flat(group_by: &[Expr]) -> impl Iterator<Item = &Expr> {
    group_by.iter().flat_map(|e| match e {
        Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
            sets.iter().flatten().collect::<Vec<_>>()
        }
        other => vec![other],
    })
}

/// The window that a grouping expression is, or names by alias or ordinal.
fn resolve(expr: &Expr, projection: &[SelectItem]) -> Option<Call> {
    match expr {
        Expr::Function(function) => call_of(function),
        Expr::Nested(inner) => resolve(inner, projection),
        Expr::Value(value) => match &value.value {
            Value::Number(n, _) => {
                let index: usize = n.parse().ok()?;
                item_call(projection.get(index.checked_sub(1)?)?)
            }
            _ => None,
        },
        Expr::Identifier(name) => projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } if same(alias, name) => item_call(item),
            _ => None,
        }),
        _ => None,
    }
}

fn item_call(item: &SelectItem) -> Option<Call> {
    match item {
        SelectItem::UnnamedExpr(Expr::Function(f))
        | SelectItem::ExprWithAlias { expr: Expr::Function(f), .. } => call_of(f),
        _ => None,
    }
}

fn call_of(function: &Function) -> Option<Call> {
    let (window, Mention::Window { clause }) = mention(&function.name)? else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let place = name_place(&function.name);
    Some(Call { window, args: list.args.clone(), clause, place })
}

/// Whether two identifiers are the same: case matters only in quotes.
fn same(a: &Ident, b: &Ident) -> bool {
    let folded = |i: &Ident| match i.quote_style {
        Some(_) => i.value.clone(),
        None => i.value.to_lowercase(),
    };
    folded(a) == folded(b)
}

/// Refuses a clause in a SELECT that computes nothing per window, which is a mistake.
fn check_clause(select: &Select, call: &Call) -> Result<()> {
    let GroupByExpr::Expressions(group_by, _) = &select.group_by else { return Ok(()) };
    let has_call = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => {
            let seen = visit_expressions(e, |e| match e {
                Expr::Function(f) if mention(&f.name).is_none() => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
            seen.is_break()
        }
        _ => false,
    };
    if group_by.len() > 1 || select.projection.iter().any(has_call) {
        return Ok(());
    }
    Err(placed(
        Error::sql("a WINDOW clause needs GROUP BY or an aggregate")
            .with_hint("Add GROUP BY and aggregates, or read rows with FROM TUMBLE(t, ts, …)."),
        call.place,
    ))
}

/// Keeps the name of a window in the projection, where it becomes a struct.
fn name_window(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(Expr::Function(f)) = item else { return };
    let Some((window, Mention::Window { .. })) = mention(&f.name) else { return };
    let expr = Expr::Function(f.clone());
    *item = SelectItem::ExprWithAlias { expr, alias: Ident::new(window.name()) };
}

/// Replaces a window's functions by columns.
struct Bounds<'a> {
    call: &'a Call,
    nested: usize,
    uses_time: bool,
}

impl VisitorMut for Bounds<'_> {
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
        if self.nested > 0 {
            return ControlFlow::Continue(());
        }
        match self.replacement(expr) {
            Ok(Some(column)) => *expr = column,
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(Box::new(error)),
        }
        ControlFlow::Continue(())
    }
}

impl Bounds<'_> {
    fn replacement(&mut self, expr: &Expr) -> Result<Option<Expr>> {
        let function = match expr {
            Expr::Function(function) => function,
            Expr::Identifier(i) if i.value.eq_ignore_ascii_case(TIME) => {
                self.uses_time = true;
                return Ok(None);
            }
            _ => return Ok(None),
        };
        let Some((window, mentioned)) = mention(&function.name) else { return Ok(None) };
        let given = match &function.args {
            FunctionArguments::List(list) => list.args.as_slice(),
            _ => &[],
        };
        let same_window = window == self.call.window;
        if !same_window || !(given.is_empty() || given == self.call.args) {
            let name = function.name.to_string();
            let what = format!("{name} is not of the window in GROUP BY");
            let hint = "Give it the same arguments as in GROUP BY, or none.";
            return Err(placed(Error::sql(what).with_hint(hint), name_place(&function.name)));
        }
        Ok(Some(match mentioned {
            Mention::Bound(column) => {
                self.uses_time |= column == TIME;
                self.column(column)
            }
            Mention::Window { .. } => self.bounds_struct(),
        }))
    }

    fn column(&self, name: &str) -> Expr {
        column(name, self.call.place)
    }

    /// `named_struct('start', window_start, 'end', window_end)`.
    fn bounds_struct(&self) -> Expr {
        let field = |name: &str| {
            let text = Value::SingleQuotedString(name.to_owned());
            unnamed(Expr::Value(text.into()))
        };
        let args = vec![
            field("start"),
            unnamed(self.column(START)),
            field("end"),
            unnamed(self.column(END)),
        ];
        Expr::Function(Function {
            name: ObjectName::from(vec![Ident::new("named_struct")]),
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args: FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment: None,
                args,
                clauses: vec![],
            }),
            filter: None,
            null_treatment: None,
            over: None,
            within_group: vec![],
        })
    }
}

fn column(name: &str, place: Option<Place>) -> Expr {
    let mut ident = Ident::new(name);
    if let Some(place) = place {
        ident.span = super::cursor::span_of(place);
    }
    Expr::Identifier(ident)
}

/// Replaces the window in GROUP BY by its bounds.
fn regroup(group_by: &mut Vec<Expr>, projection: &[SelectItem], uses_time: bool) {
    let mut once = false;
    let mut expand = |exprs: &mut Vec<Expr>, again: bool| {
        let mut out = Vec::with_capacity(exprs.len() + 2);
        for expr in exprs.drain(..) {
            match resolve(&expr, projection) {
                Some(call) if again || !once => {
                    once = true;
                    out.push(column(START, call.place));
                    out.push(column(END, call.place));
                    if uses_time {
                        out.push(column(TIME, call.place));
                    }
                }
                Some(_) => {}
                None => out.push(expr),
            }
        }
        *exprs = out;
    };
    expand(group_by, false);
    for expr in group_by.iter_mut() {
        if let Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) = expr {
            for set in sets {
                expand(set, true);
            }
        }
    }
}

/// Puts the window around the relation that its time column belongs to.
fn wrap(select: &mut Select, call: Call) -> Result<()> {
    let Call { window, args, place, .. } = call;
    let mut factors = vec![];
    for item in &mut select.from {
        collect(&mut item.relation, &mut factors);
        for join in &mut item.joins {
            collect(&mut join.relation, &mut factors);
        }
    }
    if factors.iter().any(|f| is_window(f)) {
        return Err(placed(
            Error::sql("a SELECT has two windows: one in FROM and one over it")
                .with_hint("Keep one; for a window over windows, put the inner one in a subquery."),
            place,
        ));
    }
    let mut args = args.into_iter().peekable();
    let mut qualifier = None;
    let mut time = None;
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) = args.peek()
        && !is_interval(first)
    {
        match time_column(window, first.clone(), place)? {
            Expr::CompoundIdentifier(mut parts) => {
                time = parts.pop();
                qualifier = parts.pop();
            }
            Expr::Identifier(name) => time = Some(name),
            _ => {}
        }
        args.next();
    }
    let chosen = match &qualifier {
        None => factors.into_iter().next(),
        Some(name) => factors.into_iter().find(|f| called(f).is_some_and(|c| same(&c, name))),
    };
    let Some(factor) = chosen else {
        let what = match &qualifier {
            Some(name) => format!("FROM has no relation \"{}\" for the window", name.value),
            None => "a window in GROUP BY needs a FROM".to_owned(),
        };
        let place = qualifier.map(|q| place_of(q.span)).or(place);
        return Err(placed(Error::sql(what), place));
    };
    let (input, alias) = input(window, factor, place)?;
    let mut all = vec![unnamed(input)];
    all.extend(time.map(|t| unnamed(Expr::Identifier(t))));
    all.extend(args);
    if window == WindowFunction::Session {
        all.push(FunctionArg::Named {
            name: Ident::new(GROUPED),
            arg: FunctionArgExpr::Expr(Expr::Value(Value::Boolean(true).into())),
            operator: FunctionArgOperator::RightArrow,
        });
    }
    *factor = window_factor(window, all, alias, place);
    Ok(())
}

fn window_factor(
    window: WindowFunction,
    args: Vec<FunctionArg>,
    alias: Option<TableAlias>,
    place: Option<Place>,
) -> TableFactor {
    let mut name = Ident::new(window.name());
    if let Some(place) = place {
        name.span = super::cursor::span_of(place);
    }
    let mut factor = named_table(ObjectName::from(vec![name]));
    if let TableFactor::Table { args: slot, alias: alias_slot, .. } = &mut factor {
        *slot = Some(TableFunctionArgs { args, settings: None });
        *alias_slot = alias;
    }
    factor
}

/// The relations of a FROM item, including those in parentheses.
fn collect<'a>(factor: &'a mut TableFactor, into: &mut Vec<&'a mut TableFactor>) {
    match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => {
            collect(&mut table_with_joins.relation, into);
            for join in &mut table_with_joins.joins {
                collect(&mut join.relation, into);
            }
        }
        other => into.push(other),
    }
}

fn is_window(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: Some(_), .. } => window_name(name).is_some(),
        TableFactor::TableFunction { expr: Expr::Function(f), .. } => {
            window_name(&f.name).is_some()
        }
        _ => false,
    }
}

/// The qualifier of a relation's columns.
fn called(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, .. } => name.0.last()?.as_ident().cloned(),
        _ => None,
    }
}

/// The relation as a subquery, and the alias that refers to the window after the rewrite.
fn input(
    window: WindowFunction,
    factor: &mut TableFactor,
    place: Option<Place>,
) -> Result<(Expr, Option<TableAlias>)> {
    let name = called(factor);
    let keep = |name: Ident| TableAlias { explicit: true, name, columns: vec![], at: None };
    match factor {
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, lateral: false, .. } => {
            // New column names stay inside, where their number is checked.
            if alias.as_ref().is_some_and(|a| a.columns.is_empty()) {
                *alias = None;
            }
        }
        _ => {
            let what = "its relation is neither a table nor a subquery".to_owned();
            return Err(wrong(window, &what, place));
        }
    }
    let inner = match std::mem::replace(factor, named_table(ObjectName::from(Vec::<Ident>::new())))
    {
        TableFactor::Derived { subquery, alias: None, sample: None, .. } => subquery,
        other => Box::new(select_star(other)),
    };
    Ok((Expr::Subquery(inner), name.map(keep)))
}
