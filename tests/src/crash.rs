//! Kill -9 at any moment: every acknowledged row is there once, every INSERT wholly or not at all, every window once
//! and equal to that of the bounded query.
//!
//! Each scenario kills the real program many times over one data directory. Its choices come from a seed (printed when
//! it fails; `WINDROW_CRASH_SEED` sets another): the number of file changes after the start, or after an
//! acknowledgement, at which it kills. No kill waits for a time to pass, so a slow machine has the same kills. With
//! `WINDROW_LONG_TESTS` all kills are made, otherwise a quarter of them; `WINDROW_CRASH_TIMES=10` kills ten times as
//! often. After a failure the data directory is left for inspection.
//!
//! SIGKILL does not simulate a power failure: the system keeps what was written.

use std::collections::{BTreeMap, BTreeSet};

use libtest_mimic::{Failed, Trial};

use crate::program::{self, Home, Running, Said, count, failed, for_ever};
use crate::watch::trial;

/// Small spills, so that archiving is going on all the time.
const SMALL_SPILLS: &[&str] = &["--tail-rows", "40"];
/// Checkpoints all the time.
const CHECKPOINTS: &[&str] = &["--checkpoint-interval", "0.003"];
/// Both, so that each falls into the other.
const BOTH: &[&str] = &["--checkpoint-interval", "0.003", "--tail-rows", "40"];

/// Milliseconds from one row to the next, of disorder, and that the watermark stays behind.
const STEP: u64 = 100;
const DISORDER: u64 = 1_500;
const DELAY: u64 = 2_000;
/// Milliseconds since 1970 of the first row: 2026-01-01.
const BEGIN: u64 = 1_767_225_600_000;

const STREAM: &str = "CREATE STREAM IF NOT EXISTS s (id BIGINT, k INT, ts TIMESTAMP, x BIGINT, \
                      WATERMARK FOR ts AS ts - INTERVAL '2 seconds');\n";

/// The views without windows: one that has its rows in the order of the stream, one with two inputs, one over it.
const ROW_VIEWS: [(&str, &str); 3] = [
    ("r", "SELECT id, k, x * 2 AS y, ts FROM s WHERE k <> 2"),
    (
        "u",
        "SELECT id, ts, x FROM s WHERE k = 1 UNION ALL SELECT id, ts, x + 1 AS x FROM s WHERE k > 2",
    ),
    ("ru", "SELECT id, ts FROM u WHERE x % 3 <> 0"),
];

/// The views with updating results: by key, with rows removed by value, without a key, and with rows that only come.
const UPDATING_VIEWS: [(&str, &str); 4] = [
    ("e", "SELECT k, count(*) AS n, sum(x) AS total, max(id) AS last FROM s GROUP BY k"),
    ("eh", "SELECT count(*) AS n, min(x) AS low FROM s GROUP BY id % 50 HAVING count(*) % 3 <> 1"),
    ("ea", "SELECT count(*) AS n, count(DISTINCT k) AS keys, max_by(k, id) AS k FROM s"),
    ("ed", "SELECT DISTINCT k, id % 7 AS d FROM s"),
];

/// Whether the rows of view `e` are the answer over the first rows of the stream, whichever: it reads the view once.
const PREFIX: &str = "SELECT CASE WHEN max(e.n) = count(s.id) AND max(e.total) = coalesce(sum(s.x), 0) THEN 'a_prefix' \
                      ELSE 'no_prefix' END AS state FROM (SELECT coalesce(sum(n), 0) AS n, coalesce(sum(total), 0) AS total, \
                      coalesce(max(last), 0) AS last FROM e) AS e LEFT JOIN s ON s.id <= e.last;\n";

/// The views with windows: name, text, and by how many seconds its windows may come later than the stream's watermark.
const VIEWS: [(&str, &str, u32); 17] = [
    (
        "t",
        "SELECT window_start, window_end, window_time, k, count(*) AS n, sum(x) AS total, max(id) AS last \
         FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, window_time, k",
        0,
    ),
    (
        "h",
        "SELECT window_start, window_end, k, count(*) AS n, min(x) AS low, max(x) AS high \
         FROM HOP(s, ts, INTERVAL '4 seconds', INTERVAL '10 seconds') GROUP BY window_start, window_end, k",
        0,
    ),
    (
        "tt",
        "SELECT window_start, window_end, sum(n) AS n, sum(total) AS total, max(last) AS last \
         FROM TUMBLE(t, window_time, INTERVAL '30 seconds') GROUP BY window_start, window_end",
        10,
    ),
    // The windows of a view.
    (
        "vt",
        "SELECT window_start, window_end, sum(n) AS n, sum(total) AS total, max(last) AS last, max_by(k, last) AS k \
         FROM t GROUP BY window_start, window_end",
        10,
    ),
    // By the calendar. Its bounded form has a row for each of a row's windows, hence few of them.
    (
        "cd",
        "SELECT window_start, window_end, k, count(*) AS n, max_by(id, x) AS best, mode(x) AS often \
         FROM CUMULATE(s, ts, INTERVAL '5 minutes', INTERVAL '1 day', 'Asia/Kolkata') \
         GROUP BY window_start, window_end, k",
        0,
    ),
    (
        "rt",
        "SELECT window_start, window_end, count(*) AS n, sum(y) AS total, max(id) AS last \
         FROM TUMBLE(r, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end",
        0,
    ),
    (
        "ut",
        "SELECT window_start, window_end, count(*) AS n, sum(x) AS total, max(id) AS last \
         FROM TUMBLE(u, ts, INTERVAL '5 seconds') GROUP BY window_start, window_end",
        0,
    ),
    (
        "s1",
        "SELECT window_start, window_end, k, count(*) AS n, sum(x) AS total, max(id) AS last \
         FROM SESSION(s PARTITION BY k, ts, INTERVAL '900 milliseconds') GROUP BY window_start, window_end, k",
        1,
    ),
    (
        "s2",
        "SELECT window_start, window_end, id, k, x \
         FROM SESSION(s PARTITION BY k, ts, INTERVAL '900 milliseconds')",
        1,
    ),
    (
        "j",
        "SELECT a.ts AS window_end, a.id, b.id AS other, b.x FROM s AS a JOIN s AS b \
         ON a.k = b.k AND a.ts BETWEEN b.ts AND b.ts + INTERVAL '900 milliseconds'",
        1,
    ),
    (
        "jt",
        "SELECT window_start, window_end, count(*) AS n, sum(x) AS total, max(id) AS last FROM TUMBLE((SELECT a.id, a.ts, b.x \
         FROM s AS a JOIN s AS b ON a.k = b.k AND a.ts >= b.ts - INTERVAL '900 milliseconds' AND a.ts <= b.ts), ts, \
         INTERVAL '10 seconds') GROUP BY window_start, window_end",
        1,
    ),
    (
        "o",
        "SELECT ts AS window_end, id, k, sum(x) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '900 milliseconds' PRECEDING \
         AND CURRENT ROW) AS near, sum(x) OVER (PARTITION BY k ORDER BY ts) AS total, \
         lag(x, 2) OVER (PARTITION BY k ORDER BY ts, id) AS before, row_number() OVER (PARTITION BY k ORDER BY ts, id) AS n FROM s",
        1,
    ),
    (
        "of",
        "SELECT ts AS window_end, id, k, count(*) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN CURRENT ROW \
         AND INTERVAL '900 milliseconds' FOLLOWING) AS next, max(x) OVER (PARTITION BY k ORDER BY ts) AS high FROM s",
        2,
    ),
    (
        "p",
        "SELECT window_end, k, n, began, middle, ended, total FROM s MATCH_RECOGNIZE (PARTITION BY k ORDER BY ts, id \
         MEASURES MATCH_ROWTIME() AS window_end, MATCH_NUMBER() AS n, FIRST(id) AS began, b.id AS middle, LAST(id) AS ended, \
         sum(x) AS total AFTER MATCH SKIP TO NEXT ROW PATTERN (a b c) WITHIN INTERVAL '5 seconds' \
         DEFINE b AS b.x >= PREV(b.x, 2), c AS c.x > a.x) AS m",
        1,
    ),
    // Gaps.
    (
        "g",
        "SELECT window_start, window_end, k, n, total, filled FROM FILL((SELECT window_start, window_end, window_time, k, \
         count(*) AS n, sum(x) AS total FROM TUMBLE(s, ts, INTERVAL '1 second') GROUP BY window_start, window_end, window_time, k) \
         PARTITION BY k, window_time, INTERVAL '1 second', INTERVAL '4 seconds', fill => 'previous')",
        2,
    ),
    (
        "jl",
        "SELECT a.ts AS window_end, a.id, b.id AS other, b.x FROM s AS a LEFT JOIN s AS b \
         ON a.k = b.k AND a.x <> b.x AND a.ts BETWEEN b.ts + INTERVAL '1 millisecond' AND b.ts + INTERVAL '200 milliseconds'",
        1,
    ),
    (
        "ja",
        "SELECT a.ts AS window_end, a.id, b.id AS other, b.x FROM s AS a ASOF LEFT JOIN s AS b \
         ON a.k = b.k AND a.ts > b.ts",
        1,
    ),
];

pub(crate) fn trials() -> Vec<Trial> {
    let kill = |name, seed, kills, moment, flags| {
        let scenario = Scenario { seed, kills, moment, flags };
        trial(format!("crash/{name}"), move || scenario.run())
    };
    vec![
        kill("while rows come", 1, 8, Moment::Acknowledged(150), &[]),
        kill("while starting", 2, 8, Moment::Starting, &[]),
        kill("while spilling", 3, 8, Moment::Acknowledged(150), SMALL_SPILLS),
        kill("while ending", 4, 8, Moment::Ending(40), SMALL_SPILLS),
        kill("while making checkpoints", 8, 8, Moment::Acknowledged(150), CHECKPOINTS),
        kill("while resuming", 9, 8, Moment::Starting, BOTH),
        kill("between checkpoints and spills", 10, 8, Moment::Acknowledged(150), BOTH),
        trial("crash/while objects come and go", objects),
        trial("crash/no kill", no_kill),
    ]
}

/// The kills of a program whose data directory is in a bucket.
pub(crate) fn in_bucket() -> Vec<(&'static str, Scenario)> {
    let kill = |seed, kills, moment, flags| Scenario { seed, kills, moment, flags };
    vec![
        ("kill while rows come", kill(11, 4, Moment::Acknowledged(60), &[])),
        ("kill while starting", kill(12, 4, Moment::Starting, &[])),
        ("kill while spilling", kill(13, 4, Moment::Acknowledged(60), SMALL_SPILLS)),
        ("kill while ending", kill(14, 4, Moment::Ending(40), SMALL_SPILLS)),
    ]
}

/// When the kill comes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// Within a few changes of files after at most so many acknowledged INSERTs.
    Acknowledged(u64),
    /// At any change of a file from the start to the first INSERTs.
    Starting,
    /// At most so many changes of files after the program has been told to end (SIGTERM), or has come to the end of its
    /// statements.
    Ending(u64),
}

/// Numbers out of a seed (SplitMix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
}

/// The seed of a scenario and how often it kills, as the environment has it.
fn wanted(seed: u64, kills: usize) -> (u64, usize) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let times = number("WINDROW_CRASH_TIMES").and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
    (number("WINDROW_CRASH_SEED").unwrap_or(seed), program::rounds(kills) * times)
}

/// Many kills of one kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    seed: u64,
    kills: usize,
    moment: Moment,
    flags: &'static [&'static str],
}

impl Scenario {
    pub(crate) fn run(self) -> Result<(), Failed> {
        let (seed, kills) = wanted(self.seed, self.kills);
        let mut world = World::new(seed)?;
        world.home.flags = self.flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (mut killed, mut rounds) = (0, 0);
        let mut moment = self.moment;
        let mut rounds_of_it = || -> Result<(), Failed> {
            while killed < kills {
                rounds += 1;
                if rounds > 3 * kills + 10 {
                    return Err("the kills come too late: the program has ended before".into());
                }
                let in_time = world.round(moment, rounds)?;
                killed += usize::from(in_time);
                // How many changes an end makes depends on what was there: the kills come all over it.
                if let Moment::Ending(most) = &mut moment {
                    *most = if in_time { *most + *most / 10 + 1 } else { *most * 4 / 5 };
                }
                if rounds % 10 == 0 {
                    world.check("", true)?;
                }
            }
            world.check("", false)?;
            // Once more after a clean end.
            world.check("", false)?;
            if world.stored.len() < 100 { Err("the test tests nothing".into()) } else { Ok(()) }
        };
        match rounds_of_it() {
            Ok(()) => Ok(()),
            Err(error) => {
                let text = error.message().unwrap_or_default().to_owned();
                let at = world.home.keep();
                Err(format!("seed {seed}, round {rounds}, directory {}: {text}", at.display())
                    .into())
            }
        }
    }
}

/// One INSERT: its rows by id, each as the check query shows it.
type Insert = BTreeMap<u64, String>;

/// A data directory, and what must be in it.
struct World {
    home: Home,
    chance: Chance,
    next_id: u64,
    /// What was acknowledged.
    stored: BTreeMap<u64, String>,
    /// What was not, but had been begun: each is there wholly or not at all.
    unsure: Vec<Insert>,
    /// How many changes of files a start makes, until its first INSERT is acknowledged.
    start: u64,
}

impl World {
    fn new(seed: u64) -> Result<Self, Failed> {
        let (mut home, stored, unsure) = (Home::new()?, BTreeMap::new(), vec![]);
        home.traced = true;
        Ok(Self { home, chance: Chance(seed), next_id: 1, stored, unsure, start: 0 })
    }

    /// The next INSERT, from `first` on.
    fn insert(&mut self, first: u64) -> (Insert, String) {
        let mut rows = Insert::new();
        let mut sql = String::from("INSERT INTO s VALUES ");
        for id in first..=first + self.chance.below(8) {
            let (k, x) = (self.chance.below(5), self.chance.below(1_000_000));
            let millis = BEGIN + id * STEP + self.chance.below(DISORDER);
            let comma = if id == first { "" } else { ", " };
            sql.push_str(&format!("{comma}({id}, {k}, to_timestamp_millis({millis}), {x})"));
            rows.insert(id, format!("{id},{k},{millis}000000,{x}"));
        }
        sql.push_str(";\n");
        (rows, sql)
    }

    /// Starts, inserts, kills; whether the kill came in time. Afterwards the world knows what must be stored.
    fn round(&mut self, moment: Moment, round: usize) -> Result<bool, Failed> {
        let statements = match moment {
            Moment::Acknowledged(most) => most + 50,
            Moment::Starting => 200,
            Moment::Ending(_) => 5 + self.chance.below(20),
        };
        let mut sql = create();
        let mut inserts = vec![];
        let mut next = self.next_id;
        for number in 0..statements {
            // At once after the start, and while rows come.
            if number % 40 == 0 {
                sql.push_str(PREFIX);
            }
            let (rows, text) = self.insert(next);
            next = rows.keys().last().map_or(next, |id| id + 1);
            inserts.push(rows);
            sql.push_str(&text);
        }
        let by_signal = matches!(moment, Moment::Ending(_)) && self.chance.below(2) == 0;
        if by_signal || matches!(moment, Moment::Starting) {
            sql.push_str(&for_ever("t"));
        }
        let mut running = self.home.start(&sql)?;
        let alive = match moment {
            Moment::Acknowledged(most) => {
                let times = usize::try_from(self.chance.below(most))?;
                // Each of the INSERTs that follow changes a file.
                let more = usize::try_from(self.chance.below(20))?;
                running.until(times, "INSERT 0 ")? && running.steps_more(more)?
            }
            Moment::Starting => self.until_started(&mut running, round)?,
            Moment::Ending(most) => {
                let alive = running.until(inserts.len(), "INSERT 0 ")?;
                if alive && by_signal {
                    running.signal("TERM")?;
                }
                alive && running.steps_more(usize::try_from(self.chance.below(most))?)?
            }
        };
        let said = running.kill()?;
        self.take(&said, &inserts, by_signal)?;
        Ok(alive && said.status.code().is_none())
    }

    /// Waits for a change of a file between the start and the first INSERTs; in every fourth round for the last of them, which
    /// tells how many there are.
    fn until_started(&mut self, running: &mut Running, round: usize) -> Result<bool, Failed> {
        const INSERTS: usize = 40;
        if round % 4 == 1 {
            let started = running.until(1, "INSERT 0 ")?;
            self.start = u64::try_from(running.steps())?;
            return Ok(started && running.until(INSERTS, "INSERT 0 ")?);
        }
        running.steps_more(usize::try_from(self.chance.below(self.start + INSERTS as u64))?)
    }

    /// Learns from what the program said what must be stored.
    fn take(&mut self, said: &Said, inserts: &[Insert], told: bool) -> Result<(), Failed> {
        // Killed (no code), or done before; somebody who is told to end may say that it was interrupted.
        let may_end = [None, Some(0)].contains(&said.status.code())
            || told && matches!(said.status.code(), Some(130 | 143));
        said.check(may_end, "the program fails")?;
        said.no_bug()?;
        said.check(!said.out.contains("no_prefix"), "a view is not the answer of a prefix")?;
        let acknowledgements = said.err.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        let mut acknowledged =
            acknowledgements.filter_map(|l| l.trim_end().strip_prefix("INSERT 0 "));
        for rows in inserts {
            self.next_id = rows.keys().last().map_or(self.next_id, |id| id + 1);
            let Some(count) = acknowledged.next() else {
                // The next one had perhaps begun, those after it had not.
                self.unsure.push(rows.clone());
                return Ok(());
            };
            said.check(count == rows.len().to_string(), "another number of rows is acknowledged")?;
            self.stored.extend(rows.clone());
        }
        Ok(())
    }

    /// Compares what there is after `inserts` with what must be; ends with a kill or cleanly.
    fn check(&mut self, inserts: &str, kill: bool) -> Result<(), Failed> {
        let mut before = create();
        before.push_str(inserts);
        let mut queries = vec![
            "SELECT id, k, CAST(ts AS BIGINT) AS ts, x FROM s".to_owned(),
            "SELECT query, balanced, late, bad FROM windrow.ledger WHERE NOT balanced OR late + bad <> 0"
                .to_owned(),
        ];
        for (name, text) in ROW_VIEWS {
            before.push_str(&format!("WAIT FOR {name};\n"));
            queries.push(format!("SELECT * FROM {name}"));
            queries.push(text.to_owned());
        }
        for (name, text) in UPDATING_VIEWS {
            before.push_str(&format!("WAIT FOR {name};\n"));
            queries.push(format!("SELECT * FROM {name}"));
            queries.push(text.to_owned());
        }
        for (name, text, slack) in VIEWS {
            before.push_str(&format!("WAIT FOR {name};\n"));
            let newest =
                format!("SELECT coalesce(max(window_end), TIMESTAMP '1970-01-01') FROM {name}");
            queries.push(format!("SELECT * FROM {name}"));
            queries.push(format!("SELECT * FROM ({text}) WHERE window_end <= ({newest})"));
            // Windows that have closed and are not in the view.
            queries.push(format!(
                "SELECT * FROM ({text}) WHERE window_end > ({newest}) AND window_end <= (SELECT max(ts) FROM s) \
                 - INTERVAL '{DELAY} milliseconds' - INTERVAL '{slack} seconds'"
            ));
        }
        let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
        let tables = if kill {
            self.home.tables_then_kill(&before, &queries, "t")?
        } else {
            self.home.tables(&before, &queries)?
        };
        let mut tables = tables.into_iter();
        self.check_rows(&tables.next().unwrap_or_default())?;
        same("the ledger", &tables.next().unwrap_or_default(), &[])?;
        let mut next = || tables.next().unwrap_or_default();
        for (name, _) in ROW_VIEWS.into_iter().chain(UPDATING_VIEWS) {
            let (view, bounded) = (next(), next());
            same(&format!("view {name}"), &view, &bounded)?;
        }
        for (name, ..) in VIEWS {
            let (view, bounded, missing) = (next(), next(), next());
            same(&format!("view {name}"), &view, &bounded)?;
            same(&format!("closed windows that view {name} lacks"), &missing, &[])?;
        }
        Ok(())
    }

    /// Compares the rows of the stream with those that must be there. What may be there counts as stored once it is.
    fn check_rows(&mut self, found: &[String]) -> Result<(), Failed> {
        let there: BTreeSet<&String> = found.iter().collect();
        for insert in std::mem::take(&mut self.unsure) {
            let rows = insert.values().filter(|row| there.contains(row)).count();
            if rows == insert.len() {
                self.stored.extend(insert);
            } else if rows > 0 {
                let lines: Vec<_> = insert.values().collect();
                return Err(format!("{rows} rows only of the INSERT of {lines:?}").into());
            }
        }
        let mut expected: Vec<String> = self.stored.values().cloned().collect();
        expected.sort_unstable();
        same("stream s", found, &expected)
    }
}

/// The stream and its views, if they are not there.
fn create() -> String {
    let mut sql = STREAM.to_owned();
    let windows = VIEWS.map(|(name, text, _)| (name, text));
    for (name, text) in ROW_VIEWS.into_iter().chain(windows) {
        sql.push_str(&format!("CREATE MATERIALIZED VIEW IF NOT EXISTS {name} AS {text};\n"));
    }
    for (name, text) in UPDATING_VIEWS {
        let create = "CREATE MATERIALIZED VIEW IF NOT EXISTS";
        sql.push_str(&format!("{create} {name} AS {text} EMIT CHANGES;\n"));
    }
    sql
}

/// The test itself: in memory and without a kill, what is checked holds.
fn no_kill() -> Result<(), Failed> {
    let mut world = World::new(6)?;
    world.home.durable = false;
    let mut sql = String::new();
    for kill in [true, false] {
        for _ in 0..150 {
            let (rows, text) = world.insert(world.next_id);
            world.next_id = rows.keys().last().map_or(1, |id| id + 1);
            world.stored.extend(rows);
            sql.push_str(&text);
        }
        world.check(&sql, kill)?;
    }
    world.stored.pop_first();
    if world.check(&sql, false).is_ok() {
        return Err("a row that is too much is not seen".into());
    }
    // What was said before a kill counts.
    let mut world = World::new(7)?;
    let mut killed = 0;
    for _ in 0..5 {
        killed += usize::from(world.round(Moment::Acknowledged(100), 0)?);
    }
    if killed == 0 || world.stored.is_empty() {
        return Err(format!("{killed} kills, {} rows", world.stored.len()).into());
    }
    Ok(())
}

/// Fails unless both have the same lines; tells some that differ.
fn same(what: &str, found: &[String], expected: &[String]) -> Result<(), Failed> {
    if found == expected {
        return Ok(());
    }
    let tally = |lines: &[String]| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for line in lines {
            *counts.entry(line.clone()).or_default() += 1;
        }
        counts
    };
    let (found, expected) = (tally(found), tally(expected));
    let mut text = format!("{what} is not as it must be (-: is missing, +: is too much)");
    let lines: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let count = |of: &BTreeMap<String, i64>, line| of.get(line).copied().unwrap_or_default();
    let mut different = lines.into_iter().filter_map(|line| {
        let more = count(&found, line) - count(&expected, line);
        (more != 0).then_some((more, line))
    });
    for (more, line) in different.by_ref().take(20) {
        text.push_str(&format!("\n{} {line} ({more:+})", if more < 0 { '-' } else { '+' }));
    }
    text.push_str(&format!("\nand {} more", different.count()));
    Err(text.into())
}

/// What streams and views there are, with the generation of each view's text.
type Objects = BTreeMap<String, u64>;

/// A statement, its acknowledgement, and the objects after it.
struct Step {
    sql: String,
    said: &'static str,
    after: Objects,
}

/// DDL: what was acknowledged has happened, the one statement after it has happened or not.
fn objects() -> Result<(), Failed> {
    let (seed, kills) = wanted(5, 20);
    let (mut home, mut chance) = (Home::new()?, Chance(seed));
    home.traced = true;
    let mut run = || -> Result<(), Failed> {
        let mut now = Objects::new();
        let mut generation = 0;
        for _ in 0..kills {
            let steps: Vec<Step> = (0..60)
                .scan(now.clone(), |objects, _| {
                    generation += 1;
                    let step = step(&mut chance, objects, generation);
                    *objects = step.after.clone();
                    Some(step)
                })
                .collect();
            let mut sql: String = steps.iter().map(|step| step.sql.as_str()).collect();
            sql.push_str("CREATE STREAM zz (ts TIMESTAMP, WATERMARK FOR ts);\nDROP STREAM zz;\n");
            let mut running = home.start(&sql)?;
            let times = usize::try_from(chance.below(40))?;
            // The acknowledgement of the step before the kill.
            if let Some(last) = steps.get(..times).and_then(<[Step]>::last) {
                let before = steps.get(..times).unwrap_or_default();
                let alike = before.iter().filter(|step| step.said == last.said).count();
                running.until(alike, last.said)?;
            }
            running.steps_more(usize::try_from(chance.below(30))?)?;
            let said = running.kill()?;
            said.check([None, Some(0)].contains(&said.status.code()), "the program fails")?;
            let words: BTreeSet<&str> = steps.iter().map(|step| step.said).collect();
            let done: usize = words.iter().map(|words| count(&said.err, words)).sum();
            let after = |steps_done: usize| match steps_done.checked_sub(1) {
                None => now.clone(),
                Some(last) => {
                    steps.get(last).or(steps.last()).map_or(now.clone(), |s| s.after.clone())
                }
            };
            let found = found(&home)?;
            let possible = [after(done), after(done + 1)];
            if !possible.contains(&found) {
                let text =
                    format!("{found:?} is there after {done} steps, not one of {possible:?}");
                return Err(failed(&said, &text));
            }
            now = found;
        }
        Ok(())
    };
    run().map_err(|e| format!("seed {seed}: {}", e.message().unwrap_or_default()).into())
}

/// A statement that can be run with these objects.
fn step(chance: &mut Chance, now: &Objects, generation: u64) -> Step {
    let name = ["a", "b", "c"][usize::try_from(chance.below(3)).unwrap_or_default()];
    let (stream, view) = (format!("s_{name}"), format!("v_{name}"));
    let mut after = now.clone();
    let (sql, said) = match (now.contains_key(&stream), now.contains_key(&view), chance.below(4)) {
        (false, ..) => {
            after.insert(stream.clone(), 0);
            (
                format!("CREATE STREAM {stream} (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts)"),
                "CREATE STREAM",
            )
        }
        (true, false, 0) => {
            after.remove(&stream);
            (format!("DROP STREAM {stream}"), "DROP STREAM")
        }
        (true, true, 0) => {
            after.remove(&view);
            (format!("DROP MATERIALIZED VIEW {view}"), "DROP MATERIALIZED VIEW")
        }
        (true, _, 1) => {
            let values =
                format!("({generation}, to_timestamp_millis({}))", BEGIN + generation * 10_000);
            (format!("INSERT INTO {stream} VALUES {values}"), "INSERT 0 1")
        }
        (true, is_there, _) => {
            after.insert(view.clone(), generation);
            let replace = if is_there { "OR REPLACE " } else { "" };
            (
                format!(
                    "CREATE {replace}MATERIALIZED VIEW {view} AS SELECT window_end, count(*) AS g{generation} \
                     FROM TUMBLE({stream}, ts, INTERVAL '1 minute') GROUP BY window_start, window_end"
                ),
                "CREATE MATERIALIZED VIEW",
            )
        }
    };
    Step { sql: sql + ";\n", said, after }
}

/// What streams and views there are after a start.
fn found(home: &Home) -> Result<Objects, Failed> {
    let queries =
        ["SELECT name FROM windrow.streams", "SELECT name, definition FROM windrow.views"];
    let mut objects = Objects::new();
    let tables = home.tables("", &queries)?;
    for line in tables.iter().flatten() {
        let name = line.split(',').next().unwrap_or_default();
        let generation = line.split(" AS g").nth(1).and_then(|rest| rest.split(' ').next());
        // The stream at the end of each script is not one of the objects.
        if name != "zz" {
            objects.insert(name.to_owned(), generation.and_then(|g| g.parse().ok()).unwrap_or(0));
        }
    }
    Ok(objects)
}
