//! A generator as a source: its rows in splits, and the pace at which they arrive.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use windrow_core::{
    Clock, Error, Partition, PartitionId, Reader, Result, ScanRequest, Source, SourceBatch, Split,
};

/// Rows per split of a bounded generator.
const SPLIT_ROWS: u64 = 262_144;

/// The shortest wait in µs for the next due row, so that a fast rate produces batches and not single rows.
const PACE_MICROS_MIN: u64 = 5_000;

/// A generator of rows: the values of any range of rows.
pub(super) trait MakeRows: Debug + Send + Sync {
    /// Returns the wanted columns of `count` rows from row `first`; `columns` are the generator's own indexes.
    fn columns(&self, first: u64, count: usize, columns: &[usize]) -> Result<Vec<ArrayRef>>;

    /// Returns the smallest and largest event time of these rows, where cheap and exact.
    fn event_times(&self, first: u64, count: u64) -> Option<(i64, i64)>;

    /// Returns how many events come before row `row`, on the scale of the rate.
    fn events_before(&self, row: u64) -> u64 {
        row
    }
}

/// The pace of rows by the wall clock: event `n` is due `n / rate` after the start.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    events_per_second: u64,
    /// When the source was opened, in µs since the Unix epoch.
    started_micros: i64,
    clock: Arc<dyn Clock>,
}

impl Pace {
    pub(super) fn new(events_per_second: u64, clock: &Arc<dyn Clock>) -> Self {
        Self { events_per_second, started_micros: clock.now_micros(), clock: Arc::clone(clock) }
    }

    /// Returns the µs from the start until event `number` is due.
    fn due_micros(&self, number: u64) -> u64 {
        let rate = self.events_per_second;
        let (seconds, rest) = (number / rate, number % rate);
        let micros = u128::from(rest) * 1_000_000 / u128::from(rate);
        seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// A generator as a source: one partition; several splits when it is bounded and not paced.
#[derive(Debug)]
pub(super) struct Generator {
    pub(super) name: String,
    /// As declared.
    pub(super) schema: SchemaRef,
    /// For each declared column, the generator's index of it.
    pub(super) columns: Vec<usize>,
    /// The total number of rows; `None`: endless.
    pub(super) rows: Option<u64>,
    pub(super) pace: Option<Pace>,
    /// Whether its rows start at a given time, and not at the current one.
    pub(super) is_replayable: bool,
    pub(super) maker: Arc<dyn MakeRows>,
}

/// The rows of one split: `[first, end)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SplitRange {
    pub(super) first: u64,
    pub(super) end: u64,
}

#[async_trait]
impl Source for Generator {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn is_bounded(&self) -> bool {
        self.rows.is_some()
    }

    fn is_replayable(&self) -> bool {
        self.is_replayable
    }

    async fn discover(&self) -> Result<Vec<Partition>> {
        let id = PartitionId(0);
        let split = |number: usize, range: SplitRange, rows: Option<u64>| Split {
            partition: id,
            number,
            rows,
            bytes: None,
            event_times: rows
                .filter(|&rows| rows > 0)
                .and_then(|rows| self.maker.event_times(range.first, rows)),
            identity: self.name.as_str().into(),
            place: None,
            detail: Arc::new(range) as Arc<dyn Any + Send + Sync>,
        };
        let splits = match self.rows {
            None => vec![split(0, SplitRange { first: 0, end: u64::MAX }, None)],
            // Several readers of a paced source would wait for one another.
            Some(rows) if self.pace.is_some() || rows <= SPLIT_ROWS => {
                vec![split(0, SplitRange { first: 0, end: rows }, Some(rows))]
            }
            Some(rows) => (0..rows.div_ceil(SPLIT_ROWS))
                .zip(0usize..)
                .map(|(piece, number)| {
                    let first = piece * SPLIT_ROWS;
                    let end = first.saturating_add(SPLIT_ROWS).min(rows);
                    split(number, SplitRange { first, end }, Some(end - first))
                })
                .collect(),
        };
        Ok(vec![Partition { id, name: self.name.clone(), splits }])
    }

    async fn open(&self, split: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>> {
        let range = *split.detail.downcast_ref::<SplitRange>().ok_or_else(|| {
            Error::internal(format!("split {} is not of generator \"{}\"", split.number, self.name))
        })?;
        let schema = Arc::new(self.schema.project(&scan.projection)?);
        let columns = scan
            .projection
            .iter()
            .map(|&i| {
                self.columns
                    .get(i)
                    .copied()
                    .ok_or_else(|| Error::internal(format!("column {i} does not exist")))
            })
            .collect::<Result<Vec<_>>>()?;
        let next = scan.from.unwrap_or(range.first).clamp(range.first, range.end);
        let mut pace = self.pace.clone();
        if let (Some(pace), Some(_)) = (&mut pace, scan.from) {
            // The next row is due now: it does not wait for those read before a restart.
            let due = pace.due_micros(self.maker.events_before(next));
            let due = i64::try_from(due).unwrap_or(i64::MAX);
            pace.started_micros = pace.clock.now_micros().saturating_sub(due);
        }
        Ok(Box::new(GeneratorReader {
            schema,
            columns,
            maker: Arc::clone(&self.maker),
            pace,
            until_now: scan.until_now,
            next,
            range,
            batch_rows_max: scan.batch_rows_max.max(1),
        }))
    }
}

/// A reader of a range of rows, paced where the source is.
struct GeneratorReader {
    schema: SchemaRef,
    columns: Vec<usize>,
    maker: Arc<dyn MakeRows>,
    pace: Option<Pace>,
    /// Whether to end at the first row that is not due yet. Without a pace all rows are available already, however
    /// many.
    until_now: bool,
    range: SplitRange,
    next: u64,
    batch_rows_max: usize,
}

impl GeneratorReader {
    /// Returns how many rows are due, at most `limit`; waits for the first, unless the reader is to end there: then it
    /// may be 0.
    async fn due(&self, limit: u64) -> u64 {
        let Some(pace) = &self.pace else { return limit };
        let due_at = |row: u64| pace.due_micros(self.maker.events_before(row));
        loop {
            let now = pace.clock.now_micros().saturating_sub(pace.started_micros);
            let now = u64::try_from(now).unwrap_or(0);
            let first_due = due_at(self.next);
            if first_due <= now {
                // Due times ascend: find the first row that is not due yet.
                let (mut due, mut not_due) = (1, limit + 1);
                while not_due - due > 1 {
                    let middle = due + (not_due - due) / 2;
                    if due_at(self.next.saturating_add(middle - 1)) <= now {
                        due = middle;
                    } else {
                        not_due = middle;
                    }
                }
                return due;
            }
            if self.until_now {
                return 0;
            }
            let wait = (first_due - now).max(PACE_MICROS_MIN);
            pace.clock.sleep(Duration::from_micros(wait)).await;
        }
    }
}

#[async_trait]
impl Reader for GeneratorReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        let left = self.range.end - self.next;
        if left == 0 {
            return Ok(None);
        }
        let count = self.due(left.min(self.batch_rows_max as u64)).await;
        if count == 0 {
            return Ok(None);
        }
        let rows = usize::try_from(count)
            .map_err(|_| Error::internal("a batch has more rows than fit in memory"))?;
        let columns = self
            .maker
            .columns(self.next, rows, &self.columns)?
            .into_iter()
            .zip(self.schema.fields())
            .map(|(column, field)| as_declared(column, field.name(), field.data_type()))
            .collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let batch = SourceBatch::consecutive(batch, self.next)?;
        self.next += count;
        Ok(Some(batch))
    }
}

/// Casts `column` to the declared type. Times without a zone are UTC.
fn as_declared(column: ArrayRef, name: &str, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(column);
    }
    let options = CastOptions { safe: false, ..Default::default() };
    let cast = |column: &ArrayRef, to: &DataType| {
        cast_with_options(column, to, &options).map_err(|e| {
            Error::data(format!("column \"{name}\" cannot hold its generated values: {e}"))
                .with_hint("Declare it with a wider type.")
        })
    };
    match (column.data_type(), data_type) {
        (DataType::Timestamp(_, None), DataType::Timestamp(unit, Some(_))) => {
            // Through UTC, so that the instant is preserved and not the local time.
            let utc = cast(&column, &DataType::Timestamp(*unit, Some("+00:00".into())))?;
            cast(&utc, data_type)
        }
        _ => cast(&column, data_type),
    }
}

/// Returns 64 evenly spread bits that depend only on these three numbers (SplitMix64's finaliser, twice).
pub(super) fn mix(seed: u64, salt: u64, number: u64) -> u64 {
    let finalise = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    };
    let stream = finalise(seed.wrapping_add(salt.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    finalise(stream ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93))
}

/// Maps 64 spread bits to `[0, bound)`; 0 where `bound` is 0.
pub(super) fn below(bits: u64, bound: u64) -> u64 {
    // The high half of the product is below `bound`, so the cast keeps everything.
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// Maps 64 spread bits to `[0, 1)`.
pub(super) fn unit_interval(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
