//! A store that accepts writes only while this process has the lease.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::lease::Held;

/// A store behind a lease.
#[derive(Debug)]
pub(super) struct Leased {
    inner: Arc<dyn ObjectStore>,
    held: Arc<Held>,
}

impl Leased {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, held: Arc<Held>) -> Self {
        Self { inner, held }
    }

    fn check(&self) -> Result<()> {
        let refused = |e| Error::Generic { store: "windrow", source: Box::new(e) };
        self.held.check().map_err(refused)
    }
}

impl fmt::Display for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Leased {
    async fn put_opts(&self, at: &Key, what: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.check()?;
        let done = self.inner.put_opts(at, what, opts).await?;
        // A put may take longer than the lease lasts; a successor may not have seen it.
        self.check()?;
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        at: &Key,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check()?;
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Key, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(&self, at: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        match self.check() {
            Ok(()) => self.inner.delete_stream(all),
            Err(e) => futures::stream::once(async { Err(e) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Key>,
        offset: &Key,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.check()?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<()> {
        self.check()?;
        self.inner.rename_opts(from, to, options).await
    }
}
