//! Decoding what brokers send: each message is one record, and has the offset that the broker gave it.
//!
//! The values of many messages lie in one buffer, so that they are decoded together like the lines of a file. A message
//! never joins its neighbours: what might is decoded alone.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanArray, RecordBatch, RecordBatchOptions,
    StringViewBuilder, new_null_array,
};
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use windrow_core::{BadRow, Error, Result, sql_type};

use super::avro::messages::{AvroMessages, Framing};
use super::convert::NumberRules;
use super::csv::{CsvColumns, CsvDecoder, CsvDialect, check_types};
use super::decode::{
    Decode, Decoded, Looks, Offsets, OnBadRow, Origin, Run, Unit, bad_row, decode_run, readable,
    refuse,
};
use super::json::JsonDecoder;
use super::protobuf::{Described, ProtobufMessages};

/// How the values of messages are written.
#[derive(Debug, Clone)]
pub(crate) enum MessageFormat {
    /// One JSON object each.
    Json,
    /// One record each, without header: columns are found by position.
    Csv(CsvDialect),
    /// UTF-8 text, in the only column.
    Text,
    /// Bytes, in the only column.
    Bytes,
    /// One record of Avro each.
    Avro(Framing),
    /// One message of Protobuf each.
    Protobuf(Arc<Described>),
}

/// What a message without a value (a tombstone) means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tombstones {
    /// No row: it is counted as filtered.
    Skip,
    /// A row whose columns of the value are NULL.
    Null,
    /// A bad row.
    Bad,
}

/// How the messages of a stream are decoded.
#[derive(Debug, Clone)]
pub(crate) struct MessageSettings {
    pub format: MessageFormat,
    /// The columns of the value.
    pub declared: SchemaRef,
    pub rules: NumberRules,
    pub on_bad: OnBadRow,
    pub tombstones: Tombstones,
    pub row_bytes_max: usize,
}

impl MessageSettings {
    /// Checks that values can have these columns.
    ///
    /// # Errors
    /// When the format has no such type, or another number of columns.
    pub(crate) fn check(&self) -> Result<()> {
        let fields = self.declared.fields();
        match &self.format {
            MessageFormat::Json => {
                JsonDecoder::check_types(&self.declared, &self.rules).map_err(Error::config)
            }
            MessageFormat::Csv(_) if fields.is_empty() => {
                Err(Error::config("format 'csv' needs a column for the value of a message"))
            }
            MessageFormat::Csv(_) => check_types(&self.declared),
            MessageFormat::Text => only_column(&self.declared, "raw", "VARCHAR", is_text),
            MessageFormat::Bytes => only_column(&self.declared, "bytes", "BYTEA", is_bytes),
            // What each schema has is compared with the columns when it is known.
            MessageFormat::Avro(_) => Ok(()),
            MessageFormat::Protobuf(described) => {
                let asked = (&self.declared, vec![]);
                let rules = (&self.rules, self.on_bad);
                ProtobufMessages::new(Arc::clone(described), asked, rules).map(drop)
            }
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn only_column(
    declared: &Schema,
    format: &str,
    name: &str,
    is_it: fn(&DataType) -> bool,
) -> Result<()> {
    let hint = format!("Declare one {name} column for the value; others may be METADATA FROM '…'.");
    match declared.fields().as_ref() {
        [field] if is_it(field.data_type()) => Ok(()),
        [field] => Err(Error::config(format!(
            "column \"{}\" is {}, and a value in format '{format}' is {name}",
            field.name(),
            sql_type(field.data_type())
        ))
        .with_hint(hint)),
        fields => Err(Error::config(format!(
            "a value in format '{format}' is one column, and {} are declared",
            fields.len()
        ))
        .with_hint(hint)),
    }
}

/// Messages in order of their offsets, their values in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    text: Vec<u8>,
    /// The values in `text`.
    values: Vec<Range<usize>>,
    offsets: Vec<u64>,
    /// The numbers of those without a value, ascending.
    tombstones: Vec<usize>,
    /// The numbers of those that are known to be bad rows, ascending.
    refused: Vec<usize>,
}

impl Messages {
    /// The number of messages.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The bytes of their values.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The offset of each.
    pub(crate) fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// Adds a message that is known to be a bad row, and has none here.
    pub(crate) fn push_refused(&mut self, offset: u64) {
        self.refused.push(self.values.len());
        self.values.push(self.text.len()..self.text.len());
        self.offsets.push(offset);
    }

    /// Removes all of them, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.values.clear();
        self.offsets.clear();
        self.tombstones.clear();
        self.refused.clear();
    }
}

/// A decoder of messages for one reader.
pub(crate) struct MessageDecoder {
    settings: MessageSettings,
    wanted: SchemaRef,
    decoder: Decoding,
}

/// How values are decoded.
enum Decoding {
    /// As records of text.
    Text(Box<dyn Decode>),
    /// As records of Avro.
    Avro(Box<AvroMessages>),
    /// As messages of Protobuf.
    Protobuf(Box<ProtobufMessages>),
    /// Not at all: the value is the column.
    Whole,
}

/// The rows of some messages.
#[derive(Debug)]
pub(crate) struct DecodedMessages {
    /// The wanted columns of the value.
    pub rows: RecordBatch,
    /// The offset of each row, ascending.
    pub offsets: Vec<u64>,
    /// The bad rows.
    pub bad: Vec<BadRow>,
    /// Tombstones that are no rows.
    pub skipped: u64,
}

impl MessageDecoder {
    /// Returns a decoder of the columns `projection` of the value, for at most `rows_max` messages at a time.
    ///
    /// # Errors
    /// When there is no such column.
    pub(crate) fn new(
        settings: &MessageSettings,
        projection: Vec<usize>,
        rows_max: usize,
    ) -> Result<Self> {
        let declared = Arc::clone(&settings.declared);
        let wanted: SchemaRef = Arc::new(declared.project(&projection)?);
        let rules = settings.rules.clone();
        let decoder = match &settings.format {
            MessageFormat::Json => {
                let wanted = Arc::clone(&wanted);
                let unit = Unit::Message;
                Decoding::Text(Box::new(JsonDecoder::new(
                    unit, declared, projection, wanted, rules,
                )))
            }
            MessageFormat::Csv(dialect) => {
                let count = declared.fields().len();
                let columns = CsvColumns { count, fields: (0..count).map(Some).collect() };
                let asked = (projection, Arc::clone(&wanted));
                let dialect = dialect.clone();
                let columns = (columns, rules);
                let decoder = CsvDecoder::new(dialect, columns, declared, asked, rows_max);
                Decoding::Text(Box::new(decoder))
            }
            MessageFormat::Avro(framing) => Decoding::Avro(Box::new(AvroMessages::new(
                framing.clone(),
                (declared, projection),
                (rules, settings.on_bad),
            ))),
            MessageFormat::Protobuf(described) => {
                let (asked, rules) = ((&declared, projection), (&rules, settings.on_bad));
                let decoder = ProtobufMessages::new(Arc::clone(described), asked, rules)?;
                Decoding::Protobuf(Box::new(decoder))
            }
            MessageFormat::Text | MessageFormat::Bytes => Decoding::Whole,
        };
        Ok(Self { settings: settings.clone(), wanted, decoder })
    }

    /// Adds a message.
    pub(crate) fn push(&self, messages: &mut Messages, offset: u64, value: Option<&[u8]>) {
        let start = messages.text.len();
        if value.is_none() {
            messages.tombstones.push(messages.values.len());
        }
        let value = value.unwrap_or_default();
        messages.text.extend_from_slice(value);
        let mut end = messages.text.len();
        match self.settings.format {
            MessageFormat::Json => messages.text.push(Unit::Message.separator()),
            MessageFormat::Csv(_) => {
                let ends = value.iter().rev().take_while(|b| matches!(b, b'\r' | b'\n')).count();
                end -= ends;
                messages.text.push(b'\n');
            }
            MessageFormat::Text
            | MessageFormat::Bytes
            | MessageFormat::Avro(_)
            | MessageFormat::Protobuf(_) => {}
        }
        messages.values.push(start..end);
        messages.offsets.push(offset);
    }

    /// Returns the numbers of the schemas that messages say they have.
    pub(crate) fn schema_ids(&self, messages: &Messages) -> Vec<u32> {
        let MessageFormat::Avro(framing) = &self.settings.format else { return vec![] };
        let mut ids = vec![];
        for value in &messages.values {
            let value = messages.text.get(value.clone()).unwrap_or_default();
            match framing.open(value) {
                Ok((id, _)) if ids.last() != Some(&id) && !ids.contains(&id) => ids.push(id),
                _ => {}
            }
        }
        ids
    }

    /// Decodes messages.
    ///
    /// # Errors
    /// For the first bad one when the stream says `on_bad_row = 'fail'`.
    pub(crate) fn decode(
        &mut self,
        messages: &Messages,
        origin: Origin<'_>,
    ) -> Result<DecodedMessages> {
        let mut into = Decoded::default();
        let mut skipped = 0;
        let mut tombstones = messages.tombstones.iter().peekable();
        let mut refused = messages.refused.iter().peekable();
        let mut begin = 0;
        for (number, (value, offset)) in messages.values.iter().zip(&messages.offsets).enumerate() {
            let is_null = tombstones.next_if(|next| **next == number).is_some();
            let bytes = messages.text.get(value.clone()).unwrap_or_default();
            let class = match refused.next_if(|next| **next == number) {
                Some(_) => Class::Refused,
                None if is_null => Class::Tombstone,
                None => self.class(bytes),
            };
            if class == Class::Good {
                continue;
            }
            self.run(messages, begin..number, origin, &mut into)?;
            begin = number + 1;
            let raw = || readable(bytes);
            let on_bad = self.settings.on_bad;
            match class {
                Class::Good | Class::Refused => {}
                Class::Alone => self.run(messages, number..number + 1, origin, &mut into)?,
                Class::Bad(reason) => {
                    refuse(
                        BadRow { offset: *offset, reason, raw: raw() },
                        on_bad,
                        origin,
                        &mut into,
                    )?;
                }
                Class::Tombstone => match self.tombstone(*offset, &mut into)? {
                    Some(reason) => {
                        let bad = BadRow { offset: *offset, reason, raw: String::new() };
                        refuse(bad, on_bad, origin, &mut into)?;
                    }
                    None if self.settings.tombstones == Tombstones::Skip => skipped += 1,
                    None => {}
                },
            }
        }
        self.run(messages, begin..messages.len(), origin, &mut into)?;
        let (rows, offsets, bad) = into.into_batch(&self.wanted)?;
        Ok(DecodedMessages { rows, offsets, bad, skipped })
    }

    fn class(&self, value: &[u8]) -> Class {
        let max = self.settings.row_bytes_max;
        if value.len() > max {
            return Class::Bad(format!("the message is longer than row_bytes_max ({max} bytes)"));
        }
        let Decoding::Text(decoder) = &self.decoder else { return Class::Good };
        let is_csv = matches!(self.settings.format, MessageFormat::Csv(_));
        match decoder.looks(value) {
            Looks::Blank => Class::Bad("the message is empty".to_owned()),
            Looks::Odd => Class::Alone,
            // Several lines could make up for a neighbour that is no record.
            _ if is_csv && memchr::memchr2(b'\n', b'\r', value).is_some() => Class::Alone,
            Looks::Whole | Looks::Runaway => Class::Good,
        }
    }

    /// Takes a tombstone; returns why it is a bad row.
    fn tombstone(&self, offset: u64, into: &mut Decoded) -> Result<Option<String>> {
        match self.settings.tombstones {
            Tombstones::Skip => return Ok(None),
            Tombstones::Bad => {
                return Ok(Some("the message has no value (it is a tombstone)".to_owned()));
            }
            Tombstones::Null => {}
        }
        if let Some(field) = self.settings.declared.fields().iter().find(|f| !f.is_nullable()) {
            return Ok(Some(format!(
                "the message has no value (it is a tombstone), and column \"{}\" is NOT NULL",
                field.name()
            )));
        }
        let columns = self.wanted.fields().iter().map(|f| new_null_array(f.data_type(), 1));
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(
            Arc::clone(&self.wanted),
            columns.collect(),
            &options,
        )?;
        into.pieces.push(row);
        into.offsets.push(offset);
        Ok(None)
    }

    /// Decodes messages that all have values.
    fn run(
        &mut self,
        messages: &Messages,
        which: Range<usize>,
        origin: Origin<'_>,
        into: &mut Decoded,
    ) -> Result<()> {
        let records = messages.values.get(which.clone()).unwrap_or_default();
        let offsets = messages.offsets.get(which).unwrap_or_default();
        if records.is_empty() {
            return Ok(());
        }
        let run =
            Run { text: &messages.text, records, offsets: Offsets::Of(offsets), was_cut: false };
        let on_bad = self.settings.on_bad;
        match &mut self.decoder {
            Decoding::Text(decoder) => decode_run(decoder.as_mut(), &run, on_bad, origin, into),
            Decoding::Avro(decoder) => decoder.decode(&run.values(), offsets, origin, into),
            Decoding::Protobuf(decoder) => decoder.decode(&run.values(), offsets, origin, into),
            Decoding::Whole => self.whole(&run, offsets, origin, into),
        }
    }

    /// Makes the column of values that are not divided further.
    fn whole(
        &self,
        run: &Run<'_>,
        offsets: &[u64],
        origin: Origin<'_>,
        into: &mut Decoded,
    ) -> Result<()> {
        let Some(field) = self.settings.declared.fields().first() else { return Ok(()) };
        let is_text = matches!(self.settings.format, MessageFormat::Text);
        let nulls = self.settings.on_bad == OnBadRow::Null && field.is_nullable();
        let mut good = vec![true; run.records.len()];
        let (mut text, mut bytes) = (StringViewBuilder::new(), BinaryBuilder::new());
        for ((record, offset), good) in run.records.iter().zip(offsets).zip(&mut good) {
            let value = run.text.get(record.clone()).unwrap_or_default();
            if !is_text {
                bytes.append_value(value);
                continue;
            }
            match std::str::from_utf8(value) {
                Ok(value) => text.append_value(value),
                Err(error) => {
                    text.append_null();
                    *good = nulls;
                    if nulls {
                        continue;
                    }
                    let reason = format!(
                        "column \"{}\": the message is not valid UTF-8 at its byte {}",
                        field.name(),
                        error.valid_up_to()
                    );
                    let bad = BadRow { offset: *offset, reason, raw: readable(value) };
                    if self.settings.on_bad == OnBadRow::Fail {
                        return Err(bad_row(&bad, origin));
                    }
                    into.bad.push(bad);
                }
            }
        }
        let column: ArrayRef =
            if is_text { Arc::new(text.finish()) } else { Arc::new(bytes.finish()) };
        let column = match good.contains(&false) {
            true => filter(&column, &BooleanArray::from(good.clone()))?,
            false => column,
        };
        let kept = offsets.iter().zip(&good).filter(|(_, good)| **good).map(|(offset, _)| *offset);
        into.offsets.extend(kept);
        let options = RecordBatchOptions::new().with_row_count(Some(column.len()));
        let columns = match self.wanted.fields().first() {
            Some(_) => vec![cast(&column, field.data_type())?],
            None => vec![],
        };
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.wanted), columns, &options)?;
        into.pieces.push(rows);
        Ok(())
    }
}

/// What is known of a message before it is decoded.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    /// Decoded together with its neighbours.
    Good,
    /// Decoded alone.
    Alone,
    Tombstone,
    /// A bad row, which is reported already.
    Refused,
    Bad(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Field, Int64Type};

    fn settings(format: MessageFormat, tombstones: Tombstones) -> MessageSettings {
        let fields = match format {
            MessageFormat::Text => vec![Field::new("v", DataType::Utf8View, true)],
            MessageFormat::Bytes => vec![Field::new("v", DataType::Binary, true)],
            _ => vec![
                Field::new("a", DataType::Int64, true),
                Field::new("b", DataType::Utf8View, true),
            ],
        };
        MessageSettings {
            format,
            declared: Arc::new(Schema::new(fields)),
            rules: NumberRules::default(),
            on_bad: OnBadRow::DeadLetter,
            tombstones,
            row_bytes_max: 100,
        }
    }

    fn csv() -> MessageFormat {
        let style = crate::formats::csv::CsvStyle {
            delimiter: None,
            header: false,
            quote: b'"',
            escape: None,
            null: None,
        };
        MessageFormat::Csv(style.of_file(false).unwrap())
    }

    fn decode(settings: &MessageSettings, values: &[Option<&[u8]>]) -> DecodedMessages {
        settings.check().unwrap();
        let all = (0..settings.declared.fields().len()).collect();
        let mut decoder = MessageDecoder::new(settings, all, 100).unwrap();
        let mut messages = Messages::default();
        // Offsets have gaps.
        for (value, offset) in values.iter().zip((0..).map(|n| 10 + n * 3)) {
            decoder.push(&mut messages, offset, *value);
        }
        let origin = Origin { kind: "partition", name: "t-0", unit: "offset" };
        decoder.decode(&messages, origin).unwrap()
    }

    #[test]
    fn a_message_of_json_is_one_object_whatever_its_lines() {
        let values: &[Option<&[u8]>] = &[
            Some(b"{\"a\":1,\n \"b\":\"x\"}"),
            Some(b"{\"a\":2}\n{\"a\":3}"),
            Some(b""),
            Some(b"{\"a\":4}\x1e{\"a\":5}"),
            Some(b"{\"a\":6"),
            Some(b",\"b\":7}"),
            None,
            Some(b"\xff"),
            Some("{\"b\":\"ü\\u0001\"}".as_bytes()),
            Some(b"{\"a\":9.5}"),
        ];
        let read = decode(&settings(MessageFormat::Json, Tombstones::Skip), values);
        assert_eq!(read.offsets, [10, 34]);
        assert_eq!(read.rows.column(1).as_string_view().value(1), "ü\u{1}");
        let bad: Vec<u64> = read.bad.iter().map(|bad| bad.offset).collect();
        assert_eq!((bad, read.skipped), (vec![13, 16, 19, 22, 25, 31, 37], 1));
        assert_eq!(read.bad[1].reason, "the message is empty");
        assert!(read.bad[0].reason.contains("trailing characters"), "{}", read.bad[0].reason);
        assert!(read.bad[3].reason.contains("cut off"), "{}", read.bad[3].reason);
    }

    #[test]
    fn a_message_of_csv_never_joins_its_neighbours() {
        let values: &[Option<&[u8]>] = &[
            Some(b"1,x"),
            Some(b"2,\"y"),
            Some(b"z\",3\n4,5"),
            Some(b"6,\"two\nlines\"\r\n"),
            Some(b"7"),
            Some(b"8,\xff"),
            Some(b"9,"),
        ];
        let read = decode(&settings(csv(), Tombstones::Skip), values);
        let a: Vec<_> = read.rows.column(0).as_primitive::<Int64Type>().iter().collect();
        assert_eq!((a, read.offsets), (vec![Some(1), Some(6), Some(9)], vec![10, 19, 28]));
        assert_eq!(read.rows.column(1).as_string_view().value(1), "two\nlines");
        assert_eq!(read.bad.len(), 4);
    }

    #[test]
    fn tombstones_are_what_the_stream_says() {
        let values: &[Option<&[u8]>] = &[Some(b"{\"a\":1}"), None, Some(b"{\"a\":2}")];
        let read = decode(&settings(MessageFormat::Json, Tombstones::Null), values);
        assert_eq!((read.offsets, read.rows.column(0).null_count()), (vec![10, 13, 16], 1));
        let read = decode(&settings(MessageFormat::Json, Tombstones::Bad), values);
        assert_eq!((read.offsets, read.bad[0].offset), (vec![10, 16], 13));
    }

    #[test]
    fn whole_values_are_one_column() {
        let long = [b'x'; 101];
        let values: &[Option<&[u8]>] = &[Some(b""), Some(b"\xff"), Some(b"a\n"), Some(&long), None];
        let read = decode(&settings(MessageFormat::Text, Tombstones::Null), values);
        assert_eq!(read.offsets, [10, 16, 22]);
        assert_eq!(read.rows.column(0).as_string_view().value(1), "a\n");
        assert_eq!(read.bad.len(), 2);
        let read = decode(&settings(MessageFormat::Bytes, Tombstones::Null), values);
        assert_eq!(read.offsets, [10, 13, 16, 22]);
        assert_eq!(read.rows.column(0).as_binary::<i32>().value(1), b"\xff");
        assert_eq!(read.bad[0].offset, 19);
    }
}
