//! Avro: decoding with the writer's schema, of messages ([`messages`]) and object container files ([`container`]).
//!
//! Records are decoded by `arrow-avro` with all fields of their [`schema`]; their columns are then matched by name
//! ([`typed`](super::typed)), which is all of schema evolution.
//!
//! Invariant: every byte is accounted for: a record that ends before or after its bytes is bad.

pub(crate) mod container;
pub(crate) mod messages;
pub(crate) mod schema;

use arrow::array::{Array, AsArray, Decimal128Array, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type};
use arrow_avro::reader::Decoder;

/// The prefix of each record for the decoder of `arrow-avro`: the magic byte and the id of its only schema.
const PREFIX: [u8; 5] = [0; 5];

/// Decodes one record, and returns its length; `data` may be longer.
///
/// # Errors
/// When it is not a record. Then the decoder contains parts of it and must not be used any more.
fn decode_first(decoder: &mut Decoder, data: &[u8]) -> Result<usize, String> {
    let before = decoder.capacity();
    decoder.decode(&PREFIX).map_err(|e| e.to_string())?;
    // The decoder does nothing without a byte, and a record of NULLs may have none.
    let bytes = if data.is_empty() { &[0] } else { data };
    let read = decoder.decode(bytes);
    match (before - decoder.capacity(), read) {
        (1, Ok(read)) if read <= data.len() => Ok(read),
        (0, Err(error)) => Err(worded(&error.to_string())),
        (0, Ok(_)) | (1, Ok(_)) => Err("the record is cut off".to_owned()),
        // The decoder has taken the bytes after it for another record.
        _ => Err("there are bytes after the record".to_owned()),
    }
}

/// An error of the decoder in words for users.
fn worded(error: &str) -> String {
    let error = error.trim_start_matches("Parser error: ").trim_start_matches("Avro error: ");
    if error.contains("bad varint") || error.contains("EOF") {
        return "the record is cut off, or is of another schema".to_owned();
    }
    format!("the record is not of its schema: {error}")
}

/// Takes the decoded rows.
///
/// # Errors
/// When a value is invalid for its type, which is detected only here: text that is not UTF-8, an unknown symbol number, a
/// decimal with too many digits.
fn flush(decoder: &mut Decoder) -> Result<RecordBatch, String> {
    let rows = decoder.flush().map_err(|e| worded(&e.to_string()))?;
    let rows = rows.ok_or_else(|| "the record has no values".to_owned())?;
    for column in rows.columns() {
        check_digits(column)?;
    }
    Ok(rows)
}

/// Checks that decimals fit the precision of their type.
fn check_digits(column: &dyn Array) -> Result<(), String> {
    match column.data_type() {
        DataType::Decimal128(precision, _) => {
            let decimals: &Decimal128Array = column.as_primitive::<Decimal128Type>();
            decimals.validate_decimal_precision(*precision).map_err(|e| e.to_string())
        }
        DataType::Struct(_) => {
            column.as_struct().columns().iter().try_for_each(|child| check_digits(child))
        }
        DataType::List(_) => check_digits(column.as_list::<i32>().values()),
        DataType::Map(..) => check_digits(column.as_map().values()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
