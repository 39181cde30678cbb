//! `connector = 'replay'`: the history of a stream or view as a stream, in the order of event time.
//!
//! ```text
//! archive ∪ memory tail (or the connector's splits) ─► in range ─► sort (spills to disk) ─► pace ─► rows
//! ```
//! Invariants: the history is that of the moment at which it is opened, so a replay ends; rows of the same event time
//! are in the order of partition and offset, so one history has one order; offsets are row numbers of the replay. Since
//! rows are in order, the greatest event time so far is the watermark. The pace determines when a row is returned,
//! never its contents.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, UInt64Array};
use arrow::compute::{SortOptions, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::{StreamExt, stream};
use windrow_core::time::{ticks_to_micros, time_unit};
use windrow_core::{
    Clock, Error, Partition, PartitionId, Reader, Result, ScanRequest, Source, SourceBatch, Split,
};
use windrow_sql::diagnostics::from_datafusion;

use crate::intake::{Intake, ticks};
use crate::stream::Stream;
use crate::stream::table::outside;

/// The hidden columns that order rows of the same event time.
const PARTITION: &str = "__partition";
const OFFSET: &str = "__offset";
/// The memory of a sort divided by this is reserved for merging spilled runs.
const MERGE_SHARE: usize = 8;

/// The replay of a stream or view.
#[derive(Debug)]
pub struct ReplaySource {
    /// The stream that is replayed.
    pub of: Arc<Stream>,
    /// The index of the column by which rows are ordered.
    pub time: usize,
    /// The lowest event time, inclusive, in ticks of the column; `None`: no bound.
    pub from: Option<i64>,
    /// The highest event time, exclusive, in ticks of the column; `None`: no bound.
    pub to: Option<i64>,
    /// Seconds of event time per second of the clock; `None`: as fast as possible.
    pub speed: Option<f64>,
    /// The clock that paces the replay, where it has a speed.
    pub clock: Arc<dyn Clock>,
    /// Bytes of memory of one reading's sort; the excess spills to disk.
    pub sort_bytes_max: usize,
}

#[async_trait]
impl Source for ReplaySource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.of.schema.schema())
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn is_replayable(&self) -> bool {
        // The replayed stream may have grown by then.
        false
    }

    async fn discover(&self) -> Result<Vec<Partition>> {
        let id = PartitionId(0);
        let split = Split::new(id, 0, "replay");
        let name = format!("replay of {}", self.of.name);
        Ok(vec![Partition { id, name, splits: vec![split] }])
    }

    async fn open(&self, _: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>> {
        let history = History::new(self, scan);
        let time = history.time;
        let rows = self.sorted(history, scan.batch_rows_max)?;
        let unit = time_unit(rows.schema().field(time).data_type()).unwrap_or(TimeUnit::Second);
        let at = |column: &usize| history_position(scan, self, *column);
        let pace = self.speed.filter(|_| !scan.until_now).map(|speed| Pace {
            speed,
            unit,
            clock: Arc::clone(&self.clock),
            begun: None,
        });
        Ok(Box::new(ReplayReader {
            rows,
            shown: scan.projection.iter().map(at).collect(),
            time,
            left: None,
            position: 0,
            pace,
        }))
    }
}

impl ReplaySource {
    /// The history in the order of event time, with the hidden columns.
    fn sorted(&self, history: History, batch_rows_max: usize) -> Result<SendableRecordBatchStream> {
        let schema = Arc::clone(&history.schema);
        let order = [history.time, history.columns.len(), history.columns.len() + 1];
        let order = order.into_iter().map(|column| {
            let column = Column::new(schema.field(column).name(), column);
            // Rows without event time come first: they are bad rows before time passes.
            let options = SortOptions { descending: false, nulls_first: true };
            PhysicalSortExpr::new(Arc::new(column), options)
        });
        let order =
            LexOrdering::new(order).ok_or_else(|| Error::internal("a replay has no sort order"))?;
        let plan =
            StreamingTableExec::try_new(schema, vec![Arc::new(history)], None, vec![], false, None)
                .map_err(from_datafusion)?;
        let plan: Arc<dyn ExecutionPlan> = Arc::new(SortExec::new(order, Arc::new(plan)));
        let env = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(self.sort_bytes_max)))
            .build_arc()
            .map_err(from_datafusion)?;
        let mut config = SessionConfig::new().with_batch_size(batch_rows_max.max(1));
        config.options_mut().execution.sort_spill_reservation_bytes =
            self.sort_bytes_max / MERGE_SHARE;
        let context = TaskContext::default().with_session_config(config).with_runtime(env);
        execute_stream(plan, Arc::new(context)).map_err(from_datafusion)
    }
}

/// The index of a column of the stream among those that a reading needs.
fn history_position(scan: &ScanRequest, replay: &ReplaySource, column: usize) -> usize {
    columns(scan, replay).partition_point(|c| *c < column)
}

/// The columns that a reading needs: the requested ones, and the event times.
fn columns(scan: &ScanRequest, replay: &ReplaySource) -> Vec<usize> {
    let mut columns = scan.projection.clone();
    columns.push(replay.time);
    columns.extend(replay.of.schema.event_time().map(|e| e.index));
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// One reading of the history, in stored order.
#[derive(Debug, Clone)]
struct History {
    of: Arc<Stream>,
    columns: Vec<usize>,
    /// Those columns, then the hidden ones.
    schema: SchemaRef,
    /// The event time among the columns.
    time: usize,
    from: Option<i64>,
    to: Option<i64>,
    intake: Intake,
    batch_rows_max: usize,
}

impl History {
    fn new(replay: &ReplaySource, scan: &ScanRequest) -> Self {
        let columns = columns(scan, replay);
        let at = |column: usize| columns.partition_point(|c| *c < column);
        let all = replay.of.schema.schema();
        let mut fields: Vec<Arc<Field>> =
            columns.iter().filter_map(|c| all.fields().get(*c).cloned()).collect();
        fields.push(Arc::new(Field::new(PARTITION, DataType::UInt32, false)));
        fields.push(Arc::new(Field::new(OFFSET, DataType::UInt64, false)));
        let mut intake = replay.of.intake();
        intake.time = replay.of.schema.event_time().map(|e| at(e.index));
        Self {
            of: Arc::clone(&replay.of),
            time: at(replay.time),
            schema: Arc::new(Schema::new(fields)),
            columns,
            from: replay.from,
            to: replay.to,
            intake,
            batch_rows_max: scan.batch_rows_max,
        }
    }

    /// The offset at which reading of a log begins, so that archived files that are too old are not opened.
    fn first_offset(&self) -> Option<u64> {
        let log = self.of.log().or_else(|| self.of.kept().map(|push| &push.log))?;
        let in_archive = self.intake.time == Some(self.time);
        self.from.filter(|_| in_archive).map(|from| log.row_from(from))
    }

    /// Returns the rows of a batch that are in range, with the hidden columns.
    fn take(&self, partition: PartitionId, batch: SourceBatch) -> Result<RecordBatch> {
        let taken = self.intake.take(batch, self.of.clock.now_micros())?;
        self.of.bad_rows.keep(&self.of.name, (partition, ""), &taken.bad);
        let count = taken.rows.num_rows();
        let offsets = (0..count).map(|row| taken.row_offsets.offset(row));
        let mut columns: Vec<ArrayRef> = taken.rows.columns().to_vec();
        columns.push(Arc::new(UInt32Array::from(vec![partition.0; count])));
        columns.push(Arc::new(UInt64Array::from_iter_values(offsets)));
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        if self.from.or(self.to).is_none() {
            return Ok(rows);
        }
        let column = Arc::clone(rows.column(self.time));
        let keep = ticks(&column)?.iter().enumerate().map(|(row, time)| {
            let inside =
                self.from.is_none_or(|from| *time >= from) && self.to.is_none_or(|to| *time < to);
            // A row without event time becomes a bad row, whatever the range.
            Some(inside || column.is_null(row))
        });
        Ok(filter_record_batch(&rows, &BooleanArray::from_iter(keep))?)
    }
}

impl PartitionStream for History {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let at = Position { history: self.clone(), source: None, splits: vec![], reader: None };
        let rows = stream::try_unfold(at, |mut at| async move {
            Ok(at.next().await.map_err(outside)?.map(|rows| (rows, at)))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// The progress of a reading of the history.
struct Position {
    history: History,
    /// The source; `None`: reading has not begun.
    source: Option<Arc<dyn Source>>,
    /// The remaining splits, the next one last.
    splits: Vec<Split>,
    reader: Option<(PartitionId, Box<dyn Reader>)>,
}

impl Position {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let source = match &self.source {
            Some(source) => Arc::clone(source),
            None => {
                if let Some(history) = &self.history.of.history {
                    history.freshen().await?;
                }
                let source = self.history.of.replayed(self.history.first_offset());
                let partitions = source.discover().await?;
                self.splits = partitions.into_iter().flat_map(|p| p.splits).collect();
                self.splits.reverse();
                self.source = Some(Arc::clone(&source));
                source
            }
        };
        let request =
            ScanRequest::of_now(self.history.columns.clone(), self.history.batch_rows_max);
        loop {
            let Some((partition, reader)) = &mut self.reader else {
                let Some(split) = self.splits.pop() else { return Ok(None) };
                self.reader = Some((split.partition, source.open(&split, &request).await?));
                continue;
            };
            match reader.next().await? {
                Some(batch) => {
                    let rows = self.history.take(*partition, batch)?;
                    if rows.num_rows() > 0 {
                        return Ok(Some(rows));
                    }
                }
                None => self.reader = None,
            }
        }
    }
}

/// The pace of a replay.
#[derive(Debug)]
struct Pace {
    speed: f64,
    unit: TimeUnit,
    clock: Arc<dyn Clock>,
    /// The first event time, and when its row was returned, both in µs.
    begun: Option<(i64, i64)>,
}

impl Pace {
    /// Returns the time until a row with this event time, in ticks, is due; zero when it is.
    fn until(&mut self, time: i64) -> Duration {
        let now = self.clock.now_micros();
        let time = ticks_to_micros(time, self.unit);
        let (first, begun) = *self.begun.get_or_insert((time, now));
        let passed = Duration::from_micros(u64::try_from(time.saturating_sub(first)).unwrap_or(0));
        // A time that overflows is longer than any wait.
        let due = Duration::try_from_secs_f64(passed.as_secs_f64() / self.speed)
            .unwrap_or(Duration::from_micros(u64::MAX));
        let since = u64::try_from(now.saturating_sub(begun)).unwrap_or(0);
        due.saturating_sub(Duration::from_micros(since))
    }
}

/// Returns the sorted rows as they become due.
struct ReplayReader {
    rows: SendableRecordBatchStream,
    /// The indexes of the requested columns among those that are read.
    shown: Vec<usize>,
    time: usize,
    /// Sorted rows that are not due yet.
    left: Option<RecordBatch>,
    position: u64,
    pace: Option<Pace>,
}

impl ReplayReader {
    fn give(&mut self, rows: &RecordBatch) -> Result<Option<SourceBatch>> {
        let batch = SourceBatch::consecutive(rows.project(&self.shown)?, self.position)?;
        self.position = batch.offsets.end();
        Ok(Some(batch))
    }
}

#[async_trait]
impl Reader for ReplayReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        loop {
            let Some(rows) = self.left.take() else {
                match self.rows.next().await {
                    Some(rows) => self.left = Some(rows.map_err(from_datafusion)?),
                    None => return Ok(None),
                }
                continue;
            };
            if rows.num_rows() == 0 {
                continue;
            }
            let Some(pace) = &mut self.pace else { return self.give(&rows) };
            let column = rows.column(self.time);
            let times = ticks(column)?;
            // Rows without event time are first, and due at once.
            let timeless = column.null_count();
            // For the first row before any other: the pace begins with it.
            let wait = times.get(timeless).map(|time| pace.until(*time));
            let due = |time: &i64| pace.until(*time).is_zero();
            let count = timeless + times.get(timeless..).unwrap_or_default().partition_point(due);
            if count > 0 {
                self.left = Some(rows.slice(count, rows.num_rows() - count));
                return self.give(&rows.slice(0, count));
            }
            let slept = wait.map(|wait| pace.clock.sleep(wait));
            // Stored before the wait: dropping the future loses nothing.
            self.left = Some(rows);
            if let Some(slept) = slept {
                slept.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, TimestampMicrosecondArray};
    use futures::FutureExt;
    use windrow_core::{EventTimeColumn, ManualClock, StreamSchema};

    use super::*;
    use crate::kept::BadRows;
    use crate::log::StreamLog;
    use crate::stream::Feed;

    const SECOND: i64 = 1_000_000;

    /// A history whose row `i` has these event times, in seconds.
    fn history(seconds: &[i64], clock: &ManualClock) -> Arc<Stream> {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let schema = Arc::new(Schema::new(vec![
            Field::new("row", DataType::UInt64, false),
            Field::new("ts", time, true),
        ]));
        let log = StreamLog::new(Arc::clone(&schema));
        for (at, part) in seconds.chunks(1000).enumerate() {
            let first = at as u64 * 1000;
            let rows = UInt64Array::from_iter_values(first..first + part.len() as u64);
            let times =
                TimestampMicrosecondArray::from_iter_values(part.iter().map(|s| s * SECOND));
            let columns: Vec<ArrayRef> = vec![Arc::new(rows), Arc::new(times)];
            log.append(RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()).unwrap();
        }
        let event_time = Some(EventTimeColumn { index: 1, delay_ticks: 0 });
        Arc::new(Stream {
            name: "s".into(),
            schema: StreamSchema::try_new(schema, event_time).unwrap(),
            key: None,
            feed: Feed::View(log),
            receiver: None,
            history: None,
            when_idle: None,
            max_future_skew_micros: None,
            checks: crate::checks::Checks::default(),
            connector: "view".into(),
            replayable: true,
            retention: None,
            bad_rows: Arc::new(BadRows::new(10)),
            clock: Arc::new(clock.clone()),
            older: vec![],
        })
    }

    fn replay(of: Arc<Stream>, clock: &ManualClock, speed: Option<f64>) -> ReplaySource {
        ReplaySource {
            of,
            time: 1,
            from: None,
            to: None,
            speed,
            clock: Arc::new(clock.clone()),
            sort_bytes_max: 2 << 20,
        }
    }

    async fn reader(source: &ReplaySource, until_now: bool) -> Box<dyn Reader> {
        let scan = ScanRequest {
            projection: vec![0],
            predicates: vec![],
            event_time: None,
            from: None,
            place: None,
            past: 0,
            until_now,
            batch_rows_max: 4096,
        };
        let partitions = source.discover().await.unwrap();
        source.open(&partitions[0].splits[0], &scan).await.unwrap()
    }

    fn numbers(batch: &SourceBatch) -> Vec<u64> {
        batch.rows.column(0).as_primitive::<arrow::datatypes::UInt64Type>().values().to_vec()
    }

    #[tokio::test]
    async fn rows_fall_due_by_the_clock() {
        let clock = ManualClock::at(77 * SECOND);
        let source = replay(history(&[30, 0, 10, 10], &clock), &clock, Some(10.0));
        let mut reader = reader(&source, false).await;
        assert_eq!(
            numbers(&reader.next().await.unwrap().unwrap()),
            [1],
            "the first is due at once"
        );
        assert!(reader.next().now_or_never().is_none(), "ten seconds are one at this speed");
        clock.advance(Duration::from_millis(999));
        assert!(reader.next().now_or_never().is_none());
        clock.advance(Duration::from_millis(1));
        let batch = reader.next().await.unwrap().unwrap();
        assert_eq!((numbers(&batch), batch.offsets.start()), (vec![2, 3], 1));
        clock.advance(Duration::from_secs(5));
        assert_eq!(numbers(&reader.next().await.unwrap().unwrap()), [0]);
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_bounded_query_does_not_wait() {
        let clock = ManualClock::at(0);
        let source = replay(history(&[86_400, 0], &clock), &clock, Some(1.0));
        let mut reader = reader(&source, true).await;
        assert_eq!(numbers(&reader.next().await.unwrap().unwrap()), [1, 0]);
    }

    #[tokio::test]
    async fn what_does_not_fit_memory_is_sorted_on_disk() {
        let clock = ManualClock::at(0);
        // 16 bytes a row and as much for the hidden columns, four times the memory.
        let count = 300_000_i64;
        let seconds: Vec<i64> = (0..count).map(|i| (i * 7_919) % 1_000).collect();
        let mut expected: Vec<(i64, u64)> = seconds.iter().copied().zip(0..).collect();
        expected.sort_unstable();
        let source = replay(history(&seconds, &clock), &clock, None);
        let mut reader = reader(&source, false).await;
        let mut found = vec![];
        while let Some(batch) = reader.next().await.unwrap() {
            assert_eq!(batch.offsets.start(), found.len() as u64);
            found.extend(numbers(&batch));
        }
        assert_eq!(found, expected.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_range_has_its_start_and_not_its_end() {
        let clock = ManualClock::at(0);
        let mut source = replay(history(&[4, 3, 2, 1], &clock), &clock, None);
        (source.from, source.to) = (Some(2 * SECOND), Some(4 * SECOND));
        let mut reader = reader(&source, false).await;
        let batch = reader.next().await.unwrap().unwrap();
        assert_eq!(numbers(&batch), [2, 1]);
        assert_eq!(batch.rows.num_columns(), 1, "what orders them is not shown");
    }
}
