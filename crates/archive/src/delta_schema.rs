//! Mapping of Arrow types to Delta types, and the exact Arrow schema as a table property.

use arrow::datatypes::{DataType as Arrow, Field, Fields, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use deltalake_core::kernel::{
    ArrayType, DataType as Delta, MapType, PrimitiveType, StructField, StructType,
};
use windrow_core::{Error, Result};

/// Converts the columns of `schema` to Delta types, all nullable.
///
/// # Errors
/// When Delta has no such type; the column is named.
pub(crate) fn columns(schema: &Schema) -> Result<Vec<StructField>> {
    schema.fields().iter().map(|f| column(f, f.name())).collect()
}

/// Converts one field; `path` is its name in messages.
fn column(field: &Field, path: &str) -> Result<StructField> {
    Ok(StructField::nullable(field.name(), data_type(field.data_type(), path)?))
}

/// Converts one type of the column `path`.
fn data_type(arrow: &Arrow, path: &str) -> Result<Delta> {
    use PrimitiveType as P;
    let primitive = |p| Ok(Delta::Primitive(p));
    match arrow {
        Arrow::Boolean => primitive(P::Boolean),
        Arrow::Int8 => primitive(P::Byte),
        Arrow::Int16 | Arrow::UInt8 => primitive(P::Short),
        Arrow::Int32 | Arrow::UInt16 => primitive(P::Integer),
        Arrow::Int64 | Arrow::UInt32 | Arrow::UInt64 => primitive(P::Long),
        Arrow::Float16 | Arrow::Float32 => primitive(P::Float),
        Arrow::Float64 => primitive(P::Double),
        Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => primitive(P::String),
        Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => {
            primitive(P::Binary)
        }
        Arrow::Date32 | Arrow::Date64 => primitive(P::Date),
        Arrow::Timestamp(_, None) => primitive(P::TimestampNtz),
        Arrow::Timestamp(_, Some(_)) => primitive(P::Timestamp),
        Arrow::Decimal32(p, s)
        | Arrow::Decimal64(p, s)
        | Arrow::Decimal128(p, s)
        | Arrow::Decimal256(p, s) => {
            let scale = u8::try_from(*s).map_err(|_| unsupported_type(arrow, path))?;
            Delta::decimal(*p, scale).map_err(|e| unsupported_type(arrow, path).with_source(e))
        }
        Arrow::Dictionary(_, value) => data_type(value, path),
        Arrow::List(item)
        | Arrow::LargeList(item)
        | Arrow::ListView(item)
        | Arrow::LargeListView(item)
        | Arrow::FixedSizeList(item, _) => {
            let item = data_type(item.data_type(), &format!("{path}[]"))?;
            Ok(Delta::from(ArrayType::new(item, true)))
        }
        Arrow::Struct(fields) => structure(fields, path),
        Arrow::Map(entries, _) => match entries.data_type() {
            Arrow::Struct(pair) if pair.len() == 2 => {
                let key = data_type(pair[0].data_type(), &format!("{path} (its keys)"))?;
                let value = data_type(pair[1].data_type(), &format!("{path} (its values)"))?;
                Ok(Delta::from(MapType::new(key, value, true)))
            }
            _ => Err(unsupported_type(arrow, path)),
        },
        _ => Err(unsupported_type(arrow, path)),
    }
}

/// Converts a struct of the column `path`.
fn structure(fields: &Fields, path: &str) -> Result<Delta> {
    let fields = fields
        .iter()
        .map(|f| column(f, &format!("{path}.{}", f.name())))
        .collect::<Result<Vec<_>>>()?;
    let of = StructType::try_new(fields).map_err(|e| {
        Error::sql(format!("column \"{path}\" cannot be archived: {e}")).with_source(e)
    })?;
    Ok(Delta::from(of))
}

/// Returns the error for a type that Delta does not have.
fn unsupported_type(arrow: &Arrow, path: &str) -> Error {
    Error::sql(format!("column \"{path}\" of type {arrow} cannot be archived"))
        .with_detail("Delta Lake has no such type.")
        .with_hint(
            "CAST the column to a type that Delta has, such as BIGINT, VARCHAR or TIMESTAMP.",
        )
}

/// Whether a column has timestamps without a time zone, also inside.
pub(crate) fn has_local_times(schema: &Schema) -> bool {
    fn is(arrow: &Arrow) -> bool {
        match arrow {
            Arrow::Timestamp(_, None) => true,
            Arrow::List(item)
            | Arrow::LargeList(item)
            | Arrow::ListView(item)
            | Arrow::LargeListView(item)
            | Arrow::FixedSizeList(item, _)
            | Arrow::Map(item, _) => is(item.data_type()),
            Arrow::Struct(fields) => fields.iter().any(|field| is(field.data_type())),
            Arrow::Dictionary(_, value) => is(value),
            _ => false,
        }
    }
    schema.fields().iter().any(|field| is(field.data_type()))
}

/// Encodes the exact schema as text (hexadecimal digits of an Arrow stream without batches).
pub(crate) fn to_text(schema: &Schema) -> Result<String> {
    let mut bytes = vec![];
    StreamWriter::try_new(&mut bytes, schema)?.finish()?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Decodes the output of [`to_text`]; `None` if the text is damaged.
pub(crate) fn from_text(text: &str) -> Option<SchemaRef> {
    let bytes = (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok())
        .collect::<Option<Vec<u8>>>()?;
    Some(StreamReader::try_new(bytes.as_slice(), None).ok()?.schema())
}

/// Whether rows of `a` are rows of `b`: same names, types and nullability; field metadata is ignored.
pub(crate) fn same(a: &Schema, b: &Schema) -> bool {
    a.fields().len() == b.fields().len()
        && a.fields().iter().zip(b.fields()).all(|(x, y)| {
            x.name() == y.name()
                && x.data_type().equals_datatype(y.data_type())
                && x.is_nullable() == y.is_nullable()
        })
}

/// Describes the first difference between a stored schema and the expected one.
pub(crate) fn difference(stored: &Schema, wanted: &Schema) -> String {
    let show = |f: &Field| {
        let null = if f.is_nullable() { "" } else { " NOT NULL" };
        format!("\"{}\" {}{null}", f.name(), f.data_type())
    };
    let (s, w) = (stored.fields(), wanted.fields());
    for (x, y) in s.iter().zip(w) {
        if show(x) != show(y) {
            return format!("It has the column {} instead of {}.", show(x), show(y));
        }
    }
    format!("It has {} columns instead of {}.", s.len(), w.len())
}
