//! From an interval join to an operator with two inputs.

use std::sync::Arc;

use datafusion::common::{Column, NullEquality, Result, TableReference, internal_err};
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use windrow_operators::{IntervalJoinSpec, JoinInput, StatefulOperator};

use super::aggregate::Prepared;
use super::bounded::named;
use super::flow::OperatorNode;
use super::interval::Interval;
use super::shape::refused;
use super::split::{Operators, Splitter, scan};
use crate::leaf::LeafTable;

impl Splitter<'_> {
    /// Adds an interval join to a stage; returns its pairs under the names of the join.
    pub(super) fn interval_join(
        &mut self,
        join: &Join,
        interval: Interval,
        operators: &mut Operators,
    ) -> Result<LogicalPlan> {
        let Interval { left, right, lower, upper, unit, filter } = interval;
        let (left_keys, right_keys): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        let mut inputs = vec![];
        let mut sides = vec![];
        for (plan, time, keys) in [(&join.left, left, left_keys), (&join.right, right, right_keys)]
        {
            let mut prepared = Prepared::new(time.column);
            let keys = keys.into_iter().map(|key| prepared.add(key)).collect();
            let columns = plan.schema().columns().into_iter();
            let columns: Vec<usize> = columns.map(|c| prepared.add(Expr::Column(c))).collect();
            let prepare = prepared.plan(plan.as_ref().clone())?;
            let schema = Arc::new(prepare.schema().as_arrow().clone());
            sides.push((JoinInput { schema, keys }, columns));
            inputs.push(self.operator_input(&prepare, time.lag_ticks, unit)?);
        }
        let (Some((right, right_columns)), Some((left, left_columns))) = (sides.pop(), sides.pop())
        else {
            return internal_err!("a join has two sides");
        };
        let null_equals = join.null_equality == NullEquality::NullEqualsNull;
        let spec = IntervalJoinSpec::try_new([left, right], (lower, upper), null_equals);
        let operator: Arc<dyn StatefulOperator> = Arc::new(spec.map_err(refused)?);
        let leaf = self.next_leaf();
        let name = TableReference::bare(leaf.to_string());
        let table = LeafTable::new(leaf, Arc::clone(operator.output_schema()));
        operators.nodes.push(OperatorNode { leaf, operator, inputs });
        operators.fingerprints.push(None);
        let places = left_columns.into_iter().map(|at| format!("l{at}"));
        let places = places.chain(right_columns.into_iter().map(|at| format!("r{at}")));
        let columns = places.zip(join.schema.iter()).map(|(place, (qualifier, field))| {
            let column = Expr::Column(Column::new(Some(name.clone()), place));
            named(column, qualifier.cloned(), field.name())
        });
        let pairs = scan(name.clone(), table)?.project(columns.collect::<Vec<_>>())?;
        match filter {
            Some(filter) => pairs.filter(filter)?.build(),
            None => pairs.build(),
        }
    }
}
