//! A join of rows of two inputs with random batches, workers, flushes, cuts, losses of everything in memory and spills.
//! Expected results come from a naive evaluator.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use windrow_core::Watermark;
use windrow_operators::lateness::Tolerance;
use windrow_operators::{
    CoordinatorPart, IntervalJoinSpec, JoinInput, JoinKind, SavedState, SpillSpace,
    StatefulOperator, WorkerPart,
};

use crate::shared::{self, Disk};
use crate::space::Space;

/// A row of one of the inputs.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) time: i64,
    pub(crate) id: i64,
    pub(crate) number: Option<i64>,
    pub(crate) text: Option<String>,
}

/// One random case.
pub(crate) struct Case {
    pub(crate) operator: IntervalJoinSpec,
    pub(crate) kind: JoinKind,
    /// The number of the columns `number` and `text` that are keys.
    pub(crate) keys: usize,
    pub(crate) lower: i64,
    pub(crate) upper: i64,
    pub(crate) null_equals: bool,
    pub(crate) tolerance: Tolerance,
    /// Rows of each partition of each input, in order.
    pub(crate) inputs: [Vec<Vec<Row>>; 2],
}

/// The result of a naive evaluator: the results in order of time, and the numbers of late and of partly late rows.
pub(crate) type Expected = (Vec<Outcome>, [usize; 2]);

/// The time of a result, and the ids of its rows; [`NONE`] for a missing one.
pub(crate) type Outcome = (i64, i64, i64);

/// A missing row.
pub(crate) const NONE: i64 = -1;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("id", DataType::Int64, false),
        Field::new("number", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

pub(crate) fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.time))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
        Arc::new(rows.iter().map(|r| r.number).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.text.clone()).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// The inputs of a join by the first `keys` of the columns `number` and `text`.
pub(crate) fn join_inputs(keys: usize) -> [JoinInput; 2] {
    let input = || JoinInput { schema: schema(), keys: [2, 3][..keys].to_vec() };
    [input(), input()]
}

/// Rows of both inputs, and their tolerance.
pub(crate) fn rows(rng: &mut StdRng) -> ([Vec<Vec<Row>>; 2], Tolerance) {
    let jitter = rng.random_range(0..40);
    let speed = [0.1, 0.5, 3.0][rng.random_range(0..3)];
    let cardinality = rng.random_range(1..12);
    let mut id = 0;
    let mut rows = |rng: &mut StdRng| -> Vec<Vec<Row>> {
        let partitions = 0..rng.random_range(1..4);
        let partition = |_| {
            let mut clock = f64::from(rng.random_range(-20..20));
            let rows = (0..rng.random_range(0..120)).map(|_| {
                clock += speed * rng.random_range(0.0..2.0);
                if rng.random_bool(0.01) {
                    clock += f64::from(rng.random_range(0..3_000));
                }
                id += 1;
                let time = clock as i64 - rng.random_range(0..=jitter);
                let number = rng.random_bool(0.9).then(|| rng.random_range(0..cardinality));
                let text = rng.random_bool(0.9).then(|| format!("k{}", rng.random_range(0..2)));
                Row { time, id, number, text }
            });
            rows.collect()
        };
        partitions.map(partition).collect()
    };
    let inputs = [rows(rng), rows(rng)];
    let allowed_lateness = if rng.random_bool(0.3) { rng.random_range(0..50) } else { 0 };
    let tolerance = Tolerance { delay: rng.random_range(0..=jitter + 3), allowed_lateness };
    (inputs, tolerance)
}

/// Whether two rows have equal keys.
pub(crate) fn keys_equal(case: &Case, l: &Row, r: &Row) -> bool {
    let equal = |a: bool, null: bool| a && (case.null_equals || !null);
    let numbers = equal(l.number == r.number, l.number.is_none());
    let texts = equal(l.text == r.text, l.text.is_none());
    [numbers, texts].iter().take(case.keys).all(|same| *same)
}

/// The rows of an input that count, with the first time of a result in which they do; `judge` returns that for a row
/// that is behind and the watermark, and `None` if the row is late.
pub(crate) fn counted<'a>(
    case: &'a Case,
    input: usize,
    late: &mut [usize; 2],
    judge: impl Fn(&Row, i64) -> Option<i64>,
) -> Vec<(&'a Row, i64)> {
    let mut rows = vec![];
    for partition in &case.inputs[input] {
        let mut closed = i64::MIN;
        for row in partition {
            if row.time >= closed {
                rows.push((row, i64::MIN));
            } else if let Some(from) = judge(row, closed) {
                rows.push((row, from));
                late[1] += 1;
            } else {
                late[0] += 1;
            }
            let behind = case.tolerance.delay + case.tolerance.allowed_lateness;
            closed = closed.max(row.time - behind);
        }
    }
    rows
}

/// A running case: `rng` decides batches, workers, flushes, cuts and losses of everything in memory.
pub(crate) struct Run<'a> {
    case: &'a Case,
    /// The time of each result.
    times: HashMap<(i64, i64), i64>,
    workers: [Vec<Box<dyn WorkerPart>>; 2],
    coordinator: Box<dyn CoordinatorPart>,
    at: Reached,
    pairs: Vec<Outcome>,
    /// Rows in the order in which they were returned.
    lines: Vec<(i64, String)>,
    disk: Disk<Reached>,
    restores: usize,
    space: Option<Arc<Space>>,
    spills: usize,
}

/// How far the inputs have been read.
#[derive(Clone)]
struct Reached {
    watermarks: [Vec<Watermark>; 2],
    rows: [Vec<usize>; 2],
    late: [usize; 2],
    complete: Watermark,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case, expected: &[Outcome], workers: usize) -> Self {
        let each = |input: usize| (0..workers).map(|_| case.operator.worker(input)).collect();
        let [left, right] = &case.inputs;
        let times = expected.iter().map(|(time, left, right)| ((*left, *right), *time));
        Self {
            case,
            times: times.collect(),
            workers: [each(0), each(1)],
            coordinator: case.operator.coordinator(),
            at: Reached {
                watermarks: [left, right].map(|p| vec![Watermark::NONE; p.len()]),
                rows: [left, right].map(|p| vec![0; p.len()]),
                late: [0, 0],
                complete: Watermark::NONE,
            },
            pairs: vec![],
            lines: vec![],
            disk: Disk::new(),
            restores: 0,
            space: None,
            spills: 0,
        }
    }

    /// Returns the pairs; all columns of them in order; late and partly late rows; losses and spills.
    #[expect(clippy::type_complexity, reason = "named in the line above")]
    fn finish(
        mut self,
        rng: &mut StdRng,
    ) -> (Vec<Outcome>, Vec<(i64, String)>, [usize; 2], [usize; 2]) {
        assert!(self.coordinator.keep_order());
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
            let inputs = run.case.inputs.iter().zip(&run.at.rows);
            inputs.flat_map(|(p, at)| p.iter().zip(at)).any(|(rows, at)| *at < rows.len())
        };
        while unread(&self) {
            let input = rng.random_range(0..2);
            let partition = rng.random_range(0..self.case.inputs[input].len());
            self.read(rng, (input, partition), longest);
            if rng.random_bool(0.3) {
                let low = self.at.watermarks.iter().flatten().min().copied();
                let reached = low.unwrap().delayed(self.case.tolerance.allowed_lateness);
                let rows_max = [1, 20, 100_000][rng.random_range(0..3)];
                self.close(reached, rng.random_bool(0.5), rows_max);
            }
            if cuts && rng.random_bool(0.2) {
                self.cut();
            }
            if cuts && rng.random_bool(0.05) && self.restores < 20 {
                self.lose_all(rng);
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
        let mut workers = self.workers.iter().flatten();
        assert!(workers.all(|w| w.open_windows() == 0 && w.next_close().is_none()));
        if let Some(space) = &self.space {
            assert_eq!(space.files(), 0, "files are deleted when nobody needs them");
        }
        (self.pairs, self.lines, self.at.late, [self.restores, self.spills])
    }

    fn read(&mut self, rng: &mut StdRng, (input, partition): (usize, usize), longest: usize) {
        let (case, done) = (self.case, self.at.rows[input][partition]);
        let rows = &case.inputs[input][partition];
        let to = (done + rng.random_range(0..=longest)).min(rows.len());
        let rows = &rows[done..to];
        self.at.rows[input][partition] = to;
        let times: Vec<i64> = rows.iter().map(|r| r.time).collect();
        let watermark = &mut self.at.watermarks[input][partition];
        let found = case.operator.classify(input, &times, *watermark, case.tolerance);
        for &time in &times {
            *watermark = watermark.advance(Watermark::at(time - case.tolerance.delay));
        }
        self.at.late[0] += found.late.len();
        self.at.late[1] += found.partly.len();
        let batch = batch(rows);
        let pick = |rows: Vec<usize>| {
            let rows: UInt32Array = rows.into_iter().map(|row| row as u32).collect();
            take_record_batch(&batch, &rows).unwrap()
        };
        let apart = |row: &usize| {
            found.late.contains(row) || found.partly.iter().any(|(partly, _)| partly == row)
        };
        let on_time = (0..rows.len()).filter(|row| !apart(row)).collect();
        let worker = rng.random_range(0..self.workers[input].len());
        let worker = &mut self.workers[input][worker];
        worker.update(&pick(on_time)).unwrap();
        let (partly, from): (Vec<usize>, Vec<i64>) = found.partly.iter().copied().unzip();
        if !partly.is_empty() {
            worker.update_partly_late(&pick(partly), &from).unwrap();
        }
    }

    /// Closes as the runtime does.
    fn close(&mut self, reached: Watermark, idle: bool, rows_max: usize) {
        while let Some(to) = self.coordinator.flush_to(reached, idle) {
            for (input, workers) in self.workers.iter_mut().enumerate() {
                for segment in workers.iter_mut().flat_map(|w| w.flush(to).unwrap()) {
                    self.coordinator.add(input, segment).unwrap();
                }
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
            assert!(self.pairs.last().is_none_or(|pair| pair.0 + 1 < end), "ends ascend");
            let finished = self.coordinator.close(complete, rows_max).unwrap().unwrap();
            let before = self.pairs.len();
            for rows in finished.rows {
                self.give(&rows.unwrap());
            }
            assert_eq!(self.pairs[before].0 + 1, end);
            assert!(complete.closes(self.pairs[self.pairs.len() - 1].0 + 1));
        }
        assert!(self.coordinator.close(complete, rows_max).unwrap().is_none());
    }

    fn give(&mut self, rows: &RecordBatch) {
        let ids = |column: Option<usize>| -> Vec<i64> {
            let Some(column) = column else { return vec![NONE; rows.num_rows()] };
            let column = rows.column(column).as_primitive::<Int64Type>();
            column.iter().map(|id| id.unwrap_or(NONE)).collect()
        };
        let (left, right) = match self.case.kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti => (ids(Some(1)), ids(None)),
            JoinKind::RightSemi | JoinKind::RightAnti => (ids(None), ids(Some(1))),
            _ => (ids(Some(1)), ids(Some(5))),
        };
        for (row, ids) in left.into_iter().zip(right).enumerate() {
            let time = self.times.get(&ids).copied();
            assert!(time.is_some(), "unexpected: {ids:?}");
            let time = time.unwrap();
            self.pairs.push((time, ids.0, ids.1));
            let cells = rows.columns().iter().map(|c| match c.is_null(row) {
                true => "NULL".to_owned(),
                false => shared::cell(c, row),
            });
            self.lines.push((time, cells.collect::<Vec<_>>().join("|")));
        }
    }

    /// Occasionally makes memory short, in a worker or in the coordinator.
    fn spill(&mut self, rng: &mut StdRng) {
        let Some(space) = self.space.clone() else { return };
        for worker in self.workers.iter_mut().flatten() {
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
        for (input, workers) in self.workers.iter_mut().enumerate() {
            for segment in workers.iter_mut().flat_map(|w| w.flush_all().unwrap()) {
                self.coordinator.add(input, segment).unwrap();
            }
        }
        self.disk.keep(self.coordinator.cut().unwrap(), self.at.clone());
        assert!(self.coordinator.cut().unwrap().new.is_empty(), "a segment is given once");
    }

    /// Restores one of the last cuts; everything written later is discarded.
    fn lose_all(&mut self, rng: &mut StdRng) {
        self.restores += 1;
        let (cut, at, segments) = self.disk.lose(rng);
        let (frontier, next_id) = (cut.frontier, cut.next_id);
        let (mut segments, space) = (segments.into_iter().map(Ok), self.space.as_deref());
        let space = space.map(|space| space as &dyn SpillSpace);
        let state = SavedState { frontier, next_id, segments: &mut segments, space };
        self.coordinator = self.case.operator.restore(state).unwrap();
        assert!(self.coordinator.keep_order());
        if let Some(space) = &self.space {
            self.coordinator.spill_to(space.clone());
        }
        self.pairs.retain(|(time, ..)| *time < frontier);
        self.lines.retain(|(time, _)| *time < frontier);
        for (input, workers) in self.workers.iter_mut().enumerate() {
            workers.iter_mut().for_each(|w| *w = self.case.operator.worker(input));
        }
        self.at = at;
    }
}

/// Runs random cases, and compares them with a naive evaluator; returns the numbers of results, of late and partly late
/// rows, and of losses and spills.
pub(crate) fn check(
    seeds: Range<u64>,
    case: impl Fn(&mut StdRng) -> Case,
    naive: impl Fn(&Case) -> Expected,
) -> (usize, [usize; 2], [usize; 2]) {
    let (mut all_late, mut all_pairs, mut all_losses) = ([0, 0], 0, [0, 0]);
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let case = case(&mut rng);
        let (expected, expected_late) = naive(&case);
        let mut sequences = vec![];
        for cut in 0..2 {
            let workers = rng.random_range(1..4);
            let run = Run::new(&case, &expected, workers);
            let (mut pairs, lines, late, losses) = run.finish(&mut rng);
            let what =
                format!("seed {seed}, cut {cut}, {:?} {}..={}", case.kind, case.lower, case.upper);
            assert!(pairs.is_sorted_by_key(|pair| pair.0), "results come in order of time, {what}");
            pairs.sort_unstable();
            assert_eq!(late, expected_late, "late rows, {what}");
            assert_eq!(pairs, expected, "{what}");
            sequences.push(lines);
            for (all, one) in all_losses.iter_mut().zip(losses) {
                *all += one;
            }
        }
        assert!(sequences.windows(2).all(|s| s[0] == s[1]), "seed {seed}: rows in another order");
        all_pairs += expected.len();
        for (all, one) in all_late.iter_mut().zip(expected_late) {
            *all += one;
        }
    }
    (all_pairs, all_late, all_losses)
}
