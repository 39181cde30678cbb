//! The continuous form: a plan split at the window boundary.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Operator, TableScan, TableScanBuilder,
};
use datafusion::optimizer::Optimizer;
use windrow_core::{CmpOp, Error, Predicate, Windows, time};
use windrow_operators::{Mode, OperatorSpec, SessionOperatorSpec};

use super::aggregate::{OPERATOR, Prepared, WindowAggregate, session_text, window_aggregate};
use super::asof::AsofJoin;
use super::assign::WindowAssign;
use super::bounded::{lower, lower_all, named};
use super::changing::Form;
use super::early::{self, WindowOperator};
use super::flow::{
    ContinuousPlan, Flow, Leaf, LeafSource, OperatorInput, OperatorNode, RowChanges, RowsFlow,
    Stage,
};
use super::hoist::{Hoisted, Output, at_leaf, hoist, is_over_session};
use super::pace::Pace;
use super::pattern::RowPattern;
use super::relation::{ContinuousScan, EventTime, ToEnd};
use super::shape::{Kind, kind, refused, returns_pairs};
use super::{
    changing, circuit_recompute, correlated_limit, fingerprint, is_streaming, lineage, over,
    over_order, stream_of,
};
use crate::diagnostics::from_datafusion;
use crate::leaf::{LeafId, LeafTable};
use crate::parse::{Interval, Tail};

/// The continuous form of a plan from [`plan_query`](super::plan_query).
///
/// # Errors
/// When the query cannot run continuously; it names the clause, with a way out as a hint.
pub fn continuous(
    state: &SessionState,
    plan: LogicalPlan,
    tail: &Tail,
) -> Result<ContinuousPlan, Error> {
    correlated_limit::check(&plan).map_err(from_datafusion)?;
    let plan = streams_in_place(plan).map_err(from_datafusion)?;
    let pace = Pace::of(tail);
    let takes_changes = pace.is_some();
    let unoptimized = plan.clone();
    let plan = optimized(state, plan, takes_changes).map_err(from_datafusion)?;
    let plan = over_order::waiting_last(plan).map_err(from_datafusion)?;
    let nanos = |interval: Option<Interval>| interval.map_or(0, |interval| interval.nanos);
    let lateness_nanos = nanos(tail.lateness).saturating_add(nanos(tail.delay));
    let mut splitter = Splitter { state, leaves: 0, names: 0, lateness_nanos };
    let schema = Arc::new(plan.schema().as_arrow().clone());
    let form = if takes_changes { changing::form(&plan) } else { Form::Final };
    if form != Form::Final {
        check_tail(None, tail)?;
        let stage = match form {
            Form::Circuit => circuit_stage(&mut splitter, unoptimized, tail),
            _ => splitter.changing_stage(&plan, tail),
        };
        let stage = stage.map_err(from_datafusion)?;
        let schema = match &stage.changes {
            Some(RowChanges::AppendOnly) | None => schema,
            Some(_) => changing::with_changes(&schema)?,
        };
        return Ok(updating(stage, schema, (lateness_nanos, pace)));
    }
    let kind = kind(&plan).map_err(from_datafusion)?;
    check_tail(Some(kind), tail)?;
    if takes_changes && kind == Kind::Windows {
        let stage = splitter.early_stage(&plan, tail).map_err(from_datafusion)?;
        let schema = early::with_marks(&schema, &stage)?;
        return Ok(updating(stage, schema, (lateness_nanos, pace)));
    }
    let event_times = event_times(&plan).map_err(from_datafusion)?;
    let root = match kind {
        Kind::Rows { .. } if !returns_pairs(&plan).map_err(from_datafusion)? => {
            splitter.rows_flow(&plan).map(Flow::Rows)
        }
        Kind::Rows { .. } | Kind::Windows => {
            splitter.stage(&plan).map(|stage| Flow::Stage(Box::new(stage)))
        }
        Kind::Mixed => Err(refused(
            Error::sql("UNION of closed windows with rows that have no window cannot run as one")
                .with_hint("Run them as two queries."),
        )),
        Kind::Static => Err(refused(
            Error::sql("EMIT needs a stream, but the query reads none")
                .with_hint("Leave EMIT out: the query ends by itself."),
        )),
    };
    let root = root.map_err(from_datafusion)?;
    Ok(ContinuousPlan { root, schema, event_times, lateness_nanos, pace: Pace::default() })
}

/// The plan of an updating result.
fn updating(
    stage: Stage,
    schema: SchemaRef,
    (lateness_nanos, pace): (i128, Option<Pace>),
) -> ContinuousPlan {
    let (root, pace) = (Flow::Stage(Box::new(stage)), pace.unwrap_or_default());
    ContinuousPlan { root, schema, event_times: vec![], lateness_nanos, pace }
}

/// The optimised plan. For an updating result, `count(DISTINCT x)` stays one aggregate: the usual rewrite to two would put
/// an aggregate over an updating one.
fn optimized(state: &SessionState, plan: LogicalPlan, may_change: bool) -> Result<LogicalPlan> {
    if !may_change {
        return state.optimizer().optimize(plan, state, |_, _| {});
    }
    let rules = state.optimizer().rules.iter();
    let rules = rules.filter(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
    Optimizer::with_rules(rules.cloned().collect()).optimize(plan, state, |_, _| {})
}

/// A circuit, planned with all subqueries as joins: DataFusion would run those that return one value by themselves, once.
fn circuit_stage(splitter: &mut Splitter<'_>, plan: LogicalPlan, tail: &Tail) -> Result<Stage> {
    check_subqueries(&plan)?;
    let mut state = splitter.state.clone();
    let options = state.config_mut().options_mut();
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    let plan = circuit_recompute::ranked(plan)?;
    let plan = over_order::waiting_last(optimized(&state, plan, true)?)?;
    splitter.circuit_stage(&plan, tail)
}

/// Refuses subqueries as values that may have several rows: as a join they would return each of them.
fn check_subqueries(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| match expr {
                Expr::ScalarSubquery(subquery)
                    if subquery.outer_ref_columns.is_empty()
                        && is_streaming(&subquery.subquery)
                        && subquery.subquery.max_rows() != Some(1) =>
                {
                    Err(refused(
                        Error::sql(
                            "a subquery as a value of an updating result may have several rows",
                        )
                        .with_hint("Aggregate it without GROUP BY: (SELECT max(x) FROM …)."),
                    ))
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    Ok(())
}

/// Replaces streams by scans that keep filters visible above them.
fn streams_in_place(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::TableScan(scan) => match stream_of(&scan) {
            Some(relation) => {
                let source = provider_as_source(Arc::new(ContinuousScan(relation)));
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
            }
            None => Ok(Transformed::no(LogicalPlan::TableScan(scan))),
        },
        other => Ok(Transformed::no(other)),
    })
    .data()
}

fn event_times(plan: &LogicalPlan) -> Result<Vec<EventTime>> {
    Ok(lineage::columns(plan)?
        .iter()
        .enumerate()
        .filter_map(|(column, known)| {
            // Start and end of a window follow its end; its last tick is one before it.
            let closes = known.to_end.is_some_and(|to_end| to_end != ToEnd::Ticks(1));
            Some(EventTime { column, lag_ticks: known.lag?, closes, to_end: known.to_end })
        })
        .collect())
}

/// Refuses the parts of a tail that a query of this kind cannot keep; `None`: an aggregate without windows.
fn check_tail(kind: Option<Kind>, tail: &Tail) -> Result<(), Error> {
    let refuse = |e: Error| {
        Err(match tail.place {
            Some(place) => e.with_place(place),
            None => e,
        })
    };
    let at_once = matches!(kind, Some(Kind::Rows { .. } | Kind::Mixed));
    if at_once && matches!(Pace::of(tail), Some(Pace::AtMost(_) | Pace::Every(_))) {
        let e = "rows that need no window are emitted at once, and not at intervals";
        return refuse(Error::sql(e).with_hint("Use EMIT CHANGES."));
    }
    if tail.delay.is_some() && kind != Some(Kind::Windows) {
        let e = Error::sql("WITH DELAY delays the end of windows, and the query has none");
        return refuse(e.with_hint("Leave WITH DELAY out."));
    }
    if tail.timeout.is_some() {
        let e = Error::sql("AND TIMEOUT is not yet part of this version").with_hint(
            "Declare it for the stream, WITH (idle_timeout = '10 seconds', when_idle = 'clock'): its windows then close by the clock.",
        );
        return refuse(e);
    }
    Ok(())
}

/// Splits a plan, numbering its leaves.
pub(super) struct Splitter<'a> {
    pub(super) state: &'a SessionState,
    /// The number of leaves.
    leaves: usize,
    /// The number of generated names.
    names: usize,
    lateness_nanos: i128,
}

/// The operators of one stage, with what distinguishes them.
#[derive(Default)]
pub(super) struct Operators {
    pub(super) nodes: Vec<OperatorNode>,
    pub(super) fingerprints: Vec<Option<String>>,
    /// Those that are windows.
    pub(super) windows: Vec<(LeafId, WindowOperator)>,
}

impl Splitter<'_> {
    pub(super) fn optimize(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        self.state.optimizer().optimize(plan, self.state, |_, _| {})
    }

    pub(super) fn state(&self) -> &SessionState {
        self.state
    }

    pub(super) fn next_leaf(&mut self) -> LeafId {
        self.leaves += 1;
        LeafId(self.leaves - 1)
    }

    /// `plan`, which is rows (or a union with closed windows), as a stateless plan over leaves.
    fn rows_flow(&mut self, plan: &LogicalPlan) -> Result<RowsFlow> {
        let mut leaves = vec![];
        let plan = self.stateless(plan, &mut leaves)?;
        let plan = self.optimize(plan)?;
        let plan = self.stream_leaves(plan, &mut leaves)?;
        Ok(RowsFlow { plan, leaves })
    }

    /// Replaces by leaves what operators finish, and lowers the window relations that remain.
    #[recursive::recursive]
    fn stateless(&mut self, plan: &LogicalPlan, leaves: &mut Vec<Leaf>) -> Result<LogicalPlan> {
        match kind(plan)? {
            Kind::Static => return lower_all(plan.clone()),
            Kind::Windows => return self.stage_leaf(plan, leaves),
            Kind::Rows { .. } | Kind::Mixed => {}
        }
        if let LogicalPlan::Join(join) = plan
            && lineage::interval(join)?.is_some()
        {
            return self.stage_leaf(plan, leaves);
        }
        if let LogicalPlan::Window(window) = plan
            && over::of(window)?.is_some()
        {
            return self.stage_leaf(plan, leaves);
        }
        if AsofJoin::of(plan).is_some() || RowPattern::of(plan).is_some() {
            return self.stage_leaf(plan, leaves);
        }
        if let Some(assign) = WindowAssign::of(plan) {
            let input = self.stateless(assign.input(), leaves)?;
            return lower(assign, input);
        }
        plan.clone()
            .map_children(|input| self.stateless(&input, leaves).map(Transformed::yes))
            .data()?
            .recompute_schema()
    }

    /// Finished rows as a leaf, with their own column names.
    fn stage_leaf(&mut self, plan: &LogicalPlan, leaves: &mut Vec<Leaf>) -> Result<LogicalPlan> {
        // Column names may repeat in a plan, but not in a leaf.
        let columns = plan.schema().columns();
        let exprs = columns
            .iter()
            .enumerate()
            .map(|(i, column)| Expr::Column(column.clone()).alias(format!("c{i}")));
        let renamed = LogicalPlanBuilder::from(plan.clone()).project(exprs)?.build()?;
        let stage = self.stage(&renamed)?;
        let schema = Arc::new(stage.finish.schema().as_arrow().clone());
        let id = self.next_leaf();
        let from = LeafSource::Stage(Box::new(stage));
        leaves.push(Leaf { id, schema: Arc::clone(&schema), from });
        let name = TableReference::bare(id.to_string());
        let restored = plan.schema().iter().enumerate().map(|(i, (qualifier, field))| {
            let column = Expr::Column(Column::new(Some(name.clone()), format!("c{i}")));
            named(column, qualifier.cloned(), field.name())
        });
        scan(name.clone(), LeafTable::new(id, schema))?.project(restored)?.build()
    }

    /// Replaces streams by leaves; returns an optimised plan.
    fn stream_leaves(&mut self, plan: LogicalPlan, leaves: &mut Vec<Leaf>) -> Result<LogicalPlan> {
        plan.transform_down(|node| {
            let (scan, condition) = match &node {
                LogicalPlan::TableScan(scan) => (scan, None),
                LogicalPlan::Filter(filter) => match filter.input.as_ref() {
                    LogicalPlan::TableScan(scan) => (scan, Some(filter)),
                    _ => return Ok(Transformed::no(node)),
                },
                _ => return Ok(Transformed::no(node)),
            };
            if stream_of(scan).is_none() {
                return Ok(Transformed::no(node));
            }
            let mut plan = self.stream_leaf(scan, condition.map(|f| &f.predicate), leaves)?;
            if let Some(filter) = condition {
                plan = LogicalPlanBuilder::from(plan).filter(filter.predicate.clone())?.build()?;
            }
            Ok(Transformed::new(plan, true, TreeNodeRecursion::Jump))
        })
        .data()
    }

    fn stream_leaf(
        &mut self,
        scan: &TableScan,
        condition: Option<&Expr>,
        leaves: &mut Vec<Leaf>,
    ) -> Result<LogicalPlan> {
        let Some(relation) = stream_of(scan) else {
            return Err(refused(Error::internal("a leaf for what is not a stream")));
        };
        let full = relation.schema();
        let used = match &scan.projection {
            Some(columns) => columns.clone(),
            None => (0..full.fields().len()).collect(),
        };
        let mut projection = used.clone();
        projection.extend(relation.event_times().first().map(|time| time.column));
        projection.sort_unstable();
        projection.dedup();
        let schema = Arc::new(full.project(&projection)?);
        let positions: Vec<usize> =
            used.iter().filter_map(|column| projection.binary_search(column).ok()).collect();
        let predicates = condition
            .map(|condition| {
                let parts = split_conjunction(condition).into_iter();
                parts.filter_map(|part| predicate(part, &full)).collect()
            })
            .unwrap_or_default();
        let id = self.next_leaf();
        let source = provider_as_source(Arc::new(LeafTable::new(id, Arc::clone(&schema))));
        let whole = positions.len() == projection.len();
        let plan = TableScanBuilder::new(scan.table_name.clone(), source)
            .with_projection((!whole).then_some(positions))
            .build()
            .map(LogicalPlan::TableScan)?;
        let from = LeafSource::Stream { relation, projection, predicates };
        leaves.push(Leaf { id, schema, from });
        Ok(plan)
    }

    /// `plan`, which needs finished rows, as operators with a finish plan over them.
    fn stage(&mut self, plan: &LogicalPlan) -> Result<Stage> {
        let mut operators = Operators::default();
        let finish = self.finish(plan, &mut operators)?;
        let finish = self.optimize(finish)?;
        let operators = operators.nodes;
        let units: Vec<_> = operators.iter().map(|node| node.operator.time_unit()).collect();
        if units.windows(2).any(|pair| pair.first() != pair.last()) {
            return Err(refused(
                Error::sql("windows over time columns of different units cannot be put together")
                    .with_hint("Cast the time columns to the same timestamp type."),
            ));
        }
        let one = operators.len() == 1;
        let keeps_order = one && is_row_wise(&finish);
        // Rows that come from rows without windows are processed row by row.
        let row_wise = keeps_order || one && kind(plan)? == Kind::Rows { windowed: false };
        Ok(Stage { operators, finish, row_wise, keeps_order, changes: None })
    }

    #[recursive::recursive]
    pub(super) fn finish(
        &mut self,
        plan: &LogicalPlan,
        operators: &mut Operators,
    ) -> Result<LogicalPlan> {
        let kind = kind(plan)?;
        if kind == Kind::Static {
            return lower_all(plan.clone());
        }
        if let LogicalPlan::Join(join) = plan
            && let Some(interval) = lineage::interval(join)?
        {
            return self.interval_join(join, interval, operators);
        }
        if let LogicalPlan::Window(window) = plan
            && let Some(over) = over::of(window)?
        {
            return self.over(window, &over, operators);
        }
        if let Some(join) = AsofJoin::of(plan) {
            return self.asof_join(join, operators);
        }
        if let Some(pattern) = RowPattern::of(plan) {
            return self.row_pattern(pattern, operators);
        }
        if let LogicalPlan::Aggregate(aggregate) = plan
            && can_hoist(&aggregate.input)?
            && let Some(found) = window_aggregate(self.state, aggregate, &mut self.names)?
        {
            let rows_guess = rows_guess(&found.mode);
            match operator(&found.hoisted, &found.prepare, found.session_keys, found.mode) {
                Ok(operator) => {
                    let WindowAggregate { hoisted, prepare, outputs, calls, .. } = found;
                    let columns = Arc::clone(operator.output_schema());
                    let made = (operator, calls.as_str());
                    let leaf = self.window_operator(&hoisted, &prepare, made, operators)?;
                    let table = LeafTable::new(leaf, columns).with_rows_guess(rows_guess);
                    return restore(table, &hoisted, outputs, plan.schema());
                }
                // Its state cannot be merged, so the rows are kept, and aggregated at the end.
                Err(e) => tracing::debug!(error = %e, "an aggregate keeps its rows"),
            }
        }
        if can_hoist(plan)?
            && let Some(hoisted) = hoist(plan, &mut self.names)?
        {
            return self.kept_rows(&hoisted, plan.schema(), operators);
        }
        plan.clone()
            .map_children(|input| self.finish(&input, operators).map(Transformed::yes))
            .data()?
            .recompute_schema()
    }

    /// Windowed rows that are kept until their window closes.
    fn kept_rows(
        &mut self,
        hoisted: &Hoisted,
        schema: &DFSchema,
        operators: &mut Operators,
    ) -> Result<LogicalPlan> {
        let mut prepared = Prepared::new(hoisted.time.clone());
        let outputs = hoisted
            .outputs
            .iter()
            .map(|output| match output {
                Output::Bound(expr) => expr.clone(),
                Output::Row(column) => {
                    let index = prepared.add(Expr::Column(column.clone()));
                    let qualifier = TableReference::bare(OPERATOR);
                    Expr::Column(Column::new(Some(qualifier), Prepared::name(index)))
                }
            })
            .collect();
        let session_keys = prepared.add_keys(&hoisted.session_keys);
        let text = session_text(&session_keys, "rows");
        let prepare = prepared.plan(hoisted.inner.clone())?;
        let operator = operator(hoisted, &prepare, session_keys, Mode::Rows).map_err(refused)?;
        let columns = Arc::clone(operator.output_schema());
        let leaf = self.window_operator(hoisted, &prepare, (operator, &text), operators)?;
        let table = LeafTable::new(leaf, columns).with_rows_guess(rows_guess(&Mode::Rows));
        restore(table, hoisted, outputs, schema)
    }

    /// Adds a window operator over `prepare` to a stage, unless it already has the same one; `text` distinguishes
    /// operators over the same rows. Returns its leaf.
    fn window_operator(
        &mut self,
        hoisted: &Hoisted,
        prepare: &LogicalPlan,
        (operator, text): (WindowOperator, &str),
        operators: &mut Operators,
    ) -> Result<LeafId> {
        let fingerprint = fingerprint::of_plan(&self.optimize(prepare.clone())?)?
            .map(|plan| format!("{:?} {text} {plan}", hoisted.windows));
        if fingerprint.is_some()
            && let Some(at) = operators.fingerprints.iter().position(|known| *known == fingerprint)
            && let Some(same) = operators.nodes.get(at)
        {
            return Ok(same.leaf);
        }
        let input = self.operator_input(prepare, hoisted.lag_ticks, hoisted.unit)?;
        let leaf = self.next_leaf();
        operators.windows.push((leaf, operator.clone()));
        let operator = operator.of_closed();
        operators.nodes.push(OperatorNode { leaf, operator, inputs: vec![input] });
        operators.fingerprints.push(fingerprint);
        Ok(leaf)
    }

    /// The input of an operator: the rows of `prepare`, whose time column lies at most `lag_ticks` behind.
    pub(super) fn operator_input(
        &mut self,
        prepare: &LogicalPlan,
        lag_ticks: i64,
        unit: TimeUnit,
    ) -> Result<OperatorInput> {
        let flow = self.rows_flow(prepare)?;
        let streams = flow.leaves.iter().any(Leaf::is_stream);
        let lateness_ticks = if streams {
            time::nanos_to_ticks(self.lateness_nanos, unit).map_err(refused)?
        } else {
            0
        };
        Ok(OperatorInput { flow, lag_ticks, lateness_ticks })
    }
}

/// Whether `plan` may be a window relation with only row-wise nodes above it.
fn can_hoist(plan: &LogicalPlan) -> Result<bool> {
    Ok(match kind(plan)? {
        Kind::Rows { windowed } => windowed,
        Kind::Windows => is_over_session(plan),
        Kind::Static | Kind::Mixed => false,
    })
}

/// The window operator over the rows of `prepare`.
fn operator(
    hoisted: &Hoisted,
    prepare: &LogicalPlan,
    session_keys: Vec<usize>,
    mode: Mode,
) -> Result<WindowOperator, Error> {
    let schema = Arc::new(prepare.schema().as_arrow().clone());
    Ok(match hoisted.windows {
        Windows::Aligned(window) => {
            let spec = OperatorSpec::try_new(window, 0, schema, mode)?;
            WindowOperator::Aligned(match hoisted.row_ends {
                Some(row_ends) => spec.with_row_ends(row_ends),
                None => spec,
            })
        }
        Windows::Session(session) => {
            let spec = SessionOperatorSpec::try_new(session, session_keys, 0, schema, mode)?;
            WindowOperator::Sessions(spec)
        }
    })
}

/// A rough guess at the rows of a window: it has fewer groups than rows.
fn rows_guess(mode: &Mode) -> usize {
    match mode {
        Mode::Rows => 1 << 20,
        Mode::Aggregate { keys, .. } if keys.is_empty() => 1,
        Mode::Aggregate { .. } => 1 << 14,
    }
}

/// The closed windows of a leaf with the columns `outputs`, named as in `schema`.
fn restore(
    table: LeafTable,
    hoisted: &Hoisted,
    outputs: Vec<Expr>,
    schema: &DFSchema,
) -> Result<LogicalPlan> {
    let name = TableReference::bare(table.id().to_string());
    let mut plan = scan(name.clone(), table)?;
    for condition in &hoisted.conditions {
        plan = plan.filter(at_leaf(condition.clone(), &name)?)?;
    }
    let mut exprs = Vec::with_capacity(outputs.len());
    for (expr, (qualifier, field)) in outputs.into_iter().zip(schema.iter()) {
        exprs.push(named(at_leaf(expr, &name)?, qualifier.cloned(), field.name()));
    }
    plan.project(exprs)?.build()
}

pub(super) fn scan(name: TableReference, table: LeafTable) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(table)), None)
}

/// Whether a plan only filters and projects.
pub(super) fn is_row_wise(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(_) => true,
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().iter().all(|input| is_row_wise(input))
        }
        _ => false,
    }
}

/// The conditions among `filters` that readers can use, over the columns of `schema`.
pub fn predicates(filters: &[Expr], schema: &Schema) -> Vec<Predicate> {
    filters.iter().filter_map(|filter| predicate(filter, schema)).collect()
}

/// `column op literal` (or the reverse) for readers.
fn predicate(expr: &Expr, schema: &Schema) -> Option<Predicate> {
    let Expr::BinaryExpr(binary) = expr else { return None };
    let (column, op, literal) = match (binary.left.as_ref(), binary.right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => (column, binary.op, value),
        (Expr::Literal(value, _), Expr::Column(column)) => (column, binary.op.swap()?, value),
        _ => return None,
    };
    let op = match op {
        Operator::Eq => CmpOp::Eq,
        Operator::NotEq => CmpOp::NotEq,
        Operator::Lt => CmpOp::Lt,
        Operator::LtEq => CmpOp::LtEq,
        Operator::Gt => CmpOp::Gt,
        Operator::GtEq => CmpOp::GtEq,
        _ => return None,
    };
    let index = schema.index_of(&column.name).ok()?;
    let same_type = schema.field(index).data_type() == &literal.data_type();
    if literal.is_null() || !same_type || is_zero(literal) {
        return None;
    }
    Some(Predicate { column: index, op, literal: literal.to_array().ok()? })
}

/// Whether a literal is a floating-point zero: readers distinguish 0.0 and -0.0.
fn is_zero(literal: &ScalarValue) -> bool {
    match literal {
        ScalarValue::Float64(Some(value)) => *value == 0.0,
        ScalarValue::Float32(Some(value)) => *value == 0.0,
        _ => false,
    }
}
