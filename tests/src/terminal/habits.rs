//! Behaviour that users of psql, DuckDB and shells expect of a prompt.

use libtest_mimic::Failed;

use super::pty::Terminal;
use super::{CTRL_C, CTRL_D};

const STREAM: &str = "CREATE STREAM s (k INT, at TIMESTAMP, WATERMARK FOR at);";
const ROWS: &str = "INSERT INTO s VALUES (7, '2026-03-01 09:00:00'), (8, '2026-03-01 09:05:00');";

pub(super) fn ctrl_c_clears_what_is_typed() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.enter("SELECT 40 + 2 AS the_answer;")?;
    terminal.sees("│         42 │")?;
    // Half a line, with the grey rest of an earlier statement behind it.
    terminal.send("SELECT 40 +")?;
    terminal.until("the hint", |screen| screen.matches("2 AS the_answer;").count() == 2)?;
    terminal.send(CTRL_C)?;
    terminal.prompt()?;
    let left = terminal.screen().lines().any(|line| line == "windrow> SELECT 40 +");
    terminal.check(left, "the grey hint goes away")?;
    // Two lines of a statement.
    terminal.send("SELECT\r")?;
    terminal.sees("    ...>")?;
    terminal.send(&format!("12345{CTRL_C}"))?;
    terminal.prompt()?;
    // At the continuation, without more.
    terminal.send(&format!("SELECT\r{CTRL_C}"))?;
    terminal.prompt()?;
    terminal.check(!terminal.screen().contains("again leaves."), "nothing is said of leaving")?;
    terminal.enter("SELECT 'still here' AS t;")?;
    terminal.sees("│ still here │")
}

pub(super) fn leaving_with_unsaved_rows_asks_once() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.enter(STREAM)?;
    terminal.send(CTRL_D)?;
    terminal.ends(0)?;

    let mut terminal = Terminal::start(&[])?;
    terminal.enter(STREAM)?;
    terminal.enter(ROWS)?;
    terminal.enter("\\q")?;
    terminal.sees("notice: rows are in memory only and would be lost: \"s\" (2 rows)")?;
    terminal.enter("SELECT 'saved' AS t;")?;
    terminal.sees("│ saved │")?;
    terminal.send(CTRL_D)?;
    terminal.ends(0)?;

    // In a directory nothing is lost.
    let kept = tempfile::tempdir()?;
    let directory = kept.path().join("data").display().to_string();
    let mut terminal = Terminal::start_with(&[&directory], &[])?;
    terminal.enter(STREAM)?;
    terminal.enter(ROWS)?;
    terminal.send("\\q\r")?;
    terminal.ends(0)
}

pub(super) fn typed_ahead_input_is_kept() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send("SELECT 1 AS first;\rSELECT\r2 AS second;\r\\x\rSELECT 3 AS thi")?;
    terminal.sees("│     1 │")?;
    terminal.sees("    ...> 2 AS second;")?;
    terminal.sees("│      2 │")?;
    terminal.sees("expanded display is on")?;
    terminal.sees("windrow> SELECT 3 AS thi")?;
    terminal.send("rd;\r")?;
    terminal.sees("third │ 3")
}

pub(super) fn statements_end_with_g() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send("SELECT 1 AS one\r\\g\r")?;
    terminal.sees("│    1 │")?;
    terminal.prompt()?;
    terminal.enter("SELECT 2 AS two \\gx")?;
    terminal.sees("two │ 2")?;
    terminal.enter("\\g")?;
    terminal.sees("│    2 │")?;
    // A command within a statement, and a statement that is given up.
    terminal.send("SELECT 3\r\\?\r")?;
    terminal.sees("\\watch [seconds]")?;
    terminal.sees("\n    ...>")?;
    terminal.send("\\r\r")?;
    terminal.prompt()?;
    terminal.enter("SELECT 4 AS four;")?;
    terminal.sees("│    4 │")
}

pub(super) fn an_interrupted_table_is_closed() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.enter(STREAM)?;
    terminal.enter(ROWS)?;
    terminal.send("SELECT k FROM s EMIT CHANGES;\r")?;
    terminal.sees("│    8 │")?;
    terminal.sees("rows/s")?;
    terminal.send(CTRL_C)?;
    terminal.sees("│    8 │\n└──────┘\ncancelled")
}

pub(super) fn long_results_are_cut() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    let all = "SELECT value FROM generate_series(1, 2345);\r";
    terminal.send(all)?;
    terminal.sees("│  1000 │\n└───────┘\n2345 rows in ")?;
    terminal.sees("notice: the first 1000 rows are shown; ")?;
    terminal.prompt()?;
    terminal.enter("\\pset rows all")?;
    terminal.send(all)?;
    terminal.sees("│  2345 │\n└───────┘\n2345 rows in ")?;
    terminal.prompt()?;
    // To a file all of them go.
    terminal.enter("\\pset rows 10")?;
    terminal.enter("\\format csv")?;
    let out = terminal.home().join("out.csv");
    terminal.enter(&format!("\\o {}", out.display()))?;
    terminal.enter("SELECT value FROM generate_series(1, 2345);")?;
    terminal.sees("2345 rows in ")?;
    terminal.enter("SELECT 1;")?;
    let lines = std::fs::read_to_string(&out)?.lines().count();
    terminal.check(lines == 2348, &format!("the file has {lines} lines"))
}

pub(super) fn long_results_go_through_a_pager() -> Result<(), Failed> {
    // A pager that shows where the result ends, and waits for Enter.
    let pager = "sed -n '$p;3p' | sed 's/^/paged: /'; read line < /dev/tty";
    let mut terminal = Terminal::start(&[("PAGER", pager)])?;
    terminal.enter("SELECT value FROM generate_series(1, 5);")?;
    terminal.sees("│     5 │")?;
    terminal.send("SELECT value AS v FROM generate_series(1, 2345);\r")?;
    terminal.sees("paged: └──────┘")?;
    terminal.send("\r")?;
    terminal.sees("2345 rows in ")?;
    terminal.prompt()?;
    terminal.enter("\\pset pager off")?;
    terminal.sees("no pager is used")?;
    terminal.send("SELECT value AS w FROM generate_series(1, 1001);\r")?;
    terminal.sees("notice: the first 1000 rows are shown")
}

pub(super) fn a_pager_that_is_left() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[("PAGER", "head -n 2")])?;
    terminal.send("SELECT value FROM generate_series(1, 1000000);\r")?;
    terminal.sees("│ value │")?;
    terminal.prompt()?;
    terminal.enter("SELECT 'still here' AS t;")?;
    terminal.sees("│ still here │")
}

pub(super) fn commands_of_psql_and_duckdb() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.enter(STREAM)?;
    for (command, shows) in [
        ("\\dt", "│ s    │ stream │"),
        (".tables", "│ s    │ stream │"),
        ("\\dv", "│ materialized │"),
        ("\\l", "│ datafusion │"),
        ("\\dn", "│ public "),
        ("\\pset null -/-", "null is shown as \"-/-\""),
        ("SELECT NULL AS nothing;", "│ -/-     │"),
        (".schema s", "CREATE STREAM s (k INT, at TIMESTAMP"),
        (".mode csv", "windrow> .mode csv"),
        ("\\! echo from the shell | tr a-z A-Z", "FROM THE SHELL"),
        ("\\h wait", "WAIT FOR view [UNTIL TIMESTAMP"),
        ("\\h SELECT", "[JOIN … ON …]"),
        ("\\copy s to x", "hint: COPY name TO 'file' and COPY name FROM 'file' are statements."),
    ] {
        terminal.enter(command)?;
        terminal.sees(shows)?;
    }
    Ok(())
}
