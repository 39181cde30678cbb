//! State is freed: what operators keep does not grow with the rows that have gone through them. Keys come and go, so that what is
//! kept for a key must go, too. What is kept is what `windrow.windows` says, which has the workers flushed.

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;
use windrow_engine::EngineConfig;

use crate::talk::Talk;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("steady/what operators keep does not grow", steady)]
}

/// Fifths of the rows.
const PARTS: usize = 5;
/// Looks in each of them.
const LOOKS: usize = 4;
/// Rows between two looks: each is a millisecond after the one before.
const ROWS: usize = 5_000;

/// Each key has rows for a tenth of a second.
const KEY: &str = "v / 100";

/// A view of each kind of operator.
const VIEWS: [(&str, &str); 11] = [
    (
        "tumbling",
        "SELECT window_end, k, count(*) AS n, sum(v) AS s FROM TUMBLE(s, ts, INTERVAL '3 seconds') GROUP BY window_start, window_end, k",
    ),
    (
        "sliding",
        "SELECT window_end, name, max(v) AS m FROM HOP(s, ts, INTERVAL '1 second', INTERVAL '4 seconds') \
         GROUP BY window_start, window_end, name",
    ),
    (
        "sessions",
        "SELECT window_start, window_end, k, count(*) AS n FROM SESSION(s PARTITION BY k, ts, INTERVAL '2 seconds') \
         GROUP BY window_start, window_end, k",
    ),
    (
        "pairs",
        "SELECT a.ts, a.v, b.v AS other FROM s AS a JOIN s AS b ON a.k = b.k AND a.v = b.v \
         AND a.ts BETWEEN b.ts AND b.ts + INTERVAL '3 seconds'",
    ),
    (
        "alone",
        "SELECT a.ts, a.v, b.v AS other FROM s AS a FULL JOIN s AS b ON a.name = b.name AND a.v = b.v + 1 \
         AND a.ts BETWEEN b.ts - INTERVAL '2 seconds' AND b.ts + INTERVAL '1 second'",
    ),
    (
        "latest",
        "SELECT a.ts, a.v, b.v AS other FROM s AS a ASOF LEFT JOIN s AS b ON a.k = b.k AND a.ts > b.ts \
         AND a.ts <= b.ts + INTERVAL '3 seconds'",
    ),
    (
        "frames",
        "SELECT ts, v, sum(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '3 seconds' PRECEDING AND CURRENT ROW) AS s, \
         max(name) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '3 seconds' PRECEDING AND CURRENT ROW) AS m FROM s",
    ),
    (
        "known",
        "SELECT ts, v, lag(v) OVER (PARTITION BY few ORDER BY ts) AS before, sum(v) OVER (PARTITION BY few ORDER BY ts) AS s, \
         last_value(name) OVER (PARTITION BY few ORDER BY ts ROWS UNBOUNDED PRECEDING) AS n FROM s",
    ),
    (
        "first",
        "SELECT ts, k FROM s QUALIFY first_value(v) OVER (PARTITION BY k ORDER BY ts \
         RANGE BETWEEN INTERVAL '3 seconds' PRECEDING AND CURRENT ROW) = v",
    ),
    (
        "steps",
        "SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts MEASURES FIRST(v) AS f, LAST(v) AS l, MATCH_ROWTIME() AS ts \
         PATTERN (a b{3} c+) WITHIN INTERVAL '2 seconds' DEFINE c AS c.v > PREV(c.v))",
    ),
    (
        "gaps",
        "SELECT window_end, k, n FROM FILL((SELECT window_start, window_end, window_time, k, count(*) AS n \
         FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_start, window_end, window_time, k) \
         PARTITION BY k, window_time, INTERVAL '1 second', INTERVAL '3 seconds')",
    ),
];

fn steady() -> Result<(), Failed> {
    let talk = Talk::following(EngineConfig {
        limits: Limits { threads: 2, tail_rows_max: 1_000, ..Limits::default() },
        ..EngineConfig::default()
    })?;
    talk.ask(
        "CREATE STREAM s (v BIGINT, k BIGINT, few BIGINT, name VARCHAR, ts TIMESTAMP(3), \
         WATERMARK FOR ts AS ts - INTERVAL '1 second') WITH (retention = '20 seconds')",
    )?;
    for (name, text) in VIEWS {
        talk.ask(&format!("CREATE MATERIALIZED VIEW {name} AS {text}"))?;
    }
    // The most of the rows and bytes of each view, in each part.
    let mut most = vec![[(0, 0); VIEWS.len()]; PARTS];
    for look in 0..PARTS * LOOKS {
        let first = look * ROWS;
        talk.ask(&format!(
            "INSERT INTO s SELECT v, {KEY}, v % 20, 'a name that is long enough ' || CAST({KEY} AS VARCHAR), \
             to_timestamp_millis(1767225600000 + v) FROM (SELECT value AS v FROM generate_series({first}, {}))",
            first + ROWS - 1
        ))?;
        for ((name, _), most) in VIEWS.iter().zip(&mut most[look / LOOKS]) {
            talk.ask(&format!("WAIT FOR {name}"))?;
            let kept = talk.rows(&format!(
                "SELECT coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM windrow.windows WHERE query = '{name}'"
            ))?;
            let [rows, bytes] = &kept[0][..] else { return Err(format!("{kept:?}").into()) };
            *most = (most.0.max(rows.parse::<u64>()?), most.1.max(bytes.parse::<u64>()?));
        }
    }
    for (at, (name, _)) in VIEWS.iter().enumerate() {
        let (second, last) = (most[1][at], most[PARTS - 1][at]);
        if second.1 == 0 {
            return Err(format!("{name} keeps nothing").into());
        }
        // Figures of a hash table are powers of two.
        if last.0 > second.0 * 13 / 10 || last.1 > second.1 * 2 {
            let all: Vec<_> = most.iter().map(|part| part[at]).collect();
            return Err(format!("rows and bytes of {name}: {all:?}").into());
        }
    }
    Ok(())
}
