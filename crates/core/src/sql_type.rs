//! The SQL names of types, for messages and listings.
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

/// Replaces Arrow's names of types by SQL names in a text, such as that of a plan: `CAST(a AS Int64)` becomes
/// `CAST(a AS BIGINT)`. Quoted text and names of columns are not changed.
pub fn with_sql_types(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut shown = String::with_capacity(text.len());
    let (mut rest, mut before) = (text, ' ');
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (taken, name) = if matches!(first, '"' | '\'') {
            let end = rest.get(1..).and_then(|r| r.find(first)).map_or(rest.len(), |end| end + 2);
            (end, None)
        } else if word == 0 {
            (first.len_utf8(), None)
        } else if before == '.' || !first.is_ascii_uppercase() {
            (word, None)
        } else {
            named(rest, word).map_or((word, None), |(end, name)| (end, Some(name)))
        };
        let (part, behind) = rest.split_at(taken);
        shown.push_str(name.as_deref().unwrap_or(part));
        before = part.chars().next_back().unwrap_or(' ');
        rest = behind;
    }
    shown
}

/// Returns the SQL name of the type at the beginning of a text, whose first word has `word` bytes, and where the type ends.
fn named(text: &str, word: usize) -> Option<(usize, String)> {
    let mut depth = 0_usize;
    let parameters = text.get(word..)?.char_indices().map_while(|(at, c)| {
        depth = match c {
            '(' => depth + 1,
            ')' => depth.checked_sub(1)?,
            _ if depth == 0 => return None,
            _ => depth,
        };
        Some((at, depth))
    });
    let closed = parameters.filter(|(_, depth)| *depth == 0).map(|(at, _)| word + at + 1).next();
    // Including the parentheses, if they are part of the type: `Int64(1)` is a number.
    [closed, Some(word)].into_iter().flatten().find_map(|end| {
        let data_type: DataType = text.get(..end)?.parse().ok()?;
        Some((end, sql_type(&data_type)))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_shown_with_the_types_of_sql() {
        for (plan, shown) in [
            ("CAST(s.id AS Int32) AS CAST(id AS INT)", "CAST(s.id AS INT) AS CAST(id AS INT)"),
            (
                r#"||(s.t, Utf8View("Int64")) > Int64(-1)"#,
                r#"||(s.t, VARCHAR("Int64")) > BIGINT(-1)"#,
            ),
            ("CAST(a AS Decimal128(12, 2))", "CAST(a AS DECIMAL(12, 2))"),
            ("CAST(a AS Timestamp(ms))", "CAST(a AS TIMESTAMP(3))"),
            ("s.Int64, Filter: Boolean(true)", "s.Int64, Filter: BOOLEAN(true)"),
            ("TableScan: s projection=[id, é] (", "TableScan: s projection=[id, é] ("),
            ("x = 'Utf8", "x = 'Utf8"),
        ] {
            assert_eq!(with_sql_types(plan), shown);
        }
        let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into()));
        assert_eq!(with_sql_types(&zoned.to_string()), sql_type(&zoned));
    }
}
