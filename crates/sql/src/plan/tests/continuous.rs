//! The continuous form returns the rows of the bounded form.

use super::{World, int, ints, times, ts};
use crate::plan::Flow;

const TUMBLE: &str = "TUMBLE(bid, ts, INTERVAL '2 seconds')";
const HOP: &str = "HOP(bid, ts, INTERVAL '700 milliseconds', INTERVAL '2 seconds')";

#[tokio::test]
async fn aggregates() {
    let world = World::new();
    for sql in [
        "SELECT window_start, window_end, count(*) FROM {W} GROUP BY window_start, window_end",
        "SELECT window_end, auction, count(*) AS n, sum(price) AS s, max(price), avg(price)
         FROM {W} GROUP BY window_end, auction",
        "SELECT auction, window_time, min(ts), max(ts) FROM {W} WHERE price > 20 AND channel = 'web'
         GROUP BY auction, window_time",
        "SELECT window_start, price % 3 AS r, count(*) FILTER (WHERE bidder > 4) AS f, count(channel)
         FROM {W} GROUP BY window_start, price % 3 HAVING count(*) > 1",
        "SELECT window_end, count(DISTINCT bidder) AS d FROM {W} GROUP BY window_end",
        "SELECT window_end, count(DISTINCT bidder) AS d, count(DISTINCT auction) AS e, sum(price)
         FROM {W} GROUP BY window_end",
        "SELECT window_end, DISTINCTS.auction FROM (SELECT DISTINCT window_end, auction FROM {W}) distincts",
        "SELECT DISTINCT window_end, auction FROM {W}",
        "SELECT upper(channel) AS c, window_end, lower(channel) AS l, count(*) FROM {W}
         GROUP BY upper(channel), lower(channel), window_end",
        "SELECT window_end, date_trunc('minute', window_start) AS m, count(*) FROM {W}
         GROUP BY window_end, date_trunc('minute', window_start)",
        "SELECT window_end, sum(CASE WHEN price > 50 THEN 1 ELSE 0 END) AS high, sum(price * 2) + 1
         FROM {W} GROUP BY window_end",
        "SELECT window_end, auction, channel, count(*) AS n, grouping(auction) AS g FROM {W}
         GROUP BY GROUPING SETS ((window_end, auction), (window_end, channel), (window_end))",
        "SELECT window_end, auction, count(*) AS n, grouping(channel) AS g FROM {W}
         GROUP BY window_end, CUBE (auction, channel)",
        "SELECT window_end, string_agg(channel, ',' ORDER BY ts, price) AS all_channels FROM {W}
         GROUP BY window_end",
        "SELECT window_end, max(ts) = window_end AS x, max(window_end - ts) FROM {W} GROUP BY window_end",
        "SELECT window_end, approx_percentile_cont(price, 0.5) IS NULL, stddev(price) > 0 FROM {W} GROUP BY window_end",
        "SELECT w.window_end, count(*) FROM {W} AS w WHERE w.window_start > TIMESTAMP '1970-01-01 00:00:03'
         GROUP BY w.window_end",
    ] {
        for window in [TUMBLE, HOP, "CUMULATE(bid, ts, INTERVAL '1 second', INTERVAL '4 seconds')"] {
            if window.starts_with("CUMULATE") && !sql.contains("window_end") {
                continue;
            }
            let mut sql = sql.replace("{W}", window);
            if window.starts_with("CUMULATE") {
                sql = sql.replace("window_time", "window_end");
            }
            world.agree(&sql).await;
        }
    }
}

#[tokio::test]
async fn spellings() {
    let world = World::new();
    for sql in [
        "SELECT window_end, count(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '2' SECOND))
         GROUP BY window_end",
        "SELECT window_end, count(*) FROM TUMBLE(bid, INTERVAL '2 seconds') GROUP BY window_end",
        "SELECT window_end, count(*) FROM TUMBLE(data => bid, size => INTERVAL '2 seconds',
         offset => INTERVAL '500 milliseconds', timecol => ts) GROUP BY window_end",
        "SELECT auction, count(*) FROM bid GROUP BY TUMBLE(ts, INTERVAL '2 seconds'), auction",
        "SELECT auction, count(*) FROM bid WINDOW TUMBLING (SIZE 2 SECONDS) GROUP BY auction",
        "WITH b AS (SELECT auction a, ts t FROM bid WHERE price > 10)
         SELECT window_start, a, count(*) FROM HOP(b, t, INTERVAL '1 second', INTERVAL '3 seconds')
         GROUP BY window_start, a",
        "SELECT bid.window_end, bid.auction, count(*) FROM TUMBLE(bid, ts, INTERVAL '2 seconds')
         GROUP BY bid.window_end, bid.auction",
    ] {
        world.agree(sql).await;
    }
}

#[tokio::test]
async fn stateless() {
    let world = World::new();
    for sql in [
        "SELECT auction, price * 2 AS p, ts FROM bid WHERE price > 30",
        "SELECT * FROM TUMBLE(bid, ts, INTERVAL '2 seconds')",
        "SELECT window_start, window_end, window_time, price
         FROM HOP(bid, ts, INTERVAL '700 milliseconds', INTERVAL '2 seconds') WHERE price > 90",
        "SELECT window_end, price FROM CUMULATE(bid, ts, INTERVAL '1 second', INTERVAL '4 seconds')
         WHERE window_end > TIMESTAMP '1970-01-01 00:00:02'",
        "SELECT b.price, c.title FROM bid b JOIN channels c ON b.channel = c.code",
        "SELECT b.price, c.title FROM bid b LEFT JOIN channels c ON b.channel = c.code",
        "SELECT price FROM bid WHERE channel NOT IN (SELECT code FROM channels)",
        "SELECT price FROM bid WHERE EXISTS (SELECT 1 FROM channels WHERE code = channel)",
        "SELECT price, ts FROM bid UNION ALL SELECT id, ts FROM person",
        "SELECT 1 FROM bid",
        "SELECT price, (SELECT max(title) FROM channels) AS t FROM bid",
        "SELECT unnest([price, bidder]) AS v FROM bid",
    ] {
        world.agree(sql).await;
    }
}

#[tokio::test]
async fn nexmark() {
    let world = World::new();
    for sql in [
        // q5
        "SELECT ab.auction, ab.num FROM (
            SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
            FROM {W} GROUP BY auction, window_start, window_end) AS ab
         JOIN (
            SELECT max(cb.num) AS maxn, cb.starttime, cb.endtime FROM (
                SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
                FROM {W} GROUP BY auction, window_start, window_end) AS cb
            GROUP BY cb.starttime, cb.endtime) AS mb
         ON ab.starttime = mb.starttime AND ab.endtime = mb.endtime AND ab.num >= mb.maxn",
        // q7 as a window join
        "SELECT b.auction, b.price, b.bidder, b.ts, b.window_end FROM {W} b
         JOIN (SELECT max(price) AS maxprice, window_start, window_end FROM {W}
               GROUP BY window_start, window_end) m
         ON b.price = m.maxprice AND b.window_start = m.window_start AND b.window_end = m.window_end",
        // q8
        "SELECT p.id, p.name, p.starttime FROM (
            SELECT id, name, window_start AS starttime, window_end AS endtime
            FROM TUMBLE(person, ts, INTERVAL '2 seconds')
            GROUP BY id, name, window_start, window_end) p
         JOIN (
            SELECT seller, window_start AS starttime, window_end AS endtime
            FROM TUMBLE(auction, ts, INTERVAL '2 seconds')
            GROUP BY seller, window_start, window_end) a
         ON p.id = a.seller AND p.starttime = a.starttime AND p.endtime = a.endtime",
    ] {
        world.agree(&sql.replace("{W}", TUMBLE)).await;
        world.agree(&sql.replace("{W}", HOP)).await;
    }
}

#[tokio::test]
async fn joins_of_windows() {
    let world = World::new();
    for join in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"]
    {
        let columns = if join.contains("SEMI") || join.contains("ANTI") {
            "p.id, p.window_end"
        } else {
            "p.id, p.window_end, a.id AS aid, a.window_end AS awe"
        };
        world
            .agree(&format!(
                "SELECT {columns} FROM TUMBLE(person, ts, INTERVAL '1 second') p
                 {join} TUMBLE(auction, ts, INTERVAL '1 second') a
                 ON p.id = a.seller AND p.window_start = a.window_start
                 AND p.window_end = a.window_end"
            ))
            .await;
    }
    for sql in [
        "SELECT p.id, p.window_end FROM TUMBLE(person, ts, INTERVAL '1 second') p
         WHERE p.id IN (SELECT seller FROM TUMBLE(auction, ts, INTERVAL '1 second') a
                        WHERE a.window_end = p.window_end)",
        "SELECT a.window_end, a.n, b.n FROM
           (SELECT window_end, count(*) n FROM TUMBLE(person, ts, INTERVAL '2 seconds') GROUP BY window_end) a,
           (SELECT window_end, count(*) n FROM TUMBLE(auction, ts, INTERVAL '2 seconds') GROUP BY window_end) b
         WHERE a.window_end = b.window_end",
        "SELECT a.window_end, a.n, b.n, c.n FROM
           (SELECT window_end, count(*) n FROM TUMBLE(person, ts, INTERVAL '2 seconds') GROUP BY window_end) a
           JOIN (SELECT window_end, count(*) n FROM TUMBLE(auction, ts, INTERVAL '2 seconds') GROUP BY window_end) b USING (window_end)
           JOIN (SELECT window_end, count(*) n FROM HOP(bid, ts, INTERVAL '1 second', INTERVAL '3 seconds') GROUP BY window_end) c USING (window_end)",
    ] {
        world.agree(sql).await;
    }
}

#[tokio::test]
async fn ranking_and_composition() {
    let world = World::new();
    for sql in [
        "SELECT * FROM (SELECT window_end, auction, price, bidder, ts,
            row_number() OVER (PARTITION BY window_start, window_end ORDER BY price DESC, bidder, ts) AS r
            FROM {W}) WHERE r <= 3",
        "SELECT * FROM (SELECT *, rank() OVER (PARTITION BY window_end ORDER BY n DESC) AS r FROM (
            SELECT window_end, auction, count(*) AS n FROM {W} GROUP BY window_end, auction)) WHERE r = 1",
        // A window over windows.
        "SELECT window_end, max(n) FROM TUMBLE((
            SELECT window_time AS t, auction, count(*) AS n FROM {W} GROUP BY window_time, auction),
            t, INTERVAL '6 seconds') GROUP BY window_end",
        "SELECT window_start, sum(n) FROM TUMBLE((
            SELECT window_start, window_end, window_time, count(*) AS n FROM {W}
            GROUP BY window_start, window_end, window_time), INTERVAL '6 seconds')
         GROUP BY window_start",
        "SELECT window_end, count(*) FROM TUMBLE((
            SELECT window_start AS s, count(*) FROM {W} GROUP BY window_start),
            s, INTERVAL '6 seconds') GROUP BY window_end",
        "SELECT window_end, u, count(*) FROM (SELECT window_end, unnest([price, bidder]) AS u FROM {W})
         GROUP BY window_end, u",
        "SELECT window_end, u, count(*) FROM TUMBLE((SELECT ts, unnest([price, bidder]) AS u FROM bid),
            ts, INTERVAL '2 seconds') GROUP BY window_end, u",
        // A union of windows.
        "SELECT window_end, 'b' AS k, count(*) AS n FROM {W} GROUP BY window_end UNION ALL
         SELECT window_end, 'p', count(*) FROM TUMBLE(person, ts, INTERVAL '3 seconds') GROUP BY window_end",
        "SELECT window_end, count(*) FROM (SELECT ts, window_end FROM {W} UNION ALL
            SELECT ts, window_end FROM TUMBLE(person, ts, INTERVAL '2 seconds')) GROUP BY window_end",
        "SELECT window_end, count(*) FROM TUMBLE((SELECT ts FROM bid UNION ALL SELECT ts FROM person),
            ts, INTERVAL '2 seconds') GROUP BY window_end",
        "SELECT window_end, sum(n) FROM TUMBLE((
            SELECT window_time AS t, count(*) AS n FROM {W} GROUP BY window_time UNION ALL
            SELECT ts, id FROM person), t, INTERVAL '6 seconds') GROUP BY window_end",
        // Joins with tables.
        "SELECT w.window_end, c.title, count(*) AS n, sum(length(c.title) + w.price) FROM {W} w
         JOIN channels c ON w.channel = c.code GROUP BY w.window_end, c.title",
        "SELECT w.window_end, c.title, count(*) AS n FROM {W} w
         LEFT JOIN channels c ON w.channel = c.code AND w.price > 10 GROUP BY w.window_end, c.title",
        "SELECT w.window_end, c.title, w.n FROM (SELECT window_end, channel, count(*) AS n
            FROM {W} GROUP BY window_end, channel) w LEFT JOIN channels c ON w.channel = c.code",
        "SELECT window_end, count(*) FROM {W} WHERE channel IN (SELECT code FROM channels) GROUP BY window_end",
        "SELECT window_end, count(*) AS n FROM {W} GROUP BY window_end
         HAVING count(*) > (SELECT count(*) FROM channels)",
        "SELECT window_end, auction, count(*) AS n FROM {W} GROUP BY window_end, auction EXCEPT
         SELECT window_end, auction, count(*) AS n FROM {W} WHERE price > 5 GROUP BY window_end, auction",
        "SELECT x.window_end, count(*) FROM (SELECT b.window_end FROM {W} b
           JOIN TUMBLE(person, ts, INTERVAL '2 seconds') p ON p.window_end = b.window_end) x GROUP BY x.window_end",
        "SELECT window_end, max(s) FROM (SELECT window_end, auction, sum(price) AS s FROM {W}
            GROUP BY window_end, auction) GROUP BY window_end",
    ] {
        world.agree(&sql.replace("{W}", TUMBLE)).await;
        if !sql.contains("ON p.window_end = b.window_end") {
            world.agree(&sql.replace("{W}", HOP)).await;
        }
    }
}

#[tokio::test]
async fn order_and_limit_apply_per_window() {
    let world = World::new();
    let rows = world
        .continuous_rows(
            "SELECT window_end, auction, count(*) AS n FROM TUMBLE(bid, ts, INTERVAL '2 seconds')
             GROUP BY window_end, auction ORDER BY n DESC LIMIT 1",
        )
        .await;
    let windows = world
        .bounded_rows("SELECT DISTINCT window_end FROM TUMBLE(bid, ts, INTERVAL '2 seconds')")
        .await;
    assert_eq!(rows.len(), windows.len());
}

#[tokio::test]
async fn views() {
    let mut world = World::new();
    world.view("calm", "SELECT auction AS a, price, ts AS t FROM bid WHERE price < 50").await;
    world.view("per2", "SELECT window_start, window_end, window_time, a, count(*) AS n
        FROM TUMBLE(calm, t, INTERVAL '2 seconds') GROUP BY window_start, window_end, window_time, a").await;
    // A materialized view: a stream with three event times.
    world.stream(
        "mv",
        vec![ts("window_start"), ts("window_end"), ts("window_time"), int("n")],
        vec![
            times([0, 2_000, 4_000]),
            times([2_000, 4_000, 6_000]),
            times([1_999, 3_999, 5_999]),
            ints([1, 2, 3]),
        ],
        Some(2),
    );
    for sql in [
        "SELECT a, t FROM calm WHERE a > 1",
        "SELECT window_end, count(*) FROM TUMBLE(calm, t, INTERVAL '1 second') GROUP BY window_end",
        "SELECT window_end, a, n FROM per2 WHERE n > 1",
        "SELECT window_end, sum(n) FROM TUMBLE(per2, window_time, INTERVAL '6 seconds') GROUP BY window_end",
        "SELECT window_start, window_end, sum(n) FROM TUMBLE(mv, INTERVAL '4 seconds')
         GROUP BY window_start, window_end",
    ] {
        world.agree(sql).await;
    }
}

#[tokio::test]
async fn traced_rows_tell_where_they_came_from() {
    let world = World::new();
    for sql in [
        "SELECT price FROM bid WHERE price > 3",
        "SELECT b.price, c.title FROM bid b LEFT JOIN channels c ON b.channel = c.code",
        "SELECT price, window_end FROM HOP(bid, ts, INTERVAL '1 second', INTERVAL '3 seconds')",
    ] {
        let rows = world.traced_rows(sql).await;
        assert!(!rows.is_empty());
        for (price, row) in rows {
            assert_eq!(price, row * row % 97, "{sql}");
        }
    }
}

/// A stream keeps such batches: a few rows must not hold the memory of a batch of the session's size.
#[tokio::test]
async fn what_passes_a_filter_holds_little_more_than_its_rows() {
    let world = World::new();
    let plan = world.continuous("SELECT auction, price, ts FROM bid WHERE price < 3 EMIT CHANGES");
    let Flow::Rows(flow) = plan.await.unwrap().root else { panic!("no flow of rows") };
    let batches = world.run_rows(&flow).await;
    assert!(batches.iter().any(|batch| batch.num_rows() > 0));
    for batch in batches {
        let bytes = batch.get_array_memory_size();
        assert!(bytes < 4_096, "{} rows hold {bytes} bytes", batch.num_rows());
    }
}
