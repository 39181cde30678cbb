//! The checks that every decoded batch passes, whatever its source: rows whose event time is NULL, too far ahead of the
//! wall clock, or outside of the range in which windows have bounds become bad rows.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType, Field, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;
use windrow_core::time::{ticks_per_second, ticks_to_micros, time_unit};
use windrow_core::{BadRow, Behind, Error, Result, RowOffsets, SourceBatch};
use windrow_sql::plan::DELETED_COLUMN;

/// The checks on one stream's event times.
#[derive(Debug, Clone)]
pub struct Intake {
    /// The index of the event-time column among the scanned columns; `None`: there is nothing to check.
    pub time: Option<usize>,
    /// The event times, in ticks, whose windows have bounds.
    pub valid: RangeInclusive<i64>,
    /// How far an event time may be ahead of the wall clock, in µs.
    pub max_future_skew_micros: Option<i64>,
}

/// A batch that has been checked.
#[derive(Debug, Clone)]
pub struct TakenIn {
    /// The good rows.
    pub rows: RecordBatch,
    /// The offset of each good row.
    pub row_offsets: Arc<dyn RowOffsets>,
    /// Smallest and largest event time of the good rows, in ticks; `None`: there are no rows, or no event time.
    pub times: Option<(i64, i64)>,
    /// All bad rows of the batch: undecodable ones and those that failed here.
    pub bad: Vec<BadRow>,
    /// Number of rows that the source has skipped because of predicates.
    pub skipped: u64,
    /// As in [`SourceBatch::behind`].
    pub behind: Vec<Behind>,
}

impl TakenIn {
    /// Returns the batch without its first `rows` rows and without the bad rows before `offset`. Skipped rows are not
    /// counted in it: how many of them come after is unknown.
    pub fn after(&self, rows: usize, offset: u64) -> Self {
        let left = self.rows.num_rows().saturating_sub(rows);
        let offsets: Vec<u64> =
            (rows..self.rows.num_rows()).map(|row| self.row_offsets.offset(row)).collect();
        Self {
            rows: self.rows.slice(rows, left),
            row_offsets: Arc::new(offsets),
            // The range of the whole batch, which is wider.
            times: self.times.filter(|_| left > 0),
            bad: self.bad.iter().filter(|bad| bad.offset >= offset).cloned().collect(),
            skipped: 0,
            behind: from_row(&self.behind, rows),
        }
    }
}

/// Returns the entries of the rows from `first` on, renumbered from there.
fn from_row(behind: &[Behind], first: usize) -> Vec<Behind> {
    let left = behind.iter().filter_map(|b| Some(Behind { row: b.row.checked_sub(first)?, ..*b }));
    left.collect()
}

impl Intake {
    /// Checks a batch at wall-clock time `now_micros`.
    ///
    /// # Errors
    /// When the event-time column is not a timestamp (a broken source).
    pub fn take(&self, batch: SourceBatch, now_micros: i64) -> Result<TakenIn> {
        let SourceBatch { rows, row_offsets, bad, skipped, behind, .. } = batch;
        let mut taken = TakenIn { rows, row_offsets, bad, skipped, times: None, behind };
        let Some(index) = self.time else { return Ok(taken) };
        if taken.rows.num_rows() == 0 {
            return Ok(taken);
        }
        let column = Arc::clone(taken.rows.column(index));
        let times = ticks(&column)?;
        let highest = self.highest(column.data_type(), now_micros);
        let (min, max) = min_max(times);
        if column.null_count() == 0 && min >= *self.valid.start() && max <= highest {
            taken.times = Some((min, max));
            return Ok(taken);
        }
        self.separate(taken, &column, highest)
    }

    /// The largest acceptable event time in ticks.
    fn highest(&self, data_type: &DataType, now_micros: i64) -> i64 {
        let valid = *self.valid.end();
        match (self.max_future_skew_micros, time_unit(data_type)) {
            (Some(skew), Some(unit)) => {
                micros_to_ticks(now_micros.saturating_add(skew), unit).min(valid)
            }
            _ => valid,
        }
    }

    /// Separates the good rows from the bad ones, and gives each bad one its reason.
    fn separate(&self, mut taken: TakenIn, column: &ArrayRef, highest: i64) -> Result<TakenIn> {
        let times = ticks(column)?;
        let name = taken.rows.schema_ref().field(self.time.unwrap_or(0)).name().clone();
        let reason = |row: usize, time: i64| -> Option<String> {
            if column.is_null(row) {
                Some(format!("event time \"{name}\" is NULL"))
            } else if !self.valid.contains(&time) {
                Some(format!("event time \"{name}\" is out of range"))
            } else if time > highest {
                Some(format!("event time \"{name}\" is too far in the future (max_future_skew)"))
            } else {
                None
            }
        };
        let mut keep = Vec::with_capacity(times.len());
        let mut kept_offsets: Vec<u64> = Vec::with_capacity(times.len());
        for (row, time) in times.iter().enumerate() {
            let why = reason(row, *time);
            keep.push(why.is_none());
            let offset = taken.row_offsets.offset(row);
            match why {
                None => kept_offsets.push(offset),
                Some(reason) => {
                    taken.bad.push(BadRow { offset, reason, raw: render_row(&taken.rows, row)? });
                }
            }
        }
        taken.rows = filter_record_batch(&taken.rows, &BooleanArray::from(keep))?;
        taken.row_offsets = Arc::new(kept_offsets);
        if let (Some(index), true) = (self.time, taken.rows.num_rows() > 0) {
            taken.times = Some(min_max(ticks(taken.rows.column(index))?));
        }
        Ok(taken)
    }
}

/// Renders one row as a line of JSON, without hidden columns. An error when a column has a type without a JSON form.
pub fn render_row(rows: &RecordBatch, row: usize) -> Result<String> {
    let schema = rows.schema();
    let shown = schema.fields().iter().enumerate();
    // Other streams may have a column of this name that is not hidden.
    let is_hidden = |field: &Field| {
        field.name() == DELETED_COLUMN
            && field.data_type() == &DataType::Boolean
            && !field.is_nullable()
    };
    let shown = shown.filter(|(_, field)| !is_hidden(field)).map(|(at, _)| at);
    let rows = rows.project(&shown.collect::<Vec<_>>())?;
    let mut line = Vec::new();
    let mut writer = arrow::json::writer::LineDelimitedWriter::new(&mut line);
    writer.write(&rows.slice(row, 1))?;
    writer.finish()?;
    drop(writer);
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// The values of a timestamp column, in ticks of its unit; those of NULLs are arbitrary. An error for any other type.
pub fn ticks(column: &ArrayRef) -> Result<&[i64]> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            Ok(column.as_primitive::<TimestampSecondType>().values())
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Ok(column.as_primitive::<TimestampMillisecondType>().values())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Ok(column.as_primitive::<TimestampMicrosecondType>().values())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Ok(column.as_primitive::<TimestampNanosecondType>().values())
        }
        other => Err(Error::internal(format!("event-time column is {other}, not a timestamp"))),
    }
}

/// Whether all event times between these (in ticks, inclusive) lie in 1970: nearly always their numbers have another
/// unit than the column.
pub(crate) fn lie_in_1970(column: &DataType, (min, max): (i64, i64)) -> bool {
    let year = |unit| 0..ticks_per_second(unit) * 365 * 86_400;
    time_unit(column).map(year).is_some_and(|year| year.contains(&min) && year.contains(&max))
}

fn min_max(times: &[i64]) -> (i64, i64) {
    times.iter().fold((i64::MAX, i64::MIN), |(lo, hi), t| (lo.min(*t), hi.max(*t)))
}

/// Converts µs since the epoch to ticks, rounded down and saturating.
pub fn micros_to_ticks(micros: i64, unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => micros.div_euclid(1_000_000),
        TimeUnit::Millisecond => micros.div_euclid(1_000),
        TimeUnit::Microsecond => micros,
        TimeUnit::Nanosecond => micros.saturating_mul(1_000),
    }
}

/// Converts ticks of a column's unit to µs, for display; `None`: the column is not a timestamp.
pub fn display_micros(ticks: i64, data_type: &DataType) -> Option<i64> {
    match ticks {
        i64::MIN | i64::MAX => None,
        ticks => time_unit(data_type).map(|unit| ticks_to_micros(ticks, unit)),
    }
}
