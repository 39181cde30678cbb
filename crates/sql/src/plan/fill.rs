//! `FROM FILL(windows PARTITION BY key, window_time, size, ttl)`: the rows of windows, and one row for each key and
//! window that have none, up to `ttl` after the last row of the key.
//!
//! A gap is filled by a sliding window over the rows of windows, which ends with each window and begins `ttl` before
//! its start. A key has a row in it exactly if the last window must have one, and its newest row is the one before the
//! gap. So both forms, checkpoints and everything else are those of sliding windows.

use arrow::datatypes::TimeUnit;
use datafusion::common::{Column, DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit, when};
use sqlparser::tokenizer::Span;
use windrow_core::{Error, WindowKind, WindowSpec, Windows, time};

use super::assign::{WINDOW_END, WINDOW_START, WINDOW_TIME, WindowAssign};
use super::fill_linear::{self, Gaps};
use super::lengths::Length;
use super::tvf::error;

/// The output column that says whether a row fills a gap.
pub(super) const FILLED: &str = "filled";
/// The time of the newest row of a key.
pub(super) const NEWEST: &str = "__newest";

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The arguments of FILL.
pub(super) struct Filling {
    /// The columns of PARTITION BY: gaps are filled per key.
    pub(super) keys: Vec<Expr>,
    /// What gaps are filled with.
    pub(super) with: With,
    /// The size of the windows, and how long after its last row a key is filled.
    pub(super) lengths: Vec<Option<(Length, Span)>>,
    /// The span of FILL.
    pub(super) span: Span,
}

/// What gaps are filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    /// NULL.
    Null,
    /// The row before.
    Previous,
    /// What lies between the rows before and after.
    Linear,
}

/// Plans FILL over the rows of `input`, whose windows are identified by the time `at`, which is in `unit`.
pub(super) fn plan(
    input: LogicalPlan,
    at: &Column,
    unit: TimeUnit,
    filling: Filling,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let Filling { keys, with, lengths, span } = filling;
    if [WINDOW_START, WINDOW_END].contains(&at.name.as_str()) {
        let e = Error::sql(format!("FILL goes over window_time, not {}", at.name));
        let hint = "Add window_time to SELECT and GROUP BY of its input.";
        return Err(error(e.with_hint(hint), Some(span)));
    }
    let (size, ttl) = ticks(&lengths, unit)?;
    let kind = WindowKind::Hop { slide: size, size: size.saturating_add(ttl) };
    let windows = WindowSpec::try_new(kind, 0).map_err(|e| error(e, Some(span)))?;
    let names: Vec<String> = input.schema().fields().iter().map(|f| f.name().clone()).collect();
    let keys = keys.iter().map(|key| key_name(key, span)).collect::<Result<Vec<String>>>()?;
    if names.iter().any(|name| name == FILLED) {
        let e = Error::sql(format!("the input of FILL has a column \"{FILLED}\" already"));
        return Err(error(e.with_hint("Rename it in a subquery."), Some(span)));
    }
    let is_bound = |name: &String| [WINDOW_START, WINDOW_END, WINDOW_TIME].contains(&name.as_str());
    let is_value = |name: &&String| !is_bound(name) && !keys.contains(name) && **name != at.name;
    let rows = input.schema().columns().into_iter().zip(&names);
    let rows = rows.filter(|(_, name)| is_value(name) || keys.contains(name));
    let mut rows: Vec<Expr> = rows.map(|(column, name)| Expr::Column(column).alias(name)).collect();
    rows.push(Expr::Column(at.clone()).alias(NEWEST));
    let whole = (with == With::Linear).then(|| input.clone());
    let rows = LogicalPlanBuilder::from(input).project(rows)?.build()?;
    let newest = Column::from_name(NEWEST);
    let sliding = WindowAssign::with_qualifier(rows, newest, Windows::Aligned(windows), None)?;
    let aggregate = |name: &str| {
        let function = context.context_provider().get_aggregate_meta(name);
        function.ok_or_else(|| error(Error::internal(format!("there is no {name}")), None))
    };
    let (max_by, max) = (aggregate("max_by")?, aggregate("max")?);
    let named = |name: &str| Expr::Column(Column::from_name(name));
    let group = [WINDOW_START, WINDOW_END, WINDOW_TIME].into_iter().map(named);
    let group = group.chain(keys.iter().map(|key| named(key)));
    let values = names.iter().filter(is_value);
    let values = values.map(|name| max_by.call(vec![named(name), named(NEWEST)]).alias(name));
    let values = values.chain([max.call(vec![named(NEWEST)]).alias(NEWEST)]);
    let newest = LogicalPlanBuilder::from(sliding.into_plan())
        .aggregate(group.collect::<Vec<_>>(), values.collect::<Vec<_>>())?
        .build()?;
    let start = named(WINDOW_END) - lit(interval(size, unit));
    let own = named(NEWEST).gt_eq(start.clone());
    let mut output = vec![];
    for name in &names {
        output.push(match name.as_str() {
            WINDOW_START => start.clone().alias(name),
            WINDOW_END => named(WINDOW_END),
            _ if *name == at.name => named(WINDOW_TIME).alias(name),
            WINDOW_TIME => named(WINDOW_TIME),
            _ if with != With::Null || keys.contains(name) => named(name),
            _ => when(own.clone(), named(name)).end()?.alias(name),
        });
    }
    output.push((!own).alias(FILLED));
    let Some(whole) = whole else {
        return LogicalPlanBuilder::from(newest).project(output)?.build();
    };
    // The columns of the input, with the bounds of all windows.
    output.push(named(NEWEST));
    let filled = LogicalPlanBuilder::from(newest).project(output)?.build()?;
    let values: Vec<&String> = names.iter().filter(is_value).collect();
    let gaps = Gaps { keys: &keys, values: &values, at: &at.name, size, ttl };
    fill_linear::plan(filled, whole, &names, &gaps)
}

/// Size and ttl in ticks.
fn ticks(lengths: &[Option<(Length, Span)>], unit: TimeUnit) -> Result<(i64, i64)> {
    let [Some((size, size_span)), Some((ttl, ttl_span))] = lengths else {
        return Err(error(Error::internal("FILL without its lengths"), None));
    };
    let ticks = |length: &Length, span: &Span| -> Result<i64, DataFusionError> {
        length.ticks(unit).map_err(|e| error(e, Some(*span)))
    };
    let (size, ttl) = (ticks(size, size_span)?, ticks(ttl, ttl_span)?);
    if size <= 0 || ttl < size || ttl % size != 0 {
        let e = Error::sql("the ttl of FILL is not a multiple of the size of its windows");
        let hint = "It says how long a key is filled after its last window: INTERVAL '1 minute', INTERVAL '1 hour'.";
        return Err(error(e.with_hint(hint), Some(*ttl_span)));
    }
    Ok((size, ttl))
}

/// The name of a column that is a key.
fn key_name(key: &Expr, span: Span) -> Result<String> {
    match key {
        Expr::Column(column) => Ok(column.name.clone()),
        other => {
            let e = Error::sql(format!("a key of FILL must be a column, not \"{other}\""));
            Err(error(e.with_hint("Compute it in a subquery."), Some(span)))
        }
    }
}

/// A length of time that can be subtracted from event times.
fn interval(ticks: i64, unit: TimeUnit) -> ScalarValue {
    let nanos = ticks.saturating_mul(NANOS_PER_SECOND / time::ticks_per_second(unit));
    ScalarValue::new_interval_mdn(0, 0, nanos)
}
