//! An object store whose archive files are verified against the checksums in their names.
//!
//! Each archive file is read once, as a whole, before its first use in a process: Parquet pages have no checksums of
//! their own here, and a flipped byte could be read as another number. Files written by this process are not read
//! again.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;

use crate::file_entry::checksum_of;

/// Bytes of a file per read.
const VERIFY_BYTES: usize = 1 << 20;

/// An object store with verified archive files.
#[derive(Debug)]
pub(crate) struct Verified {
    inner: Arc<dyn ObjectStore>,
    /// The prefix of file paths in messages.
    root: String,
    /// Files whose checksum has been verified.
    verified: Mutex<BTreeSet<Path>>,
}

impl Verified {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, root: String) -> Self {
        Self { inner, root, verified: Mutex::default() }
    }

    async fn verify(&self, location: &Path) -> Result<()> {
        let Some(sum) = location.filename().and_then(checksum_of) else { return Ok(()) };
        if self.verified.lock().contains(location) {
            return Ok(());
        }
        let is = match self.inner.get(location).await {
            Ok(found) => Some(checksum(found).await?),
            Err(Error::NotFound { .. }) => None,
            Err(e) => return Err(e),
        };
        if is != Some(sum) {
            return Err(wrong(&format!("{}{location}", self.root), is));
        }
        self.verified.lock().insert(location.clone());
        Ok(())
    }
}

/// Computes the checksum of all bytes.
async fn checksum(found: GetResult) -> Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    if let GetResultPayload::File(mut file, _) = found.payload {
        // Not in the small pieces of a file's stream.
        let read = move || {
            let mut buffer = vec![0; VERIFY_BYTES];
            loop {
                let read = file.read(&mut buffer)?;
                match buffer.get(..read) {
                    Some(bytes) if !bytes.is_empty() => hasher.update(bytes),
                    _ => return Ok(hasher.finalize()),
                }
            }
        };
        let read = tokio::task::spawn_blocking(read).await;
        return read
            .map_err(|source| Error::JoinError { source })?
            .map_err(|e: io::Error| Error::Generic { store: "archive", source: e.into() });
    }
    let mut bytes = found.into_stream();
    while let Some(some) = bytes.try_next().await? {
        hasher.update(&some);
    }
    Ok(hasher.finalize())
}

/// Returns the error for an archive file whose checksum `is` differs from the one in its name; `None`: it is missing.
fn wrong(location: &str, is: Option<u32>) -> Error {
    let how = match is {
        None => "missing",
        Some(_) => "damaged: its checksum is wrong",
    };
    let why = format!("the archive file \"{location}\" is {how}");
    let source = windrow_core::Error::new(windrow_core::ErrorKind::Corrupt, why)
        .with_hint("Restore the file from a backup; nothing has been overwritten.");
    Error::Generic { store: "archive", source: Box::new(source) }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Verified {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        tracing::trace!(target: "storage", "put /{location}");
        let done = self.inner.put_opts(location, payload, opts).await?;
        if location.filename().and_then(checksum_of).is_some() {
            self.verified.lock().insert(location.clone());
        }
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        tracing::trace!(target: "storage", "put parts of /{location}");
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !options.head {
            self.verify(location).await?;
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.verify(location).await?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
