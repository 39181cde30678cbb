//! JSON, one object per line or message.
//!
//! All declared columns are checked, whatever a query reads: whether a row is bad is a property of the row. Undeclared
//! fields are ignored; if a key occurs twice, the last one counts; a missing field is NULL. Numbers, booleans, objects
//! and lists in a VARCHAR column become their text, as in the line.

mod columns;
pub(crate) mod debezium;
pub(crate) mod tokens;

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use self::columns::{Anything, Column, column};
use self::tokens::{Cursor, Value, Wrong};
use super::convert::{NumberRules, keeps_promise};
use super::decode::{Decode, Looks, Unit};

/// A decoder of objects of JSON.
pub(crate) struct JsonDecoder {
    unit: Unit,
    /// All columns as declared.
    declared: SchemaRef,
    /// The wanted columns: indexes into `declared`, and their schema.
    projection: Vec<usize>,
    wanted: SchemaRef,
    rules: NumberRules,
    keys: Keys,
    /// The column that says whether a row is deleted, where records are [envelopes](debezium).
    deletes: Option<usize>,
}

impl JsonDecoder {
    pub(crate) fn new(
        unit: Unit,
        declared: SchemaRef,
        projection: Vec<usize>,
        wanted: SchemaRef,
        rules: NumberRules,
    ) -> Self {
        let keys = Keys::new(&declared);
        let deletes = debezium::deletes(&declared);
        Self { unit, declared, projection, wanted, rules, keys, deletes }
    }

    /// Whether records with these columns are envelopes of rows.
    pub(crate) fn has_envelopes(declared: &Schema) -> bool {
        debezium::deletes(declared).is_some()
    }

    /// Checks that JSON can hold these types.
    ///
    /// # Errors
    /// When it cannot, naming the column.
    pub(crate) fn check_types(declared: &Schema, rules: &NumberRules) -> Result<(), String> {
        for field in declared.fields() {
            column(field.data_type(), field.name(), rules, 0)
                .map_err(|why| format!("column \"{}\": {why}", field.name()))?;
        }
        Ok(())
    }

    fn column(&self, field: &Field, rows: usize) -> Result<Box<dyn Column>, String> {
        column(field.data_type(), field.name(), &self.rules, rows).map_err(of(field))
    }
}

impl Decode for JsonDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.wanted
    }

    fn looks(&self, record: &[u8]) -> Looks {
        match record.trim_ascii() {
            [] => Looks::Blank,
            // A tombstone follows a delete.
            b"null" if self.deletes.is_some() => Looks::Blank,
            [b'{', .., b'}'] => Looks::Whole,
            _ => Looks::Odd,
        }
    }

    fn decode(&mut self, text: &[u8], rows: usize) -> Result<RecordBatch, String> {
        let text = std::str::from_utf8(text).map_err(|_| "the text is not valid UTF-8")?;
        let declared = SchemaRef::clone(&self.declared);
        let fields = declared.fields();
        let mut columns: Vec<Box<dyn Column>> = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            let is_wanted = self.projection.contains(&index);
            columns.push(match field.data_type() {
                // Any value is text: there is nothing to check.
                DataType::Utf8View if !is_wanted && field.is_nullable() => Box::new(Anything),
                _ => self.column(field, rows)?,
            });
        }
        let mut values = vec![Value::Null; fields.len()];
        let mut seen = 0;
        let has_envelopes = self.deletes.is_some();
        let lines = records(text, self.unit.separator());
        for line in lines.filter(|line| !has_envelopes || line.trim_ascii() != "null") {
            seen += 1;
            values.fill(Value::Null);
            read(&mut self.keys, self.deletes, line, &mut values)?;
            for ((column, value), field) in columns.iter_mut().zip(&values).zip(fields) {
                column.take(*value).map_err(of(field))?;
            }
        }
        if seen != rows {
            return Err(format!("the {} is not exactly one JSON object", self.unit.name()));
        }
        let mut finished: Vec<Option<ArrayRef>> = vec![None; fields.len()];
        for (index, ((column, slot), field)) in
            columns.iter_mut().zip(&mut finished).zip(fields).enumerate()
        {
            let is_wanted = self.projection.contains(&index);
            if is_wanted || !field.is_nullable() || needs_finish(field.data_type()) {
                let array = column.finish().map_err(of(field))?;
                keeps_promise(&array, field)?;
                *slot = Some(array);
            }
        }
        let wanted =
            self.projection.iter().filter_map(|i| finished.get(*i).cloned().flatten()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.wanted.clone(), wanted, &options)
            .map_err(|e| e.to_string())
    }

    fn fields(&mut self, record: &[u8]) -> Result<Vec<Result<ArrayRef, String>>, String> {
        let trimmed = record.trim_ascii();
        if trimmed.first() != Some(&b'{') {
            return Err(format!("the {} is not a JSON object", self.unit.name()));
        }
        let text = std::str::from_utf8(trimmed).map_err(|e| {
            format!("the {} is not valid UTF-8 at its byte {}", self.unit.name(), e.valid_up_to())
        })?;
        let mut values = vec![Value::Null; self.declared.fields().len()];
        read(&mut self.keys, self.deletes, text, &mut values)
            .map_err(|why| why_not_json(self.unit, text, why))?;
        // The bad column may be one that is not wanted: it is reported here.
        let mut found = vec![];
        for (index, (field, value)) in self.declared.fields().iter().zip(values).enumerate() {
            let one = || {
                let mut column = self.column(field, 1)?;
                column.take(value).map_err(of(field))?;
                let array = column.finish().map_err(of(field))?;
                keeps_promise(&array, field)?;
                Ok::<_, String>(array)
            };
            let value = one();
            if self.projection.contains(&index) {
                found.push(value);
            } else if !field.is_nullable()
                && let Err(reason) = value
            {
                return Err(reason);
            }
        }
        Ok(found)
    }
}

/// Places the values of a record in their columns; `deletes`: the record is an envelope.
fn read<'a>(
    keys: &mut Keys,
    deletes: Option<usize>,
    record: &'a str,
    values: &mut [Value<'a>],
) -> Result<(), Wrong> {
    let Some(deletes) = deletes else { return keys.read(record, values) };
    let (row, is_deleted) = debezium::opened(record)?;
    keys.read(row, values)?;
    if let Some(slot) = values.get_mut(deletes) {
        *slot = if is_deleted { Value::True } else { Value::False };
    }
    Ok(())
}

/// Whether values of this type may turn out not to fit only after all are taken.
fn needs_finish(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::Utf8View | DataType::Boolean | DataType::Timestamp(..))
        && !data_type.is_numeric()
}

/// Prefixes an error with the name of the column.
fn of<E: std::fmt::Display>(field: &Field) -> impl Fn(E) -> String + '_ {
    move |why| format!("column \"{}\": {why}", field.name())
}

/// The records that are not blank.
fn records(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(separator, rest.as_bytes());
        let (line, behind) = match end {
            Some(end) => (rest.get(..end), rest.get(end + 1..)),
            None => (Some(rest), None),
        };
        rest = behind.unwrap_or_default();
        line
    })
    .filter(|line| !line.trim_ascii().is_empty())
}

/// The mapping of keys to columns. Most lines have the keys of the line before, in the same order.
struct Keys {
    columns: HashMap<String, usize>,
    /// The keys of the last line, and their columns.
    last: Vec<(String, Option<usize>)>,
}

impl Keys {
    fn new(declared: &Schema) -> Self {
        let names = declared.fields().iter().map(|field| field.name().clone());
        Self { columns: names.zip(0..).collect(), last: vec![] }
    }

    /// Places the values of one line in their columns.
    fn read<'a>(&mut self, line: &'a str, values: &mut [Value<'a>]) -> Result<(), Wrong> {
        let mut cursor = Cursor::new(line);
        let mut number = 0;
        cursor.object::<Wrong>(|key, value| {
            let column = self.find(number, &key);
            number += 1;
            if let Some(slot) = column.and_then(|column| values.get_mut(column)) {
                *slot = value;
            }
            Ok(())
        })?;
        if cursor.is_at_end() { Ok(()) } else { Err("there is text after the object") }
    }

    fn find(&mut self, number: usize, key: &str) -> Option<usize> {
        match self.last.get_mut(number) {
            Some((last, column)) if last == key => *column,
            Some(slot) => {
                let column = self.columns.get(key).copied();
                *slot = (key.to_owned(), column);
                column
            }
            None => {
                let column = self.columns.get(key).copied();
                // The keys of a line with very many keys are not all remembered.
                if self.last.len() < 1_000 {
                    self.last.push((key.to_owned(), column));
                }
                column
            }
        }
    }
}

/// Returns why a record is not JSON, in the words of a parser that examines it more closely.
fn why_not_json(unit: Unit, record: &str, why: Wrong) -> String {
    let name = unit.name();
    match serde_json::from_str::<serde::de::IgnoredAny>(record) {
        Ok(_) if debezium::is_about_changes(why) => why.to_owned(),
        Ok(_) => format!("the {name} is not valid JSON: {why}"),
        Err(e) => {
            let text = e.to_string();
            let place = match unit {
                // The input is one line, so only the column is informative.
                Unit::Line => format!("character {}", e.column()),
                Unit::Message => format!("line {}, character {}", e.line(), e.column()),
            };
            let what = text.split(" at line ").next().unwrap_or(&text);
            if e.is_eof() {
                format!("the JSON object is cut off: {what}")
            } else {
                format!("the {name} is not valid JSON: {what} at {place}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int64Type, TimeUnit};
    use std::sync::Arc;

    fn decoder(fields: Vec<Field>, rules: NumberRules) -> JsonDecoder {
        let schema = Arc::new(Schema::new(fields));
        let all = (0..schema.fields().len()).collect();
        JsonDecoder::new(Unit::Line, Arc::clone(&schema), all, schema, rules)
    }

    fn text(name: &str) -> Field {
        Field::new(name, DataType::Utf8View, true)
    }

    #[test]
    fn a_column_of_text_has_everything_as_it_stands() {
        let mut decoder = decoder(vec![text("a")], NumberRules::default());
        let lines = concat!(
            "{\"a\": {\"x\" : [1,  2]}}\n",
            "{\"a\":[]}\n",
            "\n",
            "{\"a\":1.50}\n",
            "{\"a\":12345678901234567890123}\r\n",
            "{\"a\":true}\n",
            "{\"a\":null}\n",
            "{\"b\":1}\n",
            "{\"a\":\"x\",\"a\":\"\\u00e9\\n\"}",
        );
        let rows = decoder.decode(lines.as_bytes(), 8).unwrap();
        let got: Vec<Option<&str>> = rows.column(0).as_string_view().iter().collect();
        let number = Some("12345678901234567890123");
        assert_eq!(
            got,
            [
                Some("{\"x\" : [1,  2]}"),
                Some("[]"),
                Some("1.50"),
                number,
                Some("true"),
                None,
                None,
                Some("é\n")
            ]
        );
    }

    #[test]
    fn nested_values_are_exact_too() {
        let ints = DataType::List(Field::new_list_field(DataType::Int64, true).into());
        let inner = vec![text("t"), Field::new("n", ints, true)];
        let field = Field::new("s", DataType::Struct(inner.into()), true);
        let mut decoder = decoder(vec![field], NumberRules::default());
        let rows =
            decoder.decode(b"{\"s\":{\"n\":[1, 2.0, null],\"t\":{\"a\":[]}}}\n{\"s\":null}", 2);
        let rows = rows.unwrap();
        let s = rows.column(0).as_struct();
        assert_eq!((s.column(0).as_string_view().value(0), s.is_null(1)), ("{\"a\":[]}", true));
        let list = s.column(1).as_list::<i32>().value(0);
        let list: Vec<_> = list.as_primitive::<Int64Type>().iter().collect();
        assert_eq!(list, [Some(1), Some(2), None]);
        let why = decoder.decode(b"{\"s\":{\"n\":[1.5]}}", 1).unwrap_err();
        assert_eq!(why, "column \"s\": field \"n\": '1.5' is not BIGINT");
    }

    #[test]
    fn what_contradicts_found_columns_is_bad_and_what_is_declared_is_converted() {
        let fields = || {
            vec![
                Field::new("i", DataType::Int64, true),
                Field::new("f", DataType::Float64, true),
                Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            ]
        };
        let mut declared = decoder(fields(), NumberRules::default());
        let inferred = NumberRules { inferred: true, ..NumberRules::default() };
        let mut inferred = decoder(fields(), inferred);
        for (line, fits_declared, fits_inferred) in [
            (r#"{"i":7,"f":1.5,"t":"2025-01-01T00:00:00Z"}"#, true, true),
            (r#"{"i":7.0,"f":15,"t":"2025-01-01T00:00:00\u002B00:00"}"#, true, true),
            (r#"{"i":"007"}"#, true, false),
            (r#"{"f":"1.5"}"#, true, false),
            (r#"{"f":9007199254740993}"#, true, false),
            (r#"{"t":1735689600000}"#, true, false),
            (r#"{"t":"1735689600000"}"#, true, false),
            (r#"{"i":007}"#, false, false),
            (r#"{"i":true}"#, false, false),
            (r#"{"i":1.5}"#, false, false),
            (r#"{"i":9223372036854775808}"#, false, false),
            (r#"{"f":1e400}"#, false, false),
            (r#"{"i":1} {"i":2}"#, false, false),
        ] {
            assert_eq!(declared.decode(line.as_bytes(), 1).is_ok(), fits_declared, "{line}");
            assert_eq!(inferred.decode(line.as_bytes(), 1).is_ok(), fits_inferred, "{line}");
        }
        let why = inferred.decode(br#"{"i":"007"}"#, 1).unwrap_err();
        assert!(why.starts_with("column \"i\": '007' is text, and the first rows have BIGINT"));
    }

    #[test]
    fn what_is_not_asked_for_is_checked() {
        let schema = Arc::new(Schema::new(vec![text("a"), Field::new("n", DataType::Int64, true)]));
        let wanted = Arc::new(schema.project(&[0]).unwrap());
        let mut decoder =
            JsonDecoder::new(Unit::Line, schema, vec![0], wanted, NumberRules::default());
        assert_eq!(decoder.decode(b"{\"a\":\"x\",\"n\":1}", 1).unwrap().num_columns(), 1);
        assert!(decoder.decode(b"{\"a\":\"x\",\"n\":1.5}", 1).is_err());
        let reason = decoder.fields(b"{\"a\":\"x\",\"n\":1.5}").unwrap();
        assert_eq!(reason.len(), 1);
    }

    #[test]
    fn keys_may_come_in_any_order_and_change() {
        let fields = vec![text("a"), text("b")];
        let mut decoder = decoder(fields, NumberRules::default());
        let lines =
            b"{\"a\":1,\"b\":2}\n{\"b\":2,\"x\":0,\"a\":1}\n{\"b\":2}\n{\"\\u0061\":1,\"b\":2}";
        let rows = decoder.decode(lines, 4).unwrap();
        let a: Vec<_> = rows.column(0).as_string_view().iter().collect();
        assert_eq!(a, [Some("1"), Some("1"), None, Some("1")]);
        assert_eq!(rows.column(1).null_count(), 0);
    }
}
