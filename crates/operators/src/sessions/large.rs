//! Slices that do not fit in memory: two neighbouring slices are merged for a few buckets of keys at a time.
//!
//! ```text
//! for each range of buckets:  pieces of both slices ─► a chain of its own ─┬─ ended ─► a run, in order of ends
//!                                                          └─ the rest ─► one file: the previous slice
//! then:                       all runs, merged ─► sessions in order of their end
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Field, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result};

use super::SessionMerger;
use super::chain::{Chain, Sessions};
use crate::segments::Body;
use crate::segments::kept::{KeptSegment, spill_all};
use crate::segments::spill::{BUCKETS, Spilled, SpilledFile, Writing};
use crate::table::Frozen;

/// The ratio of the bytes of a table in memory to those of its frozen groups, approximately.
const LIVE_FACTOR: usize = 2;
/// The most sessions per batch of a run.
const BATCH_SESSIONS: usize = 4096;

/// Ended sessions on disk, in runs that are each in order of their end.
pub(super) struct Runs {
    file: Arc<dyn SpilledFile>,
    runs: Vec<Run>,
}

struct Run {
    /// Positions of the batches, the next one last.
    places: Vec<u64>,
    batch: Option<RecordBatch>,
    at: usize,
}

impl SessionMerger {
    /// Whether the next two slices are on disk and too large to be merged in memory.
    pub(super) fn is_large(&self) -> bool {
        let Some(space) = &self.space else { return false };
        let first = self.chain.slice().or_else(|| self.waiting.keys().next().map(|key| key.0));
        let Some(first) = first else { return false };
        let last = if self.chain.has_begun() { first } else { first.saturating_add(self.gap) };
        let pieces = self.waiting.range((first, i64::MIN)..=(last, i64::MIN));
        let (mut bytes, mut spilled) = (self.chain.size_bytes(), false);
        for body in pieces.flat_map(|(_, pieces)| pieces).filter_map(|kept| kept.body.as_ref()) {
            bytes += match body {
                Body::Spilled(on_disk) => {
                    spilled = true;
                    on_disk.bytes_in_memory()
                }
                body => body.size_bytes(),
            };
        }
        spilled && bytes.saturating_mul(LIVE_FACTOR) > space.pass_bytes()
    }

    /// Merges two complete slices, from disk to disk.
    ///
    /// # Errors
    /// When they cannot be read or written; when a few groups need more memory than is available.
    pub(super) fn pass(&mut self, slice: i64) -> Result<()> {
        let Some(space) = self.space.clone() else { return Ok(()) };
        spill_all(&self.columns, space.as_ref(), &mut self.waiting)?;
        let next = slice.saturating_add(self.gap);
        let before = spilled(self.waiting.remove(&(slice, i64::MIN)))?;
        let kept = self.waiting.remove(&(next, i64::MIN));
        let rows = kept.iter().flatten().map(|kept| kept.rows).sum();
        let now = spilled(kept)?;
        let bytes: usize = before.iter().chain(&now).map(Spilled::bytes_in_memory).sum();
        let groups: usize = before.iter().chain(&now).map(Spilled::len).sum();
        let pieces = bytes.saturating_mul(LIVE_FACTOR) / space.pass_bytes().max(1) + 1;
        let mut step = BUCKETS / pieces.next_power_of_two().min(BUCKETS);
        let batch_sessions = (BATCH_SESSIONS / pieces).max(64);
        let mut rest = Writing::new(&self.columns, space.as_ref())?;
        let mut file = space.create()?;
        let mut runs = vec![];
        let mut bucket = 0;
        while bucket < BUCKETS {
            let range = bucket..bucket + step;
            let read = |segments: &[Spilled]| -> Result<Vec<Frozen>> {
                let groups = |s: &Spilled| s.groups(&self.columns, range.clone()).collect();
                let parts: Vec<Vec<Frozen>> = segments.iter().map(groups).collect::<Result<_>>()?;
                Ok(parts.into_iter().flatten().collect())
            };
            let (old, new) = (read(&before)?, read(&now)?);
            // Arrays share their buffers with those of other buckets, so the size is estimated from the number of
            // groups.
            let read: usize = old.iter().chain(&new).map(|frozen| frozen.groups).sum();
            let bytes = bytes / groups.max(1) * read;
            if step > 1 && bytes > space.pass_bytes().saturating_mul(2) {
                step /= 2;
                continue;
            }
            if let Some(error) = space.refuses(bytes) {
                return Err(error);
            }
            let mut chain = Chain::new(&self.columns, self.gap);
            chain.begin(slice, old)?;
            if chain.has_begun() {
                new.iter().try_for_each(|piece| chain.absorb(piece, 0))?;
                if let Some(ended) = chain.drain(i64::MAX, self.frontier)? {
                    let mut places = write_run(ended, batch_sessions, file.as_mut())?;
                    places.reverse();
                    runs.push(Run { places, batch: None, at: 0 });
                }
                chain.step()?;
            } else {
                chain.begin(next, new)?;
            }
            if let Some((_, frozen, _)) = chain.before() {
                rest.push(frozen, range.end)?;
            }
            bucket += step;
        }
        if let Some(rest) = rest.finish()? {
            let kept = KeptSegment { id: None, rows, times: None, body: Some(Body::Spilled(rest)) };
            self.waiting.entry((next, i64::MIN)).or_default().push(kept);
        }
        if runs.is_empty() {
            return Ok(());
        }
        self.closed.push_runs(Runs { file: file.finish()?, runs })
    }
}

/// Returns the pieces of a slice, all of which are on disk.
fn spilled(pieces: Option<Vec<KeptSegment>>) -> Result<Vec<Spilled>> {
    let pieces = pieces.into_iter().flatten();
    pieces
        .map(|kept| match kept.body {
            Some(Body::Spilled(spilled)) => Ok(spilled),
            _ => Err(Error::internal("a piece of a large slice is not on disk")),
        })
        .collect()
}

/// Writes ended sessions, with start and end as the last columns; returns the positions of the batches.
fn write_run(
    ended: Sessions,
    batch_sessions: usize,
    file: &mut dyn crate::SpillFile,
) -> Result<Vec<u64>> {
    let Sessions { mut columns, starts, ends } = ended;
    columns.push(Arc::new(Int64Array::from(starts)));
    columns.push(Arc::new(Int64Array::from(ends)));
    let fields = columns.iter().enumerate();
    let fields = fields.map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true));
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?;
    let starts = (0..batch.num_rows()).step_by(batch_sessions);
    starts
        .map(|start| {
            let piece = batch.slice(start, batch_sessions.min(batch.num_rows() - start));
            file.append(&crate::batches::compact(&piece)?)
        })
        .collect()
}

impl Run {
    /// Returns the end of its next session; reads the next batch when the current one is used up.
    fn end(&mut self, file: &dyn SpilledFile) -> Result<Option<i64>> {
        loop {
            if let Some(batch) = &self.batch
                && self.at < batch.num_rows()
            {
                return ends(batch).map(|ends| ends.get(self.at).copied());
            }
            let Some(place) = self.places.pop() else { return Ok(None) };
            (self.batch, self.at) = (Some(file.read(place)?), 0);
        }
    }
}

/// Returns the ends of the sessions of a batch: the last column.
fn ends(batch: &RecordBatch) -> Result<&[i64]> {
    let last = batch.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>());
    Ok(last.ok_or_else(|| Error::internal("the end of a session is lost"))?.values())
}

impl Runs {
    /// Returns all sessions of the next ends, several thousand.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn next_sessions(&mut self) -> Result<Option<Sessions>> {
        let mut heap = BinaryHeap::new();
        let mut sources: Vec<RecordBatch> = vec![];
        let mut source = vec![usize::MAX; self.runs.len()];
        for (number, run) in self.runs.iter_mut().enumerate() {
            if let Some(end) = run.end(self.file.as_ref())? {
                heap.push(Reverse((end, number)));
            }
        }
        let (mut places, mut last) = (vec![], i64::MIN);
        while let Some(Reverse((end, number))) = heap.pop() {
            if places.len() >= BATCH_SESSIONS && end > last {
                break;
            }
            last = end;
            let (Some(run), Some(source)) = (self.runs.get_mut(number), source.get_mut(number))
            else {
                continue;
            };
            if run.at == 0 || *source == usize::MAX {
                *source = sources.len();
                sources.extend(run.batch.clone());
            }
            places.push((*source, run.at));
            run.at += 1;
            if let Some(end) = run.end(self.file.as_ref())? {
                heap.push(Reverse((end, number)));
            }
        }
        if places.is_empty() {
            return Ok(None);
        }
        let batch = interleave_record_batch(&sources.iter().collect::<Vec<_>>(), &places)?;
        let ends = ends(&batch)?.to_vec();
        let mut columns = batch.columns().to_vec();
        columns.pop();
        let starts = columns.pop();
        let starts = starts.as_ref().and_then(|column| column.as_primitive_opt::<Int64Type>());
        let starts = starts.ok_or_else(|| Error::internal("the start of a session is lost"))?;
        Ok(Some(Sessions { columns, starts: starts.values().to_vec(), ends }))
    }
}
