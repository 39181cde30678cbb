//! Windows that keep rows as they are: for joins of windows and for ranking raw rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::{Error, Result};

use crate::OperatorSpec;
use crate::merger::{Part, Windows};
use crate::segment::{Body, Segment};

/// Views are compacted when their buffers hold more than this many times what they show…
const PINNED_FACTOR: usize = 2;
/// … and at least this many bytes.
const PINNED_BYTES_MIN: usize = 64 << 10;

/// Slices of rows, by start and by the end of the first window that the rows count in.
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
}

/// End of the first window after `frontier` in which one of the (slice, counts from) `keys`,
/// ascending, counts.
pub(crate) fn next_end<'a>(
    spec: &OperatorSpec,
    frontier: i64,
    keys: impl Iterator<Item = &'a (i64, i64)>,
) -> Option<i64> {
    let slicing = spec.slicing();
    let mut next: Option<i64> = None;
    for &(slice, from) in keys {
        let earliest = slicing.end_after(slice, frontier);
        if next.is_some_and(|next| next <= earliest) {
            break; // Later slices have no earlier window.
        }
        let end = slicing.end_after(slice, frontier.max(from.saturating_sub(1)));
        if end <= slicing.last_end(slice) && next.is_none_or(|next| end < next) {
            next = Some(end);
        }
    }
    next
}

/// String views keep whole buffers alive that mostly belong to rows that were filtered out:
/// copies what is shown when that is much less.
pub(crate) fn without_foreign_bytes(batch: RecordBatch) -> Result<RecordBatch> {
    let mut changed: Option<Vec<ArrayRef>> = None;
    for (i, column) in batch.columns().iter().enumerate() {
        let compact: Option<ArrayRef> = match column.data_type() {
            DataType::Utf8View => {
                let views = column.as_string_view();
                pins(views.data_buffers(), views.total_buffer_bytes_used())
                    .then(|| Arc::new(views.gc()) as ArrayRef)
            }
            DataType::BinaryView => {
                let views = column.as_binary_view();
                pins(views.data_buffers(), views.total_buffer_bytes_used())
                    .then(|| Arc::new(views.gc()) as ArrayRef)
            }
            _ => None,
        };
        if let Some(compact) = compact
            && let Some(slot) = changed.get_or_insert_with(|| batch.columns().to_vec()).get_mut(i)
        {
            *slot = compact;
        }
    }
    let Some(columns) = changed else {
        return Ok(batch);
    };
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn pins(buffers: &[arrow::buffer::Buffer], used: usize) -> bool {
    let held: usize = buffers.iter().map(arrow::buffer::Buffer::capacity).sum();
    held > PINNED_BYTES_MIN && held > used.saturating_mul(PINNED_FACTOR)
}
