//! The expressions of DEFINE and MEASURES: what they read of the rows of a match becomes slots, and the rest becomes an
//! expression over these.
//!
//! ```text
//! b.price > PREV(b.price) AND avg(a.price) < 15     "$0" > "$1" AND "$2" < 15
//!   "$0": price of the last b   "$1": price of the row before it   "$2": avg(price) over the rows of a
//! ```
//! This works on the syntax tree, since variables are not relations of the underlying engine. Slots have quoted names,
//! which cannot be written without quotes.
//!
//! Invariant: nothing is dropped; what cannot be computed within a match is refused.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Spanned,
    Value, VisitMut, VisitorMut,
};
use sqlparser::tokenizer::Span;
use windrow_core::{Error, sql_type};
use windrow_operators::RowOf;

use super::exact::coerced;
use super::tvf::error;
use crate::diagnostics::did_you_mean;
use crate::parse::row_pattern::{FINAL, RUNNING};

/// The functions that find a row.
const NAVIGATION: &[&str] = &["prev", "next", "first", "last"];

/// The variables of a pattern.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// In the order of their numbers.
    pub(super) names: Vec<Ident>,
    /// Unions of variables, as bits.
    pub(super) subsets: Vec<(Ident, u64)>,
}

/// A name in the form in which it is compared.
pub(super) fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

impl Variables {
    /// The variables with this name, as bits.
    pub(super) fn find(&self, name: &Ident) -> Option<u64> {
        let wanted = folded(name);
        let at = self.names.iter().position(|known| folded(known) == wanted);
        let own = at.and_then(|at| u32::try_from(at).ok()).and_then(|at| 1_u64.checked_shl(at));
        own.or_else(|| {
            let mut subsets = self.subsets.iter();
            subsets.find(|(known, _)| folded(known) == wanted).map(|(_, of)| *of)
        })
    }

    /// As [`find`](Self::find).
    ///
    /// # Errors
    /// When there is no such variable.
    pub(super) fn named(&self, name: &Ident) -> Result<u64> {
        self.find(name).ok_or_else(|| {
            let known = self.names.iter().map(|name| name.value.as_str());
            let e = Error::sql(format!("\"{}\" is not a variable of the pattern", name.value));
            let e = e.with_hint(did_you_mean(&name.value, known, "variables"));
            error(e, Some(name.span))
        })
    }
}

/// The columns that are computed for each row beforehand.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) exprs: Vec<Expr>,
    pub(super) types: Vec<DataType>,
}

impl Prepared {
    /// The index of the column for `expr`, which is added if it is new.
    pub(super) fn add(&mut self, expr: Expr, schema: &DFSchema) -> Result<usize> {
        let expr = expr.unalias();
        if let Some(known) = self.exprs.iter().position(|known| *known == expr) {
            return Ok(known);
        }
        self.types.push(expr.get_type(schema)?);
        self.exprs.push(expr);
        Ok(self.exprs.len() - 1)
    }
}

/// What a slot reads.
#[derive(Debug, Clone)]
pub(super) enum Draft {
    Value {
        row: RowOf,
        column: usize,
    },
    /// The call is over prepared columns, by their names.
    Aggregate {
        variables: Option<u64>,
        call: Expr,
        arguments: Vec<usize>,
        filter: Option<usize>,
    },
    Classifier(Option<u64>),
    MatchNumber,
}

/// A slot.
#[derive(Debug, Clone)]
pub(super) struct SlotDraft {
    pub(super) what: Draft,
    pub(super) is_final: bool,
    pub(super) data_type: DataType,
}

/// Plans expressions over the rows of a match.
pub(super) struct Slots<'a> {
    pub(super) context: &'a mut dyn RelationPlannerContext,
    pub(super) schema: &'a DFSchema,
    pub(super) variables: &'a Variables,
    pub(super) prepared: &'a mut Prepared,
    /// The name of a prepared column.
    pub(super) column: fn(usize) -> String,
    /// Whether FINAL and RUNNING are allowed.
    pub(super) measures: bool,
    /// Whether functions without either see all rows of the match.
    pub(super) is_final: bool,
}

/// An expression over slots.
pub(super) struct Planned {
    pub(super) expr: Expr,
    pub(super) slots: Vec<SlotDraft>,
}

/// The columns of an expression over these slots.
pub(super) fn slot_schema(slots: &[SlotDraft]) -> Result<DFSchema> {
    let fields = slots.iter().enumerate().map(|(i, slot)| {
        arrow::datatypes::Field::new(format!("${i}"), slot.data_type.clone(), true)
    });
    DFSchema::from_unqualified_fields(fields.collect(), std::collections::HashMap::new())
}

impl Slots<'_> {
    /// Plans an expression of DEFINE or MEASURES.
    ///
    /// # Errors
    /// When it cannot be planned, or has a function where it is not allowed.
    pub(super) fn plan(&mut self, mut expr: ast::Expr) -> Result<Planned> {
        let span = expr.span();
        let mut found = vec![];
        let mut walk = Walk { slots: self, found: &mut found, is_final: None };
        match VisitMut::visit(&mut expr, &mut walk) {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(e) => return Err(*e),
        }
        let schema = slot_schema(&found)?;
        let planned = self.context.sql_to_expr(expr, &schema)?;
        refuse_unstable(&planned, span)?;
        let config = Arc::new(self.context.context_provider().options().clone());
        let expr = coerced(planned, &schema, &config)?;
        Ok(Planned { expr, slots: found })
    }

    /// An expression over the columns of a row, as a prepared column.
    fn row_expr(&mut self, expr: ast::Expr) -> Result<usize> {
        let span = expr.span();
        let planned = self.context.sql_to_expr(expr, self.schema)?;
        refuse_unstable(&planned, span)?;
        let config = Arc::new(self.context.context_provider().options().clone());
        let expr = coerced(planned, self.schema, &config)?;
        self.prepared.add(expr, self.schema)
    }

    fn value(&mut self, row: RowOf, expr: ast::Expr, is_final: bool) -> Result<SlotDraft> {
        let column = self.row_expr(expr)?;
        let data_type = self.prepared.types.get(column).cloned().unwrap_or(DataType::Null);
        Ok(SlotDraft { what: Draft::Value { row, column }, is_final, data_type })
    }

    /// Removes the variable from the columns of an expression and returns it; `None` if they have none.
    fn unqualified<T: VisitMut>(&self, expr: &mut T, span: Span) -> Result<Option<u64>> {
        let mut walk =
            Unqualified { variables: self.variables, found: None, bare: false, inner: None };
        let _never_breaks = VisitMut::visit(expr, &mut walk);
        let Unqualified { found, bare, inner, .. } = walk;
        if let Some((name, at)) = inner {
            let e = Error::sql(format!(
                "{name} cannot be nested in another function over rows of a match"
            ));
            let hint = "PREV and NEXT may contain FIRST or LAST; no other function may contain another one.";
            return Err(error(e.with_hint(hint), Some(at)));
        }
        match found.as_deref() {
            Some([_, _, ..]) => {
                let e =
                    Error::sql("one function over rows of a match has columns of two variables");
                let hint = "Use one function for each: sum(a.x) + sum(b.x); or a SUBSET of both.";
                Err(error(e.with_hint(hint), Some(span)))
            }
            Some([_]) if bare => {
                let e = Error::sql(
                    "one function over rows of a match has columns with and without a variable",
                );
                let hint = "Put the variable before each column: sum(a.x * a.y).";
                Err(error(e.with_hint(hint), Some(span)))
            }
            Some([one]) => Ok(Some(*one)),
            _ => Ok(None),
        }
    }

    /// PREV, NEXT, FIRST and LAST.
    fn navigation(&mut self, name: &str, call: Function, is_final: bool) -> Result<SlotDraft> {
        let span = call.name.span();
        let (mut inner, offset) = arguments(name, call)?;
        let mut row = RowOf::LAST;
        let far = i32::try_from(offset.unwrap_or(u32::from(matches!(name, "prev" | "next"))));
        let far = far.map_err(|_| too_far(name, span))?;
        match name {
            "prev" | "next" => {
                row.shift = if name == "prev" { -far } else { far };
                if let ast::Expr::Function(call) = &inner
                    && let Some(nested) = function_name(&call.name)
                    && matches!(nested.as_str(), "first" | "last")
                {
                    let (argument, offset) = arguments(&nested, call.clone())?;
                    row.first = nested == "first";
                    row.offset = offset.unwrap_or(0);
                    inner = argument;
                }
            }
            _ => {
                row.first = name == "first";
                row.offset = offset.unwrap_or(0);
            }
        }
        row.variables = self.unqualified(&mut inner, span)?;
        self.value(row, inner, is_final)
    }

    fn aggregate(&mut self, mut call: Function, is_final: bool) -> Result<SlotDraft> {
        let span = call.name.span();
        let all = self.all_of(&mut call)?;
        let variables = match (self.unqualified(&mut call.args, span)?, all) {
            (None, all) => all,
            (of, _) => of,
        };
        if let Some(filter) = &mut call.filter {
            let of = self.unqualified(filter, span)?;
            if of.is_some() && of != variables {
                let e = Error::sql("the FILTER of an aggregate has columns of another variable");
                let hint =
                    "Put the same variable before all columns: sum(a.x) FILTER (WHERE a.y > 1).";
                return Err(error(e.with_hint(hint), Some(span)));
            }
        }
        let planned = self.context.sql_to_expr(ast::Expr::Function(call), self.schema)?;
        refuse_unstable(&planned, span)?;
        let config = Arc::new(self.context.context_provider().options().clone());
        let planned = coerced(planned, self.schema, &config)?.unalias();
        let data_type = planned.get_type(self.schema)?;
        let Expr::AggregateFunction(AggregateFunction { func, params }) = planned else {
            let e = Error::sql("this aggregate cannot be computed over rows of a match");
            return Err(error(e.with_hint("Use sum, count, avg, min or max."), Some(span)));
        };
        if !params.order_by.is_empty() {
            let e = Error::sql("an aggregate over rows of a match takes no ORDER BY");
            return Err(error(e.with_hint("They come in the order of the match."), Some(span)));
        }
        let (mut args, mut arguments) = (vec![], vec![]);
        for arg in params.args {
            let index = self.prepared.add(arg.clone(), self.schema)?;
            // Functions read constant arguments (a percentile, a separator) when they are built.
            args.push(match arg {
                Expr::Literal(..) => arg,
                _ => Expr::Column(Column::new_unqualified((self.column)(index))),
            });
            arguments.push(index);
        }
        let filter = params.filter.map(|filter| self.prepared.add(*filter, self.schema));
        let call = Expr::AggregateFunction(AggregateFunction {
            func,
            params: AggregateFunctionParams {
                args,
                distinct: params.distinct,
                filter: None,
                order_by: vec![],
                null_treatment: params.null_treatment,
            },
        });
        let what = Draft::Aggregate { variables, call, arguments, filter: filter.transpose()? };
        Ok(SlotDraft { what, is_final, data_type })
    }

    /// The variable of `count(a.*)`, which becomes `count(*)`.
    fn all_of(&self, call: &mut Function) -> Result<Option<u64>> {
        let FunctionArguments::List(list) = &mut call.args else { return Ok(None) };
        for arg in &mut list.args {
            if let FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name)) = arg
                && let [part] = name.0.as_slice()
                && let Some(ident) = part.as_ident()
            {
                let of = self.variables.named(ident)?;
                *arg = FunctionArg::Unnamed(FunctionArgExpr::Wildcard);
                return Ok(Some(of));
            }
        }
        Ok(None)
    }

    /// The slot of a call, if it reads rows of the match.
    fn call(&mut self, call: &Function, is_final: bool) -> Result<Option<SlotDraft>> {
        let Some(name) = function_name(&call.name) else { return Ok(None) };
        let span = call.name.span();
        if call.over.is_some() {
            let e = Error::sql("OVER is not allowed in MATCH_RECOGNIZE");
            let hint = "Compute it in a subquery: FROM (SELECT *, … OVER (…) AS x FROM t) MATCH_RECOGNIZE (…).";
            return Err(error(e.with_hint(hint), Some(span)));
        }
        if NAVIGATION.contains(&name.as_str()) {
            return self.navigation(&name, call.clone(), is_final).map(Some);
        }
        let what = match name.as_str() {
            "match_number" => Draft::MatchNumber,
            "match_rowtime" => {
                let data_type = self.prepared.types.first().cloned().unwrap_or(DataType::Null);
                let what = Draft::Value { row: RowOf::LAST, column: 0 };
                return Ok(Some(SlotDraft { what, is_final, data_type }));
            }
            "classifier" => {
                let mut of = None;
                if let FunctionArguments::List(list) = &call.args
                    && let [
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Identifier(name))),
                    ] = list.args.as_slice()
                {
                    of = Some(self.variables.named(name)?);
                }
                Draft::Classifier(of)
            }
            _ => {
                let provider = self.context.context_provider();
                let aggregates = provider.get_aggregate_meta(&name).is_some();
                let scalar = provider.get_function_meta(&name).is_some();
                if !aggregates || scalar {
                    return Ok(None);
                }
                return self.aggregate(call.clone(), is_final).map(Some);
            }
        };
        let data_type = match what {
            Draft::MatchNumber => DataType::Int64,
            _ => DataType::Utf8,
        };
        Ok(Some(SlotDraft { what, is_final, data_type }))
    }
}

/// The single part of a function's name, in the form in which it is compared.
fn function_name(name: &ObjectName) -> Option<String> {
    let [part] = name.0.as_slice() else { return None };
    part.as_ident().map(folded)
}

fn too_far(name: &str, span: Span) -> DataFusionError {
    let name = name.to_uppercase();
    let e = Error::sql(format!("{name} takes a column and a whole number of rows"));
    error(e.with_hint(format!("Write {name}(a.price, 1).")), Some(span))
}

/// The argument of a navigation function, and its offset.
fn arguments(name: &str, call: Function) -> Result<(ast::Expr, Option<u32>)> {
    let span = call.name.span();
    let FunctionArguments::List(list) = call.args else { return Err(too_far(name, span)) };
    let mut args = list.args.into_iter();
    let (Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))), second, None) =
        (args.next(), args.next(), args.next())
    else {
        return Err(too_far(name, span));
    };
    let offset = match second {
        None => None,
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Value(value)))) => {
            match &value.value {
                Value::Number(number, _) => {
                    Some(number.parse::<u32>().map_err(|_| too_far(name, span))?)
                }
                _ => return Err(too_far(name, span)),
            }
        }
        Some(_) => return Err(too_far(name, span)),
    };
    Ok((first, offset))
}

/// Refuses functions that differ between calls, or are not available within a match.
fn refuse_unstable(expr: &Expr, span: Span) -> Result<()> {
    let mut found = None;
    expr.apply(|expr| {
        found = match expr {
            Expr::ScalarFunction(call)
                if call.func.signature().volatility != Volatility::Immutable =>
            {
                Some(format!("{}(), which is not always the same,", call.func.name()))
            }
            Expr::Placeholder(_) => Some("a parameter".to_owned()),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                Some("a subquery".to_owned())
            }
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match found {
        None => Ok(()),
        Some(what) => {
            let e = Error::sql(format!("{what} is not allowed in MATCH_RECOGNIZE"));
            let hint = "Compute it in a subquery below, or in the SELECT above.";
            Err(error(e.with_hint(hint), Some(span)))
        }
    }
}

/// The condition of a variable must be boolean.
pub(super) fn boolean(planned: &Planned, name: &Ident) -> Result<()> {
    match planned.expr.get_type(&slot_schema(&planned.slots)?)? {
        DataType::Boolean | DataType::Null => Ok(()),
        other => {
            let e = Error::sql(format!(
                "the condition of \"{}\" in DEFINE is {}, not boolean",
                name.value,
                sql_type(&other)
            ));
            Err(error(e.with_hint("Write a comparison, such as a.price > 10."), Some(name.span)))
        }
    }
}

/// Replaces everything that reads rows by slots.
struct Walk<'w, 'a> {
    slots: &'w mut Slots<'a>,
    found: &'w mut Vec<SlotDraft>,
    /// Set by FINAL or RUNNING for the next call.
    is_final: Option<bool>,
}

impl Walk<'_, '_> {
    fn slot(&mut self, slot: SlotDraft) -> ast::Expr {
        self.found.push(slot);
        ast::Expr::Identifier(Ident::with_quote('"', format!("${}", self.found.len() - 1)))
    }

    fn expression(&mut self, expr: &mut ast::Expr) -> Result<()> {
        let is_final = self.is_final.take().unwrap_or(self.slots.is_final);
        match expr {
            ast::Expr::Function(call) => {
                let name = function_name(&call.name);
                if let Some(marker) = name.as_deref().filter(|name| [FINAL, RUNNING].contains(name))
                {
                    let is_final = marker == FINAL;
                    if !self.slots.measures {
                        let e = Error::sql("FINAL and RUNNING are not allowed in DEFINE");
                        let hint = "Conditions see the rows so far; leave the word out.";
                        return Err(error(e.with_hint(hint), Some(call.name.span())));
                    }
                    if let FunctionArguments::List(list) = &call.args
                        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))] =
                            list.args.as_slice()
                    {
                        let mut inner = inner.clone();
                        self.is_final = Some(is_final);
                        self.expression(&mut inner)?;
                        if !matches!(inner, ast::Expr::Identifier(_)) {
                            let word = marker.trim_start_matches('$').to_uppercase();
                            let e = Error::sql(format!(
                                "{word} must come before a function over rows of the match"
                            ));
                            let hint = "It may come before FIRST, LAST and aggregates.";
                            return Err(error(e.with_hint(hint), Some(call.name.span())));
                        }
                        *expr = inner;
                    }
                    return Ok(());
                }
                if let Some(slot) = self.slots.call(call, is_final)? {
                    *expr = self.slot(slot);
                }
            }
            ast::Expr::Identifier(name) if !name.value.starts_with('$') => {
                let column = ast::Expr::Identifier(name.clone());
                let slot = self.slots.value(RowOf::LAST, column, is_final)?;
                *expr = self.slot(slot);
            }
            ast::Expr::CompoundIdentifier(parts) => {
                let of = parts.first().and_then(|first| self.slots.variables.find(first));
                let row = RowOf { variables: of, ..RowOf::LAST };
                let parts = if of.is_some() { parts.split_off(1) } else { parts.clone() };
                let slot = self.slots.value(row, column_of(parts), is_final)?;
                *expr = self.slot(slot);
            }
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
                let e = Error::sql("a subquery is not allowed in MATCH_RECOGNIZE");
                let hint =
                    "Join its result below: FROM (SELECT … FROM t JOIN u …) MATCH_RECOGNIZE (…).";
                return Err(error(e.with_hint(hint), Some(expr.span())));
            }
            _ => {}
        }
        Ok(())
    }
}

fn column_of(mut parts: Vec<Ident>) -> ast::Expr {
    match parts.len() {
        1 => parts.pop().map_or(ast::Expr::value(Value::Null), ast::Expr::Identifier),
        _ => ast::Expr::CompoundIdentifier(parts),
    }
}

impl VisitorMut for Walk<'_, '_> {
    type Break = Box<DataFusionError>;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Self::Break> {
        match self.expression(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(Box::new(e)),
        }
    }
}

/// Removes variables from columns.
struct Unqualified<'v> {
    variables: &'v Variables,
    found: Option<Vec<u64>>,
    /// Whether there is a column without one.
    bare: bool,
    /// A nested function over rows.
    inner: Option<(String, Span)>,
}

impl VisitorMut for Unqualified<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        match expr {
            ast::Expr::CompoundIdentifier(parts) => {
                match parts.first().and_then(|first| self.variables.find(first)) {
                    Some(of) => {
                        let found = self.found.get_or_insert_default();
                        if !found.contains(&of) {
                            found.push(of);
                        }
                        *expr = column_of(parts.split_off(1));
                        // It is not visited again: it contains no expressions.
                    }
                    None => self.bare = true,
                }
            }
            ast::Expr::Identifier(_) => self.bare = true,
            ast::Expr::Function(call) => {
                let name = function_name(&call.name).unwrap_or_default();
                let ours = ["classifier", "match_number", "match_rowtime", FINAL, RUNNING];
                if NAVIGATION.contains(&name.as_str()) || ours.contains(&name.as_str()) {
                    let name = name.trim_start_matches('$').to_uppercase();
                    self.inner = Some((name, call.name.span()));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
