//! The columns of a stream of messages: those of a message's value, and those of what else it carries (`METADATA FROM '…'`).

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, Int64Builder, StringViewBuilder, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use windrow_core::{Error, Result, sql_type};

use crate::Declared;

/// What a message can carry besides its value. Which of it, and by which names, depends on the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metadata {
    /// Text or bytes that the producer chose.
    Key,
    /// Names with values, as an object of JSON.
    Headers,
    /// The number of a partition.
    Partition,
    /// A number that grows within a partition.
    Offset,
    /// When the producer or the broker had it.
    Timestamp,
    /// The topic, subject, stream or shard.
    Topic,
    /// A position that is no number.
    Id,
}

/// The names by which `METADATA FROM '…'` knows what the messages of a broker carry.
pub(crate) type Names = &'static [(&'static str, Metadata)];

/// What a message carries.
pub(crate) enum Carried<'a> {
    /// It does not carry it.
    Nothing,
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    Number(i64),
    /// A time since 1970 in this unit.
    Time(i64, TimeUnit),
}

/// A message with metadata.
pub(crate) trait Carries {
    /// Returns what it carries of this kind.
    fn carried(&self, what: Metadata) -> Carried<'_>;
}

impl Metadata {
    /// Finds it by its name, for a column.
    ///
    /// # Errors
    /// When there is none of this name, or the column cannot hold it.
    fn of(name: &str, field: &Field, names: Names) -> Result<Self> {
        let column = field.name();
        let Some((_, kind)) = names.iter().find(|(known, _)| name.eq_ignore_ascii_case(known))
        else {
            let known: Vec<String> = names.iter().map(|(known, _)| format!("'{known}'")).collect();
            return Err(Error::config(format!(
                "column \"{column}\": a message has no metadata '{name}'"
            ))
            .with_hint(format!("It has: {}.", known.join(", "))));
        };
        let data_type = field.data_type();
        let is_text =
            matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let (fits, types) = match kind {
            Self::Key => (is_text || is_bytes(data_type), "VARCHAR or BYTEA"),
            Self::Headers | Self::Topic | Self::Id => (is_text, "VARCHAR"),
            Self::Partition => {
                (matches!(data_type, DataType::Int32 | DataType::Int64), "INTEGER or BIGINT")
            }
            Self::Offset => (*data_type == DataType::Int64, "BIGINT"),
            Self::Timestamp => (matches!(data_type, DataType::Timestamp(..)), "TIMESTAMP"),
        };
        if fits {
            return Ok(*kind);
        }
        Err(Error::config(format!(
            "column \"{column}\" is {}, and metadata '{name}' is {types}",
            sql_type(data_type)
        ))
        .with_hint(format!("Declare it as {types}.")))
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// The origin of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A column of the value.
    Value(usize),
    Metadata(Metadata),
}

/// The columns of a stream and where they come from.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) schema: SchemaRef,
    /// The columns of the value.
    pub(crate) value: SchemaRef,
    places: Vec<Place>,
}

impl Columns {
    /// Divides the declared columns; for a stream without any: `alone` is the type of the value when it is not divided,
    /// and `of_schema` are its columns when it has a schema.
    ///
    /// # Errors
    /// When no columns are declared, and when a column cannot hold what it is declared to.
    pub(crate) fn new(
        declared: &Declared,
        (connector, names): (&str, Names),
        alone: Option<DataType>,
        of_schema: Option<&SchemaRef>,
    ) -> Result<Self> {
        let schema = match (declared.schema.as_ref().or(of_schema), alone) {
            (Some(schema), _) => Arc::clone(schema),
            (None, Some(alone)) => Arc::new(Schema::new(vec![Field::new("value", alone, true)])),
            (None, None) => {
                return Err(Error::config(format!("a stream with connector \"{connector}\" needs columns"))
                    .with_hint("Declare them: CREATE STREAM s (a INT, ts TIMESTAMP METADATA FROM 'timestamp') WITH (…)."));
            }
        };
        let (mut value, mut places) = (vec![], vec![]);
        for field in schema.fields() {
            match declared.metadata.iter().find(|(column, _)| column == field.name()) {
                Some((_, name)) => places.push(Place::Metadata(Metadata::of(name, field, names)?)),
                None => {
                    places.push(Place::Value(value.len()));
                    value.push(Arc::clone(field));
                }
            }
        }
        Ok(Self { value: Arc::new(Schema::new(value)), schema, places })
    }

    /// The wanted columns of the value.
    pub(crate) fn of_value(&self, projection: &[usize]) -> Vec<usize> {
        let places = projection.iter().filter_map(|column| self.places.get(*column));
        places
            .filter_map(|place| match place {
                Place::Value(column) => Some(*column),
                Place::Metadata(_) => None,
            })
            .collect()
    }

    /// Returns builders of the metadata. All declared columns that can be wrong are checked, whatever is read.
    pub(crate) fn builders(&self, projection: &[usize], nulls: bool) -> Vec<MetadataColumn> {
        let places = self.places.iter().zip(self.schema.fields()).enumerate();
        places
            .filter_map(|(index, (place, field))| {
                let Place::Metadata(kind) = *place else { return None };
                let is_wanted = projection.contains(&index);
                let may_be_wrong =
                    !field.is_nullable() || matches!(kind, Metadata::Key | Metadata::Timestamp);
                (is_wanted || may_be_wrong).then(|| MetadataColumn {
                    kind,
                    field: Arc::clone(field),
                    nulls: nulls && field.is_nullable(),
                    is_wanted,
                    values: Values::of(kind, field.data_type()),
                })
            })
            .collect()
    }

    /// Joins the columns of the value with the metadata, as a query wants them.
    pub(crate) fn join(
        &self,
        projection: &[usize],
        value: &[ArrayRef],
        metadata: Vec<ArrayRef>,
    ) -> Vec<ArrayRef> {
        let (mut value, mut metadata) = (value.iter().cloned(), metadata.into_iter());
        let places = projection.iter().filter_map(|column| self.places.get(*column));
        places
            .filter_map(|place| match place {
                Place::Value(_) => value.next(),
                Place::Metadata(_) => metadata.next(),
            })
            .collect()
    }
}

#[derive(Debug)]
enum Values {
    Text(StringViewBuilder),
    Bytes(BinaryBuilder),
    Numbers(Int64Builder),
}

impl Values {
    fn of(kind: Metadata, data_type: &DataType) -> Self {
        match kind {
            Metadata::Key if is_bytes(data_type) => Self::Bytes(BinaryBuilder::new()),
            Metadata::Key | Metadata::Headers | Metadata::Topic | Metadata::Id => {
                Self::Text(StringViewBuilder::new())
            }
            Metadata::Partition | Metadata::Offset | Metadata::Timestamp => {
                Self::Numbers(Int64Builder::new())
            }
        }
    }
}

/// A column of metadata that is being built.
#[derive(Debug)]
pub(crate) struct MetadataColumn {
    kind: Metadata,
    field: Arc<Field>,
    /// Whether what is wrong becomes NULL.
    nulls: bool,
    is_wanted: bool,
    values: Values,
}

impl MetadataColumn {
    /// Appends the value of a message; returns why the message is a bad row.
    pub(crate) fn push(&mut self, message: &impl Carries) -> Option<String> {
        let pushed = self.value(message);
        let why = match pushed {
            Ok(true) => return None,
            Ok(false) if self.field.is_nullable() => {
                self.push_null();
                return None;
            }
            Ok(false) => "the message has none, and the column is NOT NULL".to_owned(),
            Err(why) => why,
        };
        self.push_null();
        (!self.nulls).then(|| format!("column \"{}\": {why}", self.field.name()))
    }

    fn push_null(&mut self) {
        match &mut self.values {
            Values::Text(text) => text.append_null(),
            Values::Bytes(bytes) => bytes.append_null(),
            Values::Numbers(numbers) => numbers.append_null(),
        }
    }

    /// Appends the value; `false`: the message has none.
    fn value(&mut self, message: &impl Carries) -> Result<bool, String> {
        let what = self.field.name();
        match (&mut self.values, message.carried(self.kind)) {
            (_, Carried::Nothing) => return Ok(false),
            (Values::Bytes(bytes), Carried::Bytes(value)) => bytes.append_value(value),
            (Values::Bytes(bytes), Carried::Text(value)) => bytes.append_value(value.as_bytes()),
            (Values::Text(text), Carried::Text(value)) => text.append_value(value),
            (Values::Text(text), Carried::Bytes(value)) => {
                let value = std::str::from_utf8(value).map_err(|e| {
                    format!("the key is not valid UTF-8 at its byte {}", e.valid_up_to())
                })?;
                text.append_value(value);
            }
            (Values::Numbers(numbers), Carried::Number(value)) => numbers.append_value(value),
            (Values::Numbers(numbers), Carried::Time(time, unit)) => {
                let ticks = in_unit(time, unit, self.field.data_type());
                let out = || {
                    let (unit, to) = (unit_name(unit), sql_type(self.field.data_type()));
                    format!("{time} {unit} are out of range for {to}")
                };
                numbers.append_value(ticks.ok_or_else(out)?);
            }
            _ => return Err(format!("the metadata of \"{what}\" has another type")),
        }
        Ok(true)
    }

    /// Returns the column, and begins anew; `None`: it was built to check it only.
    ///
    /// # Errors
    /// Never in practice: types were checked.
    pub(crate) fn finish(&mut self) -> Result<Option<ArrayRef>> {
        let to = self.field.data_type();
        let array: ArrayRef = match &mut self.values {
            Values::Text(text) => Arc::new(text.finish()),
            Values::Bytes(bytes) => Arc::new(bytes.finish()),
            Values::Numbers(numbers) => {
                let numbers = numbers.finish();
                match to {
                    DataType::Timestamp(unit, zone) => {
                        let (_, values, nulls) = numbers.into_parts();
                        let zone = zone.clone();
                        match unit {
                            TimeUnit::Second => Arc::new(
                                TimestampSecondArray::new(values, nulls).with_timezone_opt(zone),
                            ),
                            TimeUnit::Millisecond => Arc::new(
                                TimestampMillisecondArray::new(values, nulls)
                                    .with_timezone_opt(zone),
                            ),
                            TimeUnit::Microsecond => Arc::new(
                                TimestampMicrosecondArray::new(values, nulls)
                                    .with_timezone_opt(zone),
                            ),
                            TimeUnit::Nanosecond => Arc::new(
                                TimestampNanosecondArray::new(values, nulls)
                                    .with_timezone_opt(zone),
                            ),
                        }
                    }
                    _ => Arc::new(numbers),
                }
            }
        };
        if !self.is_wanted {
            return Ok(None);
        }
        if array.data_type() == to {
            return Ok(Some(array));
        }
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        Ok(Some(cast_with_options(&array, to, &strict)?))
    }
}

/// Converts a time into the ticks of a column; `None`: it is out of range.
fn in_unit(time: i64, unit: TimeUnit, to: &DataType) -> Option<i64> {
    let per_second = |unit| match unit {
        TimeUnit::Second => 1_i64,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let DataType::Timestamp(wanted, _) = to else { return Some(time) };
    let (from, to) = (per_second(unit), per_second(*wanted));
    match to >= from {
        true => time.checked_mul(to / from),
        false => Some(time.div_euclid(from / to)),
    }
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "µs",
        TimeUnit::Nanosecond => "ns",
    }
}

/// Headers as an object of JSON, in their order; a name may occur more than once. A value that is not UTF-8 is its bytes
/// in hexadecimal.
pub(crate) fn headers_json<'a>(
    headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut json = String::from("{");
    for (name, value) in headers {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&quoted(name));
        json.push(':');
        match value.map(|value| (value, std::str::from_utf8(value))) {
            None => json.push_str("null"),
            Some((_, Ok(text))) => json.push_str(&quoted(text)),
            Some((bytes, Err(_))) => {
                json.push_str("\"0x");
                bytes.iter().for_each(|byte| json.push_str(&format!("{byte:02x}")));
                json.push('"');
            }
        }
    }
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names = &[
        ("key", Metadata::Key),
        ("partition", Metadata::Partition),
        ("offset", Metadata::Offset),
        ("timestamp", Metadata::Timestamp),
    ];

    #[test]
    fn headers_are_an_object() {
        let headers =
            [("a\"b", Some("ü\n".as_bytes())), ("n", None), ("n", Some(&[0xff_u8, 0x0a][..]))];
        let json = headers_json(headers.into_iter());
        assert_eq!(json, r#"{"a\"b":"ü\n","n":null,"n":"0xff0a"}"#);
        assert_eq!(headers_json(std::iter::empty()), "{}");
    }

    #[test]
    fn times_are_converted() {
        let to = |unit| DataType::Timestamp(unit, None);
        assert_eq!(in_unit(-1, TimeUnit::Nanosecond, &to(TimeUnit::Second)), Some(-1));
        assert_eq!(in_unit(5, TimeUnit::Second, &to(TimeUnit::Microsecond)), Some(5_000_000));
        assert_eq!(in_unit(i64::MAX, TimeUnit::Second, &to(TimeUnit::Millisecond)), None);
    }

    #[test]
    fn columns_must_fit_what_they_are_from() {
        let columns = |name: &str, data_type: DataType| {
            let field = Field::new("c", data_type, true);
            let declared = Declared {
                schema: Some(Arc::new(Schema::new(vec![field]))),
                metadata: vec![("c".to_owned(), name.to_owned())],
                ..Declared::default()
            };
            Columns::new(&declared, ("kafka", NAMES), None, None)
        };
        for (name, data_type) in [
            ("key", DataType::Utf8View),
            ("KEY", DataType::Binary),
            ("timestamp", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
            ("partition", DataType::Int32),
        ] {
            assert!(columns(name, data_type).unwrap().value.fields().is_empty());
        }
        for (name, data_type) in [
            ("key", DataType::Int64),
            ("offset", DataType::Int32),
            ("timestamp", DataType::Int64),
            ("leader", DataType::Int32),
        ] {
            let error = columns(name, data_type).unwrap_err();
            assert!(!error.hints().is_empty() && error.message().contains("\"c\""), "{error}");
        }
    }
}
