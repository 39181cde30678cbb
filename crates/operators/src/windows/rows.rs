//! Windows that hold rows unchanged, for joins of windows and for ranking rows.

use std::collections::BTreeMap;

use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result};

use super::{Part, Windows, next_end};
use crate::segments::{Body, Segment};
use crate::spec::OperatorSpec;

/// Slices of rows, by start and by the end of the first window in which the rows count.
#[derive(Debug, Default)]
pub(crate) struct RowWindows {
    slices: BTreeMap<(i64, i64), Vec<RecordBatch>>,
}

impl Windows for RowWindows {
    fn add(&mut self, _spec: &OperatorSpec, segment: Segment) -> Result<()> {
        let Body::Rows(rows) = segment.body else {
            return Err(Error::internal("a slice of rows holds an aggregate"));
        };
        self.slices.entry((segment.slice, segment.counts_from)).or_default().extend(rows);
        Ok(())
    }

    fn next_end(&self, spec: &OperatorSpec, frontier: i64) -> Option<i64> {
        next_end(spec, frontier, self.slices.keys())
    }

    fn close(&mut self, spec: &OperatorSpec, end: i64) -> Result<Vec<Part>> {
        let slicing = spec.slicing();
        let window = (slicing.start_of(end), i64::MIN)..(end, i64::MIN);
        let parts = self
            .slices
            .range(window)
            .filter(|((_, from), _)| *from <= end)
            .flat_map(|(_, batches)| batches)
            .map(|batch| (batch.columns().to_vec(), batch.num_rows()))
            .collect();
        while let Some(first) = self.slices.first_entry() {
            if slicing.last_end(first.key().0) > end {
                break;
            }
            first.remove();
        }
        Ok(parts)
    }

    fn last_slice(&self) -> Option<i64> {
        self.slices.keys().next_back().map(|(slice, _)| *slice)
    }

    fn size_bytes(&self) -> usize {
        self.slices.values().flatten().map(RecordBatch::get_array_memory_size).sum()
    }

    fn slice_bytes(&self, key: (i64, i64)) -> Option<usize> {
        let batches = self.slices.get(&key).into_iter().flatten();
        Some(batches.map(RecordBatch::get_array_memory_size).sum())
    }
}
