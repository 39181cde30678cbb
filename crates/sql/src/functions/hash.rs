//! `hash(x, …)`: a number of 64 bits that is the same in every run and on every machine.
//!
//! It is XXH64 of the values as text, each preceded by its length, so that `hash('ab', 'c')` and `hash('a', 'bc')`
//! differ. Values with the same text have the same hash, whatever their types: 1 as INT and as BIGINT. NULL is a
//! distinct value.

use std::hash::Hasher;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt64Array};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use twox_hash::XxHash64;

/// Takes the place of the length for NULL.
const NULL: u64 = u64::MAX;

/// The `hash` function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct HashOf {
    signature: Signature,
}

impl Default for HashOf {
    fn default() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for HashOf {
    fn name(&self) -> &'static str {
        "hash"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = ColumnarValue::values_to_arrays(&args.args)?;
        let rows = columns.first().map_or(args.number_rows, Array::len);
        let hashes: ArrayRef = Arc::new(hashes(&columns, rows)?);
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            let one = datafusion::common::ScalarValue::try_from_array(&hashes, 0)?;
            return Ok(ColumnarValue::Scalar(one));
        }
        Ok(ColumnarValue::Array(hashes))
    }
}

fn hashes(columns: &[ArrayRef], rows: usize) -> Result<UInt64Array> {
    let options = FormatOptions::default();
    let mut shown = Vec::with_capacity(columns.len());
    for column in columns {
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
        shown.push((column.logical_nulls(), column.data_type().is_floating(), formatter));
    }
    let mut hashes = Vec::with_capacity(rows);
    for row in 0..rows {
        let mut hash = XxHash64::with_seed(0);
        for (nulls, is_float, formatter) in &shown {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                hash.write(&NULL.to_le_bytes());
                continue;
            }
            let mut text = formatter.value(row).try_to_string()?;
            if *is_float && text == "-0.0" {
                // 0.0 and -0.0 are the same value.
                text = "0.0".to_owned();
            }
            hash.write(&(text.len() as u64).to_le_bytes());
            hash.write(text.as_bytes());
        }
        hashes.push(hash.finish());
    }
    Ok(hashes.into())
}
