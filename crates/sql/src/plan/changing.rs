//! Updating results: `EMIT CHANGES` over an aggregate without windows, and over several operators.
//!
//! ```text
//! filters, projections ◄─ changes ─ aggregate over all rows so far ◄─ anything append-only
//!                         changes ─ circuit ◄─ anything append-only, several times
//! ```
//! Above the aggregate, changes pass through filters and projections row by row ([`Stage::traced_finish`]). Its input is
//! append-only: streams, their joins with tables, closed windows. Whatever has more than that runs as a circuit
//! ([`super::circuit`]).
//!
//! Invariant: a clause that cannot process changes is refused by name, with an alternative.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, TableReference};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use windrow_core::{Error, change};
use windrow_operators::ChangingSpec;

use super::aggregate::{Call, Prepared, calls, grouping, operator_column};
use super::bounded::named;
use super::circuit::{Builder, Circuit};
use super::flow::{Leaf, OperatorNode, RowChanges, Stage};
use super::hoist::at_leaf;
use super::shape::{Kind, kind, refused};
use super::split::{Operators, Splitter, is_row_wise, scan};
use super::{circuit_recompute, is_streaming, lineage};
use crate::leaf::LeafTable;
use crate::parse::Tail;

/// How a query with `EMIT CHANGES` runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As with any other EMIT: its rows are final.
    Final,
    /// An aggregate without windows over append-only rows, with nothing but filters and projections above it.
    Aggregate,
    /// Several operators over changing rows.
    Circuit,
}

/// How `plan` runs with `EMIT CHANGES`.
pub(crate) fn form(plan: &LogicalPlan) -> Form {
    if kind(plan).is_ok() || !is_streaming(plan) {
        return Form::Final;
    }
    if is_aggregate(plan) { Form::Aggregate } else { Form::Circuit }
}

#[recursive::recursive]
fn is_aggregate(plan: &LogicalPlan) -> bool {
    match plan {
        _ if has_streaming_subquery(plan) => false,
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().is_some_and(|input| is_aggregate(input))
        }
        LogicalPlan::Aggregate(aggregate) => {
            kind(plan).is_err()
                && !circuit_recompute::is_ordered(aggregate)
                && matches!(kind(&aggregate.input), Ok(Kind::Rows { .. } | Kind::Windows))
        }
        _ => false,
    }
}

/// Whether an expression of this node reads a stream.
fn has_streaming_subquery(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let looked = plan.apply_subqueries(|subquery| {
        found |= is_streaming(subquery);
        Ok(TreeNodeRecursion::Jump)
    });
    found || looked.is_err()
}

/// An aggregate over prepared rows.
pub(super) struct Grouped {
    /// The projection that prepares the rows of its input.
    pub(super) prepare: LogicalPlan,
    pub(super) spec: ChangingSpec,
    /// Its columns, in terms of those of the operator.
    pub(super) outputs: Vec<Expr>,
}

/// The columns of a changelog of rows with these columns.
///
/// # Errors
/// When one of them has the name of the change column.
pub(crate) fn with_changes(schema: &Schema) -> Result<SchemaRef, Error> {
    if schema.column_with_name(change::COLUMN).is_some() {
        let e = format!(
            "a column is named \"{}\", like the column that says how each row changes",
            change::COLUMN
        );
        return Err(Error::sql(e).with_hint("Give it another name with AS."));
    }
    let fields = [Arc::new(change::field())].into_iter().chain(schema.fields().iter().cloned());
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

impl Splitter<'_> {
    /// `plan` of the form [`Form::Aggregate`], as an operator with a finish plan over its changes.
    pub(super) fn changing_stage(&mut self, plan: &LogicalPlan, tail: &Tail) -> Result<Stage> {
        let mut operators = Operators::default();
        let mut changes = RowChanges::Retracting;
        let finish = self.above_changing(plan, plan, (&mut operators, &mut changes))?;
        let finish = self.optimize(finish)?;
        if !is_row_wise(&finish) {
            return Err(refused(
                Error::sql("HAVING with a subquery cannot take the changes of an aggregate without windows")
                    .with_hint("Compare with a literal, or filter the rows below GROUP BY."),
            ));
        }
        check_lateness(&operators.nodes, tail)?;
        let operators = operators.nodes;
        Ok(Stage { operators, finish, row_wise: true, keeps_order: true, changes: Some(changes) })
    }

    /// `plan`, which runs as a circuit, as an operator whose changes are the result.
    pub(super) fn circuit_stage(&mut self, plan: &LogicalPlan, tail: &Tail) -> Result<Stage> {
        let Circuit { spec, inputs, grows, key } = Builder::circuit(self, plan)?;
        let leaf = self.next_leaf();
        let name = TableReference::bare(leaf.to_string());
        let answer = Arc::clone(spec.answer_schema().map_err(refused)?);
        let columns = plan.schema().iter().enumerate().map(|(i, (qualifier, field))| {
            let column = Expr::Column(Column::new(Some(name.clone()), format!("c{i}")));
            named(column, qualifier.cloned(), field.name())
        });
        let columns: Vec<Expr> = columns.collect();
        let finish = scan(name.clone(), LeafTable::new(leaf, answer))?.project(columns)?.build()?;
        let finish = self.optimize(finish)?;
        let operators = vec![OperatorNode { leaf, operator: Arc::new(spec), inputs }];
        check_lateness(&operators, tail)?;
        let changes = match (grows, key) {
            (true, _) => RowChanges::AppendOnly,
            (false, Some(key)) => RowChanges::Upsert { key },
            (false, None) => RowChanges::Retracting,
        };
        Ok(Stage { operators, finish, row_wise: true, keeps_order: true, changes: Some(changes) })
    }

    /// Replaces the aggregate with a leaf, and determines the kind of changelog of `root`.
    #[recursive::recursive]
    fn above_changing(
        &mut self,
        plan: &LogicalPlan,
        root: &LogicalPlan,
        (operators, changes): (&mut Operators, &mut RowChanges),
    ) -> Result<LogicalPlan> {
        if let LogicalPlan::Aggregate(aggregate) = plan {
            let spec = self.changing_aggregate(aggregate, plan.schema(), operators)?;
            let keys = plan.schema().fields().len() - aggregate.aggr_expr.len();
            *changes = match (spec.1, key(root, keys)) {
                (true, _) => RowChanges::AppendOnly,
                (false, Some(key)) => RowChanges::Upsert { key },
                (false, None) => RowChanges::Retracting,
            };
            return Ok(spec.0);
        }
        plan.clone()
            .map_children(|input| {
                self.above_changing(&input, root, (&mut *operators, &mut *changes))
                    .map(Transformed::yes)
            })
            .data()?
            .recompute_schema()
    }

    /// Plans an aggregate as an operator; returns the plan of its leaf, with the aggregate's columns, and whether its rows
    /// are append-only.
    fn changing_aggregate(
        &mut self,
        aggregate: &Aggregate,
        schema: &DFSchema,
        operators: &mut Operators,
    ) -> Result<(LogicalPlan, bool)> {
        let Grouped { prepare, spec, outputs } = self.grouped(aggregate)?;
        let input = self.operator_input(&prepare, 0, arrow::datatypes::TimeUnit::Microsecond)?;
        let leaf = self.next_leaf();
        let (answer, is_append_only) = (Arc::clone(spec.answer_schema()), spec.is_append_only());
        operators.nodes.push(OperatorNode { leaf, operator: Arc::new(spec), inputs: vec![input] });
        let name = TableReference::bare(leaf.to_string());
        let mut exprs = Vec::with_capacity(outputs.len());
        for (expr, (qualifier, field)) in outputs.into_iter().zip(schema.iter()) {
            exprs.push(named(at_leaf(expr, &name)?, qualifier.cloned(), field.name()));
        }
        let plan = scan(name, LeafTable::new(leaf, answer))?.project(exprs)?.build()?;
        Ok((plan, is_append_only))
    }

    /// Plans an aggregate over all rows.
    pub(super) fn grouped(&self, aggregate: &Aggregate) -> Result<Grouped> {
        let mut prepared = Prepared::without_time();
        let group_exprs: Vec<Expr> =
            grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
        let (mut outputs, mut keys, mut key_of_group) = (vec![], vec![], vec![]);
        for expr in &group_exprs {
            let column = prepared.add(expr.clone());
            let key = keys.iter().position(|k| *k == column).unwrap_or_else(|| {
                keys.push(column);
                keys.len() - 1
            });
            key_of_group.push(Some(key));
            outputs.push(operator_column(Prepared::name(column)));
        }
        let mut grouping_sets = None;
        if let Some(sets) = lineage::grouping_sets(aggregate) {
            let found = grouping(&sets, &group_exprs, &key_of_group, keys.len())?;
            let (masks, id) = found
                .ok_or_else(|| refused(Error::internal("grouping sets without their keys")))?;
            grouping_sets = Some(masks);
            outputs.push(id);
        }
        let row = |expr: &Expr| Ok(Some(expr.clone()));
        let Some(calls) = calls(aggregate, &row, &mut prepared)? else {
            return Err(refused(
                Error::sql("ORDER BY inside an aggregate needs all rows, so that it cannot run without windows")
                    .with_hint("Use max_by(value, time) or min_by(value, time) for the last or first value."),
            ));
        };
        outputs.extend((0..calls.len()).map(|i| operator_column(format!("a{i}"))));
        let prepare = prepared.plan(aggregate.input.as_ref().clone())?;
        let build =
            |(i, call): (usize, Call)| call.build(self.state(), prepare.schema(), &format!("a{i}"));
        let aggregates = calls.into_iter().enumerate().map(build).collect::<Result<_>>()?;
        let columns = Arc::new(prepare.schema().as_arrow().clone());
        let spec =
            ChangingSpec::try_new(columns, keys, grouping_sets, aggregates).map_err(refused)?;
        Ok(Grouped { prepare, spec, outputs })
    }
}

/// Refuses clauses for late rows where no row is late.
fn check_lateness(operators: &[OperatorNode], tail: &Tail) -> Result<()> {
    let leaves = operators.iter().flat_map(|node| &node.inputs);
    let on_time = leaves.flat_map(|input| &input.flow.leaves).all(Leaf::is_stream);
    if on_time && (tail.lateness.is_some() || tail.late_data_to.is_some()) {
        let e = Error::sql("no row is late for an updating result without windows").with_hint(
            "Leave ALLOW LATENESS and LATE DATA TO out: each row counts whenever it comes.",
        );
        return Err(refused(match tail.place {
            Some(place) => e.with_place(place),
            None => e,
        }));
    }
    Ok(())
}

/// The columns of `plan` that are the first `keys` columns of its aggregate; `None` when one of them is not among its
/// columns.
fn key(plan: &LogicalPlan, keys: usize) -> Option<Vec<usize>> {
    let columns = plan.schema().fields().len();
    let origins: Vec<Option<usize>> = (0..columns).map(|column| origin(plan, column)).collect();
    (0..keys).map(|key| origins.iter().position(|origin| *origin == Some(key))).collect()
}

/// The column of the underlying aggregate that `column` passes through unchanged.
pub(super) fn origin(plan: &LogicalPlan, column: usize) -> Option<usize> {
    match plan {
        LogicalPlan::Aggregate(_) => Some(column),
        LogicalPlan::Projection(projection) => {
            match projection.expr.get(column)?.clone().unalias() {
                Expr::Column(inner) => {
                    let index = projection.input.schema().maybe_index_of_column(&inner)?;
                    origin(&projection.input, index)
                }
                _ => None,
            }
        }
        _ => origin(plan.inputs().first()?, column),
    }
}
