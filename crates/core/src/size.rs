//! The size of a batch in bytes, as queues, logs and memory limits count it.

use arrow::array::{Array, AsArray, GenericByteViewArray};
use arrow::datatypes::{ByteViewType, DataType};
use arrow::record_batch::RecordBatch;

use crate::Result;

/// As [`shown_bytes`]; a batch that cannot be measured that way counts all the buffers that it holds. (The columns of a
/// decoded message share one buffer, and each would count all of it.)
pub fn bytes_of(batch: &RecordBatch) -> usize {
    shown_bytes(batch).unwrap_or_else(|_unknown| batch.get_array_memory_size())
}

/// Bytes of the rows visible in the batch, not of the buffers that they are slices of.
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
