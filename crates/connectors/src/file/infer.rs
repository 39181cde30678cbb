//! Finding out the columns of text from its first rows.
//!
//! Strings that all look like timestamps become timestamps (µs), numbers that are all whole
//! become integers, and what does not fit together becomes text. All columns may be NULL: what
//! the first rows show is no promise for the others.

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::convert::is_timestamp;

/// What is known about the values at one place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Guess {
    /// Only NULLs so far.
    Unknown,
    Bool,
    Int,
    /// Whole numbers beyond 64 bits with sign, or with a fraction.
    Float,
    Timestamp,
    Text,
    List(Box<Guess>),
    Struct(Vec<(String, Guess)>),
}

impl Guess {
    /// Puts what is known from two values together.
    pub(super) fn merge(self, other: Self) -> Self {
        use Guess as G;
        match (self, other) {
            (G::Unknown, g) | (g, G::Unknown) => g,
            (G::Int, G::Float) | (G::Float, G::Int) => G::Float,
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
            _ => G::Text,
        }
    }

    /// What one field of CSV may be.
    pub(super) fn of_text(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::Unknown };
        if text.parse::<i64>().is_ok() {
            Self::Int
        } else if text.parse::<f64>().is_ok() && text.bytes().any(|b| b.is_ascii_digit()) {
            Self::Float
        } else if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            Self::Bool
        } else if is_timestamp(text) {
            Self::Timestamp
        } else {
            Self::Text
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Unknown | Self::Text => DataType::Utf8View,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
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

/// The schema of these columns.
pub(super) fn schema(columns: &[(String, Guess)]) -> Schema {
    Schema::new(to_fields(columns))
}

/// Reads a JSON value for its types alone; keys keep the order in which they are first seen.
impl<'de> Deserialize<'de> for Guess {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GuessVisitor)
    }
}

struct GuessVisitor;

impl<'de> Visitor<'de> for GuessVisitor {
    type Value = Guess;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Guess, E> {
        Ok(Guess::Unknown)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Guess, E> {
        Ok(Guess::Bool)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Guess, E> {
        Ok(Guess::Int)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Guess, E> {
        Ok(if i64::try_from(value).is_ok() { Guess::Int } else { Guess::Float })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Guess, E> {
        Ok(Guess::Float)
    }

    fn visit_str<E>(self, text: &str) -> Result<Guess, E> {
        Ok(if is_timestamp(text) { Guess::Timestamp } else { Guess::Text })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Guess, A::Error> {
        let mut item = Guess::Unknown;
        while let Some(next) = seq.next_element::<Guess>()? {
            item = item.merge(next);
        }
        Ok(Guess::List(Box::new(item)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Guess, A::Error> {
        let mut fields = Guess::Struct(vec![]);
        while let Some(entry) = map.next_entry::<String, Guess>()? {
            fields = fields.merge(Guess::Struct(vec![entry]));
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(lines: &[&str]) -> Schema {
        let merged = lines
            .iter()
            .map(|l| serde_json::from_str::<Guess>(l).unwrap())
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
    fn csv_fields_are_guessed() {
        assert_eq!(Guess::of_text(Some("12")), Guess::Int);
        assert_eq!(Guess::of_text(Some("1e3")), Guess::Float);
        assert_eq!(Guess::of_text(Some("inf")), Guess::Text);
        assert_eq!(Guess::of_text(Some("TRUE")), Guess::Bool);
        assert_eq!(Guess::of_text(Some("2013-01-01 05:17:00")), Guess::Timestamp);
        assert_eq!(Guess::of_text(None), Guess::Unknown);
    }
}
