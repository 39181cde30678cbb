//! Full disks, and archives that cannot be written: acknowledged rows are there, the error names the file, everything
//! else continues.
//!
//! Where the user may not mount a small disk, those tests are reported as ignored. The tests of the log over failing
//! files still run (`windrow_storage::wal::tests::a_full_disk_refuses_rows_and_goes_on_when_there_is_room`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use windrow_core::Limits;

use crate::talk::{Answer, Refusal, Talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mounted = |name, test: fn() -> Result<(), Failed>| {
        let may_not = !SmallDisk::new(100).is_ok_and(|disk| disk.is_some());
        trial(format!("disk/{name} (needs the right to mount)"), test).with_ignored_flag(may_not)
    };
    vec![
        mounted("a full one refuses rows and loses none", full),
        mounted("one that cannot be written is refused and loses none", read_only),
        trial("disk/an archive that fails makes INSERT fail", failing_archive),
    ]
}

/// A small disk; it goes with this value.
struct SmallDisk {
    at: TempDir,
}

impl SmallDisk {
    /// A file system in memory of so many KiB; `None` when this user may not mount one.
    fn new(kib: u32) -> Result<Option<Self>, Failed> {
        let at = tempfile::tempdir()?;
        let size = format!("size={kib}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(at.path())
            .output();
        Ok(mounted.is_ok_and(|done| done.status.success()).then_some(Self { at }))
    }

    fn path(&self) -> &Path {
        self.at.path()
    }

    fn remount(&self, options: &str) -> Result<(), Failed> {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.path()).status()?;
        if done.success() { Ok(()) } else { Err(format!("no {options}").into()) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: an engine of a test that failed may still be there.
        drop(Command::new("umount").arg("-l").arg(self.at.path()).status());
    }
}

const CREATE: [&str; 3] = [
    "CREATE STREAM s (id BIGINT, x BIGINT, ts TIMESTAMP, WATERMARK FOR ts)",
    "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, count(*) AS n, sum(x) AS x \
     FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end",
    "CREATE STREAM other (id BIGINT) WITH (durability = 'memory')",
];

/// An INSERT of `rows` rows from number `first` on, one a second.
fn insert(first: u64, rows: u64) -> String {
    let end = first + rows - 1;
    format!(
        "INSERT INTO s SELECT value, value * 7919 % 1000003, to_timestamp_seconds(value) \
         FROM generate_series({first}, {end})"
    )
}

fn one(talk: &Talk, sql: &str) -> Result<String, Failed> {
    let rows = talk.rows(sql)?;
    rows.first().and_then(|row| row.first()).cloned().ok_or_else(|| "no row".into())
}

/// Asks until it is taken: the archive needs a moment to find that it can write again.
fn taken_at_last(talk: &Talk, sql: &str) -> Result<(), Failed> {
    let mut tries = 0;
    while let Err(Refusal(why)) = talk.ask(sql) {
        tries += 1;
        if tries > 100 {
            return Err(why.into());
        }
    }
    Ok(())
}

/// Fails unless the number that `sql` gives is `expected`.
fn same(talk: &Talk, sql: &str, expected: u64) -> Result<(), Failed> {
    let found = one(talk, sql)?;
    if found == expected.to_string() {
        return Ok(());
    }
    Err(format!("{sql}: {found}, not {expected}").into())
}

fn full() -> Result<(), Failed> {
    let disk = SmallDisk::new(1_500)?.ok_or("no small disk")?;
    let data: PathBuf = disk.path().join("data");
    // Rows go to the archive all the time, which fills the disk too.
    let limits = Limits {
        tail_rows_max: 5_000,
        spill_interval: Duration::from_millis(50),
        archive_wait: Duration::from_millis(200),
        ..Limits::default()
    };
    let talk = Talk::at(&data, &limits)?;
    for sql in CREATE {
        talk.ask(sql)?;
    }
    let mut stored = 0;
    let refused = loop {
        match talk.ask(&insert(stored, 1_000)) {
            Ok(_) => stored += 1_000,
            Err(Refusal(why)) => break why,
        }
        if stored > 1_000_000 {
            return Err("the disk is never full".into());
        }
    };
    // It depends on the moment whether the log or the archive finds the disk full first.
    let words = if refused.contains("archive fails") {
        [".parquet", "No space", "hint: Nothing that was acknowledged is lost"]
    } else {
        [".wal", "space", "hint: Free space on the disk"]
    };
    for word in words {
        if !refused.contains(word) {
            return Err(format!("{word:?} is not said: {refused}").into());
        }
    }
    if stored < 5_000 {
        return Err(format!("{stored} rows test nothing").into());
    }
    // All else goes on: readers, views, and what needs no disk.
    let count = "SELECT count(*) FROM s";
    same(&talk, count, stored)?;
    talk.ask("INSERT INTO other VALUES (1)")?;
    talk.ask("WAIT FOR v")?;
    one(&talk, "SELECT count(*) FROM v")?;
    // What is acknowledged counts; the archive may have found room for a smaller file by now.
    if talk.ask(&insert(stored, 1_000)).is_ok() {
        stored += 1_000;
    }
    // A restart on the full disk. Closing cannot archive, and says so; nothing is lost by it.
    drop(talk.close());
    let talk = Talk::at(&data, &limits)?;
    same(&talk, count, stored)?;
    // There is room again: the same engine goes on.
    disk.remount("size=50000k")?;
    taken_at_last(&talk, &insert(stored, 1_000))?;
    stored += 1_000;
    talk.ask("WAIT FOR v")?;
    same(&talk, count, stored)?;
    talk.close()?;
    let talk = Talk::at(&data, &limits)?;
    talk.ask("WAIT FOR v")?;
    same(&talk, count, stored)?;
    same(&talk, "SELECT count(DISTINCT id) FROM s", stored)?;
    let verified = one(&talk, "VERIFY VIEW v")?;
    if !verified.starts_with("equal") {
        return Err(verified.into());
    }
    talk.close()?;
    Ok(())
}

fn read_only() -> Result<(), Failed> {
    let disk = SmallDisk::new(50_000)?.ok_or("no small disk")?;
    let data = disk.path().join("data");
    let talk = Talk::at(&data, &Limits::default())?;
    for sql in CREATE {
        talk.ask(sql)?;
    }
    talk.ask(&insert(0, 1_000))?;
    talk.close()?;
    // Once nobody writes there any more.
    let mut tries = 0;
    while let Err(e) = disk.remount("ro") {
        tries += 1;
        if tries > 500 {
            return Err(e);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    match Talk::at(&data, &Limits::default()) {
        Ok(_) => return Err("it is opened".into()),
        Err(Refusal(why)) if why.contains("LOCK\": read-only file system") => {}
        Err(Refusal(why)) => return Err(why.into()),
    }
    disk.remount("rw")?;
    let talk = Talk::at(&data, &Limits::default())?;
    if one(&talk, "SELECT count(*) FROM s")? != "1000" {
        return Err("rows are gone".into());
    }
    talk.close()?;
    Ok(())
}

fn failing_archive() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let limits = Limits {
        tail_rows_max: 10,
        spill_interval: Duration::from_millis(20),
        archive_wait: Duration::from_millis(100),
        ..Limits::default()
    };
    let talk = Talk::at(dir.path(), &limits)?;
    talk.ask("CREATE STREAM s (id BIGINT, x BIGINT, ts TIMESTAMP, WATERMARK FOR ts)")?;
    let log = dir.path().join("streams/s/_delta_log");
    let aside = dir.path().join("aside");
    std::fs::rename(&log, &aside)?;
    std::fs::write(&log, "in the way")?;
    let mut stored = 0;
    let refused = loop {
        match talk.ask(&insert(stored, 5)) {
            Ok(_) => stored += 5,
            Err(Refusal(why)) => break why,
        }
        if stored > 1_000 {
            return Err("rows are taken without end".into());
        }
    };
    for word in ["\"s\" accepts no rows", "wait in memory", "archive fails", "hint: "] {
        if !refused.contains(word) {
            return Err(format!("{word:?} is not said: {refused}").into());
        }
    }
    let found = one(&talk, "SELECT count(*) FROM s")?;
    if found != stored.to_string() {
        return Err(format!("{found} rows, not {stored}").into());
    }
    // The archive is there again, and so is the room.
    std::fs::remove_file(&log)?;
    std::fs::rename(&aside, &log)?;
    taken_at_last(&talk, &insert(stored, 5))?;
    match talk.ask("SELECT count(DISTINCT id) FROM s")? {
        Answer::Rows { rows, .. } if rows == [[(stored + 5).to_string()]] => {}
        Answer::Rows { rows, .. } => return Err(format!("{rows:?}, not {}", stored + 5).into()),
        Answer::Done(what) => return Err(what.into()),
    }
    talk.close()?;
    Ok(())
}
