//! Queries over several streams of which some are silent. The test moves the clock and so decides which are idle: first
//! by hand, then at random, compared with a naive evaluator, in memory and across crashes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use windrow_core::{Clock, Limits, ManualClock};
use windrow_engine::EngineConfig;

use crate::crash::Chance;
use crate::talk::{Refusal, Talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("idle/joins, anti joins and unions go on without a silent stream", shapes),
        trial("idle/a stream that never had a row, and all of them", never_and_all),
        trial("idle/views over views go on, and wait when a stream speaks again", deeper),
        trial("idle/an idle stream may go by the clock", by_clock),
        trial("idle/EXPLAIN WHY NOT names who holds", why_not),
        trial("idle/rows behind stay behind over crashes", crashes),
        trial("idle/by chance, in memory", || by_chance(false)),
        trial("idle/by chance, over crashes", || by_chance(true)),
    ]
}

/// 2026-02-01 00:00:00, in seconds. Event times are before it.
const NOW: i64 = 1_769_904_000;
/// Looks at something that will be so, before the clock is moved a little.
const LOOKS: usize = 10;

/// An engine by a clock of one's own.
struct Stage {
    talk: Option<Talk>,
    clock: ManualClock,
    dir: Option<PathBuf>,
}

impl Stage {
    fn new(dir: Option<&Path>) -> Result<Self, Refusal> {
        let clock = ManualClock::at(NOW * 1_000_000);
        let mut stage = Self { talk: None, clock, dir: dir.map(Path::to_owned) };
        stage.open()?;
        Ok(stage)
    }

    /// Opens it, after a crash if it was open.
    fn open(&mut self) -> Result<(), Refusal> {
        self.talk = None;
        // Checkpoints are made when they are needed, and not otherwise.
        let hour = Duration::from_secs(3_600);
        let limits = Limits { checkpoint_interval: hour, ..Limits::default() };
        self.talk = Some(Talk::open(EngineConfig {
            limits,
            clock: Some(Arc::new(self.clock.clone())),
            data_dir: self.dir.clone(),
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

    fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, Refusal> {
        self.talk()?.rows(sql)
    }

    /// All columns of all rows as one text.
    fn text(&self, sql: &str) -> Result<String, Refusal> {
        Ok(self.rows(sql)?.iter().map(|row| row.join(" ")).collect::<Vec<_>>().join(", "))
    }

    fn step(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// A row of a stream, at a second of 2026-01-01.
    fn row(&self, stream: &str, id: u32, second: i64) -> Result<(), Refusal> {
        self.ask(&format!("INSERT INTO {stream} VALUES ({id}, TIMESTAMP '{}')", at(second)))
    }

    /// Waits until the watermark of a view is at a second, and what it closes is out. A view with
    /// checkpoints waits a moment of the clock between two of them.
    fn until(&self, view: &str, second: i64) -> Result<(), Failed> {
        for look in 1.. {
            let shown = self.text(&format!(
                "SELECT watermark FROM windrow.queries WHERE name = '{view}' AND status = 'running'"
            ))?;
            if shown == at(second).replace(' ', "T") {
                return Ok(());
            }
            if look > 1_000 * LOOKS {
                let why = self.text(&format!("EXPLAIN WHY NOT {view}"))?;
                return Err(format!("{view} is at {shown} and not at {}: {why}", at(second)).into());
            }
            if look % LOOKS == 0 && self.dir.is_some() {
                self.step(Duration::from_millis(250));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// What a view counts is balanced, and the view is what its query gives over the rows that were not late.
    fn right(&self, view: &str) -> Result<(), Failed> {
        self.ask(&format!("WAIT FOR {view}"))?;
        let balanced = self.text(&format!(
            "SELECT rows_in = aggregated + filtered + late + bad FROM windrow.ledger WHERE query = '{view}'"
        ))?;
        let verified = self.text(&format!("VERIFY VIEW {view}"))?;
        if balanced != "true" || !verified.starts_with("equal") {
            return Err(format!("{view}: balanced {balanced}, {verified}").into());
        }
        Ok(())
    }
}

/// A second of 2026-01-01.
fn at(second: i64) -> String {
    format!("2026-01-01 {:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
}

fn stream(name: &str, options: &str) -> String {
    format!("CREATE STREAM {name} (id INT, ts TIMESTAMP, WATERMARK FOR ts) {options}")
}

const IDLE: &str = "WITH (idle_timeout = '10 seconds')";
const WINDOW: &str = "INTERVAL '10 seconds') GROUP BY window_start, window_end";

fn counted(of: &str) -> String {
    format!("(SELECT window_start, window_end, count(*) AS n FROM TUMBLE({of}, ts, {WINDOW})")
}

fn equal(what: &str, found: &str, expected: &str) -> Result<(), Failed> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found} is not {expected}").into())
}

fn shapes() -> Result<(), Failed> {
    let stage = Stage::new(None)?;
    stage.ask(&stream("a", ""))?;
    stage.ask(&stream("b", IDLE))?;
    let (a, b) = (counted("a"), counted("b"));
    let on = "ON a.window_start = b.window_start AND a.window_end = b.window_end";
    let both = "SELECT * FROM a UNION ALL SELECT * FROM b";
    let views = [
        ("inner_j", format!("SELECT a.window_end, a.n, b.n AS k FROM {a} AS a JOIN {b} AS b {on}")),
        (
            "left_j",
            format!("SELECT a.window_end, a.n, b.n AS k FROM {a} AS a LEFT JOIN {b} AS b {on}"),
        ),
        ("anti_j", format!("SELECT a.window_end, a.n FROM {a} AS a LEFT ANTI JOIN {b} AS b {on}")),
        ("united", format!("SELECT window_end, count(*) AS n FROM TUMBLE(({both}), ts, {WINDOW}")),
        ("plain", both.to_owned()),
        ("over_plain", format!("SELECT window_end, count(*) AS n FROM TUMBLE(plain, ts, {WINDOW}")),
    ];
    for (name, query) in &views {
        stage.ask(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"))?;
    }
    stage.row("a", 1, 1)?;
    stage.row("b", 2, 5)?;
    stage.row("a", 3, 32)?;
    let windowed = ["inner_j", "left_j", "anti_j", "united", "over_plain"];
    for view in windowed {
        stage.until(view, 5)?;
    }
    // Just not long enough: without the option nothing changes, and with it not yet.
    stage.step(Duration::from_millis(9_999));
    stage.row("a", 4, 33)?;
    stage.ask("WAIT FOR united")?;
    stage.until("united", 5)?;
    stage.step(Duration::from_millis(1));
    for view in windowed {
        stage.until(view, 33)?;
    }
    let n = |view: &str| {
        stage.text(&format!("SELECT * EXCEPT (window_end) FROM {view} ORDER BY window_end"))
    };
    equal("inner", &n("inner_j")?, "1 1")?;
    equal("left", &n("left_j")?, "1 1")?;
    equal("anti", &n("anti_j")?, "")?;
    equal("union", &n("united")?, "2")?;
    equal("window over a union", &n("over_plain")?, "2")?;
    // It speaks again: 14 is behind, 35 is not. It holds once more, until it is silent once more.
    stage.row("b", 5, 14)?;
    stage.row("b", 6, 35)?;
    stage.row("a", 7, 55)?;
    for view in windowed {
        stage.until(view, 35)?;
    }
    stage.step(Duration::from_secs(10));
    for view in windowed {
        stage.until(view, 55)?;
    }
    equal("inner", &n("inner_j")?, "1 1, 2 1")?;
    equal("left", &n("left_j")?, "1 1, 2 1")?;
    equal("anti", &n("anti_j")?, "")?;
    equal("union", &n("united")?, "2, 3")?;
    equal("window over a union", &n("over_plain")?, "2, 3")?;
    let late = "SELECT query, stream, \"offset\", watermark FROM windrow.late_rows ORDER BY query";
    let of = |query: &str, stream: &str, offset: u32| {
        format!("{query} {stream} {offset} 2026-01-01T00:00:33")
    };
    let expected = [
        of("anti_j", "b", 1),
        of("inner_j", "b", 1),
        of("left_j", "b", 1),
        of("over_plain", "plain", 4),
        of("united", "b", 1),
    ];
    equal("late rows", &stage.text(late)?, &expected.join(", "))?;
    for (view, _) in &views {
        stage.right(view)?;
    }
    Ok(())
}

fn never_and_all() -> Result<(), Failed> {
    let stage = Stage::new(None)?;
    for name in ["a", "b", "never"] {
        stage.ask(&stream(name, IDLE))?;
    }
    let all = "SELECT * FROM a UNION ALL SELECT * FROM b UNION ALL SELECT * FROM never";
    stage.ask(&format!(
        "CREATE MATERIALIZED VIEW v AS SELECT window_end, count(*) AS n FROM TUMBLE(({all}), ts, {WINDOW}"
    ))?;
    stage.row("a", 1, 1)?;
    stage.row("b", 2, 15)?;
    stage.ask("WAIT FOR v")?;
    equal("while one has no row", &stage.text("SELECT n FROM v")?, "")?;
    // All at once: the furthest tells, whatever the order in which they fell silent.
    stage.step(Duration::from_secs(10));
    stage.until("v", 15)?;
    stage.step(Duration::from_secs(1_000));
    stage.row("never", 3, 12)?;
    stage.row("a", 4, 9)?;
    stage.row("b", 5, 41)?;
    stage.until("v", 15)?;
    stage.step(Duration::from_secs(10));
    stage.until("v", 41)?;
    equal("windows", &stage.text("SELECT n FROM v ORDER BY window_end")?, "1, 2")?;
    equal("late", &stage.text("SELECT stream, \"offset\" FROM windrow.late_rows")?, "a 1")?;
    stage.right("v")
}

fn deeper() -> Result<(), Failed> {
    let stage = Stage::new(None)?;
    stage.ask(&stream("a", ""))?;
    stage.ask(&stream("b", IDLE))?;
    let view =
        |name: &str, query: &str| stage.ask(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"));
    view(
        "wb",
        &format!(
            "SELECT window_time, window_end, count(*) AS n FROM TUMBLE(b, ts, {WINDOW}, window_time"
        ),
    )?;
    view("pass", "SELECT window_time AS ts, n FROM wb")?;
    view(
        "top",
        &format!(
            "SELECT a.window_end, a.n, b.n AS k FROM {} AS a LEFT JOIN (SELECT window_start, window_end, sum(n) AS n \
             FROM TUMBLE(pass, ts, {WINDOW}) AS b ON a.window_start = b.window_start AND a.window_end = b.window_end",
            counted("a")
        ),
    )?;
    stage.row("a", 1, 1)?;
    stage.row("b", 2, 5)?;
    stage.row("a", 3, 25)?;
    stage.ask("WAIT FOR top")?;
    equal("while b is not idle", &stage.text("SELECT n FROM top")?, "")?;
    let why = stage.text("EXPLAIN WHY NOT top")?;
    for part in [
        "stream \"pass\" holds it",
        "View \"pass\" has",
        "View \"wb\" has",
        "stream \"b\" holds it",
    ] {
        if !why.contains(part) {
            return Err(format!("{part} is not in {why}").into());
        }
    }
    stage.step(Duration::from_secs(10));
    stage.until("top", 25)?;
    // The window of b is still open when its stream falls silent: the view has nothing to say of it.
    equal("top", &stage.text("SELECT n, k FROM top ORDER BY window_end")?, "1 NULL")?;
    // b goes on: the view is no longer idle although it has closed nothing, and top waits for it.
    stage.row("b", 4, 6)?;
    stage.ask("WAIT FOR wb")?;
    stage.row("a", 5, 45)?;
    stage.until("top", 25)?;
    stage.row("b", 6, 31)?;
    stage.until("wb", 31)?;
    stage.until("top", 31)?;
    stage.row("b", 7, 41)?;
    stage.row("b", 8, 52)?;
    stage.row("a", 9, 63)?;
    stage.until("top", 52)?;
    let rows = stage.text("SELECT n, k FROM top ORDER BY window_end")?;
    equal("top", &rows, "1 NULL, 1 NULL, 1 1")?;
    let late = stage.text("SELECT query, stream, event_time FROM windrow.late_rows")?;
    equal("late", &late, "top pass 2026-01-01T00:00:09.999999")?;
    ["wb", "pass", "top"].into_iter().try_for_each(|view| stage.right(view))
}

fn by_clock() -> Result<(), Failed> {
    let stage = Stage::new(None)?;
    let delayed = "CREATE STREAM a (id INT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '2 seconds') \
                   WITH (idle_timeout = '10 seconds', when_idle = 'clock')";
    stage.ask(delayed)?;
    stage.ask(&stream("b", IDLE))?;
    stage.ask(&stream("c", ""))?;
    let both = "SELECT * FROM a UNION ALL SELECT * FROM b";
    let window =
        |of: &str| format!("SELECT window_end, count(*) AS n FROM TUMBLE(({of}), ts, {WINDOW}");
    stage.ask(&format!("CREATE MATERIALIZED VIEW v AS {}", window(both)))?;
    stage.ask(&format!(
        "CREATE MATERIALIZED VIEW w AS {}",
        window("SELECT * FROM a UNION ALL SELECT * FROM c")
    ))?;
    let now = |stream: &str, id: u32, ahead: i64| {
        let micros = stage.clock.now_micros() + ahead * 1_000_000;
        stage.ask(&format!("INSERT INTO {stream} VALUES ({id}, to_timestamp_micros({micros}))"))
    };
    now("a", 1, 1)?;
    now("b", 2, 3)?;
    now("c", 3, 0)?;
    stage.ask("WAIT FOR v")?;
    stage.step(Duration::from_secs(10));
    stage.step(Duration::from_secs(1));
    let watermark = |view: &str, expected: &str| {
        for _ in 0..1_000 * LOOKS {
            let shown = stage
                .text(&format!("SELECT watermark FROM windrow.queries WHERE name = '{view}'"))?;
            if shown == expected {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Failed::from(format!(
            "{view} is not at {expected}: {}",
            stage.text("SHOW WATERMARKS")?
        )))
    };
    // Eleven seconds after midnight, less the delay: the first window is open.
    watermark("v", "2026-02-01T00:00:09")?;
    stage.step(Duration::from_secs(1));
    watermark("v", "2026-02-01T00:00:10")?;
    equal("v", &stage.text("SELECT n FROM v")?, "2")?;
    // c has no idle_timeout: w waits for it.
    watermark("w", "2026-02-01T00:00:00")?;
    let state = "SELECT state, holds FROM windrow.watermarks WHERE query = 'v' ORDER BY stream";
    equal("state", &stage.text(state)?, "clock true, idle false")?;
    // Rows within the delay are on time, rows before the watermark are late.
    now("a", 4, -2)?;
    now("a", 5, -3)?;
    stage.ask("WAIT FOR v")?;
    stage.ask("WAIT FOR w")?;
    equal(
        "late",
        &stage.text("SELECT query, event_time FROM windrow.late_rows")?,
        "v 2026-02-01T00:00:09",
    )?;
    stage.step(Duration::from_secs(60));
    watermark("v", "2026-02-01T00:01:10")?;
    equal("v", &stage.text("SELECT n FROM v ORDER BY window_end")?, "2, 1")?;
    stage.right("v")?;
    for (sql, part) in [
        (
            "CREATE STREAM x (ts TIMESTAMP, WATERMARK FOR ts) WITH (when_idle = 'clock')",
            "no idle_timeout",
        ),
        (
            "CREATE STREAM x (ts TIMESTAMP) WITH (idle_timeout = '1 s', when_idle = 'clock')",
            "no watermark",
        ),
        ("CREATE STREAM x (ts TIMESTAMP) WITH (idle_timeout = '1 s')", "no watermark"),
        (
            "CREATE STREAM x (ts TIMESTAMP, WATERMARK FOR ts) WITH (when_idle = 'sleep')",
            "is not known",
        ),
    ] {
        match stage.ask(sql) {
            Err(Refusal(why)) if why.contains(part) => {}
            other => return Err(format!("{sql}: {other:?}").into()),
        }
    }
    Ok(())
}

fn why_not() -> Result<(), Failed> {
    let stage = Stage::new(None)?;
    stage.ask(&stream("ahead", ""))?;
    stage.ask(&stream("silent", ""))?;
    stage.ask(&stream("quiet", IDLE))?;
    let all = "SELECT * FROM ahead UNION ALL SELECT * FROM silent UNION ALL SELECT * FROM quiet";
    stage.ask(&format!(
        "CREATE MATERIALIZED VIEW v AS SELECT window_end, count(*) AS n FROM TUMBLE(({all}), ts, {WINDOW}"
    ))?;
    for (stream, second) in [("ahead", 50), ("silent", 12), ("quiet", 5)] {
        stage.row(stream, 1, second)?;
    }
    stage.ask("WAIT FOR v")?;
    let why = || stage.text("EXPLAIN WHY NOT v");
    let holders = "SELECT stream FROM windrow.watermarks WHERE holds";
    let check = |why: &str, has: &[&str], has_not: &str| {
        let missing = has.iter().find(|part| !why.contains(**part));
        match missing {
            None if !why.contains(has_not) => Ok(()),
            _ => Err(Failed::from(format!("{missing:?} or {has_not} in {why}"))),
        }
    };
    check(
        &why()?,
        &["\"quiet\" holds it with the watermark 2026-01-01T00:00:05", "after 10s without"],
        "\"ahead\"",
    )?;
    equal("holds", &stage.text(holders)?, "quiet")?;
    stage.step(Duration::from_secs(10));
    stage.until("v", 12)?;
    let has = [
        "\"silent\" holds it with the watermark 2026-01-01T00:00:12",
        "idle_timeout = '…'",
        "stream \"quiet\" is idle at the watermark 2026-01-01T00:00:05",
    ];
    check(&why()?, &has, "\"ahead\"")?;
    equal("holds", &stage.text(holders)?, "silent")?;
    Ok(())
}

fn crashes() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let mut stage = Stage::new(Some(dir.path()))?;
    stage.ask(&stream("a", ""))?;
    stage.ask(&stream("b", IDLE))?;
    let both = "SELECT * FROM a UNION ALL SELECT * FROM b";
    let views = [
        ("v", format!("SELECT window_end, count(*) AS n FROM TUMBLE(({both}), ts, {WINDOW}")),
        ("plain", both.to_owned()),
        ("over", format!("SELECT window_end, count(*) AS n FROM TUMBLE(plain, ts, {WINDOW}")),
    ];
    for (name, query) in &views {
        stage.ask(&format!("CREATE MATERIALIZED VIEW {name} AS {query}"))?;
    }
    stage.row("a", 1, 1)?;
    stage.row("b", 2, 5)?;
    stage.row("a", 3, 32)?;
    stage.ask("WAIT FOR v")?;
    stage.step(Duration::from_secs(10));
    stage.until("v", 32)?;
    stage.until("over", 32)?;
    equal("before", &stage.text("SELECT n FROM v ORDER BY window_end")?, "2")?;
    // No checkpoint is made but those that let windows close: what was closed stays so, and b holds again,
    // since nobody knows how long it has been silent.
    stage.open()?;
    stage.row("b", 4, 14)?;
    stage.row("b", 5, 36)?;
    stage.row("a", 6, 55)?;
    stage.until("v", 36)?;
    stage.until("over", 36)?;
    stage.open()?;
    let late = "SELECT query, count(*) FROM windrow.late_rows GROUP BY query ORDER BY query";
    stage.until("v", 36)?;
    stage.until("over", 36)?;
    equal("late", &stage.text(late)?, "over 1, v 1")?;
    stage.step(Duration::from_secs(10));
    stage.until("v", 55)?;
    stage.until("over", 55)?;
    for view in ["v", "over"] {
        let rows = stage.text(&format!("SELECT n FROM {view} ORDER BY window_end"))?;
        equal(view, &rows, "2, 2")?;
        stage.right(view)?;
    }
    stage.right("plain")?;
    // All is in checkpoints, and nothing comes after the restart: it is idle all the same.
    stage.row("b", 7, 60)?;
    stage.row("a", 8, 71)?;
    stage.ask("WAIT FOR v")?;
    if let Some(talk) = stage.talk.take() {
        talk.close()?;
    }
    stage.open()?;
    begun(&stage, "5")?;
    stage.until("v", 60)?;
    stage.step(Duration::from_secs(10));
    stage.until("v", 71)
}

/// A query over some of the streams, as it should be.
struct Naive {
    view: &'static str,
    streams: &'static [usize],
    watermark: i64,
    /// By end of window: rows, and the sum of their ids.
    windows: BTreeMap<i64, (u64, u64)>,
    late: u64,
    rows_in: u64,
}

/// A stream, as it should be.
struct Spoken {
    max: i64,
    /// Of the clock, in µs.
    last: i64,
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const NOTHING: i64 = i64::MIN;

impl Naive {
    fn row(&mut self, stream: usize, own: i64, (id, second): (u32, i64)) {
        if !self.streams.contains(&stream) {
            return;
        }
        self.rows_in += 1;
        let end = second.div_euclid(10) * 10 + 10;
        if end <= own.max(self.watermark) {
            self.late += 1;
            return;
        }
        let window = self.windows.entry(end).or_default();
        *window = (window.0 + 1, window.1 + u64::from(id));
    }

    fn go_on(&mut self, spoken: &[Spoken], now: i64) {
        let of = || self.streams.iter().filter_map(|s| spoken.get(*s));
        let awake = of().filter(|s| now - s.last < 60_000_000).map(|s| s.max).min();
        let to = awake.or_else(|| of().map(|s| s.max).max()).unwrap_or(NOTHING);
        self.watermark = self.watermark.max(to);
    }

    fn closed(&self) -> String {
        let closed = self.windows.range(..=self.watermark.max(0));
        let shown =
            closed.map(|(end, (n, ids))| format!("{} {n} {ids}", at(*end).replace(' ', "T")));
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// Rows, silence and crashes by chance. After each step the queries are where they should be.
fn by_chance(durable: bool) -> Result<(), Failed> {
    let long = std::env::var_os("WINDROW_LONG_TESTS").is_some();
    let seeds = if long { 12 } else { 3 };
    for seed in 1..=seeds {
        let dir = tempfile::tempdir()?;
        let mut stage = Stage::new(durable.then(|| dir.path()))?;
        play(&mut stage, &mut Chance(seed * 7_919), durable).map_err(|e| {
            Failed::from(format!("seed {seed}: {}", e.message().unwrap_or("no reason")))
        })?;
    }
    Ok(())
}

fn play(stage: &mut Stage, chance: &mut Chance, durable: bool) -> Result<(), Failed> {
    for name in NAMES {
        stage.ask(&stream(name, "WITH (idle_timeout = '60 seconds')"))?;
    }
    let union = |of: &str| {
        format!("SELECT window_end, count(*) AS n, sum(id) AS ids FROM TUMBLE({of}, ts, {WINDOW}")
    };
    let all = "SELECT * FROM a UNION ALL SELECT * FROM b UNION ALL SELECT * FROM c";
    stage.ask(&format!("CREATE MATERIALIZED VIEW three AS {}", union(&format!("({all})"))))?;
    stage.ask(&format!(
        "CREATE MATERIALIZED VIEW two AS {}",
        union("(SELECT * FROM a UNION ALL SELECT * FROM b)")
    ))?;
    stage.ask("CREATE MATERIALIZED VIEW plain AS SELECT * FROM b UNION ALL SELECT * FROM c")?;
    stage.ask(&format!("CREATE MATERIALIZED VIEW over AS {}", union("plain")))?;
    let naive = |view, streams| Naive {
        view,
        streams,
        watermark: NOTHING,
        windows: BTreeMap::new(),
        late: 0,
        rows_in: 0,
    };
    let mut all = [naive("three", &[0, 1, 2]), naive("two", &[0, 1]), naive("over", &[1, 2])];
    begun(stage, "8")?;
    let begun_at = stage.clock.now_micros();
    let mut spoken = [(); 3].map(|()| Spoken { max: NOTHING, last: begun_at });
    let mut second = 0;
    for id in 1..=60_u32 {
        let crash = durable && chance.below(15) == 0;
        if crash {
            stage.open()?;
            begun(stage, "8")?;
            spoken.iter_mut().for_each(|s| s.last = stage.clock.now_micros());
        } else if chance.below(4) == 0 {
            stage.step(Duration::from_secs(20 + 30 * chance.below(3)));
        } else {
            let stream = usize::try_from(chance.below(3)).unwrap_or(0);
            second += i64::try_from(chance.below(8)).unwrap_or(0);
            let time = (second - i64::try_from(chance.below(20)).unwrap_or(0)).max(0);
            let (Some(name), Some(said)) = (NAMES.get(stream), spoken.get_mut(stream)) else {
                continue;
            };
            for one in &mut all {
                one.row(stream, said.max, (id, time));
            }
            stage.row(name, id, time)?;
            if durable {
                // What a view without windows has is seen when there is a checkpoint of it.
                stage.ask("WAIT FOR over")?;
            }
            *said = Spoken { max: said.max.max(time), last: stage.clock.now_micros() };
        }
        reach(stage, &mut all, &spoken)?;
    }
    for one in &all {
        let rows = stage.text(&format!("SELECT * FROM {} ORDER BY window_end", one.view))?;
        equal(one.view, &rows, &one.closed())?;
        let late =
            stage.text(&format!("SELECT late FROM windrow.ledger WHERE query = '{}'", one.view))?;
        equal(&format!("late rows of {}", one.view), &late, &one.late.to_string())?;
        stage.right(one.view)?;
    }
    stage.right("plain")
}

/// Waits until all streams are being read: from then on they may be idle.
fn begun(stage: &Stage, partitions: &str) -> Result<(), Failed> {
    for _ in 0..1_000 * LOOKS {
        let reading = "SELECT count(*) FROM windrow.watermarks WHERE state <> 'unread'";
        if stage.text(reading)? == partitions {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(stage.text("SHOW WATERMARKS")?.into())
}

/// Waits until every query is where it should be. The clock may have to move a little for that, and
/// with it what is idle.
fn reach(stage: &Stage, all: &mut [Naive], spoken: &[Spoken]) -> Result<(), Failed> {
    for look in 1..1_000 * LOOKS {
        let now = stage.clock.now_micros();
        all.iter_mut().for_each(|one| one.go_on(spoken, now));
        let shown = stage.text(
            "SELECT name, rows_in, coalesce(CAST(watermark AS TEXT), 'none') \
             FROM windrow.queries JOIN windrow.ledger ON name = query \
             WHERE name IN ('three', 'two', 'over') AND status = 'running' ORDER BY name",
        )?;
        let mut expected: Vec<String> = all
            .iter()
            .map(|one| match one.watermark {
                NOTHING => format!("{} {} none", one.view, one.rows_in),
                second => format!("{} {} {}", one.view, one.rows_in, at(second).replace(' ', "T")),
            })
            .collect();
        expected.sort_unstable();
        if shown == expected.join(", ") {
            return Ok(());
        }
        if look == 1_000 * LOOKS - 1 {
            return Err(format!("{shown} is not {}", expected.join(", ")).into());
        }
        if look % LOOKS == 0 && stage.dir.is_some() {
            stage.step(Duration::from_millis(250));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
