//! Checkpoints: after a kill or a clean end, queries resume from their newest complete checkpoint, and read every row
//! once; damage and changes are reported.

mod in_time;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};

use crate::program::{self, Home, Said};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let kills = |name, source, rounds| {
        trial(format!("resume/killed while reading {name}"), move || {
            killed(source, program::rounds(rounds))
        })
    };
    vec![
        kills("JSON in several splits", Source::Json, 12),
        kills("CSV files, a partition each", Source::Csv, 12),
        kills("Parquet row groups", Source::Parquet, 12),
        kills("a generator", Source::Generator, 12),
        trial("resume/a clean end leaves nothing to be read again", clean),
        trial("resume/damaged checkpoints are passed over", damaged),
        trial("resume/damaged checkpoints of a view without windows", damaged_rows),
        trial("resume/rows that came behind stay so when their view has ended", ended_rows),
        trial("resume/a subscriber of several files sees each row once", subscribed),
        trial("resume/a file that has grown is read on, and another one from its start", changed),
        trial("resume/late rows stay late, bad rows bad, once", late),
        trial("resume/another text of the same plan keeps the state", retext),
        trial("resume/a view that starts at the latest does so for ever", latest),
        trial("resume/joins in time and OVER go on with other threads", in_time::other_threads),
    ]
}

/// Flags of a program that makes checkpoints all the time, of small batches.
const ALL_THE_TIME: [&str; 2] = ["--checkpoint-interval", "0.005"];

/// Where the rows come from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Json,
    Csv,
    Parquet,
    Generator,
}

/// The rows: number, key and time, half a second from one to the next and up to three seconds out of order.
const ROWS: &str = "SELECT value AS id, value % 7 AS k, \
    to_timestamp_millis(1767225600000 + value * 500 + (value * 7919) % 3000) AS ts \
    FROM generate_series(1, 200000) AS g(value)";

impl Source {
    /// Statements that make the files, to be run once.
    fn make(self, at: &Path) -> String {
        let at = at.display();
        match self {
            Self::Json => format!("COPY ({ROWS}) TO '{at}/in.json' STORED AS JSON;\n"),
            Self::Csv => (0..4)
                .map(|n| {
                    format!(
                        "COPY (SELECT * FROM ({ROWS}) WHERE id > {} AND id <= {}) TO '{at}/in/{n}.csv' STORED AS CSV;\n",
                        n * 50_000,
                        (n + 1) * 50_000
                    )
                })
                .collect(),
            Self::Parquet => format!(
                "COPY ({ROWS}) TO '{at}/in.parquet' STORED AS PARQUET \
                 OPTIONS ('format.max_row_group_size' '20000');\n"
            ),
            Self::Generator => String::new(),
        }
    }

    fn stream(self, at: &Path) -> String {
        let at = at.display();
        let with = match self {
            Self::Json => format!("connector = 'file', path = '{at}/in.json', format = 'json'"),
            Self::Csv => format!("connector = 'file', path = '{at}/in/*.csv', format = 'csv'"),
            Self::Parquet => format!("connector = 'file', path = '{at}/in.parquet'"),
            Self::Generator => {
                return "CREATE STREAM IF NOT EXISTS s (id BIGINT, k INT, ts TIMESTAMP, \
                        WATERMARK FOR ts AS ts - INTERVAL '3 seconds') \
                        WITH (connector = 'datagen', rows = '2000000', seed = '3', \
                        start = '2026-01-01 00:00:00', interval = '500 milliseconds', disorder = '2 seconds', fields.k.max = '7');\n"
                    .to_owned();
            }
        };
        format!(
            "CREATE STREAM IF NOT EXISTS s (id BIGINT, k INT, ts TIMESTAMP, \
             WATERMARK FOR ts AS ts - INTERVAL '3 seconds') WITH ({with});\n"
        )
    }
}

/// The views: a tumbling one with many keys, a sliding one, a join of windows, a window over windows, one without
/// windows, and one over that.
const VIEWS: [(&str, &str); 6] = [
    (
        "t",
        "SELECT window_start, window_end, window_time, id % 1000 AS g, count(*) AS n, sum(k) AS total \
         FROM TUMBLE(s, ts, INTERVAL '1 hour') GROUP BY window_start, window_end, window_time, id % 1000",
    ),
    (
        "h",
        "SELECT window_start, window_end, k, count(*) AS n, count(DISTINCT id % 50) AS d \
         FROM HOP(s, ts, INTERVAL '25 minutes', INTERVAL '1 hour') GROUP BY window_start, window_end, k",
    ),
    (
        "j",
        "SELECT a.window_start, a.window_end, a.k, a.n, b.high FROM \
         (SELECT window_start, window_end, k, count(*) AS n FROM TUMBLE(s, ts, INTERVAL '30 minutes') \
          GROUP BY window_start, window_end, k) a JOIN \
         (SELECT window_start, window_end, k, max(id) AS high FROM TUMBLE(s, ts, INTERVAL '30 minutes') \
          GROUP BY window_start, window_end, k) b \
         ON a.window_start = b.window_start AND a.window_end = b.window_end AND a.k = b.k",
    ),
    (
        "tt",
        "SELECT window_start, window_end, sum(n) AS n, count(*) AS groups \
         FROM TUMBLE(t, window_time, INTERVAL '5 hours') GROUP BY window_start, window_end",
    ),
    ("p", "SELECT id, k, ts FROM s WHERE id % 10 < 3"),
    (
        "pt",
        "SELECT window_start, window_end, count(*) AS n, sum(id) AS ids \
         FROM TUMBLE(p, ts, INTERVAL '2 hours') GROUP BY window_start, window_end",
    ),
];

fn create(source: Source, at: &Path) -> String {
    let views = VIEWS
        .iter()
        .map(|(name, text)| format!("CREATE MATERIALIZED VIEW IF NOT EXISTS {name} AS {text};\n"));
    source.stream(at) + &views.collect::<String>()
}

/// A home in which the program makes checkpoints all the time.
fn home() -> Result<Home, Failed> {
    let mut home = Home::new()?;
    home.flags = ALL_THE_TIME.iter().map(|flag| (*flag).to_owned()).collect();
    Ok(home)
}

/// Runs statements that are no part of what is kept.
fn prepare(home: &mut Home, sql: &str) -> Result<(), Failed> {
    home.durable = false;
    let said = home.run(sql);
    home.durable = true;
    said?.ok().map(|_| ())
}

/// Kills the program again and again while it reads; at the end each view is as the bounded query has it.
fn killed(source: Source, rounds: usize) -> Result<(), Failed> {
    let mut home = home()?;
    home.traced = true;
    let beside = home.beside("");
    std::fs::create_dir_all(home.beside("in"))?;
    prepare(&mut home, &source.make(&beside))?;
    let mut wait: String = VIEWS.iter().map(|(name, _)| format!("WAIT FOR {name};\n")).collect();
    wait.push_str("SELECT 1;\n");
    let mut resumed = 0;
    let create = create(source, &beside);
    for round in 0..rounds {
        let before = manifests(&home.data())?;
        let mut running = home.start(&(create.clone() + &wait))?;
        if round % 2 == 1 {
            running.steps_more(20 + 53 * (round * 7 % 11))?;
        } else {
            // However slow the machine is, every other round has something to go on from.
            let made = || Ok(manifests(&home.data())? != before);
            running.wait_until("a new checkpoint", made)?;
        }
        let said = running.kill()?;
        resumed += usize::from(said.err.contains("resumed from checkpoints"));
        said.no_bug()?;
        said.check([None, Some(0)].contains(&said.status.code()), "the program fails")?;
    }
    if resumed == 0 {
        return Err("no round went on from a checkpoint: the test tests nothing".into());
    }
    let mut queries = vec![
        "SELECT query FROM windrow.ledger WHERE NOT balanced OR late + bad <> 0".to_owned(),
        "SELECT query, rows_in FROM windrow.ledger".to_owned(),
        "SELECT count(*) FROM s".to_owned(),
    ];
    for (name, text) in VIEWS {
        queries.push(format!("SELECT * FROM {name}"));
        queries.push(text.to_owned());
    }
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let tables = home.tables(&(create + &wait), &queries).map_err(|e| at(&beside, &e))?;
    let [unbalanced, ledger, count, views @ ..] = &tables[..] else { return Err("tables".into()) };
    if !unbalanced.is_empty() {
        return Err(format!("the ledger of {unbalanced:?}").into());
    }
    let rows = count.first().cloned().unwrap_or_default();
    // A view that has finished before the end was not run again.
    let over_views = |line: &&String| line.starts_with("tt,") || line.starts_with("pt,");
    for line in ledger.iter().filter(|line| !over_views(line) && !line.ends_with(",0")) {
        let expected =
            if line.starts_with("j,") { rows.parse::<u64>()? * 2 } else { rows.parse()? };
        if !line.ends_with(&format!(",{expected}")) {
            return Err(format!("{line} rows read, {rows} are there").into());
        }
    }
    for ((name, _), pair) in VIEWS.iter().zip(views.chunks(2)) {
        let [view, bounded] = pair else { return Err("a pair of tables".into()) };
        if view != bounded || view.is_empty() {
            let text = format!("view {name}: {} rows, bounded {}", view.len(), bounded.len());
            return Err(at(home.keep(), &text.into()));
        }
    }
    Ok(())
}

/// The manifests of all views' checkpoints.
fn manifests(data: &Path) -> Result<BTreeSet<PathBuf>, Failed> {
    let mut found = BTreeSet::new();
    let list = |path: &Path| match std::fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>(),
        // Not made yet, or dropped in between.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
    };
    for view in list(&data.join("checkpoints"))? {
        let files = list(&view)?.into_iter();
        found.extend(files.filter(|path| path.extension().is_some_and(|e| e == "checkpoint")));
    }
    Ok(found)
}

fn at(path: impl Into<PathBuf>, error: &Failed) -> Failed {
    format!("{}: {}", path.into().display(), error.message().unwrap_or_default()).into()
}

const STREAM: &str = "CREATE STREAM s (id INT, k INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2 seconds');\n";
const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, k, count(*) AS n, sum(id) AS ids \
                    FROM HOP(s, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY window_start, window_end, k;\n";

/// Rows of `s`: number `i` at second `i`.
fn rows(ids: std::ops::Range<u32>) -> String {
    let row = |id| format!("({id}, {}, to_timestamp({}))", id % 2, 1_767_225_600 + id);
    format!("INSERT INTO s VALUES {};\n", ids.map(row).collect::<Vec<_>>().join(", "))
}

fn verified(said: &Said) -> Result<(), Failed> {
    said.check(said.out.contains("equal: "), "the view is not what its stream makes it")
}

fn clean() -> Result<(), Failed> {
    let home = Home::new()?;
    home.ok(&format!("{STREAM}{VIEW}{}", rows(0..100)))?;
    let said = home.run(
        "SELECT state, segments > 0 FROM windrow.checkpoints; SELECT rows_in FROM windrow.ledger; \
                         SELECT batches FROM windrow.queries",
    )?;
    said.check(said.status.success(), "second")?;
    said.check(said.err.contains("1 view resumed from checkpoints"), "it is not told")?;
    for expected in ["restored,true", "\n100\n", "\n1\n"] {
        said.check(said.out.contains(expected), &format!("{expected:?} is not there"))?;
    }
    let said = home.run(&format!(
        "{}WAIT FOR v; SELECT rows_in, balanced FROM windrow.ledger; VERIFY VIEW v",
        rows(100..130)
    ))?;
    said.check(said.status.success(), "third")?;
    said.check(said.out.contains("130,true"), "130 rows are not counted")?;
    verified(&said)
}

fn checkpoints(home: &Home, view: &str) -> Result<Vec<PathBuf>, Failed> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(home.data().join("checkpoints").join(view))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    found.sort();
    Ok(found)
}

fn damaged() -> Result<(), Failed> {
    let home = Home::new()?;
    home.ok(&format!("{STREAM}{VIEW}{}", rows(0..20)))?;
    for part in 1..5 {
        home.ok(&rows(part * 20..part * 20 + 20))?;
    }
    let check = "WAIT FOR v; VERIFY VIEW v; SELECT rows_in FROM windrow.ledger";
    // The newest manifest, then the newest file of segments, then all.
    let newest = |suffix: &str| -> Result<PathBuf, Failed> {
        let all = checkpoints(&home, "v")?;
        let found = all.into_iter().rfind(|path| path.to_string_lossy().ends_with(suffix));
        found.ok_or_else(|| format!("no {suffix}").into())
    };
    for suffix in [".checkpoint", ".arrow"] {
        flip_middle(&newest(suffix)?)?;
        let said = home.run(check)?;
        said.check(said.status.success(), "it goes on from the one before")?;
        said.check(said.err.contains("is not used: ") && said.err.contains("is damaged"), "told")?;
        said.check(said.err.contains("1 view resumed from checkpoints"), "resumed")?;
        said.check(said.out.contains("\n100\n"), "the rows in the ledger")?;
        verified(&said)?;
    }
    let newest = newest(".checkpoint")?;
    std::fs::remove_file(newest)?;
    let said = home.run(check)?;
    said.check(said.err.contains("1 view resumed from checkpoints"), "resumed without the newest")?;
    verified(&said)?;
    for path in checkpoints(&home, "v")? {
        std::fs::write(path, "nothing")?;
    }
    let said = home.run(check)?;
    said.check(said.status.success(), "all are damaged")?;
    said.check(said.err.contains("1 view recomputed from streams"), "it is not told")?;
    said.check(said.out.contains("\n100\n"), "the rows in the ledger")?;
    verified(&said)
}

/// Changes a bit in the middle of a file.
fn flip_middle(path: &Path) -> Result<(), Failed> {
    let mut bytes = std::fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(std::fs::write(path, bytes)?)
}

/// Rows that come in one order are counted off where no checkpoint says where the archive ends; others are refused.
fn damaged_rows() -> Result<(), Failed> {
    let home = Home::new()?;
    let views = "CREATE MATERIALIZED VIEW r AS SELECT id, k, ts FROM s WHERE k = 1;\n\
                 CREATE MATERIALIZED VIEW u AS SELECT id FROM s WHERE k = 1 UNION ALL SELECT id FROM s WHERE k = 0;\n\
                 CREATE MATERIALIZED VIEW rt AS SELECT window_end, count(*) AS n FROM TUMBLE(r, ts, INTERVAL '10 seconds') \
                 GROUP BY window_start, window_end;\n";
    home.ok(&format!("{STREAM}{views}{}", rows(0..20)))?;
    for part in 1..5 {
        home.ok(&(rows(part * 20..part * 20 + 20) + &rows(1..2)))?;
    }
    let check = ["SELECT count(*), count(DISTINCT id), max(id) FROM r", "VERIFY VIEW rt"];
    let same = |rows: usize, told: &str| -> Result<(), Failed> {
        let said = home.run("SELECT 1")?;
        said.check(said.status.success() && said.err.contains(told), told)?;
        let found = home.tables("WAIT FOR rt;\n", &check)?;
        let right = found[0] == [format!("{rows},50,99")] && found[1][0].contains("equal: ");
        if right { Ok(()) } else { Err(format!("{found:?}").into()) }
    };
    same(54, "3 views resumed")?;
    let manifest = |view: &str| -> Result<PathBuf, Failed> {
        let all = checkpoints(&home, view)?;
        let found =
            all.into_iter().rfind(|path| path.extension().is_some_and(|e| e == "checkpoint"));
        found.ok_or_else(|| "no manifest".into())
    };
    flip_middle(&manifest("r")?)?;
    same(54, "view \"r\": checkpoint ")?;
    for path in checkpoints(&home, "r")? {
        std::fs::remove_file(path)?;
    }
    same(54, "1 view recomputed from streams")?;
    for path in checkpoints(&home, "u")? {
        flip_middle(&path)?;
    }
    // Where its archive ends nobody knows now; the others go on.
    home.run(&(rows(100..102) + "SELECT * FROM u"))?.refused(
        3,
        &["no checkpoint can be used", "in another order", "DROP MATERIALIZED VIEW u"],
    )?;
    let found = home.tables("DROP MATERIALIZED VIEW u;\nWAIT FOR rt;\n", &check)?;
    if found[0] == ["55,51,101"] { Ok(()) } else { Err(format!("{found:?}").into()) }
}

/// A view without windows that has ended is not run again; windows that are made over it later know its late rows.
fn ended_rows() -> Result<(), Failed> {
    let home = Home::new()?;
    let line = |second: u32| format!("{{\"ts\": {}}}\n", 1_767_225_600 + second);
    let path = home.beside("in.json");
    std::fs::write(&path, [1, 5, 12, 9, 10, 25, 19, 20, 31].map(line).concat())?;
    home.ok(&format!(
        "CREATE STREAM s (ts TIMESTAMP(0), WATERMARK FOR ts) WITH (connector = 'file', path = '{}');\n\
         CREATE MATERIALIZED VIEW r AS SELECT ts FROM s;\nWAIT FOR r;\n",
        path.display()
    ))?;
    let found = home.tables(
        "CREATE MATERIALIZED VIEW w AS SELECT window_start, count(*) AS n FROM TUMBLE(r, ts, INTERVAL '10 seconds') \
         GROUP BY window_start, window_end;\nWAIT FOR w;\n",
        &["SELECT n FROM w", "SELECT rows_in, late FROM windrow.ledger WHERE query = 'w'"],
    )?;
    if found == [vec!["1", "2", "2", "2"], vec!["9,2"]] {
        Ok(())
    } else {
        Err(format!("{found:?}").into())
    }
}

/// Files are read side by side, so the order of their rows is another one each time: a subscriber is given what stays.
fn subscribed() -> Result<(), Failed> {
    const FILES: u32 = 3;
    const ROUNDS: u32 = 10;
    const LINES: u32 = 400;
    let home = home()?;
    std::fs::create_dir_all(home.beside("in"))?;
    let append = |round: u32| -> Result<(), Failed> {
        for id in round * LINES..(round + 1) * LINES {
            let path = home.beside(&format!("in/{}.json", id % FILES));
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            std::io::Write::write_all(&mut file, format!("{{\"id\": {id}}}\n").as_bytes())?;
        }
        Ok(())
    };
    append(0)?;
    home.ok(&format!(
        "CREATE STREAM s (id INT) WITH (connector = 'file', path = '{}/*.json', follow = 'true');\n\
         CREATE MATERIALIZED VIEW u AS SELECT id FROM s;\n",
        home.beside("in").display()
    ))?;
    let mut seen: Vec<u32> = vec![];
    for round in 1..=ROUNDS {
        let mut running = home.start(&format!("SUBSCRIBE TO u AFTER {};\n", seen.len()))?;
        let header = 1;
        if round < ROUNDS {
            append(round)?;
            let to_come = ((round + 1) * LINES) as usize - seen.len();
            running.until_lines(header + round as usize * 137 % to_come)?;
        } else if seen.len() < (ROUNDS * LINES) as usize {
            running.until_lines(header + (ROUNDS * LINES) as usize - seen.len())?;
        }
        let said = running.kill()?;
        said.no_bug()?;
        said.check(said.status.code().is_none(), "the program ends")?;
        let lines = said.out.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        seen.extend(lines.filter_map(|line| line.parse::<u32>().ok()));
    }
    let mut once = seen.clone();
    once.sort_unstable();
    if once == (0..ROUNDS * LINES).collect::<Vec<_>>() {
        return Ok(());
    }
    let distinct = once.iter().collect::<BTreeSet<_>>().len();
    Err(format!("{} rows, {distinct} of {}", seen.len(), ROUNDS * LINES).into())
}

fn changed() -> Result<(), Failed> {
    let home = Home::new()?;
    let line = |id: u32| format!("{{\"id\": {id}, \"k\": 1, \"ts\": {}}}\n", 1_767_225_600 + id);
    let lines = |ids: std::ops::Range<u32>| ids.map(line).collect::<String>();
    let path = home.beside("in.json");
    std::fs::write(&path, lines(0..50))?;
    let stream = format!(
        "CREATE STREAM s (id INT, k INT, ts TIMESTAMP(0), WATERMARK FOR ts AS ts - INTERVAL '2 seconds') \
         WITH (connector = 'file', path = '{}', follow = 'true');\n",
        path.display()
    );
    let until = |second: u32| {
        format!(
            "WAIT FOR v UNTIL TIMESTAMP '2026-01-01 00:00:{second:02}' TIMEOUT INTERVAL '5 minutes';\n"
        )
    };
    home.ok(&format!("{stream}{VIEW}{}", until(40)))?;
    // It grows.
    std::fs::write(&path, lines(0..58))?;
    let said =
        home.run(&format!("{}VERIFY VIEW v TO TIMESTAMP '2026-01-01 00:00:50';\n", until(50)))?;
    said.check(said.status.success(), "it has grown")?;
    said.check(said.err.contains("1 view resumed from checkpoints"), "resumed")?;
    verified(&said)?;
    // It is another one: that is read from its start, and it is told what may be missing.
    std::fs::write(&path, lines(58..70))?;
    let said = home.run(&format!(
        "{}SELECT rows_in, bad FROM windrow.ledger; SELECT reason FROM windrow.bad_rows;\n",
        until(59)
    ))?;
    said.check(said.status.success(), "it is another one")?;
    said.check(said.out.contains("\n71,1\n"), "70 rows, and what may be missing")?;
    said.check(said.out.contains("is gone: "), "it is told what may be missing")
}

fn late() -> Result<(), Failed> {
    let home = Home::new()?;
    let bad = "INSERT INTO s VALUES (98, 0, NULL), (99, 1, NULL);\n";
    home.ok(&format!("{STREAM}{VIEW}{}{}WAIT FOR v;\n{bad}", rows(0..50), rows(3..6)))?;
    for _ in 0..2 {
        let said = home.run(
            "WAIT FOR v; VERIFY VIEW v; SELECT count(*) AS lates FROM windrow.late_rows; \
                             SELECT count(*) AS bads FROM windrow.bad_rows; \
                             SELECT rows_in, aggregated, late FROM windrow.ledger",
        )?;
        said.check(said.status.success(), "after a restart")?;
        said.check(said.err.contains("1 view resumed from checkpoints"), "resumed")?;
        said.check(said.out.contains("lates\n3\n"), "three rows are late")?;
        said.check(said.out.contains("bads\n2\n"), "two rows are bad")?;
        said.check(said.out.contains("53,50,3"), "the ledger")?;
        verified(&said)?;
    }
    Ok(())
}

fn retext() -> Result<(), Failed> {
    let home = Home::new()?;
    home.ok(&format!("{STREAM}{VIEW}{}", rows(0..50)))?;
    let again = VIEW
        .replace("CREATE ", "CREATE OR REPLACE ")
        .replace("AS SELECT", "AS -- the same\nSELECT");
    let said =
        home.run(&format!("WAIT FOR v; {again} {} WAIT FOR v; VERIFY VIEW v", rows(50..60)))?;
    said.check(said.err.contains("the same plan: it continues unchanged"), "it is rebuilt")?;
    verified(&said)?;
    let other = again.replace("sum(id)", "max(id)");
    let said = home.run(&format!(
        "SHOW CREATE v; SELECT rows_in FROM windrow.ledger; {other} VERIFY VIEW v"
    ))?;
    said.check(said.err.contains("1 view resumed from checkpoints"), "it is not resumed")?;
    said.check(said.out.contains("-- the same") && said.out.contains("\n60\n"), "text and rows")?;
    said.check(!said.err.contains("the same plan"), "another plan")?;
    verified(&said)
}

fn latest() -> Result<(), Failed> {
    let home = Home::new()?;
    let view = VIEW.replace("VIEW v AS", "VIEW v WITH (start = 'latest') AS");
    home.ok(&format!("{STREAM}{}{view}", rows(0..50)))?;
    for part in 0..2 {
        let said = home.run(&format!(
            "{} WAIT FOR v; VERIFY VIEW v; SELECT rows_in FROM windrow.ledger; SELECT min(window_start) FROM v",
            rows(60 + part * 30..90 + part * 30)
        ))?;
        said.check(said.err.contains("1 view resumed from checkpoints"), "resumed")?;
        said.check(said.out.contains(&format!("\n{}\n", 30 + part * 30)), "the rows in")?;
        said.check(said.out.contains("00:00:55"), "the first window")?;
        verified(&said)?;
    }
    for path in checkpoints(&home, "v")? {
        std::fs::remove_file(path)?;
    }
    home.run("SELECT * FROM v")?
        .refused(3, &["no checkpoint can be used", "DROP MATERIALIZED VIEW v"])
}
