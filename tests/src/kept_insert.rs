//! `INSERT INTO t SELECT … EMIT` and `CREATE STREAM t AS SELECT …` in a data directory: they resume after every end of the process,
//! and each of their rows is in `t` once.

use std::path::PathBuf;

use libtest_mimic::{Failed, Trial};

use crate::program::{Home, failed, for_ever, rounds};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("kept_insert/kill -9 while windows are inserted", || {
            killed(INSERT, "insert_into_t", BOUNDED)
        }),
        trial("kept_insert/kill -9 while rows are inserted", || {
            killed(ROWS, "insert_into_t", BOUNDED_ROWS)
        }),
        trial("kept_insert/kill -9 of a stream that windows feed", || killed(FED, "t", BOUNDED)),
        trial("kept_insert/kill -9 of a stream that rows feed", || {
            killed(FED_ROWS, "t", BOUNDED_ROWS)
        }),
        trial("kept_insert/a stream and its query are one object", fed),
        trial("kept_insert/it is an object, and ends when it is dropped", dropped),
        trial("kept_insert/what cannot go on says so", not_kept),
    ]
}

const STREAM: &str =
    "CREATE STREAM IF NOT EXISTS s (id BIGINT, k INT, ts TIMESTAMP, WATERMARK FOR ts);\n";
const STREAMS: &str = "
CREATE STREAM IF NOT EXISTS s (id BIGINT, k INT, ts TIMESTAMP, WATERMARK FOR ts);
CREATE STREAM IF NOT EXISTS t (k INT, ws TIMESTAMP NOT NULL, n BIGINT, twice BIGINT GENERATED ALWAYS AS (n * 2), WATERMARK FOR ws);
";
const INSERT: &str = "INSERT INTO t (ws, k, n) SELECT window_start, k, count(*) FROM TUMBLE(s, ts, INTERVAL '1 second') \
                      GROUP BY window_start, window_end, k EMIT FINAL;\n";
const IN_T: &str = "SELECT ws, k, n, twice FROM t";
const BOUNDED: &str = "SELECT window_start, k, count(*), count(*) * 2 FROM TUMBLE(s, ts, INTERVAL '1 second') \
                       WHERE ts < TIMESTAMP '2026-01-02 00:00:00' GROUP BY window_start, window_end, k";

const ROWS: &str = "INSERT INTO t (ws, k, n) SELECT ts, k, id FROM s WHERE k <> 3 EMIT CHANGES;\n";
const BOUNDED_ROWS: &str = "SELECT ts, k, id, id * 2 FROM s WHERE k <> 3";

const FED: &str = "CREATE STREAM IF NOT EXISTS t AS SELECT window_start AS ws, k, count(*) AS n, count(*) * 2 AS twice \
                   FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_start, window_end, k;\n";
const FED_ROWS: &str = "CREATE STREAM IF NOT EXISTS t AS SELECT ts AS ws, k, id AS n, id * 2 AS twice FROM s WHERE k <> 3;\n";

/// Ten rows, 50 milliseconds from one to the next.
pub(crate) fn rows_of(statement: u64) -> String {
    let mut sql = "INSERT INTO s VALUES ".to_owned();
    for row in statement * 10..statement * 10 + 10 {
        let (seconds, millis) = (row / 20, row % 20 * 50);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        let comma = if row % 10 == 0 { "" } else { ", " };
        let k = row % 7;
        sql.push_str(&format!(
            "{comma}({row}, {k}, TIMESTAMP '2026-01-01 {hour:02}:{minute:02}:{second:02}.{millis:03}')"
        ));
    }
    sql.push_str(";\n");
    sql
}

/// The last row closes all windows before it.
fn last(waits_for: &str) -> String {
    format!(
        "INSERT INTO s VALUES (-1, 0, TIMESTAMP '2026-01-02 00:00:00');\n\
         WAIT FOR {waits_for} UNTIL TIMESTAMP '2026-01-01 23:59:59';\n"
    )
}

fn expect_same(home: &Home, bounded: &str) -> Result<(), Failed> {
    let found = home.tables("", &[IN_T, bounded])?;
    let [in_t, bounded] = &found[..] else { return Err("two results were expected".into()) };
    if in_t == bounded && !in_t.is_empty() {
        return Ok(());
    }
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|row| !b.contains(row)).take(5).cloned().collect()
    };
    let (more, less) = (only(in_t, bounded), only(bounded, in_t));
    let counts = (in_t.len(), bounded.len());
    Err(format!("{counts:?} rows; only in t: {more:?}; missing: {less:?}").into())
}

/// The files of `t`, and how long each is.
fn files_of_target(home: &Home) -> Result<Vec<(PathBuf, u64)>, Failed> {
    let directory = home.data().join("streams").join("t");
    let mut found = vec![];
    if directory.is_dir() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            // It may have been deleted meanwhile.
            found.push((entry.path(), entry.metadata().map_or(0, |metadata| metadata.len())));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// `waits_for`: the object that feeds `t`.
fn killed(insert: &str, waits_for: &str, bounded: &str) -> Result<(), Failed> {
    const STATEMENTS: u64 = 40;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = ["--checkpoint-interval", "0.01", "--tail-rows", "40"].map(str::to_owned).into();
    let mut next = 0;
    for kill in 0..rounds(12) as u64 {
        let streams = if waits_for == "t" { STREAM } else { STREAMS };
        let mut sql = format!("{streams}{insert}");
        let statements = next..next + STATEMENTS;
        next = statements.end;
        statements.for_each(|statement| sql.push_str(&rows_of(statement)));
        sql.push_str(&for_ever(waits_for));
        let before = files_of_target(&home)?;
        let mut running = home.start(&sql)?;
        let after = kill * 11 % STATEMENTS;
        if !running.until(usize::try_from(after)?, "INSERT 0")? {
            return Err(failed(&running.finish()?, "the program ends"));
        }
        // Every moment must do: here while rows come, there while they are copied to the target.
        if kill % 3 == 1 {
            running.wait_until("rows for t", || Ok(files_of_target(&home)? != before))?;
        } else {
            running.steps_more(usize::try_from(kill * 17 % (STATEMENTS - after))?)?;
        }
        running.kill()?.no_bug()?;
    }
    home.ok(&last(waits_for))?;
    expect_same(&home, bounded)
}

fn fed() -> Result<(), Failed> {
    let home = Home::new()?;
    home.ok(&format!("{STREAM}{FED_ROWS}{}WAIT FOR t;\n", rows_of(0)))?;
    home.run("DROP MATERIALIZED VIEW t_rows;")?.refused(2, &["\"t_rows\" is read by \"t\""])?;
    home.run("DROP STREAM s;")?.refused(2, &["\"s\" is read by \"t_rows\""])?;
    home.ok(&format!("{}WAIT FOR t;\n", rows_of(1)))?;
    expect_same(&home, BOUNDED_ROWS)?;
    home.ok(&format!("DROP STREAM t;\n{}", rows_of(2)))?;
    let left = home.tables("", &["SELECT count(*) FROM windrow.views"])?;
    if left != [["0"]] {
        return Err(format!("{left:?}").into());
    }
    // Another stream of the same name has all rows, once.
    home.ok(&format!("{FED_ROWS}WAIT FOR t;\n"))?;
    expect_same(&home, BOUNDED_ROWS)?;
    home.ok(&format!("DROP STREAM s CASCADE;\n{STREAM}"))?;
    let left = home.tables("", &["SELECT name FROM windrow.streams"])?;
    if left != [["s"]] {
        return Err(format!("{left:?}").into());
    }
    let memory = "CREATE STREAM m (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts) WITH (durability = 'memory');\n\
                  CREATE STREAM x AS SELECT * FROM m;";
    home.run(memory)?.refused(2, &["could not continue after a restart"])
}

fn dropped() -> Result<(), Failed> {
    let home = Home::new()?;
    let said = home.run(&format!("{STREAMS}{INSERT}{}{INSERT}", rows_of(0)))?;
    said.check(said.err.contains("INSERT (continuous, as \"insert_into_t\""), "its name")?;
    said.check(said.err.contains("runs already as \"insert_into_t\""), "once")?;
    let refused = home.run("DROP STREAM t;")?;
    refused.refused(2, &["\"t\" is read by \"insert_into_t\""])?;
    home.ok(&last("insert_into_t"))?;
    expect_same(&home, BOUNDED)?;
    let shown = home.ok("SHOW CREATE insert_into_t;")?;
    if !shown.contains("INSERT INTO t") {
        return Err(shown.into());
    }
    let more = "INSERT INTO s VALUES (-2, 0, TIMESTAMP '2026-01-03 00:00:00');\n";
    home.ok(&format!("DROP MATERIALIZED VIEW insert_into_t;\n{more}"))?;
    expect_same(&home, BOUNDED)?;
    // Another INSERT of the same name is another one: all of its rows come.
    home.ok(&format!("{INSERT}{}", last("insert_into_t")))?;
    let twice =
        home.tables("", &["SELECT max(c) FROM (SELECT count(*) AS c FROM t GROUP BY ws, k)"])?;
    if twice == [["2"]] { Ok(()) } else { Err(format!("{twice:?}").into()) }
}

fn not_kept() -> Result<(), Failed> {
    let home = Home::new()?;
    let late = "INSERT INTO t (ws, k, n) SELECT window_start, k, count(*) FROM TUMBLE(s, ts, INTERVAL '1 second') \
                GROUP BY window_start, window_end, k EMIT FINAL LATE DATA TO late_s;\n";
    let said = home.run(&format!("{STREAMS}{late}"))?;
    said.check(said.status.success() && said.err.contains("it ends with this process"), "says so")
}
