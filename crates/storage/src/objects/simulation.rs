//! Simulates processes that open logs, fail and are succeeded by others, over one object store whose requests fail,
//! whose puts arrive late and whose listings are behind. A seed determines everything.
//!
//! With some seeds a process that was succeeded has seen its lease expire, and only what it had sent arrives late; with
//! the others it continues to write, and is stopped by what its successor has put behind the end of the log (as long as
//! that exists: it is removed with a segment that is deleted). Whole data directories are tested in the same way in the
//! crate that creates them, above.
//!
//! What must hold: an acknowledged row is there once, at its offset; a refused one is there once or not at all; the
//! rows of one append stay together.

use windrow_core::{ErrorKind, ManualClock};

use super::faulty::FaultyStore;
use super::*;
use crate::trial::{Chance, Told, numbers, schema, seeds};
use crate::wal::{Known, Recovered, Wal, WalOptions};

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
    followed: usize,
}

fn files(store: &FaultyStore, threads: &Arc<Threads>) -> Arc<ObjectFiles> {
    let root = (Path::new(ROOT), Key::from("data"));
    let store = Arc::new(store.clone());
    Arc::new(ObjectFiles::new(store, root, Arc::clone(threads), clock()).without_lease())
}

/// A process that was succeeded.
struct Followed {
    store: FaultyStore,
    files: Arc<ObjectFiles>,
    wal: Wal,
}

fn open(files: Arc<ObjectFiles>, from: u64, records: u64) -> Result<(Wal, Recovered)> {
    let options = WalOptions { segment_records_max: records, ..WalOptions::default() };
    let dir = Path::new(ROOT).join("log");
    Wal::open(files, &dir, &schema(), (from, &Known::default()), (options, Box::new(|_, _| {})))
}

/// Runs a few processes, one after the other; the previous one may continue to write for a while.
fn logs(seed: u64, threads: &Arc<Threads>) -> Happened {
    let mut chance = Chance(seed);
    let base = FaultyStore::new(seed);
    let (mut told, mut happened, mut archived) = (Told::default(), Happened::default(), 0);
    let mut followed: Vec<Followed> = vec![];
    let leased = chance.below(2) == 0;
    for life in 0..4 {
        if leased {
            followed.iter().for_each(|process| process.files.held.run_out());
        }
        let store = base.other(chance.below(u64::MAX));
        store.hide(chance.below(2) == 0);
        store.fail([0, 5, 25][chance.below(3) as usize]);
        if chance.below(3) == 0 {
            store.stop_after(Some(chance.below(60)));
        }
        let records = 1 + chance.below(5);
        let files = files(&store, threads);
        let mut wal = None;
        match open(Arc::clone(&files), archived, records) {
            Ok((opened, recovered)) => {
                let batches: Vec<_> = recovered.batches.into_iter().map(|(_, b)| b).collect();
                told.check(archived, &numbers(&batches), seed);
                wal = Some(opened);
            }
            // No log can be opened on a store that fails; but it is never damaged.
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "seed {seed}: {e}"),
        }
        for _ in 0..6 {
            if let Some(wal) = &wal {
                let done = told.append(wal, &mut chance);
                *(if done { &mut happened.acknowledged } else { &mut happened.refused }) += 1;
            }
            if chance.below(4) == 0 {
                // The previous ones do not know that they were succeeded.
                for Followed { store, wal, .. } in &followed {
                    told.append(wal, &mut chance);
                    threads.handle().block_on(store.arrive());
                }
            }
        }
        if let Some(wal) = wal {
            if leased && chance.below(3) == 0 && life < 3 {
                archived = wal.end() - chance.below(wal.end() - archived + 1);
                // The process may have died.
                drop(wal.delete_below(archived));
            }
            happened.followed += 1;
            followed.push(Followed { store, files, wal });
        }
    }
    for Followed { store, wal, .. } in followed {
        happened.failed_requests += store.failed();
        drop(wal);
        threads.handle().block_on(store.arrive());
    }
    let (_, recovered) =
        open(files(&base, threads), archived, 9).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    let batches: Vec<_> = recovered.batches.into_iter().map(|(_, b)| b).collect();
    told.check(archived, &numbers(&batches), seed);
    happened
}

#[test]
fn no_follower_and_no_fault_loses_an_acknowledged_row() {
    let threads = Threads::start().unwrap();
    let (mut acknowledged, mut refused, mut failed, mut followed) = (0, 0, 0, 0);
    let seeds = seeds(2_000);
    for seed in seeds.clone() {
        let happened = logs(seed, &threads);
        acknowledged += happened.acknowledged;
        refused += happened.refused;
        failed += happened.failed_requests;
        followed += happened.followed;
    }
    let all = (acknowledged, refused, failed, followed);
    let least = |of_all: u64| of_all * seeds.end / 2_000;
    assert!(
        acknowledged as u64 > least(5_000)
            && refused as u64 > least(1_000)
            && failed > least(1_000)
            && followed as u64 > least(3_000),
        "{all:?}"
    );
}
