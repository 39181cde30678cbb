//! `windrow DIR`: everything that was there before the program ended is there when it starts again; damage is reported,
//! and never overwritten.

mod altered;
mod damage;
mod keyed;
mod lost;
mod reference;
mod retention;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};

use crate::program::{Home, Running, Said, contents, failed, for_ever};
use crate::watch::trial;

/// A test that fails or not.
type Test = fn() -> Result<(), Failed>;

/// What holds on a disk as in a bucket.
pub(crate) const ANYWHERE: [(&str, Test); 28] = [
    ("rows, windows and objects are there again", again),
    ("a late row is late after a restart too", late),
    ("views over views and joins go on", deeper),
    ("a view keeps the tables that it began with", reference::stay),
    ("what was dropped or replaced stays so", dropped),
    ("what retention has dropped does not come back", retention::retention),
    ("retention keeps what open windows are made of", retention::open_windows),
    ("retention drops what is old of a few rows", retention::little),
    ("a view over a replay is worked out again", retention::replay),
    ("any name can be kept", names),
    ("run with --data-dir", data_dir),
    ("a signal ends cleanly", signals),
    ("only one process at a time", one_process),
    ("a damaged catalog is told", damage::damaged_catalog),
    ("a damaged archive is told", damage::damaged_archive),
    ("a damaged log is told", damage::damaged_log),
    ("a log that has lost its end is told, and no reader swallows rows", lost::lost_end),
    ("what is missing is told and not taken for empty", lost::missing),
    ("a part of another run is refused", lost::of_another),
    ("nobody goes on behind the end of a view", lost::beyond),
    ("an emptied Delta log is told", lost::emptied_delta_log),
    ("a quoted name can be kept", lost::quoted),
    ("truncated rows do not come back, and views keep theirs", altered::truncated),
    ("TRUNCATE and kill -9: all rows or none", altered::killed),
    ("what was altered stays so", altered::altered),
    ("added columns are there again, and not where they were not", altered::widened),
    ("ADD COLUMN and kill -9: for all rows or none", altered::widened_and_killed),
    ("changes of rows and kill -9: each as a whole, in order", keyed::killed),
];

pub(crate) fn trials() -> Vec<Trial> {
    let anywhere = ANYWHERE.map(|(name, test)| trial(format!("durable/{name}"), test));
    let mut on_disk = vec![
        trial("durable/files are read on, not again", files),
        trial("durable/a history outlives its files", retention::outlives),
        trial("durable/a history has each row once, whatever is killed", retention::killed),
        trial(
            "durable/a view that is rebuilt is the old one until it is the new one",
            retention::rebuild,
        ),
        trial("durable/a directory of somebody else is refused", foreign),
        trial("durable/a directory that cannot be written is refused", read_only),
        trial("durable/no damaged or missing file gives other rows", damage::damaged_anything),
        trial("durable/a torn end of the log loses nothing else", damage::torn),
        trial("durable/a log that loses its end after a kill is told", lost::lost_after_a_kill),
    ];
    on_disk.extend(anywhere);
    on_disk
}

const STREAM: &str = "CREATE STREAM s (id INT, k INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2 seconds');\n";
const VIEW: &str = "SELECT window_start, window_end, window_time, k, count(*) AS n, sum(id) AS ids \
                    FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, window_time, k";

/// An INSERT of one row: its number, key and second.
fn row(stream: &str, id: u32, k: u32, second: u32) -> String {
    let at = format!("2026-01-01 {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    format!("INSERT INTO {stream} VALUES ({id}, {k}, TIMESTAMP '{at}');\n")
}

/// Rows of `s`: number `i` at second `i`, with two keys.
fn rows(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| row("s", id, id % 2, id)).collect()
}

/// The bounded `query`, only windows that end at most at `second`.
fn until(query: &str, second: u32) -> String {
    let end = format!("2026-01-01 {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    format!("SELECT * FROM ({query}) WHERE window_end <= TIMESTAMP '{end}'")
}

fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), Failed> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}:\n{found:#?}\nis not\n{expected:#?}").into())
}

/// Fails unless nothing of what was there `before` (in paths that begin with `below`) is gone or has changed. Lock files
/// hold nothing.
fn untouched(home: &Home, before: &BTreeMap<PathBuf, Vec<u8>>, below: &Path) -> Result<(), Failed> {
    let now = home.contents()?;
    for (path, bytes) in before {
        if path.starts_with(below) && path != Path::new("LOCK") && now.get(path) != Some(bytes) {
            return Err(format!("{} was changed or removed", path.display()).into());
        }
    }
    Ok(())
}

fn again() -> Result<(), Failed> {
    let home = Home::new()?;
    let queries = [
        "SHOW STREAMS",
        "SELECT name, materialized FROM windrow.views",
        "SELECT * FROM s",
        "SELECT * FROM v",
        "SELECT * FROM plain",
        "SHOW CREATE v",
    ];
    let create = format!(
        "{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\nCREATE VIEW plain AS SELECT id * 2 AS d FROM s;\n"
    );
    let first = home.tables(&(create.clone() + &rows(0..25) + "WAIT FOR v;"), &queries)?;
    let [_, _, stream, view, plain, _] = &first[..] else { return Err("six results".into()) };
    equal("rows", &(stream.len(), view.len(), plain.len()), &(25, 4, 25))?;
    equal("after a restart", &home.tables("", &queries)?, &first)?;
    equal("after another", &home.tables("", &queries)?, &first)?;
    // The window from 20 has rows of both lives.
    let truth = until(VIEW, 50);
    let more = rows(25..53) + "WAIT FOR v;";
    let found = home.tables(&more, &["SELECT * FROM v", &truth, "SELECT * FROM s"])?;
    let [view, bounded, stream] = &found[..] else { return Err("three results".into()) };
    equal("rows", &(stream.len(), view.len()), &(53, 10))?;
    equal("windows over a restart", view, bounded)?;
    let found = home.tables("", &["SELECT * FROM v", &truth])?;
    equal("windows after the next start", &found[0], &found[1])?;
    equal("windows after the next start", &found[0], view)?;
    // To create what is there is refused, but for IF NOT EXISTS.
    home.run(&create)?.refused(2, &["\"s\"", "exists"])?;
    let if_not = create.replace("CREATE STREAM", "CREATE STREAM IF NOT EXISTS");
    let if_not = if_not.replace("MATERIALIZED VIEW", "MATERIALIZED VIEW IF NOT EXISTS");
    let if_not = if_not.split("CREATE VIEW plain").next().unwrap_or_default();
    let found = home.tables(if_not, &["SELECT * FROM v"])?;
    equal("windows after IF NOT EXISTS", &found[0], view)?;
    let ledger = home.tables("", &["SELECT * FROM windrow.ledger WHERE NOT balanced"])?;
    equal("unbalanced", &ledger[0], &vec![])
}

fn late() -> Result<(), Failed> {
    let queries =
        ["SELECT * FROM v", "SELECT late FROM windrow.ledger WHERE query = 'v'", "SELECT * FROM s"];
    for force in [false, true] {
        let home = Home::new()?;
        let create = format!("{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\n");
        let sql = create + &rows(0..25) + "WAIT FOR v;";
        let first = if force {
            home.tables_then_kill(&sql, &queries, "v")?
        } else {
            home.tables(&sql, &queries)?
        };
        let late = row("s", 1_000, 0, 5) + "WAIT FOR v;";
        let second = home.tables(&late, &queries)?;
        equal(&format!("a late row counts (kill: {force})"), &second[0], &first[0])?;
        equal("late rows", &second[1], &vec!["1".to_owned()])?;
        equal("rows", &second[2].len(), &26)?;
        // It is late for ever, and the window that it may not change comes in time.
        let third = home.tables(&(rows(25..33) + "WAIT FOR v;"), &queries)?;
        let windows_without = |table: &[String]| {
            table.iter().filter(|l| !l.contains("00:00:30")).cloned().collect::<Vec<_>>()
        };
        equal("windows", &windows_without(&third[0]), &first[0])?;
        equal("more windows", &third[0].len(), &6)?;
    }
    Ok(())
}

fn deeper() -> Result<(), Failed> {
    let home = Home::new()?;
    let hop = "SELECT window_start, window_end, count(*) AS n, max(id) AS top FROM HOP(s, ts, INTERVAL '5 seconds', \
               INTERVAL '20 seconds') GROUP BY window_start, window_end";
    let join = "SELECT l.window_start, l.window_end, l.id AS l_id, r.id AS r_id FROM TUMBLE(s, ts, INTERVAL '10 seconds') l \
                JOIN TUMBLE(r, ts, INTERVAL '10 seconds') r ON l.k = r.k AND l.window_start = r.window_start \
                AND l.window_end = r.window_end";
    let over = "SELECT window_start, window_end, sum(n) AS n, sum(ids) AS ids \
                FROM TUMBLE(v, window_time, INTERVAL '30 seconds') GROUP BY window_start, window_end";
    let views = [("v", VIEW), ("hop", hop), ("j", join), ("vv", over)];
    let mut create = STREAM.to_owned() + &STREAM.replace("STREAM s", "STREAM r");
    for (name, text) in views {
        create.push_str(&format!("CREATE MATERIALIZED VIEW {name} AS {text};\n"));
    }
    let of_both = |ids: std::ops::Range<u32>| -> String {
        ids.map(|id| row("s", id, id % 2, id) + &row("r", id + 500, id % 3, id)).collect()
    };
    let wait = "WAIT FOR v; WAIT FOR hop; WAIT FOR j; WAIT FOR vv;";
    // Ends in the midst of windows of all kinds, once by force.
    home.ok(&(create + &of_both(0..17)))?;
    let mut running = home.start(&(of_both(17..44) + &for_ever("j")))?;
    if !running.until(54, "INSERT 0 1")? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    running.kill()?;
    let mut queries = vec![];
    for (name, text) in views {
        queries.push(format!("SELECT * FROM {name}"));
        queries.push(format!(
            "SELECT * FROM ({text}) WHERE window_end <= (SELECT max(window_end) FROM {name})"
        ));
    }
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let found = home.tables(&(of_both(44..75) + wait), &queries)?;
    for ((name, _), pair) in views.iter().zip(found.chunks(2)) {
        equal(&format!("view {name}"), &pair[0], &pair[1])?;
    }
    let sizes: Vec<usize> = found.iter().step_by(2).map(Vec::len).collect();
    // By hand, with a watermark of 72 seconds: 7 windows of 2 keys; windows that end at 5, 10, … 70; 60 seconds in halves.
    equal("windows", &[sizes[0], sizes[1], sizes[3]], &[14, 14, 2])?;
    equal("after one more start", &home.tables(wait, &queries)?, &found)
}

fn files() -> Result<(), Failed> {
    let home = Home::new()?;
    let line =
        |second: u32| format!("{{\"ts\":\"2026-01-01T00:00:{second:02}\",\"k\":{}}}\n", second % 2);
    let lines = |seconds: std::ops::Range<u32>| seconds.map(line).collect::<String>();
    let path = |name: &str| home.beside(&format!("{name}.json"));
    for name in ["b", "f"] {
        std::fs::write(path(name), lines(0..25))?;
    }
    let create = |name: &str, follow: &str| {
        format!(
            "CREATE STREAM {name} (ts TIMESTAMP, k INT, WATERMARK FOR ts) WITH (connector = 'file', path = '{}'{follow});\n\
             CREATE MATERIALIZED VIEW v_{name} AS SELECT window_end, k, count(*) AS n FROM TUMBLE({name}, ts, \
             INTERVAL '10 seconds') GROUP BY window_start, window_end, k;\n",
            path(name).display()
        )
    };
    let wait = |second: u32| {
        format!(
            "WAIT FOR v_f UNTIL TIMESTAMP '2026-01-01 00:00:{second}' TIMEOUT INTERVAL '5 minutes';\n"
        )
    };
    let queries = ["SELECT * FROM v_b", "SELECT * FROM v_f", "SELECT n FROM v_f WHERE n <> 5"];
    let create =
        create("b", "") + &create("f", ", follow = 'true', poll_interval = '5 milliseconds'");
    let first = home.tables(&(create + "WAIT FOR v_b;\n" + &wait(20)), &queries)?;
    equal("windows", &(first[0].len(), first[1].len()), &(6, 4))?;
    equal("the same", &home.tables("", &queries)?, &first)?;
    std::fs::write(path("f"), lines(0..45))?;
    let second = home.tables(&wait(40), &queries)?;
    // The file that ends has been read to its end; the other goes on in the midst of a window.
    equal("windows of the bounded file", &second[0], &first[0])?;
    equal("windows of the followed file", &(second[1].len(), second[2].len()), &(8, 0))
}

fn dropped() -> Result<(), Failed> {
    let home = Home::new()?;
    let view = |name: &str, what: &str| {
        format!(
            "MATERIALIZED VIEW {name} AS SELECT window_end, {what} FROM TUMBLE(s, ts, INTERVAL '10 seconds') \
             GROUP BY window_start, window_end;\n"
        )
    };
    let sql = format!(
        "{STREAM}CREATE {}CREATE {}CREATE VIEW p AS SELECT 1 AS x;\n{}WAIT FOR v; WAIT FOR w;\n",
        view("v", "count(*) AS n"),
        view("w", "count(*) AS n"),
        rows(0..25)
    );
    home.ok(&sql)?;
    home.ok("DROP MATERIALIZED VIEW v; DROP VIEW p;")?;
    let names = ["SELECT name FROM windrow.views", "SELECT name FROM windrow.streams"];
    equal("views", &home.tables("", &names)?, &vec![vec!["w".to_owned()], vec!["s".to_owned()]])?;
    home.run("SELECT * FROM v")?.refused(2, &["v"])?;
    // Made again it begins with what the stream holds; replaced, it has nothing of the old text.
    let queries = ["SELECT * FROM v", "SELECT * FROM w"];
    let sql = format!(
        "CREATE {}CREATE OR REPLACE {}",
        view("v", "max(id) AS top"),
        view("w", "min(id) AS low")
    );
    let found = home.tables(&(sql + "WAIT FOR v; WAIT FOR w;"), &queries)?;
    let lines = |numbers: [u32; 2]| {
        let [one, two] = numbers;
        vec![format!("2026-01-01T00:00:10,{one}"), format!("2026-01-01T00:00:20,{two}")]
    };
    equal("new windows", &found, &vec![lines([9, 19]), lines([0, 10])])?;
    equal("new windows after a restart", &home.tables("", &queries)?, &found)?;
    // A stream's rows go with it.
    home.ok("DROP MATERIALIZED VIEW v; DROP MATERIALIZED VIEW w; DROP STREAM s;")?;
    let none: Vec<Vec<String>> = vec![vec![], vec![]];
    equal("nothing", &home.tables("", &names)?, &none)?;
    home.ok("CREATE STREAM s (x VARCHAR);")?;
    equal("no rows", &home.tables("", &["SELECT x FROM s"])?, &vec![vec![]])?;
    home.ok(
        "INSERT INTO s VALUES ('a'); CREATE OR REPLACE STREAM s (y INT); INSERT INTO s VALUES (7);",
    )?;
    equal("the other rows", &home.tables("", &["SELECT y FROM s"])?, &vec![vec!["7".to_owned()]])
}

fn names() -> Result<(), Failed> {
    let long = "n".repeat(150);
    let names = [
        "CON",
        "a/b",
        "..",
        ".",
        "../../etc",
        "a b",
        "a\"\"b",
        "ünï 😀",
        "x;y--z",
        "s%2Fq",
        "Ab",
        "ab",
        "a\\b",
        "'",
        "k=1",
        &long,
    ];
    let home = Home::new()?;
    let (mut sql, mut queries) = (String::new(), vec![]);
    for name in names {
        sql.push_str(&format!(
            "CREATE STREAM \"{name}\" (\"the id\" INT, \"{name}\" TIMESTAMP, WATERMARK FOR \"{name}\");\n\
             CREATE MATERIALIZED VIEW \"v {name}\" AS SELECT window_end, count(*) AS \"n {name}\" FROM \
             TUMBLE(\"{name}\", \"{name}\", INTERVAL '10 seconds') GROUP BY window_start, window_end;\n\
             INSERT INTO \"{name}\" VALUES (1, TIMESTAMP '2026-01-01 00:00:01'), (2, TIMESTAMP '2026-01-01 00:00:11');\n\
             WAIT FOR \"v {name}\";\n"
        ));
        queries.push(format!("SELECT * FROM \"{name}\""));
        queries.push(format!("SELECT * FROM \"v {name}\""));
    }
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let first = home.tables(&sql, &queries)?;
    let sizes: Vec<usize> = first.iter().map(Vec::len).collect();
    equal("rows", &sizes, &[2, 1].repeat(names.len()))?;
    equal("rows after a restart", &home.tables("", &queries)?, &first)?;
    // Nothing was written elsewhere.
    let beside = contents(home.beside("data").parent().ok_or("no parent")?)?;
    let elsewhere: Vec<_> = beside.keys().filter(|p| !p.starts_with("data")).collect();
    equal("files elsewhere", &elsewhere, &vec![&PathBuf::from("statements.sql")])?;
    let drops: String = names
        .iter()
        .map(|name| format!("DROP MATERIALIZED VIEW \"v {name}\";\nDROP STREAM \"{name}\";\n"))
        .collect();
    home.ok(&drops)?;
    equal("nothing", &home.tables("", &["SELECT name FROM windrow.streams"])?, &vec![vec![]])
}

fn data_dir() -> Result<(), Failed> {
    let home = Home::new()?;
    let file = home.beside("a.sql");
    let run = |sql: &str| -> Result<Said, Failed> {
        std::fs::write(&file, sql)?;
        let mut command = home.command()?;
        command.arg("run").arg(&file).arg("--data-dir").arg(home.data()).args(["--format", "csv"]);
        Running::start(command)?.finish()
    };
    run(&(STREAM.to_owned() + &rows(0..3)))?.ok()?;
    let out = run("SELECT count(*) AS n FROM s")?.ok()?;
    equal("rows", out.as_str(), "n\n3\n")?;
    // Both ways of naming the directory mean the same.
    equal("rows", &home.tables("", &["SELECT count(*) FROM s"])?[0], &vec!["3".to_owned()])
}

fn signals() -> Result<(), Failed> {
    for signal in ["TERM", "INT"] {
        let home = Home::new()?;
        let sql = format!("{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\n{}", rows(0..25));
        let mut running = home.start(&(sql + &for_ever("v")))?;
        if !running.until(25, "INSERT 0 1")? {
            return Err(failed(&running.finish()?, "it ends before its time"));
        }
        running.signal(signal)?;
        let said = running.finish()?;
        said.check(matches!(said.status.code(), Some(0 | 130 | 143)), "no clean end")?;
        said.no_bug()?;
        let archived = home.contents()?.into_keys().any(|path| {
            path.starts_with("views") && path.extension().is_some_and(|e| e == "parquet")
        });
        said.check(archived, "the windows are not in the archive")?;
        let found = home.tables("", &["SELECT * FROM v", &until(VIEW, 20)])?;
        equal(&format!("windows after SIG{signal}"), &found[0], &found[1])?;
        equal("windows", &found[0].len(), &4)?;
    }
    Ok(())
}

fn one_process() -> Result<(), Failed> {
    let home = Home::new()?;
    let sql = format!("{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\n{}", rows(0..5));
    let mut first = home.start(&(sql + &for_ever("v")))?;
    if !first.until(5, "INSERT 0 1")? {
        return Err(failed(&first.finish()?, "it ends before its time"));
    }
    let path = home.data().display().to_string();
    home.run("SELECT 1")?.refused(4, &["in use", &path])?;
    home.run(&rows(5..6))?.refused(4, &["in use"])?;
    first.kill()?;
    // The lock goes with the process, however it ends.
    equal("rows", &home.tables("", &["SELECT count(*) FROM s"])?[0], &vec!["5".to_owned()])
}

fn foreign() -> Result<(), Failed> {
    let home = Home::new()?;
    let data = home.data();
    std::fs::create_dir_all(data.join("photos"))?;
    std::fs::write(data.join("photos/a.jpg"), "not ours")?;
    let before = home.contents()?;
    let path = data.display().to_string();
    home.run("CREATE STREAM s (x INT)")?.refused(2, &[&path])?;
    equal("contents", &home.contents()?, &before)?;
    // An empty one is as good as none.
    std::fs::remove_dir_all(&data)?;
    std::fs::create_dir(&data)?;
    home.ok(STREAM)?;
    // One of a later version is not ours either.
    let format = data.join("FORMAT");
    let ours = std::fs::read(&format)?;
    std::fs::write(&format, "windrow 99999\n")?;
    let before = home.contents()?;
    let said = home.run("SELECT * FROM s")?;
    said.check(matches!(said.status.code(), Some(2 | 3)), "another format is not refused")?;
    said.no_bug()?;
    untouched(&home, &before, Path::new(""))?;
    std::fs::write(&format, ours)?;
    home.ok("SELECT * FROM s")?;
    // A file is no directory.
    std::fs::remove_dir_all(&data)?;
    std::fs::write(&data, "SELECT 1;")?;
    home.run("SELECT 1")?.refused(2, &[&path])?;
    equal("the file", std::fs::read_to_string(&data)?.as_str(), "SELECT 1;")
}

#[cfg(unix)]
fn read_only() -> Result<(), Failed> {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new()?;
    home.ok(STREAM)?;
    let allow = |mode| std::fs::set_permissions(home.data(), std::fs::Permissions::from_mode(mode));
    allow(0o555)?;
    // Root may write all the same: nothing to see then.
    let probe = home.data().join("probe");
    let tried = if std::fs::write(&probe, "").is_ok() {
        std::fs::remove_file(probe)?;
        Ok(())
    } else {
        home.run(&rows(0..1)).and_then(|said| {
            said.check(!said.status.success(), "the row was accepted")?;
            said.check(!said.err.contains("INSERT 0 1"), "the row was acknowledged")?;
            said.no_bug()
        })
    };
    allow(0o755)?;
    tried
}

#[cfg(not(unix))]
fn read_only() -> Result<(), Failed> {
    Ok(())
}
