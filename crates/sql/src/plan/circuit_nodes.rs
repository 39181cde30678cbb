//! The nodes of a circuit that keep rows: aggregates, joins and ranks.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result};
use datafusion::logical_expr::{
    Aggregate, Expr, Join, LogicalPlan, LogicalPlanBuilder, Window, WindowFunctionDefinition,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use windrow_core::Error;
use windrow_operators::{JoinFilter, PairSpec, Rank, Returned, Step, TopSpec};

use super::changing::Grouped;
use super::circuit::{AtMost, Builder, Keys, Properties, sort_options, unsupported};
use super::circuit_recompute::is_ordered;
use super::keyed::is_current_rows;
use super::shape::refused;

impl Builder<'_, '_> {
    /// DISTINCT: groups without aggregates.
    pub(super) fn distinct(&mut self, input: &LogicalPlan) -> Result<usize> {
        let columns = input.schema().columns().into_iter().map(Expr::Column);
        let plan = LogicalPlanBuilder::from(input.clone())
            .aggregate(columns, Vec::<Expr>::new())?
            .build()?;
        match &plan {
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, plan.schema()),
            _ => Err(unsupported(&plan)),
        }
    }

    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, schema: &DFSchema) -> Result<usize> {
        if is_ordered(aggregate) {
            return self.ordered_aggregate(aggregate, schema);
        }
        let node = self.build(&aggregate.input, None)?;
        let Grouped { prepare, spec, outputs } = self.splitter.grouped(aggregate)?;
        let has_sets = aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
        let grows = self.grows(node);
        if has_sets && !grows {
            return Err(refused(
                Error::sql("GROUPING SETS, ROLLUP and CUBE over an updating result cannot run continuously")
                    .with_hint("Group by each set in a query of its own, and put them together with UNION ALL."),
            ));
        }
        let LogicalPlan::Projection(prepare) = &prepare else { return Err(unsupported(&prepare)) };
        let exprs = prepare.expr.iter().map(|e| self.physical(e, aggregate.input.schema()));
        let exprs = exprs.collect::<Result<_>>()?;
        let prepared = self.project(exprs, node, prepare.schema.as_arrow());
        let columns = Arc::clone(spec.answer_schema());
        let text = aggregate_text(aggregate, grows);
        let grows_on = grows && spec.is_append_only();
        let operator = (Step::Aggregate(spec), text);
        let properties = Properties { grows: grows_on, keys: vec![] };
        let groups = self.add(operator, vec![prepared], &columns, properties);
        // Its columns are the keys, each once, and then the aggregates.
        let mut exprs: Vec<Arc<dyn PhysicalExpr>> = vec![];
        let leaf = DFSchema::try_from(columns.as_ref().clone())?;
        for output in &outputs {
            let output = unqualified(output)?;
            exprs.push(self.physical(&output, &leaf)?);
        }
        let result = self.project(exprs, groups, schema.as_arrow());
        let keys = schema.fields().len() - aggregate.aggr_expr.len();
        self.identify(result, (0..keys).collect());
        Ok(result)
    }

    pub(super) fn join(&mut self, join: &Join) -> Result<usize> {
        let returned = returned(join)?;
        let left = self.build(&join.left, None)?;
        let right = self.build(&join.right, None)?;
        let (on_left, on_right): (Vec<Expr>, Vec<Expr>) = join.on.iter().cloned().unzip();
        let (wide_left, left_keys) = self.columns(left, &on_left, join.left.schema())?;
        let (wide_right, right_keys) = self.columns(right, &on_right, join.right.schema())?;
        let widths = [left, right].map(|node| self.schema(node).fields().len());
        if returned == Returned::NotIn && (join.filter.is_some() || join.on.len() != 1) {
            return Err(refused(
                Error::sql("NOT IN with a correlated subquery cannot be decided continuously")
                    .with_hint("A NULL on either side would leave out other rows: use NOT EXISTS (SELECT … WHERE b.k = a.k AND …)."),
            ));
        }
        let filter = match &join.filter {
            Some(filter) => Some(self.pair_filter(join, filter)?),
            None => None,
        };
        let grows = self.grows(left)
            && self.grows(right)
            && matches!(
                returned,
                Returned::Pairs { unmatched: [false, false] } | Returned::Matching(_)
            );
        let keys = [(left, &left_keys), (right, &right_keys)];
        let keys = self.join_keys(returned, keys, widths);
        let text = join_text(join, returned);
        let spec = PairSpec {
            returned,
            keys: [left_keys, right_keys],
            widths,
            null_equals: join.null_equality == NullEquality::NullEqualsNull,
            filter,
        };
        let step = (Step::Join(Box::new(spec)), text);
        let inputs = vec![wide_left, wide_right];
        Ok(self.add(step, inputs, join.schema.as_arrow(), Properties { grows, keys }))
    }

    /// The columns that identify a row of a join; each side comes with the columns that must be equal.
    fn join_keys(
        &self,
        returned: Returned,
        [(left, left_on), (right, right_on)]: [(usize, &Vec<usize>); 2],
        widths: [usize; 2],
    ) -> Keys {
        let [left, right] = [self.keys(left), self.keys(right)];
        let unmatched = match returned {
            Returned::Pairs { unmatched } => unmatched,
            Returned::Matching(of) | Returned::Unmatched(of) | Returned::Marked(of) => {
                return if of == 0 { left } else { right };
            }
            Returned::NotIn => return left,
        };
        let once = |keys: &Keys, on: &[usize]| {
            keys.iter().any(|key| key.iter().all(|column| on.contains(column)))
        };
        let of_right = |key: &Vec<usize>| key.iter().map(|at| at + widths[0]).collect::<Vec<_>>();
        let mut keys = vec![];
        // Each row of one side is in at most one pair.
        if once(&right, right_on) && !unmatched[1] {
            keys.extend(left.iter().cloned());
        }
        if once(&left, left_on) && !unmatched[0] {
            keys.extend(right.iter().map(of_right));
        }
        // An unmatched row of either side could have NULL in both keys.
        if unmatched != [true, true]
            && let (Some(left), Some(right)) = (left.first(), right.first())
        {
            keys.push(left.iter().copied().chain(of_right(right)).collect());
        }
        keys
    }

    fn pair_filter(&self, join: &Join, filter: &Expr) -> Result<JoinFilter> {
        let used = filter.column_refs();
        let mut fields = vec![];
        let mut read: [Vec<usize>; 2] = [vec![], vec![]];
        for (plan, read) in [&join.left, &join.right].iter().zip(&mut read) {
            for (place, (qualifier, field)) in plan.schema().iter().enumerate() {
                if used.contains(&Column::from((qualifier, field))) {
                    let field = field.as_ref().clone().with_nullable(true);
                    fields.push((qualifier.cloned(), Arc::new(field)));
                    read.push(place);
                }
            }
        }
        let schema = DFSchema::new_with_metadata(fields, Default::default())?;
        let expr = self.physical(filter, &schema)?;
        let schema: Arc<Schema> = Arc::new(schema.as_arrow().clone());
        Ok(JoinFilter { expr, columns: read, schema })
    }

    /// Ranking functions over the rows of each partition, or other window functions.
    pub(super) fn ranks(&mut self, window: &Window, at_most: AtMost) -> Result<usize> {
        let mut ranks = vec![];
        let mut common: Option<(Vec<Expr>, Vec<datafusion::logical_expr::SortExpr>)> = None;
        for expr in &window.window_expr {
            let Expr::WindowFunction(function) = expr.clone().unalias() else {
                return self.over(window);
            };
            let WindowFunctionDefinition::WindowUDF(of) = &function.fun else {
                return self.over(window);
            };
            ranks.push(match of.name() {
                "row_number" => Rank::RowNumber,
                "rank" => Rank::Rank,
                "dense_rank" => Rank::DenseRank,
                _ => return self.over(window),
            });
            let of = (function.params.partition_by, function.params.order_by);
            if common.as_ref().is_some_and(|known| *known != of) {
                return self.over(window);
            }
            common = Some(of);
        }
        let Some((partition_by, order_by)) = common else { return self.over(window) };
        let node = self.build(&window.input, None)?;
        let parts = partition_by.len();
        let order = order_by.iter().map(|by| by.expr.clone());
        let exprs: Vec<Expr> = partition_by.iter().cloned().chain(order).collect();
        let (wide, mut columns) = self.columns(node, &exprs, window.input.schema())?;
        let order = columns.split_off(parts);
        let options = order_by.iter().map(|by| sort_options(by.asc, by.nulls_first));
        let order = order.into_iter().zip(options).collect();
        let by: Vec<String> = order_by.iter().map(ToString::to_string).collect();
        let of: Vec<String> = partition_by.iter().map(ToString::to_string).collect();
        let most = at_most.map_or(String::new(), |(_, most)| format!("first {most} "));
        let text = format!(
            "ranks, {most}by [{}] of each [{}], keeps all rows",
            by.join(", "),
            of.join(", ")
        );
        let width = self.schema(node).fields().len();
        let once =
            at_most.is_some_and(|(at, most)| most <= 1 && ranks.get(at) == Some(&Rank::RowNumber));
        let in_place = columns.iter().all(|column| *column < width);
        let mut keys = self.keys(node);
        if once && in_place {
            keys.insert(0, columns.clone());
        }
        let mut fields = self.schema(wide).fields().to_vec();
        fields.extend(window.schema.fields().iter().skip(width).cloned());
        let schema = Schema::new(fields);
        let count = ranks.len();
        let spec = TopSpec { partition: columns, order, skip: 0, fetch: None, ranks, at_most };
        let properties = Properties { grows: false, keys };
        let top = self.add((Step::Top(spec), text), vec![wide], &schema, properties);
        if wide == node {
            return Ok(top);
        }
        let total = schema.fields().len();
        let kept = (0..width).chain(total - count..total);
        let exprs = kept.filter_map(|at| {
            let name = schema.fields().get(at)?.name();
            Some(Arc::new(PhysicalColumn::new(name, at)) as Arc<dyn PhysicalExpr>)
        });
        Ok(self.project(exprs.collect(), top, window.schema.as_arrow()))
    }
}

/// An expression without qualifiers.
fn unqualified(expr: &Expr) -> Result<Expr> {
    expr.clone()
        .transform(|e| {
            Ok(match e {
                Expr::Column(column) => {
                    Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
                }
                other => Transformed::no(other),
            })
        })
        .data()
}

fn returned(join: &Join) -> Result<Returned> {
    if join.null_aware {
        return match join.join_type {
            JoinType::LeftAnti => Ok(Returned::NotIn),
            _ => Err(refused(
                Error::sql("NOT IN under OR cannot be decided continuously")
                    .with_hint("Use it with AND, or NOT EXISTS (SELECT … WHERE b.k = a.k)."),
            )),
        };
    }
    Ok(match join.join_type {
        JoinType::Inner => Returned::Pairs { unmatched: [false, false] },
        JoinType::Left => Returned::Pairs { unmatched: [true, false] },
        JoinType::Right => Returned::Pairs { unmatched: [false, true] },
        JoinType::Full => Returned::Pairs { unmatched: [true, true] },
        JoinType::LeftSemi => Returned::Matching(0),
        JoinType::RightSemi => Returned::Matching(1),
        JoinType::LeftAnti => Returned::Unmatched(0),
        JoinType::RightAnti => Returned::Unmatched(1),
        JoinType::LeftMark => Returned::Marked(0),
        JoinType::RightMark => Returned::Marked(1),
    })
}

fn join_text(join: &Join, returned: Returned) -> String {
    let on: Vec<String> = join.on.iter().map(|(l, r)| format!("{l} = {r}")).collect();
    let filter = join.filter.as_ref().map_or(String::new(), |filter| format!(" where {filter}"));
    format!("{returned} join on [{}]{filter}, keeps the rows of both sides", on.join(", "))
}

fn aggregate_text(aggregate: &Aggregate, grows: bool) -> String {
    let exprs =
        |exprs: &[Expr]| exprs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if is_current_rows(aggregate) {
        let keys = exprs(&aggregate.group_expr);
        return format!("current rows by primary key [{keys}], keeps the last row per key");
    }
    let keeps = match (grows, aggregate.aggr_expr.is_empty()) {
        (_, true) => "keeps the keys",
        (true, false) => "keeps a value per key",
        (false, false) => "keeps what it needs to remove rows",
    };
    let keys = exprs(&aggregate.group_expr);
    format!("aggregate keys [{keys}], aggregates [{}], {keeps}", exprs(&aggregate.aggr_expr))
}
