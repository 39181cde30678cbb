//! Lengths of time in the tail, in the window clause and in WAIT FOR.

use sqlparser::ast::{DateTimeField, Expr, Value};
use sqlparser::tokenizer::Token;
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, spanning, unquoted};

/// A fixed length of time, without months or years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// In nanoseconds; not negative.
    pub nanos: i128,
    /// Its place.
    pub place: Place,
}

impl Interval {
    /// This interval, or an error if it is zero; `what` names it in the error.
    pub(super) fn positive(self, what: &str) -> Result<Self> {
        if self.nanos > 0 {
            return Ok(self);
        }
        Err(Error::sql(format!("{what} must be longer than zero")).with_place(self.place))
    }

    /// As the standard library's duration, saturating.
    pub fn to_duration(self) -> std::time::Duration {
        let seconds = u64::try_from(self.nanos / 1_000_000_000).unwrap_or(u64::MAX);
        let nanos = u32::try_from(self.nanos % 1_000_000_000).unwrap_or(0);
        std::time::Duration::new(seconds, nanos)
    }
}

/// A length of time that may include months; its days may have 23 or 25 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) months: i128,
    pub(super) days: i128,
    pub(super) nanos: i128,
}

impl Span {
    const NANOS_PER_DAY: i128 = 86_400 * 1_000_000_000;

    /// As the text of an interval, in the largest unit that is exact.
    pub(super) fn text(self) -> String {
        let Self { months, days, nanos } = self;
        let mut parts = vec![];
        if months != 0 {
            parts.push(format!("{months} months"));
        }
        if days != 0 {
            parts.push(format!("{days} days"));
        }
        if nanos != 0 || parts.is_empty() {
            let units =
                [(1_000_000_000, "seconds"), (1_000_000, "milliseconds"), (1_000, "microseconds")];
            let exact = units.into_iter().find(|(size, _)| nanos % size == 0);
            let (size, unit) = exact.unwrap_or((1, "nanoseconds"));
            parts.push(format!("{} {unit}", nanos / size));
        }
        parts.join(" ")
    }

    fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            nanos: self.nanos.checked_add(other.nanos)?,
        })
    }
}

/// Reads `INTERVAL '5 seconds'`, `INTERVAL '5' SECOND`, `'5 seconds'`, `5 SECONDS` or `5s`;
/// `what` names it in errors.
pub(super) fn interval(cursor: &mut Cursor<'_>, what: &str) -> Result<Interval> {
    let (text, place) = interval_text(cursor, what)?;
    let nanos = parse_text(&text).map_err(|why| no_length(&text, what, &why, place))?;
    Ok(Interval { nanos, place })
}

/// Like [`interval`], for a length that may include months.
pub(super) fn span(cursor: &mut Cursor<'_>, what: &str) -> Result<Span> {
    let (text, place) = interval_text(cursor, what)?;
    parse_span(&text).map_err(|why| no_length(&text, what, &why, place))
}

fn no_length(text: &str, what: &str, why: &str, place: Place) -> Error {
    Error::sql(format!("\"{text}\" is not {what}: {why}"))
        .with_place(place)
        .with_hint("Write a length such as '10 seconds', '1 hour 30 minutes' or '00:05:00'.")
}

fn interval_text(cursor: &mut Cursor<'_>, what: &str) -> Result<(String, Place)> {
    let start = cursor.place();
    cursor.eat(&["INTERVAL"]);
    let text = match cursor.peek(0) {
        Token::SingleQuotedString(text) => {
            cursor.advance();
            let unit = unquoted(cursor.peek(0)).filter(|w| unit_of(w).is_some());
            match unit {
                Some(unit) if is_number(text.trim()) => {
                    cursor.advance();
                    format!("{text} {unit}")
                }
                _ => text.clone(),
            }
        }
        Token::Number(..) => numbers(cursor)?,
        _ => {
            return Err(cursor
                .expected(&format!("{what}, as an interval"))
                .with_hint("Write it as INTERVAL '5 seconds' or 5 SECONDS."));
        }
    };
    let place = spanning(start, cursor.place_before());
    Ok((text, place))
}

/// `1 HOUR 30 MINUTES`, without INTERVAL and quotes.
fn numbers(cursor: &mut Cursor<'_>) -> Result<String> {
    let mut text = String::new();
    while let Token::Number(number, _) = cursor.peek(0) {
        cursor.advance();
        let Some(unit) = unquoted(cursor.peek(0)) else {
            return Err(cursor.expected("a unit such as SECONDS"));
        };
        cursor.advance();
        text.push_str(&format!("{number} {unit} "));
    }
    text.truncate(text.trim_end().len());
    Ok(text)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// The nanoseconds of a text such as `1 day 02:30:00`, or why it has none; a day has 24 hours.
pub(super) fn parse_text(text: &str) -> Result<i128, String> {
    let Span { months, days, nanos } = parse_span(text)?;
    if months != 0 {
        return Err("months have no fixed length; use days or shorter units".to_owned());
    }
    let days = days.checked_mul(Span::NANOS_PER_DAY).ok_or_else(too_long)?;
    days.checked_add(nanos).ok_or_else(too_long)
}

/// The length that a text expresses, or why it expresses none.
pub(super) fn parse_span(text: &str) -> Result<Span, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut total = Span::default();
    while !rest.is_empty() {
        if rest.starts_with('-') {
            return Err("it is negative".to_owned());
        }
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
        let (number, after) = rest.split_at(digits.unwrap_or(rest.len()));
        if number.is_empty() {
            return Err(format!("a number is missing before \"{rest}\""));
        }
        let part = if number.contains(':') {
            rest = after.trim_start();
            Span { nanos: clock(number)?, ..Span::default() }
        } else {
            let after = after.trim_start();
            let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            rest = after.trim_start();
            of_unit(number, unit)?
        };
        total = total.checked_add(part).ok_or_else(too_long)?;
    }
    Ok(total)
}

/// A number of units. A fraction of a day is one of 24 hours; months have no fractions.
fn of_unit(number: &str, name: &str) -> Result<Span, String> {
    match unit_of(name) {
        Some(Unit::Nanos(nanos)) => Ok(Span { nanos: scaled(number, nanos)?, ..Span::default() }),
        Some(Unit::Days(days)) if number.contains('.') => {
            let nanos =
                scaled(number, days.checked_mul(Span::NANOS_PER_DAY).ok_or_else(too_long)?)?;
            Ok(Span { nanos, ..Span::default() })
        }
        Some(Unit::Days(days)) => Ok(Span { days: scaled(number, days)?, ..Span::default() }),
        Some(Unit::Months(_)) if number.contains('.') => Err(format!("{name} are whole numbers")),
        Some(Unit::Months(months)) => {
            Ok(Span { months: scaled(number, months)?, ..Span::default() })
        }
        None if name.is_empty() => Err("the unit is missing".to_owned()),
        None => Err(format!("\"{name}\" is not a unit of time")),
    }
}

/// Writes quarters of a year, which the engine does not read, as months: `INTERVAL '1 quarter'`, `INTERVAL '1' QUARTER`.
pub(super) fn without_quarters(mut expr: Expr) -> Expr {
    let Expr::Interval(interval) = &mut expr else { return expr };
    let Expr::Value(value) = interval.value.as_mut() else { return expr };
    let (Value::SingleQuotedString(text) | Value::Number(text, _)) = &value.value else {
        return expr;
    };
    let said = match &interval.leading_field {
        Some(DateTimeField::Quarter) => format!("{text} quarters"),
        Some(_) => return expr,
        None => text.clone(),
    };
    if said.to_lowercase().contains("quarter")
        && let Ok(span) = parse_span(&said)
    {
        value.value = Value::SingleQuotedString(span.text());
        interval.leading_field = None;
    }
    expr
}

/// `hh:mm[:ss[.fff]]`.
fn clock(text: &str) -> Result<i128, String> {
    let mut total = 0_i128;
    let mut units = [3600, 60, 1].into_iter();
    for part in text.split(':') {
        let unit: i128 = units.next().ok_or("it has too many colons")?;
        let nanos = scaled(part, unit * 1_000_000_000)?;
        total = total.checked_add(nanos).ok_or_else(too_long)?;
    }
    Ok(total)
}

/// `number` (decimal) times `unit`, exactly.
fn scaled(number: &str, unit: i128) -> Result<i128, String> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let value: i128 = digits.parse().map_err(|_| format!("\"{number}\" is not a number"))?;
    let places = u32::try_from(fraction.len()).map_err(|_| too_long())?;
    let divisor = 10_i128.checked_pow(places).ok_or_else(too_long)?;
    let product = value.checked_mul(unit).ok_or_else(too_long)?;
    if product % divisor != 0 {
        return Err("it is finer than a nanosecond".to_owned());
    }
    Ok(product / divisor)
}

fn too_long() -> String {
    "it is too long".to_owned()
}

/// A unit of time.
enum Unit {
    Nanos(i128),
    Days(i128),
    Months(i128),
}

/// The unit of that name.
fn unit_of(name: &str) -> Option<Unit> {
    const SECOND: i128 = 1_000_000_000;
    Some(match name.to_lowercase().as_str() {
        "ns" | "nanosecond" | "nanoseconds" => Unit::Nanos(1),
        "us" | "µs" | "microsecond" | "microseconds" => Unit::Nanos(1_000),
        "ms" | "millisecond" | "milliseconds" => Unit::Nanos(1_000_000),
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Nanos(SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Nanos(60 * SECOND),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Nanos(3_600 * SECOND),
        "d" | "day" | "days" => Unit::Days(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "month" | "months" | "mon" | "mons" => Unit::Months(1),
        "quarter" | "quarters" => Unit::Months(3),
        "year" | "years" => Unit::Months(12),
        _ => return None,
    })
}
