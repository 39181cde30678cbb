//! The `windrow` program: its output on stdout and stderr, and its exit status.

use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::program::program;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("binary/quickstart", quickstart),
        trial("binary/formats", formats),
        trial("binary/exit_codes", exit_codes),
        trial("binary/left_out", left_out),
        trial("binary/standard_input", standard_input),
        trial("binary/checking", checking),
        trial("binary/from_the_flags", from_the_flags),
    ]
}

fn windrow(arguments: &[&str]) -> Result<Output, Failed> {
    Ok(Command::new(program()?).args(arguments).stdin(Stdio::null()).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn check(holds: bool, what: &str, output: &Output) -> Result<(), Failed> {
    if holds {
        return Ok(());
    }
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Err(format!("{what}\n{}\nstdout:\n{out}\nstderr:\n{err}", output.status).into())
}

fn quickstart() -> Result<(), Failed> {
    let output = windrow(&["run", "sql/quickstart.sql"])?;
    check(output.status.success(), "the quickstart fails", &output)?;
    let out = text(&output.stdout);
    // Counted from sql/data/flights.json (one of 348 is late): the morning before the storm, the one departure of the next morning, an airline's name.
    for expected in
        ["2013-02-07T06:00:00", "347", "2013-02-09T06:00:00", "United Air Lines Inc.", "hourly"]
    {
        check(out.contains(expected), &format!("{expected:?} is not shown"), &output)?;
    }
    let lines = out.lines().count();
    check(lines < 200, "more than a newcomer wants to read", &output)
}

fn formats() -> Result<(), Failed> {
    let sql = "SELECT 1 AS a, 'x,y' AS b UNION ALL SELECT NULL, NULL ORDER BY a";
    for (format, expected) in [
        ("csv", "a,b\n1,\"x,y\"\n,\n"),
        ("ndjson", "{\"a\":1,\"b\":\"x,y\"}\n{\"a\":null,\"b\":null}\n"),
    ] {
        let output = windrow(&["-c", sql, "--format", format])?;
        check(text(&output.stdout) == expected, format, &output)?;
    }
    let output = windrow(&["-c", sql, "--format", "table"])?;
    check(text(&output.stdout).contains("NULL"), "table", &output)
}

/// Who reads a file with a bad row is told, however it is read.
fn left_out() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name).display().to_string();
    let row = |a: &str| format!("{{\"a\":{a},\"ts\":\"2026-01-01T00:00:01\"}}\n");
    std::fs::write(at("a.json"), row("1") + &row("\"x\"") + &row("2"))?;
    let statements = format!(
        "CREATE STREAM s (a INT, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'file', path = '{}'); \
         SELECT x.a FROM s AS x JOIN s AS y ON x.a = y.a; \
         COPY (SELECT a FROM s) TO '{}'; \
         CREATE TABLE t AS SELECT a FROM s; \
         CREATE STREAM pushed (a INT, ts TIMESTAMP, WATERMARK FOR ts); \
         INSERT INTO pushed SELECT a, ts FROM s; \
         CREATE MATERIALIZED VIEW v AS SELECT a FROM s; \
         WAIT FOR v; \
         SELECT * FROM v",
        at("a.json"),
        at("b.csv")
    );
    let output = windrow(&["-c", &statements])?;
    check(output.status.success(), "it fails", &output)?;
    let told = text(&output.stderr).matches("1 bad row was left out").count();
    check(told == 6, &format!("told {told} times"), &output)
}

fn exit_codes() -> Result<(), Failed> {
    let fails = "CREATE STREAM s (a INT, ts TIMESTAMP, WATERMARK FOR ts); \
                 CREATE MATERIALIZED VIEW v AS SELECT 1 / a AS q FROM s; \
                 INSERT INTO s VALUES (0, TIMESTAMP '2026-01-01 00:00:00')";
    let cases: [(&[&str], i32, &str); 7] = [
        // A view that fails behind the last statement.
        (&["-c", fails], 3, "view \"v\" has failed: divide by zero"),
        (&["-c", "SELECT 1"], 0, ""),
        (&["-c", "SELCT 1"], 2, "SELECT"),
        (&["-c", "SELECT 1; SELECT nothing FROM nowhere"], 2, "nowhere"),
        (&["run", "no/such/file.sql"], 2, "no/such/file.sql"),
        (&["--no-such-flag"], 2, "no-such-flag"),
        (&["-c", "SELECT CAST('x' || random() AS INT)"], 3, ""),
    ];
    for (arguments, code, message) in cases {
        let output = windrow(arguments)?;
        check(
            output.status.code() == Some(code),
            &format!("{arguments:?} is to exit with {code}"),
            &output,
        )?;
        check(
            text(&output.stderr).contains(message),
            &format!("{message:?} is not said"),
            &output,
        )?;
        let bug = text(&output.stderr).contains("panicked")
            || text(&output.stderr).contains("bug in DataFusion");
        check(!bug, "an internal message", &output)?;
    }
    Ok(())
}

fn standard_input() -> Result<(), Failed> {
    use std::io::Write;
    let mut child = Command::new(program()?)
        .args(["--format", "csv"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    stdin.write_all(b"CREATE TABLE t AS SELECT 4 AS x;\n-- a comment; with a semicolon\nSELECT x * 2 AS y FROM t;\n")?;
    drop(stdin);
    let output = child.wait_with_output()?;
    check(output.status.success() && text(&output.stdout) == "y\n8\n", "piped SQL", &output)
}

fn checking() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (file, out) = (folder.path().join("a.sql"), folder.path().join("out.csv"));
    let (file, out) = (file.display().to_string(), out.display().to_string());
    let good = format!(
        "CREATE STREAM s (k INT, at TIMESTAMP, WATERMARK FOR at);\n\\x\n\
         CREATE MATERIALIZED VIEW v AS SELECT window_start, count(*) AS n\n\
         FROM TUMBLE(s, at, INTERVAL '1 minute') GROUP BY window_start, window_end;\n\
         CREATE TABLE t AS SELECT k FROM s; INSERT INTO t SELECT k FROM s;\n\
         COPY (SELECT n FROM v) TO '{out}'; SELECT n FROM v EMIT CHANGES;\n"
    );
    std::fs::write(&file, &good)?;
    let output = windrow(&["check", &file])?;
    check(output.status.success(), "a good file is good", &output)?;
    check(text(&output.stderr).ends_with(": 6 statements, no errors\n"), "it says so", &output)?;
    check(!std::path::Path::new(&out).exists(), "nothing is written", &output)?;

    let bad = "SELECT m FROM v; SELEC 1;\n\\timng\nINSERT INTO s VALUES (1);\nDROP VIEW nowhere;\n";
    std::fs::write(&file, good + bad)?;
    let output = windrow(&["check", &file])?;
    check(output.status.code() == Some(2), "mistakes are the user's", &output)?;
    let err = text(&output.stderr);
    for told in [
        ":7: unknown column",
        "line 7: SELECT m FROM v; SELEC 1;",
        ":8: unknown command",
        ":9: INSERT INTO \"s\" expects 2 columns",
        "\"nowhere\"",
        "10 statements, 5 errors",
    ] {
        check(err.contains(told), &format!("{told:?} is not told"), &output)?;
    }
    Ok(())
}

fn from_the_flags() -> Result<(), Failed> {
    for shell in ["bash", "zsh", "fish"] {
        let output = windrow(&["completions", shell])?;
        check(text(&output.stdout).contains("checkpoint-interval"), shell, &output)?;
    }
    let output = windrow(&["man"])?;
    let page = text(&output.stdout);
    let whole = page.contains(".TH windrow") && page.contains("WINDROW CHECK");
    check(whole, "the manual has all commands", &output)
}
