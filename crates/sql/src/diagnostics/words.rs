//! Replaces the engine's names of types and values by SQL's: `Int64` by BIGINT, `Utf8("x")` by 'x'.
//!
//! Invariants: a text without such names is unchanged; a value that cannot be read stays as it is, except for its
//! type.

use arrow::datatypes::DataType;
use windrow_core::sql_type;

/// Prefixes of the names of Arrow types, and of values of these.
const TYPES: [&str; 13] = [
    "Int",
    "UInt",
    "Float",
    "Utf8",
    "LargeUtf8",
    "Boolean",
    "Date",
    "Time",
    "Decimal",
    "Duration",
    "Interval",
    "Dictionary",
    "List",
];
/// More of them.
const MORE_TYPES: [&str; 8] = [
    "LargeList",
    "FixedSizeList",
    "Struct",
    "Map",
    "Binary",
    "LargeBinary",
    "BinaryView",
    "FixedSizeBinary",
];

/// The text with SQL's names.
pub(super) fn in_sql(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = None;
    while let Some(c) = rest.chars().next() {
        let word_len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if word_len == 0 {
            shown.push(c);
            before = Some(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            continue;
        }
        let (word, behind) = rest.split_at(word_len);
        let (replaced, behind) = match is_type(word) && before != Some('"') {
            true => one(word, behind),
            false => (word.to_owned(), behind),
        };
        before = replaced.chars().next_back();
        shown.push_str(&replaced);
        rest = behind;
    }
    shown
}

fn is_type(word: &str) -> bool {
    let digits = |start: &str| {
        let rest = word.strip_prefix(start)?;
        Some(rest.is_empty() || rest.chars().all(|c| c.is_ascii_digit()))
    };
    let known = TYPES.iter().chain(&MORE_TYPES).any(|start| digits(start) == Some(true));
    let bare = ["Int", "UInt", "Float", "Date", "Time", "Decimal"].contains(&word);
    let unit = ["Second", "Millisecond", "Microsecond", "Nanosecond"];
    let timed = ["Timestamp", "Time32", "Time64", "Duration"]
        .iter()
        .any(|start| word.strip_prefix(start).is_some_and(|rest| unit.contains(&rest)));
    let interval = ["IntervalMonthDayNano", "IntervalDayTime", "IntervalYearMonth"].contains(&word);
    known && !bare || timed || interval || ["Utf8View", "Timestamp"].contains(&word)
}

/// A name with the parentheses that follow it, and the rest of the text.
fn one<'a>(word: &str, behind: &'a str) -> (String, &'a str) {
    let Some((inner, rest)) = parenthesised(behind) else {
        return (named(word).unwrap_or_else(|| word.to_owned()), behind);
    };
    if let Some(name) = named(&format!("{word}({inner})")) {
        return (name, rest);
    }
    if let Some(value) = value(word, inner) {
        return (value, rest);
    }
    match named(word) {
        Some(name) => (format!("{name}({})", in_sql(inner)), rest),
        None => (format!("{word}({})", in_sql(inner)), rest),
    }
}

fn named(text: &str) -> Option<String> {
    if let Ok(data_type) = text.parse::<DataType>() {
        return Some(sql_type(&data_type));
    }
    // A type without its parameters.
    let family = [
        ("Decimal", "DECIMAL"),
        ("Timestamp", "TIMESTAMP"),
        ("Struct", "STRUCT"),
        ("Map", "MAP"),
        ("Interval", "INTERVAL"),
        ("Duration", "DURATION"),
        ("Time", "TIME"),
    ];
    let is_word = text.chars().all(|c| c.is_ascii_alphanumeric());
    let known = family.iter().find(|(start, _)| is_word && text.starts_with(start));
    known.map(|(_, name)| (*name).to_owned())
}

/// The contents of the parentheses at the beginning of a text, and what follows them.
fn parenthesised(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('(')?;
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth > 0 => depth -= 1,
            ')' if !quoted => return Some((text.get(..at)?, text.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

/// A value as SQL writes it; the engine writes `Int64(1)`, `Utf8("x")`, `Decimal128(Some(15),2,1)`.
fn value(of: &str, inner: &str) -> Option<String> {
    let first = inner.split(',').next().unwrap_or(inner).trim();
    if first == "NULL" || first == "None" {
        return Some("NULL".to_owned());
    }
    if let Some(text) = inner.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        let typed = match of {
            "Date32" | "Date64" => "DATE ",
            _ if of.starts_with("Interval") => return Some(interval(text)),
            _ => "",
        };
        return Some(format!("{typed}'{}'", text.replace('\'', "''")));
    }
    if let Some(rest) = inner.strip_prefix("Some(") {
        let (number, rest) = rest.split_once(')')?;
        let scale = rest.rsplit(',').next()?.trim().parse().ok()?;
        return decimal(number, scale);
    }
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    (["true", "false"].contains(&inner) || is_number(inner)).then(|| inner.to_owned()).or_else(
        || {
            // A time, as a number.
            (is_number(first) && of.starts_with("Time")).then(|| first.to_owned())
        },
    )
}

fn decimal(number: &str, scale: usize) -> Option<String> {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", number),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    if scale == 0 {
        return Some(format!("{sign}{digits}"));
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    Some(format!("{sign}{whole}.{part}"))
}

/// An interval that is displayed as `IntervalMonthDayNano { months: 1, days: 0, nanoseconds: 0 }`, or as text.
fn interval(text: &str) -> String {
    let field = |name: &str| -> Option<i64> {
        let (_, rest) = text.split_once(&format!("{name}: "))?;
        let end = rest.find(|c: char| c != '-' && !c.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    };
    let mut parts = vec![];
    for (name, unit) in [("months", "month"), ("days", "day")] {
        if let Some(count) = field(name).filter(|count| *count != 0) {
            parts.push(format!("{count} {unit}"));
        }
    }
    if let Some(nanoseconds) = field("nanoseconds").filter(|count| *count != 0) {
        let (seconds, part) = (nanoseconds / 1_000_000_000, (nanoseconds % 1_000_000_000).abs());
        let part = if part == 0 { String::new() } else { format!(".{part:09}") };
        parts.push(format!("{seconds}{} second", part.trim_end_matches('0')));
    }
    if text.contains('{') {
        if parts.is_empty() {
            parts.push("0 second".to_owned());
        }
        return format!("INTERVAL '{}'", parts.join(" "));
    }
    format!("INTERVAL '{text}'")
}

#[cfg(test)]
mod tests {
    use super::in_sql;

    #[test]
    fn types_and_values_are_as_sql_writes_them() {
        for (text, shown) in [
            ("got Int64 and Utf8View", "got BIGINT and VARCHAR"),
            ("Timestamp(ms), Timestamp(ns, \"UTC\")", "TIMESTAMP(3), TIMESTAMP(9) WITH TIME ZONE"),
            ("Decimal128(10, 2)", "DECIMAL(10, 2)"),
            ("List(Int32) of it", "INT[] of it"),
            ("s.n > Int64(1) AND s.k = Utf8(\"it's (x\")", "s.n > 1 AND s.k = 'it''s (x'"),
            ("Boolean(true) Int32(NULL) Float64(1.5)", "true NULL 1.5"),
            ("Decimal128(Some(-15),4,2)", "-0.15"),
            (
                "IntervalMonthDayNano(\"IntervalMonthDayNano { months: 1, days: 2, nanoseconds: 500000000 }\")",
                "INTERVAL '1 month 2 day 0.5 second'",
            ),
            ("Date32(\"2026-01-01\")", "DATE '2026-01-01'"),
            (
                "Point, Interest, Timed and \"Int64\" stay",
                "Point, Interest, Timed and \"Int64\" stay",
            ),
            ("unclosed Int64(1", "unclosed BIGINT(1"),
            ("", ""),
        ] {
            assert_eq!(in_sql(text), shown);
        }
    }
}
