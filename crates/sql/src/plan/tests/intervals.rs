//! Joins of streams within a time interval: which conditions are bounds, and both forms of each.

use super::{Flow, LeafSource, World};

/// Joins of bids with people, as conditions; all of them have both bounds.
const BOUNDED: &[(&str, &str)] = &[
    ("b.ts BETWEEN p.ts - INTERVAL '1 second' AND p.ts + INTERVAL '2 seconds'", "from -1 s to 2 s"),
    (
        "b.ts >= p.ts - INTERVAL '1 second' AND b.ts <= p.ts + INTERVAL '2 seconds'",
        "from -1 s to 2 s",
    ),
    (
        "p.ts <= b.ts + INTERVAL '1 second' AND p.ts >= b.ts - INTERVAL '2 seconds'",
        "from -1 s to 2 s",
    ),
    (
        "b.ts + INTERVAL '1 second' > p.ts AND b.ts - INTERVAL '2 seconds' < p.ts",
        "from -999 ms to 1999 ms",
    ),
    ("b.ts BETWEEN p.ts + INTERVAL '1 second' AND p.ts + INTERVAL '3 seconds'", "from 1 s to 3 s"),
    (
        "b.ts BETWEEN p.ts - INTERVAL '3 seconds' AND p.ts - INTERVAL '1 second'",
        "from -3 s to -1 s",
    ),
    ("b.ts = p.ts", "from 0 s to 0 s"),
    ("b.ts = p.ts + INTERVAL '173 milliseconds'", "from 173 ms to 173 ms"),
    (
        "b.ts >= p.ts AND b.ts < p.ts + INTERVAL '1 minute' AND b.ts < p.ts + INTERVAL '4 seconds'",
        "from 0 s to 3999 ms",
    ),
    ("b.ts >= p.ts AND b.ts < p.ts + INTERVAL '1 day'", "from 0 s to 86399999 ms"),
];

#[tokio::test]
async fn bounds_are_found_in_any_form() {
    let world = World::new();
    for (bounds, described) in BOUNDED {
        for keys in ["b.bidder = p.id", "b.bidder + 1 = p.id + 1 AND b.channel = p.name", "true"] {
            let sql = format!(
                "SELECT b.price, p.id, b.ts, p.ts AS other FROM bid b JOIN person p ON {keys} AND {bounds}"
            );
            let plan = world.continuous(&sql).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
            assert!(plan.to_string().contains(described), "{sql}\n{plan}");
            // Few pairs have one exact distance.
            if keys == "b.bidder = p.id" && !described.contains("173") {
                world.agree(&sql).await;
            }
        }
    }
}

#[tokio::test]
async fn rows_without_a_partner_are_the_same_in_both_forms() {
    let world = World::new();
    let near = "b.ts BETWEEN p.ts - INTERVAL '1 second' AND p.ts + INTERVAL '2 seconds'";
    for keys in ["b.bidder = p.id", "b.bidder = p.id AND b.price > 50 AND p.id <> b.auction"] {
        for kind in ["LEFT", "RIGHT", "FULL"] {
            let sql = format!(
                "SELECT b.price, b.ts, p.id FROM bid b {kind} JOIN person p ON {keys} AND {near}"
            );
            world.agree(&sql).await;
        }
        for is in ["", "NOT "] {
            let sql = format!(
                "SELECT b.price, b.ts FROM bid b WHERE {is}EXISTS (SELECT 1 FROM person p WHERE {keys} AND {near})"
            );
            world.agree(&sql).await;
        }
    }
}

#[tokio::test]
async fn the_closest_row_is_the_same_in_both_forms() {
    let world = World::new();
    let tolerance = "p.ts <= b.ts + INTERVAL '3 seconds' AND p.ts >= b.ts - INTERVAL '3 seconds'";
    let (before, after) = tolerance.split_once(" AND ").unwrap();
    for kind in ["ASOF", "ASOF LEFT"] {
        for order in [
            "b.ts >= p.ts".to_owned(),
            "b.ts > p.ts".to_owned(),
            format!("b.ts >= p.ts AND {after}"),
            format!("b.ts <= p.ts AND {before}"),
            format!("b.ts < p.ts AND {before}"),
        ] {
            for keys in ["b.bidder = p.id AND", "b.channel = p.name AND", ""] {
                let sql = format!(
                    "SELECT b.price, b.ts, p.id, p.name FROM bid b {kind} JOIN person p ON {keys} {order}"
                );
                world.agree(&sql).await;
            }
        }
    }
}

#[tokio::test]
async fn a_join_goes_wherever_a_stream_does() {
    let world = World::new();
    let join = "bid b JOIN person p ON b.bidder = p.id AND b.ts BETWEEN p.ts - INTERVAL '1 second' AND p.ts + INTERVAL '2 seconds'";
    for sql in [
        format!("SELECT b.price + 1, p.name FROM {join} WHERE b.price > 50 AND p.id <> b.auction"),
        format!("SELECT b.price, c.title FROM {join} LEFT JOIN channels c ON c.code = p.name"),
        format!("SELECT b.price FROM {join} UNION ALL SELECT price FROM bid"),
        format!(
            "SELECT window_end, count(*), max(price) FROM TUMBLE((SELECT b.ts, b.price FROM {join}), ts, INTERVAL '1 second') \
             GROUP BY window_end"
        ),
        format!(
            "SELECT window_end, price FROM (SELECT window_end, price, row_number() OVER (PARTITION BY window_start, window_end \
             ORDER BY price DESC, id) AS r FROM TUMBLE((SELECT greatest(b.ts, p.ts) AS at, b.price, p.id FROM {join}), at, \
             INTERVAL '3 seconds')) WHERE r = 1"
        ),
        format!(
            "SELECT j.price, a.id FROM (SELECT b.price, b.auction, p.ts FROM {join}) j JOIN auction a \
             ON j.auction = a.seller AND a.ts BETWEEN j.ts AND j.ts + INTERVAL '1 second'"
        ),
        "SELECT a.price, b.price FROM bid a JOIN bid b ON a.auction = b.auction AND a.price < b.price \
         AND b.ts BETWEEN a.ts - INTERVAL '300 milliseconds' AND a.ts"
            .to_owned(),
        "SELECT b.price, p.id FROM TUMBLE(bid, ts, INTERVAL '1 second') b JOIN TUMBLE(person, ts, INTERVAL '2 seconds') p \
         ON b.window_start = p.window_start AND b.bidder = p.id"
            .to_owned(),
        "SELECT w.n, p.id FROM (SELECT window_time, count(*) AS n FROM TUMBLE(bid, ts, INTERVAL '1 second') GROUP BY window_time) w \
         JOIN person p ON p.ts > w.window_time AND p.ts <= w.window_time + INTERVAL '1 second'"
            .to_owned(),
    ] {
        world.agree(&sql).await;
    }
}

#[tokio::test]
async fn the_times_of_a_pair_are_event_times() {
    let plan = World::new()
        .continuous(
            "SELECT p.ts AS later, b.price, greatest(p.ts, b.ts), b.ts, b.ts + INTERVAL '1 second' FROM bid b JOIN person p \
             ON b.bidder = p.id AND b.ts BETWEEN p.ts - INTERVAL '1 second' AND p.ts + INTERVAL '2 seconds'",
        )
        .await
        .unwrap();
    let found: Vec<_> = plan.event_times.iter().map(|t| (t.column, t.lag_ticks)).collect();
    assert_eq!(found, [(0, 2_000), (2, 1_000), (3, 1_000)]);
    let Flow::Stage(stage) = &plan.root else { panic!("{plan}") };
    assert!(stage.row_wise, "{plan}");
    assert_eq!(stage.operators[0].inputs.len(), 2);
    let inputs = stage.operators[0].inputs.iter();
    assert!(
        inputs
            .flat_map(|i| &i.flow.leaves)
            .all(|leaf| matches!(leaf.from, LeafSource::Stream { .. }))
    );
}

#[tokio::test]
async fn without_both_bounds_a_join_is_refused() {
    let world = World::new();
    for (bounds, message) in [
        ("true", "without a window and without bounds of their event times"),
        ("b.ts > p.ts", "no upper bound of \"b.ts\""),
        ("b.ts < p.ts", "no lower bound of \"b.ts\""),
        ("b.ts BETWEEN p.ts AND p.ts + INTERVAL '1 month'", "no upper bound of \"b.ts\""),
        // Less than a tick of the columns.
        ("b.ts BETWEEN p.ts AND p.ts + INTERVAL '1 microsecond'", "no upper bound of \"b.ts\""),
        ("b.ts BETWEEN p.ts AND p.ts + p.id * INTERVAL '1 second'", "no upper bound of \"b.ts\""),
    ] {
        let sql =
            format!("SELECT b.price FROM bid b JOIN person p ON b.bidder = p.id AND {bounds}");
        let error = world.continuous(&sql).await.unwrap_err();
        assert!(error.message().contains(message), "{sql}: {}", error.message());
        assert!(!error.hints().is_empty(), "{sql}");
    }
    for kind in ["LEFT", "FULL", "LEFT SEMI", "LEFT ANTI"] {
        let sql = format!("SELECT b.price FROM bid b {kind} JOIN person p ON b.bidder = p.id");
        let error = world.continuous(&sql).await.unwrap_err();
        assert!(error.message().contains("without bounds"), "{sql}: {}", error.message());
    }
}
