//! The tail of a log: the rows that are not archived, and some that have just been. It is in memory; with a memory
//! limit, the rows beyond the tails' part of it are on disk.
//!
//! ```text
//! offset   start                                  rows
//!          ├─ disk ─ disk ─┼─ batch ─┼─ … ─ batch ─┤ ◄─ push
//! ```
//! The oldest batches spill first: followers of a log read at its end.
//!
//! Invariants: the pieces tile; the memory limit counts the batches in memory.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::size::bytes_of;
use windrow_core::{Layout, Result};
use windrow_operators::compact;

use crate::memory::{Memory, TailFile};

/// Small appended batches are joined once together they have this many rows, the results again at the next step, and so
/// on: a view of many small windows has a few dozen batches, and each row is copied once per step at most.
const JOIN_ROWS: [usize; 3] = [16, 256, 8_192];
/// Rows of a batch on disk, at most: readers take about as many at a time.
const DISK_ROWS: usize = 8_192;
/// The size in bytes at which a file is followed by a new one; a file is deleted when all its rows are archived.
const FILE_BYTES: u64 = 64 << 20;

/// A run of rows.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The offset of its first row.
    pub(crate) first: u64,
    /// The number of its rows.
    pub(crate) rows: usize,
    /// The bytes that it takes in memory, or would take there.
    bytes: usize,
    place: Stored,
}

#[derive(Debug, Clone)]
enum Stored {
    Memory(RecordBatch),
    /// The rows from `skip` on of the batch at `at`.
    Disk {
        file: Arc<TailFile>,
        at: u64,
        skip: usize,
        /// The columns, if any were added since the batch was written.
        layout: Option<Arc<Layout>>,
    },
}

impl Piece {
    fn new(first: u64, batch: RecordBatch) -> Self {
        let (rows, bytes) = (batch.num_rows(), bytes_of(&batch));
        Self { first, rows, bytes, place: Stored::Memory(batch) }
    }

    /// One past its last offset.
    pub fn end(&self) -> u64 {
        self.first + self.rows as u64
    }

    /// The bytes that it takes in memory now.
    fn in_memory(&self) -> usize {
        match self.place {
            Stored::Memory(_) => self.bytes,
            Stored::Disk { .. } => 0,
        }
    }

    /// The rows, if they are in memory.
    pub(crate) fn batch(&self) -> Option<&RecordBatch> {
        match &self.place {
            Stored::Memory(batch) => Some(batch),
            Stored::Disk { .. } => None,
        }
    }

    /// Returns the rows.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn load(&self) -> Result<RecordBatch> {
        match &self.place {
            Stored::Memory(batch) => Ok(batch.clone()),
            Stored::Disk { file, at, skip, layout } => {
                let rows = file.read(*at)?.slice(*skip, self.rows);
                match layout {
                    Some(layout) => layout.widened(&rows),
                    None => Ok(rows),
                }
            }
        }
    }

    /// Returns its rows with offsets in `from..until`; `None`: there are none.
    pub fn part(&self, from: u64, until: u64) -> Option<Self> {
        let first = self.first.max(from);
        let rows = self.end().min(until).checked_sub(first).filter(|rows| *rows > 0)?;
        let (gone, rows) = (usize::try_from(first - self.first).ok()?, usize::try_from(rows).ok()?);
        let bytes = if rows == self.rows { self.bytes } else { self.bytes / self.rows * rows };
        let place = match &self.place {
            Stored::Memory(batch) => Stored::Memory(batch.slice(gone, rows)),
            Stored::Disk { file, at, skip, layout } => {
                let (file, layout) = (Arc::clone(file), layout.clone());
                Stored::Disk { file, at: *at, skip: skip + gone, layout }
            }
        };
        Some(Self { first, rows, bytes, place })
    }
}

/// The tail of a log.
#[derive(Debug)]
pub(super) struct Tail {
    layout: Arc<Layout>,
    /// Ascending.
    pieces: Vec<Piece>,
    /// Rows before this offset are archived too, and are retained for readers that are about to read them.
    start: u64,
    /// The bytes of the pieces that are not archived, and those of all pieces in memory.
    bytes: usize,
    in_memory: usize,
    /// The memory limit, if there is one, and the file to which is written.
    memory: Option<Arc<Memory>>,
    file: Option<Arc<TailFile>>,
}

impl Tail {
    pub(super) fn new(schema: SchemaRef, memory: Option<Arc<Memory>>) -> Self {
        let layout = Arc::new(Layout::new(schema, vec![]));
        Self { layout, pieces: vec![], start: 0, bytes: 0, in_memory: 0, memory, file: None }
    }

    /// The columns.
    pub(super) fn schema(&self) -> &SchemaRef {
        self.layout.schema()
    }

    /// Adds columns at the end; all pieces get them.
    ///
    /// # Errors
    /// When the columns before them are others (a bug).
    pub(super) fn widen(&mut self, layout: Layout) -> Result<()> {
        let layout = Arc::new(layout);
        let widened = |piece: &Piece| match &piece.place {
            Stored::Memory(batch) => Ok(Piece::new(piece.first, layout.widened(batch)?)),
            Stored::Disk { file, at, skip, .. } => {
                let (file, layout) = (Arc::clone(file), Some(Arc::clone(&layout)));
                let place = Stored::Disk { file, at: *at, skip: *skip, layout };
                Ok(Piece { place, ..piece.clone() })
            }
        };
        self.pieces = self.pieces.iter().map(widened).collect::<Result<_>>()?;
        self.layout = layout;
        self.count();
        Ok(())
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The bytes of the rows that are not archived, in memory or on disk.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.in_memory
    }

    /// The piece that holds `offset`.
    pub(super) fn at(&self, offset: u64) -> Option<&Piece> {
        let after = self.pieces.partition_point(|piece| piece.first <= offset);
        self.pieces.get(after.checked_sub(1)?).filter(|piece| offset < piece.end())
    }

    /// Appends rows.
    ///
    /// # Errors
    /// When small batches cannot be joined, or rows cannot be spilled.
    pub(super) fn push(&mut self, first: u64, batch: RecordBatch) -> Result<()> {
        // Columns may have been added since it was made.
        let batch = match batch.num_columns() < self.schema().fields().len() {
            true => self.layout.widened(&batch)?,
            false => batch,
        };
        // The counted bytes must be those that are held.
        let batch = if self.memory.is_some() { compact(&batch)? } else { batch };
        self.pieces.push(Piece::new(first, batch));
        let joined = join_small(self.layout.schema(), &mut self.pieces);
        // Also when joining failed.
        self.count();
        joined?;
        self.move_to_disk()
    }

    /// Records that the rows before `start` are archived or released, and removes those before `kept`.
    pub(super) fn cut(&mut self, kept: u64, start: u64) {
        self.start = start;
        let pieces = std::mem::take(&mut self.pieces);
        self.pieces = pieces.iter().filter_map(|piece| piece.part(kept, u64::MAX)).collect();
        if self.pieces.iter().all(|piece| piece.batch().is_some()) {
            self.file = None;
        }
        self.count();
    }

    fn count(&mut self) {
        let unarchived = self.pieces.iter().filter(|piece| piece.end() > self.start);
        self.bytes = unarchived.map(|piece| piece.bytes).sum();
        let in_memory: usize = self.pieces.iter().map(Piece::in_memory).sum();
        if let Some(memory) = &self.memory {
            memory.tail_grown(in_memory.saturating_sub(self.in_memory));
            memory.tail_shrunk(self.in_memory.saturating_sub(in_memory));
        }
        self.in_memory = in_memory;
    }

    /// Spills the oldest batches while tails exceed their part of the limit.
    fn move_to_disk(&mut self) -> Result<()> {
        let Some(memory) = self.memory.clone() else { return Ok(()) };
        while memory.tail_is_over(self.in_memory) {
            let oldest = self.pieces.iter().position(|piece| piece.batch().is_some());
            let Some(at) = oldest else { return Ok(()) };
            let Some(piece) = self.pieces.get(at) else { return Ok(()) };
            let written = self.write(piece, &memory)?;
            self.file = written.last().and_then(|piece| match &piece.place {
                Stored::Disk { file, .. } => Some(Arc::clone(file)),
                Stored::Memory(_) => None,
            });
            self.pieces.splice(at..=at, written);
            self.count();
        }
        Ok(())
    }

    fn write(&self, piece: &Piece, memory: &Memory) -> Result<Vec<Piece>> {
        let file = match &self.file {
            Some(file) if file.bytes() < FILE_BYTES => Arc::clone(file),
            _ => memory.tail_file()?,
        };
        let mut written = vec![];
        for first in (piece.first..piece.end()).step_by(DISK_ROWS) {
            let Some(part) = piece.part(first, first + DISK_ROWS as u64) else { continue };
            let at = file.append(&compact(&part.load()?)?)?;
            let place = Stored::Disk { file: Arc::clone(&file), at, skip: 0, layout: None };
            written.push(Piece { place, ..part });
        }
        Ok(written)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.tail_shrunk(self.in_memory);
        }
    }
}

/// Joins the small batches at the end; at each step, those with fewer rows than it.
fn join_small(schema: &SchemaRef, pieces: &mut Vec<Piece>) -> Result<()> {
    for step in JOIN_ROWS {
        let (mut rows, mut tail) = (0, pieces.len());
        while let Some(piece) = tail.checked_sub(1).and_then(|at| pieces.get(at))
            && piece.rows < step
            && piece.batch().is_some()
        {
            rows += piece.rows;
            tail -= 1;
        }
        let small = pieces.get(tail..).unwrap_or_default();
        let Some(first) = small.first().filter(|_| small.len() > 1 && rows >= step) else {
            continue;
        };
        let joined = concat_batches(schema, small.iter().filter_map(Piece::batch))?;
        let joined = Piece::new(first.first, joined);
        pieces.truncate(tail);
        pieces.push(joined);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(rows: std::ops::Range<u64>) -> RecordBatch {
        let n: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.map(|n| n as i64)));
        RecordBatch::try_from_iter([("n", n)]).unwrap()
    }

    /// Checks that every row is at its offset.
    fn check(tail: &Tail, rows: std::ops::Range<u64>) {
        let mut next = rows.start;
        for piece in tail.pieces() {
            assert_eq!(piece.first, next);
            for n in piece.load().unwrap().column(0).as_primitive::<Int64Type>().values() {
                assert_eq!(*n as u64, next);
                next += 1;
            }
        }
        assert_eq!(next, rows.end);
    }

    #[test]
    fn many_small_batches_are_read_as_a_few() {
        let mut tail = Tail::new(batch(0..0).schema(), None);
        let (mut end, mut most) = (0, 0);
        for round in 0..12_000 {
            // Some larger ones, so that sizes are mixed.
            let rows = if round % 1_000 == 999 { 700 } else { 1 + u64::from(round % 7 == 0) };
            tail.push(end, batch(end..end + rows)).unwrap();
            end += rows;
            most = most.max(tail.pieces().iter().filter(|piece| piece.rows < 8_192).count());
        }
        assert!(most < 200, "{most} small batches");
        check(&tail, 0..end);
        assert!(tail.at(end).is_none() && tail.at(end - 1).is_some());
    }

    #[test]
    fn what_is_too_much_lies_on_disk() {
        let memory = Memory::new(4 << 20, None, None);
        let schema = batch(0..0).schema();
        let mut tails = [0, 1].map(|_| Tail::new(Arc::clone(&schema), Some(Arc::clone(&memory))));
        let mut end = 0;
        for round in 0..400 {
            let rows = if round % 3 == 0 { 20_000 } else { 100 };
            for tail in &mut tails {
                tail.push(end, batch(end..end + rows)).unwrap();
            }
            end += rows;
            let in_memory: usize = tails.iter().map(|tail| tail.in_memory).sum();
            // The part for tails, and the part that each may have.
            assert!(in_memory <= (4 << 20) / 8 + 2 * (4 << 20) / 64, "{in_memory}");
        }
        check(&tails[0], 0..end);
        assert!(tails[0].bytes() >= end as usize * 8);
        tails[0].cut(end - 30_001, end - 30_001);
        check(&tails[0], end - 30_001..end);
        for tail in &mut tails {
            tail.cut(end, end);
            assert_eq!((tail.bytes(), tail.in_memory), (0, 0));
        }
        assert!(!memory.tail_is_over(usize::MAX));
    }
}
