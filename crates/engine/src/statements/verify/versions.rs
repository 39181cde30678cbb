//! The bounded form of a view that joins refreshed tables: a join with such a table becomes one join per version, each of the
//! rows whose event times the version counts for.
//!
//! Invariant: nothing is guessed. Where the event time of the rows of a join is not among their columns, or the join keeps rows
//! of the table that match nothing, the view is not verified.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType};
use datafusion::datasource::{MemTable, provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder, TableScan, cast, lit};
use windrow_core::time::{ticks_per_second, time_unit};
use windrow_core::{Error, Result};
use windrow_query::versions::{OfTable, number_at, refreshed};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::{StreamRelation, WindowAssign};
use windrow_stream::stream::table::outside;

use crate::catalog::Materialized;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Returns the bounded plan of a view with the versions that its query uses.
///
/// # Errors
/// When it cannot be known which rows a version counts for.
pub(super) fn with_versions(view: &Materialized, plan: LogicalPlan) -> Result<LogicalPlan> {
    let Some(versions) = view.query.versions.get() else { return Ok(plan) };
    let tables = versions.shown();
    let replaced = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => joined(join, &tables),
        node => Ok(Transformed::no(node)),
    });
    let plan = replaced.data().map_err(from_datafusion)?;
    match table_in(&plan)? {
        None => Ok(plan),
        Some(table) => Err(Error::sql(format!(
            "view \"{}\" cannot be verified: it does not show which of its rows are joined with which version of table \"{table}\"",
            view.name
        ))
        .with_hint("Join the table with rows that have the event time of their stream, or window_end, as a column.")),
    }
}

/// The name of a refreshed table in a plan.
fn table_in(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = refreshed(scan)
        {
            found = Some(table.name().to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map(|_| found).map_err(from_datafusion)
}

/// Replaces a join of rows with a refreshed table; leaves it where it cannot.
fn joined(join: Join, tables: &[OfTable]) -> datafusion::common::Result<Transformed<LogicalPlan>> {
    let on_the_left = table_in(&join.left).map_err(outside)?.is_some();
    let on_the_right = table_in(&join.right).map_err(outside)?.is_some();
    let keeps_rows_only = match join.join_type {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
            on_the_right
        }
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
            on_the_left
        }
        JoinType::Full => false,
    };
    let rows = if on_the_left { &join.right } else { &join.left };
    if on_the_left == on_the_right || !keeps_rows_only {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    }
    let Some(micros) = micros_of(rows)? else {
        return Ok(Transformed::no(LogicalPlan::Join(join)));
    };
    let mut bounds: Vec<i64> =
        tables.iter().flat_map(|of| of.versions.iter().skip(1).map(|v| v.from_micros)).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let mut inputs = vec![];
    for number in 0..=bounds.len() {
        let from = number.checked_sub(1).and_then(|before| bounds.get(before)).copied();
        let to = bounds.get(number).copied();
        let mut condition = lit(true);
        if let Some(from) = from {
            condition = condition.and(micros.clone().gt_eq(lit(from)));
        }
        if let Some(to) = to {
            // Rows without a time are before all others.
            let mut before = micros.clone().lt(lit(to));
            if from.is_none() {
                before = before.or(micros.clone().is_null());
            }
            condition = condition.and(before);
        }
        let at = from.unwrap_or(i64::MIN);
        let some = |side: &LogicalPlan, is_table: bool| match is_table {
            true => at_version(side.clone(), tables, at),
            false => LogicalPlanBuilder::from(side.clone()).filter(condition.clone())?.build(),
        };
        let left = Arc::new(some(&join.left, on_the_left)?);
        let right = Arc::new(some(&join.right, on_the_right)?);
        inputs.push(LogicalPlan::Join(Join { left, right, ..join.clone() }));
    }
    Ok(Transformed::yes(all_of(inputs, &join)?))
}

/// Returns the rows of all these joins, with the columns of one. A union distinguishes columns only by name.
fn all_of(joins: Vec<LogicalPlan>, one: &Join) -> datafusion::common::Result<LogicalPlan> {
    let columns = one.schema.columns();
    let hidden = |at: usize| format!("__column_{at}");
    let mut all: Option<LogicalPlanBuilder> = None;
    for join in joins {
        let exprs = columns.iter().enumerate();
        let exprs = exprs.map(|(at, column)| Expr::Column(column.clone()).alias(hidden(at)));
        let join = LogicalPlanBuilder::from(join).project(exprs.collect::<Vec<_>>())?;
        all = Some(match all {
            Some(all) => all.union(join.build()?)?,
            None => join,
        });
    }
    let Some(all) = all else { return Ok(LogicalPlan::Join(one.clone())) };
    let exprs = columns.into_iter().enumerate().map(|(at, column)| {
        let hidden = Expr::Column(Column::from_name(hidden(at)));
        hidden.alias_qualified(column.relation, column.name)
    });
    all.project(exprs.collect::<Vec<_>>())?.build()
}

/// Replaces refreshed tables by the versions that count at an event time.
fn at_version(
    plan: LogicalPlan,
    tables: &[OfTable],
    micros: i64,
) -> datafusion::common::Result<LogicalPlan> {
    let replaced = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let of = refreshed(&scan)
            .and_then(|table| tables.iter().find(|of| Arc::ptr_eq(&of.table, &table)));
        let Some(counted) = of.and_then(|of| of.versions.get(number_at(of, micros))) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let rows = vec![counted.version.batches.clone()];
        let source = provider_as_source(Arc::new(MemTable::try_new(scan.source.schema(), rows)?));
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
    });
    replaced.data()
}

/// The event time of rows, in µs since the Unix epoch: the last moment of their window where they are those of windows;
/// `None`: they do not have it.
fn micros_of(rows: &LogicalPlan) -> datafusion::common::Result<Option<Expr>> {
    let aggregates_windows = rows.exists(|node| {
        let has_windows = |node: &LogicalPlan| node.exists(|n| Ok(WindowAssign::of(n).is_some()));
        Ok(matches!(node, LogicalPlan::Aggregate(_)) && has_windows(node)?)
    })?;
    if aggregates_windows {
        return Ok(column(rows, "window_end").and_then(|(column, of)| ticks(column, &of, 1)));
    }
    let mut names = vec![];
    let mut keeps = true;
    rows.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            if let Some(stream) = provider.downcast_ref::<StreamRelation>() {
                let at = stream.event_times().first().map(|time| time.column);
                names.push(at.map(|at| scan.source.schema().field(at).name().clone()));
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let [Some(name)] = names.as_slice() else { return Ok(None) };
    rows.apply(|node| {
        if let LogicalPlan::Projection(projection) = node {
            // Under its name there is no other value.
            keeps &= projection.expr.iter().all(|expr| {
                expr.schema_name().to_string() != *name
                    || matches!(expr, Expr::Column(column) if column.name == *name)
            });
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let found = column(rows, name).filter(|_| keeps);
    Ok(found.and_then(|(column, of)| ticks(column, &of, 0)))
}

/// The column of a plan with this name, and its type; `None` if there is not exactly one.
fn column(plan: &LogicalPlan, name: &str) -> Option<(Expr, DataType)> {
    let mut named = plan.schema().iter().filter(|(_, field)| field.name() == name);
    let (qualifier, field) = named.next()?;
    let column = Column::new(qualifier.cloned(), name);
    named.next().is_none().then(|| (Expr::Column(column), field.data_type().clone()))
}

/// A time, less `before` ticks, in µs since the Unix epoch.
fn ticks(time: Expr, of: &DataType, before: i64) -> Option<Expr> {
    let per_second = ticks_per_second(time_unit(of)?);
    let ticks = cast(time, DataType::Int64) - lit(before);
    Some(match per_second > MICROS_PER_SECOND {
        true => ticks / lit(per_second / MICROS_PER_SECOND),
        false => ticks * lit(MICROS_PER_SECOND / per_second),
    })
}
