//! Processes that come, fail and are followed by others over one object store whose requests fail,
//! whose puts come late and whose listings are behind; everything from a seed.
//!
//! The first simulation has logs alone. With some seeds a process that was followed has seen its
//! lease run out, and only what it had sent comes late; with the others it goes on to write, and is
//! stopped by what its follower has put behind the end of the log (as long as that is there: it
//! goes with a segment that is deleted). The second has a whole data directory: catalog, log,
//! archive.
//!
//! What must hold: an acknowledged row is there once, at its offset; a refused one is there once or
//! not at all; the rows of one append stay together.

use std::collections::BTreeSet;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use url::Url;
use windrow_core::{ErrorKind, ManualClock};

use super::faulty::FaultyStore;
use super::*;
use crate::durable::definitions::Kind;
use crate::durable::faults::{Chance, seeds};
use crate::durable::place::Place;
use crate::durable::store::Store;
use crate::durable::wal::{Durability, Known, Recovered, Wal, WalOptions};

const ROOT: &str = "s3://b/data";

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn batch(numbers: &[i64]) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
    RecordBatch::try_new(schema(), vec![column]).unwrap()
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn clock() -> Arc<dyn Clock> {
    // Far ahead of the machine's: whatever is written now is old by it.
    Arc::new(ManualClock::at(32_503_680_000_000_000))
}

/// What was said to those who append.
#[derive(Debug, Default)]
struct Told {
    /// Offset and number of acknowledged rows.
    stored: Vec<(u64, i64)>,
    /// The next number; those of one append share what is before the last two digits.
    next: i64,
}

impl Told {
    /// The rows of the next append.
    fn rows(&mut self, chance: &mut Chance) -> Vec<i64> {
        self.next += 100;
        (self.next..).take(1 + chance.below(3) as usize).collect()
    }

    fn append(&mut self, wal: &Wal, chance: &mut Chance) -> bool {
        let rows = self.rows(chance);
        let answer = wal.append_blocking(batch(&rows));
        if let Ok(first) = &answer {
            self.stored.extend((*first..).zip(rows));
        }
        answer.is_ok()
    }

    /// Compares all rows, from offset `first` on, with what was told.
    fn check(&self, first: u64, found: &[i64], seed: u64) {
        let different: BTreeSet<_> = found.iter().collect();
        assert_eq!(different.len(), found.len(), "seed {seed}: a row is there twice: {found:?}");
        for (offset, n) in self.stored.iter().filter(|(offset, _)| *offset >= first) {
            let at = found.get((*offset - first) as usize);
            assert_eq!(at, Some(n), "seed {seed}, offset {offset}: {found:?}");
        }
        for pair in found.windows(2) {
            let together = pair[0] / 100 == pair[1] / 100;
            assert!(!together || pair[1] == pair[0] + 1, "seed {seed}: {found:?}");
        }
    }
}

/// Counts of what happened, so that a simulation in which nothing does is seen.
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

/// A process that was followed.
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

/// A few processes, one after the other; the one before may go on to write for a while.
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
            // Of a store that fails no log can be opened; damage it never is.
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "seed {seed}: {e}"),
        }
        for _ in 0..6 {
            if let Some(wal) = &wal {
                let done = told.append(wal, &mut chance);
                *(if done { &mut happened.acknowledged } else { &mut happened.refused }) += 1;
            }
            if chance.below(4) == 0 {
                // The ones before do not know that they were followed.
                for Followed { store, wal, .. } in &followed {
                    told.append(wal, &mut chance);
                    threads.handle().block_on(store.arrive());
                }
            }
        }
        if let Some(wal) = wal {
            if leased && chance.below(3) == 0 && life < 3 {
                archived = wal.end() - chance.below(wal.end() - archived + 1);
                // The process may be gone.
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

/// Opens a data directory. What the process before left in `LOCK` does not count: its machine is
/// gone, which this one cannot know.
pub(super) fn data_directory(
    store: &FaultyStore,
    base: &FaultyStore,
    (threads, clock): (&Arc<Threads>, Arc<dyn Clock>),
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
    let (kept, wal) = store.open_stream(&definition, &schema(), None, Durability::Fsync).await?;
    let found = numbers(&kept.log.contents().batches().await?);
    told.check(0, &found, seed);
    let spiller = kept.spiller(Arc::clone(&wal));
    for _ in 0..chance.below(8) {
        if chance.below(3) == 0 {
            // What fails is tried again, or by the next process.
            drop(spiller.spill().await);
        } else {
            told.append(&wal, chance);
        }
        // What the processes before had sent.
        for store in before.iter().filter(|_| chance.below(4) == 0) {
            store.arrive().await;
        }
    }
    Ok(())
}

fn directories(seed: u64, threads: &Arc<Threads>, engine: &tokio::runtime::Runtime) -> Happened {
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
    let threads = Threads::start().unwrap();
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
