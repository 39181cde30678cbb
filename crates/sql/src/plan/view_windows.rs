//! The windows that the rows of a view came with.
//!
//! A view of windows has a column that identifies each row's window: its end, its last tick or its start. All rows of a
//! window have arrived when the watermark of the view has reached its end. So rows of one end are kept together as
//! those of a window of a single tick, the last one of the row's window, and the query above needs no TUMBLE of its
//! own.

use std::sync::Arc;

use arrow::datatypes::TimeUnit;
use datafusion::common::{Column, Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, TableScan, TableScanBuilder, lit,
};
use windrow_core::{WindowKind, WindowSpec, time};
use windrow_operators::RowEnds;

use super::bounds::{Bound, bound};
use super::relation::{EventTime, StreamRelation, ToEnd};

/// The column of the last ticks of windows.
const LAST_TICK: &str = "__last_tick";

/// The rows of a view, with the last tick of each row's window.
#[derive(Debug)]
pub(crate) struct ViewWindows {
    /// The rows and the last ticks.
    pub(crate) rows: LogicalPlan,
    /// The last ticks, in `rows`.
    pub(crate) time: Column,
    /// Windows of one tick.
    pub(crate) windows: WindowSpec,
    /// The unit of the time.
    pub(crate) unit: TimeUnit,
    /// How far the time may lie behind the watermark.
    pub(crate) lag_ticks: i64,
    /// How the end of a window follows from the first event time of the view.
    pub(crate) row_ends: RowEnds,
}

/// The rows of the view `relation` as windows, with the columns of `scan` first; `None` if it has no windows.
pub(crate) fn of_scan(scan: &TableScan, relation: &StreamRelation) -> Result<Option<ViewWindows>> {
    let (Some((known, to_end)), Some(first)) =
        (relation.window(), relation.event_times().first().and_then(|first| first.to_end))
    else {
        return Ok(None);
    };
    let all = || (0..scan.source.schema().fields().len()).collect();
    let mut projection: Vec<usize> = scan.projection.clone().unwrap_or_else(all);
    if !projection.contains(&known.column) {
        projection.push(known.column);
    }
    let at = projection.iter().position(|column| *column == known.column).unwrap_or_default();
    let rows = TableScanBuilder::new(scan.table_name.clone(), Arc::clone(&scan.source))
        .with_projection(Some(projection))
        .build()
        .map(LogicalPlan::TableScan)?;
    let column = Column::from(rows.schema().qualified_field(at));
    let time_type = rows.schema().field(at).data_type().clone();
    let Some(unit) = time::time_unit(&time_type) else {
        return plan_err!("the end of a window is {time_type}, not a timestamp");
    };
    let last_tick = last_tick(Expr::Column(column), to_end, unit)?;
    let columns = rows.schema().columns().into_iter().map(Expr::Column);
    let exprs: Vec<Expr> = columns.chain([last_tick.alias(LAST_TICK)]).collect();
    let windows =
        WindowSpec::try_new(WindowKind::Tumble { size: 1 }, 0).map_err(super::shape::refused)?;
    Ok(Some(ViewWindows {
        rows: LogicalPlanBuilder::from(rows).project(exprs)?.build()?,
        time: Column::new_unqualified(LAST_TICK),
        windows,
        unit,
        lag_ticks: lag_of_end(known, to_end),
        row_ends: match first {
            ToEnd::Ticks(ticks) => RowEnds::After(ticks),
            ToEnd::CalendarWindow(windows) => RowEnds::Starts(windows),
        },
    }))
}

/// The last tick of a row's window, computed from a column that determines its end.
fn last_tick(column: Expr, to_end: ToEnd, unit: TimeUnit) -> Result<Expr> {
    Ok(match to_end {
        ToEnd::CalendarWindow(windows) => bound(windows, Bound::TumbleTime, column),
        ToEnd::Ticks(0) => {
            let windows = WindowSpec::try_new(WindowKind::Tumble { size: 1 }, 0);
            bound(windows.map_err(super::shape::refused)?, Bound::TimeOfEnd, column)
        }
        ToEnd::Ticks(1) => column,
        ToEnd::Ticks(ticks) => {
            let per_tick = 1_000_000_000 / time::ticks_per_second(unit);
            let Some(nanos) = (ticks - 1).checked_mul(per_tick) else {
                return plan_err!("a window of {ticks} ticks is too long");
            };
            let length = lit(ScalarValue::new_interval_mdn(0, 0, nanos));
            Expr::BinaryExpr(BinaryExpr::new(Box::new(column), Operator::Plus, Box::new(length)))
        }
    })
}

/// How far the ends of windows may lie behind the watermark, given the column `known`.
fn lag_of_end(known: &EventTime, to_end: ToEnd) -> i64 {
    match to_end {
        ToEnd::Ticks(0 | 1) => known.lag_ticks,
        ToEnd::Ticks(ticks) => known.lag_ticks.saturating_sub(ticks).max(0),
        ToEnd::CalendarWindow(windows) => known.lag_ticks.saturating_sub(windows.size()).max(0),
    }
}
