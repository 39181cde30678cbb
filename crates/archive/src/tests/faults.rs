//! A store that fails, before or after it has done what was requested: every row once, in order.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// A store that fails some of the writes and reads.
#[derive(Debug)]
struct Faulty {
    inner: InMemory,
    random: Mutex<StdRng>,
    /// Percentage of calls that fail.
    percent: Mutex<u32>,
}

impl Faulty {
    fn fails(&self) -> bool {
        let percent = *self.percent.lock();
        percent > 0 && self.random.lock().random_range(0..100) < percent
    }
}

fn fault<T>(when: &str) -> Result<T> {
    Err(Error::Generic { store: "Faulty", source: when.into() })
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, what: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if self.fails() {
            return fault("not written");
        }
        let done = self.inner.put_opts(at, what, opts).await?;
        if self.fails() { fault("written, and the answer was lost") } else { Ok(done) }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        if self.fails() { fault("not read") } else { self.inner.get_opts(at, options).await }
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        if self.fails() { fault("not read") } else { self.inner.get_ranges(at, ranges).await }
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(all)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// The results of one seed.
#[derive(Debug, Default)]
struct Done {
    faults: usize,
    appends: usize,
}

/// Appends, merges, vacuums and reopens at random; each error is followed by another attempt.
async fn live_through(seed: u64) -> Done {
    let mut random = StdRng::seed_from_u64(seed);
    let faulty = Arc::new(Faulty {
        inner: InMemory::new(),
        random: Mutex::new(StdRng::seed_from_u64(seed ^ 0x5eed)),
        percent: Mutex::new(random.random_range(1..15)),
    });
    let storage = memory(Arc::clone(&faulty) as Arc<dyn ObjectStore>);
    let options = ArchiveOptions { checkpoint_interval: 5, ..small() };
    let mut done = Done::default();
    let (mut table, mut end, mut txn) = (None, 0, 0);
    let mut steps = 0;
    while steps < 12 {
        let Some(open) = &table else {
            match ArchiveTable::open_with(storage.clone(), spec(), options.clone(), clock()).await {
                Ok(t) => table = Some(t),
                Err(_) => done.faults += 1,
            }
            continue;
        };
        steps += 1;
        let failed = match random.random_range(0..10) {
            0 => open.compact().await.is_err(),
            1 => open.vacuum(std::time::Duration::ZERO).await.is_err(),
            2 => {
                table = None;
                false
            }
            _ => {
                // Like the caller: after a restart it may not know that it was committed.
                let (from, to) = (end, end + random.random_range(1..60));
                match open.append(&[rows(from, to)], from, txn + 1, &Provenance::default()).await {
                    Ok(state) => {
                        // An append reported as failed may have been committed with other rows; the table says how
                        // many.
                        done.appends += 1;
                        (end, txn) = (state.rows, txn + 1);
                        false
                    }
                    Err(_) => true,
                }
            }
        };
        done.faults += usize::from(failed);
    }
    *faulty.percent.lock() = 0;
    drop(table);
    let table = open(&storage).await;
    let state = table.state();
    if state.rows != end {
        // The last append was reported as failed, and was not.
        assert_eq!(state.txn_version, Some(txn + 1), "seed {seed}");
    }
    let got = read(&table.snapshot(), 0, &[0, 1, 2]).await;
    assert_eq!(got, rows(0, state.rows), "seed {seed}");
    done
}

/// Runs all `seeds` when the long rounds are enabled (`WINDROW_LONG_TESTS`), otherwise a quarter of them.
async fn every_row_once_and_in_order(seeds: Range<u64>) {
    let long = std::env::var_os("WINDROW_LONG_TESTS").is_some_and(|v| !v.is_empty() && v != "0");
    let (all, first) = (seeds.end - seeds.start, seeds.start);
    let seeds = if long { seeds } else { first..first + all.div_ceil(4) };
    let least = |of_all: u64| of_all * (seeds.end - first) / all;
    let (faults_min, appends_min) = (least(100), least(500));
    let (mut faults, mut appends) = (0, 0);
    for seed in seeds {
        let done = live_through(seed).await;
        faults += done.faults;
        appends += done.appends;
    }
    assert!(
        faults as u64 > faults_min && appends as u64 > appends_min,
        "{faults} faults, {appends} appends"
    );
}

// In two halves, so that two processors are used.
#[tokio::test]
async fn every_row_once_and_in_order_first_half() {
    every_row_once_and_in_order(0..400).await;
}

#[tokio::test]
async fn every_row_once_and_in_order_second_half() {
    every_row_once_and_in_order(400..800).await;
}
