//! Aggregating by slices returns the same rows as aggregating each row once per window.

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;

use super::{World, lines};
use crate::plan::slices::CountBySlices;
use crate::plan::{bounded, plan_query};
use datafusion::physical_optimizer::PhysicalOptimizerRule;

/// The plan that `state` makes, and its rows, sorted.
async fn planned(world: &World, state: &SessionState, sql: &str) -> (String, Vec<String>) {
    let query = World::query(sql);
    let plan = plan_query(&world.state, *query.query, &[], &[]).await.unwrap();
    let context = SessionContext::new_with_state(state.clone());
    let frame = context.execute_logical_plan(bounded(plan).unwrap()).await.unwrap();
    let plan = frame.clone().create_physical_plan().await.unwrap();
    let batches = frame.collect().await.unwrap();
    (displayable(plan.as_ref()).indent(true).to_string(), lines(&batches))
}

/// A world, and, for one partition and for several, the state with the rule and the one without it.
fn world() -> (World, Vec<[SessionState; 2]>) {
    let world = World::new();
    let states = [1, 3].map(|partitions| {
        let mut state = world.state.clone();
        let config = state.config().clone().with_target_partitions(partitions).with_batch_size(7);
        *state.config_mut() = config;
        let rules = state.physical_optimizers().iter();
        let others = rules.filter(|rule| rule.name() != CountBySlices.name()).map(Arc::clone);
        let by_rows = SessionStateBuilder::new_from_existing(state.clone())
            .with_physical_optimizer_rules(others.collect())
            .build();
        [state, by_rows]
    });
    (world, states.into())
}

/// Compares with one partition and with several.
async fn compare(queries: impl Iterator<Item = String>, by_slices: bool) {
    let (world, states) = world();
    for (sql, [state, by_rows]) in queries.zip(states.iter().cycle()) {
        let (plan, rows) = planned(&world, state, &sql).await;
        assert_eq!(plan.contains("window_slice"), by_slices, "{sql}\n{plan}");
        let (plan, expected) = planned(&world, by_rows, &sql).await;
        assert!(!plan.contains("window_slice"), "{sql}\n{plan}");
        assert_eq!(rows, expected, "{sql}");
        assert!(!rows.is_empty(), "{sql}");
    }
}

const WINDOWS: [&str; 4] = [
    "HOP(bid, ts, INTERVAL '1 second', INTERVAL '4 seconds')",
    // Neither is a multiple of the other: a slice is one second.
    "HOP(bid, ts, INTERVAL '2 seconds', INTERVAL '5 seconds')",
    "HOP(bid, ts, INTERVAL '2 seconds', INTERVAL '5 seconds', INTERVAL '700 milliseconds')",
    "CUMULATE(bid, ts, INTERVAL '1 second', INTERVAL '4 seconds')",
];

#[tokio::test]
async fn every_function_by_slices() {
    let functions = [
        "count(*), sum(price), min(price), max(ts), avg(price)",
        "count(DISTINCT channel), count(channel), stddev(CAST(price AS DOUBLE)) > 1",
        "count(*) FILTER (WHERE price > 50), sum(price) FILTER (WHERE channel = 'web'), median(price)",
        "first_value(price ORDER BY ts, bidder, auction, price), last_value(price ORDER BY ts, bidder, auction, price)",
        "array_length(array_agg(price)), bool_or(price > 90), approx_distinct(bidder)",
    ];
    let queries = WINDOWS.iter().flat_map(|window| {
        functions.map(|functions| {
            format!(
                "SELECT window_start, window_end, auction, {functions} FROM {window} \
                 GROUP BY window_start, window_end, auction"
            )
        })
    });
    compare(queries, true).await;
}

/// Each of `texts` over each of the windows, in the place of `#`.
fn over_windows<'a>(texts: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let windows = WINDOWS.iter();
    windows.flat_map(|window| texts.iter().map(|text| text.replace('#', window)))
}

#[tokio::test]
async fn every_use_of_bounds() {
    let queries = [
        "SELECT window_end, count(*) FROM # GROUP BY window_end",
        "SELECT auction % 2, window_time, sum(price + 1) FROM # GROUP BY window_time, auction % 2",
        "SELECT auction, count(*) FROM # GROUP BY auction",
        "SELECT date_trunc('minute', window_end), count(*) FROM # GROUP BY 1",
        "SELECT window_start, count(*) FROM # WHERE window_end > '1970-01-01 00:00:00' GROUP BY window_start",
        "SELECT window_start, count(*) FROM # WHERE price > 10 AND window_end < '1970-01-01 00:00:09' GROUP BY window_start",
        "SELECT window_start, bidder, window_end - window_start, count(*) FROM # GROUP BY 1, 2, 3",
        "SELECT DISTINCT window_start, auction FROM #",
        "SELECT window_start, n, max(n) FROM (SELECT window_start, auction, count(*) AS n FROM # GROUP BY window_start, auction) GROUP BY 1, 2",
    ];
    compare(over_windows(&queries), true).await;
}

#[tokio::test]
async fn rows_that_know_their_window() {
    let queries = [
        "SELECT window_start, max(window_end - ts) FROM # GROUP BY window_start",
        "SELECT window_start, count(*) FROM # WHERE ts < window_end - INTERVAL '1 second' GROUP BY window_start",
        "SELECT window_end - ts, count(*) FROM # GROUP BY 1",
        "SELECT window_start, array_agg(price ORDER BY ts, bidder, auction, price) FROM # GROUP BY window_start",
        "SELECT count(*), max(window_end) FROM #",
        "SELECT window_start, auction, count(*) FROM # GROUP BY GROUPING SETS ((window_start), (window_start, auction))",
        "SELECT window_start, price FROM #",
    ];
    compare(over_windows(&queries), false).await;
}

const BY_ALL: &str = "GROUP BY window_start, window_end, auction";

/// The plan of a query over sliding windows for three partitions, after comparing its rows.
async fn plan_of(sql: &str) -> String {
    let (world, states) = world();
    let [_, [state, by_rows]] = states.as_slice() else { unreachable!() };
    let sql = sql.replace('#', WINDOWS[0]);
    let (plan, rows) = planned(&world, state, &sql).await;
    assert_eq!(rows, planned(&world, by_rows, &sql).await.1, "{sql}");
    assert!(!rows.is_empty(), "{sql}");
    plan
}

#[tokio::test]
async fn slices_are_distributed_by_keys() {
    for sql in [
        format!("SELECT window_start, auction, count(*), sum(price) FROM # {BY_ALL}"),
        format!("SELECT auction, window_time, max(price) FROM # {BY_ALL}, window_time"),
        format!(
            "SELECT window_end, auction, count(*) FROM # WHERE window_end < '1970-01-01 00:00:09' {BY_ALL}"
        ),
        format!(
            "SELECT window_start, max(n) FROM (SELECT window_start, auction, count(*) AS n FROM # {BY_ALL}) GROUP BY window_start"
        ),
        format!(
            "SELECT window_start, auction, count(*) AS n FROM # {BY_ALL} ORDER BY n, window_start, auction LIMIT 5"
        ),
    ] {
        let plan = plan_of(&sql).await;
        assert!(plan.contains("Hash([auction@1], 3)"), "{sql}\n{plan}");
        assert!(!plan.contains("Hash([window_start@0, window_end@1"), "{sql}\n{plan}");
    }
}

#[tokio::test]
async fn partitions_that_are_relied_on_are_kept() {
    let part = |what: &str| {
        format!("(SELECT window_start AS s, window_end AS e, auction, {what} AS n FROM # {BY_ALL})")
    };
    let (a, b) = (part("count(*)"), part("max(price)"));
    for sql in [
        format!(
            "SELECT a.s, a.auction, a.n, b.n FROM {a} AS a JOIN {b} AS b ON a.s = b.s AND a.e = b.e AND a.auction = b.auction"
        ),
        format!("SELECT s, auction, n, sum(n) OVER (PARTITION BY s, e, auction) FROM {a}"),
        format!("SELECT s, e, auction, sum(n) FROM ({a} UNION ALL {b}) GROUP BY s, e, auction"),
    ] {
        let plan = plan_of(&sql).await;
        assert!(plan.contains("window_slice"), "{sql}\n{plan}");
    }
    let coarse = "SELECT date_trunc('minute', window_end), auction, count(*) FROM # GROUP BY 1, 2";
    assert!(!plan_of(coarse).await.contains("Hash([auction@1], 3)"));
}
