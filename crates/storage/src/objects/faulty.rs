//! An object store for tests: in memory, with requests that fail before or after they were done, puts that arrive late,
//! and listings that do not show the newest objects yet.
//!
//! Invariant: the same seed produces the same faults, as long as requests come in the same order.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use crate::trial::Chance;

/// The contents of the store, and how it fails; clones share it.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<InMemory>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug)]
struct Faults {
    chance: Chance,
    /// Percentage of requests that fail.
    percent: u64,
    /// Requests until the process that makes them dies: all later ones fail.
    stop_after: Option<u64>,
    /// Puts whose response was lost, and which have not arrived yet.
    late: Vec<(Key, Bytes, PutOptions)>,
    /// Objects that listings do not show yet.
    hidden: BTreeSet<Key>,
    /// Whether listings show new objects late. (S3 shows them at once since 2020; others may not.)
    hides: bool,
    failed: u64,
}

impl FaultyStore {
    /// Returns an empty store that does not fail yet; its later faults depend on `seed`.
    pub fn new(seed: u64) -> Self {
        let faults = Faults {
            chance: Chance(seed),
            percent: 0,
            stop_after: None,
            late: vec![],
            hidden: BTreeSet::new(),
            hides: false,
            failed: 0,
        };
        Self { inner: Arc::new(InMemory::new()), faults: Arc::new(Mutex::new(faults)) }
    }

    /// Makes `percent` of the requests fail from now on.
    pub fn fail(&self, percent: u64) {
        self.faults.lock().percent = percent;
    }

    /// Makes the process die after this many more requests.
    pub fn stop_after(&self, requests: Option<u64>) {
        self.faults.lock().stop_after = requests;
    }

    /// Makes listings show new objects late.
    pub fn hide(&self, hides: bool) {
        let mut faults = self.faults.lock();
        faults.hides = hides;
        faults.hidden.clear();
    }

    /// The number of failed requests.
    pub fn failed(&self) -> u64 {
        self.faults.lock().failed
    }

    /// Returns another process's view of the store: the same objects, its own faults.
    pub fn other(&self, seed: u64) -> Self {
        Self { inner: Arc::clone(&self.inner), ..Self::new(seed) }
    }

    /// Delivers the puts that were sent.
    pub async fn arrive(&self) {
        let late = std::mem::take(&mut self.faults.lock().late);
        for (key, bytes, options) in late {
            // The sender is not informed any more.
            drop(self.inner.put_opts(&key, bytes.into(), options).await);
        }
    }

    /// Decides what happens to a request.
    fn fate(&self) -> Fate {
        let mut faults = self.faults.lock();
        if let Some(left) = &mut faults.stop_after {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => return Fate::Lost,
            }
        }
        let percent = faults.percent;
        if faults.chance.below(100) >= percent {
            return Fate::Done;
        }
        faults.failed += 1;
        match faults.chance.below(3) {
            0 => Fate::Lost,
            1 => Fate::AnswerLost,
            _ => Fate::Late,
        }
    }

    /// Whether a listing shows an object: each listing shows a few more of the new ones.
    fn shows(&self, key: &Key) -> bool {
        let mut faults = self.faults.lock();
        if !faults.hidden.contains(key) {
            return true;
        }
        let shows = faults.chance.below(3) == 0;
        if shows {
            faults.hidden.remove(key);
        }
        shows
    }
}

enum Fate {
    Done,
    /// It was never done.
    Lost,
    /// It was done, and the response was lost.
    AnswerLost,
    /// It will be done when it is no longer expected.
    Late,
}

fn fault<T>(when: &str) -> Result<T> {
    Err(Error::Generic { store: "Faulty", source: when.into() })
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, at: &Key, what: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match self.fate() {
            Fate::Lost => fault("not written"),
            Fate::Late => {
                self.faults.lock().late.push((at.clone(), what.into(), opts));
                fault("no answer")
            }
            fate => {
                let done = self.inner.put_opts(at, what, opts).await?;
                let mut faults = self.faults.lock();
                if faults.hides {
                    faults.hidden.insert(at.clone());
                }
                if matches!(fate, Fate::Done) { Ok(done) } else { fault("the answer was lost") }
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Key,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Key, options: GetOptions) -> Result<GetResult> {
        match self.fate() {
            Fate::Done => self.inner.get_opts(at, options).await,
            _ => fault("not read"),
        }
    }

    async fn get_ranges(&self, at: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.fate() {
            Fate::Done => self.inner.get_ranges(at, ranges).await,
            _ => fault("not read"),
        }
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        match self.fate() {
            Fate::Done => self.inner.delete_stream(all),
            _ => futures::stream::once(async { fault("not deleted") }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fate() {
            Fate::Done => {
                let store = self.clone();
                let shown =
                    move |meta: &ObjectMeta| futures::future::ready(store.shows(&meta.location));
                self.inner.list(prefix).try_filter(shown).boxed()
            }
            _ => futures::stream::once(async { fault("not listed") }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        match self.fate() {
            Fate::Done => self.inner.list_with_delimiter(prefix).await,
            _ => fault("not listed"),
        }
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        match self.fate() {
            Fate::Done => self.inner.copy_opts(from, to, options).await,
            _ => fault("not copied"),
        }
    }
}
