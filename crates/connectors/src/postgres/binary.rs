//! Rows in the binary form of COPY.
//!
//! ```text
//! header │ n fields │ length │ bytes │ length │ bytes │ … next row … │ -1
//! ```
//! Numbers are big-endian; times count from 2000; a NULL has the length −1.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Field, Float32Type, Float64Type,
    Int16Type, Int32Type, Int64Type, Schema, TimeUnit,
};
use bytes::Bytes;
use windrow_core::{Error, Result};

use super::types::{PgType, is_text};
use crate::encode::json_lines;

/// The first bytes of a COPY: a signature, flags, and the length of an extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The last bytes of a COPY.
pub(super) const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// From 1970 to 2000, in days and in µs.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
/// The range of timestamps of PostgreSQL, in µs since 2000: from 4713 BC to before 294277.
const MICROS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
/// The range of its dates, in days since 2000.
const DAYS: std::ops::Range<i32> = -2_451_545..2_145_031_949;

/// Writes one value of a column that is not NULL, without its length.
type Write<'a> = Box<dyn Fn(usize, &mut Vec<u8>) -> Result<()> + 'a>;

/// Appends rows. If `first` is given, each row begins with its number, starting with `first`.
///
/// # Errors
/// [`Data`](windrow_core::ErrorKind::Data) for a value that PostgreSQL cannot represent.
pub(super) fn append(
    rows: &RecordBatch,
    columns: &[PgType],
    first: Option<u64>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let mut arrays = Vec::with_capacity(columns.len());
    for ((array, field), to) in rows.columns().iter().zip(rows.schema().fields()).zip(columns) {
        arrays.push((canonical(array, field, to)?, to, field.name().clone()));
    }
    let writers: Vec<(&ArrayRef, Write<'_>)> = arrays
        .iter()
        .map(|(array, to, name)| Ok((array, writer(array, to, name)?)))
        .collect::<Result<_>>()?;
    let count = writers.len() + usize::from(first.is_some());
    let count = i16::try_from(count).map_err(|_| Error::sql("a table has at most 1600 columns"))?;
    for row in 0..rows.num_rows() {
        out.extend_from_slice(&count.to_be_bytes());
        if let Some(first) = first {
            out.extend_from_slice(&8_i32.to_be_bytes());
            out.extend_from_slice(&(first + row as u64).to_be_bytes());
        }
        for (array, write) in &writers {
            field(array, write, row, out)?;
        }
    }
    Ok(())
}

/// Writes a field: its length, and its bytes.
fn field(array: &ArrayRef, write: &Write<'_>, row: usize, out: &mut Vec<u8>) -> Result<()> {
    if array.is_null(row) {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return Ok(());
    }
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(row, out)?;
    let length = i32::try_from(out.len() - at - 4)
        .map_err(|_| Error::data("a value is longer than 2 GB"))?;
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// Converts a column to the form that [`writer`] takes.
fn canonical(array: &ArrayRef, field: &Field, to: &PgType) -> Result<ArrayRef> {
    let from = array.data_type();
    let values = match from {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let wanted = match to {
        PgType::Bool => DataType::Boolean,
        PgType::Date => DataType::Date32,
        PgType::Bytea => DataType::LargeBinary,
        PgType::Int2 => DataType::Int16,
        PgType::Int4 => DataType::Int32,
        PgType::Int8 => DataType::Int64,
        PgType::Float4 => DataType::Float32,
        PgType::Float8 => DataType::Float64,
        PgType::Numeric => match values {
            DataType::Decimal256(p, s) => DataType::Decimal256(*p, *s),
            DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) => {
                DataType::Decimal128(38, *s)
            }
            _ => DataType::Decimal128(20, 0),
        },
        PgType::Text | PgType::Uuid => DataType::LargeUtf8,
        PgType::Json | PgType::Jsonb if is_text(values) => DataType::LargeUtf8,
        PgType::Time | PgType::Timestamp | PgType::Timestamptz => values.clone(),
        PgType::Json | PgType::Jsonb => return json(array, field),
        PgType::Array(..) => match values {
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => DataType::LargeList(item.clone()),
            other => other.clone(),
        },
    };
    if *from == wanted {
        return Ok(ArrayRef::clone(array));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(array, &wanted, &options)?)
}

/// Returns each value as a text of JSON.
fn json(array: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let field = Field::new("v", field.data_type().clone(), true);
    let one = Schema::new(vec![field]);
    let rows = RecordBatch::try_new(one.into(), vec![ArrayRef::clone(array)])?;
    let lines: Vec<Bytes> = json_lines(&rows)?;
    let texts = lines.iter().enumerate().map(|(row, line)| {
        let text = std::str::from_utf8(line).ok()?;
        let value = text.strip_prefix("{\"v\":").and_then(|text| text.strip_suffix('}'));
        value.filter(|_| array.is_valid(row))
    });
    Ok(std::sync::Arc::new(texts.collect::<arrow::array::LargeStringArray>()))
}

/// A writer of numbers.
macro_rules! number {
    ($array:expr, $type:ty, $wrong:expr) => {{
        let values = $array.as_primitive_opt::<$type>().ok_or_else($wrong)?;
        Box::new(move |row, out| {
            out.extend_from_slice(&values.value(row).to_be_bytes());
            Ok(())
        })
    }};
}

fn writer<'a>(array: &'a ArrayRef, to: &'a PgType, name: &'a str) -> Result<Write<'a>> {
    let wrong = || Error::internal(format!("column \"{name}\" is not of the type of its table"));
    Ok(match to {
        PgType::Bool => {
            let values = array.as_boolean_opt().ok_or_else(wrong)?;
            Box::new(move |row, out| {
                out.push(u8::from(values.value(row)));
                Ok(())
            })
        }
        PgType::Bytea => {
            let values = array.as_binary_opt::<i64>().ok_or_else(wrong)?;
            Box::new(move |row, out| {
                out.extend_from_slice(values.value(row));
                Ok(())
            })
        }
        PgType::Text | PgType::Json | PgType::Jsonb | PgType::Uuid => {
            text_writer(array, to, name).ok_or_else(wrong)?
        }
        PgType::Int2 => number!(array, Int16Type, wrong),
        PgType::Int4 => number!(array, Int32Type, wrong),
        PgType::Int8 => number!(array, Int64Type, wrong),
        PgType::Float4 => number!(array, Float32Type, wrong),
        PgType::Float8 => number!(array, Float64Type, wrong),
        PgType::Numeric => numeric_writer(array).ok_or_else(wrong)?,
        PgType::Date => date_writer(array, name).ok_or_else(wrong)?,
        PgType::Time | PgType::Timestamp | PgType::Timestamptz => {
            let (units, scale) = ticks(array)?.ok_or_else(wrong)?;
            time_writer(units, scale, *to == PgType::Time, name)
        }
        PgType::Array(oid, item) => {
            let values = array.as_list_opt::<i64>().ok_or_else(wrong)?;
            let field = Field::new(name, values.value_type(), true);
            let items = canonical(values.values(), &field, item)?;
            // The items live as long as this closure.
            Box::new(move |row, out| {
                let offsets = values.value_offsets();
                let at = |row: usize| offsets.get(row).and_then(|at| usize::try_from(*at).ok());
                let (from, to) = (at(row).unwrap_or(0), at(row + 1).unwrap_or(0));
                list(&items, (*oid, item), from..to, name, out)
            })
        }
    })
}

fn text_writer<'a>(array: &'a ArrayRef, to: &PgType, name: &'a str) -> Option<Write<'a>> {
    let values = array.as_string_opt::<i64>()?;
    let is_uuid = *to == PgType::Uuid;
    // The version of the binary format.
    let version: &[u8] = if *to == PgType::Jsonb { &[1] } else { &[] };
    Some(Box::new(move |row, out| {
        let text = values.value(row);
        if is_uuid {
            let bytes = uuid(text).ok_or_else(|| {
                Error::data(format!("column \"{name}\": \"{text}\" is not a UUID"))
            })?;
            out.extend_from_slice(&bytes);
            return Ok(());
        }
        out.extend_from_slice(version);
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }))
}

fn date_writer<'a>(array: &'a ArrayRef, name: &'a str) -> Option<Write<'a>> {
    let values = array.as_primitive_opt::<Date32Type>()?;
    Some(Box::new(move |row, out| {
        let days = values.value(row).checked_sub(EPOCH_DAYS);
        let days = days
            .filter(|days| DAYS.contains(days))
            .ok_or_else(|| Error::data(format!("column \"{name}\": the date is out of range")))?;
        out.extend_from_slice(&days.to_be_bytes());
        Ok(())
    }))
}

/// Writes times, which are numbers of `scale` µs: see [`ticks`].
fn time_writer<'a>(units: ArrayRef, scale: i64, is_time: bool, name: &'a str) -> Write<'a> {
    Box::new(move |row, out| {
        let micros = micros(units.as_primitive::<Int64Type>().value(row), scale);
        let since = micros.and_then(|micros| match is_time {
            true => Some(micros),
            false => micros.checked_sub(EPOCH_MICROS).filter(|m| MICROS.contains(m)),
        });
        let since = since.ok_or_else(|| {
            Error::data(format!("column \"{name}\": the timestamp is out of range"))
        })?;
        out.extend_from_slice(&since.to_be_bytes());
        Ok(())
    })
}

/// Writes an array: dimensions, whether it has NULLs, the type, the length and the lower bound, the items.
fn list(
    items: &ArrayRef,
    (oid, of): (u32, &PgType),
    range: std::ops::Range<usize>,
    name: &str,
    out: &mut Vec<u8>,
) -> Result<()> {
    let part = items.slice(range.start, range.len());
    let is_some = i32::from(!range.is_empty());
    out.extend_from_slice(&is_some.to_be_bytes());
    out.extend_from_slice(&i32::from(part.null_count() > 0).to_be_bytes());
    out.extend_from_slice(&oid.to_be_bytes());
    if range.is_empty() {
        return Ok(());
    }
    let length = i32::try_from(range.len()).map_err(|_| Error::data("an array is too long"))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&1_i32.to_be_bytes());
    let write = writer(&part, of, name)?;
    (0..part.len()).try_for_each(|row| field(&part, &write, row, out))
}

/// Returns a column of times as integers, with the µs per unit; if negative, the units per µs.
fn ticks(array: &ArrayRef) -> Result<Option<(ArrayRef, i64)>> {
    let (unit, wide) = match array.data_type() {
        DataType::Timestamp(unit, _) | DataType::Time64(unit) => (*unit, DataType::Int64),
        DataType::Time32(unit) => (*unit, DataType::Int32),
        _ => return Ok(None),
    };
    let scale = match unit {
        TimeUnit::Second => 1_000_000,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1,
        TimeUnit::Nanosecond => -1_000,
    };
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let numbers = cast_with_options(array, &wide, &options)?;
    Ok(Some((cast_with_options(&numbers, &DataType::Int64, &options)?, scale)))
}

fn micros(value: i64, scale: i64) -> Option<i64> {
    match scale < 0 {
        true => Some(value.div_euclid(-scale)),
        false => value.checked_mul(scale),
    }
}

fn numeric_writer(array: &ArrayRef) -> Option<Write<'_>> {
    if let Some(values) = array.as_primitive_opt::<Decimal128Type>() {
        let scale = values.scale();
        return Some(Box::new(move |row, out| {
            let value = values.value(row);
            numeric(value < 0, &value.unsigned_abs().to_string(), scale, out)
        }));
    }
    let values = array.as_primitive_opt::<Decimal256Type>()?;
    let scale = values.scale();
    Some(Box::new(move |row, out| {
        let text = values.value(row).to_string();
        let digits = text.strip_prefix('-');
        numeric(digits.is_some(), digits.unwrap_or(&text), scale, out)
    }))
}

/// Writes a numeric: the number of groups of four digits, the weight of the first group, the sign, the scale, the groups.
fn numeric(negative: bool, digits: &str, scale: i8, out: &mut Vec<u8>) -> Result<()> {
    let shown = usize::try_from(scale).unwrap_or(0);
    let mut all = digits.to_owned();
    if scale < 0 {
        all.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
    }
    let before = all.len().saturating_sub(shown);
    // Zeros complete the first and the last group.
    let front = match all.len() < shown {
        true => shown - all.len(),
        false => (4 - before % 4) % 4,
    };
    let mut padded = "0".repeat(front);
    padded.push_str(&all);
    padded.extend(std::iter::repeat_n('0', (4 - shown % 4) % 4));
    let mut groups: Vec<i16> = Vec::with_capacity(padded.len() / 4);
    for group in padded.as_bytes().chunks(4) {
        groups.push(group.iter().fold(0, |sum, digit| sum * 10 + i16::from(digit - b'0')));
    }
    let mut weight = i16::try_from(before.div_ceil(4)).unwrap_or(i16::MAX) - 1;
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight -= i16::try_from(zeros).unwrap_or(0);
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let is_zero = groups.is_empty();
    let count = i16::try_from(groups.len()).map_err(|_| Error::data("a number is too long"))?;
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&if is_zero { 0 } else { weight }.to_be_bytes());
    let sign: u16 = if negative && !is_zero { 0x4000 } else { 0 };
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&i16::try_from(shown).unwrap_or(0).to_be_bytes());
    groups.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
    Ok(())
}

/// Parses the usual spelling of a UUID, with or without hyphens and braces.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let digits: String = inner.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(negative: bool, digits: &str, scale: i8) -> Vec<i16> {
        let mut out = vec![];
        numeric(negative, digits, scale, &mut out).unwrap();
        out.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn numbers_have_groups_of_four_digits() {
        // Groups, weight, sign, digits after the point, the groups.
        assert_eq!(written(false, "0", 0), [0, 0, 0, 0]);
        assert_eq!(written(true, "0", 3), [0, 0, 0, 3]);
        assert_eq!(written(false, "1", 0), [1, 0, 0, 0, 1]);
        assert_eq!(written(true, "1", 3), [1, -1, 0x4000, 3, 10]);
        assert_eq!(written(false, "12345678", 3), [3, 1, 0, 3, 1, 2345, 6780]);
        assert_eq!(written(false, "10000", 0), [1, 1, 0, 0, 1]);
        assert_eq!(written(false, "1", 8), [1, -2, 0, 8, 1]);
        assert_eq!(written(false, "12345", 5), [2, -1, 0, 5, 1234, 5000]);
        assert_eq!(written(false, "1", 9), [1, -3, 0, 9, 1000]);
        assert_eq!(written(false, "7", -5), [1, 1, 0, 0, 70]);
    }

    #[test]
    fn nanoseconds_before_1970_are_cut_downwards() {
        assert_eq!(micros(-1, -1_000), Some(-1));
        assert_eq!(micros(1_999, -1_000), Some(1));
        assert_eq!(micros(i64::MAX, 1_000), None);
    }

    #[test]
    fn uuids_are_read() {
        let bytes = uuid("{00112233-4455-6677-8899-aAbBcCdDeEfF}").unwrap();
        assert_eq!(bytes[..3], [0x00, 0x11, 0x22]);
        assert_eq!((uuid("x"), uuid("")), (None, None));
        assert_eq!(uuid("+0112233445566778899aabbccddeeff"), None);
    }
}
