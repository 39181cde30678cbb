//! Sorting rows by all of their columns, in little memory.
//!
//! ```text
//! rows ─► run (in memory, ordered) ─► disk │ … │ 32 runs at a time, chunk by chunk ─► ordered rows
//! ```
//! DataFusion's own sort fails when the pool is short while it merges; the windows that are sorted here were too large
//! for memory in the first place, so this sort takes a fixed part of the limit, however many rows there are.
//!
//! Invariants: the order depends on the values alone, and is that of `Output` for rows that fit in memory. A run, and
//! the chunks that are merged, take the part of the limit for windows that are read back; the encoded rows by which
//! they are compared take about as much again.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows, SortField};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use windrow_core::Result;
use windrow_core::size::bytes_of;
use windrow_operators::{SpillFile, SpillSpace, SpilledFile, compact};

use super::OperatorMemory;

/// Runs that are merged at a time.
const RUNS_MERGED: usize = 32;
/// The size of a chunk is the maximum size of a run divided by this.
const CHUNK_PART: usize = 128;
/// The least size of a chunk, in bytes: each chunk is a stream of its own in its file.
const CHUNK_BYTES_MIN: usize = 8 << 10;
/// Rows of a chunk at most.
const CHUNK_ROWS: usize = 8_192;

/// Sorts rows by all columns that can be compared.
pub fn sorted(
    rows: BoxStream<'static, Result<RecordBatch>>,
    schema: SchemaRef,
    memory: Arc<OperatorMemory>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let ordered = async move {
        let mut sorter = Sorter::new(&schema, memory)?;
        let mut rows = rows;
        while let Some(batch) = rows.try_next().await? {
            sorter.push(batch)?;
        }
        drop(rows);
        sorter.finish()
    };
    stream::once(ordered)
        .map_ok(|merge| {
            stream::try_unfold(merge, |mut merge| async move {
                Ok(merge.next_rows()?.map(|rows| (rows, merge)))
            })
        })
        .try_flatten()
        .boxed()
}

/// The positions of the chunks of a run, in order.
#[derive(Debug, Clone)]
struct Run {
    file: Arc<dyn SpilledFile>,
    places: Vec<u64>,
}

struct Sorter {
    order: Arc<RowOrder>,
    memory: Arc<OperatorMemory>,
    /// The memory taken from the pool.
    _held: Held,
    run_bytes_max: usize,
    run: Vec<RecordBatch>,
    run_bytes: usize,
    runs: Vec<Run>,
}

/// Bytes of the pool, returned when this is dropped.
struct Held(Arc<OperatorMemory>, usize);

impl Held {
    fn new(memory: &Arc<OperatorMemory>, bytes: usize) -> Self {
        memory.memory.pool.take(bytes);
        Self(Arc::clone(memory), bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.memory.pool.give(self.1);
    }
}

/// Compares rows by all columns that can be compared.
struct RowOrder {
    columns: Vec<usize>,
    converter: RowConverter,
}

impl RowOrder {
    fn new(schema: &SchemaRef) -> Result<Self> {
        let fields = schema.fields().iter().enumerate();
        let (columns, fields) = fields
            .filter(|(_, field)| !field.data_type().is_nested())
            .map(|(i, field)| (i, SortField::new(field.data_type().clone())))
            .unzip();
        Ok(Self { columns, converter: RowConverter::new(fields)? })
    }

    /// Encodes rows for comparison; `None`: no column can be compared.
    fn rows(&self, batch: &RecordBatch) -> Result<Option<Rows>> {
        if self.columns.is_empty() {
            return Ok(None);
        }
        let columns: Vec<_> = self.columns.iter().map(|c| Arc::clone(batch.column(*c))).collect();
        Ok(Some(self.converter.convert_columns(&columns)?))
    }
}

impl Sorter {
    fn new(schema: &SchemaRef, memory: Arc<OperatorMemory>) -> Result<Self> {
        let run_bytes_max = memory.pass_bytes();
        Ok(Self {
            order: Arc::new(RowOrder::new(schema)?),
            // A run, and its encoded rows.
            _held: Held::new(&memory, run_bytes_max * 2),
            memory,
            run_bytes_max,
            run: vec![],
            run_bytes: 0,
            runs: vec![],
        })
    }

    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        self.run_bytes += bytes_of(&batch);
        self.run.push(batch);
        if self.run_bytes >= self.run_bytes_max {
            self.end_run()?;
        }
        Ok(())
    }

    /// The number of rows per chunk, for `rows` rows that take `bytes`.
    fn chunk_rows(&self, rows: usize, bytes: usize) -> usize {
        let chunk = (self.run_bytes_max / CHUNK_PART).max(CHUNK_BYTES_MIN);
        (rows / (bytes / chunk).max(1)).clamp(1, CHUNK_ROWS)
    }

    fn end_run(&mut self) -> Result<()> {
        let run = std::mem::take(&mut self.run);
        let rows: usize = run.iter().map(RecordBatch::num_rows).sum();
        let chunk = self.chunk_rows(rows, self.run_bytes);
        self.run_bytes = 0;
        let order = in_order(&self.order, &run)?;
        let batches: Vec<&RecordBatch> = run.iter().collect();
        let mut writing = Writing::new(self.memory.as_ref())?;
        for chunk in order.chunks(chunk) {
            writing.append(&gather(&batches, chunk)?)?;
        }
        self.runs.push(writing.finish()?);
        Ok(())
    }

    /// Returns the rows in order, once all have been pushed.
    fn finish(mut self) -> Result<Merge> {
        if self.runs.is_empty() {
            let (run, held) = (std::mem::take(&mut self.run), self._held);
            let order = in_order(&self.order, &run)?;
            return Ok(Merge::of_memory(self.order, run, order, held));
        }
        if !self.run.is_empty() {
            self.end_run()?;
        }
        // Runs are merged to longer ones while there are too many.
        while self.runs.len() > RUNS_MERGED {
            let some = self.runs.drain(..RUNS_MERGED).collect();
            let mut merge = Merge::of_runs(Arc::clone(&self.order), some)?;
            let mut writing = Writing::new(self.memory.as_ref())?;
            while let Some(rows) = merge.next_rows()? {
                writing.append(&rows)?;
            }
            self.runs.push(writing.finish()?);
        }
        let mut merge = Merge::of_runs(self.order, self.runs)?;
        merge.held = Some(self._held);
        Ok(merge)
    }
}

/// Returns the places (batch, row) of all rows, in order.
fn in_order(order: &RowOrder, run: &[RecordBatch]) -> Result<Vec<(usize, usize)>> {
    let mut places: Vec<(usize, usize)> = run
        .iter()
        .enumerate()
        .flat_map(|(at, batch)| (0..batch.num_rows()).map(move |row| (at, row)))
        .collect();
    let rows = run.iter().map(|batch| order.rows(batch)).collect::<Result<Option<Vec<Rows>>>>()?;
    if let Some(rows) = rows {
        let row = |(batch, row): &(usize, usize)| rows.get(*batch).map(|rows| rows.row(*row));
        places.sort_by(|a, b| row(a).cmp(&row(b)));
    }
    Ok(places)
}

/// Copies the rows at these places.
fn gather(batches: &[&RecordBatch], places: &[(usize, usize)]) -> Result<RecordBatch> {
    compact(&interleave_record_batch(batches, places)?)
}

struct Writing {
    file: Box<dyn SpillFile>,
    places: Vec<u64>,
}

impl Writing {
    fn new(space: &dyn SpillSpace) -> Result<Self> {
        Ok(Self { file: space.create()?, places: vec![] })
    }

    fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        self.places.push(self.file.append(rows)?);
        Ok(())
    }

    fn finish(self) -> Result<Run> {
        Ok(Run { file: self.file.finish()?, places: self.places })
    }
}

/// A merge of runs, or the rows of one run in memory.
struct Merge {
    order: Arc<RowOrder>,
    cursors: Vec<Cursor>,
    /// A binary heap of the cursors that have rows, by index: the first one has the least row.
    heap: Vec<usize>,
    /// For rows that fit in memory: the batches, and the places of the remaining rows in order.
    whole: (Vec<RecordBatch>, std::vec::IntoIter<(usize, usize)>),
    held: Option<Held>,
}

/// A position in a run.
struct Cursor {
    run: Run,
    next_place: usize,
    batch: RecordBatch,
    rows: Option<Rows>,
    row: usize,
}

impl Cursor {
    /// Loads the next chunk; returns `false` when there is none.
    fn load(&mut self, order: &RowOrder) -> Result<bool> {
        let Some(place) = self.run.places.get(self.next_place) else { return Ok(false) };
        self.batch = self.run.file.read(*place)?;
        self.rows = order.rows(&self.batch)?;
        self.next_place += 1;
        self.row = 0;
        Ok(true)
    }
}

impl Merge {
    fn of_memory(
        order: Arc<RowOrder>,
        run: Vec<RecordBatch>,
        places: Vec<(usize, usize)>,
        held: Held,
    ) -> Self {
        let whole = (run, places.into_iter());
        Self { order, cursors: vec![], heap: vec![], whole, held: Some(held) }
    }

    fn of_runs(order: Arc<RowOrder>, runs: Vec<Run>) -> Result<Self> {
        let mut cursors = Vec::with_capacity(runs.len());
        for run in runs {
            let batch = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
            let mut cursor = Cursor { run, next_place: 0, batch, rows: None, row: 0 };
            if cursor.load(&order)? {
                cursors.push(cursor);
            }
        }
        let heap = (0..cursors.len()).collect();
        let whole = (vec![], vec![].into_iter());
        let mut merge = Self { order, cursors, heap, whole, held: None };
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sink(at);
        }
        Ok(merge)
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        let row = |at: usize| {
            let cursor = self.cursors.get(at)?;
            cursor.rows.as_ref().map(|rows| rows.row(cursor.row))
        };
        row(a).cmp(&row(b)).then(a.cmp(&b))
    }

    /// Sifts down the cursor at this place of the heap.
    fn sink(&mut self, mut at: usize) {
        while let Some(left) = self.heap.get(2 * at + 1).copied() {
            let mut least = (2 * at + 1, left);
            if let Some(right) = self.heap.get(2 * at + 2).copied()
                && self.compare(right, left).is_lt()
            {
                least = (2 * at + 2, right);
            }
            let Some(mine) = self.heap.get(at).copied() else { return };
            if self.compare(mine, least.1).is_lt() {
                return;
            }
            self.heap.swap(at, least.0);
            at = least.0;
        }
    }

    /// Returns the next rows; `None` when there are no more.
    fn next_rows(&mut self) -> Result<Option<RecordBatch>> {
        let (run, places) = &mut self.whole;
        let some: Vec<_> = places.by_ref().take(CHUNK_ROWS).collect();
        if !some.is_empty() {
            let batches: Vec<&RecordBatch> = run.iter().collect();
            return Ok(Some(gather(&batches, &some)?));
        }
        // Each cursor's batch; those that were read to their end remain until the rows are copied.
        let mut batches: Vec<RecordBatch> = self.cursors.iter().map(|c| c.batch.clone()).collect();
        let mut stands: Vec<usize> = (0..batches.len()).collect();
        let mut taken: Vec<(usize, usize)> = vec![];
        let batches_max = batches.len() * 2;
        while taken.len() < CHUNK_ROWS && batches.len() <= batches_max {
            let Some(first) = self.heap.first().copied() else { break };
            let (Some(cursor), Some(stand)) = (self.cursors.get_mut(first), stands.get_mut(first))
            else {
                break;
            };
            taken.push((*stand, cursor.row));
            cursor.row += 1;
            if cursor.row >= cursor.batch.num_rows() {
                if cursor.load(&self.order)? {
                    batches.push(cursor.batch.clone());
                    *stand = batches.len() - 1;
                } else {
                    self.heap.swap_remove(0);
                }
            }
            self.sink(0);
        }
        if taken.is_empty() {
            self.held = None;
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        Ok(Some(gather(&batches, &taken)?))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray};
    use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};

    use super::*;
    use crate::memory::Memory;

    fn batch(from: i64, rows: i64) -> RecordBatch {
        let mix = |i: i64| (i * 7_919 + 13) % 1_009;
        let n: ArrayRef = Arc::new(Int64Array::from_iter(
            (from..from + rows).map(|i| (i % 11 != 0).then(|| mix(i))),
        ));
        let f: ArrayRef = Arc::new(Float64Array::from_iter_values(
            (from..from + rows).map(|i| if i % 3 == 0 { -0.0 } else { (i % 5) as f64 }),
        ));
        let s: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            (from..from + rows).map(|i| format!("{}-long enough for a buffer-{i}", mix(i))),
        ));
        RecordBatch::try_from_iter_with_nullable([("n", n, true), ("f", f, true), ("s", s, true)])
            .unwrap()
    }

    #[tokio::test]
    async fn any_number_of_runs_gives_the_order_of_values() {
        for (rows, runs) in [(0, 0), (900, 0), (9_000, 9), (40_000, 40)] {
            let memory = Memory::new(512 << 10, None, None);
            let spilled = Arc::new(AtomicU64::new(0));
            let operator = memory.operator("q", &spilled);
            let batches: Vec<_> = (0..rows / 100).map(|i| batch(i * 100, 100)).collect();
            let schema = batch(0, 1).schema();
            let input = stream::iter(batches.clone().into_iter().map(Ok)).boxed();
            let mut out = vec![];
            let mut ordered = sorted(input, Arc::clone(&schema), operator);
            while let Some(rows) = ordered.try_next().await.unwrap() {
                assert!(rows.num_rows() <= CHUNK_ROWS);
                out.push(rows);
            }
            drop(ordered);
            let whole = concat_batches(&schema, &batches).unwrap();
            let columns: Vec<SortColumn> = whole
                .columns()
                .iter()
                .map(|c| SortColumn { values: Arc::clone(c), options: None })
                .collect();
            let order = lexsort_to_indices(&columns, None).unwrap();
            let expected = take_record_batch(&whole, &order).unwrap();
            assert_eq!(concat_batches(&schema, &out).unwrap(), expected);
            let bytes = spilled.load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(bytes > 0, runs > 0, "{rows} rows: {bytes} on disk");
            assert!(bytes <= rows as u64 * 400, "{rows} rows: {bytes} on disk");
            assert_eq!(memory.pool_reserved(), 0);
        }
    }
}
