//! `to_char` and `date_format`: times as text, by a [pattern](super::patterns).

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowTimestampType, DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::temporal_conversions::as_datetime;
use chrono::{DateTime, Datelike, TimeZone, Timelike};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use windrow_core::{Error, ErrorKind};

use super::patterns::{Case, Family, Number, Pattern, Piece};

/// DataFusion's `to_char`, which accepts chrono's patterns, extended by all the others.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Format {
    name: &'static str,
    prefer: Family,
    inner: Arc<ScalarUDF>,
}

impl Format {
    pub(super) fn new(name: &'static str, prefer: Family, inner: Arc<ScalarUDF>) -> Self {
        Self { name, prefer, inner }
    }
}

fn ours(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl ScalarUDFImpl for Format {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [times, pattern] = args.args.as_slice() else {
            return internal_err!("{} takes a time and a pattern", self.name);
        };
        if matches!(times.data_type(), DataType::Duration(_)) {
            return self.inner.invoke_with_args(args);
        }
        let text = match pattern {
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(text))) => text,
            ColumnarValue::Scalar(_) => return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(None))),
            ColumnarValue::Array(patterns) => {
                let times = times.to_array(args.number_rows)?;
                return each(self.prefer, &times, patterns);
            }
        };
        let scalar = matches!(times, ColumnarValue::Scalar(_));
        let pattern = Pattern::read(text, self.prefer).map_err(ours)?;
        let rows = if scalar { 1 } else { args.number_rows };
        let written = written(&times.to_array(rows)?, &pattern)?;
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&written, 0)?),
            false => ColumnarValue::Array(Arc::new(written)),
        })
    }
}

/// Formats with a pattern per row.
fn each(prefer: Family, times: &ArrayRef, patterns: &ArrayRef) -> Result<ColumnarValue> {
    let patterns = cast(patterns, &DataType::Utf8)?;
    let patterns = patterns.as_string::<i32>();
    let mut out = StringBuilder::new();
    let mut last: Option<(&str, Pattern)> = None;
    for row in 0..times.len() {
        if patterns.is_null(row) || times.is_null(row) {
            out.append_null();
            continue;
        }
        let text = patterns.value(row);
        let pattern = match last.take() {
            Some((known, pattern)) if known == text => pattern,
            _ => Pattern::read(text, prefer).map_err(ours)?,
        };
        out.append_value(written(&times.slice(row, 1), &pattern)?.value(0));
        last = Some((text, pattern));
    }
    Ok(ColumnarValue::Array(Arc::new(out.finish())))
}

fn written(times: &ArrayRef, pattern: &Pattern) -> Result<StringArray> {
    let parts = match pattern {
        Pattern::Pieces(pieces) => Parts::Pieces(pieces),
        Pattern::Chrono(text) if chrono::format::StrftimeItems::new(text).parse().is_ok() => {
            Parts::Whole(text)
        }
        Pattern::Chrono(text) => {
            let error =
                Error::new(ErrorKind::Data, format!("the pattern '{text}' is none of chrono's"));
            let hint = "Patterns with % are chrono's, or MySQL's with %i; others are PostgreSQL's \
                        and Java's.";
            return Err(ours(error.with_hint(hint)));
        }
    };
    let (times, has) = match times.data_type() {
        DataType::Timestamp(_, zone) => {
            (Arc::clone(times), Has { date: true, zone: zone.is_some() })
        }
        DataType::Date32 | DataType::Date64 => {
            let second = DataType::Timestamp(TimeUnit::Second, None);
            (cast(times, &second)?, Has { date: true, zone: false })
        }
        _ => {
            let nanos = cast(times, &DataType::Time64(TimeUnit::Nanosecond))?;
            let nanos = cast(&nanos, &DataType::Int64)?;
            let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
            (cast(&nanos, &time)?, Has { date: false, zone: false })
        }
    };
    check(&parts, has)?;
    match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => all::<TimestampSecondType>(&times, &parts),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            all::<TimestampMillisecondType>(&times, &parts)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            all::<TimestampMicrosecondType>(&times, &parts)
        }
        _ => all::<TimestampNanosecondType>(&times, &parts),
    }
}

/// The parts of the values that a pattern may use.
#[derive(Debug, Clone, Copy)]
struct Has {
    date: bool,
    zone: bool,
}

enum Parts<'p> {
    Whole(&'p str),
    Pieces(&'p [Piece]),
}

/// Refuses parts that the values lack: a time of day has no date, and a plain timestamp no time zone.
fn check(parts: &Parts<'_>, has: Has) -> Result<()> {
    let letters: String = match parts {
        Parts::Whole(text) => text
            .split('%')
            .skip(1)
            .filter_map(|s| {
                s.trim_start_matches(['-', '_', '0', '.', ':', '#', '3', '6', '9']).chars().next()
            })
            .collect(),
        Parts::Pieces(pieces) => pieces
            .iter()
            .map(|piece| match piece {
                Piece::Chrono(chrono) => chrono.chars().last().unwrap_or(' '),
                Piece::Name { .. } | Piece::Number(_) => 'd',
                Piece::Text(_) | Piece::Meridiem { .. } => ' ',
            })
            .collect(),
    };
    if !has.zone && letters.contains(['z', 'Z']) {
        let error = Error::new(
            ErrorKind::Data,
            "the pattern asks for a time zone, and the times have none",
        );
        let hint = "Give them one: ts AT TIME ZONE 'UTC'.";
        return Err(ours(error.with_hint(hint)));
    }
    let of_time = "HkIlMSfpPTRXr nt%";
    if !has.date && letters.chars().any(|c| !of_time.contains(c)) {
        return Err(ours(Error::new(
            ErrorKind::Data,
            "the pattern asks for a date, and a time of day has none",
        )));
    }
    Ok(())
}

fn all<T: ArrowTimestampType>(times: &ArrayRef, parts: &Parts<'_>) -> Result<StringArray> {
    let Some(times) = times.as_any().downcast_ref::<PrimitiveArray<T>>() else {
        return internal_err!("{} is no timestamp", times.data_type());
    };
    let zone: Tz = times.timezone().unwrap_or("+00:00").parse()?;
    let mut out = StringBuilder::with_capacity(times.len(), times.len() * 20);
    for time in times.iter() {
        let Some(ticks) = time else {
            out.append_null();
            continue;
        };
        let Some(naive) = as_datetime::<T>(ticks) else {
            let error = Error::new(ErrorKind::Data, format!("the time {ticks} is out of range"));
            return Err(ours(error));
        };
        let time = zone.from_utc_datetime(&naive);
        let failed = match parts {
            Parts::Whole(text) => write!(out, "{}", time.format(text)).is_err(),
            Parts::Pieces(pieces) => pieces.iter().any(|p| piece(&mut out, p, &time).is_err()),
        };
        if failed {
            return Err(ours(Error::new(ErrorKind::Data, "the pattern cannot be written")));
        }
        out.append_value("");
    }
    Ok(out.finish())
}

fn piece(out: &mut StringBuilder, piece: &Piece, time: &DateTime<Tz>) -> std::fmt::Result {
    match piece {
        Piece::Text(text) => out.write_str(text),
        Piece::Chrono(chrono) => write!(out, "{}", time.format(chrono)),
        Piece::Name { chrono, case, width } => {
            let name = time.format(chrono).to_string();
            let name = match case {
                Case::Upper => name.to_uppercase(),
                Case::Lower => name.to_lowercase(),
                Case::Title => name,
            };
            let width = *width;
            write!(out, "{name:width$}")
        }
        Piece::Meridiem { upper, dots } => out.write_str(match (time.hour() < 12, upper, dots) {
            (true, true, false) => "AM",
            (true, false, false) => "am",
            (true, true, true) => "A.M.",
            (true, false, true) => "a.m.",
            (false, true, false) => "PM",
            (false, false, false) => "pm",
            (false, true, true) => "P.M.",
            (false, false, true) => "p.m.",
        }),
        Piece::Number(number) => match number {
            Number::Quarter => write!(out, "{}", time.month0() / 3 + 1),
            Number::DayOfWeek => write!(out, "{}", time.weekday().num_days_from_sunday() + 1),
            Number::WeekOfYear => write!(out, "{:02}", time.ordinal0() / 7 + 1),
            Number::WeekOfMonth => write!(out, "{}", time.day0() / 7 + 1),
        },
    }
}
