//! A source whose rows are those of another source, transformed: columns are added or replaced, rows may become bad.
//! Partitions, splits, offsets and places are those of the other source.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use windrow_core::{Partition, Reader, Result, ScanRequest, Source, SourceHealth, Split};

/// A transformation of the rows of a source.
#[async_trait]
pub trait Alteration: Debug + Send + Sync {
    /// The columns after the transformation; `read`: those of the source.
    fn schema(&self, read: SchemaRef) -> SchemaRef;

    /// Opens a split of the source, as [`Source::open`]; `scan` refers to the transformed rows.
    ///
    /// # Errors
    /// As [`Source::open`].
    async fn open(
        &self,
        source: &dyn Source,
        split: &Split,
        scan: &ScanRequest,
    ) -> Result<Box<dyn Reader>>;
}

/// A source whose rows are transformed.
#[derive(Debug)]
pub struct Altered<A> {
    source: Arc<dyn Source>,
    alteration: A,
}

impl<A: Alteration> Altered<A> {
    /// Returns the rows of `source`, transformed.
    pub fn new(source: Arc<dyn Source>, alteration: A) -> Self {
        Self { source, alteration }
    }
}

#[async_trait]
impl<A: Alteration> Source for Altered<A> {
    fn schema(&self) -> SchemaRef {
        self.alteration.schema(self.source.schema())
    }

    fn is_bounded(&self) -> bool {
        self.source.is_bounded()
    }

    fn is_replayable(&self) -> bool {
        self.source.is_replayable()
    }

    fn notices(&self) -> Vec<String> {
        self.source.notices()
    }

    async fn discover(&self) -> Result<Vec<Partition>> {
        self.source.discover().await
    }

    async fn discover_now(&self) -> Result<Vec<Partition>> {
        self.source.discover_now().await
    }

    fn forgets(&self) -> bool {
        self.source.forgets()
    }

    fn acknowledge(&self, split: &Split, offset: u64) {
        self.source.acknowledge(split, offset);
    }

    fn health(&self) -> Option<SourceHealth> {
        self.source.health()
    }

    fn rediscover_after(&self) -> Option<Duration> {
        self.source.rediscover_after()
    }

    fn recall(&self, partition: &str, place: &str) -> Result<()> {
        self.source.recall(partition, place)
    }

    fn lost(&self, partition: &str, offset: u64, place: &str) -> Result<Option<String>> {
        self.source.lost(partition, offset, place)
    }

    async fn open(&self, split: &Split, scan: &ScanRequest) -> Result<Box<dyn Reader>> {
        self.alteration.open(&*self.source, split, scan).await
    }
}
