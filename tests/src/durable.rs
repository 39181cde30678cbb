//! `windrow DIR`: what was there before the program ended is there when it starts again, and damage is told, never overwritten.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};

use crate::program::{Home, Running, Said, contents, failed, for_ever};

/// A test that fails or not.
type Test = fn() -> Result<(), Failed>;

/// What holds on a disk as in a bucket.
pub(crate) const ANYWHERE: [(&str, Test); 14] = [
    ("rows, windows and objects are there again", again),
    ("a late row is late after a restart too", late),
    ("views over views and joins go on", deeper),
    ("what was dropped or replaced stays so", dropped),
    ("what retention has dropped does not come back", retention),
    ("retention keeps what open windows are made of", open_windows),
    ("a view over a replay is worked out again", replay),
    ("any name can be kept", names),
    ("run with --data-dir", data_dir),
    ("a signal ends cleanly", signals),
    ("only one process at a time", one_process),
    ("a damaged catalog is told", damaged_catalog),
    ("a damaged archive is told", damaged_archive),
    ("a damaged log is told", damaged_log),
];

pub(crate) fn trials() -> Vec<Trial> {
    let anywhere = ANYWHERE.map(|(name, test)| Trial::test(format!("durable/{name}"), test));
    let mut on_disk = vec![
        Trial::test("durable/files are read on, not again", files),
        Trial::test(
            "durable/a view that is rebuilt is the old one until it is the new one",
            rebuild,
        ),
        Trial::test("durable/a directory of somebody else is refused", foreign),
        Trial::test("durable/a directory that cannot be written is refused", read_only),
        Trial::test("durable/no damaged or missing file gives other rows", damaged_anything),
        Trial::test("durable/a torn end of the log loses nothing else", torn),
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

fn retention() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.flags = vec!["--tail-rows".into(), "10".into()];
    let create = STREAM.replace(");\n", ") WITH (retention = '30 seconds');\n")
        + &format!("CREATE MATERIALIZED VIEW v AS {VIEW};\n");
    let idle = "WAIT FOR v UNTIL TIMESTAMP '2200-01-01 00:00:00' TIMEOUT INTERVAL '3 seconds';";
    let truth = Home::new()?.tables(
        &(create.replace(" WITH (retention = '30 seconds')", "") + &rows(0..260) + "WAIT FOR v;"),
        &["SELECT * FROM v"],
    )?;
    let queries = [
        "SELECT * FROM v",
        "SELECT min(id), max(id), count(*) FROM s",
        "SELECT dropped_rows FROM windrow.streams",
    ];
    home.tables(&(create + &rows(0..40) + "WAIT FOR v;"), &queries)?;
    // A checkpoint at each end: what those that are kept need stays.
    for part in 1..5 {
        home.tables(&(rows(part * 40..part * 40 + 40) + "WAIT FOR v;"), &queries)?;
    }
    // Views are archived at the end at the latest; then their rows may go.
    home.run(idle)?.refused(4, &["not there yet"])?;
    let numbers = |table: &[String]| -> Result<Vec<u32>, Failed> {
        let line = table.first().ok_or("no row")?;
        Ok(line.split(',').map(str::parse).collect::<Result<_, _>>()?)
    };
    let found = home.tables("", &queries)?;
    let [first, last, count] = numbers(&found[1])?[..] else { return Err("three numbers".into()) };
    equal("the newest row, and rows", &(last, count), &(199, 200 - first))?;
    equal("dropped rows", &numbers(&found[2])?, &vec![first])?;
    if !(100..=169).contains(&first) {
        return Err(format!("the first row is {first}: rows from 169 on are kept").into());
    }
    let said = home.tables("", &["SELECT 1", "VERIFY VIEW v"])?;
    let [summary, note] = &said[1][..] else { return Err(format!("{said:?}").into()) };
    if !summary.contains("equal: ") || !note.contains("retention has dropped old rows") {
        return Err(format!("{said:?}").into());
    }
    // By force, in the midst of a window that has rows of before.
    let mut running = home.start(&(rows(200..237) + &for_ever("v")))?;
    if !running.until(37, "INSERT 0 1")? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    running.kill()?;
    let found = home.tables(&(rows(237..260) + "WAIT FOR v;"), &queries)?;
    equal("windows", &found[0], &truth[0])?;
    let [now, ..] = numbers(&found[1])?[..] else { return Err("three numbers".into()) };
    if now < first {
        return Err(format!("row {now} has come back, {first} was the first").into());
    }
    equal("after another start", &home.tables("", &queries)?[0], &truth[0])
}

fn open_windows() -> Result<(), Failed> {
    let mut home = Home::new()?;
    home.flags = vec!["--tail-rows".into(), "10".into()];
    let create = STREAM.replace(");\n", ") WITH (retention = '30 seconds');\n")
        + "CREATE MATERIALIZED VIEW passing AS SELECT id, ts FROM s;\n\
           CREATE MATERIALIZED VIEW v AS SELECT window_start, count(*) AS n, min(id) AS first FROM TUMBLE(passing, ts, \
           INTERVAL '100 seconds') GROUP BY window_start, window_end;\n";
    home.tables(&(create + &rows(0..190) + "WAIT FOR v;"), &["SELECT * FROM v"])?;
    let idle = "WAIT FOR v UNTIL TIMESTAMP '2200-01-01 00:00:00' TIMEOUT INTERVAL '3 seconds';";
    home.run(idle)?.refused(4, &["not there yet"])?;
    // `passing` is not archived: after a restart it has what its stream has, and that is enough.
    let found = home
        .tables(&(rows(190..210) + "WAIT FOR v;"), &["SELECT * FROM v", "SELECT min(id) FROM s"])?;
    equal(
        "windows",
        &found[0],
        &vec!["2026-01-01T00:00:00,100,0".to_owned(), "2026-01-01T00:01:40,100,100".to_owned()],
    )?;
    let first: u32 = found[1].first().ok_or("no row")?.parse()?;
    if (1..=100).contains(&first) {
        Ok(())
    } else {
        Err(format!("the first row is {first}").into())
    }
}

fn rebuild() -> Result<(), Failed> {
    let home = Home::new()?;
    let view = format!("CREATE MATERIALIZED VIEW v AS {VIEW};\n");
    let queries = ["SELECT * FROM v", "SHOW CREATE v"];
    let first =
        home.tables(&(STREAM.to_owned() + &view + &rows(0..25) + "WAIT FOR v;"), &queries)?;
    let folders = || -> Result<Vec<String>, Failed> {
        let entries = std::fs::read_dir(home.data().join("views"))?;
        let mut names = vec![];
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    equal("folders", &folders()?, &vec!["v".to_owned()])?;
    // The new one waits for a row that comes in seconds of real time, and never has its turn.
    let replace = |from: &str| {
        let query =
            VIEW.replace("TUMBLE(s,", &format!("TUMBLE({from},")).replace("count(*)", "max(id)");
        format!("CREATE OR REPLACE MATERIALIZED VIEW v AS {query};\n")
    };
    let slow = "CREATE STREAM slow WITH (connector = 'replay', of = 's', speed = '0.001x');\n";
    let mut running = home.start(&(slow.to_owned() + &replace("slow")))?;
    if !running.until(1, "CREATE STREAM")? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    running.kill()?;
    equal("after a crash in the middle", &home.tables("", &queries)?, &first)?;
    equal("folders", &folders()?, &vec!["v".to_owned()])?;
    // It succeeds, and stays so.
    let second = home.tables(&replace("s"), &queries)?;
    equal("windows", &second[0].len(), &first[0].len())?;
    if second[0] == first[0] || !second[1][0].contains("max(id)") {
        return Err(format!("{second:?} is the old one").into());
    }
    equal("after a restart", &home.tables("", &queries)?, &second)?;
    let folders = folders()?;
    if folders.len() != 1 || folders[0] == "v" {
        return Err(format!("{folders:?}: the folder of the new one alone is there").into());
    }
    let found =
        home.tables(&(rows(25..53) + "WAIT FOR v;"), &["SELECT count(*) FROM v", "VERIFY VIEW v"])?;
    equal("windows", &found[0], &vec!["10".to_owned()])?;
    if found[1].len() == 1 && found[1][0].contains("equal: 5 windows, 10 rows") {
        return Ok(());
    }
    Err(format!("{found:?}").into())
}

fn replay() -> Result<(), Failed> {
    let home = Home::new()?;
    let create =
        format!("{STREAM}CREATE STREAM r WITH (connector = 'replay', of = 's');\n{}", rows(0..25));
    let view = VIEW.replace("TUMBLE(s,", "TUMBLE(r,");
    let queries = ["SELECT * FROM v", "SELECT * FROM r", "SHOW CREATE r"];
    let view = format!("CREATE MATERIALIZED VIEW v AS {view};\nWAIT FOR v;\n");
    let first = home.tables(&(create + &view), &queries)?;
    equal("rows", &(first[0].len(), first[1].len()), &(6, 25))?;
    equal("after a restart", &home.tables("WAIT FOR v;", &queries)?, &first)?;
    home.run("DROP STREAM s;")?.refused(2, &["\"s\" is read by \"r\""])?;
    let second = home.tables(&rows(25..35), &queries)?;
    equal("a replay has ended", &second[0], &first[0])?;
    equal("rows", &second[1].len(), &35)?;
    // Another start replays what is there then.
    equal("windows", &home.tables("WAIT FOR v;", &queries)?[0].len(), &8)
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
            "WAIT FOR v_f UNTIL TIMESTAMP '2026-01-01 00:00:{second}' TIMEOUT INTERVAL '20 seconds';\n"
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

/// Turns one byte of a file of the data directory into another.
fn flip(home: &Home, path: &Path, at: impl Fn(usize) -> usize) -> Result<(), Failed> {
    let mut bytes = home.read(path)?;
    let at = at(bytes.len());
    let byte = bytes.get_mut(at).ok_or("the file is too short")?;
    *byte ^= 0x55;
    home.write(path, bytes)
}

/// Expects `sql` to fail because of the file at `path` in the data directory, and nothing below `below` to be changed.
fn told(home: &Home, sql: &str, path: &Path, below: &Path) -> Result<(), Failed> {
    let before = home.contents()?;
    // In a bucket a log is a directory of its parts.
    let file = path.parent().filter(|p| p.extension().is_some_and(|e| e == "wal")).unwrap_or(path);
    let name = file.file_name().ok_or("no name")?.to_string_lossy().into_owned();
    let what = |e: Failed| -> Failed {
        format!("{} is damaged: {}", path.display(), e.message().unwrap_or_default()).into()
    };
    home.run(sql)?.refused(3, &[&name]).map_err(what)?;
    untouched(home, &before, below)
}

fn damaged_catalog() -> Result<(), Failed> {
    let whole = Home::new()?;
    whole.ok(&format!("{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\n{}", rows(0..25)))?;
    let catalog = Path::new("catalog.json");
    for part in [2, 3, 5] {
        let home = whole.copy()?;
        flip(&home, catalog, |len| len / part)?;
        told(&home, "SELECT count(*) FROM s", catalog, Path::new(""))?;
    }
    for bytes in [&b""[..], b"{", b"{}", b"\xff\xfe\x00"] {
        let home = whole.copy()?;
        home.write(catalog, bytes.to_vec())?;
        told(&home, "SELECT count(*) FROM s", catalog, Path::new(""))?;
    }
    // Gone: an empty catalog would be a lie.
    let home = whole.copy()?;
    home.remove(catalog)?;
    told(&home, "SELECT 1", catalog, Path::new(""))
}

/// Two streams, `s` and `r`, with a view each: `v_s` and `v_r`. Enough rows that data is most of a file.
fn two_streams() -> (String, String) {
    let mut create = String::new();
    let mut rows = String::new();
    // Numbers without pattern, so that they take space.
    let mut x: u64 = 1;
    for name in ["s", "r"] {
        create.push_str(&format!(
            "CREATE STREAM {name} (id BIGINT, k INT, ts TIMESTAMP, WATERMARK FOR ts);\n\
             CREATE MATERIALIZED VIEW v_{name} AS SELECT window_end, k, max(id) AS top FROM TUMBLE({name}, ts, \
             INTERVAL '10 seconds') GROUP BY window_start, window_end, k;\n"
        ));
        for second in (0..60).step_by(2) {
            let values: Vec<String> = (0..100)
                .map(|k| {
                    x = x
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    format!("({}, {k}, TIMESTAMP '2026-01-01 00:00:{second:02}')", x >> 1)
                })
                .collect();
            rows.push_str(&format!("INSERT INTO {name} VALUES {};\n", values.join(", ")));
        }
    }
    (create, rows + "WAIT FOR v_s; WAIT FOR v_r;\n")
}

/// The files below `directory` of the data directory with this extension, in order of name.
fn with_extension(home: &Home, directory: &Path, extension: &str) -> Result<Vec<PathBuf>, Failed> {
    let below = directory.strip_prefix(home.data())?;
    let files = home.contents()?.into_keys();
    let found: Vec<PathBuf> = files
        .filter(|path| {
            let file = path.parent().filter(|p| p.extension().is_some_and(|e| e == "wal"));
            path.starts_with(below)
                && file.unwrap_or(path).extension().is_some_and(|e| e == extension)
        })
        .collect();
    if found.is_empty() {
        return Err(format!("no .{extension} in {}", below.display()).into());
    }
    Ok(found)
}

fn damaged_archive() -> Result<(), Failed> {
    let whole = Home::new()?;
    let (create, rows) = two_streams();
    let queries = ["SELECT * FROM v_r", "SELECT * FROM r"];
    whole.ok(&(create + &rows))?;
    let good = whole.tables("", &queries)?;
    equal("rows", &(good[0].len(), good[1].len()), &(500, 3_000))?;
    let view = whole.directory_of("views", "v_s")?;
    let below = view.strip_prefix(whole.data())?;
    let files = with_extension(&whole, &view, "parquet")?;
    // (Checkpoints of the Delta log are Parquet too.)
    let data =
        files.iter().find(|p| !p.to_string_lossy().contains("_delta_log")).ok_or("no data")?;
    let log = with_extension(&whole, &view.join("_delta_log"), "json")?;
    let log = log.last().ok_or("no log")?;
    type Harm<'a> = &'a dyn Fn(&Home, &Path) -> Result<(), Failed>;
    let harms: [(&Path, Harm<'_>); 6] = [
        (data, &|home, path| flip(home, path, |len| len / 3)),
        (data, &|home, path| flip(home, path, |len| len - 6)),
        (data, &|home, path| home.write(path, vec![])),
        (data, &|home, path| {
            let bytes = home.read(path)?;
            home.write(path, bytes.get(..bytes.len() / 2).unwrap_or_default().to_vec())
        }),
        (data, &|home, path| home.remove(path)),
        (log, &|home, path| flip(home, path, |_| 0)),
    ];
    for (path, harm) in harms {
        let home = whole.copy()?;
        harm(&home, path)?;
        told(&home, "SELECT sum(top), max(k), max(window_end) FROM v_s", path, below)?;
        // The others answer.
        let before = home.contents()?;
        equal("the other view", &home.tables("", &queries)?, &good)?;
        untouched(&home, &before, below)?;
    }
    Ok(())
}

/// Runs statements up to the last INSERT (`inserts` of them) and kills: nothing is spilled at the end.
fn run_and_kill(home: &Home, sql: &str, inserts: usize, view: &str) -> Result<(), Failed> {
    let mut running = home.start(&(sql.to_owned() + &for_ever(view)))?;
    if !running.until(inserts, "INSERT 0 ")? {
        return Err(failed(&running.finish()?, "it ends before its time"));
    }
    running.kill()?;
    Ok(())
}

fn damaged_log() -> Result<(), Failed> {
    let whole = Home::new()?;
    let (create, rows) = two_streams();
    run_and_kill(&whole, &(create + &rows), 60, "v_s")?;
    let stream = whole.directory_of("streams", "s")?;
    let below = stream.strip_prefix(whole.data())?;
    let segments = with_extension(&whole, &stream, "wal")?;
    let segment = segments.first().ok_or("no segment")?;
    // In the schema, in the rows, in the rows further on.
    let places: [&dyn Fn(usize) -> usize; 3] = [&|_| 20, &|len| len / 3, &|len| len / 2];
    for place in places {
        let home = whole.copy()?;
        flip(&home, segment, place)?;
        told(&home, "SELECT sum(id), max(ts) FROM s", segment, below)?;
        let before = home.contents()?;
        let found = home.tables("WAIT FOR v_r;", &["SELECT * FROM r", "SELECT * FROM v_r"])?;
        equal("the other stream", &(found[0].len(), found[1].len()), &(3_000, 500))?;
        // Neither is a row accepted that could not be read behind the damage.
        let said = home.run("INSERT INTO s VALUES (1, 1, TIMESTAMP '2026-01-01 01:00:00')")?;
        said.check(!said.status.success(), "a row is accepted behind the damage")?;
        untouched(&home, &before, below)?;
    }
    Ok(())
}

/// Each file in turn, each kind of damage: what still answers answers as before, all else is an error without a bug.
fn damaged_anything() -> Result<(), Failed> {
    let mut whole = Home::new()?;
    let queries = ["SELECT * FROM s", "SELECT * FROM v", "SELECT * FROM t", "SELECT * FROM other"];
    let create = format!(
        "{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\nCREATE TABLE t AS SELECT 'a text' AS a, 12345 AS n;\n\
         CREATE STREAM other (x INT);\nINSERT INTO other VALUES (1);\n"
    );
    whole.flags = vec!["--tail-rows".into(), "4".into()];
    whole.ok(&(create + &rows(0..45) + "WAIT FOR v;"))?;
    whole.flags.clear();
    // The last record of a log cannot be told from a torn one.
    whole.ok(&rows(45..47))?;
    let good = whole.tables("", &queries)?;
    equal("rows", &[good[0].len(), good[2].len(), good[3].len()], &[47, 1, 1])?;
    let kinds = [
        "FORMAT",
        "catalog.json",
        "tables/t.arrow",
        "streams/s/log",
        "streams/s/_delta_log",
        "streams/s/part",
        "views/v/_delta_log",
        "views/v/part",
    ];
    let contents = whole.contents()?;
    for kind in kinds {
        let files: Vec<&PathBuf> =
            contents.keys().filter(|path| path.to_string_lossy().starts_with(kind)).collect();
        // The first and the last of each kind.
        let mut some = vec![files.first(), files.last()];
        some.dedup();
        for path in some {
            let path = *path.ok_or_else(|| format!("no {kind}"))?;
            let len = contents.get(path).map_or(0, Vec::len);
            for harm in 0..4 {
                let home = whole.copy()?;
                match harm {
                    0 => home.remove(path)?,
                    _ if len < 8 => continue,
                    part => flip(&home, path, |len| len * part / 5)?,
                }
                let what = format!("{} (harm {harm})", path.display());
                still_right(&home, path, &queries, &good)
                    .map_err(|e| format!("{what}: {}", e.message().unwrap_or_default()))?;
            }
        }
    }
    Ok(())
}

/// Expects the results of the queries to be `good`, or errors that leave the file at `path` alone.
fn still_right(
    home: &Home,
    path: &Path,
    queries: &[&str],
    good: &[Vec<String>],
) -> Result<(), Failed> {
    let before = home.contents()?;
    // Windows whose commit is gone are worked out again, which takes a moment.
    if let Ok(found) = home.tables("WAIT FOR v;", queries) {
        return equal("all", found.as_slice(), good);
    }
    for (query, good) in queries.iter().zip(good) {
        let wait = if query.ends_with(" v") { "WAIT FOR v;" } else { "" };
        let said = home.run(&format!("{wait}{query}"))?;
        said.no_bug()?;
        if said.status.success() {
            let mut lines: Vec<&str> = said.out.lines().skip(1).collect();
            lines.sort_unstable();
            equal(query, &lines, &good.iter().map(String::as_str).collect())?;
        } else {
            said.check(matches!(said.status.code(), Some(2 | 3)), query)?;
            untouched(home, &before, path)?;
        }
    }
    Ok(())
}

fn torn() -> Result<(), Failed> {
    let whole = Home::new()?;
    let create = format!("{STREAM}CREATE MATERIALIZED VIEW v AS {VIEW};\n");
    run_and_kill(&whole, &(create + &rows(0..20)), 20, "v")?;
    // The last INSERT closes no window.
    let last = "INSERT INTO s VALUES (20, 0, TIMESTAMP '2026-01-01 00:00:20'), (21, 0, TIMESTAMP '2026-01-01 00:00:21');\n";
    run_and_kill(&whole, last, 1, "v")?;
    let stream = whole.directory_of("streams", "s")?;
    let segments = with_extension(&whole, &stream, "wal")?;
    let segment = segments.last().ok_or("no segment")?;
    let bytes = std::fs::read(whole.data().join(segment))?;
    for cut in [1, 7, 20, 100] {
        let home = whole.copy()?;
        let kept = bytes.get(..bytes.len().saturating_sub(cut)).unwrap_or_default();
        std::fs::write(home.data().join(segment), kept)?;
        let ids = ["SELECT id FROM s ORDER BY id"];
        let expected = |ids: std::ops::Range<u32>| {
            let mut texts: Vec<String> = ids.map(|id| id.to_string()).collect();
            texts.sort_unstable();
            texts
        };
        let what = format!("{cut} bytes of the end are gone");
        if cut % 2 == 0 {
            equal(&what, &home.tables("", &ids)?[0], &expected(0..20))?;
        }
        // What comes after it is not lost.
        run_and_kill(&home, &rows(20..24), 4, "v")?;
        equal(&what, &home.tables("", &ids)?[0], &expected(0..24))?;
        let views = home.tables("WAIT FOR v;", &["SELECT * FROM v", &until(VIEW, 20)])?;
        equal(&what, &views[0], &views[1])?;
        equal("windows", &views[0].len(), &4)?;
    }
    Ok(())
}
