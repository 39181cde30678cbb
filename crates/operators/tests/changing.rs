//! Random rows, keys, cuts, workers and flushes of an aggregate without windows, compared with an evaluator that visits
//! every row. After every flush the changes so far, folded, are the result over the rows so far: unchanged, filtered,
//! and projected. Now and then the memory is lost, and the aggregate is restored from a checkpoint.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;
mod shared;
mod space;

use std::collections::BTreeMap;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use naive::Row;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::{Disk, KEYS, aggregates, cell, schema};
use space::Space;
use windrow_core::{Change, Watermark, change};
use windrow_operators::{
    ChangingSpec, CoordinatorPart, GroupingSets, Mode, SavedState, StatefulOperator, WorkerPart,
    normalised,
};

/// Rows, each with the number of its occurrences in the result.
type Answer = BTreeMap<String, usize>;

struct Case {
    spec: ChangingSpec,
    mode: Mode,
    text: DataType,
    rows: Vec<Row>,
}

fn case(rng: &mut StdRng) -> Case {
    let text = match rng.random_range(0..3) {
        0 => DataType::Utf8,
        1 => DataType::Utf8View,
        _ => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    };
    let schema = schema(&text);
    let keys = KEYS[..rng.random_range(0..=3)].to_vec();
    let masks = |rng: &mut StdRng| -> Vec<Vec<bool>> {
        let mask = |rng: &mut StdRng| (0..keys.len()).map(|_| rng.random_bool(0.5)).collect();
        (0..rng.random_range(1..4)).map(|_| mask(rng)).collect()
    };
    let grouping_sets = match !keys.is_empty() && rng.random_bool(0.3) {
        true => Some(GroupingSets::try_new(masks(rng)).unwrap()),
        false => None,
    };
    let mut aggregates = aggregates(&schema);
    aggregates.truncate(match (keys.is_empty(), rng.random_range(0..4)) {
        (false, 0) => 0,
        (_, 1) => 2,
        _ => aggregates.len(),
    });
    let spec =
        ChangingSpec::try_new(schema, keys.clone(), grouping_sets.clone(), aggregates.clone());
    let cardinality = [1, 5, 200][rng.random_range(0..3)];
    let rows = (0..rng.random_range(0..300)).map(|id| Row::random(rng, id, id, cardinality));
    let rows = rows.collect();
    let mode = Mode::Aggregate { keys, grouping_sets, aggregates };
    Case { spec: spec.unwrap(), mode, text, rows }
}

/// Whether a filter keeps a row.
fn kept(line: &str) -> bool {
    line.bytes().map(usize::from).sum::<usize>() % 3 != 0
}

fn line(rows: &RecordBatch, columns: std::ops::Range<usize>, row: usize) -> String {
    columns.map(|column| cell(rows.column(column), row)).collect::<Vec<_>>().join("|")
}

/// Adds changes to an answer.
fn fold(changes: &RecordBatch, into: &mut Answer) {
    let kinds = change::read(changes.column(0)).unwrap();
    let mut after = false;
    for (row, kind) in kinds.iter().enumerate() {
        assert_eq!(after, *kind == Change::UpdateAfter, "the halves of an update are neighbours");
        after = *kind == Change::UpdateBefore;
        let line = line(changes, 1..changes.num_columns(), row);
        let count = into.entry(line.clone()).or_default();
        match kind.adds() {
            true => *count += 1,
            false => {
                assert!(*count > 0, "{line} is removed");
                *count -= 1;
            }
        }
    }
    assert!(!after);
    into.retain(|_, count| *count > 0);
}

/// A running case.
struct Run<'a> {
    case: &'a Case,
    workers: Vec<Box<dyn WorkerPart>>,
    coordinator: Box<dyn CoordinatorPart>,
    /// The number of columns that a projection keeps.
    projected: usize,
    whole: Answer,
    filtered: Answer,
    counted: Answer,
    read: usize,
    disk: Disk<Reached>,
}

/// The answers of a run, and the number of rows that it has read.
type Reached = ([Answer; 3], usize);

impl Run<'_> {
    /// Flushes as the runtime does, and adds the changes to the answers.
    fn flush(&mut self, reached: Watermark, idle: bool, rows_max: usize) {
        while let Some(to) = self.coordinator.flush_to(reached, idle) {
            let segments = self.workers.iter_mut().flat_map(|w| w.flush(to).unwrap());
            segments.for_each(|segment| self.coordinator.add(0, segment).unwrap());
            self.coordinator.flushed(to);
        }
        while self.coordinator.next_end(reached).unwrap().is_some() {
            let finished = self.coordinator.close(reached, rows_max).unwrap().unwrap();
            for rows in finished.rows {
                self.take(&rows.unwrap());
            }
        }
        assert!(self.coordinator.close(reached, rows_max).unwrap().is_none());
    }

    fn take(&mut self, rows: &RecordBatch) {
        assert_eq!(&rows.schema(), self.case.spec.output_schema());
        let columns = rows.num_columns() - 1;
        let changes = normalised(std::slice::from_ref(rows), true).unwrap().unwrap();
        assert_eq!(changes.num_rows(), rows.num_rows(), "no change is without effect");
        fold(&changes, &mut self.whole);
        let kept: BooleanArray =
            (0..rows.num_rows()).map(|row| Some(kept(&line(rows, 0..columns, row)))).collect();
        let left = filter_record_batch(rows, &kept).unwrap();
        if let Some(changes) = normalised(&[left], true).unwrap() {
            fold(&changes, &mut self.filtered);
        }
        let few: Vec<usize> = (0..self.projected).chain([columns]).collect();
        if let Some(changes) = normalised(&[rows.project(&few).unwrap()], true).unwrap() {
            fold(&changes, &mut self.counted);
        }
    }

    /// Makes a checkpoint, as the runtime does: between two emissions, with the state of the workers.
    fn cut(&mut self) {
        for worker in &mut self.workers {
            let segments = worker.take().flush_all().unwrap();
            segments.into_iter().for_each(|s| self.coordinator.add(0, s).unwrap());
        }
        let answers = [&self.whole, &self.filtered, &self.counted].map(Clone::clone);
        self.disk.keep(self.coordinator.cut().unwrap(), (answers, self.read));
        assert!(self.disk.needed().len() <= 14, "{:?}", self.disk.needed());
    }

    /// Loses everything behind one of the last checkpoints.
    fn lose(&mut self, rng: &mut StdRng) {
        let (cut, (answers, read), segments) = self.disk.lose(rng);
        let (frontier, next_id) = (cut.frontier, cut.next_id);
        let mut segments = segments.into_iter().map(Ok);
        let state = SavedState { frontier, next_id, segments: &mut segments, space: None };
        self.coordinator = self.case.spec.restore(state).unwrap();
        self.workers.iter_mut().for_each(|worker| *worker = self.case.spec.worker(0));
        [self.whole, self.filtered, self.counted] = answers;
        self.read = read;
    }

    /// Compares the answers with those over the rows that have been read.
    fn check(&self) {
        let rows = &self.case.rows[..self.read];
        let lines = naive::groups(&self.case.mode, rows);
        let count = |lines: Vec<String>| {
            let mut answer = Answer::new();
            lines.into_iter().for_each(|line| *answer.entry(line).or_default() += 1);
            answer
        };
        assert_eq!(self.whole, count(lines.clone()));
        let filtered = lines.iter().filter(|line| kept(line)).cloned().collect();
        assert_eq!(self.filtered, count(filtered));
        // No key has a separator in it.
        let few =
            |line: &String| line.split('|').take(self.projected).collect::<Vec<_>>().join("|");
        assert_eq!(self.counted, count(lines.iter().map(few).collect()));
    }
}

fn run(seed: u64) {
    let rng = &mut StdRng::seed_from_u64(seed);
    let case = case(rng);
    let keys = case.spec.answer_schema().fields().len();
    let mut run = Run {
        workers: (0..rng.random_range(1..4)).map(|_| case.spec.worker(0)).collect(),
        coordinator: case.spec.coordinator(),
        projected: rng.random_range(0..=keys),
        case: &case,
        whole: Answer::new(),
        filtered: Answer::new(),
        counted: Answer::new(),
        read: 0,
        disk: Disk::new(),
    };
    run.coordinator.keep_cuts();
    run.cut();
    let mut losses = rng.random_range(0..4);
    let space = Space::random(rng);
    let longest = [1, 7, 50, 300][rng.random_range(0..4)];
    while run.read < case.rows.len() {
        let to = (run.read + rng.random_range(0..=longest)).min(case.rows.len());
        let batch = naive::batch(case.spec.inputs()[0], &case.text, &case.rows[run.read..to]);
        let worker = rng.random_range(0..run.workers.len());
        run.workers[worker].update(&batch).unwrap();
        run.read = to;
        let rows_max = [1, 2, 8192][rng.random_range(0..3)];
        match rng.random_range(0..8) {
            6 => run.cut(),
            7 if losses > 0 => {
                losses -= 1;
                run.lose(rng);
            }
            0 | 1 => {
                run.flush(Watermark::NONE, true, rows_max);
                run.check();
                if rng.random_bool(0.3) {
                    run.cut();
                }
            }
            2 => {
                // What is added outside of a flush is not lost, and not returned at once either.
                let mut taken = run.workers[worker].take();
                let segments = taken.flush_all().unwrap();
                segments.into_iter().for_each(|s| run.coordinator.add(0, s).unwrap());
            }
            3 => run.workers[worker].spill(&space).unwrap(),
            4 => run.flush(Watermark::at(5), false, rows_max),
            _ => {}
        }
    }
    run.flush(Watermark::END, false, 100);
    run.check();
    assert_eq!(run.coordinator.complete_to(Watermark::END), Watermark::END);
    assert!(run.workers.iter().all(|worker| worker.rows() == 0));
    assert_eq!(run.coordinator.rows(), case.rows.len() as u64);
    assert_eq!(space.files(), 0);
    run.flush(Watermark::END, true, 100);
    run.check();
}

#[test]
fn changes_fold_to_the_answer() {
    for seed in 0..120 {
        run(seed);
    }
}

#[test]
fn an_aggregate_without_keys_has_a_row_from_the_start() {
    let schema = schema(&DataType::Utf8);
    let calls = aggregates(&schema);
    let spec = ChangingSpec::try_new(schema, vec![], None, calls).unwrap();
    let mut coordinator = spec.coordinator();
    assert!(coordinator.next_end(Watermark::NONE).unwrap().is_some());
    let finished = coordinator.close(Watermark::NONE, 10).unwrap().unwrap();
    let rows: Vec<RecordBatch> = finished.rows.map(|rows| rows.unwrap()).collect();
    let changes = normalised(&rows, true).unwrap().unwrap();
    assert_eq!(changes.column(0).as_string_view().value(0), "insert");
    assert_eq!(line(&changes, 1..3, 0), "0|NULL");
    assert!(coordinator.next_end(Watermark::NONE).unwrap().is_none());
}
