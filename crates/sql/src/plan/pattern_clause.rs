//! `FROM t MATCH_RECOGNIZE (…)`: from the syntax tree to a [`RowPattern`].
//!
//! Syntax that the underlying parser does not have arrives as definitions of variables with names that cannot be
//! written ([`crate::parse::row_pattern`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, LogicalPlan};
use sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, OrderByExpr,
    RowsPerMatch, Spanned, SymbolDefinition, TableFactor, Value,
};
use sqlparser::tokenizer::Span;
use windrow_core::Error;
use windrow_operators::{Pattern, Skip, VARIABLES_MAX};

use super::exact::{canonical_in_place, coerced};
use super::pattern::RowPattern;
use super::pattern_compile::{Drafts, OutputDraft};
use super::pattern_slots::{Draft, Planned, Prepared, Slots, Variables, boolean, folded};
use super::tvf::error;
use super::{interval, names};
use crate::parse::row_pattern as marks;

/// Plans MATCH_RECOGNIZE; leaves every other relation to the next planner.
#[derive(Debug)]
pub(crate) struct RowPatterns;

impl RelationPlanner for RowPatterns {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::MatchRecognize {
            table,
            partition_by,
            order_by,
            measures,
            rows_per_match,
            symbols,
            alias,
            ..
        } = relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let input = context.plan(source(*table))?;
        let given = Given {
            partition_by,
            order_by,
            measures,
            all_rows: matches!(rows_per_match, Some(RowsPerMatch::AllRows(_))),
        };
        let plan = planned(input, given, symbols, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// The subquery that the parser has wrapped in a function, or the table itself.
fn source(table: TableFactor) -> TableFactor {
    let TableFactor::Table { name, args: Some(args), alias, .. } = &table else { return table };
    match (name.0.as_slice(), args.args.as_slice()) {
        ([name], [FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Subquery(subquery)))])
            if name.as_ident().is_some_and(|name| name.value == marks::ROWS) =>
        {
            let (subquery, alias) = (subquery.clone(), alias.clone());
            TableFactor::Derived { lateral: false, subquery, alias, sample: None }
        }
        _ => table,
    }
}

/// The clause as the underlying parser reads it.
struct Given {
    partition_by: Vec<ast::Expr>,
    order_by: Vec<OrderByExpr>,
    measures: Vec<ast::Measure>,
    all_rows: bool,
}

/// The definitions, taken apart.
#[derive(Default)]
struct Said {
    pattern: Option<Pattern>,
    variables: Variables,
    skip: Option<Skip>,
    within: Option<ast::Expr>,
    /// By variable.
    conditions: Vec<Option<(Ident, ast::Expr)>>,
    /// The span of the pattern.
    span: Option<Span>,
}

fn planned(
    input: LogicalPlan,
    given: Given,
    symbols: Vec<SymbolDefinition>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let said = said(symbols)?;
    let schema = Arc::clone(input.schema());
    let mut prepared = Prepared::default();
    let mut texts = BTreeMap::new();
    let order = {
        let mut over = Over { schema: &schema, prepared: &mut prepared, texts: &mut texts };
        order((&given.order_by, said.span), &mut over, context)?
    };
    let (keys, mut own) = {
        let mut over = Over { schema: &schema, prepared: &mut prepared, texts: &mut texts };
        keys(given.partition_by, &mut over, context)?
    };
    let mut rest = vec![];
    if given.all_rows {
        for (index, _) in &order {
            if !own.contains(index) {
                own.push(*index);
            }
        }
        for column in schema.columns() {
            let index = prepared.add(Expr::Column(column), &schema)?;
            if !own.contains(&index) {
                rest.push(index);
            }
        }
    }
    let mut slots = Slots {
        context,
        schema: &schema,
        variables: &said.variables,
        prepared: &mut prepared,
        column: RowPattern::name,
        measures: false,
        is_final: false,
    };
    let conditions = conditions(said.conditions, &mut slots)?;
    (slots.measures, slots.is_final) = (true, !given.all_rows);
    let mut measures = vec![];
    for ast::Measure { expr, alias } in given.measures {
        let name = slots.context.normalize_ident(alias);
        measures.push((name, slots.plan(expr)?));
    }
    let name = |index: &usize| {
        let name = prepared.exprs.get(*index).map(|expr| match expr {
            Expr::Column(column) => column.name.clone(),
            other => texts.get(index).cloned().unwrap_or_else(|| other.schema_name().to_string()),
        });
        (name.unwrap_or_default(), OutputDraft::Column(*index))
    };
    let before: Vec<_> = own.iter().map(name).collect();
    let behind: Vec<_> = rest.iter().map(name).collect();
    let measures = measures.into_iter().map(|(name, m)| (name, OutputDraft::Measure(m)));
    let outputs: Vec<_> = before.into_iter().chain(measures).chain(behind).collect();
    let Some(pattern) = said.pattern else {
        return Err(error(Error::internal("MATCH_RECOGNIZE without a pattern"), None));
    };
    let within = said.within.map(|expr| within(expr, &prepared, context)).transpose()?;
    let drafts = Drafts {
        prepared,
        keys,
        order,
        pattern,
        names: said.variables.names,
        conditions,
        outputs,
        all_rows: given.all_rows,
        skip: said.skip.unwrap_or(Skip::PastLastRow),
        within,
        span: said.span,
    };
    drafts.build(input)
}

/// The conditions of DEFINE, by variable.
fn conditions(
    defined: Vec<Option<(Ident, ast::Expr)>>,
    slots: &mut Slots<'_>,
) -> Result<Vec<Option<Planned>>> {
    let mut conditions = vec![];
    for condition in defined {
        conditions.push(match condition {
            None => None,
            Some((name, expr)) => {
                let planned = slots.plan(expr)?;
                boolean(&planned, &name)?;
                check_classifiers(&planned, conditions.len(), &name)?;
                Some(planned)
            }
        });
    }
    Ok(conditions)
}

/// What PARTITION BY and ORDER BY go over, and what is called by its text.
struct Over<'a> {
    schema: &'a DFSchema,
    prepared: &'a mut Prepared,
    /// What prepared expressions that are no columns are called.
    texts: &'a mut BTreeMap<usize, String>,
}

impl Over<'_> {
    fn text(&self, expr: &ast::Expr) -> String {
        let relations = self.schema.iter().filter_map(|(relation, _)| relation);
        names::text(expr, relations.map(|relation| relation.table().to_owned()))
    }
}

/// The columns of PARTITION BY: as they are compared, and as they are returned.
fn keys(
    by: Vec<ast::Expr>,
    over: &mut Over<'_>,
    context: &mut dyn RelationPlannerContext,
) -> Result<(Vec<usize>, Vec<usize>)> {
    let (mut keys, mut shown) = (vec![], vec![]);
    for key in by {
        let text = over.text(&key);
        let expr = standing_alone(key, over.schema, context)?;
        let value = over.prepared.add(expr.clone(), over.schema)?;
        over.texts.entry(value).or_insert(text);
        let key = over.prepared.add(comparable(expr, over.schema)?, over.schema)?;
        if !keys.contains(&key) {
            keys.push(key);
            shown.push(value);
        }
    }
    Ok((keys, shown))
}

/// The order of rows; its first column is the first of the prepared ones.
fn order(
    (by, span): (&[OrderByExpr], Option<Span>),
    over: &mut Over<'_>,
    context: &mut dyn RelationPlannerContext,
) -> Result<Vec<(usize, SortOptions)>> {
    if by.is_empty() {
        let e = Error::sql("MATCH_RECOGNIZE needs an ORDER BY: a pattern matches rows in an order");
        return Err(error(
            e.with_hint("Write ORDER BY and the event time after PARTITION BY."),
            span,
        ));
    }
    let mut order = vec![];
    for OrderByExpr { expr, options, .. } in by {
        let text = over.text(expr);
        let expr = comparable(standing_alone(expr.clone(), over.schema, context)?, over.schema)?;
        let descending = options.asc == Some(false);
        // As in ORDER BY, NULL is the greatest.
        let nulls_first = options.nulls_first.unwrap_or(descending);
        let index = over.prepared.add(expr, over.schema)?;
        over.texts.entry(index).or_insert(text);
        order.push((index, SortOptions { descending, nulls_first }));
    }
    Ok(order)
}

/// Plans an expression over the columns of a single row.
fn standing_alone(
    expr: ast::Expr,
    schema: &DFSchema,
    context: &mut dyn RelationPlannerContext,
) -> Result<Expr> {
    let expr = context.sql_to_expr(expr, schema)?;
    let config = Arc::new(context.context_provider().options().clone());
    coerced(expr, schema, &config)
}

/// The expression for comparisons, with one zero and one NaN.
fn comparable(mut expr: Expr, schema: &DFSchema) -> Result<Expr> {
    canonical_in_place(&mut expr, schema)?;
    Ok(expr)
}

/// Refuses CLASSIFIER of another variable in a condition.
fn check_classifiers(planned: &Planned, variable: usize, name: &Ident) -> Result<()> {
    let own = u32::try_from(variable).ok().and_then(|at| 1_u64.checked_shl(at)).unwrap_or(0);
    for slot in &planned.slots {
        if let Draft::Classifier(Some(of)) = slot.what
            && of & own == 0
        {
            let e = Error::sql("CLASSIFIER of another variable is not allowed in DEFINE");
            let hint =
                "Use it in MEASURES, or test the variable's columns: LAST(a.price) IS NOT NULL.";
            return Err(error(e.with_hint(hint), Some(name.span)));
        }
    }
    Ok(())
}

fn within(
    expr: ast::Expr,
    prepared: &Prepared,
    context: &mut dyn RelationPlannerContext,
) -> Result<i64> {
    let span = expr.span();
    let Some(clock) = prepared.types.first().and_then(interval::clock) else {
        let e = Error::sql("WITHIN needs rows that are ordered by a timestamp");
        return Err(error(e.with_hint("Order by the event time first."), Some(span)));
    };
    let ticks = match context.sql_to_expr(expr, &DFSchema::empty())? {
        Expr::Literal(value, _) => interval::constant(&value, clock),
        _ => None,
    };
    ticks.filter(|ticks| *ticks > 0).ok_or_else(|| {
        let e = Error::sql("WITHIN takes a fixed, positive length of time");
        error(
            e.with_hint("Write WITHIN INTERVAL '1' HOUR; months have no fixed length."),
            Some(span),
        )
    })
}

/// Takes the definitions apart.
fn said(symbols: Vec<SymbolDefinition>) -> Result<Said> {
    let mut said = Said::default();
    let (mut subsets, mut skip, mut defined) = (vec![], None, vec![]);
    for SymbolDefinition { symbol, definition } in symbols {
        match (symbol.value.as_str(), definition) {
            (marks::PATTERN, definition) => {
                said.span = Some(symbol.span);
                let pattern = pattern(&definition, &mut said.variables)?;
                if pattern.lengths().0 == 0 {
                    let e = Error::sql("the pattern can match no rows at all");
                    let hint = "Require one of its variables: a+ instead of a*.";
                    return Err(error(e.with_hint(hint), Some(symbol.span)));
                }
                said.pattern = Some(pattern);
            }
            (marks::SKIP, definition) => skip = Some(definition),
            (marks::WITHIN, definition) => said.within = Some(definition),
            (marks::SUBSET, definition) => subsets.push(definition),
            (_, definition) => defined.push((symbol, definition)),
        }
    }
    for subset in subsets {
        let Some((_, parts)) = marked(&subset) else { continue };
        let mut names = parts.iter().filter_map(|part| ident(part));
        let Some(name) = names.next() else { continue };
        let mut all = 0;
        for part in names {
            all |= said.variables.named(part)?;
        }
        if said.variables.find(name).is_some() {
            let e = Error::sql(format!("\"{}\" of SUBSET is a variable already", name.value));
            return Err(error(e.with_hint("Give the subset another name."), Some(name.span)));
        }
        said.variables.subsets.push((name.clone(), all));
    }
    if let Some((name, parts)) = skip.as_ref().and_then(marked) {
        let target = || match parts.first().and_then(|part| ident(part)) {
            Some(name) => said.variables.named(name),
            None => Err(error(Error::internal("AFTER MATCH SKIP goes nowhere"), None)),
        };
        said.skip = Some(match name {
            marks::TO_NEXT_ROW => Skip::ToNextRow,
            marks::TO_FIRST => Skip::ToFirst(target()?),
            marks::TO_LAST => Skip::ToLast(target()?),
            _ => Skip::PastLastRow,
        });
    }
    said.conditions.resize_with(said.variables.names.len(), || None);
    for (name, condition) in defined {
        let wanted = folded(&name);
        let at = said.variables.names.iter().position(|known| folded(known) == wanted);
        let Some(slot) = at.and_then(|at| said.conditions.get_mut(at)) else {
            said.variables.named(&name)?;
            let e = Error::sql(format!("\"{}\" of DEFINE is a SUBSET", name.value));
            return Err(error(e.with_hint("Define its variables."), Some(name.span)));
        };
        if slot.is_some() {
            let e = Error::sql(format!("\"{}\" is defined twice", name.value));
            return Err(error(
                e.with_hint("Put the conditions together with AND."),
                Some(name.span),
            ));
        }
        *slot = Some((name, condition));
    }
    Ok(said)
}

/// The name and the arguments of a call that the parser has generated.
fn marked(expr: &ast::Expr) -> Option<(&str, Vec<&ast::Expr>)> {
    let ast::Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = expr
    else {
        return None;
    };
    let [part] = name.0.as_slice() else { return None };
    let name = part.as_ident()?.value.as_str();
    let args = list.args.iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    Some((name, args.collect()))
}

fn ident(expr: &ast::Expr) -> Option<&Ident> {
    match expr {
        ast::Expr::Identifier(name) => Some(name),
        _ => None,
    }
}

fn number(expr: &ast::Expr) -> Option<u32> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// A pattern, whose variables are numbered in the order of their first occurrence.
fn pattern(expr: &ast::Expr, variables: &mut Variables) -> Result<Pattern> {
    if let Some(name) = ident(expr) {
        return variable(name, variables);
    }
    let lost = || error(Error::internal("a pattern has been lost"), None);
    let (mark, parts) = marked(expr).ok_or_else(lost)?;
    let mut all = |parts: &[&ast::Expr]| {
        parts.iter().map(|part| pattern(part, variables)).collect::<Result<Vec<_>>>()
    };
    Ok(match (mark, parts.as_slice()) {
        (marks::SEQUENCE, parts) => Pattern::Sequence(all(parts)?),
        (marks::CHOICE, parts) => Pattern::Choice(all(parts)?),
        (marks::PERMUTE, parts) => permuted(&all(parts)?)?,
        (marks::HIDDEN, [part]) => hidden(pattern(part, variables)?),
        (marks::REPEAT, [part, least, most, greedy]) => Pattern::Repeat {
            pattern: Box::new(pattern(part, variables)?),
            least: number(least).ok_or_else(lost)?,
            most: number(most),
            greedy: !matches!(greedy, ast::Expr::Value(value) if value.value == Value::Boolean(false)),
        },
        _ => return Err(lost()),
    })
}

fn variable(name: &Ident, variables: &mut Variables) -> Result<Pattern> {
    let wanted = folded(name);
    let known = variables.names.iter().position(|known| folded(known) == wanted);
    let variable = known.unwrap_or(variables.names.len());
    if known.is_none() {
        if variables.names.len() >= VARIABLES_MAX {
            let e = Error::sql(format!("the pattern has more than {VARIABLES_MAX} variables"));
            return Err(error(e.with_hint("Use one variable in several places."), Some(name.span)));
        }
        if name.value.starts_with('$') {
            let e = Error::sql(format!("the variable \"{}\" begins with $", name.value));
            return Err(error(e.with_hint("Use another name."), Some(name.span)));
        }
        variables.names.push(name.clone());
    }
    Ok(Pattern::Variable { variable, shown: true })
}

/// The pattern, with its rows excluded from the output.
fn hidden(pattern: Pattern) -> Pattern {
    match pattern {
        Pattern::Variable { variable, .. } => Pattern::Variable { variable, shown: false },
        Pattern::Sequence(parts) => Pattern::Sequence(parts.into_iter().map(hidden).collect()),
        Pattern::Choice(parts) => Pattern::Choice(parts.into_iter().map(hidden).collect()),
        Pattern::Repeat { pattern, least, most, greedy } => {
            Pattern::Repeat { pattern: Box::new(hidden(*pattern)), least, most, greedy }
        }
    }
}

/// The most parts of PERMUTE: all their orders are expanded.
const PERMUTED_MAX: usize = 6;

/// The parts in each order, beginning with the one in which they are written.
fn permuted(parts: &[Pattern]) -> Result<Pattern> {
    if parts.len() > PERMUTED_MAX {
        let e = Error::sql(format!("PERMUTE has more than {PERMUTED_MAX} parts"));
        return Err(error(e.with_hint("Use fewer, or write the orders that matter with |."), None));
    }
    let mut orders: Vec<Vec<usize>> = vec![vec![]];
    for _ in 0..parts.len() {
        let longer = orders.iter().flat_map(|order| {
            let free = (0..parts.len()).filter(|part| !order.contains(part));
            free.map(|part| order.iter().copied().chain([part]).collect())
        });
        orders = longer.collect();
    }
    let order = |order: Vec<usize>| {
        Pattern::Sequence(order.into_iter().filter_map(|at| parts.get(at).cloned()).collect())
    };
    Ok(Pattern::Choice(orders.into_iter().map(order).collect()))
}
