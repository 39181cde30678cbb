//! The schema with which records were written.
//!
//! Invariant: records of a schema that [`WriterSchema::parse`] accepts are decoded in time and memory bounded by their size:
//! recursive types, and lists of values that take no bytes, are refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow_avro::codec::Tz;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use serde_json::Value;

/// A schema of records.
#[derive(Debug)]
pub(crate) struct WriterSchema {
    /// As JSON, without what does not affect the encoding.
    record: Value,
    fields: Fields,
    fingerprint: u64,
}

impl WriterSchema {
    /// Parses a schema.
    ///
    /// # Errors
    /// When it is not a record schema, or has types that cannot be decoded; the message continues "the schema …".
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut record: Value =
            serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
        let kind = record.get("type").and_then(Value::as_str);
        if !matches!(kind, Some("record")) {
            return Err("is not that of a record".to_owned());
        }
        let mut names = Names::default();
        if names.prepare(&mut record, "")? {
            return Err("has no field with a value".to_owned());
        }
        let prepared = AvroSchema::new(record.to_string());
        let fingerprint = match prepared.fingerprint(FingerprintAlgorithm::Rabin) {
            Ok(Fingerprint::Rabin(fingerprint)) => fingerprint,
            Ok(_) => return Err("has no fingerprint".to_owned()),
            Err(e) => return Err(format!("is wrong: {e}")),
        };
        let decoder = decoder_of(&record, usize::MAX >> 1)?;
        Ok(Self { fields: decoder.schema().fields().clone(), record, fingerprint })
    }

    /// Its fields, with the types to which they are decoded.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Its CRC-64-AVRO fingerprint.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Returns a decoder of records, which takes `rows_max` before they are flushed.
    ///
    /// # Errors
    /// Never for a schema that was parsed.
    pub(super) fn decoder(&self, rows_max: usize) -> Result<Decoder, String> {
        decoder_of(&self.record, rows_max)
    }

    /// Returns a decoder of records in one list, the only field of a record.
    ///
    /// # Errors
    /// Never for a schema that was parsed.
    pub(super) fn list_decoder(&self) -> Result<Decoder, String> {
        let list = serde_json::json!({
            "type": "record",
            "name": "windrow_block",
            "fields": [{"name": "records", "type": {"type": "array", "items": self.record}}],
        });
        decoder_of(&list, usize::MAX >> 1)
    }

    /// Returns the columns of a stream that takes them from this schema.
    ///
    /// # Errors
    /// When one has a type that SQL does not have; the message continues "the schema …".
    pub(crate) fn columns(&self) -> Result<SchemaRef, String> {
        let columns = self.fields.iter().map(|field| {
            let data_type = as_column(field.data_type()).ok_or_else(|| {
                format!("has a field \"{}\" whose type no column has", field.name())
            })?;
            Ok(Field::new(field.name(), data_type, field.is_nullable()))
        });
        Ok(Arc::new(Schema::new(columns.collect::<Result<Vec<_>, String>>()?)))
    }
}

/// Returns a decoder of one schema.
fn decoder_of(record: &Value, rows_max: usize) -> Result<Decoder, String> {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let wrong = |e: arrow::error::ArrowError| format!("cannot be used: {e}");
    store.set(Fingerprint::Id(0), AvroSchema::new(record.to_string())).map_err(wrong)?;
    let builder = ReaderBuilder::new().with_writer_schema_store(store).with_tz(Tz::Utc);
    builder.with_batch_size(rows_max).build_decoder().map_err(wrong)
}

/// Returns the type of a column for decoded values; `None` when there is none.
fn as_column(decoded: &DataType) -> Option<DataType> {
    use DataType as T;
    let nested = |field: &FieldRef| {
        let data_type = as_column(field.data_type())?;
        Some(Arc::new(Field::new(field.name(), data_type, field.is_nullable())))
    };
    Some(match decoded {
        T::Utf8 | T::Null => T::Utf8View,
        T::Dictionary(_, symbols) => as_column(symbols)?,
        T::FixedSizeBinary(_) => T::Binary,
        T::Decimal256(..) | T::Union(..) => return None,
        T::List(item) => T::List(nested(item)?),
        T::Struct(fields) => T::Struct(fields.iter().map(nested).collect::<Option<Fields>>()?),
        T::Map(entries, sorted) => {
            let T::Struct(pair) = entries.data_type() else { return None };
            let pair = pair.iter().map(nested).collect::<Option<Fields>>()?;
            let entries = entries.as_ref().clone().with_data_type(T::Struct(pair));
            T::Map(Arc::new(entries), *sorted)
        }
        other => other.clone(),
    })
}

/// The named types of a schema.
#[derive(Debug, Default)]
struct Names {
    /// Whether values of each take no bytes; `None` while the type is being defined.
    known: BTreeMap<String, Option<bool>>,
}

impl Names {
    /// Checks a schema, and removes what does not affect the encoding; returns whether its values take no bytes.
    fn prepare(&mut self, schema: &mut Value, space: &str) -> Result<bool, String> {
        match schema {
            Value::String(name) => self.named(name, space),
            Value::Array(branches) => {
                for branch in branches {
                    self.prepare(branch, space)?;
                }
                Ok(false)
            }
            Value::Object(object) => {
                let inner = object.get("type").filter(|t| !t.is_string()).cloned();
                if let Some(mut inner) = inner {
                    let is_empty = self.prepare(&mut inner, space)?;
                    *schema = inner;
                    return Ok(is_empty);
                }
                let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
                match kind {
                    "record" | "error" | "enum" | "fixed" => self.define(schema, space),
                    "array" => {
                        let items = object.get_mut("items").ok_or("has an array without items")?;
                        if self.prepare(items, space)? {
                            return Err("has an array of values without bytes".to_owned());
                        }
                        Ok(false)
                    }
                    "map" => {
                        let values = object.get_mut("values").ok_or("has a map without values")?;
                        self.prepare(values, space)?;
                        Ok(false)
                    }
                    name => {
                        let is_empty = self.named(name, space)?;
                        // It is text that need not be read as what it says.
                        if object.get("logicalType").is_some_and(|logical| logical == "uuid") {
                            object.remove("logicalType");
                        }
                        Ok(is_empty)
                    }
                }
            }
            _ => Err("has a type that is neither a name nor an object".to_owned()),
        }
    }

    fn named(&self, name: &str, space: &str) -> Result<bool, String> {
        const PRIMITIVE: &[&str] =
            &["boolean", "int", "long", "float", "double", "bytes", "string"];
        if name == "null" {
            return Ok(true);
        }
        if PRIMITIVE.contains(&name) {
            return Ok(false);
        }
        let known = self.known.get(&full_name(name, space)).or_else(|| self.known.get(name));
        match known {
            Some(Some(is_empty)) => Ok(*is_empty),
            Some(None) => Err(format!("has a type \"{name}\" that contains itself")),
            None => Err(format!("has no type \"{name}\"")),
        }
    }

    fn define(&mut self, schema: &mut Value, space: &str) -> Result<bool, String> {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
        let name = full_name(
            text("name"),
            schema.get("namespace").and_then(Value::as_str).unwrap_or(space),
        );
        let space = name.rsplit_once('.').map_or("", |(space, _)| space).to_owned();
        if self.known.insert(name.clone(), None).is_some() {
            return Err(format!("defines the type \"{name}\" twice"));
        }
        let is_empty = match text("type") {
            "fixed" => schema.get("size").and_then(Value::as_u64) == Some(0),
            "enum" => false,
            _ => {
                let fields = schema.get_mut("fields").and_then(Value::as_array_mut);
                let mut is_empty = true;
                for field in fields.ok_or("has a record without fields")? {
                    let of = field.get_mut("type").ok_or("has a field without a type")?;
                    is_empty &= self.prepare(of, &space)?;
                }
                is_empty
            }
        };
        self.known.insert(name, Some(is_empty));
        Ok(is_empty)
    }
}

fn full_name(name: &str, space: &str) -> String {
    if space.is_empty() || name.contains('.') { name.to_owned() } else { format!("{space}.{name}") }
}
