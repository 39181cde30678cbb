//! Other spellings of a tumbling window: `GROUP BY time_bucket(i, ts)`, `date_bin(i, ts)`, `date_trunc('month', ts)`.
//!
//! In a bounded query they are ordinary functions. In a continuous one, GROUP BY of such a call is
//! `GROUP BY TUMBLE(ts, i)`, and the call itself is the start of the window.
//!
//! Invariant: both give the same groups, with the same values.

use std::ops::ControlFlow;

use chrono::{DateTime, Datelike, NaiveTime};
use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, Interval, ObjectName, OrderBy,
    Query, Select, SelectItem, SetExpr, TableFactor, TypedString, Value, VisitMut, VisitorMut,
    With,
};
use windrow_core::{Error, Place, Result};

use super::grouped::mention;
use super::interval::{Span, parse_span, parse_text, without_quarters};
use super::relation::{ZONE, ZONE_OF_COLUMN, name_place, placed, plain, unnamed, window_name};

/// The default origin of `time_bucket`: a Monday, as in TimescaleDB and DuckDB; for months the first of a year.
const ORIGIN: &str = "2000-01-03 00:00:00";
const ORIGIN_OF_MONTHS: &str = "2000-01-01 00:00:00";

/// Days from Thursday 1970-01-01 to the first Monday.
const MONDAY: i128 = 4;

const SECOND: i128 = 1_000_000_000;

/// Writes `time_bucket(i, ts [, origin])` as `date_bin(i, ts, origin)`.
///
/// # Errors
/// When it has other arguments.
pub(super) fn time_bucket(function: &mut Function) -> Result<()> {
    if !is_called(function, "time_bucket") {
        return Ok(());
    }
    let place = name_place(&function.name);
    let wrong = || {
        placed(
            Error::sql("time_bucket takes an interval, a time and at most an origin").with_hint(
                "Write time_bucket(INTERVAL '5 minutes', ts [, TIMESTAMP '2000-01-03']).",
            ),
            place,
        )
    };
    let FunctionArguments::List(list) = &mut function.args else { return Err(wrong()) };
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(size))) = list.args.first_mut() {
        *size = without_quarters(size.clone());
    }
    let size = list.args.first().and_then(expr_of).and_then(text_of_interval).unwrap_or_default();
    match list.args.as_slice() {
        [_, _] => {
            let months = ["mon", "year", "quarter", "decade", "centur"];
            let is_months = months.iter().any(|unit| size.to_lowercase().contains(unit));
            let origin = if is_months { ORIGIN_OF_MONTHS } else { ORIGIN };
            list.args.push(unnamed(Expr::TypedString(TypedString {
                data_type: DataType::Timestamp(None, sqlparser::ast::TimezoneInfo::None),
                value: Value::SingleQuotedString(origin.to_owned()).into(),
                uses_odbc_syntax: false,
            })));
        }
        [_, _, origin] if expr_of(origin).is_some_and(|e| text_of_interval(e).is_none()) => {}
        _ => return Err(wrong()),
    }
    let span = plain(&function.name).map(|ident| ident.span);
    let mut name = Ident::new("date_bin");
    if let Some(span) = span {
        name.span = span;
    }
    function.name = ObjectName::from(vec![name]);
    Ok(())
}

/// Rewrites the buckets by which a continuous query groups as windows.
///
/// # Errors
/// When a bucket is not a window.
pub(super) fn windows(query: &mut Query) -> Result<()> {
    let Query { with, body, order_by, .. } = query;
    of_body(body, order_by.as_mut(), with.as_mut())
}

fn of_body(
    body: &mut SetExpr,
    order_by: Option<&mut OrderBy>,
    mut with: Option<&mut With>,
) -> Result<()> {
    match body {
        SetExpr::Select(select) => of_select(select, order_by, with),
        SetExpr::Query(query) => windows(query),
        SetExpr::SetOperation { left, right, .. } => {
            of_body(left, None, with.as_deref_mut())?;
            of_body(right, None, with)
        }
        _ => Ok(()),
    }
}

fn of_select(
    select: &mut Select,
    order_by: Option<&mut OrderBy>,
    with: Option<&mut With>,
) -> Result<()> {
    if has_window(select) {
        return Ok(());
    }
    if let Some(bucket) = bucket_of(select)? {
        return rewrite(select, order_by, &bucket);
    }
    // Its input may group by buckets.
    let [from] = select.from.as_mut_slice() else { return Ok(()) };
    match &mut from.relation {
        TableFactor::Derived { subquery, .. } if from.joins.is_empty() => windows(subquery),
        TableFactor::Table { name, args: None, .. } => {
            let named = name.0.last().and_then(|part| part.as_ident()).cloned();
            let tables = with.map(|with| with.cte_tables.as_mut_slice()).unwrap_or_default();
            let cte = tables.iter_mut().find(|cte| {
                named.as_ref().is_some_and(|n| n.value.eq_ignore_ascii_case(&cte.alias.name.value))
            });
            cte.map_or(Ok(()), |cte| windows(&mut cte.query))
        }
        _ => Ok(()),
    }
}

/// Whether a SELECT already has a window: in FROM, in GROUP BY, or because it groups by the bounds of one.
fn has_window(select: &Select) -> bool {
    let windowed = |factor: &TableFactor| match factor {
        TableFactor::Table { name, args: Some(_), .. } => window_name(name).is_some(),
        TableFactor::TableFunction { expr: Expr::Function(f), .. } => {
            window_name(&f.name).is_some()
        }
        _ => false,
    };
    let in_from = select
        .from
        .iter()
        .any(|t| windowed(&t.relation) || t.joins.iter().any(|j| windowed(&j.relation)));
    let GroupByExpr::Expressions(group_by, _) = &select.group_by else { return in_from };
    in_from
        || group_by.iter().any(|expr| match expr {
            Expr::Function(f) => mention(&f.name).is_some(),
            Expr::Identifier(name) => is_bound(name),
            Expr::CompoundIdentifier(parts) => parts.last().is_some_and(is_bound),
            _ => false,
        })
}

fn is_bound(name: &Ident) -> bool {
    let bounds = ["window_start", "window_end", "window_time"];
    bounds.iter().any(|bound| name.value.eq_ignore_ascii_case(bound))
}

/// A bucket that a SELECT groups by.
struct Bucket {
    /// The call as written.
    call: Expr,
    /// The name of the column that it makes.
    name: String,
    /// The column of times, the size, the offset and the time zone.
    args: Vec<FunctionArg>,
}

impl Bucket {
    fn window(&self, name: &str) -> Expr {
        let mut ident = Ident::new(name);
        if let Expr::Function(function) = &self.call
            && let Some(written) = plain(&function.name)
        {
            ident.span = written.span;
        }
        Expr::Function(Function {
            name: ObjectName::from(vec![ident]),
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args: FunctionArguments::List(FunctionArgumentList {
                duplicate_treatment: None,
                args: self.args.clone(),
                clauses: vec![],
            }),
            filter: None,
            null_treatment: None,
            over: None,
            within_group: vec![],
        })
    }
}

/// The first bucket in GROUP BY.
fn bucket_of(select: &Select) -> Result<Option<Bucket>> {
    let GroupByExpr::Expressions(group_by, _) = &select.group_by else { return Ok(None) };
    for expr in group_by {
        if let Some(expr) = meant(expr, &select.projection)
            && let Some(bucket) = bucket(expr)?
        {
            return Ok(Some(bucket));
        }
    }
    Ok(None)
}

/// The expression that a grouping expression stands for, where it is an alias or an ordinal.
fn meant<'a>(expr: &'a Expr, projection: &'a [SelectItem]) -> Option<&'a Expr> {
    let of_item = |item: &'a SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    };
    match expr {
        Expr::Nested(inner) => meant(inner, projection),
        Expr::Value(value) => match &value.value {
            Value::Number(n, _) => {
                let index: usize = n.parse().ok()?;
                of_item(projection.get(index.checked_sub(1)?)?)
            }
            _ => None,
        },
        Expr::Identifier(name) => projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { alias, expr } if alias == name => Some(expr),
            _ => None,
        }),
        other => Some(other),
    }
}

fn is_called(function: &Function, name: &str) -> bool {
    plain(&function.name).is_some_and(|ident| ident.value.eq_ignore_ascii_case(name))
}

fn expr_of(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn bucket(expr: &Expr) -> Result<Option<Bucket>> {
    let Expr::Function(function) = expr else { return Ok(None) };
    let (bins, truncs) = (is_called(function, "date_bin"), is_called(function, "date_trunc"));
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    if !bins && !truncs {
        return Ok(None);
    }
    let Some(given) = list.args.iter().map(expr_of).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let (time, size, offset) = match given.as_slice() {
        [size, time] if bins => (time, length(size, function)?, Span::default()),
        [size, time, origin] if bins => {
            let size = length(size, function)?;
            let Some(offset) = offset_of_origin(size, origin) else { return Ok(None) };
            (time, size, offset)
        }
        [unit, time] if truncs => {
            let (size, offset) = of_unit(unit, function)?;
            (time, size, offset)
        }
        _ => return Ok(None),
    };
    if !matches!(time, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
        return Ok(None);
    }
    let mut args = vec![unnamed((*time).clone()), unnamed(interval(size))];
    if offset != Span::default() {
        args.push(unnamed(interval(offset)));
    }
    // date_bin counts in UTC, date_trunc by the clocks of the column's time zone.
    args.push(if bins {
        marked(ZONE, Value::SingleQuotedString("UTC".to_owned()))
    } else {
        marked(ZONE_OF_COLUMN, Value::Boolean(true))
    });
    let name = plain(&function.name).map(|ident| ident.value.to_lowercase()).unwrap_or_default();
    Ok(Some(Bucket { call: expr.clone(), name, args }))
}

/// `name => value`.
fn marked(name: &str, value: Value) -> FunctionArg {
    FunctionArg::Named {
        name: Ident::new(name),
        arg: FunctionArgExpr::Expr(Expr::Value(value.into())),
        operator: FunctionArgOperator::RightArrow,
    }
}

/// An interval of this length.
fn interval(length: Span) -> Expr {
    let text = Value::SingleQuotedString(length.text());
    Expr::Interval(Interval {
        value: Box::new(Expr::Value(text.into())),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    })
}

/// The text of an interval, or of a string used as one.
fn text_of_interval(expr: &Expr) -> Option<String> {
    let text = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            Value::Number(number, _) => Some(number.clone()),
            _ => None,
        },
        _ => None,
    };
    match expr {
        Expr::Interval(interval) => {
            let number = text(&interval.value)?;
            Some(match &interval.leading_field {
                Some(unit) => format!("{number} {unit}"),
                None => number,
            })
        }
        other => text(other),
    }
}

/// The size of the buckets of date_bin, in which a day has 24 hours.
fn length(size: &Expr, function: &Function) -> Result<Span> {
    let text = text_of_interval(size);
    let span = text.as_deref().and_then(|text| parse_span(text).ok()).unwrap_or_default();
    let of_days = text.as_deref().and_then(|text| parse_text(text).ok()).unwrap_or_default();
    if span.months > 0 && span.days == 0 && span.nanos == 0 {
        return Ok(span);
    }
    if of_days > 0 {
        return Ok(Span { nanos: of_days, ..Span::default() });
    }
    Err(no_length(&size.to_string(), name_place(&function.name)))
}

/// The length of a unit, and the offset of its first start after the epoch.
fn of_unit(unit: &Expr, function: &Function) -> Result<(Span, Span)> {
    let text = text_of_interval(unit).unwrap_or_else(|| unit.to_string());
    let none = Span::default();
    let nanos = |nanos| (Span { nanos, ..none }, none);
    let months = |months| (Span { months, ..none }, none);
    Ok(match text.to_lowercase().as_str() {
        "microsecond" => nanos(1_000),
        "millisecond" => nanos(1_000_000),
        "second" => nanos(SECOND),
        "minute" => nanos(60 * SECOND),
        "hour" => nanos(3_600 * SECOND),
        "day" => (Span { days: 1, ..none }, none),
        "week" => (Span { days: 7, ..none }, Span { days: MONDAY, ..none }),
        "month" => months(1),
        "quarter" => months(3),
        "year" => months(12),
        _ => return Err(no_length(&text, name_place(&function.name))),
    })
}

fn no_length(size: &str, place: Option<Place>) -> Error {
    placed(
        Error::sql(format!("a group by {size} is not a window: it is not a length of time"))
            .with_hint("Group by whole months, or by days, hours and shorter units together."),
        place,
    )
}

/// The offset of the first bucket after the epoch, when one begins at `origin`.
fn offset_of_origin(size: Span, origin: &Expr) -> Option<Span> {
    let origin = origin_nanos(origin)?;
    if size.months == 0 {
        return Some(Span { nanos: origin.rem_euclid(size.nanos), ..Span::default() });
    }
    // Months that begin on another day than the first would be cut short where a month lacks that day.
    let origin = DateTime::from_timestamp_nanos(i64::try_from(origin).ok()?).naive_utc();
    if origin.day() != 1 || origin.time() != NaiveTime::MIN {
        return None;
    }
    let months = (i128::from(origin.year()) - 1970) * 12 + i128::from(origin.month0());
    Some(Span { months: months.rem_euclid(size.months), ..Span::default() })
}

/// The nanoseconds from the epoch to an origin.
fn origin_nanos(origin: &Expr) -> Option<i128> {
    let text = match origin {
        Expr::TypedString(typed) => match &typed.value.value {
            Value::SingleQuotedString(text) => text,
            _ => return None,
        },
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text,
            _ => return None,
        },
        _ => return None,
    };
    string_to_timestamp_nanos(text).ok().map(i128::from)
}

/// Replaces the bucket by the window.
fn rewrite(select: &mut Select, order_by: Option<&mut OrderBy>, bucket: &Bucket) -> Result<()> {
    let projection = select.projection.clone();
    if let GroupByExpr::Expressions(group_by, _) = &mut select.group_by {
        for expr in group_by {
            if meant(expr, &projection) == Some(&bucket.call) {
                *expr = bucket.window("TUMBLE");
            }
        }
    }
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && *expr == bucket.call
        {
            // The column's name in the bounded form.
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', &bucket.name),
            };
        }
    }
    let mut starts = Starts { bucket, start: bucket.window("TUMBLE_START"), nested: 0 };
    let _all = select.projection.visit(&mut starts);
    let _all = select.having.visit(&mut starts);
    let _all = select.qualify.visit(&mut starts);
    let _all = select.distinct.visit(&mut starts);
    if let Some(order_by) = order_by {
        let _all = order_by.visit(&mut starts);
    }
    Ok(())
}

/// Replaces the call by the start of the window.
struct Starts<'a> {
    bucket: &'a Bucket,
    start: Expr,
    nested: usize,
}

impl VisitorMut for Starts<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.nested += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.nested -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.nested == 0 && *expr == self.bucket.call {
            *expr = self.start.clone();
        }
        ControlFlow::Continue(())
    }
}
