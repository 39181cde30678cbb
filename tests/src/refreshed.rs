//! Reference tables that are refreshed: which version a row is joined with, by a clock that the test moves, in memory and
//! over a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use windrow_core::{Limits, ManualClock};
use windrow_engine::EngineConfig;

use crate::talk::{Refusal, Talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("refreshed/the event time of a row decides its version", || versions(false)),
        trial("refreshed/a restart changes no version", || versions(true)),
        trial("refreshed/a table joined with windows", windows),
        trial("refreshed/what has no event time is refused", refusals),
    ]
}

/// 2026-02-01 00:00:00, in seconds. Event times are before it.
const NOW: i64 = 1_769_904_000;
/// Looks before the clock is moved a little.
const LOOKS: usize = 10;

struct Home {
    talk: Option<Talk>,
    clock: ManualClock,
    dir: tempfile::TempDir,
    is_durable: bool,
}

impl Home {
    fn new(is_durable: bool) -> Result<Self, Failed> {
        let clock = ManualClock::at(NOW * 1_000_000);
        let mut home = Self { talk: None, clock, dir: tempfile::tempdir()?, is_durable };
        home.open()?;
        Ok(home)
    }

    /// Opens the engine, after a crash if it was open.
    fn open(&mut self) -> Result<(), Refusal> {
        self.talk = None;
        let hour = Duration::from_secs(3_600);
        let limits = Limits { checkpoint_interval: hour, ..Limits::default() };
        self.talk = Some(Talk::open(EngineConfig {
            limits,
            clock: Some(Arc::new(self.clock.clone())),
            data_dir: self.is_durable.then(|| self.dir.path().join("data")),
            ..EngineConfig::default()
        })?);
        Ok(())
    }

    fn talk(&self) -> Result<&Talk, Refusal> {
        self.talk.as_ref().ok_or_else(|| Refusal("it is not open".to_owned()))
    }

    fn ask(&self, sql: &str) -> Result<(), Refusal> {
        self.talk()?.ask(sql).map(|_| ())
    }

    /// All columns of all rows as one text.
    fn text(&self, sql: &str) -> Result<String, Refusal> {
        let rows = self.talk()?.rows(sql)?;
        Ok(rows.iter().map(|row| row.join(" ")).collect::<Vec<_>>().join(", "))
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("rates.csv")
    }

    /// Replaces the file of the table.
    fn write(&self, one: &str) -> Result<(), Failed> {
        let new = self.dir.path().join("new");
        fs::write(&new, format!("k,name\n1,{one}\n2,b\n"))?;
        fs::rename(new, self.file())?;
        Ok(())
    }

    /// Waits until a query returns `rows`; the clock moves, but not by a minute.
    fn until(&self, sql: &str, rows: &str) -> Result<(), Failed> {
        let mut shown = String::new();
        for look in 1..3_000 {
            shown = self.text(sql)?;
            if shown == rows {
                return Ok(());
            }
            if look % LOOKS == 0 {
                self.clock.advance(Duration::from_millis(100));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(format!("{sql}: {shown} and not {rows}").into())
    }

    /// A view has the rows that its bounded form returns.
    fn verified(&self, view: &str) -> Result<(), Failed> {
        let said = self.text(&format!("VERIFY VIEW {view}"))?;
        if said.starts_with("equal") { Ok(()) } else { Err(said.into()) }
    }

    /// Lets the interval pass, until the table shows this.
    fn refreshed(&self, columns: &str, rows: &str) -> Result<(), Failed> {
        self.clock.advance(Duration::from_secs(600));
        self.until(&format!("SELECT {columns} FROM windrow.tables WHERE name = 'rates'"), rows)
    }
}

fn table(file: &Path) -> String {
    format!(
        "CREATE EXTERNAL TABLE rates (k INT, name VARCHAR) STORED AS CSV LOCATION '{}' \
         OPTIONS ('format.has_header' 'true') WITH (refresh = '10 minutes')",
        file.display()
    )
}

const STREAM: &str =
    "CREATE STREAM s (id INT, k INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 minute')";
const VIEW: &str =
    "CREATE MATERIALIZED VIEW v AS SELECT id, name FROM s JOIN rates ON s.k = rates.k";
const ROWS: &str = "SELECT id, name FROM v ORDER BY id";

fn insert(id: i64, second: i64) -> String {
    format!("INSERT INTO s VALUES ({id}, 1, TIMESTAMP '2026-01-01 00:00:{second:02}')")
}

fn versions(is_durable: bool) -> Result<(), Failed> {
    let mut home = Home::new(is_durable)?;
    home.write("a")?;
    home.ask(&table(&home.file()))?;
    home.ask(STREAM)?;
    home.ask(VIEW)?;
    home.ask(&insert(1, 20))?;
    home.until(ROWS, "1 a")?;
    // An unchanged file is no version, and neither are equal rows in a new file.
    home.refreshed("versions, checked_at > loaded_at", "1 true")?;
    home.write("a")?;
    home.refreshed("versions, last_error IS NULL", "1 true")?;
    home.write("A")?;
    home.refreshed("versions, rows", "2 2")?;
    home.ask(&insert(2, 20))?;
    home.ask(&insert(3, 21))?;
    home.ask(&insert(4, 10))?;
    home.until(ROWS, "1 a, 2 a, 3 A, 4 a")?;
    let used = "SELECT version, counts_from FROM windrow.table_versions WHERE query = 'v'";
    home.until(used, "1 NULL, 2 2026-01-01T00:00:20.000001")?;
    home.verified("v")?;
    // A failure leaves the version.
    fs::remove_file(home.file())?;
    home.refreshed("versions, last_error IS NULL", "2 false")?;
    let now = home.text("SELECT name FROM rates ORDER BY k")?;
    if now != "A, b" {
        return Err(format!("the table is {now}").into());
    }
    if is_durable {
        home.write("aa")?;
        home.open()?;
        home.until(ROWS, "1 a, 2 a, 3 A, 4 a")?;
        home.ask(&insert(5, 20))?;
        home.ask(&insert(6, 21))?;
        home.ask(&insert(7, 59))?;
        home.until(ROWS, "1 a, 2 a, 3 A, 4 a, 5 a, 6 A, 7 aa")?;
        home.open()?;
        home.until(ROWS, "1 a, 2 a, 3 A, 4 a, 5 a, 6 A, 7 aa")?;
    }
    Ok(())
}

fn windows() -> Result<(), Failed> {
    let home = Home::new(false)?;
    home.write("a")?;
    home.ask(&table(&home.file()))?;
    home.ask(STREAM)?;
    home.ask(
        "CREATE MATERIALIZED VIEW before AS SELECT window_end, name, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '10 seconds') AS s \
         JOIN rates ON s.k = rates.k GROUP BY window_start, window_end, name EMIT FINAL",
    )?;
    home.ask(
        "CREATE MATERIALIZED VIEW after AS SELECT w.window_end, name, n FROM ( \
         SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k) AS w \
         JOIN rates ON w.k = rates.k EMIT FINAL",
    )?;
    home.ask(&insert(1, 4))?;
    home.ask(&insert(2, 5))?;
    let seen = "SELECT rows_in FROM windrow.ledger WHERE query IN ('before', 'after')";
    home.until(seen, "2, 2")?;
    home.write("A")?;
    home.refreshed("versions", "2")?;
    home.ask(&insert(3, 7))?;
    home.ask(&insert(4, 15))?;
    home.ask("INSERT INTO s VALUES (5, 9, TIMESTAMP '2026-01-01 00:02:00')")?;
    // The rows of the first window were joined one by one, the window as a whole.
    let of = |view: &str| format!("SELECT name, n FROM {view} ORDER BY window_end, name");
    home.until(&of("before"), "A 1, a 2, A 1")?;
    home.until(&of("after"), "A 3, A 1")?;
    home.verified("before")?;
    home.verified("after")?;
    let plan = home.text("EXPLAIN SELECT name FROM s JOIN rates ON s.k = rates.k EMIT CHANGES")?;
    if !plan
        .contains("table rates: checked every 600 s; the event time of a row decides its version")
    {
        return Err(plan.into());
    }
    Ok(())
}

fn refusals() -> Result<(), Failed> {
    let home = Home::new(false)?;
    home.write("a")?;
    home.ask(&table(&home.file()))?;
    home.ask("CREATE STREAM plain (k INT)")?;
    home.ask(STREAM)?;
    for (sql, why) in [
        (
            "SELECT name FROM plain JOIN rates ON plain.k = rates.k EMIT CHANGES",
            "table \"rates\" is refreshed, and cannot be joined with \"plain\", whose rows have no event time",
        ),
        (
            "CREATE EXTERNAL TABLE r STORED AS CSV LOCATION 'x.csv' WITH (refresh = '1 millisecond')",
            "option \"refresh\" is less than a second",
        ),
        (
            "CREATE EXTERNAL TABLE r STORED AS CSV LOCATION 'x.csv' WITH (refresh = 'soon')",
            "option \"refresh\" is not an interval",
        ),
    ] {
        match home.ask(sql) {
            Err(Refusal(said)) if said.contains(why) => {}
            Err(Refusal(said)) => return Err(format!("{sql}: {said}").into()),
            Ok(()) => return Err(format!("{sql} is accepted").into()),
        }
    }
    Ok(())
}
