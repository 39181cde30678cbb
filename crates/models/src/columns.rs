//! Columns as tensors, and tensors as columns.
//!
//! Columns have no NULL here: what is below a NULL is any value, and the result of its row is discarded.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, PrimitiveArray, StringArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int32Type, Int64Type,
};
use tract_onnx::prelude::{Datum, DatumType, IntoTValue, TValue, Tensor};
use tract_onnx::tract_hir::internal::tensor1;
use windrow_core::{Error, Result};

use crate::failure::failed;
use crate::signature::{Input, Output, item};

/// Returns the rows from `start` on of the columns of an input as a tensor.
///
/// # Errors
/// When the columns have other types (a bug).
pub(crate) fn tensor(
    input: &Input,
    columns: &[ArrayRef],
    start: usize,
    rows: usize,
) -> Result<TValue> {
    let tensor = match &input.data_type {
        DataType::Float32 => numbers::<Float32Type>(columns, start, rows),
        DataType::Float64 => numbers::<Float64Type>(columns, start, rows),
        DataType::Int32 => numbers::<Int32Type>(columns, start, rows),
        DataType::Int64 => numbers::<Int64Type>(columns, start, rows),
        DataType::Boolean => {
            by_row(columns, start, rows, |column, row| Some(column.as_boolean_opt()?.value(row)))
                .map(|values| tensor1(&values))
        }
        DataType::Utf8 => by_row(columns, start, rows, |column, row| {
            Some(column.as_string_opt::<i32>()?.value(row).to_owned())
        })
        .map(|values| tensor1(&values)),
        _ => None,
    };
    let tensor =
        tensor.ok_or_else(|| Error::internal("the columns of a model have other types"))?;
    let shape: Vec<usize> = std::iter::once(rows).chain(input.width).collect();
    Ok(tensor.into_shape(&shape).map_err(|e| failed(&e))?.into_tvalue())
}

/// Rows of numbers, one row after the other; `None`: a column has another type.
fn numbers<T>(columns: &[ArrayRef], start: usize, rows: usize) -> Option<Tensor>
where
    T: ArrowPrimitiveType,
    T::Native: Datum + Copy + Default,
{
    let width = columns.len();
    let mut values = vec![T::Native::default(); rows * width];
    for (at, column) in columns.iter().enumerate() {
        let column = column.as_primitive_opt::<T>()?.values().get(start..start + rows)?;
        for (row, value) in values.chunks_exact_mut(width).zip(column) {
            *row.get_mut(at)? = *value;
        }
    }
    Some(tensor1(&values))
}

/// Rows of other values likewise.
fn by_row<T>(
    columns: &[ArrayRef],
    start: usize,
    rows: usize,
    value: impl Fn(&ArrayRef, usize) -> Option<T>,
) -> Option<Vec<T>> {
    let all = (start..start + rows).flat_map(|row| columns.iter().map(move |column| (column, row)));
    all.map(|(column, row)| value(column, row)).collect()
}

/// The values of an output, as they come.
#[derive(Debug)]
pub(crate) enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

impl Values {
    /// Creates the empty values of an output.
    pub(crate) fn of(output: &Output) -> Self {
        match output.data_type {
            DataType::Float32 => Self::F32(vec![]),
            DataType::Float64 => Self::F64(vec![]),
            DataType::Int32 => Self::I32(vec![]),
            DataType::Boolean => Self::Bool(vec![]),
            DataType::Utf8 => Self::Text(vec![]),
            _ => Self::I64(vec![]),
        }
    }

    /// Adds the values of a tensor of `count` values.
    ///
    /// # Errors
    /// When it has another type or another number of values.
    pub(crate) fn add(&mut self, tensor: &Tensor, count: usize) -> Result<()> {
        fn all<T: Datum>(into: &mut Vec<T>, tensor: &Tensor, count: usize) -> Result<()> {
            let tensor = match tensor.datum_type() {
                DatumType::TDim => tensor.cast_to::<i64>().map_err(|e| failed(&e))?,
                _ => Cow::Borrowed(tensor),
            };
            let values = tensor.to_plain_array_view::<T>().map_err(|e| failed(&e))?;
            if values.len() != count {
                return Err(Error::data(
                    "the model returns another number of rows than it is given",
                )
                .with_hint("Export it with a first dimension that varies."));
            }
            into.extend(values.iter().cloned());
            Ok(())
        }
        match self {
            Self::F32(into) => all(into, tensor, count),
            Self::F64(into) => all(into, tensor, count),
            Self::I32(into) => all(into, tensor, count),
            Self::I64(into) => all(into, tensor, count),
            Self::Bool(into) => all(into, tensor, count),
            Self::Text(into) => all(into, tensor, count),
        }
    }

    /// Returns the column of the output.
    ///
    /// # Errors
    /// When the numbers of values and rows do not match (a bug).
    pub(crate) fn column(self, output: &Output, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        let Some(width) = output.list else { return Ok(self.array(nulls)) };
        let values = self.array(None);
        let rows = values.len() / width.max(1);
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(width, rows));
        Ok(Arc::new(ListArray::try_new(item(&output.data_type), offsets, values, nulls)?))
    }

    fn array(self, nulls: Option<NullBuffer>) -> ArrayRef {
        match self {
            Self::F32(values) => Arc::new(PrimitiveArray::<Float32Type>::new(values.into(), nulls)),
            Self::F64(values) => Arc::new(PrimitiveArray::<Float64Type>::new(values.into(), nulls)),
            Self::I32(values) => Arc::new(PrimitiveArray::<Int32Type>::new(values.into(), nulls)),
            Self::I64(values) => Arc::new(PrimitiveArray::<Int64Type>::new(values.into(), nulls)),
            Self::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Self::Text(values) => {
                let is_null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                let rows = values.iter().enumerate();
                let texts = rows.map(|(row, text)| (!is_null(row)).then_some(text.as_str()));
                Arc::new(texts.collect::<StringArray>())
            }
        }
    }
}
