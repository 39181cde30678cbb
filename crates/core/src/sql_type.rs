//! What types are called in SQL, for messages and listings.
//!
//! Invariant: no name of Arrow is shown; encodings of the same values (large, view, dictionary) have one name.

use arrow::datatypes::{DataType, FieldRef, TimeUnit};

/// Returns the SQL name of a type: `BIGINT`, `VARCHAR`, `TIMESTAMP(3)`, `STRUCT(a INT, b VARCHAR[])`.
pub fn sql_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Null => "NULL",
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INT UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 | DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => "BYTEA",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Interval(_) => "INTERVAL",
        DataType::Time32(unit) | DataType::Time64(unit) => {
            return format!("TIME({})", digits(*unit));
        }
        DataType::Timestamp(unit, None) => return format!("TIMESTAMP({})", digits(*unit)),
        DataType::Timestamp(unit, Some(zone)) => {
            let shown = if zone.as_ref() == "UTC" { String::new() } else { format!(" '{zone}'") };
            return format!("TIMESTAMP({}) WITH TIME ZONE{shown}", digits(*unit));
        }
        DataType::Duration(unit) => return format!("DURATION({})", digits(*unit)),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => {
            return format!("DECIMAL({precision}, {scale})");
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => return format!("{}[]", sql_type(item.data_type())),
        DataType::FixedSizeList(item, length) => {
            return format!("{}[{length}]", sql_type(item.data_type()));
        }
        DataType::Struct(fields) => return format!("STRUCT({})", list(fields.iter())),
        DataType::Union(fields, _) => {
            return format!("UNION({})", list(fields.iter().map(|(_, field)| field)));
        }
        DataType::Map(entries, _) => {
            let DataType::Struct(fields) = entries.data_type() else { return "MAP".to_owned() };
            let of: Vec<String> = fields.iter().map(|f| sql_type(f.data_type())).collect();
            return format!("MAP({})", of.join(", "));
        }
        DataType::Dictionary(_, values) => return sql_type(values),
        DataType::RunEndEncoded(_, values) => return sql_type(values.data_type()),
    };
    name.to_owned()
}

/// Digits of a second.
fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn list<'a>(fields: impl Iterator<Item = &'a FieldRef>) -> String {
    let field = |field: &FieldRef| format!("{} {}", field.name(), sql_type(field.data_type()));
    fields.map(field).collect::<Vec<_>>().join(", ")
}
