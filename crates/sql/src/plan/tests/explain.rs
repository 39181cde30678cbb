//! Continuous plans as text.

use super::{Flow, LeafSource, ROW_COLUMN, World};

/// Unindented, so that the tests can be read.
async fn shown(sql: &str) -> String {
    let plan = World::new().continuous(sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
    plan.to_string()
}

#[tokio::test]
async fn a_filtered_aggregate() {
    let text = shown(
        "SELECT window_end, auction, count(*) AS n FROM TUMBLE(bid, ts, INTERVAL '2 seconds')
         WHERE price > 10 AND channel = 'web' GROUP BY window_end, auction HAVING count(*) > 1",
    )
    .await;
    println!("{text}");
    assert!(text.contains("keys [c1], aggregates [count(time)]"), "{text}");
    assert!(text.contains("where price > 10 and channel = web"), "{text}");
    assert!(text.contains("reads bid [auction, price, channel, ts]"), "{text}");
}

#[tokio::test]
async fn q5_counts_once() {
    let sql = "SELECT ab.auction, ab.num FROM (
            SELECT auction, count(*) AS num, window_start AS starttime, window_end AS endtime
            FROM {W} GROUP BY auction, window_start, window_end) AS ab
         JOIN (
            SELECT max(cb.num) AS maxn, cb.starttime, cb.endtime FROM (
                SELECT count(*) AS num, window_start AS starttime, window_end AS endtime
                FROM {W} b GROUP BY b.auction, window_start, window_end) AS cb
            GROUP BY cb.starttime, cb.endtime) AS mb
         ON ab.starttime = mb.starttime AND ab.endtime = mb.endtime AND ab.num >= mb.maxn";
    let sql = sql.replace("{W}", "HOP(bid, ts, INTERVAL '2 seconds', INTERVAL '10 seconds')");
    let plan = World::new().continuous(&sql).await.unwrap();
    println!("{plan}");
    let Flow::Stage(stage) = &plan.root else { panic!("{plan}") };
    assert_eq!(stage.operators.len(), 1, "{plan}");
    assert!(!stage.row_wise);
}

#[tokio::test]
async fn a_join_with_a_table_is_prepared() {
    let text = shown(
        "SELECT w.window_end, c.title, count(*) AS n FROM TUMBLE(bid, ts, INTERVAL '2 seconds') w
         JOIN channels c ON w.channel = c.code GROUP BY w.window_end, c.title",
    )
    .await;
    println!("{text}");
    assert!(text.contains("aggregates [count(time)]"), "{text}");
}

#[tokio::test]
async fn event_times_of_the_output() {
    let world = World::new();
    let plan = world
        .continuous(
            "SELECT count(*) AS n, window_start AS s, window_end AS e, window_time
             FROM HOP(bid, ts, INTERVAL '1 second', INTERVAL '5 seconds')
             GROUP BY window_start, window_end, window_time",
        )
        .await
        .unwrap();
    let found: Vec<_> = plan.event_times.iter().map(|t| (t.column, t.lag_ticks)).collect();
    assert_eq!(found, [(1, 5_000), (2, 0), (3, 0)]);
    let Flow::Stage(stage) = &plan.root else { panic!("{plan}") };
    assert!(stage.row_wise, "{plan}");
}

#[tokio::test]
async fn unused_columns_are_not_read() {
    let plan = World::new()
        .continuous(
            "SELECT window_end, sum(price) FROM HOP(bid, ts, INTERVAL '1 second', INTERVAL '5 seconds')
             GROUP BY window_end",
        )
        .await
        .unwrap();
    let Flow::Stage(stage) = &plan.root else { panic!("{plan}") };
    let LeafSource::Stream { projection, .. } = &stage.operators[0].inputs[0].flow.leaves[0].from
    else {
        panic!("{plan}")
    };
    assert_eq!(projection, &[2, 4]);
}

#[tokio::test]
async fn traced_plans_carry_row_numbers() {
    let world = World::new();
    for sql in [
        "SELECT price * 2 FROM bid WHERE price > 3",
        "SELECT b.price, c.title FROM bid b LEFT JOIN channels c ON b.channel = c.code",
        "SELECT price, ts FROM bid UNION ALL SELECT id, ts FROM person WHERE id > 2",
        "SELECT price FROM bid WHERE channel IN (SELECT code FROM channels)",
        "SELECT window_end, price FROM HOP(bid, ts, INTERVAL '1 second', INTERVAL '2 seconds')",
        "SELECT 1 FROM bid",
    ] {
        let plan = world.continuous(sql).await.unwrap();
        let Flow::Rows(flow) = &plan.root else { panic!("{plan}") };
        let traced = flow.traced().unwrap();
        let columns = traced.plan.schema().columns();
        assert_eq!(columns.last().unwrap().name, ROW_COLUMN, "{}", traced.plan.display_indent());
        assert_eq!(columns.len(), flow.plan.schema().columns().len() + 1);
        let state = super::micro_batch_state(&world.state);
        super::physical(&state, &traced.plan).await.unwrap();
    }
}

#[tokio::test]
async fn early_results_say_how_they_change_and_when() {
    let windows = "SELECT window_end, auction AS item, count(*) AS n
        FROM CUMULATE(bid, ts, INTERVAL '2 seconds', INTERVAL '10 seconds')
        GROUP BY window_end, auction";
    let text = shown(&format!("{windows} EMIT EVERY INTERVAL '5 seconds'")).await;
    assert!(
        text.starts_with("upsert by [window_end, item]: a group of a window is one row"),
        "{text}"
    );
    assert!(text.contains("early results: every 5s; final when a window closes"), "{text}");
    let sql =
        format!("SELECT item, n FROM ({windows}) EMIT ON UPDATE WITH BATCH INTERVAL '1 second'");
    let text = shown(&sql).await;
    assert!(text.starts_with("retracting: the output lacks the key"), "{text}");
    assert!(text.contains("early results: when there are some, once in 1s"), "{text}");
    let text = shown(&format!(
        "SELECT window_end, max(n) FROM ({windows}) GROUP BY window_end EMIT CHANGES"
    ))
    .await;
    assert!(text.starts_with("retracting: a window is computed again"), "{text}");
    assert!(text.contains("finish, per window that has changed:"), "{text}");
}
