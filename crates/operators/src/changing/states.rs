//! The states of groups, as columns: a group has a row in one of several chunks.
//!
//! New states are appended as a new chunk. The rows that they replace stay in their chunks until most rows of a chunk are
//! obsolete. So the cost of a flush depends on the groups that it changes, not on the total number of groups.
//!
//! A chunk never changes, so it is also a segment of checkpoints: a checkpoint writes the chunks that are new. The row of a
//! group that is in use is the one in the youngest chunk that has the group, so places need not be written.
//!
//! Invariants: each group has exactly one row in use; when a chunk is added, it is less than half as long as the one before
//! it, so there are logarithmically many; at least half of the rows of a chunk are in use; chunks are in order of `age`.

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result};

use crate::batches;
use crate::segments::kept::{Cut, SavedSegment, SegmentId, corrupt};
use crate::table::states_bytes;

/// The states of all groups.
#[derive(Debug, Default)]
pub(crate) struct States {
    chunks: Vec<Chunk>,
    /// The place of each group.
    places: Vec<Place>,
    /// The first id of a segment that has not been used.
    next_id: u64,
    /// The age of the next chunk.
    next_age: i64,
}

/// States of some groups.
#[derive(Debug, Default)]
struct Chunk {
    /// Its place in the order of the chunks.
    age: i64,
    /// Its segment, if a checkpoint has it.
    id: Option<SegmentId>,
    /// The number of input rows that its flushes counted.
    rows: u64,
    /// The group of each row.
    groups: Vec<u32>,
    /// The state columns of each aggregate.
    states: Vec<Vec<ArrayRef>>,
    /// The number of rows in use.
    live: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    chunk: u32,
    row: u32,
}

impl States {
    /// The number of groups.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns states without groups, whose segments continue the numbers of these.
    pub(super) fn successor(&self) -> Self {
        Self { next_id: self.next_id, next_age: self.next_age, ..Self::default() }
    }

    /// The number of input rows counted in them.
    pub(super) fn rows(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.rows).sum()
    }

    /// Returns the states of groups: those of the first `states` aggregates.
    ///
    /// # Errors
    /// When the columns cannot be built, because they would be too long.
    pub(crate) fn get(&self, groups: &[u32], states: usize) -> Result<Vec<Vec<ArrayRef>>> {
        let mut at = Vec::with_capacity(groups.len());
        for group in groups {
            let place = self.places.get(*group as usize);
            let place = place.ok_or_else(|| Error::internal("a group without a state"))?;
            at.push((place.chunk as usize, place.row as usize));
        }
        gather(&self.chunks, &at, states)
    }

    /// Returns the states of groups: those of all aggregates.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn get_all(&self, groups: &[u32]) -> Result<Vec<Vec<ArrayRef>>> {
        self.get(groups, self.chunks.first().map_or(0, |chunk| chunk.states.len()))
    }

    /// Sets the states of groups: existing ones, and new ones numbered consecutively, each once. `rows`: the number of input
    /// rows that they count in addition.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn put(
        &mut self,
        groups: Vec<u32>,
        states: Vec<Vec<ArrayRef>>,
        rows: u64,
    ) -> Result<()> {
        let mut states = states;
        for column in states.iter_mut().flatten() {
            *column = batches::alone(column)?;
        }
        let age = self.next_age;
        self.next_age += 1;
        self.push(Chunk { age, id: None, rows, live: groups.len(), groups, states })?;
        self.tidy()
    }

    /// Adds a chunk behind the others.
    fn push(&mut self, added: Chunk) -> Result<()> {
        let chunk = u32::try_from(self.chunks.len()).map_err(|_| too_many())?;
        let groups = &added.groups;
        for (row, group) in (0_u32..).zip(groups) {
            let (place, known) = (Place { chunk, row }, self.places.len());
            match self.places.get_mut(*group as usize) {
                Some(known) => {
                    let old = std::mem::replace(known, place);
                    if let Some(old) = self.chunks.get_mut(old.chunk as usize) {
                        old.live -= 1;
                    }
                }
                None if *group as usize == known => self.places.push(place),
                None => return Err(Error::internal("groups are not numbered in order")),
            }
        }
        self.chunks.push(added);
        Ok(())
    }

    /// Restores the invariants.
    fn tidy(&mut self) -> Result<()> {
        while let [.., before, last] = self.chunks.as_slice()
            && last.live * 2 >= before.live
        {
            let at = self.chunks.len() - 2;
            self.rewrite(at, at + 2)?;
        }
        for at in 0..self.chunks.len() {
            let sparse = |chunk: &Chunk| chunk.live * 2 < chunk.groups.len();
            if self.chunks.get(at).is_some_and(sparse) {
                self.rewrite(at, at + 1)?;
            }
        }
        Ok(())
    }

    /// Replaces adjacent chunks with one that has their rows in use.
    fn rewrite(&mut self, from: usize, to: usize) -> Result<()> {
        let mut groups = vec![];
        let mut at = vec![];
        let (mut rows, mut age, mut width) = (0, 0, 0);
        for number in from..to {
            let Some(chunk) = self.chunks.get(number) else { continue };
            (rows, age, width) = (rows + chunk.rows, chunk.age, chunk.states.len());
            for (row, group) in chunk.groups.iter().enumerate() {
                let here =
                    |place: &Place| place.chunk as usize == number && place.row as usize == row;
                if self.places.get(*group as usize).is_some_and(here) {
                    groups.push(*group);
                    at.push((number, row));
                }
            }
        }
        let mut states = gather(&self.chunks, &at, width)?;
        for column in states.iter_mut().flatten() {
            *column = batches::alone(column)?;
        }
        let chunk = u32::try_from(from).map_err(|_| too_many())?;
        for (row, group) in (0_u32..).zip(&groups) {
            if let Some(place) = self.places.get_mut(*group as usize) {
                *place = Place { chunk, row };
            }
        }
        let merged = Chunk { age, id: None, rows, live: groups.len(), groups, states };
        drop(self.chunks.splice(from..to, [merged]));
        Ok(())
    }

    /// Returns what a checkpoint needs: a segment per chunk, and `last`, a batch that is not in a chunk, with its number of
    /// input rows. `encode` makes a batch of the states of a chunk and the number of its groups.
    ///
    /// # Errors
    /// Those of `encode`.
    pub(super) fn cut(
        &mut self,
        last: Option<(RecordBatch, u64)>,
        encode: impl Fn(&[Vec<ArrayRef>], usize) -> Result<RecordBatch>,
    ) -> Result<Cut> {
        let mut cut = Cut { frontier: 0, next_id: 0, needed: vec![], new: vec![] };
        for chunk in &mut self.chunks {
            let id = match chunk.id {
                Some(id) => id,
                None => {
                    let id = SegmentId(self.next_id);
                    let batch = encode(&chunk.states, chunk.groups.len())?;
                    cut.new.push(segment(id, chunk.age, chunk.rows, batch));
                    self.next_id += 1;
                    *chunk.id.insert(id)
                }
            };
            cut.needed.push(id);
        }
        if let Some((batch, rows)) = last {
            let id = SegmentId(self.next_id);
            self.next_id += 1;
            cut.new.push(segment(id, LAST, rows, batch));
            cut.needed.push(id);
        }
        cut.needed.sort_unstable();
        cut.next_id = self.next_id;
        Ok(cut)
    }

    /// Adds a chunk of a checkpoint, in order of age. Group numbers of keys that are not known yet are consecutive, and each
    /// occurs once.
    ///
    /// # Errors
    /// Corrupt when it cannot have been written by [`cut`](Self::cut).
    pub(super) fn restore(
        &mut self,
        (age, id, rows): (i64, SegmentId, u64),
        groups: Vec<u32>,
        states: Vec<Vec<ArrayRef>>,
    ) -> Result<()> {
        let mut once = groups.clone();
        once.sort_unstable();
        once.dedup();
        if age < self.next_age || age == LAST || once.len() != groups.len() {
            return Err(corrupt(id, "is not one of a column of states"));
        }
        self.next_age = age + 1;
        self.push(Chunk { age, id: Some(id), rows, live: groups.len(), groups, states })
    }

    /// Continues the numbers of segments of a checkpoint, after all of its chunks have been restored.
    ///
    /// # Errors
    /// When the columns cannot be built.
    pub(super) fn restored(&mut self, next_id: u64) -> Result<()> {
        self.next_id = next_id;
        self.tidy()
    }

    /// Bytes of memory.
    pub(crate) fn size_bytes(&self) -> usize {
        let chunk = |chunk: &Chunk| {
            states_bytes(&chunk.states) + chunk.groups.capacity() * size_of::<u32>()
        };
        let chunks: usize = self.chunks.iter().map(chunk).sum();
        chunks + self.places.capacity() * size_of::<Place>()
    }

    #[cfg(test)]
    pub(super) fn chunks_len(&self) -> usize {
        self.chunks.len()
    }
}

/// The age of the batch of a cut that is not in a chunk.
pub(super) const LAST: i64 = i64::MAX;

fn segment(id: SegmentId, slice: i64, rows: u64, batch: RecordBatch) -> SavedSegment {
    SavedSegment {
        id,
        input: 0,
        slice,
        counts_from: i64::MIN,
        rows,
        times: None,
        batches: vec![batch],
        spilled: None,
    }
}

/// Returns the first `width` states of rows of chunks, each row as the number of its chunk and of its row.
fn gather(chunks: &[Chunk], at: &[(usize, usize)], width: usize) -> Result<Vec<Vec<ArrayRef>>> {
    let Some(first) = chunks.first() else { return Ok(vec![]) };
    let mut gathered = Vec::with_capacity(width);
    for (aggregate, columns) in first.states.iter().enumerate().take(width) {
        let mut state = Vec::with_capacity(columns.len());
        for column in 0..columns.len() {
            let arrays: Option<Vec<&dyn Array>> = chunks
                .iter()
                .map(|chunk| Some(chunk.states.get(aggregate)?.get(column)?.as_ref()))
                .collect();
            let arrays = arrays.ok_or_else(|| Error::internal("states of other aggregates"))?;
            state.push(interleave(&arrays, at)?);
        }
        gathered.push(state);
    }
    Ok(gathered)
}

fn too_many() -> Error {
    Error::internal("more groups than can be numbered")
}
