//! The current rows of an updating result, folded from its changes.
//!
//! Invariant: after each [`Answer::apply`] the rows are those of the result, each as often as it occurs.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Change, Error, Result, change};

use super::states::States;
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

    /// The columns, without the change column.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Applies changes, whose first column is the change column.
    ///
    /// # Errors
    /// Internal when the changes do not belong to this answer.
    pub fn apply(&mut self, changes: &RecordBatch) -> Result<()> {
        let Some((kinds, columns)) = changes.columns().split_first() else {
            return Err(Error::internal("changes without columns"));
        };
        let kinds = change::read(kinds)?;
        let mut keys = Vec::with_capacity(self.key.len());
        for column in &self.key {
            let column = columns.get(*column);
            keys.push(Arc::clone(column.ok_or_else(|| Error::internal("changes without a key"))?));
        }
        let mut numbers = vec![];
        self.interner.intern(&keys, kinds.len(), &mut numbers)?;
        let (mut stored, mut groups): (Vec<u32>, Vec<u32>) = (vec![], vec![]);
        for ((kind, number), row) in kinds.iter().zip(&numbers).zip(0_u32..) {
            if *number == self.counts.len() {
                self.counts.push(0);
                self.absent += 1;
            }
            let is_new = *number >= self.rows.len() + groups.len();
            let Some(count) = self.counts.get_mut(*number) else {
                return Err(Error::internal("keys are not numbered in order"));
            };
            let before = *count;
            match (self.replaces, kind) {
                (true, Change::UpdateBefore) => {}
                (true, kind) => *count = u32::from(kind.adds()),
                (false, kind) if kind.adds() => *count += 1,
                (false, _) => {
                    let fewer = count.checked_sub(1);
                    *count = fewer.ok_or_else(|| Error::internal("a row is removed twice"))?;
                }
            }
            self.absent = self.absent + usize::from(*count == 0) - usize::from(before == 0);
            if is_new || (self.replaces && kind.adds()) {
                stored.push(row);
                groups.push(u32::try_from(*number).map_err(|_| Error::internal("too many rows"))?);
            }
        }
        if groups.is_empty() {
            return self.drop_absent();
        }
        let stored = UInt32Array::from(stored);
        let columns: Vec<ArrayRef> =
            columns.iter().map(|column| take(column, &stored, None)).collect::<Result<_, _>>()?;
        self.rows.put(groups, vec![columns])?;
        self.drop_absent()
    }

    /// Drops the keys without rows, if they are many, by adding all rows again.
    fn drop_absent(&mut self) -> Result<()> {
        if self.absent < ABSENT_MIN || self.absent * 2 < self.counts.len() {
            return Ok(());
        }
        let key = self.replaces.then_some(self.key.as_slice());
        let mut fresh = Self::new(Arc::clone(&self.schema), key)?;
        let mut fields = vec![Arc::new(change::field())];
        fields.extend(self.schema.fields().iter().cloned());
        let schema = Arc::new(Schema::new(fields));
        for rows in self.rows()? {
            let inserts = change::column(std::iter::repeat_n(Change::Insert, rows.num_rows()));
            let columns = std::iter::once(inserts).chain(rows.columns().iter().cloned());
            fresh.apply(&RecordBatch::try_new(Arc::clone(&schema), columns.collect())?)?;
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
            let columns = self.rows.get(groups)?.pop().unwrap_or_default();
            let options = RecordBatchOptions::new().with_row_count(Some(groups.len()));
            let schema = Arc::clone(&self.schema);
            batches.push(RecordBatch::try_new_with_options(schema, columns, &options)?);
        }
        Ok(batches)
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        let counts = self.counts.capacity() * size_of::<u32>();
        self.interner.size_bytes() + self.rows.size_bytes() + counts
    }
}
