//! Simulates data directories (catalog, log, archive) of processes that start, fail and are succeeded by others, over
//! one object store whose requests fail and whose puts arrive late. A seed determines everything.
//!
//! What must hold: an acknowledged row is there once, at its offset; a refused one is there once or
//! not at all; the rows of one append stay together.

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use object_store::path::Path as Key;
use url::Url;
use windrow_core::{Clock, ErrorKind, Layout, ManualClock, Result};
use windrow_storage::objects::StoreThreads;
use windrow_storage::objects::faulty::FaultyStore;
use windrow_storage::place::Place;
use windrow_storage::trial::{Chance, Told, numbers, schema, seeds};
use windrow_storage::wal::Durability;

use super::definitions::Kind;
use super::store::Store;

const ROOT: &str = "s3://b/data";

fn clock() -> Arc<dyn Clock> {
    // Far ahead of the machine's: whatever is written now is old by it.
    Arc::new(ManualClock::at(32_503_680_000_000_000))
}

/// Counts of events, so that a simulation in which nothing happens is noticed.
#[derive(Debug, Default)]
struct Happened {
    acknowledged: usize,
    refused: usize,
    failed_requests: u64,
}

/// Opens a data directory. The `LOCK` of the previous process is deleted: its machine is gone, which this one cannot
/// know.
pub(super) fn data_directory(
    store: &FaultyStore,
    base: &FaultyStore,
    (threads, clock): (&Arc<StoreThreads>, Arc<dyn Clock>),
    accepts_lost_rows: bool,
) -> Result<Store> {
    let lock = base.clone();
    threads.handle().block_on(async move {
        // There may be none.
        drop(lock.delete(&Key::from("data/LOCK")).await);
    });
    let url = Url::parse(ROOT).unwrap();
    let place = Arc::new(store.clone());
    let threads = Arc::clone(threads);
    let place = Place::in_store(Path::new(ROOT), &url, place, threads, Arc::clone(&clock))?;
    Store::open_at(place, clock, accepts_lost_rows)
}

/// One life of a process with a stream that is appended to, archived and read.
async fn live(
    store: &Store,
    (told, created): (&mut Told, &mut bool),
    before: &[FaultyStore],
    (chance, seed): (&mut Chance, u64),
) -> Result<()> {
    let known = store.definitions().into_iter().find(|d| d.name == "s");
    assert!(known.is_some() || !*created, "seed {seed}: the stream is gone");
    let definition = match known {
        Some(known) => known,
        None => store.record("s", Kind::Stream, "CREATE STREAM s")?,
    };
    *created = true;
    let layout = Layout::new(schema(), vec![]);
    let (kept, wal) = store.open_stream(&definition, &layout, None, Durability::Fsync).await?;
    let found = numbers(&kept.log.contents().batches().await?);
    told.check(0, &found, seed);
    let spiller = kept.spiller(Arc::clone(&wal));
    for _ in 0..chance.below(8) {
        if chance.below(3) == 0 {
            // A failure is retried later, or by the next process.
            drop(spiller.spill().await);
        } else {
            told.append(&wal, chance);
        }
        // Requests that earlier processes had sent.
        for store in before.iter().filter(|_| chance.below(4) == 0) {
            store.arrive().await;
        }
    }
    Ok(())
}

fn directories(
    seed: u64,
    threads: &Arc<StoreThreads>,
    engine: &tokio::runtime::Runtime,
) -> Happened {
    let mut chance = Chance(seed);
    let base = FaultyStore::new(seed);
    let (mut told, mut created, mut happened) = (Told::default(), false, Happened::default());
    let mut before = vec![];
    for _ in 0..4 {
        let store = base.other(chance.below(u64::MAX));
        store.fail([0, 3, 15][chance.below(3) as usize]);
        if chance.below(2) == 0 {
            store.stop_after(Some(chance.below(80)));
        }
        let lived =
            data_directory(&store, &base, (threads, clock()), false).and_then(|directory| {
                let told = (&mut told, &mut created);
                engine.block_on(live(&directory, told, &before, (&mut chance, seed)))
            });
        if let Err(e) = lived {
            assert_eq!(e.kind(), ErrorKind::Unavailable, "seed {seed}: {e}");
            happened.refused += 1;
        }
        happened.failed_requests += store.failed();
        before.push(store);
    }
    let directory = data_directory(&base, &base, (threads, clock()), false).unwrap();
    let told_all = (&mut told, &mut created);
    let lived = engine.block_on(live(&directory, told_all, &before, (&mut chance, seed)));
    lived.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    happened.acknowledged = told.stored.len();
    happened
}

#[test]
fn a_data_directory_survives_a_store_that_fails() {
    let threads = StoreThreads::start().unwrap();
    let engine =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (mut acknowledged, mut refused, mut failed) = (0, 0, 0);
    let seeds = seeds(600);
    for seed in seeds.clone() {
        let happened = directories(seed, &threads, &engine);
        acknowledged += happened.acknowledged;
        refused += happened.refused;
        failed += happened.failed_requests;
    }
    let all = (acknowledged, refused, failed);
    let least = |of_all: u64| of_all * seeds.end / 600;
    assert!(
        acknowledged as u64 > least(3_000) && refused as u64 > least(150) && failed > least(600),
        "{all:?}"
    );
}
