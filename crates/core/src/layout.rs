//! The columns of stored rows, where columns may have been added after rows were stored.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};

use crate::error::{Error, Result};

/// Columns of which the last ones are missing in rows that were stored before they were added.
#[derive(Debug, Clone)]
pub struct Layout {
    schema: SchemaRef,
    added: Vec<ArrayRef>,
}

impl Layout {
    /// Returns columns of which the last ones were added. `added`: their values in rows that lack them, each an array with one
    /// value.
    pub fn new(schema: SchemaRef, added: Vec<ArrayRef>) -> Self {
        Self { schema, added }
    }

    /// All columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The values of the added columns in rows that lack them.
    pub fn added(&self) -> &[ArrayRef] {
        &self.added
    }

    /// The number of columns that were there from the beginning.
    pub fn original(&self) -> usize {
        self.schema.fields().len().saturating_sub(self.added.len())
    }

    /// The value of a column in rows that lack it, as an array with one value; `None`: all rows have it.
    pub fn fill(&self, column: usize) -> Option<&ArrayRef> {
        self.added.get(column.checked_sub(self.original())?)
    }

    /// The values of a column in a number of rows that lack it; NULL in a column that all rows have.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn missing(&self, column: usize, rows: usize) -> Result<ArrayRef> {
        let field = self.schema.fields().get(column);
        let field = field.ok_or_else(|| Error::internal("there is no such column"))?;
        match self.fill(column).filter(|one| one.null_count() == 0) {
            Some(one) => Ok(take(one, &UInt32Array::from(vec![0; rows]), None)?),
            None => Ok(new_null_array(field.data_type(), rows)),
        }
    }

    /// Whether rows with these columns are rows of the layout, except for columns that were added; metadata is ignored.
    pub fn extends(&self, narrow: &Schema) -> bool {
        let (all, some) = (self.schema.fields(), narrow.fields());
        (self.original()..=all.len()).contains(&some.len())
            && all.iter().zip(some).all(|(x, y)| {
                x.name() == y.name()
                    && x.data_type().equals_datatype(y.data_type())
                    && x.is_nullable() == y.is_nullable()
            })
    }

    /// Returns rows with all columns and exactly this schema.
    ///
    /// # Errors
    /// When columns are missing that were not added, or types or nulls do not fit.
    pub fn widened(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let count = rows.num_rows();
        let mut columns = rows.columns().to_vec();
        for column in columns.len().max(self.original())..self.schema.fields().len() {
            columns.push(self.missing(column, count)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int32Array, Int64Array};
    use arrow::datatypes::{DataType, Field, Int32Type};

    use super::*;

    #[test]
    fn rows_get_the_columns_that_they_lack() {
        let fields = |names: &[&str]| {
            let field = |name: &&str| Field::new(*name, DataType::Int32, true);
            Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()))
        };
        let seven: ArrayRef = Arc::new(Int32Array::from(vec![7]));
        let null: ArrayRef = Arc::new(Int32Array::from(vec![None]));
        let layout = Layout::new(fields(&["a", "b", "c"]), vec![seven, null]);
        let a: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let narrow = RecordBatch::try_new(fields(&["a"]), vec![Arc::clone(&a)]).unwrap();
        let wide = layout.widened(&narrow).unwrap();
        assert_eq!(wide.column(1).as_primitive::<Int32Type>().values(), &[7, 7]);
        assert_eq!(wide.column(2).null_count(), 2);
        let between = RecordBatch::try_new(fields(&["a", "b"]), vec![Arc::clone(&a), a]).unwrap();
        let wide = layout.widened(&between).unwrap();
        assert_eq!(wide.column(1).as_primitive::<Int32Type>().values(), &[1, 2]);
        assert!(layout.extends(&fields(&["a"])) && layout.extends(&fields(&["a", "b", "c"])));
        assert!(!layout.extends(&fields(&[])) && !layout.extends(&fields(&["b"])));
        let other: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let other = RecordBatch::try_from_iter([("a", other)]).unwrap();
        assert!(layout.widened(&other).is_err());
        assert!(Layout::new(fields(&["a", "b"]), vec![]).widened(&narrow).is_err());
    }
}
