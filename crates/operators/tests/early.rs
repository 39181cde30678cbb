//! Random rows, keys, windows, delays, lateness, cuts, workers and emissions of windows with early results, compared with
//! an evaluator that visits every row and every window. After every emission the changes so far, folded, are the result
//! over the rows so far, and each window is final once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;
#[expect(dead_code, reason = "early results have no checkpoints")]
mod shared;
mod space;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use naive::{Row, Windowed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::{KEYS, TIME, aggregates, cell, schema};
use space::Space;
use windrow_core::{Change, SessionSpec, Watermark, WindowKind, WindowSpec, change};
use windrow_operators::lateness::Tolerance;
use windrow_operators::{
    CoordinatorPart, Differences, EarlySpec, GroupingSets, Mode, OperatorSpec, SessionOperatorSpec,
    StatefulOperator, WorkerPart, normalised_windows,
};

/// Rows with their marks, each with the number of its occurrences in the result.
type Answer = BTreeMap<String, usize>;

enum Windows {
    Aligned(OperatorSpec),
    Sessions(SessionOperatorSpec),
}

struct Case {
    windows: Windows,
    early: EarlySpec,
    tolerance: Tolerance,
    /// Whether windows are corrected after they have closed.
    corrects: bool,
    /// Whether windows are emitted as a whole.
    whole: bool,
    partitions: Vec<Vec<Row>>,
    text: DataType,
}

impl Case {
    /// The rows of all windows over the first rows of each partition.
    fn expected(&self, read: &[usize]) -> Windowed {
        let rows = self.partitions.iter().zip(read);
        let rows: Vec<Vec<Row>> = rows.map(|(rows, read)| rows[..*read].to_vec()).collect();
        match &self.windows {
            Windows::Aligned(spec) => naive::evaluate(spec, self.tolerance, &rows).0,
            Windows::Sessions(spec) => naive::sessions(spec, self.tolerance, &rows).0,
        }
    }
}

fn window(rng: &mut StdRng) -> WindowSpec {
    let size = rng.random_range(1..40);
    let kind = match rng.random_range(0..3) {
        0 => WindowKind::Tumble { size },
        1 => WindowKind::Hop { slide: rng.random_range(1 + size / 8..=size), size },
        _ => {
            let step = rng.random_range(1..12);
            WindowKind::Cumulate { step, size: step * rng.random_range(1..8) }
        }
    };
    WindowSpec::try_new(kind, rng.random_range(-100..100)).unwrap()
}

fn partitions(rng: &mut StdRng, jitter: i64) -> Vec<Vec<Row>> {
    let (speed, cardinality) = ([0.05, 0.5, 3.0][rng.random_range(0..3)], rng.random_range(1..30));
    let mut id = 0;
    (0..rng.random_range(1..4))
        .map(|_| {
            let mut clock = f64::from(rng.random_range(-500..-480));
            let mut row = || {
                clock += speed * rng.random_range(0.0..2.0);
                id += 1;
                let time = clock as i64 - rng.random_range(0..=jitter);
                Row::random(rng, id, time, cardinality)
            };
            (0..60).map(|_| row()).collect()
        })
        .collect()
}

fn case(rng: &mut StdRng) -> Case {
    let text = match rng.random_range(0..3) {
        0 => DataType::Utf8,
        1 => DataType::Utf8View,
        _ => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    };
    let schema = schema(&text);
    let keys = KEYS[..rng.random_range(0..=3)].to_vec();
    let mut calls = aggregates(&schema);
    match rng.random_range(0..4) {
        0 if !keys.is_empty() => calls.clear(),
        1 => {}
        _ => calls.truncate(3),
    }
    let jitter = rng.random_range(0..40);
    let lateness = if rng.random_bool(0.4) { rng.random_range(1..50) } else { 0 };
    let delay = rng.random_range(0..=jitter + 3);
    let mut corrects = lateness > 0 && rng.random_bool(0.7);
    let mut whole = false;
    let (windows, early) = if rng.random_bool(0.35) {
        let session = SessionSpec::try_new(rng.random_range(1..20)).unwrap();
        let mode = Mode::Aggregate { keys: keys.clone(), grouping_sets: None, aggregates: calls };
        let spec = SessionOperatorSpec::try_new(session, keys, TIME, schema, mode).unwrap();
        corrects = false;
        let early = EarlySpec::of_sessions(spec.clone()).unwrap();
        (Windows::Sessions(spec), early)
    } else {
        let masks = |rng: &mut StdRng| -> Vec<Vec<bool>> {
            let mask = |rng: &mut StdRng| (0..keys.len()).map(|_| rng.random_bool(0.5)).collect();
            (0..rng.random_range(1..4)).map(|_| mask(rng)).collect()
        };
        let sets = (!keys.is_empty() && rng.random_bool(0.3))
            .then(|| GroupingSets::try_new(masks(rng)).unwrap());
        whole = rng.random_bool(0.3);
        let mode = match whole && rng.random_bool(0.5) {
            true => Mode::Rows,
            false => Mode::Aggregate { keys, grouping_sets: sets, aggregates: calls },
        };
        let spec = OperatorSpec::try_new(window(rng), TIME, schema, mode).unwrap();
        corrects &= !whole;
        let early = match whole {
            true => EarlySpec::of_whole_windows(spec.clone()),
            false => {
                let correct_for = if corrects { lateness } else { 0 };
                EarlySpec::of_groups(spec.clone(), correct_for).unwrap()
            }
        };
        (Windows::Aligned(spec), early)
    };
    let tolerance = Tolerance { delay, allowed_lateness: lateness };
    let partitions = partitions(rng, jitter);
    Case { windows, early, tolerance, corrects, whole, partitions, text }
}

/// A running case.
struct Run<'a> {
    case: &'a Case,
    workers: Vec<Box<dyn WorkerPart>>,
    coordinator: Box<dyn CoordinatorPart>,
    differences: Differences,
    read: Vec<usize>,
    watermarks: Vec<Watermark>,
    answer: Answer,
    filtered: Answer,
    finals: Answer,
    corrections: usize,
    early: usize,
}

/// Whether a filter keeps a row.
fn kept(line: &str) -> bool {
    line.bytes().map(usize::from).sum::<usize>() % 3 != 0
}

/// A row without its last column, as [`naive`] shows it, with its bounds.
fn line(rows: &RecordBatch, columns: std::ops::Range<usize>, row: usize) -> String {
    let bounds = columns.end - 3;
    let cells: Vec<String> = (columns.start..bounds).map(|at| cell(rows.column(at), row)).collect();
    let time = |at: usize| rows.column(at).as_primitive::<TimestampMicrosecondType>().value(row);
    assert_eq!(time(bounds + 1) - 1, time(bounds + 2));
    format!("{} in {}..{}", cells.join("|").trim_end_matches('|'), time(bounds), time(bounds + 1))
}

impl Run<'_> {
    fn read(&mut self, rng: &mut StdRng, longest: usize) {
        let partition = rng.random_range(0..self.read.len());
        let (rows, done) = (&self.case.partitions[partition], self.read[partition]);
        let to = (done + rng.random_range(0..=longest)).min(rows.len());
        let rows = &rows[done..to];
        self.read[partition] = to;
        let times: Vec<i64> = rows.iter().map(|row| row.time).collect();
        let watermark = &mut self.watermarks[partition];
        let found = self.case.early.classify(0, &times, *watermark, self.case.tolerance);
        for time in &times {
            *watermark = watermark.advance(Watermark::at(time - self.case.tolerance.delay));
        }
        let batch = naive::batch(self.case.early.inputs()[0], &self.case.text, rows);
        let worker = rng.random_range(0..self.workers.len());
        let worker = &mut self.workers[worker];
        let is_behind =
            |row: &usize| found.late.contains(row) || found.partly.iter().any(|(p, _)| p == row);
        let on_time: UInt32Array = (0..rows.len())
            .filter(|row| !is_behind(row))
            .map(|row| row as u32)
            .collect::<Vec<_>>()
            .into();
        worker.update(&take_record_batch(&batch, &on_time).unwrap()).unwrap();
        if !found.partly.is_empty() {
            let (partly, from): (Vec<u32>, Vec<i64>) =
                found.partly.iter().map(|(row, from)| (*row as u32, *from)).unzip();
            let partly = take_record_batch(&batch, &UInt32Array::from(partly)).unwrap();
            worker.update_partly_late(&partly, &from).unwrap();
        }
    }

    /// Flushes as the runtime does, and folds the changes.
    fn step(&mut self, reached: Watermark, idle: bool, rows_max: usize) {
        while let Some(to) = self.coordinator.flush_to(reached, idle) {
            let segments = self.workers.iter_mut().flat_map(|w| w.flush(to).unwrap());
            segments.for_each(|segment| self.coordinator.add(0, segment).unwrap());
            self.coordinator.flushed(to);
        }
        let to = self.coordinator.complete_to(reached);
        while let Some(end) = self.coordinator.next_end(to).unwrap() {
            let finished = self.coordinator.close(to, rows_max).unwrap().unwrap();
            let rows: Vec<RecordBatch> = finished.rows.map(|rows| rows.unwrap()).collect();
            if self.case.whole {
                let schema = self.case.early.output_schema();
                let is_final = finished.windows == 1;
                let changes = self.differences.of(end, &rows, schema, is_final).unwrap();
                changes.into_iter().for_each(|rows| self.take(&rows));
            } else {
                rows.iter().for_each(|rows| self.take(rows));
            }
        }
        assert!(self.coordinator.close(to, rows_max).unwrap().is_none());
        if idle {
            assert!(!self.coordinator.holds_back());
        }
    }

    fn take(&mut self, rows: &RecordBatch) {
        let columns = rows.num_columns() - 1;
        let changes = normalised_windows(std::slice::from_ref(rows), true).unwrap().unwrap();
        assert_eq!(changes.num_rows(), rows.num_rows(), "no change is without effect");
        self.fold(&changes);
        let kept: BooleanArray =
            (0..rows.num_rows()).map(|row| Some(kept(&line(rows, 0..columns, row)))).collect();
        let left = filter_record_batch(rows, &kept).unwrap();
        if let Some(changes) = normalised_windows(&[left], true).unwrap() {
            let kinds = change::read(changes.column(0)).unwrap();
            for (row, kind) in kinds.into_iter().enumerate() {
                count(&mut self.filtered, &marked(&changes, row), kind);
            }
        }
    }

    fn fold(&mut self, changes: &RecordBatch) {
        let kinds = change::read(changes.column(0)).unwrap();
        let columns = changes.num_columns();
        let finals = changes.column(columns - 2).as_boolean();
        let revisions = changes.column(columns - 1).as_primitive::<Int64Type>();
        let mut before: Option<(bool, i64)> = None;
        for (row, kind) in kinds.into_iter().enumerate() {
            let (is_final, revision) = (finals.value(row), revisions.value(row));
            if let Some((was_final, old)) = before.take() {
                assert_eq!(kind, Change::UpdateAfter);
                assert!(is_final || !was_final, "a final row stays final");
                assert_eq!(revision, old + i64::from(was_final));
            }
            match kind {
                Change::UpdateBefore => before = Some((is_final, revision)),
                Change::Insert => assert!(revision <= 1),
                Change::Delete => assert!(!is_final),
                Change::UpdateAfter => {}
            }
            assert!(kind.adds() || !is_final || self.case.corrects, "a final row changes");
            self.corrections += usize::from(revision > 0);
            self.early += usize::from(!is_final);
            if kind.adds() && is_final && revision == 0 {
                let line = line(changes, 1..columns - 2, row);
                *self.finals.entry(line).or_default() += 1;
            }
            count(&mut self.answer, &marked(changes, row), kind);
        }
        assert!(before.is_none());
    }

    /// Compares the answers with those over the rows that have been read.
    fn check(&self) {
        let expected = lines(&self.case.expected(&self.read));
        assert_eq!(without_marks(&self.answer), expected);
        let expected = expected.into_iter().filter(|(line, _)| kept(line)).collect();
        assert_eq!(without_marks(&self.filtered), expected);
    }
}

/// A row of a changelog with its marks.
fn marked(changes: &RecordBatch, row: usize) -> String {
    let columns = changes.num_columns();
    let mark = |at: usize| cell(changes.column(at), row);
    let line = line(changes, 1..columns - 2, row);
    format!("{line};{};{}", mark(columns - 2), mark(columns - 1))
}

fn count(answer: &mut Answer, line: &str, kind: Change) {
    let count = answer.entry(line.to_owned()).or_default();
    if kind.adds() {
        *count += 1;
        return;
    }
    assert!(*count > 0, "{line} is not there");
    *count -= 1;
    if *count == 0 {
        answer.remove(line);
    }
}

fn without_marks(answer: &Answer) -> Answer {
    let mut plain = Answer::new();
    for (line, count) in answer {
        *plain.entry(line.split(';').next().unwrap().to_owned()).or_default() += count;
    }
    plain
}

fn lines(windowed: &Windowed) -> Answer {
    let mut answer = Answer::new();
    for ((end, start), lines) in windowed {
        for line in lines {
            let line = format!("{} in {start}..{end}", line.trim_end_matches('|'));
            *answer.entry(line).or_default() += 1;
        }
    }
    answer
}

fn run(seed: u64) -> [usize; 3] {
    let rng = &mut StdRng::seed_from_u64(seed);
    let case = case(rng);
    let mut run = Run {
        workers: (0..rng.random_range(1..4)).map(|_| case.early.worker(0)).collect(),
        coordinator: case.early.coordinator(),
        differences: Differences::default(),
        read: vec![0; case.partitions.len()],
        watermarks: vec![Watermark::NONE; case.partitions.len()],
        answer: Answer::new(),
        filtered: Answer::new(),
        finals: Answer::new(),
        corrections: 0,
        early: 0,
        case: &case,
    };
    let space = Arc::new(Space::random(rng));
    let longest = [1, 7, 30, 100][rng.random_range(0..4)];
    let behind = i64::from(matches!(case.windows, Windows::Sessions(_)));
    while run.read.iter().zip(&case.partitions).any(|(read, rows)| *read < rows.len()) {
        run.read(rng, longest);
        let low = run.watermarks.iter().copied().min().unwrap();
        let low = low.delayed(behind).delayed(case.tolerance.allowed_lateness);
        let rows_max = [1, 2, 8192][rng.random_range(0..3)];
        match rng.random_range(0..8) {
            0 => {
                run.step(low, true, rows_max);
                run.check();
            }
            1 => run.step(low, true, rows_max),
            2 | 3 => run.step(low, false, rows_max),
            4 => {
                // What is looked at is not lost, and not returned at once.
                let worker = rng.random_range(0..run.workers.len());
                let mut taken = run.workers[worker].take();
                let segments = taken.flush_all().unwrap();
                segments.into_iter().for_each(|s| run.coordinator.add(0, s).unwrap());
                run.coordinator.survey(10).unwrap();
            }
            5 => {
                let worker = rng.random_range(0..run.workers.len());
                run.workers[worker].spill(space.as_ref()).unwrap();
            }
            _ => {}
        }
    }
    run.step(Watermark::END, false, 100);
    run.check();
    if !case.corrects {
        assert_eq!(run.finals, lines(&case.expected(&run.read)), "each window is final once");
    }
    assert!(run.workers.iter().all(|worker| worker.rows() == 0));
    assert_eq!((run.coordinator.open_windows(), run.coordinator.rows()), (0, 0));
    assert_eq!((run.differences.size_bytes(), space.files()), (0, 0));
    run.step(Watermark::END, true, 100);
    [run.early, run.finals.len(), run.corrections]
}

#[test]
fn early_results_fold_to_the_answer() {
    let mut all = [0; 3];
    for seed in 0..40 {
        let counts = run(seed);
        all.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
    }
    let [early, finals, corrections] = all;
    assert!(early > 500 && finals > 500 && corrections > 50, "{all:?}");
}
