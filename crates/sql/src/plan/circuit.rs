//! Plans several operators over changing rows as one: a [circuit](CircuitSpec).
//!
//! ```text
//! join ◄─┬─ aggregate ◄─ aggregate ◄─ input 0 ◄─ stream ◄─ filters, tables, windows: whatever is append-only
//!        └─ first rows ◄─ input 1 ◄─ stream
//! ```
//! The largest parts of the plan that are append-only by themselves are the inputs. Each node above them becomes a node of the
//! circuit, and knows whether its rows are append-only and which columns identify them.
//!
//! Invariant: the columns of a node are those of the plan's node, in the same order.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Distinct, Expr, FetchType, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, SkipType, Sort, Union, lit,
};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use windrow_core::Error;
use windrow_operators::{CircuitNode, CircuitSpec, Step, TopSpec};

use super::asof::AsofJoin;
use super::assign::WindowAssign;
use super::flow::OperatorInput;
use super::is_streaming;
use super::pattern::RowPattern;
use super::shape::{Kind, kind, refused};
use super::split::Splitter;

/// A circuit that is being built.
pub(super) struct Builder<'a, 'b> {
    pub(super) splitter: &'a mut Splitter<'b>,
    inputs: Vec<OperatorInput>,
    schemas: Vec<SchemaRef>,
    nodes: Vec<CircuitNode>,
    keys: Vec<Keys>,
}

/// Sets of columns, each of which identifies a row.
pub(super) type Keys = Vec<Vec<usize>>;

/// A planned circuit.
pub(super) struct Circuit {
    pub(super) spec: CircuitSpec,
    pub(super) inputs: Vec<OperatorInput>,
    /// Whether the rows of its result are append-only.
    pub(super) grows: bool,
    /// The columns that identify a row of the result.
    pub(super) key: Option<Vec<usize>>,
}

/// What is known of the rows of a node.
pub(super) struct Properties {
    pub(super) grows: bool,
    pub(super) keys: Keys,
}

/// The greatest value of a ranking function, by its number, that rows need to have.
pub(super) type AtMost = Option<(usize, u64)>;

impl<'a, 'b> Builder<'a, 'b> {
    /// Plans `plan` as a circuit.
    ///
    /// # Errors
    /// When a clause cannot process changes: it is named, with an alternative.
    pub(super) fn circuit(splitter: &'a mut Splitter<'b>, plan: &LogicalPlan) -> Result<Circuit> {
        let mut builder =
            Self { splitter, inputs: vec![], schemas: vec![], nodes: vec![], keys: vec![] };
        let last = builder.build(plan, None)?;
        let grows = builder.grows(last);
        let key = builder.keys(last).into_iter().next().filter(|_| !grows);
        if let Some(node) = builder.nodes.last_mut() {
            // What the query promises; names may repeat in a plan, but not in a leaf.
            let fields = plan.schema().fields().iter().enumerate();
            let fields: Vec<_> =
                fields.map(|(i, f)| f.as_ref().clone().with_name(format!("c{i}"))).collect();
            node.schema = Arc::new(Schema::new(fields));
        }
        let Builder { inputs, schemas, nodes, .. } = builder;
        let spec = CircuitSpec::try_new(schemas, nodes, key.clone()).map_err(refused)?;
        Ok(Circuit { spec, inputs, grows, key })
    }

    /// Builds the node of `plan`, and those below it; returns its number.
    #[recursive::recursive]
    pub(super) fn build(&mut self, plan: &LogicalPlan, at_most: AtMost) -> Result<usize> {
        if plan.inputs().iter().any(|input| !is_streaming(input)) && kind(plan).is_err() {
            return Err(unsupported(plan));
        }
        if matches!(kind(plan), Ok(Kind::Rows { .. } | Kind::Windows)) {
            return self.input(plan);
        }
        refuse_volatile(plan)?;
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.build(&alias.input, at_most),
            LogicalPlan::Projection(projection) => self.projection(projection, at_most),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate, plan.schema()),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(input),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Sort(sort) if sort.fetch.is_some() => self.first(sort, 0, None),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) => self.ranks(window, at_most),
            _ => Err(unsupported(plan)),
        }
    }

    /// Sets the columns that identify a row of a node.
    pub(super) fn identify(&mut self, node: usize, key: Vec<usize>) {
        if let Some(keys) = self.keys.get_mut(node) {
            *keys = vec![key];
        }
    }

    /// Adds a node; returns its number.
    pub(super) fn add(
        &mut self,
        (step, text): (Step, String),
        inputs: Vec<usize>,
        schema: &Schema,
        properties: Properties,
    ) -> usize {
        let Properties { grows, keys } = properties;
        let schema = nullable(schema);
        self.nodes.push(CircuitNode { step, inputs, schema, grows, text });
        self.keys.push(keys);
        self.nodes.len() - 1
    }

    pub(super) fn grows(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.grows)
    }

    pub(super) fn keys(&self, node: usize) -> Keys {
        self.keys.get(node).cloned().unwrap_or_default()
    }

    pub(super) fn schema(&self, node: usize) -> SchemaRef {
        self.nodes.get(node).map_or_else(|| Arc::new(Schema::empty()), |n| Arc::clone(&n.schema))
    }

    /// An expression over the rows of a node.
    pub(super) fn physical(&self, expr: &Expr, input: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
        create_physical_expr(
            expr,
            input,
            self.splitter.state().execution_props(),
            &PhysicalPlanningContext::default(),
        )
    }

    /// Rows that are append-only by themselves.
    fn input(&mut self, plan: &LogicalPlan) -> Result<usize> {
        let columns = plan.schema().columns();
        let exprs = columns.iter().enumerate();
        let mut exprs: Vec<Expr> =
            exprs.map(|(i, column)| Expr::Column(column.clone()).alias(format!("c{i}"))).collect();
        // A batch without columns would not know its rows.
        let is_empty = exprs.is_empty();
        if is_empty {
            exprs.push(lit(true).alias("c0"));
        }
        let prepare = LogicalPlanBuilder::from(plan.clone()).project(exprs)?.build()?;
        let input = self.splitter.operator_input(&prepare, 0, TimeUnit::Microsecond)?;
        let schema = nullable(prepare.schema().as_arrow());
        let number = self.inputs.len();
        self.inputs.push(input);
        self.schemas.push(Arc::clone(&schema));
        let step = (Step::Input(number), format!("input {number}"));
        let node = self.add(step, vec![], &schema, Properties { grows: true, keys: vec![] });
        if !is_empty {
            return Ok(node);
        }
        let step = (Step::Project(vec![]), "no columns".to_owned());
        Ok(self.add(step, vec![node], &Schema::empty(), Properties { grows: true, keys: vec![] }))
    }

    fn projection(&mut self, projection: &Projection, at_most: AtMost) -> Result<usize> {
        let node = self.build(&projection.input, at_most)?;
        let schema = projection.input.schema();
        let exprs = projection.expr.iter().map(|expr| self.physical(expr, schema));
        let exprs: Vec<_> = exprs.collect::<Result<_>>()?;
        Ok(self.project(exprs, node, projection.schema.as_arrow()))
    }

    /// Computes columns of the rows of a node.
    pub(super) fn project(
        &mut self,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        node: usize,
        schema: &Schema,
    ) -> usize {
        let origins: Vec<Option<usize>> = exprs.iter().map(column_of).collect();
        let place = |column| origins.iter().position(|origin| *origin == Some(column));
        let keys = self.keys(node).into_iter();
        let keys = keys.filter_map(|key| key.into_iter().map(place).collect()).collect();
        let whole = self.schema(node).fields().len();
        if origins.iter().copied().eq((0..whole).map(Some)) {
            return node;
        }
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let text = format!("project [{}]", names.join(", "));
        let properties = Properties { grows: self.grows(node), keys };
        self.add((Step::Project(exprs), text), vec![node], schema, properties)
    }

    fn filter(&mut self, filter: &Filter) -> Result<usize> {
        let bounds = split_conjunction(&filter.predicate).into_iter();
        let at_most = bounds.filter_map(|condition| bound(condition, &filter.input)).next();
        let node = self.build(&filter.input, at_most)?;
        let condition = self.physical(&filter.predicate, filter.input.schema())?;
        let properties = Properties { grows: self.grows(node), keys: self.keys(node) };
        let text = format!("filter {}", filter.predicate);
        let schema = self.schema(node);
        Ok(self.add((Step::Filter(condition), text), vec![node], &schema, properties))
    }

    fn union(&mut self, union: &Union) -> Result<usize> {
        let mut nodes = vec![];
        for input in &union.inputs {
            nodes.push(self.build(input, None)?);
        }
        let grows = nodes.iter().all(|node| self.grows(*node));
        let step = (Step::Union, "union all".to_owned());
        Ok(self.add(step, nodes, union.schema.as_arrow(), Properties { grows, keys: vec![] }))
    }

    fn limit(&mut self, limit: &Limit) -> Result<usize> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(refused(
                Error::sql("LIMIT of an updating result needs numbers")
                    .with_hint("Write LIMIT and OFFSET as numbers."),
            ));
        };
        self.limited(&limit.input, skip, fetch)
    }

    /// The first rows of `plan`, after `skip` of them.
    #[recursive::recursive]
    fn limited(&mut self, plan: &LogicalPlan, skip: usize, fetch: Option<usize>) -> Result<usize> {
        refuse_volatile(plan)?;
        match plan {
            LogicalPlan::Sort(sort) => self.first(sort, skip, fetch),
            LogicalPlan::SubqueryAlias(alias) => self.limited(&alias.input, skip, fetch),
            LogicalPlan::Projection(projection) => {
                let node = self.limited(&projection.input, skip, fetch)?;
                let schema = projection.input.schema();
                let exprs = projection.expr.iter().map(|expr| self.physical(expr, schema));
                let exprs = exprs.collect::<Result<_>>()?;
                Ok(self.project(exprs, node, projection.schema.as_arrow()))
            }
            _ => {
                let node = self.build(plan, None)?;
                self.top(node, (vec![], vec![]), (skip, fetch))
            }
        }
    }

    /// The first rows in an order.
    fn first(&mut self, sort: &Sort, skip: usize, fetch: Option<usize>) -> Result<usize> {
        let node = self.build(&sort.input, None)?;
        let fetch = match (fetch, sort.fetch.map(|all| all.saturating_sub(skip))) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let exprs: Vec<Expr> = sort.expr.iter().map(|by| by.expr.clone()).collect();
        let (wide, columns) = self.columns(node, &exprs, sort.input.schema())?;
        let options = sort.expr.iter().map(|by| sort_options(by.asc, by.nulls_first));
        let order = columns.into_iter().zip(options).collect();
        let text = sort.expr.iter().map(ToString::to_string).collect();
        let top = self.top(wide, (order, text), (skip, fetch))?;
        Ok(self.narrow(top, wide, node))
    }

    /// Adds the first rows of a node, in this order.
    fn top(
        &mut self,
        node: usize,
        (order, by): (Vec<(usize, SortOptions)>, Vec<String>),
        (skip, fetch): (usize, Option<usize>),
    ) -> Result<usize> {
        let schema = self.schema(node);
        let keys = if fetch == Some(1) { vec![vec![]] } else { self.keys(node) };
        let text = match (fetch, by.is_empty()) {
            (Some(fetch), true) => format!("first {fetch} rows by all columns, keeps all rows"),
            (Some(fetch), false) => {
                format!("first {fetch} rows by [{}], keeps all rows", by.join(", "))
            }
            (None, _) => {
                format!("rows after the first {skip} by [{}], keeps all rows", by.join(", "))
            }
        };
        let spec = TopSpec { partition: vec![], order, skip, fetch, ranks: vec![], at_most: None };
        let properties = Properties { grows: false, keys };
        Ok(self.add((Step::Top(spec), text), vec![node], &schema, properties))
    }

    /// The columns of expressions over a node; a node with further columns if they are no columns of it.
    pub(super) fn columns(
        &mut self,
        node: usize,
        exprs: &[Expr],
        input: &DFSchema,
    ) -> Result<(usize, Vec<usize>)> {
        let mut schema = self.schema(node);
        let mut all: Vec<Arc<dyn PhysicalExpr>> = vec![];
        for (at, field) in schema.fields().iter().enumerate() {
            all.push(Arc::new(PhysicalColumn::new(field.name(), at)));
        }
        let (whole, mut columns) = (all.len(), vec![]);
        for expr in exprs {
            let expr = self.physical(expr, input)?;
            columns.push(match column_of(&expr) {
                Some(column) => column,
                None => {
                    let field = expr.return_field(&schema)?.as_ref().clone();
                    let name = format!("__key{}", all.len());
                    all.push(expr);
                    let mut fields = schema.fields().to_vec();
                    fields.push(Arc::new(field.with_name(name)));
                    schema = Arc::new(Schema::new(fields));
                    all.len() - 1
                }
            });
        }
        match all.len() == whole {
            true => Ok((node, columns)),
            false => Ok((self.project(all, node, &schema), columns)),
        }
    }

    /// Drops the columns that [`columns`](Self::columns) has added.
    pub(super) fn narrow(&mut self, top: usize, wide: usize, node: usize) -> usize {
        if wide == node {
            return top;
        }
        let schema = self.schema(node);
        let columns = schema.fields().iter().enumerate();
        let exprs = columns.map(|(at, field)| {
            Arc::new(PhysicalColumn::new(field.name(), at)) as Arc<dyn PhysicalExpr>
        });
        self.project(exprs.collect(), top, &schema)
    }
}

pub(super) fn sort_options(asc: bool, nulls_first: bool) -> SortOptions {
    SortOptions { descending: !asc, nulls_first }
}

/// The number of the column that an expression is.
pub(super) fn column_of(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    let expr: &dyn std::any::Any = expr.as_ref();
    expr.downcast_ref::<PhysicalColumn>().map(PhysicalColumn::index)
}

/// A schema in which any column may be NULL.
fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields: Vec<_> = fields.map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

/// The bound that a condition sets to a ranking function of the windows directly below: `rank <= 3`.
fn bound(condition: &Expr, below: &LogicalPlan) -> Option<(usize, u64)> {
    let Expr::BinaryExpr(binary) = condition else { return None };
    let (column, op, value) = match (binary.left.as_ref(), binary.right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, binary.op, value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, binary.op.swap()?, value),
        _ => return None,
    };
    let value = match value.cast_to(&DataType::UInt64).ok()? {
        ScalarValue::UInt64(Some(value)) => value,
        _ => return None,
    };
    let most = match op {
        Operator::Lt => value.checked_sub(1)?,
        Operator::LtEq | Operator::Eq => value,
        _ => return None,
    };
    let mut at = below.schema().maybe_index_of_column(column)?;
    let mut plan = below;
    loop {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => plan = &alias.input,
            LogicalPlan::Projection(projection) => {
                let Expr::Column(inner) = projection.expr.get(at)?.clone().unalias() else {
                    return None;
                };
                at = projection.input.schema().maybe_index_of_column(&inner)?;
                plan = &projection.input;
            }
            LogicalPlan::Window(window) => {
                let number = at.checked_sub(window.input.schema().fields().len())?;
                return Some((number, most));
            }
            _ => return None,
        }
    }
}

/// Refuses expressions that return something else each time: what was added could not be removed.
fn refuse_volatile(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_expressions(|expr| {
        if expr.is_volatile() {
            found = Some(expr.to_string());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match found {
        None => Ok(()),
        Some(expr) => Err(refused(
            Error::sql(format!(
                "{expr} returns another value each time, so that its rows could not be removed from an updating result"
            ))
            .with_hint("Compute it in a view or stream of its own, and read that."),
        )),
    }
}

/// The error for a node that no circuit has: over changes, or the usual one over rows that only ever come.
pub(super) fn unsupported(plan: &LogicalPlan) -> datafusion::error::DataFusionError {
    let changes = plan.inputs().iter().any(|input| is_streaming(input) && kind(input).is_err());
    match kind(plan) {
        Err(e) if !changes => e,
        _ => above(plan),
    }
}

/// The error for a clause that cannot process changes.
fn above(plan: &LogicalPlan) -> datafusion::error::DataFusionError {
    if plan.inputs().iter().any(|input| !is_streaming(input)) {
        let e = Error::sql(
            "a table that does not stream cannot be combined with an updating result continuously",
        );
        return refused(e.with_hint(
            "Join the table with the stream below GROUP BY: FROM (SELECT … FROM stream JOIN table ON …) GROUP BY …, or make it a stream.",
        ));
    }
    let (clause, hint) = match plan {
        LogicalPlan::Sort(_) => (
            "ORDER BY without LIMIT",
            "Add LIMIT for the first rows, remove ORDER BY, or remove EMIT to order the current result.",
        ),
        LogicalPlan::Unnest(_) => ("UNNEST", "Unnest the rows of the stream, below GROUP BY."),
        LogicalPlan::Extension(_) if WindowAssign::of(plan).is_some() => (
            "a window",
            "Leave the window out, group by date_trunc('minute', ts) or the like instead, or remove EMIT.",
        ),
        LogicalPlan::Extension(_) if AsofJoin::of(plan).is_some() => (
            "an ASOF JOIN",
            "Rank the rows instead (ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) = 1), or remove EMIT.",
        ),
        LogicalPlan::Extension(_) if RowPattern::of(plan).is_some() => (
            "MATCH_RECOGNIZE",
            "Search for patterns in a stream whose rows do not change, or remove EMIT.",
        ),
        _ => ("this clause", "Leave EMIT out to run the query once over what is there now."),
    };
    refused(
        Error::sql(format!("{clause} over an updating result cannot run continuously"))
            .with_hint(hint),
    )
}
