//! JSON, one object per line.
//!
//! All declared columns are decoded, whatever a query asks for: whether a row is bad is a
//! property of the row. Fields that are not declared are passed over; of a key that stands twice,
//! the last counts; a missing field is NULL. Numbers and booleans in a VARCHAR column are taken as
//! text.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::json::ReaderBuilder;
use arrow::json::reader::Decoder;
use serde::de::IgnoredAny;

use super::convert::goes_by_text;
use super::decode::{Decode, Looks, finish_column};

/// Decodes lines of JSON.
pub(super) struct JsonDecoder {
    /// All columns as declared.
    declared: SchemaRef,
    /// The wanted ones: indexes into `declared`, and their schema.
    projection: Vec<usize>,
    wanted: SchemaRef,
    /// Integers as themselves, or as text (for chunks with numbers that may not be whole).
    readers: [Reader; 2],
}

/// A decoder, built when it is needed.
struct Reader {
    schema: SchemaRef,
    rows_max: usize,
    decoder: Option<(usize, Decoder)>,
}

/// Rows that the small decoder takes, which is built for finding bad rows.
const FEW: usize = 32;

impl JsonDecoder {
    pub(super) fn new(
        declared: SchemaRef,
        projection: Vec<usize>,
        wanted: SchemaRef,
        rows_max: usize,
    ) -> Self {
        let reader = |by_text: fn(&DataType) -> bool| {
            let fields: Vec<Field> = declared
                .fields()
                .iter()
                .map(|field| {
                    let data_type = if by_text(field.data_type()) {
                        DataType::Utf8View
                    } else {
                        field.data_type().clone()
                    };
                    Field::new(field.name(), data_type, true)
                })
                .collect();
            Reader { schema: Arc::new(Schema::new(fields)), rows_max, decoder: None }
        };
        let readers = [reader(goes_by_text), reader(|t| goes_by_text(t) || t.is_integer())];
        Self { declared, projection, wanted, readers }
    }

    /// Decodes all declared columns.
    fn read(&mut self, text: &[u8], rows: usize) -> Result<RecordBatch, String> {
        let [exact, careful] = &mut self.readers;
        let has_integers = exact.schema != careful.schema;
        let reader = if has_integers && may_hold_fractions(text) { careful } else { exact };
        reader.read(text, rows)
    }
}

impl Decode for JsonDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.wanted
    }

    fn looks(&self, record: &[u8]) -> Looks {
        match record.trim_ascii() {
            [] => Looks::Blank,
            [b'{', .., b'}'] => Looks::Whole,
            _ => Looks::Odd,
        }
    }

    fn decode(&mut self, text: &[u8], rows: usize) -> Result<RecordBatch, String> {
        let read = self.read(text, rows)?;
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.declared.fields().len()];
        for ((field, column), slot) in
            self.declared.fields().iter().zip(read.columns()).zip(&mut columns)
        {
            let nullable = field.is_nullable();
            *slot = Some(finish_column(column, field.name(), field.data_type(), nullable)?);
        }
        let wanted =
            self.projection.iter().filter_map(|i| columns.get(*i).cloned().flatten()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.wanted.clone(), wanted, &options)
            .map_err(|e| e.to_string())
    }

    fn fields(&mut self, record: &[u8]) -> Result<Vec<Result<ArrayRef, String>>, String> {
        let trimmed = record.trim_ascii();
        if trimmed.first() != Some(&b'{') {
            return Err("the line is not a JSON object".to_owned());
        }
        serde_json::from_slice::<IgnoredAny>(trimmed).map_err(|e| why_not_json(trimmed, &e))?;
        // A column that is not asked for may be the bad one: then it is said here.
        let mut values = vec![];
        for (index, field) in self.declared.fields().iter().enumerate() {
            let value = self.field(record, field);
            if self.projection.contains(&index) {
                values.push(value);
            } else if !field.is_nullable()
                && let Err(reason) = value
            {
                return Err(reason);
            }
        }
        Ok(values)
    }
}

impl JsonDecoder {
    /// The value of one column of one record.
    fn field(&self, record: &[u8], field: &Field) -> Result<ArrayRef, String> {
        let by_text = goes_by_text(field.data_type()) || field.data_type().is_integer();
        let read_as = if by_text { &DataType::Utf8View } else { field.data_type() };
        let schema = Arc::new(Schema::new(vec![Field::new(field.name(), read_as.clone(), true)]));
        let read = Reader { schema, rows_max: 1, decoder: None }.read(record, 1)?;
        let column = read.columns().first().ok_or("no column was read")?;
        finish_column(column, field.name(), field.data_type(), field.is_nullable())
    }
}

impl Reader {
    fn read(&mut self, text: &[u8], rows: usize) -> Result<RecordBatch, String> {
        let room = if rows < FEW { FEW } else { self.rows_max.max(rows) + 1 };
        let (_, mut decoder) = match self.decoder.take() {
            Some((has, decoder)) if has == room => (has, decoder),
            _ => (room, self.build(room)?),
        };
        // A decoder that failed is not used again: it may hold half a row.
        let used = decoder.decode(text).map_err(|e| plain(&e))?;
        if used < text.len() || decoder.has_partial_record() || decoder.len() != rows {
            return Err("the line is not exactly one JSON object".to_owned());
        }
        let batch = decoder.flush().map_err(|e| plain(&e))?;
        let batch = batch.ok_or("the line is not a JSON object")?;
        self.decoder = Some((room, decoder));
        Ok(batch)
    }

    fn build(&self, rows: usize) -> Result<Decoder, String> {
        ReaderBuilder::new(self.schema.clone())
            .with_batch_size(rows)
            .with_coerce_primitive(true)
            .build_decoder()
            .map_err(|e| plain(&e))
    }
}

/// Whether the number of some field may have a fraction or an exponent: a cheap look for
/// `": 12.` and `": 1e`, which may say yes for what stands in a string.
fn may_hold_fractions(text: &[u8]) -> bool {
    memchr::memchr3_iter(b'.', b'e', b'E', text).any(|at| {
        let before = text.get(..at).unwrap_or_default();
        if !before.last().is_some_and(u8::is_ascii_digit) {
            return false;
        }
        let is_part = |b: &u8| b.is_ascii_digit() || matches!(b, b'-' | b'+');
        let number = before.iter().rev().take_while(|b| is_part(b)).count();
        let before = before.get(..before.len() - number).unwrap_or_default().trim_ascii_end();
        let Some((b':', key)) = before.split_last() else { return false };
        key.trim_ascii_end().last() == Some(&b'"')
    })
}

/// arrow's message without its preambles: names the column in our way.
fn plain(e: &arrow::error::ArrowError) -> String {
    let text = e.to_string();
    let text = text.strip_prefix("Json error: ").unwrap_or(&text);
    match text.strip_prefix("whilst decoding field '").and_then(|t| t.split_once("': ")) {
        Some((column, why)) => format!("column \"{column}\": {why}"),
        None => text.to_owned(),
    }
}

fn why_not_json(record: &[u8], e: &serde_json::Error) -> String {
    if let Err(utf8) = std::str::from_utf8(record) {
        return format!("the line is not valid UTF-8 at its byte {}", utf8.valid_up_to());
    }
    let text = e.to_string();
    // A line is one line; only the column says something.
    let what = text.split(" at line ").next().unwrap_or(&text);
    if e.is_eof() {
        format!("the JSON object is cut off: {what}")
    } else {
        format!("the line is not valid JSON: {what} at character {}", e.column())
    }
}

#[cfg(test)]
mod tests {
    use super::may_hold_fractions;

    #[test]
    fn only_numbers_of_fields_count() {
        for text in ["{\"a\":1.5}", "{\"a\" : -12e3}", "{\"t\":\"x\",\"a\":1E2}"] {
            assert!(may_hold_fractions(text.as_bytes()), "{text}");
        }
        for text in ["{\"t\":\"12:00:00.5\",\"a\":1}", "{\"ease\":12,\"e\":\"1e\"}", "", ".5"] {
            assert!(!may_hold_fractions(text.as_bytes()), "{text}");
        }
    }
}
