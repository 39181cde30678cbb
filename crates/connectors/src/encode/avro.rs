//! Writing Avro object container files.
//!
//! Invariant: values are converted to Avro's types without loss; a column whose type has no such conversion is refused.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast_with_options;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow_avro::compression::CompressionCodec;
use arrow_avro::errors::AvroError;
use arrow_avro::writer::format::AvroOcfFormat;
use arrow_avro::writer::{Writer, WriterBuilder};
use bytes::Bytes;
use windrow_core::{Error, Result};

use super::Encoder;
use crate::formats::convert::STRICT;

/// The compression of the blocks of an Avro file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AvroPacking {
    /// None.
    Plain,
    /// Deflate, which all readers support.
    Deflate,
    /// Snappy.
    Snappy,
    /// Zstandard.
    Zstd,
}

impl AvroPacking {
    /// The values of the option `compression`.
    pub(crate) const WORDS: &[(&str, Self)] = &[
        ("zstd", Self::Zstd),
        ("snappy", Self::Snappy),
        ("deflate", Self::Deflate),
        ("none", Self::Plain),
    ];

    fn codec(self) -> Option<CompressionCodec> {
        match self {
            Self::Plain => None,
            Self::Deflate => Some(CompressionCodec::Deflate),
            Self::Snappy => Some(CompressionCodec::Snappy),
            Self::Zstd => Some(CompressionCodec::ZStandard),
        }
    }
}

/// The bytes of a file; their number can be read while the writer holds them.
struct Counted {
    bytes: Vec<u8>,
    size: Arc<AtomicUsize>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.size.store(self.bytes.len(), Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An encoder of an Avro file. Each batch is a block.
pub(super) struct AvroEncoder {
    writer: Writer<Counted, AvroOcfFormat>,
    schema: SchemaRef,
    size: Arc<AtomicUsize>,
}

impl std::fmt::Debug for AvroEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AvroEncoder({} bytes)", self.size())
    }
}

impl AvroEncoder {
    /// Begins a file.
    ///
    /// # Errors
    /// When the type or the name of a column cannot be expressed in Avro.
    pub(super) fn new(schema: &SchemaRef, packing: AvroPacking) -> Result<Self> {
        let fields = schema.fields().iter().map(in_avro).collect::<Result<Fields, String>>();
        let fields = fields.map_err(|why| Error::data(format!("rows cannot be Avro: {why}")))?;
        let size = Arc::new(AtomicUsize::new(0));
        let counted = Counted { bytes: Vec::new(), size: Arc::clone(&size) };
        let schema = Schema::new(fields);
        let builder = WriterBuilder::new(schema.clone()).with_compression(packing.codec());
        let writer = builder.build::<_, AvroOcfFormat>(counted).map_err(failed)?;
        Ok(Self { writer, schema: Arc::new(schema), size })
    }
}

impl Encoder for AvroEncoder {
    fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let fields = rows.columns().iter().zip(self.schema.fields());
        let columns = fields.map(|(column, field)| {
            cast_with_options(column, field.data_type(), &STRICT).map_err(Error::from)
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows =
            RecordBatch::try_new_with_options(SchemaRef::clone(&self.schema), columns, &options)?;
        self.writer.write(&rows).map_err(failed)
    }

    fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    fn finish(mut self: Box<Self>) -> Result<Bytes> {
        self.writer.finish().map_err(failed)?;
        Ok(Bytes::from(self.writer.into_inner().bytes))
    }
}

fn failed(error: AvroError) -> Error {
    Error::data(format!("rows cannot be written as Avro: {error}")).with_source(error)
}

/// Returns a field with the type that Avro has for its values.
///
/// # Errors
/// When there is none, or Avro does not allow the name.
fn in_avro(field: &FieldRef) -> Result<FieldRef, String> {
    let name = field.name();
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!("\"{name}\" is no name in Avro"));
    }
    Ok(Arc::new(Field::new(name, avro_type(field.data_type())?, field.is_nullable())))
}

fn avro_type(data_type: &DataType) -> Result<DataType, String> {
    use DataType as T;
    let item = |item: &FieldRef| {
        Ok::<_, String>(Arc::new(
            item.as_ref().clone().with_data_type(avro_type(item.data_type())?),
        ))
    };
    Ok(match data_type {
        T::Int8 | T::Int16 | T::UInt8 | T::UInt16 => T::Int32,
        T::UInt32 => T::Int64,
        T::UInt64 => T::Decimal128(20, 0),
        T::Float16 => T::Float32,
        T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => T::Binary,
        T::Dictionary(_, values) => avro_type(values)?,
        T::Decimal32(precision, scale) | T::Decimal64(precision, scale) => {
            avro_type(&T::Decimal128(*precision, *scale))?
        }
        T::Date64 | T::Timestamp(TimeUnit::Second, None) => {
            T::Timestamp(TimeUnit::Millisecond, None)
        }
        T::Timestamp(unit, Some(_)) => {
            let unit = (*unit).max(TimeUnit::Millisecond);
            T::Timestamp(unit, Some("UTC".into()))
        }
        T::Time32(TimeUnit::Second) => T::Time32(TimeUnit::Millisecond),
        T::List(of) | T::LargeList(of) => T::List(item(of)?),
        T::Struct(fields) => {
            T::Struct(fields.iter().map(in_avro).collect::<Result<Fields, String>>()?)
        }
        T::Map(entries, sorted) => {
            let T::Struct(pair) = entries.data_type() else { return Err("a map".to_owned()) };
            let pair = pair.iter().map(item).collect::<Result<Fields, String>>()?;
            if pair.first().is_none_or(|key| *key.data_type() != T::Utf8) {
                return Err("keys of maps are texts in Avro".to_owned());
            }
            T::Map(Arc::new(entries.as_ref().clone().with_data_type(T::Struct(pair))), *sorted)
        }
        T::Boolean
        | T::Int32
        | T::Int64
        | T::Float32
        | T::Float64
        | T::Utf8
        | T::Binary
        | T::Date32
        | T::Time32(_)
        | T::Time64(TimeUnit::Microsecond)
        | T::Timestamp(_, None) => data_type.clone(),
        T::Decimal128(precision, scale)
            if *scale >= 0 && u8::try_from(*scale).is_ok_and(|scale| scale <= *precision) =>
        {
            data_type.clone()
        }
        other => return Err(format!("{} has no type in Avro", windrow_core::sql_type(other))),
    })
}
