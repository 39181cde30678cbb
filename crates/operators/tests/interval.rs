//! Random rows, keys, bounds, delays, cuts, workers and moments of flushing of an interval join, compared with all pairs of
//! rows. Whatever the cut, the pairs are the same and in the same order, also when everything in memory is lost and
//! restored from a checkpoint, or is on disk.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod naive;
#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod shared;
mod space;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::Disk;
use space::Space;
use windrow_core::Watermark;
use windrow_operators::lateness::Tolerance;
use windrow_operators::{
    CoordinatorPart, IntervalJoinSpec, JoinInput, SavedState, SpillSpace, StatefulOperator,
    WorkerPart,
};

/// A row of one of the inputs.
#[derive(Debug, Clone)]
struct Row {
    time: i64,
    id: i64,
    number: Option<i64>,
    text: Option<String>,
}

/// One random case.
struct Case {
    operator: IntervalJoinSpec,
    /// How many of the columns `number` and `text` are keys.
    keys: usize,
    lower: i64,
    upper: i64,
    null_equals: bool,
    tolerance: Tolerance,
    /// Rows of each partition of each input, in order.
    inputs: [Vec<Vec<Row>>; 2],
}

/// The event time of a pair, and the ids of its rows.
type Pair = (i64, i64, i64);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("time", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("id", DataType::Int64, false),
        Field::new("number", DataType::Int64, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|r| r.time))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.id))),
        Arc::new(rows.iter().map(|r| r.number).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.text.clone()).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn case(rng: &mut StdRng) -> Case {
    let keys = rng.random_range(0..=2);
    let width = [0, rng.random_range(0..10), rng.random_range(0..60)][rng.random_range(0..3)];
    let lower = rng.random_range(-40..40);
    let upper = lower + width - rng.random_range(0..2);
    let null_equals = rng.random_bool(0.3);
    let input = || JoinInput { schema: schema(), keys: [2, 3][..keys].to_vec() };
    let inputs = [input(), input()];
    let operator = IntervalJoinSpec::try_new(inputs, (lower, upper), null_equals).unwrap();
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
    Case { operator, keys, lower, upper, null_equals, tolerance, inputs }
}

/// All pairs, in order; and how many rows are late, and partly late.
fn naive(case: &Case) -> (Vec<Pair>, [usize; 2]) {
    // Rows with the first event time of a pair that they count in.
    let mut inputs: [Vec<(&Row, i64)>; 2] = [vec![], vec![]];
    let (mut late, mut partly) = (0, 0);
    for (number, (partitions, rows)) in case.inputs.iter().zip(&mut inputs).enumerate() {
        for partition in partitions {
            let mut closed = i64::MIN;
            for row in partition {
                let last = if number == 0 { row.time - case.lower } else { row.time + case.upper };
                if row.time >= closed {
                    rows.push((row, i64::MIN));
                } else if last >= closed {
                    rows.push((row, closed));
                    partly += 1;
                } else {
                    late += 1;
                }
                let behind = case.tolerance.delay + case.tolerance.allowed_lateness;
                closed = closed.max(row.time - behind);
            }
        }
    }
    let [left, right] = &inputs;
    let mut pairs = vec![];
    for (l, l_from) in left {
        for (r, r_from) in right {
            let equal = |a: bool, null: bool| a && (case.null_equals || !null);
            let numbers = equal(l.number == r.number, l.number.is_none());
            let texts = equal(l.text == r.text, l.text.is_none());
            let keys = [numbers, texts].iter().take(case.keys).all(|same| *same);
            let apart = l.time - r.time;
            let time = l.time.max(r.time);
            if keys
                && (case.lower..=case.upper).contains(&apart)
                && time >= *l_from
                && time >= *r_from
            {
                pairs.push((time, l.id, r.id));
            }
        }
    }
    pairs.sort_unstable();
    (pairs, [late, partly])
}

/// A running case: `rng` decides batches, workers, flushes, cuts and losses of everything in memory.
struct Run<'a> {
    case: &'a Case,
    workers: [Vec<Box<dyn WorkerPart>>; 2],
    coordinator: Box<dyn CoordinatorPart>,
    at: Reached,
    pairs: Vec<Pair>,
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
    fn new(case: &'a Case, workers: usize) -> Self {
        let each = |input: usize| (0..workers).map(|_| case.operator.worker(input)).collect();
        let [left, right] = &case.inputs;
        Self {
            case,
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
    ) -> (Vec<Pair>, Vec<(i64, String)>, [usize; 2], [usize; 2]) {
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
        let numbers = |column: usize| {
            let column = arrow::compute::cast(rows.column(column), &DataType::Int64).unwrap();
            column.as_primitive::<Int64Type>().values().to_vec()
        };
        let [left_times, left, right_times, right] = [0, 1, 4, 5].map(numbers);
        for row in 0..rows.num_rows() {
            let time = left_times[row].max(right_times[row]);
            self.pairs.push((time, left[row], right[row]));
            let cells = rows.columns().iter().map(|c| shared::cell(c, row));
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

    /// Returns to one of the last cuts; what was written later was never written.
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

#[test]
fn any_cut_gives_the_pairs_of_the_naive_evaluator() {
    check(0..80);
}

#[test]
fn any_cut_gives_the_pairs_of_the_naive_evaluator_still() {
    check(80..160);
}

fn check(seeds: Range<u64>) {
    let (mut all_late, mut all_pairs, mut all_losses) = ([0, 0], 0, [0, 0]);
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let case = case(&mut rng);
        let (expected, expected_late) = naive(&case);
        let mut sequences = vec![];
        for cut in 0..2 {
            let workers = rng.random_range(1..4);
            let (mut pairs, lines, late, losses) = Run::new(&case, workers).finish(&mut rng);
            let what = format!("seed {seed}, cut {cut}, {}..={}", case.lower, case.upper);
            assert!(pairs.is_sorted_by_key(|pair| pair.0), "pairs come in order of time, {what}");
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
    assert!(all_pairs > 10_000 && all_late.iter().all(|n| *n > 50), "{all_pairs} {all_late:?}");
    assert!(all_losses.iter().all(|n| *n > 60), "losses and spills {all_losses:?}");
}
