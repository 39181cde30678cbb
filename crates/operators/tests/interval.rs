//! Random rows, keys, bounds, delays, cuts, workers and times of flushes of an interval join of each kind, compared
//! with all pairs of rows. Whatever the cut, the results are the same and in the same order, also when everything in
//! memory is lost and restored from a checkpoint, or is on disk.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod joins;
#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod naive;
#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod shared;
mod space;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use joins::{Case, Expected, NONE, Row, batch, check, counted, join_inputs, keys_equal, rows};
use rand::Rng;
use rand::rngs::StdRng;
use windrow_core::Watermark;
use windrow_operators::{IntervalJoinSpec, JoinFilter, JoinKind, StatefulOperator};

/// `(left.id + right.id) % 3 <> 0`.
fn filter() -> JoinFilter {
    let number = |n| Arc::new(Literal::new(ScalarValue::Int64(Some(n))));
    let sum = BinaryExpr::new(
        Arc::new(Column::new("l", 0)),
        Operator::Plus,
        Arc::new(Column::new("r", 1)),
    );
    let rest = BinaryExpr::new(Arc::new(sum), Operator::Modulo, number(3));
    let expr = Arc::new(BinaryExpr::new(Arc::new(rest), Operator::NotEq, number(0)));
    let fields = ["l", "r"].map(|name| Field::new(name, DataType::Int64, false));
    JoinFilter { expr, columns: [vec![1], vec![1]], schema: Arc::new(Schema::new(fields.to_vec())) }
}

fn case(rng: &mut StdRng, kind: JoinKind, filtered: bool) -> Case {
    let keys = rng.random_range(0..=2);
    let width = [0, rng.random_range(0..10), rng.random_range(0..60)][rng.random_range(0..3)];
    let lower = rng.random_range(-40..40);
    let upper = lower + width - rng.random_range(0..2);
    let null_equals = rng.random_bool(0.3);
    let operator = IntervalJoinSpec::try_new(join_inputs(keys), (lower, upper), null_equals);
    let mut operator = operator.unwrap().with_kind(kind);
    if filtered {
        operator = operator.with_filter(filter()).unwrap();
    }
    let (inputs, tolerance) = rows(rng);
    Case { operator, kind, keys, lower, upper, null_equals, tolerance, inputs }
}

/// All results, in order.
fn naive(case: &Case, filtered: bool) -> Expected {
    let exact = case.kind != JoinKind::Inner;
    let mut late = [0, 0];
    let mut count = |input: usize| {
        counted(case, input, &mut late, |row, closed| {
            let last = if input == 0 { row.time - case.lower } else { row.time + case.upper };
            (!exact && last >= closed).then_some(closed)
        })
    };
    let (left, right) = (count(0), count(1));
    let matches = |(l, l_from): &(&Row, i64), (r, r_from): &(&Row, i64)| {
        let time = l.time.max(r.time);
        keys_equal(case, l, r)
            && (case.lower..=case.upper).contains(&(l.time - r.time))
            && (!filtered || (l.id + r.id) % 3 != 0)
            && time >= *l_from
            && time >= *r_from
    };
    let mut pairs = vec![];
    for l in &left {
        for r in right.iter().filter(|r| matches(l, r)) {
            pairs.push((l.0.time.max(r.0.time), l.0.id, r.0.id));
        }
    }
    // When each row first matches; those that match nothing, with the time at which that is known.
    let first = |rows: &[(&Row, i64)], wait: i64, own: &dyn Fn(&(i64, i64, i64)) -> i64| {
        let (mut some, mut none) = (vec![], vec![]);
        for (row, _) in rows {
            let times = pairs.iter().filter(|pair| own(pair) == row.id).map(|pair| pair.0);
            match times.min() {
                Some(time) => some.push((time, row.id)),
                None => none.push((row.time + wait.max(0), row.id)),
            }
        }
        (some, none)
    };
    let (left_some, left_none) = first(&left, -case.lower, &|pair| pair.1);
    let (right_some, right_none) = first(&right, case.upper, &|pair| pair.2);
    let of_left = |rows: Vec<(i64, i64)>| rows.into_iter().map(|(time, id)| (time, id, NONE));
    let of_right = |rows: Vec<(i64, i64)>| rows.into_iter().map(|(time, id)| (time, NONE, id));
    let mut results = match case.kind {
        JoinKind::Inner => pairs,
        JoinKind::Left => [pairs, of_left(left_none).collect()].concat(),
        JoinKind::Right => [pairs, of_right(right_none).collect()].concat(),
        JoinKind::Full => {
            [pairs, of_left(left_none).collect(), of_right(right_none).collect()].concat()
        }
        JoinKind::LeftSemi => of_left(left_some).collect(),
        JoinKind::RightSemi => of_right(right_some).collect(),
        JoinKind::LeftAnti => of_left(left_none).collect(),
        JoinKind::RightAnti => of_right(right_none).collect(),
    };
    results.sort_unstable();
    (results, late)
}

#[test]
fn any_cut_gives_the_pairs_of_the_naive_evaluator() {
    for seeds in [0..80, 80..160] {
        let (pairs, late, losses) =
            check(seeds, |rng| case(rng, JoinKind::Inner, false), |case| naive(case, false));
        assert!(pairs > 10_000 && late.iter().all(|n| *n > 50), "{pairs} {late:?}");
        assert!(losses.iter().all(|n| *n > 60), "losses and spills {losses:?}");
    }
}

fn check_kinds(kinds: &[JoinKind]) {
    for (kind, filtered) in kinds.iter().flat_map(|kind| [(*kind, false), (*kind, true)]) {
        let (results, late, losses) =
            check(0..30, |rng| case(rng, kind, filtered), |case| naive(case, filtered));
        assert!(results > 300 && late[0] > 50, "{kind:?}: {results} {late:?}");
        assert!(losses.iter().all(|n| *n > 20), "losses and spills {losses:?}");
    }
}

#[test]
fn any_cut_gives_the_rows_without_a_partner() {
    check_kinds(&[JoinKind::Left, JoinKind::Right, JoinKind::Full]);
}

#[test]
fn any_cut_gives_the_rows_of_one_side() {
    check_kinds(&[
        JoinKind::LeftSemi,
        JoinKind::RightSemi,
        JoinKind::LeftAnti,
        JoinKind::RightAnti,
    ]);
}

/// Every row has a key of its own, which the row of the other input that it matches has 2,000 ticks later.
#[test]
fn rows_leave_as_soon_as_they_are_of_no_use() {
    const ROWS: i64 = 40_000;
    const STEP: i64 = 500;
    const APART: i64 = 2_000;
    for (keys, kind) in [(1, JoinKind::Inner), (2, JoinKind::Inner), (2, JoinKind::Left)] {
        let spec = IntervalJoinSpec::try_new(join_inputs(keys), (0, 3_000), false);
        let spec = spec.unwrap().with_kind(kind);
        let mut workers = [0, 1].map(|input| spec.worker(input));
        let mut coordinator = spec.coordinator();
        let (mut results, mut most) = (0, [0; 4]);
        for first in (0..ROWS).step_by(STEP as usize) {
            let rows = |apart: i64| -> Vec<Row> {
                let row = |time: i64| {
                    let number = Some(time - apart);
                    Row { time, id: time, number, text: Some(format!("key {}", time - apart)) }
                };
                (first..first + STEP).map(row).collect()
            };
            workers[0].update(&batch(&rows(APART))).unwrap();
            workers[1].update(&batch(&rows(0))).unwrap();
            let reached = Watermark::at(first + STEP);
            while let Some(to) = coordinator.flush_to(reached, true) {
                for (input, worker) in workers.iter_mut().enumerate() {
                    for segment in worker.flush(to).unwrap() {
                        coordinator.add(input, segment).unwrap();
                    }
                }
                coordinator.flushed(to);
            }
            let complete = coordinator.complete_to(reached);
            while let Some(finished) = coordinator.close(complete, 8_192).unwrap() {
                results += finished.rows.map(|rows| rows.unwrap().num_rows()).sum::<usize>();
            }
            let open = coordinator.open_windows();
            assert!(open <= 3_001, "{open} rows are kept of 3,000, {kind:?}");
            let most = &mut most[(first * 4 / ROWS) as usize];
            *most = coordinator.size_bytes().max(*most);
        }
        let unmatched = if kind == JoinKind::Left { APART } else { 0 };
        assert_eq!(results as i64, ROWS - APART + unmatched, "{keys} keys, {kind:?}");
        assert!(most[3] < most[1] * 13 / 10, "what is kept grows: {most:?}");
    }
}
