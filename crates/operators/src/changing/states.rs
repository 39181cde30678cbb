//! The states of groups, as columns: a group has a row in one of several chunks.
//!
//! New states are appended as a new chunk. The rows that they replace stay in their chunks until most rows of a chunk are
//! obsolete. So the cost of a flush depends on the groups that it changes, not on the total number of groups.
//!
//! Invariants: each group has exactly one row in use; when a chunk is added, it is less than half as long as the one before
//! it, so there are logarithmically many; at least half of the rows of a chunk are in use.

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use windrow_core::{Error, Result};

use crate::batches;
use crate::table::states_bytes;

/// The states of all groups.
#[derive(Debug, Default)]
pub(crate) struct States {
    chunks: Vec<Chunk>,
    /// The place of each group.
    places: Vec<Place>,
}

/// States of some groups.
#[derive(Debug, Default)]
struct Chunk {
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

    /// Returns the states of groups.
    ///
    /// # Errors
    /// When the columns cannot be built, because they would be too long.
    pub(crate) fn get(&self, groups: &[u32]) -> Result<Vec<Vec<ArrayRef>>> {
        let mut at = Vec::with_capacity(groups.len());
        for group in groups {
            let place = self.places.get(*group as usize);
            let place = place.ok_or_else(|| Error::internal("a group without a state"))?;
            at.push((place.chunk as usize, place.row as usize));
        }
        gather(&self.chunks, &at)
    }

    /// Sets the states of groups: existing ones, and new ones numbered consecutively.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn put(&mut self, groups: Vec<u32>, states: Vec<Vec<ArrayRef>>) -> Result<()> {
        let chunk = u32::try_from(self.chunks.len()).map_err(|_| too_many())?;
        for (row, group) in (0_u32..).zip(&groups) {
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
        let mut states = states;
        for column in states.iter_mut().flatten() {
            *column = batches::alone(column)?;
        }
        self.chunks.push(Chunk { live: groups.len(), groups, states });
        self.tidy()
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
        for number in from..to {
            let Some(chunk) = self.chunks.get(number) else { continue };
            for (row, group) in chunk.groups.iter().enumerate() {
                let here =
                    |place: &Place| place.chunk as usize == number && place.row as usize == row;
                if self.places.get(*group as usize).is_some_and(here) {
                    groups.push(*group);
                    at.push((number, row));
                }
            }
        }
        let mut states = gather(&self.chunks, &at)?;
        for column in states.iter_mut().flatten() {
            *column = batches::alone(column)?;
        }
        let chunk = u32::try_from(from).map_err(|_| too_many())?;
        for (row, group) in (0_u32..).zip(&groups) {
            if let Some(place) = self.places.get_mut(*group as usize) {
                *place = Place { chunk, row };
            }
        }
        let merged = Chunk { live: groups.len(), groups, states };
        drop(self.chunks.splice(from..to, [merged]));
        Ok(())
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

/// Returns rows of chunks, each as the number of its chunk and of its row.
fn gather(chunks: &[Chunk], at: &[(usize, usize)]) -> Result<Vec<Vec<ArrayRef>>> {
    let Some(first) = chunks.first() else { return Ok(vec![]) };
    let mut gathered = Vec::with_capacity(first.states.len());
    for (aggregate, columns) in first.states.iter().enumerate() {
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
