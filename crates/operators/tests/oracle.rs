//! Random rows, keys, windows, delays, cuts, stores and times of flushes, compared with an evaluator that visits every
//! row and every window. Whatever the cut, the windows are the same, also when everything in memory is lost and
//! restored from a checkpoint.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;
mod shared;
mod space;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::scalar::ScalarValue;
use naive::{Row, Windowed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::{Disk, KEYS, TIME, aggregates, cell, schema};
use space::Space;
use windrow_core::{Calendar, CalendarUnit, StepUnit, Watermark, WindowKind, WindowSpec, Zone};
use windrow_operators::lateness::{Tolerance, classify};
use windrow_operators::{
    ClosedWindow, CoordinatorPart, GroupingSets, Mode, OperatorSpec, SavedState, Segment,
    SliceStore, SpillSpace, WindowMerger,
};

/// One random case.
struct Case {
    spec: Arc<OperatorSpec>,
    tolerance: Tolerance,
    /// Rows of each partition, in order.
    partitions: Vec<Vec<Row>>,
    text: DataType,
}

/// Calendar windows of Berlin; ticks are seconds.
fn calendar_window(rng: &mut StdRng) -> WindowSpec {
    let unit = [CalendarUnit::Day, CalendarUnit::Month][rng.random_range(0..2)];
    let mut step_unit = StepUnit::Tick;
    let size = rng.random_range(1..4);
    let kind = match rng.random_range(0..4) {
        0 => WindowKind::Tumble { size },
        1 => WindowKind::Hop { slide: rng.random_range(1..=size), size },
        2 if unit == CalendarUnit::Month => {
            step_unit = StepUnit::Day;
            WindowKind::Cumulate { step: rng.random_range(1..10), size }
        }
        _ => {
            let days = if unit == CalendarUnit::Day { 1 } else { 10 };
            WindowKind::Cumulate { step: rng.random_range(20_000..80_000) * days, size }
        }
    };
    let zone = Zone::of("Europe/Berlin").unwrap();
    let calendar = Calendar { unit, step_unit, zone, ticks_per_second: 1, shift_seconds: 0 };
    WindowSpec::of_calendar(kind, rng.random_range(-100..100), calendar).unwrap()
}

fn window(rng: &mut StdRng) -> WindowSpec {
    if rng.random_bool(0.2) {
        return calendar_window(rng);
    }
    let kind = match rng.random_range(0..10) {
        0..=2 => WindowKind::Tumble { size: rng.random_range(1..60) },
        3..=7 => {
            let size = rng.random_range(1..60);
            WindowKind::Hop { slide: rng.random_range(1..=size), size }
        }
        _ => {
            let step = rng.random_range(1..12);
            WindowKind::Cumulate { step, size: step * rng.random_range(1..8) }
        }
    };
    WindowSpec::try_new(kind, rng.random_range(-100..100)).unwrap()
}

fn mode(rng: &mut StdRng, schema: &SchemaRef) -> Mode {
    if rng.random_bool(0.15) {
        return Mode::Rows;
    }
    let keys = KEYS[..rng.random_range(0..=3)].to_vec();
    let grouping_sets = (!keys.is_empty() && rng.random_bool(0.2)).then(|| {
        let masks = (0..rng.random_range(1..4))
            .map(|_| keys.iter().map(|_| rng.random_bool(0.5)).collect())
            .collect();
        GroupingSets::try_new(masks).unwrap()
    });
    let mut aggregates = aggregates(schema);
    if rng.random_bool(0.5) {
        aggregates.truncate(3);
    }
    Mode::Aggregate { keys, grouping_sets, aggregates }
}

fn case(rng: &mut StdRng) -> Case {
    let text = match rng.random_range(0..3) {
        0 => DataType::Utf8,
        1 => DataType::Utf8View,
        _ => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    };
    let schema = schema(&text);
    let mode = mode(rng, &schema);
    let window = window(rng);
    // Days and months are long, and the clocks change on 2024-03-31 and 2024-10-27.
    let (scale, change) = match window.calendar() {
        Some(_) => (5_000, [1_711_846_800, 1_729_990_800][rng.random_range(0..2)]),
        None => (1, 0),
    };
    let spec = OperatorSpec::try_new(window, TIME, schema, mode).unwrap();
    let jitter = rng.random_range(0..40) * scale;
    let speed = [0.05, 0.5, 3.0][rng.random_range(0..3)] * scale as f64;
    let cardinality = rng.random_range(1..30);
    let origin = change + rng.random_range(-500..500) * scale;
    let mut id = 0;
    let partitions = (0..rng.random_range(1..5))
        .map(|_| {
            let mut clock = (origin + rng.random_range(-20..20) * scale) as f64;
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
    let allowed_lateness = if rng.random_bool(0.3) { rng.random_range(0..50) * scale } else { 0 };
    let delay = rng.random_range(0..=jitter + 3);
    Case {
        spec: Arc::new(spec),
        tolerance: Tolerance { delay, allowed_lateness },
        partitions,
        text,
    }
}

/// A running case: `rng` decides batches, stores, flushes, cuts and losses of everything in memory.
struct Run<'a> {
    case: &'a Case,
    stores: Vec<SliceStore>,
    merger: WindowMerger,
    at: Reached,
    output: Windowed,
    /// Windows that had closed after the cut that was restored: they close again.
    again: Windowed,
    /// Segments as they were written, with how far the input was read at each cut.
    disk: Disk<Reached>,
    restores: usize,
    /// Set when memory may be short.
    space: Option<Arc<Space>>,
    /// Number of windows computed from disk.
    divided: usize,
}

/// How far the input has been read, and the results so far.
#[derive(Clone)]
struct Reached {
    watermarks: Vec<Watermark>,
    rows: Vec<usize>,
    late: usize,
    partly_late: usize,
    /// The rows that count, with the first end in which each counts.
    taken: Vec<(i64, i64)>,
}

impl<'a> Run<'a> {
    fn new(case: &'a Case, stores: usize) -> Self {
        let partitions = case.partitions.len();
        Self {
            case,
            stores: (0..stores).map(|_| SliceStore::new(&case.spec)).collect(),
            merger: WindowMerger::new(Arc::clone(&case.spec)),
            at: Reached {
                watermarks: vec![Watermark::NONE; partitions],
                rows: vec![0; partitions],
                late: 0,
                partly_late: 0,
                taken: vec![],
            },
            output: Windowed::new(),
            again: Windowed::new(),
            disk: Disk::new(),
            restores: 0,
            space: None,
            divided: 0,
        }
    }

    /// Returns the windows; late and partly late rows; the number of losses; windows from disk.
    fn finish(mut self, rng: &mut StdRng) -> (Windowed, [usize; 4]) {
        let longest = [1, 5, 40, 1000][rng.random_range(0..4)];
        let cuts = rng.random_bool(0.6);
        if cuts {
            self.merger.keep_cuts();
            self.cut();
        }
        if rng.random_bool(0.25) {
            let space = Arc::new(Space::random(rng));
            self.merger.spill_to(space.clone());
            self.space = Some(space);
        }
        let partitions = &self.case.partitions;
        while (0..partitions.len()).any(|p| self.at.rows[p] < partitions[p].len()) {
            let partition = rng.random_range(0..partitions.len());
            self.read(rng, partition, longest);
            if rng.random_bool(0.3) {
                let watermarks = self.at.watermarks.iter().copied();
                let watermark = watermarks.min().unwrap_or(Watermark::END);
                self.close(watermark.delayed(self.case.tolerance.allowed_lateness));
            }
            if cuts && rng.random_bool(0.2) {
                self.cut();
            }
            if cuts && rng.random_bool(0.05) && self.restores < 20 {
                self.lose_all(rng);
            }
            self.spill(rng);
            if rng.random_bool(0.03) {
                self.look([3, 100_000][rng.random_range(0..2)]);
            }
        }
        self.close(Watermark::END);
        assert!(self.again.is_empty(), "windows that had closed did not come again");
        assert_eq!(self.merger.next_end(), None);
        assert_eq!(self.merger.open_windows(), 0);
        assert_eq!(self.merger.size_bytes(), 0);
        if cuts {
            self.cut();
            assert_eq!(self.disk.needed(), []);
        }
        assert!(self.stores.iter().all(|s| s.rows() == 0 && s.first_open().is_none()));
        if let Some(space) = &self.space {
            assert_eq!(space.files(), 0, "files are deleted when nobody needs them");
        }
        (self.output, [self.at.late, self.at.partly_late, self.restores, self.divided])
    }

    fn read(&mut self, rng: &mut StdRng, partition: usize, longest: usize) {
        let (case, done) = (self.case, self.at.rows[partition]);
        let rows = &case.partitions[partition];
        let to = (done + rng.random_range(0..=longest)).min(rows.len());
        let rows = &rows[done..to];
        self.at.rows[partition] = to;
        let times: Vec<i64> = rows.iter().map(|r| r.time).collect();
        let watermark = &mut self.at.watermarks[partition];
        let found = classify(case.spec.slicing(), &times, *watermark, case.tolerance);
        for &time in &times {
            *watermark = watermark.advance(Watermark::at(time - case.tolerance.delay));
        }
        self.at.late += found.late.len();
        self.at.partly_late += found.partly.len();
        let batch = naive::batch(case.spec.input_schema(), &case.text, rows);
        let store = rng.random_range(0..self.stores.len());
        let store = &mut self.stores[store];
        let on_time = (0..rows.len() as u32).filter(|i| {
            let i = *i as usize;
            !found.late.contains(&i) && !found.partly.iter().any(|(row, _)| *row == i)
        });
        let on_time = UInt32Array::from(on_time.collect::<Vec<_>>());
        let whole = on_time.values().iter().map(|row| (times[*row as usize], i64::MIN));
        let partly = found.partly.iter().map(|(row, from)| (times[*row], *from));
        self.at.taken.extend(whole.chain(partly));
        store.update(&take_record_batch(&batch, &on_time).unwrap()).unwrap();
        let (partly, from): (Vec<u32>, Vec<i64>) =
            found.partly.iter().map(|(row, from)| (*row as u32, *from)).unzip();
        let partly = take_record_batch(&batch, &UInt32Array::from(partly)).unwrap();
        store.update_partly_late(&partly, &from).unwrap();
    }

    fn close(&mut self, watermark: Watermark) {
        let segments = self.stores.iter_mut().flat_map(|s| s.flush(watermark).unwrap());
        segments.for_each(|segment: Segment| self.merger.add(segment).unwrap());
        let (output, again, mut last) = (&mut self.output, &mut self.again, None);
        let divided = &mut self.divided;
        self.merger
            .close(watermark, &mut |window| {
                assert!(last.is_none_or(|last| last < window.end), "ends ascend");
                assert!(watermark.closes(window.end));
                last = Some(window.end);
                *divided += usize::from(window.rows.rows_in_memory().is_none());
                let (bounds, lines) = ((window.end, window.start), lines(window));
                if let Some(before) = again.remove(&bounds) {
                    assert_eq!(before, lines, "a window came again and was another");
                }
                let before = output.insert(bounds, lines);
                assert!(before.is_none(), "a window closes once");
                Ok(())
            })
            .unwrap();
    }

    /// Occasionally makes memory short, in a store or in the merger.
    fn spill(&mut self, rng: &mut StdRng) {
        let Some(space) = self.space.clone() else { return };
        for store in &mut self.stores {
            if rng.random_bool(0.03) {
                let (open, rows) = (store.open_slices(), store.rows());
                store.spill(space.as_ref()).unwrap();
                assert_eq!((store.open_slices(), store.rows()), (open, rows));
            }
        }
        if rng.random_bool(0.02) {
            self.merger.spill().unwrap();
            assert_eq!(self.merger.size_bytes(), 0);
        }
    }

    /// Compares the survey of the open windows with the rows that were taken.
    fn look(&mut self, windows_max: usize) {
        let segments = self.stores.iter_mut().flat_map(|s| s.flush_all().unwrap());
        segments.for_each(|segment| self.merger.add(segment).unwrap());
        let (slicing, frontier) = (*self.case.spec.slicing(), self.merger.frontier());
        let mut expected: BTreeMap<i64, (u64, i64, i64)> = BTreeMap::new();
        for &(time, from) in &self.at.taken {
            let mut end = slicing.end_after(time, frontier.max(from.saturating_sub(1)));
            while end <= slicing.last_end(time) {
                let window = expected.entry(end).or_insert((0, time, time));
                *window = (window.0 + 1, window.1.min(time), window.2.max(time));
                end = slicing.end_after(time, end);
            }
        }
        let survey = CoordinatorPart::survey(&mut self.merger, windows_max).unwrap();
        assert_eq!(survey.truncated, expected.len() > windows_max);
        let found = survey.states.into_iter().map(|state| {
            let ((start, end), (first, last)) = (state.bounds.unwrap(), state.times.unwrap());
            assert_eq!(start, slicing.start_of(end));
            (end, (state.rows, first, last))
        });
        let expected: Vec<_> = expected.into_iter().take(windows_max).collect();
        assert_eq!(found.collect::<Vec<_>>(), expected, "{:?}", self.case.spec.window());
    }

    fn cut(&mut self) {
        let segments = self.stores.iter_mut().flat_map(|s| s.flush_all().unwrap());
        segments.for_each(|segment| self.merger.add(segment).unwrap());
        self.disk.keep(self.merger.cut().unwrap(), self.at.clone());
        assert!(self.merger.cut().unwrap().new.is_empty(), "a segment is given once");
    }

    /// Restores one of the last cuts; everything written later is discarded.
    fn lose_all(&mut self, rng: &mut StdRng) {
        self.restores += 1;
        let (cut, at, segments) = self.disk.lose(rng);
        let spec = Arc::clone(&self.case.spec);
        let (mut segments, space) = (segments.into_iter().map(Ok), self.space.as_deref());
        let space = space.map(|space| space as &dyn SpillSpace);
        let (frontier, next_id) = (cut.frontier, cut.next_id);
        let state = SavedState { frontier, next_id, segments: &mut segments, space };
        self.merger = WindowMerger::restore(spec, state).unwrap();
        if let Some(space) = &self.space {
            self.merger.spill_to(space.clone());
        }
        self.stores.iter_mut().for_each(|s| *s = SliceStore::new(&self.case.spec));
        self.again.append(&mut self.output.split_off(&(cut.frontier, i64::MAX)));
        self.at = at;
    }
}

/// Returns the rows of a window as text, sorted.
fn lines(window: ClosedWindow) -> Vec<String> {
    let batches: Vec<RecordBatch> = window.rows.map(|batch| batch.unwrap()).collect();
    let rows = concat_batches(&batches[0].schema(), &batches).unwrap();
    let mut lines: Vec<String> = (0..rows.num_rows())
        .map(|row| {
            let columns = rows.columns().iter().take(rows.num_columns() - 3);
            columns.map(|c| cell(c, row)).collect::<Vec<_>>().join("|")
        })
        .collect();
    lines.sort();
    for (column, bound) in [(3, window.start), (2, window.end), (1, window.end - 1)] {
        let column = rows.column(rows.num_columns() - column);
        let expected = ScalarValue::TimestampMicrosecond(Some(bound), Some("UTC".into()));
        for row in 0..rows.num_rows() {
            assert_eq!(ScalarValue::try_from_array(column, row).unwrap(), expected);
        }
    }
    lines
}

#[test]
fn any_cut_gives_the_windows_of_the_naive_evaluator() {
    check(0..80);
}

#[test]
fn any_cut_gives_the_windows_of_the_naive_evaluator_still() {
    check(80..160);
}

fn check(seeds: Range<u64>) {
    let (mut all_late, mut all_partly, mut all_restores, mut all_divided) = (0, 0, 0, 0);
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let case = case(&mut rng);
        let (expected, expected_late) =
            naive::evaluate(&case.spec, case.tolerance, &case.partitions);
        for cut in 0..2 {
            let stores = rng.random_range(1..5);
            let (output, [late, partly, restores, divided]) =
                Run::new(&case, stores).finish(&mut rng);
            all_late += late;
            all_partly += partly;
            all_restores += restores;
            all_divided += divided;
            let what = format!("seed {seed}, cut {cut}: {:?}", case.spec.window());
            assert_eq!(late, expected_late, "late rows, {what}");
            for (window, rows) in &expected {
                assert_eq!(output.get(window), Some(rows), "window {window:?}, {what}");
            }
            assert_eq!(output.len(), expected.len(), "windows, {what}");
        }
    }
    assert!(all_late > 200 && all_partly > 200, "late {all_late}, partly {all_partly}");
    assert!(all_restores > 150, "restores {all_restores}");
    assert!(all_divided > 200, "windows from disk {all_divided}");
}
