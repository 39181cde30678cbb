//! `date_diff` (`datediff`) and `timestampdiff`: from one time to another in some unit. The first counts the boundaries of
//! units between them, as DuckDB and Snowflake do; the second counts whole units, as Flink and MySQL do.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use chrono::{DateTime, Datelike, Offset, TimeZone};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use windrow_core::{Error, ErrorKind, sql_type};

const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// The boundaries of units that lie between the times.
    Bounds,
    /// The whole units that fit between them.
    Units,
}

/// `date_diff(unit, from, to)`: BIGINT; negative when `to` is before `from`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Difference {
    name: &'static str,
    aliases: Vec<String>,
    counted: Counted,
    signature: Signature,
}

impl Difference {
    pub(super) fn new(name: &'static str, aliases: &[&str], counted: Counted) -> Self {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Self { name, aliases, counted, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// A unit of time.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// A number of nanoseconds; one unit begins `before` nanoseconds before 1970.
    Fixed { nanos: i128, before: i128 },
    /// A number of months.
    Months(i64),
}

impl Unit {
    fn of(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        let singular = name.strip_suffix('s').filter(|unit| unit.len() > 1).unwrap_or(&name);
        let fixed = |nanos| Self::Fixed { nanos, before: 0 };
        Some(match singular {
            "microsecond" => fixed(1_000),
            "millisecond" => fixed(1_000_000),
            "second" | "sec" => fixed(SECOND),
            "minute" | "min" => fixed(60 * SECOND),
            "hour" => fixed(3_600 * SECOND),
            "day" => fixed(DAY),
            // 1970 began on a Thursday, weeks begin on Mondays.
            "week" => Self::Fixed { nanos: 7 * DAY, before: 3 * DAY },
            "month" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" => Self::Months(12),
            _ => return None,
        })
    }

    fn between(self, from: i128, to: i128, counted: Counted) -> Result<i64> {
        let count = match (self, counted) {
            (Self::Fixed { nanos, before }, Counted::Bounds) => {
                (to + before).div_euclid(nanos) - (from + before).div_euclid(nanos)
            }
            (Self::Fixed { nanos, .. }, Counted::Units) => (to - from) / nanos,
            (Self::Months(months), counted) => {
                let ((first, rest), (last, end)) = (month(from)?, month(to)?);
                i128::from(match counted {
                    Counted::Bounds => last.div_euclid(months) - first.div_euclid(months),
                    Counted::Units => {
                        let missing = match last - first {
                            1.. if end < rest => 1,
                            ..=-1 if end > rest => -1,
                            _ => 0,
                        };
                        (last - first - missing) / months
                    }
                })
            }
        };
        i64::try_from(count).map_err(|_| out_of_range())
    }
}

/// The month of a time, counted from the year 0, and the nanoseconds since it began.
fn month(nanos: i128) -> Result<(i64, i128)> {
    let (seconds, rest) = (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND));
    let seconds = i64::try_from(seconds).map_err(|_| out_of_range())?;
    let time = DateTime::from_timestamp(seconds, 0).ok_or_else(out_of_range)?;
    let month = i64::from(time.year()) * 12 + i64::from(time.month0());
    let since = i128::from(time.day0()) * DAY + i128::from(seconds.rem_euclid(86_400)) * SECOND;
    Ok((month, since + rest))
}

fn out_of_range() -> DataFusionError {
    ours(Error::new(ErrorKind::Data, "a difference of times is out of range"))
}

fn ours(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl ScalarUDFImpl for Difference {
    fn name(&self) -> &str {
        self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [_, from, to] = types else {
            let error = Error::sql(format!("{} takes a unit and two times", self.name));
            return Err(ours(error.with_hint(format!("Write {}('hour', a, b).", self.name))));
        };
        let time = |data_type: &DataType| match data_type {
            DataType::Date32 | DataType::Date64 => Ok(data_type.clone()),
            DataType::Timestamp(..) => Ok(data_type.clone()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
                Ok(DataType::Timestamp(TimeUnit::Nanosecond, None))
            }
            other => {
                let message = format!("{} takes times, not {}", self.name, sql_type(other));
                Err(ours(Error::sql(message).with_hint("Convert it with CAST(x AS TIMESTAMP).")))
            }
        };
        Ok(vec![DataType::Utf8, time(from)?, time(to)?])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [unit, from, to] = args.args.as_slice() else {
            return internal_err!("{} takes a unit and two times", self.name);
        };
        let rows = match (unit, from, to) {
            (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)) => 1,
            _ => args.number_rows,
        };
        let units = unit.to_array(rows)?;
        let units = units.as_string::<i32>();
        let (from, to) = (Times::of(&from.to_array(rows)?)?, Times::of(&to.to_array(rows)?)?);
        let counted = self.counted;
        let mut last: Option<(&str, Unit)> = None;
        let mut values = Vec::with_capacity(rows);
        for row in 0..rows {
            if units.is_null(row) || from.is_null(row) || to.is_null(row) {
                values.push(None);
                continue;
            }
            let name = units.value(row);
            let unit = match last {
                Some((known, unit)) if known == name => unit,
                _ => Unit::of(name).ok_or_else(|| {
                    let error = Error::new(ErrorKind::Data, format!("'{name}' is not a unit of time"));
                    ours(error.with_hint(
                        "Units are microsecond, millisecond, second, minute, hour, day, week, month, quarter and year.",
                    ))
                })?,
            };
            last = Some((name, unit));
            // Days and months begin when the clocks of the zone say so; an hour is as long everywhere.
            let by_clocks = counted == Counted::Bounds || matches!(unit, Unit::Months(_));
            let (from, to) = (from.nanos(row, by_clocks)?, to.nanos(row, by_clocks)?);
            values.push(Some(unit.between(from, to, counted)?));
        }
        let values: ArrayRef = Arc::new(Int64Array::from(values));
        Ok(match rows {
            1 if args.number_rows != 1 => {
                ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?)
            }
            _ => ColumnarValue::Array(values),
        })
    }
}

/// A column of times.
struct Times {
    values: Int64Array,
    /// The nanoseconds of a tick.
    tick: i128,
    zone: Option<Tz>,
}

impl Times {
    fn of(times: &ArrayRef) -> Result<Self> {
        let (tick, zone) = match times.data_type() {
            DataType::Date32 => (DAY, None),
            DataType::Date64 => (1_000_000, None),
            DataType::Timestamp(unit, zone) => {
                let tick = match unit {
                    TimeUnit::Second => SECOND,
                    TimeUnit::Millisecond => 1_000_000,
                    TimeUnit::Microsecond => 1_000,
                    TimeUnit::Nanosecond => 1,
                };
                (tick, zone.as_ref().map(|zone| zone.parse()).transpose()?)
            }
            other => return internal_err!("a difference of {other}"),
        };
        let values = match times.data_type() {
            DataType::Date32 => cast(&cast(times, &DataType::Int32)?, &DataType::Int64)?,
            _ => cast(times, &DataType::Int64)?,
        };
        Ok(Self { values: values.as_primitive::<Int64Type>().clone(), tick, zone })
    }

    fn is_null(&self, row: usize) -> bool {
        self.values.is_null(row)
    }

    /// The nanoseconds since 1970; `by_clocks`: those that clocks in the zone show.
    fn nanos(&self, row: usize, by_clocks: bool) -> Result<i128> {
        let nanos = i128::from(self.values.value(row)) * self.tick;
        let Some(zone) = self.zone.filter(|_| by_clocks) else { return Ok(nanos) };
        let seconds = i64::try_from(nanos.div_euclid(SECOND)).map_err(|_| out_of_range())?;
        let time = DateTime::from_timestamp(seconds, 0).ok_or_else(out_of_range)?;
        let offset = zone.offset_from_utc_datetime(&time.naive_utc()).fix();
        Ok(nanos + i128::from(offset.local_minus_utc()) * SECOND)
    }
}
