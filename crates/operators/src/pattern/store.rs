//! The rows of all keys, numbered in the order in which they were added, with the variables that each may be mapped to.
//!
//! Rows are held as batches. A batch that is not much larger than the next one is concatenated with it, so that the
//! number of batches is logarithmic.
//!
//! Invariants: `times` and `variables` have an entry per row; batches follow one another without a gap.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::{concat_batches, interleave};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, ErrorKind, Result};

use crate::batches;
use crate::in_order::piece::times;
use crate::survey::Times;

/// No row.
pub(super) const NONE: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    schema: SchemaRef,
    /// With the number of the first row of each.
    batches: Vec<(u32, RecordBatch)>,
    times: Vec<i64>,
    /// As bits.
    variables: Vec<u64>,
}

impl Store {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self { schema, batches: vec![], times: vec![], variables: vec![] }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// Adds rows that may be mapped to any variable; returns the number of the first. `timed`: the first column is a
    /// time.
    pub(super) fn add(&mut self, batch: RecordBatch, timed: bool) -> Result<u32> {
        let first = self.times.len();
        let end = first + batch.num_rows();
        if end >= NONE as usize {
            return Err(Error::new(
                ErrorKind::Limit,
                "MATCH_RECOGNIZE holds more than four billion rows",
            )
            .with_hint("Add WITHIN INTERVAL '…', so that old rows can go."));
        }
        let first = first as u32;
        match timed {
            true => self.times.extend_from_slice(times(&batch)?),
            false => self.times.resize(end, 0),
        }
        self.variables.resize(end, u64::MAX);
        let mut batch = (first, batch);
        while let Some((before, smaller)) =
            self.batches.pop_if(|(_, before)| before.num_rows() <= batch.1.num_rows() * 2)
        {
            let both = concat_batches(&self.schema, [&smaller, &batch.1])?;
            batch = (before, batches::without_foreign_bytes(both)?);
        }
        self.batches.push(batch);
        Ok(first)
    }

    /// The first and the last time.
    pub(super) fn times(&self) -> Times {
        self.times.first().copied().zip(self.times.last().copied())
    }

    pub(super) fn time(&self, row: u32) -> i64 {
        self.times.get(row as usize).copied().unwrap_or(i64::MAX)
    }

    /// The variables that a row may be mapped to, as far as that does not depend on other rows of a match.
    pub(super) fn variables(&self, row: u32) -> u64 {
        self.variables.get(row as usize).copied().unwrap_or(0)
    }

    /// Restricts the variables that a row may be mapped to.
    pub(super) fn restrict(&mut self, row: usize, variables: u64) {
        if let Some(slot) = self.variables.get_mut(row) {
            *slot &= variables;
        }
    }

    /// The batch of a row, and its index there.
    fn place(&self, row: u32) -> (usize, usize) {
        let at = self.batches.partition_point(|(first, _)| *first <= row).saturating_sub(1);
        let first = self.batches.get(at).map_or(0, |(first, _)| *first);
        (at, (row - first) as usize)
    }

    /// The value of one row, as an array.
    pub(super) fn one(&self, column: usize, row: u32) -> Result<ArrayRef> {
        let field = self.schema.fields().get(column);
        let field =
            field.ok_or_else(|| Error::internal("a pattern reads a column that does not exist"))?;
        if row == NONE {
            return Ok(new_null_array(field.data_type(), 1));
        }
        let (batch, at) = self.place(row);
        let column = self.batches.get(batch).and_then(|(_, batch)| batch.columns().get(column));
        let column = column.ok_or_else(|| Error::internal("a row of a pattern is lost"))?;
        Ok(column.slice(at, 1))
    }

    /// The values of rows, NULL for those that are [`NONE`].
    pub(super) fn gather(&self, column: usize, rows: &[u32]) -> Result<ArrayRef> {
        let field = self.schema.fields().get(column);
        let field =
            field.ok_or_else(|| Error::internal("a pattern reads a column that does not exist"))?;
        let nothing = new_null_array(field.data_type(), 1);
        let columns = self.batches.iter().filter_map(|(_, batch)| batch.columns().get(column));
        let mut arrays: Vec<&dyn arrow::array::Array> = columns.map(AsRef::as_ref).collect();
        arrays.push(nothing.as_ref());
        let null = (arrays.len() - 1, 0);
        let place = |row: &u32| if *row == NONE { null } else { self.place(*row) };
        let places: Vec<(usize, usize)> = rows.iter().map(place).collect();
        Ok(interleave(&arrays, &places)?)
    }

    /// All columns of rows.
    pub(super) fn rows(&self, rows: &[u32]) -> Result<RecordBatch> {
        let columns = (0..self.schema.fields().len()).map(|column| self.gather(column, rows));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_>>()?)?)
    }

    /// Drops all but some rows, and renumbers these from 0.
    pub(super) fn keep(&mut self, rows: &[u32]) -> Result<()> {
        let batch = match rows {
            [] => None,
            rows => Some(batches::compact(&self.rows(rows)?)?),
        };
        self.times = rows.iter().map(|row| self.time(*row)).collect();
        self.variables = rows.iter().map(|row| self.variables(*row)).collect();
        self.batches = batch.map(|batch| (0, batch)).into_iter().collect();
        Ok(())
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        let batches = self.batches.iter().map(|(_, batch)| batch.get_array_memory_size());
        batches.sum::<usize>() + (self.times.capacity() + self.variables.capacity()) * 8
    }
}
