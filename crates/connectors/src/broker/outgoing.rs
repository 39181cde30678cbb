//! Rows as messages: their keys, headers and values.
//!
//! Invariant: each row is one message.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::FormatOptions;
use bytes::Bytes;
use windrow_core::{Change, Error, Result, change, sql_type};

use super::shape::{Form, Shape};
use crate::encode::{Encoding, Packing, json_lines};
use crate::env::SinkChanges;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The number of rows of the view before it.
    pub(crate) row: u64,
    pub(crate) key: Option<Bytes>,
    /// `None`: a tombstone.
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(Arc<str>, Option<Bytes>)>,
}

impl Message {
    /// Its size, in bytes.
    pub(crate) fn size(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + length(value));
        length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

/// Encodes rows as messages.
#[derive(Debug, Clone)]
pub(crate) struct Messages {
    form: Form,
    key: Vec<usize>,
    headers: Vec<(Arc<str>, usize)>,
    value: Vec<usize>,
    /// A row in which all of these columns are NULL is a tombstone; empty: there are no tombstones of this kind.
    others: Vec<usize>,
    /// Whether the rows are changes, and a delete is a tombstone. The kind of the change is then not in the value.
    applies: bool,
}

impl Messages {
    /// Checks the columns.
    ///
    /// # Errors
    /// For missing columns, a key that is not that of the changes, and types that the format does not have.
    pub(crate) fn new(
        schema: &SchemaRef,
        changes: Option<&SinkChanges>,
        options: &Shape,
    ) -> Result<Self> {
        let applied = changes.filter(|_| options.tombstones);
        if let Some(changes) = applied {
            let without =
                "leave tombstones out: then each change is a message, with the field \"change\"";
            changes.check_key(&options.key, without)?;
        }
        let mut value = options.value_columns(schema)?;
        if applied.is_some() {
            value.retain(|at| *at > 0);
        }
        let places = |names: &[String]| -> Result<Vec<usize>> {
            names.iter().map(|name| Ok(schema.index_of(name)?)).collect()
        };
        let (key, headers) = (places(&options.key)?, places(&options.headers)?);
        match &options.form {
            Form::Json => Encoding::Json(Packing::Plain).check(&schema.project(&value)?)?,
            Form::Csv(style) => {
                Encoding::Csv(style.clone(), Packing::Plain).check(&schema.project(&value)?)?;
            }
            Form::Text | Form::Bytes => {}
        }
        if key.len() > 1 {
            Encoding::Json(Packing::Plain).check(&schema.project(&key)?)?;
        }
        let single = if key.len() == 1 { key.as_slice() } else { &[] };
        for at in single.iter().chain(&headers) {
            texts(schema, *at)?;
        }
        let others = match options.tombstones && applied.is_none() {
            true => (0..schema.fields().len()).filter(|at| !key.contains(at)).collect(),
            false => vec![],
        };
        let has_others = applied.is_some() || !others.is_empty();
        if options.tombstones && (key.is_empty() || !has_others) {
            return Err(Error::config("tombstones need a key, and columns besides it")
                .with_hint("Name the columns of the key: key = '…'."));
        }
        let names = options.headers.iter().map(|name| Arc::from(name.as_str()));
        Ok(Self {
            form: options.form.clone(),
            key,
            headers: names.zip(headers).collect(),
            value,
            others,
            applies: applied.is_some(),
        })
    }

    /// Returns the messages of rows; `first`: the number of rows of the view before them.
    ///
    /// # Errors
    /// When a value cannot be encoded.
    pub(crate) fn of(&self, rows: &RecordBatch, first: u64) -> Result<Vec<Message>> {
        let values = self.values(&rows.project(&self.value)?)?;
        let keys = match self.key.as_slice() {
            [] => vec![None; rows.num_rows()],
            [only] => text(rows.column(*only))?,
            several => json_lines(&rows.project(several)?)?.into_iter().map(Some).collect(),
        };
        let headers: Vec<(&Arc<str>, Vec<Option<Bytes>>)> = self
            .headers
            .iter()
            .map(|(name, at)| Ok((name, text(rows.column(*at))?)))
            .collect::<Result<_>>()?;
        let changes = match self.applies {
            true => change::read(rows.column(0))?,
            false => vec![],
        };
        let is_gone = |row: usize| {
            if let Some(change) = changes.get(row) {
                return *change == Change::Delete;
            }
            !self.others.is_empty() && self.others.iter().all(|at| rows.column(*at).is_null(row))
        };
        let messages =
            values.into_iter().zip(keys).enumerate().map(|(row, (value, key))| Message {
                row: first + row as u64,
                key,
                value: value.filter(|_| !is_gone(row)),
                headers: headers
                    .iter()
                    .map(|(name, values)| (Arc::clone(name), values.get(row).cloned().flatten()))
                    .collect(),
            });
        Ok(messages.collect())
    }

    fn values(&self, rows: &RecordBatch) -> Result<Vec<Option<Bytes>>> {
        Ok(match &self.form {
            Form::Json => json_lines(rows)?.into_iter().map(Some).collect(),
            Form::Csv(style) => {
                let encoding = Encoding::Csv(style.clone(), Packing::Plain);
                let record = |row: usize| {
                    let mut encoder = encoding.begin(&rows.schema())?;
                    encoder.write(&rows.slice(row, 1))?;
                    let record = encoder.finish()?;
                    // Without the end of the line.
                    Ok(Some(record.slice(..record.len().saturating_sub(1))))
                };
                (0..rows.num_rows()).map(record).collect::<Result<_>>()?
            }
            Form::Text => text(rows.column(0))?,
            Form::Bytes => {
                let bytes =
                    cast_with_options(rows.column(0), &DataType::Binary, &CastOptions::default())?;
                let bytes = bytes.as_binary::<i32>();
                bytes.iter().map(|value| value.map(Bytes::copy_from_slice)).collect()
            }
        })
    }
}

/// Returns the values of a column as text, NULL as `None`, and bytes unchanged.
fn text(column: &ArrayRef) -> Result<Vec<Option<Bytes>>> {
    if matches!(
        column.data_type(),
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
    ) {
        let bytes = cast_with_options(column, &DataType::LargeBinary, &CastOptions::default())?;
        let bytes = bytes.as_binary::<i64>();
        return Ok(bytes.iter().map(|value| value.map(Bytes::copy_from_slice)).collect());
    }
    let options = CastOptions { safe: false, format_options: FormatOptions::default() };
    let texts = cast_with_options(column, &DataType::LargeUtf8, &options)?;
    let texts = texts.as_string::<i64>();
    Ok(texts.iter().map(|value| value.map(|v| Bytes::copy_from_slice(v.as_bytes()))).collect())
}

/// Checks that a column can be written as text.
fn texts(schema: &Schema, at: usize) -> Result<()> {
    let Some(field) = schema.fields().get(at) else { return Ok(()) };
    let empty = arrow::array::new_empty_array(field.data_type());
    if field.data_type().is_nested() && !matches!(field.data_type(), DataType::Dictionary(..))
        || text(&empty).is_err()
    {
        let (name, kind) = (field.name(), sql_type(field.data_type()));
        return Err(Error::sql(format!(
            "column \"{name}\" has the type {kind}, which keys and headers do not have"
        ))
        .with_hint(format!("Convert it: CAST({name} AS VARCHAR).")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;
    use crate::broker::shape::{DELIMITER, FORMAT, HEADERS, KEY, NULL};
    use crate::options::{OptionDoc, StreamOptions, option};

    const OPTIONS: &[OptionDoc] =
        &[FORMAT, KEY, HEADERS, DELIMITER, NULL, option("tombstones", "", "", "")];

    fn rows() -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(vec![
            (
                "id",
                Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(2)])) as ArrayRef,
                true,
            ),
            ("w", Arc::new(StringArray::from(vec![Some("ü\n\""), None, None])), true),
            ("h", Arc::new(StringArray::from(vec![Some("é"), Some(""), None])), true),
        ])
        .unwrap()
    }

    fn messages(options: &[(&str, &str)]) -> Vec<Message> {
        let all: Vec<_> = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let options = StreamOptions::try_new("kafka", &all, OPTIONS).unwrap();
        let options = Shape::read(&options).unwrap();
        Messages::new(&rows().schema(), None, &options).unwrap().of(&rows(), 10).unwrap()
    }

    fn shown(bytes: &Option<Bytes>) -> Option<&str> {
        bytes.as_ref().map(|bytes| std::str::from_utf8(bytes).unwrap())
    }

    #[test]
    fn keys_headers_and_tombstones() {
        let all = messages(&[("key", "id"), ("headers", "h"), ("tombstones", "true")]);
        let keys: Vec<_> = all.iter().map(|m| shown(&m.key)).collect();
        assert_eq!(keys, [Some("-9223372036854775808"), None, Some("2")]);
        let values: Vec<_> = all.iter().map(|m| shown(&m.value)).collect();
        let first = "{\"id\":-9223372036854775808,\"w\":\"ü\\n\\\"\"}";
        assert_eq!(values, [Some(first), Some("{\"id\":null,\"w\":null}"), None]);
        let headers: Vec<_> = all.iter().map(|m| shown(&m.headers[0].1)).collect();
        assert_eq!(headers, [Some("é"), Some(""), None]);
        assert_eq!(all.iter().map(|m| m.row).collect::<Vec<_>>(), [10, 11, 12]);
    }

    #[test]
    fn other_forms() {
        let all = messages(&[("key", "id, h"), ("format", "csv"), ("null", "NULL")]);
        assert_eq!(shown(&all[0].key), Some("{\"id\":-9223372036854775808,\"h\":\"é\"}"));
        assert_eq!(shown(&all[0].value), Some("-9223372036854775808,\"ü\n\"\"\",é"));
        assert_eq!(shown(&all[2].value), Some("2,NULL,NULL"));
        let all = messages(&[("key", "id"), ("headers", "h"), ("format", "raw")]);
        assert_eq!(shown(&all[0].value), Some("ü\n\""));
        assert_eq!(all[1].value, None);
    }

    #[test]
    fn a_delete_is_a_tombstone_of_its_key() {
        let rows = RecordBatch::try_from_iter(vec![
            ("change", change::column(Change::ALL.into_iter())),
            ("id", Arc::new(Int64Array::from(vec![1, 1, 1, 2])) as ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![5, 5, 6, 7])) as ArrayRef),
        ])
        .unwrap();
        let with = |key: &str, options: &[(&str, &str)]| {
            let all = [("key", key)];
            let all = all.iter().chain(options).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let all: Vec<_> = all.collect();
            let options = StreamOptions::try_new("kafka", &all, OPTIONS).unwrap();
            let options = Shape::read(&options).unwrap();
            let changes = SinkChanges { key: Some(vec!["id".to_owned()]) };
            Messages::new(&rows.schema(), Some(&changes), &options)
        };
        let values = |messages: Messages| -> Vec<Option<String>> {
            let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
            let all = messages.of(&rows, 0).unwrap().into_iter();
            all.map(|message| message.value.map(text)).collect()
        };
        let tombstones = [("tombstones", "true")];
        let found = values(with("id", &tombstones).unwrap());
        assert_eq!(found.last(), Some(&None));
        assert_eq!(found[2].as_deref(), Some(r#"{"id":1,"n":6}"#));
        let error = with("n", &tombstones).unwrap_err();
        assert!(error.hints().iter().any(|hint| hint.contains("key = 'id'")), "{error}");
        let all = values(with("id", &[]).unwrap());
        assert_eq!(all[3].as_deref(), Some(r#"{"change":"delete","id":2,"n":7}"#));
    }
}
