//! Random rows, keys, patterns, conditions, delays, cuts, workers, losses and spills of MATCH_RECOGNIZE, compared with
//! a matcher that tries everything over the sorted rows of a key. The bounded form is compared with the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod matching;
#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod naive;
#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod shared;
mod space;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    UInt32Array,
};
use arrow::compute::{SortOptions, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, IsNullExpr, Literal};
use datafusion::scalar::ScalarValue;
use matching::{ID, Naive, Row, Rule, STEPS_MAX, line};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::Disk;
use space::Space;
use windrow_core::Watermark;
use windrow_operators::lateness::Tolerance;
use windrow_operators::{
    AggregateCall, Condition, CoordinatorPart, Formula, Output, Pattern, PatternPlan, PatternSpec,
    Read, RowOf, SavedState, Skip, Slot, SpillSpace, StatefulOperator, WorkerPart,
};

const NUMBER: usize = 2;
const TEXT: usize = 3;

/// One random case.
struct Case {
    operator: PatternSpec,
    rules: Vec<Rule>,
    keyed: bool,
    tolerance: Tolerance,
    partitions: Vec<Vec<Row>>,
}

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
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.number))),
        Arc::new(rows.iter().map(|r| r.text.clone()).collect::<StringArray>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn read(slot: Slot) -> Read {
    let data_type = match &slot {
        Slot::Classifier(_) => DataType::Utf8,
        Slot::Value { column: 0, .. } => schema().field(0).data_type().clone(),
        _ => DataType::Int64,
    };
    Read { slot, is_final: false, data_type }
}

fn value(row: RowOf, column: usize) -> Read {
    read(Slot::Value { row, column })
}

fn aggregate(variables: Option<u64>, count: bool) -> Read {
    let function = match count {
        true => datafusion::functions_aggregate::count::count_udaf(),
        false => windrow_operators::aggregates::sum_udaf(),
    };
    let function =
        AggregateExprBuilder::new(function, vec![Arc::new(Column::new("number", NUMBER))])
            .schema(schema())
            .alias("m")
            .build()
            .unwrap();
    let call =
        AggregateCall { function: Arc::new(function), arguments: vec![NUMBER], filter: None };
    read(Slot::Aggregate { variables, call })
}

fn slot(at: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(&format!("${at}"), at))
}

fn compare(
    a: Arc<dyn PhysicalExpr>,
    op: Operator,
    b: Arc<dyn PhysicalExpr>,
) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(a, op, b))
}

fn literal(n: i64) -> Arc<dyn PhysicalExpr> {
    Arc::new(Literal::new(ScalarValue::Int64(Some(n))))
}

/// `$0 op $1`, or `$1` is NULL.
fn or_null(op: Operator, reads: Vec<Read>) -> Formula {
    let is_null = Arc::new(IsNullExpr::new(slot(1)));
    Formula::new(compare(compare(slot(0), op, slot(1)), Operator::Or, is_null), reads)
}

fn of(variables: u64, first: bool, offset: u32) -> RowOf {
    RowOf { variables: Some(variables), first, offset, shift: 0 }
}

fn condition(rule: &Rule) -> Condition {
    let number = || value(RowOf::LAST, NUMBER);
    let row = |formula| Condition { row: Some(formula), history: None };
    let history = |formula| Condition { row: None, history: Some(formula) };
    match rule {
        Rule::Always => Condition::default(),
        Rule::Below(n) => {
            row(Formula::new(compare(slot(0), Operator::Lt, literal(*n)), vec![number()]))
        }
        Rule::NotBelowBefore(rows) => {
            let before = RowOf { shift: -rows, ..RowOf::LAST };
            row(or_null(Operator::GtEq, vec![number(), value(before, NUMBER)]))
        }
        Rule::AboveLast(v, n) => {
            history(or_null(Operator::Gt, vec![number(), value(of(*v, false, *n), NUMBER)]))
        }
        Rule::AboveFirst(v, n) => {
            history(or_null(Operator::Gt, vec![number(), value(of(*v, true, *n), NUMBER)]))
        }
        Rule::SumBelow(v, n) => history(or_null_sum(*v, *n)),
        Rule::CountBelow(n) => {
            let count = compare(slot(0), Operator::LtEq, literal(*n));
            history(Formula::new(count, vec![aggregate(None, true)]))
        }
        Rule::And(a, b) => {
            let (a, b) = (condition(a), condition(b));
            Condition { row: a.row.or(b.row), history: a.history.or(b.history) }
        }
    }
}

fn or_null_sum(variables: u64, n: i64) -> Formula {
    let below = compare(slot(0), Operator::Lt, literal(n));
    let is_null = Arc::new(IsNullExpr::new(slot(0)));
    Formula::new(compare(below, Operator::Or, is_null), vec![aggregate(Some(variables), false)])
}

fn row_rule(rng: &mut StdRng) -> Rule {
    match rng.random_range(0..4) {
        0 => Rule::Always,
        1 => Rule::NotBelowBefore(rng.random_range(1..3)),
        _ => Rule::Below(rng.random_range(1..5)),
    }
}

fn rule(rng: &mut StdRng, variables: u64) -> Rule {
    let some = 1 + rng.random_range(0..(1 << variables) - 1);
    let history = match rng.random_range(0..4) {
        0 => Rule::AboveLast(some, rng.random_range(0..3)),
        1 => Rule::AboveFirst(some, rng.random_range(0..2)),
        2 => Rule::SumBelow(some, rng.random_range(2..12)),
        _ => Rule::CountBelow(rng.random_range(1..6)),
    };
    match rng.random_range(0..5) {
        0 => history,
        1 => match row_rule(rng) {
            Rule::Always => history,
            row => Rule::And(Box::new(row), Box::new(history)),
        },
        _ => row_rule(rng),
    }
}

fn pattern(rng: &mut StdRng, variables: usize, depth: usize) -> Pattern {
    let parts = |rng: &mut StdRng| {
        let count = rng.random_range(2..4);
        (0..count).map(|_| pattern(rng, variables, depth - 1)).collect()
    };
    match rng.random_range(0..if depth == 0 { 1 } else { 6 }) {
        0 | 1 => Pattern::Variable {
            variable: rng.random_range(0..variables),
            shown: rng.random_bool(0.9),
        },
        2 | 3 => Pattern::Sequence(parts(rng)),
        4 => Pattern::Choice(parts(rng)),
        _ => {
            let least = rng.random_range(0..3);
            let most = rng.random_bool(0.5).then(|| rng.random_range(least.max(1)..5));
            let pattern = Box::new(pattern(rng, variables, depth - 1));
            Pattern::Repeat { pattern, least, most, greedy: rng.random_bool(0.6) }
        }
    }
}

fn plan(rng: &mut StdRng) -> (PatternPlan, Vec<Rule>, bool) {
    let variables = rng.random_range(1..4);
    let pattern = loop {
        let pattern = pattern(rng, variables, 3);
        let (least, most) = pattern.lengths();
        if least > 0 && most.is_none_or(|most| most > 1) {
            break pattern;
        }
    };
    let rules: Vec<Rule> = (0..variables).map(|_| rule(rng, variables as u64)).collect();
    let keyed = rng.random_bool(0.7);
    let some = Some(1 + rng.random_range(0..(1 << variables) - 1));
    let row = |variables, first, offset| RowOf { variables, first, offset, shift: 0 };
    let mut reads = vec![
        value(row(None, true, 0), ID),
        value(RowOf { shift: -rng.random_range(0..2), ..RowOf::LAST }, ID),
        read(Slot::MatchNumber),
        aggregate(some, rng.random_bool(0.5)),
        read(Slot::Classifier(some)),
        value(row(some, rng.random_bool(0.5), rng.random_range(0..2)), NUMBER),
    ];
    for read in &mut reads {
        read.is_final = rng.random_bool(0.3);
    }
    let measures = reads.into_iter().map(|read| Output::Measure(Formula::new(slot(0), vec![read])));
    let outputs = [Output::Column(ID), Output::Column(TEXT)].into_iter().chain(measures).collect();
    let names = ["A", "B", "C"].map(str::to_owned);
    let skip = match rng.random_range(0..3) {
        0 => Skip::ToNextRow,
        _ => Skip::PastLastRow,
    };
    let plan = PatternPlan {
        input: schema(),
        keys: if keyed { vec![TEXT] } else { vec![] },
        order: vec![(0, SortOptions::default())],
        pattern,
        names: names[..variables].to_vec(),
        conditions: rules.iter().map(condition).collect(),
        outputs,
        all_rows: rng.random_bool(0.4),
        skip,
        within: rng.random_bool(0.5).then(|| rng.random_range(1..60)),
    };
    (plan, rules, keyed)
}

fn case(rng: &mut StdRng) -> Case {
    let (plan, rules, keyed) = plan(rng);
    let jitter = rng.random_range(0..40);
    let speed = [0.2, 1.0, 4.0][rng.random_range(0..3)];
    let mut id = 0;
    let partitions = (0..rng.random_range(1..4)).map(|_| {
        let mut clock = f64::from(rng.random_range(-20..20));
        let rows = (0..rng.random_range(0..80)).map(|_| {
            clock += speed * rng.random_range(0.0..2.0);
            id += 1;
            Row {
                time: clock as i64 - rng.random_range(0..=jitter),
                id,
                number: rng.random_range(0..6),
                text: rng.random_bool(0.9).then(|| format!("k{}", rng.random_range(0..3))),
            }
        });
        rows.collect()
    });
    let partitions = partitions.collect();
    let allowed_lateness = if rng.random_bool(0.3) { rng.random_range(0..50) } else { 0 };
    let tolerance = Tolerance { delay: rng.random_range(0..=jitter + 3), allowed_lateness };
    Case { operator: PatternSpec::try_new(plan).unwrap(), rules, keyed, tolerance, partitions }
}

/// The rows of each key.
type Keys = BTreeMap<Option<String>, Vec<Row>>;

/// All results, the number of late rows, and the others; `None` if the naive matcher takes too long.
fn naive(case: &Case) -> Option<(Vec<String>, usize, Keys)> {
    let (mut keys, mut late) = (Keys::new(), 0);
    for partition in &case.partitions {
        let mut closed = i64::MIN;
        for row in partition {
            if row.time >= closed {
                let key = if case.keyed { row.text.clone() } else { None };
                keys.entry(key).or_default().push(row.clone());
            } else {
                late += 1;
            }
            let behind = case.tolerance.delay + case.tolerance.allowed_lateness;
            closed = closed.max(row.time - behind);
        }
    }
    let plan = case.operator.plan();
    let mut lines = vec![];
    for rows in keys.values_mut() {
        rows.sort_by_key(|row| (row.time, row.id));
        let (mut start, mut number) = (0, 0);
        while start < rows.len() {
            let mut naive = Naive { plan, rules: &case.rules, rows, start, steps: 0 };
            let mut labels = vec![];
            let found = naive.follow(&plan.pattern, &mut labels, &mut |_, _| true);
            if naive.steps > STEPS_MAX {
                return None;
            }
            if !found {
                start += 1;
                continue;
            }
            number += 1;
            let all: Vec<usize> = match plan.all_rows {
                true => (0..labels.len()).filter(|at| labels[*at].1).collect(),
                false => vec![labels.len() - 1],
            };
            lines.extend(all.iter().map(|at| line(plan, rows, (start, *at), &labels, number)));
            start += if plan.skip == Skip::ToNextRow { 1 } else { labels.len() };
        }
    }
    lines.sort();
    Some((lines, late, keys))
}

/// A running case: `rng` decides batches, workers, flushes, cuts and losses of everything in memory.
struct Run<'a> {
    case: &'a Case,
    workers: Vec<Box<dyn WorkerPart>>,
    coordinator: Box<dyn CoordinatorPart>,
    at: Reached,
    lines: Vec<(i64, String)>,
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
    fn finish(
        mut self,
        rng: &mut StdRng,
        ordered: bool,
    ) -> (Vec<(i64, String)>, usize, [usize; 2]) {
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

    fn give(&mut self, rows: &RecordBatch, end: i64) {
        self.lines.extend(cells(rows.columns()).into_iter().map(|line| (end, line)));
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

/// The rows of columns as text.
fn cells(columns: &[ArrayRef]) -> Vec<String> {
    let rows = columns.first().map_or(0, Array::len);
    let line = |row| columns.iter().map(|column| shared::cell(column, row)).collect::<Vec<_>>();
    (0..rows).map(|row| line(row).join("|")).collect()
}

fn described(case: &Case) -> String {
    struct Described<'a>(&'a PatternSpec);
    impl std::fmt::Display for Described<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.describe(f)
        }
    }
    format!("{} {:?}", Described(&case.operator), case.rules)
}

#[test]
fn any_cut_gives_the_matches_of_the_naive_matcher() {
    check(0..150);
}

#[test]
fn any_cut_gives_the_matches_of_the_naive_matcher_still() {
    check(150..300);
}

fn check(seeds: Range<u64>) {
    let (mut all_late, mut all_rows, mut all_losses) = (0, 0, [0, 0]);
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let (case, (expected, expected_late, keys)) = loop {
            let case = case(&mut rng);
            if let Some(found) = naive(&case) {
                break (case, found);
            }
        };
        let what = format!("seed {seed}, {}", described(&case));
        let mut whole = vec![];
        for rows in keys.values() {
            let mut rows = rows.clone();
            rows.sort_by_key(|row| row.id);
            let found = case.operator.matches(batch(&rows).columns(), rows.len()).unwrap();
            whole.extend(cells(found.as_list::<i32>().values().as_struct().columns()));
        }
        whole.sort();
        assert_eq!(whole, expected, "bounded, {what}");
        let mut sequences = vec![];
        for cut in 0..3 {
            let workers = rng.random_range(1..4);
            let ordered = cut < 2;
            let (lines, late, losses) = Run::new(&case, workers).finish(&mut rng, ordered);
            let what = format!("cut {cut}, {what}");
            assert_eq!(late, expected_late, "late rows, {what}");
            let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
            let mut found = lines.clone();
            found.sort();
            assert_eq!(found, expected, "{what}");
            if ordered {
                sequences.push(lines);
            }
            for (all, one) in all_losses.iter_mut().zip(losses) {
                *all += one;
            }
        }
        assert!(sequences.windows(2).all(|s| s[0] == s[1]), "in another order, {what}");
        all_rows += expected.len();
        all_late += expected_late;
    }
    assert!(all_rows > 1_000 && all_late > 50, "{all_rows} {all_late}");
    assert!(all_losses.iter().all(|n| *n > 60), "losses and spills {all_losses:?}");
}
