//! The fields of a message as columns.
//!
//! An absent field is NULL if it has explicit presence (`optional`, `oneof`, messages), otherwise its default. Enums are the
//! names of their values, or the number of an unknown value; wrappers (`google.protobuf.Int64Value`, …) are the wrapped
//! values; a `google.protobuf.Timestamp` is a time in µs, truncated.
//!
//! Invariant: recursive messages are refused, so a row has bounded depth.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, MapArray, StringViewArray, StructArray, TimestampMicrosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// A field as a column.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its name and type.
    pub field: FieldRef,
    descriptor: FieldDescriptor,
    shape: Shape,
}

/// The values of a field.
#[derive(Debug)]
enum Shape {
    One(Form),
    List(FieldRef, Form),
    Map { entries: FieldRef, pair: Fields, key: Form, value: Form },
}

/// One value.
#[derive(Debug)]
enum Form {
    Scalar(Kind),
    /// A time.
    Timestamp,
    /// The only field of a wrapper.
    Wrapped(Box<Column>),
    Message(Fields, Vec<Column>),
}

impl Column {
    /// Returns the columns of a message; `open` are the messages that contain it.
    ///
    /// # Errors
    /// When one is recursive, or has no fields.
    pub(crate) fn of_message(
        message: &MessageDescriptor,
        open: &mut Vec<String>,
    ) -> Result<Vec<Self>, String> {
        if open.iter().any(|name| name == message.full_name()) {
            return Err(format!(
                "message \"{}\" contains itself, and no column can",
                message.full_name()
            ));
        }
        open.push(message.full_name().to_owned());
        let columns = message.fields().map(|field| Self::of_field(field, open));
        let columns = columns.collect::<Result<Vec<_>, String>>()?;
        open.pop();
        if columns.is_empty() {
            return Err(format!(
                "message \"{}\" has no fields, and each type of SQL has values",
                message.full_name()
            ));
        }
        Ok(columns)
    }

    fn of_field(descriptor: FieldDescriptor, open: &mut Vec<String>) -> Result<Self, String> {
        let shape = if descriptor.is_map() {
            let Kind::Message(entry) = descriptor.kind() else {
                return Err(format!("field \"{}\" is no map", descriptor.name()));
            };
            let key = Form::of(&entry.map_entry_key_field().kind(), open)?;
            let value = Form::of(&entry.map_entry_value_field().kind(), open)?;
            let pair: Fields = vec![
                Field::new("key", key.data_type(), false),
                Field::new("value", value.data_type(), true),
            ]
            .into();
            let entries = Arc::new(Field::new("entries", DataType::Struct(pair.clone()), false));
            Shape::Map { entries, pair, key, value }
        } else {
            let form = Form::of(&descriptor.kind(), open)?;
            if descriptor.is_list() {
                Shape::List(Arc::new(Field::new_list_field(form.data_type(), true)), form)
            } else {
                Shape::One(form)
            }
        };
        let data_type = match &shape {
            Shape::One(form) => form.data_type(),
            Shape::List(item, _) => DataType::List(Arc::clone(item)),
            Shape::Map { entries, .. } => DataType::Map(Arc::clone(entries), false),
        };
        let field = Arc::new(Field::new(descriptor.name(), data_type, true));
        Ok(Self { field, descriptor, shape })
    }

    /// Returns the values of the field in messages; a message may be `None`.
    ///
    /// # Errors
    /// When a value does not fit the column.
    pub(crate) fn values(&self, messages: &[Option<&DynamicMessage>]) -> Result<ArrayRef, String> {
        let has_absent = self.descriptor.supports_presence();
        let values: Vec<Option<Cow<'_, Value>>> = messages
            .iter()
            .map(|message| {
                let message = message.filter(|m| !has_absent || m.has_field(&self.descriptor))?;
                Some(message.get_field(&self.descriptor))
            })
            .collect();
        let values: Vec<Option<&Value>> = values.iter().map(Option::as_deref).collect();
        let built = match &self.shape {
            Shape::One(form) => form.values(&values),
            Shape::List(item, form) => list(item, form, &values),
            Shape::Map { entries, pair, key, value } => map((entries, pair), (key, value), &values),
        };
        built.map_err(|why| format!("column \"{}\": {why}", self.field.name()))
    }
}

fn list(item: &FieldRef, form: &Form, values: &[Option<&Value>]) -> Result<ArrayRef, String> {
    let of = |value: &Option<&'_ Value>| value.and_then(Value::as_list).map_or(0, <[Value]>::len);
    let offsets = OffsetBuffer::from_lengths(values.iter().map(of));
    let items = values.iter().flatten().filter_map(|value| value.as_list()).flatten();
    let items = form.values(&items.map(Some).collect::<Vec<_>>())?;
    let list = ListArray::try_new(Arc::clone(item), offsets, items, nulls(values));
    Ok(Arc::new(list.map_err(|e| e.to_string())?))
}

fn map(
    (entries, pair): (&FieldRef, &Fields),
    (key, value): (&Form, &Form),
    values: &[Option<&Value>],
) -> Result<ArrayRef, String> {
    let (mut keys, mut all, mut lengths) = (vec![], vec![], vec![]);
    for of_one in values {
        let mut of_one: Vec<(&MapKey, &Value)> =
            of_one.and_then(Value::as_map).into_iter().flatten().collect();
        // Their order is that of no message.
        of_one.sort_by(|a, b| order(a.0).cmp(&order(b.0)));
        lengths.push(of_one.len());
        for (key, value) in of_one {
            keys.push(Value::from(key.clone()));
            all.push(Some(value));
        }
    }
    let keys = key.values(&keys.iter().map(Some).collect::<Vec<_>>())?;
    let all = value.values(&all)?;
    let pairs = StructArray::try_new(pair.clone(), vec![keys, all], None);
    let pairs = pairs.map_err(|e| e.to_string())?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    let map = MapArray::try_new(Arc::clone(entries), offsets, pairs, nulls(values), false);
    Ok(Arc::new(map.map_err(|e| e.to_string())?))
}

/// The order of the keys of a map, which are all of one type.
fn order(key: &MapKey) -> (i128, &str) {
    match key {
        MapKey::Bool(value) => (i128::from(*value), ""),
        MapKey::I32(value) => (i128::from(*value), ""),
        MapKey::I64(value) => (i128::from(*value), ""),
        MapKey::U32(value) => (i128::from(*value), ""),
        MapKey::U64(value) => (i128::from(*value), ""),
        MapKey::String(value) => (0, value),
    }
}

fn nulls(values: &[Option<&Value>]) -> Option<NullBuffer> {
    let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
    (nulls.null_count() > 0).then_some(nulls)
}

impl Form {
    fn of(kind: &Kind, open: &mut Vec<String>) -> Result<Self, String> {
        let Kind::Message(message) = kind else { return Ok(Self::Scalar(kind.clone())) };
        match message.full_name() {
            "google.protobuf.Timestamp" => return Ok(Self::Timestamp),
            "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.Int32Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.BoolValue"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue" => {
                if let Some(value) = message.get_field_by_name("value") {
                    return Ok(Self::Wrapped(Box::new(Column::of_field(value, open)?)));
                }
            }
            _ => {}
        }
        let columns = Column::of_message(message, open)?;
        let fields = columns.iter().map(|column| Arc::clone(&column.field)).collect();
        Ok(Self::Message(fields, columns))
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Wrapped(column) => column.field.data_type().clone(),
            Self::Message(fields, _) => DataType::Struct(fields.clone()),
            Self::Scalar(kind) => match kind {
                Kind::Double => DataType::Float64,
                Kind::Float => DataType::Float32,
                Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => DataType::Int32,
                Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => DataType::Int64,
                Kind::Uint32 | Kind::Fixed32 => DataType::UInt32,
                Kind::Uint64 | Kind::Fixed64 => DataType::UInt64,
                Kind::Bool => DataType::Boolean,
                Kind::Bytes => DataType::Binary,
                Kind::String | Kind::Enum(_) | Kind::Message(_) => DataType::Utf8View,
            },
        }
    }

    fn values(&self, values: &[Option<&Value>]) -> Result<ArrayRef, String> {
        let messages = || -> Vec<Option<&DynamicMessage>> {
            values.iter().map(|value| value.and_then(Value::as_message)).collect()
        };
        match self {
            Self::Scalar(kind) => Ok(scalars(kind, values)),
            Self::Wrapped(column) => column.values(&messages()),
            Self::Timestamp => {
                let times = messages().into_iter().map(|time| time.map(micros).transpose());
                let times = times.collect::<Result<TimestampMicrosecondArray, String>>()?;
                Ok(Arc::new(times.with_timezone("UTC")))
            }
            Self::Message(fields, columns) => {
                let messages = messages();
                let columns = columns.iter().map(|column| column.values(&messages));
                let columns = columns.collect::<Result<Vec<_>, String>>()?;
                let built = StructArray::try_new(fields.clone(), columns, nulls(values));
                Ok(Arc::new(built.map_err(|e| e.to_string())?))
            }
        }
    }
}

fn scalars(kind: &Kind, values: &[Option<&Value>]) -> ArrayRef {
    /// Collects what a value is as `of`.
    macro_rules! of {
        ($array:ty, $of:expr) => {
            Arc::new(values.iter().map(|value| value.and_then($of)).collect::<$array>())
        };
    }
    match kind {
        Kind::Double => of!(Float64Array, Value::as_f64),
        Kind::Float => of!(Float32Array, Value::as_f32),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => of!(Int32Array, Value::as_i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => of!(Int64Array, Value::as_i64),
        Kind::Uint32 | Kind::Fixed32 => of!(UInt32Array, Value::as_u32),
        Kind::Uint64 | Kind::Fixed64 => of!(UInt64Array, Value::as_u64),
        Kind::Bool => of!(BooleanArray, Value::as_bool),
        Kind::Bytes => {
            of!(BinaryArray, |value: &'_ Value| value.as_bytes().map(AsRef::<[u8]>::as_ref))
        }
        Kind::String | Kind::Message(_) => of!(StringViewArray, Value::as_str),
        Kind::Enum(names) => {
            let name = |number: i32| match names.get_value(number) {
                Some(value) => value.name().to_owned(),
                None => number.to_string(),
            };
            of!(StringViewArray, |value: &'_ Value| value.as_enum_number().map(name))
        }
    }
}

/// A time in µs since 1970.
fn micros(time: &DynamicMessage) -> Result<i64, String> {
    let part = |name: &str| time.get_field_by_name(name).map(Cow::into_owned);
    let seconds = part("seconds").and_then(|seconds| seconds.as_i64()).unwrap_or(0);
    let nanos = part("nanos").and_then(|nanos| nanos.as_i32()).unwrap_or(0);
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(format!("{nanos} is no number of nanoseconds in a second"));
    }
    let micros = seconds.checked_mul(1_000_000);
    let micros = micros.and_then(|micros| micros.checked_add(i64::from(nanos / 1_000)));
    micros.ok_or_else(|| format!("{seconds} seconds since 1970 are out of range for microseconds"))
}
