//! What a model takes and returns: tensors of the file as columns of SQL.
//!
//! The first dimension of every tensor is the row. An input of the shape `[N, k]` takes k columns, one of `[N]` takes one. An
//! output of `[N]` or `[N, 1]` is a value per row, one of `[N, k]` a list.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use tract_onnx::prelude::{DatumType, TypedFact};
use tract_onnx::tract_hir::internal::{Factoid as _, InferenceFact, Symbol, TDim};
use windrow_core::{Error, Result, sql_type};

/// Features of one input at most: whatever a file declares, its columns fit into memory.
const WIDTH_MAX: i64 = 65_536;

/// An input of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its name in the file.
    pub name: String,
    /// The type of its columns.
    pub data_type: DataType,
    /// How many columns it takes; `None`: one, without a dimension of its own.
    pub width: Option<usize>,
}

/// An output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name in the file.
    pub name: String,
    /// The type of its values.
    pub data_type: DataType,
    /// How many values a row has; `None`: one, which is not in a list.
    pub list: Option<usize>,
}

impl Input {
    /// Returns the input of a fact of the file. It still has the batch dimension of the file.
    ///
    /// # Errors
    /// When its type or shape cannot be given as columns.
    pub(crate) fn of(name: &str, fact: &InferenceFact) -> Result<Self> {
        let wrong = |what: String| Error::data(format!("input \"{name}\" of the model {what}"));
        let datum = fact.datum_type.concretize();
        let datum = datum.ok_or_else(|| wrong("has no type".to_owned()))?;
        let data_type = column_type(datum).ok_or_else(|| {
            wrong(format!("has the type {datum:?}"))
                .with_hint("Supported are float, double, int32, int64, bool and string tensors.")
        })?;
        let dims: Vec<Option<i64>> =
            fact.shape.dims().map(|d| d.concretize().and_then(|d| d.to_i64().ok())).collect();
        let width = match (fact.shape.is_open(), dims.as_slice()) {
            (false, [_]) => None,
            (false, [_, Some(width)]) if (1..=WIDTH_MAX).contains(width) => {
                Some(usize::try_from(*width).unwrap_or(0))
            }
            (false, [_, None]) => {
                return Err(wrong("has an unknown number of features".to_owned())
                    .with_hint("Export it with the number: FloatTensorType([None, 4])."));
            }
            _ => {
                return Err(wrong(format!("has the shape {}", shape(fact))).with_hint(
                    "Rows of a model are its first dimension, and each has one value or a fixed number of them: [N] or [N, k].",
                ));
            }
        };
        Ok(Self { name: name.to_owned(), data_type, width })
    }

    /// Returns how many columns it takes.
    pub fn columns(&self) -> usize {
        self.width.unwrap_or(1)
    }

    /// Returns the shape as text, `N` for the rows.
    pub fn shape(&self) -> String {
        self.width.map_or_else(|| "[N]".to_owned(), |width| format!("[N, {width}]"))
    }

    /// Returns the fact of the input with any number of rows.
    pub(crate) fn fact(&self, rows: &Symbol) -> Option<InferenceFact> {
        let dims: Vec<TDim> = std::iter::once(rows.clone().into())
            .chain(self.width.map(|width| TDim::from(width as i64)))
            .collect();
        Some(InferenceFact::dt_shape(datum_type(&self.data_type)?, dims.as_slice()))
    }
}

impl Output {
    /// Returns the output of a fact of the graph, whose rows are `rows`.
    ///
    /// # Errors
    /// When its type or shape is no column with a value per row.
    pub(crate) fn of(name: &str, fact: &TypedFact, rows: &Symbol) -> Result<Self> {
        let wrong = |what: String| Error::data(format!("output \"{name}\" of the model {what}"));
        // Whole numbers that the library could take for dimensions.
        let datum = match fact.datum_type {
            DatumType::TDim => DatumType::I64,
            other => other,
        };
        let data_type = column_type(datum).ok_or_else(|| {
            wrong(format!("has the type {:?}", fact.datum_type))
                .with_hint("Supported are float, double, int32, int64, bool and string tensors.")
        })?;
        let dims = fact.shape.dims();
        let list = match dims {
            [first] if is_rows(first, rows) => None,
            [first, second] if is_rows(first, rows) => match second.to_i64() {
                Ok(1) => None,
                Ok(width) if width > 1 => Some(usize::try_from(width).unwrap_or(0)),
                _ => return Err(wrong("has an unknown number of values per row".to_owned())),
            },
            _ => {
                let shown: Vec<String> = dims.iter().map(ToString::to_string).collect();
                return Err(wrong(format!("has the shape [{}]", shown.join(", "))).with_hint(
                    "An output has one value or a fixed number of them for each row: [N] or [N, k]. Export with a first \
                     dimension that varies: dynamic_axes of torch.onnx.export, None in skl2onnx.",
                ));
            }
        };
        Ok(Self { name: name.to_owned(), data_type, list })
    }

    /// Returns the type of the column.
    pub fn column_type(&self) -> DataType {
        match self.list {
            Some(_) => DataType::List(item(&self.data_type)),
            None => self.data_type.clone(),
        }
    }

    /// Returns the shape as text, `N` for the rows.
    pub fn shape(&self) -> String {
        self.list.map_or_else(|| "[N]".to_owned(), |width| format!("[N, {width}]"))
    }
}

/// The field of the items of a list.
pub(crate) fn item(data_type: &DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(data_type.clone(), true))
}

/// The fields of a struct of outputs.
pub(crate) fn fields(outputs: &[Output]) -> Fields {
    outputs.iter().map(|output| Field::new(&output.name, output.column_type(), true)).collect()
}

/// The columns as they are written in SQL.
pub(crate) fn listed(columns: &[Field]) -> String {
    let each = |field: &Field| format!("{} {}", field.name(), sql_type(field.data_type()));
    columns.iter().map(each).collect::<Vec<_>>().join(", ")
}

fn is_rows(dim: &TDim, rows: &Symbol) -> bool {
    *dim == TDim::from(rows.clone())
}

fn shape(fact: &InferenceFact) -> String {
    let dim = |d: &tract_onnx::tract_hir::infer::GenericFactoid<TDim>| {
        d.concretize().map_or_else(|| "?".to_owned(), |d| d.to_string())
    };
    let dims: Vec<String> = fact.shape.dims().map(dim).collect();
    format!("[{}]", dims.join(", "))
}

/// The type of columns of a tensor; `None`: there is none.
pub(crate) fn column_type(datum: DatumType) -> Option<DataType> {
    Some(match datum {
        DatumType::F32 => DataType::Float32,
        DatumType::F64 => DataType::Float64,
        DatumType::I32 => DataType::Int32,
        DatumType::I64 => DataType::Int64,
        DatumType::Bool => DataType::Boolean,
        DatumType::String => DataType::Utf8,
        _ => return None,
    })
}

fn datum_type(data_type: &DataType) -> Option<DatumType> {
    Some(match data_type {
        DataType::Float32 => DatumType::F32,
        DataType::Float64 => DatumType::F64,
        DataType::Int32 => DatumType::I32,
        DataType::Int64 => DatumType::I64,
        DataType::Boolean => DatumType::Bool,
        DataType::Utf8 => DatumType::String,
        _ => return None,
    })
}
