//! Comparison of rows by value.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::cmp::not_distinct;
use windrow_core::Result;

/// Compares two lists of rows, row by row; NULL equals NULL. Without columns, all rows are equal.
///
/// # Errors
/// When the types of the columns differ.
pub(crate) fn same_rows(a: &[ArrayRef], b: &[ArrayRef], rows: usize) -> Result<BooleanBuffer> {
    let mut same = BooleanBuffer::new_set(rows);
    for (a, b) in a.iter().zip(b) {
        let equal = match a.data_type().is_nested() {
            false => not_distinct(a, b)?.values().clone(),
            true => BooleanBuffer::collect_bool(rows, |row| {
                a.slice(row, 1).to_data() == b.slice(row, 1).to_data()
            }),
        };
        same = &same & &equal;
    }
    Ok(same)
}
