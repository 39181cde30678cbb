//! The order of rows of one time, so that no answer depends on which arrived first.

use std::ops::Range;

use arrow::array::UInt32Array;
use arrow::compute::{SortOptions, take};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use windrow_core::Result;

use super::piece::times;

/// How columns are compared.
pub(crate) fn sort_fields(input: &SchemaRef, columns: &[(usize, SortOptions)]) -> Vec<SortField> {
    let fields = columns.iter().filter_map(|(column, options)| {
        let field = input.fields().get(*column)?;
        Some(SortField::new_with_options(field.data_type().clone(), *options))
    });
    fields.collect()
}

/// See the module.
pub(crate) struct Ties {
    columns: Vec<(usize, SortOptions)>,
    types: Vec<SortField>,
    /// Whether rows of one time are always sorted; otherwise only if one key has several.
    pub(crate) always: bool,
    never: bool,
    converter: Option<RowConverter>,
    /// The last time with several rows at which a key had a row.
    seen: Vec<u64>,
    times: u64,
}

impl Ties {
    /// `columns` of `input` order the rows. `always`: also if no key has several rows at one time; `never`: not even
    /// then, unless always.
    pub(crate) fn new(
        input: &SchemaRef,
        columns: Vec<(usize, SortOptions)>,
        (always, never): (bool, bool),
    ) -> Self {
        let types = sort_fields(input, &columns);
        Self { columns, types, always, never, converter: None, seen: vec![], times: 0 }
    }

    /// Returns the order of the rows of a sorted batch; `None` when they are in order. `numbers`: those of the keys, of
    /// `total`.
    pub(crate) fn order(
        &mut self,
        batch: &RecordBatch,
        (numbers, total): (&[usize], usize),
    ) -> Result<Option<Vec<u32>>> {
        if self.never && !self.always {
            return Ok(None);
        }
        let runs = self.runs(times(batch)?, numbers, total);
        if runs.is_empty() {
            return Ok(None);
        }
        let converter = match self.converter.take() {
            Some(converter) => Some(converter),
            None => RowConverter::new(self.types.clone()).ok(),
        };
        let Some(converter) = converter else { return Ok(None) };
        let tied = runs.iter().cloned().flatten().filter_map(|row| u32::try_from(row).ok());
        let tied = UInt32Array::from_iter_values(tied);
        let columns = self.columns.iter().filter_map(|(column, _)| batch.columns().get(*column));
        let columns = columns.map(|column| take(column, &tied, None));
        let comparable = converter.convert_columns(&columns.collect::<Result<Vec<_>, _>>()?)?;
        let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
        let mut before = 0;
        let mut places: Vec<u32> = vec![];
        for run in runs {
            places.clear();
            places.extend(before as u32..(before + run.len()) as u32);
            places.sort_by(|a, b| comparable.row(*a as usize).cmp(&comparable.row(*b as usize)));
            for (slot, place) in order[run.clone()].iter_mut().zip(&places) {
                *slot = tied.value(*place as usize);
            }
            before += run.len();
        }
        self.converter = Some(converter);
        Ok(Some(order))
    }

    /// The ranges of rows of one time that have to be sorted, time by time.
    fn runs(&mut self, times: &[i64], numbers: &[usize], total: usize) -> Vec<Range<usize>> {
        let mut runs = vec![];
        let mut start = 0;
        for run in times.chunk_by(|a, b| a == b) {
            let rows = start..start + run.len();
            start = rows.end;
            if run.len() == 1 {
                continue;
            }
            if self.always {
                runs.push(rows);
                continue;
            }
            self.seen.resize(total.max(self.seen.len()), 0);
            self.times += 1;
            let mut again = false;
            for key in &numbers[rows.clone()] {
                again |= std::mem::replace(&mut self.seen[*key], self.times) == self.times;
            }
            if again {
                runs.push(rows);
            }
        }
        runs
    }
}
