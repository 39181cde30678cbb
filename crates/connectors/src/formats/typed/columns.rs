//! The columns of a file or a schema as columns of a stream: mapping, and conversion of values.
//!
//! Columns are matched by name. A column missing from a file or a schema is NULL there. The columns of several files are
//! unified without loss: to a type that holds the values of all exactly, or an error that names two of the files. No
//! conversion rounds, truncates or wraps: a value that does not fit is an error.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, LargeListArray, ListArray, StructArray, new_null_array,
};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{can_cast_types, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use arrow::error::ArrowError;
use windrow_core::{Error, Result, sql_type};

use crate::formats::convert::{BareNumber, NumberRules, STRICT};

/// The place of a declared column in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its index among the file's columns.
    pub root: usize,
    /// The unit of its whole numbers, where they represent times.
    epoch: Option<TimeUnit>,
}

impl Place {
    /// Converts the file's column to the declared type.
    pub(crate) fn convert(self, column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
        match self.epoch {
            None => convert(column, to),
            Some(unit) => {
                let ticks = cast_with_options(column, &DataType::Int64, &STRICT)?;
                let times = cast_with_options(&ticks, &DataType::Timestamp(unit, None), &STRICT)?;
                convert(&times, to)
            }
        }
    }
}

/// Finds the declared columns among those of `of` (`file "x"`); `None` for a missing one.
///
/// # Errors
/// When one has a type that cannot be converted to the declared one, or is missing and declared NOT NULL.
pub(crate) fn find_columns(
    has: &Fields,
    declared: &Schema,
    rules: &NumberRules,
    of: &str,
) -> Result<Vec<Option<Place>>> {
    let find = |field: &Arc<Field>| {
        let Some(root) = find_name(has, declared, field.name()) else {
            if field.is_nullable() {
                return Ok(None);
            }
            let names: Vec<&str> = has.iter().map(|f| f.name().as_str()).collect();
            return Err(Error::data(format!("{of} has no column \"{}\"", field.name()))
                .with_hint(format!("Its columns are: {}.", names.join(", ")))
                .with_hint("A column that is missing is NULL; declare it without NOT NULL."));
        };
        let is = has.get(root).map_or(&DataType::Null, |f| f.data_type());
        if is.is_integer()
            && let DataType::Timestamp(unit, _) = field.data_type()
        {
            return match rules.of(field.name(), *unit) {
                BareNumber::In(unit) => Ok(Some(Place { root, epoch: Some(unit) })),
                BareNumber::Unsaid | BareNumber::Contradicts => Err(Error::data(format!(
                    "column \"{}\" of {of} is {}, and declared as TIMESTAMP: the unit of its numbers is not known",
                    field.name(),
                    sql_type(is)
                ))
                .with_hint("Set epoch = 's', 'ms', 'us' or 'ns' in WITH, or declare the column as TIMESTAMP(3) for milliseconds.")),
            };
        }
        if !can_become(is, field.data_type()) {
            return Err(Error::data(format!(
                "column \"{}\" of {of} is {}, which cannot become {}",
                field.name(),
                sql_type(is),
                sql_type(field.data_type())
            ))
            .with_hint("Declare the column with that type and CAST it in the query."));
        }
        Ok(Some(Place { root, epoch: None }))
    };
    declared.fields().iter().map(find).collect()
}

/// Finds the column of this name; else one that differs in case only, unless that is another declared column.
fn find_name(has: &Fields, declared: &Schema, name: &str) -> Option<usize> {
    has.iter().position(|f| f.name() == name).or_else(|| {
        has.iter().position(|f| {
            f.name().eq_ignore_ascii_case(name)
                && !declared.fields().iter().any(|other| other.name() == f.name())
        })
    })
}

/// The columns of several files, as they are discovered.
#[derive(Debug, Default)]
pub(crate) struct Union {
    /// Each column, and the first file that has it.
    columns: Vec<(Field, String)>,
    files: usize,
}

impl Union {
    /// Adds the columns of file `name`.
    ///
    /// # Errors
    /// When one has a type that is incompatible with that of another file.
    pub(crate) fn add(&mut self, fields: &Fields, name: &str) -> Result<()> {
        let mut seen = vec![false; self.columns.len()];
        for field in fields {
            let exact = self.columns.iter().position(|(known, _)| known.name() == field.name());
            let at = exact.or_else(|| {
                self.columns.iter().position(|(known, _)| {
                    known.name().eq_ignore_ascii_case(field.name())
                        && !fields.iter().any(|other| other.name() == known.name())
                })
            });
            let Some((known, file)) = at.and_then(|at| self.columns.get_mut(at)) else {
                // The files before lack it.
                let nullable = field.is_nullable() || self.files > 0;
                let field = field.as_ref().clone().with_nullable(nullable);
                self.columns.push((field, name.to_owned()));
                continue;
            };
            let Some(united) = unite(known.data_type(), field.data_type()) else {
                return Err(Error::data(format!(
                    "column \"{}\" is {} in file \"{file}\" and {} in file \"{name}\"",
                    known.name(),
                    sql_type(known.data_type()),
                    sql_type(field.data_type())
                ))
                .with_hint("No type holds the values of both exactly; create a stream for each, or rewrite one of the files."));
            };
            let nullable = known.is_nullable() || field.is_nullable();
            *known = known.clone().with_data_type(united).with_nullable(nullable);
            if let Some(seen) = at.and_then(|at| seen.get_mut(at)) {
                *seen = true;
            }
        }
        for ((known, _), seen) in self.columns.iter_mut().zip(seen) {
            if !seen {
                *known = known.clone().with_nullable(true);
            }
        }
        self.files += 1;
        Ok(())
    }

    /// Whether no file was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.files == 0
    }

    /// Returns all columns, in the order in which they were first seen.
    pub(crate) fn into_schema(self) -> Schema {
        Schema::new(self.columns.into_iter().map(|(field, _)| field).collect::<Vec<_>>())
    }
}

/// Returns the type that holds the values of both types exactly.
fn unite(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as T;
    Some(match (a, b) {
        _ if a == b => a.clone(),
        (T::Null, other) | (other, T::Null) => other.clone(),
        (T::Dictionary(_, value), other) | (other, T::Dictionary(_, value)) => unite(value, other)?,
        (T::Timestamp(a, zone), T::Timestamp(b, other)) if zone == other => {
            T::Timestamp(*a.max(b), zone.clone())
        }
        (T::Date32 | T::Date64, time @ T::Timestamp(_, None))
        | (time @ T::Timestamp(_, None), T::Date32 | T::Date64) => time.clone(),
        (T::Date32, T::Date64) | (T::Date64, T::Date32) => T::Date64,
        (T::List(a), T::List(b)) => T::List(unite_fields(a, b)?),
        (T::LargeList(a), T::LargeList(b) | T::List(b)) | (T::List(a), T::LargeList(b)) => {
            T::LargeList(unite_fields(a, b)?)
        }
        (T::Struct(a), T::Struct(b)) => T::Struct(unite_structs(a, b)?),
        _ if is_text(a) && is_text(b) => T::Utf8View,
        _ if is_binary(a) && is_binary(b) => T::BinaryView,
        _ => unite_numbers(a, b)?,
    })
}

fn unite_numbers(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as T;
    match (Number::of(a)?, Number::of(b)?) {
        (Number::Float, Number::Float) => Some(T::Float64),
        // A double holds 53 bits of a whole number.
        (Number::Float, Number::Int { bits, .. }) | (Number::Int { bits, .. }, Number::Float) => {
            (bits <= 32).then_some(T::Float64)
        }
        (Number::Int { signed: a, bits: n }, Number::Int { signed: b, bits: m }) => {
            Some(match (a == b, a) {
                (true, true) => signed(n.max(m)),
                (true, false) => unsigned(n.max(m)),
                // One bit more than the unsigned type, and at least those of the signed one.
                (false, a_signed) => {
                    let (with, without) = if a_signed { (n, m) } else { (m, n) };
                    if without == 64 { T::Decimal128(20, 0) } else { signed(with.max(without * 2)) }
                }
            })
        }
        (Number::Float, Number::Decimal { .. }) | (Number::Decimal { .. }, Number::Float) => None,
        (a, b) => {
            let ((whole, scale), (other_whole, other_scale)) = (a.digits(), b.digits());
            let (whole, scale) = (whole.max(other_whole), scale.max(other_scale));
            let scale = i8::try_from(scale).ok()?;
            let precision = u8::try_from(whole.checked_add(scale.into())?).ok()?;
            (precision <= 38).then_some(T::Decimal128(precision, scale))
        }
    }
}

/// The numbers that a numeric type holds exactly.
#[derive(Debug, Clone, Copy)]
enum Number {
    Int { signed: bool, bits: u8 },
    Float,
    Decimal { precision: i16, scale: i16 },
}

impl Number {
    fn of(data_type: &DataType) -> Option<Self> {
        use DataType as T;
        let int = |signed, bits| Self::Int { signed, bits };
        Some(match data_type {
            T::Int8 => int(true, 8),
            T::Int16 => int(true, 16),
            T::Int32 => int(true, 32),
            T::Int64 => int(true, 64),
            T::UInt8 => int(false, 8),
            T::UInt16 => int(false, 16),
            T::UInt32 => int(false, 32),
            T::UInt64 => int(false, 64),
            T::Float16 | T::Float32 | T::Float64 => Self::Float,
            T::Decimal32(p, s) | T::Decimal64(p, s) | T::Decimal128(p, s) => {
                Self::Decimal { precision: (*p).into(), scale: (*s).into() }
            }
            _ => return None,
        })
    }

    /// Digits before and after the decimal point.
    fn digits(self) -> (i16, i16) {
        match self {
            Self::Int { bits: 8, .. } => (3, 0),
            Self::Int { bits: 16, .. } => (5, 0),
            Self::Int { bits: 32, .. } => (10, 0),
            Self::Int { .. } => (20, 0),
            Self::Decimal { precision, scale } => (precision - scale, scale.max(0)),
            Self::Float => (309, 0),
        }
    }
}

fn signed(bits: u8) -> DataType {
    match bits {
        ..=8 => DataType::Int8,
        9..=16 => DataType::Int16,
        17..=32 => DataType::Int32,
        _ => DataType::Int64,
    }
}

fn unsigned(bits: u8) -> DataType {
    match bits {
        ..=8 => DataType::UInt8,
        9..=16 => DataType::UInt16,
        17..=32 => DataType::UInt32,
        _ => DataType::UInt64,
    }
}

fn unite_fields(a: &FieldRef, b: &FieldRef) -> Option<FieldRef> {
    let united = unite(a.data_type(), b.data_type())?;
    let nullable = a.is_nullable() || b.is_nullable();
    Some(Arc::new(a.as_ref().clone().with_data_type(united).with_nullable(nullable)))
}

/// Returns the fields of both; a field that one lacks is nullable.
fn unite_structs(a: &Fields, b: &Fields) -> Option<Fields> {
    let mut all: Vec<FieldRef> = vec![];
    for field in a {
        all.push(match b.find(field.name()) {
            Some((_, other)) => unite_fields(field, other)?,
            None => Arc::new(field.as_ref().clone().with_nullable(true)),
        });
    }
    let only_b = b.iter().filter(|field| a.find(field.name()).is_none());
    all.extend(only_b.map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
    Some(all.into())
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
    )
}

/// The digits of a second that a time of day has.
fn time_digits(data_type: &DataType) -> Option<i8> {
    let (DataType::Time32(unit) | DataType::Time64(unit)) = data_type else { return None };
    Some(match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    })
}

/// Whether each value of type `is` has an equivalent in type `to` (a timestamp may lose digits).
pub(crate) fn can_become(is: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (is, to) {
        _ if is == to => true,
        (T::Dictionary(_, value), _) => can_become(value, to),
        (T::Null, _) | (T::Timestamp(..) | T::Date32 | T::Date64, T::Timestamp(..)) => true,
        (T::Date32, T::Date64) | (T::Date64, T::Date32) => true,
        (T::Time32(_) | T::Time64(_), _) => time_digits(to) >= time_digits(is),
        _ if is_text(is) => is_text(to),
        _ if is_binary(is) => is_binary(to) || is_text(to),
        // A value that does not fit is an error at run time, never wrapped.
        _ if is.is_integer() => to.is_integer() || to.is_floating() || to.is_decimal(),
        _ if is.is_floating() => matches!(to, T::Float32 | T::Float64),
        _ if is.is_decimal() => to.is_decimal() || to.is_floating(),
        (T::List(is) | T::LargeList(is), T::List(to) | T::LargeList(to)) => {
            can_become(is.data_type(), to.data_type())
        }
        (T::Struct(is), T::Struct(to)) => to.iter().all(|field| match is.find(field.name()) {
            Some((_, has)) => can_become(has.data_type(), field.data_type()),
            None => field.is_nullable(),
        }),
        _ if is.is_nested() => can_cast_types(is, to),
        _ => false,
    }
}

/// Converts a column of a file to the declared type.
pub(crate) fn convert(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    use DataType as T;
    match (column.data_type(), to) {
        (is, to) if is == to => Ok(Arc::clone(column)),
        (T::Struct(_), T::Struct(wanted)) => convert_struct(column.as_struct(), wanted),
        (T::List(_), T::List(item)) => {
            let list = column.as_list::<i32>();
            let values = convert(list.values(), item.data_type())?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls)?))
        }
        (T::List(from), T::LargeList(_)) => {
            let large = cast_with_options(column, &T::LargeList(Arc::clone(from)), &STRICT)?;
            convert(&large, to)
        }
        (T::LargeList(_), T::LargeList(item)) => {
            let list = column.as_list::<i64>();
            let values = convert(list.values(), item.data_type())?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            Ok(Arc::new(LargeListArray::try_new(Arc::clone(item), offsets, values, nulls)?))
        }
        (is, to) if is.is_decimal() && to.is_decimal() => convert_decimal(column, to),
        _ => cast_with_options(column, to, &STRICT),
    }
}

/// Matches fields by name; a missing field is NULL.
fn convert_struct(column: &StructArray, wanted: &Fields) -> Result<ArrayRef, ArrowError> {
    let field = |field: &FieldRef| match column.column_by_name(field.name()) {
        Some(values) => convert(values, field.data_type()),
        None => Ok(new_null_array(field.data_type(), column.len())),
    };
    let columns = wanted.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let nulls = column.nulls().cloned();
    Ok(Arc::new(StructArray::try_new_with_length(wanted.clone(), columns, nulls, column.len())?))
}

/// The cast rounds excess digits after the decimal point; that is an error here.
fn convert_decimal(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let cast = cast_with_options(column, to, &STRICT)?;
    let back = cast_with_options(&cast, column.data_type(), &STRICT)?;
    if distinct(&back, column)?.true_count() > 0 {
        return Err(ArrowError::CastError(format!("it has more digits than {to} holds")));
    }
    Ok(cast)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(fields: &[(&str, DataType, bool)]) -> Fields {
        fields.iter().map(|(name, t, nullable)| Field::new(*name, t.clone(), *nullable)).collect()
    }

    #[test]
    fn the_union_does_not_depend_on_the_order_and_loses_nothing() {
        use DataType as T;
        let time = |unit| T::Timestamp(unit, None);
        for (a, b, united) in [
            (T::Int32, T::Int64, Some(T::Int64)),
            (T::UInt32, T::Int32, Some(T::Int64)),
            (T::UInt64, T::Int8, Some(T::Decimal128(20, 0))),
            (T::UInt8, T::UInt16, Some(T::UInt16)),
            (T::Float32, T::Float64, Some(T::Float64)),
            (T::Int32, T::Float32, Some(T::Float64)),
            (T::Int64, T::Float64, None),
            (T::Decimal128(10, 2), T::Decimal128(8, 4), Some(T::Decimal128(12, 4))),
            (T::Decimal128(10, 2), T::Int32, Some(T::Decimal128(12, 2))),
            (T::Decimal128(38, 2), T::Decimal128(38, 4), None),
            (
                time(TimeUnit::Millisecond),
                time(TimeUnit::Nanosecond),
                Some(time(TimeUnit::Nanosecond)),
            ),
            (T::Date32, time(TimeUnit::Second), Some(time(TimeUnit::Second))),
            (T::Utf8, T::Utf8View, Some(T::Utf8View)),
            (T::Utf8View, T::Int64, None),
            (T::Boolean, T::Int8, None),
            (T::Null, T::Boolean, Some(T::Boolean)),
        ] {
            assert_eq!(unite(&a, &b), united, "{a} and {b}");
            assert_eq!(unite(&b, &a), united, "{b} and {a}");
            if let Some(united) = united {
                assert!(can_become(&a, &united) && can_become(&b, &united), "{a}, {b}, {united}");
            }
        }
    }

    #[test]
    fn columns_are_united_by_name_and_conflicts_name_both_files() {
        let old = named(&[("event", DataType::Utf8View, false), ("N", DataType::Int32, false)]);
        let new = named(&[
            ("x", DataType::Boolean, false),
            ("event", DataType::Utf8View, false),
            ("n", DataType::Int64, false),
        ]);
        let mut union = Union::default();
        union.add(&old, "1").unwrap();
        union.add(&new, "2").unwrap();
        let schema = union.into_schema();
        let got: Vec<String> = schema
            .fields()
            .iter()
            .map(|f| format!("{} {} {}", f.name(), f.data_type(), f.is_nullable()))
            .collect();
        assert_eq!(got, ["event Utf8View false", "N Int64 false", "x Boolean true"]);
        let mut union = Union::default();
        union.add(&old, "1").unwrap();
        let text = named(&[("n", DataType::Utf8View, true)]);
        let error = union.add(&text, "2").unwrap_err().to_string();
        assert!(error.contains("INT in file \"1\" and VARCHAR in file \"2\""), "{error}");
    }

    #[test]
    fn structs_are_united_and_converted_by_name() {
        let one = named(&[("a", DataType::Int32, false)]);
        let two = named(&[("b", DataType::Utf8, true), ("a", DataType::Int64, false)]);
        let united = unite(&DataType::Struct(one.clone()), &DataType::Struct(two)).unwrap();
        let values: Vec<ArrayRef> = vec![Arc::new(arrow::array::Int32Array::from(vec![1, 2]))];
        let column: ArrayRef = Arc::new(StructArray::new(one, values, None));
        let converted = convert(&column, &united).unwrap();
        assert_eq!(converted.data_type(), &united);
        assert_eq!(converted.as_struct().column(1).null_count(), 2);
        assert_eq!(
            converted.as_struct().column(0).as_primitive::<arrow::datatypes::Int64Type>().value(1),
            2
        );
    }

    #[test]
    fn decimals_are_not_rounded() {
        let exact = |values: Vec<i128>| -> ArrayRef {
            let array = arrow::array::Decimal128Array::from(values);
            Arc::new(array.with_precision_and_scale(10, 4).unwrap())
        };
        let to = DataType::Decimal128(10, 2);
        assert!(convert(&exact(vec![15_500, 100]), &to).is_ok());
        assert!(convert(&exact(vec![15_550, 101]), &to).is_err());
    }
}
