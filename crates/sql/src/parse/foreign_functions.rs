//! Rewrites calls of functions of Flink, ksqlDB, DuckDB, MySQL and others that the engine has as an expression:
//! `if(c, a, b)`, `count_if(c)`, `split_index(s, d, i)`, `timestampadd(HOUR, 2, ts)`, `FLOOR(ts TO DAY)`.

use std::ops::ControlFlow;

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, DateTimeField, DuplicateTreatment,
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Interval, ObjectName,
    SelectItem, TimezoneInfo, Value, visit_expressions, visit_expressions_mut,
};

use super::foreign::{call, text};
use super::relation::{plain, unnamed};

/// Calls that become another expression.
const REWRITTEN: &[&str] = &[
    "if",
    "iif",
    "locate",
    "split_index",
    "regexp_extract",
    "second",
    "dayname",
    "monthname",
    "last_day",
    "epoch",
    "epoch_ms",
    "timestampadd",
    "dateadd",
    "date_add",
    "date_sub",
];
/// Calls whose arguments change.
const CHANGED: &[&str] = &[
    "count_if",
    "countif",
    "count_distinct",
    "collect_set",
    "timestampdiff",
    "datediff",
    "date_diff",
];

/// Columns of expressions with more parts are not named by what was written: names are for people.
const NAMED_PARTS: usize = 100;

/// Whether calls of this function are rewritten.
pub(super) fn is_rewritten(name: &str) -> bool {
    REWRITTEN.iter().chain(CHANGED).any(|called| name.eq_ignore_ascii_case(called))
}

/// Names a column of a SELECT by what was written, if a call in it is rewritten here.
pub(super) fn name_as_written(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(expr) = item else { return };
    let (mut parts, mut changed) = (0, false);
    let _fits = visit_expressions(&*expr, |part| {
        parts += 1;
        changed |= changes(part);
        if parts > NAMED_PARTS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if !changed || parts > NAMED_PARTS {
        return;
    }
    let mut written = expr.clone();
    let _never_breaks: ControlFlow<()> = visit_expressions_mut(&mut written, |expr| {
        match expr {
            Expr::Function(function) => {
                if let Some(name) = plain(&function.name).cloned() {
                    function.name = ObjectName::from(vec![folded(name)]);
                }
            }
            Expr::Identifier(name) => *name = folded(name.clone()),
            Expr::CompoundIdentifier(parts) => {
                if let Some(name) = parts.last() {
                    *expr = Expr::Identifier(folded(name.clone()));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let alias = Ident::with_quote('"', written.to_string());
    let expr = std::mem::replace(expr, Expr::Value(Value::Null.into()));
    *item = SelectItem::ExprWithAlias { expr, alias };
}

/// Whether an expression itself is rewritten.
fn changes(expr: &Expr) -> bool {
    match expr {
        Expr::Function(function) => {
            plain(&function.name).is_some_and(|name| is_rewritten(&name.value))
        }
        _ => rounded(expr).is_some(),
    }
}

/// A name as it is shown: in lower case unless it was quoted.
fn folded(name: Ident) -> Ident {
    match name.quote_style {
        Some(_) => Ident::new(name.value),
        None => Ident::new(name.value.to_lowercase()),
    }
}

/// Rewrites a call; `None` when it stays, perhaps with other arguments.
pub(super) fn rewritten(function: &mut Function) -> Option<Expr> {
    let name = plain(&function.name)?.value.to_ascii_lowercase();
    if !is_rewritten(&name) {
        return None;
    }
    let args = arguments(function)?;
    changed(function, &name, &args);
    let number = |digits: &str| Expr::Value(Value::Number(digits.to_owned(), false).into());
    Some(match (name.as_str(), args.as_slice()) {
        ("if" | "iif", [condition, then, otherwise]) => case(condition, then, otherwise),
        ("locate", [part, of]) => call("strpos", vec![of.clone(), part.clone()]),
        ("split_index", [text, delimiter, at]) => {
            let at = binary(at, BinaryOperator::Plus, &number("1"));
            call("split_part", vec![text.clone(), delimiter.clone(), at])
        }
        ("regexp_extract", [text, pattern]) => whole_match(text, pattern),
        ("regexp_extract", [text, pattern, group]) if is_number(group, "0") => {
            whole_match(text, pattern)
        }
        ("regexp_extract", [text, pattern, group]) => {
            let groups = call("regexp_match", vec![text.clone(), pattern.clone()]);
            call("array_element", vec![groups, group.clone()])
        }
        ("second", [time]) => {
            let seconds = call("date_part", vec![text("second"), time.clone()]);
            cast(call("trunc", vec![seconds]), DataType::BigInt(None))
        }
        ("dayname", [time]) => call("to_char", vec![time.clone(), text("%A")]),
        ("monthname", [time]) => call("to_char", vec![time.clone(), text("%B")]),
        ("last_day", [time]) => {
            let month = call("date_trunc", vec![text("month"), time.clone()]);
            let next = binary(&month, BinaryOperator::Plus, &interval("month"));
            let last = binary(&next, BinaryOperator::Minus, &interval("day"));
            cast(last, DataType::Date)
        }
        ("epoch", [time]) => call("date_part", vec![text("epoch"), time.clone()]),
        ("epoch_ms", [time]) => {
            let millis = DataType::Timestamp(Some(3), TimezoneInfo::None);
            cast(cast(time.clone(), millis), DataType::BigInt(None))
        }
        ("timestampadd" | "dateadd" | "date_add", [unit, count, time]) => {
            let step = binary(count, BinaryOperator::Multiply, &interval(&unit_of(unit)?));
            binary(time, BinaryOperator::Plus, &step)
        }
        ("date_add", [time, by]) if is_interval(by) => binary(time, BinaryOperator::Plus, by),
        ("date_sub", [time, by]) if is_interval(by) => binary(time, BinaryOperator::Minus, by),
        _ => return None,
    })
}

/// `FLOOR(ts TO DAY)` as `date_trunc('day', ts)`; CEIL goes to the next day, except at the beginning of one.
pub(super) fn rounded(expr: &Expr) -> Option<Expr> {
    let (time, field, up) = match expr {
        Expr::Floor { expr, field: CeilFloorKind::DateTimeField(field) } => (expr, field, false),
        Expr::Ceil { expr, field: CeilFloorKind::DateTimeField(field) } => (expr, field, true),
        _ => return None,
    };
    if matches!(field, DateTimeField::NoDateTime) {
        return None;
    }
    let unit = field.to_string().to_ascii_lowercase();
    let floor = call("date_trunc", vec![text(&unit), time.as_ref().clone()]);
    if !up {
        return Some(floor);
    }
    let next = binary(&floor, BinaryOperator::Plus, &interval(&unit));
    Some(case(&binary(time, BinaryOperator::Eq, &floor), time, &next))
}

/// Changes the arguments of calls that remain calls.
fn changed(function: &mut Function, name: &str, args: &[Expr]) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    let mut rename = |ours: &str| {
        if let Some(part) = plain(&function.name).cloned() {
            function.name = ObjectName::from(vec![Ident { value: ours.to_owned(), ..part }]);
        }
    };
    match (name, args) {
        ("count_if" | "countif", [condition]) => {
            rename("count");
            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Wildcard)];
            let filter = function.filter.take();
            let both = |filter: Box<Expr>| binary(&filter, BinaryOperator::And, condition);
            function.filter = Some(Box::new(filter.map_or_else(|| condition.clone(), both)));
        }
        ("count_distinct", [_]) => {
            rename("count");
            list.duplicate_treatment = Some(DuplicateTreatment::Distinct);
        }
        ("collect_set", [_]) => {
            rename("array_agg");
            list.duplicate_treatment = Some(DuplicateTreatment::Distinct);
        }
        ("timestampdiff" | "datediff" | "date_diff", [unit, from, to]) => {
            if let Some(unit) = unit_of(unit) {
                let args = [text(&unit), from.clone(), to.clone()];
                list.args = args.into_iter().map(unnamed).collect();
            }
        }
        _ => {}
    }
}

/// The arguments of a call, if all are plain expressions.
pub(super) fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let argument = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(argument).collect()
}

/// A unit of time, written as a keyword or as text.
fn unit_of(unit: &Expr) -> Option<String> {
    let name = match unit {
        Expr::Identifier(name) => &name.value,
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text,
            _ => return None,
        },
        _ => return None,
    };
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("sql_tsi_").unwrap_or(&name);
    let one = name.strip_suffix('s').unwrap_or(name);
    UNITS.contains(&one).then(|| one.to_owned())
}

/// What a unit of time may be called. Other names are those of columns.
const UNITS: &[&str] = &[
    "nanosecond",
    "microsecond",
    "millisecond",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "quarter",
    "year",
];

fn is_number(expr: &Expr, digits: &str) -> bool {
    matches!(expr, Expr::Value(value) if matches!(&value.value, Value::Number(n, _) if n == digits))
}

fn is_interval(expr: &Expr) -> bool {
    match expr {
        Expr::Interval(_) => true,
        Expr::Nested(inner) => is_interval(inner),
        Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } => {
            is_interval(left) || is_interval(right)
        }
        _ => false,
    }
}

fn whole_match(of: &Expr, pattern: &Expr) -> Expr {
    let open = binary(&text("("), BinaryOperator::StringConcat, pattern);
    let whole = binary(&open, BinaryOperator::StringConcat, &text(")"));
    let groups = call("regexp_match", vec![of.clone(), whole]);
    let first = Expr::Value(Value::Number("1".to_owned(), false).into());
    call("array_element", vec![groups, first])
}

/// `((left) op (right))`.
pub(super) fn binary(left: &Expr, op: BinaryOperator, right: &Expr) -> Expr {
    let operand = |expr: &Expr| Box::new(Expr::Nested(Box::new(expr.clone())));
    let (left, right) = (operand(left), operand(right));
    Expr::Nested(Box::new(Expr::BinaryOp { left, op, right }))
}

fn case(condition: &Expr, then: &Expr, otherwise: &Expr) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition: condition.clone(), result: then.clone() }],
        else_result: Some(Box::new(otherwise.clone())),
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// An interval of one unit.
fn interval(unit: &str) -> Expr {
    Expr::Interval(Interval {
        value: Box::new(text(&format!("1 {unit}"))),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    })
}
