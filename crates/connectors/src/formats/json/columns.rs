//! One column of JSON: from values as written to an array of the declared type.
//!
//! A value is converted exactly or the row is bad; what is converted and what is refused is decided here and nowhere
//! else. Where the columns were inferred from the first rows, a value of another kind contradicts them and is bad, even
//! where it could be converted: a text "007" is not a number.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, ListArray, MapArray,
    PrimitiveBuilder, StringViewBuilder, StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{can_cast_types, cast_with_options};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Date32Type, Decimal32Type, Decimal64Type, Decimal128Type,
    DecimalType, FieldRef, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use windrow_core::sql_type;

use super::super::convert::{
    NumberRules, STRICT, Times, decimal, float, integer, is_rounded_by_double,
};
use super::tokens::{Cursor, Value, Wrong};

/// A builder of one column from its values.
pub(super) trait Column: Send {
    /// Takes the next value.
    ///
    /// # Errors
    /// When it does not fit, as a sentence for messages. Nothing may be taken after that.
    fn take(&mut self, value: Value<'_>) -> Result<(), String>;

    /// Returns all values taken.
    ///
    /// # Errors
    /// When one of them does not fit after all.
    fn finish(&mut self) -> Result<ArrayRef, String>;
}

/// Returns a builder of a column of this type, for `rows` rows. `name` is that of the whole column, of which this may
/// be a part.
///
/// # Errors
/// When JSON cannot hold this type.
pub(super) fn column(
    data_type: &DataType,
    name: &str,
    rules: &NumberRules,
    rows: usize,
) -> Result<Box<dyn Column>, String> {
    use DataType as T;
    let strict = rules.inferred;
    Ok(match data_type {
        T::Boolean => Box::new(Bools(BooleanBuilder::with_capacity(rows))),
        T::Int8 => Box::new(Ints::<Int8Type>::new(rows, strict)),
        T::Int16 => Box::new(Ints::<Int16Type>::new(rows, strict)),
        T::Int32 => Box::new(Ints::<Int32Type>::new(rows, strict)),
        T::Int64 => Box::new(Ints::<Int64Type>::new(rows, strict)),
        T::UInt8 => Box::new(Ints::<UInt8Type>::new(rows, strict)),
        T::UInt16 => Box::new(Ints::<UInt16Type>::new(rows, strict)),
        T::UInt32 => Box::new(Ints::<UInt32Type>::new(rows, strict)),
        T::UInt64 => Box::new(Ints::<UInt64Type>::new(rows, strict)),
        T::Float32 => Box::new(Floats::<Float32Type>::new(rows, strict)),
        T::Float64 => Box::new(Floats::<Float64Type>::new(rows, strict)),
        T::Decimal32(p, s) => Box::new(Decimals::<Decimal32Type>::new((*p, *s), rows, strict)),
        T::Decimal64(p, s) => Box::new(Decimals::<Decimal64Type>::new((*p, *s), rows, strict)),
        T::Decimal128(p, s) => Box::new(Decimals::<Decimal128Type>::new((*p, *s), rows, strict)),
        T::Utf8View => Box::new(Texts(StringViewBuilder::with_capacity(rows))),
        T::Date32 => Box::new(Dates(PrimitiveBuilder::with_capacity(rows))),
        T::Timestamp(unit, zone) => {
            let times = Times::new(*unit, zone.as_ref(), rules.of(name, *unit))?;
            let zone = zone.clone();
            match unit {
                TimeUnit::Second => {
                    Box::new(Timestamps::<TimestampSecondType>::new(times, zone, rows))
                }
                TimeUnit::Millisecond => {
                    Box::new(Timestamps::<TimestampMillisecondType>::new(times, zone, rows))
                }
                TimeUnit::Microsecond => {
                    Box::new(Timestamps::<TimestampMicrosecondType>::new(times, zone, rows))
                }
                TimeUnit::Nanosecond => {
                    Box::new(Timestamps::<TimestampNanosecondType>::new(times, zone, rows))
                }
            }
        }
        T::Binary => Box::new(Bytes(BinaryBuilder::new())),
        T::List(item) => Box::new(Lists {
            item: Arc::clone(item),
            values: column(item.data_type(), name, rules, rows)?,
            ends: vec![0],
            valid: Vec::with_capacity(rows),
        }),
        T::Struct(fields) => Box::new(Structs::new(fields, name, rules, rows)?),
        T::Map(entries, false) => Box::new(Maps::new(entries, name, rules, rows)?),
        other if can_cast_types(&T::Utf8View, other) => {
            Box::new(Converted { text: Texts(StringViewBuilder::new()), to: other.clone() })
        }
        other => return Err(format!("JSON cannot hold {}", sql_type(other))),
    })
}

/// Accepts anything: a text column that is not wanted.
pub(super) struct Anything;

impl Column for Anything {
    fn take(&mut self, _: Value<'_>) -> Result<(), String> {
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        Err("a skipped column was requested".to_owned())
    }
}

/// Returns the error for a value of another type.
fn misfit(value: Value<'_>, data_type: &DataType) -> String {
    const CHARS_MAX: usize = 60;
    let text = value.as_text().unwrap_or_default();
    let shown = match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    };
    format!("'{shown}' is not {}", sql_type(data_type))
}

/// Returns the text of a value that may be a number in quotes: where the columns are declared.
fn quoted<'a>(
    value: Value<'a>,
    strict: bool,
    data_type: &DataType,
) -> Result<Cow<'a, str>, String> {
    match value {
        Value::Text(_) | Value::Escaped(_) => {
            let text = value.as_text().unwrap_or_default();
            if strict {
                return Err(format!(
                    "'{text}' is text, and the first rows have {}; declare the column, or raise infer_rows",
                    sql_type(data_type)
                ));
            }
            Ok(text)
        }
        other => Err(misfit(other, data_type)),
    }
}

struct Bools(BooleanBuilder);

impl Column for Bools {
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        match value {
            Value::Null => self.0.append_null(),
            Value::True => self.0.append_value(true),
            Value::False => self.0.append_value(false),
            other => return Err(misfit(other, &DataType::Boolean)),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        Ok(Arc::new(self.0.finish()))
    }
}

struct Ints<T: ArrowPrimitiveType> {
    values: PrimitiveBuilder<T>,
    strict: bool,
}

impl<T: ArrowPrimitiveType> Ints<T> {
    fn new(rows: usize, strict: bool) -> Self {
        Self { values: PrimitiveBuilder::with_capacity(rows), strict }
    }
}

impl<T: ArrowPrimitiveType> Column for Ints<T>
where
    T::Native: FromStr + TryFrom<i128>,
{
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        match value {
            Value::Number(text) => self.values.append_value(integer::<T>(text)?),
            Value::Null => self.values.append_null(),
            other => {
                let text = quoted(other, self.strict, &T::DATA_TYPE)?;
                self.values.append_value(integer::<T>(&text)?);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        Ok(Arc::new(self.values.finish()))
    }
}

struct Floats<T: ArrowPrimitiveType> {
    values: PrimitiveBuilder<T>,
    strict: bool,
}

impl<T: ArrowPrimitiveType> Floats<T> {
    fn new(rows: usize, strict: bool) -> Self {
        Self { values: PrimitiveBuilder::with_capacity(rows), strict }
    }
}

impl<T: ArrowPrimitiveType> Column for Floats<T>
where
    T::Native: FromStr + Into<f64>,
{
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        match value {
            Value::Number(text) if self.strict && is_rounded_by_double(text) => {
                return Err(format!(
                    "'{text}' would be rounded in a DOUBLE, which the first rows have; declare the column"
                ));
            }
            Value::Number(text) => self.values.append_value(float::<T>(text)?),
            Value::Null => self.values.append_null(),
            other => {
                let text = quoted(other, self.strict, &T::DATA_TYPE)?;
                self.values.append_value(float::<T>(&text)?);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        Ok(Arc::new(self.values.finish()))
    }
}

struct Decimals<T: DecimalType> {
    values: PrimitiveBuilder<T>,
    digits: (u8, i8),
    strict: bool,
}

impl<T: DecimalType> Decimals<T> {
    fn new(digits: (u8, i8), rows: usize, strict: bool) -> Self {
        Self { values: PrimitiveBuilder::with_capacity(rows), digits, strict }
    }
}

impl<T: DecimalType> Column for Decimals<T>
where
    T::Native: TryFrom<i128>,
{
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        let (precision, scale) = self.digits;
        match value {
            Value::Number(text) => {
                self.values.append_value(decimal::<T>(text, precision, scale)?);
            }
            Value::Null => self.values.append_null(),
            other => {
                let text = quoted(other, self.strict, &T::TYPE_CONSTRUCTOR(precision, scale))?;
                self.values.append_value(decimal::<T>(&text, precision, scale)?);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        let (precision, scale) = self.digits;
        let values = self.values.finish().with_precision_and_scale(precision, scale);
        Ok(Arc::new(values.map_err(|e| e.to_string())?))
    }
}

/// Numbers, booleans and nested values become their text.
struct Texts(StringViewBuilder);

impl Column for Texts {
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        match value {
            Value::Text(text) => self.0.append_value(text),
            other => self.0.append_option(other.as_text()),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        Ok(Arc::new(self.0.finish()))
    }
}

struct Dates(PrimitiveBuilder<Date32Type>);

impl Column for Dates {
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        use arrow::compute::kernels::cast_utils::Parser;
        match value {
            Value::Null => self.0.append_null(),
            Value::Text(_) | Value::Escaped(_) => {
                let text = value.as_text().unwrap_or_default();
                let date = Date32Type::parse(&text).ok_or_else(|| misfit(value, &DataType::Date32));
                self.0.append_value(date?);
            }
            // A number would be days since 1970, which is never intended.
            other => return Err(misfit(other, &DataType::Date32)),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        Ok(Arc::new(self.0.finish()))
    }
}

struct Timestamps<T: ArrowTimestampType> {
    values: PrimitiveBuilder<T>,
    times: Times,
    zone: Option<Arc<str>>,
}

impl<T: ArrowTimestampType> Timestamps<T> {
    fn new(times: Times, zone: Option<Arc<str>>, rows: usize) -> Self {
        Self { values: PrimitiveBuilder::with_capacity(rows), times, zone }
    }
}

impl<T: ArrowTimestampType> Column for Timestamps<T> {
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        match value {
            Value::Null => self.values.append_null(),
            Value::Text(text) | Value::Number(text) => {
                self.values.append_value(self.times.ticks(text)?);
            }
            Value::Escaped(_) => {
                let text = value.as_text().unwrap_or_default();
                self.values.append_value(self.times.ticks(&text)?);
            }
            other => return Err(misfit(other, &DataType::Timestamp(T::UNIT, None))),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        Ok(Arc::new(self.values.finish().with_timezone_opt(self.zone.clone())))
    }
}

/// Bytes, written as hexadecimal digits.
struct Bytes(BinaryBuilder);

impl Column for Bytes {
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        let wrong = || misfit(value, &DataType::Binary);
        match value {
            Value::Null => self.0.append_null(),
            Value::Text(text) => {
                let digit = |b: u8| (b as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
                let (pairs, rest) = text.as_bytes().as_chunks::<2>();
                let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? * 16 + digit(*low)?);
                let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
                self.0.append_value(bytes.filter(|_| rest.is_empty()).ok_or_else(wrong)?);
            }
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        Ok(Arc::new(self.0.finish()))
    }
}

/// Conversion through text, with Arrow's own cast.
struct Converted {
    text: Texts,
    to: DataType,
}

impl Column for Converted {
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        match value {
            Value::Null | Value::Text(_) | Value::Escaped(_) => self.text.take(value),
            any if self.to.is_string() => self.text.take(any),
            Value::Number(_) if self.to.is_decimal() => self.text.take(value),
            other => Err(misfit(other, &self.to)),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        let text = self.text.finish()?;
        cast_with_options(&text, &self.to, &STRICT).map_err(|e| {
            let text = e.to_string();
            text.split_once("error: ").map_or(text.clone(), |(_, why)| why.to_owned())
        })
    }
}

struct Lists {
    item: FieldRef,
    values: Box<dyn Column>,
    ends: Vec<i32>,
    valid: Vec<bool>,
}

impl Column for Lists {
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        let mut end = self.ends.last().copied().unwrap_or(0);
        match value {
            Value::Null => self.valid.push(false),
            Value::List(text) => {
                Cursor::new(text).list::<String>(|value| {
                    end = end.checked_add(1).ok_or("there are too many items in lists")?;
                    self.values.take(value)
                })?;
                self.valid.push(true);
            }
            other => return Err(misfit(other, &DataType::List(Arc::clone(&self.item)))),
        }
        self.ends.push(end);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let nulls = NullBuffer::from(std::mem::take(&mut self.valid));
        let offsets = OffsetBuffer::new(ends.into());
        let item = Arc::clone(&self.item);
        let list = ListArray::try_new(item, offsets, self.values.finish()?, Some(nulls));
        Ok(Arc::new(list.map_err(|e| e.to_string())?))
    }
}

struct Structs {
    fields: Fields,
    columns: Vec<Box<dyn Column>>,
    valid: Vec<bool>,
}

impl Structs {
    fn new(fields: &Fields, name: &str, rules: &NumberRules, rows: usize) -> Result<Self, String> {
        let part = |field: &FieldRef| column(field.data_type(), name, rules, rows);
        let columns = fields.iter().map(part).collect::<Result<_, _>>()?;
        Ok(Self { fields: fields.clone(), columns, valid: Vec::with_capacity(rows) })
    }
}

impl Column for Structs {
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        let mut values = vec![Value::Null; self.columns.len()];
        match value {
            Value::Null => self.valid.push(false),
            Value::Object(text) => {
                Cursor::new(text).object::<Wrong>(|key, value| {
                    if let Some((at, _)) = self.fields.find(&key)
                        && let Some(slot) = values.get_mut(at)
                    {
                        *slot = value;
                    }
                    Ok(())
                })?;
                self.valid.push(true);
            }
            other => return Err(misfit(other, &DataType::Struct(self.fields.clone()))),
        }
        for ((value, column), field) in values.into_iter().zip(&mut self.columns).zip(&self.fields)
        {
            column.take(value).map_err(|why| format!("field \"{}\": {why}", field.name()))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        let nulls = NullBuffer::from(std::mem::take(&mut self.valid));
        let rows = nulls.len();
        let columns = self.columns.iter_mut().map(|c| c.finish()).collect::<Result<_, _>>()?;
        let fields = self.fields.clone();
        let array = StructArray::try_new_with_length(fields, columns, Some(nulls), rows);
        Ok(Arc::new(array.map_err(|e| e.to_string())?))
    }
}

/// An object whose keys are values.
struct Maps {
    entries: FieldRef,
    pairs: Fields,
    keys: Box<dyn Column>,
    values: Box<dyn Column>,
    ends: Vec<i32>,
    valid: Vec<bool>,
}

impl Maps {
    fn new(
        entries: &FieldRef,
        name: &str,
        rules: &NumberRules,
        rows: usize,
    ) -> Result<Self, String> {
        let DataType::Struct(pairs) = entries.data_type() else {
            return Err("a map has no entries".to_owned());
        };
        let [key, value] = pairs.as_ref() else {
            return Err("a map has no keys and values".to_owned());
        };
        // Keys are always text in JSON.
        let of_keys = NumberRules { inferred: false, ..rules.clone() };
        Ok(Self {
            entries: Arc::clone(entries),
            pairs: pairs.clone(),
            keys: column(key.data_type(), name, &of_keys, rows)?,
            values: column(value.data_type(), name, rules, rows)?,
            ends: vec![0],
            valid: Vec::with_capacity(rows),
        })
    }
}

impl Column for Maps {
    fn take(&mut self, value: Value<'_>) -> Result<(), String> {
        let mut end = self.ends.last().copied().unwrap_or(0);
        match value {
            Value::Null => self.valid.push(false),
            Value::Object(text) => {
                Cursor::new(text).object::<String>(|key, value| {
                    end = end.checked_add(1).ok_or("there are too many entries in maps")?;
                    self.keys.take(Value::Text(&key))?;
                    self.values.take(value)
                })?;
                self.valid.push(true);
            }
            other => return Err(misfit(other, &DataType::Map(Arc::clone(&self.entries), false))),
        }
        self.ends.push(end);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, String> {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let nulls = NullBuffer::from(std::mem::take(&mut self.valid));
        let columns = vec![self.keys.finish()?, self.values.finish()?];
        let pairs = StructArray::try_new(self.pairs.clone(), columns, None);
        let pairs = pairs.map_err(|e| e.to_string())?;
        let offsets = OffsetBuffer::new(ends.into());
        let map = MapArray::try_new(Arc::clone(&self.entries), offsets, pairs, Some(nulls), false);
        Ok(Arc::new(map.map_err(|e| e.to_string())?))
    }
}
