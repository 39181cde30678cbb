//! The columns of a stream: those of a message's value, and those of what else it carries (`METADATA FROM '…'`).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, Int64Builder, StringViewBuilder, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use windrow_core::{Error, Result, sql_type};

use crate::Declared;

/// What a message carries besides its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metadata {
    Key,
    Headers,
    Partition,
    Offset,
    Timestamp,
    Topic,
}

const KINDS: &[(&str, Metadata)] = &[
    ("key", Metadata::Key),
    ("headers", Metadata::Headers),
    ("partition", Metadata::Partition),
    ("offset", Metadata::Offset),
    ("timestamp", Metadata::Timestamp),
    ("topic", Metadata::Topic),
];

impl Metadata {
    /// Finds it by its name, for a column.
    ///
    /// # Errors
    /// When there is none of this name, or the column cannot hold it.
    fn of(name: &str, field: &Field) -> Result<Self> {
        let column = field.name();
        let Some((_, kind)) = KINDS.iter().find(|(known, _)| name.eq_ignore_ascii_case(known))
        else {
            let known: Vec<String> = KINDS.iter().map(|(known, _)| format!("'{known}'")).collect();
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
            Self::Headers | Self::Topic => (is_text, "VARCHAR"),
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
pub(super) struct Columns {
    pub(super) schema: SchemaRef,
    /// The columns of the value.
    pub(super) value: SchemaRef,
    places: Vec<Place>,
}

impl Columns {
    /// Divides the declared columns; for a stream without any: `alone` is the type of the value when it is not divided,
    /// and `of_schema` are its columns when it has a schema.
    ///
    /// # Errors
    /// When no columns are declared, and when a column cannot hold what it is declared to.
    pub(super) fn new(
        declared: &Declared,
        alone: Option<DataType>,
        of_schema: Option<&SchemaRef>,
    ) -> Result<Self> {
        let schema = match (declared.schema.as_ref().or(of_schema), alone) {
            (Some(schema), _) => Arc::clone(schema),
            (None, Some(alone)) => Arc::new(Schema::new(vec![Field::new("value", alone, true)])),
            (None, None) => {
                return Err(Error::config("a stream with connector \"kafka\" needs columns")
                    .with_hint("Declare them: CREATE STREAM s (a INT, ts TIMESTAMP METADATA FROM 'timestamp') WITH (…)."));
            }
        };
        let (mut value, mut places) = (vec![], vec![]);
        for field in schema.fields() {
            match declared.metadata.iter().find(|(column, _)| column == field.name()) {
                Some((_, name)) => places.push(Place::Metadata(Metadata::of(name, field)?)),
                None => {
                    places.push(Place::Value(value.len()));
                    value.push(Arc::clone(field));
                }
            }
        }
        Ok(Self { value: Arc::new(Schema::new(value)), schema, places })
    }

    /// The wanted columns of the value.
    pub(super) fn of_value(&self, projection: &[usize]) -> Vec<usize> {
        let places = projection.iter().filter_map(|column| self.places.get(*column));
        places
            .filter_map(|place| match place {
                Place::Value(column) => Some(*column),
                Place::Metadata(_) => None,
            })
            .collect()
    }

    /// Returns builders of the metadata. All declared columns that can be wrong are checked, whatever is read.
    pub(super) fn builders(&self, projection: &[usize], nulls: bool) -> Vec<MetadataColumn> {
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
    pub(super) fn join(
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
            Metadata::Key | Metadata::Headers | Metadata::Topic => {
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
pub(super) struct MetadataColumn {
    kind: Metadata,
    field: Arc<Field>,
    /// Whether what is wrong becomes NULL.
    nulls: bool,
    is_wanted: bool,
    values: Values,
}

impl MetadataColumn {
    /// Appends the value of a message; returns why the message is a bad row.
    pub(super) fn push(&mut self, message: &BorrowedMessage<'_>) -> Option<String> {
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
    fn value(&mut self, message: &BorrowedMessage<'_>) -> Result<bool, String> {
        match (&mut self.values, self.kind) {
            (Values::Bytes(bytes), _) => {
                let Some(key) = message.key() else { return Ok(false) };
                bytes.append_value(key);
            }
            (Values::Text(text), Metadata::Key) => {
                let Some(key) = message.key() else { return Ok(false) };
                let key = std::str::from_utf8(key).map_err(|e| {
                    format!("the key is not valid UTF-8 at its byte {}", e.valid_up_to())
                })?;
                text.append_value(key);
            }
            (Values::Text(text), Metadata::Topic) => text.append_value(message.topic()),
            (Values::Text(text), _) => {
                let Some(headers) = message.headers() else { return Ok(false) };
                text.append_value(as_json(headers));
            }
            (Values::Numbers(numbers), Metadata::Partition) => {
                numbers.append_value(message.partition().into());
            }
            (Values::Numbers(numbers), Metadata::Offset) => numbers.append_value(message.offset()),
            (Values::Numbers(numbers), _) => {
                let Some(millis) = message.timestamp().to_millis() else { return Ok(false) };
                let ticks = match self.field.data_type() {
                    DataType::Timestamp(TimeUnit::Second, _) => Some(millis.div_euclid(1000)),
                    DataType::Timestamp(TimeUnit::Microsecond, _) => millis.checked_mul(1_000),
                    DataType::Timestamp(TimeUnit::Nanosecond, _) => millis.checked_mul(1_000_000),
                    _ => Some(millis),
                };
                let out = || {
                    format!("{millis} ms are out of range for {}", sql_type(self.field.data_type()))
                };
                numbers.append_value(ticks.ok_or_else(out)?);
            }
        }
        Ok(true)
    }

    /// Returns the column, and begins anew; `None`: it was built to check it only.
    ///
    /// # Errors
    /// Never in practice: types were checked.
    pub(super) fn finish(&mut self) -> Result<Option<ArrayRef>> {
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

/// Headers as an object of JSON, in their order; a name may occur more than once. A value that is not UTF-8 is its bytes
/// in hexadecimal.
fn as_json<H: Headers>(headers: &H) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut json = String::from("{");
    for header in headers.iter() {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&quoted(header.key));
        json.push(':');
        match header.value.map(|value| (value, std::str::from_utf8(value))) {
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
    use rdkafka::message::{Header, OwnedHeaders};

    #[test]
    fn headers_are_an_object() {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "a\"b", value: Some("ü\n") })
            .insert(Header { key: "n", value: None::<&[u8]> })
            .insert(Header { key: "n", value: Some(&[0xff_u8, 0x0a][..]) });
        assert_eq!(as_json(&headers), r#"{"a\"b":"ü\n","n":null,"n":"0xff0a"}"#);
        assert_eq!(as_json(&OwnedHeaders::new()), "{}");
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
            Columns::new(&declared, None, None)
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
