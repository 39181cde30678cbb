//! Files that are rotated, replaced, truncated and deleted while they are followed, while the program is not running,
//! and after it was killed: each row is in the view once, or missing data is reported.

use std::io::Write;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};

use crate::program::{Home, failed, for_ever};
use crate::watch::trial;

/// What is done to the file, the rows of which are from 0 to 999 before.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// Renamed, also written to after that, and a longer one put in its place.
    Rename,
    Replace,
    /// Copied and truncated, and written to again: to less, as much and more than there was.
    CopyTruncate(u32),
    /// Truncated to its half, and appended to.
    Middle,
    /// Deleted, and a new one written.
    Delete,
}

/// When the program is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    Never,
    /// Before the change, and before any checkpoint has rows of the file.
    AtOnce,
    /// Before the change, which it does not see.
    Before,
    /// After it has seen it.
    After,
}

const BEFORE: u32 = 1000;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("rotation/a deleted file keeps nothing from opening", deleted),
        trial("rotation/a history knows its files again", history),
    ];
    for (change, kill, glob) in [
        (Change::Rename, Kill::Never, ""),
        (Change::Rename, Kill::AtOnce, ""),
        (Change::Rename, Kill::Before, ""),
        (Change::Rename, Kill::After, ""),
        (Change::Rename, Kill::Never, "*"),
        (Change::Rename, Kill::Before, "*"),
        (Change::Rename, Kill::After, "*"),
        (Change::Replace, Kill::Before, ""),
        (Change::CopyTruncate(200), Kill::Never, ""),
        (Change::CopyTruncate(BEFORE), Kill::Before, ""),
        (Change::CopyTruncate(3000), Kill::After, ""),
        (Change::CopyTruncate(3000), Kill::Before, "*"),
        (Change::Middle, Kill::Never, ""),
        (Change::Middle, Kill::Before, ""),
        (Change::Middle, Kill::After, ""),
        (Change::Delete, Kill::After, ""),
    ] {
        let name = format!("rotation/{change:?}, killed {kill:?}, app.json{glob}");
        trials.push(trial(name, move || rotated(change, kill, glob)));
    }
    trials
}

fn line(id: u32) -> String {
    // As long for each row, so that a file of as many rows is as long.
    format!("{{\"id\": {:06}, \"ts\": {}, \"note\": \"-\"}}\n", id + 100_000, 1_767_225_600 + id)
}

fn append(path: &Path, ids: std::ops::Range<u32>) -> Result<(), Failed> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    Ok(file.write_all(ids.map(line).collect::<String>().as_bytes())?)
}

impl Change {
    /// How many rows there have been after it.
    fn rows(self) -> u32 {
        BEFORE
            + match self {
                Self::Rename => 2020,
                Self::Replace => 2000,
                Self::CopyTruncate(count) => 10 + count,
                Self::Middle => 600,
                Self::Delete => 300,
            }
    }

    /// Makes it.
    fn make(self, path: &Path) -> Result<(), Failed> {
        let beside = |name: &str| PathBuf::from(format!("{}{name}", path.display()));
        let mut rows = BEFORE;
        let mut more = |path: &Path, count: u32| {
            rows += count;
            append(path, rows - count..rows)
        };
        match self {
            Self::Rename => {
                more(path, 10)?;
                std::fs::rename(path, beside(".1"))?;
                more(&beside(".1"), 10)?;
                more(path, 2000)?;
            }
            Self::Replace => {
                let new = path.with_file_name("new");
                more(&new, 2000)?;
                std::fs::rename(new, path)?;
            }
            Self::CopyTruncate(count) => {
                more(path, 10)?;
                std::fs::copy(path, beside(".1"))?;
                std::fs::OpenOptions::new().write(true).open(path)?.set_len(0)?;
                more(path, count)?;
            }
            Self::Middle => {
                let half = line(0).len() as u64 * u64::from(BEFORE / 2);
                std::fs::OpenOptions::new().write(true).open(path)?.set_len(half)?;
                more(path, 600)?;
            }
            Self::Delete => {
                std::fs::remove_file(path)?;
                more(path, 300)?;
            }
        }
        Ok(())
    }
}

fn create(path: &Path, more: &str) -> String {
    format!(
        "CREATE STREAM IF NOT EXISTS s (id INT, ts TIMESTAMP(0), note VARCHAR(5), WATERMARK FOR ts) \
         WITH (connector = 'file', path = '{}', format = 'json', follow = true, poll_interval = '20 ms', \
         rotate_wait = '100 ms'{more});\n\
         CREATE MATERIALIZED VIEW IF NOT EXISTS v AS SELECT window_start, window_end, count(*) AS n, \
         count(DISTINCT id) AS d FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_start, window_end;\n",
        path.display()
    )
}

/// Waits until the rows below this one are in the view.
fn until(row: u32) -> String {
    let (minute, second) = (row / 60, row % 60);
    let (hour, minute) = (minute / 60, minute % 60);
    format!(
        "WAIT FOR v UNTIL TIMESTAMP '2026-01-01 {hour:02}:{minute:02}:{second:02}' TIMEOUT INTERVAL '60 seconds';\n"
    )
}

fn rotated(change: Change, kill: Kill, glob: &str) -> Result<(), Failed> {
    let mut home = Home::new()?;
    let interval = if kill == Kill::AtOnce { "3600" } else { "0.005" };
    home.flags = ["--checkpoint-interval", interval].map(str::to_owned).to_vec();
    std::fs::create_dir_all(home.beside("in"))?;
    let file = home.beside("in/app.json");
    append(&file, 0..BEFORE)?;
    let pattern = home.beside(&format!("in/app.json{glob}"));
    let rows = change.rows();
    let mark = |name: &str| format!("COPY (SELECT 1 AS a) TO '{}';\n", home.beside(name).display());
    let there = |name: &str| Ok(home.beside(name).exists());
    let on = until(rows - 1) + &mark("after.json") + &for_ever("v");
    let begin = create(&pattern, "") + &until(BEFORE - 1) + &mark("before.json");
    let mut running = home.start(&(begin + &on))?;
    running.wait_until("the rows of before", || there("before.json"))?;
    let bytes = line(0).len() as u64 * u64::from(BEFORE);
    if kill != Kill::AtOnce {
        running.wait_until("a checkpoint that has them", || knows(&home, bytes))?;
    }
    if matches!(kill, Kill::AtOnce | Kill::Before) {
        running.kill()?.no_bug()?;
        change.make(&file)?;
        running = home.start(&on)?;
    } else {
        change.make(&file)?;
    }
    if kill == Kill::After {
        // What of the change it has seen, and what of that a checkpoint knows, is another thing each time.
        running.kill()?.no_bug()?;
        running = home.start(&on)?;
    }
    running.wait_until("the rows of after", || there("after.json"))?;
    running.kill()?.no_bug()?;
    let tables = home.tables(
        &until(rows - 1),
        &[
            "SELECT sum(n), sum(d), count(*) FROM v",
            "SELECT balanced, late FROM windrow.ledger",
            "SELECT reason FROM windrow.bad_rows",
        ],
    )?;
    // The last row's second is not over.
    let right = rows - 1;
    if tables[0] != [format!("{right},{right},{right}")] || tables[1] != ["true,0"] {
        return Err(failed_with(&home, &format!("{right} rows: {tables:?}")));
    }
    // Of a file that is gone when the program comes back, nobody knows what it still got.
    let unknown = matches!(change, Change::Replace | Change::Delete);
    if tables[2].len() > usize::from(unknown) {
        return Err(failed_with(&home, &format!("{tables:?}")));
    }
    // Of what is under another name or gone, a bounded query has nothing.
    let verified = home.run("VERIFY VIEW v;\n")?;
    let refused = verified.err.contains("cannot be verified") && verified.err.contains("rotated");
    verified.check(refused || !glob.is_empty(), "it is said why it cannot be verified")
}

/// What is kept of a stream's rows goes on with a file that was renamed while nothing ran.
fn history() -> Result<(), Failed> {
    let home = Home::new()?;
    std::fs::create_dir_all(home.beside("in"))?;
    let file = home.beside("in/app.json");
    append(&file, 0..50)?;
    let count = "SELECT count(*) AS n, count(DISTINCT id) AS d FROM s;\n";
    let said = home.run(&(create(&file, ", retention = '36500 days'") + count))?;
    said.check(said.status.success() && said.out.contains("\n50,50\n"), "what there is")?;
    let old = home.beside("in/app.json.1");
    std::fs::rename(&file, &old)?;
    append(&old, 50..60)?;
    append(&file, 60..200)?;
    let said = home.run(&format!("{}{count}VERIFY VIEW v;\n", until(199)))?;
    let right = said.out.contains("\n200,200\n") && said.out.contains("equal");
    said.check(said.status.success() && right, "both files")
}

/// Whether a checkpoint of the view says that so many bytes of the file have been read.
fn knows(home: &Home, bytes: u64) -> Result<bool, Failed> {
    let Ok(entries) = std::fs::read_dir(home.data().join("checkpoints/v")) else {
        return Ok(false);
    };
    for entry in entries {
        let path = entry?.path();
        // Before it has its name, it is none.
        if path.extension().is_none_or(|extension| extension != "checkpoint") {
            continue;
        }
        // One that is not kept any more may be gone by now.
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.contains(&format!("\\\"at\\\":{bytes},")) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn failed_with(home: &Home, what: &str) -> Failed {
    format!("{}: {what}", home.beside("in").display()).into()
}

/// The file of a view is deleted while nothing runs: the directory opens, the view has what it had and says what may be
/// missing, and goes on with the next file.
fn deleted() -> Result<(), Failed> {
    let home = Home::new()?;
    std::fs::create_dir_all(home.beside("in"))?;
    let file = home.beside("in/app.json");
    append(&file, 0..50)?;
    home.ok(&(create(&file, "") + &until(49)))?;
    std::fs::remove_file(&file)?;
    let said = home.run("SELECT sum(n) AS n FROM v;\n")?;
    said.check(said.status.success() && said.out.contains("\n49\n"), "what it had")?;
    append(&file, 50..80)?;
    let said = home.run(&format!(
        "{}SELECT sum(n) AS n FROM v; SELECT count(*) AS bad FROM windrow.bad_rows WHERE reason LIKE '%is gone%';\n",
        until(79)
    ))?;
    if said.status.success() && said.out.contains("\n79\n") && said.out.contains("bad\n1\n") {
        return Ok(());
    }
    Err(failed(&said, "it does not go on"))
}
