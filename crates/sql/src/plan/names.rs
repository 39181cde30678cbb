//! Names result columns without an alias by the text of their expression.
//!
//! ```text
//! SELECT count(*), sum(b.price), b.price * 2, 1 FROM bids b
//!        count(*)  sum(price)    price * 2    1
//! ```
//! Names of columns and functions are in lower case unless they were quoted, and qualifiers are omitted unless two
//! columns would have the same name without them. A column keeps its name, and a field of a struct has the name of the
//! field.
//!
//! Every SELECT is named, by aliases in the syntax tree, so that the queries around it can refer to its columns.
//! DataFusion's names show its own types; they are used only in objects that were defined before this rule:
//! [`PlannerNames`].
//!
//! Invariant: no alias gives the same name to two columns of a SELECT that DataFusion distinguishes.

mod casts;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    self, AccessExpr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, TableAlias,
    TableFactor, TableWithJoins, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::parse::model_of_function;

/// An extension of a session's configuration: columns have DataFusion's names.
#[derive(Debug)]
pub struct PlannerNames;

/// Names the columns of all SELECTs of a query.
pub(super) fn name_columns(query: &mut Query) {
    let _never_breaks = VisitMut::visit(query, &mut Names);
}

/// What a column is called that is an expression over these relations.
pub(super) fn text(expr: &ast::Expr, relations: impl Iterator<Item = String>) -> String {
    Relations(relations.collect()).shown(expr, true)
}

struct Names;

impl Names {
    /// Names the columns of the SELECTs of a query, and then distinguishes their calls: the names are those of the calls as
    /// they were written.
    fn apart(&mut self, body: &mut SetExpr, order_by: Option<&mut OrderBy>) {
        match body {
            SetExpr::Select(select) => {
                let _never_breaks = self.pre_visit_select(select);
                casts::tell_apart(select, order_by);
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.apart(left, None);
                self.apart(right, None);
            }
            _ => {}
        }
    }
}

impl VisitorMut for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let Query { body, order_by, .. } = query;
        self.apart(body, order_by.as_mut());
        let Some(order_by) = order_by else { return ControlFlow::Continue(()) };
        if let SetExpr::Select(select) = body.as_mut()
            && select.distinct.is_some()
            && let OrderByKind::Expressions(by) = &mut order_by.kind
        {
            let relations = Relations::of(&select.from);
            for by in by {
                by_name(&mut by.expr, select, &relations);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let relations = Relations::of(&select.from);
        let short: Vec<Option<String>> =
            select.projection.iter().map(|item| relations.name(item, true)).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in short.iter().flatten() {
            *counts.entry(name).or_default() += 1;
        }
        let is_alike = |name: &str| counts.get(name).is_some_and(|count| *count > 1);
        // Aliases are names too; and a SELECT that is named already stays as it is.
        let mut given: BTreeSet<String> = select.projection.iter().filter_map(alias).collect();
        let mut names = vec![];
        for (item, short) in select.projection.iter().zip(&short) {
            let name = match short {
                Some(_) if is_column(item, &relations) => None,
                Some(name) if is_alike(name) => relations.name(item, false),
                name => name.clone(),
            };
            // The parser has already distinguished repeated expressions.
            names.push(name.filter(|name| given.insert(name.clone())));
        }
        for (item, name) in select.projection.iter_mut().zip(names) {
            let (SelectItem::UnnamedExpr(expr), Some(name)) = (&mut *item, name) else { continue };
            let expr = std::mem::replace(expr, ast::Expr::value(Value::Null));
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
        }
        ControlFlow::Continue(())
    }
}

fn alias(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        _ => None,
    }
}

/// Rewrites the ORDER BY of SELECT DISTINCT, which may only use its columns, by their new names.
fn by_name(by: &mut ast::Expr, select: &Select, relations: &Relations) {
    let like = |short: bool| {
        let wanted = relations.shown(by, short);
        select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if relations.shown(expr, short) == wanted => {
                Some(alias.clone())
            }
            _ => None,
        })
    };
    let named = like(false).or_else(|| like(true));
    if let Some(alias) = named {
        *by = ast::Expr::Identifier(alias);
    }
}

/// Whether DataFusion's name is the same: for columns, and for items without a single name.
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

/// Whether it is `unnest`, which may return any number of columns, unless its argument is certainly a list.
fn is_unnest(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    last(&function.name).is_some_and(|name| name.eq_ignore_ascii_case("unnest"))
        && !list.args.iter().all(|arg| {
            matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Array(_))))
        })
}

/// Whether it is `count(*)` without further clauses, which has the same name in DataFusion.
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

/// The qualifiers of columns in a SELECT.
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

    /// The number of parts before a column's name that name its relation.
    fn qualify(&self, names: &[Ident]) -> usize {
        let before = names.split_last().map_or(&[][..], |(_, before)| before);
        before.iter().rposition(|name| self.0.contains(&folded(name))).map_or(0, |at| at + 1)
    }

    /// The name of an item, if it has one.
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
        Some(self.shown(expr, short))
    }

    /// The text of an expression; with `short` without qualifiers, if it then means the same.
    fn shown(&self, expr: &ast::Expr, short: bool) -> String {
        let expr = without_parentheses(expr);
        let mut qualified = Qualified { relations: self, columns: BTreeMap::new(), mixed: false };
        let _never_breaks = Visit::visit(expr, &mut qualified);
        let short = short && !qualified.mixed;
        let mut shown = expr.clone();
        let _never_breaks = VisitMut::visit(&mut shown, &mut Shown { relations: self, short });
        shown.to_string()
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
            | TableFactor::NestedJoin { alias, .. }
            | TableFactor::MatchRecognize { alias, .. } => (None, alias),
            _ => (None, &None),
        };
        let alias = alias.as_ref().map(|TableAlias { name, .. }| folded(name));
        self.0.extend(name.into_iter().chain(alias));
        ControlFlow::Continue(())
    }
}

/// Whether an expression has columns that differ only in their relation.
struct Qualified<'a> {
    relations: &'a Relations,
    /// Qualified columns, by their names without qualifiers.
    columns: BTreeMap<Vec<String>, Vec<String>>,
    mixed: bool,
}

impl Visitor for Qualified<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::CompoundIdentifier(names) = expr {
            let full: Vec<String> = names.iter().map(folded).collect();
            let short = full.get(self.relations.qualify(names)..).unwrap_or_default().to_vec();
            self.mixed |= *self.columns.entry(short).or_insert_with(|| full.clone()) != full;
        }
        ControlFlow::Continue(())
    }
}

/// Turns an expression into the form in which it is displayed.
struct Shown<'a> {
    relations: &'a Relations,
    /// Whether to omit qualifiers.
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
                as_prediction(function);
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

/// Writes a call of the function of a model as a call of `predict`, as it was written.
fn as_prediction(function: &mut Function) {
    let Some(name) = last(&function.name) else { return };
    let (Some(model), FunctionArguments::List(list)) =
        (model_of_function(&name), &mut function.args)
    else {
        return;
    };
    let model = ast::Expr::Identifier(Ident::with_quote('"', model));
    list.args.insert(0, FunctionArg::Unnamed(FunctionArgExpr::Expr(model)));
    function.name = ObjectName::from(vec![Ident::new("predict")]);
}

/// In lower case, unless it was quoted; the quotes remain if the name needs them.
fn plain(name: &mut Ident) {
    name.value = folded(name);
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.value.chars().all(is_word) {
        name.quote_style = None;
    }
}

#[cfg(test)]
mod tests;
