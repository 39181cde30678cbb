//! State that does not fit in memory: segments on disk, partitioned by the hash of their keys.
//!
//! ```text
//! segment ─freeze─► groups, in 256 buckets by hash ─► parts (of some thousand groups, whole buckets) ─► file
//! window  ◄─ bucket by bucket: the parts of all its segments, merged ◄─────────────────────────┘
//! ```
//! A group is in the same bucket in every segment, so that a window can be merged a few buckets at a time without
//! searching other buckets.
//!
//! This module does no input or output itself: where the bytes are stored is up to a [`SpillSpace`].

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::record_batch::RecordBatch;
use datafusion::common::hash_utils::{QualityRandomState, create_hashes};
use windrow_core::{Error, Result};

use super::{Body, Segment, saved};
use crate::spec::Columns;
use crate::table::Frozen;
use crate::{batches, failure};

/// The number of buckets over which groups are spread.
pub(crate) const BUCKETS: usize = 256;
/// The number of batches of rows that are read back in one pass.
const PASS_BATCHES: usize = 4;
/// Differs from the seed of every hash table, whose slots would otherwise be filled unevenly.
const SEED: u64 = 0x7769_6e64_726f_7721;

/// A place for state that does not fit in memory.
pub trait SpillSpace: Debug + Send + Sync {
    /// Creates a new, empty file.
    ///
    /// # Errors
    /// When it cannot be created.
    fn create(&self) -> Result<Box<dyn SpillFile>>;

    /// The bytes that a window may take at a time while it is read back; at least 1.
    fn pass_bytes(&self) -> usize;

    /// The smallest number of groups that justifies a batch of its own.
    fn part_groups_min(&self) -> usize {
        4096
    }

    /// Returns the error for `bytes` of state that cannot be divided; `None` when they are acceptable.
    fn refuses(&self, bytes: usize) -> Option<Error>;
}

/// A file being written.
pub trait SpillFile: Debug + Send {
    /// Appends a batch; returns its position.
    ///
    /// # Errors
    /// When it cannot be written.
    fn append(&mut self, batch: &RecordBatch) -> Result<u64>;

    /// Completes the file. It is deleted when the last reference to it is dropped.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finish(self: Box<Self>) -> Result<Arc<dyn SpilledFile>>;
}

/// A completed file, for reading.
pub trait SpilledFile: Debug + Send + Sync {
    /// Reads the batch that was appended at `at`.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, at: u64) -> Result<RecordBatch>;
}

/// A segment on disk.
#[derive(Debug, Clone)]
pub(crate) struct Spilled {
    file: Arc<dyn SpilledFile>,
    content: Content,
}

#[derive(Debug, Clone)]
struct Content {
    parts: Vec<Part>,
    /// The number of groups, or of rows.
    len: usize,
    /// The bytes that it took in memory.
    bytes: usize,
    /// State columns per aggregate; `None`: it holds rows.
    states: Option<Vec<usize>>,
}

/// Whole buckets of a segment, in one batch.
#[derive(Debug, Clone)]
struct Part {
    buckets: Range<usize>,
    at: u64,
}

/// Writes the segments whose state is in memory to one file.
pub(crate) fn spill(
    spec: &Columns,
    space: &dyn SpillSpace,
    segments: Vec<Segment>,
) -> Result<Vec<Segment>> {
    if segments.iter().all(|s| matches!(s.body, Body::Spilled(_))) {
        return Ok(segments);
    }
    let mut file = space.create()?;
    let mut written = Vec::with_capacity(segments.len());
    for Segment { slice, counts_from, rows, times, body } in segments {
        let content = match body.freeze()? {
            Body::Spilled(spilled) => Err(spilled),
            Body::Rows(batches) => Ok(write_rows(space, batches, file.as_mut())?),
            Body::Frozen(frozen) => Ok(write_groups(spec, space, &frozen, file.as_mut())?),
            Body::Live(_) => return Err(Error::internal("a live slice cannot be written")),
        };
        written.push(((slice, counts_from, rows, times), content));
    }
    let file = file.finish()?;
    let spilled = written.into_iter().map(|((slice, counts_from, rows, times), content)| {
        let spilled = match content {
            Ok(content) => Spilled { file: Arc::clone(&file), content },
            Err(spilled) => spilled,
        };
        Segment { slice, counts_from, rows, times, body: Body::Spilled(spilled) }
    });
    Ok(spilled.collect())
}

fn write_rows(
    space: &dyn SpillSpace,
    batches: Vec<RecordBatch>,
    file: &mut dyn SpillFile,
) -> Result<Content> {
    let mut content = Content { parts: vec![], len: 0, bytes: 0, states: None };
    for batch in batches::together(batches)? {
        let (rows, bytes) = (batch.num_rows(), batch.get_array_memory_size());
        content.len += rows;
        content.bytes += bytes;
        // Rows are read back batch by batch.
        let pieces = bytes / (space.pass_bytes() / PASS_BATCHES).max(1) + 1;
        let step = rows.div_ceil(pieces).max(1);
        for start in (0..rows).step_by(step) {
            let piece = batch.slice(start, step.min(rows - start));
            let columns = piece.columns().iter().map(batches::alone).collect::<Result<_>>()?;
            let at = file.append(&batches::with_columns(&piece, columns, piece.num_rows())?)?;
            content.parts.push(Part { buckets: 0..BUCKETS, at });
        }
    }
    Ok(content)
}

/// Writes rows to one file, each batch as a segment of its own.
pub(crate) fn spill_rows(
    space: &dyn SpillSpace,
    batches: Vec<RecordBatch>,
) -> Result<Vec<Spilled>> {
    let mut file = space.create()?;
    let mut contents = Vec::with_capacity(batches.len());
    for batch in batches {
        let part = Part { buckets: 0..BUCKETS, at: file.append(&batch)? };
        let (len, bytes) = (batch.num_rows(), batch.get_array_memory_size());
        contents.push(Content { parts: vec![part], len, bytes, states: None });
    }
    let file = file.finish()?;
    let spilled = contents.into_iter();
    Ok(spilled.map(|content| Spilled { file: Arc::clone(&file), content }).collect())
}

fn write_groups(
    spec: &Columns,
    space: &dyn SpillSpace,
    frozen: &Frozen,
    file: &mut dyn SpillFile,
) -> Result<Content> {
    let (begins, order) = by_bucket(&buckets(spec, &frozen.keys, frozen.groups)?);
    let batch = saved::frozen_batch(frozen)?;
    let mut content = Content {
        parts: vec![],
        len: frozen.groups,
        bytes: frozen.size_bytes(),
        states: Some(frozen.states.iter().map(Vec::len).collect()),
    };
    let mut first = 0;
    for bucket in 0..BUCKETS {
        let begin = |bucket: usize| begins.get(bucket).copied().unwrap_or(frozen.groups);
        let rows = begin(first)..begin(bucket + 1);
        if rows.is_empty() || (rows.len() < space.part_groups_min() && bucket + 1 < BUCKETS) {
            continue;
        }
        while begin(first + 1) == begin(first) {
            first += 1; // An empty bucket.
        }
        let rows = order.get(rows).unwrap_or_default().to_vec();
        let at = file.append(&pick(&batch, &UInt32Array::from(rows))?)?;
        content.parts.push(Part { buckets: first..bucket + 1, at });
        first = bucket + 1;
    }
    Ok(content)
}

/// Groups that are written bucket range by bucket range.
pub(crate) struct Writing<'a> {
    spec: &'a Columns,
    space: &'a dyn SpillSpace,
    file: Box<dyn SpillFile>,
    content: Option<Content>,
}

impl<'a> Writing<'a> {
    pub(crate) fn new(spec: &'a Columns, space: &'a dyn SpillSpace) -> Result<Self> {
        Ok(Self { spec, space, file: space.create()?, content: None })
    }

    /// Writes groups of buckets before `end` and after those of the previous groups.
    pub(crate) fn push(&mut self, frozen: &Frozen, end: usize) -> Result<()> {
        let mut new = write_groups(self.spec, self.space, frozen, self.file.as_mut())?;
        for part in &mut new.parts {
            part.buckets.end = part.buckets.end.min(end);
        }
        match &mut self.content {
            Some(content) => {
                content.parts.append(&mut new.parts);
                content.len += new.len;
                content.bytes += new.bytes;
            }
            none => *none = Some(new),
        }
        Ok(())
    }

    /// Completes the segment; `None` when there were no groups.
    pub(crate) fn finish(self) -> Result<Option<Spilled>> {
        let Some(content) = self.content else { return Ok(None) };
        Ok(Some(Spilled { file: self.file.finish()?, content }))
    }
}

/// Returns the start of each bucket, and the rows bucket by bucket.
pub(crate) fn by_bucket(buckets: &[u8]) -> (Vec<usize>, Vec<u32>) {
    let mut begins = vec![0_usize; BUCKETS + 1];
    for bucket in buckets {
        if let Some(count) = begins.get_mut(usize::from(*bucket) + 1) {
            *count += 1;
        }
    }
    let mut before = 0;
    for begin in &mut begins {
        *begin += before;
        before = *begin;
    }
    let mut order: Vec<u32> = vec![0; buckets.len()];
    let mut free = begins.clone();
    for (bucket, row) in buckets.iter().zip(0_u32..) {
        if let Some(place) = free.get_mut(usize::from(*bucket)) {
            if let Some(slot) = order.get_mut(*place) {
                *slot = row;
            }
            *place += 1;
        }
    }
    (begins, order)
}

/// Returns some rows, without retaining bytes of others.
pub(crate) fn pick(batch: &RecordBatch, rows: &UInt32Array) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|c| batches::alone(&take(c, rows, None)?));
    batches::with_columns(batch, columns.collect::<Result<_>>()?, rows.len())
}

/// Returns the bucket of each group.
fn buckets(spec: &Columns, keys: &[ArrayRef], groups: usize) -> Result<Vec<u8>> {
    bucket_of(keys.get(..spec.key_schema().fields().len()).unwrap_or_default(), groups)
}

/// Returns the bucket of each key.
pub(crate) fn bucket_of(keys: &[ArrayRef], rows: usize) -> Result<Vec<u8>> {
    let mut hashes = vec![0; rows];
    if !keys.is_empty() {
        let state = QualityRandomState::with_seed(SEED);
        create_hashes(keys, &state, &mut hashes).map_err(failure::engine)?;
    }
    Ok(hashes.into_iter().map(|hash| hash.to_be_bytes()[0]).collect())
}

impl Spilled {
    /// The number of groups, or of rows if rows are held.
    pub(crate) fn len(&self) -> usize {
        self.content.len
    }

    /// The bytes that it takes in memory.
    pub(crate) fn bytes_in_memory(&self) -> usize {
        self.content.bytes
    }

    /// Its batches, one by one.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> + '_ {
        self.content.parts.iter().map(|part| self.file.read(part.at))
    }

    /// The number of batches.
    pub(crate) fn batches_len(&self) -> usize {
        self.content.parts.len()
    }

    /// Loads all of it into memory.
    pub(crate) fn load(&self) -> Result<Body> {
        let batches = self.batches().collect::<Result<Vec<_>>>()?;
        let (Some(states), Some(first)) = (&self.content.states, batches.first()) else {
            return Ok(Body::Rows(batches));
        };
        let batch = concat_batches(&first.schema(), &batches)?;
        Ok(Body::Frozen(frozen(states, &batch)))
    }

    /// Returns a batch, if rows are held.
    pub(crate) fn batch(&self, number: usize) -> Option<Result<RecordBatch>> {
        self.content.parts.get(number).map(|part| self.file.read(part.at))
    }

    /// Returns the first bucket that may have groups, from `bucket` on.
    pub(crate) fn next_bucket(&self, bucket: usize) -> Option<usize> {
        let part = self.content.parts.iter().find(|part| bucket < part.buckets.end)?;
        Some(part.buckets.start.max(bucket))
    }

    /// Returns the groups of some buckets, part by part.
    pub(crate) fn groups<'a>(
        &'a self,
        spec: &'a Columns,
        wanted: Range<usize>,
    ) -> impl Iterator<Item = Result<Frozen>> + 'a {
        let states = self.content.states.as_deref().unwrap_or_default();
        let parts = self.content.parts.iter();
        let range = wanted.clone();
        let parts =
            parts.filter(move |p| p.buckets.start < range.end && range.start < p.buckets.end);
        parts.map(move |part| {
            let all = frozen(states, &self.file.read(part.at)?);
            if wanted.start <= part.buckets.start && part.buckets.end <= wanted.end {
                return Ok(all);
            }
            let buckets = buckets(spec, &all.keys, all.groups)?;
            let rows = buckets.iter().zip(0_u32..);
            let rows = rows.filter(|(bucket, _)| wanted.contains(&usize::from(**bucket)));
            let rows: UInt32Array = rows.map(|(_, row)| row).collect::<Vec<_>>().into();
            all.take(&rows)
        })
    }
}

fn frozen(states: &[usize], batch: &RecordBatch) -> Frozen {
    let mut columns = batch.columns().iter().cloned();
    let keys = batch.num_columns().saturating_sub(states.iter().sum());
    Frozen {
        keys: columns.by_ref().take(keys).collect(),
        states: states.iter().map(|n| columns.by_ref().take(*n).collect()).collect(),
        groups: batch.num_rows(),
    }
}
