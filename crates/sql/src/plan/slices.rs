//! The bounded form of overlapping windows, aggregated by slices.
//!
//! Lowered as in [`super::bounded()`], each row is repeated for every window that it belongs to, and then grouped. Rows
//! between two neighbouring bounds of windows belong to the same windows. So this rule groups these once, and repeats
//! the group (Li et al., *No Pane, No Gain*, 2005):
//!
//! ```text
//! AggregateExec: Partial, by [bounds, keys]         ProjectionExec: bounds of each end
//!   …                                                 UnnestExec: ends of windows of each slice
//!     UnnestExec: ends of windows of each row   =►      AggregateExec: Partial, by [slice, keys]
//!       rows                                              rows
//! ```
//!
//! Both return the states of groups in the same columns, and the nodes that merge the states are unchanged, so it works
//! for every aggregate function. It shares nothing with the window operator, which is tested against the bounded form.
//!
//! Where the groups have keys, and the end of the window is one of the group expressions, slices are distributed by the
//! keys before they are repeated, and groups are merged by their end alone instead of by all bounds:
//!
//! ```text
//! AggregateExec: FinalPartitioned, by [bounds, keys]     ProjectionExec: bounds of each end
//!   RepartitionExec: Hash([bounds, keys])                  AggregateExec: FinalPartitioned, by [end, keys]
//!     states, as above                               =►      UnnestExec: ends of windows of each slice
//!                                                              RepartitionExec: Hash([keys])
//!                                                                AggregateExec: Partial, by [slice, keys]
//! ```
//! Rows then leave the plan in other partitions than DataFusion has planned; so not below a node that relies on these.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{
    DataFusionError, Result, ScalarValue, UnnestOptions, internal_datafusion_err,
};
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{Distribution, Partitioning, PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_expr_common::physical_expr::is_volatile;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::unnest::{ListUnnest, UnnestExec};
use datafusion::physical_plan::{ChildrenPropertiesMode, ExecutionPlan, ReplaceChildrenOptions};

use super::bounds::{Bound, of_same_windows};

type PhysicalExprRef = Arc<dyn PhysicalExpr>;
type PlanRef = Arc<dyn ExecutionPlan>;

/// The column of slices, between the rows and their windows.
const SLICE: &str = "__window_slice";

/// Groups rows by slices before they are repeated, if the bounds of windows are used as groups only.
#[derive(Debug)]
pub(super) struct CountBySlices;

impl PhysicalOptimizerRule for CountBySlices {
    fn optimize(&self, plan: PlanRef, _: &ConfigOptions) -> Result<PlanRef> {
        distributed_by_keys(plan, true)?
            .transform_up(|node| {
                let sliced = match node.downcast_ref::<AggregateExec>() {
                    Some(aggregate) => by_slices(aggregate)?,
                    None => None,
                };
                Ok(sliced.map_or_else(|| Transformed::no(node), Transformed::yes))
            })
            .data()
    }

    fn name(&self) -> &'static str {
        "count_by_slices"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The plan with groups that are merged by their end and keys. `free`: nothing above relies on the partitions of its rows.
#[recursive::recursive]
fn distributed_by_keys(plan: PlanRef, free: bool) -> Result<PlanRef> {
    let merged = match plan.downcast_ref::<AggregateExec>() {
        Some(aggregate) if free => by_keys(aggregate)?,
        _ => None,
    };
    let plan = merged.unwrap_or(plan);
    let distributes = plan.downcast_ref::<RepartitionExec>().is_some()
        || plan.downcast_ref::<CoalescePartitionsExec>().is_some()
        || plan.downcast_ref::<SortPreservingMergeExec>().is_some();
    let inputs = plan.children();
    let required = plan.input_distribution_requirements();
    let passes_on = match required.child_distribution(0) {
        Some(Distribution::UnspecifiedDistribution | Distribution::SinglePartition) => {
            inputs.len() == 1
        }
        _ => false,
    };
    let free = distributes || (free && passes_on);
    let inputs = inputs.into_iter().map(|input| distributed_by_keys(Arc::clone(input), free));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let changed = inputs.iter().zip(plan.children()).any(|(new, old)| !Arc::ptr_eq(new, old));
    if !changed {
        return Ok(plan);
    }
    let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    plan.replace_children(inputs, recompute)
}

/// The same groups, merged by their end and keys; `None` if the aggregate does not have that shape.
fn by_keys(merge: &AggregateExec) -> Result<Option<PlanRef>> {
    let Some(distributed) = merge.input().downcast_ref::<RepartitionExec>() else {
        return Ok(None);
    };
    let Partitioning::Hash(_, partitions) = distributed.partitioning() else { return Ok(None) };
    let Some(partial) = distributed.input().downcast_ref::<AggregateExec>() else {
        return Ok(None);
    };
    let is_merge = *merge.mode() == AggregateMode::FinalPartitioned
        && *partial.mode() == AggregateMode::Partial
        && !distributed.preserve_order();
    if !is_merge || !is_plain(merge) || !is_plain(partial) {
        return Ok(None);
    }
    let Some(rows) = Rows::of(partial.input())? else { return Ok(None) };
    match Sliced::of(partial, rows)? {
        Some(sliced) if sliced.groups_by_end_and_keys() => {
            let merged = sliced.merged(merge, partial, *partitions)?;
            Ok(replaces(&merged.schema(), &merge.schema()).then_some(merged))
        }
        _ => Ok(None),
    }
}

/// Whether rows of `new` may stand where the plan has those of `old`: the same columns, except that fewer may be NULL.
fn replaces(new: &Schema, old: &Schema) -> bool {
    let fields = new.fields().iter().zip(old.fields());
    new.fields().len() == old.fields().len()
        && new.metadata() == old.metadata()
        && fields.into_iter().all(|(new, old)| {
            new.name() == old.name()
                && new.data_type() == old.data_type()
                && new.metadata() == old.metadata()
                && (old.is_nullable() || !new.is_nullable())
        })
}

/// Whether it has one set of groups, all of them are wanted, and no parent could rely on their order.
fn is_plain(aggregate: &AggregateExec) -> bool {
    let groups = aggregate.group_expr();
    groups.is_single()
        && !groups.is_empty()
        && aggregate.limit_options().is_none()
        && aggregate.properties().output_ordering().is_none()
}

/// The same groups by slices; `None` if the aggregate does not have that shape.
fn by_slices(aggregate: &AggregateExec) -> Result<Option<PlanRef>> {
    let last = match aggregate.mode() {
        AggregateMode::Partial => None,
        AggregateMode::Single => Some(AggregateMode::Final),
        AggregateMode::SinglePartitioned => Some(AggregateMode::FinalPartitioned),
        _ => return Ok(None),
    };
    // Repeated groups have no order that a parent could rely on.
    if !is_plain(aggregate) {
        return Ok(None);
    }
    let Some(rows) = Rows::of(aggregate.input())? else { return Ok(None) };
    let Some(sliced) = Sliced::of(aggregate, rows)? else { return Ok(None) };
    let states = sliced.states(aggregate)?;
    let Some(mode) = last else { return Ok(Some(states)) };
    let merged = AggregateExec::try_new(
        mode,
        aggregate.group_expr().as_final(),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        states,
        aggregate.input_schema(),
    )?;
    Ok(Some(Arc::new(merged)))
}

/// Rows that are repeated for each of their windows, and the nodes above that.
struct Rows {
    unnest: UnnestExec,
    /// The columns that are returned, over those of `unnest`.
    columns: Vec<PhysicalExprRef>,
    /// Conditions over the columns of `unnest`.
    conditions: Vec<PhysicalExprRef>,
    /// The number of partitions into which the rows are distributed.
    dealt: Option<usize>,
}

impl Rows {
    /// Reads a chain of projections and filters over an unnest.
    fn of(plan: &PlanRef) -> Result<Option<Self>> {
        if let Some(unnest) = plan.downcast_ref::<UnnestExec>() {
            let schema = unnest.schema();
            let fields = schema.fields().iter().enumerate();
            let columns =
                fields.map(|(at, field)| Arc::new(Column::new(field.name(), at)) as _).collect();
            return Ok(Some(Self {
                unnest: unnest.clone(),
                columns,
                conditions: vec![],
                dealt: None,
            }));
        }
        if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
            let Some(below) = Self::of(projection.input())? else { return Ok(None) };
            let columns = projection
                .expr()
                .iter()
                .map(|e| inlined(&e.expr, &below.columns))
                .collect::<Result<_>>()?;
            return Ok(Some(Self { columns, ..below }));
        }
        if let Some(filter) = plan.downcast_ref::<FilterExec>() {
            let Some(mut below) = Self::of(filter.input())? else { return Ok(None) };
            below.conditions.push(inlined(filter.predicate(), &below.columns)?);
            if let Some(kept) = filter.projection() {
                below.columns =
                    kept.iter().filter_map(|i| below.columns.get(*i).map(Arc::clone)).collect();
            }
            return Ok(filter.fetch().is_none().then_some(below));
        }
        if let Some(dealer) = plan.downcast_ref::<RepartitionExec>()
            && let Partitioning::RoundRobinBatch(count) = dealer.partitioning()
        {
            let below = Self::of(dealer.input())?;
            return Ok(below.map(|below| Self { dealt: Some(*count), ..below }));
        }
        Ok(None)
    }
}

/// What an expression over the columns of an unnest depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Columns of the row, or no columns.
    Row,
    /// The end of the window alone.
    End,
    Both,
}

impl Of {
    fn columns(expr: &PhysicalExprRef, end: usize) -> Self {
        let columns: HashSet<usize> = collect_columns(expr).iter().map(Column::index).collect();
        match (columns.contains(&end), columns.len()) {
            (false, _) => Self::Row,
            (true, 1) => Self::End,
            (true, _) => Self::Both,
        }
    }
}

/// An aggregate that can be computed by slices.
struct Sliced {
    rows: Rows,
    /// The rows before they are repeated; the column `end` holds the `ends` of their windows.
    before: ProjectionExec,
    ends: PhysicalExprRef,
    end: usize,
    /// The group expressions over the columns of the unnest.
    groups: Vec<(PhysicalExprRef, Of)>,
}

impl Sliced {
    fn of(aggregate: &AggregateExec, rows: Rows) -> Result<Option<Self>> {
        let [ListUnnest { index_in_input_schema: end, depth: 1 }] =
            *rows.unnest.list_column_indices()
        else {
            return Ok(None);
        };
        let before = rows.unnest.input().downcast_ref::<ProjectionExec>();
        let ends = before.and_then(|before| Some(Arc::clone(&before.expr().get(end)?.expr)));
        let (Some(before), Some(ends)) = (before, ends) else { return Ok(None) };
        if !is_ends(&ends) || !rows.unnest.struct_column_indices().is_empty() {
            return Ok(None);
        }
        let over_rows = |expr: &PhysicalExprRef| {
            let expr = inlined(expr, &rows.columns)?;
            let of = Of::columns(&expr, end);
            Ok((expr, of))
        };
        let by = aggregate.group_expr().expr().iter();
        let groups = by.map(|(expr, _)| over_rows(expr)).collect::<Result<Vec<_>>>()?;
        let mut divided = groups.iter().all(|(_, of)| *of != Of::Both)
            && rows.conditions.iter().all(|condition| Of::columns(condition, end) != Of::Both)
            && !rows.columns.iter().chain(&rows.conditions).any(is_volatile);
        for function in aggregate.aggr_expr() {
            let ordered = function.order_bys().iter().map(|by| Arc::clone(&by.expr));
            for argument in function.expressions().into_iter().chain(ordered) {
                divided &= over_rows(&argument)?.1 == Of::Row;
            }
        }
        for filter in aggregate.filter_expr().iter().flatten() {
            divided &= over_rows(filter)?.1 == Of::Row;
        }
        let before = before.clone();
        Ok(divided.then_some(Self { rows, before, ends, end, groups }))
    }

    /// Whether the end of the window is a group expression, so that other bounds add no groups, and there are others than
    /// bounds.
    fn groups_by_end_and_keys(&self) -> bool {
        let is_end = |expr: &PhysicalExprRef| {
            expr.downcast_ref::<Column>().is_some_and(|column| column.index() == self.end)
        };
        self.groups.iter().any(|(expr, _)| is_end(expr))
            && self
                .groups
                .iter()
                .any(|(expr, of)| *of == Of::Row && !collect_columns(expr).is_empty())
    }

    /// The groups of `merge`, of the states of `partial`, distributed into `partitions` by their keys.
    fn merged(
        &self,
        merge: &AggregateExec,
        partial: &AggregateExec,
        partitions: usize,
    ) -> Result<PlanRef> {
        let slices = self.slices(partial)?;
        let keys = self.groups.iter().filter(|(_, of)| *of == Of::Row).count();
        let schema = slices.schema();
        let column = |at: usize| -> (PhysicalExprRef, String) {
            let name = schema.field(at).name();
            (Arc::new(Column::new(name, at)), name.clone())
        };
        // The slice is followed by the keys, then by the states.
        let hash = Partitioning::Hash((1..=keys).map(|at| column(at).0).collect(), partitions);
        let slices = Arc::new(RepartitionExec::try_new(slices, hash)?);
        let groups = Arc::new(AggregateExec::try_new(
            AggregateMode::FinalPartitioned,
            PhysicalGroupBy::new_single((0..=keys).map(column).collect()),
            merge.aggr_expr().to_vec(),
            merge.filter_expr().to_vec(),
            self.ends_of(slices)?,
            merge.input_schema(),
        )?);
        self.with_bounds(groups, merge.group_expr())
    }

    /// The states of the groups, in the columns of a partial `aggregate`.
    fn states(&self, aggregate: &AggregateExec) -> Result<PlanRef> {
        let ends = self.ends_of(self.slices(aggregate)?)?;
        self.with_bounds(ends, aggregate.group_expr())
    }

    /// Each of the slices once for each of its windows that satisfies the conditions.
    fn ends_of(&self, slices: PlanRef) -> Result<PlanRef> {
        let (of_ends, _) = self.conditions();
        of_ends.into_iter().try_fold(self.repeated(slices)?, |plan, condition| {
            let condition = at_end(condition, self.end)?;
            Ok::<PlanRef, DataFusionError>(Arc::new(FilterExec::try_new(condition, plan)?))
        })
    }

    /// The group expressions `by` and what follows them, of rows with an end, keys, and what follows them.
    fn with_bounds(&self, ends: PlanRef, by: &PhysicalGroupBy) -> Result<PlanRef> {
        let schema = ends.schema();
        let column =
            |at: usize| Arc::new(Column::new(schema.field(at).name(), at)) as PhysicalExprRef;
        // The end is followed by the keys, then by the states.
        let mut next = 1..schema.fields().len();
        let mut columns = vec![];
        for ((expr, of), (_, name)) in self.groups.iter().zip(by.expr()) {
            let expr = match of {
                Of::End => at_end(expr, self.end)?,
                _ => next.next().map(column).ok_or_else(lost)?,
            };
            columns.push((expr, name.clone()));
        }
        columns.extend(next.map(|at| (column(at), schema.field(at).name().clone())));
        Ok(Arc::new(ProjectionExec::try_new(columns, ends)?))
    }

    /// The conditions on ends, and those on rows.
    fn conditions(&self) -> (Vec<&PhysicalExprRef>, Vec<&PhysicalExprRef>) {
        self.rows.conditions.iter().partition(|c| Of::columns(c, self.end) == Of::End)
    }

    /// The states by slice and key, with the columns in this order.
    fn slices(&self, aggregate: &AggregateExec) -> Result<PlanRef> {
        let input = self.before.input();
        let slice = self.bound(Bound::Slice, self.ends.children(), &input.schema())?;
        let mut columns: Vec<(PhysicalExprRef, String)> =
            self.before.expr().iter().map(|e| (Arc::clone(&e.expr), e.alias.clone())).collect();
        columns.get_mut(self.end).ok_or_else(lost)?.0 = slice;
        let mut rows: PlanRef = Arc::new(ProjectionExec::try_new(columns, Arc::clone(input))?);
        if let Some(count) = self.rows.dealt {
            rows = Arc::new(RepartitionExec::try_new(rows, Partitioning::RoundRobinBatch(count))?);
        }
        for condition in self.conditions().1 {
            rows = Arc::new(FilterExec::try_new(Arc::clone(condition), rows)?);
        }
        // The aggregate refers to its arguments by index; those that were bounds are no longer referred to.
        let from = rows.schema();
        let mut columns = vec![];
        for (expr, field) in self.rows.columns.iter().zip(aggregate.input().schema().fields()) {
            let expr = match Of::columns(expr, self.end) {
                Of::Row => Arc::clone(expr),
                _ => Arc::new(Literal::new(ScalarValue::Null)),
            };
            columns.push((expr, field.name().clone()));
        }
        let slice = Arc::new(Column::new(from.field(self.end).name(), self.end));
        columns.push((slice, SLICE.to_owned()));
        let at = columns.len() - 1;
        let rows = Arc::new(ProjectionExec::try_new(columns, rows)?);
        let mut by: Vec<(PhysicalExprRef, String)> =
            vec![(Arc::new(Column::new(SLICE, at)), SLICE.to_owned())];
        let groups = self.groups.iter().zip(aggregate.group_expr().expr());
        by.extend(groups.filter(|((_, of), _)| *of == Of::Row).map(|(_, by)| by.clone()));
        let schema = rows.schema();
        Ok(Arc::new(AggregateExec::try_new(
            AggregateMode::Partial,
            PhysicalGroupBy::new_single(by),
            aggregate.aggr_expr().to_vec(),
            aggregate.filter_expr().to_vec(),
            rows,
            schema,
        )?))
    }

    /// Each slice once for each of its windows, with the end of the window in its place.
    fn repeated(&self, slices: PlanRef) -> Result<PlanRef> {
        let schema = slices.schema();
        let slice: PhysicalExprRef = Arc::new(Column::new(SLICE, 0));
        let ends = self.bound(Bound::SliceEnds, vec![&slice], &schema)?;
        let mut columns = vec![(ends, SLICE.to_owned())];
        for (at, field) in schema.fields().iter().enumerate().skip(1) {
            columns.push((Arc::new(Column::new(field.name(), at)), field.name().clone()));
        }
        let listed = Arc::new(ProjectionExec::try_new(columns, slices)?);
        let list = ListUnnest { index_in_input_schema: 0, depth: 1 };
        let options = UnnestOptions::new().with_preserve_nulls(false);
        Ok(Arc::new(UnnestExec::new(listed, vec![list], vec![], schema, options)?))
    }

    /// A function of the same windows as `ends`.
    fn bound(
        &self,
        bound: Bound,
        args: Vec<&PhysicalExprRef>,
        schema: &Schema,
    ) -> Result<PhysicalExprRef> {
        let ends = self.ends.downcast_ref::<ScalarFunctionExpr>().ok_or_else(lost)?;
        let function = of_same_windows(ends, bound).ok_or_else(lost)?;
        let args = args.into_iter().map(Arc::clone).collect();
        let options = Arc::new(ends.config_options().clone());
        Ok(Arc::new(ScalarFunctionExpr::try_new(function, args, schema, options)?))
    }
}

/// Whether `expr` returns the ends of all windows of a time.
fn is_ends(expr: &PhysicalExprRef) -> bool {
    let call = expr.downcast_ref::<ScalarFunctionExpr>();
    call.is_some_and(|call| {
        of_same_windows(call, Bound::Ends).is_some_and(|ends| ends.as_ref() == call.fun())
    })
}

/// `expr` with each column replaced by the expression that computes it.
fn inlined(expr: &PhysicalExprRef, columns: &[PhysicalExprRef]) -> Result<PhysicalExprRef> {
    Arc::clone(expr)
        .transform_down(|node| {
            let Some(column) = node.downcast_ref::<Column>() else {
                return Ok(Transformed::no(node));
            };
            let made = columns.get(column.index()).map(Arc::clone).ok_or_else(lost)?;
            Ok(Transformed::new(made, true, TreeNodeRecursion::Jump))
        })
        .data()
}

/// An expression over the column `end` of the unnest, in terms of that of the repeated slices.
fn at_end(expr: &PhysicalExprRef, end: usize) -> Result<PhysicalExprRef> {
    let column: PhysicalExprRef = Arc::new(Column::new(SLICE, 0));
    let columns = vec![column; end + 1];
    inlined(expr, &columns)
}

fn lost() -> DataFusionError {
    internal_datafusion_err!("a column of a window is not where it was planned")
}
