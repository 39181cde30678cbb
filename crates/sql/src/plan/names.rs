//! What result columns without an alias are called: the text of their expression.
//!
//! ```text
//! SELECT count(*), sum(b.price), b.price * 2, 1 FROM bids b
//!        count(*)  sum(price)    price * 2    1
//! ```
//! Names of columns and functions are in lower case unless they were quoted, and qualifiers are left out
//! unless two columns would have one name without them. A column keeps its name, and a field of a struct has the
//! field's.
//!
//! Names are given to every SELECT, so that those around it can use them, by an alias in the syntax tree. What
//! DataFusion would call a column shows its own types and is not used, but in objects that were
//! defined before this rule: [`PlannerNames`].
//!
//! Invariant: no alias makes two columns of one SELECT alike that DataFusion tells apart.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    self, AccessExpr, Function, FunctionArg, FunctionArguments, Ident, ObjectName, ObjectNamePart,
    Query, Select, SelectItem, TableAlias, TableFactor, TableWithJoins, Value, Visit, VisitMut,
    Visitor, VisitorMut,
};

/// An extension of a session's configuration: columns are called what DataFusion calls them.
#[derive(Debug)]
pub struct PlannerNames;

/// Names the columns of all SELECTs of a query.
pub(super) fn name_columns(query: &mut Query) {
    let _never_breaks = VisitMut::visit(query, &mut Names);
}

struct Names;

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let relations = Relations::of(&select.from);
        let short: Vec<Option<String>> =
            select.projection.iter().map(|item| relations.name(item, true)).collect();
        let is_alike = |at: usize| {
            let name = short.get(at).and_then(Option::as_ref);
            name.is_some_and(|name| {
                short.iter().flatten().filter(|other| *other == name).count() > 1
            })
        };
        let alike: Vec<bool> = (0..short.len()).map(is_alike).collect();
        let full = |at: usize, item: &SelectItem| {
            relations
                .name(item, false)
                .filter(|full| short.get(at).is_some_and(|s| s.as_ref() != Some(full)))
        };
        let mut names: Vec<Option<String>> = vec![];
        for (at, item) in select.projection.iter().enumerate() {
            let name = match alike.get(at) {
                Some(true) => full(at, item),
                _ => short.get(at).cloned().flatten(),
            };
            // The same expression twice stays what it is: that is the planner's to judge.
            let name = name.filter(|_| !is_column(item, &relations));
            names.push(name.filter(|name| !names.iter().flatten().any(|other| other == name)));
        }
        for (item, name) in select.projection.iter_mut().zip(names) {
            let (SelectItem::UnnamedExpr(expr), Some(name)) = (&mut *item, name) else { continue };
            let expr = std::mem::replace(expr, ast::Expr::value(Value::Null));
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
        }
        ControlFlow::Continue(())
    }
}

/// Whether DataFusion's name is ours: columns, and what has no one name.
fn is_column(item: &SelectItem, relations: &Relations) -> bool {
    let SelectItem::UnnamedExpr(expr) = item else { return true };
    match without_parentheses(expr) {
        ast::Expr::Identifier(_) => true,
        ast::Expr::CompoundIdentifier(names) => relations.qualify(names) + 1 >= names.len(),
        ast::Expr::Function(function) => is_unnest(function) || is_plain_count(function),
        ast::Expr::Wildcard(_) | ast::Expr::QualifiedWildcard(..) => true,
        _ => false,
    }
}

/// `unnest` may give any number of columns.
fn is_unnest(function: &Function) -> bool {
    last(&function.name).is_some_and(|name| name.eq_ignore_ascii_case("unnest"))
}

/// `count(*)` and nothing behind it: DataFusion calls it the same.
fn is_plain_count(function: &Function) -> bool {
    function.to_string().eq_ignore_ascii_case("count(*)")
}

fn without_parentheses(expr: &ast::Expr) -> &ast::Expr {
    match expr {
        ast::Expr::Nested(inner) => without_parentheses(inner),
        expr => expr,
    }
}

fn last(name: &ObjectName) -> Option<String> {
    name.0.last()?.as_ident().map(folded)
}

fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// What columns of a SELECT may be qualified with.
#[derive(Default)]
struct Relations(BTreeSet<String>);

impl Relations {
    fn of(from: &[TableWithJoins]) -> Self {
        let mut relations = Self::default();
        for table in from {
            let _never_breaks = Visit::visit(table, &mut relations);
        }
        relations
    }

    /// How many of the names before a column are those of its relation.
    fn qualify(&self, names: &[Ident]) -> usize {
        let before = names.split_last().map_or(&[][..], |(_, before)| before);
        before.iter().rposition(|name| self.0.contains(&folded(name))).map_or(0, |at| at + 1)
    }

    /// The name of an item, where it has one.
    fn name(&self, item: &SelectItem, short: bool) -> Option<String> {
        let expr = match item {
            SelectItem::UnnamedExpr(expr) => without_parentheses(expr),
            SelectItem::ExprWithAlias { alias, .. } => return Some(folded(alias)),
            _ => return None,
        };
        match expr {
            ast::Expr::Identifier(name) => return Some(folded(name)),
            ast::Expr::CompoundIdentifier(names) => return names.last().map(folded),
            ast::Expr::CompoundFieldAccess { access_chain, .. } => {
                if let Some(AccessExpr::Dot(ast::Expr::Identifier(name))) = access_chain.last() {
                    return Some(folded(name));
                }
            }
            _ => {}
        }
        let mut shown = expr.clone();
        let _never_breaks = VisitMut::visit(&mut shown, &mut Shown { relations: self, short });
        Some(shown.to_string())
    }
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let (name, alias) = match factor {
            TableFactor::Table { name, alias, .. } => (last(name), alias),
            TableFactor::Derived { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => (None, alias),
            _ => (None, &None),
        };
        let alias = alias.as_ref().map(|TableAlias { name, .. }| folded(name));
        self.0.extend(name.into_iter().chain(alias));
        ControlFlow::Continue(())
    }
}

/// Makes an expression what is shown of it.
struct Shown<'a> {
    relations: &'a Relations,
    /// Without qualifiers.
    short: bool,
}

impl VisitorMut for Shown<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        match expr {
            ast::Expr::Identifier(name) => plain(name),
            ast::Expr::CompoundIdentifier(names) => {
                if self.short {
                    names.drain(..self.relations.qualify(names));
                }
                names.iter_mut().for_each(plain);
            }
            ast::Expr::Function(function) => {
                for part in &mut function.name.0 {
                    if let ObjectNamePart::Identifier(name) = part {
                        plain(name);
                    }
                }
                if let FunctionArguments::List(list) = &mut function.args {
                    for argument in &mut list.args {
                        if let FunctionArg::Named { name, .. } = argument {
                            plain(name);
                        }
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// In lower case, unless it was quoted; the quotes stay where the name needs them.
fn plain(name: &mut Ident) {
    name.value = folded(name);
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.value.chars().all(is_word) {
        name.quote_style = None;
    }
}

#[cfg(test)]
mod tests;
