//! Batches that are stored: small ones are concatenated, and none retains the bytes of other rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StructArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use windrow_core::Result;

/// Views are compacted when their buffers hold more than this many times the visible bytes…
const PINNED_FACTOR: usize = 2;
/// … and at least this many bytes.
const PINNED_BYTES_MIN: usize = 64 << 10;

/// Batches of fewer rows are concatenated…
const SMALL_ROWS: usize = 1024;
/// … up to this many rows.
const TOGETHER_ROWS: usize = 8192;

/// Concatenates neighbours where batches are small: under light load a micro-batch is a few rows, and the operators
/// after a window should not pay for each.
pub(crate) fn together(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let mut out: Vec<RecordBatch> = vec![];
    let mut small: Vec<RecordBatch> = vec![];
    let mut rows = 0;
    for batch in batches {
        if batch.num_rows() >= SMALL_ROWS || rows >= TOGETHER_ROWS {
            put_together(&mut small, &mut out)?;
            rows = 0;
        }
        if batch.num_rows() >= SMALL_ROWS {
            out.push(batch);
        } else {
            rows += batch.num_rows();
            small.push(batch);
        }
    }
    put_together(&mut small, &mut out)?;
    Ok(out)
}

fn put_together(small: &mut Vec<RecordBatch>, out: &mut Vec<RecordBatch>) -> Result<()> {
    if small.len() > 1
        && let Some(first) = small.first()
    {
        out.push(concat_batches(&first.schema(), small.iter())?);
        small.clear();
    }
    out.append(small);
    Ok(())
}

/// Copies the visible bytes when they are much fewer than the bytes retained: string views retain whole buffers, most
/// of which belongs to rows that were filtered out.
pub(crate) fn without_foreign_bytes(batch: RecordBatch) -> Result<RecordBatch> {
    let mut changed: Option<Vec<ArrayRef>> = None;
    for (i, column) in batch.columns().iter().enumerate() {
        if let Some(compact) = compact_views(column)
            && let Some(slot) = changed.get_or_insert_with(|| batch.columns().to_vec()).get_mut(i)
        {
            *slot = compact;
        }
    }
    let Some(columns) = changed else {
        return Ok(batch);
    };
    with_columns(&batch, columns, batch.num_rows())
}

/// Returns the batch with other columns of the same types.
pub(crate) fn with_columns(
    batch: &RecordBatch,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

fn compact_views(column: &ArrayRef) -> Option<ArrayRef> {
    match column.data_type() {
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
    }
}

/// Returns a column that retains only what is visible in it, in the form in which it would be written: views,
/// dictionaries, and those inside lists and structs, share buffers with other rows.
pub(crate) fn alone(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Dictionary(_, values) => {
            let plain = cast(column, values)?;
            cast(&plain, column.data_type())?
        }
        DataType::List(item) => {
            let list = column.as_list::<i32>();
            let values = alone(list.values())?;
            Arc::new(ListArray::try_new(
                Arc::clone(item),
                list.offsets().clone(),
                values,
                list.nulls().cloned(),
            )?)
        }
        DataType::Struct(fields) => {
            let parts = column.as_struct();
            let columns = parts.columns().iter().map(alone).collect::<Result<_>>()?;
            let (len, nulls) = (parts.len(), parts.nulls().cloned());
            Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, len)?)
        }
        _ => compact_views(column).unwrap_or_else(|| Arc::clone(column)),
    })
}

/// Returns the batch with columns that retain little more than what is visible, in the form in which they would be
/// written.
///
/// # Errors
/// When a column cannot be copied (a bug in Windrow).
pub fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(alone).collect::<Result<_>>()?;
    with_columns(batch, columns, batch.num_rows())
}

fn pins(buffers: &[arrow::buffer::Buffer], used: usize) -> bool {
    let held: usize = buffers.iter().map(arrow::buffer::Buffer::capacity).sum();
    held > PINNED_BYTES_MIN && held > used.saturating_mul(PINNED_FACTOR)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn numbers(from: i64, to: i64) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let numbers = Int64Array::from_iter_values(from..to);
        RecordBatch::try_new(schema, vec![Arc::new(numbers)]).unwrap()
    }

    #[test]
    fn small_batches_are_put_together_in_order() {
        let mut batches: Vec<_> = (0..20_000).map(|n| numbers(n, n + 1)).collect();
        batches.push(numbers(20_000, 30_000));
        batches.push(numbers(30_000, 30_010));
        let out = together(batches).unwrap();
        assert!(out.len() <= 5, "{}", out.len());
        let all = concat_batches(&out[0].schema(), &out).unwrap();
        assert_eq!(all, numbers(0, 30_010));
    }

    #[test]
    fn what_was_filtered_out_is_not_kept_alive() {
        let text = "a text that does not fit into a view ".repeat(10);
        let views: ArrayRef =
            Arc::new(StringViewArray::from_iter_values((0..1000).map(|n| format!("{text}{n}"))));
        let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8View, false)]));
        let batch = RecordBatch::try_new(schema, vec![views]).unwrap();
        let one = without_foreign_bytes(batch.slice(7, 1)).unwrap();
        assert_eq!(one, batch.slice(7, 1));
        assert!(one.get_array_memory_size() < 10_000);
        let all = without_foreign_bytes(batch.clone()).unwrap();
        assert_eq!(all.get_array_memory_size(), batch.get_array_memory_size());
    }
}
