//! Sinks: files have each row once whatever ends the process, webhooks get every row, a destination that is away holds nothing
//! but its sink.

mod kills;
mod rejected;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;
use windrow_engine::{Access, Engine, EngineConfig, Files, Grant, Role, SessionOptions};

use crate::hooks::{Hooks, Post};
use crate::kept_insert::rows_of;
use crate::program::{Home, PATIENCE};
use crate::readers::python;
use crate::talk::{Refusal, Talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("sinks/kill -9 while files are written", kills::files_killed),
        trial("sinks/kill -9 while requests are sent", kills::requests_killed),
        trial("sinks/other programs read the files", types),
        trial("sinks/a destination that is away holds the sink alone", away),
        trial("sinks/a row that is refused stops the sink", refused),
        trial("sinks/requests that are refused are set aside", rejected::requests),
        trial("sinks/batches that are refused are divided", rejected::batches),
        trial("sinks/a destination that refuses all stops the sink", rejected::not_the_row),
        trial("sinks/definitions survive", definitions),
        trial("sinks/secrets are not shown", secrets),
        trial("sinks/remote users write where they may", remote),
        trial("sinks/retention waits for a sink", retention),
        trial("sinks/a script ends when its rows are there", script),
    ]
}

pub(crate) const STREAM: &str =
    "CREATE STREAM IF NOT EXISTS s (id BIGINT, k INT, ts TIMESTAMP, WATERMARK FOR ts);\n";
/// One view with windows, one that passes rows.
pub(crate) const VIEWS: &str = "
CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT window_start, k, count(*) AS n, min(id) AS low, max(id) AS high
FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW IF NOT EXISTS r AS SELECT id, k, ts FROM s WHERE k <> 3;
";

/// The last row closes all windows before it.
pub(crate) const LAST: &str = "INSERT INTO s VALUES (-1, 0, TIMESTAMP '2026-01-02 00:00:00');
WAIT FOR v UNTIL TIMESTAMP '2026-01-01 23:59:59';
";

/// The rows of all files below a directory, as DuckDB reads them, sorted.
fn read(dir: &Path, form: &str, columns: &str) -> Result<Vec<String>, Failed> {
    let mut read = Command::new(python()?);
    read.arg("tests/readers/read_files.py").arg(dir).args([form, columns]);
    let output = read.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let mut rows: Vec<String> =
        String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    rows.sort_unstable();
    Ok(rows)
}

pub(crate) fn same(what: &str, found: &[String], expected: &[String]) -> Result<(), Failed> {
    if found == expected && !expected.is_empty() {
        return Ok(());
    }
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|row| !b.contains(row)).take(5).cloned().collect()
    };
    let (more, less) = (only(found, expected), only(expected, found));
    let counts = (found.len(), expected.len());
    Err(format!("{what}: {counts:?} rows; too much: {more:?}; missing: {less:?}").into())
}

/// The bodies of requests by their keys.
///
/// # Errors
/// When a key came with two bodies.
fn by_key(posts: &[Post]) -> Result<BTreeMap<String, String>, Failed> {
    let mut bodies = BTreeMap::new();
    for post in posts {
        let before = bodies.insert(post.key().to_owned(), post.body.clone());
        if before.as_ref().is_some_and(|before| *before != post.body) {
            return Err(format!("key {}: {before:?} and {:?}", post.key(), post.body).into());
        }
    }
    Ok(bodies)
}

fn types() -> Result<(), Failed> {
    const TYPES: &str = "
CREATE STREAM t (ts TIMESTAMP, big BIGINT, u BIGINT UNSIGNED, x DOUBLE, price DECIMAL(38, 3), yes BOOLEAN, day DATE, w VARCHAR, z TIMESTAMPTZ,
    WATERMARK FOR ts);
CREATE MATERIALIZED VIEW tv AS SELECT * FROM t;
INSERT INTO t VALUES
    (TIMESTAMP '2026-01-01 00:00:01.123456', 9223372036854775807, 18446744073709551615, 0.1, CAST('12345678901234567890123456789012345.678' AS DECIMAL(38, 3)), true,
     DATE '1969-12-31', 'it''s \"1\", ü', TIMESTAMPTZ '2026-01-01 00:00:00+02:00'),
    (TIMESTAMP '2026-01-01 00:00:02', -9223372036854775808, 0, -2.5e300, CAST('-0.001' AS DECIMAL(38, 3)), false, DATE '2026-02-28', '', TIMESTAMPTZ '2026-07-01 00:00:00Z'),
    (TIMESTAMP '2026-01-01 00:00:03', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
";
    for durable in [true, false] {
        let mut home = Home::new()?;
        home.durable = durable;
        let mut sql = TYPES.to_owned();
        let forms = [("parquet", "parquet"), ("csv", "csv"), ("json", "ndjson")];
        for (dir, form) in forms {
            let path = home.beside(dir);
            sql.push_str(&format!(
                "CREATE SINK {dir}_sink FROM tv WITH (connector = 'file', path = '{}', format = '{form}');\n",
                path.display()
            ));
        }
        home.ok(&sql)?;
        let columns = "strftime(CAST(ts AS TIMESTAMP), '%S.%f'), CAST(big AS VARCHAR), CAST(u AS VARCHAR), CAST(x AS DOUBLE) < 0, \
                       CAST(price AS VARCHAR), CAST(yes AS BOOLEAN), CAST(day AS DATE), w, epoch(CAST(z AS TIMESTAMPTZ))";
        let exact = [
            "01.123456,9223372036854775807,18446744073709551615,False,12345678901234567890123456789012345.678,True,1969-12-31,it's \"1\", ü,1767218400.0",
            "02.000000,-9223372036854775808,0,True,-0.001,False,2026-02-28,,1782864000.0",
            "03.000000,,,,,,,,",
        ];
        for (dir, _) in forms {
            let found = read(&home.beside(dir), dir, columns)?;
            // JSON has no decimals: DuckDB reads its numbers as floats.
            let without_price = |row: &str| match dir {
                "json" => row
                    .split(',')
                    .enumerate()
                    .filter(|(at, _)| *at != 4)
                    .map(|(_, v)| v)
                    .collect::<Vec<_>>()
                    .join(","),
                _ => row.to_owned(),
            };
            let found: Vec<String> = found.iter().map(|row| without_price(row)).collect();
            let expected: Vec<String> = exact.iter().map(|row| without_price(row)).collect();
            same(dir, &found, &expected)?;
        }
    }
    Ok(())
}

/// Waits until a query gives a row that begins with this value.
pub(crate) fn wait_until(talk: &Talk, sql: &str, value: &str) -> Result<Vec<String>, Failed> {
    let pause = std::time::Duration::from_millis(2);
    for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
        let rows = talk.rows(sql)?;
        if let Some(row) =
            rows.into_iter().find(|row| row.first().is_some_and(|first| first == value))
        {
            return Ok(row);
        }
        std::thread::sleep(pause);
    }
    Err(format!("{sql} never gives {value}: {:?}", talk.rows(sql)?).into())
}

pub(crate) fn refusal<T>(answer: Result<T, Refusal>) -> Result<String, Failed> {
    match answer {
        Ok(_) => Err("it is not refused".into()),
        Err(Refusal(text)) => Ok(text),
    }
}

/// A view over a stream that takes rows.
pub(crate) fn small(talk: &Talk) -> Result<(), Failed> {
    talk.ask(STREAM.trim_end().trim_end_matches(';'))?;
    talk.ask("CREATE MATERIALIZED VIEW v AS SELECT id, k FROM s")?;
    Ok(())
}

pub(crate) fn insert(talk: &Talk, ids: std::ops::Range<u64>) -> Result<(), Failed> {
    let rows: Vec<String> =
        ids.map(|id| format!("({id}, 1, TIMESTAMP '2026-01-01 00:00:00')")).collect();
    talk.ask(&format!("INSERT INTO s VALUES {}", rows.join(", ")))?;
    Ok(())
}

/// An engine in memory, or on a directory.
pub(crate) fn engine(dir: Option<&Path>) -> Result<Talk, Failed> {
    let limits =
        Limits { spill_interval: std::time::Duration::from_millis(10), ..Limits::default() };
    let data_dir = dir.map(|dir| dir.join("data"));
    Ok(Talk::following(EngineConfig { limits, data_dir, ..EngineConfig::default() })?)
}

fn away() -> Result<(), Failed> {
    for durable in [false, true] {
        let temp = tempfile::tempdir()?;
        let talk = engine(durable.then_some(temp.path()))?;
        small(&talk)?;
        // A port that is free, and nobody listens at.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let out = temp.path().join("out");
        talk.ask(&format!(
            "CREATE SINK h FROM v WITH (connector = 'webhook', url = 'http://127.0.0.1:{port}/x', timeout = '1 minute')"
        ))?;
        talk.ask(&format!(
            "CREATE SINK f FROM v WITH (connector = 'file', path = '{}', format = 'ndjson', roll_interval = '1 ms')",
            out.display()
        ))?;
        // A file where the directory was.
        std::fs::remove_dir(&out)?;
        std::fs::write(&out, "")?;
        insert(&talk, 0..10)?;
        for sink in ["h", "f"] {
            let sql = format!(
                "SELECT CASE WHEN retries > 0 THEN state ELSE 'not yet' END, last_error, retries, committed \
                 FROM windrow.sinks WHERE name = '{sink}'"
            );
            let row = wait_until(&talk, &sql, "retrying")?;
            if row[1] == "NULL" || row[2] == "0" || row[3] != "0" {
                return Err(format!("{row:?}").into());
            }
            let why =
                refusal(talk.ask(&format!("WAIT FOR {sink} TIMEOUT INTERVAL '20 milliseconds'")))?;
            if !why.contains(&format!("waiting for sink \"{sink}\" timed out")) {
                return Err(why.into());
            }
        }
        // The view has its rows nevertheless.
        insert(&talk, 10..20)?;
        talk.ask("WAIT FOR v")?;
        if talk.rows("SELECT count(*) FROM v")? != [["20"]] {
            return Err("the view waits".into());
        }
        let hooks = Hooks::answering(port, |_, _| 200)?;
        std::fs::remove_file(&out)?;
        talk.ask("WAIT FOR h")?;
        talk.ask("WAIT FOR f")?;
        let posts = hooks.posts();
        if posts.len() != 20 || by_key(&posts)?.len() != 20 {
            return Err(format!("{} requests", posts.len()).into());
        }
        same("files", &read(&out, "json", "id")?, &sorted(0..20))?;
        let sql = "SELECT state, committed, lag_rows, rows FROM windrow.sinks ORDER BY name";
        let rows = talk.rows(sql)?;
        let fine = ["running", "20", "0", "20"].map(str::to_owned).to_vec();
        if rows != [fine.clone(), fine] {
            return Err(format!("{rows:?}").into());
        }
        talk.close()?;
    }
    Ok(())
}

fn sorted(numbers: std::ops::Range<u64>) -> Vec<String> {
    let mut rows: Vec<String> = numbers.map(|n| n.to_string()).collect();
    rows.sort_unstable();
    rows
}

fn refused() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    let mends = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mends);
    let hooks = Hooks::answering(0, move |_, post| {
        if post.body.contains("\"id\":3,") && !is_mended.load(Ordering::Acquire) {
            422
        } else {
            200
        }
    })?;
    talk.ask(&format!(
        "CREATE SINK h FROM v WITH (connector = 'webhook', url = '{}')",
        hooks.url()
    ))?;
    insert(&talk, 0..6)?;
    let why = refusal(talk.ask("WAIT FOR h"))?;
    for word in ["sink \"h\" has stopped", "422", "RESUME SINK h"] {
        if !why.contains(word) {
            return Err(format!("{word} is not said: {why}").into());
        }
    }
    wait_until(&talk, "SELECT state FROM windrow.sinks", "stopped")?;
    refusal(talk.ask("PAUSE SINK h"))?;
    if hooks.posts().len() != 4 {
        return Err("requests after the refused one".into());
    }
    mends.store(true, Ordering::Release);
    talk.ask("RESUME SINK h")?;
    talk.ask("WAIT FOR h")?;
    if by_key(&hooks.posts())?.len() != 6 {
        return Err(format!("{:?}", hooks.posts()).into());
    }
    talk.close()?;
    Ok(())
}

fn definitions() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let out = |name: &str| temp.path().join(name);
    let file = |name: &str| {
        format!(
            "WITH (connector = 'file', path = '{}', format = 'ndjson', roll_interval = '1 hour')",
            out(name).display()
        )
    };
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    talk.ask(&format!("CREATE SINK f FROM v {}", file("f")))?;
    talk.ask(&format!("CREATE SINK q AS SELECT id * 2 AS twice FROM s {}", file("q")))?;
    insert(&talk, 0..10)?;
    talk.ask("WAIT FOR f")?;
    talk.ask("PAUSE SINK f")?;
    insert(&talk, 10..15)?;
    for (sql, word) in [
        ("DROP MATERIALIZED VIEW v", "\"v\" is read by \"f\""),
        ("DROP MATERIALIZED VIEW q_rows", "\"q_rows\" is read by \"q\""),
        ("CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT id FROM s", "\"v\" is read by \"f\""),
        ("DROP MATERIALIZED VIEW f", "\"f\" is a sink"),
        ("WAIT FOR f", "sink \"f\" is paused"),
    ] {
        let why = refusal(talk.ask(sql))?;
        if !why.contains(word) {
            return Err(format!("{sql}: {why}").into());
        }
    }
    talk.close()?;

    let talk = engine(Some(temp.path()))?;
    insert(&talk, 15..20)?;
    wait_until(&talk, "SELECT state FROM windrow.sinks WHERE name = 'f'", "paused")?;
    talk.ask("WAIT FOR q")?;
    same("paused", &read(&out("f"), "json", "id")?, &sorted(0..10))?;
    talk.ask("RESUME SINK f")?;
    talk.ask("WAIT FOR f")?;
    same("resumed", &read(&out("f"), "json", "id")?, &sorted(0..20))?;
    // Another definition over the same view continues, one over another view does not.
    talk.ask(&format!("CREATE OR REPLACE SINK f FROM v {}", file("f2")))?;
    insert(&talk, 20..30)?;
    talk.ask("WAIT FOR f")?;
    same("replaced", &read(&out("f2"), "json", "id")?, &sorted(20..30))?;
    talk.ask("CREATE MATERIALIZED VIEW w AS SELECT id FROM s WHERE id < 5")?;
    let why = refusal(talk.ask(&format!("CREATE SINK f3 FROM w {}", file("f2"))));
    why.err().map_or(Err(Failed::from("another sink is refused")), |_| Ok(()))?;
    let why = refusal(talk.ask(&format!("CREATE OR REPLACE SINK f FROM w {}", file("f2"))))?;
    if !why.contains("has files of a sink \"f\" already") {
        return Err(why.into());
    }
    let kept = talk.rows("SELECT \"view\", state FROM windrow.sinks WHERE name = 'f'")?;
    if kept != [["v", "running"]] {
        return Err(format!("the old one is gone: {kept:?}").into());
    }
    talk.ask("DROP SINK f3, q")?;
    talk.ask("DROP SINK IF EXISTS f")?;
    talk.ask("DROP MATERIALIZED VIEW v")?;
    if talk.rows("SELECT count(*) FROM windrow.sinks")? != [["0"]]
        || !refusal(talk.ask("SELECT * FROM q_rows"))?.contains("q_rows")
    {
        return Err("something is left".into());
    }
    talk.close()?;
    // What a replaced sink has left is deleted by the next start.
    let talk = engine(Some(temp.path()))?;
    if talk.rows("SELECT count(*) FROM windrow.sinks")? != [["0"]] {
        return Err("a sink is back".into());
    }
    talk.close()?;
    let left: Vec<_> = std::fs::read_dir(temp.path().join("data/sinks"))?.collect();
    if left.is_empty() { Ok(()) } else { Err(format!("{left:?}").into()) }
}

fn secrets() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let hooks = Hooks::answering(0, |_, _| 503)?;
    let mut said = vec![];
    for _ in 0..2 {
        let talk = engine(Some(temp.path()))?;
        if said.is_empty() {
            small(&talk)?;
            insert(&talk, 0..3)?;
            talk.ask(&format!(
                "CREATE SINK h AS SELECT id FROM s WITH (connector = 'webhook', url = '{}', secret = 'hunter2', 'header.Authorization' = 'Bearer hunter2')",
                hooks.url()
            ))?;
        }
        wait_until(&talk, "SELECT state FROM windrow.sinks", "retrying")?;
        for sql in [
            "SHOW CREATE h",
            "SHOW CREATE h_rows",
            "SELECT * FROM windrow.sinks",
            "SELECT * FROM windrow.views",
            "SHOW SINKS",
        ] {
            said.extend(talk.rows(sql)?.into_iter().flatten());
        }
        said.push(refusal(talk.ask("WAIT FOR h TIMEOUT INTERVAL '10 milliseconds'"))?);
        drop(talk.close());
    }
    match said.iter().find(|text| text.contains("hunter2") || text.contains("secret-path")) {
        Some(text) => Err(text.clone().into()),
        None if said.iter().any(|text| text.contains("***")) => Ok(()),
        None => Err(format!("{said:?}").into()),
    }
}

fn remote() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let data = temp.path().join("data");
    std::fs::create_dir(&data)?;
    let files = Files::below(Some(&data), &["https://hooks.test/team/".to_owned()])?;
    let config = EngineConfig {
        files: Some(files),
        data_dir: Some(data.clone()),
        ..EngineConfig::default()
    };
    let engine = Engine::open(config)?;
    let session = |role, pattern| {
        let grants = vec![Grant::new(role, pattern)?, Grant::new(Role::Read, "v")?];
        engine.session_of(SessionOptions::default(), Access::remote("ann", grants))
    };
    let run = |session: &windrow_engine::Session, sql: &str| {
        futures::executor::block_on(session.run(sql)).map(drop).map_err(|e| e.render(sql))
    };
    let admin = session(Role::Admin, "*")?;
    run(&admin, STREAM.trim_end().trim_end_matches(';'))?;
    run(&admin, "CREATE MATERIALIZED VIEW v AS SELECT id FROM s")?;
    let outside = temp.path().join("outside");
    for options in [
        format!("connector = 'file', format = 'csv', path = '{}'", outside.display()),
        "connector = 'file', format = 'csv', path = '../streams'".to_owned(),
        "connector = 'file', format = 'csv', path = 's3://bucket/x', endpoint = 'http://127.0.0.1:1'".to_owned(),
        "connector = 'webhook', url = 'http://127.0.0.1:1/x'".to_owned(),
        "connector = 'webhook', url = 'https://hooks.test/other'".to_owned(),
    ] {
        match run(&admin, &format!("CREATE SINK k FROM v WITH ({options})")) {
            Err(why) if !outside.exists() && !why.contains("exists already") => {}
            done => return Err(format!("{options}: {done:?}").into()),
        }
    }
    let out = "CREATE SINK k FROM v WITH (connector = 'file', format = 'csv', path = 'out')";
    let reader = session(Role::Write, "*")?;
    let denied = run(&reader, out).err().ok_or("a user without the role creates a sink")?;
    if !denied.contains("needs the role admin") {
        return Err(denied.into());
    }
    run(&admin, out)?;
    if !data.join("files/out").is_dir() {
        return Err("it is not below the files".into());
    }
    for sql in ["PAUSE SINK k", "DROP SINK k"] {
        run(&reader, sql).err().ok_or("a user without the role")?;
    }
    run(&admin, "DROP SINK k")?;
    engine.shutdown();
    Ok(())
}

fn retention() -> Result<(), Failed> {
    for durable in [false, true] {
        let temp = tempfile::tempdir()?;
        let talk = engine(durable.then_some(temp.path()))?;
        talk.ask(STREAM.trim_end().trim_end_matches(';'))?;
        talk.ask(
            "CREATE MATERIALIZED VIEW v WITH (retention = '1 minute') AS SELECT id, ts FROM s",
        )?;
        let hooks = Hooks::start()?;
        talk.ask(&format!(
            "CREATE SINK h FROM v WITH (connector = 'webhook', url = '{}')",
            hooks.url()
        ))?;
        talk.ask("PAUSE SINK h")?;
        for hour in 0..10 {
            talk.ask(&format!(
                "INSERT INTO s VALUES ({hour}, 1, TIMESTAMP '2026-01-01 0{hour}:00:00')"
            ))?;
        }
        wait_until(&talk, "SELECT dropped_rows FROM windrow.views", "9")?;
        talk.ask("RESUME SINK h")?;
        talk.ask("WAIT FOR h")?;
        let posts = hooks.wait_for(10)?;
        if by_key(&posts)?.len() != 10 {
            return Err(format!("{posts:?}").into());
        }
        talk.close()?;
    }
    Ok(())
}

fn script() -> Result<(), Failed> {
    let hooks = Hooks::start()?;
    let mut home = Home::new()?;
    home.durable = false;
    let sql = format!(
        "{STREAM}CREATE SINK h AS SELECT window_end, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_start, \
         window_end WITH (connector = 'webhook', url = '{}', mode = 'batch', batch_interval = '1 hour');\n{}{}",
        hooks.url(),
        rows_of(0),
        rows_of(10)
    );
    home.ok(&sql)?;
    if hooks.posts().len() != 1 {
        return Err(format!("{:?}", hooks.posts()).into());
    }
    // A destination that refuses is an error of the script.
    let refusing = Hooks::answering(0, |_, _| 400)?;
    let said = home.run(&sql.replace(&hooks.url(), &refusing.url()))?;
    said.refused(3, &["sink \"h\" has stopped", "400"])
}
