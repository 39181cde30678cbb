//! Turns an aggregate over windows into a window operator that keeps partial aggregates.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, Result, ScalarValue, TableReference};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, lit, when};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use windrow_operators::{AggregateCall, GroupingSets, Mode};

use super::hoist::{Hoisted, Rewritten, hoist};
use super::lineage;
use super::shape::refused;

/// The name of the time column in prepared batches.
pub(crate) const TIME: &str = "time";

/// The columns of a prepared batch: the time, then each expression once.
#[derive(Debug)]
pub(crate) struct Prepared {
    exprs: Vec<Expr>,
}

impl Prepared {
    /// The time column alone.
    pub(crate) fn new(time: Column) -> Self {
        Self { exprs: vec![Expr::Column(time)] }
    }

    /// A column that is never NULL in place of the time.
    pub(crate) fn without_time() -> Self {
        Self { exprs: vec![lit(true)] }
    }

    /// The index of the column for `expr`, which is added if it is new.
    pub(crate) fn add(&mut self, expr: Expr) -> usize {
        let expr = expr.unalias();
        let found = self.exprs.iter().position(|known| *known == expr);
        // Two calls of random() return two values.
        if let Some(index) = found.filter(|_| !expr.is_volatile()) {
            return index;
        }
        self.exprs.push(expr);
        self.exprs.len() - 1
    }

    /// The indexes of the columns for `keys`, each key once.
    pub(crate) fn add_keys(&mut self, keys: &[Expr]) -> Vec<usize> {
        let mut columns: Vec<usize> = keys.iter().map(|key| self.add(key.clone())).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The name of a column.
    pub(crate) fn name(index: usize) -> String {
        if index == 0 { TIME.to_owned() } else { format!("c{index}") }
    }

    /// The plan that prepares these columns from `rows`.
    pub(crate) fn plan(self, rows: LogicalPlan) -> Result<LogicalPlan> {
        let exprs = self.exprs.into_iter().enumerate().map(|(i, e)| e.alias(Self::name(i)));
        LogicalPlanBuilder::from(rows).project(exprs)?.build()
    }
}

/// An aggregate as a window operator.
#[derive(Debug)]
pub(crate) struct WindowAggregate {
    /// The plan below the window, and its conditions on windows.
    pub(crate) hoisted: Hoisted,
    /// The plan that prepares the operator's input; its columns are the time, the keys, the arguments, the filters.
    pub(crate) prepare: LogicalPlan,
    /// The columns of `prepare` that separate sessions.
    pub(crate) session_keys: Vec<usize>,
    /// Whether the operator aggregates or keeps rows.
    pub(crate) mode: Mode,
    /// The aggregate's columns in terms of the operator's output and of bounds.
    pub(crate) outputs: Vec<Expr>,
    /// The aggregate calls as text, for comparing operators.
    pub(crate) calls: String,
}

/// Makes a window operator of an aggregate over windowed rows; `None` when the rows themselves must be kept: for an
/// ORDER BY inside of an aggregate, bounds mixed into its expressions, functions without a state that can be merged, or
/// groups that are not one per session.
///
/// # Errors
/// When DataFusion cannot build an expression.
pub(crate) fn window_aggregate(
    state: &SessionState,
    aggregate: &Aggregate,
    names: &mut usize,
) -> Result<Option<WindowAggregate>> {
    let Some(hoisted) = hoist(&aggregate.input, names)? else { return Ok(None) };
    let mut prepared = Prepared::new(hoisted.time.clone());
    let schema = aggregate.input.schema();
    // The aggregate's keys, each a column of the operator or an expression over bounds.
    let group_exprs: Vec<Expr> =
        grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let mut outputs = vec![];
    let mut keys: Vec<usize> = vec![];
    let mut key_of_group: Vec<Option<usize>> = vec![];
    let mut rewritten = Vec::with_capacity(group_exprs.len());
    for expr in &group_exprs {
        rewritten.push(hoisted.rewrite(expr, schema)?);
    }
    for expr in rewritten {
        match expr {
            Rewritten::Mixed => return Ok(None),
            Rewritten::Bound(expr) => {
                key_of_group.push(None);
                outputs.push(expr.unalias());
            }
            Rewritten::Row(expr) => {
                let column = prepared.add(expr);
                let key = keys.iter().position(|k| *k == column).unwrap_or_else(|| {
                    keys.push(column);
                    keys.len() - 1
                });
                key_of_group.push(Some(key));
                outputs.push(operator_column(Prepared::name(column)));
            }
        }
    }
    let grouping_sets = match lineage::grouping_sets(aggregate) {
        None => None,
        Some(sets) => {
            let Some((masks, id)) = grouping(&sets, &group_exprs, &key_of_group, keys.len())?
            else {
                return Ok(None);
            };
            outputs.push(id);
            Some(masks)
        }
    };
    let row = |expr: &Expr| {
        Ok(match hoisted.rewrite(expr, schema)? {
            Rewritten::Row(expr) => Some(expr),
            Rewritten::Bound(_) | Rewritten::Mixed => None,
        })
    };
    let Some(calls) = calls(aggregate, &row, &mut prepared)? else { return Ok(None) };
    outputs.extend((0..calls.len()).map(|i| operator_column(format!("a{i}"))));
    let session_keys = prepared.add_keys(&hoisted.session_keys);
    if hoisted.has_sessions() {
        let same =
            keys.len() == session_keys.len() && keys.iter().all(|key| session_keys.contains(key));
        if !same || grouping_sets.is_some() {
            return Ok(None);
        }
    }
    let texts: Vec<String> = calls.iter().map(Call::text).collect();
    let prepare = prepared.plan(hoisted.inner.clone())?;
    let mut aggregates = Vec::with_capacity(calls.len());
    for (i, call) in calls.into_iter().enumerate() {
        aggregates.push(call.build(state, prepare.schema(), &format!("a{i}"))?);
    }
    let calls = format!("{keys:?} {grouping_sets:?} {texts:?}");
    let calls = session_text(&session_keys, &calls);
    let mode = Mode::Aggregate { keys, grouping_sets, aggregates };
    Ok(Some(WindowAggregate { hoisted, prepare, session_keys, mode, outputs, calls }))
}

/// The session keys and the contents of windows as text, for comparing operators.
pub(crate) fn session_text(session_keys: &[usize], kept: &str) -> String {
    if session_keys.is_empty() { kept.to_owned() } else { format!("per {session_keys:?} {kept}") }
}

/// A column of the operator.
pub(crate) fn operator_column(name: String) -> Expr {
    Expr::Column(Column::new(Some(TableReference::bare(OPERATOR)), name))
}

/// The qualifier of the operator's columns in [`WindowAggregate::outputs`].
pub(crate) const OPERATOR: &str = "__operator";

/// The grouping sets as masks over the operator's keys, and DataFusion's grouping id in terms of the operator's. The
/// two ids differ in the bits of bounds, which are no keys of the operator. `None` when a set omits a bound.
pub(crate) fn grouping(
    sets: &[Vec<Expr>],
    group_exprs: &[Expr],
    key_of_group: &[Option<usize>],
    keys: usize,
) -> Result<Option<(GroupingSets, Expr)>> {
    let mut masks = vec![];
    let mut ids = vec![];
    let mut seen: Vec<Vec<bool>> = vec![];
    for set in sets {
        let absent: Vec<bool> = group_exprs.iter().map(|expr| !set.contains(expr)).collect();
        let mut mask = vec![false; keys];
        for (absent, key) in absent.iter().zip(key_of_group) {
            match key {
                None if *absent => return Ok(None),
                None => {}
                Some(key) => {
                    if let Some(slot) = mask.get_mut(*key) {
                        *slot |= *absent;
                    }
                }
            }
        }
        let ordinal = seen.iter().filter(|before| **before == absent).count();
        let bits = absent.iter().fold(0_u64, |id, absent| (id << 1) | u64::from(*absent));
        ids.push((ordinal, bits));
        seen.push(absent);
        masks.push(mask);
    }
    let ordinal_max = ids.iter().map(|(ordinal, _)| *ordinal).max().unwrap_or(0);
    let id_type = Aggregate::grouping_id_type(group_exprs.len(), ordinal_max);
    let sets = GroupingSets::try_new(masks.clone()).map_err(refused)?;
    let own = operator_column(Aggregate::INTERNAL_GROUPING_ID.to_owned());
    let mut remapped: Option<datafusion::logical_expr::conditional_expressions::CaseBuilder> = None;
    let mut last = lit(id_literal(&id_type, 0)?);
    for (mask, (ordinal, bits)) in masks.iter().zip(&ids) {
        let operator_bits = mask.iter().fold(0_u64, |id, null| (id << 1) | u64::from(*null));
        let operator_id = shifted(*ordinal, keys) | operator_bits;
        let id = shifted(*ordinal, group_exprs.len()) | bits;
        let operator_id = lit(id_literal(sets.id_field().data_type(), operator_id)?);
        last = lit(id_literal(&id_type, id)?);
        let condition = own.clone().eq(operator_id);
        remapped = Some(match remapped {
            None => when(condition, last.clone()),
            Some(mut case) => case.when(condition, last.clone()),
        });
    }
    let id = match remapped {
        None => last,
        Some(mut case) => case.otherwise(last)?,
    };
    Ok(Some((sets, id)))
}

fn shifted(ordinal: usize, bits: usize) -> u64 {
    u32::try_from(bits).ok().and_then(|bits| (ordinal as u64).checked_shl(bits)).unwrap_or(0)
}

fn id_literal(id_type: &DataType, id: u64) -> Result<ScalarValue> {
    ScalarValue::UInt64(Some(id)).cast_to(id_type)
}

/// One aggregate call over prepared columns.
pub(crate) struct Call {
    function: AggregateFunction,
    arguments: Vec<usize>,
    filter: Option<usize>,
}

/// The calls of an aggregate; `None` if one of them needs the rows themselves. `row` rewrites an expression over prepared
/// rows, if possible.
pub(crate) fn calls(
    aggregate: &Aggregate,
    row: &dyn Fn(&Expr) -> Result<Option<Expr>>,
    prepared: &mut Prepared,
) -> Result<Option<Vec<Call>>> {
    let mut calls = vec![];
    for expr in &aggregate.aggr_expr {
        let Expr::AggregateFunction(function) = expr.clone().unalias() else { return Ok(None) };
        if !function.params.order_by.is_empty() {
            return Ok(None);
        }
        let counts_rows = function.func.name() == "count" && !function.params.distinct;
        let mut args = Vec::with_capacity(function.params.args.len());
        let mut arguments = vec![];
        for arg in &function.params.args {
            let Some(arg) = row(arg)? else { return Ok(None) };
            let index = match &arg {
                // count(*): the time is a column that always exists and is never NULL.
                Expr::Literal(value, _) if counts_rows && !value.is_null() => 0,
                _ => prepared.add(arg.clone()),
            };
            let column = Expr::Column(Column::new_unqualified(Prepared::name(index)));
            // Functions read constant arguments (a percentile, a separator) when they are built.
            args.push(if index > 0 && matches!(arg, Expr::Literal(..)) { arg } else { column });
            arguments.push(index);
        }
        let filter = match &function.params.filter {
            None => None,
            Some(filter) => {
                let Some(filter) = row(filter)? else { return Ok(None) };
                Some(prepared.add(filter))
            }
        };
        let params = AggregateFunctionParams { args, filter: None, ..function.params };
        let function = AggregateFunction { func: function.func, params };
        calls.push(Call { function, arguments, filter });
    }
    Ok(Some(calls))
}

impl Call {
    fn text(&self) -> String {
        format!("{:?} {:?} {:?}", self.function, self.arguments, self.filter)
    }

    /// Builds it over the prepared columns.
    pub(crate) fn build(
        self,
        state: &SessionState,
        prepared: &DFSchema,
        name: &str,
    ) -> Result<AggregateCall> {
        let expr = Expr::AggregateFunction(self.function);
        let lowered = LoweredAggregateBuilder::new(
            &expr,
            prepared,
            prepared.as_arrow(),
            state.execution_props(),
            &PhysicalPlanningContext::default(),
        )
        .with_name(name)
        .build()?;
        Ok(AggregateCall {
            function: Arc::clone(&lowered.aggregate),
            arguments: self.arguments,
            filter: self.filter,
        })
    }
}
