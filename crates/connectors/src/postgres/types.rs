//! Which types of PostgreSQL can store which columns without changing values.
//!
//! Invariant: each value of a column that [`fits`] accepts is either stored exactly, or its row is refused by PostgreSQL or the encoder.
//! The exception is the last three digits of TIMESTAMP(9), which PostgreSQL does not have.

use arrow::datatypes::{DataType, TimeUnit};
use windrow_core::sql_type;

/// A type of PostgreSQL that can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PgType {
    Bool,
    Bytea,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    /// `text` and types with the same binary format: `varchar`, `char`, enumerations.
    Text,
    Uuid,
    Json,
    Jsonb,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    /// An array, with the object id of the type of its elements.
    Array(u32, Box<PgType>),
}

impl PgType {
    /// Returns the type with an object id, unless it is an array.
    pub(super) fn of(oid: u32) -> Option<Self> {
        Some(match oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            25 | 1042 | 1043 => Self::Text,
            114 => Self::Json,
            700 => Self::Float4,
            701 => Self::Float8,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::Timestamptz,
            1700 => Self::Numeric,
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            _ => return None,
        })
    }
}

/// Returns the type with which `create_table` creates a column; `None` if there is none.
pub(super) fn created(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".to_owned(),
        DataType::Int32 | DataType::UInt16 => "integer".to_owned(),
        DataType::Int64 | DataType::UInt32 => "bigint".to_owned(),
        DataType::UInt64 => "numeric(20)".to_owned(),
        DataType::Float16 | DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            numeric(*p, *s)
        }
        DataType::Decimal256(p, s) => numeric(*p, *s),
        text if is_text(text) => "text".to_owned(),
        binary if is_binary(binary) => "bytea".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(unit) | DataType::Time64(unit) => format!("time({})", digits(*unit)),
        DataType::Timestamp(unit, None) => format!("timestamp({})", digits(*unit)),
        DataType::Timestamp(unit, Some(_)) => format!("timestamptz({})", digits(*unit)),
        DataType::Struct(_) | DataType::Map(..) => "jsonb".to_owned(),
        DataType::Dictionary(_, values) => return created(values),
        list => match item(list) {
            Some(item) if is_nested(item) => "jsonb".to_owned(),
            Some(item) => format!("{}[]", created(item)?),
            None => return None,
        },
    })
}

fn numeric(precision: u8, scale: i8) -> String {
    match scale < 0 {
        // Older servers have no negative scale.
        true => format!("numeric({})", i32::from(precision) - i32::from(scale)),
        false => format!("numeric({precision}, {scale})"),
    }
}

/// The precision of a time in PostgreSQL.
fn digits(unit: TimeUnit) -> i32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond | TimeUnit::Nanosecond => 6,
    }
}

/// Returns why a column cannot store a type; `None` if it can. `modifier` is the type modifier of the column (a length or
/// precision), −1 without one.
pub(super) fn fits(data_type: &DataType, to: &PgType, modifier: i32) -> Option<&'static str> {
    const OTHER: &str = "the types do not fit";
    let narrow =
        |limit: i32, digits: i32| (limit >= 0 && limit < digits).then_some("it has fewer digits");
    match (data_type, to) {
        (DataType::Dictionary(_, values), _) => fits(values, to, modifier),
        (DataType::Boolean, PgType::Bool) => None,
        (
            DataType::Int8 | DataType::Int16 | DataType::UInt8,
            PgType::Int2 | PgType::Int4 | PgType::Int8,
        )
        | (DataType::Int32 | DataType::UInt16, PgType::Int4 | PgType::Int8)
        | (DataType::Int64 | DataType::UInt32, PgType::Int8)
        | (DataType::Float16 | DataType::Float32, PgType::Float4 | PgType::Float8)
        | (DataType::Float64, PgType::Float8)
        | (DataType::Date32 | DataType::Date64, PgType::Date) => None,
        (DataType::Int32 | DataType::Int64, PgType::Int2 | PgType::Int4)
        | (DataType::UInt16, PgType::Int2)
        | (DataType::UInt32 | DataType::UInt64, PgType::Int2 | PgType::Int4 | PgType::Int8) => {
            Some("some of its numbers are too large")
        }
        (integer, PgType::Numeric) if integer.is_integer() => None,
        (
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale),
            PgType::Numeric,
        ) => {
            // (precision << 16 | scale) + 4, where the scale has 11 bits and a sign.
            let has = (((modifier - 4) & 0x7ff) ^ 1024) - 1024;
            (modifier >= 4 && has < i32::from(*scale)).then_some("it has fewer digits")
        }
        (text, PgType::Text | PgType::Json | PgType::Jsonb | PgType::Uuid) if is_text(text) => None,
        (binary, PgType::Bytea) if is_binary(binary) => None,
        (DataType::Time32(unit) | DataType::Time64(unit), PgType::Time)
        | (DataType::Timestamp(unit, None), PgType::Timestamp)
        | (DataType::Timestamp(unit, Some(_)), PgType::Timestamptz) => {
            narrow(modifier, digits(*unit))
        }
        (nested, PgType::Json | PgType::Jsonb) if is_nested(nested) => None,
        (list, PgType::Array(_, to)) => match item(list) {
            Some(item) if !is_nested(item) => fits(item, to, modifier),
            _ => Some(OTHER),
        },
        _ => Some(OTHER),
    }
}

/// Whether values are lists, maps or structures.
fn is_nested(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Struct(_) | DataType::Map(..)) || item(data_type).is_some()
}

fn item(list: &DataType) -> Option<&DataType> {
    match list {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
    )
}

/// The hint for a column that the table cannot store.
pub(super) fn hint(name: &str, data_type: &DataType) -> String {
    match created(data_type) {
        Some(created) => format!(
            "Convert it in the query with CAST(\"{name}\" AS …), or alter the column of the table to {created}."
        ),
        None => format!(
            "{} has no counterpart: leave it out, or convert it: CAST(\"{name}\" AS VARCHAR).",
            sql_type(data_type)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_values_does_not_fit() {
        let scale = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let list = DataType::new_list(DataType::Int32, true);
        let ints = PgType::Array(23, Box::new(PgType::Int4));
        for (from, to, modifier, good) in [
            (&DataType::Int64, &PgType::Int8, -1, true),
            (&DataType::Int64, &PgType::Int4, -1, false),
            (&DataType::UInt32, &PgType::Int4, -1, false),
            (&DataType::UInt64, &PgType::Numeric, -1, true),
            (&DataType::UInt64, &PgType::Int8, -1, false),
            (&DataType::Float64, &PgType::Float4, -1, false),
            (&DataType::Int64, &PgType::Float8, -1, false),
            (&DataType::Decimal128(38, 3), &PgType::Numeric, -1, true),
            (&DataType::Decimal128(38, 3), &PgType::Numeric, scale(40, 3), true),
            (&DataType::Decimal128(38, 3), &PgType::Numeric, scale(40, 2), false),
            (&DataType::Decimal128(38, 3), &PgType::Numeric, scale(40, -1), false),
            (&micros, &PgType::Timestamp, -1, true),
            (&micros, &PgType::Timestamp, 3, false),
            (&micros, &PgType::Timestamptz, -1, false),
            (&DataType::Utf8View, &PgType::Jsonb, -1, true),
            (&DataType::Utf8View, &PgType::Date, -1, false),
            (&list, &ints, -1, true),
            (&list, &PgType::Jsonb, -1, true),
            (&DataType::new_list(DataType::Int64, true), &ints, -1, false),
        ] {
            assert_eq!(fits(from, to, modifier).is_none(), good, "{from} {to:?} {modifier}");
        }
        assert_eq!(created(&DataType::new_list(list, true)).as_deref(), Some("jsonb"));
        assert_eq!(created(&DataType::Decimal128(5, -2)).as_deref(), Some("numeric(7)"));
        assert_eq!(created(&DataType::Null), None);
    }
}
