//! Random rows, keys, frames, functions, delays, cuts, workers and times of flushes of OVER, compared with a few lines
//! that read all rows of a key. Whatever the cut, the rows are the same and in the same order, also when everything in
//! memory is lost and restored from a checkpoint, or is on disk.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod naive;
#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod shared;
mod space;

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray, UInt32Array,
};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::functions_aggregate::{array_agg, average, count, min_max};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use datafusion::scalar::ScalarValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::Disk;
use space::Space;
use windrow_core::Watermark;
use windrow_operators::lateness::Tolerance;
use windrow_operators::{
    AggregateCall, CoordinatorPart, FrameRow, OverCall, OverFrame, OverFunction, OverSpec,
    SavedState, SpillSpace, StatefulOperator, WorkerPart,
};

const NUMBER: usize = 2;
const TEXT: usize = 3;
const FLOAT: usize = 4;
const FLAG: usize = 5;

/// A row.
#[derive(Debug, Clone)]
struct Row {
    time: i64,
    id: i64,
    number: Option<i64>,
    text: Option<String>,
    /// A whole number: its sums are exact in any order.
    float: Option<f64>,
    flag: Option<bool>,
}

/// One random case.
struct Case {
    operator: OverSpec,
    calls: Vec<OverCall>,
    keys: Vec<usize>,
    /// Whether rows of one time are in descending order of their ids.
    by_id: bool,
    tolerance: Tolerance,
    partitions: Vec<Vec<Row>>,
}

/// When a row is returned, its id, and its values.
type Line = (i64, i64, String);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("id", DataType::Int64, false),
        Field::new("number", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("float", DataType::Float64, true),
        Field::new("flag", DataType::Boolean, true),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.time))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
        Arc::new(rows.iter().map(|r| r.number).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.text.clone()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|r| r.float).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|r| r.flag).collect::<BooleanArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn aggregate(
    function: Arc<AggregateUDF>,
    argument: usize,
    distinct: bool,
    filter: bool,
) -> OverFunction {
    let schema = schema();
    let column = Column::new(schema.field(argument).name(), argument);
    let function = AggregateExprBuilder::new(function, vec![Arc::new(column)])
        .schema(schema)
        .alias("w")
        .with_distinct(distinct)
        .build()
        .unwrap();
    let filter = filter.then_some(FLAG);
    OverFunction::Aggregate(AggregateCall {
        function: Arc::new(function),
        arguments: vec![argument],
        filter,
    })
}

fn frame(rng: &mut StdRng, rows: bool, forward: bool) -> OverFrame {
    let reach = if rows { 6 } else { 40 };
    let end = match rng.random_range(0..4) {
        0 => -rng.random_range(0..reach / 2),
        1 if forward => rng.random_range(0..reach),
        _ => 0,
    };
    let start = match rng.random_range(0..3) {
        0 => None,
        1 => Some(end - rng.random_range(0..reach)),
        _ => Some((-rng.random_range(0..reach)).min(end)),
    };
    if rows { OverFrame::Rows { start, end } } else { OverFrame::Range { start, end } }
}

fn call(rng: &mut StdRng, rows: bool, forward: bool) -> OverCall {
    let frame = frame(rng, rows, forward);
    let value = |rng: &mut StdRng, which| OverFunction::Value {
        column: [NUMBER, TEXT, FLOAT][rng.random_range(0..3)],
        which,
        ignore_nulls: rng.random_bool(0.4),
        default: None,
    };
    let filter = rng.random_bool(0.3);
    let column = [NUMBER, FLOAT][rng.random_range(0..2)];
    let function = match rng.random_range(0..14) {
        0 => OverFunction::RowNumber,
        1 => OverFunction::Rank,
        2 => OverFunction::DenseRank,
        3 => value(rng, FrameRow::First),
        4 => value(rng, FrameRow::Last),
        5 => {
            let n = rng.random_range(1..4);
            value(rng, FrameRow::Nth(n))
        }
        6 => aggregate(count::count_udaf(), TEXT, false, filter),
        7 | 8 => aggregate(windrow_operators::aggregates::sum_udaf(), column, false, filter),
        9 => aggregate(average::avg_udaf(), FLOAT, false, filter),
        10 => aggregate(min_max::min_udaf(), [NUMBER, TEXT][rng.random_range(0..2)], false, filter),
        11 => aggregate(min_max::max_udaf(), NUMBER, false, filter),
        12 => aggregate(count::count_udaf(), NUMBER, true, filter),
        _ if rows => {
            let at = rng.random_range(-4..=if forward { 4 } else { 0 });
            return lag(rng, at);
        }
        _ => aggregate(array_agg::array_agg_udaf(), NUMBER, false, false),
    };
    let result = result(&function);
    OverCall { function, frame, result }
}

/// LAG or LEAD.
fn lag(rng: &mut StdRng, at: i64) -> OverCall {
    let default = rng.random_bool(0.5).then_some(ScalarValue::Int64(Some(-7)));
    let function = OverFunction::Value {
        column: NUMBER,
        which: FrameRow::First,
        ignore_nulls: false,
        default,
    };
    let frame = OverFrame::Rows { start: Some(at), end: at };
    OverCall { function, frame, result: (DataType::Int64, true) }
}

fn result(function: &OverFunction) -> (DataType, bool) {
    match function {
        OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank => {
            (DataType::UInt64, false)
        }
        OverFunction::Value { column, .. } => (schema().field(*column).data_type().clone(), true),
        OverFunction::Aggregate(call) => (call.function.field().data_type().clone(), true),
    }
}

fn case(rng: &mut StdRng) -> Case {
    let keys =
        [vec![], vec![NUMBER], vec![TEXT], vec![TEXT, NUMBER]][rng.random_range(0..4)].clone();
    // Frames that reach forward have one kind; the others may be mixed.
    let (rows, forward) = (rng.random_bool(0.6), rng.random_bool(0.5));
    let calls: Vec<OverCall> = (0..rng.random_range(1..5))
        .map(|_| {
            let rows = if forward { rows } else { rng.random_bool(0.5) };
            call(rng, rows, forward)
        })
        .collect();
    let by_id = rng.random_bool(0.3)
        && calls.iter().all(|call| {
            let ranks = matches!(call.function, OverFunction::Rank | OverFunction::DenseRank);
            !ranks && matches!(call.frame, OverFrame::Rows { .. })
        });
    let descending = SortOptions { descending: true, nulls_first: false };
    let order = if by_id { vec![(1, descending)] } else { vec![] };
    let operator = OverSpec::try_new(schema(), keys.clone(), order, calls.clone());
    let operator = match operator {
        Ok(operator) => operator,
        // array_agg over a frame that rows leave.
        Err(e) => {
            assert!(e.to_string().contains("retract"), "{e}");
            return case(rng);
        }
    };
    let jitter = rng.random_range(0..40);
    let speed = [0.1, 0.5, 3.0][rng.random_range(0..3)];
    let cardinality = rng.random_range(1..8);
    let mut id = 0;
    let partitions = (0..rng.random_range(1..4)).map(|_| {
        let mut clock = f64::from(rng.random_range(-20..20));
        let rows = (0..rng.random_range(0..150)).map(|_| {
            clock += speed * rng.random_range(0.0..2.0);
            if rng.random_bool(0.01) {
                clock += f64::from(rng.random_range(0..500));
            }
            id += 1;
            Row {
                time: clock as i64 - rng.random_range(0..=jitter),
                id,
                number: rng.random_bool(0.9).then(|| rng.random_range(0..cardinality)),
                text: rng.random_bool(0.9).then(|| format!("k{}", rng.random_range(0..2))),
                float: rng.random_bool(0.8).then(|| f64::from(rng.random_range(-50..50))),
                flag: rng.random_bool(0.9).then(|| rng.random_bool(0.5)),
            }
        });
        rows.collect()
    });
    let partitions = partitions.collect();
    let allowed_lateness = if rng.random_bool(0.3) { rng.random_range(0..50) } else { 0 };
    let tolerance = Tolerance { delay: rng.random_range(0..=jitter + 3), allowed_lateness };
    Case { operator, calls, keys, by_id, tolerance, partitions }
}

/// All rows in order, and the number of late rows.
fn naive(case: &Case) -> (Vec<Line>, usize) {
    let (mut rows, mut late) = (vec![], 0);
    for partition in &case.partitions {
        let mut closed = i64::MIN;
        for row in partition {
            if row.time >= closed {
                rows.push(row.clone());
            } else {
                late += 1;
            }
            let behind = case.tolerance.delay + case.tolerance.allowed_lateness;
            closed = closed.max(row.time - behind);
        }
    }
    // Rows of one time are ordered first by the columns that the operator keeps of them.
    let order = tie_order(case);
    rows.sort_by(|a, b| {
        let ties = order
            .iter()
            .fold(Ordering::Equal, |so_far, column| so_far.then_with(|| compare(a, b, *column)));
        let ties = if case.by_id { b.id.cmp(&a.id) } else { ties };
        a.time.cmp(&b.time).then(ties)
    });
    let forward = |call: &OverCall| {
        let frames = !matches!(
            call.function,
            OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank
        );
        if frames { call.frame.end().max(0) } else { 0 }
    };
    let wait = case.calls.iter().map(forward).max().unwrap();
    let by_rows =
        case.calls.iter().any(|c| forward(c) > 0 && matches!(c.frame, OverFrame::Rows { .. }));
    let lines = rows.iter().map(|row| {
        let peers: Vec<&Row> = rows.iter().filter(|other| same_key(case, row, other)).collect();
        let at = peers.iter().position(|peer| peer.id == row.id).unwrap();
        let end = match by_rows {
            true => peers.get(at + wait as usize).map_or(i64::MAX, |last| last.time + 1),
            false => row.time + wait + 1,
        };
        let values: Vec<String> = case.calls.iter().map(|call| value(call, &peers, at)).collect();
        (end, row.id, values.join("|"))
    });
    let mut lines: Vec<Line> = lines.collect();
    lines.sort();
    (lines, late)
}

fn same_key(case: &Case, a: &Row, b: &Row) -> bool {
    case.keys.iter().all(|key| compare(a, b, *key).is_eq())
}

/// The columns that functions read, then the others.
fn tie_order(case: &Case) -> Vec<usize> {
    let waits = case.calls.iter().any(|call| {
        let ranks = matches!(
            call.function,
            OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank
        );
        call.frame.end() > 0 && !ranks
    });
    let mut read: Vec<usize> = vec![];
    for call in &case.calls {
        match &call.function {
            OverFunction::Value { column, .. } => read.push(*column),
            OverFunction::Aggregate(call) => {
                read.extend(call.arguments.iter().chain(&call.filter));
            }
            OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank => {}
        }
    }
    read.sort_unstable();
    read.dedup();
    if waits {
        read.clear();
    }
    read.extend(1..6);
    read
}

fn compare(a: &Row, b: &Row, column: usize) -> Ordering {
    match column {
        1 => a.id.cmp(&b.id),
        NUMBER => a.number.cmp(&b.number),
        TEXT => a.text.cmp(&b.text),
        FLOAT => a.float.partial_cmp(&b.float).unwrap(),
        _ => a.flag.cmp(&b.flag),
    }
}

fn text_of(row: &Row, column: usize) -> Option<String> {
    match column {
        NUMBER => row.number.map(|n| n.to_string()),
        TEXT => row.text.clone(),
        _ => row.float.map(|f| ScalarValue::Float64(Some(f)).to_string()),
    }
}

/// The value of a call for the row at `at` among those of its key.
fn value(call: &OverCall, rows: &[&Row], at: usize) -> String {
    let now = rows[at].time;
    let before = &rows[..at];
    let inside = |other: usize| {
        let (distance, (start, end)) = match call.frame {
            OverFrame::Rows { start, end } => (other as i64 - at as i64, (start, end)),
            OverFrame::Range { start, end } => (rows[other].time - now, (start, end)),
        };
        start.is_none_or(|start| distance >= start) && distance <= end
    };
    let frame: Vec<&Row> =
        (0..rows.len()).filter(|other| inside(*other)).map(|o| rows[o]).collect();
    let null = || "NULL".to_owned();
    match &call.function {
        OverFunction::RowNumber => (at + 1).to_string(),
        OverFunction::Rank => (before.iter().filter(|r| r.time < now).count() + 1).to_string(),
        OverFunction::DenseRank => {
            let mut times: Vec<i64> = before.iter().map(|r| r.time).filter(|t| *t < now).collect();
            times.dedup();
            (times.len() + 1).to_string()
        }
        OverFunction::Value { column, which, ignore_nulls, default } => {
            let mut values = frame.iter().map(|row| text_of(row, *column));
            let mut counting = values.by_ref().filter(|v| !ignore_nulls || v.is_some());
            let found = match which {
                FrameRow::First => counting.next(),
                FrameRow::Last => counting.last(),
                FrameRow::Nth(n) => counting.nth(*n as usize - 1),
            };
            let default = default.as_ref().map(ToString::to_string);
            found.unwrap_or(default).unwrap_or_else(null)
        }
        OverFunction::Aggregate(aggregate) => {
            let column = aggregate.arguments[0];
            let passes = |row: &&&Row| aggregate.filter.is_none() || row.flag == Some(true);
            let rows: Vec<&Row> = frame.iter().filter(passes).copied().collect();
            let texts = || rows.iter().filter_map(|row| text_of(row, column));
            let numbers = || rows.iter().filter_map(|row| row.number);
            let floats = || rows.iter().filter_map(|row| row.float);
            let some = |number: Option<i64>| number.map_or_else(null, |n| n.to_string());
            let float = |value: f64| {
                let some = floats().next().is_some();
                if some { ScalarValue::Float64(Some(value + 0.0)).to_string() } else { null() }
            };
            match (aggregate.function.fun().name(), aggregate.function.is_distinct(), column) {
                ("count", true, _) => {
                    let mut all: Vec<String> = texts().collect();
                    all.sort();
                    all.dedup();
                    all.len().to_string()
                }
                ("count", ..) => texts().count().to_string(),
                ("sum", _, NUMBER) => some(numbers().reduce(|a, b| a + b)),
                ("sum", ..) => float(floats().fold(0.0, |a, b| a + b)),
                ("avg", ..) => float(floats().fold(0.0, |a, b| a + b) / floats().count() as f64),
                ("min", _, TEXT) => texts().min().unwrap_or_else(null),
                ("min", ..) => some(numbers().min()),
                ("max", ..) => some(numbers().max()),
                ("array_agg", ..) if rows.is_empty() => null(),
                ("array_agg", ..) => naive::sorted_list(
                    rows.iter().map(|r| text_of(r, column).unwrap_or_default()).collect(),
                ),
                (other, ..) => format!("no {other} here"),
            }
        }
    }
}

/// A running case: `rng` decides batches, workers, flushes, cuts and losses of everything in memory.
struct Run<'a> {
    case: &'a Case,
    workers: Vec<Box<dyn WorkerPart>>,
    coordinator: Box<dyn CoordinatorPart>,
    at: Reached,
    lines: Vec<Line>,
    disk: Disk<Reached>,
    restores: usize,
    space: Option<Arc<Space>>,
    spills: usize,
}

/// How far the partitions have been read.
#[derive(Clone)]
struct Reached {
    watermarks: Vec<Watermark>,
    rows: Vec<usize>,
    late: usize,
    complete: Watermark,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case, workers: usize) -> Self {
        let partitions = case.partitions.len();
        Self {
            case,
            workers: (0..workers).map(|_| case.operator.worker(0)).collect(),
            coordinator: case.operator.coordinator(),
            at: Reached {
                watermarks: vec![Watermark::NONE; partitions],
                rows: vec![0; partitions],
                late: 0,
                complete: Watermark::NONE,
            },
            lines: vec![],
            disk: Disk::new(),
            restores: 0,
            space: None,
            spills: 0,
        }
    }

    /// Returns the rows, the number of late rows, and losses and spills.
    fn finish(mut self, rng: &mut StdRng, ordered: bool) -> (Vec<Line>, usize, [usize; 2]) {
        if ordered {
            assert!(self.coordinator.keep_order());
        }
        let longest = [1, 5, 40, 1000][rng.random_range(0..4)];
        let cuts = rng.random_bool(0.6);
        if cuts {
            self.coordinator.keep_cuts();
            self.cut();
        }
        if rng.random_bool(0.5) {
            let space = Arc::new(Space::random(rng));
            self.coordinator.spill_to(space.clone());
            self.space = Some(space);
        }
        let unread = |run: &Self| {
            run.case.partitions.iter().zip(&run.at.rows).any(|(rows, at)| *at < rows.len())
        };
        while unread(&self) {
            let partition = rng.random_range(0..self.case.partitions.len());
            self.read(rng, partition, longest);
            if rng.random_bool(0.3) {
                let low = self.at.watermarks.iter().min().copied();
                let reached = low.unwrap().delayed(self.case.tolerance.allowed_lateness);
                let rows_max = [1, 20, 100_000][rng.random_range(0..3)];
                self.close(reached, rng.random_bool(0.5), rows_max);
            }
            if cuts && rng.random_bool(0.2) {
                self.cut();
            }
            if cuts && rng.random_bool(0.05) && self.restores < 20 {
                self.lose_all(rng, ordered);
            }
            self.spill(rng);
        }
        self.close(Watermark::END, rng.random_bool(0.5), 100);
        assert_eq!(self.coordinator.next_close(), None);
        assert_eq!(self.coordinator.open_windows(), 0);
        if cuts {
            self.cut();
            assert_eq!(self.disk.needed(), []);
        }
        assert_eq!(self.coordinator.size_bytes(), 0);
        assert!(self.workers.iter().all(|w| w.open_windows() == 0 && w.next_close().is_none()));
        if let Some(space) = &self.space {
            assert_eq!(space.files(), 0, "files are deleted when nobody needs them");
        }
        (self.lines, self.at.late, [self.restores, self.spills])
    }

    fn read(&mut self, rng: &mut StdRng, partition: usize, longest: usize) {
        let (case, done) = (self.case, self.at.rows[partition]);
        let rows = &case.partitions[partition];
        let to = (done + rng.random_range(0..=longest)).min(rows.len());
        let rows = &rows[done..to];
        self.at.rows[partition] = to;
        let times: Vec<i64> = rows.iter().map(|r| r.time).collect();
        let watermark = &mut self.at.watermarks[partition];
        let found = case.operator.classify(0, &times, *watermark, case.tolerance);
        for &time in &times {
            *watermark = watermark.advance(Watermark::at(time - case.tolerance.delay));
        }
        assert!(found.partly.is_empty());
        self.at.late += found.late.len();
        let on_time = (0..rows.len()).filter(|row| !found.late.contains(row));
        let on_time: UInt32Array = on_time.map(|row| row as u32).collect();
        let worker = rng.random_range(0..self.workers.len());
        let rows = take_record_batch(&batch(rows), &on_time).unwrap();
        self.workers[worker].update(&rows).unwrap();
    }

    /// Closes as the runtime does.
    fn close(&mut self, reached: Watermark, idle: bool, rows_max: usize) {
        while let Some(to) = self.coordinator.flush_to(reached, idle) {
            for segment in self.workers.iter_mut().flat_map(|w| w.flush(to).unwrap()) {
                self.coordinator.add(0, segment).unwrap();
            }
            self.coordinator.flushed(to);
        }
        let complete = self.coordinator.complete_to(reached);
        assert!(complete <= reached);
        if idle {
            assert_eq!(complete, reached, "nothing is held back when no rows are on their way");
        }
        self.at.complete = self.at.complete.advance(complete);
        let complete = self.at.complete;
        while let Some(end) = self.coordinator.next_end(complete).unwrap() {
            assert!(self.lines.last().is_none_or(|line| line.0 < end), "ends ascend");
            let finished = self.coordinator.close(complete, rows_max).unwrap().unwrap();
            assert!(complete.closes(end));
            for rows in finished.rows {
                self.give(&rows.unwrap(), end);
            }
        }
        assert!(self.coordinator.close(complete, rows_max).unwrap().is_none());
    }

    /// Takes rows; the naive evaluator says when each of them is returned.
    fn give(&mut self, rows: &RecordBatch, end: i64) {
        for row in 0..rows.num_rows() {
            let id = shared::cell(rows.column(1), row).parse().unwrap();
            let cells = rows.columns().iter().skip(6).map(|column| shared::cell(column, row));
            self.lines.push((end, id, cells.collect::<Vec<_>>().join("|")));
        }
    }

    /// Occasionally makes memory short, in a worker or in the coordinator.
    fn spill(&mut self, rng: &mut StdRng) {
        let Some(space) = self.space.clone() else { return };
        for worker in &mut self.workers {
            if rng.random_bool(0.03) {
                worker.spill(space.as_ref()).unwrap();
                assert_eq!(worker.size_bytes(), 0);
            }
        }
        if rng.random_bool(0.1) {
            self.coordinator.spill().unwrap();
            assert_eq!(self.coordinator.size_bytes(), 0);
            self.spills += 1;
        }
    }

    fn cut(&mut self) {
        for segment in self.workers.iter_mut().flat_map(|w| w.flush_all().unwrap()) {
            self.coordinator.add(0, segment).unwrap();
        }
        self.disk.keep(self.coordinator.cut().unwrap(), self.at.clone());
        assert!(self.coordinator.cut().unwrap().new.is_empty(), "a segment is given once");
    }

    /// Restores one of the last cuts; everything written later is discarded.
    fn lose_all(&mut self, rng: &mut StdRng, ordered: bool) {
        self.restores += 1;
        let (cut, at, segments) = self.disk.lose(rng);
        let (frontier, next_id) = (cut.frontier, cut.next_id);
        let (mut segments, space) = (segments.into_iter().map(Ok), self.space.as_deref());
        let space = space.map(|space| space as &dyn SpillSpace);
        let state = SavedState { frontier, next_id, segments: &mut segments, space };
        self.coordinator = self.case.operator.restore(state).unwrap();
        if ordered {
            assert!(self.coordinator.keep_order());
        }
        if let Some(space) = &self.space {
            self.coordinator.spill_to(space.clone());
        }
        self.lines.retain(|(end, ..)| *end <= frontier);
        self.workers.iter_mut().for_each(|w| *w = self.case.operator.worker(0));
        self.at = at;
    }
}

fn described(case: &Case) -> String {
    struct Described<'a>(&'a OverSpec);
    impl std::fmt::Display for Described<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.describe(f)
        }
    }
    Described(&case.operator).to_string()
}

#[test]
fn any_cut_gives_the_rows_of_the_naive_evaluator() {
    check(0..120);
}

#[test]
fn any_cut_gives_the_rows_of_the_naive_evaluator_still() {
    check(120..240);
}

fn check(seeds: Range<u64>) {
    let (mut all_late, mut all_rows, mut all_losses) = (0, 0, [0, 0]);
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let case = case(&mut rng);
        let (expected, expected_late) = naive(&case);
        let mut sequences = vec![];
        for cut in 0..3 {
            let workers = rng.random_range(1..4);
            let ordered = cut < 2;
            let (lines, late, losses) = Run::new(&case, workers).finish(&mut rng, ordered);
            let what = format!("seed {seed}, cut {cut}, {}", described(&case));
            assert_eq!(late, expected_late, "late rows, {what}");
            // Rows of several ends may be returned together.
            let mut found: Vec<_> = lines.iter().map(|(_, id, values)| (*id, values)).collect();
            let mut wanted: Vec<_> = expected.iter().map(|(_, id, values)| (*id, values)).collect();
            found.sort();
            wanted.sort();
            for (found, wanted) in found.iter().zip(&wanted) {
                assert_eq!(found, wanted, "{what}");
            }
            assert_eq!(found.len(), wanted.len(), "{what}");
            let ends: Vec<i64> = lines
                .iter()
                .map(|(_, id, _)| expected.iter().find(|line| line.1 == *id).unwrap().0)
                .collect();
            assert!(ends.is_sorted(), "rows leave in order, {what}, {ends:?}");
            if ordered {
                sequences.push(lines.into_iter().map(|(_, id, _)| id).collect::<Vec<_>>());
            }
            for (all, one) in all_losses.iter_mut().zip(losses) {
                *all += one;
            }
        }
        let same = sequences.windows(2).all(|s| s[0] == s[1]);
        assert!(same, "seed {seed}: rows in another order, {}", described(&case));
        all_rows += expected.len();
        all_late += expected_late;
    }
    assert!(all_rows > 10_000 && all_late > 50, "{all_rows} {all_late}");
    assert!(all_losses.iter().all(|n| *n > 60), "losses and spills {all_losses:?}");
}
