//! Views that fail: their state after a restart, and rows that are skipped across it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;

use crate::talk::{Refusal, Talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("failing/a restart says what has failed", restart),
        trial("failing/skipped rows are counted once over a restart", skipped),
    ]
}

const STREAM: &str = "CREATE STREAM s (a INT, b INT, ts TIMESTAMP, WATERMARK FOR ts)";
const QUERY: &str = "SELECT window_start, window_end, sum(a / b) AS q, count(*) AS n \
                     FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end";

/// Rows a second apart; those in `zeros` cannot be divided.
fn fill(talk: &Talk, seconds: std::ops::Range<u32>, zeros: &[u32]) -> Result<(), Refusal> {
    let row = |second: u32| {
        let b = u32::from(!zeros.contains(&second));
        format!("({second}, {b}, TIMESTAMP '2026-01-01 00:{:02}:{:02}')", second / 60, second % 60)
    };
    let rows: Vec<String> = seconds.map(row).collect();
    talk.ask(&format!("INSERT INTO s VALUES {}", rows.join(", "))).map(drop)
}

fn refused(talk: &Talk, sql: &str, with: &str) -> Result<(), Failed> {
    match talk.ask(sql) {
        Err(Refusal(why)) if why.contains(with) => Ok(()),
        Err(Refusal(why)) => Err(format!("{sql}: {why}").into()),
        Ok(_) => Err(format!("{sql} has an answer").into()),
    }
}

/// Waits until it is written down that so many views have failed.
fn written(dir: &Path, views: usize) -> Result<(), Failed> {
    for _ in 0..6_000 {
        let text = fs::read_to_string(dir.join("failures.json")).unwrap_or_default();
        if text.matches("\"kind\"").count() == views {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err("that views have failed is not written down".into())
}

fn restart() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let talk = Talk::at(dir.path(), &Limits::default())?;
    talk.ask(STREAM)?;
    talk.ask(&format!("CREATE MATERIALIZED VIEW v AS {QUERY}"))?;
    talk.ask("CREATE MATERIALIZED VIEW w AS SELECT window_end, q FROM v")?;
    talk.ask("CREATE MATERIALIZED VIEW good AS SELECT a FROM s")?;
    fill(&talk, 0..20, &[])?;
    talk.ask("WAIT FOR w")?;
    fill(&talk, 20..40, &[25])?;
    refused(&talk, "WAIT FOR w", "view \"v\" has failed: divide by zero")?;
    written(dir.path(), 2)?;
    talk.close()?;
    let talk = Talk::at(dir.path(), &Limits::default())?;
    // At once, whatever is still to be read.
    refused(&talk, "SELECT * FROM v", "view \"v\" has failed: divide by zero")?;
    refused(&talk, "SELECT * FROM w", "view \"w\" has failed: view \"v\" has failed")?;
    let states = talk.rows("SELECT name, status, error FROM windrow.views ORDER BY name")?;
    let failed = "divide by zero";
    assert_eq!(states[1], ["v", "failed", failed]);
    assert_eq!(states[2][..2], ["w", "failed"]);
    assert_eq!(states[0], ["good", "running", "NULL"]);
    talk.ask("WAIT FOR good")?;
    // What had failed before is no failure of this run.
    talk.drain()?;
    talk.ask("DROP MATERIALIZED VIEW w")?;
    talk.ask(&format!(
        "CREATE OR REPLACE MATERIALIZED VIEW v WITH (on_error = 'skip_row') AS {QUERY}"
    ))?;
    talk.ask("WAIT FOR v")?;
    let rows = talk.rows("SELECT n FROM v ORDER BY window_end")?;
    assert_eq!(rows, [["10"], ["10"], ["9"]]);
    talk.close()?;
    let talk = Talk::at(dir.path(), &Limits::default())?;
    talk.ask("WAIT FOR v")?;
    let rows = talk.rows("SELECT n FROM v ORDER BY window_end")?;
    assert_eq!(rows, [["10"], ["10"], ["9"]]);
    Ok(())
}

fn skipped() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let talk = Talk::at(dir.path(), &Limits::default())?;
    talk.ask(STREAM)?;
    for (name, query) in [("v", QUERY), ("flat", "SELECT a / b AS q, ts FROM s")] {
        let options = "WITH (on_error = 'skip_row')";
        talk.ask(&format!("CREATE MATERIALIZED VIEW {name} {options} AS {query}"))?;
    }
    fill(&talk, 0..25, &[3, 7, 24])?;
    talk.ask("WAIT FOR v")?;
    talk.ask("WAIT FOR flat")?;
    talk.close()?;
    let talk = Talk::at(dir.path(), &Limits::default())?;
    fill(&talk, 25..45, &[26, 44])?;
    talk.ask("WAIT FOR v")?;
    talk.ask("WAIT FOR flat")?;
    let ledger =
        "SELECT query, rows_in, aggregated, bad FROM windrow.ledger WHERE bad > 0 ORDER BY query";
    assert_eq!(talk.rows(ledger)?, [["flat", "45", "40", "5"], ["v", "45", "40", "5"]]);
    let bad = "SELECT query, \"offset\" FROM windrow.bad_rows ORDER BY query, \"offset\"";
    let offsets = ["3", "7", "24", "26", "44"];
    let expected: Vec<_> =
        ["flat", "v"].iter().flat_map(|view| offsets.map(|offset| [*view, offset])).collect();
    assert_eq!(talk.rows(bad)?, expected);
    assert_eq!(talk.rows("SELECT n FROM v ORDER BY window_end")?, [["8"], ["10"], ["8"], ["10"]]);
    let verified = talk.rows("VERIFY VIEW v")?;
    assert_eq!(verified[0][0], "equal: 4 windows, 4 rows, 5 skipped rows left out");
    let verified = talk.rows("VERIFY VIEW flat")?;
    assert_eq!(verified[0][0], "equal: 40 rows, 5 skipped rows left out");
    Ok(())
}
