//! The current rows of an updating result, folded from its changes.
//!
//! A checkpoint has the rows as they are stored, each with its count; see [`States`].
//!
//! Invariant: after each [`Answer::apply`] the rows are those of the result, each as often as it occurs.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Change, Error, ErrorKind, Result, change};

use super::states::States;
use crate::segments::kept::{Cut, SavedState, SegmentId, corrupt};
use crate::table::Interner;

/// The maximum number of rows in a batch of [`Answer::rows`].
const BATCH_ROWS: usize = 8_192;

/// Keys without rows are kept until there are this many.
const ABSENT_MIN: usize = 4_096;

/// The current rows of an updating result.
///
/// Rows with the same key replace each other; without a key, equal rows are counted. Keys without rows are dropped once they
/// are more than half of all.
pub struct Answer {
    /// The columns, without the change column.
    schema: SchemaRef,
    /// The columns of the key; all columns, if rows are removed by value.
    key: Vec<usize>,
    /// Whether rows with the same key replace each other.
    replaces: bool,
    interner: Interner,
    /// The rows; the second state is their count.
    rows: States,
    /// How often the row of each key occurs.
    counts: Vec<u32>,
    /// The number of keys whose row does not occur.
    absent: usize,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("keys", &self.counts.len()).finish_non_exhaustive()
    }
}

impl Answer {
    /// An answer without rows. `key`: the columns of its key; `None`: rows are removed by value.
    ///
    /// # Errors
    /// When values of the key cannot be compared.
    pub fn new(schema: SchemaRef, key: Option<&[usize]>) -> Result<Self> {
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let columns = key.map_or(all, <[usize]>::to_vec);
        let fields: Schema = schema.project(&columns)?;
        Ok(Self {
            interner: Interner::of(&Arc::new(fields), 0)?,
            schema,
            key: columns,
            replaces: key.is_some(),
            rows: States::default(),
            counts: vec![],
            absent: 0,
        })
    }

    /// The columns of its key, without which rows are removed by value.
    pub fn key(&self) -> Option<&[usize]> {
        self.replaces.then_some(self.key.as_slice())
    }

    /// The columns, without the change column.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Applies changes, whose first column is the change column.
    ///
    /// # Errors
    /// Limit when a row occurs more than 2^32 times; Internal when the changes do not belong to this answer.
    pub fn apply(&mut self, changes: &RecordBatch) -> Result<()> {
        let Some((kinds, columns)) = changes.columns().split_first() else {
            return Err(Error::internal("changes without columns"));
        };
        let kinds = change::read(kinds)?;
        let numbers = self.numbers(columns, kinds.len())?;
        let mut touched: Vec<(usize, u32)> = Vec::with_capacity(kinds.len());
        for ((kind, number), row) in kinds.iter().zip(&numbers).zip(0_u32..) {
            if *number == self.counts.len() {
                self.counts.push(0);
                self.absent += 1;
            }
            let Some(count) = self.counts.get_mut(*number) else {
                return Err(Error::internal("keys are not numbered in order"));
            };
            let before = *count;
            match (self.replaces, kind) {
                (true, Change::UpdateBefore) => {}
                (true, kind) => *count = u32::from(kind.adds()),
                (false, kind) if kind.adds() => {
                    *count = count.checked_add(1).ok_or_else(too_often)?;
                }
                (false, _) => {
                    let fewer = count.checked_sub(1);
                    *count = fewer.ok_or_else(|| Error::internal("a row is removed twice"))?;
                }
            }
            self.absent = self.absent + usize::from(*count == 0) - usize::from(before == 0);
            // The values before an update are not those of the row, unless it is new.
            if !(self.replaces && *kind == Change::UpdateBefore && *number < self.rows.len()) {
                touched.push((*number, row));
            }
        }
        self.store(columns, touched)?;
        self.drop_absent()
    }

    /// Numbers the keys of rows.
    fn numbers(&mut self, columns: &[ArrayRef], rows: usize) -> Result<Vec<usize>> {
        let mut keys = Vec::with_capacity(self.key.len());
        for column in &self.key {
            let column = columns.get(*column);
            keys.push(Arc::clone(column.ok_or_else(|| Error::internal("changes without a key"))?));
        }
        let mut numbers = vec![];
        self.interner.intern(&keys, rows, &mut numbers)?;
        Ok(numbers)
    }

    /// Stores the rows of `columns` that keys have now, as pairs of key and row; the last one of a key counts.
    fn store(&mut self, columns: &[ArrayRef], mut touched: Vec<(usize, u32)>) -> Result<()> {
        touched.sort_unstable();
        let mut groups: Vec<u32> = Vec::with_capacity(touched.len());
        let mut stored: Vec<u32> = Vec::with_capacity(touched.len());
        let mut counts: Vec<u32> = Vec::with_capacity(touched.len());
        for (at, (number, row)) in touched.iter().enumerate() {
            if touched.get(at + 1).is_some_and(|(next, _)| next == number) {
                continue;
            }
            groups.push(u32::try_from(*number).map_err(|_| Error::internal("too many rows"))?);
            stored.push(*row);
            counts.extend(self.counts.get(*number));
        }
        if groups.is_empty() {
            return Ok(());
        }
        let stored = UInt32Array::from(stored);
        let columns: Vec<ArrayRef> =
            columns.iter().map(|column| take(column, &stored, None)).collect::<Result<_, _>>()?;
        let rows = groups.len() as u64;
        self.rows.put(groups, vec![columns, vec![Arc::new(UInt32Array::from(counts))]], rows)
    }

    /// Drops the keys without rows, if they are many, by adding all rows again.
    fn drop_absent(&mut self) -> Result<()> {
        if self.absent < ABSENT_MIN || self.absent * 2 < self.counts.len() {
            return Ok(());
        }
        let key = self.replaces.then_some(self.key.as_slice());
        let mut fresh = Self::new(Arc::clone(&self.schema), key)?;
        fresh.rows = self.rows.successor();
        let present = (0_u32..).zip(&self.counts).filter(|(_, count)| **count > 0);
        let present: Vec<u32> = present.map(|(group, _)| group).collect();
        for groups in present.chunks(BATCH_ROWS) {
            let columns = self.rows.get(groups, 1)?.pop().unwrap_or_default();
            // Each key once, however often its row occurs.
            let numbers = fresh.numbers(&columns, groups.len())?;
            fresh.counts.extend(groups.iter().filter_map(|g| self.counts.get(*g as usize)));
            fresh.store(&columns, numbers.into_iter().zip(0_u32..).collect())?;
        }
        *self = fresh;
        Ok(())
    }

    /// Returns the current rows.
    ///
    /// # Errors
    /// When they cannot be gathered.
    pub fn rows(&self) -> Result<Vec<RecordBatch>> {
        let present = (0_u32..).zip(&self.counts);
        let groups: Vec<u32> = present
            .flat_map(|(group, count)| std::iter::repeat_n(group, *count as usize))
            .collect();
        let mut batches = vec![];
        for groups in groups.chunks(BATCH_ROWS) {
            let columns = self.rows.get(groups, 1)?.pop().unwrap_or_default();
            let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
            let schema = Arc::clone(&self.schema);
            batches.push(RecordBatch::try_new_with_options(schema, columns, &options)?);
        }
        Ok(batches)
    }

    /// The number of current rows.
    pub fn len(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// Whether there are no current rows.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// Returns what a checkpoint needs of the current rows.
    ///
    /// # Errors
    /// When they cannot be gathered.
    pub fn cut(&mut self) -> Result<Cut> {
        let schema = self.stored_schema();
        self.rows.cut(None, |states, rows| {
            let columns = states.iter().flatten().cloned().collect();
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?)
        })
    }

    /// Adds the rows of a cut to an answer without rows.
    ///
    /// # Errors
    /// Corrupt when a segment cannot belong to such a cut.
    pub fn restore(&mut self, state: SavedState<'_>) -> Result<()> {
        let schema = self.stored_schema();
        let mut chunks = vec![];
        for segment in state.segments {
            let segment = segment?;
            let (id, age, rows) = (segment.id, segment.slice, segment.rows);
            let batches = segment.into_batches()?;
            let same = |batch: &RecordBatch| {
                let fields = batch.columns().iter().zip(schema.fields());
                batch.num_columns() == schema.fields().len()
                    && fields.into_iter().all(|(c, f)| c.data_type() == f.data_type())
            };
            match batches.first() {
                Some(first) if batches.iter().all(same) => {
                    chunks.push((age, id, rows, concat_batches(&first.schema(), &batches)?));
                }
                _ => return Err(corrupt(id, "has other columns")),
            }
        }
        chunks.sort_by_key(|(age, ..)| *age);
        for (age, id, rows, chunk) in chunks {
            self.restore_chunk((age, id, rows), &chunk)?;
        }
        self.absent = self.counts.iter().filter(|count| **count == 0).count();
        self.rows.restored(state.next_id)
    }

    fn restore_chunk(&mut self, of: (i64, SegmentId, u64), chunk: &RecordBatch) -> Result<()> {
        let Some((counts, columns)) = chunk.columns().split_last() else {
            return Err(corrupt(of.1, "has no columns"));
        };
        let keys: Vec<ArrayRef> =
            self.key.iter().filter_map(|column| columns.get(*column).cloned()).collect();
        let mut numbers = vec![];
        self.interner.intern(&keys, chunk.num_rows(), &mut numbers)?;
        let known = counts.as_primitive_opt::<UInt32Type>();
        let known = known.ok_or_else(|| corrupt(of.1, "has no counts"))?;
        self.counts.resize(self.interner.len(), 0);
        let mut groups = Vec::with_capacity(numbers.len());
        for (number, count) in numbers.iter().zip(known.values()) {
            if let Some(slot) = self.counts.get_mut(*number) {
                *slot = *count;
            }
            groups.push(u32::try_from(*number).map_err(|_| Error::internal("too many rows"))?);
        }
        self.rows.restore(of, groups, vec![columns.to_vec(), vec![Arc::clone(counts)]])
    }

    /// The columns of a segment: those of the rows, and their count.
    fn stored_schema(&self) -> SchemaRef {
        let named = |(i, field): (usize, &Arc<Field>)| {
            Field::new(format!("c{i}"), field.data_type().clone(), true)
        };
        let mut fields: Vec<_> = self.schema.fields().iter().enumerate().map(named).collect();
        fields.push(Field::new("count", DataType::UInt32, false));
        Arc::new(Schema::new(fields))
    }

    /// About the bytes of a copy of the rows, each as often as it occurs.
    pub fn copy_bytes(&self) -> usize {
        let (bytes, keys) = (self.size_bytes(), self.counts.len().max(1) as u64);
        let again = self.len().saturating_sub(keys);
        let more = bytes as u128 * u128::from(again) / u128::from(keys);
        bytes.saturating_add(usize::try_from(more).unwrap_or(usize::MAX))
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        let counts = self.counts.capacity() * size_of::<u32>();
        self.interner.size_bytes() + self.rows.size_bytes() + counts
    }
}

/// The error of a row that occurs more often than is counted.
fn too_often() -> Error {
    let message = format!("a row of an updating result occurs more than {} times", u32::MAX);
    Error::new(ErrorKind::Limit, message).with_hint(
        "Select a column that tells its rows apart, or count them: GROUP BY all columns.",
    )
}
