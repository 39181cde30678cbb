//! Random rows, keys, gaps, delays, cuts, stores and times of flushes, compared with an evaluator that sorts the rows
//! of each key. Whatever the cut, the sessions are the same, also when everything in memory is lost and restored from a
//! checkpoint, or is on disk.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;
mod shared;
mod space;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use naive::{Row, Windowed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::{Disk, KEYS, TIME, aggregates, cell, schema};
use space::Space;
use windrow_core::{SessionSpec, Watermark};
use windrow_operators::lateness::Tolerance;
use windrow_operators::{
    CoordinatorPart, Finished, Mode, SavedState, SessionOperatorSpec, SpillSpace, StatefulOperator,
    WorkerPart,
};

/// One random case.
struct Case {
    spec: Arc<SessionOperatorSpec>,
    operator: Arc<dyn StatefulOperator>,
    tolerance: Tolerance,
    /// Rows of each partition, in order.
    partitions: Vec<Vec<Row>>,
    text: DataType,
}

fn case(rng: &mut StdRng) -> Case {
    let text = match rng.random_range(0..3) {
        0 => DataType::Utf8,
        1 => DataType::Utf8View,
        _ => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    };
    let schema = schema(&text);
    let keys = KEYS[..rng.random_range(0..=3)].to_vec();
    let mode = if rng.random_bool(0.3) {
        Mode::Rows
    } else {
        let mut aggregates = aggregates(&schema);
        if rng.random_bool(0.5) {
            aggregates.truncate(3);
        }
        Mode::Aggregate { keys: keys.clone(), grouping_sets: None, aggregates }
    };
    let gap = [1, rng.random_range(1..10), rng.random_range(1..60)][rng.random_range(0..3)];
    let session = SessionSpec::try_new(gap).unwrap();
    let spec = Arc::new(SessionOperatorSpec::try_new(session, keys, TIME, schema, mode).unwrap());
    let jitter = rng.random_range(0..40);
    let speed = [0.05, 0.5, 3.0][rng.random_range(0..3)];
    let cardinality = rng.random_range(1..30);
    let origin = rng.random_range(-500..500);
    let mut id = 0;
    let partitions = (0..rng.random_range(1..5))
        .map(|_| {
            let mut clock = f64::from(origin + rng.random_range(-20..20));
            (0..rng.random_range(0..150))
                .map(|_| {
                    clock += speed * rng.random_range(0.0..2.0);
                    if rng.random_bool(0.01) {
                        clock += f64::from(rng.random_range(0..2_000_000));
                    }
                    id += 1;
                    let time = clock as i64 - rng.random_range(0..=jitter);
                    Row::random(rng, id, time, cardinality)
                })
                .collect()
        })
        .collect();
    let allowed_lateness = if rng.random_bool(0.3) { rng.random_range(0..50) } else { 0 };
    let delay = rng.random_range(0..=jitter + 3);
    let operator = Arc::clone(&spec) as _;
    let tolerance = Tolerance { delay, allowed_lateness };
    Case { spec, operator, tolerance, partitions, text }
}

/// A running case: `rng` decides batches, stores, flushes, cuts and losses of everything in memory.
struct Run<'a> {
    case: &'a Case,
    workers: Vec<Box<dyn WorkerPart>>,
    coordinator: Box<dyn CoordinatorPart>,
    at: Reached,
    output: Windowed,
    /// End and text of all rows, in the order in which they were returned.
    sequence: Vec<(i64, String)>,
    /// Sessions returned after the cut that was restored: they are returned again.
    again: Windowed,
    /// Segments as they were written, with how far the input was read at each cut.
    disk: Disk<Reached>,
    restores: usize,
    /// Set when memory may be short.
    space: Option<Arc<Space>>,
    spills: usize,
}

/// How far the input has been read, and the results so far.
#[derive(Clone)]
struct Reached {
    watermarks: Vec<Watermark>,
    rows: Vec<usize>,
    late: usize,
    /// The returned rows are complete up to this watermark.
    complete: Watermark,
    /// Key and time of the rows that count.
    taken: Vec<(Option<String>, i64)>,
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
                taken: vec![],
            },
            output: Windowed::new(),
            sequence: vec![],
            again: Windowed::new(),
            disk: Disk::new(),
            restores: 0,
            space: None,
            spills: 0,
        }
    }

    /// Returns the sessions; their rows in order; late rows; the numbers of losses and of spills.
    fn finish(mut self, rng: &mut StdRng) -> (Windowed, Vec<(i64, String)>, [usize; 3]) {
        assert!(self.coordinator.keep_order());
        let longest = [1, 5, 40, 1000][rng.random_range(0..4)];
        let cuts = rng.random_bool(0.6);
        if cuts {
            self.coordinator.keep_cuts();
            self.cut();
        }
        if rng.random_bool(0.4) {
            let space = Arc::new(Space::random(rng));
            self.coordinator.spill_to(space.clone());
            self.space = Some(space);
        }
        let partitions = &self.case.partitions;
        while (0..partitions.len()).any(|p| self.at.rows[p] < partitions[p].len()) {
            let partition = rng.random_range(0..partitions.len());
            self.read(rng, partition, longest);
            if rng.random_bool(0.3) {
                let watermarks = self.at.watermarks.iter().copied();
                let watermark = watermarks.min().unwrap_or(Watermark::END);
                // A row one gap after the last one still joins: the watermark is one tick behind.
                let reached = watermark.delayed(1).delayed(self.case.tolerance.allowed_lateness);
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
            if rng.random_bool(0.05) {
                self.look([3, 100_000][rng.random_range(0..2)]);
            }
        }
        self.close(Watermark::END, rng.random_bool(0.5), 100);
        assert!(self.again.is_empty(), "sessions that had closed did not come again");
        assert_eq!(self.coordinator.next_close(), None);
        assert_eq!(self.coordinator.open_windows(), 0);
        assert_eq!(self.coordinator.size_bytes(), 0);
        if cuts {
            self.cut();
            assert_eq!(self.disk.needed(), []);
        }
        assert!(self.workers.iter().all(|w| w.open_windows() == 0 && w.next_close().is_none()));
        if let Some(space) = &self.space {
            assert_eq!(space.files(), 0, "files are deleted when nobody needs them");
        }
        (self.output, self.sequence, [self.at.late, self.restores, self.spills])
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
        assert!(found.partly.is_empty(), "no row of a session is late in part");
        for &time in &times {
            *watermark = watermark.advance(Watermark::at(time - case.tolerance.delay));
        }
        self.at.late += found.late.len();
        let batch = naive::batch(case.spec.input_schema(), &case.text, rows);
        let on_time = (0..rows.len() as u32).filter(|row| !found.late.contains(&(*row as usize)));
        let on_time = UInt32Array::from(on_time.collect::<Vec<_>>());
        for row in on_time.values() {
            let row = &rows[*row as usize];
            let texts = row.key_texts().into_iter().take(case.spec.keys().len());
            let texts: Vec<String> = texts.collect();
            self.at.taken.push(((!texts.is_empty()).then(|| texts.join(", ")), row.time));
        }
        let worker = rng.random_range(0..self.workers.len());
        self.workers[worker].update(&take_record_batch(&batch, &on_time).unwrap()).unwrap();
    }

    /// Closes as the runtime does.
    fn close(&mut self, reached: Watermark, idle: bool, rows_max: usize) {
        while let Some(to) = self.coordinator.flush_to(reached, idle) {
            let segments = self.workers.iter_mut().flat_map(|w| w.flush(to).unwrap());
            segments.for_each(|segment| self.coordinator.add(0, segment).unwrap());
            self.coordinator.flushed(to);
        }
        let complete = self.coordinator.complete_to(reached);
        assert!(complete <= reached);
        if idle && self.space.is_none() {
            assert_eq!(complete, reached, "nothing is held back when no rows are on their way");
        }
        self.at.complete = self.at.complete.advance(complete);
        let (mut last, complete) = (None, self.at.complete);
        while let Some(end) = self.coordinator.next_end(complete).unwrap() {
            assert!(complete.closes(end) && last.is_none_or(|last| last < end), "ends ascend");
            let finished = self.coordinator.close(complete, rows_max).unwrap().unwrap();
            let (first, to) = self.give(finished);
            assert_eq!(first, end);
            assert!(complete.closes(to));
            last = Some(to);
        }
        assert!(self.coordinator.close(complete, rows_max).unwrap().is_none());
    }

    /// Takes finished rows; returns their first and last end.
    fn give(&mut self, finished: Finished) -> (i64, i64) {
        let mut found = Windowed::new();
        let (mut ends, mut starts) = (vec![], 0);
        for rows in finished.rows {
            let rows: RecordBatch = rows.unwrap();
            let columns = rows.num_columns() - 3;
            let [start, end, time] = [0, 1, 2].map(|bound| {
                rows.column(columns + bound).as_primitive::<TimestampMicrosecondType>().clone()
            });
            for row in 0..rows.num_rows() {
                let window = (end.value(row), start.value(row));
                assert_eq!(time.value(row), window.0 - 1);
                ends.push(window.0);
                let cells = rows.columns().iter().take(columns).map(|c| cell(c, row));
                let line = cells.collect::<Vec<_>>().join("|");
                self.sequence.push((window.0, line.clone()));
                found.entry(window).or_default().push(line);
            }
            starts += rows.num_rows();
        }
        assert!(ends.is_sorted(), "rows come in order of their end");
        assert!(finished.windows >= 1 && finished.windows <= starts as u64);
        for (window, mut lines) in found {
            lines.sort();
            if let Some(before) = self.again.remove(&window) {
                assert_eq!(before, lines, "a session came again and was another");
            }
            assert!(self.output.insert(window, lines).is_none(), "an end comes once");
        }
        (ends[0], ends[ends.len() - 1])
    }

    /// Occasionally makes memory short, in a worker or in the coordinator.
    fn spill(&mut self, rng: &mut StdRng) {
        let Some(space) = self.space.clone() else { return };
        for worker in &mut self.workers {
            if rng.random_bool(0.03) {
                worker.spill(space.as_ref()).unwrap();
            }
        }
        if rng.random_bool(0.04) {
            self.coordinator.spill().unwrap();
            assert_eq!(self.coordinator.size_bytes(), 0);
            self.spills += 1;
        }
    }

    /// Compares the survey of the open sessions with the rows that were taken.
    fn look(&mut self, sessions_max: usize) {
        let segments = self.workers.iter_mut().flat_map(|w| w.flush_all().unwrap());
        segments.for_each(|segment| self.coordinator.add(0, segment).unwrap());
        let survey = self.coordinator.survey(sessions_max).unwrap();
        let (gap, mut taken) = (self.case.spec.session().gap(), self.at.taken.clone());
        taken.sort();
        let near =
            |a: &(Option<String>, i64), b: &(Option<String>, i64)| a.0 == b.0 && b.1 - a.1 <= gap;
        let mut expected = vec![];
        for rows in taken.chunk_by(near) {
            let (first, last) = (rows[0].1, rows[rows.len() - 1].1);
            if !self.at.complete.closes(last + gap) {
                expected.push((last, first, rows[0].0.clone(), rows.len() as u64));
            }
        }
        expected.sort();
        let rows: u64 = expected.iter().map(|session| session.3).sum();
        if self.space.is_some() {
            // Some are on disk, and shown by slice.
            return;
        }
        assert_eq!(survey.truncated, expected.len() > sessions_max);
        assert!(self.coordinator.rows() >= rows, "rows of open sessions");
        let mut found: Vec<_> = survey
            .states
            .into_iter()
            .map(|state| {
                let (first, last) = state.times.unwrap();
                assert_eq!(state.bounds, Some((first, last + gap)));
                (last, first, state.key.map(|key| key.replace("{a: ", "{a:")), state.rows)
            })
            .collect();
        if survey.truncated {
            let ends = |sessions: &[(i64, i64, Option<String>, u64)]| {
                sessions.iter().map(|session| session.0).collect::<Vec<_>>()
            };
            assert_eq!(ends(&found), ends(&expected[..sessions_max]), "those that end first");
        } else {
            found.sort();
            assert_eq!(found, expected);
        }
    }

    fn cut(&mut self) {
        let segments = self.workers.iter_mut().flat_map(|w| w.flush_all().unwrap());
        segments.for_each(|segment| self.coordinator.add(0, segment).unwrap());
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
        self.sequence.retain(|(end, _)| *end <= frontier);
        if let Some(space) = &self.space {
            self.coordinator.spill_to(space.clone());
        }
        self.workers.iter_mut().for_each(|w| *w = self.case.operator.worker(0));
        self.again.append(&mut self.output.split_off(&(cut.frontier, i64::MAX)));
        self.at = at;
    }
}

#[test]
fn any_cut_gives_the_sessions_of_the_naive_evaluator() {
    check(0..60);
}

#[test]
fn any_cut_gives_the_sessions_of_the_naive_evaluator_still() {
    check(60..120);
}

fn check(seeds: Range<u64>) {
    let (mut all_late, mut all_restores, mut all_spills) = (0, 0, 0);
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let case = case(&mut rng);
        let (expected, expected_late) =
            naive::sessions(&case.spec, case.tolerance, &case.partitions);
        let mut sequences = vec![];
        for cut in 0..2 {
            let workers = rng.random_range(1..5);
            let (output, sequence, [late, restores, spills]) =
                Run::new(&case, workers).finish(&mut rng);
            sequences.push(sequence);
            all_late += late;
            all_restores += restores;
            all_spills += spills;
            let what = format!("seed {seed}, cut {cut}, gap {}", case.spec.session().gap());
            assert_eq!(late, expected_late, "late rows, {what}");
            for (session, rows) in &expected {
                assert_eq!(output.get(session), Some(rows), "session {session:?}, {what}");
            }
            assert_eq!(output.len(), expected.len(), "sessions, {what}");
        }
        assert!(sequences.windows(2).all(|s| s[0] == s[1]), "seed {seed}: rows in another order");
    }
    assert!(all_late > 100, "late {all_late}");
    assert!(all_restores > 60 && all_spills > 40, "{all_restores} restores, {all_spills} spills");
}
