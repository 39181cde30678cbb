//! The event-time properties of the columns of a plan. They pass through renames, filters, projections, joins and
//! unions, and end at any computation.

use std::sync::Arc;

use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, GroupingSet, Join, LogicalPlan};

use windrow_core::Windows;

use super::asof::{self, AsofJoin};
use super::assign::WindowAssign;
use super::interval::{self, Interval};
use super::known::at;
pub(crate) use super::known::{Known, of_column, of_expr};
use super::pattern::{self, RowPattern};
use super::relation::ToEnd;
use super::{over, stream_of};

/// The join as an interval join; `None` if it is not one.
///
/// # Errors
/// Those of the plan.
pub(crate) fn interval(join: &Join) -> Result<Option<Interval>> {
    if !interval::joins_streams(join) {
        return Ok(None);
    }
    let (left, right) = (columns(&join.left)?, columns(&join.right)?);
    Ok(interval::among(join, &left, &right))
}

/// The properties of each column of `plan`, in the order of its schema.
#[recursive::recursive]
pub(crate) fn columns(plan: &LogicalPlan) -> Result<Vec<Known>> {
    let nothing = || vec![Known::default(); plan.schema().fields().len()];
    let mut known = match plan {
        LogicalPlan::TableScan(scan) => {
            let mut known = nothing();
            if let Some(relation) = stream_of(scan) {
                for time in relation.event_times() {
                    let at = match &scan.projection {
                        Some(kept) => kept.iter().position(|column| *column == time.column),
                        None => Some(time.column),
                    };
                    if let Some(slot) = at.and_then(|i| known.get_mut(i)) {
                        slot.lag = Some(time.lag_ticks);
                        slot.to_end = time.to_end.filter(|_| relation.window().is_some());
                    }
                }
            }
            known
        }
        LogicalPlan::Projection(p) => of_exprs(p.expr.iter(), &p.input)?,
        LogicalPlan::Distinct(Distinct::On(on)) => of_exprs(on.select_expr.iter(), &on.input)?,
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => match plan.inputs().first() {
            Some(input) => columns(input)?,
            None => vec![],
        },
        LogicalPlan::Window(window) => {
            let input = columns(&window.input)?;
            match over::among(window, &input) {
                Some(over) => over::known(window, &over),
                None => input,
            }
        }
        LogicalPlan::Aggregate(aggregate) => of_aggregate(aggregate)?,
        LogicalPlan::Join(join) => {
            let nullable = |known: Vec<Known>| vec![Known::default(); known.len()];
            let (left, right) = (columns(&join.left)?, columns(&join.right)?);
            if let Some(interval) = interval::among(join, &left, &right) {
                return Ok(interval::known(join, &interval, [&left, &right]));
            }
            let (left, right) = match join.join_type {
                JoinType::Inner => (left, right),
                JoinType::Left => (left, nullable(right)),
                JoinType::Right => (nullable(left), right),
                JoinType::Full => (nullable(left), nullable(right)),
                JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => (left, vec![]),
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => (vec![], right),
            };
            left.into_iter().chain(right).collect()
        }
        LogicalPlan::Union(union) => of_union(&union.inputs)?,
        LogicalPlan::Unnest(unnest) => {
            let input = columns(&unnest.input)?;
            unnest
                .dependency_indices
                .iter()
                .map(|from| {
                    let exploded = unnest.list_type_columns.iter().any(|(i, _)| i == from)
                        || unnest.struct_type_columns.contains(from);
                    if exploded { Known::default() } else { at(&input, *from) }
                })
                .collect()
        }
        LogicalPlan::Extension(_) => match WindowAssign::of(plan) {
            Some(assign) => of_assign(assign)?,
            None => match (AsofJoin::of(plan), RowPattern::of(plan)) {
                (Some(join), _) => asof::known(join),
                (_, Some(found)) => pattern::known(found),
                (None, None) => nothing(),
            },
        },
        _ => nothing(),
    };
    known.resize(plan.schema().fields().len(), Known::default());
    Ok(known)
}

fn of_exprs<'a>(
    exprs: impl Iterator<Item = &'a Expr>,
    input: &Arc<LogicalPlan>,
) -> Result<Vec<Known>> {
    let known = columns(input)?;
    Ok(exprs.map(|expr| of_expr(&known, input, expr)).collect())
}

/// A key keeps its properties, unless a grouping set makes it NULL.
fn of_aggregate(aggregate: &Aggregate) -> Result<Vec<Known>> {
    let known = columns(&aggregate.input)?;
    let sets = grouping_sets(aggregate);
    let keys = grouping_set_to_exprlist(&aggregate.group_expr)?;
    Ok(keys
        .into_iter()
        .map(|key| match &sets {
            Some(sets) if !sets.iter().all(|set| set.contains(key)) => Known::default(),
            _ => of_expr(&known, &aggregate.input, key),
        })
        .collect())
}

/// The grouping sets, expanded, if there are any.
pub(crate) fn grouping_sets(aggregate: &Aggregate) -> Option<Vec<Vec<Expr>>> {
    let [Expr::GroupingSet(set)] = aggregate.group_expr.as_slice() else { return None };
    Some(match set {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(keys) => {
            (0..=keys.len()).rev().map(|n| keys.iter().take(n).cloned().collect()).collect()
        }
        GroupingSet::Cube(keys) => (0..1_u64 << keys.len().min(20))
            .rev()
            .map(|bits| {
                let kept = keys.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
                kept.map(|(_, key)| key.clone()).collect()
            })
            .collect(),
    })
}

fn of_union(inputs: &[Arc<LogicalPlan>]) -> Result<Vec<Known>> {
    let mut merged: Option<Vec<Known>> = None;
    for input in inputs {
        let known = columns(input)?;
        merged = Some(match merged {
            None => known,
            Some(before) => before
                .into_iter()
                .zip(known)
                .map(|(a, b)| Known {
                    to_end: a.to_end.filter(|end| b.to_end == Some(*end)),
                    lag: a.lag.zip(b.lag).map(|(a, b)| a.max(b)),
                })
                .collect(),
        });
    }
    Ok(merged.unwrap_or_default())
}

/// Rows are returned when their session ends, however old they are: only its end follows the watermark.
fn of_session(assign: &WindowAssign, lag: Option<i64>) -> Vec<Known> {
    let rows = assign.kept().map(|_| Known::default());
    let ends = [0, 1].map(|ticks| Known { to_end: Some(ToEnd::Ticks(ticks)), lag });
    let bounds = [Known::default()].into_iter().chain(ends);
    rows.chain(bounds).collect()
}

/// The new windows are those of the rows; older bounds remain event times.
fn of_assign(assign: &WindowAssign) -> Result<Vec<Known>> {
    let input = columns(assign.input())?;
    let lag = of_column(&input, assign.input(), assign.time()).lag;
    let spec = match assign.windows() {
        Windows::Aligned(spec) => spec,
        Windows::Session(_) => return Ok(of_session(assign, lag)),
    };
    let size = spec.size();
    let kept = assign.kept().map(|i| Known { to_end: None, ..at(&input, i) });
    let start_to_end = match spec.calendar() {
        None => ToEnd::Ticks(size),
        Some(_) => ToEnd::CalendarWindow(spec),
    };
    let bounds = [
        Known {
            to_end: spec.start_determines_end().then_some(start_to_end),
            lag: lag.map(|lag| lag.saturating_add(size)),
        },
        Known { to_end: Some(ToEnd::Ticks(0)), lag },
        Known { to_end: Some(ToEnd::Ticks(1)), lag },
    ];
    Ok(kept.chain(bounds).collect())
}
