//! An object store that remembers the ends of the Delta logs in it.
//!
//! Every commit asks which entries follow the last one known. A store answers by listing the whole log, so each commit
//! would be slower than the one before. A table has one writer, this process, so the last listing and the entries
//! written since are the log. After any other change of a log, or a failure, it is listed again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;

/// The directory of a Delta log.
const LOG: &str = "_delta_log";
/// Entries that are remembered of one log at most.
const ENTRIES_MAX: usize = 10_000;

/// An object store with remembered ends of logs.
#[derive(Debug)]
pub(crate) struct Listed {
    inner: Arc<dyn ObjectStore>,
    logs: Arc<Mutex<Logs>>,
}

#[derive(Debug, Default)]
struct Logs {
    /// Counts changes: a listing during which there was one is not remembered.
    changes: u64,
    /// By directory.
    tails: BTreeMap<Path, Tail>,
}

/// All entries of a log behind one of its names.
#[derive(Debug)]
struct Tail {
    after: Path,
    entries: BTreeMap<Path, ObjectMeta>,
}

/// Returns the log in which a file is.
fn log_of(location: &Path) -> Option<Path> {
    let (dir, _) = location.as_ref().rsplit_once('/')?;
    let is_log = dir == LOG || dir.ends_with("/_delta_log");
    Path::parse(dir).ok().filter(|_| is_log)
}

impl Listed {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, logs: Arc::default() }
    }

    /// Forgets the log of a file that changes.
    fn forget(&self, location: &Path) {
        self.logs.lock().forget(location);
    }
}

impl Logs {
    fn forget(&mut self, location: &Path) {
        if let Some(log) = log_of(location) {
            self.changes += 1;
            self.tails.remove(&log);
        }
    }

    /// Returns what is known to follow `offset` in a log.
    fn after(&self, log: &Path, offset: &Path) -> Option<Vec<ObjectMeta>> {
        let tail = self.tails.get(log).filter(|tail| tail.after <= *offset)?;
        let later = tail.entries.range(offset.clone()..).filter(|(name, _)| *name != offset);
        Some(later.map(|(_, entry)| entry.clone()).collect())
    }

    /// Remembers the listing of a log behind `offset`, unless something has changed since.
    fn remember(&mut self, changes: u64, log: Path, after: Path, listed: &[ObjectMeta]) {
        if self.changes == changes && listed.len() <= ENTRIES_MAX {
            let entries = listed.iter().map(|e| (e.location.clone(), e.clone())).collect();
            self.tails.insert(log, Tail { after, entries });
        }
    }

    /// Removes and returns the remembered end of a log that is about to be written to, with the number of changes.
    fn take(&mut self, log: &Path) -> (Option<Tail>, u64) {
        self.changes += 1;
        (self.tails.remove(log), self.changes)
    }

    /// Stores it again with the entry that was written, unless something has changed since.
    fn put_back(&mut self, changes: u64, log: Path, mut tail: Tail, entry: ObjectMeta) {
        if self.changes == changes && tail.entries.len() < ENTRIES_MAX {
            self.changes += 1;
            tail.entries.insert(entry.location.clone(), entry);
            self.tails.insert(log, tail);
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Listed {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let Some(log) = log_of(location) else {
            return self.inner.put_opts(location, payload, opts).await;
        };
        // The log is unknown until the outcome is known, also when this future is dropped halfway.
        let (tail, changes) = self.logs.lock().take(&log);
        let done = self.inner.put_opts(location, payload, opts).await?;
        if let (Some(tail), Ok(entry)) = (tail, self.inner.head(location).await) {
            self.logs.lock().put_back(changes, log, tail, entry);
        }
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.forget(location);
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        Ok(match log_of(location) {
            Some(_) => Box::new(Upload {
                inner: upload,
                location: location.clone(),
                logs: Arc::clone(&self.logs),
            }),
            None => upload,
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let forget = {
            let logs = Arc::clone(&self.logs);
            move |location: &Path| logs.lock().forget(location)
        };
        let before = forget.clone();
        let locations = locations.inspect_ok(move |location| before(location)).boxed();
        self.inner.delete_stream(locations).inspect_ok(move |location| forget(location)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let Some(log) = prefix.filter(|dir| dir.filename() == Some(LOG)) else {
            return self.inner.list_with_offset(prefix, offset);
        };
        let (known, changes) = {
            let logs = self.logs.lock();
            (logs.after(log, offset), logs.changes)
        };
        if let Some(known) = known {
            return stream::iter(known.into_iter().map(Ok)).boxed();
        }
        let (log, offset, logs) = (log.clone(), offset.clone(), Arc::clone(&self.logs));
        let all = self.inner.list_with_offset(prefix, &offset).try_collect::<Vec<_>>();
        let listed = async move {
            let mut listed = all.await?;
            listed.sort_unstable_by(|a, b| a.location.cmp(&b.location));
            logs.lock().remember(changes, log, offset, &listed);
            Ok::<_, object_store::Error>(stream::iter(listed.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.forget(to);
        let done = self.inner.copy_opts(from, to, options).await;
        self.forget(to);
        done
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.forget(from);
        self.forget(to);
        let done = self.inner.rename_opts(from, to, options).await;
        self.forget(from);
        self.forget(to);
        done
    }
}

/// An upload into a log, which is unknown until the upload has ended.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    location: Path,
    logs: Arc<Mutex<Logs>>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await;
        self.logs.lock().forget(&self.location);
        done
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    async fn names(store: &Listed, offset: &str) -> Vec<String> {
        let log = Path::from("t/_delta_log");
        let listed = store.list_with_offset(Some(&log), &log.clone().join(offset));
        let listed: Vec<_> = listed.try_collect().await.unwrap();
        listed.iter().map(|e| e.location.filename().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn the_end_of_a_log_is_what_the_store_has() {
        let below = Arc::new(InMemory::new());
        let store = Listed::new(Arc::clone(&below) as _);
        let file = |name: &str| Path::from("t/_delta_log").join(name);
        for name in ["0.json", "1.json", "2.json"] {
            store.put(&file(name), "x".into()).await.unwrap();
        }
        assert_eq!(names(&store, "0.json").await, ["1.json", "2.json"]);
        store.put(&file("3.json"), "x".into()).await.unwrap();
        // Written past the cache: it is not seen, which shows that the store is not asked.
        below.put(&file("4.json"), "x".into()).await.unwrap();
        assert_eq!(names(&store, "1.json").await, ["2.json", "3.json"]);
        // An older name than was asked for before.
        assert_eq!(names(&store, "").await, ["0.json", "1.json", "2.json", "3.json", "4.json"]);
        store.delete(&file("0.json")).await.unwrap();
        assert_eq!(names(&store, "").await, ["1.json", "2.json", "3.json", "4.json"]);
        store.copy(&file("4.json"), &file("5.json")).await.unwrap();
        assert_eq!(names(&store, "4.json").await, ["5.json"]);
        store.rename(&file("5.json"), &file("6.json")).await.unwrap();
        assert_eq!(names(&store, "4.json").await, ["6.json"]);
        let mut upload = store.put_multipart(&file("7.parquet")).await.unwrap();
        upload.put_part("x".into()).await.unwrap();
        assert_eq!(names(&store, "4.json").await, ["6.json"]);
        upload.complete().await.unwrap();
        assert_eq!(names(&store, "4.json").await, ["6.json", "7.parquet"]);
    }

    #[tokio::test]
    async fn a_failed_write_is_looked_at_again() {
        let below = Arc::new(InMemory::new());
        let store = Listed::new(Arc::clone(&below) as _);
        let file = |name: &str| Path::from("t/_delta_log").join(name);
        store.put(&file("0.json"), "x".into()).await.unwrap();
        assert_eq!(names(&store, "").await, ["0.json"]);
        below.put(&file("1.json"), "another".into()).await.unwrap();
        let create = PutOptions { mode: object_store::PutMode::Create, ..PutOptions::default() };
        store.put_opts(&file("1.json"), "x".into(), create).await.unwrap_err();
        assert_eq!(names(&store, "").await, ["0.json", "1.json"]);
    }
}
