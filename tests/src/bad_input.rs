//! Bad input gives a clear error or a bad row, never a panic, and loses no good row.

use std::io::Write;
use std::path::Path;

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use windrow_core::Limits;

use crate::talk::Talk;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let files =
        FILES.iter().map(|case| trial(format!("bad_input/{}", case.name), move || file(case)));
    let others = [
        ("a line of 100 MB", long_line as fn() -> Result<(), Failed>),
        ("a truncated gzip file", truncated_gzip),
        ("a directory without match", no_match),
        ("a directory instead of a file", empty_directory),
        ("a column that the file does not have", missing_column),
        ("a time in 2099", future),
        ("SQL of 1 MB", long_sql),
        ("SQL nested 20,000 deep", deep_sql),
        ("SQL of random tokens", random_sql),
        ("SQL cut off anywhere", truncated_sql),
    ];
    files.chain(others.map(|(name, test)| trial(format!("bad_input/{name}"), test))).collect()
}

/// A file of rows `{"v": …, "ts": …}` with something wrong in it.
struct Case {
    name: &'static str,
    suffix: &'static str,
    bytes: &'static [u8],
    /// Good rows and their sum, and bad rows.
    good: (&'static str, &'static str),
    bad: &'static str,
}

const FILES: &[Case] = &[
    Case {
        name: "json: the last line is cut off",
        suffix: "json",
        bytes: b"{\"v\":1,\"ts\":\"2026-01-01T00:00:01\"}\n{\"v\":2,\"ts\":\"2026-01-01T00:00:02\"}\n{\"v\":4,\"ts\":\"2026-01",
        good: ("2", "3"),
        bad: "1",
    },
    Case {
        name: "json: no newline at the end",
        suffix: "json",
        bytes: b"{\"v\":1,\"ts\":\"2026-01-01T00:00:01\"}\n{\"v\":2,\"ts\":\"2026-01-01T00:00:02\"}",
        good: ("2", "3"),
        bad: "0",
    },
    Case {
        name: "json: wrong types, a number too big",
        suffix: "json",
        bytes: b"{\"v\":\"x\",\"ts\":\"2026-01-01T00:00:01\"}\n{\"v\":2,\"ts\":\"2026-01-01T00:00:02\"}\n{\"v\":4,\"ts\":true}\n{\"v\":5000000000,\"ts\":\"2026-01-01T00:00:02\"}\n{\"v\":{\"a\":1},\"ts\":\"2026-01-01T00:00:02\"}\n{\"v\":8,\"ts\":\"2026-01-01T00:00:03\"}\n",
        good: ("2", "10"),
        bad: "4",
    },
    Case {
        name: "json: invalid UTF-8 and a NUL",
        suffix: "json",
        bytes: b"{\"v\":1,\"ts\":\"2026-01-01T00:00:01\"}\n{\"v\":2,\"x\":\"\xff\xfe\",\"ts\":\"2026-01-01T00:00:02\"}\n\0\n{\"v\":4,\"ts\":\"2026-01-01T00:00:03\"}\n",
        good: ("2", "5"),
        bad: "2",
    },
    Case {
        name: "json: byte order mark, CRLF, blank lines, escapes",
        suffix: "json",
        bytes: b"\xef\xbb\xbf{\"v\":1,\"ts\":\"2026-01-01T00:00:01\"}\r\n\r\n{\"\\u0076\":2,\"ts\":\"2026-01-01T00:00:02\"}\r\n  \n{\"v\":4,\"x\":\"a\\nb\",\"ts\":\"2026-01-01T00:00:03\"}\r\n",
        good: ("3", "7"),
        bad: "0",
    },
    Case {
        name: "json: not objects",
        suffix: "json",
        bytes: b"[1, 2]\n42\n\"text\"\nnull\n{}\n{\"v\":1,\"ts\":\"2026-01-01T00:00:01\"} trailing\n{\"v\":2,\"ts\":\"2026-01-01T00:00:02\"}\n",
        good: ("1", "2"),
        bad: "6",
    },
    Case { name: "json: an empty file", suffix: "json", bytes: b"", good: ("0", "NULL"), bad: "0" },
    Case { name: "json: only newlines", suffix: "json", bytes: b"\n\n\r\n", good: ("0", "NULL"), bad: "0" },
    Case {
        name: "csv: wrong types, too few and too many columns",
        suffix: "csv",
        bytes: b"v,ts\n1,2026-01-01 00:00:01\nx,2026-01-01 00:00:02\n2\n3,2026-01-01 00:00:03,extra\n4,yesterday\n8,2026-01-01 00:00:04\n",
        good: ("2", "9"),
        bad: "4",
    },
    Case {
        name: "csv: a quote that never ends",
        suffix: "csv",
        bytes: b"v,ts\n1,2026-01-01 00:00:01\n2,2026-01-01 00:00:02\n\"4,2026-01-01 00:00:03\n",
        good: ("2", "3"),
        bad: "1",
    },
    Case { name: "csv: only the header", suffix: "csv", bytes: b"v,ts\n", good: ("0", "NULL"), bad: "0" },
];

const COLUMNS: &str = "(v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts)";

fn stream(talk: &Talk, path: &Path) -> Result<(), Failed> {
    talk.ask(&format!(
        "CREATE STREAM s {COLUMNS} WITH (connector = 'file', path = '{}')",
        path.display()
    ))?;
    Ok(())
}

/// Counts by a view, and compares with the ledger and the table of bad rows.
fn expect(talk: &Talk, good: (&str, &str), bad: &str) -> Result<(), Failed> {
    talk.ask(
        "CREATE MATERIALIZED VIEW v AS SELECT window_end, count(*) AS n, sum(v) AS total \
              FROM TUMBLE(s, ts, INTERVAL '1 hour') GROUP BY window_end",
    )?;
    talk.ask("WAIT FOR v")?;
    same(
        "the view",
        &talk.rows("SELECT coalesce(sum(n), 0), sum(total) FROM v")?,
        &[good.0, good.1],
    )?;
    let ledger =
        "SELECT rows_in, aggregated, filtered + late, bad FROM windrow.ledger WHERE query = 'v'";
    let rows_in = (good.0.parse::<u64>()? + bad.parse::<u64>()?).to_string();
    same("the ledger", &talk.rows(ledger)?, &[&rows_in, good.0, "0", bad])?;
    same(
        "windrow.bad_rows",
        &talk.rows("SELECT count(*) FROM windrow.bad_rows WHERE reason <> ''")?,
        &[bad],
    )
}

fn same(what: &str, rows: &[Vec<String>], expected: &[&str]) -> Result<(), Failed> {
    if rows.len() == 1 && rows[0] == expected {
        return Ok(());
    }
    Err(format!("{what}: {rows:?} instead of {expected:?}").into())
}

fn file(case: &Case) -> Result<(), Failed> {
    let directory = TempDir::new()?;
    let path = directory.path().join(format!("rows.{}", case.suffix));
    std::fs::write(&path, case.bytes)?;
    let talk = Talk::new(Limits::default())?;
    stream(&talk, &path)?;
    expect(&talk, case.good, case.bad)
}

fn row(v: u32) -> String {
    format!("{{\"v\":{v},\"ts\":\"2026-01-01T00:00:0{v}\"}}\n")
}

fn long_line() -> Result<(), Failed> {
    let directory = TempDir::new()?;
    let path = directory.path().join("rows.json");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
    write!(file, "{}{{\"v\":2,\"ts\":\"2026-01-01T00:00:02\",\"x\":\"", row(1))?;
    for _ in 0..100 {
        file.write_all(&[b'x'; 1 << 20])?;
    }
    write!(file, "\"}}\n{}", row(4))?;
    file.into_inner()?;
    let talk = Talk::new(Limits::default())?;
    stream(&talk, &path)?;
    expect(&talk, ("3", "7"), "0")?;
    // With a limit below, it is a bad row, and the others are not.
    let talk = Talk::new(Limits { row_bytes_max: 10 << 20, ..Limits::default() })?;
    stream(&talk, &path)?;
    expect(&talk, ("2", "5"), "1")
}

fn truncated_gzip() -> Result<(), Failed> {
    let directory = TempDir::new()?;
    let path = directory.path().join("rows.json.gz");
    let mut zip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    for v in 0..10_000 {
        zip.write_all(row(v % 10).as_bytes())?;
    }
    let bytes = zip.finish()?;
    std::fs::write(&path, &bytes[..bytes.len() / 2])?;
    let talk = Talk::new(Limits::default())?;
    stream(&talk, &path)?;
    refused(&talk, "SELECT count(*) FROM s", "rows.json.gz")
}

/// The statement must fail, and the message say this.
fn refused(talk: &Talk, sql: &str, says: &str) -> Result<(), Failed> {
    match talk.ask(sql) {
        Ok(_) => Err("this was to be refused".into()),
        Err(e) if e.0.contains(says) && !e.0.contains("panicked") => Ok(()),
        Err(e) => Err(format!("the message does not say {says:?}: {e}").into()),
    }
}

fn no_match() -> Result<(), Failed> {
    let directory = TempDir::new()?;
    let path = directory.path().join("*.json");
    let sql =
        format!("CREATE STREAM s {COLUMNS} WITH (connector = 'file', path = '{}')", path.display());
    refused(&Talk::new(Limits::default())?, &sql, "*.json")
}

fn empty_directory() -> Result<(), Failed> {
    let directory = TempDir::new()?;
    let path = directory.path().display();
    let sql = format!(
        "CREATE STREAM s {COLUMNS} WITH (connector = 'file', path = '{path}', format = 'json')"
    );
    refused(&Talk::new(Limits::default())?, &sql, &path.to_string())
}

fn missing_column() -> Result<(), Failed> {
    let directory = TempDir::new()?;
    let path = directory.path().join("rows.csv");
    std::fs::write(&path, "ts,w\n2026-01-01 00:00:01,1\n")?;
    let talk = Talk::new(Limits::default())?;
    let sql =
        format!("CREATE STREAM s {COLUMNS} WITH (connector = 'file', path = '{}')", path.display());
    match talk.ask(&sql) {
        // It may be seen at once or when the file is read.
        Ok(_) => refused(&talk, "SELECT count(v) FROM s", "\"v\""),
        Err(e) if e.0.contains("\"v\"") => Ok(()),
        Err(e) => Err(format!("the column is not named: {e}").into()),
    }
}

/// A bounded source has no guard against the future: one bad clock may make others late, but nothing is lost uncounted.
fn future() -> Result<(), Failed> {
    let directory = TempDir::new()?;
    let path = directory.path().join("rows.json");
    std::fs::write(
        &path,
        format!("{}{{\"v\":2,\"ts\":\"2099-01-01T00:00:00\"}}\n{}", row(1), row(4)),
    )?;
    let talk = Talk::new(Limits::default())?;
    stream(&talk, &path)?;
    talk.ask(
        "CREATE MATERIALIZED VIEW v AS SELECT window_end, sum(v) AS total \
              FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_end",
    )?;
    talk.ask("WAIT FOR v")?;
    same("the view", &talk.rows("SELECT count(*), sum(total) FROM v")?, &["2", "3"])?;
    let ledger = "SELECT rows_in, aggregated, late, bad FROM windrow.ledger WHERE query = 'v'";
    same("the ledger", &talk.rows(ledger)?, &["3", "2", "1", "0"])
}

fn long_sql() -> Result<(), Failed> {
    let talk = Talk::new(Limits::default())?;
    let values: Vec<String> = (0..100_000).map(|i| format!("({i},'v{i}')")).collect();
    let sql = format!("SELECT count(*), max(a) FROM (VALUES {}) AS t(a, b)", values.join(","));
    same("1 MB of values", &talk.rows(&sql)?, &["100000", "99999"])?;
    refused(&talk, &format!("SELECT '{}", "x".repeat(1 << 20)), "")?;
    refused(&talk, &format!("SELECT {}", "a.".repeat(500_000)), "")
}

fn deep_sql() -> Result<(), Failed> {
    let talk = Talk::new(Limits::default())?;
    let n = 20_000;
    for sql in [
        format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n)),
        format!("SELECT {}1", "NOT ".repeat(n)),
        format!("SELECT {}1", "- ".repeat(n)),
        format!("{}SELECT 1{}", "SELECT * FROM (".repeat(n), ") AS t".repeat(n)),
        format!("SELECT {}", "CASE WHEN true THEN ".repeat(n)),
    ] {
        refused(&talk, &sql, "")?;
    }
    // Long chains are not deep for a reader: an answer or a clear error, no crash.
    drop(talk.ask(&format!("SELECT 1{}", " + 1".repeat(5_000))));
    drop(talk.ask(&format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(500))));
    same("still there", &talk.rows("SELECT 1")?, &["1"])
}

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "EMIT",
    "FINAL",
    "CHANGES",
    "WINDOW",
    "TUMBLING",
    "(",
    ")",
    ",",
    ";",
    "'",
    "\"",
    "`",
    "s",
    "ts",
    "v",
    "TUMBLE",
    "HOP",
    "INTERVAL",
    "'1 minute'",
    "SIZE",
    "1",
    "MINUTE",
    "CREATE",
    "STREAM",
    "MATERIALIZED",
    "VIEW",
    "AS",
    "WITH",
    "=",
    "=>",
    "DESCRIPTOR",
    "TABLE",
    "WATERMARK FOR",
    "WAIT FOR",
    "EXPLAIN",
    "SHOW",
    "--",
    "/*",
    "*/",
    "count(*)",
    "window_end",
    "INSERT INTO",
    "VALUES",
    "NULL",
    "::",
    "->>",
    "$1",
    "\u{1F33E}",
    "\\",
    "DROP",
    "SUBSCRIBE TO",
    "EVERY",
    "ALLOW LATENESS",
    "LATE DATA TO",
    "9999999999999999999999",
    "OVER",
    "UNION",
    "JOIN",
    "ON",
    "*",
];

/// Repeatable numbers, enough to shuffle words.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap_or(0)
}

fn random_sql() -> Result<(), Failed> {
    let talk = Talk::new(Limits::default())?;
    talk.ask(&format!("CREATE STREAM s {COLUMNS}"))?;
    let mut state = 1;
    for _ in 0..2_000 {
        let length = 1 + next(&mut state) % 14;
        let words: Vec<&str> = (0..length).map(|_| WORDS[next(&mut state) % WORDS.len()]).collect();
        no_panic(&talk, &words.join(" "))?;
    }
    same("still there", &talk.rows("SELECT 1")?, &["1"])
}

/// Anything but a panic or an internal error will do.
fn no_panic(talk: &Talk, sql: &str) -> Result<(), Failed> {
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| talk.ask(sql)));
    match asked {
        Err(_) => Err(format!("a panic: {sql}").into()),
        Ok(Err(e)) if e.0.contains("panicked") || e.0.contains("bug in DataFusion") => {
            Err(format!("an internal error: {sql}\n{e}").into())
        }
        Ok(_) => Ok(()),
    }
}

fn truncated_sql() -> Result<(), Failed> {
    let whole = "CREATE STREAM s (v INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 second') WITH (idle_timeout = '5 s')\u{1F33E}; \
                 SELECT TUMBLE_START(ts, INTERVAL '1' MINUTE), count(*) FROM \"s\" GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE) EMIT FINAL";
    let talk = Talk::new(Limits::default())?;
    for end in (0..whole.len()).filter(|&i| whole.is_char_boundary(i)) {
        no_panic(&talk, &whole[..end])?;
    }
    Ok(())
}
