//! State is freed: many rows through each operator, and what is held meanwhile.
//!
//! ```text
//! state --rows 50000000 --threads 2 [--only pairs]
//! ```
//! Runs a continuous query for each operator over generated rows, whose keys come and go, and asks every few milliseconds what the
//! query holds (`state_bytes` of `windrow.queries`) and what the process does. Prints the median of both for each fifth of
//! the rows, and fails when that of the last fifth is more than 1.3 times that of the second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use clap::Parser;
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt};
use windrow_core::{Error, Limits, Result};
use windrow_engine::{Engine, EngineConfig, Outcome, Session, SessionOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs rows through each operator and watches what is held.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows for each operator.
    #[arg(long, default_value_t = 50_000_000)]
    rows: u64,
    /// Worker threads.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// One operator alone.
    #[arg(long)]
    only: Option<String>,
}

const FIFTHS: usize = 5;
/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// What the last fifth may hold at most, in percent of what the second holds.
const MOST: u64 = 130;

/// A query for each operator, over 100,000 rows of 10 seconds; `k` has ten rows, `few` has rows for ever.
const QUERIES: [(&str, &str); 10] = [
    (
        "tumbling",
        "SELECT window_end, k, count(*), sum(v) FROM TUMBLE((SELECT *, v / 10 AS k FROM s), ts, INTERVAL '10 seconds') \
         GROUP BY window_start, window_end, k EMIT FINAL",
    ),
    (
        "sliding",
        "SELECT window_end, k, max(v) FROM HOP((SELECT *, v / 10 AS k FROM s), ts, INTERVAL '2 seconds', INTERVAL '10 seconds') \
         GROUP BY window_start, window_end, k EMIT FINAL",
    ),
    (
        "sessions",
        "SELECT window_start, window_end, k, count(*) FROM SESSION((SELECT *, v / 10 AS k FROM s) PARTITION BY k, ts, \
         INTERVAL '10 seconds') GROUP BY window_start, window_end, k EMIT FINAL",
    ),
    (
        "pairs",
        "SELECT a.ts, a.v, b.few FROM s AS a JOIN s AS b ON a.v = b.v AND a.ts BETWEEN b.ts AND b.ts + INTERVAL '10 seconds' \
         EMIT FINAL",
    ),
    (
        "alone",
        "SELECT a.ts, a.v, b.few FROM s AS a LEFT JOIN s AS b ON a.v = b.v * 2 AND a.ts BETWEEN b.ts - INTERVAL '10 seconds' \
         AND b.ts + INTERVAL '5 seconds' EMIT FINAL",
    ),
    (
        "latest",
        "SELECT a.ts, a.v, b.v AS other FROM s AS a ASOF LEFT JOIN s AS b ON a.v / 10 = b.v / 10 AND a.ts > b.ts \
         AND a.ts <= b.ts + INTERVAL '10 seconds' EMIT FINAL",
    ),
    (
        "frames",
        "SELECT ts, v, sum(v) OVER (PARTITION BY v / 10 ORDER BY ts RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND CURRENT ROW) \
         FROM s EMIT FINAL",
    ),
    (
        "known",
        "SELECT ts, v, lag(v) OVER (PARTITION BY few ORDER BY ts), sum(few) OVER (PARTITION BY few ORDER BY ts), \
         last_value(v) OVER (PARTITION BY few ORDER BY ts ROWS UNBOUNDED PRECEDING) FROM s EMIT FINAL",
    ),
    (
        "steps",
        "SELECT * FROM s MATCH_RECOGNIZE (PARTITION BY v / 10 ORDER BY ts MEASURES FIRST(v) AS f, LAST(v) AS l \
         PATTERN (a b{3} c+) WITHIN INTERVAL '10 seconds' DEFINE c AS c.few > a.few) EMIT FINAL",
    ),
    (
        "gaps",
        "SELECT window_end, k, n FROM FILL((SELECT window_start, window_end, window_time, v / 10 AS k, count(*) AS n \
         FROM TUMBLE(s, ts, INTERVAL '2 seconds') GROUP BY window_start, window_end, window_time, v / 10) \
         PARTITION BY k, window_time, INTERVAL '2 seconds', INTERVAL '10 seconds') EMIT FINAL",
    ),
];

/// What was held at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    rows: u64,
    /// By the query.
    held: u64,
    /// By the process.
    resident: u64,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    match all(&arguments) {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the errors of this program")]
            {
                eprintln!("error: {}", error.render(""));
            }
            std::process::ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result of this program")]
fn all(arguments: &Arguments) -> Result<bool> {
    let wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| only == name);
    println!("operator   seconds    results  held / resident MB in each fifth");
    let mut flat = true;
    for (name, query) in QUERIES.iter().filter(|(name, _)| wanted(name)) {
        let (seconds, results, looks) = watched(arguments, query)?;
        let fifths = fifths(&looks);
        let parts: Vec<String> = fifths
            .iter()
            .map(|(held, resident)| format!("{:.1} / {:.0}", mb(*held), mb(*resident)))
            .collect();
        let grows = match (fifths.get(1), fifths.get(FIFTHS - 1)) {
            (Some(second), Some(last)) => {
                let more = |last: u64, second: u64| last * 100 > second * MOST;
                more(last.0, second.0) || more(last.1, second.1)
            }
            _ => return Err(Error::internal("too few rows for five looks")),
        };
        flat &= !grows;
        let verdict = if grows { "GROWS" } else { "flat" };
        println!("{name:<10} {seconds:>7.1} {results:>10}  {}  {verdict}", parts.join("  "));
    }
    Ok(flat)
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Runs a query in an engine of its own; returns how long it took, the number of results and what was held.
#[expect(clippy::disallowed_methods, reason = "a bench measures the machine's time")]
fn watched(arguments: &Arguments, query: &str) -> Result<(f64, usize, Vec<Look>)> {
    let limits = Limits { threads: arguments.threads, ..Limits::default() };
    let engine = Engine::open(EngineConfig { limits, ..EngineConfig::default() })?;
    let session = engine.session(SessionOptions { push_ends: true })?;
    let stream = format!(
        "CREATE STREAM s (v BIGINT, few BIGINT, ts TIMESTAMP(6), WATERMARK FOR ts AS ts - INTERVAL '1 second') \
         WITH (connector = 'datagen', rows = {}, seed = 7, start = '2026-01-01T00:00:00Z', 'interval' = '100 microseconds', \
         fields.v.kind = 'sequence', fields.few.max = 1000)",
        arguments.rows
    );
    block_on(session.run(&stream))?;
    let began = Instant::now();
    let done = AtomicBool::new(false);
    let (results, looks) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| looks(&engine, &done));
        let result = block_on(drained(&session, query));
        done.store(true, Ordering::Relaxed);
        let looks = watcher.join().map_err(|_| Error::internal("the watcher has panicked"))?;
        Ok::<_, Error>((result?, looks?))
    })?;
    let seconds = began.elapsed().as_secs_f64();
    engine.shutdown();
    Ok((seconds, results, looks))
}

/// The number of results.
async fn drained(session: &Session, query: &str) -> Result<usize> {
    let mut results = 0;
    if let Outcome::Rows(mut rows) = session.run(query).await? {
        while let Some(batch) = rows.next().await {
            results += batch?.num_rows();
        }
    }
    Ok(results)
}

/// Looks again and again, until all rows have gone through.
fn looks(engine: &Engine, done: &AtomicBool) -> Result<Vec<Look>> {
    let session = engine.session(SessionOptions { push_ends: true })?;
    let mut looks = vec![];
    while !done.load(Ordering::Relaxed) {
        let rows = engine.progress().rows;
        let held = block_on(held(&session))?;
        looks.push(Look { rows, held, resident: resident() });
        std::thread::sleep(PAUSE);
    }
    Ok(looks)
}

/// Bytes that continuous queries hold.
async fn held(session: &Session) -> Result<u64> {
    let sql = "SELECT state_bytes FROM windrow.queries";
    let Outcome::Rows(rows) = session.run(sql).await? else { return Ok(0) };
    let batches: Vec<RecordBatch> = rows.try_collect().await?;
    let columns = batches.iter().filter_map(|batch| batch.columns().first());
    let bytes = columns.filter_map(|column| column.as_primitive_opt::<UInt64Type>());
    Ok(bytes.flat_map(|bytes| bytes.values().iter()).sum())
}

/// Bytes of the process in memory (0 where the system does not tell).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The medians of what was held in each fifth of the rows; fewer where nobody looked.
fn fifths(looks: &[Look]) -> Vec<(u64, u64)> {
    let total = looks.last().map_or(0, |look| look.rows);
    let median = |mut values: Vec<u64>| -> Option<u64> {
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    };
    let fifth = |number: u64| {
        let of = FIFTHS as u64;
        let within = |look: &&Look| {
            look.rows * of > total * number && look.rows * of <= total * (number + 1)
        };
        let of = |what: fn(&Look) -> u64| median(looks.iter().filter(within).map(what).collect());
        Some((of(|look| look.held)?, of(|look| look.resident)?))
    };
    (0..FIFTHS as u64).map_while(fifth).collect()
}
