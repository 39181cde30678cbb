//! Views over joins in time and OVER go on from their checkpoints with another number of threads, and are what the bounded form
//! makes of their streams.

use libtest_mimic::Failed;

use super::{ALL_THE_TIME, rows, verified};
use crate::program::Home;

const STREAMS: &str = "CREATE STREAM s (id INT, k INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2 seconds');\n\
    CREATE STREAM q (id INT, k INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2 seconds');\n";

/// A view of each kind of operator whose rows leave one by one.
const VIEWS: [(&str, &str); 8] = [
    (
        "pairs",
        "SELECT a.id, b.id AS other, a.ts FROM s AS a JOIN q AS b ON a.k = b.k \
         AND b.ts BETWEEN a.ts - INTERVAL '4 seconds' AND a.ts + INTERVAL '3 seconds'",
    ),
    (
        "alone",
        "SELECT a.id, b.id AS other, a.ts FROM s AS a LEFT JOIN q AS b ON a.k = b.k AND a.id % 3 <> b.id % 2 \
         AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '3 seconds'",
    ),
    (
        "latest",
        "SELECT a.id, b.id AS other, a.ts FROM s AS a ASOF LEFT JOIN q AS b ON a.k = b.k AND a.ts > b.ts",
    ),
    (
        "nearest",
        "SELECT a.id, b.id AS other, a.ts FROM s AS a ASOF LEFT JOIN q AS b ON a.id % 5 = b.id % 4 \
         AND a.ts BETWEEN b.ts - INTERVAL '5 seconds' AND b.ts + INTERVAL '6 seconds'",
    ),
    (
        "frames",
        "SELECT id, ts, sum(id) OVER (PARTITION BY k ORDER BY ts ROWS BETWEEN 4 PRECEDING AND CURRENT ROW) AS last, \
         count(*) OVER (PARTITION BY k ORDER BY ts) AS n, lag(id) OVER (PARTITION BY k ORDER BY ts) AS before, \
         max(id) OVER (PARTITION BY id % 7 ORDER BY ts RANGE BETWEEN INTERVAL '9 seconds' PRECEDING AND CURRENT ROW) AS m FROM s",
    ),
    (
        "steps",
        "SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts, id MEASURES MATCH_ROWTIME() AS ts, FIRST(id) AS began, \
         LAST(id) AS ended, MATCH_NUMBER() AS n AFTER MATCH SKIP TO NEXT ROW PATTERN (a b+ c) WITHIN INTERVAL '8 seconds' DEFINE b AS id > PREV(id), \
         c AS c.id > a.id)",
    ),
    (
        "gaps",
        "SELECT window_end, k, n, filled FROM FILL((SELECT window_start, window_end, window_time, k, count(*) AS n \
         FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_start, window_end, window_time, k) \
         PARTITION BY k, window_time, INTERVAL '1 second', INTERVAL '5 seconds')",
    ),
    (
        "first",
        "SELECT id, k, ts FROM s QUALIFY row_number() OVER (PARTITION BY id / 3 ORDER BY ts) = 1",
    ),
];

pub(super) fn other_threads() -> Result<(), Failed> {
    let mut home = Home::new()?;
    let create = VIEWS.map(|(name, text)| format!("CREATE MATERIALIZED VIEW {name} AS {text};\n"));
    let wait = VIEWS.map(|(name, _)| format!("WAIT FOR {name};\n")).concat();
    for (round, threads) in (0..).zip(["2", "1", "4", "3"]) {
        home.flags =
            ALL_THE_TIME.iter().chain(&["--threads", threads]).map(|&f| f.into()).collect();
        let new = rows(round * 60..round * 60 + 60);
        let mut sql =
            if round == 0 { STREAMS.to_owned() + &create.concat() } else { String::new() };
        sql.push_str(&new);
        sql.push_str(&new.replace("INTO s", "INTO q"));
        sql.push_str(&wait);
        match round % 2 {
            0 => drop(home.tables_then_kill(&sql, &["SELECT 1"], "pairs")?),
            _ => drop(home.ok(&sql)?),
        }
    }
    let verify = VIEWS.map(|(name, _)| format!("VERIFY VIEW {name};\n")).concat();
    let counts = VIEWS.map(|(name, _)| format!("SELECT count(*) > 20 FROM {name};\n")).concat();
    let said = home.run(&(wait + &verify + &counts))?;
    said.check(said.status.success(), "the last round")?;
    said.check(said.err.contains("8 views resumed from checkpoints"), "they begin anew")?;
    verified(&said)?;
    said.check(said.out.matches("equal: ").count() == VIEWS.len(), "not all views are equal")?;
    said.check(said.out.matches("\ntrue").count() == VIEWS.len(), "a view has hardly any rows")
}
