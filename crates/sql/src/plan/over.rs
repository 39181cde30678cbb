//! OVER in event time: which window functions can run row by row, ordered by the event time, and the operator that runs
//! them.
//!
//! `agg(x) OVER (PARTITION BY k ORDER BY ts ROWS BETWEEN 10 PRECEDING AND CURRENT ROW)`: a row's frame is final when
//! the watermark has passed its time, or the end of a frame that reaches forward. The bounded form is the window
//! function as written; the continuous form is an operator ([`windrow_operators::OverSpec`]).
//!
//! A node of the plan may have functions that no single operator computes, because they wait for different things or
//! have different partitions: it becomes several nodes, each over the one before. Those that wait for further rows come
//! last, since their rows are not returned in order of time.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::TimeUnit;
use datafusion::common::{Column, Result, ScalarValue, TableReference, internal_err};
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, NullTreatment, Sort, WindowFunction,
};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Window, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition,
};
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use windrow_core::Error;
use windrow_operators::{
    AggregateCall, FrameRow, OverCall, OverFrame, OverFunction, OverSpec, StatefulOperator,
};

use super::aggregate::Prepared;
use super::bounded::named;
use super::flow::OperatorNode;
use super::interval::{self, Clock, Time};
use super::known::{Known, of_column};
use super::lineage;
use super::shape::refused;
use super::split::{Operators, Splitter, scan};
use crate::leaf::LeafTable;

/// The most rows that a row may wait for.
const FOLLOWING_MAX: i64 = 1 << 24;

/// A node of window functions that runs row by row.
#[derive(Debug, Clone)]
pub(crate) struct Over {
    /// The event time that orders the rows.
    time: Time,
    unit: TimeUnit,
    calls: Vec<Call>,
}

/// Why window functions cannot run row by row.
#[derive(Debug)]
pub(crate) enum Missing {
    /// They are not ordered by an event time.
    Order,
    /// The reason.
    Other(Error),
}

/// A function with its frame.
#[derive(Debug, Clone)]
struct Call {
    function: WindowFunction,
    frame: OverFrame,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    RowNumber,
    Rank,
    DenseRank,
    Value { which: FrameRow, ignore_nulls: bool, default: Option<ScalarValue> },
    Aggregate,
}

/// What a function waits for, in the order in which operators are stacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Waits {
    Nothing,
    Ticks,
    Rows,
}

/// Functions of the same kind can be computed by a single operator.
type Kind<'a> = (Waits, &'a [Expr], &'a [Sort]);

impl Over {
    /// How far the event time lies behind the watermark of the result; `None`: rows are returned in another order.
    fn lag(&self) -> Option<i64> {
        if self.calls.iter().any(|call| call.rows_after() > 0) {
            return None;
        }
        Some(self.calls.iter().map(Call::ticks_after).max().unwrap_or(0))
    }

    /// Whether frames of ROWS, or of RANGE, reach forward.
    fn forward(&self) -> (bool, bool) {
        let rows = self.calls.iter().any(|call| call.rows_after() > 0);
        (rows, self.calls.iter().any(|call| call.ticks_after() > 0))
    }

    /// The indexes of the functions that operators compute together, in the order in which the operators are stacked.
    fn groups(&self) -> Vec<Vec<usize>> {
        let (rows, ticks) = self.forward();
        let mut groups: Vec<(Kind<'_>, Vec<usize>)> = vec![];
        for (at, call) in self.calls.iter().enumerate() {
            let waits = match (call.what.has_frame(), call.frame) {
                (true, OverFrame::Rows { .. }) if rows => Waits::Rows,
                (true, OverFrame::Range { .. }) if ticks => Waits::Ticks,
                _ => Waits::Nothing,
            };
            let params = &call.function.params;
            let kind: Kind<'_> = (waits, &params.partition_by, &params.order_by);
            match groups.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, group)) => group.push(at),
                None => groups.push((kind, vec![at])),
            }
        }
        groups.sort_by_key(|((waits, ..), _)| *waits);
        groups.into_iter().map(|(_, group)| group).collect()
    }
}

impl What {
    fn has_frame(&self) -> bool {
        !matches!(self, Self::RowNumber | Self::Rank | Self::DenseRank)
    }

    /// Whether it gives all rows of one time the same value.
    fn sees_peers(&self, frame: OverFrame) -> bool {
        match self {
            Self::RowNumber => false,
            Self::Rank | Self::DenseRank => true,
            Self::Value { .. } | Self::Aggregate => matches!(frame, OverFrame::Range { .. }),
        }
    }
}

impl Call {
    /// The number of rows by which its frame reaches forward.
    fn rows_after(&self) -> i64 {
        match self.frame {
            OverFrame::Rows { end, .. } if self.what.has_frame() => end.max(0),
            _ => 0,
        }
    }

    /// The number of ticks by which its frame reaches forward.
    fn ticks_after(&self) -> i64 {
        match self.frame {
            OverFrame::Range { end, .. } if self.what.has_frame() => end.max(0),
            _ => 0,
        }
    }
}

/// The node as one that runs row by row, given the event times among the columns of its input.
///
/// # Errors
/// What is missing.
pub(crate) fn in_time(window: &Window, known: &[Known]) -> Result<Over, Missing> {
    let mut time = None;
    let mut calls = vec![];
    for expr in &window.window_expr {
        let Expr::WindowFunction(function) = expr.clone().unalias() else {
            return Err(Missing::Order);
        };
        let own = event_time(window, known, &function).ok_or(Missing::Order)?;
        let Some(clock) = interval::clock(window.input.schema().field(own.index).data_type())
        else {
            return Err(Missing::Order);
        };
        if time.as_ref().is_some_and(|(time, _)| *time != own) {
            return Err(Missing::Other(
                Error::sql("OVER in one query is ordered by different event times")
                    .with_hint("Order all of them by the same column."),
            ));
        }
        calls.push(call(*function, &own, clock).map_err(Missing::Other)?);
        time = Some((own, clock.unit));
    }
    let (time, unit) = time.ok_or(Missing::Order)?;
    let over = Over { time, unit, calls };
    let waiting = over.calls.iter().filter(|call| call.rows_after() > 0);
    let mut waiting = waiting.map(|call| &call.function.params);
    if let Some(first) = waiting.next()
        && waiting.any(|p| (&p.partition_by, &p.order_by) != (&first.partition_by, &first.order_by))
    {
        return Err(Missing::Other(
            Error::sql("OVER waits for further rows (LEAD, or ROWS … FOLLOWING) of two different partitions")
                .with_hint("Use two queries, or RANGE BETWEEN … AND INTERVAL '…' FOLLOWING for one of them."),
        ));
    }
    Ok(over)
}

/// The event time that orders a function.
fn event_time(window: &Window, known: &[Known], function: &WindowFunction) -> Option<Time> {
    let first = function.params.order_by.first().filter(|sort| sort.asc)?;
    let Expr::Column(column) = &first.expr else { return None };
    let lag_ticks = of_column(known, &window.input, column).lag?;
    let index = window.input.schema().maybe_index_of_column(column)?;
    Some(Time { column: column.clone(), index, lag_ticks })
}

fn call(function: WindowFunction, time: &Time, clock: Clock) -> Result<Call, Error> {
    let params = &function.params;
    let name = function.fun.name().to_owned();
    let ignore_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    let value = |which| What::Value { which, ignore_nulls, default: None };
    let own_frame = || frame(&function, clock, &time.column);
    let current = OverFrame::Rows { start: None, end: 0 };
    let (what, frame) = match &function.fun {
        WindowFunctionDefinition::AggregateUDF(_) => (What::Aggregate, own_frame()?),
        WindowFunctionDefinition::WindowUDF(_) => match name.as_str() {
            "row_number" => (What::RowNumber, current),
            "rank" => (What::Rank, current),
            "dense_rank" => (What::DenseRank, current),
            "first_value" => (value(FrameRow::First), own_frame()?),
            "last_value" => (last_value(ignore_nulls), own_frame()?),
            "nth_value" => (value(FrameRow::Nth(nth(params.args.get(1))?)), own_frame()?),
            "lag" | "lead" => shifted(&name, params.args.as_slice(), ignore_nulls)?,
            _ => {
                return Err(Error::sql(format!(
                    "{name}() over a stream needs all rows of its partition, which never end"
                ))
                .with_hint(
                    "Use it per window: add window_end to PARTITION BY; or use row_number(), rank() or count(*), \
                     which look back only.",
                ));
            }
        },
    };
    let (what, frame) = one_before(what, frame, &time.column)?;
    if params.order_by.len() > 1 && what.sees_peers(frame) {
        return Err(Error::sql(format!(
            "{name}() over a stream is ordered by more than \"{}\", so rows of the same time are not peers",
            time.column.name
        ))
        .with_hint(format!(
            "Order by \"{}\" alone, or say ROWS in the frame: ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW.",
            time.column.name
        )));
    }
    Ok(Call { function, frame, what })
}

fn last_value(ignore_nulls: bool) -> What {
    What::Value { which: FrameRow::Last, ignore_nulls, default: None }
}

/// LAST_VALUE over a frame that begins with the first row and ends some rows back is the value that many rows back.
fn one_before(what: What, frame: OverFrame, time: &Column) -> Result<(What, OverFrame), Error> {
    let What::Value { which: FrameRow::Last, ignore_nulls: false, .. } = &what else {
        return Ok((what, frame));
    };
    match frame {
        OverFrame::Rows { start: None, end } if end < 0 => {
            Ok((what, OverFrame::Rows { start: Some(end), end }))
        }
        OverFrame::Range { start: None, end } if end != 0 => Err(Error::sql(format!(
            "last_value() of a frame from the beginning to an interval of \"{}\" would keep all rows for ever",
            time.name
        ))
        .with_hint("Give the frame a beginning: RANGE BETWEEN INTERVAL '…' PRECEDING AND ….")),
        OverFrame::Rows { .. } | OverFrame::Range { .. } => Ok((what, frame)),
    }
}

fn integer(expr: Option<&Expr>) -> Option<i64> {
    let Some(Expr::Literal(value, _)) = expr else { return None };
    match value.cast_to(&arrow::datatypes::DataType::Int64) {
        Ok(ScalarValue::Int64(value)) => value,
        Ok(_) | Err(_) => None,
    }
}

/// The n of `nth_value(x, n)`.
fn nth(expr: Option<&Expr>) -> Result<u64, Error> {
    let n = integer(expr).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    n.ok_or_else(|| {
        Error::sql("nth_value() over a stream counts from the first row of its frame, from 1")
            .with_hint("Give a positive number: nth_value(x, 2).")
    })
}

/// LAG and LEAD: the first row of a frame of one row.
fn shifted(name: &str, args: &[Expr], ignore_nulls: bool) -> Result<(What, OverFrame), Error> {
    if ignore_nulls {
        return Err(Error::sql(format!(
            "{name}() with IGNORE NULLS over a stream is not yet part of this version"
        ))
        .with_hint(
            "Use last_value(x) IGNORE NULLS OVER (… ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING).",
        ));
    }
    let rows = match args.get(1) {
        None => Some(1),
        Some(rows) => integer(Some(rows)),
    };
    let rows =
        rows.filter(|rows| rows.unsigned_abs() <= FOLLOWING_MAX as u64).ok_or_else(|| {
            Error::sql(format!("the number of rows in {name}() over a stream is not a constant"))
                .with_hint(format!("Give a whole number of up to {FOLLOWING_MAX}: {name}(x, 2)."))
        })?;
    let default = match args.get(2) {
        None => None,
        Some(Expr::Literal(value, _)) => Some(value.clone()),
        Some(_) => {
            return Err(Error::sql(format!(
                "the default of {name}() over a stream is not a constant"
            ))
            .with_hint(format!("Use coalesce({name}(x, 1), …), or give a constant.")));
        }
    };
    let at = if name == "lag" { -rows } else { rows };
    let what = What::Value { which: FrameRow::First, ignore_nulls: false, default };
    Ok((what, OverFrame::Rows { start: Some(at), end: at }))
}

/// The frame, relative to the current row.
fn frame(function: &WindowFunction, clock: Clock, time: &Column) -> Result<OverFrame, Error> {
    let frame = &function.params.window_frame;
    let name = function.fun.name();
    let forever = || {
        Error::sql(format!("{name}() over a stream has a frame up to UNBOUNDED FOLLOWING, which never ends"))
            .with_hint(
                "End the frame at CURRENT ROW, n FOLLOWING or an INTERVAL FOLLOWING; or add window_end to PARTITION BY.",
            )
    };
    let ranges = match frame.units {
        WindowFrameUnits::Rows => false,
        WindowFrameUnits::Range => true,
        WindowFrameUnits::Groups => {
            return Err(Error::sql(format!("{name}() over a stream has a frame of GROUPS"))
                .with_hint("Use ROWS or RANGE."));
        }
    };
    let length = |value: &ScalarValue| -> Result<i64, Error> {
        let found = if ranges { interval::constant(value, clock) } else { rows(value) };
        found.filter(|length| *length >= 0).ok_or_else(|| {
            let e = Error::sql(format!("{name}() over a stream has a frame with the bound {value}"));
            e.with_hint(if ranges {
                format!(
                    "RANGE over \"{}\" takes a fixed length of time: INTERVAL '10 seconds', no months.",
                    time.name
                )
            } else {
                format!("ROWS takes a whole number of up to {FOLLOWING_MAX}.")
            })
        })
    };
    let at = |bound: &WindowFrameBound| -> Result<i64, Error> {
        match bound {
            WindowFrameBound::CurrentRow => Ok(0),
            WindowFrameBound::Preceding(value) => length(value).map(|length| -length),
            WindowFrameBound::Following(value) if value.is_null() => Err(forever()),
            WindowFrameBound::Following(value) => length(value),
        }
    };
    let start = match &frame.start_bound {
        WindowFrameBound::Preceding(value) if value.is_null() => None,
        bound => Some(at(bound)?),
    };
    let end = at(&frame.end_bound)?;
    if start.is_some_and(|start| start > end) {
        return Err(Error::sql(format!("the frame of {name}() begins after its end"))
            .with_hint("Write the earlier bound first: BETWEEN 3 PRECEDING AND 1 PRECEDING."));
    }
    Ok(if ranges { OverFrame::Range { start, end } } else { OverFrame::Rows { start, end } })
}

/// A number of rows.
fn rows(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::UInt64(Some(rows)) => i64::try_from(*rows).ok(),
        ScalarValue::Int64(Some(rows)) => Some(*rows),
        _ => None,
    }
    .filter(|rows| *rows <= FOLLOWING_MAX)
}

/// The event times of the result: the ordering time alone, unless rows are returned in another order.
pub(crate) fn known(window: &Window, over: &Over) -> Vec<Known> {
    let mut known = vec![Known::default(); window.schema.fields().len()];
    if let Some(slot) = known.get_mut(over.time.index) {
        slot.lag = over.lag();
    }
    known
}

impl Splitter<'_> {
    /// Adds functions over rows to a stage; returns the rows with their values and the node's column names.
    pub(super) fn over(
        &mut self,
        window: &Window,
        over: &Over,
        operators: &mut Operators,
    ) -> Result<LogicalPlan> {
        let groups = over.groups();
        if groups.len() > 1 {
            return self.over_one_another(window, &groups, operators);
        }
        let mut prepared = Prepared::new(over.time.column.clone());
        let Some(first) = over.calls.first() else {
            return internal_err!("OVER without a function");
        };
        let partition = first.function.params.partition_by.iter();
        let keys: Vec<usize> = partition.map(|key| prepared.add(key.clone())).collect();
        let order = first.function.params.order_by.iter().skip(1);
        let order: Vec<(usize, SortOptions)> = order
            .map(|sort| {
                let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
                (prepared.add(sort.expr.clone()), options)
            })
            .collect();
        let columns = window.input.schema().columns().into_iter();
        let columns: Vec<usize> = columns.map(|c| prepared.add(Expr::Column(c))).collect();
        let drafts = over.calls.iter().map(|call| Draft::new(call, &mut prepared));
        let drafts = drafts.collect::<Result<Vec<_>>>()?;
        let prepare = prepared.plan(window.input.as_ref().clone())?;
        let results = window.schema.fields().iter().skip(columns.len());
        let mut calls = vec![];
        for (draft, result) in drafts.into_iter().zip(results) {
            let result = (result.data_type().clone(), result.is_nullable());
            calls.push(self.over_call(draft, &prepare, result)?);
        }
        let schema = Arc::new(prepare.schema().as_arrow().clone());
        let spec = OverSpec::try_new(schema, keys, order, calls).map_err(refused)?;
        let operator: Arc<dyn StatefulOperator> = Arc::new(spec);
        let input = self.operator_input(&prepare, over.time.lag_ticks, over.unit)?;
        let leaf = self.next_leaf();
        let name = TableReference::bare(leaf.to_string());
        let table = LeafTable::new(leaf, Arc::clone(operator.output_schema()));
        operators.nodes.push(OperatorNode { leaf, operator, inputs: vec![input] });
        operators.fingerprints.push(None);
        let places = columns.into_iter().map(|at| format!("c{at}"));
        let places = places.chain((0..over.calls.len()).map(|at| format!("w{at}")));
        let columns = places.zip(window.schema.iter()).map(|(place, (qualifier, field))| {
            let column = Expr::Column(Column::new(Some(name.clone()), place));
            named(column, qualifier.cloned(), field.name())
        });
        scan(name.clone(), table)?.project(columns.collect::<Vec<_>>())?.build()
    }

    /// Plans groups of functions as nodes stacked on one another.
    fn over_one_another(
        &mut self,
        window: &Window,
        groups: &[Vec<usize>],
        operators: &mut Operators,
    ) -> Result<LogicalPlan> {
        let mut plan = Arc::clone(&window.input);
        for group in groups {
            let exprs = group.iter().filter_map(|at| window.window_expr.get(*at).cloned());
            plan = Arc::new(LogicalPlan::Window(Window::try_new(exprs.collect(), plan)?));
        }
        let columns = window.schema.columns().into_iter().map(Expr::Column);
        let plan = LogicalPlanBuilder::from(plan).project(columns.collect::<Vec<_>>())?.build()?;
        self.finish(&plan, operators)
    }

    fn over_call(
        &self,
        draft: Draft<'_>,
        prepare: &LogicalPlan,
        result: (arrow::datatypes::DataType, bool),
    ) -> Result<OverCall> {
        let Draft { call, arguments, filter, aggregate } = draft;
        let column = arguments.first().copied();
        let function = match (&call.what, aggregate, column) {
            (What::RowNumber, ..) => OverFunction::RowNumber,
            (What::Rank, ..) => OverFunction::Rank,
            (What::DenseRank, ..) => OverFunction::DenseRank,
            (What::Value { which, ignore_nulls, default }, _, Some(column)) => {
                let default = default.as_ref().filter(|default| !default.is_null());
                let default = default.map(|default| default.cast_to(&result.0)).transpose()?;
                let (which, ignore_nulls) = (*which, *ignore_nulls);
                OverFunction::Value { column, which, ignore_nulls, default }
            }
            (What::Aggregate, Some(aggregate), _) => {
                let prepared = prepare.schema();
                let lowered = LoweredAggregateBuilder::new(
                    &aggregate,
                    prepared,
                    prepared.as_arrow(),
                    self.state().execution_props(),
                    &PhysicalPlanningContext::default(),
                )
                .with_name("w")
                .build()?;
                let function = Arc::clone(&lowered.aggregate);
                OverFunction::Aggregate(AggregateCall { function, arguments, filter })
            }
            _ => return internal_err!("a window function without its argument"),
        };
        Ok(OverCall { function, frame: call.frame, result })
    }
}

/// A call, with the prepared columns that it reads.
struct Draft<'a> {
    call: &'a Call,
    arguments: Vec<usize>,
    filter: Option<usize>,
    /// An aggregate over the prepared columns.
    aggregate: Option<Expr>,
}

impl<'a> Draft<'a> {
    fn new(call: &'a Call, prepared: &mut Prepared) -> Result<Self> {
        let params = &call.function.params;
        let WindowFunctionDefinition::AggregateUDF(func) = &call.function.fun else {
            let argument = params.args.first().filter(|_| call.what.has_frame());
            let arguments = argument.map(|argument| prepared.add(argument.clone()));
            let arguments = arguments.into_iter().collect();
            return Ok(Self { call, arguments, filter: None, aggregate: None });
        };
        let counts_rows = func.name() == "count" && !params.distinct;
        let (mut args, mut arguments) = (vec![], vec![]);
        for arg in &params.args {
            let index = match arg {
                // count(*): the time is a column that always exists and is never NULL.
                Expr::Literal(value, _) if counts_rows && !value.is_null() => 0,
                _ => prepared.add(arg.clone()),
            };
            let column = Expr::Column(Column::new_unqualified(Prepared::name(index)));
            // Functions read constant arguments (a percentile, a separator) when they are built.
            let constant = index > 0 && matches!(arg, Expr::Literal(..));
            args.push(if constant { arg.clone() } else { column });
            arguments.push(index);
        }
        let filter = params.filter.as_ref().map(|filter| prepared.add(filter.as_ref().clone()));
        let aggregate = Expr::AggregateFunction(AggregateFunction {
            func: Arc::clone(func),
            params: AggregateFunctionParams {
                args,
                distinct: params.distinct,
                filter: None,
                order_by: vec![],
                null_treatment: params.null_treatment,
            },
        });
        Ok(Self { call, arguments, filter, aggregate: Some(aggregate) })
    }
}

/// A node of window functions as one that runs row by row; `None` if it is partitioned by windows, or cannot.
///
/// # Errors
/// Those of the plan.
pub(crate) fn of(window: &Window) -> Result<Option<Over>> {
    let known = lineage::columns(&window.input)?;
    Ok(among(window, &known))
}

/// As [`of`], given the event times among the columns of the input.
pub(crate) fn among(window: &Window, known: &[Known]) -> Option<Over> {
    if keeps_windows_apart(window, known) { None } else { in_time(window, known).ok() }
}

/// Whether a node has functions whose rows wait for further rows.
///
/// # Errors
/// Those of the plan.
pub(crate) fn waits_for_rows(node: &LogicalPlan) -> Result<bool> {
    let LogicalPlan::Window(window) = node else { return Ok(false) };
    Ok(of(window)?.is_some_and(|over| over.lag().is_none()))
}

/// Whether each function is partitioned by the window of its rows.
pub(crate) fn keeps_windows_apart(window: &Window, known: &[Known]) -> bool {
    window.window_expr.iter().all(|expr| match expr.clone().unalias() {
        Expr::WindowFunction(f) => {
            let mut keys = f.params.partition_by.iter();
            keys.any(|key| super::known::of_expr(known, &window.input, key).to_end.is_some())
        }
        _ => false,
    })
}
