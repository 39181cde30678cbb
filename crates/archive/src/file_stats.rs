//! Statistics of a file's columns: minimum, maximum, null count; as values, as JSON of the log, and as DataFusion's
//! statistics.
//!
//! A bound may be wider than the truth (long text is truncated, ns are rounded outwards to µs), never narrower: a file
//! is only skipped when it cannot contain a matching row. Floating-point numbers have no bounds here, because JSON
//! cannot express NaN; their row groups have.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Schema, TimeUnit};
use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::functions_aggregate::min_max::{MaxAccumulator, MinAccumulator};
use datafusion::logical_expr::Accumulator;
use serde_json::{Map, Value, json};
use windrow_core::{Error, Result};

/// Characters of a text bound at most.
const TEXT_CHARS_MAX: usize = 64;

/// Statistics of one column of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ColumnBounds {
    /// No value is less.
    pub(crate) min: Option<ScalarValue>,
    /// No value is greater.
    pub(crate) max: Option<ScalarValue>,
    /// The number of nulls, if known.
    pub(crate) nulls: Option<u64>,
}

/// Statistics of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileStats {
    /// The number of rows.
    pub(crate) rows: u64,
    /// Its columns, in the order of the schema.
    pub(crate) columns: Vec<ColumnBounds>,
}

/// Whether a column of this type has bounds.
fn bounded(of: &DataType) -> bool {
    of.is_integer() || of.is_string() || matches!(of, DataType::Date32 | DataType::Timestamp(_, _))
}

/// Whether nulls of a column of this type are counted.
fn nulls_counted(of: &DataType) -> bool {
    !of.is_nested()
}

/// A collector of statistics while rows are written.
#[derive(Debug)]
pub(crate) struct StatsCollector {
    rows: u64,
    nulls: Vec<u64>,
    bounds: Vec<Option<(MinAccumulator, MaxAccumulator)>>,
}

impl StatsCollector {
    /// Returns a collector for a new file.
    pub(crate) fn new(schema: &Schema) -> Result<Self> {
        let bounds = schema.fields().iter().map(|f| {
            let of = f.data_type();
            if !bounded(of) {
                return Ok(None);
            }
            let min = MinAccumulator::try_new(of).map_err(uncounted)?;
            let max = MaxAccumulator::try_new(of).map_err(uncounted)?;
            Ok(Some((min, max)))
        });
        Ok(Self {
            rows: 0,
            nulls: vec![0; schema.fields().len()],
            bounds: bounds.collect::<Result<_>>()?,
        })
    }

    /// Adds rows.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        for ((column, nulls), bounds) in
            batch.columns().iter().zip(&mut self.nulls).zip(&mut self.bounds)
        {
            *nulls += column.logical_null_count() as u64;
            if let Some((min, max)) = bounds {
                let values = std::slice::from_ref(column);
                min.update_batch(values).map_err(uncounted)?;
                max.update_batch(values).map_err(uncounted)?;
            }
        }
        Ok(())
    }

    /// Returns the collected statistics.
    pub(crate) fn finish(mut self, schema: &Schema) -> Result<FileStats> {
        let mut columns = Vec::with_capacity(self.nulls.len());
        for ((field, nulls), bounds) in
            schema.fields().iter().zip(&self.nulls).zip(&mut self.bounds)
        {
            let (min, max) = match bounds {
                Some((min, max)) => (
                    Some(min.evaluate().map_err(uncounted)?),
                    Some(max.evaluate().map_err(uncounted)?),
                ),
                None => (None, None),
            };
            let known = |v: &ScalarValue| !v.is_null();
            columns.push(ColumnBounds {
                min: min.filter(known),
                max: max.filter(known),
                nulls: nulls_counted(field.data_type()).then_some(*nulls),
            });
        }
        Ok(FileStats { rows: self.rows, columns })
    }
}

/// Converts an error of DataFusion.
fn uncounted(e: datafusion::error::DataFusionError) -> Error {
    Error::internal(format!("cannot count the rows of an archive file: {e}")).with_source(e)
}

impl FileStats {
    /// Encodes the statistics as in the log.
    pub(crate) fn to_json(&self, schema: &Schema) -> String {
        let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
        for (field, column) in schema.fields().iter().zip(&self.columns) {
            let name = field.name();
            if let Some(v) = column.min.as_ref().and_then(|v| bound_to_json(v, false)) {
                min.insert(name.clone(), v);
            }
            if let Some(v) = column.max.as_ref().and_then(|v| bound_to_json(v, true)) {
                max.insert(name.clone(), v);
            }
            if let Some(n) = column.nulls {
                nulls.insert(name.clone(), n.into());
            }
        }
        json!({"numRecords": self.rows, "minValues": min, "maxValues": max, "nullCount": nulls})
            .to_string()
    }

    /// Decodes the statistics of the log; whatever is missing is unknown.
    pub(crate) fn from_json(text: &str, rows: u64, schema: &Schema) -> Self {
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        let columns = schema.fields().iter().map(|field| {
            let (name, of) = (field.name(), field.data_type());
            let bound = |which: &str, up| {
                let value = json.get(which)?.get(name)?;
                if bounded(of) { bound_from_json(value, of, up) } else { None }
            };
            ColumnBounds {
                min: bound("minValues", false),
                max: bound("maxValues", true),
                nulls: json.get("nullCount").and_then(|n| n.get(name)?.as_u64()),
            }
        });
        Self { rows, columns: columns.collect() }
    }

    /// Converts to DataFusion's statistics, for pruning. The bounds are marked as exact, because pruning uses no
    /// others; they must not be used to answer MIN or MAX.
    pub(crate) fn to_datafusion(&self) -> Arc<Statistics> {
        let exact = |v: &Option<ScalarValue>| v.clone().map_or(Precision::Absent, Precision::Exact);
        let columns = self.columns.iter().map(|c| {
            let mut of = ColumnStatistics::new_unknown();
            of.min_value = exact(&c.min);
            of.max_value = exact(&c.max);
            of.null_count = c
                .nulls
                .and_then(|n| usize::try_from(n).ok())
                .map_or(Precision::Absent, Precision::Exact);
            of
        });
        Arc::new(Statistics {
            num_rows: usize::try_from(self.rows).map_or(Precision::Absent, Precision::Exact),
            total_byte_size: Precision::Absent,
            column_statistics: columns.collect(),
        })
    }
}

/// Encodes a bound as JSON, or `None` if JSON cannot express it. `up` for an upper bound.
fn bound_to_json(value: &ScalarValue, up: bool) -> Option<Value> {
    use ScalarValue as S;
    Some(match value {
        S::Int8(Some(v)) => (*v).into(),
        S::Int16(Some(v)) => (*v).into(),
        S::Int32(Some(v)) => (*v).into(),
        S::Int64(Some(v)) => (*v).into(),
        S::UInt8(Some(v)) => (*v).into(),
        S::UInt16(Some(v)) => (*v).into(),
        S::UInt32(Some(v)) => (*v).into(),
        S::UInt64(Some(v)) => i64::try_from(*v).ok()?.into(),
        S::Utf8(Some(v)) | S::LargeUtf8(Some(v)) | S::Utf8View(Some(v)) => cut_text(v, up)?.into(),
        S::Date32(Some(v)) => {
            let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
            let days = Days::new(u64::from(v.unsigned_abs()));
            let date =
                if *v < 0 { epoch.checked_sub_days(days) } else { epoch.checked_add_days(days) }?;
            (0..=9999).contains(&date.year()).then(|| date.format("%Y-%m-%d").to_string())?.into()
        }
        S::TimestampSecond(Some(v), zone) => micros_to_json(v.checked_mul(1_000_000)?, zone)?,
        S::TimestampMillisecond(Some(v), zone) => micros_to_json(v.checked_mul(1_000)?, zone)?,
        S::TimestampMicrosecond(Some(v), zone) => micros_to_json(*v, zone)?,
        S::TimestampNanosecond(Some(v), zone) => {
            let floor = v.div_euclid(1_000);
            let over = i64::from(up && v.rem_euclid(1_000) != 0);
            micros_to_json(floor + over, zone)?
        }
        _ => return None,
    })
}

/// Encodes a time as JSON, with `Z` if its column has a zone.
fn micros_to_json(micros: i64, zone: &Option<Arc<str>>) -> Option<Value> {
    let at = DateTime::from_timestamp_micros(micros)?;
    let zone = if zone.is_some() { "Z" } else { "" };
    (0..=9999)
        .contains(&at.year())
        .then(|| format!("{}{zone}", at.format("%Y-%m-%dT%H:%M:%S%.6f")).into())
}

/// Truncates a text bound.
fn cut_text(text: &str, up: bool) -> Option<String> {
    let Some((at, next)) = text.char_indices().nth(TEXT_CHARS_MAX) else {
        return Some(text.to_owned());
    };
    let mut cut = text.get(..at)?.to_owned();
    if up {
        if next == char::MAX {
            return None;
        }
        cut.push(char::MAX);
    }
    Some(cut)
}

/// Decodes a bound of a column of type `of`.
fn bound_from_json(value: &Value, of: &DataType, up: bool) -> Option<ScalarValue> {
    use ScalarValue as S;
    Some(match of {
        DataType::Int8 => S::Int8(Some(value.as_i64()?.try_into().ok()?)),
        DataType::Int16 => S::Int16(Some(value.as_i64()?.try_into().ok()?)),
        DataType::Int32 => S::Int32(Some(value.as_i64()?.try_into().ok()?)),
        DataType::Int64 => S::Int64(Some(value.as_i64()?)),
        DataType::UInt8 => S::UInt8(Some(value.as_u64()?.try_into().ok()?)),
        DataType::UInt16 => S::UInt16(Some(value.as_u64()?.try_into().ok()?)),
        DataType::UInt32 => S::UInt32(Some(value.as_u64()?.try_into().ok()?)),
        DataType::UInt64 => S::UInt64(Some(value.as_u64()?)),
        DataType::Utf8 => S::Utf8(Some(value.as_str()?.to_owned())),
        DataType::LargeUtf8 => S::LargeUtf8(Some(value.as_str()?.to_owned())),
        DataType::Utf8View => S::Utf8View(Some(value.as_str()?.to_owned())),
        DataType::Date32 => {
            let date = NaiveDate::parse_from_str(value.as_str()?, "%Y-%m-%d").ok()?;
            let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
            S::Date32(Some(i32::try_from((date - epoch).num_days()).ok()?))
        }
        DataType::Timestamp(unit, zone) => {
            let text = value.as_str()?;
            let text = text.strip_suffix('Z').unwrap_or(text);
            let text = text.strip_suffix("+00:00").unwrap_or(text);
            let at = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
            timestamp(at.and_utc().timestamp_micros(), *unit, zone.clone(), up)?
        }
        _ => return None,
    })
}

/// Converts µs to another unit, rounded outwards.
fn timestamp(micros: i64, unit: TimeUnit, zone: Option<Arc<str>>, up: bool) -> Option<ScalarValue> {
    let coarse = |per: i64| micros.div_euclid(per) + i64::from(up && micros.rem_euclid(per) != 0);
    Some(match unit {
        TimeUnit::Second => ScalarValue::TimestampSecond(Some(coarse(1_000_000)), zone),
        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(Some(coarse(1_000)), zone),
        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(Some(micros), zone),
        TimeUnit::Nanosecond => {
            ScalarValue::TimestampNanosecond(Some(micros.checked_mul(1_000)?), zone)
        }
    })
}

/// The ticks of a time or integer bound, in its column's own unit.
pub(crate) fn ticks(value: &ScalarValue) -> Option<i64> {
    use ScalarValue as S;
    match value {
        S::TimestampSecond(v, _)
        | S::TimestampMillisecond(v, _)
        | S::TimestampMicrosecond(v, _)
        | S::TimestampNanosecond(v, _)
        | S::Int64(v) => *v,
        S::Int32(v) | S::Date32(v) => v.map(i64::from),
        _ => None,
    }
}
