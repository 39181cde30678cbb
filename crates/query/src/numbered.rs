//! Rows with their numbers in a hidden last column, which traced plans pass through.

use std::sync::Arc;

use arrow::array::{Array, AsArray, UInt64Array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result};
use windrow_sql::plan::ROW_COLUMN;

/// Appends the hidden column: `first` for the first row.
pub(crate) fn number_rows(batch: &RecordBatch, first: u64) -> Result<RecordBatch> {
    let numbers = UInt64Array::from_iter_values(first..first + batch.num_rows() as u64);
    let mut fields = batch.schema().fields().to_vec();
    fields.push(Arc::new(Field::new(ROW_COLUMN, DataType::UInt64, false)));
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(numbers));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Returns the rows of a traced plan in the order of the rows that they come from, without the hidden column. Several rows
/// that come from one are in the order of their values.
pub(crate) fn in_order_of_numbers(rows: &[RecordBatch]) -> Result<Option<RecordBatch>> {
    let Some(first) = rows.first() else { return Ok(None) };
    let rows = concat_batches(&first.schema(), rows)?;
    let (numbers, values) = rows
        .columns()
        .split_last()
        .ok_or_else(|| Error::internal("the row number of a traced plan is lost"))?;
    let increasing = numbers
        .as_primitive_opt::<UInt64Type>()
        .is_some_and(|numbers| numbers.values().is_sorted_by(|a, b| a < b));
    let columns: Vec<usize> = (0..values.len()).collect();
    if increasing {
        return Ok(Some(rows.project(&columns)?));
    }
    let comparable = values.iter().filter(|column| !column.data_type().is_nested());
    let by: Vec<SortColumn> = std::iter::once(numbers)
        .chain(comparable)
        .map(|column| SortColumn { values: Arc::clone(column), options: None })
        .collect();
    let order = lexsort_to_indices(&by, None)?;
    Ok(Some(take_record_batch(&rows.project(&columns)?, &order)?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn rows_of_one_row_are_in_the_order_of_their_values() {
        let batch = |values: Vec<i64>, numbers: Vec<u64>| {
            let columns: [(&str, ArrayRef); 2] = [
                ("v", Arc::new(Int64Array::from(values))),
                (ROW_COLUMN, Arc::new(UInt64Array::from(numbers))),
            ];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let values = |rows: &[RecordBatch]| {
            let rows = in_order_of_numbers(rows).unwrap().unwrap();
            assert_eq!(rows.num_columns(), 1);
            rows.column(0).as_primitive::<Int64Type>().values().to_vec()
        };
        assert_eq!(values(&[batch(vec![3, 9], vec![0, 2]), batch(vec![1], vec![5])]), [3, 9, 1]);
        assert_eq!(values(&[batch(vec![3, 9], vec![7, 2]), batch(vec![1], vec![7])]), [9, 1, 3]);
        assert!(in_order_of_numbers(&[]).unwrap().is_none());
    }
}
