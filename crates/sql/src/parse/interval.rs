//! Fixed lengths of time as the tail, the window clause and WAIT FOR write them.

use sqlparser::tokenizer::Token;
use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, spanning, unquoted};

/// A fixed length of time. Months and years are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// In nanoseconds; not negative.
    pub nanos: i128,
    /// Where it stands.
    pub place: Place,
}

impl Interval {
    /// Itself, when it is not zero. `what` names it in the error.
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

/// Reads `INTERVAL '5 seconds'`, `INTERVAL '5' SECOND`, `'5 seconds'`, `5 SECONDS` or `5s`;
/// `what` names it in errors.
pub(super) fn interval(cursor: &mut Cursor<'_>, what: &str) -> Result<Interval> {
    let start = cursor.place();
    cursor.eat(&["INTERVAL"]);
    let text = match cursor.peek(0) {
        Token::SingleQuotedString(text) => {
            cursor.advance();
            let unit = unquoted(cursor.peek(0)).filter(|w| unit_nanos(w).is_some());
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
    let nanos = parse_text(&text).map_err(|why| {
        Error::sql(format!("\"{text}\" is not {what}: {why}"))
            .with_place(place)
            .with_hint("Write a length such as '10 seconds', '1 hour 30 minutes' or '00:05:00'.")
    })?;
    Ok(Interval { nanos, place })
}

/// `1 HOUR 30 MINUTES`, bare.
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

/// The nanoseconds of a text such as `1 day 02:30:00`, or why it has none.
pub(super) fn parse_text(text: &str) -> Result<i128, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        if rest.starts_with('-') {
            return Err("it is negative".to_owned());
        }
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
        let (number, after) = rest.split_at(digits.unwrap_or(rest.len()));
        if number.is_empty() {
            return Err(format!("a number is missing before \"{rest}\""));
        }
        let nanos = if number.contains(':') {
            rest = after.trim_start();
            clock(number)?
        } else {
            let after = after.trim_start();
            let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            rest = after.trim_start();
            scaled(number, unit_of(unit)?)?
        };
        total = total.checked_add(nanos).ok_or_else(too_long)?;
    }
    Ok(total)
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

fn unit_of(unit: &str) -> Result<i128, String> {
    match unit_nanos(unit) {
        Some(Some(nanos)) => Ok(nanos),
        Some(None) => Err(format!("{unit} has no fixed length; use days or shorter units")),
        None if unit.is_empty() => Err("the unit is missing".to_owned()),
        None => Err(format!("\"{unit}\" is not a unit of time")),
    }
}

/// The nanoseconds of a unit; `Some(None)` for one without a fixed length.
fn unit_nanos(unit: &str) -> Option<Option<i128>> {
    const SECOND: i128 = 1_000_000_000;
    Some(match unit.to_lowercase().as_str() {
        "ns" | "nanosecond" | "nanoseconds" => Some(1),
        "us" | "µs" | "microsecond" | "microseconds" => Some(1_000),
        "ms" | "millisecond" | "milliseconds" => Some(1_000_000),
        "s" | "sec" | "secs" | "second" | "seconds" => Some(SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60 * SECOND),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(3_600 * SECOND),
        "d" | "day" | "days" => Some(86_400 * SECOND),
        "w" | "week" | "weeks" => Some(7 * 86_400 * SECOND),
        "month" | "months" | "mon" | "mons" | "quarter" | "quarters" | "year" | "years" => None,
        _ => return None,
    })
}
