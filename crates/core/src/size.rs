//! Sizes in bytes: of a batch, as queues, logs and memory limits count it, and as people write them.

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

/// Parses bytes as people write them: a whole number and a unit, of thousands (kB, MB, GB, TB) or of 1024 (KiB, MiB, GiB,
/// TiB); without a unit, bytes.
///
/// # Errors
/// What is wrong with the text, as a sentence for messages.
pub fn parse_bytes(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1_000,
        "mb" | "m" => 1_000_000,
        "gb" | "g" => 1_000_000_000,
        "tb" | "t" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err("write a whole number and a unit, such as 256MB or 4GiB".to_owned()),
    };
    let number: u64 =
        number.parse().map_err(|e| format!("\"{number}\" is not a number of bytes: {e}"))?;
    number.checked_mul(factor).ok_or_else(|| "that is more than can be addressed".to_owned())
}

fn viewed_bytes<T: ByteViewType>(views: &GenericByteViewArray<T>) -> usize {
    size_of_val(views.views().as_ref()) + views.total_buffer_bytes_used()
}
