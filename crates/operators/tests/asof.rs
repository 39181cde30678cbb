//! Random ASOF joins, compared with a search of all rows, as interval joins are in `interval.rs`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod joins;
#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod naive;
#[expect(dead_code, reason = "rows of windows are compared elsewhere")]
mod shared;
mod space;

use joins::{Case, Expected, NONE, check, counted, join_inputs, keys_equal, rows};
use rand::Rng;
use rand::rngs::StdRng;
use windrow_operators::{IntervalJoinSpec, JoinKind};

/// The direction in which the closest row is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Back,
    Forward,
    Around,
}

fn case(rng: &mut StdRng, kind: JoinKind, way: Way) -> Case {
    let keys = rng.random_range(0..=2);
    let nearest = [0, 1, rng.random_range(2..20)][rng.random_range(0..3)];
    let tolerance = nearest + rng.random_range(0..60);
    let (lower, upper) = match way {
        Way::Back if rng.random_bool(0.5) => (nearest, i64::MAX),
        Way::Back => (nearest, tolerance),
        Way::Forward => (-tolerance - 1, -nearest),
        Way::Around => (-tolerance - 1, rng.random_range(1..40)),
    };
    let operator = IntervalJoinSpec::try_new(join_inputs(keys), (lower, upper), false);
    let operator = operator.unwrap().with_kind(kind).closest().unwrap();
    let (inputs, tolerance) = rows(rng);
    Case { operator, kind, keys, lower, upper, null_equals: false, tolerance, inputs }
}

/// All results, in order.
fn naive(case: &Case) -> Expected {
    let mut late = [0, 0];
    let way = match (case.lower >= 0, case.upper <= 0) {
        (true, _) => Way::Back,
        (false, true) => Way::Forward,
        (false, false) => Way::Around,
    };
    let left = counted(case, 0, &mut late, |_, _| None);
    let right = counted(case, 1, &mut late, |row, closed| {
        (way == Way::Back && row.time.saturating_add(case.upper) >= closed).then_some(closed)
    });
    let mut results = vec![];
    for (l, _) in &left {
        let near = right.iter().filter(|(r, from)| {
            let apart = l.time - r.time;
            keys_equal(case, l, r)
                && (case.lower..=case.upper).contains(&apart)
                && l.time.max(r.time) >= *from
        });
        // Ids differ, so they decide between rows of one time.
        let closest = match way {
            Way::Back => near.max_by_key(|(r, _)| (r.time, r.id)),
            Way::Forward => near.min_by_key(|(r, _)| (r.time, -r.id)),
            Way::Around => near.min_by_key(|(r, _)| (l.time.abs_diff(r.time), r.time, -r.id)),
        };
        match closest {
            // The pair is final when no nearer row can arrive.
            Some((r, _)) if way == Way::Around => results.push((l.time - case.lower, l.id, r.id)),
            Some((r, _)) => results.push((l.time.max(r.time), l.id, r.id)),
            None if case.kind == JoinKind::Left => {
                results.push((l.time + (-case.lower).max(0), l.id, NONE));
            }
            None => {}
        }
    }
    results.sort_unstable();
    (results, late)
}

fn check_way(way: Way) {
    for kind in [JoinKind::Inner, JoinKind::Left] {
        let (results, late, losses) = check(0..60, |rng| case(rng, kind, way), naive);
        assert!(results > 1_000 && late[0] > 50, "{kind:?}: {results} {late:?}");
        assert!(way != Way::Back || late[1] > 50, "{kind:?}: {late:?}");
        assert!(losses.iter().all(|n| *n > 40), "losses and spills {losses:?}");
    }
}

#[test]
fn any_cut_gives_the_latest_row_before() {
    check_way(Way::Back);
}

#[test]
fn any_cut_gives_the_next_row() {
    check_way(Way::Forward);
}

#[test]
fn any_cut_gives_the_nearest_row() {
    check_way(Way::Around);
}
