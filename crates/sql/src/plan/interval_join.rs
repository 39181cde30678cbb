//! Turns an interval join into an operator with two inputs.

use std::sync::Arc;

use arrow::datatypes::{Schema, TimeUnit};
use datafusion::common::{Column, DFSchema, NullEquality, Result, TableReference, internal_err};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_expr::create_physical_expr;
use windrow_operators::{IntervalJoinSpec, JoinFilter, JoinInput, JoinKind, StatefulOperator};

use super::aggregate::Prepared;
use super::bounded::named;
use super::flow::{OperatorInput, OperatorNode};
use super::interval::{self, Interval, Time};
use super::shape::refused;
use super::split::{Operators, Splitter, scan};
use crate::leaf::LeafTable;

/// The prepared inputs of a join.
pub(super) struct Sides {
    pub(super) inputs: [JoinInput; 2],
    pub(super) flows: [OperatorInput; 2],
    /// The indexes of each side's columns in its prepared input.
    pub(super) columns: [Vec<usize>; 2],
}

impl Splitter<'_> {
    /// Adds an interval join to a stage; returns its rows with the join's column names.
    pub(super) fn interval_join(
        &mut self,
        join: &Join,
        interval: Interval,
        operators: &mut Operators,
    ) -> Result<LogicalPlan> {
        let Some(kind) = interval::join_kind(join) else {
            return internal_err!("a join that cannot be decided row by row");
        };
        let Interval { left, right, lower, upper, unit, filter } = interval;
        let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        let left = self.join_input(&join.left, left, left_keys, unit)?;
        let right = self.join_input(&join.right, right, right_keys, unit)?;
        let sides = Sides::of(left, right);
        let null_equals = join.null_equality == NullEquality::NullEqualsNull;
        let spec = IntervalJoinSpec::try_new(sides.inputs, (lower, upper), null_equals);
        let mut spec = spec.map_err(refused)?.with_kind(kind);
        // Pairs are filtered when they are finished, unless it matters whether a row has matched.
        let mut above = filter;
        if kind != JoinKind::Inner
            && let Some(filter) = above.take()
        {
            let filter = self.join_filter(join, &filter, &sides.columns)?;
            spec = spec.with_filter(filter).map_err(refused)?;
        }
        let columns = returned(kind, &sides.columns);
        let rows = self.join_node(Arc::new(spec), sides.flows, operators)?;
        let columns = at_leaf(&rows, columns, &join.schema)?;
        let rows = rows.project(columns)?;
        match above {
            Some(filter) => rows.filter(filter)?.build(),
            None => rows.build(),
        }
    }

    /// Prepares one side of a join: its time, its keys, and all of its columns.
    pub(super) fn join_input(
        &mut self,
        plan: &LogicalPlan,
        time: Time,
        keys: Vec<Expr>,
        unit: TimeUnit,
    ) -> Result<(JoinInput, OperatorInput, Vec<usize>)> {
        let mut prepared = Prepared::new(time.column);
        let keys = keys.into_iter().map(|key| prepared.add(key)).collect();
        let columns = plan.schema().columns().into_iter();
        let columns: Vec<usize> = columns.map(|c| prepared.add(Expr::Column(c))).collect();
        let prepare = prepared.plan(plan.clone())?;
        let schema = Arc::new(prepare.schema().as_arrow().clone());
        let flow = self.operator_input(&prepare, time.lag_ticks, unit)?;
        Ok((JoinInput { schema, keys }, flow, columns))
    }

    /// Adds the operator of a join to a stage; returns its rows.
    pub(super) fn join_node(
        &mut self,
        operator: Arc<dyn StatefulOperator>,
        inputs: [OperatorInput; 2],
        operators: &mut Operators,
    ) -> Result<LogicalPlanBuilder> {
        let leaf = self.next_leaf();
        let name = TableReference::bare(leaf.to_string());
        let table = LeafTable::new(leaf, Arc::clone(operator.output_schema()));
        operators.nodes.push(OperatorNode { leaf, operator, inputs: inputs.into() });
        operators.fingerprints.push(None);
        scan(name, table)
    }

    /// A condition on pairs, for the operator.
    fn join_filter(
        &self,
        join: &Join,
        filter: &Expr,
        columns: &[Vec<usize>; 2],
    ) -> Result<JoinFilter> {
        let used = filter.column_refs();
        let mut fields = vec![];
        let mut read: [Vec<usize>; 2] = [vec![], vec![]];
        for ((plan, columns), read) in [&join.left, &join.right].iter().zip(columns).zip(&mut read)
        {
            for (place, (qualifier, field)) in columns.iter().zip(plan.schema().iter()) {
                if used.contains(&Column::from((qualifier, field))) {
                    fields.push((qualifier.cloned(), Arc::clone(field)));
                    read.push(*place);
                }
            }
        }
        let schema = DFSchema::new_with_metadata(fields, Default::default())?;
        let expr = create_physical_expr(
            filter,
            &schema,
            self.state.execution_props(),
            &PhysicalPlanningContext::default(),
        )?;
        let schema: Arc<Schema> = Arc::new(schema.as_arrow().clone());
        Ok(JoinFilter { expr, columns: read, schema })
    }
}

impl Sides {
    pub(super) fn of(
        left: (JoinInput, OperatorInput, Vec<usize>),
        right: (JoinInput, OperatorInput, Vec<usize>),
    ) -> Self {
        Self { inputs: [left.0, right.0], flows: [left.1, right.1], columns: [left.2, right.2] }
    }
}

/// The names of the operator's columns that a join of this kind returns.
pub(super) fn returned(kind: JoinKind, [left, right]: &[Vec<usize>; 2]) -> Vec<String> {
    let left = left.iter().map(|at| format!("l{at}"));
    let right = right.iter().map(|at| format!("r{at}"));
    match kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => left.collect(),
        JoinKind::RightSemi | JoinKind::RightAnti => right.collect(),
        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {
            left.chain(right).collect()
        }
    }
}

/// Columns of an operator's rows, renamed to those of `schema`.
pub(super) fn at_leaf(
    rows: &LogicalPlanBuilder,
    columns: Vec<String>,
    schema: &DFSchema,
) -> Result<Vec<Expr>> {
    let columns = columns.into_iter().zip(schema.iter());
    let named = columns.map(|(place, (qualifier, field))| {
        let column = rows.schema().qualified_field_with_unqualified_name(&place)?;
        Ok(named(Expr::Column(Column::from(column)), qualifier.cloned(), field.name()))
    });
    named.collect()
}
