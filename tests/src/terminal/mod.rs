//! The REPL as its user sees it: the real program in a pseudo-terminal, its output on a screen.
//!
//! Nothing sleeps: every step waits until the screen shows a text, or fails with its contents.

mod habits;
mod pty;
mod remote;

use std::os::unix::fs::PermissionsExt;

use libtest_mimic::{Failed, Trial};

use self::pty::Terminal;
use crate::watch::trial;

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_R: &str = "\x12";
const BOLD_BLUE: &str = "\x1b[1;34m";

pub(crate) fn trials() -> Vec<Trial> {
    let trial =
        |name: &str, test: fn() -> Result<(), Failed>| trial(format!("terminal/{name}"), test);
    vec![
        trial("statements_over_several_lines", statements_over_several_lines),
        trial("colours_and_who_does_without", colours_and_who_does_without),
        trial("tab_completes", tab_completes),
        trial("the_history_outlives_the_program", the_history_outlives_the_program),
        trial("ctrl_c_ends_what_runs", ctrl_c_ends_what_runs),
        trial("ctrl_c_twice_leaves", ctrl_c_twice_leaves),
        trial("commands", commands),
        trial("files_in_and_out", files_in_and_out),
        trial("watching", watching),
        trial("an_editor", an_editor),
        trial("results_fit_the_window", results_fit_the_window),
        trial("pasted_statements", pasted_statements),
        trial("errors_point_into_the_statement", errors_point_into_the_statement),
        trial("the_rc_file", the_rc_file),
        trial("a_dumb_terminal", a_dumb_terminal),
        trial("charts", charts),
        trial("ctrl_c_clears_what_is_typed", habits::ctrl_c_clears_what_is_typed),
        trial("leaving_with_unsaved_rows_asks_once", habits::leaving_with_unsaved_rows_asks_once),
        trial("typed_ahead_input_is_kept", habits::typed_ahead_input_is_kept),
        trial("statements_end_with_g", habits::statements_end_with_g),
        trial("an_interrupted_table_is_closed", habits::an_interrupted_table_is_closed),
        trial("long_results_are_cut", habits::long_results_are_cut),
        trial("long_results_go_through_a_pager", habits::long_results_go_through_a_pager),
        trial("a_pager_that_is_left", habits::a_pager_that_is_left),
        trial("commands_of_psql_and_duckdb", habits::commands_of_psql_and_duckdb),
        trial("a_prompt_on_a_server", remote::a_prompt_on_a_server),
        trial("failed_views_are_told", remote::failed_views_are_told),
        trial("files_run_on_a_server", remote::files_run_on_a_server),
        trial("a_server_that_is_not_there", remote::a_server_that_is_not_there),
    ]
}

fn statements_over_several_lines() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send("SELECT 'a;b' AS text, /* ; */\r")?;
    terminal.send("  (1 +\r")?;
    terminal.send("  1) AS two;\r")?;
    terminal.sees("│ a;b  │    2 │")?;
    terminal.sees("1 row in ")?;
    terminal.prompt()?;
    terminal.send("\\q\r")?;
    terminal.ends(0)
}

fn colours_and_who_does_without() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send("SELECT NULL AS n;\r")?;
    terminal.sees("1 row in ")?;
    terminal
        .check(terminal.raw().contains(&format!("{BOLD_BLUE}SELECT")), "keywords are coloured")?;
    terminal.check(terminal.raw().contains("\x1b[90mNULL"), "NULL is dim")?;

    let mut plain = Terminal::start(&[("NO_COLOR", "1")])?;
    plain.send("SELECT NULL AS n;\r")?;
    plain.sees("1 row in ")?;
    plain.prompt()?;
    let coloured = ["\x1b[1;34m", "\x1b[90m", "\x1b[1m"].iter().any(|c| plain.raw().contains(c));
    plain.check(!coloured, "no colours with NO_COLOR")
}

fn tab_completes() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send("CREATE STREAM readings (sensor INT, at TIMESTAMP, WATERMARK FOR at);\r")?;
    terminal.sees("CREATE STREAM\n")?;
    terminal.prompt()?;
    terminal.send("SEL\t sens")?;
    terminal.sees("SELECT sens")?;
    terminal.send("or FROM readi\t WHERE sen\t = 1;\r")?;
    terminal.sees("FROM readings WHERE sensor = 1;")?;
    terminal.sees("0 rows in ")?;
    terminal.prompt()?;
    terminal.send("\\d readi\t\r")?;
    terminal.sees("│ sensor      │ INT")
}

fn the_history_outlives_the_program() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send("SELECT 40 + 2 AS the_answer;\r")?;
    terminal.sees("1 row in ")?;
    terminal.prompt()?;
    terminal.send(CTRL_D)?;
    terminal.ends(0)?;
    let history = terminal.home().join("state/windrow/history");
    let mode = std::fs::metadata(&history)?.permissions().mode() & 0o777;
    terminal.check(mode == 0o600, "only the user reads the history")?;

    let mut terminal = terminal.again()?;
    terminal.send(&format!("{CTRL_R}answer"))?;
    terminal.sees("SELECT 40 + 2 AS the_answer;")?;
    terminal.send("\r")?;
    terminal.sees("│ the_answer │")?;
    terminal.sees("1 row in ")?;
    terminal.prompt()?;
    // The grey rest of the newest entry that begins so.
    terminal.send("SELECT 40")?;
    terminal.sees("windrow> SELECT 40 + 2 AS the_answer;")
}

fn ctrl_c_ends_what_runs() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.enter("CREATE STREAM s (k INT, at TIMESTAMP, WATERMARK FOR at);")?;
    terminal
        .enter("INSERT INTO s VALUES (7, '2026-03-01 09:00:00'), (8, '2026-03-01 09:05:00');")?;
    terminal.sees("INSERT 0 2")?;
    terminal.send("SELECT window_start, count(*) AS n FROM TUMBLE(s, at, INTERVAL '1 minute') ")?;
    terminal.send("GROUP BY window_start, window_end EMIT FINAL;\r")?;
    terminal.sees("2026-03-01T09:00:00 │    1 │")?;
    // The status line.
    terminal.sees("rows/s, watermark 2026-03-01T09:05:00, lag ")?;
    terminal.sees(" open window")?;
    terminal.send(CTRL_C)?;
    terminal.sees("cancelled")?;
    terminal.prompt()?;
    terminal.check(!terminal.screen().contains("rows/s"), "the status line goes away")?;
    terminal.send("SELECT 'still here' AS t;\r")?;
    terminal.sees("│ still here │")
}

fn ctrl_c_twice_leaves() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send(CTRL_C)?;
    terminal.sees("Ctrl-C again leaves.")?;
    // What is typed in between makes it one again.
    terminal.send("SELECT 1 AS one;\r")?;
    terminal.sees("1 row in ")?;
    terminal.prompt()?;
    terminal.send(CTRL_C)?;
    terminal
        .until("a second note", |screen| screen.matches("Ctrl-C again leaves.").count() == 2)?;
    terminal.prompt()?;
    terminal.send(CTRL_C)?;
    terminal.ends(0)
}

fn commands() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.enter("\\x")?;
    terminal.sees("expanded display is on")?;
    terminal.enter("SELECT 1 AS one, NULL AS nothing;")?;
    terminal.sees("─[ row 1 ]──")?;
    terminal.sees("nothing │ NULL")?;
    terminal.enter("\\x off")?;
    terminal.sees("expanded display is off")?;
    terminal.enter("\\format csv")?;
    terminal.enter("SELECT 1 AS a, 'x,y' AS b;")?;
    terminal.sees("1,\"x,y\"")?;
    terminal.enter("\\timing on")?;
    terminal.sees("timing is on")?;
    terminal.enter("CREATE TABLE t (k INT);")?;
    terminal.sees("CREATE TABLE in ")?;
    terminal.enter("\\tming")?;
    terminal.sees("hint: Did you mean \"\\timing\"?")?;
    terminal.send("\\?\r")?;
    terminal.sees("\\watch [seconds]")
}

fn files_in_and_out() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    let script = terminal.home().join("more.sql");
    std::fs::write(&script, "\\format csv\nSELECT 6 * 7 AS answer;\n")?;
    let out = terminal.home().join("out.csv");
    terminal.enter(&format!("\\o {}", out.display()))?;
    terminal.enter(&format!("\\i {}", script.display()))?;
    terminal.sees("1 row in ")?;
    terminal.send("\\o\r")?;
    terminal.until("a prompt behind it", |screen| {
        screen.trim_end().ends_with("windrow> \\o\nwindrow>")
    })?;
    let written = std::fs::read_to_string(&out)?;
    terminal.check(written == "answer\n42\n", &format!("the file holds {written:?}"))?;
    terminal.enter("SELECT 5 AS again;")?;
    terminal.sees("again\n5\n")?;
    terminal.send("\\i /no/such.sql\r")?;
    terminal.sees("cannot read \"/no/such.sql\"")
}

fn watching() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.enter("\\watch")?;
    terminal.sees("there is no statement to watch")?;
    terminal.send("SELECT 'tick' AS clock;\r")?;
    terminal.sees("1 row in ")?;
    terminal.prompt()?;
    terminal.send("\\watch 0.1\r")?;
    terminal.until("three results", |screen| screen.matches("│ tick  │").count() >= 3)?;
    terminal.send(CTRL_C)?;
    terminal.prompt()
}

fn an_editor() -> Result<(), Failed> {
    // The editor is a program that adds a column.
    let folder = tempfile::tempdir()?;
    let editor = folder.path().join("editor.sh");
    std::fs::write(&editor, "#!/bin/sh\necho \"SELECT 'edited' AS t;\" > \"$1\"\n")?;
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))?;
    let mut terminal = Terminal::start(&[("VISUAL", &editor.display().to_string())])?;
    terminal.send("\\e\r")?;
    terminal.sees("windrow> SELECT 'edited' AS t;")?;
    terminal.send("\r")?;
    terminal.sees("│ edited │")
}

fn results_fit_the_window() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    let wide = "SELECT repeat('x', 300) AS a;";
    let row = |screen: &str| screen.lines().rev().find(|l| l.contains("│ xx")).map(str::to_owned);
    terminal.enter(wide)?;
    let shown = row(&terminal.screen()).unwrap_or_default();
    terminal
        .check(shown.chars().count() == 100 && shown.ends_with("… │"), &format!("{shown:?}"))?;
    terminal.resize(60)?;
    terminal.send(&format!("{wide}\r"))?;
    terminal.until("two results", |screen| screen.matches("1 row in ").count() == 2)?;
    let shown = row(&terminal.screen()).unwrap_or_default();
    terminal.check(shown.chars().count() == 60, &format!("{shown:?}"))?;
    terminal.prompt()?;
    terminal.send("SELECT * FROM windrow.queries;\r")?;
    terminal.sees("columns do not fit: ")
}

fn pasted_statements() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send("\x1b[200~SELECT 1 AS one;\nSELECT 2 AS two;\x1b[201~")?;
    terminal.sees("SELECT 2 AS two;")?;
    terminal.check(!terminal.screen().contains("1 row"), "nothing runs before Enter")?;
    terminal.send("\r")?;
    terminal.sees("│    1 │")?;
    terminal.sees("│    2 │")
}

fn errors_point_into_the_statement() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send("SELECT 1,\r  selct FROM (SELECT 2 AS selected);\r")?;
    terminal.sees("  line 2:   selct FROM (SELECT 2 AS selected);")?;
    terminal.sees("            ^^^^^")?;
    terminal.sees("selected")?;
    terminal.prompt()
}

fn the_rc_file() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let rc = folder.path().join("rc");
    std::fs::write(&rc, "\\x on\n\\nonsense\n")?;
    let rc = rc.display().to_string();
    let mut terminal = Terminal::start(&[("WINDROWRC", &rc)])?;
    terminal.sees("rc:2: unknown command \"\\nonsense\"")?;
    terminal.send("SELECT 1 AS one;\r")?;
    terminal.sees("one │ 1")
}

fn a_dumb_terminal() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[("TERM", "dumb")])?;
    terminal.send("SELECT\r2 AS two;\r")?;
    terminal.sees("│    2 │")?;
    terminal.check(!terminal.raw().contains('\x1b'), "no escape sequences")
}

fn charts() -> Result<(), Failed> {
    let mut terminal = Terminal::start(&[])?;
    terminal.send("SELECT column1 AS who, column2 AS n FROM (VALUES ('ada', 4), ('bob', 2));\r")?;
    terminal.sees("2 rows in ")?;
    terminal.prompt()?;
    terminal.enter("\\chart n")?;
    terminal.sees("ada ████████")?;
    terminal.send("\\chart who\r")?;
    terminal.sees("hint: Columns of numbers are: n.")
}
