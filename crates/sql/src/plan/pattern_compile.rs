//! The last step of planning MATCH_RECOGNIZE: compiles conditions and measures into physical expressions.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::create_physical_expr;
use sqlparser::ast::Ident;
use sqlparser::tokenizer::Span;
use windrow_core::Error;
use windrow_operators::{
    AggregateCall, Condition, Formula, Output, Pattern, PatternPlan, PatternSpec, Read, RowOf,
    Skip, Slot, StatefulOperator,
};

use super::pattern::{Clause, RowPattern, TimeOf};
use super::pattern_slots::{Draft, Planned, Prepared, SlotDraft, slot_schema};
use super::tvf::error;

/// The source of a column of the result.
pub(super) enum OutputDraft {
    Column(usize),
    Measure(Planned),
}

/// A clause in which everything is planned, to be compiled.
pub(super) struct Drafts {
    pub(super) prepared: Prepared,
    pub(super) keys: Vec<usize>,
    pub(super) order: Vec<(usize, SortOptions)>,
    pub(super) pattern: Pattern,
    pub(super) names: Vec<Ident>,
    pub(super) conditions: Vec<Option<Planned>>,
    pub(super) outputs: Vec<(String, OutputDraft)>,
    pub(super) all_rows: bool,
    pub(super) skip: Skip,
    pub(super) within: Option<i64>,
    pub(super) span: Option<Span>,
}

impl Drafts {
    /// The node over `input`.
    ///
    /// # Errors
    /// When the pattern has too many steps, or two columns of the result have the same name.
    pub(super) fn build(self, input: LogicalPlan) -> Result<LogicalPlan> {
        let fields = self.prepared.types.iter().enumerate();
        let fields = fields.map(|(i, of)| Field::new(RowPattern::name(i), of.clone(), true));
        let columns: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let text = self.text();
        let mut conditions = vec![];
        for (variable, planned) in self.conditions.into_iter().enumerate() {
            let own = u32::try_from(variable).ok().and_then(|at| 1_u64.checked_shl(at));
            conditions.push(match planned {
                Some(planned) => condition(&planned, own.unwrap_or(0), &columns)?,
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
        let spec = PatternSpec::try_new(plan).map_err(|e| error(e, self.span))?;
        let types = spec.output_schema().fields().iter();
        let fields = fields.into_iter().zip(types);
        let fields: Vec<Field> =
            fields.map(|(name, of)| Field::new(name, of.data_type().clone(), true)).collect();
        for (at, field) in fields.iter().enumerate() {
            if fields.iter().take(at).any(|before| before.name() == field.name()) {
                let e = Error::sql(format!(
                    "two columns of MATCH_RECOGNIZE are named \"{}\"",
                    field.name()
                ));
                return Err(error(e.with_hint("Give the measure another name."), self.span));
            }
        }
        let schema = DFSchema::from_unqualified_fields(fields.into(), HashMap::new())?;
        let clause = Clause { spec, types: self.prepared.types, times, text };
        let (clause, schema) = (Arc::new(clause), Arc::new(schema));
        Ok(RowPattern::new(input, self.prepared.exprs, clause, schema).into_plan())
    }

    /// Everything that distinguishes clauses, except the prepared columns.
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

/// Whether a column of the result is the time of a row: `Some(true)` for the last one, `Some(false)` for any.
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

/// The condition of a variable, split into a part over the row and its neighbours and a part over the match.
fn condition(planned: &Planned, own: u64, columns: &SchemaRef) -> Result<Condition> {
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

/// The number of the slot that a column stands for.
fn slot_of(column: &Column) -> Option<usize> {
    column.name.strip_prefix('$')?.parse().ok()
}

/// An expression with only those slots that it reads.
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

/// Compiles an expression over the prepared `columns`.
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
