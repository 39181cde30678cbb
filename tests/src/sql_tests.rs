//! `windrow test`: the tests of `sql/tests` pass, also with `--shake`; failures are shown.

use std::path::Path;
use std::process::Output;

use libtest_mimic::{Failed, Trial};

use crate::program::program;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("sql_tests/those of sql/tests pass", ours),
        trial("sql_tests/the clock moves as the test says", clock),
        trial("sql_tests/what fails is shown", failing),
        trial("sql_tests/what is no test is said", none),
    ]
}

fn test(arguments: &[&str]) -> Result<(i32, String), Failed> {
    let output: Output =
        std::process::Command::new(program()?).arg("test").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().unwrap_or(-1), text))
}

/// Runs one test of this text; `{}` in the result stands for its path.
fn one(text: &str, options: &[&str]) -> Result<(i32, String), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.sql").display().to_string();
    std::fs::write(&path, text)?;
    let arguments: Vec<&str> =
        std::iter::once(path.as_str()).chain(options.iter().copied()).collect();
    let (code, said) = test(&arguments)?;
    Ok((code, said.replace(&path, "{}")))
}

fn is(found: &(i32, String), code: i32, words: &str) -> Result<(), Failed> {
    if found.0 == code && found.1.contains(words) {
        return Ok(());
    }
    Err(format!("expected status {code} and\n{words}\nfound status {} and\n{}", found.0, found.1)
        .into())
}

fn ours() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let junit = folder.path().join("junit.xml");
    let found = test(&["sql/tests", "--shake=3", "--junit", &junit.display().to_string()])?;
    is(&found, 0, "sql/tests/functions.sql: ok\n3 tests, 0 failed\n")?;
    let xml = std::fs::read_to_string(&junit)?;
    is(&(0, xml), 0, "<testcase classname=\"windrow\" name=\"sql/tests/cards.sql\"></testcase>")
}

const IDLE: &str = "-- at 2026-01-01 00:00:00
CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)
WITH (connector = 'kafka', brokers = 'nowhere:1', topic = 't', idle_timeout = '10 seconds', when_idle = 'clock');
CREATE MATERIALIZED VIEW v AS
SELECT window_end, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end;
INSERT INTO s VALUES (1, '2026-01-01 00:00:05');
SELECT n FROM v;
-- expect none
-- at 00:02:00
SELECT window_end, n FROM v;
-- expect
-- 2026-01-01T00:01:00 | 1
";

/// Rows that Kafka would send are inserted, and a window closes by the clock of the test.
fn clock() -> Result<(), Failed> {
    is(&one(IDLE, &[])?, 0, "{}: ok\n1 test, 0 failed\n")?;
    let back = "-- at 00:02:00\nSELECT 1;\n-- expect\n-- 1\n-- at 00:01:00\nSELECT 1;";
    is(&one(back, &[])?, 3, "{}:5: the clock does not go back")
}

fn failing() -> Result<(), Failed> {
    let text = "CREATE STREAM s (a INT, b VARCHAR);
INSERT INTO s VALUES (1, 'x'), (2, NULL), (3, '');
SELECT a, b FROM s ORDER BY a;
-- expect
-- 1 | x
-- 2 | y
-- 3 |
SELECT a FROM s;
-- expect
-- 3
-- 1
-- 2
";
    let found = one(text, &[])?;
    let shown = "{}: FAILED
  line 3: SELECT a, b FROM s ORDER BY a
      1 | x
    - 2 | y
    + 2 | NULL
      3 |
1 test, 1 failed
";
    is(&found, 3, shown)?;
    let error = one("SELECT nothing;\n-- expect none\n", &[])?;
    is(&error, 3, "{}: FAILED\n  error: {}:1: ")?;
    is(&one("SELECT 1\n-- expect\n-- 1\nSELECT;", &["--quiet"])?, 3, "{}: FAILED")
}

fn none() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("plain.sql"), "SELECT 1;")?;
    let found = test(&[&folder.path().display().to_string()])?;
    is(&found, 2, "there are no tests in")?;
    let path = Path::new("no/such.sql").display().to_string();
    is(&test(&[&path])?, 3, "cannot read \"no/such.sql\"")
}
