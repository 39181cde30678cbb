//! The bounded form: window relations as ordinary DataFusion nodes.
//!
//! TUMBLE becomes a projection; HOP and CUMULATE become a list of window ends per row, unnested; SESSION
//! becomes window functions over the rows of a key in order of time ([`super::session_bounds`]).
//! The optimiser handles all of it: filters are pushed, columns pruned.

use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{
    Column, DataFusionError, Result, ScalarValue, TableReference, UnnestOptions,
};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use windrow_core::{Error, WindowKind, WindowSpec, Windows};

use super::asof::AsofJoin;
use super::asof_bounded;
use super::assign::{BOUNDS, WindowAssign};
use super::bounds::{Bound, bound, windows_per_row};
use super::over_bounded;
use super::pattern::RowPattern;
use super::pattern_bounded;
use super::session_bounds::session_bounds;
use crate::diagnostics::from_datafusion;

/// The most windows of a row in a plan that materialises each of them: more would not fit in memory.
const WINDOWS_PER_ROW_MAX: i64 = 10_000;

/// The column of window ends between the list and the bounds.
const ENDS: &str = "__window_ends";

/// Lowers every [`WindowAssign`] to ordinary nodes; nothing of ours remains.
///
/// # Errors
/// When a row would have more windows than can be materialised.
pub fn bounded(plan: LogicalPlan) -> Result<LogicalPlan, Error> {
    lower_all(plan).map_err(from_datafusion)
}

/// [`bounded`], with DataFusion's error.
pub(crate) fn lower_all(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| lower_node(node).map(Transformed::yes)).data()
}

fn lower_node(node: LogicalPlan) -> Result<LogicalPlan> {
    if let Some(assign) = WindowAssign::of(&node) {
        return lower(assign, assign.input().clone());
    }
    if let Some(join) = AsofJoin::of(&node) {
        return asof_bounded::lower(join, join.left.clone(), join.right.clone());
    }
    if let Some(pattern) = RowPattern::of(&node) {
        return pattern_bounded::lower(pattern, pattern.input.clone());
    }
    // DataFusion may infer a nullable bound where the node declares that it is not.
    let node = node.recompute_schema()?;
    if let LogicalPlan::Window(window) = &node
        && let Some(lowered) = over_bounded::with_columns(window)?
    {
        return Ok(lowered);
    }
    Ok(node)
}

/// A window relation over `input` as ordinary nodes, with the same columns.
pub(crate) fn lower(assign: &WindowAssign, input: LogicalPlan) -> Result<LogicalPlan> {
    let kept: Vec<Expr> = assign
        .kept()
        .map(|i| Expr::Column(Column::from(input.schema().qualified_field(i))))
        .collect();
    let time = Expr::Column(assign.time().clone());
    let (time_type, _) = assign.time_type()?;
    // Excludes NULL, and every time whose windows cannot be represented in 64 bits.
    let valid = assign.windows().valid_times();
    let tick = |ticks: i64| -> Result<Expr> {
        Ok(lit(ScalarValue::Int64(Some(ticks)).cast_to(&time_type)?))
    };
    let rows = LogicalPlanBuilder::from(input)
        .filter(time.clone().between(tick(*valid.start())?, tick(*valid.end())?))?;
    let (rows, bounds) = match assign.windows() {
        Windows::Aligned(spec) => aligned(spec, rows, &kept, time)?,
        Windows::Session(session) => {
            let bounds = session_bounds(session, &time, &assign.session_keys()?);
            let columns = bounds.each_ref().map(|bound| {
                Expr::Column(Column::new_unqualified(bound.schema_name().to_string()))
            });
            (rows.window(bounds)?, columns)
        }
    };
    let qualifier = assign.qualifier();
    let bounds =
        BOUNDS.iter().zip(bounds).map(|(name, expr)| named(expr, qualifier.cloned(), name));
    rows.project(kept.into_iter().chain(bounds))?.build()
}

/// The rows, once per window, and the bounds in terms of their columns.
fn aligned(
    spec: WindowSpec,
    rows: LogicalPlanBuilder,
    kept: &[Expr],
    time: Expr,
) -> Result<(LogicalPlanBuilder, [Expr; 3])> {
    if windows_per_row(spec) > WINDOWS_PER_ROW_MAX {
        return Err(DataFusionError::External(Box::new(
            Error::sql(format!(
                "each row would be in {} windows, more than {WINDOWS_PER_ROW_MAX}",
                windows_per_row(spec)
            ))
            .with_hint("Choose a longer slide or step, or a shorter size."),
        )));
    }
    if let WindowKind::Tumble { .. } = spec.kind() {
        let bounds = [Bound::TumbleStart, Bound::TumbleEnd, Bound::TumbleTime];
        return Ok((rows, bounds.map(|which| bound(spec, which, time.clone()))));
    }
    let list = bound(spec, Bound::Ends, time).alias(ENDS);
    let options = UnnestOptions::new().with_preserve_nulls(false);
    let rows = rows
        .project(kept.iter().cloned().chain([list]))?
        .unnest_column_with_options(Column::new_unqualified(ENDS), options)?;
    let end = Expr::Column(Column::new_unqualified(ENDS));
    let start = bound(spec, Bound::StartOfEnd, end.clone());
    Ok((rows, [start, end.clone(), bound(spec, Bound::TimeOfEnd, end)]))
}

/// `expr` with this name and optional qualifier.
pub(crate) fn named(expr: Expr, qualifier: Option<TableReference>, name: &str) -> Expr {
    match &expr {
        Expr::Column(column) if column.relation == qualifier && column.name == name => expr,
        _ => expr.alias_qualified(qualifier, name),
    }
}
