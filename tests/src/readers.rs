//! Other programs read the archive: deltalake (the Python package), pyarrow and DuckDB have the same rows as `SELECT * FROM` the view.
//!
//! They are installed once, in a virtual environment in the target directory; that needs `python3` with `venv` and a
//! package index. DuckDB's delta extension would have to be downloaded by DuckDB itself, so DuckDB is given the Parquet files that the
//! Delta log lists.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libtest_mimic::{Failed, Trial};

use crate::program::{Home, for_ever, target_profile};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("readers/deltalake, pyarrow and duckdb read a view", read)]
}

const REQUIREMENTS: &str = "tests/readers/requirements.txt";

/// A Python that has the readers, and the server of the tests in a bucket.
pub(crate) fn python() -> Result<PathBuf, Failed> {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = MADE
        .get_or_init(|| make_python().map_err(|e| e.message().unwrap_or("no Python").to_owned()));
    made.clone().map_err(Failed::from)
}

fn make_python() -> Result<PathBuf, Failed> {
    let target = target_profile()?;
    let venv = target.parent().ok_or("no target directory")?.join("readers-venv");
    let python = venv.join("bin/python");
    let wanted = std::fs::read_to_string(REQUIREMENTS)?;
    let installed = venv.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|versions| versions == wanted) {
        return Ok(python);
    }
    let make = |program: &Path, arguments: &[&str], advice: &str| {
        let done = Command::new(program).args(arguments).output();
        let said = match done {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let program = program.display();
        Err(Failed::from(format!("{program} {}: {said}\n{advice}", arguments.join(" "))))
    };
    let path = venv.to_string_lossy();
    make(
        Path::new("python3"),
        &["-m", "venv", "--clear", &path],
        "This test needs python3 with its venv module (Debian: python3-venv).",
    )?;
    make(
        &python,
        &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS],
        "This test installs other readers of the archive from a package index.",
    )?;
    std::fs::write(installed, wanted)?;
    Ok(python)
}

const CREATE: &str = "
CREATE STREAM s (
    ts TIMESTAMP, k INT, big BIGINT, text VARCHAR, x DOUBLE, price DECIMAL(10, 2), yes BOOLEAN, day DATE,
    WATERMARK FOR ts);
CREATE MATERIALIZED VIEW hourly AS
SELECT window_start, window_end, window_time, k, count(*) AS n, max(big) AS big, min(text) AS text, sum(x) AS x,
       sum(price) AS price, bool_or(yes) AS yes, max(day) AS day, min(ts) AS first_ts
FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, window_time, k;
CREATE MATERIALIZED VIEW \"Odd \"\"name\"\" / ü\" AS
SELECT window_end, count(*) AS \"n of it; all\" FROM TUMBLE(s, ts, INTERVAL '10 minutes') GROUP BY window_start, window_end;
";

/// Some rows of minute `minute`.
fn rows(minute: u32) -> String {
    let at = |second: u32| {
        format!("TIMESTAMP '2026-01-01 {:02}:{:02}:{second:02}", minute / 60, minute % 60)
    };
    format!(
        "INSERT INTO s VALUES ({}.123456', 1, 9007199254740993, 'it''s \"{minute}\", ü', 0.1, -1.25, true, DATE '1969-12-31'), \
         ({}', 1, -{minute}, '', -2.5e300, {minute}.01, false, DATE '2026-02-28'), \
         ({}', NULL, NULL, NULL, NULL, NULL, NULL, NULL), ({}', 3, {minute}, 'a\nb', {minute}, 0, NULL, NULL);\n",
        at(1),
        at(20),
        at(40),
        at(59)
    )
}

fn read() -> Result<(), Failed> {
    let python = python()?;
    let home = Home::new()?;
    // Several commits: clean ends, and one end by force.
    home.ok(&(CREATE.to_owned() + &(0..30).map(rows).collect::<String>() + "WAIT FOR hourly;"))?;
    home.ok(&(30..50).map(rows).collect::<String>())?;
    let mut running =
        home.start(&((50..70).map(rows).collect::<String>() + &for_ever("hourly")))?;
    running.until(20, "INSERT 0 ")?;
    running.kill()?;
    home.ok(&(70..100).map(rows).collect::<String>())?;
    for (name, found_by) in [("hourly", "hourly"), ("\"Odd \"\"name\"\" / ü\"", "dd")] {
        let answer = home.beside("rows.ndjson");
        let sql = format!("SELECT * FROM {name}");
        let mut ndjson = Command::new(crate::program::program()?);
        ndjson.arg(home.data()).args(["--format", "ndjson", "-c", &sql]);
        let output = ndjson.output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        std::fs::write(&answer, output.stdout)?;
        let archive = home.directory_of("views", found_by)?;
        let output = Command::new(&python)
            .arg("tests/readers/read_archive.py")
            .arg(&archive)
            .arg(answer)
            .output()?;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        if !output.status.success() {
            return Err(format!("{name} in {}:\n{err}", archive.display()).into());
        }
        let expected = if name == "hourly" { 99 * 3 } else { 9 };
        if out.trim() != expected.to_string() {
            return Err(format!("{name}: {} rows, not {expected}", out.trim()).into());
        }
    }
    Ok(())
}
