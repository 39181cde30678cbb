//! How many bytes a batch takes: what queues, logs and limits of memory count by.

use arrow::array::{Array, AsArray, GenericByteViewArray};
use arrow::datatypes::{ByteViewType, DataType};
use arrow::record_batch::RecordBatch;

use crate::Result;

/// As [`shown_bytes`]; what cannot be told by what it shows counts as what it holds. (Columns of a
/// decoded message hold parts of one buffer, and each would count it wholly.)
pub fn bytes_of(batch: &RecordBatch) -> usize {
    shown_bytes(batch).unwrap_or_else(|_unknown| batch.get_array_memory_size())
}

/// Bytes of the rows that are shown, not of the buffers that they are part of.
///
/// # Errors
/// When a column is of a type whose slices Arrow cannot measure.
pub fn shown_bytes(batch: &RecordBatch) -> Result<usize> {
    let sizes = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Ok(viewed_bytes(column.as_string_view())),
        DataType::BinaryView => Ok(viewed_bytes(column.as_binary_view())),
        _ => column.to_data().get_slice_memory_size(),
    });
    Ok(sizes.sum::<Result<usize, _>>()?)
}

fn viewed_bytes<T: ByteViewType>(views: &GenericByteViewArray<T>) -> usize {
    size_of_val(views.views().as_ref()) + views.total_buffer_bytes_used()
}
