//! Whole queries through the [`Engine`] facade, timed: what `benches/compare` runs for Windrow.
//!
//! ```text
//! whole_queries --threads 2 --runs 5 --setup "CREATE STREAM …;" --query "SELECT … EMIT FINAL"
//! ```
//! Runs the set-up once, then the query once to warm up and `--runs` times more. Every run plans anew and keeps all
//! batches of its result until the last one has come. Prints one JSON line: `seconds` of each run, `rows`, `sums` (one
//! number per column that does not depend on the order of rows; `compare.py` makes the same for the other engines),
//! `late` and `bad` rows of the last run and `peak_mb` of the process.

use std::time::Instant;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use clap::Parser;
use futures::StreamExt;
use futures::executor::block_on;
use windrow_core::{Error, Limits, Result};
use windrow_engine::{Engine, EngineConfig, Outcome, Session, SessionOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times one query through the engine facade.
#[derive(Debug, Parser)]
struct Arguments {
    /// Worker threads.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Measured runs after the one that warms up; with 0 the query runs once.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Rows of a micro-batch at most.
    #[arg(long)]
    batch_rows: Option<usize>,
    /// Statements to run first.
    #[arg(long, default_value = "")]
    setup: String,
    /// The query.
    #[arg(long)]
    query: String,
}

/// The result of one run.
#[derive(Debug)]
struct Run {
    seconds: f64,
    batches: Vec<RecordBatch>,
    late: u64,
    bad: u64,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(line) => {
            #[expect(clippy::print_stdout, reason = "the result of this program")]
            {
                println!("{line}");
            }
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the errors of this program")]
            {
                eprintln!("error: {}", error.render(&arguments.query));
            }
            std::process::ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<String> {
    let mut limits = Limits { threads: arguments.threads, ..Limits::default() };
    if let Some(rows) = arguments.batch_rows {
        limits.batch_rows_max = rows;
    }
    let engine = Engine::open(EngineConfig { limits, ..EngineConfig::default() })?;
    let session = engine.session(SessionOptions { push_ends: true })?;
    for statement in windrow_sql::parse::parse(&arguments.setup)? {
        run(&session, &statement.text)?;
    }
    let mut last = run(&session, &arguments.query)?;
    let mut seconds = vec![];
    for _ in 0..arguments.runs {
        drop(last);
        last = run(&session, &arguments.query)?;
        seconds.push(format!("{:.6}", last.seconds));
    }
    let peak = peak_mb();
    let rows: usize = last.batches.iter().map(RecordBatch::num_rows).sum();
    let sums = sums(&last.batches)?;
    engine.shutdown();
    Ok(format!(
        "{{\"form\": 0, \"seconds\": [{}], \"rows\": {rows}, \"sums\": [{}], \"late\": {}, \"bad\": {}, \"peak_mb\": {peak}}}",
        seconds.join(", "),
        sums.join(", "),
        last.late,
        last.bad,
    ))
}

#[expect(clippy::disallowed_methods, reason = "a bench measures the machine's time")]
fn run(session: &Session, sql: &str) -> Result<Run> {
    let began = Instant::now();
    let mut done = Run { seconds: 0.0, batches: vec![], late: 0, bad: 0 };
    block_on(async {
        if let Outcome::Rows(mut rows) = session.run(sql).await? {
            while let Some(batch) = rows.next().await {
                done.batches.push(batch?);
            }
            if let Some(unused) = rows.unused_rows() {
                (done.late, done.bad) = (unused.late, unused.bad);
            }
        }
        Ok::<_, Error>(())
    })?;
    done.seconds = began.elapsed().as_secs_f64();
    Ok(done)
}

/// One number per column, as JSON: the sum of integers and of floats, of the bytes of texts, and of times the seconds
/// modulo 100,000.
fn sums(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let Some(first) = batches.first() else { return Ok(vec![]) };
    let column = |index: usize| {
        let mut whole = 0_i128;
        let mut fraction = 0.0;
        let kind = first.column(index).data_type();
        for batch in batches {
            let array = batch.column(index);
            match kind {
                DataType::Timestamp(unit, _) => {
                    let per_second = match unit {
                        TimeUnit::Second => 1,
                        TimeUnit::Millisecond => 1_000,
                        TimeUnit::Microsecond => 1_000_000,
                        TimeUnit::Nanosecond => 1_000_000_000,
                    };
                    let ticks = cast(array, &DataType::Int64)?;
                    let ticks = ticks.as_primitive::<Int64Type>().iter().flatten();
                    whole += ticks.map(|t| i128::from(t / per_second % 100_000)).sum::<i128>();
                }
                t if t.is_floating() => {
                    let values = cast(array, &DataType::Float64)?;
                    fraction += values.as_primitive::<Float64Type>().iter().flatten().sum::<f64>();
                }
                t if t.is_integer() => {
                    let values = cast(array, &DataType::Int64)?;
                    let values = values.as_primitive::<Int64Type>().iter().flatten();
                    whole += values.map(i128::from).sum::<i128>();
                }
                _ => {
                    let values = cast(array, &DataType::Utf8View)?;
                    let values = values.as_string_view().iter().flatten();
                    whole += values.map(|v| v.len() as i128).sum::<i128>();
                }
            }
        }
        let floating = kind.is_floating();
        Ok(if floating { format!("{fraction:.1}") } else { whole.to_string() })
    };
    (0..first.num_columns()).map(column).collect()
}

/// The most memory that this process has held, in MB (0 where the system does not tell).
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kb| kb / 1024)
}
