//! What the archive costs: commits of a table that is compacted as it grows, and Bloom filters.
//!
//! `archive commits DIRECTORY [COUNT [RETENTION]]`, `archive blooms DIRECTORY`; see `benches/README.md`.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "measures the machine and prints figures"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use clap::{Parser, Subcommand};
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionContext, col, lit};
use windrow_archive::{ArchiveOptions, ArchiveTable, Provenance, Storage, TableSpec};
use windrow_core::offset::Gaps;
use windrow_core::{Error, Result, SystemClock};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Time of a commit while the table grows.
    Commits {
        /// Where; it must not be there.
        directory: PathBuf,
        #[arg(default_value_t = 10_000)]
        count: u64,
        /// For how many seconds replaced files and log entries stay. The engine keeps them for an hour, in which it
        /// commits 720 times.
        #[arg(default_value_t = 3_600)]
        retention: u64,
    },
    /// Size and point lookups with Bloom filters and without.
    Blooms {
        /// Where; it must not be there.
        directory: PathBuf,
    },
}

/// Files that are many, as the engine counts them.
const FILES_MANY: usize = 32;

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Commits { directory, count, retention } => {
            commits(&directory, count, Duration::from_secs(retention)).await
        }
        What::Blooms { directory } => blooms(&directory).await,
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("window_end", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("user_id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
    ]))
}

/// A number out of another (SplitMix64).
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Window `window` of a view with `rows` rows per window, over `keys` users.
fn window(window: u64, rows: u64, keys: u64) -> Result<RecordBatch> {
    let end = i64::try_from(window).unwrap_or(0) * 10_000_000;
    let mut users: Vec<i64> =
        (0..rows).map(|row| i64::try_from(mix(window * rows + row) % keys).unwrap_or(0)).collect();
    users.sort_unstable();
    let name = |user: &i64| format!("user-{:016x}", mix(user.unsigned_abs()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(users.iter().map(|_| end))),
        Arc::new(Int64Array::from_iter_values(users.iter().copied())),
        Arc::new(StringArray::from_iter_values(users.iter().map(name))),
        Arc::new(Int64Array::from_iter_values(users.iter().map(|user| user % 17))),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

async fn open(directory: &Path, options: ArchiveOptions) -> Result<ArchiveTable> {
    let spec = TableSpec {
        name: "v".into(),
        schema: schema(),
        event_time: Some(0),
        engine_version: "bench".into(),
        fingerprint: "bench".into(),
        owner: None,
        gaps: Gaps::default(),
        added: vec![],
    };
    let sleeper = |duration| -> futures::future::BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    };
    let clock = Arc::new(SystemClock::new(sleeper));
    ArchiveTable::open_with(Storage::local(directory)?, spec, options, clock).await
}

async fn commits(directory: &Path, count: u64, retention: Duration) -> Result<()> {
    let options = ArchiveOptions { log_retention: retention, ..ArchiveOptions::default() };
    let table = open(directory, options.clone()).await?;
    let mut times: Vec<Duration> = vec![];
    let (mut tidied, mut tidy) = (0, Duration::ZERO);
    println!("commits | p50 ms | p99 ms | max ms | tidied | ms per tidying | live files");
    for commit in 1..=count {
        let rows = window(commit, 1_000, 1_000_000)?;
        let started = Instant::now();
        let (first, version) = ((commit - 1) * 1_000, i64::try_from(commit).unwrap_or(i64::MAX));
        table.append(&[rows], first, version, &Provenance::default()).await?;
        times.push(started.elapsed());
        if table.state().files >= FILES_MANY {
            let started = Instant::now();
            table.compact().await?;
            table.vacuum(retention).await?;
            tidied += 1;
            tidy += started.elapsed();
        }
        if commit % 1_000 == 0 {
            times.sort_unstable();
            let at = |part: usize| {
                let at = (times.len() * part / 100).min(times.len() - 1);
                times.get(at).map_or(0.0, |t| t.as_secs_f64() * 1e3)
            };
            println!(
                "{commit} | {:.1} | {:.1} | {:.1} | {tidied} | {:.1} | {}",
                at(50),
                at(99),
                at(100),
                tidy.as_secs_f64() * 1e3 / f64::from(tidied.max(1)),
                table.state().files
            );
            times.clear();
            (tidied, tidy) = (0, Duration::ZERO);
        }
    }
    drop(table);
    let started = Instant::now();
    let table = open(directory, options).await?;
    println!(
        "opened again in {:.1} ms: {:?}",
        started.elapsed().as_secs_f64() * 1e3,
        table.state()
    );
    Ok(())
}

async fn blooms(directory: &Path) -> Result<()> {
    println!("keys | filters | MB | write s | lookup | rows read | ms");
    for keys in [10_000, 1_000_000, 100_000_000] {
        for bloom_filters in [false, true] {
            let options = ArchiveOptions { bloom_filters, ..ArchiveOptions::default() };
            let place = directory.join(format!("{keys}-{bloom_filters}"));
            let table = open(&place, options).await?;
            let started = Instant::now();
            // 5 M rows: 50 commits of ten windows.
            for commit in 0..50 {
                let windows: Vec<RecordBatch> = (commit * 10..commit * 10 + 10)
                    .map(|number| window(number, 10_000, keys))
                    .collect::<Result<_>>()?;
                let version = i64::try_from(commit).unwrap_or(0);
                table.append(&windows, commit * 100_000, version, &Provenance::default()).await?;
            }
            while table.compact().await? {}
            let took = started.elapsed().as_secs_f64();
            let mb = table.state().bytes as f64 / 1e6;
            let user = i64::try_from(mix(4_321) % keys).unwrap_or(0);
            let nobody = i64::try_from(keys / 2).unwrap_or(0);
            for (what, filter) in [
                ("user_id = …", col("user_id").eq(lit(user))),
                (
                    "name = '…'",
                    col("name").eq(lit(format!("user-{:016x}", mix(user.unsigned_abs())))),
                ),
                ("user_id = … (another)", col("user_id").eq(lit(nobody))),
            ] {
                let (mut best, mut rows) = (f64::MAX, 0);
                for _ in 0..5 {
                    let context = SessionContext::new();
                    let started = Instant::now();
                    let plan = table
                        .snapshot()
                        .scan(&context.state(), None, std::slice::from_ref(&filter), None)
                        .await
                        .map_err(|e| Error::internal(e.to_string()))?;
                    let read = collect(plan, context.task_ctx()).await;
                    let read = read.map_err(|e| Error::internal(e.to_string()))?;
                    rows = read.iter().map(RecordBatch::num_rows).sum();
                    best = best.min(started.elapsed().as_secs_f64() * 1e3);
                }
                println!(
                    "{keys} | {bloom_filters} | {mb:.1} | {took:.1} | {what} | {rows} | {best:.1}"
                );
            }
        }
    }
    Ok(())
}
