//! Simulates whole engines that are opened, killed and succeeded by others, over one object store whose requests fail
//! and whose puts arrive late, under a clock that the test moves. A seed determines the faults.
//!
//! An engine that is killed makes no further request, but requests that it has sent may still arrive while its
//! successor runs. What must hold in the end: an object that was created exists; each acknowledged row is there once, a
//! refused INSERT is there wholly or not at all; a view has each window that has ended exactly once, equal to the
//! bounded query; the ledger balances.
//!
//! The order in which threads run is not controlled, so a seed reproduces faults only where it does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, Schema, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use windrow_core::{Clock, Error, ErrorKind, Limits, ManualClock, Result};
use windrow_storage::objects::StoreThreads;
use windrow_storage::objects::faulty::FaultyStore;
use windrow_storage::trial::{Chance, seeds};

use super::simulation::data_directory;
use crate::instance::program_functions::ProgramFunctions;
use crate::{Engine, Outcome, Session, SessionOptions};

const STREAM: &str =
    "CREATE STREAM IF NOT EXISTS s (n BIGINT NOT NULL, at TIMESTAMP(6), WATERMARK FOR at)";

/// Ticks of the clock that any work may take: 10 minutes of its time.
const TICKS_MAX: usize = 30_000;

/// The views: name and query.
const VIEWS: [(&str, &str); 3] = [
    (
        "tumbling",
        "SELECT window_start, window_end, n % 3 AS k, count(*) AS c, sum(n) AS t, window_time \
         FROM TUMBLE(s, at, INTERVAL '5 seconds') GROUP BY window_start, window_end, window_time, k",
    ),
    (
        "hopping",
        "SELECT window_start, window_end, 0 AS k, count(*) AS c, sum(n) AS t \
         FROM HOP(s, at, INTERVAL '2 seconds', INTERVAL '6 seconds') GROUP BY window_start, window_end",
    ),
    (
        "deeper",
        "SELECT window_start, window_end, max(k) AS k, sum(c) AS c, sum(t) AS t \
         FROM TUMBLE(tumbling, window_time, INTERVAL '10 seconds') GROUP BY window_start, window_end",
    ),
];

/// A record of what clients were told.
#[derive(Debug, Default)]
struct Told {
    /// The number of the next row, which is its second too.
    next: i64,
    /// Acknowledged rows.
    stored: BTreeSet<i64>,
    /// The rows of each refused INSERT.
    refused: Vec<Vec<i64>>,
    /// Objects that were created.
    made: BTreeSet<&'static str>,
}

/// Counts of events, so that a simulation in which nothing happens is noticed.
#[derive(Debug, Default)]
struct Happened {
    acknowledged: usize,
    refused: usize,
    failed_requests: u64,
    kills: usize,
    resumed: usize,
}

/// The parts that all seeds share.
struct World {
    threads: Arc<StoreThreads>,
    client: tokio::runtime::Runtime,
    clock: ManualClock,
}

impl World {
    /// Runs `work` to its end; the clock advances while it waits.
    fn drive<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let ticks = async {
            for _ in 0..TICKS_MAX {
                self.clock.advance(Duration::from_millis(20));
                tokio::task::yield_now().await;
                // Gives the processor to the engine's threads.
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        self.client.block_on(async {
            tokio::select! {
                biased;
                done = work => done,
                () = ticks => panic!("{what} does not end"),
            }
        })
    }

    /// Runs a statement; returns its rows.
    fn ask(&self, session: &Session, sql: &str) -> Result<Vec<RecordBatch>> {
        self.drive(sql, async {
            match session.run(sql).await? {
                Outcome::Rows(rows) => rows.try_collect().await,
                Outcome::Done(_) => Ok(vec![]),
            }
        })
    }

    fn engine(
        &self,
        store: &FaultyStore,
        base: &FaultyStore,
        chance: &mut Chance,
    ) -> Result<Engine> {
        self.engine_with(store, base, chance, false)
    }

    fn engine_with(
        &self,
        store: &FaultyStore,
        base: &FaultyStore,
        chance: &mut Chance,
        accepts_lost_rows: bool,
    ) -> Result<Engine> {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let directory = (&self.threads, Arc::clone(&clock));
        let store = data_directory(store, base, directory, accepts_lost_rows)?;
        let limits = Limits {
            threads: 1 + chance.below(2) as usize,
            batch_rows_max: 4,
            tail_rows_max: 1 + chance.below(20),
            spill_interval: Duration::from_millis(100 * (1 + chance.below(10))),
            checkpoint_interval: Duration::from_millis(100 * (1 + chance.below(10))),
            archive_wait: Duration::from_secs(2),
            ..Limits::default()
        };
        let given = (limits, windrow_connectors::Files::nowhere(), ProgramFunctions::default());
        Engine::open_with(given, clock, Some(store), (None, None, false))
    }
}

/// Checks that an error is one of a failing store.
fn allowed(error: &Error, seed: u64) {
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled),
        "seed {seed}: {:?} {error}: {:?}",
        error.kind(),
        std::error::Error::source(error)
    );
}

fn rows(numbers: &[i64]) -> Result<RecordBatch> {
    let micros: Vec<i64> = numbers.iter().map(|n| n * 1_000_000).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(numbers.to_vec())),
        Arc::new(TimestampMicrosecondArray::from(micros)),
    ];
    let fields = vec![
        arrow::datatypes::Field::new("n", arrow::datatypes::DataType::Int64, false),
        arrow::datatypes::Field::new("at", columns[1].data_type().clone(), true),
    ];
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Simulates one life of an engine, and records everything that was acknowledged.
fn live(
    world: &World,
    engine: &Engine,
    before: &[FaultyStore],
    told: &mut Told,
    (chance, seed): (&mut Chance, u64),
) -> Result<()> {
    let session = engine.session(SessionOptions::default())?;
    let mut make = |name: &'static str, sql: &str| match world.ask(&session, sql) {
        Ok(_) => {
            told.made.insert(name);
            true
        }
        Err(error) => {
            allowed(&error, seed);
            false
        }
    };
    if !make("s", STREAM) {
        return Ok(());
    }
    for (name, query) in VIEWS {
        // A view needs its input.
        if name == "deeper" && !engine.names().iter().any(|n| n == "tumbling") {
            continue;
        }
        make(name, &format!("CREATE MATERIALIZED VIEW IF NOT EXISTS {name} AS {query}"));
    }
    for _ in 0..chance.below(12) {
        match chance.below(5) {
            0 => world.clock.advance(Duration::from_millis(chance.below(2_000))),
            1 => {
                for store in before.iter().filter(|_| chance.below(3) == 0) {
                    world.client.block_on(store.arrive());
                }
            }
            _ => {
                let numbers: Vec<i64> = (told.next..).take(1 + chance.below(6) as usize).collect();
                told.next += numbers.len() as i64;
                let batch = rows(&numbers)?;
                match world.drive("a push", push(engine.clone(), batch)) {
                    Ok(()) => told.stored.extend(numbers),
                    Err(error) => {
                        allowed(&error, seed);
                        told.refused.push(numbers);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Appends rows, on a thread of its own, because the caller moves the clock.
async fn push(engine: Engine, rows: RecordBatch) -> Result<()> {
    let pushed = tokio::task::spawn_blocking(move || engine.push("s", &rows)).await;
    pushed.map_err(|e| Error::internal(e.to_string()))?.map(|_| ())
}

type Window = (i64, i64, i64, i64, i64);

/// Window bounds (µs), key, count, total; sorted.
fn windows(batches: &[RecordBatch]) -> Vec<Window> {
    let mut all = vec![];
    for batch in batches {
        let time =
            |i: usize| batch.column(i).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let number = |i: usize| {
            let numbers = arrow::compute::cast(batch.column(i), &arrow::datatypes::DataType::Int64);
            numbers.unwrap().as_primitive::<Int64Type>().values().to_vec()
        };
        let (starts, ends, keys, counts, totals) =
            (time(0), time(1), number(2), number(3), number(4));
        all.extend(
            (0..batch.num_rows()).map(|i| (starts[i], ends[i], keys[i], counts[i], totals[i])),
        );
    }
    all.sort_unstable();
    all
}

/// Checks that everything is there, once.
fn check(world: &World, engine: &Engine, told: &Told, seed: u64) {
    let session = engine.session(SessionOptions::default()).unwrap();
    let ask =
        |sql: &str| world.ask(&session, sql).unwrap_or_else(|e| panic!("seed {seed}: {sql}: {e}"));
    if !told.made.contains("s") {
        assert!(told.stored.is_empty());
        return;
    }
    let found: Vec<i64> = ask("SELECT n FROM s")
        .iter()
        .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    let mut times = BTreeMap::new();
    found.iter().for_each(|n| *times.entry(*n).or_insert(0) += 1);
    assert!(
        times.values().all(|times| *times == 1),
        "seed {seed}: a row is there twice: {found:?}"
    );
    let lost: Vec<_> = told.stored.iter().filter(|n| !times.contains_key(n)).collect();
    assert!(lost.is_empty(), "seed {seed}: rows {lost:?} were lost of {found:?}");
    for rows in &told.refused {
        let there = rows.iter().filter(|n| times.contains_key(n)).count();
        assert!(there == 0 || there == rows.len(), "seed {seed}: half of {rows:?}: {found:?}");
    }
    let names = engine.names();
    for (name, query) in VIEWS {
        if !told.made.contains(name) {
            continue;
        }
        assert!(names.iter().any(|n| n == name), "seed {seed}: \"{name}\" is gone");
        ask(&format!("WAIT FOR {name}"));
        let view = windows(&ask(&format!("SELECT * FROM {name}")));
        let truth = windows(&ask(query));
        // Windows have ended that the stream's time has passed; for a deeper view, that of the windows that it reads.
        let now = found.iter().max().map_or(-1, |n| n * 1_000_000);
        let ended = |now: i64| truth.iter().filter(|w| w.1 <= now).copied().collect::<Vec<_>>();
        let now = if name == "deeper" { now.div_euclid(5_000_000) * 5_000_000 } else { now };
        assert_eq!(view, ended(now), "seed {seed}: view {name}, rows {found:?}");
    }
    let unbalanced = ask("SELECT * FROM windrow.ledger WHERE NOT balanced");
    assert_eq!(unbalanced.iter().map(RecordBatch::num_rows).sum::<usize>(), 0, "seed {seed}");
}

fn lives(world: &World, seed: u64) -> Happened {
    let mut chance = Chance(seed);
    let base = FaultyStore::new(seed);
    let (mut told, mut happened) = (Told::default(), Happened::default());
    let mut before: Vec<FaultyStore> = vec![];
    for _ in 0..2 + chance.below(3) {
        let store = base.other(chance.below(u64::MAX));
        store.fail([0, 2, 10][chance.below(3) as usize]);
        if chance.below(2) == 0 {
            store.stop_after(Some(chance.below(300)));
        }
        match world.engine(&store, &base, &mut chance) {
            Ok(engine) => {
                happened.resumed += engine.recovery().resumed;
                if let Err(error) = live(world, &engine, &before, &mut told, (&mut chance, seed)) {
                    allowed(&error, seed);
                }
                if chance.below(3) == 0 {
                    // Windows that cannot be archived now are recomputed.
                    drop(world.drive("closing", engine.close()));
                } else {
                    store.stop_after(Some(0));
                    engine.shutdown();
                    happened.kills += 1;
                }
            }
            Err(error) => allowed(&error, seed),
        }
        store.stop_after(Some(0));
        happened.failed_requests += store.failed();
        before.push(store);
    }
    let mut open = || world.engine(&base, &base, &mut chance);
    let engine = open().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    for store in &before {
        world.client.block_on(store.arrive());
    }
    check(world, &engine, &told, seed);
    world.drive("closing", engine.close()).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let engine = open().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    check(world, &engine, &told, seed);
    engine.shutdown();
    happened.acknowledged = told.stored.len();
    happened.refused = told.refused.len();
    happened
}

/// Deletes objects from the end of the stream's log, or all.
fn lose_the_end(world: &World, base: &FaultyStore, chance: &mut Chance) {
    world.client.block_on(async {
        let all: Vec<_> = base.list(None).try_collect().await.unwrap();
        let mut log: Vec<_> = all.into_iter().map(|object| object.location).collect();
        log.retain(|path| path.as_ref().contains("streams/s/log/"));
        log.sort();
        let lost = 1 + chance.below(log.len() as u64) as usize;
        for path in log.iter().rev().take(lost) {
            base.delete(path).await.unwrap();
        }
    });
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let column = |b: &RecordBatch| b.column(0).as_primitive::<Int64Type>().values().to_vec();
    batches.iter().flat_map(column).collect()
}

/// Checks that a log that has lost its end is reported, whatever is archived, and that all new rows are counted once
/// the loss is accepted. Returns whether it had to be accepted.
fn loses(world: &World, seed: u64) -> bool {
    let mut chance = Chance(seed);
    let base = FaultyStore::new(seed);
    let mut told = Told::default();
    for _ in 0..1 + chance.below(2) {
        let engine = world.engine(&base, &base, &mut chance).unwrap();
        live(world, &engine, &[], &mut told, (&mut chance, seed)).unwrap();
        world.drive("closing", engine.close()).unwrap();
    }
    lose_the_end(world, &base, &mut chance);
    let rows_of = |engine: &Engine| {
        let session = engine.session(SessionOptions::default()).unwrap();
        world.ask(&session, "SELECT n FROM s").map(|batches| numbers(&batches))
    };
    let engine = world.engine(&base, &base, &mut chance).unwrap();
    let is_lost = match rows_of(&engine) {
        Ok(found) => {
            let found: BTreeSet<_> = found.into_iter().collect();
            assert!(
                told.stored.is_subset(&found),
                "seed {seed}: rows are lost and nothing is said"
            );
            false
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "seed {seed}: {error}");
            let told = ["has lost its end", "\" is missing"];
            assert!(told.iter().any(|told| error.message().contains(told)), "seed {seed}: {error}");
            true
        }
    };
    engine.shutdown();
    let engine = world.engine_with(&base, &base, &mut chance, true).unwrap();
    let before = rows_of(&engine).unwrap();
    // After all windows that have an old row.
    told.next += 30 - told.next % 30 + 30;
    let first = told.next;
    for _ in 0..10 {
        let new: Vec<i64> = (told.next..told.next + 3).collect();
        told.next += 3;
        world.drive("a push", push(engine.clone(), rows(&new).unwrap())).unwrap();
    }
    world.drive("closing", engine.close()).unwrap();
    let engine = world.engine(&base, &base, &mut chance).unwrap();
    let found = rows_of(&engine).unwrap();
    let expected: BTreeSet<_> = before.into_iter().chain(first..told.next).collect();
    assert_eq!(found.len(), expected.len(), "seed {seed}");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected, "seed {seed}");
    let session = engine.session(SessionOptions::default()).unwrap();
    let ask =
        |sql: &str| world.ask(&session, sql).unwrap_or_else(|e| panic!("seed {seed}: {sql}: {e}"));
    for (name, query) in VIEWS {
        ask(&format!("WAIT FOR {name}"));
        let new = |windows: Vec<Window>| {
            let ended = (told.next - 1).div_euclid(10) * 10_000_000;
            let new = |w: &Window| w.0 >= first * 1_000_000 && w.1 <= ended;
            windows.into_iter().filter(new).collect::<Vec<_>>()
        };
        let (view, truth) = (ask(&format!("SELECT * FROM {name}")), ask(query));
        let (view, truth) = (new(windows(&view)), new(windows(&truth)));
        assert!(!truth.is_empty(), "seed {seed}: nothing is tested");
        assert_eq!(view, truth, "seed {seed}: view {name}");
    }
    engine.shutdown();
    is_lost
}

#[test]
fn no_reader_swallows_rows_when_a_log_has_lost_its_end() {
    let world = World {
        threads: StoreThreads::start().unwrap(),
        client: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        clock: ManualClock::at(1_800_000_000_000_000),
    };
    let seeds = seeds(60);
    let lost = seeds.clone().filter(|seed| loses(&world, *seed)).count() as u64;
    assert!(lost * 4 > seeds.end, "{lost} losses test nothing");
}

/// `WINDROW_SEEDS=2000` tries more seeds than the long rounds do.
#[test]
fn an_engine_survives_kills_and_a_store_that_fails() {
    let world = World {
        threads: StoreThreads::start().unwrap(),
        client: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        clock: ManualClock::at(1_800_000_000_000_000),
    };
    let wanted = std::env::var("WINDROW_SEEDS").ok().and_then(|s| s.parse().ok());
    let seeds = wanted.map_or_else(|| seeds(100), |wanted: u64| 0..wanted);
    let mut all = Happened::default();
    for seed in seeds.clone() {
        let happened = lives(&world, seed);
        all.acknowledged += happened.acknowledged;
        all.refused += happened.refused;
        all.failed_requests += happened.failed_requests;
        all.kills += happened.kills;
        all.resumed += happened.resumed;
    }
    let least = |of_a_hundred: u64| of_a_hundred * seeds.end / 100;
    assert!(
        all.acknowledged as u64 > least(300)
            && all.refused as u64 > least(10)
            && all.failed_requests > least(50)
            && all.kills as u64 > least(50),
        "{all:?}"
    );
}
