//! A data directory in an object store.
//!
//! ```text
//! ObjectFiles ─► Client ─► Leased ─► store (S3, …)        x         a file that is replaced: one object
//!                  │          └─ refused once the          x/00000000  a file that grows: one object
//!                  └─ threads    lease is lost              x/00000001  for each sync
//! ```
//! Objects are created atomically, so nothing here is ever torn. Invariants: an object is written only where there was
//! none, or over the very version that was seen (conditional puts), so that only one of two writers continues; opening
//! a file to append to it first puts an empty object behind its end, so that nothing else can append; all requests run
//! on their own threads and the caller waits, off the reactor.

mod client;
pub mod faulty;
mod growing;
mod lease;
mod leased;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use windrow_core::{Clock, Result};

use crate::files::{Files, Lock, LogFile};
use client::{Client, Threads, to_io};
use growing::{Growing, Parts};
use lease::{Held, Lease};
use leased::Leased;

/// Objects read concurrently.
const READS_MAX: usize = 32;

/// A place in an object store as a file system. All paths begin with the root, whatever it is.
#[derive(Debug)]
pub struct ObjectFiles {
    client: Arc<Client>,
    /// The same store without the lease: for the lease itself.
    bare: Arc<Client>,
    held: Arc<Held>,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

/// What was found when a file was last read or written.
#[derive(Debug, Default)]
struct Seen {
    /// The version of whole files; `None`: there was none.
    versions: BTreeMap<PathBuf, Option<String>>,
    /// The extent of growing files.
    parts: BTreeMap<PathBuf, Parts>,
}

impl ObjectFiles {
    /// Returns the place `prefix` of `store`, shown as `root`. Requests run on `threads`.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        (root, prefix): (&Path, Key),
        threads: Arc<Threads>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let held = Arc::new(Held::new(root, Arc::clone(&clock)));
        let leased: Arc<dyn ObjectStore> =
            Arc::new(Leased::new(Arc::clone(&store), Arc::clone(&held)));
        let bare = Client::new(store, (root, prefix.clone()), Arc::clone(&threads));
        let client = Client::new(leased, (root, prefix), threads);
        let seen = Mutex::default();
        Self { client: Arc::new(client), bare: Arc::new(bare), held, clock, seen }
    }

    /// The store, which accepts writes only while this process has the lease.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.client.store()
    }

    /// Writes without a lease, like a process that does not know yet that it has lost it.
    #[cfg(test)]
    fn without_lease(self) -> Self {
        self.held.assume();
        self
    }

    /// Writes a whole object over the version that was seen last.
    fn put_whole(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let key = self.client.key(path)?;
        let known = self.seen.lock().versions.get(path).cloned();
        let known = match known {
            Some(known) => known,
            None => self.client.version(&key)?.map(|(version, _)| version),
        };
        let token = self.client.token();
        let put = |known: Option<String>| {
            let mode = known.map_or(PutMode::Create, client::over);
            self.client.put(&key, bytes.to_vec().into(), mode, &token)
        };
        let mut done = put(known);
        if done.is_err() {
            // Unknown now, also to the next attempt.
            self.seen.lock().versions.remove(path);
            // An earlier put of this process may have succeeded although its response was lost.
            if done.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists)
                && let Some((version, by)) = self.client.version(&key)?
                && by.is_some_and(|by| self.client.is_own(&by))
            {
                done = put(Some(version));
            }
        }
        let version = done?;
        self.seen.lock().versions.insert(path.to_owned(), version);
        Ok(())
    }

    /// Returns the objects of a growing file that a listing shows, in order.
    fn parts(&self, path: &Path) -> io::Result<Vec<Key>> {
        let (key, store) = (self.client.key(path)?, self.client.store());
        let list = async move { store.list(Some(&key)).map_ok(|m| m.location).try_collect().await };
        let mut parts: Vec<Key> = self.client.wait(list)?.map_err(|e| to_io(e, path))?;
        parts.sort_unstable();
        Ok(parts)
    }

    /// Counts the parts of a growing file. A listing may be behind; a get by name never is.
    fn count_parts(&self, path: &Path) -> io::Result<u64> {
        let last = self.parts(path)?.last().and_then(|key| key.filename()?.parse::<u64>().ok());
        let mut count = last.map_or(0, |last| last + 1);
        while self.client.version(&self.client.key(&path.join(growing::name(count)))?)?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn read_parts(&self, path: &Path) -> io::Result<Vec<u8>> {
        let count = self.count_parts(path)?;
        if count == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let keys: Vec<Key> = (0..count)
            .map(|number| self.client.key(&path.join(growing::name(number))))
            .collect::<io::Result<_>>()?;
        let store = self.client.store();
        let read = async move {
            let gets = keys.into_iter().map(|part| {
                let store = Arc::clone(&store);
                async move { store.get(&part).await?.bytes().await }
            });
            futures::stream::iter(gets).buffered(READS_MAX).try_collect::<Vec<_>>().await
        };
        let bytes = self.client.wait(read)?.map_err(|e| match e {
            object_store::Error::NotFound { path, .. } => {
                let why = format!("its part \"{path}\" is missing");
                io::Error::new(io::ErrorKind::InvalidData, why)
            }
            e => to_io(e, path),
        })?;
        let bytes = bytes.concat();
        let parts = Parts { count, bytes: bytes.len() as u64 };
        self.seen.lock().parts.insert(path.to_owned(), parts);
        Ok(bytes)
    }

    fn delete(&self, path: &Path, keys: Vec<Key>) -> io::Result<()> {
        let store = self.client.store();
        let deleted = async move {
            let keys = futures::stream::iter(keys.into_iter().map(Ok)).boxed();
            store.delete_stream(keys).try_for_each(|_| futures::future::ok(())).await
        };
        match self.client.wait(deleted)? {
            // Already deleted, by an attempt whose response was lost.
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(to_io(e, path)),
        }
    }

    fn forget(&self, path: &Path) {
        let mut seen = self.seen.lock();
        seen.versions.retain(|known, _| !known.starts_with(path));
        seen.parts.retain(|known, _| !known.starts_with(path));
    }
}

impl Files for ObjectFiles {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        // Object stores have no directories: a name with a slash is only a name.
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let (key, store) = (self.client.key(dir)?, self.client.store());
        let found = self.client.wait(async move { store.list_with_delimiter(Some(&key)).await })?;
        let found = found.map_err(|e| to_io(e, dir))?;
        let objects = found.objects.into_iter().map(|o| o.location);
        let names = objects.chain(found.common_prefixes);
        Ok(names.filter_map(|key| key.filename().map(str::to_owned)).collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (key, store) = (self.client.key(path)?, self.client.store());
        let read = async move {
            let object = store.get(&key).await?;
            let version = object.meta.e_tag.clone();
            Ok((version, object.bytes().await?))
        };
        match self.client.wait(read)? {
            Ok((version, bytes)) => {
                self.seen.lock().versions.insert(path.to_owned(), version);
                Ok(bytes.to_vec())
            }
            Err(object_store::Error::NotFound { .. }) => {
                let read = self.read_parts(path);
                if read.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                    self.seen.lock().versions.insert(path.to_owned(), None);
                }
                read
            }
            Err(e) => Err(to_io(e, path)),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        // Whether the file exists is determined when its first part is put.
        let client = Arc::clone(&self.client);
        Ok(Box::new(Growing::new(client, path, Parts::default())?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let known = self.seen.lock().parts.remove(path);
        let known = match known {
            Some(known) => known,
            None => {
                let bytes = self.read_parts(path)?.len() as u64;
                let seen = self.seen.lock().parts.remove(path);
                Parts { bytes, ..seen.unwrap_or_default() }
            }
        };
        let mut file = Growing::new(Arc::clone(&self.client), path, known)?;
        file.fence()?;
        Ok(Box::new(file))
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.put_whole(path, bytes)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.forget(path);
        let mut keys = self.parts(path)?;
        if keys.is_empty() {
            let key = self.client.key(path)?;
            self.client.version(&key)?.ok_or(io::ErrorKind::NotFound)?;
            keys.push(key);
        }
        self.delete(path, keys)
    }

    fn remove_all(&self, path: &Path) -> io::Result<()> {
        self.forget(path);
        let (key, store) = (self.client.key(path)?, self.client.store());
        let mut keys = vec![key.clone()];
        let below =
            async move { store.list(Some(&key)).map_ok(|m| m.location).try_collect().await };
        let below: Result<Vec<Key>, _> = self.client.wait(below)?;
        keys.extend(below.map_err(|e| to_io(e, path))?);
        self.delete(path, keys)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn Lock>> {
        let clock = Arc::clone(&self.clock);
        Ok(Box::new(Lease::take(&self.bare, dir, Arc::clone(&self.held), clock)?))
    }

    fn writes_whole(&self) -> bool {
        true
    }
}

/// Runs blocking work so that the reactor continues without this thread.
fn off_reactor<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::RuntimeFlavor;
    match Handle::try_current().map(|h| h.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

pub use client::Threads as StoreThreads;
