//! `FILL(…, fill => 'linear')`: values between the window before a gap and the one after it.
//!
//! The rows with their gaps ([`super::fill`]) are joined, ASOF and forward, with the windows again: a row that fills a gap
//! waits for the next window of its key, or until it is too late for one. Both forms follow from that join.
//!
//! Invariant: a gap is interpolated as a whole or not at all: only where no window of it is missing.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarUDF, cast, lit, when};

use super::asof::{AsofJoin, Bounds};
use super::fill::{FILLED, NEWEST};
use super::interpolated::{Interpolated, is_number};

/// The prefix of the columns of the next window.
const NEXT: &str = "__next_";

/// What is interpolated.
pub(super) struct Gaps<'a> {
    /// The names of the keys.
    pub(super) keys: &'a [String],
    /// The names of the columns that are neither keys nor bounds of the window.
    pub(super) values: &'a [&'a String],
    /// The time of a window.
    pub(super) at: &'a str,
    /// The size of the windows, and the largest gap, in ticks.
    pub(super) size: i64,
    pub(super) ttl: i64,
}

fn named(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

fn next(name: &str) -> Column {
    Column::from_name(format!("{NEXT}{name}"))
}

/// Returns the rows of `filled`, whose gaps have the values of the row before, with those between them and the next row of
/// `windows`. The output has the columns `output`, and whether a row fills a gap.
pub(super) fn plan(
    filled: LogicalPlan,
    windows: LogicalPlan,
    output: &[String],
    gaps: &Gaps<'_>,
) -> Result<LogicalPlan> {
    let Gaps { keys, values, at, size, ttl } = *gaps;
    let is_needed = |name: &String| keys.contains(name) || values.contains(&name) || name == at;
    let columns = windows.schema().columns();
    let needed = columns.into_iter().filter(|column| is_needed(&column.name));
    let needed = needed.map(|column| {
        let alias = next(&column.name).name;
        Expr::Column(column).alias(alias)
    });
    let windows = LogicalPlanBuilder::from(windows).project(needed.collect::<Vec<_>>())?.build()?;
    let mut on = vec![];
    for key in keys {
        let of = filled.schema().field_with_unqualified_name(key)?.data_type().clone();
        let (left, right) = (named(key), Expr::Column(next(key)));
        // NULL is a key like others.
        on.push((left.clone().is_null(), right.clone().is_null()));
        let default = ScalarValue::new_default(&of)?;
        let known = |key: Expr| coalesce(vec![key, lit(default.clone())]);
        on.push((known(left), known(right)));
    }
    let types: Vec<DataType> = output
        .iter()
        .map(|name| Ok(filled.schema().field_with_unqualified_name(name)?.data_type().clone()))
        .collect::<Result<_>>()?;
    let times = [Column::from_name(at), next(at)];
    let bounds = Bounds { lower: Some(ttl.saturating_neg()), upper: Some(0) };
    let joined = AsofJoin::try_new([filled, windows], on, times, bounds, true)?.into_plan();
    let ticks = |from: Expr, to: Expr| {
        (cast(to, DataType::Int64) - cast(from, DataType::Int64)) / lit(size)
    };
    let whole = ticks(named(NEWEST), Expr::Column(next(at)));
    let part = ticks(named(NEWEST), named(at));
    // One window more than fit into the gap.
    let is_whole = whole.clone().lt_eq(lit(ttl / size + 1));
    let interpolated = Arc::new(ScalarUDF::new_from_impl(Interpolated::new()));
    let mut exprs = vec![];
    for (name, of) in output.iter().zip(types) {
        if !values.contains(&name) {
            exprs.push(named(name));
            continue;
        }
        let mut own = when(!named(FILLED), named(name));
        exprs.push(match is_number(&of) {
            false => own.end()?.alias(name),
            true => {
                let between =
                    vec![named(name), Expr::Column(next(name)), part.clone(), whole.clone()];
                let between = interpolated.call(between);
                let between = when(is_whole.clone(), between).end()?;
                own.otherwise(between)?.alias(name)
            }
        });
    }
    exprs.push(named(FILLED));
    LogicalPlanBuilder::from(joined).project(exprs)?.build()
}
