//! Changes between operators: rows with weights, and rows as bytes that can be compared, stored and read back.
//!
//! Invariant: a row is added as often as its weight says, or removed if that is negative. Only a consolidated delta has each
//! row once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::array::{Array, ArrayRef, UInt32Array, new_empty_array, new_null_array};
use arrow::compute::{SortOptions, cast, concat, take};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use windrow_core::{Error, ErrorKind, Result};

/// Rows with weights.
#[derive(Debug, Clone)]
pub(super) struct Delta {
    pub(super) columns: Vec<ArrayRef>,
    /// How often each row is added; negative: removed.
    pub(super) weights: Vec<i64>,
}

impl Delta {
    /// No changes of rows with these columns.
    pub(super) fn nothing(schema: &SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|f| new_empty_array(f.data_type()));
        Self { columns: columns.collect(), weights: vec![] }
    }

    pub(super) fn rows(&self) -> usize {
        self.weights.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Selects rows.
    ///
    /// # Errors
    /// When the columns would be too long.
    pub(super) fn take(&self, rows: &[u32]) -> Result<Self> {
        let at = UInt32Array::from(rows.to_vec());
        let columns = self.columns.iter().map(|column| take(column, &at, None));
        let weight = |row: &u32| self.weights.get(*row as usize).copied().unwrap_or(0);
        Ok(Self {
            columns: columns.collect::<Result<_, _>>()?,
            weights: rows.iter().map(weight).collect(),
        })
    }

    /// Concatenates deltas of rows with the columns of `schema`.
    ///
    /// # Errors
    /// When the columns would be too long.
    pub(super) fn together(schema: &SchemaRef, deltas: Vec<Self>) -> Result<Self> {
        let mut deltas: Vec<Self> = deltas.into_iter().filter(|delta| !delta.is_empty()).collect();
        if deltas.len() < 2 {
            return Ok(deltas.pop().unwrap_or_else(|| Self::nothing(schema)));
        }
        let mut columns = Vec::with_capacity(schema.fields().len());
        for column in 0..schema.fields().len() {
            let parts: Option<Vec<&dyn Array>> =
                deltas.iter().map(|delta| Some(delta.columns.get(column)?.as_ref())).collect();
            let parts = parts.ok_or_else(|| Error::internal("changes of other rows"))?;
            columns.push(concat(&parts)?);
        }
        Ok(Self { columns, weights: deltas.into_iter().flat_map(|delta| delta.weights).collect() })
    }

    /// Sums the weights of equal rows, and drops rows without weight.
    ///
    /// # Errors
    /// When the rows cannot be compared; as [`added`].
    pub(super) fn consolidated(self, codec: &Codec) -> Result<Self> {
        if self.rows() < 2 {
            return Ok(self);
        }
        let encoded = codec.encode(&self.columns, self.rows())?;
        let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(self.rows());
        let (mut rows, mut weights): (Vec<u32>, Vec<i64>) = (vec![], vec![]);
        for (row, weight) in (0_u32..).zip(&self.weights) {
            match places.entry(encoded.row(row as usize)) {
                Entry::Occupied(place) => {
                    if let Some(sum) = weights.get_mut(*place.get()) {
                        *sum = added(*sum, *weight)?;
                    }
                }
                Entry::Vacant(place) => {
                    place.insert(rows.len());
                    rows.push(row);
                    weights.push(*weight);
                }
            }
        }
        if rows.len() == self.rows() && !weights.contains(&0) {
            return Ok(self);
        }
        let left: Vec<u32> =
            rows.iter().zip(&weights).filter(|(_, w)| **w != 0).map(|(row, _)| *row).collect();
        weights.retain(|weight| *weight != 0);
        Ok(Self { weights, ..self.take(&left)? })
    }
}

/// Converts rows to bytes and back. The bytes of equal rows are equal, and those of a row are no prefix of those of another;
/// they are ordered like the rows.
#[derive(Debug)]
pub(super) struct Codec {
    /// `None` without columns.
    converter: Option<RowConverter>,
    types: Vec<DataType>,
}

/// Rows as bytes.
#[derive(Debug)]
pub(super) enum Encoded {
    Rows(Rows),
    /// Rows without columns.
    Nothing,
}

impl Encoded {
    /// The bytes of a row.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        match self {
            Self::Rows(rows) => rows.row(row).data(),
            Self::Nothing => &[],
        }
    }
}

impl Codec {
    /// For rows without columns.
    pub(super) fn nothing() -> Self {
        Self { converter: None, types: vec![] }
    }

    /// For columns of these types, in ascending order.
    ///
    /// # Errors
    /// When values of a type cannot be compared.
    pub(super) fn new<'a>(types: impl IntoIterator<Item = &'a DataType>) -> Result<Self> {
        Self::ordered(types.into_iter().map(|data_type| (data_type, SortOptions::default())))
    }

    /// For all columns of a schema.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn of(schema: &SchemaRef) -> Result<Self> {
        Self::new(schema.fields().iter().map(|field| field.data_type()))
    }

    /// For columns in these orders.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn ordered<'a>(
        columns: impl IntoIterator<Item = (&'a DataType, SortOptions)>,
    ) -> Result<Self> {
        let columns: Vec<(&DataType, SortOptions)> = columns.into_iter().collect();
        let fields: Vec<SortField> = columns
            .iter()
            .map(|(data_type, options)| SortField::new_with_options((*data_type).clone(), *options))
            .collect();
        if let Some(at) =
            fields.iter().position(|f| !RowConverter::supports_fields(std::slice::from_ref(f)))
        {
            let of = columns.get(at).map_or(&DataType::Null, |(data_type, _)| *data_type);
            let message = format!(
                "rows with a column of type {} cannot be compared, so that they cannot be removed",
                windrow_core::sql_type(of)
            );
            return Err(Error::new(ErrorKind::Sql, message)
                .with_hint("Leave the column out, or convert it to text with CAST."));
        }
        let converter = match fields.is_empty() {
            true => None,
            false => Some(RowConverter::new(fields)?),
        };
        let types = columns.iter().map(|(data_type, _)| (*data_type).clone()).collect();
        Ok(Self { converter, types })
    }

    /// The bytes of rows.
    ///
    /// # Errors
    /// When the columns have other types.
    pub(super) fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Encoded> {
        match &self.converter {
            Some(converter) => {
                let encoded = converter.convert_columns(columns)?;
                debug_assert_eq!(encoded.num_rows(), rows);
                Ok(Encoded::Rows(encoded))
            }
            None => Ok(Encoded::Nothing),
        }
    }

    /// A row of NULL.
    ///
    /// # Errors
    /// Those of encoding it.
    pub(super) fn encode_null(&self) -> Result<Encoded> {
        let nulls = self.types.iter().map(|data_type| new_null_array(data_type, 1));
        self.encode(&nulls.collect::<Vec<_>>(), 1)
    }

    /// The rows of bytes that this has encoded.
    ///
    /// # Errors
    /// When the columns would be too long.
    pub(super) fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(vec![]) };
        let parser = converter.parser();
        let rows: Vec<_> = rows.collect();
        let columns = converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?;
        // Dictionaries are encoded as their values.
        let typed = columns.into_iter().zip(&self.types).map(|(column, data_type)| {
            match column.data_type() == data_type {
                true => Ok(column),
                false => Ok(cast(&column, data_type)?),
            }
        });
        typed.collect()
    }
}

/// Adds weights.
///
/// # Errors
/// Limit when there are more rows than can be counted.
pub(super) fn added(weight: i64, more: i64) -> Result<i64> {
    weight.checked_add(more).ok_or_else(too_many)
}

/// Multiplies the weights of the rows of a pair.
///
/// # Errors
/// As [`added`].
pub(super) fn paired(weight: i64, other: i64) -> Result<i64> {
    weight.checked_mul(other).ok_or_else(too_many)
}

/// The error when rows, or the sum of their values, exceed what a state can hold.
pub(super) fn too_many() -> Error {
    Error::new(ErrorKind::Limit, "an updating result has more rows than can be counted")
        .with_hint("Join by keys that fewer rows have in common, or filter rows below the join.")
}

/// Selects columns.
///
/// # Errors
/// Internal when one does not exist.
pub(super) fn pick(columns: &[ArrayRef], which: &[usize]) -> Result<Vec<ArrayRef>> {
    let picked: Option<Vec<ArrayRef>> = which.iter().map(|c| columns.get(*c).cloned()).collect();
    picked.ok_or_else(|| Error::internal("a column of changes that does not exist"))
}

/// The types of columns.
///
/// # Errors
/// Internal when one does not exist.
pub(super) fn types<'a>(schema: &'a SchemaRef, which: &[usize]) -> Result<Vec<&'a DataType>> {
    let fields = schema.fields();
    let types: Option<Vec<&DataType>> =
        which.iter().map(|column| fields.get(*column).map(|field| field.data_type())).collect();
    types.ok_or_else(|| Error::internal("a column of changes that does not exist"))
}
