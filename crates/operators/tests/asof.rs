//! Random ASOF joins, compared with a search of all rows, as `interval.rs` does it with interval joins.
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

fn case(rng: &mut StdRng, kind: JoinKind, back: bool) -> Case {
    let keys = rng.random_range(0..=2);
    let nearest = [0, 1, rng.random_range(2..20)][rng.random_range(0..3)];
    let tolerance = nearest + rng.random_range(0..60);
    let (lower, upper) = match back {
        true if rng.random_bool(0.5) => (nearest, i64::MAX),
        true => (nearest, tolerance),
        false => (-tolerance - 1, -nearest),
    };
    let operator = IntervalJoinSpec::try_new(join_inputs(keys), (lower, upper), false);
    let operator = operator.unwrap().with_kind(kind).closest().unwrap();
    let (inputs, tolerance) = rows(rng);
    Case { operator, kind, keys, lower, upper, null_equals: false, tolerance, inputs }
}

/// All results, in order.
fn naive(case: &Case) -> Expected {
    let mut late = [0, 0];
    let back = case.lower >= 0;
    let left = counted(case, 0, &mut late, |_, _| None);
    let right = counted(case, 1, &mut late, |row, closed| {
        (back && row.time.saturating_add(case.upper) >= closed).then_some(closed)
    });
    let mut results = vec![];
    for (l, _) in &left {
        let near = right.iter().filter(|(r, from)| {
            let apart = l.time - r.time;
            keys_equal(case, l, r)
                && (case.lower..=case.upper).contains(&apart)
                && l.time.max(r.time) >= *from
        });
        // Ids differ, and so decide between rows of one time.
        let closest = match back {
            true => near.max_by_key(|(r, _)| (r.time, r.id)),
            false => near.min_by_key(|(r, _)| (r.time, -r.id)),
        };
        match closest {
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

fn check_way(back: bool) {
    for kind in [JoinKind::Inner, JoinKind::Left] {
        let (results, late, losses) = check(0..60, |rng| case(rng, kind, back), naive);
        assert!(results > 1_000 && late[0] > 50, "{kind:?}: {results} {late:?}");
        assert!(!back || late[1] > 50, "{kind:?}: {late:?}");
        assert!(losses.iter().all(|n| *n > 40), "losses and spills {losses:?}");
    }
}

#[test]
fn any_cut_gives_the_latest_row_before() {
    check_way(true);
}

#[test]
fn any_cut_gives_the_next_row() {
    check_way(false);
}
