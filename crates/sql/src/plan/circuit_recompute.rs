//! The nodes of a circuit that recompute functions over all rows of a partition: window functions that are not ranks, and
//! aggregates with ORDER BY. DISTINCT ON is planned as a rank.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::functions_window::row_number::row_number;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder,
    SortExpr, Window, lit,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_planner::create_window_expr;
use windrow_core::Error;
use windrow_operators::{Functions, RecomputedSpec, Step};

use super::circuit::{Builder, Properties, sort_options, unsupported};
use super::shape::refused;

/// The name of the rank that stands for DISTINCT ON.
const RANK: &str = "__rank";

/// A partition and an order, and the numbers of the window functions that share them.
type Over<'a> = (&'a [Expr], &'a [SortExpr], Vec<usize>);

/// Whether an aggregate needs the rows of a group in an order.
pub(super) fn is_ordered(aggregate: &Aggregate) -> bool {
    aggregate.aggr_expr.iter().any(|expr| match expr.clone().unalias() {
        Expr::AggregateFunction(function) => !function.params.order_by.is_empty(),
        _ => false,
    })
}

/// The plan with each DISTINCT ON as the first row of each partition.
///
/// # Errors
/// When DataFusion cannot build an expression.
pub(super) fn ranked(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_down_with_subqueries(|plan| match plan {
        LogicalPlan::Distinct(Distinct::On(on)) => Ok(Transformed::yes(first_rows(on)?)),
        plan => Ok(Transformed::no(plan)),
    })
    .data()
}

fn first_rows(on: DistinctOn) -> Result<LogicalPlan> {
    let order_by = on.sort_expr.unwrap_or_default();
    let rank = row_number().partition_by(on.on_expr).order_by(order_by).build()?.alias(RANK);
    let columns: Vec<Expr> = on
        .select_expr
        .into_iter()
        .zip(on.schema.iter())
        .map(|(expr, (qualifier, field))| {
            expr.unalias().alias_qualified(qualifier.cloned(), field.name())
        })
        .collect();
    LogicalPlanBuilder::from(on.input)
        .window(vec![rank])?
        .filter(Expr::Column(Column::new_unqualified(RANK)).eq(lit(1_u64)))?
        .project(columns)?
        .build()
}

impl Builder<'_, '_> {
    /// Window functions over the rows of each partition.
    pub(super) fn over(&mut self, window: &Window) -> Result<usize> {
        let input = window.input.schema();
        let mut groups: Vec<Over<'_>> = vec![];
        for (number, expr) in window.window_expr.iter().enumerate() {
            let function = window_function(expr)
                .ok_or_else(|| unsupported(&LogicalPlan::Window(window.clone())))?;
            let (partition, order) = (&function.params.partition_by, &function.params.order_by);
            match groups.iter_mut().find(|(p, o, _)| *p == partition && *o == order) {
                Some((_, _, members)) => members.push(number),
                None => groups.push((partition, order, vec![number])),
            }
        }
        let node = self.build(&window.input, None)?;
        let width = self.schema(node).fields().len();
        let (mut last, mut places) = (node, vec![0; window.window_expr.len()]);
        for (partition_by, order_by, members) in groups {
            let order = order_by.iter().map(|by| by.expr.clone());
            let exprs: Vec<Expr> = partition_by.iter().cloned().chain(order).collect();
            let (wide, mut partition) = self.columns(last, &exprs, input)?;
            let order = partition.split_off(partition_by.len());
            let options = order_by.iter().map(|by| sort_options(by.asc, by.nulls_first));
            let order = order.into_iter().zip(options).collect();
            let mut fields = self.schema(wide).fields().to_vec();
            let (mut functions, mut texts) = (vec![], vec![]);
            for number in members {
                let Some(expr) = window.window_expr.get(number) else { continue };
                let props = self.splitter.state().execution_props();
                let context = PhysicalPlanningContext::default();
                functions.push(create_window_expr(expr, input, props, &context)?);
                texts.push(expr.to_string());
                if let Some(place) = places.get_mut(number) {
                    *place = fields.len();
                }
                fields.extend(window.schema.fields().get(width + number).cloned());
            }
            let text = format!("window functions [{}], keeps all rows", texts.join(", "));
            let functions = Functions::Windows(functions);
            let spec = RecomputedSpec { partition, order, functions };
            let properties = Properties { grows: false, keys: self.keys(last) };
            let schema = arrow::datatypes::Schema::new(fields);
            last = self.add((Step::Recompute(spec), text), vec![wide], &schema, properties);
        }
        let schema = self.schema(last);
        let columns = (0..width).chain(places).filter_map(|at| {
            let name = schema.fields().get(at)?.name();
            Some(Arc::new(PhysicalColumn::new(name, at)) as Arc<dyn PhysicalExpr>)
        });
        Ok(self.project(columns.collect(), last, window.schema.as_arrow()))
    }

    /// Aggregates with ORDER BY, over the rows of each group.
    pub(super) fn ordered_aggregate(
        &mut self,
        aggregate: &Aggregate,
        schema: &DFSchema,
    ) -> Result<usize> {
        if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) {
            return Err(refused(
                Error::sql("ORDER BY inside an aggregate with GROUPING SETS cannot run continuously without windows")
                    .with_hint("Group by each set in a query of its own, and put them together with UNION ALL."),
            ));
        }
        let input = aggregate.input.schema();
        let node = self.build(&aggregate.input, None)?;
        let (wide, partition) = self.columns(node, &aggregate.group_expr, input)?;
        let (mut functions, mut texts) = (vec![], vec![]);
        for expr in &aggregate.aggr_expr {
            let props = self.splitter.state().execution_props();
            let context = PhysicalPlanningContext::default();
            let lowered =
                LoweredAggregateBuilder::new(expr, input, input.as_arrow(), props, &context);
            functions.push(Arc::new(lowered.build()?));
            texts.push(expr.to_string());
        }
        let keys: Vec<String> = aggregate.group_expr.iter().map(ToString::to_string).collect();
        let text = format!(
            "aggregate keys [{}], aggregates [{}], keeps all rows",
            keys.join(", "),
            texts.join(", ")
        );
        let functions = Functions::Aggregates(functions);
        let spec = RecomputedSpec { partition, order: vec![], functions };
        let key = (0..aggregate.group_expr.len()).collect();
        let properties = Properties { grows: false, keys: vec![key] };
        let step = (Step::Recompute(spec), text);
        Ok(self.add(step, vec![wide], schema.as_arrow(), properties))
    }
}

/// The window function of an expression, without its alias.
fn window_function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => window_function(&alias.expr),
        _ => None,
    }
}
