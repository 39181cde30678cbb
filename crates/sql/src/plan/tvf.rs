//! `FROM TUMBLE(…)`, `HOP(…)`, `CUMULATE(…)`, `SESSION(…)`: from the syntax tree to [`WindowAssign`]. `FILL(…)` has the
//! same arguments, and is planned by [`super::fill`].
//!
//! Only the canonical spelling arrives here; the parser has rewritten the others.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, DFSchema, DataFusionError, ExprSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr, LogicalPlan};
use sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, ObjectNamePart, Spanned,
    TableFactor,
};
use sqlparser::tokenizer::Span;
use windrow_core::{Error, Place, SessionSpec, Windows, Zone, sql_type, time};

use super::assign::{Keys, WINDOW_TIME, WindowAssign};
use super::fill::{self, Filling, With};
use super::lengths::{Clocks, Length, Lengths};
use super::lineage;
use crate::parse::{FILL, GROUPED, PARTITION_BY, ZONE, ZONE_OF_COLUMN};

/// Plans window relations; leaves every other relation to DataFusion.
#[derive(Debug)]
pub(crate) struct WindowRelations;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Tumble,
    Hop,
    Cumulate,
    Session,
    Fill,
}

impl Function {
    fn of(name: &ObjectName) -> Option<Self> {
        let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
        Some(match name.value.to_ascii_lowercase().as_str() {
            "tumble" => Self::Tumble,
            "hop" => Self::Hop,
            "cumulate" => Self::Cumulate,
            "session" => Self::Session,
            "fill" => Self::Fill,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE",
            Self::Hop => "HOP",
            Self::Cumulate => "CUMULATE",
            Self::Session => "SESSION",
            Self::Fill => "FILL",
        }
    }

    /// The intervals it takes, in order; the last one is optional.
    fn intervals(self) -> &'static [&'static str] {
        match self {
            Self::Tumble => &["size", "offset"],
            Self::Hop => &["slide", "size", "offset"],
            Self::Cumulate => &["step", "size", "offset"],
            Self::Session => &["gap"],
            Self::Fill => &["size", "ttl"],
        }
    }

    fn has_keys(self) -> bool {
        matches!(self, Self::Session | Self::Fill)
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Tumble => "Write TUMBLE(stream, time, size [, offset] [, time zone]).",
            Self::Hop => "Write HOP(stream, time, slide, size [, offset] [, time zone]).",
            Self::Cumulate => "Write CUMULATE(stream, time, step, size [, offset] [, time zone]).",
            Self::Session => "Write SESSION(stream [PARTITION BY key], time, gap).",
            Self::Fill => {
                "Write FILL(windows [PARTITION BY key], window_time, size, ttl [, fill => 'previous' | 'linear'])."
            }
        }
    }
}

impl RelationPlanner for WindowRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match relation {
            TableFactor::Table { name, alias, args: Some(args), .. }
                if Function::of(&name).is_some() =>
            {
                let Some(function) = Function::of(&name) else {
                    return Err(error(Error::internal("a window function without a name"), None));
                };
                let plan = plan(function, name.span(), args.args, context)?;
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// The arguments by purpose.
struct Arguments {
    data: Option<ast::Expr>,
    time: Option<ast::Expr>,
    /// In the order of [`Function::intervals`].
    intervals: Vec<Option<ast::Expr>>,
    /// The session keys, if they are given.
    keys: Option<ast::Expr>,
    zone: Option<ast::Expr>,
    /// Whether the time zone is that of the time column's type.
    zone_of_column: bool,
    /// Whether the window is that of a GROUP BY.
    grouped: bool,
    /// The values with which FILL fills gaps.
    fill: Option<ast::Expr>,
}

fn plan(
    function: Function,
    span: Span,
    args: Vec<FunctionArg>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let arguments = sort_arguments(function, span, args, context)?;
    let data = arguments.data.ok_or_else(|| missing(function, "stream", span))?;
    let input = plan_data(function, data, context)?;
    let (time, time_span) = match arguments.time {
        Some(expr) => {
            let span = expr.span();
            (time_column(function, expr, &input, context)?, span)
        }
        None => (inferred_time(function, &input, span)?, span),
    };
    let time_type = input.schema().field_from_column(&time)?.data_type().clone();
    let Some(unit) = time::time_unit(&time_type) else {
        return Err(error(not_a_timestamp(&time, &time_type), Some(time_span)));
    };
    let mut lengths = vec![];
    for (name, expr) in function.intervals().iter().zip(arguments.intervals) {
        lengths.push(match expr {
            Some(expr) => Some((length(function, name, &expr, context)?, expr.span())),
            None if *name == "offset" => None,
            None => return Err(missing(function, name, span)),
        });
    }
    if function == Function::Fill {
        let keys = arguments.keys.map(|keys| session_keys(function, keys, &input, context));
        let filling = Filling {
            keys: keys.transpose()?.unwrap_or_default(),
            with: arguments.fill.map_or(Ok(With::Null), |fill| fills_with(fill, context))?,
            lengths,
            span,
        };
        return fill::plan(input, &time, unit, filling, context);
    }
    let clocks = match arguments.zone {
        Some(zone) => Clocks { zone: named_zone(function, zone, context)?, named: true },
        None => Clocks {
            zone: implied_zone(&time_type, arguments.zone_of_column, context)
                .map_err(|e| error(e, Some(span)))?,
            named: false,
        },
    };
    let windows = windows(function, &lengths, clocks, unit).map_err(|e| error(e, Some(span)))?;
    let keys = match (windows, arguments.keys) {
        (Windows::Aligned(_), _) => Keys::Of(vec![]),
        (Windows::Session(_), None) => Keys::Grouped { after: arguments.grouped },
        (Windows::Session(_), Some(keys)) => {
            Keys::Of(session_keys(function, keys, &input, context)?)
        }
    };
    Ok(WindowAssign::try_new(input, time, windows)?.with_keys(keys).into_plan())
}

/// The windows of these lengths, which are in the order of [`Function::intervals`].
fn windows(
    function: Function,
    lengths: &[Option<(Length, Span)>],
    clocks: Clocks,
    unit: TimeUnit,
) -> windrow_core::Result<Windows> {
    // A length that is not a whole number of ticks is reported at its own place.
    for (length, span) in lengths.iter().flatten() {
        length.check(unit).map_err(|e| match place(*span) {
            Some(place) => e.with_place(place),
            None => e,
        })?;
    }
    let lengths: Vec<Option<Length>> =
        lengths.iter().map(|given| given.map(|(length, _)| length)).collect();
    let (of, offset) = match (function, lengths.as_slice()) {
        (Function::Tumble, [Some(size), offset]) => (Lengths::Tumble { size: *size }, offset),
        (Function::Hop, [Some(slide), Some(size), offset]) => {
            (Lengths::Hop { slide: *slide, size: *size }, offset)
        }
        (Function::Cumulate, [Some(step), Some(size), offset]) => {
            (Lengths::Cumulate { step: *step, size: *size }, offset)
        }
        (Function::Session, [Some(gap)]) => {
            return SessionSpec::try_new(gap.ticks(unit)?).map(Windows::Session);
        }
        _ => return Err(Error::internal("a window function with other intervals than its own")),
    };
    of.windows(offset.unwrap_or_default(), clocks, unit).map(Windows::Aligned)
}

/// The time zone that an argument names.
fn named_zone(
    function: Function,
    zone: ast::Expr,
    context: &mut dyn RelationPlannerContext,
) -> Result<Zone> {
    let span = zone.span();
    match context.sql_to_expr(zone, &DFSchema::empty())? {
        Expr::Literal(ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)), _) => {
            Zone::of(&name).map_err(|e| error(e, Some(span)))
        }
        _ => {
            let e = Error::sql(format!("the time zone of {} must be a text", function.name()));
            Err(error(e.with_hint("Write it as 'Europe/Berlin'."), Some(span)))
        }
    }
}

/// The default time zone of windows: that of the session if the time has a time zone, otherwise UTC.
fn implied_zone(
    time: &DataType,
    of_column: bool,
    context: &dyn RelationPlannerContext,
) -> windrow_core::Result<Zone> {
    let DataType::Timestamp(_, Some(own)) = time else { return Ok(Zone::UTC) };
    if of_column {
        return Zone::of(own);
    }
    let session = context.context_provider().options().execution.time_zone.as_deref();
    session.map_or(Ok(Zone::UTC), Zone::of)
}

/// The values of PARTITION BY, without duplicates.
fn session_keys(
    function: Function,
    keys: ast::Expr,
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<Vec<Expr>> {
    let exprs = match keys {
        ast::Expr::Tuple(exprs) => exprs,
        one => vec![one],
    };
    let mut keys: Vec<Expr> = Vec::with_capacity(exprs.len());
    for expr in exprs {
        let span = expr.span();
        let key = context.sql_to_expr(expr, input.schema())?;
        if key.is_volatile() {
            let e = Error::sql(format!(
                "\"{key}\" has another value each time it is computed, so it cannot be a key of {}",
                function.name()
            ));
            return Err(error(e.with_hint("Compute it in a column of the stream."), Some(span)));
        }
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// What gaps are filled with.
fn fills_with(fill: ast::Expr, context: &mut dyn RelationPlannerContext) -> Result<With> {
    let span = fill.span();
    let expr = context.sql_to_expr(fill, &DFSchema::empty())?;
    let refused = |hint: &str| {
        let e = Error::sql(
            "FILL fills gaps with NULL, with the row before (fill => 'previous'), or between both rows (fill => 'linear')",
        );
        Err(error(e.with_hint(hint), Some(span)))
    };
    match &expr {
        Expr::Literal(value, _) if value.is_null() => Ok(With::Null),
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => {
            match text.to_lowercase().as_str() {
                "null" => Ok(With::Null),
                "previous" | "prev" | "locf" => Ok(With::Previous),
                "linear" | "interpolate" => Ok(With::Linear),
                _ => refused("A constant is coalesce(x, 0) over the NULLs."),
            }
        }
        _ => refused("A constant is coalesce(x, 0) over the NULLs."),
    }
}

fn sort_arguments(
    function: Function,
    span: Span,
    args: Vec<FunctionArg>,
    context: &dyn RelationPlannerContext,
) -> Result<Arguments> {
    let names = function.intervals();
    let mut sorted = Arguments {
        data: None,
        time: None,
        intervals: vec![None; names.len()],
        keys: None,
        zone: None,
        zone_of_column: false,
        grouped: false,
        fill: None,
    };
    let mut positional = 0;
    for arg in args {
        let (name, arg) = match arg {
            FunctionArg::Named { name, arg, .. } => (Some(name), arg),
            FunctionArg::ExprNamed { name: ast::Expr::Identifier(name), arg, .. } => {
                (Some(name), arg)
            }
            FunctionArg::ExprNamed { name, .. } => return Err(unexpected(function, name.span())),
            FunctionArg::Unnamed(arg) => (None, arg),
        };
        let FunctionArgExpr::Expr(expr) = arg else { return Err(unexpected(function, span)) };
        let at = expr.span();
        if name.as_ref().is_some_and(|name| name.value == GROUPED) {
            sorted.grouped = true;
            continue;
        }
        if name.as_ref().is_some_and(|name| name.value == ZONE_OF_COLUMN) {
            sorted.zone_of_column = true;
            continue;
        }
        let slot = match name {
            Some(name) => match context.normalize_ident(name.clone()).to_lowercase().as_str() {
                "data" => &mut sorted.data,
                "timecol" => &mut sorted.time,
                PARTITION_BY if function.has_keys() => &mut sorted.keys,
                ZONE if !function.has_keys() => &mut sorted.zone,
                FILL if function == Function::Fill => &mut sorted.fill,
                other => match names.iter().position(|n| *n == other) {
                    Some(i) => &mut sorted.intervals[i],
                    None => return Err(unknown_name(function, &name.value, name.span)),
                },
            },
            None if sorted.data.is_none() => &mut sorted.data,
            None if positional == 0 && sorted.time.is_none() && names_a_column(&expr) => {
                &mut sorted.time
            }
            None => {
                positional += 1;
                match sorted.intervals.get_mut(positional - 1) {
                    Some(slot) => slot,
                    None => return Err(unexpected(function, at)),
                }
            }
        };
        if slot.replace(expr).is_some() {
            let e = Error::sql(format!("{} gets an argument twice", function.name()));
            return Err(error(e.with_hint(function.usage()), Some(at)));
        }
    }
    Ok(sorted)
}

fn names_a_column(expr: &ast::Expr) -> bool {
    match expr {
        ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => true,
        ast::Expr::Nested(inner) => names_a_column(inner),
        ast::Expr::Function(f) => is_descriptor(f),
        _ => false,
    }
}

fn is_descriptor(function: &ast::Function) -> bool {
    function.name.to_string().eq_ignore_ascii_case("descriptor")
}

fn plan_data(
    function: Function,
    data: ast::Expr,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let span = data.span();
    let name = match data {
        ast::Expr::Subquery(subquery) => {
            return context.plan(TableFactor::Derived {
                lateral: false,
                subquery,
                alias: None,
                sample: None,
            });
        }
        ast::Expr::Nested(inner) => return plan_data(function, *inner, context),
        ast::Expr::Identifier(name) => vec![name],
        ast::Expr::CompoundIdentifier(names) => names,
        _ => return Err(unexpected(function, span)),
    };
    context.plan(TableFactor::Table {
        name: ObjectName::from(name),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    })
}

fn time_column(
    function: Function,
    expr: ast::Expr,
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<Column> {
    let span = expr.span();
    let expr = match expr {
        ast::Expr::Nested(inner) => return time_column(function, *inner, input, context),
        ast::Expr::Function(f) if is_descriptor(&f) => match f.args {
            FunctionArguments::List(list) => match list.args.as_slice() {
                [FunctionArg::Unnamed(FunctionArgExpr::Expr(column))] => column.clone(),
                _ => return Err(unexpected(function, span)),
            },
            _ => return Err(unexpected(function, span)),
        },
        other => other,
    };
    match context.sql_to_expr(expr, input.schema())? {
        Expr::Column(column) => Ok(column),
        _ => {
            let e = Error::sql(format!("the time of {} must be a column", function.name()));
            Err(error(
                e.with_hint(
                    "Compute it in a subquery: FROM TUMBLE((SELECT *, … AS ts FROM stream), ts, …).",
                ),
                Some(span),
            ))
        }
    }
}

/// The input's only event-time column.
fn inferred_time(function: Function, input: &LogicalPlan, span: Span) -> Result<Column> {
    let columns: Vec<Column> = lineage::columns(input)?
        .iter()
        .zip(input.schema().columns())
        .filter(|(known, _)| known.lag == Some(0))
        .map(|(_, column)| column)
        .collect();
    // Every window result has three event times; the one meant for windows over windows takes precedence.
    let mut over_windows = columns.iter().filter(|c| c.name == WINDOW_TIME);
    match (columns.as_slice(), over_windows.next(), over_windows.next()) {
        ([column], ..) => Ok(column.clone()),
        (_, Some(column), None) => Ok(column.clone()),
        ([], ..) => {
            let e = Error::sql(format!("{} has no time column", function.name()));
            let hint = "Name one, or declare the stream's event time with WATERMARK FOR.";
            Err(error(e.with_hint(function.usage()).with_hint(hint), Some(span)))
        }
        (several, ..) => {
            let names: Vec<_> = several.iter().map(|c| format!("\"{}\"", c.name)).collect();
            let e = Error::sql(format!(
                "{} could go over more than one time column: {}",
                function.name(),
                names.join(", ")
            ));
            Err(error(e.with_hint("Name the one you mean."), Some(span)))
        }
    }
}

/// The length of an interval.
fn length(
    function: Function,
    name: &str,
    expr: &ast::Expr,
    context: &mut dyn RelationPlannerContext,
) -> Result<Length> {
    let not_an_interval = || {
        let e = Error::sql(format!("the {name} of {} must be an interval", function.name()));
        let hint = "Write it as INTERVAL '10 seconds'.";
        error(e.with_hint(hint).with_hint(function.usage()), Some(expr.span()))
    };
    let length = match context.sql_to_expr(expr.clone(), &DFSchema::empty())? {
        Expr::Literal(value, _) => Length::of(&value),
        Expr::Negative(inner) => match *inner {
            Expr::Literal(value, _) => Length::of(&value).map(Length::negative),
            _ => None,
        },
        _ => None,
    };
    length.ok_or_else(not_an_interval)
}

fn not_a_timestamp(column: &Column, found: &DataType) -> Error {
    Error::sql(format!(
        "the time column \"{}\" is {}, not a timestamp",
        column.name,
        sql_type(found)
    ))
    .with_hint(format!(
        "Cast it: FROM TUMBLE((SELECT *, CAST(\"{}\" AS TIMESTAMP) AS ts FROM …), ts, …), \
             or declare a generated column of the stream.",
        column.name
    ))
}

fn missing(function: Function, what: &str, span: Span) -> DataFusionError {
    let e = Error::sql(format!("{} has no {what}", function.name()));
    error(e.with_hint(function.usage()), Some(span))
}

fn unexpected(function: Function, span: Span) -> DataFusionError {
    let e = Error::sql(format!("unexpected argument of {}", function.name()));
    error(e.with_hint(function.usage()), Some(span))
}

fn unknown_name(function: Function, name: &str, span: Span) -> DataFusionError {
    let mut known = vec!["data", "timecol"];
    known.extend(function.intervals());
    match function {
        Function::Session => {}
        Function::Fill => known.push(FILL),
        _ => known.push(ZONE),
    }
    let e = Error::sql(format!("{} has no argument \"{name}\"", function.name()));
    error(e.with_hint(format!("Its arguments are: {}.", known.join(", "))), Some(span))
}

/// Our error inside of DataFusion's, with its place.
pub(super) fn error(e: Error, span: Option<Span>) -> DataFusionError {
    DataFusionError::External(Box::new(match span.and_then(place) {
        Some(place) if e.place().is_none() => e.with_place(place),
        _ => e,
    }))
}

/// The place of a span of the syntax tree, if it has one.
pub(super) fn place(span: Span) -> Option<Place> {
    let at = |n: u64| usize::try_from(n).ok().filter(|n| *n > 0);
    Some(Place {
        line: at(span.start.line)?,
        column: at(span.start.column)?,
        end_line: at(span.end.line)?,
        end_column: at(span.end.column)?,
    })
}
