//! Inference of the columns of text from its first rows.
//!
//! A type is inferred only where it holds all values exactly: whole numbers become BIGINT, BIGINT UNSIGNED or
//! DECIMAL(38, 0), depending on their size, and text beyond that; whole numbers that a double would round do not
//! combine with fractions. Strings that all look like timestamps become timestamps (µs); incompatible values become
//! text. All columns are nullable: the first rows are no promise for the others.

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};

use crate::formats::convert::{is_more_than_its_value, is_rounded_by_double, is_timestamp};
use crate::formats::json::tokens::{Cursor, Value, Wrong};

/// What is known about the values of one column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Guess {
    /// Only NULLs so far.
    Unknown,
    Bool,
    /// Whole numbers: the smallest and the largest.
    Whole(i128, i128),
    /// Numbers with a fraction, or whole ones that a double holds.
    Float,
    /// Numbers that no numeric type holds exactly.
    Digits,
    /// Times as text; whether all of them lie in 1970.
    Timestamp(bool),
    Text,
    /// Values of several kinds.
    Mixed,
    List(Box<Guess>),
    Struct(Vec<(String, Guess)>),
}

/// The largest whole number of 38 digits.
const WHOLE_MAX: i128 = 10_i128.pow(38) - 1;
/// Whole numbers up to here are exact as doubles.
const DOUBLE_MAX: i128 = 1 << 53;

impl Guess {
    /// Combines what is known from two values.
    pub(super) fn merge(self, other: Self) -> Self {
        use Guess as G;
        match (self, other) {
            (G::Unknown, g) | (g, G::Unknown) => g,
            (G::Whole(a, b), G::Whole(c, d)) => G::Whole(a.min(c), b.max(d)),
            (G::Whole(min, max), G::Float) | (G::Float, G::Whole(min, max)) => {
                if min >= -DOUBLE_MAX && max <= DOUBLE_MAX { G::Float } else { G::Digits }
            }
            (G::Digits, G::Whole(..) | G::Float) | (G::Whole(..) | G::Float, G::Digits) => {
                G::Digits
            }
            (G::Timestamp(a), G::Timestamp(b)) => G::Timestamp(a && b),
            (G::Text, G::Timestamp(_)) | (G::Timestamp(_), G::Text) => G::Text,
            (G::List(a), G::List(b)) => G::List(Box::new(a.merge(*b))),
            (G::Struct(mut a), G::Struct(b)) => {
                for (name, guess) in b {
                    match a.iter_mut().find(|(n, _)| *n == name) {
                        Some((_, known)) => {
                            *known = std::mem::replace(known, G::Unknown).merge(guess);
                        }
                        None => a.push((name, guess)),
                    }
                }
                G::Struct(a)
            }
            (a, b) if a == b => a,
            _ => G::Mixed,
        }
    }

    /// Whether two files contradict each other in this column: each has values of one kind, and the kinds differ.
    pub(super) fn contradicts(&self, other: &Self) -> bool {
        use Guess as G;
        match (self, other) {
            (G::Unknown | G::Mixed, _) | (_, G::Unknown | G::Mixed) => false,
            (G::List(a), G::List(b)) => a.contradicts(b),
            (G::Struct(a), G::Struct(b)) => a.iter().any(|(name, guess)| {
                b.iter().any(|(other, known)| other == name && guess.contradicts(known))
            }),
            (a, b) if a.is_number() => !b.is_number(),
            (G::Text | G::Timestamp(_), b) => !matches!(b, G::Text | G::Timestamp(_)),
            (a, b) => a != b,
        }
    }

    /// Whether all values are numbers.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Whole(..) | Self::Float | Self::Digits)
    }

    /// Infers from one field of CSV.
    pub(super) fn of_text(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::Unknown };
        if is_more_than_its_value(text)
            && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-'))
        {
            Self::Text
        } else if text.parse::<f64>().is_ok() && text.bytes().any(|b| b.is_ascii_digit()) {
            Self::of_number(text)
        } else if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            Self::Bool
        } else if is_timestamp(text) {
            Self::Timestamp(text.starts_with("1970"))
        } else {
            Self::Text
        }
    }

    fn of_number(text: &str) -> Self {
        match text.parse::<i128>() {
            Ok(whole) => Self::Whole(whole, whole),
            Err(_) if is_rounded_by_double(text) => Self::Digits,
            Err(_) if text.parse::<f64>().is_ok_and(f64::is_finite) => Self::Float,
            Err(_) => Self::Digits,
        }
    }

    /// Infers from one line of JSON. Keys keep the order in which they are first seen.
    ///
    /// # Errors
    /// When it is not JSON.
    pub(super) fn of_json(line: &str) -> Result<Self, Wrong> {
        let mut cursor = Cursor::new(line);
        let value = cursor.value()?;
        if cursor.is_at_end() { Self::of_value(value) } else { Err("there is text after it") }
    }

    fn of_value(value: Value<'_>) -> Result<Self, Wrong> {
        Ok(match value {
            Value::Null => Self::Unknown,
            Value::True | Value::False => Self::Bool,
            Value::Number(number) => Self::of_number(number),
            Value::Text(text) if is_timestamp(text) => Self::Timestamp(text.starts_with("1970")),
            Value::Text(_) | Value::Escaped(_) => Self::Text,
            Value::List(list) => {
                let mut item = Self::Unknown;
                Cursor::new(list).list::<Wrong>(|value| {
                    let known = std::mem::replace(&mut item, Self::Unknown);
                    item = known.merge(Self::of_value(value)?);
                    Ok(())
                })?;
                Self::List(Box::new(item))
            }
            Value::Object(object) => {
                let mut fields: Vec<(String, Self)> = vec![];
                Cursor::new(object).object::<Wrong>(|key, value| {
                    let guess = Self::of_value(value)?;
                    // If a key occurs twice, the last one counts.
                    match fields.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, known)) => *known = guess,
                        None => fields.push((key.into_owned(), guess)),
                    }
                    Ok(())
                })?;
                Self::Struct(fields)
            }
        })
    }

    /// Returns the type that holds all these values.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Unknown | Self::Text | Self::Digits | Self::Mixed => DataType::Utf8View,
            Self::Bool => DataType::Boolean,
            Self::Whole(min, max) => {
                if i64::try_from(*min).is_ok() && i64::try_from(*max).is_ok() {
                    DataType::Int64
                } else if u64::try_from(*min).is_ok() && u64::try_from(*max).is_ok() {
                    DataType::UInt64
                } else if *min >= -WHOLE_MAX && *max <= WHOLE_MAX {
                    DataType::Decimal128(38, 0)
                } else {
                    DataType::Utf8View
                }
            }
            Self::Float => DataType::Float64,
            Self::Timestamp(_) => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::List(item) => {
                DataType::List(Field::new_list_field(item.data_type(), true).into())
            }
            Self::Struct(fields) => DataType::Struct(to_fields(fields)),
        }
    }
}

fn to_fields(fields: &[(String, Guess)]) -> Fields {
    fields.iter().map(|(name, guess)| Field::new(name, guess.data_type(), true)).collect()
}

/// Returns the schema of these columns.
pub(super) fn schema(columns: &[(String, Guess)]) -> Schema {
    Schema::new(to_fields(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(lines: &[&str]) -> Schema {
        let merged = lines
            .iter()
            .map(|l| Guess::of_json(l).unwrap())
            .fold(Guess::Struct(vec![]), Guess::merge);
        let Guess::Struct(columns) = merged else { panic!("not a struct") };
        schema(&columns)
    }

    #[test]
    fn json_types_are_united() {
        let schema = json(&[
            r#"{"z":1,"a":"2020-01-01T00:00:00Z","m":null,"l":[1,2.5],"s":{"x":1}}"#,
            r#"{"a":"2020-01-01 00:00:01.5","z":2,"b":true,"s":{"y":"t"},"mixed":1}"#,
            r#"{"mixed":"one"}"#,
        ]);
        let got: Vec<String> =
            schema.fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        assert_eq!(
            got,
            [
                "z Int64",
                "a Timestamp(µs)",
                "m Utf8View",
                "l List(Float64)",
                "s Struct(\"x\": Int64, \"y\": Utf8View)",
                "b Boolean",
                "mixed Utf8View",
            ]
        );
    }

    #[test]
    fn one_string_that_is_no_time_makes_text() {
        let schema = json(&[r#"{"a":"2020-01-01T00:00:00Z"}"#, r#"{"a":"later"}"#]);
        assert_eq!(schema.field(0).data_type(), &DataType::Utf8View);
    }

    #[test]
    fn the_type_of_whole_numbers_holds_them_all() {
        let found = |values: &[&str]| {
            let lines: Vec<String> = values.iter().map(|v| format!("{{\"a\":{v}}}")).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            json(&lines).field(0).data_type().clone()
        };
        assert_eq!(found(&["1", "-9223372036854775808"]), DataType::Int64);
        assert_eq!(found(&["1", "9223372036854775808"]), DataType::UInt64);
        assert_eq!(found(&["-1", "9223372036854775808"]), DataType::Decimal128(38, 0));
        assert_eq!(found(&["1", "18446744073709551616"]), DataType::Decimal128(38, 0));
        assert_eq!(found(&["1", &"9".repeat(38)]), DataType::Decimal128(38, 0));
        assert_eq!(found(&["1", &"9".repeat(39)]), DataType::Utf8View);
        assert_eq!(found(&["1", &"9".repeat(400)]), DataType::Utf8View);
        assert_eq!(found(&["1", "1.5"]), DataType::Float64);
        assert_eq!(found(&["7000000000000000001", "1.5"]), DataType::Utf8View);
        assert_eq!(found(&["1.5", "1", "7000000000000000001", "2.5"]), DataType::Utf8View);
        assert_eq!(found(&["1", "1e400"]), DataType::Utf8View);
    }

    #[test]
    fn csv_fields_are_guessed() {
        assert_eq!(Guess::of_text(Some("12")), Guess::Whole(12, 12));
        assert_eq!(Guess::of_text(Some("0")), Guess::Whole(0, 0));
        assert_eq!(Guess::of_text(Some("0.5")), Guess::Float);
        assert_eq!(Guess::of_text(Some("1e3")), Guess::Float);
        assert_eq!(Guess::of_text(Some("inf")), Guess::Text);
        assert_eq!(Guess::of_text(Some("007")), Guess::Text);
        assert_eq!(Guess::of_text(Some("-007")), Guess::Text);
        assert_eq!(Guess::of_text(Some("+49123456")), Guess::Text);
        assert_eq!(Guess::of_text(Some("TRUE")), Guess::Bool);
        assert_eq!(Guess::of_text(Some("2013-01-01 05:17:00")), Guess::Timestamp(false));
        assert_eq!(Guess::of_text(Some("1970-01-01 05:17:00")), Guess::Timestamp(true));
        assert_eq!(Guess::of_text(None), Guess::Unknown);
    }

    #[test]
    fn kinds_contradict_one_another_but_not_what_is_unknown() {
        let of = |line: &str| Guess::of_json(line).unwrap();
        for (a, b, contradict) in [
            ("1", "2.5", false),
            ("1", "\"1\"", true),
            ("\"2020-01-01T00:00:00Z\"", "\"x\"", false),
            ("null", "[1]", false),
            ("[1]", "[\"a\"]", true),
            ("[]", "[\"a\"]", false),
            ("{\"a\":1}", "{\"b\":\"x\"}", false),
            ("{\"a\":1}", "{\"a\":\"x\"}", true),
            ("true", "1", true),
            ("{\"a\":1}", "[1]", true),
        ] {
            assert_eq!(of(a).contradicts(&of(b)), contradict, "{a} {b}");
            assert_eq!(of(b).contradicts(&of(a)), contradict, "{b} {a}");
        }
    }
}
