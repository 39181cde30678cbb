//! From text to the declared types, where arrow's own readers would round, guess or refuse.
//!
//! Integers are exact: `1.0` and `1e3` are integers, `1.5` is not one, and nothing wraps.
//! Timestamps are RFC 3339, the same with a space or without a zone (then UTC, or the column's
//! own zone), a date alone, or a whole number in the column's unit.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, StringViewArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
};
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};

/// Turns text into `to` (an integer or a timestamp).
///
/// # Errors
/// For the first value that is none, in words for people.
pub(super) fn from_text(text: &StringViewArray, to: &DataType) -> Result<ArrayRef, String> {
    match to {
        DataType::Int8 => integers::<Int8Type>(text),
        DataType::Int16 => integers::<Int16Type>(text),
        DataType::Int32 => integers::<Int32Type>(text),
        DataType::Int64 => integers::<Int64Type>(text),
        DataType::UInt8 => integers::<UInt8Type>(text),
        DataType::UInt16 => integers::<UInt16Type>(text),
        DataType::UInt32 => integers::<UInt32Type>(text),
        DataType::UInt64 => integers::<UInt64Type>(text),
        DataType::Timestamp(unit, zone) => timestamps(text, *unit, zone.as_ref()),
        other => Err(format!("text cannot become {other}")),
    }
}

/// The type's name as SQL writes it, for messages.
pub(super) fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INT",
        DataType::Int64 => "BIGINT",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Date32 => "DATE",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::List(_) | DataType::LargeList(_) => "a list",
        DataType::Struct(_) => "a struct",
        other => return other.to_string(),
    }
    .to_owned()
}

fn integers<T: ArrowPrimitiveType>(text: &StringViewArray) -> Result<ArrayRef, String>
where
    T::Native: FromStr + TryFrom<i128>,
{
    let values = text.iter().map(|value| value.map(integer::<T>).transpose());
    Ok(Arc::new(values.collect::<Result<PrimitiveArray<T>, String>>()?))
}

fn integer<T: ArrowPrimitiveType>(text: &str) -> Result<T::Native, String>
where
    T::Native: FromStr + TryFrom<i128>,
{
    let trimmed = text.trim();
    trimmed
        .parse()
        .ok()
        .or_else(|| whole(trimmed).and_then(|whole| T::Native::try_from(whole).ok()))
        .ok_or_else(|| format!("'{text}' is not {}", sql_name(&T::DATA_TYPE)))
}

/// `1.0` and `1e3`, as far as a double holds them exactly.
fn whole(text: &str) -> Option<i128> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let value: f64 = text.parse().ok()?;
    (value.fract() == 0.0 && value.abs() <= EXACT_MAX).then_some(value as i128)
}

fn timestamps(
    text: &StringViewArray,
    unit: TimeUnit,
    zone: Option<&Arc<str>>,
) -> Result<ArrayRef, String> {
    let tz: Tz = zone
        .map_or("+00:00", AsRef::as_ref)
        .parse()
        .map_err(|_| format!("unknown time zone {zone:?}"))?;
    let ticks = |value: Option<&str>| value.map(|v| timestamp(v, unit, &tz)).transpose();
    let values = text.iter().map(ticks);
    let zone = zone.cloned();
    Ok(match unit {
        TimeUnit::Second => {
            Arc::new(values.collect::<Result<TimestampSecondArray, _>>()?.with_timezone_opt(zone))
        }
        TimeUnit::Millisecond => Arc::new(
            values.collect::<Result<TimestampMillisecondArray, _>>()?.with_timezone_opt(zone),
        ),
        TimeUnit::Microsecond => Arc::new(
            values.collect::<Result<TimestampMicrosecondArray, _>>()?.with_timezone_opt(zone),
        ),
        TimeUnit::Nanosecond => Arc::new(
            values.collect::<Result<TimestampNanosecondArray, _>>()?.with_timezone_opt(zone),
        ),
    })
}

/// One timestamp in ticks of `unit`. Digits finer than the unit are cut off.
fn timestamp(text: &str, unit: TimeUnit, tz: &Tz) -> Result<i64, String> {
    let trimmed = text.trim();
    if let Ok(ticks) = trimmed.parse::<i64>() {
        return Ok(ticks);
    }
    let wrong = || format!("'{text}' is not a TIMESTAMP");
    match string_to_datetime(tz, trimmed) {
        Ok(at) => match unit {
            TimeUnit::Second => Ok(at.timestamp()),
            TimeUnit::Millisecond => Ok(at.timestamp_millis()),
            TimeUnit::Microsecond => Ok(at.timestamp_micros()),
            TimeUnit::Nanosecond => at
                .timestamp_nanos_opt()
                .ok_or_else(|| format!("'{text}' is out of range for nanoseconds")),
        },
        Err(_) => whole(trimmed).and_then(|w| i64::try_from(w).ok()).ok_or_else(wrong),
    }
}

/// Whether text looks like a timestamp (not like a number): what inference asks.
pub(super) fn is_timestamp(text: &str) -> bool {
    let digits = text.as_bytes();
    digits.len() >= 19
        && digits.get(4) == Some(&b'-')
        && digits.get(13) == Some(&b':')
        && string_to_datetime(&chrono::Utc, text).is_ok()
}

/// Whether a column of this type is read as text first and converted here.
pub(super) fn goes_by_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..))
}

/// Whether the values of a decoded column keep the promise NOT NULL.
pub(super) fn keeps_promise(column: &dyn Array, nullable: bool) -> bool {
    nullable || column.null_count() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;

    fn one(text: &str, to: &DataType) -> Result<ArrayRef, String> {
        from_text(&StringViewArray::from(vec![Some(text)]), to)
    }

    #[test]
    fn integers_are_exact() {
        for (text, value) in [("12", 12), ("-3", -3), ("1.0", 1), ("1e3", 1000), (" 7 ", 7)] {
            let array = one(text, &DataType::Int64).unwrap();
            assert_eq!(array.as_primitive::<Int64Type>().value(0), value, "{text}");
        }
        for text in ["1.5", "x", "", "9223372036854775808", "1e30", "NaN", "--1"] {
            assert!(one(text, &DataType::Int64).is_err(), "{text}");
        }
        assert!(one("128", &DataType::Int8).is_err());
        assert!(one("-1", &DataType::UInt64).is_err());
        assert!(one("18446744073709551615", &DataType::UInt64).is_ok());
    }

    #[test]
    fn timestamps_in_every_usual_spelling() {
        let to = DataType::Timestamp(TimeUnit::Microsecond, None);
        for (text, value) in [
            ("2020-01-01T00:00:00Z", 1_577_836_800_000_000),
            ("2020-01-01 00:00:00", 1_577_836_800_000_000),
            ("2020-01-01T01:00:00+01:00", 1_577_836_800_000_000),
            ("2020-01-01 00:00:00.123456789", 1_577_836_800_123_456),
            ("1969-12-31T23:59:59.5Z", -500_000),
            ("2020-01-01", 1_577_836_800_000_000),
            ("1577836800000000", 1_577_836_800_000_000),
            ("-5", -5),
            ("2099-12-31T00:00:00Z", 4_102_358_400_000_000),
        ] {
            let array = one(text, &to).unwrap();
            assert_eq!(array.as_primitive::<TimestampMicrosecondType>().value(0), value, "{text}");
        }
        for text in ["", "noon", "2020-13-01", "1.5"] {
            assert!(one(text, &to).is_err(), "{text}");
        }
        assert!(one("2500-01-01", &DataType::Timestamp(TimeUnit::Nanosecond, None)).is_err());
    }
}
