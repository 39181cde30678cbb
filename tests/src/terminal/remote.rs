//! The same prompt on a server: the real program connected to the real `windrow serve`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use libtest_mimic::Failed;
use tempfile::TempDir;

use super::pty::Terminal;
use crate::program::program;

/// A server that ends with this.
struct Served {
    child: Child,
    url: String,
    home: TempDir,
}

impl Served {
    fn start() -> Result<Self, Failed> {
        let home = tempfile::tempdir()?;
        let mut child = Command::new(program()?)
            .args(["serve", "--quiet", "--flight", "127.0.0.1:0", "--data-dir"])
            .arg(home.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().ok_or("the server has no stdout")?;
        BufReader::new(out).read_line(&mut line)?;
        let url = line.split([' ', ',']).find(|word| word.starts_with("grpc://"));
        let url = url.ok_or_else(|| format!("the server says {line:?}"))?.trim().to_owned();
        Ok(Self { child, url, home })
    }

    /// Runs the program against it.
    fn run(&self, arguments: &[&str]) -> Result<Output, Failed> {
        let mut command = Command::new(program()?);
        command.args(arguments).args(["--connect", &self.url]).stdin(Stdio::null());
        Ok(command.output()?)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

const STREAM: &str = "CREATE STREAM readings (k INT, at TIMESTAMP, WATERMARK FOR at);";

pub(super) fn a_prompt_on_a_server() -> Result<(), Failed> {
    let server = Served::start()?;
    let mut terminal = Terminal::start_with(&["--connect", &server.url], &[])?;
    terminal.sees("connected to grpc://127.0.0.1:")?;
    terminal.enter(STREAM)?;
    terminal.sees("CREATE STREAM")?;
    terminal.enter(
        "INSERT INTO readings VALUES (7, '2026-03-01 09:00:00'), (8, '2026-03-01 09:05:00');",
    )?;
    terminal.sees("INSERT 0 2")?;
    // Names are those of the server.
    terminal.send("SELECT sum(k) AS sum_k, min(at) FROM readi\t;")?;
    terminal.send("\r")?;
    terminal.sees("│    15 │")?;
    terminal.prompt()?;
    terminal.enter("SELECT 1; SELECT\u{20}nothing FROM readings;")?;
    terminal.sees("line 1: SELECT 1; SELECT nothing FROM readings;")?;
    terminal.sees("                           ^^^^^^^")?;
    terminal.enter("\\d readings")?;
    terminal.sees("│ k           │ INT")?;
    terminal.send(
        "SELECT window_start, count(*) AS n FROM TUMBLE(readings, at, INTERVAL '1 minute') ",
    )?;
    terminal.send("GROUP BY window_start, window_end EMIT FINAL;\r")?;
    terminal.sees("2026-03-01T09:00:00 │    1 │")?;
    terminal.sees("2 rows, ")?;
    terminal.sees("1 open window ")?;
    terminal.send("\x03")?;
    terminal.sees("cancelled")?;
    terminal.prompt()?;
    terminal.enter("SELECT 'still here' AS t;")?;
    terminal.sees("│ still here │")
}

pub(super) fn failed_views_are_told() -> Result<(), Failed> {
    let server = Served::start()?;
    let mut terminal = Terminal::start_with(&["--connect", &server.url], &[])?;
    terminal.enter(STREAM)?;
    terminal.sees("CREATE STREAM")?;
    terminal.enter("CREATE MATERIALIZED VIEW v AS SELECT 10 / (k - 7) AS q FROM readings;")?;
    terminal.sees("CREATE MATERIALIZED VIEW")?;
    terminal.enter("INSERT INTO readings VALUES (7, '2026-03-01 09:00:00');")?;
    terminal.sees("INSERT 0 1")?;
    terminal.enter("WAIT FOR v;")?;
    terminal.sees("notice: view \"v\" has failed: divide by zero")?;
    // A prompt that comes later is told too.
    let mut later = Terminal::start_with(&["--connect", &server.url], &[])?;
    later.sees("notice: view \"v\" has failed: divide by zero")
}

pub(super) fn files_run_on_a_server() -> Result<(), Failed> {
    let server = Served::start()?;
    let file = server.home.path().join("a.sql");
    let view = "CREATE MATERIALIZED VIEW v AS SELECT window_start, count(*) AS n \
                FROM TUMBLE(readings, at, INTERVAL '1 minute') GROUP BY window_start, window_end;";
    let rows =
        "INSERT INTO readings VALUES (7, '2026-03-01 09:00:00'), (8, '2026-03-01 09:05:00');";
    std::fs::write(&file, format!("{STREAM}\n{rows}\n{view}\n"))?;
    let said = server.run(&["run", &file.display().to_string()])?;
    check(said.status.success(), "the file runs", &said)?;
    // Its view goes on, and has taken in what there was.
    let said = server.run(&["-c", "SELECT n FROM v", "--format", "csv"])?;
    check(said.stdout == b"n\n1\n", "the view has its window", &said)?;
    // What became of the input is told as in this process.
    let late = "CREATE STREAM late (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 second') \
                WITH (connector = 'datagen', rows = 10000, seed = 3, start = '2026-01-01 00:00:00', \
                'interval' = '100 milliseconds', disorder = '5 seconds'); \
                SELECT window_start, count(*) AS n FROM TUMBLE(late, ts, INTERVAL '2 seconds') \
                GROUP BY window_start, window_end EMIT FINAL";
    let there = server.run(&["-c", late, "--format", "csv"])?;
    let here = Command::new(program()?)
        .args(["-c", late, "--format", "csv"])
        .stdin(Stdio::null())
        .output()?;
    let notice = |said: &Output| {
        let err = String::from_utf8_lossy(&said.stderr).into_owned();
        err.lines().find(|line| line.contains("late rows were left out")).map(str::to_owned)
    };
    check(notice(&there).is_some(), "late rows are told", &there)?;
    check(notice(&there) == notice(&here), "as many as in this process", &there)?;
    check(there.stdout == here.stdout, "it is as in this process", &there)?;
    let said = server.run(&["-c", "SELECT\n nothing FROM v"])?;
    let err = String::from_utf8_lossy(&said.stderr).into_owned();
    let told = err.contains("  line 2:  nothing FROM v\n           ^^^^^^^");
    check(said.status.code() == Some(2) && told, "mistakes have their place", &said)
}

pub(super) fn a_server_that_is_not_there() -> Result<(), Failed> {
    // The port is free again as soon as it was given.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let url = format!("grpc://127.0.0.1:{port}");
    let said = Command::new(program()?)
        .args(["--connect", &url, "-c", "SELECT 1"])
        .stdin(Stdio::null())
        .output()?;
    let err = String::from_utf8_lossy(&said.stderr).into_owned();
    let told = err.contains(&format!("the server at {url} does not answer: "));
    check(said.status.code() == Some(4) && told, "it is told, with status 4", &said)
}

fn check(holds: bool, what: &str, said: &Output) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("{what}: {said:?}").into()) }
}
