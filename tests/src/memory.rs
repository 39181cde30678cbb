//! A memory limit far below what windows need: the answers are the same, and state that cannot be divided is an error.

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;

use crate::program::{Home, failed, for_ever};
use crate::talk::{Answer, Refusal, Talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("memory/windows on disk give the same rows", same_rows),
        trial("memory/a group that cannot be divided is an error", one_group),
        trial("memory/an archived view keeps its order", archived),
        trial("memory/a stream in memory has a limit", stream_limit),
        trial("memory/reference tables count in that of their query", reference_tables),
        trial("memory/the peak is within the limit", peak),
        trial("memory/a sort that cannot go to disk names the place", no_disk),
    ]
}

/// As many keys as rows; strings that do not fit into a view.
const STREAM: &str = "CREATE STREAM s (k BIGINT, name VARCHAR, v BIGINT, few INT, ts TIMESTAMP, WATERMARK FOR ts AS ts) \
    WITH (connector = 'datagen', rows = 60000, seed = 3, start = '2026-01-01T00:00:00Z', 'interval' = '1 millisecond', \
    fields.k.kind = 'sequence', fields.name.length = 20, fields.v.max = 1000, fields.few.max = 5)";

/// MiB, and a query that needs several times that.
const QUERIES: &[(usize, &str)] = &[
    (
        2,
        "SELECT window_end, k, count(*) AS n, sum(v) AS s, max(v) AS m FROM TUMBLE(s, ts, INTERVAL '1 hour') \
     GROUP BY window_start, window_end, k EMIT FINAL",
    ),
    (
        2,
        "SELECT window_end, name, min(k) AS k, avg(v) AS a FROM HOP(s, ts, INTERVAL '10 seconds', INTERVAL '25 seconds') \
     GROUP BY window_start, window_end, name EMIT FINAL",
    ),
    (
        4,
        "SELECT window_end, k % 20000 AS g, count(DISTINCT v) AS d FROM CUMULATE(s, ts, INTERVAL '20 seconds', INTERVAL '1 minute') \
     GROUP BY window_start, window_end, k % 20000 EMIT FINAL",
    ),
    (
        4,
        "SELECT window_end, k % 20000 AS g, mode(v) AS m, max_by(name, v) AS n FROM TUMBLE(s, ts, INTERVAL '1 month') \
     GROUP BY window_start, window_end, k % 20000 EMIT FINAL",
    ),
    // The finish plan needs the whole window.
    (
        3,
        "SELECT window_end, k, sum(v) AS s FROM TUMBLE(s, ts, INTERVAL '1 hour') \
     GROUP BY window_start, window_end, k ORDER BY s DESC, k LIMIT 5 EMIT FINAL",
    ),
    // A window over windows.
    (
        4,
        "SELECT window_end, n, count(*) AS c FROM (SELECT window_start, window_end, name, count(*) AS n \
     FROM TUMBLE(s, ts, INTERVAL '1 hour') GROUP BY window_start, window_end, name) \
     GROUP BY window_start, window_end, n EMIT FINAL",
    ),
    // Sessions: all in one slice, and over many.
    (
        2,
        "SELECT window_start, window_end, k, count(*) AS n, max(name) AS m FROM SESSION(s PARTITION BY k, ts, INTERVAL '1 hour') \
     GROUP BY window_start, window_end, k EMIT FINAL",
    ),
    (
        2,
        "SELECT window_start, window_end, g, count(DISTINCT v) AS d, max(name) AS m FROM \
     SESSION((SELECT *, k % 30000 AS g FROM s) PARTITION BY g, ts, INTERVAL '40 seconds') \
     GROUP BY window_start, window_end, g EMIT FINAL",
    ),
    (
        4,
        "SELECT window_start, window_end, k, v, name FROM SESSION(s PARTITION BY k, ts, INTERVAL '15 seconds') EMIT FINAL",
    ),
    // Interval joins: of what one side holds, and of both.
    (
        2,
        "SELECT a.k, b.k AS earlier, a.name, b.v FROM s AS a JOIN s AS b ON a.k = b.k + 20000 \
     AND a.ts BETWEEN b.ts + INTERVAL '15 seconds' AND b.ts + INTERVAL '40 seconds' EMIT FINAL",
    ),
    (
        3,
        "SELECT a.k, b.k AS other, a.name, b.name AS named FROM s AS a JOIN s AS b ON a.k % 15000 = b.k % 15000 \
     AND a.ts BETWEEN b.ts - INTERVAL '20 seconds' AND b.ts + INTERVAL '20 seconds' EMIT FINAL",
    ),
    // OVER: what is known per key, and rows that frames can reach.
    (
        2,
        "SELECT k, count(*) OVER (PARTITION BY name ORDER BY ts) AS n, min(name) OVER (PARTITION BY name ORDER BY ts) AS m, \
     first_value(v) OVER (PARTITION BY name ORDER BY ts) AS f FROM s EMIT FINAL",
    ),
    (
        2,
        "SELECT k, v, lag(name) OVER (PARTITION BY g ORDER BY ts) AS before, sum(v) OVER (PARTITION BY g ORDER BY ts \
     RANGE BETWEEN INTERVAL '45 seconds' PRECEDING AND CURRENT ROW) AS s FROM (SELECT *, k % 20000 AS g FROM s) EMIT FINAL",
    ),
    (
        3,
        "SELECT name, lead(name) OVER (PARTITION BY k % 20000 ORDER BY ts) AS next FROM s EMIT FINAL",
    ),
    // Patterns: the rows of open matches.
    (
        3,
        "SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY k % 20000 ORDER BY ts, k MEASURES FIRST(name) AS f, LAST(name) AS l \
     PATTERN (a b+) WITHIN INTERVAL '45 seconds' DEFINE b AS b.v >= PREV(b.v)) EMIT FINAL",
    ),
    // Gaps: keys that have no rows.
    (
        3,
        "SELECT window_end, g, n, v, filled FROM FILL((SELECT window_start, window_end, window_time, k % 20000 AS g, count(*) AS n, \
     max(v) AS v FROM TUMBLE(s, ts, INTERVAL '5 seconds') GROUP BY window_start, window_end, window_time, k % 20000) \
     PARTITION BY g, window_time, INTERVAL '5 seconds', INTERVAL '30 seconds', fill => 'previous') EMIT FINAL",
    ),
    // What matches nothing, and the latest row of each key.
    (
        3,
        "SELECT a.k, b.k AS other, a.name, b.name AS named FROM s AS a LEFT JOIN s AS b ON a.k = b.k + 20000 AND b.v > a.v \
     AND a.ts BETWEEN b.ts + INTERVAL '15 seconds' AND b.ts + INTERVAL '40 seconds' EMIT FINAL",
    ),
    (
        3,
        "SELECT a.k, b.k AS other, a.name, b.name AS named FROM s AS a ASOF LEFT JOIN s AS b ON a.k = b.k + 20000 \
     AND a.ts >= b.ts EMIT FINAL",
    ),
    // Rows, not groups.
    (
        3,
        "SELECT window_end, k, v, name FROM (SELECT *, row_number() OVER (PARTITION BY window_start, window_end, few \
     ORDER BY v DESC, k) AS r FROM TUMBLE(s, ts, INTERVAL '1 hour')) WHERE r <= 3 EMIT FINAL",
    ),
];

fn limited(bytes: usize) -> Result<Talk, Failed> {
    Ok(Talk::new(Limits {
        memory_bytes_max: Some(bytes),
        batch_rows_max: 2048,
        threads: 2,
        ..Limits::default()
    })?)
}

fn sorted(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    rows.sort_unstable();
    rows
}

fn same_rows() -> Result<(), Failed> {
    let free = Talk::new(Limits::default())?;
    free.ask(STREAM)?;
    for (limit, query) in QUERIES {
        let limited = limited(limit << 20)?;
        limited.ask(STREAM)?;
        let truth = sorted(free.rows(&query.replace("EMIT FINAL", ""))?);
        let rows = sorted(limited.rows(query).map_err(|e| format!("{e} in {query}"))?);
        if truth.is_empty() {
            return Err(format!("nothing to compare in {query}").into());
        }
        if let Some((t, r)) = truth.iter().zip(&rows).find(|(t, r)| t != r) {
            return Err(format!("{t:?} is not {r:?} in {query}").into());
        }
        if truth.len() != rows.len() {
            return Err(format!("{} and {} rows in {query}", truth.len(), rows.len()).into());
        }
        let spilled = limited.rows("SELECT spilled_bytes > 10000 FROM windrow.queries")?;
        if spilled != [["true"]] {
            return Err(format!("nothing went to disk in {query}").into());
        }
    }
    Ok(())
}

fn one_group() -> Result<(), Failed> {
    let talk = limited(1 << 20)?;
    talk.ask(STREAM)?;
    let query = "SELECT array_agg(name) AS names FROM TUMBLE(s, ts, INTERVAL '1 hour') \
                 GROUP BY window_start, window_end EMIT FINAL";
    match talk.ask(query) {
        Ok(Answer::Rows { .. }) => Err("a group beyond the limit was given".into()),
        Ok(_) => Err("no rows and no error".into()),
        Err(error) => {
            let named = ["query_1", "memory limit", "1024 KiB", "--memory-limit"];
            if named.iter().all(|name| error.0.contains(name)) { Ok(()) } else { Err(error.into()) }
        }
    }
}

/// The whole program on more groups than the limit holds, and their rows in order in an archived view.
fn peak() -> Result<(), Failed> {
    let long = std::env::var_os("WINDROW_LONG_TESTS").is_some();
    let (limit_mib, keys) = if long { (128, 4_000_000) } else { (48, 500_000) };
    let idle = "CREATE STREAM p (ts TIMESTAMP, WATERMARK FOR ts);\n\
                CREATE MATERIALIZED VIEW w AS SELECT ts FROM p;\n";
    // What the program takes without work is not what the limit is of.
    let home = Home::new()?;
    let mut running = home.start(&(idle.to_owned() + "SELECT 1;\n" + &for_ever("w")))?;
    if !running.until_lines(2)? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    let idle_bytes = running.peak()?;
    running.kill()?;
    for (column, field) in
        [("VARCHAR", "fields.k.length = 16"), ("BIGINT", "fields.k.kind = 'sequence'")]
    {
        let mut home = Home::new()?;
        home.flags = vec![
            "--memory-limit".into(),
            format!("{limit_mib}MiB"),
            "--threads".into(),
            "2".into(),
        ];
        let statements = format!(
            "CREATE STREAM s (k {column}, v BIGINT, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'datagen', rows = {keys}, \
             seed = 3, start = '2026-01-01T00:00:00Z', 'interval' = '1 millisecond', {field}, fields.v.max = 1000);\n\
             {idle}CREATE MATERIALIZED VIEW v AS SELECT window_end, k, count(*) AS n, sum(v) AS sum FROM TUMBLE(s, ts, \
             INTERVAL '10 hours') GROUP BY window_start, window_end, k;\n\
             WAIT FOR v;\n\
             SELECT sum(n), count(*) >= {keys} - 10, min(sum) >= 0 FROM v;\n\
             SELECT spilled_bytes > 1000000 FROM windrow.queries WHERE name = 'v';\n{}",
            for_ever("w")
        );
        let mut running = home.start(&statements)?;
        if !running.until_lines(4)? {
            return Err(failed(&running.finish()?, "it ends before its time"));
        }
        let (out, peak) = (running.out(), running.peak()?);
        let lines: Vec<&str> = out.lines().filter(|line| !line.is_empty()).collect();
        if lines.get(1) != Some(&format!("{keys},true,true").as_str())
            || lines.last() != Some(&"true")
        {
            return Err(format!("{out} of {keys} {column} keys").into());
        }
        running.kill()?;
        let max = (limit_mib << 20) / 5 * 6 + (100 << 20);
        if peak > idle_bytes + max {
            return Err(format!(
                "{} MiB with {column} keys: {} MiB when idle, and {} MiB at most",
                peak >> 20,
                idle_bytes >> 20,
                max >> 20
            )
            .into());
        }
    }
    Ok(())
}

fn no_disk() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let limits = Limits { memory_bytes_max: Some(4 << 20), threads: 1, ..Limits::default() };
    let talk = Talk::at(home.path(), &limits)?;
    talk.ask(STREAM)?;
    // Something else is in the way.
    let place = home.path().join("tmp");
    std::fs::remove_dir_all(&place)?;
    std::fs::write(&place, "")?;
    match talk.ask("SELECT * FROM s ORDER BY name, v, k") {
        Err(error) if error.0.contains(&place.display().to_string()) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err("it needs no disk".into()),
    }
}

fn stream_limit() -> Result<(), Failed> {
    let talk = Talk::new(Limits { stream_bytes_max: Some(1 << 20), ..Limits::default() })?;
    talk.ask("CREATE STREAM p (k BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts)")?;
    talk.ask(STREAM)?;
    talk.ask("INSERT INTO p SELECT k, ts FROM s WHERE k < 50000")?;
    let view = "CREATE MATERIALIZED VIEW v AS SELECT k, v, name, ts FROM s";
    talk.ask(view)?;
    for statement in ["INSERT INTO p SELECT k, ts FROM s WHERE k < 30000", "WAIT FOR v"] {
        let name = if statement.contains("INTO p") { "\"p\"" } else { "\"v\"" };
        match talk.ask(statement) {
            Err(error)
                if [name, "1024 KiB", "--stream-limit"].iter().all(|n| error.0.contains(n)) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(format!("{statement} went beyond the limit").into()),
        }
    }
    let rows = talk.rows("SELECT count(*) FROM p")?;
    if rows == [["50000"]] { Ok(()) } else { Err(format!("{rows:?} rows").into()) }
}

fn archived() -> Result<(), Failed> {
    let view = "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, window_time, name, sum(v) AS s \
                FROM TUMBLE(s, ts, INTERVAL '30 seconds') GROUP BY window_start, window_end, window_time, name";
    let mut all = vec![];
    for limit in [Some(3 << 20), None] {
        let home = tempfile::tempdir()?;

        let limits = Limits {
            memory_bytes_max: limit,
            batch_rows_max: 2048,
            threads: 1,
            ..Limits::default()
        };
        let talk = Talk::at(home.path(), &limits)?;
        talk.ask(STREAM)?;
        talk.ask(view)?;
        talk.ask("WAIT FOR v")?;
        talk.ask("VERIFY VIEW v")?;
        let spilled =
            talk.rows("SELECT spilled_bytes > 10000 FROM windrow.queries WHERE name = 'v'")?;
        if spilled != [[limit.is_some().to_string()]] {
            return Err(format!("on disk: {spilled:?} with {limit:?}").into());
        }
        all.push(talk.rows("SUBSCRIBE TO v AFTER 0")?);
    }
    if all[0].len() < 30_000 || all[0] != all[1] {
        return Err(format!("{} and {} rows, or another order", all[0].len(), all[1].len()).into());
    }
    Ok(())
}

/// A continuous query keeps the rows of its reference tables as long as it runs.
fn reference_tables() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("names.csv");
    let lines: String = (0..100_000).map(|k| format!("{k},name number {k}\n")).collect();
    std::fs::write(&file, format!("k,name\n{lines}"))?;
    let talk = Talk::new(Limits { query_bytes_max: Some(2 << 20), ..Limits::default() })?;
    talk.ask("CREATE STREAM s (k BIGINT, ts TIMESTAMP, WATERMARK FOR ts)")?;
    talk.ask("INSERT INTO s VALUES (7, TIMESTAMP '2026-01-01 00:00:01'), (8, TIMESTAMP '2026-01-01 00:00:02')")?;
    let external = format!(
        "CREATE EXTERNAL TABLE names STORED AS CSV LOCATION '{}' OPTIONS ('format.has_header' 'true')",
        file.display()
    );
    talk.ask(&external)?;
    for sql in [
        "SELECT s.k, names.name FROM s JOIN names ON s.k = names.k EMIT CHANGES",
        "CREATE MATERIALIZED VIEW v AS SELECT s.k, names.name FROM s JOIN names ON s.k = names.k",
        "SELECT w.k, n.name FROM (SELECT window_end, max(k) AS k FROM TUMBLE(s, ts, INTERVAL '1 minute') \
         GROUP BY window_start, window_end) w JOIN names n ON w.k = n.k EMIT FINAL",
    ] {
        let why = match talk.ask(sql) {
            Err(Refusal(why)) => why,
            Ok(_) => return Err(format!("{sql} is taken").into()),
        };
        assert!(why.contains("table \"names\"") && why.contains("--query-memory"), "{why}");
    }
    talk.ask("CREATE TABLE few AS SELECT * FROM names WHERE k BETWEEN 5 AND 10")?;
    let found = talk.rows("SELECT s.k, few.name FROM s JOIN few ON s.k = few.k EMIT CHANGES")?;
    assert_eq!(sorted(found), [["7", "name number 7"], ["8", "name number 8"]]);
    // One column of it is not too much, and it counts once though two plans name it.
    let found = talk.rows("SELECT s.k FROM s JOIN names ON s.k = names.k EMIT CHANGES")?;
    assert_eq!(sorted(found), [["7"], ["8"]]);
    Ok(())
}
