//! Decoding records that come together in one piece of text, such as the body of a request. A record has no offset of
//! its own: its number counts from 0 within the text.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use windrow_core::{BadRow, Error, Result};

use super::avro::container::{BlockDecoder, Header};
use super::convert::NumberRules;
use super::csv::{CsvDialect, CsvStyle};
use super::decode::{Decoded, OnBadRow, Origin};
use super::json::tokens::{Cursor, Value, Wrong};
use super::messages::{MessageDecoder, MessageFormat, MessageSettings, Messages, Tombstones};
use super::records::RecordCutter;
use super::typed::Typed;

/// The mark with which some programs begin text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordFormat {
    /// An object of JSON, or an array of them.
    Json,
    /// An object of JSON on each line.
    Ndjson,
    /// CSV; the first record names the columns.
    Csv,
    /// An object container file of Avro.
    Avro,
}

/// The rows of a text.
#[derive(Debug)]
pub struct Records {
    /// The good rows. Columns that the text does not name may be missing.
    pub rows: RecordBatch,
    /// The number of the record of each row, ascending.
    pub numbers: Vec<u64>,
    /// The bad records; the offset of each is its number.
    pub bad: Vec<BadRow>,
    /// Records in all.
    pub count: u64,
}

/// Decodes records to these columns. A record that cannot be decoded is a bad one, and costs itself alone.
///
/// # Errors
/// When the text cannot be divided into records: an array that is not JSON, a header without a known column. When the
/// format cannot have columns of these types.
pub fn decode_records(text: &[u8], format: RecordFormat, columns: &SchemaRef) -> Result<Records> {
    let bytes = text;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    match format {
        RecordFormat::Json => decode(&objects(text)?, MessageFormat::Json, columns),
        RecordFormat::Ndjson => decode(&lines(text), MessageFormat::Json, columns),
        RecordFormat::Csv => csv(text, columns),
        RecordFormat::Avro => avro(bytes, columns),
    }
}

fn decode(records: &[&[u8]], format: MessageFormat, declared: &SchemaRef) -> Result<Records> {
    let wanted = (0..declared.fields().len()).collect();
    decode_columns(records, format, declared, wanted)
}

fn decode_columns(
    records: &[&[u8]],
    format: MessageFormat,
    declared: &SchemaRef,
    wanted: Vec<usize>,
) -> Result<Records> {
    let settings = MessageSettings {
        format,
        declared: Arc::clone(declared),
        rules: NumberRules::default(),
        on_bad: OnBadRow::DeadLetter,
        tombstones: Tombstones::Bad,
        // The text is in memory already.
        row_bytes_max: usize::MAX,
    };
    settings.check()?;
    let mut decoder = MessageDecoder::new(&settings, wanted, records.len().max(1))?;
    let mut messages = Messages::default();
    for (number, record) in (0..).zip(records) {
        decoder.push(&mut messages, number, Some(record));
    }
    let origin = Origin { kind: "request", name: "body", unit: "record" };
    let decoded = decoder.decode(&messages, origin)?;
    Ok(Records {
        rows: decoded.rows,
        numbers: decoded.offsets,
        bad: decoded.bad,
        count: records.len() as u64,
    })
}

/// Decodes an object container file. Like a header of CSV, its schema names the columns.
fn avro(mut bytes: &[u8], columns: &SchemaRef) -> Result<Records> {
    let wrong =
        |why: String| Error::data(format!("the body is not an Avro object container file: {why}"));
    let header = Header::read(bytes).map_err(wrong)?;
    let header = Arc::new(header.ok_or_else(|| wrong("it is cut off".to_owned()))?);
    bytes = bytes.get(header.length..).unwrap_or_default();
    let has = header.schema.fields();
    let named = |field: &Arc<Field>| {
        has.iter().any(|other| other.name().eq_ignore_ascii_case(field.name()))
    };
    let declared: Vec<Arc<Field>> = columns.fields().iter().filter(|f| named(f)).cloned().collect();
    if declared.is_empty() {
        let known: Vec<&str> = columns.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(Error::data("no field of the schema is a column of the stream")
            .with_hint(format!("Its columns are: {}.", known.join(", "))));
    }
    let declared: SchemaRef = Arc::new(Schema::new(declared));
    let asked = (&declared, (0..declared.fields().len()).collect());
    let rules = (&NumberRules::default(), OnBadRow::DeadLetter);
    let typed = Typed::new(has, asked, rules, "the body")?;
    let mut decoder = BlockDecoder::new(Arc::clone(&header));
    let (mut into, mut count) = (Decoded::default(), 0);
    while !bytes.is_empty() {
        let damaged = |why: String| wrong(format!("the block after record {count}: {why}"));
        let block = header.block(bytes).map_err(damaged)?;
        let block = block.ok_or_else(|| damaged("it is cut off".to_owned()))?;
        decoder.decode(block).map_err(damaged)?.add(count, &typed, &mut into)?;
        count += block.count;
        bytes = bytes.get(block.length..).unwrap_or_default();
    }
    into.bad.sort_by_key(|bad| bad.offset);
    let (rows, numbers, bad) = into.into_batch(&declared)?;
    Ok(Records { rows, numbers, bad, count })
}

/// Returns the items of an array, or the whole text.
fn objects(text: &[u8]) -> Result<Vec<&[u8]>> {
    let text = text.trim_ascii();
    if text.first() != Some(&b'[') {
        return Ok(if text.is_empty() { vec![] } else { vec![text] });
    }
    let unreadable = |why: &str| Error::data(format!("the array of records is not JSON: {why}"));
    let text = std::str::from_utf8(text)
        .map_err(|e| unreadable(&format!("it is not UTF-8 at byte {}", e.valid_up_to())))?;
    let mut found = vec![];
    let mut cursor = Cursor::new(text);
    cursor
        .list(|value| {
            found.push(match value {
                Value::Object(text) | Value::List(text) | Value::Number(text) => text,
                // Whatever it says, it is no object.
                Value::Text(_) | Value::Escaped(_) => "\"\"",
                Value::Null => "null",
                Value::True => "true",
                Value::False => "false",
            });
            Ok::<_, Wrong>(())
        })
        .map_err(unreadable)?;
    if !cursor.is_at_end() {
        return Err(unreadable("there is text after the array"));
    }
    Ok(found.into_iter().map(str::as_bytes).collect())
}

/// Returns the lines that are not blank.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).collect()
}

fn csv(text: &[u8], columns: &SchemaRef) -> Result<Records> {
    let style = CsvStyle { delimiter: None, header: true, quote: b'"', escape: None, null: None };
    let dialect = style.of_file(false)?;
    let mut cutter = RecordCutter::new(dialect.framing());
    let mut records = vec![];
    cutter.cut(text, |start, end| records.extend(text.get(start..end)));
    records.extend(text.get(cutter.start()..));
    let mut records = records.into_iter().filter(|record| !record.trim_ascii().is_empty());
    let Some(header) = records.next() else {
        return Err(Error::data("the body has no header")
            .with_hint("The first record of CSV names the columns."));
    };
    let (declared, wanted) = header_columns(header, &dialect, columns)?;
    let records: Vec<&[u8]> = records.collect();
    decode_columns(&records, MessageFormat::Csv(dialect), &declared, wanted)
}

/// Returns the fields of each record as columns, and which of them are those of the stream.
fn header_columns(
    header: &[u8],
    dialect: &CsvDialect,
    columns: &Schema,
) -> Result<(SchemaRef, Vec<usize>)> {
    let names = dialect
        .split(header)
        .map_err(|why| Error::data(format!("the header of the body is wrong: {why}")))?;
    let mut given = BTreeSet::new();
    let mut wanted = vec![];
    let mut declared = vec![];
    for (at, name) in names.iter().enumerate() {
        let name = name.as_deref().unwrap_or_default().trim();
        let same = columns.fields().iter().find(|field| field.name() == name);
        let nearly = || columns.fields().iter().find(|f| f.name().eq_ignore_ascii_case(name));
        declared.push(match same.or_else(nearly) {
            Some(field) if !given.insert(field.name()) => {
                return Err(Error::data(format!("column \"{name}\" is in the header twice")));
            }
            Some(field) => {
                wanted.push(at);
                Field::clone(field)
            }
            // Two columns without a place in the stream may share a name.
            None => Field::new(format!("{at} {name}"), DataType::Utf8View, true),
        });
    }
    if wanted.is_empty() {
        let known: Vec<&str> = columns.fields().iter().map(|f| f.name().as_str()).collect();
        return Err(Error::data("no column of the header is a column of the stream")
            .with_hint(format!("Its columns are: {}.", known.join(", "))));
    }
    Ok((Arc::new(Schema::new(declared)), wanted))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;

    fn columns() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8View, true),
        ]))
    }

    fn read(format: RecordFormat, text: &str) -> (Vec<Option<i64>>, Vec<u64>, Vec<u64>, u64) {
        let read = decode_records(text.as_bytes(), format, &columns()).unwrap();
        let a = read.rows.column_by_name("a").unwrap().as_primitive::<Int64Type>().iter();
        let bad = read.bad.iter().map(|bad| bad.offset).collect();
        (a.collect(), read.numbers, bad, read.count)
    }

    #[test]
    fn json_is_an_object_or_an_array() {
        let one = (vec![Some(1)], vec![0], vec![], 1);
        assert_eq!(read(RecordFormat::Json, "\u{feff}{\"a\": 1,\n\"c\": [2]}\n"), one);
        let text = "[{\"a\":1}, {\"a\":\"x\"},\n 7, {\"b\":\"]\"}, \"{}\"]";
        let some = (vec![Some(1), None], vec![0, 3], vec![1, 2, 4], 5);
        assert_eq!(read(RecordFormat::Json, text), some);
        assert_eq!(read(RecordFormat::Json, "[ ]"), (vec![], vec![], vec![], 0));
        for wrong in ["[{\"a\":1}", "[{\"a\":1}] {}", "[{\"a\":}]"] {
            assert!(decode_records(wrong.as_bytes(), RecordFormat::Json, &columns()).is_err());
        }
    }

    #[test]
    fn each_line_is_an_object() {
        let text = "{\"a\":1}\r\n\n{\"a\":2}{\"a\":3}\n  {\"a\":4}";
        let some = (vec![Some(1), Some(4)], vec![0, 2], vec![1], 3);
        assert_eq!(read(RecordFormat::Ndjson, text), some);
        assert_eq!(read(RecordFormat::Ndjson, ""), (vec![], vec![], vec![], 0));
    }

    #[test]
    fn the_header_of_csv_names_the_columns() {
        let text = "x,B,a,x\r\n1,\"two\nlines\",3,4\n,,x,\n,,,\n1,2\n";
        let read = decode_records(text.as_bytes(), RecordFormat::Csv, &columns()).unwrap();
        assert_eq!((&read.numbers[..], read.count), (&[0, 2][..], 4));
        let bad: Vec<u64> = read.bad.iter().map(|bad| bad.offset).collect();
        assert_eq!(bad, [1, 3]);
        let a = read.rows.column_by_name("a").unwrap().as_primitive::<Int64Type>();
        let b = read.rows.column_by_name("b").unwrap().as_string_view();
        assert_eq!((a.value(0), b.value(0)), (3, "two\nlines"));
        for wrong in ["", "x,y\n1,2\n", "a,A\n1,2\n"] {
            assert!(decode_records(wrong.as_bytes(), RecordFormat::Csv, &columns()).is_err());
        }
    }
}
