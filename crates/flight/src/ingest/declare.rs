//! The statement that creates a stream for columns of an Arrow schema.

use arrow::datatypes::{DataType, Field, Fields, Schema};
use windrow_core::{Error, Result, sql_type};

/// Returns `create` with the name and the columns. It has no watermark, because nothing in the columns says which one
/// is the event time and how late rows may be.
///
/// # Errors
/// When a column has a type that SQL has no name for.
pub(super) fn declaration(create: &str, name: &str, schema: &Schema) -> Result<String> {
    if schema.fields().is_empty() {
        return Err(Error::data(format!("stream \"{name}\" would have no columns")));
    }
    let columns: Vec<String> = schema.fields().iter().map(column).collect::<Result<_>>()?;
    Ok(format!("{create} {} ({})", quoted(name), columns.join(", ")))
}

fn column(field: &std::sync::Arc<Field>) -> Result<String> {
    let name = field.name();
    let Some(sql) = type_name(field.data_type()) else {
        return Err(Error::data(format!(
            "column \"{name}\" is {}, a type that columns of streams cannot have",
            sql_type(field.data_type())
        ))
        .with_hint("Cast it first, or create the stream with CREATE STREAM and append to it."));
    };
    let null = if field.is_nullable() { "" } else { " NOT NULL" };
    Ok(format!("{} {sql}{null}", quoted(name)))
}

/// Returns the type as CREATE STREAM takes it; `None`: a stream cannot have it.
fn type_name(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        // SQL has no name for a column with another zone.
        DataType::Timestamp(_, Some(zone)) if zone.as_ref() != "UTC" => {
            format!("ARROW('{}')", data_type.to_string().replace('\'', "''"))
        }
        DataType::Boolean
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_)
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Date32
        | DataType::Date64
        | DataType::Timestamp(..) => sql_type(data_type),
        numeric if numeric.is_integer() || numeric.is_floating() => sql_type(numeric),
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale)
            if *scale >= 0 =>
        {
            sql_type(data_type)
        }
        DataType::Dictionary(_, values) => type_name(values)?,
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => {
            format!("{}[]", type_name(item.data_type())?)
        }
        DataType::Struct(fields) => structure(fields)?,
        _ => return None,
    })
}

fn structure(fields: &Fields) -> Option<String> {
    let fields: Option<Vec<String>> = fields
        .iter()
        .map(|f| type_name(f.data_type()).map(|sql| format!("{} {sql}", quoted(f.name()))))
        .collect();
    fields.filter(|f| !f.is_empty()).map(|f| format!("STRUCT<{}>", f.join(", ")))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;
    use futures::executor::block_on;
    use windrow_engine::{Engine, EngineConfig, SessionOptions};

    use super::*;

    #[test]
    fn what_is_declared_takes_the_rows() {
        let utc = || Some("+00:00".into());
        let item = |data_type| Field::new("item", data_type, true).into();
        let types = [
            DataType::Boolean,
            DataType::Int8,
            DataType::UInt64,
            DataType::Float32,
            DataType::Float64,
            DataType::LargeUtf8,
            DataType::Binary,
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Second, None),
            DataType::Timestamp(TimeUnit::Millisecond, utc()),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into())),
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Decimal128(12, 2),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            DataType::List(item(DataType::Int64)),
            DataType::Struct(vec![Field::new("a b", DataType::Int32, true)].into()),
        ];
        let fields = types.into_iter().enumerate();
        let fields: Vec<_> =
            fields.map(|(i, t)| Field::new(format!("odd \"{i}"), t, i % 2 == 0)).collect();
        let schema = Schema::new(fields);
        let engine = Engine::open(EngineConfig::default()).unwrap();
        let session = engine.session(SessionOptions::default()).unwrap();
        let name = "Odd; DROP \"x\"";
        block_on(session.run(&declaration("CREATE STREAM", name, &schema).unwrap())).unwrap();
        session.ingest(name, &schema).unwrap();
        // Zones are preserved.
        let made = block_on(session.run("SELECT * FROM \"Odd; DROP \"\"x\"\"\"")).unwrap();
        let windrow_engine::Outcome::Rows(rows) = made else { panic!("no rows") };
        for (came, made) in schema.fields().iter().zip(rows.schema().fields()) {
            if matches!(came.data_type(), DataType::Timestamp(..)) {
                assert_eq!(came.data_type(), made.data_type());
            }
        }
    }

    #[test]
    fn what_has_no_name_is_refused() {
        let field = Field::new("x", DataType::Duration(TimeUnit::Second), true);
        let error = declaration("CREATE STREAM", "s", &Schema::new(vec![field])).unwrap_err();
        assert!(error.message().starts_with("column \"x\" is DURATION(0)"), "{error}");
        assert!(declaration("CREATE STREAM", "s", &Schema::empty()).is_err());
    }
}
