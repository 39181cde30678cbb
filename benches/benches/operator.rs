//! The window operator alone, on one thread: 10 M rows in memory through one [`SliceStore`] and one
//! [`WindowMerger`], every window's rows built and dropped; sessions and joins through the port of stateful operators. The rows of
//! a join are those of both inputs, 5 M each.
//!
//! Key `i64`, event time in µs, price `i64`; half of the rows have a hot key that moves, the others
//! are spread over all keys; 18,400 rows per second of event time, out of order by up to a second.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::functions_aggregate::{count::count_udaf, min_max::max_udaf};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use divan::counter::ItemsCount;
use windrow_core::{Error, Result, SessionSpec, Watermark, WindowKind, WindowSpec};
use windrow_operators::aggregates::sum_udaf;
use windrow_operators::lateness::{Tolerance, classify};
use windrow_operators::{
    AggregateCall, FrameRow, IntervalJoinSpec, JoinInput, JoinKind, Mode, OperatorSpec, OverCall,
    OverFrame, OverFunction, OverSpec, SessionOperatorSpec, SliceStore, StatefulOperator,
    WindowMerger, WorkerPart,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 10_000_000;
const SECOND: i64 = 1_000_000;
const ROWS_PER_SECOND: i64 = 18_400;

fn main() {
    divan::main();
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("price", DataType::Int64, false),
    ]))
}

/// The same rows each time: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * n.unsigned_abs() as u128) >> 64) as i64
    }
}

type Input = Arc<Vec<RecordBatch>>;

/// The rows with `keys` keys in batches of `batch_rows`; kept for the next bench that asks.
fn input(keys: i64, batch_rows: usize) -> Result<Input> {
    static KEPT: Mutex<BTreeMap<(i64, usize), Input>> = Mutex::new(BTreeMap::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(input) = kept.get(&(keys, batch_rows)) {
        return Ok(Arc::clone(input));
    }
    kept.clear();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut batches = vec![];
    let mut row = 0_i64;
    while (row as usize) < ROWS {
        let n = batch_rows.min(ROWS - row as usize);
        let (mut key, mut ts, mut price) = (vec![], vec![], vec![]);
        for _ in 0..n {
            let hot = (row / 20_000) % keys;
            key.push(if random.below(2) == 0 { hot } else { random.below(keys) });
            ts.push(row * SECOND / ROWS_PER_SECOND - random.below(SECOND));
            price.push(random.below(10_000));
            row += 1;
        }
        batches.push(RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(Int64Array::from(key)),
                Arc::new(TimestampMicrosecondArray::from(ts)),
                Arc::new(Int64Array::from(price)),
            ],
        )?);
    }
    let input = Arc::new(batches);
    kept.insert((keys, batch_rows), Arc::clone(&input));
    Ok(input)
}

fn call(function: Arc<AggregateUDF>, column: usize) -> Result<AggregateCall> {
    let schema = schema();
    let name = schema.field(column).name().clone();
    let function = AggregateExprBuilder::new(function, vec![Arc::new(Column::new(&name, column))])
        .schema(schema)
        .alias(name)
        .build()
        .map_err(|e| Error::internal(e.to_string()))?;
    Ok(AggregateCall { function: Arc::new(function), arguments: vec![column], filter: None })
}

fn spec(kind: WindowKind, count_only: bool) -> Result<Arc<OperatorSpec>> {
    let mut aggregates = vec![call(count_udaf(), 1)?];
    if !count_only {
        aggregates.extend([call(sum_udaf(), 2)?, call(max_udaf(), 2)?]);
    }
    let mode = Mode::Aggregate { keys: vec![0], grouping_sets: None, aggregates };
    let window = WindowSpec::try_new(kind, 0)?;
    Ok(Arc::new(OperatorSpec::try_new(window, 1, schema(), mode)?))
}

/// All rows through the operator; the number of result rows.
fn run(spec: &Arc<OperatorSpec>, input: &[RecordBatch]) -> Result<usize> {
    let tolerance = Tolerance { delay: SECOND, allowed_lateness: 0 };
    let mut store = SliceStore::new(spec);
    let mut merger = WindowMerger::new(Arc::clone(spec));
    let mut watermark = Watermark::NONE;
    let mut results = 0;
    let mut close = |store: &mut SliceStore, watermark| {
        for segment in store.flush(watermark)? {
            merger.add(segment)?;
        }
        merger.close(watermark, &mut |window| {
            for batch in window.rows {
                results += black_box(batch?).num_rows();
            }
            Ok(())
        })
    };
    for batch in input {
        let times = batch.column(1).as_any().downcast_ref::<TimestampMicrosecondArray>();
        let times: &[i64] = times.map_or(&[], |t| t.values());
        let found = classify(spec.slicing(), times, watermark, tolerance);
        if !found.is_empty() {
            return Err(Error::internal("no row of this input is late"));
        }
        store.update(batch)?;
        let latest = times.iter().copied().max().unwrap_or(i64::MIN);
        watermark = watermark.advance(Watermark::at(latest.saturating_sub(SECOND)));
        close(&mut store, watermark)?;
    }
    close(&mut store, Watermark::END)?;
    Ok(results)
}

/// All rows through an operator as the runtime does it; the number of result rows. `idle`: after each batch, everything that
/// can be finished is.
fn run_port(
    operator: &dyn StatefulOperator,
    input: &[RecordBatch],
    (lag, idle): (i64, bool),
) -> Result<usize> {
    let tolerance = Tolerance { delay: SECOND, allowed_lateness: 0 };
    let (mut worker, mut coordinator) = (operator.worker(0), operator.coordinator());
    let (mut watermark, mut complete, mut results) = (Watermark::NONE, Watermark::NONE, 0);
    let mut close = |worker: &mut dyn WorkerPart, watermark: Watermark| {
        let reached = watermark.delayed(lag);
        while let Some(to) = coordinator.flush_to(reached, idle) {
            worker.flush(to)?.into_iter().try_for_each(|segment| coordinator.add(0, segment))?;
            coordinator.flushed(to);
        }
        complete = complete.advance(coordinator.complete_to(reached));
        while let Some(finished) = coordinator.close(complete, 8_192)? {
            for rows in finished.rows {
                results += black_box(rows?).num_rows();
            }
        }
        Ok::<_, Error>(())
    };
    for batch in input {
        let mut columns = batch.columns().iter();
        let times = columns.find_map(|c| c.as_any().downcast_ref::<TimestampMicrosecondArray>());
        let times: &[i64] = times.map_or(&[], |t| t.values());
        if !operator.classify(0, times, watermark, tolerance).is_empty() {
            return Err(Error::internal("no row of this input is late"));
        }
        worker.update(batch)?;
        let latest = times.iter().copied().max().unwrap_or(i64::MIN);
        watermark = watermark.advance(Watermark::at(latest.saturating_sub(SECOND)));
        close(worker.as_mut(), watermark)?;
    }
    close(worker.as_mut(), Watermark::END)?;
    Ok(results)
}

fn sessions(gap: i64) -> Result<SessionOperatorSpec> {
    let aggregates = vec![call(count_udaf(), 1)?];
    let mode = Mode::Aggregate { keys: vec![0], grouping_sets: None, aggregates };
    SessionOperatorSpec::try_new(SessionSpec::try_new(gap)?, vec![0], 1, schema(), mode)
}

fn bench_sessions(bencher: divan::Bencher<'_, '_>, size: (i64, usize), idle: bool) {
    let prepared = sessions(10 * SECOND).and_then(|s| Ok((s, input(size.0, size.1)?)));
    let Ok((spec, input)) = prepared else {
        return;
    };
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench_local(|| black_box(run_port(&spec, &input, (1, idle))).is_ok());
}

fn bench(bencher: divan::Bencher<'_, '_>, kind: WindowKind, size: (i64, usize), count_only: bool) {
    let prepared = spec(kind, count_only).and_then(|s| Ok((s, input(size.0, size.1)?)));
    let Ok((spec, input)) = prepared else {
        return;
    };
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| black_box(run(&spec, &input)).is_ok());
}

const SIZES: [(i64, usize); 6] = [
    (1_000, 8_192),
    (1_000, 65_536),
    (100_000, 8_192),
    (100_000, 65_536),
    (1_000_000, 8_192),
    (1_000_000, 65_536),
];

#[divan::bench(args = SIZES, sample_count = 3)]
fn tumble_10s(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    bench(bencher, WindowKind::Tumble { size: 10 * SECOND }, size, false);
}

#[divan::bench(args = SIZES, sample_count = 3)]
fn hop_10s_2s(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    bench(bencher, WindowKind::Hop { slide: 2 * SECOND, size: 10 * SECOND }, size, false);
}

#[divan::bench(args = [(1_000, 65_536), (66_000, 65_536), (1_000_000, 65_536)], sample_count = 3)]
fn hop_60s_1s(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    bench(bencher, WindowKind::Hop { slide: SECOND, size: 60 * SECOND }, size, false);
}

/// Query QB60 of the comparison: 66 k keys in each of 600 windows, count only.
#[divan::bench(args = [(66_000, 65_536)], sample_count = 3)]
fn hop_60s_1s_count(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    bench(bencher, WindowKind::Hop { slide: SECOND, size: 60 * SECOND }, size, true);
}

/// Sessions of 10 s, slice by slice: while more rows are on their way.
#[divan::bench(args = SIZES, sample_count = 3)]
fn session_10s(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    bench_sessions(bencher, size, false);
}

/// The same when each batch is the last for now.
#[divan::bench(args = [(1_000, 65_536), (100_000, 65_536)], sample_count = 3)]
fn session_10s_idle(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    bench_sessions(bencher, size, true);
}

/// The columns as OVER has them: the time first.
const OVER_COLUMNS: [usize; 3] = [1, 0, 2];

fn over(function: OverFunction, frame: OverFrame) -> Result<OverSpec> {
    let schema = Arc::new(schema().project(&OVER_COLUMNS)?);
    let call = OverCall { function, frame, result: (DataType::Int64, true) };
    OverSpec::try_new(schema, vec![1], vec![], vec![call])
}

fn bench_over(bencher: divan::Bencher<'_, '_>, size: (i64, usize), spec: Result<OverSpec>) {
    let columns = |batch: &RecordBatch| batch.project(&OVER_COLUMNS);
    let input = input(size.0, size.1).and_then(|input| {
        Ok(input.iter().map(columns).collect::<std::result::Result<Vec<_>, _>>()?)
    });
    let (Ok(spec), Ok(input)) = (spec, input) else {
        return;
    };
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench_local(|| black_box(run_port(&spec, &input, (0, false))).is_ok());
}

const OVER_SIZES: [(i64, usize); 4] =
    [(1_000, 8_192), (1_000, 65_536), (1_000_000, 8_192), (1_000_000, 65_536)];

/// `sum(price) OVER (PARTITION BY key ORDER BY ts ROWS 10 PRECEDING)`.
#[divan::bench(args = OVER_SIZES, sample_count = 3)]
fn over_sum_rows_10(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    let frame = OverFrame::Rows { start: Some(-10), end: 0 };
    let sum = call(sum_udaf(), 2).map(OverFunction::Aggregate);
    bench_over(bencher, size, sum.and_then(|sum| over(sum, frame)));
}

/// `sum(price) OVER (PARTITION BY key ORDER BY ts RANGE INTERVAL '10 seconds' PRECEDING)`.
#[divan::bench(args = OVER_SIZES, sample_count = 3)]
fn over_sum_range_10s(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    let frame = OverFrame::Range { start: Some(-10 * SECOND), end: 0 };
    let sum = call(sum_udaf(), 2).map(OverFunction::Aggregate);
    bench_over(bencher, size, sum.and_then(|sum| over(sum, frame)));
}

/// `lag(price) OVER (PARTITION BY key ORDER BY ts)`.
#[divan::bench(args = OVER_SIZES, sample_count = 3)]
fn over_lag(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    let lag = OverFunction::Value {
        column: 2,
        which: FrameRow::First,
        ignore_nulls: false,
        default: None,
    };
    bench_over(bencher, size, over(lag, OverFrame::Rows { start: Some(-1), end: -1 }));
}

/// Rows with keys that are as likely, the time first; batches are of one input and the other in turn.
fn join_input(keys: i64, batch_rows: usize) -> Result<Vec<RecordBatch>> {
    let schema = Arc::new(schema().project(&[1, 0, 2])?);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let rows: Vec<i64> = (0..ROWS as i64).collect();
    let batches = rows.chunks(batch_rows).map(|rows| {
        let times = rows.iter().map(|row| row * SECOND / ROWS_PER_SECOND - random.below(SECOND));
        let times: Vec<i64> = times.collect();
        let mut numbers = |n| Int64Array::from_iter_values(rows.iter().map(|_| random.below(n)));
        let columns: [ArrayRef; 3] = [
            Arc::new(TimestampMicrosecondArray::from(times)),
            Arc::new(numbers(keys)),
            Arc::new(numbers(10_000)),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&schema), columns.to_vec())?)
    });
    batches.collect()
}

/// A join by key within bounds; `closest`: with the closest row alone.
fn join(kind: JoinKind, bounds: (i64, i64), closest: bool) -> Result<IntervalJoinSpec> {
    let side = || -> Result<JoinInput> {
        Ok(JoinInput { schema: Arc::new(schema().project(&[1, 0, 2])?), keys: vec![1] })
    };
    let spec = IntervalJoinSpec::try_new([side()?, side()?], bounds, false)?.with_kind(kind);
    if closest { spec.closest() } else { Ok(spec) }
}

/// All rows through a join as the runtime does it, one batch for the left side and one for the right; the number of results.
fn run_join(operator: &dyn StatefulOperator, input: &[RecordBatch]) -> Result<usize> {
    let mut workers: [Box<dyn WorkerPart>; 2] = [operator.worker(0), operator.worker(1)];
    let mut coordinator = operator.coordinator();
    let (mut watermark, mut results) = (Watermark::NONE, 0);
    let mut close = |workers: &mut [Box<dyn WorkerPart>; 2], reached: Watermark| {
        while let Some(to) = coordinator.flush_to(reached, false) {
            for (input, worker) in workers.iter_mut().enumerate() {
                let mut segments = worker.flush(to)?.into_iter();
                segments.try_for_each(|segment| coordinator.add(input, segment))?;
            }
            coordinator.flushed(to);
        }
        let complete = coordinator.complete_to(reached);
        while let Some(finished) = coordinator.close(complete, 8_192)? {
            for rows in finished.rows {
                results += black_box(rows?).num_rows();
            }
        }
        Ok::<_, Error>(())
    };
    for (number, batch) in input.iter().enumerate() {
        let times = batch.column(0).as_any().downcast_ref::<TimestampMicrosecondArray>();
        let latest = times.and_then(|t| t.values().iter().copied().max()).unwrap_or(i64::MIN);
        if let Some(worker) = workers.get_mut(number % 2) {
            worker.update(batch)?;
        }
        watermark = watermark.advance(Watermark::at(latest.saturating_sub(SECOND)));
        if number % 2 == 1 {
            // The other input is one batch behind.
            let one = batch.num_rows() as i64 * SECOND / ROWS_PER_SECOND;
            close(&mut workers, watermark.delayed(one))?;
        }
    }
    close(&mut workers, Watermark::END)?;
    Ok(results)
}

fn bench_join(
    bencher: divan::Bencher<'_, '_>,
    spec: Result<IntervalJoinSpec>,
    (keys, batch_rows): (i64, usize),
) {
    let prepared = spec.and_then(|s| Ok((s, join_input(keys, batch_rows)?)));
    let Ok((spec, input)) = prepared else {
        return;
    };
    bencher
        .counter(ItemsCount::new(ROWS))
        .bench_local(|| black_box(run_join(&spec, &input)).is_ok());
}

/// Keys that are far more than the rows within the bounds, so that there are few pairs.
const JOIN_SIZES: [(i64, usize); 2] = [(100_000, 8_192), (1_000_000, 8_192)];

#[divan::bench(args = JOIN_SIZES, sample_count = 3)]
fn join_interval_10s(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    bench_join(bencher, join(JoinKind::Inner, (0, 10 * SECOND), false), size);
}

#[divan::bench(args = JOIN_SIZES, sample_count = 3)]
fn join_interval_left_10s(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    bench_join(bencher, join(JoinKind::Left, (0, 10 * SECOND), false), size);
}

#[divan::bench(args = JOIN_SIZES, sample_count = 3)]
fn join_asof(bencher: divan::Bencher<'_, '_>, size: (i64, usize)) {
    bench_join(bencher, join(JoinKind::Inner, (0, i64::MAX), true), size);
}
