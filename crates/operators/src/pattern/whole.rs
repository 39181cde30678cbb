//! The bounded form: all rows of a partition at once.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListArray, StructArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::RowConverter;
use windrow_core::Result;

use super::PatternSpec;
use super::output::Matches;
use super::table::Table;
use crate::in_order::{OrderedTable, sort_fields};

impl PatternSpec {
    /// The type of the result of [`matches`](Self::matches).
    pub fn matches_type(&self) -> DataType {
        DataType::List(Arc::new(Field::new_list_field(self.output_type(), true)))
    }

    /// Returns the results of the matches among the rows of a partition, whose columns are those of the input, in any
    /// order: a list for each row, in no particular order.
    ///
    /// # Errors
    /// When an expression fails.
    pub fn matches(&self, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let schema = Arc::clone(&self.state_schema);
        let batch = RecordBatch::try_new_with_options(schema, columns.to_vec(), &options)?;
        let spec = Arc::new(self.clone());
        let mut table = Table::new(&spec, false)?;
        let mut matches = Matches::new(self);
        table.whole(self.sorted(&batch)?, &mut matches)?;
        let results = matches.finish(&table.store)?;
        let (values, starts) = match results {
            Some((results, starts)) => (StructArray::from(results.rows), starts),
            None => {
                let nothing = RecordBatch::new_empty(Arc::clone(&self.output_schema));
                (StructArray::from(nothing), vec![])
            }
        };
        let mut lengths = vec![0_usize; rows];
        for start in starts {
            if let Some(length) = lengths.get_mut(start as usize) {
                *length += 1;
            }
        }
        let item = Arc::new(Field::new_list_field(self.output_type(), true));
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(values), None)?))
    }

    /// The rows in their order.
    fn sorted(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        // Columns that cannot be compared do not order rows in the continuous form either.
        let mut ties = self.ties.clone();
        let converter = RowConverter::new(sort_fields(&self.plan.input, &ties));
        let converter = match converter {
            Ok(converter) => converter,
            Err(_) => {
                ties.truncate(self.plan.order.len());
                RowConverter::new(sort_fields(&self.plan.input, &ties))?
            }
        };
        let columns = ties.iter().filter_map(|(column, _)| batch.columns().get(*column).cloned());
        let comparable = converter.convert_columns(&columns.collect::<Vec<_>>())?;
        let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
        order.sort_by(|a, b| comparable.row(*a as usize).cmp(&comparable.row(*b as usize)));
        Ok(take_record_batch(batch, &UInt32Array::from(order))?)
    }
}
