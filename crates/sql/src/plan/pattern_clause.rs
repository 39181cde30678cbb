//! `FROM t MATCH_RECOGNIZE (…)`: from the syntax tree to a [`RowPattern`].
//!
//! What the parser underneath does not read comes as definitions of variables that no text can name
//! ([`crate::parse::row_pattern`]).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::create_physical_expr;
use sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, OrderByExpr,
    RowsPerMatch, Spanned, SymbolDefinition, TableFactor, Value,
};
use windrow_core::Error;
use windrow_operators::{
    AggregateCall, Condition, Formula, Output, Pattern, PatternPlan, PatternSpec, Read, RowOf,
    Skip, Slot, VARIABLES_MAX,
};

use super::interval;
use super::pattern::{Clause, RowPattern, TimeOf};
use super::pattern_slots::{
    Draft, Planned, Prepared, SlotDraft, Slots, Variables, boolean, folded, slot_schema,
};
use super::tvf::error;
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

/// The subquery that the parser has made a function, or what it is otherwise.
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

/// What the parser underneath has read.
struct Given {
    partition_by: Vec<ast::Expr>,
    order_by: Vec<OrderByExpr>,
    measures: Vec<ast::Measure>,
    all_rows: bool,
}

/// What the definitions say.
#[derive(Default)]
struct Said {
    pattern: Option<Pattern>,
    variables: Variables,
    skip: Option<Skip>,
    within: Option<ast::Expr>,
    /// By variable.
    conditions: Vec<Option<(Ident, ast::Expr)>>,
}

/// What a column of the result is.
enum OutputDraft {
    Column(usize),
    Measure(Planned),
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
    let order = order(&given.order_by, &schema, &mut prepared, context)?;
    let mut keys = vec![];
    for key in given.partition_by {
        let expr = context.sql_to_expr(key, &schema)?;
        let index = prepared.add(expr, &schema)?;
        if !keys.contains(&index) {
            keys.push(index);
        }
    }
    let mut own: Vec<usize> = keys.clone();
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
    let mut conditions = vec![];
    for condition in said.conditions {
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
    (slots.measures, slots.is_final) = (true, !given.all_rows);
    let mut measures = vec![];
    for ast::Measure { expr, alias } in given.measures {
        let name = slots.context.normalize_ident(alias);
        measures.push((name, slots.plan(expr)?));
    }
    let name = |index: &usize| {
        let name = prepared.exprs.get(*index).map(|expr| match expr {
            Expr::Column(column) => column.name.clone(),
            other => other.schema_name().to_string(),
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
    };
    drafts.build(input)
}

/// The order of rows; its first column comes first among those that are prepared.
fn order(
    by: &[OrderByExpr],
    schema: &DFSchema,
    prepared: &mut Prepared,
    context: &mut dyn RelationPlannerContext,
) -> Result<Vec<(usize, SortOptions)>> {
    if by.is_empty() {
        let e =
            Error::sql("MATCH_RECOGNIZE needs an ORDER BY: a pattern goes over rows in an order");
        return Err(error(
            e.with_hint("Write ORDER BY and the event time behind PARTITION BY."),
            None,
        ));
    }
    let mut order = vec![];
    for OrderByExpr { expr, options, .. } in by {
        let expr = context.sql_to_expr(expr.clone(), schema)?;
        let descending = options.asc == Some(false);
        // As in ORDER BY: NULL is the greatest.
        let nulls_first = options.nulls_first.unwrap_or(descending);
        order.push((prepared.add(expr, schema)?, SortOptions { descending, nulls_first }));
    }
    Ok(order)
}

/// A condition knows the name of its own variable alone.
fn check_classifiers(planned: &Planned, variable: usize, name: &Ident) -> Result<()> {
    let own = u32::try_from(variable).ok().and_then(|at| 1_u64.checked_shl(at)).unwrap_or(0);
    for slot in &planned.slots {
        if let Draft::Classifier(Some(of)) = slot.what
            && of & own == 0
        {
            let e = Error::sql("CLASSIFIER of another variable stands in DEFINE");
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
                let pattern = pattern(&definition, &mut said.variables)?;
                if pattern.lengths().0 == 0 {
                    let e = Error::sql("the pattern can match no rows at all");
                    let hint = "Make a variable of it necessary: a+ instead of a*.";
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

/// The name and the arguments of a call that the parser has made.
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

/// A pattern, whose variables get numbers in the order in which they stand.
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
        (marks::PERMUTE, parts) => permuted(all(parts)?)?,
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

/// The pattern, whose rows are not shown.
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

/// Parts of PERMUTE at most: their orders are written out.
const PERMUTED_MAX: usize = 6;

/// The parts in each order, the one in which they stand first.
fn permuted(parts: Vec<Pattern>) -> Result<Pattern> {
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

/// A clause with everything planned, to be compiled.
struct Drafts {
    prepared: Prepared,
    keys: Vec<usize>,
    order: Vec<(usize, SortOptions)>,
    pattern: Pattern,
    names: Vec<Ident>,
    conditions: Vec<Option<Planned>>,
    outputs: Vec<(String, OutputDraft)>,
    all_rows: bool,
    skip: Skip,
    within: Option<i64>,
}

impl Drafts {
    fn build(self, input: LogicalPlan) -> Result<LogicalPlan> {
        let fields = self.prepared.types.iter().enumerate();
        let fields = fields.map(|(i, of)| Field::new(RowPattern::name(i), of.clone(), true));
        let columns: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let text = self.text();
        let mut conditions = vec![];
        for (variable, planned) in self.conditions.into_iter().enumerate() {
            let own = u32::try_from(variable).ok().and_then(|at| 1_u64.checked_shl(at));
            conditions.push(match planned {
                Some(planned) => condition(planned, own.unwrap_or(0), &columns)?,
                None => Condition::default(),
            });
        }
        let (mut outputs, mut fields, mut times) = (vec![], vec![], vec![]);
        for (at, (name, output)) in self.outputs.into_iter().enumerate() {
            if let Some(is_last) = time_of(&output, self.all_rows) {
                times.push(TimeOf { column: at, is_last });
            }
            outputs.push(match output {
                OutputDraft::Column(column) => Output::Column(column),
                OutputDraft::Measure(planned) => Output::Measure(formula(planned, &columns)?),
            });
            fields.push(name);
        }
        let plan = PatternPlan {
            input: columns,
            keys: self.keys,
            order: self.order,
            pattern: self.pattern,
            names: self.names.into_iter().map(|name| name.value).collect(),
            conditions,
            outputs,
            all_rows: self.all_rows,
            skip: self.skip,
            within: self.within,
        };
        let spec = PatternSpec::try_new(plan).map_err(|e| error(e, None))?;
        let types = windrow_operators::StatefulOperator::output_schema(&spec).fields().iter();
        let fields = fields.into_iter().zip(types);
        let fields: Vec<Field> =
            fields.map(|(name, of)| Field::new(name, of.data_type().clone(), true)).collect();
        for (at, field) in fields.iter().enumerate() {
            if fields.iter().take(at).any(|before| before.name() == field.name()) {
                let e = Error::sql(format!(
                    "two columns of MATCH_RECOGNIZE are named \"{}\"",
                    field.name()
                ));
                return Err(error(e.with_hint("Give the measure another name."), None));
            }
        }
        let schema = DFSchema::from_unqualified_fields(fields.into(), HashMap::new())?;
        let clause = Clause { spec, types: self.prepared.types, times, text };
        let (clause, schema) = (Arc::new(clause), Arc::new(schema));
        Ok(RowPattern::new(input, self.prepared.exprs, clause, schema).into_plan())
    }

    /// All that tells clauses apart, but what is prepared.
    fn text(&self) -> String {
        let Self {
            keys, order, pattern, names, conditions, outputs, all_rows, skip, within, ..
        } = self;
        let planned = |p: &Planned| format!("{:?} {:?}", p.expr, p.slots);
        let conditions: Vec<_> =
            conditions.iter().map(|condition| condition.as_ref().map(planned)).collect();
        let outputs = outputs.iter().map(|(name, output)| match output {
            OutputDraft::Column(column) => format!("{name} {column}"),
            OutputDraft::Measure(measure) => format!("{name} {}", planned(measure)),
        });
        let outputs: Vec<_> = outputs.collect();
        let names: Vec<_> = names.iter().map(|name| &name.value).collect();
        format!(
            "{keys:?} {order:?} {pattern:?} {names:?} {conditions:?} {outputs:?} {all_rows} {skip:?} {within:?}"
        )
    }
}

/// Whether a column of the result is the time of a row: of the last one, or of any.
fn time_of(output: &OutputDraft, all_rows: bool) -> Option<bool> {
    let measure = match output {
        OutputDraft::Column(column) => return (all_rows && *column == 0).then_some(false),
        OutputDraft::Measure(measure) => measure,
    };
    let (Expr::Column(_), [slot]) = (&measure.expr, measure.slots.as_slice()) else { return None };
    match slot.what {
        Draft::Value { row, column: 0 } if row == RowOf::LAST => Some(!all_rows),
        Draft::Value { row, column: 0 } if row == (RowOf { first: true, ..RowOf::LAST }) => {
            Some(false)
        }
        _ => None,
    }
}

/// The condition of a variable, divided into what depends on the row and its neighbours and what on the match.
fn condition(planned: Planned, own: u64, columns: &SchemaRef) -> Result<Condition> {
    let of_row = |part: &&Expr| {
        part.column_refs().iter().all(|column| {
            let slot = slot_of(column).and_then(|at| planned.slots.get(at));
            slot.is_some_and(|slot| match slot.what {
                Draft::Value { row, .. } => row.is_current(own),
                _ => false,
            })
        })
    };
    let parts = split_conjunction(&planned.expr);
    let (rows, history): (Vec<&Expr>, Vec<&Expr>) = parts.into_iter().partition(of_row);
    let formula = |parts: Vec<&Expr>| {
        let expr = conjunction(parts.into_iter().cloned());
        expr.map(|expr| formula(only_read(expr, &planned.slots)?, columns)).transpose()
    };
    Ok(Condition { row: formula(rows)?, history: formula(history)? })
}

/// The number of the slot that a column is.
fn slot_of(column: &Column) -> Option<usize> {
    column.name.strip_prefix('$')?.parse().ok()
}

/// An expression with no more slots than it reads.
fn only_read(expr: Expr, slots: &[SlotDraft]) -> Result<Planned> {
    let mut read: Vec<usize> = expr.column_refs().into_iter().filter_map(slot_of).collect();
    read.sort_unstable();
    read.dedup();
    let expr = expr.transform_up(|expr| match &expr {
        Expr::Column(column) => {
            let at = slot_of(column).and_then(|at| read.iter().position(|slot| *slot == at));
            Ok(match at {
                Some(at) => {
                    Transformed::yes(Expr::Column(Column::new_unqualified(format!("${at}"))))
                }
                None => Transformed::no(expr),
            })
        }
        _ => Ok(Transformed::no(expr)),
    });
    let slots = read.iter().filter_map(|at| slots.get(*at).cloned()).collect();
    Ok(Planned { expr: expr.data()?, slots })
}

/// Compiles an expression; `columns`: those that are prepared.
fn formula(planned: Planned, columns: &SchemaRef) -> Result<Formula> {
    let schema = slot_schema(&planned.slots)?;
    let (props, planning) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let expr = create_physical_expr(&planned.expr, &schema, &props, &planning)?;
    let prepared = DFSchema::try_from(Arc::clone(columns))?;
    let mut reads = vec![];
    for SlotDraft { what, is_final, data_type } in planned.slots {
        let slot = match what {
            Draft::Value { row, column } => Slot::Value { row, column },
            Draft::Aggregate { variables, call, arguments, filter } => {
                let lowered =
                    LoweredAggregateBuilder::new(&call, &prepared, columns, &props, &planning)
                        .with_name("m")
                        .build()?;
                let function = Arc::clone(&lowered.aggregate);
                Slot::Aggregate { variables, call: AggregateCall { function, arguments, filter } }
            }
            Draft::Classifier(of) => Slot::Classifier(of),
            Draft::MatchNumber => Slot::MatchNumber,
        };
        reads.push(Read { slot, is_final, data_type });
    }
    Ok(Formula::new(expr, reads))
}
