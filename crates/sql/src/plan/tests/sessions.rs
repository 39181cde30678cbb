//! Sessions: their keys, and that both forms return the same rows.

use super::World;

async fn explained(sql: &str) -> String {
    let world = World::new();
    let plan = world.continuous(&format!("{sql} EMIT FINAL")).await;
    plan.unwrap_or_else(|e| panic!("{}", e.render(sql))).to_string()
}

/// Text of the plan per query.
const OPERATORS: &[(&str, &str)] = &[
    (
        "SELECT bidder, count(*) FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '1 second')
         GROUP BY bidder, window_start, window_end",
        "SESSION gap 1 s per [c1], keys [c1], aggregates [count(time)]",
    ),
    (
        "SELECT bidder, count(*) FROM SESSION(bid, ts, INTERVAL '1 second') GROUP BY bidder, window_end",
        "SESSION gap 1 s per [c1], keys [c1], aggregates [count(time)]",
    ),
    (
        "SELECT bidder, count(*) FROM bid GROUP BY bidder, SESSION(ts, INTERVAL '1 second')",
        "SESSION gap 1 s per [c1], keys [c1], aggregates [count(time)]",
    ),
    (
        "SELECT bidder % 3 AS third, count(*) FROM bid WINDOW SESSION (1 SECOND) GROUP BY third",
        "SESSION gap 1 s per [c1], keys [c1], aggregates [count(time)]",
    ),
    (
        "SELECT count(*) FROM SESSION(bid, ts, INTERVAL '1 second') GROUP BY window_start, window_end",
        "SESSION gap 1 s, keys [], aggregates [count(time)]",
    ),
    // Several groups in a session.
    (
        "SELECT bidder, auction, sum(price) FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '1 second')
         GROUP BY bidder, auction, window_start, window_end",
        "per [c2], keeps rows",
    ),
    // Groups across sessions.
    (
        "SELECT auction, sum(price) FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '1 second')
         GROUP BY auction, window_start, window_end",
        "per [c3], keeps rows",
    ),
    (
        "SELECT bidder, auction, sum(price) FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '1 second')
         GROUP BY GROUPING SETS ((window_end, bidder, auction), (window_end, auction))",
        "keeps rows",
    ),
    // Conditions apply after the sessions have been formed.
    (
        "SELECT bidder, count(*) FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '1 second') WHERE price > 50
         GROUP BY bidder, window_start, window_end",
        "keeps rows",
    ),
    ("SELECT * FROM SESSION(bid, ts, INTERVAL '1 second')", "SESSION gap 1 s, keeps rows"),
];

#[tokio::test]
async fn operators() {
    for (sql, text) in OPERATORS {
        let plan = explained(sql).await;
        assert!(plan.contains(text), "{sql}\n{plan}");
    }
}

#[tokio::test]
async fn conditions_on_keys_go_below_and_others_do_not() {
    let plan = explained(
        "SELECT * FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '1 second') WHERE bidder = 3 AND price > 50",
    )
    .await;
    assert!(
        plan.contains("reads bid [auction, bidder, price, channel, ts] where bidder = 3\n"),
        "{plan}"
    );
    let plan = explained(
        "SELECT bidder, count(*) FROM bid WHERE price > 50 GROUP BY bidder, SESSION(ts, INTERVAL '1 second')",
    )
    .await;
    assert!(plan.contains("where price > 50\n"), "{plan}");
}

const AGREE: &[&str] = &[
    "SELECT bidder, count(*), SESSION_END() FROM bid WHERE channel IN (SELECT code FROM channels)
     GROUP BY bidder, SESSION(ts, INTERVAL '2250 milliseconds')",
    "SELECT bidder, count(*), window_end FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds')
     WHERE channel IN (SELECT code FROM channels) GROUP BY bidder, window_start, window_end",
    "SELECT session(ts, INTERVAL '500 milliseconds') AS w, auction, count(*) FROM bid GROUP BY w, auction",
    "SELECT k, count(*), window_end FROM SESSION((SELECT bidder AS k, ts FROM bid UNION ALL SELECT id, ts FROM person)
     PARTITION BY k, ts, INTERVAL '1 second') GROUP BY k, window_start, window_end",
    "SELECT k, count(*), window_end FROM SESSION((SELECT auction AS k, ts FROM bid UNION ALL
       SELECT auction, window_time FROM TUMBLE(bid, ts, INTERVAL '1 second') GROUP BY auction, window_start, window_end, window_time)
     PARTITION BY k, ts, INTERVAL '300 milliseconds') GROUP BY k, window_start, window_end",
    "SELECT b.auction, p.id, count(*), SESSION_START() FROM bid b JOIN channels c ON b.channel = c.code
     JOIN (SELECT 3 AS id UNION ALL SELECT 4) p ON p.id = b.bidder
     WHERE c.title LIKE 'T%' AND window_end > TIMESTAMP '1970-01-01 00:00:01' GROUP BY b.auction, p.id, SESSION(b.ts, INTERVAL '3 seconds')",
    "SELECT * FROM SESSION(bid, ts, INTERVAL '20 milliseconds')",
    "SELECT bidder, price, window_start, window_end, window_time
     FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds') WHERE price % 2 = 0",
    "SELECT bidder, window_start, window_end, count(*), sum(price), count(DISTINCT auction),
     max(price) FILTER (WHERE auction > 2)
     FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds')
     GROUP BY bidder, window_start, window_end HAVING count(*) > 1",
    "SELECT channel, SESSION_START(ts, INTERVAL '500 milliseconds'), SESSION_END(), SESSION_ROWTIME(), count(*)
     FROM bid GROUP BY channel, SESSION(ts, INTERVAL '500 milliseconds')",
    "SELECT bidder % 3, auction, count(*), window_end FROM bid WHERE price > 20
     WINDOW SESSION (500 MILLISECONDS) GROUP BY bidder % 3, auction",
    "SELECT c.title, count(*), SESSION_END() FROM bid b JOIN channels c ON b.channel = c.code
     WHERE b.price > 10 GROUP BY c.title, SESSION(b.ts, INTERVAL '500 milliseconds')",
    "SELECT c.title, s.bidder, s.price, s.window_end
     FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds') s LEFT JOIN channels c ON s.channel = c.code",
    "SELECT bidder, auction, count(*), grouping(auction) FROM
     SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds')
     GROUP BY GROUPING SETS ((bidder, auction, window_start, window_end), (bidder, window_start, window_end))",
    "SELECT auction, count(*), window_end FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds')
     GROUP BY ROLLUP (auction), window_start, window_end",
    "SELECT * FROM (SELECT bidder, price, window_end, row_number() OVER
       (PARTITION BY bidder, window_end ORDER BY price DESC, ts) AS n
     FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds')) WHERE n <= 2",
    // Sessions with the same start and end.
    "SELECT a.bidder, b.id, a.window_end FROM
     (SELECT bidder, window_start, window_end, count(*) FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '50 milliseconds')
      GROUP BY bidder, window_start, window_end) a
     JOIN SESSION(person PARTITION BY id, ts, INTERVAL '50 milliseconds') b
     ON a.window_start = b.window_start AND a.window_end = b.window_end",
    // Windows over sessions, and sessions over windows.
    "SELECT window_end, sum(n), count(*) FROM TUMBLE((SELECT bidder, count(*) AS n, window_time AS t
       FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds')
       GROUP BY bidder, window_start, window_end, window_time), t, INTERVAL '1 second')
     GROUP BY window_start, window_end",
    "SELECT auction, window_start, window_end, sum(n) FROM SESSION((SELECT auction, count(*) AS n, window_time AS t
       FROM TUMBLE(bid, ts, INTERVAL '20 milliseconds')
       GROUP BY auction, window_start, window_end, window_time) PARTITION BY auction, t, INTERVAL '40 milliseconds')
     GROUP BY auction, window_start, window_end",
    "SELECT window_start, window_end, count(*) FROM SESSION((SELECT window_start AS s
       FROM TUMBLE(bid, ts, INTERVAL '20 milliseconds')), s, INTERVAL '20 milliseconds') GROUP BY window_start, window_end",
    "SELECT window_end, count(*) FROM TUMBLE(
       SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds'), window_time, INTERVAL '1 second') GROUP BY window_end",
    "SELECT window_end, count(*) FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '50 milliseconds') GROUP BY window_end
     UNION ALL SELECT window_end, 0 FROM TUMBLE(bid, ts, INTERVAL '1 second') GROUP BY window_end",
    "WITH s AS (SELECT bidder, window_start, window_end, count(*) AS n
       FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds') GROUP BY bidder, window_start, window_end)
     SELECT bidder, n FROM s WHERE n > 2",
    "SELECT DISTINCT bidder, window_end FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds')",
    "SELECT bidder, array_agg(price ORDER BY price), window_end
     FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 milliseconds') GROUP BY bidder, window_start, window_end",
    "SELECT k, count(*), window_end FROM SESSION((SELECT CAST(bidder % 3 AS DOUBLE) / CAST(auction % 2 AS DOUBLE) AS k, ts FROM bid)
       PARTITION BY k, ts, INTERVAL '500 milliseconds') GROUP BY k, window_start, window_end",
    "SELECT lower(channel), count(*), window_end
     FROM SESSION(bid PARTITION BY (lower(channel), auction), ts, INTERVAL '500 milliseconds')
     GROUP BY lower(channel), auction, window_start, window_end",
];

#[tokio::test]
async fn both_forms_agree() {
    let world = World::new();
    for sql in AGREE {
        world.agree(sql).await;
    }
}

#[tokio::test]
async fn spellings_mean_the_same() {
    let world = World::new();
    let mut rows = vec![];
    for sql in [
        "SELECT bidder, window_start, window_end, count(*) FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '2250 ms')
         GROUP BY bidder, window_start, window_end",
        "SELECT bidder, window_start, window_end, count(*) FROM SESSION(bid, ts, INTERVAL '2250 ms') b
         GROUP BY 1, 2, 3",
        "SELECT bidder, window_start, window_end, count(*) FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts),
         INTERVAL '2.250' SECONDS)) GROUP BY bidder, window_start, window_end",
        "SELECT bidder, window_start, window_end, count(*) FROM TABLE(SESSION(TABLE bid, DESCRIPTOR(ts), DESCRIPTOR(bidder),
         INTERVAL '2.250' SECONDS)) GROUP BY bidder, window_start, window_end",
        "SELECT bidder, SESSION_START(ts, INTERVAL '2250 ms'), SESSION_END(), count(*) FROM bid
         GROUP BY SESSION(ts, INTERVAL '2250 ms'), bidder",
        "SELECT bidder, window_start, window_end, count(*) FROM bid b WINDOW SESSION (2250 MILLISECONDS) GROUP BY b.bidder",
    ] {
        rows.push((sql, world.bounded_rows(sql).await));
    }
    for (sql, found) in &rows {
        assert_eq!(*found, rows[0].1, "{sql}");
    }
}

#[tokio::test]
async fn a_view_of_sessions_means_the_same_under_any_group() {
    let world = World::new();
    world.view("of_all", "SELECT * FROM SESSION(bid, ts, INTERVAL '20 milliseconds')").await;
    let grouped = "GROUP BY bidder, window_start, window_end";
    let of_view = world
        .bounded_rows(&format!("SELECT bidder, window_end, count(*) FROM of_all {grouped}"))
        .await;
    let plain = "(SELECT * FROM SESSION(bid, ts, INTERVAL '20 milliseconds'))";
    let of_subquery = world
        .bounded_rows(&format!("SELECT bidder, window_end, count(*) FROM {plain} {grouped}"))
        .await;
    assert_eq!(of_view, of_subquery);
    let of_each = "SESSION(bid, ts, INTERVAL '20 milliseconds')";
    let of_each = world
        .bounded_rows(&format!("SELECT bidder, window_end, count(*) FROM {of_each} {grouped}"))
        .await;
    assert_ne!(of_view, of_each);
    world.agree(&format!("SELECT bidder, window_end, count(*) FROM of_all {grouped}")).await;
}

/// Query, part of the message, part of a hint.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "SELECT bidder, unnest(make_array(1, 2)) AS x, count(*) FROM bid GROUP BY bidder, x, SESSION(ts, INTERVAL '1 s')",
        "GROUP BY does not determine the keys of SESSION",
        "PARTITION BY",
    ),
    (
        "SELECT bidder, unnest(make_array(1, 2)) AS x, count(*) FROM SESSION(bid, ts, INTERVAL '1 s')
         GROUP BY bidder, x, window_start, window_end",
        "GROUP BY does not determine the keys of SESSION",
        "PARTITION BY",
    ),
    (
        "SELECT count(*) FROM bid GROUP BY random() > 0.5, SESSION(ts, INTERVAL '1 s')",
        "another value each time",
        "column of the stream",
    ),
    (
        "SELECT bidder, count(*) FROM bid GROUP BY GROUPING SETS ((bidder, SESSION(ts, INTERVAL '1 s')), (SESSION(ts, INTERVAL '1 s')))",
        "the grouping sets have different keys",
        "PARTITION BY",
    ),
    (
        "SELECT c.title, count(*) FROM SESSION(bid, ts, INTERVAL '1 s') b JOIN channels c ON b.channel = c.code
         GROUP BY c.title, window_start, window_end",
        "\"c.title\" is not a column of its input",
        "PARTITION BY",
    ),
    (
        "SELECT count(*) FROM SESSION(bid, ts, INTERVAL '1 s') GROUP BY window_end, window_end - ts",
        "depends on a session and on its rows",
        "PARTITION BY",
    ),
    (
        "SELECT a.bidder, count(*) FROM SESSION(bid, ts, INTERVAL '1 s') a JOIN SESSION(person, ts, INTERVAL '1 s') b
         ON a.window_start = b.window_start AND a.window_end = b.window_end GROUP BY a.bidder, a.window_start, a.window_end",
        "more than one SESSION",
        "PARTITION BY",
    ),
    (
        "SELECT count(*) FROM bid b JOIN channels c ON b.window_end IS NOT NULL GROUP BY SESSION(b.ts, INTERVAL '1 s')",
        "refers to a session that is formed of the joined rows",
        "subquery",
    ),
    (
        "SELECT window_start, count(*) FROM SESSION(bid PARTITION BY bidder, ts, INTERVAL '1 s') GROUP BY bidder, window_start",
        "goes across windows",
        "window_end",
    ),
    (
        "SELECT window_end, count(*) FROM TUMBLE(SESSION(bid PARTITION BY bidder, ts, INTERVAL '1 s'), ts, INTERVAL '1 s')
         GROUP BY window_end",
        "column \"ts\" is not the event time",
        "window_time",
    ),
];

#[tokio::test]
async fn what_does_not_tell_sessions_is_refused() {
    let world = World::new();
    for (sql, message, hint) in REFUSED {
        let sql = format!("{sql} EMIT FINAL");
        let error = match world.continuous(&sql).await {
            Err(error) => error,
            Ok(plan) => panic!("not refused: {sql}\n{plan}"),
        };
        assert!(error.message().contains(message), "{sql}\n{}", error.render(&sql));
        assert!(error.hints().join(" ").contains(hint), "{sql}\n{}", error.render(&sql));
    }
}
