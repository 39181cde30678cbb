//! What of a row is where in a message: the value, the key and the headers, and their options.

use arrow::datatypes::{DataType, Schema};
use windrow_core::{Error, Result, sql_type};

use crate::encode::CsvStyle;
use crate::options::{OptionDoc, StreamOptions, option};

/// `format` of a sink.
pub(crate) const FORMAT: OptionDoc = option(
    "format",
    "'json' | 'csv' | 'raw' | 'bytes'",
    "json",
    "What the value of a message is: the row as a JSON object, a record of CSV without header, the text or the bytes of \
     the only column.",
);
/// `key`.
pub(crate) const KEY: OptionDoc = option(
    "key",
    "columns",
    "",
    "The key of a message: the value of the column as text (NULL: no key), or a JSON object of several columns. They \
     are part of the value also, except with format = 'raw' and 'bytes'.",
);
/// `headers`.
pub(crate) const HEADERS: OptionDoc = option(
    "headers",
    "columns",
    "",
    "Columns that are sent as headers of their names, as text, and are no part of the value.",
);
/// `delimiter`.
pub(crate) const DELIMITER: OptionDoc =
    option("delimiter", "one character", ",", "The separator of fields in CSV.");
/// `null`.
pub(crate) const NULL: OptionDoc = option(
    "null",
    "a word",
    "",
    "What NULL is in CSV; by default the empty field, like an empty text.",
);

/// The format of the value of a message.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    Json,
    Csv(CsvStyle),
    /// The text of the only column.
    Text,
    /// Its bytes.
    Bytes,
}

/// What of a row is where in a message.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) form: Form,
    pub(crate) key: Vec<String>,
    pub(crate) headers: Vec<String>,
    pub(crate) tombstones: bool,
}

impl Shape {
    /// Reads `format`, `delimiter`, `null`, `key`, `headers` and `tombstones`, as far as the connector has them.
    ///
    /// # Errors
    /// For an invalid value, and for options of another format.
    pub(crate) fn read(options: &StreamOptions<'_>) -> Result<Self> {
        let forms = [("json", 0), ("csv", 1), ("raw", 2), ("text", 2), ("bytes", 3)];
        let form = options.choice("format", &forms)?.unwrap_or(0);
        let csv =
            ["delimiter", "null"].iter().find(|name| form != 1 && options.get(name).is_some());
        if let Some(option) = csv {
            return Err(Error::config(format!("option \"{option}\" is for format = 'csv'")));
        }
        let form = match form {
            0 => Form::Json,
            1 => Form::Csv(CsvStyle {
                delimiter: options.ascii("delimiter")?.unwrap_or(b','),
                header: false,
                null: options.get("null").unwrap_or_default().into(),
            }),
            2 => Form::Text,
            _ => Form::Bytes,
        };
        Ok(Self {
            form,
            key: options.columns("key")?,
            headers: options.columns("headers")?,
            tombstones: options.flag("tombstones", false)?,
        })
    }

    /// Returns the indexes of the columns of the value.
    ///
    /// # Errors
    /// When an option names a missing column, no column is left for the value, or the format does not support those that are.
    pub(crate) fn value_columns(&self, schema: &Schema) -> Result<Vec<usize>> {
        for (option, names) in [("key", &self.key), ("headers", &self.headers)] {
            for name in names {
                if schema.field_with_name(name).is_err() {
                    let known: Vec<&str> =
                        schema.fields().iter().map(|f| f.name().as_str()).collect();
                    return Err(Error::config(format!(
                        "option \"{option}\": there is no column \"{name}\""
                    ))
                    .with_hint(format!("Columns: {}.", known.join(", "))));
                }
            }
        }
        let alone = matches!(self.form, Form::Text | Form::Bytes);
        let is_left =
            |name: &String| !(self.headers.contains(name) || alone && self.key.contains(name));
        let left: Vec<usize> = schema
            .fields()
            .iter()
            .enumerate()
            .filter_map(|(at, field)| is_left(field.name()).then_some(at))
            .collect();
        if left.is_empty() {
            return Err(Error::config("no column is left for the value of messages"));
        }
        if !alone {
            return Ok(left);
        }
        let fits = |data_type: &DataType| match self.form {
            Form::Bytes => matches!(
                data_type,
                DataType::Binary
                    | DataType::LargeBinary
                    | DataType::BinaryView
                    | DataType::FixedSizeBinary(_)
            ),
            _ => matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        };
        let (form, wanted) = match self.form {
            Form::Bytes => ("bytes", "BYTEA"),
            _ => ("raw", "VARCHAR"),
        };
        let types: Vec<String> = left
            .iter()
            .filter_map(|at| schema.fields().get(*at))
            .map(|field| format!("{} {}", field.name(), sql_type(field.data_type())))
            .collect();
        let only = left.first().and_then(|at| schema.fields().get(*at));
        match only.filter(|field| left.len() == 1 && fits(field.data_type())) {
            Some(_) => Ok(left),
            None => Err(Error::config(format!(
                "format = '{form}' needs one {wanted} column besides key and headers, and there are {}",
                types.join(", ")
            ))),
        }
    }
}
