//! Values of options in `WITH (…)` that streams and views share.

use std::time::Duration;

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::ScalarValue;
use windrow_core::{Error, Place, Result};

/// Parses the option `retention`.
///
/// # Errors
/// When the value is not a positive length of time.
pub(crate) fn retention(key: &str, value: &str, place: Place) -> Result<Duration> {
    let keep = duration(key, value, place).map_err(|_| not_a_retention(value).with_place(place))?;
    if keep.is_zero() { Err(not_a_retention(value).with_place(place)) } else { Ok(keep) }
}

/// Returns the error of a retention without event time.
pub(crate) fn timeless(name: &str) -> Error {
    Error::sql(format!("\"{name}\" has no event time that retention could go by"))
        .with_hint("Give the stream a WATERMARK; select window_end or an event time in a view.")
}

fn not_a_retention(value: &str) -> Error {
    Error::config(format!("option \"retention\" is not a length of time: '{value}'"))
        .with_hint("Write retention = '7 days'. Months and years have no fixed length.")
}

/// Parses an option that is a length of time.
///
/// # Errors
/// When the value is not one.
pub(crate) fn duration(key: &str, value: &str, place: Place) -> Result<Duration> {
    length(key, value).map_err(|error| error.with_place(place))
}

/// As [`duration`], where the place of the option is not known.
///
/// # Errors
/// When the value is not a length of time.
pub(crate) fn length(key: &str, value: &str) -> Result<Duration> {
    let interval = ScalarValue::try_from_string(
        value.to_owned(),
        &DataType::Interval(IntervalUnit::MonthDayNano),
    );
    let nanos = interval.ok().and_then(|i| interval_nanos(&i)).and_then(|n| u64::try_from(n).ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| {
        Error::config(format!("option \"{key}\" is not an interval: '{value}'"))
            .with_hint(format!("Write {key} = '5 seconds'."))
    })
}

/// Returns an interval in nanoseconds; a day has 24 hours. `None`: it has months, which have no fixed length, or is negative.
pub(crate) fn interval_nanos(value: &ScalarValue) -> Option<i128> {
    const DAY: i128 = 24 * 3_600 * 1_000_000_000;
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i))
            if i.months == 0 && i128::from(i.nanoseconds) + i128::from(i.days) * DAY >= 0 =>
        {
            Some(i128::from(i.days) * DAY + i128::from(i.nanoseconds))
        }
        ScalarValue::IntervalDayTime(Some(i)) => {
            Some(i128::from(i.days) * DAY + i128::from(i.milliseconds) * 1_000_000)
        }
        _ => None,
    }
}
