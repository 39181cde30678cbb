//! Records of Avro, byte by byte.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Field, Int64Type, Schema};

use super::container::{BlockDecoder, Header};
use super::messages::Framing;
use super::schema::WriterSchema;
use super::*;
use crate::formats::convert::NumberRules;
use crate::formats::decode::{Decoded, OnBadRow, Origin};
use crate::formats::messages::{
    DecodedMessages, MessageDecoder, MessageFormat, MessageSettings, Messages, Tombstones,
};
use crate::formats::typed::Typed;

const SCHEMA: &str = r#"{"type": "record", "name": "r", "namespace": "x", "fields": [
    {"name": "a", "type": "long"},
    {"name": "b", "type": ["null", "string"]},
    {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["x", "y"]}},
    {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}}]}"#;

fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let mut bytes = vec![];
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn bytes(value: &[u8]) -> Vec<u8> {
    [long(i64::try_from(value.len()).unwrap()), value.to_vec()].concat()
}

fn record(a: i64, b: Option<&[u8]>, e: i64, d: &[u8]) -> Vec<u8> {
    let b = b.map_or_else(|| long(0), |b| [long(1), bytes(b)].concat());
    [long(a), b, long(e), bytes(d)].concat()
}

fn good(a: i64) -> Vec<u8> {
    record(a, Some("ü".as_bytes()), 1, &[0x01, 0x2c])
}

fn parse(text: &str) -> Arc<WriterSchema> {
    Arc::new(WriterSchema::parse(text).unwrap())
}

fn settings(framing: Framing, columns: Vec<Field>, on_bad: OnBadRow) -> MessageSettings {
    MessageSettings {
        format: MessageFormat::Avro(framing),
        declared: Arc::new(Schema::new(columns)),
        rules: NumberRules::default(),
        on_bad,
        tombstones: Tombstones::Skip,
        row_bytes_max: 1_000_000,
    }
}

fn decode(settings: &MessageSettings, values: &[Vec<u8>]) -> DecodedMessages {
    settings.check().unwrap();
    let all = (0..settings.declared.fields().len()).collect();
    let mut decoder = MessageDecoder::new(settings, all, 100).unwrap();
    let mut messages = Messages::default();
    for (value, offset) in values.iter().zip((0..).map(|n| 10 + n)) {
        decoder.push(&mut messages, offset, Some(value));
    }
    let origin = Origin { kind: "partition", name: "t-0", unit: "offset" };
    decoder.decode(&messages, origin).unwrap()
}

fn columns() -> Vec<Field> {
    vec![
        Field::new("a", DataType::Int64, false),
        Field::new("b", DataType::Utf8View, true),
        Field::new("E", DataType::Utf8View, true),
        Field::new("d", DataType::Decimal128(10, 2), true),
        Field::new("later", DataType::Boolean, true),
    ]
}

fn numbers(rows: &RecordBatch) -> Vec<i64> {
    rows.column(0).as_primitive::<Int64Type>().values().to_vec()
}

#[test]
fn a_bad_record_costs_itself_alone() {
    let values = [
        good(0),
        good(1)[..5].to_vec(),
        [good(2), vec![0]].concat(),
        [good(3), good(4)].concat(),
        record(5, Some(b"\xff"), 1, &[1]),
        record(6, None, 5, &[1]),
        record(7, None, 0, &[0x30, 0x39]),
        record(i64::MIN, None, 0, &[0xff]),
        vec![],
        b"{\"a\": 1}".to_vec(),
        record(i64::MAX, Some(b""), 0, &[0x7f; 40]),
        [long(11), long(2)].concat(),
        [long(12), long(1), long(1 << 40)].concat(),
        [long(13), long(1), long(-5)].concat(),
        good(14),
    ];
    let settings = settings(Framing::None(parse(SCHEMA)), columns(), OnBadRow::DeadLetter);
    let read = decode(&settings, &values);
    assert_eq!(numbers(&read.rows), [0, i64::MIN, 14]);
    assert_eq!(read.offsets, [10, 17, 24]);
    let bad: Vec<u64> = read.bad.iter().map(|bad| bad.offset).collect();
    assert_eq!(bad, [11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23]);
    let why = |at: usize| read.bad[at].reason.as_str();
    assert!(why(0).contains("cut off"), "{}", why(0));
    assert_eq!(why(1), "there are bytes after the record");
    assert_eq!(why(2), "there are bytes after the record");
    let row = |column: usize| read.rows.column(column).as_string_view();
    assert_eq!((row(1).value(0), row(2).value(0), row(2).value(1)), ("ü", "y", "x"));
    let decimals = read.rows.column(3).as_primitive::<Decimal128Type>();
    assert_eq!((decimals.value(0), decimals.value(1)), (300, -1));
    assert_eq!(read.rows.column(4).null_count(), 3);
    // Alone as in company.
    for (number, value) in values.iter().enumerate() {
        let alone = decode(&settings, std::slice::from_ref(value));
        assert_eq!(alone.rows.num_rows(), usize::from([0, 7, 14].contains(&number)), "{number}");
    }
}

#[test]
fn values_that_do_not_fit_are_bad_whatever_is_read() {
    let mut columns = columns();
    columns[0] = Field::new("a", DataType::Int8, true);
    let schema = parse(SCHEMA);
    let values = [good(1), good(128), good(-128)];
    let mut one = settings(Framing::None(Arc::clone(&schema)), columns, OnBadRow::DeadLetter);
    let mut decoder = MessageDecoder::new(&one, vec![1], 100).unwrap();
    let mut messages = Messages::default();
    for (value, offset) in values.iter().zip(0..) {
        decoder.push(&mut messages, offset, Some(value));
    }
    let origin = Origin { kind: "partition", name: "t-0", unit: "offset" };
    let read = decoder.decode(&messages, origin).unwrap();
    assert_eq!((read.rows.num_columns(), &read.offsets[..]), (1, &[0, 2][..]));
    assert_eq!(read.bad[0].reason, "column \"a\": '128' is not TINYINT");
    one.on_bad = OnBadRow::Null;
    let read = decode(&one, &values);
    assert_eq!((read.offsets.len(), read.rows.column(0).null_count()), (3, 1));
    let text = vec![Field::new("a", DataType::Utf8View, true)];
    let read = decode(&settings(Framing::None(schema), text, OnBadRow::DeadLetter), &values);
    assert_eq!(read.bad.len(), 3);
    let reason = "column \"a\" of the schema is BIGINT, which cannot become VARCHAR";
    assert_eq!(read.bad[0].reason, reason);
}

#[test]
fn single_objects_say_their_schema() {
    let schema = parse(SCHEMA);
    let head = [&[0xC3, 0x01][..], &schema.fingerprint().to_le_bytes()].concat();
    let mut wrong = head.clone();
    wrong[3] ^= 1;
    let values = [
        [head.clone(), good(1)].concat(),
        [wrong, good(2)].concat(),
        good(3),
        head[..9].to_vec(),
        head.clone(),
        [head, good(4)].concat(),
    ];
    let settings = settings(Framing::SingleObject(schema), columns(), OnBadRow::DeadLetter);
    let read = decode(&settings, &values);
    assert_eq!(numbers(&read.rows), [1, 4]);
    assert_eq!(read.bad.len(), 4);
    assert!(read.bad[0].reason.contains("fingerprint"), "{}", read.bad[0].reason);
}

#[test]
fn schemas_that_cannot_be_decoded_are_refused() {
    let of = |field: &str| {
        let text = format!(
            "{{\"type\": \"record\", \"name\": \"r\", \"fields\": [{{\"name\": \"a\", \"type\": {field}}}]}}"
        );
        WriterSchema::parse(&text).map(|_| ()).unwrap_err()
    };
    assert!(of("[\"null\", \"r\"]").contains("contains itself"));
    assert!(of("{\"type\": \"array\", \"items\": \"null\"}").contains("without bytes"));
    assert!(of("\"null\"").contains("no field"));
    assert!(of("\"x.y\"").contains("no type"));
    assert!(of("{\"type\": \"fixed\", \"name\": \"r\", \"size\": 1}").contains("twice"));
    assert!(WriterSchema::parse("\"string\"").unwrap_err().contains("record"));
    assert!(WriterSchema::parse("{").unwrap_err().contains("JSON"));
    let deep =
        format!("{}\"int\"{}", "{\"type\": \"array\", \"items\": ".repeat(500), "}".repeat(500));
    assert!(of(&deep).contains("JSON"));
    // It can be read, and no column has it.
    let union = "{\"type\": \"record\", \"name\": \"r\", \"fields\": [{\"name\": \"u\", \"type\": [\"int\", \"string\"]}, \
                 {\"name\": \"a\", \"type\": \"long\"}]}";
    assert!(parse(union).columns().unwrap_err().contains("\"u\""));
    let a = vec![Field::new("a", DataType::Int64, true)];
    let settings = settings(Framing::None(parse(union)), a, OnBadRow::DeadLetter);
    let read = decode(
        &settings,
        &[[long(0), long(7), long(1)].concat(), [long(1), bytes(b"x"), long(2)].concat()],
    );
    assert_eq!(numbers(&read.rows), [1, 2]);
}

const SYNC: [u8; 16] = [7; 16];

fn file(codec: &str, blocks: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = b"Obj\x01".to_vec();
    file.extend([long(2), bytes(b"avro.codec"), bytes(codec.as_bytes())].concat());
    file.extend([bytes(b"avro.schema"), bytes(SCHEMA.as_bytes()), long(0), SYNC.to_vec()].concat());
    for (count, data) in blocks {
        file.extend(long(i64::try_from(*count).unwrap()));
        file.extend(bytes(data));
        file.extend(SYNC);
    }
    file
}

/// The numbers of a file with their rows, and the bad rows.
type Numbers = (Vec<(u64, i64)>, Vec<u64>);

fn read(file: &[u8]) -> Result<Numbers, String> {
    let header = Arc::new(Header::read(file)?.ok_or("short")?);
    let columns: arrow::datatypes::SchemaRef = Arc::new(Schema::new(columns()));
    let rules = NumberRules::default();
    let asked = (&columns, (0..5).collect());
    let typed = Typed::new(header.schema.fields(), asked, (&rules, OnBadRow::DeadLetter), "it");
    let typed = typed.map_err(|e| e.message().to_owned())?;
    let mut decoder = BlockDecoder::new(Arc::clone(&header));
    let (mut into, mut at, mut row) = (Decoded::default(), header.length, 0);
    while at < file.len() {
        let block = header.block(&file[at..])?.ok_or("cut off")?;
        decoder.decode(block)?.add(row, &typed, &mut into).unwrap();
        at += block.length;
        row += block.count;
    }
    let mut bad: Vec<u64> = into.bad.iter().map(|bad| bad.offset).collect();
    bad.sort_unstable();
    let (rows, offsets, _) = into.into_batch(&columns).unwrap();
    Ok((offsets.into_iter().zip(numbers(&rows)).collect(), bad))
}

#[test]
fn blocks_keep_what_can_be_decoded() {
    let two = [good(0), good(1)].concat();
    let text = [good(2), record(3, Some(b"\xff"), 0, &[1]), good(4)].concat();
    let torn = [good(5), [long(6), long(9)].concat(), good(7)].concat();
    let plain = file("null", &[(2, two.clone()), (0, vec![]), (3, text), (3, torn), (1, good(8))]);
    let rows = vec![(0, 0), (1, 1), (2, 2), (4, 4), (5, 5), (8, 8)];
    assert_eq!(read(&plain).unwrap(), (rows, vec![3, 6, 7]));
    let deflated = {
        use std::io::Write;
        let mut encoder = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(&two).unwrap();
        encoder.finish().unwrap()
    };
    let mut snapped = snap::raw::Encoder::new().compress_vec(&two).unwrap();
    snapped.extend(crc32fast::hash(&two).to_be_bytes());
    let zstd = zstd::encode_all(&two[..], 1).unwrap();
    let both = (vec![(0, 0), (1, 1)], vec![]);
    for (codec, data) in [("deflate", deflated), ("snappy", snapped.clone()), ("zstandard", zstd)] {
        assert_eq!(read(&file(codec, &[(2, data)])).unwrap(), both, "{codec}");
    }
    *snapped.last_mut().unwrap() ^= 1;
    for (codec, count, data) in [
        ("snappy", 2, snapped),
        ("snappy", 2, vec![1]),
        ("zstandard", 2, vec![1]),
        ("null", 1, two.clone()),
        ("null", 0, two.clone()),
        ("null", 1 << 40, two.clone()),
        ("lzma", 2, two.clone()),
    ] {
        assert!(read(&file(codec, &[(count, data)])).is_err(), "{codec} {count}");
    }
    let whole = file("null", &[(2, two)]);
    assert_eq!(read(&whole).unwrap(), both);
    let header = Header::read(&whole).unwrap().unwrap().length;
    for end in 0..whole.len() {
        let some = read(&whole[..end]);
        assert!(some.is_err() || (end == header && some.unwrap().0.is_empty()), "{end}");
    }
    for byte in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x55;
        drop(read(&damaged));
    }
}
