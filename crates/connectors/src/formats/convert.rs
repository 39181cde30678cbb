//! Conversion of text to the declared types, where Arrow's own readers would round, guess or refuse.
//!
//! Numbers are exact: `1.0` and `1e3` are integers, `1.5` is not one, a DECIMAL takes no digits that it cannot hold,
//! and nothing wraps. Timestamps are RFC 3339, the same with a space or without a zone (then UTC, or the column's own
//! zone), a date alone, or a number whose unit is given by the option `epoch` or the precision of the column. Digits
//! finer than the column's unit are truncated.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, StringViewArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
};
use arrow::compute::CastOptions;
use arrow::compute::kernels::cast_utils::string_to_datetime;
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, DecimalType, Field, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use windrow_core::sql_type;
use windrow_core::time::with_seconds;

/// Values that do not fit are errors, never NULL.
pub(crate) const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// The meaning of numbers in the columns of a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct NumberRules {
    /// Whether the columns were inferred from the first rows: values that contradict them are bad.
    pub inferred: bool,
    /// The unit of numbers in columns of times, from the option `epoch`.
    pub epoch: Option<TimeUnit>,
    /// Columns of times declared without a precision.
    pub unsaid: Arc<[String]>,
}

/// The meaning of a bare number in a column of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BareNumber {
    /// A number of these units since 1970.
    In(TimeUnit),
    /// None: the columns were declared, and no unit is given.
    Unsaid,
    /// None: the first rows had times.
    Contradicts,
}

impl NumberRules {
    /// Returns the meaning of a bare number in this column of times, whose unit is `unit`.
    pub(crate) fn of(&self, column: &str, unit: TimeUnit) -> BareNumber {
        match self.epoch {
            Some(unit) => BareNumber::In(unit),
            None if self.inferred => BareNumber::Contradicts,
            None if self.unsaid.iter().any(|name| name == column) => BareNumber::Unsaid,
            None => BareNumber::In(unit),
        }
    }
}

/// Converts text into `to` (a number or a timestamp).
///
/// # Errors
/// For the first value that cannot be converted, as a sentence for messages.
pub(crate) fn from_text(
    text: &StringViewArray,
    to: &DataType,
    bare: BareNumber,
) -> Result<ArrayRef, String> {
    match to {
        DataType::Int8 => integers::<Int8Type>(text),
        DataType::Int16 => integers::<Int16Type>(text),
        DataType::Int32 => integers::<Int32Type>(text),
        DataType::Int64 => integers::<Int64Type>(text),
        DataType::UInt8 => integers::<UInt8Type>(text),
        DataType::UInt16 => integers::<UInt16Type>(text),
        DataType::UInt32 => integers::<UInt32Type>(text),
        DataType::UInt64 => integers::<UInt64Type>(text),
        DataType::Float32 => floats::<Float32Type>(text),
        DataType::Float64 => floats::<Float64Type>(text),
        DataType::Decimal32(p, s) => decimals::<Decimal32Type>(text, *p, *s),
        DataType::Decimal64(p, s) => decimals::<Decimal64Type>(text, *p, *s),
        DataType::Decimal128(p, s) => decimals::<Decimal128Type>(text, *p, *s),
        DataType::Timestamp(unit, zone) => timestamps(text, *unit, zone.as_ref(), bare),
        other => Err(format!("text cannot become {}", sql_type(other))),
    }
}

fn integers<T: ArrowPrimitiveType>(text: &StringViewArray) -> Result<ArrayRef, String>
where
    T::Native: FromStr + TryFrom<i128>,
{
    let values = text.iter().map(|value| value.map(integer::<T>).transpose());
    Ok(Arc::new(values.collect::<Result<PrimitiveArray<T>, String>>()?))
}

/// Parses an integer, exactly.
pub(crate) fn integer<T: ArrowPrimitiveType>(text: &str) -> Result<T::Native, String>
where
    T::Native: FromStr + TryFrom<i128>,
{
    if let Ok(value) = text.parse() {
        return Ok(value);
    }
    let value = Decimal::of(text.trim()).and_then(|number| number.times_ten_to(0));
    value
        .and_then(|value| T::Native::try_from(value).ok())
        .ok_or_else(|| format!("'{text}' is not {}", sql_type(&T::DATA_TYPE)))
}

fn floats<T: ArrowPrimitiveType>(text: &StringViewArray) -> Result<ArrayRef, String>
where
    T::Native: FromStr + Into<f64>,
{
    let values = text.iter().map(|value| value.map(float::<T>).transpose());
    Ok(Arc::new(values.collect::<Result<PrimitiveArray<T>, String>>()?))
}

/// Parses to the nearest float. A number too large to have one is an error.
pub(crate) fn float<T: ArrowPrimitiveType>(text: &str) -> Result<T::Native, String>
where
    T::Native: FromStr + Into<f64>,
{
    let wrong = || format!("'{text}' is not {}", sql_type(&T::DATA_TYPE));
    let value: T::Native = text.trim().parse().map_err(|_| wrong())?;
    let is_finite = value.into().is_finite();
    if !is_finite && text.bytes().any(|b| b.is_ascii_digit()) {
        return Err(format!("'{text}' is out of range for {}", sql_type(&T::DATA_TYPE)));
    }
    Ok(value)
}

/// Whether a number is whole and a double would round it.
pub(crate) fn is_rounded_by_double(number: &str) -> bool {
    // 2⁵³ has 16 digits.
    number.len() >= 16
        && !number.bytes().any(|b| matches!(b, b'.' | b'e' | b'E'))
        && match number.parse::<i128>() {
            Ok(whole) => number.parse::<f64>().is_ok_and(|float| float as i128 != whole),
            Err(_) => true,
        }
}

fn decimals<T: DecimalType>(
    text: &StringViewArray,
    precision: u8,
    scale: i8,
) -> Result<ArrayRef, String>
where
    T::Native: TryFrom<i128>,
{
    let value = |text: Option<&str>| text.map(|t| decimal::<T>(t, precision, scale)).transpose();
    let values = text.iter().map(value).collect::<Result<PrimitiveArray<T>, String>>()?;
    let values = values.with_precision_and_scale(precision, scale).map_err(|e| e.to_string())?;
    Ok(Arc::new(values))
}

/// Parses a decimal number, exactly.
pub(crate) fn decimal<T: DecimalType>(
    text: &str,
    precision: u8,
    scale: i8,
) -> Result<T::Native, String>
where
    T::Native: TryFrom<i128>,
{
    let number = Decimal::of(text.trim())
        .ok_or_else(|| format!("'{text}' is not DECIMAL({precision}, {scale})"))?;
    let fits = |value: &i128| {
        10_i128.checked_pow(precision.into()).is_none_or(|end| value.unsigned_abs() < end as u128)
    };
    number
        .times_ten_to(scale.into())
        .filter(fits)
        .and_then(|value| T::Native::try_from(value).ok())
        .ok_or_else(|| format!("'{text}' has more digits than DECIMAL({precision}, {scale}) holds"))
}

/// A number as `digits · 10^exponent`.
#[derive(Debug, Clone, Copy)]
struct Decimal {
    digits: i128,
    exponent: i32,
}

impl Decimal {
    /// Returns `None` for text that is not a number, or that has more digits than 128 bits hold.
    fn of(text: &str) -> Option<Self> {
        let (number, exponent) = match text.split_once(['e', 'E']) {
            Some((number, exponent)) => (number, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (is_negative, number) = match number.as_bytes().first()? {
            b'-' => (true, number.get(1..)?),
            b'+' => (false, number.get(1..)?),
            _ => (false, number),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let fraction_digits = fraction.trim_end_matches('0');
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut digits: i128 = 0;
        for digit in whole.bytes().chain(fraction_digits.bytes()) {
            let value = digit.is_ascii_digit().then(|| i128::from(digit - b'0'))?;
            digits = digits.checked_mul(10)?.checked_add(value)?;
        }
        let behind = i32::try_from(fraction_digits.len()).ok()?;
        let digits = if is_negative { -digits } else { digits };
        Some(Self { digits, exponent: exponent.checked_sub(behind)? })
    }

    /// Returns the number times `10^by`, where that is whole.
    fn times_ten_to(self, by: i32) -> Option<i128> {
        let (value, rest) = self.floor_times_ten_to(by)?;
        (!rest).then_some(value)
    }

    /// Returns the number times `10^by`, and whether a fraction was truncated.
    fn floor_times_ten_to(self, by: i32) -> Option<(i128, bool)> {
        let exponent = self.exponent.checked_add(by)?;
        let Some(power) = 10_i128.checked_pow(exponent.unsigned_abs()) else {
            // Beyond all its digits.
            return match (self.digits, exponent > 0) {
                (0, _) => Some((0, false)),
                (_, true) => None,
                (digits, false) => Some((if digits < 0 { -1 } else { 0 }, true)),
            };
        };
        if exponent >= 0 {
            return Some((self.digits.checked_mul(power)?, false));
        }
        Some((self.digits.div_euclid(power), self.digits.rem_euclid(power) != 0))
    }
}

fn timestamps(
    text: &StringViewArray,
    unit: TimeUnit,
    zone: Option<&Arc<str>>,
    bare: BareNumber,
) -> Result<ArrayRef, String> {
    let times = Times::new(unit, zone, bare)?;
    let ticks = |value: Option<&str>| value.map(|v| times.ticks(v)).transpose();
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

/// Conversion of text to the ticks of a column of times.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    unit: TimeUnit,
    zone: Tz,
    bare: BareNumber,
}

impl Times {
    /// # Errors
    /// When the time zone does not exist.
    pub(crate) fn new(
        unit: TimeUnit,
        zone: Option<&Arc<str>>,
        bare: BareNumber,
    ) -> Result<Self, String> {
        let zone = zone
            .map_or("+00:00", AsRef::as_ref)
            .parse()
            .map_err(|_| format!("unknown time zone {zone:?}"))?;
        Ok(Self { unit, zone, bare })
    }

    /// Parses one timestamp.
    pub(crate) fn ticks(&self, text: &str) -> Result<i64, String> {
        let trimmed = text.trim();
        let out_of_range = || format!("'{text}' is out of range for {}", digits_name(self.unit));
        let number = || {
            let number = Decimal::of(trimmed)?;
            Some(self.number(text, number).and_then(|ticks| ticks.ok_or_else(out_of_range)))
        };
        // Most times have their first dash here.
        let looks_like_a_date = trimmed.as_bytes().get(4) == Some(&b'-');
        if !looks_like_a_date && let Some(ticks) = number() {
            return ticks;
        }
        let read = string_to_datetime(&self.zone, trimmed)
            .ok()
            .or_else(|| string_to_datetime(&self.zone, &with_seconds(trimmed)?).ok());
        let Some(at) = read else {
            return number().unwrap_or_else(|| Err(format!("'{text}' is not a TIMESTAMP")));
        };
        match self.unit {
            TimeUnit::Second => Ok(at.timestamp()),
            TimeUnit::Millisecond => Ok(at.timestamp_millis()),
            TimeUnit::Microsecond => Ok(at.timestamp_micros()),
            TimeUnit::Nanosecond => at.timestamp_nanos_opt().ok_or_else(out_of_range),
        }
    }

    /// Converts a bare number to ticks; `None` when they do not fit.
    fn number(&self, text: &str, number: Decimal) -> Result<Option<i64>, String> {
        match self.bare {
            BareNumber::Unsaid => Err(format!(
                "'{text}' is a bare number, and its unit is not defined: set epoch = 'ms' (or 's', 'us', 'ns') \
                 in WITH, or declare TIMESTAMP(3) for milliseconds"
            )),
            BareNumber::Contradicts => Err(format!(
                "'{text}' is a number, and the first rows have times; declare the column"
            )),
            BareNumber::In(of) => {
                let by = power(self.unit) - power(of);
                let Some((ticks, cut)) = number.floor_times_ten_to(by) else { return Ok(None) };
                if cut && by == 0 {
                    return Err(format!("'{text}' is not a whole number of {}", digits_name(of)));
                }
                Ok(i64::try_from(ticks).ok())
            }
        }
    }
}

fn digits_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "seconds",
        TimeUnit::Millisecond => "milliseconds",
        TimeUnit::Microsecond => "microseconds",
        TimeUnit::Nanosecond => "nanoseconds",
    }
}

/// The number of these units per second, as a power of ten.
fn power(unit: TimeUnit) -> i32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// Whether text looks like a timestamp and not like a number; for inference.
pub(crate) fn is_timestamp(text: &str) -> bool {
    let digits = text.as_bytes();
    digits.len() >= 19
        && digits.get(4) == Some(&b'-')
        && digits.get(13) == Some(&b':')
        && string_to_datetime(&chrono::Utc, text).is_ok()
}

/// Whether the text of an integer carries more than its value: `007` is not 7.
pub(crate) fn is_more_than_its_value(text: &str) -> bool {
    matches!(
        text.trim().as_bytes(),
        [b'+', ..] | [b'0', b'0'..=b'9', ..] | [b'-', b'0', b'0'..=b'9', ..]
    )
}

/// Checks that the values of a decoded column keep the promise NOT NULL.
///
/// # Errors
/// When they do not, naming the column.
pub(crate) fn keeps_promise(column: &dyn Array, field: &Field) -> Result<(), String> {
    if field.is_nullable() || column.null_count() == 0 {
        return Ok(());
    }
    Err(format!("column \"{}\" is missing or NULL, and is declared NOT NULL", field.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;

    fn one(text: &str, to: &DataType) -> Result<ArrayRef, String> {
        let bare = match to {
            DataType::Timestamp(unit, _) => BareNumber::In(*unit),
            _ => BareNumber::Unsaid,
        };
        from_text(&StringViewArray::from(vec![Some(text)]), to, bare)
    }

    #[test]
    fn integers_are_exact() {
        for (text, value) in [
            ("12", 12),
            ("-3", -3),
            ("1.0", 1),
            ("1e3", 1000),
            (" 7 ", 7),
            ("9223372036854775807.0", i64::MAX),
            ("9007199254740993e0", 9_007_199_254_740_993),
            ("1200e-2", 12),
        ] {
            let array = one(text, &DataType::Int64).unwrap();
            assert_eq!(array.as_primitive::<Int64Type>().value(0), value, "{text}");
        }
        for text in [
            "1.5",
            "x",
            "",
            ".",
            "-",
            "9223372036854775808",
            "1e30",
            "1e999999999",
            "1e-999999999",
            "NaN",
            "--1",
            "1e",
            "e1",
        ] {
            assert!(one(text, &DataType::Int64).is_err(), "{text}");
        }
        assert!(one("128", &DataType::Int8).is_err());
        assert!(one("-1", &DataType::UInt64).is_err());
        assert!(one("18446744073709551615", &DataType::UInt64).is_ok());
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        let to = DataType::Decimal128(10, 2);
        for (text, value) in [
            ("1.5", 150),
            ("-1.55", -155),
            ("1.5500", 155),
            ("1e2", 10_000),
            ("99999999.99", 9_999_999_999),
        ] {
            let array = one(text, &to).unwrap();
            assert_eq!(array.as_primitive::<Decimal128Type>().value(0), value, "{text}");
        }
        for text in ["1.555", "100000000", "1e-3", "x", "", &"9".repeat(300)] {
            assert!(one(text, &to).is_err(), "{text}");
        }
    }

    #[test]
    fn floats_are_the_nearest_and_never_infinite_by_accident() {
        for text in ["1.5", "inf", "NaN", "1e308"] {
            assert!(one(text, &DataType::Float64).is_ok(), "{text}");
        }
        for text in ["1e400", "-1e400", "x", ""] {
            assert!(one(text, &DataType::Float64).is_err(), "{text}");
        }
        assert!(one("1e39", &DataType::Float32).is_err());
        for (text, is) in [
            ("9007199254740992", false),
            ("9007199254740993", true),
            ("7000000000000000001", true),
            ("9007199254740993.0", false),
            ("12", false),
        ] {
            assert_eq!(is_rounded_by_double(text), is, "{text}");
        }
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

    #[test]
    fn bare_numbers_have_a_unit_or_are_refused() {
        let ticks = |text: &str, unit, bare| Times::new(unit, None, bare).unwrap().ticks(text);
        use TimeUnit as U;
        for (text, unit, of, value) in [
            ("1735689600", U::Nanosecond, U::Second, 1_735_689_600_000_000_000),
            ("1735689600.25", U::Microsecond, U::Second, 1_735_689_600_250_000),
            ("1.7356896e9", U::Millisecond, U::Second, 1_735_689_600_000),
            ("1735689600123", U::Second, U::Millisecond, 1_735_689_600),
            ("-1", U::Second, U::Millisecond, -1),
        ] {
            assert_eq!(ticks(text, unit, BareNumber::In(of)), Ok(value), "{text}");
        }
        let far = ticks("253402300800000", U::Nanosecond, BareNumber::In(U::Millisecond));
        assert!(far.unwrap_err().contains("out of range"));
        for bare in [BareNumber::Unsaid, BareNumber::Contradicts] {
            assert!(ticks("1735689600000", U::Nanosecond, bare).unwrap_err().contains("number"));
            assert!(ticks("2025-01-01T00:00:00Z", U::Nanosecond, bare).is_ok());
        }
    }
}
