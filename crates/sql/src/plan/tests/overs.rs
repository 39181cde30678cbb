//! OVER in event time: which functions and frames run row by row, what they keep, and both forms of each.

use super::{Flow, World};

/// A call, its OVER, and what EXPLAIN says that it keeps.
const CALLS: &[(&str, &str, &str)] = &[
    ("row_number()", "PARTITION BY bidder ORDER BY ts, price, auction", "keeps a result per key"),
    ("rank()", "PARTITION BY channel ORDER BY ts", "keeps a result per key"),
    ("dense_rank()", "ORDER BY ts", "keeps a result per key"),
    (
        "sum(price)",
        "PARTITION BY bidder ORDER BY ts",
        "RANGE UNBOUNDED PRECEDING to CURRENT ROW], keeps a",
    ),
    (
        "sum(price)",
        "PARTITION BY bidder ORDER BY ts, price, auction ROWS 3 PRECEDING",
        "ROWS 3 PRECEDING to CURRENT ROW], keeps the last 3 rows of each key",
    ),
    (
        "count(DISTINCT channel)",
        "ORDER BY ts RANGE INTERVAL '1' SECOND PRECEDING",
        "RANGE 1 s PRECEDING to CURRENT ROW], keeps the rows of the last 1 s",
    ),
    (
        "max(price) FILTER (WHERE auction > 2)",
        "PARTITION BY bidder + 1 ORDER BY ts RANGE BETWEEN INTERVAL '2 seconds' PRECEDING AND INTERVAL '10 milliseconds' PRECEDING",
        "RANGE 2 s PRECEDING to 10 ms PRECEDING",
    ),
    (
        "lag(price, 2, 0)",
        "PARTITION BY bidder ORDER BY ts, price, auction",
        "ROWS 2 PRECEDING to 2 PRECEDING], keeps the last 2 rows of each key",
    ),
    (
        "lead(channel)",
        "PARTITION BY bidder ORDER BY ts, price, auction",
        "rows wait for 1 more of their key, however long, keeps the last 1 rows of each key",
    ),
    (
        "avg(price)",
        "PARTITION BY bidder ORDER BY ts RANGE BETWEEN CURRENT ROW AND INTERVAL '1 second' FOLLOWING",
        "rows wait 1 s, keeps the rows of the last 1 s",
    ),
    (
        "first_value(channel) IGNORE NULLS",
        "PARTITION BY bidder ORDER BY ts, price, auction ROWS UNBOUNDED PRECEDING",
        "keeps a result per key",
    ),
    ("last_value(price)", "ORDER BY ts, price, auction ROWS UNBOUNDED PRECEDING", "keeps nothing"),
    ("approx_distinct(channel)", "PARTITION BY bidder ORDER BY ts", "keeps a result per key"),
    ("median(price)", "PARTITION BY bidder ORDER BY ts", "keeps a result per key"),
    ("stddev(price)", "PARTITION BY bidder ORDER BY ts", "keeps a result per key"),
];

#[tokio::test]
async fn both_forms_of_a_function_agree() {
    let world = World::new();
    for (call, over, kept) in CALLS {
        let sql = format!("SELECT auction, price, {call} OVER ({over}) AS value FROM bid");
        let plan = world.continuous(&sql).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
        assert!(plan.to_string().contains(kept), "{sql}\n{plan}");
        world.agree(&sql).await;
    }
}

#[tokio::test]
async fn functions_go_wherever_a_stream_does() {
    let world = World::new();
    let over = "SELECT *, count(*) OVER (PARTITION BY auction ORDER BY ts) AS n FROM bid";
    for sql in [
        format!("SELECT price + 1, n FROM ({over}) WHERE n < 3 AND auction <> 4"),
        format!("SELECT o.n, c.title FROM ({over}) o LEFT JOIN channels c ON c.code = o.channel"),
        format!("SELECT n FROM ({over}) UNION ALL SELECT price FROM bid"),
        format!("SELECT window_end, max(n) FROM TUMBLE(({over}), ts, INTERVAL '1 second') GROUP BY window_end"),
        format!("SELECT o.n, p.id FROM ({over}) o JOIN person p ON o.bidder = p.id AND o.ts BETWEEN p.ts AND p.ts + INTERVAL '1 second'"),
        format!("SELECT n, sum(n) OVER (ORDER BY ts RANGE INTERVAL '100 milliseconds' PRECEDING) FROM ({over})"),
        "SELECT price FROM bid QUALIFY row_number() OVER (PARTITION BY bidder ORDER BY ts, price, auction) = 1".to_owned(),
        "SELECT window_end, n, n - lag(n) OVER (ORDER BY window_end) FROM \
         (SELECT window_end, count(*) AS n FROM TUMBLE(bid, ts, INTERVAL '1 second') GROUP BY window_end)"
            .to_owned(),
        "SELECT lead(price) OVER (PARTITION BY bidder ORDER BY ts, price, auction), count(*) OVER (ORDER BY ts), \
         max(price) OVER (ORDER BY ts RANGE BETWEEN CURRENT ROW AND INTERVAL '1 second' FOLLOWING), \
         sum(price) OVER (PARTITION BY channel ORDER BY ts) FROM bid"
            .to_owned(),
    ] {
        world.agree(&sql).await;
    }
}

#[tokio::test]
async fn the_event_time_goes_through() {
    let world = World::new();
    for (sql, expected) in [
        ("SELECT price, ts, count(*) OVER (ORDER BY ts) FROM bid", vec![(1, 0)]),
        (
            "SELECT ts, count(*) OVER (ORDER BY ts RANGE BETWEEN CURRENT ROW AND INTERVAL '2 seconds' FOLLOWING) FROM bid",
            vec![(0, 2_000)],
        ),
        ("SELECT ts, lead(price) OVER (ORDER BY ts) FROM bid", vec![]),
    ] {
        let plan = world.continuous(sql).await.unwrap();
        let found: Vec<_> = plan.event_times.iter().map(|t| (t.column, t.lag_ticks)).collect();
        assert_eq!(found, expected, "{sql}");
        let Flow::Stage(stage) = &plan.root else { panic!("{plan}") };
        assert!(stage.row_wise, "{plan}");
    }
}
