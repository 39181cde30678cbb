//! The messages for queries that cannot run continuously.

use super::World;

/// Query, part of the message, part of a hint.
const SHAPES: &[(&str, &str, &str)] = &[
        (
            "SELECT auction, count(*) FROM bid GROUP BY auction",
            "GROUP BY on stream \"bid\" without a window never ends",
            "FROM TUMBLE(bid, ts, INTERVAL '1 minute')",
        ),
        ("SELECT count(*) FROM bid", "an aggregate on stream \"bid\" without a window", "TUMBLE"),
        ("SELECT DISTINCT auction FROM bid", "DISTINCT on stream \"bid\"", "TUMBLE"),
        ("SELECT price FROM bid ORDER BY price", "ORDER BY on stream \"bid\"", "TUMBLE"),
        ("SELECT price FROM bid LIMIT 3", "LIMIT on stream \"bid\"", "TUMBLE"),
        (
            "SELECT row_number() OVER (ORDER BY price) FROM bid",
            "OVER on stream \"bid\" is not ordered by its event time",
            "ORDER BY ts",
        ),
        (
            "SELECT b.price FROM bid b JOIN person p ON b.bidder = p.id",
            "a join of stream \"bid\" and stream \"person\" without a window",
            "a.window_end = b.window_end",
        ),
        (
            "SELECT b.price FROM TUMBLE(bid, ts, INTERVAL '1 second') b JOIN person p ON b.bidder = p.id",
            "a join of stream \"bid\" and stream \"person\" without a window",
            "a.window_end = b.window_end",
        ),
        (
            "SELECT b.price FROM TUMBLE(bid, ts, INTERVAL '1 second') b
             JOIN TUMBLE(person, ts, INTERVAL '1 second') p ON b.bidder = p.id",
            "goes across windows",
            "a.window_end = b.window_end",
        ),
        (
            "SELECT auction, count(*) FROM TUMBLE(bid, ts, INTERVAL '1 second') GROUP BY auction",
            "GROUP BY over windows of stream \"bid\" goes across windows",
            "Add window_start, window_end",
        ),
        (
            "SELECT window_start, count(*) FROM CUMULATE(bid, ts, INTERVAL '1 second', INTERVAL '4 seconds')
             GROUP BY window_start",
            "goes across windows",
            "window_end",
        ),
        (
            "SELECT window_end, auction, count(*) FROM TUMBLE(bid, ts, INTERVAL '1 second')
             GROUP BY ROLLUP (window_end, auction)",
            "goes across windows",
            "every grouping set",
        ),
        (
            "SELECT row_number() OVER (PARTITION BY auction ORDER BY price) FROM TUMBLE(bid, ts, INTERVAL '1 second')",
            "OVER over windows of stream \"bid\" goes across windows",
            "PARTITION BY",
        ),
        (
            "SELECT c.title, b.price FROM channels c LEFT JOIN bid b ON b.channel = c.code",
            "Left JOIN of stream \"bid\" with a table keeps the table's unmatched rows",
            "Keep the stream's rows",
        ),
        (
            "SELECT window_end, count(*) FROM TUMBLE(bid, ts, INTERVAL '1 second') GROUP BY window_end
             UNION ALL SELECT ts, price FROM bid",
            "UNION of closed windows",
            "two queries",
        ),
        (
            "SELECT window_end, count(*) FROM TUMBLE(auction, expires, INTERVAL '1 second') GROUP BY window_end",
            "column \"expires\" is not the event time of stream \"auction\"",
            "Use \"ts\"",
        ),
        (
            "SELECT window_end, count(*) FROM TUMBLE(log, at, INTERVAL '1 second') GROUP BY window_end",
            "column \"at\" is not the event time of stream \"log\"",
            "WATERMARK FOR at AS at",
        ),
        (
            "SELECT window_end, count(*) FROM TUMBLE((SELECT ts + INTERVAL '1 second' AS t FROM bid),
             t, INTERVAL '1 second') GROUP BY window_end",
            "column \"t\" is not the event time",
            "unchanged",
        ),
        ("SELECT * FROM channels", "EMIT needs a stream", "Leave EMIT out"),
        (
            "SELECT price FROM bid WHERE price > (SELECT avg(price) FROM bid)",
            "a subquery as a value cannot read stream \"bid\"",
            "Join it",
        ),
];

#[tokio::test]
async fn shapes_that_never_end() {
    let world = World::new();
    for (sql, message, hint) in SHAPES {
        let sql = format!("{sql} EMIT FINAL");
        let error = match world.continuous(&sql).await {
            Err(error) => error,
            Ok(plan) => panic!("not refused: {sql}\n{plan}"),
        };
        assert!(error.message().contains(message), "{sql}\n{}", error.render(&sql));
        assert!(error.hints().join(" ").contains(hint), "{sql}\n{}", error.render(&sql));
    }
}

#[tokio::test]
async fn window_functions() {
    let world = World::new();
    for (from, message, hint) in [
        (
            "HOP(bid, ts, INTERVAL '1 day', INTERVAL '1 month')",
            "not both days or both months",
            "CUMULATE",
        ),
        ("TUMBLE(bid, ts, INTERVAL '0 seconds')", "size must be positive", ""),
        ("HOP(bid, ts, INTERVAL '3 seconds', INTERVAL '1 second')", "longer than its size", "swap"),
        ("CUMULATE(bid, ts, INTERVAL '3 s', INTERVAL '7 s')", "not a multiple", ""),
        ("SESSION(bid, ts, INTERVAL '0 s')", "gap of SESSION must be positive", ""),
        ("SESSION(bid, ts, INTERVAL '-1 s')", "gap of SESSION must be positive", ""),
        ("SESSION(bid, ts, INTERVAL '1 month')", "months and years", "days"),
        ("SESSION(bid, ts, 5)", "gap of SESSION must be an interval", "INTERVAL"),
        ("SESSION(bid, ts, INTERVAL '1 s', INTERVAL '1 s')", "a gap and no offset", "first row"),
        (
            "SESSION(bid, ts, gap => INTERVAL '1 s', offset => INTERVAL '1 s')",
            "a gap and no offset",
            "first row",
        ),
        (
            "SESSION(bid PARTITION BY random(), ts, INTERVAL '1 s')",
            "another value each time",
            "column",
        ),
        ("SESSION(bid PARTITION BY nobody, ts, INTERVAL '1 s')", "nobody", ""),
        ("SESSION(log, at, INTERVAL '1 s')", "is not the event time", "WATERMARK FOR"),
        ("TUMBLE(bid, auction, INTERVAL '1 second')", "\"auction\" is BIGINT", "CAST"),
        ("TUMBLE(bid, ts)", "arguments of TUMBLE are wrong", ""),
        ("HOP(bid, ts, INTERVAL '1 second')", "arguments of HOP are wrong", ""),
        ("TUMBLE(log, INTERVAL '1 second')", "TUMBLE has no time column", "WATERMARK FOR"),
        ("TUMBLE(bid, ts, 5)", "size of TUMBLE must be an interval", "INTERVAL"),
        ("TUMBLE(bid, ts, width => INTERVAL '1 s')", "no argument \"width\"", "size, offset"),
        ("TUMBLE(bid, ts, INTERVAL '1 nanosecond')", "whole number", ""),
    ] {
        let sql = format!("SELECT * FROM {from} EMIT FINAL");
        let error = match world.continuous(&sql).await {
            Err(error) => error,
            Ok(plan) => panic!("not refused: {sql}\n{plan}"),
        };
        assert!(error.message().contains(message), "{sql}\n{}", error.render(&sql));
        assert!(error.hints().join(" ").contains(hint), "{sql}\n{}", error.render(&sql));
    }
}

#[tokio::test]
async fn tails() {
    let world = World::new();
    let windows =
        "SELECT window_end, count(*) FROM TUMBLE(bid, ts, INTERVAL '1 s') GROUP BY window_end";
    for (tail, message) in [
        (
            "EMIT FINAL AND TIMEOUT INTERVAL '1 second'",
            "AND TIMEOUT is not yet part of this version",
        ),
        ("ORDER BY 2 EMIT CHANGES", "ORDER BY without LIMIT has no meaning for early results"),
    ] {
        let error = world.continuous(&format!("{windows} {tail}")).await.unwrap_err();
        assert!(error.message().contains(message), "{}", error.message());
    }
    for (sql, message) in [
        ("SELECT price FROM bid EMIT EVERY INTERVAL '1 second'", "emitted at once"),
        ("SELECT price FROM bid EMIT CHANGES WITH DELAY INTERVAL '1 second'", "the query has none"),
        (
            "SELECT count(*) FROM bid EMIT CHANGES WITH DELAY INTERVAL '1 second'",
            "the query has none",
        ),
    ] {
        let error = world.continuous(sql).await.unwrap_err();
        assert!(error.message().contains(message), "{}", error.message());
    }
    assert!(world.continuous("SELECT price FROM bid EMIT CHANGES").await.is_ok());
    let plan = world
        .continuous(&format!("{windows} EMIT FINAL ALLOW LATENESS INTERVAL '3 seconds' WITH DELAY INTERVAL '1 second'"))
        .await
        .unwrap();
    let super::Flow::Stage(stage) = plan.root else { panic!("not windows") };
    assert_eq!(stage.operators[0].inputs[0].lateness_ticks, 4_000);
}
