//! Missing parts, and parts of other objects, are reported: the lost end of a log, missing directories, parts of
//! another run.

use std::path::{Path, PathBuf};

use libtest_mimic::Failed;

use super::damage::with_extension;
use super::{STREAM, VIEW, equal, rows, untouched};
use crate::program::{Home, Said, failed};

/// What takes the end of the log of `s` away.
type Harm = fn(&Home) -> Result<(), Failed>;

/// All that knows how far `s` went, and `r`, which has nothing to do with it.
const READERS: &str = "CREATE MATERIALIZED VIEW p AS SELECT id, k, ts FROM s;\n\
     CREATE STREAM t (id INT, k INT, ts TIMESTAMP, WATERMARK FOR ts);\nINSERT INTO t SELECT id, k, ts FROM s EMIT CHANGES;\n\
     CREATE STREAM r (x INT);\nINSERT INTO r VALUES (1), (2);\n";
const WAIT: &str = "WAIT FOR p; WAIT FOR v; WAIT FOR insert_into_t;\n";

fn create() -> String {
    format!("{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\n{READERS}")
}

fn number(home: &Home, query: &str) -> Result<u64, Failed> {
    let rows = home.tables("", &[query])?.remove(0);
    Ok(rows.first().ok_or("no row")?.parse()?)
}

/// Takes the last two fifths of the log of `s` away.
fn cut_end(home: &Home) -> Result<(), Failed> {
    let stream = home.directory_of("streams", "s")?;
    let files = with_extension(home, &stream, "wal")?;
    if let [one] = &files[..] {
        let bytes = home.read(one)?;
        return home.write(one, bytes.get(..bytes.len() * 3 / 5).unwrap_or_default().to_vec());
    }
    // In a bucket a log is a run of objects.
    files.iter().skip(files.len() * 3 / 5).try_for_each(|path| home.remove(path))
}

/// One bit of the last record turns; in a bucket the last object is gone.
fn flip_last(home: &Home) -> Result<(), Failed> {
    let stream = home.directory_of("streams", "s")?;
    let files = with_extension(home, &stream, "wal")?;
    let last = files.last().ok_or("no log")?;
    if files.len() > 1 {
        return home.remove(last);
    }
    let mut bytes = home.read(last)?;
    let at = bytes.len().saturating_sub(40);
    *bytes.get_mut(at).ok_or("too short")? ^= 4;
    home.write(last, bytes)
}

pub(super) fn lost_end() -> Result<(), Failed> {
    let whole = Home::new()?;
    whole.ok(&(create() + &rows(0..20) + WAIT))?;
    let harms: [Harm; 2] = [cut_end, flip_last];
    for harm in harms {
        let mut home = whole.copy()?;
        harm(&home)?;
        goes_on_behind(&mut home, 20)?;
    }
    Ok(())
}

/// A log of `ids` rows whose end is lost: that is told, nothing is changed, the others answer; once the loss is accepted, no
/// reader swallows a new row.
fn goes_on_behind(home: &mut Home, ids: u32) -> Result<(), Failed> {
    let before = home.contents()?;
    let said = home.run("SELECT count(*) FROM s")?;
    said.refused(
        3,
        &["has lost its end", "View \"p\" has read it up to row 20", "--accept-lost-rows"],
    )?;
    for sql in ["SELECT * FROM p", "INSERT INTO s VALUES (1, 1, TIMESTAMP '2026-01-01 00:00:00')"] {
        let said = home.run(sql)?;
        said.check(!said.status.success(), sql)?;
        said.no_bug()?;
    }
    equal("the other stream", &number(home, "SELECT count(*) FROM r")?, &2)?;
    untouched(home, &before, Path::new("streams"))?;
    untouched(home, &before, Path::new("views"))?;
    home.flags = vec!["--accept-lost-rows".into()];
    let said = home.run("SELECT count(*) AS n FROM s")?;
    home.flags.clear();
    let told = ["stream \"s\" has lost", "view \"p\" has consumed", "that \"s\" has lost"];
    said.check(told.iter().all(|words| said.err.contains(words)), "the loss is not told")?;
    let kept: u32 = said.ok()?.lines().nth(1).ok_or("no row")?.parse()?;
    equal("some rows are lost", &(0 < kept && kept < ids), &true)?;
    // Sequence numbers are not given twice: who has read up to row 20 misses nothing that comes.
    home.ok(&(rows(ids..ids + 10) + WAIT))?;
    for _ in 0..2 {
        let queries = [
            "SELECT id FROM s",
            "SELECT id FROM p",
            "SELECT id FROM t",
            "SELECT sum(n) FROM v",
            "SELECT stream, first_row, \"rows\", \"view\", rows_in_view FROM windrow.lost_rows",
            "SELECT \"rows\" FROM windrow.streams WHERE name = 's'",
        ];
        let found = home.tables(WAIT, &queries)?;
        let texts = |ids: &mut dyn Iterator<Item = u32>| {
            let mut texts: Vec<String> = ids.map(|id| id.to_string()).collect();
            texts.sort_unstable();
            texts
        };
        equal("the stream", &found[0], &texts(&mut (0..kept).chain(ids..ids + 10)))?;
        equal("the view", &found[1], &texts(&mut (0..ids + 10)))?;
        equal("the other stream", &found[2], &texts(&mut (0..ids + 10)))?;
        equal("windows", &found[3], &vec!["20".to_owned()])?;
        let lost = ids - kept;
        let line = |view: &str| format!("s,{kept},{lost},{view},{lost}");
        equal("the record", &found[4], &vec![line("insert_into_t"), line("p"), line("v")])?;
        equal("rows of s", &found[5], &vec![(kept + 10).to_string()])?;
    }
    let said = home.run("VERIFY VIEW p")?;
    said.check(said.out.contains("that \"\"s\"\" has lost since"), "VERIFY does not tell why")
}

/// The same after a kill: what a follower was given of a view whose rows come in no order is in its archive and checkpoint.
pub(super) fn lost_after_a_kill() -> Result<(), Failed> {
    let mut home = Home::new()?;
    let create = format!(
        "{STREAM}CREATE MATERIALIZED VIEW p AS SELECT id, random() AS x FROM s;\n{}",
        rows(0..20)
    );
    let mut running = home.start(&(create + "SUBSCRIBE TO p AFTER 0;\n"))?;
    if !running.until(20, "INSERT 0 ")? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    // The checkpoint comes before its rows are archived.
    let archived = |home: &Home| -> Result<bool, Failed> {
        let end = "-00000000000000000020-";
        let commits = home.contents()?.into_iter().filter(|(path, _)| {
            // Not one that is still being written.
            path.starts_with("views/p/_delta_log") && path.extension().is_some_and(|e| e == "json")
        });
        Ok(commits.map(|c| c.1).any(|bytes| String::from_utf8_lossy(&bytes).contains(end)))
    };
    running.wait_until("the archive", || Ok(archived(&home).unwrap_or(false)))?;
    running.kill()?;
    equal("it is archived", &archived(&home)?, &true)?;
    cut_end(&home)?;
    let said = home.run("SELECT count(*) FROM s")?;
    said.refused(3, &["has lost its end", "View \"p\" has read it up to row 20"])?;
    home.flags = vec!["--accept-lost-rows".into()];
    home.ok(&(rows(20..25) + "WAIT FOR p;"))?;
    home.flags.clear();
    equal("the view", &number(&home, "SELECT count(DISTINCT id) FROM p")?, &25)?;
    equal("the view", &number(&home, "SELECT count(*) FROM p")?, &25)
}

/// Removes what is below `path` in the data directory.
fn remove_all(home: &Home, path: &Path) -> Result<(), Failed> {
    let files: Vec<PathBuf> =
        home.contents()?.into_keys().filter(|p| p.starts_with(path)).collect();
    if files.is_empty() {
        return Err(format!("nothing in {}", path.display()).into());
    }
    files.iter().try_for_each(|path| home.remove(path))?;
    if home.bucket().is_none() {
        let directory = home.data().join(path);
        if directory.is_dir() {
            std::fs::remove_dir_all(directory)?;
        }
    }
    Ok(())
}

/// Expects `sql` to be refused with all `words`, and no file but checkpoints of others to be changed.
fn refused(home: &Home, sql: &str, words: &[&str]) -> Result<(), Failed> {
    let before = home.contents()?;
    let said: Said = home.run(sql)?;
    said.refused(3, words)?;
    let kept = ["streams", "views", "tables", "catalog.json", "FORMAT"];
    kept.iter().try_for_each(|below| untouched(home, &before, Path::new(below)))
}

pub(super) fn missing() -> Result<(), Failed> {
    let whole = Home::new()?;
    whole.ok(&(create() + "CREATE TABLE x AS SELECT 1 AS a;\n" + &rows(0..25) + WAIT))?;
    // Rows of `s` are in its archive too.
    let s = "SELECT count(*) FROM s";
    let cases = [
        ("streams/s", s, "streams/s\" is missing"),
        ("streams/s/log", s, "log\" is missing"),
        ("streams/s/_delta_log", s, "_delta_log\" is missing"),
        ("streams", s, "streams/s\" is missing"),
        ("streams", "SELECT count(*) FROM r", "streams/r\" is missing"),
        ("tables", "SELECT count(*) FROM x", "x.arrow\" is missing"),
        ("views/v", "SELECT count(*) FROM v", "views/v\" is missing"),
        ("views", "SELECT count(*) FROM p", "views/p\" is missing"),
        ("catalog.json", "SELECT 1", "catalog.json\" is missing"),
    ];
    for (path, sql, words) in cases {
        let home = whole.copy()?;
        remove_all(&home, Path::new(path))?;
        let what =
            |e: Failed| -> Failed { format!("{path}: {}", e.message().unwrap_or_default()).into() };
        refused(&home, sql, &[words]).map_err(what)?;
        if path.starts_with("streams/s") {
            equal("the others", &number(&home, "SELECT count(*) FROM r")?, &2)?;
        }
        if path == "views/v" {
            equal("the stream", &number(&home, s)?, &25)?;
            // DROP gives it up, and it is made again.
            let again = format!(
                "DROP MATERIALIZED VIEW v; CREATE MATERIALIZED VIEW v AS {VIEW}; WAIT FOR v;"
            );
            home.ok(&again)?;
            equal("windows", &number(&home, "SELECT sum(n) FROM v")?, &20)?;
        }
    }
    // Checkpoints that are gone are made up for by the history, and that is told.
    let home = whole.copy()?;
    remove_all(&home, Path::new("checkpoints"))?;
    let said = home.run(&(WAIT.to_owned() + "SELECT sum(n) AS n FROM v"))?;
    said.check(said.err.contains("there is no checkpoint in"), "it is not told")?;
    equal("windows", &said.ok()?.lines().last().map(str::to_owned), &Some("20".to_owned()))
}

pub(super) fn of_another() -> Result<(), Failed> {
    let (one, other) = (Home::new()?, Home::new()?);
    let create = create() + "CREATE TABLE x AS SELECT 1 AS a;\n";
    one.ok(&(create.clone() + &rows(0..25) + WAIT))?;
    other.ok(&(create + &rows(0..45) + WAIT))?;
    let cases = [
        ("views/v", "SELECT count(*) FROM v", "is not the one of \"v\""),
        ("views/p", "SELECT count(*) FROM p", "is not the one of \"p\""),
        ("streams/s", "SELECT count(*) FROM s", "is not the one of \"s\""),
        ("streams/s/log", "SELECT count(*) FROM s", "is of another log"),
        ("tables/x.arrow", "SELECT * FROM x", "it is of another table"),
        ("catalog.json", "SELECT 1", "is the catalog of another data directory"),
    ];
    for (path, sql, words) in cases {
        let home = one.copy()?;
        remove_all(&home, Path::new(path))?;
        for (file, bytes) in other.contents()?.into_iter().filter(|f| f.0.starts_with(path)) {
            home.write(&file, bytes)?;
        }
        let what =
            |e: Failed| -> Failed { format!("{path}: {}", e.message().unwrap_or_default()).into() };
        refused(&home, sql, &[words]).map_err(what)?;
    }
    // Of the same directory, but of another object.
    let home = one.copy()?;
    remove_all(&home, Path::new("streams/t"))?;
    for (file, bytes) in one.contents()? {
        if let Ok(below) = file.strip_prefix("streams/s") {
            home.write(&Path::new("streams/t").join(below), bytes)?;
        }
    }
    refused(&home, "SELECT count(*) FROM t", &["is not the one of \"t\""])?;
    // Checkpoints of another run are passed over.
    let home = one.copy()?;
    remove_all(&home, Path::new("checkpoints/v"))?;
    for (file, bytes) in other.contents()?.into_iter().filter(|f| f.0.starts_with("checkpoints/v"))
    {
        home.write(&file, bytes)?;
    }
    let said = home.run(&(WAIT.to_owned() + "SELECT sum(n) AS n FROM v"))?;
    said.check(said.err.contains("it is of another view"), "it is not told")?;
    equal("windows", &said.ok()?.lines().last().map(str::to_owned), &Some("20".to_owned()))
}

/// Behind the end of a view there is nothing to go on with.
pub(super) fn beyond() -> Result<(), Failed> {
    let home = Home::new()?;
    home.ok(&(create() + &rows(0..25) + WAIT))?;
    home.run("SUBSCRIBE TO p AFTER 26")?
        .refused(3, &["view \"p\" has 25 rows, and none after row 26"])?;
    home.run("SUBSCRIBE TO v AFTER 5")?.refused(3, &["view \"v\" has 4 rows, and none after row 5"])
}

/// An emptied commit is named, and what to do.
pub(super) fn emptied_delta_log() -> Result<(), Failed> {
    let whole = Home::new()?;
    whole.ok(&(create() + &rows(0..25) + WAIT))?;
    let view = whole.directory_of("views", "v")?;
    let log = with_extension(&whole, &view.join("_delta_log"), "json")?;
    let first = log.first().ok_or("no log")?;
    let home = whole.copy()?;
    home.write(first, vec![])?;
    let shown = home.data().join(first);
    let empty = format!("\"{}\" is damaged: it is empty", shown.display());
    refused(&home, "SELECT count(*) FROM v", &[&empty, "Restore the file from a backup"])?;
    let home = whole.copy()?;
    home.remove(first)?;
    refused(&home, "SELECT count(*) FROM v", &["_delta_log\" is not whole", "Restore the files"])
}

/// A name may have quotes in it, and its table is there again.
pub(super) fn quoted() -> Result<(), Failed> {
    let home = Home::new()?;
    home.ok("CREATE TABLE \"q\"\"q\" AS SELECT 7 AS n; INSERT INTO \"q\"\"q\" VALUES (8)")?;
    equal("rows", &number(&home, "SELECT sum(n) FROM \"q\"\"q\"")?, &15)?;
    home.ok("DROP TABLE \"q\"\"q\"")?;
    home.run("SELECT * FROM \"q\"\"q\"")?.refused(2, &["q"])
}
